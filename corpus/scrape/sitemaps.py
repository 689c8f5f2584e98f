"""Sitemaps: XML, text, indexes, gzipped or not. They come from strangers: no entities, and limits to everything."""

from __future__ import annotations

import io
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from typing import NamedTuple

from lxml import etree

from corpus.scrape.fetch import Answer, Fetcher
from corpus.scrape.inflate import inflate
from corpus.scrape.urls import netloc_of, normalise_url, too_long

MAX_SITEMAP_BYTES = 50_000_000  # inflated; this and the next are the limits of sitemaps.org
MAX_SITEMAP_URLS = 50_000
MAX_SITEMAPS = 1_000  # a crawl
MAX_AMPERSANDS = 1_000_000  # mended in a sitemap
_LONE_AMPERSAND = re.compile(rb"&(?!(?:amp|lt|gt|quot|apos|#\d+|#x[0-9A-Fa-f]+);)")


class Entry(NamedTuple):
    """An address in a sitemap, and when it is said to have changed last (seconds since 1970)."""

    url: str
    modified: float | None = None


class Sitemap(NamedTuple):
    """The pages and the further sitemaps that a sitemap names, in its order, and why these may not be all."""

    pages: list[Entry]
    sitemaps: list[str]
    damage: str | None = None


def read_sitemaps(fetcher: Fetcher, addresses: Iterable[str]) -> Iterator[Entry | Answer]:
    """The pages that sitemaps name, and those of the sitemaps that these name; an Answer for each that failed.

    A sitemap that could be read in part gives its pages, and an Answer that has its body as well as a reason.
    """
    queue = deque(dict.fromkeys(addresses))
    seen = set(queue)
    while queue:
        address = queue.popleft()
        answer = fetcher.wait(fetcher.begin(fetcher.fetch(address, types=(), max_bytes=MAX_SITEMAP_BYTES)))
        if answer.reason:
            yield answer
            continue
        try:
            pages, sitemaps, damage = parse_sitemap(fetcher.read(answer), answer.url)
        except ValueError as error:
            yield Answer(address, reason="scrape.error.sitemap", detail=str(error))
            continue
        yield from (Entry(fetcher.public(page.url), page.modified) for page in pages)
        for sitemap in sitemaps:
            if sitemap in seen:
                continue
            if why := too_long(sitemap):
                damage = f"names sitemaps by {why}"
                continue
            if len(seen) >= MAX_SITEMAPS:
                damage = f"names more than {MAX_SITEMAPS} sitemaps"
                break
            seen.add(sitemap)
            if netloc_of(sitemap) == netloc_of(answer.url):
                queue.append(sitemap)
            else:
                yield Answer(sitemap, reason="scrape.error.sitemap", detail=f"on another host than {answer.url}")
        if damage:
            yield replace(answer, url=address, reason="scrape.error.sitemap", detail=damage)


def parse_sitemap(body: bytes, url: str) -> Sitemap:
    """What a sitemap names. Raises ValueError if it is none, or broken before its first address.

    >>> parse_sitemap(b"<urlset><url><loc>http://a/x</loc><lastmod>1970-01-02</lastmod></url></urlset>", "http://a/")
    Sitemap(pages=[Entry(url='http://a/x', modified=86400.0)], sitemaps=[], damage=None)
    >>> parse_sitemap(b"http://a/x http://a/y", "http://a/")[0], parse_sitemap(b"/y", "http://a/")[0]
    ([], [])
    """
    if body.startswith(b"\x1f\x8b"):
        body = _inflate(body)
    if b"\0" in body[:100]:
        raise ValueError("a sitemap is in UTF-8")
    named = _xml(body) if body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") else _text(body)
    found = Sitemap([], [])
    try:
        for kind, location, modified in islice(named, MAX_SITEMAP_URLS):
            address = None if any(c.isspace() for c in location) else normalise_url(location)
            if address and kind == "url":
                found.pages.append(Entry(address, _seconds(modified)))
            elif address:
                found.sitemaps.append(address)
        more = next(named, None)
    except ValueError as error:
        if not found.pages and not found.sitemaps:
            raise
        return found._replace(damage=str(error))
    return (
        found._replace(damage=f"names more than {MAX_SITEMAP_URLS} addresses: the others are left") if more else found
    )


def _inflate(body: bytes) -> bytes:
    inflated = inflate(body, MAX_SITEMAP_BYTES)
    if len(inflated) > MAX_SITEMAP_BYTES:
        raise ValueError(f"inflates to more than {MAX_SITEMAP_BYTES} bytes")
    return inflated


def _text(body: bytes) -> Iterator[tuple[str, str, str]]:
    for line in io.TextIOWrapper(io.BytesIO(body), "utf-8-sig", "replace"):
        if not line.isspace():
            yield "url", line.strip(), ""


def _xml(body: bytes) -> Iterator[tuple[str, str, str]]:
    """Kind (url or sitemap), loc and lastmod of each element, as far as the XML can be read.

    Raises ValueError for what is no sitemap, and after the last element for XML that is broken.
    """
    if b"<![CDATA[" not in body:  # there an ampersand stands for itself
        body = _LONE_AMPERSAND.sub(b"&amp;", body, count=MAX_AMPERSANDS)
    events = etree.iterparse(
        io.BytesIO(body),
        events=("start", "end"),
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        huge_tree=False,
        recover=True,
        remove_comments=True,
        remove_pis=True,
    )
    root = last = None
    try:
        for event, element in events:
            if root is None:
                root = element
                if _local_name(root) not in ("urlset", "sitemapindex"):
                    raise ValueError("neither urlset nor sitemapindex, nor an address a line")
                if root.getroottree().docinfo.internalDTD is not None:
                    raise ValueError("a sitemap has no DOCTYPE")
            if event == "end" and element.getparent() is root:
                if last:
                    yield last
                found = {_local_name(child): (child.text or "").strip() for child in element}
                last = _local_name(element), found.get("loc", ""), found.get("lastmod", "")
                root.remove(element)
    except etree.XMLSyntaxError as error:
        raise ValueError(f"broken XML: {error.msg}") from None
    if root is None:
        raise ValueError("XML without an element")
    errors = events.error_log.filter_from_errors()
    if last and not any(_clips(error, _local_name(root)) for error in errors):
        yield last
    if errors:
        raise ValueError(f"broken XML: {errors[0].message[:200]}")


def _clips(error: etree._LogEntry, root: str) -> bool:
    """Whether the file ends within an element under the root, whose address may then be half of one."""
    return error.type == etree.ErrorTypes.ERR_TAG_NOT_FINISHED and not re.search(rf"[ :]{root} ", error.message)


def _local_name(element: etree._Element) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _seconds(modified: str) -> float | None:
    """A lastmod in seconds since 1970; None if there is none, or none that we understand."""
    try:
        when = datetime.fromisoformat(modified)
    except ValueError:
        return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
