"""Which addresses are never dialled, whatever name or literal led to them.

URLs come from the operator's own file, so private networks are fine. What is refused are addresses that no webhook
receiver can have, and the metadata services of the clouds, which hand out credentials to whoever asks.
``ipaddress.is_global`` is no substitute: it passes NAT64, multicast and several of these.
"""

import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from aiohttp.connector import AddrInfoType

_METADATA = frozenset(
    ip_address(a)
    for a in (
        "169.254.169.254",  # AWS, Google Cloud, Azure, OpenStack, DigitalOcean, …
        "169.254.170.2",  # AWS ECS
        "168.63.129.16",  # Azure's wire server
        "100.100.100.200",  # Alibaba Cloud
        "192.0.0.192",  # Oracle Cloud
        "fd00:ec2::254",  # AWS
        "fd20:ce::254",  # Google Cloud
    )
)
_RANGES_4 = (
    (IPv4Network("0.0.0.0/8"), "an unspecified address"),
    (IPv4Network("169.254.0.0/16"), "a link-local address"),
    (IPv4Network("224.0.0.0/4"), "a multicast address"),
    (IPv4Network("240.0.0.0/4"), "a reserved or broadcast address"),
)
_RANGES_6 = (
    (IPv6Network("::/128"), "an unspecified address"),
    (IPv6Network("fe80::/10"), "a link-local address"),
    (IPv6Network("ff00::/8"), "a multicast address"),
)
# (network, how far the IPv4 address is shifted left within it)
_DISGUISES = (
    (IPv6Network("::ffff:0:0/96"), 0),  # mapped
    (IPv6Network("::ffff:0:0:0/96"), 0),  # translated, RFC 2765
    (IPv6Network("::/96"), 0),  # compatible, RFC 4291; holds ::1 too, which is looked at first
    (IPv6Network("64:ff9b::/96"), 0),  # NAT64, RFC 6052
    (IPv6Network("64:ff9b:1::/48"), 0),  # NAT64 on a local prefix, RFC 8215
    (IPv6Network("2002::/16"), 80),  # 6to4, RFC 3056
)
_TEREDO = IPv6Network("2001::/32")
_LOOPBACK_6 = IPv6Address("::1")


class AddressRefused(OSError):
    """A dial that was not made. An ``OSError``, so that another address of the same name gets its turn."""


def refused(address: str) -> str | None:
    """Why this literal IPv4 or IPv6 address is never dialled; None for one that may be."""
    ip = ip_address(address.partition("%")[0])
    if ip in _METADATA:
        return "a cloud's metadata service"
    if isinstance(ip, IPv4Address):
        return next((why for network, why in _RANGES_4 if ip in network), None)
    why = next((why for network, why in _RANGES_6 if ip in network), None)
    if why is None and (inner := _embedded(ip)) is not None:
        return refused(str(inner))
    return why


def _embedded(ip: IPv6Address) -> IPv4Address | None:
    if ip == _LOOPBACK_6:
        return None
    if ip in _TEREDO:  # RFC 4380: the client's address, every bit turned over
        return IPv4Address(~int(ip) & 0xFFFFFFFF)
    return next((IPv4Address(int(ip) >> shift & 0xFFFFFFFF) for network, shift in _DISGUISES if ip in network), None)


def guarded_socket(info: AddrInfoType) -> socket.socket:
    """A socket for one dial, for aiohttp's ``socket_factory``: it sees every address, literals included.

    Raises ``AddressRefused``. A resolver of our own would not do: aiohttp asks none for a literal.
    """
    family, kind, protocol, _, address = info
    if why := refused(str(address[0])):
        raise AddressRefused(f"{address[0]} is {why}")
    return socket.socket(family, kind, protocol)
