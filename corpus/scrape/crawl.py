"""A crawl: breadth first over a site, or down a list of addresses. What comes out does not depend on timing."""

from __future__ import annotations

import contextlib
import functools
import html
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from corpus.documents import DROPPED_TEXT_CHARS, document_id
from corpus.errors import UserError
from corpus.params import Scrape
from corpus.progress import progress
from corpus.scrape.fetch import Answer, Failure, Fetcher, forget_none
from corpus.scrape.files import read_lines
from corpus.scrape.sitemaps import read_sitemaps
from corpus.scrape.urls import (
    netloc_of,
    normalise_url,
    path_and_query,
    root_of,
    too_long,
    trap,
    variants_of,
    wanted,
)
from corpus.sources import SiteSource, UrlsSource, WebSource

MAX_LINKS = 20_000  # of one page that are followed
FRONTIER = 10  # known addresses, as a multiple of max_pages: a hostile page names many
AHEAD = 4  # requests that wait for their turn, as a multiple of those under way
MAX_AHEAD = 1_000


def crawl(
    source: SiteSource, scrape: Scrape, home: Path, forgotten: Callable[[str], bool] = forget_none
) -> Iterator[dict[str, Any]]:
    """Yield a PAGE row for each page of a site and a DROPPED row (with `reason`) for each that could not be had.

    A denied start page is read for its links only. Links that look like traps are counted in a row for each path,
    what is left at max_pages in one row. What is `forgotten` is dropped unasked. Raises UserError if a start page or a
    sitemap named in params cannot be had.
    """
    with Fetcher(source, scrape, home, forgotten) as fetcher, progress(desc=source.name, unit="page") as bar:
        yield from _walk(source, fetcher, bar)


def fetch_urls(
    source: UrlsSource, scrape: Scrape, home: Path, forgotten: Callable[[str], bool] = forget_none
) -> Iterator[dict[str, Any]]:
    """Yield a PAGE or DROPPED row for each of a list of addresses, hosts taking turns. Raises UserError for no list."""
    with Fetcher(source, scrape, home, forgotten) as fetcher, progress(desc=source.name, unit="page") as bar:
        by_host: dict[str, deque[str]] = {}
        for line in dict.fromkeys(read_lines(source.path) if source.path else source.urls):
            url = normalise_url(line)
            if url is None:
                yield _dropped(line, "scrape.error.url", "write it as http://host/path")
            else:
                by_host.setdefault(netloc_of(url), deque()).append(url)
        ahead = _ahead(source, len(by_host))
        queue = _in_turns(by_host)
        tasks = deque(fetcher.begin(fetcher.fetch(url)) for url in islice(queue, ahead))
        while tasks:
            answer = fetcher.wait(tasks.popleft())
            tasks.extend(fetcher.begin(fetcher.fetch(url)) for url in islice(queue, 1))
            bar.update()
            yield _row(source, answer, fetcher.read(answer))


def _walk(source: SiteSource, fetcher: Fetcher, bar: Any) -> Iterator[dict[str, Any]]:
    frontier = Frontier(source)
    starts = _web_addresses(source, "start", source.start)
    yield from _begin(source, fetcher, frontier, starts)
    ahead = _ahead(source, len(frontier.hosts))
    under_way: deque[tuple[str, int, Any]] = deque()
    emitted: set[str] = set()
    must_have = set(starts)
    while (frontier.queue or under_way) and len(emitted) < source.max_pages:
        while frontier.queue and len(under_way) < min(ahead, source.max_pages - len(emitted)):
            url, depth, modified = frontier.queue.popleft()
            task = fetcher.begin(fetcher.fetch(url, permit=frontier.redirect_refused, modified=modified))
            under_way.append((url, depth, task))
        url, depth, task = under_way.popleft()
        answer = fetcher.wait(task)
        bar.update()
        if answer.reason and url in must_have:
            raise UserError(f"sources: {source.name}: {url} cannot be had: {answer.detail or answer.reason}")
        body = fetcher.read(answer)
        if wanted(answer.url, source.allow, source.deny) and answer.url not in emitted:
            emitted.add(answer.url)
            yield _row(source, answer, body)
        if body and depth < source.max_depth and not answer.content_type.startswith("text/plain"):
            for link in links_of(body, answer.url, answer.content_type):
                frontier.add(link, depth + 1)
    left = len(frontier.queue) + len(under_way)
    if left:
        name = starts[0] if starts else source.sitemaps[0]
        yield _dropped(name, "scrape.max_pages", f"{left} known addresses were not asked for", "max_pages")
    for (place, why), count in frontier.traps.items():
        yield _dropped(place, "scrape.trap", f"{count} links not followed: {why}", why)


