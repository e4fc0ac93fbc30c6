"""Defines the addresses that are never dialled, whatever name or literal led to them.

URLs come from the operator's own file, so private networks are allowed unless an endpoint is ``public_only``. Always
refused are addresses that no webhook receiver can have, and the clouds' metadata services, which hand out credentials
to any client. ``ipaddress.is_global`` is no substitute: it accepts NAT64, multicast and several of these.
"""

import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from aiohttp.connector import AddrInfoType

from relay.config.endpoint import Egress

_METADATA_4 = tuple(
    IPv4Network(a)
    for a in (
        "169.254.169.254",  # AWS, Google Cloud, Azure, Oracle Cloud, OpenStack, DigitalOcean, Hetzner, Akamai, …
        "169.254.170.2",  # AWS ECS
        "169.254.170.23",  # AWS EKS Pod Identity
        "169.254.42.42",  # Scaleway
        "169.254.0.23",  # Tencent Cloud
        "168.63.129.16",  # Azure's wire server
        "100.100.100.200",  # Alibaba Cloud
        "192.0.0.192",  # Oracle Cloud Classic
    )
)
_METADATA_6 = tuple(
    IPv6Network(a)
    for a in (
        "fd00:ec2::/32",  # AWS: instance metadata at ::254, EKS Pod Identity at ::23, DNS and NTP beside them
        "fd20:ce::254",  # Google Cloud
        "fd00:c1::a9fe:a9fe",  # Oracle Cloud
        "fd00:42::42",  # Scaleway
        "fd00:a9fe:a9fe::1",  # Akamai (Linode)
        "fd00:100::100:200",  # Alibaba Cloud
        "fe80::a9fe:a9fe",  # OpenStack
    )
)
_NEVER_4 = (
    (IPv4Network("0.0.0.0/8"), "an unspecified address"),
    (IPv4Network("169.254.0.0/16"), "a link-local address"),
    (IPv4Network("224.0.0.0/4"), "a multicast address"),
    (IPv4Network("240.0.0.0/4"), "a reserved or broadcast address"),
)
_NEVER_6 = (
    (IPv6Network("::/128"), "an unspecified address"),
    (IPv6Network("fe80::/10"), "a link-local address"),
    (IPv6Network("ff00::/8"), "a multicast address"),
)
# the special-purpose registries of IANA, RFC 6890, without the addresses refused above
_NOT_PUBLIC_4 = (
    (IPv4Network("10.0.0.0/8"), "a private address"),
    (IPv4Network("172.16.0.0/12"), "a private address"),
    (IPv4Network("192.168.0.0/16"), "a private address"),
    (IPv4Network("127.0.0.0/8"), "a loopback address"),
    (IPv4Network("100.64.0.0/10"), "an address behind a carrier's NAT"),
    (IPv4Network("192.0.0.0/24"), "an address of the IETF's protocols"),
    (IPv4Network("192.88.99.0/24"), "a 6to4 relay"),
    (IPv4Network("198.18.0.0/15"), "an address for benchmarks"),
    (IPv4Network("192.0.2.0/24"), "an address for documentation"),
    (IPv4Network("198.51.100.0/24"), "an address for documentation"),
    (IPv4Network("203.0.113.0/24"), "an address for documentation"),
)
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")  # RFC 8215
_NOT_PUBLIC_6 = (
    (IPv6Network("::1/128"), "a loopback address"),
    (IPv6Network("fc00::/7"), "a private address"),
    (IPv6Network("fec0::/10"), "a site-local address"),
    (IPv6Network("100::/64"), "an address for discarding"),
    (_LOCAL_NAT64, "an address of a local NAT64"),
    (IPv6Network("2001::/23"), "an address of the IETF's protocols"),  # includes benchmarking and ORCHIDs
    (IPv6Network("2001:db8::/32"), "an address for documentation"),
    (IPv6Network("3fff::/20"), "an address for documentation"),
    (IPv6Network("5f00::/16"), "an address for segment routing"),
)
_PUBLIC_6 = IPv6Network("2000::/3")
# (network, how far the IPv4 address is shifted left within it)
_DISGUISES = (
    (IPv6Network("::ffff:0:0/96"), 0),  # mapped
    (IPv6Network("::ffff:0:0:0/96"), 0),  # translated, RFC 2765
    (IPv6Network("::/96"), 0),  # compatible, RFC 4291; also holds ::1, which is checked first
    (IPv6Network("64:ff9b::/96"), 0),  # NAT64, RFC 6052
    (_LOCAL_NAT64, 0),
    (IPv6Network("2002::/16"), 80),  # 6to4, RFC 3056
)
_PREFIX_LENGTHS = (48, 56, 64)
"""Prefix lengths of NAT64 within the local prefix, besides 96: the address lies around bits 64 to 71 (RFC 6052)."""
_LINK_LOCAL_4 = IPv4Network("169.254.0.0/16")
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)
"""The first bits of an interface identifier with an IPv4 address in its lower half (RFC 5214)."""
_TEREDO = IPv6Network("2001::/32")
_LOOPBACK_6 = IPv6Address("::1")


