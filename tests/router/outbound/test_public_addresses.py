"""Which addresses are public, and that no other gets a socket."""

from __future__ import annotations

import socket

import psutil
import pytest

from router.outbound import public_http
from router.outbound.public_http import (
    PrivateAddressError,
    is_public,
    is_this_machine,
    open_public_socket,
)

pytestmark = pytest.mark.slow

PUBLIC = ("93.184.215.14", "2606:2800:21f:cb07::1", "64:ff9b::5db8:d70e", "::ffff:93.184.215.14")
PRIVATE = (
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "0.1.2.3",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",  # metadata of most clouds
    "192.0.0.192",  # of one
    "100.100.100.200",  # of another
    "168.63.129.16",  # a cloud's machine agent, at an address that looks public
    "fd00:ec2::254",  # metadata by IPv6
    "100.64.0.1",
    "192.88.99.1",
    "198.18.0.1",
    "203.0.113.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::1%lo",
    "::7f00:1",  # IPv4-compatible
    "::ffff:127.0.0.1",  # mapped
    "::ffff:10.0.0.1",
    "::ffff:0:127.0.0.1",  # translated
    "64:ff9b::7f00:1",  # NAT64
    "64:ff9b:1::7f00:1",  # NAT64 of one network
    "2002:7f00:1::",  # 6to4
    "2002:5db8:d70e::1",
    "2001::5db8:d70e",  # Teredo
    "100::1",
    "2001:db8::1",
    "3fff::1",
    "5f00::1",
    "fd00::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
)


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_public(address: str) -> None:
    """And what carries such an address."""
    assert is_public(address)


@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_not_public(address: str) -> None:
    """Loopback, private, link-local, shared, multicast, reserved, and what may carry one."""
    assert not is_public(address)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sockaddr = (address, 80, 0, 0) if ":" in address else (address, 80)
    with pytest.raises(PrivateAddressError):
        open_public_socket((family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", sockaddr))


def test_this_machines_own_addresses() -> None:
    """Whatever they are: a public one too is no way around the firewall in front of it."""
    own = [a.address for found in psutil.net_if_addrs().values() for a in found]
    mine = [a.partition("%")[0] for a in own if a.count(".") == 3 or "::" in a]
    assert mine
    assert all(is_this_machine(a) for a in mine if not a.startswith("fe80"))
    assert not is_this_machine("93.184.215.14")
    assert not is_this_machine("255.255.255.255")  # the kernel does not even try


@pytest.mark.parametrize("address", [("93.184.215.14", 80), ("2606:2800:21f:cb07::1", 80, 0, 0)])
def test_a_public_address_gets_its_socket(address: tuple[str, int]) -> None:
    """Of the family, kind and protocol that were asked for, and not connected."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    for kind, protocol in (
        (socket.SOCK_STREAM, socket.IPPROTO_TCP),
        (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    ):
        with open_public_socket((family, kind, protocol, "", address)) as opened:
            assert (opened.family, opened.type, opened.proto) == (family, kind, protocol)
            with pytest.raises(OSError):
                opened.getpeername()


def test_what_is_no_address_gets_no_socket() -> None:
    """As one that is not public."""
    with pytest.raises(PrivateAddressError):
        open_public_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("a.example", 80)))


def test_its_own_public_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback stands for it here."""
    monkeypatch.setattr(public_http, "is_public", lambda _: True)
    info = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", 80))
    with pytest.raises(PrivateAddressError):
        open_public_socket(info)
