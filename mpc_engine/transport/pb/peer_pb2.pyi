from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Frame(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class KeyContribution(_message.Message):
    __slots__ = ("members", "value")
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    members: bytes
    value: bytes
    def __init__(self, members: _Optional[bytes] = ..., value: _Optional[bytes] = ...) -> None: ...

class Agree(_message.Message):
    __slots__ = ("engine_version", "nonce", "digests", "contributions", "least_threshold", "greatest_epsilon", "snapshot_id", "ticket", "source_digest", "policy_digest", "signing_key", "head", "witnessed")
    class DigestsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ENGINE_VERSION_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    LEAST_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    GREATEST_EPSILON_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_ID_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    SOURCE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    POLICY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIGNING_KEY_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    WITNESSED_FIELD_NUMBER: _ClassVar[int]
    engine_version: str
    nonce: bytes
    digests: _containers.ScalarMap[str, str]
    contributions: _containers.RepeatedCompositeFieldContainer[KeyContribution]
    least_threshold: int
    greatest_epsilon: str
    snapshot_id: str
    ticket: bytes
    source_digest: bytes
    policy_digest: bytes
    signing_key: bytes
    head: Head
    witnessed: _containers.RepeatedCompositeFieldContainer[Witnessed]
    def __init__(self, engine_version: _Optional[str] = ..., nonce: _Optional[bytes] = ..., digests: _Optional[_Mapping[str, str]] = ..., contributions: _Optional[_Iterable[_Union[KeyContribution, _Mapping]]] = ..., least_threshold: _Optional[int] = ..., greatest_epsilon: _Optional[str] = ..., snapshot_id: _Optional[str] = ..., ticket: _Optional[bytes] = ..., source_digest: _Optional[bytes] = ..., policy_digest: _Optional[bytes] = ..., signing_key: _Optional[bytes] = ..., head: _Optional[_Union[Head, _Mapping]] = ..., witnessed: _Optional[_Iterable[_Union[Witnessed, _Mapping]]] = ...) -> None: ...

class Head(_message.Message):
    __slots__ = ("seq", "hash")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    seq: int
    hash: bytes
    def __init__(self, seq: _Optional[int] = ..., hash: _Optional[bytes] = ...) -> None: ...

class Witnessed(_message.Message):
    __slots__ = ("party", "head")
    PARTY_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    party: int
    head: Head
    def __init__(self, party: _Optional[int] = ..., head: _Optional[_Union[Head, _Mapping]] = ...) -> None: ...

class Reserve(_message.Message):
    __slots__ = ("session_id", "confirmation", "relayed", "head", "extension")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    CONFIRMATION_FIELD_NUMBER: _ClassVar[int]
    RELAYED_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    EXTENSION_FIELD_NUMBER: _ClassVar[int]
    session_id: bytes
    confirmation: bytes
    relayed: _containers.RepeatedScalarFieldContainer[bytes]
    head: Head
    extension: bytes
    def __init__(self, session_id: _Optional[bytes] = ..., confirmation: _Optional[bytes] = ..., relayed: _Optional[_Iterable[bytes]] = ..., head: _Optional[_Union[Head, _Mapping]] = ..., extension: _Optional[bytes] = ...) -> None: ...

class Commit(_message.Message):
    __slots__ = ("openings_hash", "party", "head", "signature", "account")
    OPENINGS_HASH_FIELD_NUMBER: _ClassVar[int]
    PARTY_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    openings_hash: bytes
    party: int
    head: Head
    signature: bytes
    account: bytes
    def __init__(self, openings_hash: _Optional[bytes] = ..., party: _Optional[int] = ..., head: _Optional[_Union[Head, _Mapping]] = ..., signature: _Optional[bytes] = ..., account: _Optional[bytes] = ...) -> None: ...

class Pattern(_message.Message):
    __slots__ = ("hash", "relayed")
    HASH_FIELD_NUMBER: _ClassVar[int]
    RELAYED_FIELD_NUMBER: _ClassVar[int]
    hash: bytes
    relayed: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, hash: _Optional[bytes] = ..., relayed: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Signatures(_message.Message):
    __slots__ = ("signature",)
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    signature: _containers.RepeatedCompositeFieldContainer[Signature]
    def __init__(self, signature: _Optional[_Iterable[_Union[Signature, _Mapping]]] = ...) -> None: ...

class Signature(_message.Message):
    __slots__ = ("party", "value")
    PARTY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    party: int
    value: bytes
    def __init__(self, party: _Optional[int] = ..., value: _Optional[bytes] = ...) -> None: ...

class Abort(_message.Message):
    __slots__ = ("reason", "party", "step", "message")
    REASON_FIELD_NUMBER: _ClassVar[int]
    PARTY_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    reason: str
    party: str
    step: str
    message: str
    def __init__(self, reason: _Optional[str] = ..., party: _Optional[str] = ..., step: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...
