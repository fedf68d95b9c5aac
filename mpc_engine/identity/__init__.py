"""Who parties and analysts are: certificates, signing keys, cards, and whose cards are trusted here."""

from __future__ import annotations

from mpc_engine.identity.cards import Card, endorse, load_card, make_card, read_card
from mpc_engine.identity.certificates import (
    CARD_FILE,
    CERTIFICATE_FILE,
    KEY_FILE,
    LONGEST_VALIDITY,
    SIGNING_FILE,
    Certificate,
    Clock,
    fingerprint,
    load_certificate,
    new_certificate,
    read_certificate,
    utc_now,
)
from mpc_engine.identity.expiry import ExpiryWarning, expiry_warning
from mpc_engine.identity.folder import (
    Identity,
    activate,
    create_identity,
    finish,
    load_identity,
    rotate,
    throwaway_identity,
    update_card,
)
from mpc_engine.identity.signing import SigningKey, verify
from mpc_engine.identity.trust import Analyst, Revocation, Standing, Terms, TrustStore

__all__ = [
    "CARD_FILE",
    "CERTIFICATE_FILE",
    "KEY_FILE",
    "LONGEST_VALIDITY",
    "SIGNING_FILE",
    "Analyst",
    "Card",
    "Certificate",
    "Clock",
    "ExpiryWarning",
    "Identity",
    "Revocation",
    "SigningKey",
    "Standing",
    "Terms",
    "TrustStore",
    "activate",
    "create_identity",
    "endorse",
    "expiry_warning",
    "fingerprint",
    "finish",
    "load_card",
    "load_certificate",
    "load_identity",
    "make_card",
    "new_certificate",
    "read_card",
    "read_certificate",
    "rotate",
    "throwaway_identity",
    "update_card",
    "utc_now",
    "verify",
]
