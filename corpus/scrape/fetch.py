"""One web page, politely: the cache, robots.txt, the rhythm of each host, retries, redirects, public addresses only."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import random
import shlex
import socket
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Coroutine
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver, ResolveResult
from protego import Protego
from yarl import URL

from corpus.params import Scrape
from corpus.scrape.bodies import read_body
from corpus.scrape.crawl_cache import Cache, Exchange
from corpus.scrape.serve import served
from corpus.scrape.urls import is_public, netloc_of, normalise_url, path_and_query, refused_address, root_of
from corpus.sources import SiteSource, WebSource

Result = TypeVar("Result")

MAX_REDIRECTS = 5
PAGE_TYPES = ("text/html", "application/xhtml+xml", "text/plain")
MAX_ROBOTS_BYTES = 500_000
MAX_ROBOTS_RULES = 1_000_000  # agents times lines, which is what one group of rules for many agents costs
MAX_ROBOTS = 10_000  # kept in memory
MAX_CRAWL_DELAY_S = 60.0  # robots.txt may ask for more: a day between two pages would be no crawl
MAX_RETRY_AFTER_S = 120.0
BACKOFF_S = 0.5  # before the second try; twice as long before each further one
PAGE_TIMEOUTS = 10  # a whole page may take so many times timeout_s, which is for each wait on the server
MAX_CONNECTIONS = 64  # to all hosts together
MAX_HOST_FAILURES = 20  # pages in a row that a host did not answer; the others are then not asked for in this run
MAX_HEADER_BYTES = 32_768  # of one header
LASTMOD_MARGIN_S = 86_400.0  # a sitemap's lastmod is often a day without a time zone


@dataclasses.dataclass(frozen=True)
class Answer:
    """What one URL gave: a body in the cache, or the reason why not. `url` is the last of its redirects.

    Both for a sitemap that could be read in part.
    """

    url: str
    content_type: str = ""
    body: str | None = None  # digest
    reason: str | None = None
    detail: str | None = None


class Failure(Exception):
    """A request that gave nothing this time; a later run may fare better, so the cache does not keep it."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


@dataclasses.dataclass(frozen=True)
class Response:
    """What a server sent. `cut`: there was more of the body than was read."""

    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes = b""
    cut: bool = False


class NotPublic(OSError):
    """An address that must not be asked."""


@dataclasses.dataclass
class Host:
    """The rhythm of one host."""

    slots: asyncio.Semaphore
    turn: asyncio.Lock = dataclasses.field(default_factory=asyncio.Lock)
    delay_s: float = 0.0
    next_time: float = 0.0
    failures: int = 0


class PublicResolver(aiohttp.ThreadedResolver):
    """Names to addresses, each of them public. aiohttp connects to the very addresses that were checked here."""

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        found = await super().resolve(host, port, family)
        for address in (result["host"] for result in found):
            if not is_public(address):
                raise NotPublic(_not_public(address))
        return found


def permit_all(url: str) -> str | None:
    """A redirect may lead to any web address."""


def forget_none(url: str) -> bool:
    """No address is forgotten."""
    return False


