"""A polite crawler: breadth first, robots.txt, one request at a time to a host, every answer kept on disk."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
import time
import zlib
from collections import deque
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx
from protego import Protego
from tqdm import tqdm

from corpus.documents import DROPPED_TEXT_CHARS, document_id
from corpus.errors import UserError
from corpus.params import Scrape
from corpus.scrape.serve import served
from corpus.scrape.urls import normalise_url, path_and_query, refused_address, wanted
from corpus.sources import SiteSource

TRIES = 3
MAX_REDIRECTS = 5
PAGE_TYPES = ("text/html", "application/xhtml+xml", "text/plain")
MAX_ROBOTS_BYTES = 500_000
MAX_CRAWL_DELAY_S = 60.0  # robots.txt may ask for more: a day between two pages would be no crawl
PAGE_TIMEOUTS = 10  # a whole page may take so many times timeout_s, which is for each wait on the server
_NOT_FETCHED = ("name", "rules", "licence", "lang", "batch", "scrub", "soft_error")


@dataclasses.dataclass(frozen=True)
class Answer:
    """What one URL gave: a body, or the reason why not. `url` is the last of its redirects."""

    url: str
    content_type: str = ""
    body: bytes = b""
    reason: str | None = None
    detail: str | None = None


class Cache:
    """Answers by URL, on disk: bodies by content, and an index with a line for each answer.

    A crawl that was killed goes on from here; a half-written last line is fetched again.
    """

    def __init__(self, folder: Path) -> None:
        self.bodies = folder / "bodies"
        self.bodies.mkdir(parents=True, exist_ok=True)
        self.index = folder / "index.jsonl"
        self.known: dict[str, dict[str, Any]] = {}
        if self.index.exists():
            whole, _, torn = self.index.read_bytes().rpartition(b"\n")
            self.known = {entry["asked"]: entry for entry in map(json.loads, whole.splitlines())}
            if torn:
                self.index.write_bytes(whole + b"\n" if whole else b"")

    def get(self, url: str) -> Answer | None:
        entry = self.known.get(url)
        if entry is None:
            return None
        body = (self.bodies / entry["body"]).read_bytes() if entry["body"] else b""
        return Answer(entry["url"], entry["content_type"], body, entry["reason"], entry["detail"])

    def put(self, asked: str, answer: Answer, headers: list[tuple[str, str]]) -> None:
        name = hashlib.blake2b(answer.body, digest_size=16).hexdigest() if answer.body else ""
        if name:
            partial = self.bodies / f".{name}.partial"
            partial.write_bytes(answer.body)
            partial.replace(self.bodies / name)
        entry = dataclasses.asdict(answer) | {"asked": asked, "body": name, "headers": headers, "time": time.time()}
        with self.index.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        self.known[asked] = entry


def crawl(source: SiteSource, scrape: Scrape, home: Path) -> Iterator[dict[str, Any]]:
    """Yield a PAGE row for each page of a site and a DROPPED row (with `reason`) for each that could not be had.

    A denied start page is read for its links only. Raises UserError if a start page cannot be had at all.
    """
    cache = Cache(home / "crawl" / _crawl_key(source, scrape))
    with contextlib.ExitStack() as stack:
        fetcher = stack.enter_context(Fetcher(source, scrape, cache))
        bar = stack.enter_context(tqdm(desc=source.name, unit="page", disable=None))
        yield from _walk(source, fetcher, bar)


def _walk(source: SiteSource, fetcher: Fetcher, bar: Any) -> Iterator[dict[str, Any]]:
    starts = _start_urls(source)
    hosts = {urlsplit(url).netloc for url in starts}
    queue = deque((url, 0) for url in starts)
    seen = set(starts)
    emitted: set[str] = set()
    pages = 0
    while queue and pages < source.max_pages:
        url, depth = queue.popleft()
        answer = fetcher.fetch(url, hosts)
        bar.update()
        if answer.reason and depth == 0:
            raise UserError(f"sources: {source.name}: {url} cannot be had: {answer.detail or answer.reason}")
        links_only = not wanted(answer.url, source.allow, source.deny)
        if not links_only and answer.url not in emitted:
            emitted.add(answer.url)
            pages += 1
            yield _row(source, answer)
        if answer.reason or depth >= source.max_depth or answer.content_type == "text/plain":
            continue
        for link in links_of(answer.body, answer.url):
            if link not in seen and urlsplit(link).netloc in hosts and wanted(link, source.allow, source.deny):
                seen.add(link)
                queue.append((link, depth + 1))


def _row(source: SiteSource, answer: Answer) -> dict[str, Any]:
    """A page or a dropped row, without what differs from fetch to fetch."""
    row: dict[str, Any] = {"id": document_id(answer.url), "url": answer.url}
    if answer.reason:
        return row | {"reason": answer.reason, "detail": answer.detail, "text": None}
    # Latin-1 gives each byte a character, so that patterns work on pages of any encoding and change nothing else.
    text = answer.body.decode("latin-1")
    if source.soft_error and re.search(source.soft_error, text):
        return row | {"reason": "scrape.error.soft", "detail": source.soft_error, "text": text[:DROPPED_TEXT_CHARS]}
    for pattern in source.scrub:
        text = re.sub(pattern, "", text)
    return row | {"content_type": answer.content_type, "body": text.encode("latin-1")}


def _start_urls(source: SiteSource) -> list[str]:
    """The start pages by the names their documents get."""
    base = (source.public_base or "http://localhost/") if source.serve else ""
    urls = []
    for start in source.start:
        url = normalise_url(start, base)
        if url is None:
            raise UserError(f"sources: {source.name}: start: {start!r} is no web address: write http://host/path")
        urls.append(url)
    return list(dict.fromkeys(urls))


def _crawl_key(source: SiteSource, scrape: Scrape) -> str:
    """Hash of all that decides what is fetched. An edit of what is done with the pages fetches nothing again."""
    wanted_pages = source.model_dump(mode="json", exclude=set(_NOT_FETCHED))
    settings = scrape.model_dump(mode="json", exclude={"part_mb"})
    return hashlib.blake2b(json.dumps([wanted_pages, settings], sort_keys=True).encode(), digest_size=16).hexdigest()


class Fetcher:
    """Asks for one page at a time, minding robots.txt and the delay; starts the site's server when it first must."""

    def __init__(self, source: SiteSource, scrape: Scrape, cache: Cache) -> None:
        self.source, self.scrape, self.cache = source, scrape, cache
        self.stack = contextlib.ExitStack()
        self.served_base: str | None = None
        self.robots: dict[str, Protego] = {}
        self.next_time: dict[str, float] = {}

    def __enter__(self) -> Fetcher:
        headers = {"User-Agent": self.scrape.user_agent, "Accept-Encoding": "gzip"}
        # Proxies from the environment are for the outside, not for what we serve ourselves.
        trust = self.source.serve is None
        self.client = self.stack.enter_context(
            httpx.Client(timeout=self.scrape.timeout_s, headers=headers, trust_env=trust)
        )
        return self

    def __exit__(self, *exception: object) -> None:
        self.stack.close()

    def fetch(self, url: str, hosts: set[str]) -> Answer:
        """The answer to a URL, from the cache if it has one. Failures are answers with a reason."""
        cached = self.cache.get(url)
        if cached is None:
            cached, headers = self._follow(url, hosts)
            if not _may_pass(cached):  # otherwise the next run asks again
                self.cache.put(url, cached, headers)
        return cached

    def _follow(self, url: str, hosts: set[str]) -> tuple[Answer, list[tuple[str, str]]]:
        """Follow redirects by hand, so that each hop is checked like a first request."""
        current = url
        for _ in range(MAX_REDIRECTS + 1):
            refusal = self._refuse(current, hosts, first=current == url)
            if refusal:
                return Answer(url, reason=refusal[0], detail=refusal[1]), []
            try:
                status, headers, body = self._get(current, self.source.max_bytes)
            except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
                return Answer(url, reason="scrape.error.fetch", detail=self._public(_say(error))), []
            content_type = headers.get("content-type", "")
            kept = list(headers.items())
            if _redirects(status, headers):
                target = self._target(current, headers)
                if target is None:
                    return Answer(url, reason="scrape.error.redirect", detail="to no web address"), kept
                current = target
                continue
            if status != 200:
                return Answer(url, reason="scrape.error.status", detail=f"status {status}"), kept
            if content_type and content_type.split(";")[0].strip().lower() not in PAGE_TYPES:
                return Answer(url, reason="scrape.content_type", detail=content_type), kept
            if len(body) > self.source.max_bytes:
                return Answer(url, reason="scrape.too_large", detail=f"over {self.source.max_bytes} bytes"), kept
            return Answer(current, content_type, body), kept
        return Answer(url, reason="scrape.error.redirect", detail=f"over {MAX_REDIRECTS} redirects"), []

    def _refuse(self, url: str, hosts: set[str], first: bool) -> tuple[str, str] | None:
        """Why a URL must not be asked: reason and detail."""
        if not first and urlsplit(url).netloc not in hosts:
            return "scrape.error.redirect", f"leaves the site for {urlsplit(url).netloc}"
        if not first and not wanted(url, self.source.allow, self.source.deny):
            return "scrape.error.redirect", f"to {path_and_query(url)}, which the source denies"
        not_public = self._refused_address(url)
        if not_public:
            return "scrape.error.fetch", not_public
        host = urlsplit(url).netloc
        if host not in self.robots:
            try:
                self.robots[host] = self._robots(urljoin(url, "/robots.txt"))
            except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
                return "scrape.error.fetch", self._public(_say(error))
        allowed = self.robots[host].can_fetch(url, self.scrape.user_agent)
        return None if allowed else ("scrape.robots", "robots.txt forbids it")

    def _refused_address(self, url: str) -> str | None:
        """Why the host of a URL must not be asked, by its address."""
        if self.source.serve or self.source.private_addresses:
            return None
        try:
            address = refused_address(url)
        except OSError as error:
            return f"{urlsplit(url).hostname} has no address: {error}"
        return f"{address} is not public: private_addresses: true allows it" if address else None

    def _robots(self, url: str) -> Protego:
        """The robots.txt at a URL or up to five redirects on. None is none; one that fails forbids all (RFC 9309).

        Raises httpx.HTTPError where it fails.
        """
        for _ in range(MAX_REDIRECTS + 1):
            status, headers, body = self._get(url, MAX_ROBOTS_BYTES)
            if status == 429 or status >= 500:
                raise httpx.HTTPError(f"robots.txt: status {status}")
            target = self._target(url, headers) if _redirects(status, headers) else None
            if target is None:
                plain = "html" not in headers.get("content-type", "")  # a soft 404 is no robots.txt
                return Protego.parse(body.decode("utf-8", "replace") if status == 200 and plain else "")
            not_public = self._refused_address(target)
            if not_public:
                raise httpx.HTTPError(f"robots.txt: {not_public}")
            url = target
        return Protego.parse("")

    def _target(self, url: str, headers: httpx.Headers) -> str | None:
        """Where a redirect leads; None if to no web address."""
        return normalise_url(self._public(headers["location"]), url)

    def _get(self, url: str, max_bytes: int) -> tuple[int, httpx.Headers, bytes]:
        """One request, tried again where the connection fails: status, headers, and a byte too many at most."""
        for left in reversed(range(TRIES)):
            self._wait_turn(url)
            try:
                with self.client.stream("GET", self._actual(url)) as response:
                    deadline = time.monotonic() + PAGE_TIMEOUTS * self.scrape.timeout_s
                    body = _body(response, max_bytes, deadline) if response.status_code == 200 else b""
                    return response.status_code, response.headers, body
            except httpx.TransportError:
                if not left:
                    raise
                time.sleep(0.2)
        raise AssertionError("unreachable")

    def _wait_turn(self, url: str) -> None:
        host = urlsplit(url).netloc
        if self.source.serve:
            return
        time.sleep(max(0.0, self.next_time.get(host, 0.0) - time.monotonic()))
        asked = self.robots[host].crawl_delay(self.scrape.user_agent) if host in self.robots else None
        self.next_time[host] = time.monotonic() + max(self.source.delay_s, min(float(asked or 0), MAX_CRAWL_DELAY_S))

    def _actual(self, url: str) -> str:
        """Where a URL really is: for a served site at a port of this run, which nobody else gets to see."""
        if not self.source.serve:
            return url
        if self.served_base is None:
            self.served_base = self.stack.enter_context(served(self.source.serve))
        return self.served_base + path_and_query(url)

    def _public(self, text: str) -> str:
        base = (self.source.public_base or "http://localhost/").rstrip("/")
        return text.replace(self.served_base, base) if self.served_base else text


