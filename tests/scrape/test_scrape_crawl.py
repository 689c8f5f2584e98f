"""The crawler against a real server on the loopback."""

from __future__ import annotations

import contextlib
import gc
import gzip
import shutil
import time
import tracemalloc
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from loopback import HTML, Site, serving

from corpus.errors import UserError
from corpus.params import Scrape
from corpus.scrape.crawl import crawl, fetch_urls, links_of
from corpus.scrape.serve import served
from corpus.sources import SiteSource, UrlsSource

INDEX = (
    b"<a href=/a.html>a</a><a href='b.html#x'>b</a><a href=/secret.html>s</a><a href=/big.html>big</a>"
    b"<a href=/png>p</a>"
    b"<a href=/nowhere>n</a><a href=/gone>g</a><a href=/hop>h</a><a href=/away>w</a><a href='mailto:x@y'>m</a><a href='http://['>broken</a>"
    b"<a href='http://elsewhere.example/'>e</a><a href=/denied.html>d</a><a href=/soft>t</a>"
)
PAGES: dict[str, Any] = {
    "/": (200, HTML, INDEX),
    "/robots.txt": (200, {"content-type": "text/plain"}, b"User-agent: *\nDisallow: /secret.html\n"),
    "/a.html": (200, HTML, b"<p>page a 0x7f00aa <a href=/deep.html>deep</a>"),
    "/b.html": (200, HTML, "<p>页 b".encode("gbk")),
    "/deep.html": (200, HTML, b"deep"),
    "/big.html": (200, HTML, b"x" * 5_000),
    "/png": (200, {"content-type": "image/png"}, b"\x89PNG"),
    "/hop": (302, {"location": "/landed.html"}, b""),
    "/landed.html": (200, HTML, b"landed"),
    "/away": (302, {"location": "http://10.0.0.1/"}, b""),
    "/nowhere": (302, {"location": "http://["}, b""),
    "/denied.html": (200, HTML, b"denied"),
    "/soft": (200, HTML, b"<title>Error - no such thing</title>"),
}
ONCE = Scrape(tries=1)


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(dict(PAGES)) as site:
        yield site


def source(base: str, **more: Any) -> SiteSource:
    given = {"name": "s", "kind": "site", "start": [base + "/"], "delay_s": 0, "max_bytes": 2_000} | more
    return SiteSource.model_validate({"private_addresses": True} | given)


def test_every_link_ends_as_page_or_reason(site: Site, tmp_path: Path) -> None:
    wanted = source(site.base, deny=["^/denied"], soft_error="<title>Error", scrub=["0x[0-9a-f]+"])
    rows = {row["url"].removeprefix(site.base): row for row in crawl(wanted, Scrape(), tmp_path)}
    assert {path: row["reason"] for path, row in rows.items() if "reason" in row} == {
        "/secret.html": "scrape.robots",
        "/big.html": "scrape.too_large",
        "/png": "scrape.content_type",
        "/gone": "scrape.error.status",
        "/away": "scrape.error.redirect",
        "/nowhere": "scrape.error.redirect",
        "/soft": "scrape.error.soft",
    }
    assert set(rows) - {path for path in rows if "reason" in rows[path]} == {
        "/",
        "/a.html",
        "/b.html",
        "/deep.html",
        "/landed.html",
    }
    assert rows["/b.html"]["body"] == "<p>页 b".encode("gbk"), "bodies stay as they are"
    assert b"0x7f" not in rows["/a.html"]["body"]
    assert "/denied.html" not in site.asked
    assert "/secret.html" not in site.asked


def test_rows_and_their_order_do_not_depend_on_the_number_of_connections(site: Site, tmp_path: Path) -> None:
    alone = list(crawl(source(site.base), Scrape(), tmp_path / "alone"))
    count = len(site.log)
    assert list(crawl(source(site.base, connections=8), Scrape(), tmp_path / "together")) == alone
    assert sorted(site.asked[count:]) == sorted(set(site.asked[:count])), "once each, also where a redirect leads"
    assert [row["url"].removeprefix(site.base) for row in alone[:4]] == ["/", "/a.html", "/b.html", "/secret.html"]


