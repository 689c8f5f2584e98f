"""Sitemaps of every kind, from a server, and hostile ones."""

from __future__ import annotations

import gzip
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loopback import HTML, Site, serving

from corpus.errors import UserError
from corpus.params import Scrape
from corpus.scrape import sitemaps
from corpus.scrape.crawl import crawl
from corpus.scrape.sitemaps import parse_sitemap
from corpus.sources import SiteSource

XML = {"content-type": "application/xml"}
NAMESPACE = (
    'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9" xmlns:image="http://www.google.com/schemas/sitemap-image/1.1"'
)


def urlset(*locations: str, lastmod: str = "") -> bytes:
    urls = "".join(
        f"<url><image:image><image:loc>http://x/no</image:loc></image:image><loc> {location}\n</loc>"
        f"<lastmod>{lastmod}</lastmod></url>"
        for location in locations
    )
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<!-- x --><urlset {NAMESPACE}>{urls}</urlset>'.encode()


def index(*locations: str) -> bytes:
    named = "".join(f"<sitemap><loc>{location}</loc></sitemap>" for location in locations)
    return f"<sitemapindex {NAMESPACE}>{named}</sitemapindex>".encode()


def crawled(site: Site, home: Path, scrape: Scrape | None = None, **more: Any) -> dict[str, dict[str, Any]]:
    given = {"name": "s", "kind": "site", "delay_s": 0, "private_addresses": True, "max_depth": 0} | more
    rows = crawl(SiteSource.model_validate(given), scrape or Scrape(tries=1), home)
    return {row["url"].removeprefix(site.base): row for row in rows}


def test_indexes_gzip_and_text_are_read_and_failures_are_rows(tmp_path: Path) -> None:
    with serving({}) as site:
        base = site.base
        named = [f"{base}/{s}" for s in ("1.xml", "2.xml.gz", "3.txt", "gone.xml", "bad.xml", "index.xml")]
        pages = urlset(f"{base}/a", f"{base}/b?x=1&amp;utm_source=y", "http://elsewhere.example/", f"{base}/denied")
        zipped = gzip.compress(urlset(f"{base}/c"))
        lines = f"\ufeff{base}/d\n\n not an address\n{base}/a\n"
        site.pages = {f"/{n}": (200, HTML, b"<a href=/deeper>x</a>") for n in "abcdef"} | {
            "/": (200, HTML, b"start"),
            "/robots.txt": (200, {"content-type": "text/plain"}, f"Sitemap: {base}/index.xml\n".encode()),
            "/index.xml": (200, XML, index(*named, "http://other.example/s.xml")),
            "/1.xml": (200, XML, pages),
            "/2.xml.gz": (200, {"content-type": "application/octet-stream"}, zipped),
            "/3.txt": (200, {"content-type": "text/plain"}, lines.encode()),
            "/bad.xml": (200, XML, b"<html>"),
        }
        site.pages["/b?x=1"] = site.pages["/b"]
        rows = crawled(site, tmp_path, start=[f"{base}/"], sitemaps=["robots"], deny=["denied"])
        assert {path: row["reason"] for path, row in rows.items() if "reason" in row} == {
            "/gone.xml": "scrape.error.status",
            "/bad.xml": "scrape.error.sitemap",
            "http://other.example/s.xml": "scrape.error.sitemap",
        }
        assert [path for path in rows if "reason" not in rows[path]] == ["/", "/a", "/b?x=1", "/c", "/d"]
        assert len(site.asked) == len(set(site.asked))
        rows = crawled(site, tmp_path, sitemaps=[f"{base}/1.xml"], allow=["^/a", "^/deeper"], max_depth=1)
        assert list(rows) == ["/a", "/deeper"], "links of its pages count from the sitemap"
        with pytest.raises(UserError, match=r"s: sitemap .*/bad\.xml cannot be had: neither urlset nor sitemapindex"):
            crawled(site, tmp_path, sitemaps=[f"{base}/bad.xml"])
        with pytest.raises(UserError, match="robots needs a start page"):
            crawled(site, tmp_path, sitemaps=["robots"])