def _begin(source: SiteSource, fetcher: Fetcher, frontier: Frontier, starts: list[str]) -> Iterator[dict[str, Any]]:
    """Fill the frontier with the start pages and what the sitemaps name; yield a row for each sitemap that failed."""
    named = _web_addresses(source, "sitemaps", [address for address in source.sitemaps if address != "robots"])
    frontier.hosts.update(netloc_of(url) for url in starts + named)
    for url in starts:
        frontier.put(url, 0)
    sitemaps = list(named)
    if "robots" in source.sitemaps:
        if not starts:
            raise UserError(f"sources: {source.name}: sitemaps: robots needs a start page, to know whose robots.txt")
        for url in {netloc_of(url): url for url in starts}.values():
            with contextlib.suppress(Failure):  # the start page fails with it, and says so
                robots = fetcher.wait(fetcher.begin(fetcher.robots_of(url)))
                sitemaps += [u for u in (normalise_url(fetcher.public(s), url) for s in robots.sitemaps) if u]
    for entry in read_sitemaps(fetcher, sitemaps):
        if isinstance(entry, Answer):
            if entry.url in named and not entry.body:
                raise UserError(f"sources: {source.name}: sitemap {entry.url} cannot be had: {entry.detail}")
            yield _dropped(entry.url, entry.reason or "", entry.detail)
        elif not frontier.add(entry.url, 0, entry.modified):
            break


class Frontier:
    """The addresses of a site that are known and not yet asked for, in the order in which they were found."""

    def __init__(self, source: SiteSource) -> None:
        self.source = source
        self.hosts: set[str] = set()
        self.queue: deque[tuple[str, int, float | None]] = deque()  # address, depth, when it changed last
        self.seen: set[str] = set()
        self.variants: Counter[str] = Counter()
        self.traps: Counter[tuple[str, str]] = Counter()  # links not followed, by place and reason
        self.most = FRONTIER * source.max_pages + MAX_LINKS

    def put(self, url: str, depth: int, modified: float | None = None) -> None:
        self.seen.add(url)
        self.queue.append((url, depth, modified))

    def add(self, url: str, depth: int, modified: float | None = None) -> bool:
        """Take an address if the source wants it, it is new and no trap. False: no more can be taken."""
        if len(self.seen) >= self.most:
            return False
        if url in self.seen or netloc_of(url) not in self.hosts or not wanted(url, self.source.allow, self.source.deny):
            return True
        reason = self._trap(url, depth)
        if reason:
            self.traps[reason] += 1  # not in `seen`: it would fill up with them
        else:
            self.put(url, depth, modified)
        return True

    def redirect_refused(self, url: str) -> str | None:
        """Why a redirect to a URL is not followed."""
        if netloc_of(url) not in self.hosts:
            return f"leaves the site for {netloc_of(url)}"
        if not wanted(url, self.source.allow, self.source.deny):
            return f"to {path_and_query(url)}, which the source denies"
        return None

    def _trap(self, url: str, depth: int) -> tuple[str, str] | None:
        why = trap(url) if depth else too_long(url)
        if why:
            return root_of(url), why
        path = variants_of(url) if depth else None  # what a sitemap names was meant
        if path is None:
            return None
        self.variants[path] += 1
        most = self.source.max_variants
        return (path, f"more than {most} queries or dates of one path") if self.variants[path] > most else None


# ---- rows ------------------------------------------------------------------------------------------------------------


def _row(source: WebSource, answer: Answer, body: bytes) -> dict[str, Any]:
    """A page or a dropped row, without what differs from fetch to fetch."""
    if answer.reason:
        return _dropped(answer.url, answer.reason, answer.detail)
    row = {"id": document_id(answer.url), "url": answer.url}
    # Latin-1 gives each byte a character, so that patterns work on pages of any encoding and change nothing else.
    text = body.decode("latin-1")
    if source.soft_error and re.search(source.soft_error, text):
        return row | {"reason": "scrape.error.soft", "detail": source.soft_error, "text": text[:DROPPED_TEXT_CHARS]}
    for pattern in source.scrub:
        text = re.sub(pattern, "", text)
    return row | {"content_type": answer.content_type, "body": text.encode("latin-1")}


def _dropped(url: str, reason: str, detail: str | None, key: str = "") -> dict[str, Any]:
    """A dropped row; with a key for one that stands for many addresses, and so has no page's id."""
    return {
        "id": document_id(f"{key}\0{url}" if key else url),
        "url": url,
        "reason": reason,
        "detail": detail,
        "text": None,
    }


