"""Finds connections that TLS itself floods: session tickets, key updates, renegotiations.

They are read and decrypted below the connection's protocol, which sees none of them; only the kernel counts them.
"""

import socket
import sys

TLS_WATCH_S = 0.25
"""How often a TLS connection is checked for bytes that belong to no answer."""

TLS_LIMIT = 262_144
"""Bytes that TLS may add between two checks, plus four for each byte carried. Before the first one they are those of
the handshake, in which OpenSSL takes certificates of 100 kB at most."""

_RECEIVED_AT = 128
"""Offset of ``tcpi_bytes_received``, 64 bits, in Linux's ``struct tcp_info`` (since 4.1)."""


class TlsWatch:
    """Compares what came over a connection's wire with what its protocol got of it, from check to check."""

    def __init__(self, wire: socket.socket) -> None:
        self._wire, self._received, self._carried = wire, 0, 0

    def finds_flood(self, carried: int) -> bool | None:
        """Whether far more than the protocol got has come since the last check; ``carried`` is all that it has got.

        None if that cannot be known.
        """
        if (received := _received_on_wire(self._wire)) is None:
            return None
        since, got = received - self._received, carried - self._carried
        self._received, self._carried = received, carried
        return since - got > TLS_LIMIT + 4 * got


def _received_on_wire(wire: socket.socket) -> int | None:
    """Bytes that the kernel has received on a TCP connection; None if it does not report them."""
    if not hasattr(socket, "TCP_INFO"):
        return None
    try:
        info = wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED_AT + 8)
    except OSError:
        return None
    return int.from_bytes(info[_RECEIVED_AT:], sys.byteorder) if len(info) == _RECEIVED_AT + 8 else None
