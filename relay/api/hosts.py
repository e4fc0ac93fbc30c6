"""Decides which ``Host`` and ``Origin`` headers are this port's own. Pure."""

from collections.abc import Collection
from ipaddress import ip_address

_LOCAL_SUFFIXES = (".localhost", ".local", ".internal", ".svc")
"""Domains that cannot be registered, so that no web page can be served from them over the internet."""


def foreign_host(header: str | None, own: Collection[str]) -> bool:
    """Whether a ``Host`` header names another site.

    A web page can have its own name resolved to this machine and then read this port as its own origin (DNS rebinding).
    Addresses and names without a registrable domain cannot belong to such a page; nor can a request without the header,
    which browsers always send. ``own``: further names, in lower case, of this port.
    """
    if header is None:
        return False
    name = _hostname(header)
    if "." not in name or name in own or name.endswith(_LOCAL_SUFFIXES):
        return False
    return not _is_address(name)


def unproven_host(header: str | None, own: Collection[str]) -> bool:
    """As ``foreign_host``, for what no token protects: a name of the local network is foreign too.

    Another machine of the network can claim such a name (mDNS, LLMNR), serve a page from it, and then let it resolve to
    this one.
    """
    if header is None:
        return False
    name = _hostname(header)
    return not (name == "localhost" or name in own or _is_address(name))


def foreign_origin(origin: str | None, fetch_site: str | None, host: str | None) -> bool:
    """Whether a web page of another site sent the request.

    ``origin`` is compared with ``host`` without the scheme, because a proxy may serve this port over TLS.
    ``fetch_site``: the header ``Sec-Fetch-Site``, which browsers send where they send no ``Origin``.
    """
    if origin is not None:
        scheme, separator, place = origin.partition("://")
        return not separator or scheme not in ("http", "https") or place.lower() != (host or "").strip().lower()
    return fetch_site is not None and fetch_site not in ("same-origin", "none")


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _hostname(header: str) -> str:
    host = header.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".")
