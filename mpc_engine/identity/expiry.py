"""Warnings that a certificate will expire: 60, 30 and 7 days ahead, and afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from mpc_engine.identity.cards import Card
from mpc_engine.identity.certificates import Certificate

WARNING_DAYS = (7, 30, 60)
"""Warnings begin so many days ahead, the most urgent first."""


@dataclass(frozen=True)
class ExpiryWarning:
    """A certificate that ends soon: `within` is 7, 30 or 60 days, or 0 if it has ended."""

    name: str
    within: int
    days: int
    """Whole days that are left, 0 after the end."""
    message: str


def expiry_warning(what: Card | Certificate, now: datetime) -> ExpiryWarning | None:
    """Return the warning that a card or certificate deserves at `now`, None if it has more than 60 days."""
    certificate = what.pinned if isinstance(what, Card) else what
    left = certificate.not_after - now
    end = f"{certificate.not_after:%Y-%m-%d %H:%M} UTC"
    if left <= timedelta(0):
        message = f"the certificate of {certificate.name} expired at {end}: it is refused by everybody"
        return ExpiryWarning(certificate.name, 0, 0, message)
    within = next((days for days in WARNING_DAYS if left <= timedelta(days=days)), None)
    if within is None:
        return None
    message = (
        f"the certificate of {certificate.name} expires in {left.days} days, at {end}: "
        "`mpc-engine party rotate` at that party makes a new one"
    )
    return ExpiryWarning(certificate.name, within, left.days, message)
