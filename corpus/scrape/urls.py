"""URLs: one spelling for each, and which of them may be asked."""

from __future__ import annotations

import ipaddress
import re
import socket
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}


def normalise_url(link: str, base: str = "") -> str | None:
    """The one spelling of a link on a page: absolute, no fragment, no default port. None if it is no web address.

    >>> normalise_url("../topic?key=for#x", "HTTP://Example.COM:80/a/b.html")
    'http://example.com/topic?key=for'
    >>> [normalise_url(link, "http://a/") for link in ("mailto:x@y", "javascript:go()", "file:/etc", "http://[", "")]
    [None, None, None, None, 'http://a/']
    """
    try:
        parts = urlsplit(urljoin(base, link.strip()))
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode("ascii") if parts.hostname else ""
    except (ValueError, UnicodeError):
        return None
    scheme = parts.scheme.lower()
    if scheme not in _DEFAULT_PORTS or not host or re.search(r"[\s<>\"'{}|\\^`@]", host):
        return None
    if ":" in host:
        host = f"[{host}]"
    netloc = host if port in (None, _DEFAULT_PORTS[scheme]) else f"{host}:{port}"
    try:
        path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
        query = quote(parts.query, safe="/%:@!$&'()*+,;=~-._?[]")
    except UnicodeEncodeError:
        return None
    return urlunsplit((scheme, netloc, path, query, ""))


def path_and_query(url: str) -> str:
    """What the allow and deny patterns are matched against.

    >>> path_and_query("http://a.example/topic?key=for")
    '/topic?key=for'
    """
    parts = urlsplit(url)
    return parts.path + (f"?{parts.query}" if parts.query else "")


def wanted(url: str, allow: list[str], deny: list[str]) -> bool:
    """Whether a URL passes the source's patterns (searched, not anchored).

    >>> wanted("http://a/test/x.html", [], ["^/test/"]), wanted("http://a/b.html", [r"\\.html$"], [])
    (False, True)
    """
    target = path_and_query(url)
    if any(re.search(pattern, target) for pattern in deny):
        return False
    return not allow or any(re.search(pattern, target) for pattern in allow)


def refused_address(url: str) -> str | None:
    """The first address of a URL's host that is loopback, private or otherwise not public; None if all are public.

    Raises OSError if the host has no address. The connection looks the name up again, so this stops mistakes and stray
    links, not an attacker who controls the name server.
    """
    parts = urlsplit(url)
    port = parts.port or _DEFAULT_PORTS[parts.scheme]
    for *_, address in socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM):
        if not ipaddress.ip_address(str(address[0]).split("%")[0]).is_global:
            return str(address[0])
    return None