def test_a_second_crawl_asks_nothing_and_a_new_as_of_asks_again(site: Site, tmp_path: Path) -> None:
    first = list(crawl(source(site.base), Scrape(), tmp_path))
    count = len(site.log)
    assert list(crawl(source(site.base, licence="CC0"), Scrape(), tmp_path)) == first
    assert len(site.log) == count
    list(crawl(source(site.base), Scrape(as_of="2030-01-01"), tmp_path))
    assert len(site.log) == 2 * count


def test_edited_settings_fetch_only_what_is_new(site: Site, tmp_path: Path) -> None:
    list(crawl(source(site.base, deny=["^/denied", "^/a"], max_depth=1), Scrape(), tmp_path))
    before = len(site.log)
    list(crawl(source(site.base, name="other", max_bytes=4_000), Scrape(), tmp_path))
    assert sorted(site.asked[before:]) == ["/a.html", "/away", "/big.html", "/deep.html", "/denied.html"]
    before = len(site.log)
    assert any(row.get("body") == b"x" * 5_000 for row in crawl(source(site.base, max_bytes=6_000), Scrape(), tmp_path))
    assert site.asked[before:] == ["/big.html"], "it was cut before"
    rows = {row["url"]: row for row in crawl(source(site.base, max_bytes=4_999), Scrape(), tmp_path)}
    assert rows[site.base + "/big.html"]["reason"] == "scrape.too_large"
    assert len(site.log) == before + 1


def test_a_failure_is_asked_for_again(site: Site, tmp_path: Path) -> None:
    for broken in ("/robots.txt", "/"):
        site.pages[broken] = (503, HTML, b"")
        with pytest.raises(UserError, match="status 503"):
            list(crawl(source(site.base), ONCE, tmp_path))
        site.pages[broken] = PAGES[broken]
    site.pages["/a.html"] = (429, HTML, b"")
    first = {row["url"]: row for row in crawl(source(site.base), ONCE, tmp_path)}
    assert first[site.base + "/a.html"]["reason"] == "scrape.error.status"
    site.pages["/a.html"] = PAGES["/a.html"]
    again = {row["url"]: row for row in crawl(source(site.base, name="other"), ONCE, tmp_path)}
    assert b"page a" in again[site.base + "/a.html"]["body"]
    assert site.asked.count("/b.html") == 1, "a new name fetches nothing again"


