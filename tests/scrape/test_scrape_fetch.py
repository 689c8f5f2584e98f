"""One page at a time, against servers that are slow, overloaded, hostile or somewhere else."""

from __future__ import annotations

import contextlib
import gzip
import ipaddress
import socket
import sqlite3
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from loopback import HTML, Site, serving

from corpus.errors import UserError
from corpus.params import Scrape
from corpus.scrape import fetch
from corpus.scrape.crawl import crawl, fetch_urls
from corpus.scrape.crawl_cache import Cache, forget
from corpus.scrape.urls import is_public, normalise_url, refused_address
from corpus.sources import SiteSource, UrlsSource

TEXT = {"content-type": "text/plain"}
ONCE = Scrape(tries=1)


def source(urls: list[str], **more: Any) -> UrlsSource:
    given = {"name": "l", "kind": "urls", "urls": urls, "delay_s": 0, "private_addresses": True}
    return UrlsSource.model_validate(given | more)


def fetched(site: Site, paths: list[str], home: Path, scrape: Scrape = ONCE, **more: Any) -> dict[str, Any]:
    """Rows by the path that was asked for, or landed on."""
    urls = [path if "://" in path else site.base + path for path in paths]
    return {row["url"].removeprefix(site.base): row for row in fetch_urls(source(urls, **more), scrape, home)}


@pytest.fixture(autouse=True)
def _little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "BACKOFF_S", 0.02)


# ---- rhythm ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("robots", "delay_s", "least"),
    [(b"", 0.2, 0.2), (b"Crawl-delay: 0.3", 0.1, 0.3), (b"Request-rate: 4/1", 0.1, 0.25)],
)
def test_requests_to_a_host_are_as_far_apart_as_asked(
    tmp_path: Path, robots: bytes, delay_s: float, least: float
) -> None:
    pages = {f"/{n}": (200, HTML, b"page") for n in range(4)}
    with serving(pages | {"/robots.txt": (200, TEXT, b"User-agent: *\n" + robots)}) as site:
        rows = fetched(site, list(pages), tmp_path, connections=4, delay_s=delay_s)
        assert all(row["body"] == b"page" for row in rows.values())
        assert len(site.log) == 5
        # What the log sees is later than what the crawler did, and not always by as much.
        assert min(b.time - a.time for a, b in pairwise(site.log)) > least - 0.08
        assert site.log[-1].time - site.log[0].time > 4 * least - 0.08


def test_hosts_go_on_side_by_side_and_no_host_has_more_than_its_connections(tmp_path: Path) -> None:
    def slow(_: Any) -> Any:
        time.sleep(0.3)
        return 200, HTML, b"page"

    pages: dict[str, Any] = {f"/{n}": slow for n in range(8)}
    with serving(pages) as one, serving(pages) as two:
        urls = [site.base + path for site in (one, two) for path in pages]
        started = time.monotonic()
        assert len(list(fetch_urls(source(urls, connections=2), ONCE, tmp_path))) == 16
        assert time.monotonic() - started < 0.3 * 16
        assert one.most_at_once == two.most_at_once == 2


def test_robots_txt_may_ask_for_a_day_and_gets_a_minute(tmp_path: Path) -> None:
    robots = {"/robots.txt": (200, TEXT, b"User-agent: *\nCrawl-delay: 86400")}
    with serving(robots) as site, fetch.Fetcher(source(["http://a/"]), ONCE, tmp_path) as fetcher:
        fetcher.wait(fetcher.begin(fetcher.robots_of(site.base + "/x")))
        host = fetcher.hosts[site.base.removeprefix("http://")]
        assert 50 < host.next_time - time.monotonic() <= host.delay_s == 60


def test_robots_txt_may_lie_elsewhere_and_is_fetched_once(tmp_path: Path) -> None:
    rules = b"User-agent: *\nDisallow: /secret"
    pages = {"/robots.txt": (301, {"location": "/moved.txt"}, b""), "/moved.txt": (200, TEXT, rules)}
    with serving(pages | {"/a": (200, HTML, b"a")}) as site:
        rows = fetched(site, ["/secret", "/a", "/b"], tmp_path, connections=4)
        assert rows["/secret"]["reason"] == "scrape.robots"
        assert site.asked[:2] == ["/robots.txt", "/moved.txt"]
        assert sorted(site.asked[2:]) == ["/a", "/b"]