def _may_pass(answer: Answer) -> bool:
    """Whether a failure is one that a later run may not meet."""
    overloaded = answer.reason == "scrape.error.status" and re.search(r" (429|5\d\d)$", answer.detail or "")
    return answer.reason == "scrape.error.fetch" or bool(overloaded)


def _redirects(status: int, headers: httpx.Headers) -> bool:
    return 300 <= status < 400 and "location" in headers


def _body(response: httpx.Response, max_bytes: int, deadline: float) -> bytes:
    """The body, a byte more than `max_bytes` at most, however far its few bytes would inflate.

    Raises httpx.HTTPError for an encoding that we did not ask for, a broken one, and a body that takes too long.
    """
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip"):
        raise httpx.DecodingError(f"the body comes as {encoding}: gzip was asked for")
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 16) if "gzip" in encoding else None
    body = bytearray()
    for chunk in response.iter_raw():
        if time.monotonic() > deadline:
            raise httpx.HTTPError("the page takes too long")
        room = max_bytes + 1 - len(body)
        try:
            body += inflater.decompress(chunk, room) if inflater else chunk[:room]
        except zlib.error as error:
            raise httpx.DecodingError(f"broken gzip: {error}") from None
        if len(body) > max_bytes:
            break
    return bytes(body)


def _say(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.links: list[str] = []
        self.base: str | None = None

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        href = dict(attributes).get("href")
        if tag in ("a", "area") and href:
            self.links.append(href)
        elif tag == "base" and href and self.base is None:
            self.base = href


def links_of(body: bytes, url: str) -> list[str]:
    """The web addresses that a page links to, in order, each once.

    >>> links_of(b'<a href="b.html#x">b</a><a href=mailto:a@b>m</a><a href="/?a=1&amp;b=2">', "http://s/a/")
    ['http://s/a/b.html', 'http://s/?a=1&b=2']
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        text = body.decode("latin-1")
    parser = _Links()
    with contextlib.suppress(AssertionError):  # its word for `<![foo[`; what came before stands
        parser.feed(text)
    base = normalise_url(parser.base, url) if parser.base else url
    found = (normalise_url(link, base or url) for link in parser.links)
    return list(dict.fromkeys(link for link in found if link))