class AddressRefused(OSError):
    """A refused dial. It is an ``OSError``, so that the next address of the same name is tried."""


def refused(address: str, egress: Egress) -> str | None:
    """Why this literal IPv4 or IPv6 address is refused under these rules; None if it may be dialled."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return "not an address in its usual notation"
    return _refused(ip, egress)


def guarded_socket(egress: Egress) -> Callable[[AddrInfoType], socket.socket]:
    """Creates the socket of each dial, for aiohttp's ``socket_factory``: it sees every address, literals included.

    It raises ``AddressRefused``. A custom resolver would not work: aiohttp does not resolve a literal.
    """

    def make(info: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = info
        if why := refused(str(address[0]), egress):
            raise AddressRefused(f"{address[0]} is {why}")
        return socket.socket(family, kind, protocol)

    return make


def _refused(ip: IPv4Address | IPv6Address, egress: Egress) -> str | None:
    if never := _never(ip):
        return never
    if not egress.public_only or any(ip in network for network in egress.allow):
        return None
    if isinstance(ip, IPv4Address):
        return _first(_NOT_PUBLIC_4, ip)
    if (tunnelled := _tunnelled(ip)) is not None and (why := _refused(tunnelled, egress)):
        return why
    # the embedded address decides; NAT64 on a local prefix leads to a private network whatever it embeds
    if (inner := _embedded(ip)) is not None and ip not in _LOCAL_NAT64:
        return _refused(inner, egress)
    return _first(_NOT_PUBLIC_6, ip) or (None if ip in _PUBLIC_6 else "not a public address")


def _never(ip: IPv4Address | IPv6Address) -> str | None:
    if _is_metadata(ip):
        return "a cloud's metadata service"
    if isinstance(ip, IPv4Address):
        return _first(_NEVER_4, ip)
    if why := _first(_NEVER_6, ip):
        return why
    hidden = [*filter(None, (_embedded(ip), _tunnelled(ip))), *_translated_locally(ip)]
    return next((why for inner in hidden if (why := _never(inner))), None)


def _is_metadata(ip: IPv4Address | IPv6Address) -> bool:
    return any(ip in network for network in (_METADATA_4 if isinstance(ip, IPv4Address) else _METADATA_6))


def _first(
    ranges: tuple[tuple[IPv4Network, str], ...] | tuple[tuple[IPv6Network, str], ...], ip: IPv4Address | IPv6Address
) -> str | None:
    return next((why for network, why in ranges if ip in network), None)


def _embedded(ip: IPv6Address) -> IPv4Address | None:
    if ip == _LOOPBACK_6:
        return None
    if ip in _TEREDO:  # RFC 4380: the client's address, with every bit inverted
        return IPv4Address(~int(ip) & 0xFFFFFFFF)
    return next((IPv4Address(int(ip) >> shift & 0xFFFFFFFF) for network, shift in _DISGUISES if ip in network), None)


def _tunnelled(ip: IPv6Address) -> IPv4Address | None:
    return IPv4Address(int(ip) & 0xFFFF_FFFF) if int(ip) >> 32 & 0xFFFF_FFFF in _ISATAP else None


def _translated_locally(ip: IPv6Address) -> list[IPv4Address]:
    """The addresses it may embed under each prefix length possible there. The actual length is unknown here, so only
    addresses that hand out credentials are matched: any other bits may be part of the prefix."""
    if ip not in _LOCAL_NAT64:
        return []
    without_gap = int(ip) >> 64 << 56 | int(ip) & (1 << 56) - 1
    hidden = (IPv4Address(without_gap >> 120 - length - 32 & 0xFFFF_FFFF) for length in _PREFIX_LENGTHS)
    return [inner for inner in hidden if inner in _LINK_LOCAL_4 or _is_metadata(inner)]