def test_robots_txt_that_fails_or_would_take_forever_forbids_all(tmp_path: Path) -> None:
    hostile = b"User-agent: a%d\n" * 3_000 % tuple(range(3_000)) + b"Disallow: /%d\n" * 9_000 % tuple(range(9_000))
    with serving({"/robots.txt": (503, TEXT, b"")}) as broken, serving({"/robots.txt": (200, TEXT, hostile)}) as slow:
        for site, why in ((broken, "status 503"), (slow, "more agents and rules")):
            rows = fetched(site, ["/a", "/b"], tmp_path)
            assert all(row["detail"].startswith(f"robots.txt: {why}") for row in rows.values())
            assert site.asked == ["/robots.txt"]


# ---- failures --------------------------------------------------------------------------------------------------------


def in_turn(*answers: Any) -> Callable[[BaseHTTPRequestHandler], Any]:
    """A page that answers differently each time, and at last always the same."""
    left = list(answers)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


def test_what_fails_is_tried_again_and_retry_after_is_obeyed(tmp_path: Path) -> None:
    good = (200, HTML, b"good")

    def hang_up(handler: BaseHTTPRequestHandler) -> None:
        handler.connection.shutdown(socket.SHUT_RDWR)

    hung: list[Any] = [hang_up, lambda _: good]
    pages = {
        "/503": in_turn((503, HTML, b""), (500, HTML, b""), good),
        "/429": in_turn((429, {"retry-after": "1"}, b""), good),
        "/hung": lambda handler: hung.pop(0)(handler),
        "/never": (503, HTML, b""),
    }
    with serving(pages) as site:
        rows = fetched(site, list(pages), tmp_path, Scrape(tries=3))
        assert [rows[path].get("body") for path in pages] == [b"good"] * 3 + [None]
        assert (rows["/never"]["reason"], rows["/never"]["detail"]) == ("scrape.error.status", "status 503")
        assert [site.asked.count(path) for path in pages] == [3, 2, 2, 3]
        first = site.asked.index("/429")
        assert site.log[first + 1].time - site.log[first].time > 0.9, "the whole host is left in peace"
        site.pages["/never"] = good
        assert fetched(site, ["/never"], tmp_path)["/never"]["body"] == b"good"


def test_a_host_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "MAX_HOST_FAILURES", 3)
    with serving({"/robots.txt": (404, HTML, b"")}) as site, serving({"/": (200, HTML, b"good")}) as good:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            dead = f"http://127.0.0.1:{closed.getsockname()[1]}"
            urls = [f"{dead}/{n}" for n in range(2)] + [f"{good.base}/"]
            rows = list(fetch_urls(source(urls), ONCE, tmp_path))
            refused = "robots.txt: no connection: Connection refused"
            assert [row.get("detail") for row in rows] == [refused, None, refused]
        site.pages |= {f"/{n}": (429, HTML, b"") for n in range(6)}
        details = [row["detail"] for row in fetched(site, [f"/{n}" for n in range(6)], tmp_path).values()]
        assert details == ["status 429"] * 3 + ["not asked: the host failed 3 times in a row"] * 3