def test_compressed_bodies_stay_small(site: Site, tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    bodies = {
        "/a.html": ("gzip", gzip.compress(b"<p>small")),
        "/b.html": ("gzip", bomb),
        "/landed.html": ("gzip, gzip", gzip.compress(bomb)),
        "/soft": ("gzip", b"no gzip"),
        "/deep.html": ("gzip", gzip.compress(b"<p>two ") + gzip.compress(b"members")),
        "/png": ("gzip", gzip.compress(b"<p>cut")[:-9]),
        "/gone": ("gzip", b""),
    }
    for path, (encoding, body) in bodies.items():
        site.pages[path] = (200, HTML | {"content-encoding": encoding}, body)
    site.pages["/"] = (200, HTML, INDEX + b"<a href=/deep.html>deep</a>")
    list(crawl(source(site.base, max_pages=1), Scrape(), tmp_path))  # what is imported late is not the bodies'
    tracemalloc.start()
    rows = {row["url"].removeprefix(site.base): row for row in crawl(source(site.base), Scrape(), tmp_path)}
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()
    assert rows["/a.html"]["body"] == b"<p>small"
    assert rows["/b.html"]["reason"] == "scrape.too_large"
    assert rows["/hop"]["reason"] == rows["/soft"]["reason"] == "scrape.error.fetch"
    assert rows["/deep.html"]["body"] == b"<p>two members"
    assert (rows["/png"]["reason"], rows["/png"]["detail"]) == ("scrape.error.fetch", "the compressed body ends early")
    assert rows["/gone"]["body"] == b"", "an empty page needs no header of gzip"


def test_a_stopped_crawl_goes_on_where_it_was(site: Site, tmp_path: Path) -> None:
    crawling = crawl(source(site.base), Scrape(), tmp_path)
    started = [next(crawling) for _ in range(3)]
    crawling.close()  # type: ignore[attr-defined]
    rows = list(crawl(source(site.base), Scrape(), tmp_path))
    assert rows[:3] == started
    assert site.asked.count("/a.html") == 1


def test_a_crawl_that_nobody_goes_on_with_ends_in_silence(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As with --limit: what is under way is cancelled before what it goes over is closed."""
    rows = crawl(source(site.base, connections=8), ONCE, tmp_path)
    next(rows), next(rows)
    rows.close()  # type: ignore[attr-defined]
    gc.collect()
    assert caplog.text == ""


def test_max_pages_says_what_was_left(site: Site, tmp_path: Path) -> None:
    *pages, last = crawl(source(site.base, max_pages=3), Scrape(), tmp_path)
    assert [row["url"].removeprefix(site.base) for row in pages] == ["/", "/a.html", "/b.html"]
    assert (last["reason"], last["detail"]) == ("scrape.max_pages", "10 known addresses were not asked for")
    assert site.asked == ["/robots.txt", "/", "/a.html", "/b.html"]


def test_traps_are_counted_not_followed(site: Site, tmp_path: Path) -> None:
    def deeper(handler: Any) -> Any:
        path, _, query = handler.path.partition("?")
        month = int(path.rstrip("/").rpartition("/")[2] or 0) if path.startswith("/events/") else 0
        links = {
            "/loop/": ["a/b/"],
            "/list": [f"/list?page={int(query[5:] or 1) + n}" for n in range(1, 4)] if query else [],
            "/events/": [f"/events/2031/{month + n}" for n in range(1, 4)],
        }
        found = [link for start, more in links.items() if path.startswith(start) for link in more]
        return 200, HTML, "".join(f"<a href='{link}'>x</a>" for link in found).encode()

    class Endless(dict[str, Any]):
        def get(self, path: str, default: Any = None) -> Any:
            return super().get(path, deeper)

    start = b"<a href=/loop/>l</a><a href='/list?page=1'>p</a><a href=/events/2031/1>e</a><a href='/%s'>x</a>"
    site.pages = Endless({"/robots.txt": (404, HTML, b""), "/": (200, HTML, start % (b"x" * 2_000))})
    rows = list(crawl(source(site.base, max_variants=20, max_depth=30, max_bytes=9_000), Scrape(), tmp_path))
    trapped = {(row["url"].removeprefix(site.base), row["detail"]) for row in rows if "reason" in row}
    assert trapped == {
        ("/", "1 links not followed: addresses of more than 2000 characters"),
        ("/", "1 links not followed: a path that repeats itself"),
        ("/list", "6 links not followed: more than 20 queries or dates of one path"),
        ("/events", "6 links not followed: more than 20 queries or dates of one path"),
    }
    assert {row["reason"] for row in rows if "reason" in row} == {"scrape.trap"}
    assert site.asked.count("/loop/a/b/a/b/") == 1
    assert sum(path.startswith("/list") for path in site.asked) == sum("/events/" in p for p in site.asked) == 20
    assert len({row["id"] for row in rows}) == len(rows)


def test_a_list_of_addresses_brings_those_pages_and_nothing_they_link_to(site: Site, tmp_path: Path) -> None:
    with serving({"/x": (200, HTML, b"x"), "/y": (200, HTML, b"y")}) as other:
        lines = [
            "# pages",
            "  # more pages",
            f"{site.base}/",
            f"{site.base}/gone",
            "",
            f"{other.base}/x",
            "no address",
            f"{other.base}/y",
        ]
        (tmp_path / "list.txt.gz").write_bytes(gzip.compress("\n".join([*lines, lines[1]]).encode()))
        given = {"name": "l", "kind": "urls", "path": str(tmp_path / "list.txt.gz"), "delay_s": 0}
        listed = UrlsSource.model_validate(given | {"private_addresses": True})
        rows = list(fetch_urls(listed, Scrape(), tmp_path))
        assert [(row["url"], row.get("reason")) for row in rows] == [
            ("no address", "scrape.error.url"),
            (f"{site.base}/", None),
            (f"{other.base}/x", None),
            (f"{site.base}/gone", "scrape.error.status"),
            (f"{other.base}/y", None),
        ]
        assert other.asked == ["/robots.txt", "/x", "/y"]
    (tmp_path / "cut.txt.gz").write_bytes((tmp_path / "list.txt.gz").read_bytes()[:-9])
    for name, said in (("nowhere.txt", "does not exist"), ("cut.txt.gz", "is damaged")):
        broken = UrlsSource.model_validate(given | {"path": str(tmp_path / name)})
        with pytest.raises(UserError, match=f"{name} {said}"):
            list(fetch_urls(broken, Scrape(), tmp_path))


def test_a_served_site_keeps_its_public_address_and_is_served_once(tmp_path: Path) -> None:
    (tmp_path / "site/sub").mkdir(parents=True)
    (tmp_path / "site/index.html").write_text("<a href=sub>folder</a><a href=gone>gone</a>")
    (tmp_path / "site/sub/index.html").write_text("sub")
    serve = ["python", "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(tmp_path / "site"), "{port}"]
    given = {"name": "s", "kind": "site", "serve": serve, "as": "http://docs.local/", "start": ["/"]}
    rows = list(crawl(SiteSource.model_validate(given), Scrape(), tmp_path))
    assert [(row["url"], row.get("reason")) for row in rows] == [
        ("http://docs.local/", None),
        ("http://docs.local/sub/", None),
        ("http://docs.local/gone", "scrape.error.status"),
    ]
    shutil.rmtree(tmp_path / "site")
    assert list(crawl(SiteSource.model_validate(given), Scrape(), tmp_path)) == rows


def test_a_server_that_does_not_serve_is_named() -> None:
    with (
        pytest.raises(UserError, match="nonsense_module"),
        served(["python", "-m", "nonsense_module", "{port}"]),
    ):
        pass
    with pytest.raises(UserError, match="cannot be started"), served(["/no/such/program"]):
        pass


class Links(HTMLParser):
    """What Python's own parser takes for links."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attributes if (tag, name) == ("a", "href") and value][:1]


@given(
    st.lists(
        st.sampled_from(
            [
                *("<a href=/x{}>", "<A  class='c' HREF = \"/y{}\" >", "<a href='/z{}?a&amp;b'/>", "<area><a name=n{}>"),
                *(
                    "text {}",
                    "<!-- <a href=/no{}> -->",
                    "<script>'<a href=/no{}>'</script>",
                    "<p title='<b>{}'>",
                    "</a>",
                ),
                *("<abbr href=/no{}>", "<a\nhref\n=\n/n{}\n>", "<style><a href=/no{}></style>", "<a data-href=/no{}>"),
            ]
        )
    )
)
def test_links_are_those_of_pythons_parser(pieces: list[str]) -> None:
    page = "".join(piece.format(number) for number, piece in enumerate(pieces))
    parser = Links()
    parser.feed(page)
    parser.close()
    expected = list(dict.fromkeys("http://a.example" + link for link in parser.found))
    assert links_of(page.encode(), "http://a.example/") == expected


@given(st.binary(max_size=200))
@example(b"<![foo[ bar ]]>")
def test_links_are_found_in_any_bytes(body: bytes) -> None:
    assert all(link.startswith("http") for link in links_of(body, "http://a.example/"))


def test_links_of_hostile_pages_take_no_time() -> None:
    times = 100_000
    hostile = [
        b"<!--",
        b"<script>",
        b"<a href='",
        b'<a href="',
        b"<a x",
        b"<a  = ",
        b"<a" + b" " * 20,
        b"<base href=x",
        b"&",
    ]
    for piece in hostile:
        with contextlib.suppress(UnicodeDecodeError):
            assert len(links_of(piece * times, "http://a.example/")) <= 2
    assert len(links_of(b"".join(b"<a href=%d>" % n for n in range(times)), "http://a.example/")) == 20_000


def test_links_in_the_charset_that_the_page_declares() -> None:
    page = '<meta charset="gb2312"><a href="/网页">x</a>'
    assert links_of(page.encode("gb18030"), "http://a.example/") == ["http://a.example/%E7%BD%91%E9%A1%B5"]
    assert links_of(page.encode(), "http://a.example/", "text/html") == ["http://a.example/%E7%BD%91%E9%A1%B5"]


def test_a_hostile_charset_takes_no_time() -> None:
    started = time.monotonic()
    for spaces in (" " * 32_000, "\t'\"" * 10_000, "charset = " * 3_000):
        header = f"text/html; charset ={spaces}"
        page = b"<meta " + header.encode()[:4_000] + b";\xff><a href=/x>x</a>"
        assert links_of(page, "http://a.example/", header + ";") in ([], ["http://a.example/x"])
    assert time.monotonic() - started < 10
