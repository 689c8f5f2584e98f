"""A web server on the loopback for tests of the crawler: pages by path, and a log of what was asked when."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

HTML = {"content-type": "text/html"}
NOT_FOUND = (404, HTML, b"none")
Page = tuple[int, dict[str, str], bytes]


class Asked(NamedTuple):
    """A request: when it came, for what, with which headers (names in lower case)."""

    time: float
    path: str
    headers: dict[str, str]


class Site:
    """`pages` by path: status, headers and body, or a function that gets the handler and may answer as it likes."""

    def __init__(self, pages: dict[str, Page | Callable[[BaseHTTPRequestHandler], Page | None]]) -> None:
        self.pages = pages
        self.log: list[Asked] = []
        self.most_at_once = self._at_once = 0
        self._lock = threading.Lock()
        self.base = ""

    @property
    def asked(self) -> list[str]:
        return [request.path for request in self.log]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        headers = {name.lower(): value for name, value in handler.headers.items()}
        with self._lock:
            self.log.append(Asked(time.monotonic(), handler.path, headers))
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            page = self.pages.get(handler.path, NOT_FOUND)
            given = page(handler) if callable(page) else page
            if given:
                status, fields, body = given
                handler.send_response(status)
                for name, value in fields.items():
                    handler.send_header(name, value)
                handler.send_header("content-length", str(len(body)))
                handler.end_headers()
                handler.wfile.write(body)
        except OSError:
            pass  # the crawler hung up
        finally:
            with self._lock:
                self._at_once -= 1


@contextlib.contextmanager
def serving(pages: dict[str, Any]) -> Iterator[Site]:
    """Serve pages on a free port; `base` of the site is its address without a slash at the end."""
    site = Site(pages)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.answer(self)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    site.base = f"http://127.0.0.1:{server.server_port}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