def test_hostile_servers_cost_their_time_limit_and_nothing_else(tmp_path: Path) -> None:
    def drip(piece: bytes, before: bytes = b"") -> Callable[[BaseHTTPRequestHandler], None]:
        def send(handler: BaseHTTPRequestHandler) -> None:
            handler.wfile.write(before)
            for _ in range(400):
                handler.wfile.write(piece)
                time.sleep(0.03)

        return send

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n")
        while True:
            handler.wfile.write(b"x" * 100_000)

    zipped = HTML | {"content-encoding": "gzip"}
    pages: dict[str, Any] = {
        "/slow-headers": drip(b"x", b"HTTP/1.1 200 OK\r\nx-slow: "),
        "/slow-body": drip(b"x", b"HTTP/1.1 200 OK\r\n\r\n"),
        "/silent": lambda _: time.sleep(3),
        "/endless": endless,
        "/endless-headers": drip(b"x: " + b"y" * 60_000 + b"\r\n", b"HTTP/1.1 200 OK\r\n"),
        "/bomb": (200, zipped, gzip.compress(bytes(20_000_000))),
        "/brotli": (200, HTML | {"content-encoding": "br"}, b"x"),
        "/loop": (302, {"location": "/pool"}, b""),
        "/pool": (302, {"location": "/loop"}, b""),
        "/no-http": lambda handler: handler.wfile.write(b"\x00\xff" * 100),
        "/short": lambda handler: handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx"),
        "/pdf": (200, {"content-type": "application/pdf"}, b"%PDF-1.7"),
        "/large": (200, HTML, b"x" * 60_000),
        "/good": (200, HTML, b"good"),
    }
    with serving(pages) as site:
        started = time.monotonic()
        rows = fetched(site, list(pages), tmp_path, Scrape(tries=1, timeout_s=0.2), max_bytes=50_000)
        assert time.monotonic() - started < 60
    found = {path: (row.get("reason", "").removeprefix("scrape."), row.get("detail")) for path, row in rows.items()}
    assert found.pop("/endless-headers")[0] == found.pop("/no-http")[0] == found.pop("/short")[0] == "error.fetch"
    assert found == {
        "/slow-headers": ("error.fetch", "the page takes too long"),
        "/slow-body": ("error.fetch", "the page takes too long"),
        "/silent": ("error.fetch", "no answer in 0.2 s"),
        "/endless": ("too_large", "over 50000 bytes"),
        "/bomb": ("too_large", "over 50000 bytes"),
        "/brotli": ("error.fetch", "the body comes as br: gzip was asked for"),
        "/loop": ("error.redirect", "over 5 redirects"),
        "/pool": ("error.redirect", "over 5 redirects"),
        "/pdf": ("content_type", "application/pdf"),
        "/large": ("too_large", "over 50000 bytes"),
        "/good": ("", None),
    }


# ---- redirects and addresses -----------------------------------------------------------------------------------------