# ---- where to begin --------------------------------------------------------------------------------------------------


def _web_addresses(source: SiteSource, key: str, given: list[str]) -> list[str]:
    """Addresses of params by the names their documents get."""
    base = (source.public_base or "http://localhost/") if source.serve else ""
    urls = []
    for address in given:
        url = normalise_url(address, base)
        if url is None:
            raise UserError(f"sources: {source.name}: {key}: {address!r} is no web address: write http://host/path")
        urls.append(url)
    return list(dict.fromkeys(urls))


def _in_turns(by_host: dict[str, deque[str]]) -> Iterator[str]:
    """The addresses of all hosts, one of each in turn, so that a slow host does not hold up the others.

    >>> list(_in_turns({"a": deque(["a1", "a2", "a3"]), "b": deque(["b1"])}))
    ['a1', 'b1', 'a2', 'a3']
    """
    while by_host:
        for host, urls in list(by_host.items()):
            yield urls.popleft()
            if not urls:
                del by_host[host]


def _ahead(source: WebSource, hosts: int) -> int:
    return min(AHEAD * source.connections * hosts, MAX_AHEAD)


# ---- links -----------------------------------------------------------------------------------------------------------

# One pass that never goes back, whatever the page: each match begins where the last one ended, and a quote or comment
# that is never closed is looked for once.
_TAG = re.compile(r"<(?:!--|(?P<raw>script|style|textarea|xmp|iframe)\b|(?P<link>a|area|base)(?=[\s/]))", re.IGNORECASE)
_RAW_END = {name: re.compile(f"</{name}", re.IGNORECASE) for name in ("script", "style", "textarea", "xmp", "iframe")}
_ATTRIBUTE = re.compile(r"""[\s/]*([^\s/>=]+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s>]*)))?""")
_CHARSET = re.compile(rb"charset\s*=[\s\"']*([\w-]+)", re.IGNORECASE)


def links_of(body: bytes, url: str, content_type: str = "") -> list[str]:
    """The web addresses that a page links to, in order, each once, MAX_LINKS at most.

    >>> links_of(b'<a href="b.html#x">b</a><a href=mailto:a@b>m</a><A x=1 HREF="/?a=1&amp;b=2">', "http://s/a/")
    ['http://s/a/b.html', 'http://s/?a=1&b=2']
    """
    base = ""
    hrefs: dict[str, None] = {}
    for tag, href in _hrefs(_decoded(body, content_type)):
        if tag == "base":
            base = base or normalise_url(href, url) or ""
        elif len(hrefs) < MAX_LINKS:
            hrefs[href] = None
    found = (_absolute(href, base or url) for href in hrefs)
    return list(dict.fromkeys(link for link in found if link))


def _hrefs(text: str) -> Iterator[tuple[str, str]]:
    """Name and href of each a, area and base tag outside comments and scripts."""
    position = 0
    while tag := _TAG.search(text, position):
        position = tag.end()
        if tag["raw"]:
            end = _RAW_END[tag["raw"].lower()].search(text, position)
            position = end.end() if end else len(text)
        elif not tag["link"]:
            end_of_comment = text.find("-->", position - 2)  # `<!-->` is one already
            position = end_of_comment + 3 if end_of_comment >= 0 else len(text)
        else:
            href = None
            while attribute := _ATTRIBUTE.match(text, position):
                position = attribute.end()
                if href is None and attribute[1].lower() == "href":
                    href = attribute[2] or attribute[3] or attribute[4] or ""
            if href is not None:
                yield tag["link"].lower(), html.unescape(href)


def _absolute(href: str, base: str) -> str | None:
    if len(href) > 200:
        return normalise_url(href, base)
    # Most links of a site are the same on each page: then it is only the root that their address depends on.
    if href.startswith(("http:", "https:")) or (href.startswith("/") and not href.startswith("//")):
        base = root_of(base)
    return _normalised(href, base)


_normalised = functools.lru_cache(maxsize=20_000)(normalise_url)


def _decoded(body: bytes, content_type: str) -> str:
    """A page as text, well enough for its links: UTF-8, the charset it declares, or each byte a character."""
    with contextlib.suppress(UnicodeError):
        return body.decode()
    declared = _CHARSET.search(content_type[:1_000].encode("utf-8", "replace")) or _CHARSET.search(body, 0, 4_096)
    charset = declared[1].decode("ascii").lower() if declared else "latin-1"
    with contextlib.suppress(UnicodeError, LookupError):
        return body.decode({"gb2312": "gb18030", "gbk": "gb18030"}.get(charset, charset))
    return body.decode("latin-1")