def test_a_lastmod_before_the_last_fetch_spares_the_request(tmp_path: Path) -> None:
    with serving({}) as site:
        old, new = urlset(f"{site.base}/old", lastmod="2001-01-01"), urlset(f"{site.base}/new", lastmod="2999-12-31")
        site.pages = dict.fromkeys(("/old", "/new"), (200, HTML, b"page"))
        site.pages |= {"/1.xml": (200, XML, old), "/2.xml": (200, XML, new)}
        given: dict[str, Any] = {"sitemaps": [f"{site.base}/1.xml", f"{site.base}/2.xml"]}
        first = crawled(site, tmp_path, Scrape(as_of="1"), **given)
        assert crawled(site, tmp_path, Scrape(as_of="2"), **given) == first
        assert (site.asked.count("/old"), site.asked.count("/new"), site.asked.count("/1.xml")) == (1, 2, 2)


def test_more_pages_than_wanted_end_the_reading(tmp_path: Path) -> None:
    with serving({}) as site:
        site.pages = {f"/{n}.xml": (200, XML, urlset(f"{site.base}/{n}")) for n in range(20)}
        site.pages |= {f"/{n}": (200, HTML, b"page") for n in range(20)}
        rows = crawled(site, tmp_path, sitemaps=[f"{site.base}/{n}.xml" for n in range(20)], max_pages=2)
        assert [row.get("reason") for row in rows.values()] == [None, None, "scrape.max_pages"]


LAUGHS = '<!DOCTYPE x [<!ENTITY a "haha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">' + "".join(
    f'<!ENTITY {new} "{f"&{old};" * 8}">' for old, new in zip("bcdefghij", "cdefghijk", strict=True)
)


@pytest.mark.parametrize(
    "body",
    [
        f"{LAUGHS}]><urlset><url><loc>http://a/&k;</loc></url></urlset>".encode(),
        f'<?xml version="1.0" encoding="UTF-16"?>{LAUGHS}]><urlset><url><loc>&k;</loc></url></urlset>'.encode("utf-16"),
        b'<!DOCTYPE urlset [<!ENTITY f SYSTEM "file:///etc/passwd">]><urlset><url><loc>http://a/&f;</loc></url></urlset>',
        b'<!DOCTYPE urlset SYSTEM "http://127.0.0.1:1/x.dtd"><urlset><url><loc>http://a/</loc></url></urlset>',
        gzip.compress(bytes(60_000_000)),
        b"\x1f\x8bbroken",
        b"<",
        b"<!-- only a comment -->",
        b"<feed/>",
    ],
)  # fmt: skip
def test_hostile_and_foreign_sitemaps_are_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_sitemap(body, "http://a/")


def test_what_can_be_read_of_a_broken_sitemap_counts() -> None:
    pages, _ = parse_sitemap(urlset("http://a/1", "http://a/2?x=1&y")[:-30], "")
    assert pages[0].url == "http://a/1"
    nested = b"<urlset>" + b"<url>" * 100_000
    assert parse_sitemap(nested, "http://a/") == ([], [])


def test_a_sitemap_has_fifty_thousand_addresses_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sitemaps, "MAX_SITEMAP_URLS", 5)
    text = "\n".join(f"http://a/{n}" for n in range(9))
    assert len(parse_sitemap(text.encode(), "")[0]) == len(parse_sitemap(urlset(*text.split()), "")[0]) == 5


@given(st.binary(max_size=300) | st.binary(max_size=100).map(lambda b: b"<urlset><url><loc>http://a/" + b))
def test_any_bytes_are_a_sitemap_or_refused(body: bytes) -> None:
    try:
        pages, indexed = parse_sitemap(body, "http://a/")
    except ValueError:
        return
    assert all(entry.url.startswith("http") for entry in pages)
    assert all(url.startswith("http") for url in indexed)


def test_http_dates_and_lastmod_agree() -> None:
    (entry,), _ = parse_sitemap(urlset("http://a/", lastmod="2026-03-01T12:30:00+02:00"), "")
    assert entry.modified is not None
    assert formatdate(entry.modified, usegmt=True) == "Sun, 01 Mar 2026 10:30:00 GMT"
    assert parse_sitemap(urlset("http://a/", lastmod="yesterday"), "")[0][0].modified is None
