"""A party's own configuration, as a TOML or JSON document. Paths in it are relative to it."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Any

from mpc_engine.documents import AfterValidator, Document, Field, broken, load, model_validator
from mpc_engine.errors import DocumentError
from mpc_engine.identity import Identity, TrustStore, load_identity
from mpc_engine.party.policy import Policy, PolicyDocument
from mpc_engine.party.roster import Directory, Roster


class Deadlines(Document):
    """How long this party waits, in seconds: for peers to appear, and for each message."""

    connect_s: Annotated[int, Field(ge=1, le=86_400)] = 60
    round_s: Annotated[int, Field(ge=1, le=86_400)] = 60


def _loopback(address: str) -> str:
    host = address.rpartition(":")[0].strip("[]")
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if not local:
        raise ValueError("must be on this machine only, such as 127.0.0.1:9100: it tells what was asked")
    return address


_Address = Annotated[str, Field(pattern=r"^\S+:[0-9]{1,5}$")]
_Local = Annotated[_Address, AfterValidator(_loopback)]


class Service(Document):
    """The daemon's ports and limits; a port that is left out is not opened.

    `analysts` is where analysts' programs connect, `health` and `metrics` are for this machine. `session_s`
    is the longest time from a session's start to its commit, in seconds; `log` is ``stderr`` or a file.
    """

    analysts: _Address | None = None
    health: _Local | None = None
    metrics: _Local | None = None
    most_sessions: Annotated[int, Field(ge=1, le=64)] = 4
    session_s: Annotated[int, Field(ge=1, le=86_400)] = 900
    log: Annotated[str, Field(min_length=1)] = "stderr"


class PartyConfig(Document):
    """One party's own configuration.

    `policy` is a table, or the name of the policy's own file, which `policy_file` is then. `data` is
    where `mpc-engine data register` put the registered snapshot, at a silo; `dataset` names the data set
    whose budget releases spend, which stays the same from snapshot to snapshot. `listen` is the address this
    party listens on, by default that of its card. `trust` is the folder of the others' cards, `state` that of
    the ledger. With `dev`, for trials, only DEV cards are accepted; without it none is.
    """

    name: str
    roster: str
    codebook: str
    identity: str
    policy: PolicyDocument | None = None
    policy_file: str | None = None
    listen: str | None = None
    data: str | None = None
    mapping: str | None = None
    dataset: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] | None = None
    trust: str = "trust"
    state: str = "state"
    dev: bool = False
    deadlines: Deadlines = Deadlines()
    service: Service = Service()

    @model_validator(mode="before")
    @classmethod
    def _policy_by_name(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("policy"), str):
            if "policy_file" in data:
                raise broken("policy_file", "names the file that `policy` names already; give one of them")
            named = {key: value for key, value in data.items() if key != "policy"}
            return named | {"policy_file": data["policy"]}
        return data

    @model_validator(mode="after")
    def _complete(self) -> PartyConfig:
        if (self.policy is None) == (self.policy_file is None):
            raise broken("policy", "is required: a table, or the name of the file that holds the policy")
        if (self.data is None) != (self.mapping is None):
            raise broken("data", "a silo names both its `mapping` and the folder for its registered `data`")
        return self

    def path(self, relative: str) -> Path:
        """Return a path of this document."""
        return Path(self.origin).parent / relative

    def rules(self) -> PolicyDocument:
        """Return the policy's document, read from its file if it has one. Raises DocumentError."""
        if self.policy is not None:
            return self.policy
        return load(self.path(self.policy_file or ""), PolicyDocument)

    def accepted(self) -> Policy:
        """Return the policy. Raises DocumentError as `rules`."""
        return self.rules().policy()

    def store(self) -> TrustStore:
        """Return the store of the cards that this party trusts."""
        return TrustStore(self.path(self.trust), dev=self.dev)

    def own(self) -> Identity:
        """Return this party's identity. Raises DocumentError, CertificateError if it has expired."""
        folder = self.path(self.identity)
        if _is_empty(folder):
            raise DocumentError(f"{folder}: holds no identity yet; run `mpc-engine party init` to make it")
        identity = load_identity(folder)
        if identity.name != self.name or identity.card.role != "party":
            raise DocumentError(f"{folder}: is the identity of the {identity.card.role} {identity.name}")
        return identity

    def directory(self, roster: Roster) -> Directory:
        """Return the roster's parties with their cards. Raises as `Roster.read` and `own`."""
        return roster.read(self.store(), self.own())

    def check_service(self) -> None:
        """Raise DocumentError if this party could not serve: a silo must name its `dataset`."""
        if self.data is not None and self.dataset is None:
            raise DocumentError(
                f"{self.origin}: dataset: is required at a silo that serves: the name of the data set whose "
                "budget is spent, the same for all its snapshots"
            )


def _is_empty(folder: Path) -> bool:
    """Tell whether a folder is missing or empty; one that cannot be read is neither."""
    try:
        return not any(folder.iterdir())
    except FileNotFoundError:
        return True
    except OSError:
        return False


def load_config(path: str | Path) -> tuple[PartyConfig, Roster]:
    """Return a party's configuration and its roster.

    Raises DocumentError when one is missing or breaks a rule, or when the party is not on the roster
    in the role that its configuration describes.
    """
    config = load(path, PartyConfig)
    config.rules()
    roster = load(config.path(config.roster), Roster)
    entry = roster.party[roster.number(config.name) - 1]
    if entry.silo and config.data is None:
        raise DocumentError(
            f"{path}: the roster has {config.name} as a silo, but no `data` and `mapping` are named"
        )
    if not entry.silo and config.data is not None:
        raise DocumentError(f"{path}: the roster has {config.name} as a helper, but `data` are named")
    return config, roster
