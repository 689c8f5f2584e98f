"""The crawler against a real server on the loopback."""

from __future__ import annotations

import contextlib
import gzip
import json
import threading
import time
import tracemalloc
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from protego import Protego

from corpus.errors import UserError
from corpus.params import Scrape
from corpus.scrape.crawl import Cache, Fetcher, crawl, links_of
from corpus.scrape.serve import served
from corpus.scrape.urls import normalise_url, refused_address
from corpus.sources import SiteSource

INDEX = (
    b"<a href=/a.html>a</a><a href='b.html#x'>b</a><a href=/secret.html>s</a><a href=/big.html>big</a>"
    b"<a href=/png>p</a>"
    b"<a href=/nowhere>n</a><a href=/gone>g</a><a href=/hop>h</a><a href=/away>w</a><a href='mailto:x@y'>m</a><a href='http://['>broken</a>"
    b"<a href='http://elsewhere.example/'>e</a><a href=/denied.html>d</a><a href=/soft>t</a>"
)
HTML = {"content-type": "text/html"}
PAGES: dict[str, tuple[int, dict[str, str], bytes]] = {
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


@pytest.fixture
def site() -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            status, headers, body = PAGES.get(self.path, (404, HTML, b"none"))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def source(base: str, **more: Any) -> SiteSource:
    given = {"name": "s", "kind": "site", "start": [base + "/"], "delay_s": 0, "max_bytes": 2_000} | more
    return SiteSource.model_validate({"private_addresses": True} | given)


def test_every_link_ends_as_page_or_reason(site: tuple[str, list[str]], tmp_path: Path) -> None:
    base, asked = site
    wanted = source(base, deny=["^/denied"], soft_error="<title>Error", scrub=["0x[0-9a-f]+"])
    rows = {row["url"].removeprefix(base): row for row in crawl(wanted, Scrape(), tmp_path)}
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
    assert "/denied.html" not in asked
    assert "/secret.html" not in asked


def test_a_second_crawl_asks_nothing_and_a_new_as_of_asks_again(site: tuple[str, list[str]], tmp_path: Path) -> None:
    base, asked = site
    first = list(crawl(source(base), Scrape(), tmp_path))
    count = len(asked)
    assert list(crawl(source(base, licence="CC0"), Scrape(), tmp_path)) == first
    assert len(asked) == count
    list(crawl(source(base), Scrape(as_of="2030-01-01"), tmp_path))
    assert len(asked) > count


def test_a_failure_is_asked_for_again(
    site: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, _ = site
    for broken in ("/robots.txt", "/"):
        with monkeypatch.context() as patch:
            patch.setitem(PAGES, broken, (503, HTML, b""))
            with pytest.raises(UserError, match="status 503"):
                list(crawl(source(base), Scrape(), tmp_path))
    with monkeypatch.context() as patch:
        patch.setitem(PAGES, "/a.html", (429, HTML, b""))
        first = {row["url"]: row for row in crawl(source(base), Scrape(), tmp_path)}
    assert first[base + "/a.html"]["reason"] == "scrape.error.status"
    again = {row["url"]: row for row in crawl(source(base, name="other"), Scrape(), tmp_path)}
    assert b"page a" in again[base + "/a.html"]["body"]
    assert len(list(tmp_path.glob("crawl/*"))) == 1, "a new name fetches nothing again"


def test_compressed_bodies_stay_small(
    site: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, _ = site
    bomb = gzip.compress(bytes(50_000_000))
    bodies = {
        "/a.html": ("gzip", gzip.compress(b"<p>small")),
        "/b.html": ("gzip", bomb),
        "/landed.html": ("gzip, gzip", gzip.compress(bomb)),
        "/soft": ("gzip", b"no gzip"),
    }
    for path, (encoding, body) in bodies.items():
        monkeypatch.setitem(PAGES, path, (200, HTML | {"content-encoding": encoding}, body))
    tracemalloc.start()
    rows = {row["url"].removeprefix(base): row for row in crawl(source(base), Scrape(), tmp_path)}
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()
    assert rows["/a.html"]["body"] == b"<p>small"
    assert rows["/b.html"]["reason"] == "scrape.too_large"
    assert rows["/hop"]["reason"] == rows["/soft"]["reason"] == "scrape.error.fetch"


def test_a_dripping_server_does_not_hold_the_crawl(tmp_path: Path) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/" else 404)
            self.end_headers()
            with contextlib.suppress(OSError):
                for _ in range(100 if self.path == "/" else 0):
                    self.wfile.write(b"x")
                    time.sleep(0.05)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.raises(UserError, match="takes too long"):
        list(crawl(source(f"http://127.0.0.1:{server.server_port}"), Scrape(timeout_s=0.1), tmp_path))
    server.shutdown()
    server.server_close()


def test_robots_txt_may_lie_elsewhere_and_ask_for_a_day(
    site: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, _ = site
    monkeypatch.setitem(PAGES, "/moved.txt", PAGES["/robots.txt"])
    monkeypatch.setitem(PAGES, "/robots.txt", (301, {"location": "/moved.txt"}, b""))
    rows = {row["url"].removeprefix(base): row for row in crawl(source(base), Scrape(), tmp_path)}
    assert rows["/secret.html"]["reason"] == "scrape.robots"
    cache = Cache(tmp_path / "cache")
    with Fetcher(source(base), Scrape(), cache) as fetcher:
        host = base.removeprefix("http://")
        fetcher.robots[host] = Protego.parse("User-agent: *\nCrawl-delay: 86400")
        fetcher._wait_turn(base)
        assert 50 < fetcher.next_time[host] - time.monotonic() <= 60


def test_a_stopped_crawl_goes_on_where_it_was(site: tuple[str, list[str]], tmp_path: Path) -> None:
    base, asked = site
    crawling = crawl(source(base), Scrape(), tmp_path)
    started = [next(crawling) for _ in range(3)]
    crawling.close()
    index = next(tmp_path.glob("crawl/*/index.jsonl"))
    with index.open("a") as file:
        file.write('{"asked": "http://torn')  # what a kill in mid-write leaves
    before = asked.count("/a.html")
    rows = list(crawl(source(base), Scrape(), tmp_path))
    assert rows[:3] == started
    assert asked.count("/a.html") == before
    assert all(json.loads(line) for line in index.read_text().splitlines())


def test_refuses_private_addresses_and_names_what_cannot_be_reached(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"s: http://127\.0\.0\.1:1/ cannot be had: 127\.0\.0\.1 is not public"):
        list(crawl(source("http://127.0.0.1:1", private_addresses=False), Scrape(), tmp_path))
    with pytest.raises(UserError, match=r"s: http://127\.0\.0\.1:1/ cannot be had: ConnectError"):
        list(crawl(source("http://127.0.0.1:1"), Scrape(), tmp_path))
    assert refused_address("http://localhost/")


def test_a_server_that_does_not_serve_is_named() -> None:
    with (
        pytest.raises(UserError, match="nonsense_module"),
        served(["python", "-m", "nonsense_module", "{port}"]),
    ):
        pass
    with pytest.raises(UserError, match="cannot be started"), served(["/no/such/program"]):
        pass


@given(st.text(max_size=60))
def test_any_link_is_refused_or_stays_as_it_is(link: str) -> None:
    url = normalise_url(link, "http://a.example/b/c")
    assert url is None or (url.startswith("http") and "#" not in url and normalise_url(url) == url)


@given(st.binary(max_size=200))
@example(b"<![foo[ bar ]]>")
def test_links_are_found_in_any_bytes(body: bytes) -> None:
    assert all(link.startswith("http") for link in links_of(body, "http://a.example/"))
