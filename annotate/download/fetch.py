"""Fetches one URL from a world that is hostile: addresses checked at every step, all sizes and times bounded."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

MAX_URL_CHARS = 4096
_REDIRECTS = (301, 302, 303, 307, 308)
_CHUNK = 64 * 1024
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(text)
    for text in ("0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "240.0.0.0/4",
                 "64:ff9b:1::/48", "fec0::/10")
)  # fmt: skip


class Refused(ValueError):
    """The URL gave nothing that may be used; the message says why in one line."""


class TryAgain(Refused):
    """The same request may succeed later: the server was busy, the connection broke, the time ran out."""


@dataclass(frozen=True)
class Limits:
    """What a request may cost and reach.

    Args:
        user_agent: sent with every request.
        timeout_s: for a whole fetch, redirects included.
        max_bytes: of a body.
        max_redirects: followed, each checked like the first URL.
        ports: that may be asked.
        networks: allowed beside public addresses.
    """

    user_agent: str
    timeout_s: float = 20.0
    max_bytes: int = 32 * 2**20
    max_redirects: int = 5
    ports: tuple[int, ...] = (80, 443)
    networks: tuple[Network, ...] = ()


@dataclass(frozen=True)
class Response:
    """A complete answer: headers with lower-case names, repeated ones joined by commas."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes


def fetch(url: str, limits: Limits) -> Response:
    """Get a URL, following redirects; any status that is not a redirect is an answer.

    Raises:
        Refused: not http or https, a forbidden address or port, too many redirects, too large.
        TryAgain: no connection, a broken or late answer.
    """
    deadline = time.monotonic() + limits.timeout_s
    for _ in range(limits.max_redirects + 1):
        response = _get(url, limits, deadline)
        if response.status not in _REDIRECTS or "location" not in response.headers:
            return response
        url = urljoin(url, response.headers["location"])
    raise Refused(f"more than {limits.max_redirects} redirects")


def host_of(url: str) -> str:
    """Return "scheme://host:port" of a URL.

    Raises:
        Refused: not an http or https URL with a host.
    """
    scheme, host, port, _ = _split(url)
    return f"{scheme}://{host}:{port}"


def _split(url: str) -> tuple[str, str, int, str]:
    """Return scheme, host, port and target of a URL."""
    if len(url) > MAX_URL_CHARS or any(ord(c) < 33 or ord(c) == 127 for c in url):
        raise Refused("not a URL: too long, or it holds blanks or control characters")
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme.lower(), parts.hostname, parts.port
    except ValueError as error:
        raise Refused(f"not a URL: {error}") from None
    if scheme not in ("http", "https") or not host:
        raise Refused(f"not an http or https URL: {url[:80]}")
    if parts.username is not None or parts.password is not None:
        raise Refused("a URL with a user name in it")
    try:
        host = host if host.isascii() else host.encode("idna").decode()
    except UnicodeError:
        raise Refused(f"{host[:60]!r} is not a host name") from None
    path, query = (quote(text, safe="/%:=&?~+!$,;'@()*[]|") for text in (parts.path, parts.query))
    return scheme, host, port or (443 if scheme == "https" else 80), f"{path or '/'}{f'?{query}' if query else ''}"


def _get(url: str, limits: Limits, deadline: float) -> Response:
    """Ask once, without following a redirect."""
    scheme, host, port, target = _split(url)
    if port not in limits.ports:
        raise Refused(f"port {port} of {host} is not one of {', '.join(map(str, limits.ports))}")
    connection: http.client.HTTPConnection | None = None
    try:
        address = resolve(host, port, limits.networks)
        raw = socket.create_connection((address, port), timeout=_left(deadline))
        if scheme == "https":
            raw = ssl.create_default_context().wrap_socket(raw, server_hostname=host)
        connection = http.client.HTTPConnection(host, port)
        connection.sock = raw
        headers = {"User-Agent": limits.user_agent, "Accept": "*/*", "Accept-Encoding": "identity"}
        connection.request("GET", target, headers=headers)
        raw.settimeout(_left(deadline))
        answer = connection.getresponse()
        body = b"" if answer.status in _REDIRECTS else _read(answer, raw, limits, deadline)
        return Response(url, answer.status, _joined(answer.getheaders()), body)
    except Forbidden as error:
        raise Refused(str(error)) from None
    except ssl.SSLError as error:
        raise Refused(f"{host}: {_told(error)}") from None
    except (OSError, http.client.HTTPException) as error:
        raise TryAgain(f"{host}: {_told(error)}") from None
    finally:
        if connection is not None:
            connection.close()


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the time for it ran out")
    return left


def _read(answer: Any, raw: socket.socket, limits: Limits, deadline: float) -> bytes:
    """Read a body piece by piece: a server that sends a byte a second must not hold us longer than the limit."""
    if answer.length is not None and answer.length > limits.max_bytes:
        raise Refused(f"{answer.length} bytes is over the limit of {limits.max_bytes}")
    expected = answer.length
    pieces, size = [], 0
    while True:
        raw.settimeout(_left(deadline))
        piece = answer.read1(_CHUNK)
        if not piece:
            break
        size += len(piece)
        if size > limits.max_bytes:
            raise Refused(f"over the limit of {limits.max_bytes} bytes")
        pieces.append(piece)
    if expected is not None and size != expected:
        raise TryAgain(f"{size} of {expected} bytes came")
    if answer.headers.get("Content-Encoding", "identity").lower() not in ("identity", ""):
        raise Refused(f"compressed as {answer.headers['Content-Encoding']}, though asked for as it is")
    return b"".join(pieces)


def _joined(headers: list[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in headers:
        key = name.lower()
        found[key] = f"{found[key]}, {value}" if key in found else value
    return found


def _told(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__} {error}".split())[:160]


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
