"""Addresses that are never dialled, and those that ``public_only`` refuses too, in all their disguises."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.config.endpoint import Egress
from relay.dispatch.http.egress import refused

ANY = Egress()
PUBLIC = Egress(public_only=True)
ALLOWING = Egress.model_validate({"public_only": True, "allow": ["0.0.0.0/0", "::/0"]})

NEVER = [
    ("169.254.169.254", "metadata"),
    ("169.254.170.2", "metadata"),
    ("168.63.129.16", "metadata"),
    ("100.100.100.200", "metadata"),
    ("192.0.0.192", "metadata"),
    ("169.254.170.23", "metadata"),
    ("169.254.42.42", "metadata"),
    ("169.254.0.23", "metadata"),
    ("fd00:ec2::254", "metadata"),
    ("fd00:ec2::23", "metadata"),
    ("fd20:ce::254", "metadata"),
    ("fd00:c1::a9fe:a9fe", "metadata"),
    ("fd00:42::42", "metadata"),
    ("fd00:a9fe:a9fe::1", "metadata"),
    ("fd00:100::100:200", "metadata"),
    ("fe80::a9fe:a9fe", "metadata"),
    ("169.254.1.1", "link-local"),
    ("fe80::1", "link-local"),
    ("fe80::1%eth0", "link-local"),
    ("0.0.0.0", "unspecified"),
    ("0.1.2.3", "unspecified"),
    ("::", "unspecified"),
    ("224.0.0.1", "multicast"),
    ("239.255.255.250", "multicast"),
    ("ff02::1", "multicast"),
    ("255.255.255.255", "broadcast"),
    ("::ffff:169.254.169.254", "metadata"),
    ("::ffff:0:169.254.169.254", "metadata"),
    ("::169.254.169.254", "metadata"),
    ("64:ff9b::a9fe:a9fe", "metadata"),
    ("64:ff9b:1::a9fe:a9fe", "metadata"),
    ("2002:a9fe:a9fe::1", "metadata"),
    ("2001:0:1234::5601:5601", "metadata"),
    ("::ffff:0.0.0.0", "unspecified"),
    ("64:ff9b::e000:1", "multicast"),
    ("64:ff9b:1:a9fe:a9:fe00:808:808", "metadata"),  # by a prefix of 48 bits, with anything behind it
    ("64:ff9b:1:12a9:fe:a9fe:808:808", "metadata"),  # of 56
    ("64:ff9b:1:1234:a9:fea9:fe08:808", "reserved"),  # of 64: by one of 96, which is tried first
    ("64:ff9b:1:6464:64:c800:808:808", "metadata"),
    ("2001:4860::5efe:a9fe:a9fe", "metadata"),  # ISATAP
    ("fd00::200:5efe:169.254.0.1", "link-local"),
    ("receiver.example", "usual notation"),
]

NOT_PUBLIC = [
    ("10.0.0.1", "private"),
    ("172.16.0.1", "private"),
    ("172.31.255.255", "private"),
    ("192.168.1.1", "private"),
    ("127.0.0.1", "loopback"),
    ("127.255.255.254", "loopback"),
    ("100.64.0.1", "carrier"),
    ("100.127.255.255", "carrier"),
    ("192.0.0.9", "IETF"),
    ("192.88.99.1", "6to4"),
    ("198.18.0.1", "benchmarks"),
    ("198.19.255.255", "benchmarks"),
    ("192.0.2.1", "documentation"),
    ("198.51.100.1", "documentation"),
    ("203.0.113.1", "documentation"),
    ("::1", "loopback"),
    ("fc00::1", "private"),
    ("fd12::1", "private"),
    ("fec0::1", "site-local"),
    ("feff::1", "site-local"),
    ("100::1", "discarding"),
    ("2001:2::1", "IETF"),
    ("2001:10::1", "IETF"),
    ("2001:db8::1", "documentation"),
    ("3fff::1", "documentation"),
    ("5f00::1", "segment"),
    ("4000::1", "not a public"),
    ("::ffff:10.0.0.1", "private"),
    ("::ffff:0:127.0.0.1", "loopback"),
    ("::127.0.0.1", "loopback"),
    ("64:ff9b::a00:1", "private"),
    ("64:ff9b::7f00:1", "loopback"),
    ("64:ff9b:1::808:808", "local NAT64"),
    ("64:ff9b:1:ffff::808:808", "local NAT64"),
    ("2001:4860::5efe:10.0.0.1", "private"),
    ("fd00::5efe:8.8.8.8", "private"),
    ("2002:0a00:0001::1", "private"),
    ("2002:6440:0001::1", "carrier"),
    ("2001:0:1234::80ff:fffe", "loopback"),  # Teredo: 127.0.0.1 with every bit turned over
]

FINE = ["8.8.8.8", "100.128.0.1", "172.32.0.1", "192.0.1.1", "198.20.0.1", "2606:4700::1111", "2001:4860:4860::8888",
        "64:ff9b::808:808", "2002:0808:0808::1", "::ffff:8.8.8.8",
        "2a00:1450:a9fe:a9fe:0:a9fe:a9fe:1"]  # no NAT64: its bits name nothing  # fmt: skip


@pytest.mark.parametrize(("address", "why"), NEVER)
@pytest.mark.parametrize("egress", [ANY, PUBLIC, ALLOWING], ids=["any", "public", "all allowed"])
def test_refused_whatever_the_rules(address: str, why: str, egress: Egress) -> None:
    assert why in (refused(address, egress) or "nothing")


@pytest.mark.parametrize(("address", "why"), NOT_PUBLIC)
def test_refused_where_only_public_ones_are_dialled(address: str, why: str) -> None:
    assert refused(address, ANY) is None
    assert why in (refused(address, PUBLIC) or "nothing")


@pytest.mark.parametrize("address", FINE)
def test_public_addresses_are_fine(address: str) -> None:
    assert refused(address, ANY) is None
    assert refused(address, PUBLIC) is None


@pytest.mark.parametrize(
    ("address", "refuses"),
    [("10.1.2.3", False), ("10.2.0.1", True), ("fd12::1", False), ("::ffff:10.1.2.3", False), ("127.0.0.1", True)],
)
def test_a_network_that_is_allowed(address: str, refuses: bool) -> None:
    egress = Egress.model_validate({"public_only": True, "allow": ["10.1.0.0/16", "fd12::/16"]})
    assert (refused(address, egress) is not None) is refuses


@given(st.ip_addresses(v=4))
def test_no_disguise_makes_a_difference(inner: ipaddress.IPv4Address) -> None:
    number = int(inner)
    disguises = {
        "mapped": 0xFFFF << 32 | number,
        "translated": 0xFFFF << 48 | number,
        "NAT64": 0x64FF9B << 96 | number,
        "6to4": 0x2002 << 112 | number << 80,
        "Teredo": 0x20010000 << 96 | ~number & 0xFFFFFFFF,
    }
    for name, disguise in disguises.items():
        for egress in (ANY, PUBLIC):
            assert refused(str(ipaddress.IPv6Address(disguise)), egress) == refused(str(inner), egress), name


@given(st.ip_addresses())
def test_what_passes_as_public_is_so_for_ipaddress_too(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """A second opinion, in the one direction in which it can be trusted."""
    disguised = isinstance(address, ipaddress.IPv6Address) and (
        address.ipv4_mapped or address.sixtofour or address.teredo or not 2 <= int(address) >> 124 < 4
    )
    if not disguised and refused(str(address), PUBLIC) is None:
        assert address.is_global
