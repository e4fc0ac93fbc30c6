"""Addresses that are never dialled, in all their disguises."""

import pytest

from relay.dispatch.egress import refused


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("169.254.169.254", "metadata"),
        ("169.254.170.2", "metadata"),
        ("168.63.129.16", "metadata"),
        ("100.100.100.200", "metadata"),
        ("fd00:ec2::254", "metadata"),
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
    ],
)
def test_refused(address: str, why: str) -> None:
    assert why in (refused(address) or "nothing")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "::1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "fd12::1", "8.8.8.8",
        "2606:4700::1111", "::ffff:10.0.0.1", "64:ff9b::808:808", "2002:0808:0808::1", "2001:4860:4860::8888",
    ],
)  # fmt: skip
def test_public_and_private_addresses_are_fine(address: str) -> None:
    assert refused(address) is None
