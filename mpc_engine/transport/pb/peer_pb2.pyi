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
    __slots__ = ("engine_version", "nonce", "digests", "contributions", "least_threshold", "greatest_epsilon", "snapshot_id")
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
    engine_version: str
    nonce: bytes
    digests: _containers.ScalarMap[str, str]
    contributions: _containers.RepeatedCompositeFieldContainer[KeyContribution]
    least_threshold: int
    greatest_epsilon: str
    snapshot_id: str
    def __init__(self, engine_version: _Optional[str] = ..., nonce: _Optional[bytes] = ..., digests: _Optional[_Mapping[str, str]] = ..., contributions: _Optional[_Iterable[_Union[KeyContribution, _Mapping]]] = ..., least_threshold: _Optional[int] = ..., greatest_epsilon: _Optional[str] = ..., snapshot_id: _Optional[str] = ...) -> None: ...

class Reserve(_message.Message):
    __slots__ = ("session_id", "confirmation", "relayed")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    CONFIRMATION_FIELD_NUMBER: _ClassVar[int]
    RELAYED_FIELD_NUMBER: _ClassVar[int]
    session_id: bytes
    confirmation: bytes
    relayed: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, session_id: _Optional[bytes] = ..., confirmation: _Optional[bytes] = ..., relayed: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Commit(_message.Message):
    __slots__ = ("openings_hash",)
    OPENINGS_HASH_FIELD_NUMBER: _ClassVar[int]
    openings_hash: bytes
    def __init__(self, openings_hash: _Optional[bytes] = ...) -> None: ...

class Pattern(_message.Message):
    __slots__ = ("hash",)
    HASH_FIELD_NUMBER: _ClassVar[int]
    hash: bytes
    def __init__(self, hash: _Optional[bytes] = ...) -> None: ...

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
