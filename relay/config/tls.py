"""Loads an endpoint's certificate files as they will be used, so that errors appear before any call."""

import hashlib
import ssl
from functools import cache
from pathlib import Path

from relay.config.files import read_file


def client_context(ca: Path | None, cert: Path | None, key: Path | None) -> ssl.SSLContext:
    """Create a context that trusts ``ca`` in place of the system's authorities and presents ``cert``.

    Raises ``ValueError`` with the file and the problem.
    """
    if ca is None and cert is None:
        return _plain()
    context = _context() if ca is None else trusting(ca)
    if cert is not None:
        present(context, cert, key)
    return context


def trusting(ca: Path) -> ssl.SSLContext:
    """Create a context that trusts only the authorities of a PEM file. Raises ``ValueError``."""
    readable(ca)
    try:
        return _context(ca)
    except ssl.SSLError:
        raise ValueError(f"{ca} has no certificate in PEM; it begins with -----BEGIN CERTIFICATE-----") from None


def _context(ca: Path | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca)
    # Since Python 3.13 it is set, and refuses certificates of many private authorities because of extensions that other
    # clients do not require. Which receivers are trusted must not depend on the Python that the relay runs on.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


@cache
def _plain() -> ssl.SSLContext:
    return _context()  # reading the system's authorities takes some 10 ms


def present(context: ssl.SSLContext, cert: Path, key: Path | None) -> None:
    """Present a client certificate. ``key`` None looks for it in ``cert``. Raises ``ValueError``."""
    readable(cert)
    if key is not None:
        readable(key)

    def refuse() -> str:  # without this, OpenSSL asks for the password on the terminal
        raise ValueError(f"the private key in {key or cert} has a password; write it to a file without one")

    try:
        context.load_cert_chain(cert, key, password=refuse)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError(f"the key in {key or cert} is not that of the certificate in {cert}") from None
        if key is None:
            raise ValueError(
                f"{cert} does not hold a certificate and its key in PEM; name the key's file in key"
            ) from None
        raise ValueError(f"{cert} and {key} are not a certificate and its key; both are files in PEM") from None


def readable(path: Path) -> None:
    """Raises ``ValueError`` for a file that cannot be read."""
    digest(path)


def digest(path: Path) -> bytes:
    """SHA-256 of a file's content. Raises ``ValueError`` for a file that cannot be read."""
    try:
        return hashlib.sha256(read_file(path)).digest()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}; correct the path or the file's mode") from None
