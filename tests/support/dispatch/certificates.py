"""A private certificate authority and its certificates, made with openssl; and a receiver that sends TLS alerts."""

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


@dataclass(frozen=True)
class Pair:
    cert: Path
    key: Path


class Authority:
    """A private CA; all its files are in ``folder``."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder, self._name = folder, name
        self.cert, self._key = folder / f"{name}.pem", folder / f"{name}.key"
        _openssl("req", "-x509", *_KEY, "-days", "2", "-subj", f"/CN={name}", "-keyout", self._key, "-out", self.cert)

    def sign(self, name: str, *, host: str = "localhost", days: int = 2) -> Pair:
        """A certificate for that host, with its key; with ``days`` -1 an expired one."""
        pair = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        request, names = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        names.write_text(f"subjectAltName=DNS:{host}\n")
        _openssl("req", *_KEY, "-subj", f"/CN={name}", "-keyout", pair.key, "-out", request)
        _openssl(
            *("x509", "-req", "-in", request, "-CA", self.cert, "-CAkey", self._key),
            *("-days", str(days), "-extfile", names, "-out", pair.cert),
        )
        return pair


def server_context(pair: Pair, *, clients: Authority | None = None) -> ssl.SSLContext:
    """A server's context; with ``clients`` it requires a client certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    if clients:
        context.load_verify_locations(clients.cert)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@contextmanager
def alerting(context: ssl.SSLContext) -> Iterator[str]:
    """The URL of a receiver that answers nothing, and says with an alert why it refuses a handshake: asyncio's closes
    the connection without."""

    def handshake(accepted: socket.socket) -> None:
        with accepted, suppress(OSError), context.wrap_socket(accepted, server_side=True) as wrapped:
            wrapped.recv(1)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=handshake, args=[listener.accept()[0]], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"https://localhost:{listener.getsockname()[1]}/hook"
        finally:
            listener.shutdown(socket.SHUT_RDWR)  # ends the accept


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
