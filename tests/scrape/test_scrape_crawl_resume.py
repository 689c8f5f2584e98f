"""Ten thousand pages, and a crawler that is killed on the way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

PAGES = 10_000
CONNECTIONS = 8
FORBIDDEN = 10  # every tenth page links to one that robots.txt forbids
CRAWL = """
import json, sys
from pathlib import Path
from corpus.params import Scrape
from corpus.scrape.crawl import crawl
from corpus.sources import SiteSource

base, home, connections = sys.argv[1:]
given = {"name": "s", "kind": "site", "start": [base + "/p/0"], "delay_s": 0, "connections": int(connections)}
given |= {"max_pages": 50_000, "private_addresses": True}
for row in crawl(SiteSource.model_validate(given), Scrape(), Path(home)):
    print(json.dumps([row["url"], row.get("reason"), row.get("body", b"").decode()]), flush=True)
"""


def page(number: int) -> bytes:
    """A page with links to ten further ones, some of its neighbours, one twice, and back to the first."""
    links = [*range(10 * number + 1, 10 * number + 11), number + 1, number + 1, max(number - 1, 0), 0]
    found = "".join(f'<li><a href="/p/{n}#top">page {n}</a>' for n in links if n < PAGES)
    found += f"<a href=/q/{number}>forbidden</a>" * (number % FORBIDDEN == 0)
    return f"<title>{number}</title><ul>{found}</ul>".encode() + b"words of page %d " % number * 40


class Answering(asyncio.Protocol):
    """Serves the pages, and logs what was asked."""

    def __init__(self, log: list[str]) -> None:
        self.log = log

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.received = transport, b""

    def data_received(self, data: bytes) -> None:
        *requests, self.received = (self.received + data).split(b"\r\n\r\n")
        for request in requests:
            path = request.split(b" ", 2)[1].decode()
            self.log.append(path)
            body = b"User-agent: *\nDisallow: /q/\n" if path == "/robots.txt" else page(int(path.split("/")[2]))
            kind = b"plain" if path == "/robots.txt" else b"html"
            head = b"HTTP/1.1 200 OK\r\ncontent-type: text/%s\r\ncontent-length: %d\r\n\r\n" % (kind, len(body))
            self.transport.write(head + body)


@contextlib.contextmanager
def serving(log: list[str]) -> Iterator[str]:
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(lambda: Answering(log), "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    server.close()
    loop.close()


def test_a_crawl_killed_midway_loses_nothing_and_fetches_no_page_twice(tmp_path: Path) -> None:
    log: list[str] = []
    with serving(log) as base:
        words = [sys.executable, "-c", CRAWL, base, str(tmp_path), str(CONNECTIONS)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            reading = threading.Thread(target=process.communicate)  # or its output would fill the pipe
            reading.start()
            while len(log) < 3_000 and process.poll() is None:
                time.sleep(0.002)
            os.kill(process.pid, signal.SIGKILL)
            reading.join()
        assert len(log) < 5_000, "it was killed in the middle"
        done = subprocess.run(words, capture_output=True, check=True, text=True)

    rows = [json.loads(line) for line in done.stdout.splitlines()]
    bodies = {url.removeprefix(base): body for url, reason, body in rows if reason is None}
    assert bodies == {f"/p/{n}": page(n).decode() for n in range(PAGES)}
    refused = {url.removeprefix(base) for url, reason, _ in rows if reason == "scrape.robots"}
    assert refused == {f"/q/{n}" for n in range(0, PAGES, FORBIDDEN)}
    assert len(rows) == len(bodies) + len(refused)
    asked = Counter(log)
    assert not any(path.startswith("/q/") for path in asked)
    assert set(asked) == {"/robots.txt", *bodies}
    # What a killed crawl had under way has to be asked for again: at most what one host may have under way.
    again = sum(count - 1 for count in asked.values())
    assert again <= CONNECTIONS
    assert max(asked.values()) <= 2