def test_headers_that_are_not_text_can_still_be_written_down(tmp_path: Path) -> None:
    def raw(head: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
        return lambda handler: handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\ncontent-length: 0\r\n\r\n")

    odd = {
        "/a": raw(b"content-type: text/html; charset=\xff"),
        "/b": raw(b"content-type: \xff"),
        "/c": raw(b"\xff: \x00"),
    }
    huge = b"User-agent: *\nRequest-rate: " + b"9" * 4_000 + b"/" + b"9" * 4_000
    with serving({"/robots.txt": (200, TEXT, b"User-agent: *\nDisallow: http://[\nRequest-rate: 1/0\n")} | odd) as site:
        rows = fetched(site, list(odd), tmp_path)
        for row in rows.values():
            assert all(str(value).encode() for value in row.values())
        assert [row.get("reason") for row in rows.values()] == [None, "scrape.content_type", "scrape.error.fetch"]
    with serving({"/robots.txt": (200, TEXT, huge), "/": (200, HTML, b"page")}) as site:
        assert fetched(site, ["/"], tmp_path)["/"]["body"] == b"page"


def test_redirects_are_followed_five_times_and_to_web_addresses_only(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    pages = {f"/{n}": (301, {"location": f"/{n - 1}"}, b"") for n in range(1, 7)} | {"/0": (200, HTML, b"there")}
    pages |= {"/file": (302, {"location": secret.as_uri()}, b"")}
    with serving(pages) as site:
        rows = list(fetch_urls(source([site.base + path for path in ("/5", "/6", "/file")]), ONCE, tmp_path))
        assert rows[0]["url"] == site.base + "/0"
        assert [row.get("detail") for row in rows] == [None, "over 5 redirects", "to no web address"]
        assert [site.asked.count(f"/{n}") for n in range(7)] == [1] * 7, "each hop is kept by itself"


PRIVATE = ["127.0.0.1", "10.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "0177.0.0.1", "127.1"]


@pytest.mark.parametrize("host", [*PRIVATE, "localhost", "localhost.", "LOCALHOST", "169.254.169.254", "0.0.0.0"])
def test_private_addresses_are_refused_however_they_are_written(tmp_path: Path, host: str) -> None:
    with serving({"/": (200, HTML, b"private")}) as site:
        url = f"http://{host}:{site.base.rpartition(':')[2]}/"
        (row,) = fetch_urls(source([url], private_addresses=False), Scrape(), tmp_path)
        assert row["reason"] == "scrape.error.fetch"
        assert "is not public: private_addresses: true allows it" in row["detail"]
        assert site.log == []


def test_a_name_is_looked_up_once_and_the_checked_address_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up: list[str] = []
    real = socket.getaddrinfo

    def rebinding(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        """A name server that says another address at each second question."""
        name = host.decode() if isinstance(host, bytes) else host
        if name != "rebind.example":
            return real(host, port, *rest, **more)
        looked_up.append(name)
        return real("127.0.0.1" if len(looked_up) % 2 else "10.0.0.1", port, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(fetch, "is_public", lambda address: address == "127.0.0.1")
    with serving({"/": (200, HTML, b"page"), "/out": (302, {"location": "http://localhost.example/"}, b"")}) as site:
        name = site.base.replace("127.0.0.1", "rebind.example")
        (row,) = fetch_urls(source([f"{name}/"], private_addresses=False), ONCE, tmp_path)
        assert row["body"] == b"page"
        assert {request.headers["host"] for request in site.log} == {name.removeprefix("http://")}
        assert len(looked_up) == 1
    (row,) = fetch_urls(source([f"{name}/new"], private_addresses=False), ONCE, tmp_path / "other")
    assert row["detail"] == "robots.txt: 10.0.0.1 is not public: private_addresses: true allows it"


def test_a_redirect_to_a_private_address_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "refused_address", lambda url: "10.9.8.7" if "10.9.8.7" in url else None)
    with serving({"/": (302, {"location": "http://10.9.8.7/"}, b"")}) as site:
        (row,) = fetch_urls(source([site.base + "/"], private_addresses=False), ONCE, tmp_path)
        assert row["detail"].endswith("10.9.8.7 is not public: private_addresses: true allows it")


def test_a_start_page_that_cannot_be_had_is_named(tmp_path: Path) -> None:
    given = {"name": "s", "kind": "site", "start": ["http://127.0.0.1:1"]}
    with pytest.raises(UserError, match=r"s: http://127\.0\.0\.1:1/ cannot be had: .*127\.0\.0\.1 is not public"):
        list(crawl(SiteSource.model_validate(given), ONCE, tmp_path))
    with pytest.raises(
        UserError, match=r"s: http://127\.0\.0\.1:1/ cannot be had: .*no connection: Connection refused"
    ):
        list(crawl(SiteSource.model_validate(given | {"private_addresses": True}), ONCE, tmp_path))


def test_a_proxy_of_the_environment_is_asked_but_not_for_private_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with serving({"http://far.invalid/": (200, HTML, b"far")}) as proxy:
        monkeypatch.setenv("http_proxy", proxy.base)
        urls = ["http://far.invalid/", "http://127.0.0.1:1/", "http://localhost:1/"]
        rows = list(fetch_urls(source(urls, private_addresses=False), ONCE, tmp_path))
        assert rows[0]["body"] == b"far"
        assert all("is not public" in row["detail"] for row in rows[1:])
        assert proxy.asked == ["http://far.invalid/robots.txt", "http://far.invalid/"]


@given(st.ip_addresses())
@example(ipaddress.ip_address("2002:7f00:1::"))
@example(ipaddress.ip_address("2002:100::"))
def test_only_addresses_of_the_open_internet_are_public(address: Any) -> None:
    if is_public(str(address)):
        reached = getattr(address, "sixtofour", None) or address  # Pythons differ in whether 6to4 itself is global
        assert reached.is_global
        assert not address.is_multicast
    if address.version == 4:
        assert is_public(f"::ffff:{address}") == is_public(str(address))


# ---- the cache -------------------------------------------------------------------------------------------------------


def conditional(body: bytes, validators: dict[str, str]) -> Callable[[BaseHTTPRequestHandler], Any]:
    asked = {"etag": "if-none-match", "last-modified": "if-modified-since"}

    def answer(handler: BaseHTTPRequestHandler) -> Any:
        same = all(handler.headers.get(asked[name]) == value for name, value in validators.items())
        return (304, validators, b"") if same else (200, HTML | validators, body)

    return answer


def test_under_a_new_as_of_only_what_has_changed_is_sent_again(tmp_path: Path) -> None:
    pages = {
        "/tagged": conditional(b"tagged", {"etag": '"1"'}),
        "/dated": conditional(b"dated", {"last-modified": "Thu, 01 Jan 2026 00:00:00 GMT"}),
        "/changed": in_turn((200, HTML | {"etag": '"a"'}, b"old"), (200, HTML | {"etag": '"b"'}, b"new")),
        "/moved": in_turn((301, {"location": "/tagged"}, b""), (301, {"location": "/dated"}, b"")),
    }
    with serving(pages) as site:
        first = fetched(site, list(pages), tmp_path, Scrape(as_of="one"))
        second = fetched(site, list(pages), tmp_path, Scrape(as_of="two"))
        assert [first[path]["body"] for path in ("/tagged", "/dated", "/changed")] == [b"tagged", b"dated", b"old"]
        assert [second[path]["body"] for path in ("/tagged", "/dated", "/changed")] == [b"tagged", b"dated", b"new"]
        assert site.asked.count("/tagged") == 2
        count = len(site.log)
        assert fetched(site, list(pages), tmp_path, Scrape(as_of="two")) == second
        assert len(site.log) == count
    with contextlib.closing(sqlite3.connect(tmp_path / "crawl/exchanges.sqlite")) as database:
        assert database.execute("SELECT COUNT(*) FROM bodies").fetchone() == (3,), "what nothing refers to is gone"


def test_forget_removes_what_it_should_and_its_bytes(tmp_path: Path) -> None:
    def users(url: str) -> bool:
        return "/users/" in url

    pages = {
        "/users/1": (200, HTML, b"private words"),
        "/a": (200, HTML, b"shared"),
        "/users/2": (200, HTML, b"shared"),
    }
    pages |= {"/hop": (302, {"location": "users/1"}, b"")}
    with serving(pages) as site:
        fetched(site, list(pages), tmp_path)
        assert forget(tmp_path, users) == 3
        assert forget(tmp_path / "nowhere", users) == 0
        count = len(site.log)
        rows = list(fetch_urls(source([site.base + path for path in pages]), ONCE, tmp_path, users))
        assert [row.get("reason") for row in rows] == ["scrape.forgotten", None, "scrape.forgotten", "scrape.forgotten"]
        assert rows[3]["url"] == site.base + "/users/1"
        assert site.asked[count:] == ["/hop"]
        assert forget(tmp_path, users) == 1
    stored = b"".join(path.read_bytes() for path in (tmp_path / "crawl").iterdir())
    assert b"private words" not in stored
    assert b"/users/1" not in stored
    with contextlib.closing(Cache(tmp_path, Scrape().user_agent)) as cache:
        kept = cache.get(site.base + "/a")
        assert kept is not None
        assert cache.body(kept.body) == b"shared"


def test_a_damaged_cache_is_named(tmp_path: Path) -> None:
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl/exchanges.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(UserError, match=r"exchanges\.sqlite is damaged: .*delete it"):
        Cache(tmp_path, "a")


# ---- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("HTTP://User:pw@EXAMPLE.com:80", "http://example.com/"),
        ("https://example.com:443/a/../b/./c", "https://example.com/b/c"),
        ("http://example.com/%7Euser/%c3%a4%2F?q=%41%2b", "http://example.com/~user/%C3%A4%2F?q=A%2B"),
        ("http://straße.example/", "http://xn--strae-oqa.example/"),
        ("http://a/x?b=2&a=1&utm_medium=m&gclid=7&PHPSESSID=1", "http://a/x?b=2&a=1"),
        ("http://a/x;jsessionid=AB12.node?y", "http://a/x?y"),
        ("http://a/x?utm_source=1#top", "http://a/x"),
        ("http://a/%2e%2e/x", "http://a/x"),
        ("http://a:99999/", None),
        ("http://a b/", None),
        ("http://a%2fb/", None),
        ("http://256.256.256.256/", None),
        ("http://[fe80::1%25eth0]/", None),
        ("http://[0:0::1]/", "http://[::1]/"),
        ("http://.a/", None),
        ("ftp://a/", None),
        ("http://" + "a" * 64 + ".example/", None),
    ],
)
def test_urls_have_one_spelling(link: str, expected: str | None) -> None:
    assert normalise_url(link) == expected


@given(st.text(max_size=60) | st.text("/.%25aA?&=;#:[]~ é", max_size=30))
@example("%%37%31")
@example("http://a/..//.;jsessionid=;jsessionid=")
def test_any_link_is_refused_or_stays_as_it_is(link: str) -> None:
    url = normalise_url(link, "http://a.example/b/c")
    assert url is None or (url.startswith("http") and "#" not in url and normalise_url(url) == url)
    assert url is None or refused_address(url) in (None, url.split("/")[2].split(":")[0].strip("[]")) or "[" in url
