"""Which network addresses may be asked: public ones, whatever they are wrapped in."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(text)
    for text in ("0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "240.0.0.0/4",
                 "64:ff9b:1::/48", "fec0::/10")
)  # fmt: skip


class Forbidden(ValueError):
    """An address, a port or a redirect that a download must not follow."""


def unwrapped(address: Address) -> Address:
    """Return the IPv4 address inside an IPv6 one: mapped, 6to4, Teredo, NAT64; else the address itself.

    `ipaddress.is_global` takes 2002:7f00:1:: (6to4 of 127.0.0.1) and 64:ff9b::7f00:1 (NAT64 of it) for public.
    """
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64 or int(address) >> 32 == 0:  # the latter: the old "IPv4-compatible" form
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def is_public(address: Address) -> bool:
    """Tell whether an address belongs to the public internet."""
    inner = unwrapped(address)
    if any(inner in network for network in _NOT_PUBLIC if network.version == inner.version):
        return False
    return inner.is_global and not (inner.is_multicast or inner.is_reserved or inner.is_link_local)


def resolve(host: str, port: int, also: Sequence[Network] = ()) -> str:
    """Resolve a host and return an address to connect to; every address it has must be allowed.

    Connect to the address that is returned and not to the name again, which may then mean another.

    Args:
        also: networks that are allowed beside the public ones, such as a mirror of one's own.

    Raises:
        Forbidden: an address that is not allowed, named.
        OSError: the name cannot be resolved.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise Forbidden(f"{host[:60]!r} is not a host name") from None
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    for address in addresses:
        allowed = any(address.version == network.version and address in network for network in also)
        if not allowed and not is_public(address):
            raise Forbidden(f"{host} is at {address}, which is not a public address")
    return str(addresses[0])
