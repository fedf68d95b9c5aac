"""Settings of the gRPC connections; each differs from the default for a reason."""

from __future__ import annotations

from collections.abc import Iterable

_MIB = 1 << 20

PROTOCOL_VERSION = "2"
VERSION_KEY = "mpc-protocol"
LINK_KEY = "mpc-link"
"""Metadata with the name of the link that a session's stream belongs to: 64 hexadecimal digits."""
PROBE_KEY = "mpc-probe"
"""Metadata of a line that is only tried: heartbeats are answered, and no other line gives way to it."""
SERVICE = "mpc_engine.peer.v1.Peer"
SESSION_METHOD = f"/{SERVICE}/Session"
LINE_METHOD = f"/{SERVICE}/Line"
MAX_METADATA_BYTES = 16_384
"""Most metadata of one call. gRPC announces the limit below, but itself takes more from who ignores it."""

_COMMON: list[tuple[str, int]] = [
    # Frames have 1 MiB; anything much larger is refused by its length prefix, before it is stored.
    ("grpc.max_receive_message_length", 4 * _MIB),
    ("grpc.max_send_message_length", 4 * _MIB),
    # Random field elements do not compress, and a compressed message can hide a huge one.
    ("grpc.compression_enabled_algorithms_bitset", 1),
    # A frozen peer is noticed after 25 s. Without the third setting it would take over a minute.
    ("grpc.keepalive_time_ms", 15_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_metadata_size", 8_192),
    ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    # A stream is never resumed on another connection, so a retry could only confuse.
    ("grpc.enable_retries", 0),
]

SERVER_OPTIONS: list[tuple[str, int]] = [
    *_COMMON,
    # Two processes must not share a port unnoticed.
    ("grpc.so_reuseport", 0),
    ("grpc.max_concurrent_streams", 64),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.server_handshake_timeout_ms", 10_000),
]

CLIENT_OPTIONS: list[tuple[str, int | str]] = [
    *_COMMON,
    # The roster names the peer's address; a proxy from the environment must not redirect it.
    ("grpc.enable_http_proxy", 0),
    # One connection for one identity: nothing is shared with another party in this process.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
]


def is_bloated(metadata: Iterable[tuple[str, str | bytes]] | None) -> bool:
    """Tell whether a call came with more metadata than any that is needed."""
    return sum(len(key) + len(value) for key, value in metadata or ()) > MAX_METADATA_BYTES
