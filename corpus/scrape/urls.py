"""URLs: one spelling for each, which of them are wanted, which are traps, and which addresses are public."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections import Counter
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

import idna

MAX_URL_CHARS = 2_000
MAX_REPEATS = 3  # of one segment in a path
_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
# What names the visit and not the page.
_SESSION = r"jsessionid|phpsessid|aspsessionid\w*"
_SESSION_IN_PATH = re.compile(rf";({_SESSION})=[^/;]*", re.IGNORECASE)
_TRACKING = re.compile(rf"(utm_\w+|[gdy]clid|fbclid|msclkid|mc_[ce]id|{_SESSION})(=|$)", re.IGNORECASE)
_TRAILING_DATE = re.compile(r"/(19|20)\d\d([/-]\d{1,2}){0,2}/?$")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def normalise_url(link: str, base: str = "") -> str | None:
    """The one spelling of a link on a page (RFC 3986, 6.2). None if it is no web address.

    Absolute; scheme and host in lower case, the host in IDNA, numbers as dotted IPv4; no default port, fragment, user,
    dot segments; escapes in upper case, and none where none is needed; no session ids and no tracking parameters.

    >>> normalise_url("../topic?key=for&utm_source=x#y", "HTTP://Example.COM.:80/a/b.html")
    'http://example.com/topic?key=for'
    >>> normalise_url("http://Bücher.example/%7e%c3%a9/./x;jsessionid=1?a=%"), normalise_url("http://0x7f.1/")
    ('http://xn--bcher-kva.example/~%C3%A9/x?a=%25', 'http://127.0.0.1/')
    >>> [normalise_url(link, "http://a/") for link in ("mailto:x@y", "javascript:go()", "file:/etc", "http://[", "")]
    [None, None, None, None, 'http://a/']
    """
    try:
        parts = urlsplit(urljoin(base, link.strip()))
        scheme, port = parts.scheme.lower(), parts.port
        host = _normal_host(parts.hostname or "")
        path = _normal_escapes(parts.path, "/%:@!$&'()*+,;=~-._")
        query = _normal_escapes(parts.query, "/%:@!$&'()*+,;=~-._?[]")
    except (ValueError, UnicodeError):
        return None
    if scheme not in _DEFAULT_PORTS or not host:
        return None
    netloc = host if port in (None, _DEFAULT_PORTS[scheme]) else f"{host}:{port}"
    path = _without_dot_segments(_SESSION_IN_PATH.sub("", path) if ";" in path else path)
    if query:
        query = "&".join(field for field in query.split("&") if not _TRACKING.match(field))
    return urlunsplit((scheme, netloc, path, query, ""))


def _normal_host(host: str) -> str:
    """A host in lower case and IDNA, an address in its usual spelling. Raises ValueError for what cannot be one."""
    if ":" in host and "%" not in host:  # a zone, as in fe80::1%eth0, is of this machine only
        return f"[{ipaddress.IPv6Address(host)}]"
    host = host.lower() if host.isascii() else idna.encode(host, uts46=True).decode("ascii")
    host = host.removesuffix(".")
    if not _HOST.fullmatch(host):
        raise ValueError(f"{host!r} is no host")
    # As browsers and resolvers read it: 0x7f.1, 0177.0.0.1 and 2130706433 are all 127.0.0.1.
    if re.fullmatch(r"\d+|0x[0-9a-f]*", host.rsplit(".", 1)[-1]):
        try:
            return socket.inet_ntoa(socket.inet_aton(host))
        except OSError as error:
            raise ValueError(f"{host!r} is no address") from error
    return host


def _normal_escapes(text: str, safe: str) -> str:
    """Escape what must be, unescape what need not be, the rest in upper case; a lone percent sign becomes %25."""
    text = quote(text, safe=safe)
    return re.sub(r"%([0-9A-Fa-f]{2})?", _normal_escape, text) if "%" in text else text


def _normal_escape(match: re.Match[str]) -> str:
    if not match[1]:
        return "%25"
    code = int(match[1], 16)
    return chr(code) if code in _UNRESERVED else f"%{code:02X}"


def _without_dot_segments(path: str) -> str:
    """RFC 3986, 5.2.4, for an absolute path.

    >>> _without_dot_segments("/a/./b/../../../c//d/.")
    '/c//d/'
    """
    if "/." not in path:
        return path or "/"
    segments: list[str] = []
    for segment in path.split("/")[1:]:
        if segment == "..":
            del segments[-1:]
        elif segment != ".":
            segments.append(segment)
    ends_in_folder = path.endswith(("/.", "/.."))
    return "/" + "/".join(segments + [""] * (ends_in_folder and bool(segments)))


def root_of(url: str) -> str:
    """The root of a normalised URL's site.

    >>> root_of("http://a.example:8000/b?c")
    'http://a.example:8000/'
    """
    return url[: url.index("/", 8) + 1]


def netloc_of(url: str) -> str:
    """Host and port of a normalised URL.

    >>> netloc_of("http://a.example:8000/b?c")
    'a.example:8000'
    """
    return url[url.index("/") + 2 : url.index("/", 8)]


def path_and_query(url: str) -> str:
    """What the allow and deny patterns are matched against, of a normalised URL.

    >>> path_and_query("http://a.example/topic?key=for")
    '/topic?key=for'
    """
    return url[url.index("/", 8) :]


def wanted(url: str, allow: list[str], deny: list[str]) -> bool:
    """Whether a URL passes the source's patterns (searched, not anchored).

    >>> wanted("http://a/test/x.html", [], ["^/test/"]), wanted("http://a/b.html", [r"\\.html$"], [])
    (False, True)
    """
    target = path_and_query(url)
    if any(re.search(pattern, target) for pattern in deny):
        return False
    return not allow or any(re.search(pattern, target) for pattern in allow)


def too_long(url: str) -> str | None:
    """Why an address is too long to be asked for; None for one that is not.

    >>> too_long("http://a/" + "x" * 2_000), too_long("http://a/x")
    ('addresses of more than 2000 characters', None)
    """
    return f"addresses of more than {MAX_URL_CHARS} characters" if len(url) > MAX_URL_CHARS else None


def trap(url: str) -> str | None:
    """Why a link looks like one of endlessly many: too long, or a path that repeats itself.

    >>> trap("http://a/x/b/x/b/x/b"), trap("http://a/x/b/x/b")
    ('a path that repeats itself', None)
    """
    if why := too_long(url):
        return why
    segments = Counter(segment for segment in urlsplit(url).path.split("/") if segment)
    return "a path that repeats itself" if max(segments.values(), default=0) >= MAX_REPEATS else None


def variants_of(url: str) -> str | None:
    """What a URL is a variant of: the address without its query and without a date at the end of its path.

    Calendars, sort orders and filters have endlessly many. None for an address that has neither query nor date.

    >>> variants_of("http://a/events/2031/07/"), variants_of("http://a/list?page=2"), variants_of("http://a/2031/07/x")
    ('http://a/events', 'http://a/list', None)
    """
    path, _, query = url.partition("?")
    undated = _TRAILING_DATE.sub("", path)
    return undated if query or undated != path else None


def is_public(address: str) -> bool:
    """Whether an IP address is one of the open internet, also where it wraps an IPv4 address (mapped, 6to4, NAT64).

    >>> [is_public(a) for a in ("8.8.8.8", "10.0.0.1", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "224.0.0.1")]
    [True, False, False, False, False, False]
    """
    ip = ipaddress.ip_address(address.split("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inside = ip.ipv4_mapped or ip.sixtofour or (ipaddress.IPv4Address(int(ip) % 2**32) if ip in _NAT64 else None)
        if inside:
            return is_public(str(inside))
        if ip.is_site_local:
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def refused_address(url: str) -> str | None:
    """The address of a URL whose host is written as one that is not public; None for other addresses and for names.

    >>> refused_address("http://[::1]:8000/x"), refused_address("http://8.8.8.8/"), refused_address("http://localhost/")
    ('::1', None, None)
    """
    host = urlsplit(url).hostname or ""
    try:
        return None if is_public(host) else host
    except ValueError:
        return None