class Fetcher:
    """Fetches pages concurrently in an event loop that runs while `wait` waits.

    It starts the site's server when it first must. A proxy named in the environment is used, except for what we serve:
    names are then looked up by the proxy, so that private ones are refused only as far as this machine knows them.
    What is `forgotten` is not asked for.
    """

    def __init__(
        self, source: WebSource, scrape: Scrape, home: Path, forgotten: Callable[[str], bool] = forget_none
    ) -> None:
        self.source, self.scrape, self.forgotten = source, scrape, forgotten
        self.serve = source.serve if isinstance(source, SiteSource) else None
        self.public_base = (source.public_base if isinstance(source, SiteSource) else None) or "http://localhost/"
        self.private = source.private_addresses or self.serve is not None
        # Two served sites may have one address: their answers must not mix.
        self.cache = Cache(home, f"{scrape.user_agent} {shlex.join(self.serve)}" if self.serve else scrape.user_agent)
        self.proxies = urllib.request.getproxies()
        self.served_base: str | None = None
        self.hosts: dict[str, Host] = {}
        self.robots: dict[str, Protego | Failure] = {}
        self.locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.connections = asyncio.Semaphore(MAX_CONNECTIONS)
        self.sessions: dict[bool, aiohttp.ClientSession] = {}

    def __enter__(self) -> Fetcher:
        self.stack = contextlib.ExitStack()
        self.stack.callback(self.cache.close)
        self.runner = self.stack.enter_context(asyncio.Runner())  # its end cancels what is under way
        return self

    def __exit__(self, *exception: object) -> None:
        self.runner.run(self._close())
        self.stack.close()

    async def _close(self) -> None:
        """Cancel what is under way, then close what it went over."""
        under_way = asyncio.all_tasks() - {asyncio.current_task()}
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        for session in self.sessions.values():
            await session.close()

    def begin(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        """Start a request, which goes on while `wait` waits for this or another one."""
        return self.runner.get_loop().create_task(work)

    def wait(self, task: asyncio.Task[Result]) -> Result:
        return self.runner.get_loop().run_until_complete(task)

    def read(self, answer: Answer) -> bytes:
        """The body of an answer, from the cache."""
        return self.cache.body(answer.body)

    async def fetch(
        self,
        url: str,
        *,
        permit: Callable[[str], str | None] = permit_all,
        types: tuple[str, ...] = PAGE_TYPES,
        max_bytes: int | None = None,
        modified: float | None = None,
    ) -> Answer:
        """The answer to a URL, from the cache if it has one. Failures are answers with a reason.

        `permit` says why a redirect must not be followed to a URL, or None. No `types` are all types. `modified` is
        when the page is said to have changed last (seconds since 1970): a later exchange is then as good as a new one.
        """
        try:
            return await self._follow(url, permit, types, max_bytes or self.source.max_bytes, modified)
        except Failure as failure:
            return Answer(url, reason=failure.reason, detail=failure.detail)

    async def robots_of(self, url: str) -> Protego:
        """The robots.txt for a URL, fetched once. Raises Failure where it cannot be had: then all is forbidden."""
        site = root_of(url) + "robots.txt"
        async with self._lock(f"robots {site}"):
            if site not in self.robots:
                if len(self.robots) >= MAX_ROBOTS:
                    self.robots.pop(next(iter(self.robots)))  # it can be had from the cache again
                try:
                    self.robots[site] = await self._robots(site)
                except Failure as failure:
                    self.robots[site] = Failure("scrape.error.fetch", f"robots.txt: {failure.detail}")
            robots = self.robots[site]
        if isinstance(robots, Failure):
            raise Failure(robots.reason, robots.detail)
        return robots

    # ---- redirects and robots.txt ------------------------------------------------------------------------------------

    async def _follow(
        self,
        url: str,
        permit: Callable[[str], str | None],
        types: tuple[str, ...],
        max_bytes: int,
        modified: float | None,
    ) -> Answer:
        """Follow redirects by hand, so that each hop is checked like a first request."""
        current = url
        for _ in range(MAX_REDIRECTS + 1):
            denied = permit(current) if current != url else None
            if denied:
                return Answer(url, reason="scrape.error.redirect", detail=denied)
            if self.forgotten(current):
                return Answer(current, reason="scrape.forgotten", detail="not asked for")
            robots = await self.robots_of(current)
            if not robots.can_fetch(current, self.scrape.user_agent):
                return Answer(url, reason="scrape.robots", detail="robots.txt forbids it")
            exchange = await self._exchange(current, max_bytes, types, modified)
            if _redirects(exchange):
                target = normalise_url(self.public(exchange.headers["location"]), current)
                if target is None:
                    return Answer(url, reason="scrape.error.redirect", detail="to no web address")
                current = target
                continue
            if exchange.status != 200:
                return Answer(url, reason="scrape.error.status", detail=f"status {exchange.status}")
            content_type = exchange.headers.get("content-type", "")
            if not _is_wanted_type(exchange.headers, types):
                return Answer(url, reason="scrape.content_type", detail=content_type)
            if exchange.cut or exchange.size > max_bytes:
                return Answer(url, reason="scrape.too_large", detail=f"over {max_bytes} bytes")
            return Answer(current, content_type, exchange.body)
        return Answer(url, reason="scrape.error.redirect", detail=f"over {MAX_REDIRECTS} redirects")

    async def _robots(self, url: str) -> Protego:
        """The robots.txt at a URL or up to five redirects on. None is none; one that fails forbids all (RFC 9309)."""
        host, text = netloc_of(url), ""
        for _ in range(MAX_REDIRECTS + 1):
            exchange = await self._exchange(url, MAX_ROBOTS_BYTES, (), None)
            target = normalise_url(self.public(exchange.headers["location"]), url) if _redirects(exchange) else None
            if target is None:
                plain = "html" not in exchange.headers.get("content-type", "")  # a soft 404 is no robots.txt
                if exchange.status == 200 and plain:
                    text = self.cache.body(exchange.body).decode("utf-8", "replace")
                break
            url = target
        if text.lower().count("agent") * text.count("\n") > MAX_ROBOTS_RULES:
            raise Failure("scrape.error.fetch", "more agents and rules than can be told apart in time")
        robots = Protego.parse(text)
        rate = robots.request_rate(self.scrape.user_agent)
        every = min(rate.seconds, 10**9) / min(rate.requests, 10**9) if rate else 0.0  # they may have 4,000 digits
        asked = max(robots.crawl_delay(self.scrape.user_agent) or 0.0, every)
        # The request for robots.txt itself counts, so the delay it asks for begins there.
        rhythm = self._host(host)
        more = max(0.0, min(asked, MAX_CRAWL_DELAY_S) - rhythm.delay_s)
        rhythm.delay_s += more
        rhythm.next_time += more
        return robots

    # ---- one exchange ------------------------------------------------------------------------------------------------

    async def _exchange(self, url: str, max_bytes: int, types: tuple[str, ...], modified: float | None) -> Exchange:
        """The exchange for one URL, from the cache where that suffices. Raises Failure for what may pass."""
        address = None if self.private else refused_address(url)
        if address:
            raise Failure("scrape.error.fetch", _not_public(address))
        async with self._lock(url):
            before = self.cache.get(url)
            known = before if before and _suffices(before, max_bytes, types) else None
            if known and known.as_of == self.scrape.as_of:
                return known
            if known and modified and modified + LASTMOD_MARGIN_S < known.time:
                return self.cache.confirm(known, self.scrape.as_of, known.time)
            response = await self._ask(url, max_bytes, types, known)
            if response.status == 304 and known:
                return self.cache.confirm(known, self.scrape.as_of)
            return self.cache.put(url, **vars(response), as_of=self.scrape.as_of, before=before)

    async def _ask(self, url: str, max_bytes: int, types: tuple[str, ...], known: Exchange | None) -> Response:
        """Ask the server, again if need be, minding the host's rhythm."""
        host = self._host(netloc_of(url))
        failure = Failure("scrape.error.fetch", "")
        for tried in range(self.scrape.tries):
            if tried:
                await asyncio.sleep(BACKOFF_S * 2 ** (tried - 1) * random.uniform(1, 1.5))
            try:
                async with host.slots:
                    if host.failures >= MAX_HOST_FAILURES:
                        said = f"not asked: the host failed {MAX_HOST_FAILURES} times in a row"
                        raise Failure("scrape.error.fetch", said)
                    async with self._turn(host):
                        response = await self._request(url, host, max_bytes, types, known)
            except TimeoutError as error:
                if not isinstance(error, aiohttp.ClientError):  # the limit of the whole page: once is enough
                    host.failures += 1
                    raise Failure("scrape.error.fetch", "the page takes too long") from None
                failure = Failure("scrape.error.fetch", f"no answer in {self.scrape.timeout_s:g} s")
            except (aiohttp.ClientError, OSError, ValueError) as error:
                if isinstance(getattr(error, "os_error", error), NotPublic):
                    raise Failure("scrape.error.fetch", str(getattr(error, "os_error", error))) from None
                failure = Failure("scrape.error.fetch", _say(error))
            else:
                if response.status != 429 and response.status < 500:
                    host.failures = 0
                    return response
                failure = Failure("scrape.error.status", f"status {response.status}")
                wait = retry_after(response.headers.get("retry-after", ""), time.time())
                host.next_time = max(host.next_time, time.monotonic() + wait)
        # A page's own error (500) says nothing of the next; silence and "too many requests" do.
        host.failures += failure.reason == "scrape.error.fetch" or failure.detail in ("status 429", "status 503")
        raise failure

    @contextlib.asynccontextmanager
    async def _turn(self, host: Host) -> AsyncIterator[None]:
        """Wait until the host may be asked."""
        async with host.turn:
            while not self.serve and (wait := host.next_time - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            await self.connections.acquire()
            host.next_time = max(host.next_time, time.monotonic() + host.delay_s)
        try:
            yield
        finally:
            self.connections.release()

    async def _request(
        self, url: str, host: Host, max_bytes: int, types: tuple[str, ...], known: Exchange | None
    ) -> Response:
        """One request; the body is read of a page that we want only."""
        sent = _validators(known) if known else {}
        address = URL(self._actual(url), encoded=True)
        async with asyncio.timeout(PAGE_TIMEOUTS * self.scrape.timeout_s):
            proxy = await self._proxy(url)
            request = self._session(bool(proxy)).get(
                address, headers=sent, allow_redirects=False, proxy=proxy, trace_request_ctx=host
            )
            async with request as response:
                headers: dict[str, str] = {}
                for name, value in response.headers.items():
                    headers.setdefault(name.lower(), _utf8(value))
                if response.status != 200 or not _is_wanted_type(headers, types):
                    return Response(response.status, headers, cut=response.status == 200)
                try:
                    body = await read_body(response.content, headers.get("content-encoding", ""), max_bytes)
                except ValueError as error:
                    raise Failure("scrape.error.fetch", str(error)) from None
                return Response(response.status, headers, body[:max_bytes], cut=len(body) > max_bytes)

    def _session(self, proxied: bool) -> aiohttp.ClientSession:
        if proxied not in self.sessions:
            checked = not proxied and not self.private
            trace = aiohttp.TraceConfig()
            trace.on_request_headers_sent.append(_count_delay_from_here)
            resolver: AbstractResolver = PublicResolver() if checked else aiohttp.ThreadedResolver()
            self.sessions[proxied] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(resolver=resolver, limit=0, ssl=httpx.create_ssl_context()),
                headers={"User-Agent": self.scrape.user_agent, "Accept-Encoding": "gzip"},
                timeout=aiohttp.ClientTimeout(
                    None, sock_connect=self.scrape.timeout_s, sock_read=self.scrape.timeout_s
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                trace_configs=[trace],
                auto_decompress=False,
                max_line_size=MAX_HEADER_BYTES,
                max_field_size=MAX_HEADER_BYTES,
            )
        return self.sessions[proxied]

    async def _proxy(self, url: str) -> str | None:
        """The proxy that the environment names for a URL. Raises NotPublic for a host that we know to be private."""
        if self.serve or not self.proxies:
            return None
        parts = urlsplit(url)
        proxy = self.proxies.get(parts.scheme) or self.proxies.get("all")
        if not proxy or urllib.request.proxy_bypass(parts.netloc):
            return None
        if not self.private:
            with contextlib.suppress(socket.gaierror):
                found = await asyncio.get_running_loop().getaddrinfo(parts.hostname, None)
                private = [str(address[0]) for *_, address in found if not is_public(str(address[0]))]
                if private:
                    raise NotPublic(_not_public(private[0]))
        return proxy if "://" in proxy else f"http://{proxy}"

    # ---- names -------------------------------------------------------------------------------------------------------

    def _host(self, netloc: str) -> Host:
        if netloc not in self.hosts:
            self.hosts[netloc] = Host(asyncio.Semaphore(self.source.connections), delay_s=self.source.delay_s)
        return self.hosts[netloc]

    def _lock(self, name: str) -> asyncio.Lock:
        """What keeps two tasks from asking the same at once."""
        lock = self.locks.get(name)
        if lock is None:
            lock = self.locks[name] = asyncio.Lock()
        return lock

    def _actual(self, url: str) -> str:
        """Where a URL really is: for a served site at a port of this run, which nobody else gets to see."""
        if not self.serve:
            return url
        if self.served_base is None:
            self.served_base = self.stack.enter_context(served(self.serve))
        return self.served_base + path_and_query(url)

    def public(self, text: str) -> str:
        """A text without the address at which a served site really is."""
        return text.replace(self.served_base, self.public_base.rstrip("/")) if self.served_base else text


async def _count_delay_from_here(_session: aiohttp.ClientSession, context: Any, _sent: object) -> None:
    """A request has just left: connecting may have taken long, and the next one must not follow on its heels."""
    host: Host = context.trace_request_ctx
    host.next_time = max(host.next_time, time.monotonic() + host.delay_s)


def retry_after(value: str, now: float) -> float:
    """Seconds to wait as a `Retry-After` asks, in seconds or with a date, two minutes at most; 0 if it says nothing.

    >>> retry_after("7", 0), retry_after("Thu, 01 Jan 1970 00:00:30 GMT", 10), retry_after("soon", 0)
    (7.0, 20.0, 0.0)
    """
    try:
        wait = float(value) if value.strip().isdecimal() else parsedate_to_datetime(value).timestamp() - now
    except (ValueError, OverflowError):
        return 0.0
    return min(max(wait, 0.0), MAX_RETRY_AFTER_S)


def _redirects(exchange: Exchange) -> bool:
    return 300 <= exchange.status < 400 and "location" in exchange.headers


def _is_wanted_type(headers: dict[str, str], types: tuple[str, ...]) -> bool:
    """Whether the body is of one of the types; a server that does not say may mean any."""
    content_type = headers.get("content-type", "").split(";")[0].strip().lower()
    return not types or not content_type or content_type in types


def _suffices(known: Exchange, max_bytes: int, types: tuple[str, ...]) -> bool:
    """Whether an exchange, made for another purpose perhaps, says what we want to know."""
    return not known.cut or known.size >= max_bytes or not _is_wanted_type(known.headers, types)


def _validators(known: Exchange) -> dict[str, str]:
    """What makes a request conditional: the server then sends the page only if it has changed."""
    names = {"etag": "If-None-Match", "last-modified": "If-Modified-Since"}
    return {
        asked: known.headers[name] for name, asked in names.items() if name in known.headers and known.status == 200
    }


def _not_public(address: str) -> str:
    return f"{address} is not public: private_addresses: true allows it"


def _say(error: Exception) -> str:
    """What went wrong, in words that do not differ from run to run."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"{error.host} has no address"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"certificate: {getattr(error.certificate_error, 'verify_message', error.certificate_error)}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection: {os.strerror(error.os_error.errno)}" if error.os_error.errno else "no connection"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the server closed the connection"
    said = _utf8(str(error)).splitlines()
    return f"{type(error).__name__}: {said[0][:200]}" if said else type(error).__name__


def _utf8(text: str) -> str:
    """Text that may be written: aiohttp makes lone surrogates of bytes that are not UTF-8."""
    return text.encode("utf-8", "replace").decode()
