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


def test_what_a_broken_sitemap_names_comes_with_a_row_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sitemaps, "MAX_SITEMAP_URLS", 3)
    monkeypatch.setattr(sitemaps, "MAX_SITEMAPS", 3)
    with serving({}) as site:
        long = f"{site.base}/{'x' * 2_000}"
        whole = urlset(f"{site.base}/1", f"{site.base}/2?x=1&y=2", f"{site.base}/3")
        site.pages = dict.fromkeys(("/1", "/2?x=1&y=2", "/3"), (200, HTML, b"page")) | {
            "/whole.xml": (200, XML, whole),
            "/cut.xml": (200, XML, whole[: whole.index(b"/3") + 1]),
            "/cut.xml.gz": (200, XML, gzip.compress(whole)[:-9]),
            "/two.xml.gz": (200, XML, gzip.compress(whole[:99]) + gzip.compress(whole[99:])),
            "/more.txt": (200, XML, "\n".join(f"{site.base}/{n}" for n in (1, 3, 3, 4)).encode()),
            "/long.xml": (200, XML, urlset(f"{site.base}/1", long)),
            "/long-index.xml": (200, XML, index(f"{site.base}/whole.xml", long)),
            "/index.xml": (200, XML, index(*(f"{site.base}/{n}.xml" for n in ("whole", "whole", "long")))),
        }

        def found(name: str) -> tuple[list[str], list[str]]:
            rows = crawled(site, tmp_path, sitemaps=[f"{site.base}/{name}"])
            details = [row["detail"] for row in rows.values() if "reason" in row]
            return [path for path, row in rows.items() if "reason" not in row], details

        assert found("whole.xml") == (["/1", "/2?x=1&y=2", "/3"], [])
        assert found("two.xml.gz") == found("whole.xml")
        assert found("cut.xml") == (["/1", "/2?x=1&y=2"], ["broken XML: Premature end of data in tag loc line 4"])
        assert found("more.txt") == (["/1", "/3"], ["names more than 3 addresses: the others are left"])
        assert found("long.xml") == (["/1"], ["1 links not followed: addresses of more than 2000 characters"])
        assert found("long-index.xml") == (
            ["/1", "/2?x=1&y=2", "/3"],
            ["names sitemaps by addresses of more than 2000 characters"],
        )
        monkeypatch.setattr(sitemaps, "MAX_SITEMAPS", 2)
        assert found("index.xml") == (["/1", "/2?x=1&y=2", "/3"], ["names more than 2 sitemaps"])
        with pytest.raises(UserError, match=r"cut\.xml\.gz cannot be had: the compressed body ends early"):
            found("cut.xml.gz")
        assert not any("x" * 2_000 in path for path in site.asked)


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
        b"<urlset>" + b"<url>" * 100_000,
    ],
)  # fmt: skip
def test_hostile_and_foreign_sitemaps_are_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_sitemap(body, "http://a/")


def test_what_can_be_read_of_a_cut_sitemap_counts() -> None:
    whole = urlset("http://a/first", "http://a/second?x=1&y=2", "http://a/third?x=1&amp;y=2", lastmod="2026-01-01")
    expected = parse_sitemap(whole, "").pages
    assert [page.url for page in expected] == ["http://a/first", "http://a/second?x=1&y=2", "http://a/third?x=1&y=2"]
    for end in range(whole.index(b"</url>") + 6, len(whole)):
        found = parse_sitemap(whole[:end], "")
        urls = [page.url for page in found.pages]
        assert urls == [page.url for page in expected[: len(urls)]], "no half of an address"
        assert len(found.pages) >= whole.count(b"</url>", 0, end)
        assert found.damage


def test_ampersands_in_cdata_stand_for_themselves() -> None:
    pages, _, damage = parse_sitemap(urlset("<![CDATA[http://a/?x=1&y=2&amp=3]]>"), "")
    assert ([page.url for page in pages], damage) == (["http://a/?x=1&y=2&amp=3"], None)


def test_a_sitemap_has_fifty_thousand_addresses_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sitemaps, "MAX_SITEMAP_URLS", 5)
    text = "\n".join(f"http://a/{n}" for n in range(9))
    assert len(parse_sitemap(text.encode(), "")[0]) == len(parse_sitemap(urlset(*text.split()), "")[0]) == 5


@given(st.binary(max_size=300) | st.binary(max_size=100).map(lambda b: b"<urlset><url><loc>http://a/" + b))
def test_any_bytes_are_a_sitemap_or_refused(body: bytes) -> None:
    try:
        pages, indexed, damage = parse_sitemap(body, "http://a/")
    except ValueError:
        return
    assert all(entry.url.startswith("http") for entry in pages)
    assert all(url.startswith("http") for url in indexed)
    assert damage is None or damage.encode()


def test_http_dates_and_lastmod_agree() -> None:
    (entry,) = parse_sitemap(urlset("http://a/", lastmod="2026-03-01T12:30:00+02:00"), "").pages
    assert entry.modified is not None
    assert formatdate(entry.modified, usegmt=True) == "Sun, 01 Mar 2026 10:30:00 GMT"
    assert parse_sitemap(urlset("http://a/", lastmod="yesterday"), "")[0][0].modified is None
