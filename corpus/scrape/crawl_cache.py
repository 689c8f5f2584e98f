"""HTTP exchanges on disk, by URL and user agent: a project's one crawl cache, whatever the source asks for.

SQLite with a write-ahead log: each exchange is written whole or not at all, so a crawl may be killed at any moment.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import zstandard

from corpus.errors import UserError
from corpus.scrape.urls import normalise_url

FILE = "exchanges.sqlite"
BUSY_SECONDS = 30.0
_TABLES = """
CREATE TABLE IF NOT EXISTS exchanges (
    url TEXT, agent TEXT,     -- what was asked for, and by whom
    as_of TEXT, time REAL,    -- under which scrape.as_of it was last confirmed; seconds since 1970
    status INTEGER,
    headers TEXT,             -- JSON object, names in lower case
    body TEXT,                -- digest of what was read of the body, NULL if nothing was
    size INTEGER, cut INTEGER,  -- bytes read of it; 1 if it goes on after them
    PRIMARY KEY (url, agent)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS exchanges_by_body ON exchanges (body);
CREATE TABLE IF NOT EXISTS bodies (digest TEXT PRIMARY KEY, content BLOB);  -- compressed by zstd
"""
_DELETE_UNUSED = "DELETE FROM bodies WHERE digest = ? AND NOT EXISTS (SELECT 1 FROM exchanges WHERE body = digest)"


@dataclasses.dataclass(frozen=True)
class Exchange:
    """One answer of a server, its body by digest. `cut`: it goes on after the `size` bytes that were read."""

    url: str
    as_of: str
    time: float
    status: int
    headers: dict[str, str]
    body: str | None = None
    size: int = 0
    cut: bool = False


class Cache:
    """The exchanges of one user agent. Raises UserError if the file is damaged or another process holds it too long."""

    def __init__(self, home: Path, agent: str) -> None:
        self.agent = agent
        self.path = home / "crawl" / FILE
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._named(), contextlib.ExitStack() as closing:
            self.connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS)
            closing.callback(self.connection.close)
            self.connection.execute("PRAGMA journal_mode = WAL")
            self.connection.execute("PRAGMA synchronous = NORMAL")  # a power cut may cost the last pages, no more
            self.connection.execute("PRAGMA secure_delete = ON")
            self.connection.executescript(_TABLES)
            closing.pop_all()

    def get(self, url: str) -> Exchange | None:
        query = "SELECT as_of, time, status, headers, body, size, cut FROM exchanges WHERE url = ? AND agent = ?"
        with self._named():
            row = self.connection.execute(query, (url, self.agent)).fetchone()
        if row is None:
            return None
        as_of, when, status, headers, body, size, cut = row
        return Exchange(url, as_of, when, status, json.loads(headers), body, size, bool(cut))

    def body(self, digest: str | None) -> bytes:
        if digest is None:
            return b""
        with self._named():
            row = self.connection.execute("SELECT content FROM bodies WHERE digest = ?", (digest,)).fetchone()
        return zstandard.decompress(row[0])

    def put(
        self,
        url: str,
        status: int,
        headers: dict[str, str],
        body: bytes,
        *,
        cut: bool = False,
        as_of: str = "",
        before: Exchange | None = None,
    ) -> Exchange:
        """Keep an exchange, in place of the one before, whose body goes if nothing else has it."""
        digest = hashlib.blake2b(body, digest_size=16).hexdigest() if body else None
        exchange = Exchange(url, as_of, time.time(), status, headers, digest, len(body), cut)
        row = (url, self.agent, as_of, exchange.time, status, json.dumps(headers), digest, len(body), cut)
        with self._named(), self.connection:
            if digest:
                content = zstandard.compress(body)
                self.connection.execute("INSERT OR IGNORE INTO bodies VALUES (?, ?)", (digest, content))
            self.connection.execute("INSERT OR REPLACE INTO exchanges VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
            if before and before.body and before.body != digest:
                self.connection.execute(_DELETE_UNUSED, (before.body,))
        return exchange

    def confirm(self, exchange: Exchange, as_of: str, when: float | None = None) -> Exchange:
        """Keep that a page was found unchanged, just now or at another time."""
        confirmed = dataclasses.replace(exchange, as_of=as_of, time=time.time() if when is None else when)
        update = "UPDATE exchanges SET as_of = ?, time = ? WHERE url = ? AND agent = ?"
        with self._named(), self.connection:
            self.connection.execute(update, (as_of, confirmed.time, exchange.url, self.agent))
        return confirmed

    def close(self) -> None:
        self.connection.close()

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise UserError(f"{self.path} cannot be used: {error}; does another crawl or `forget` run?") from None
        except sqlite3.DatabaseError as error:
            raise UserError(f"{self.path} is damaged: {error}; delete it, and pages are fetched again") from None


def forget(home: Path, urls: Callable[[str], bool]) -> int:
    """Remove the exchanges whose URL, or where it redirects to, fulfils a predicate, and bodies that no other one has.

    Returns how many exchanges went. The freed pages are overwritten, and the file is rewritten without them.
    """
    if not (home / "crawl" / FILE).exists():
        return 0
    with contextlib.closing(Cache(home, "")) as cache, cache._named():
        connection = cache.connection
        query = "SELECT url, agent, body, json_extract(headers, '$.location') FROM exchanges"
        gone = [row for row in connection.execute(query) if any(map(urls, _addresses(row[0], row[3])))]
        with connection:
            connection.executemany("DELETE FROM exchanges WHERE url = ? AND agent = ?", [row[:2] for row in gone])
            connection.executemany(_DELETE_UNUSED, [(row[2],) for row in gone if row[2]])
        if gone:
            connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return len(gone)


def _addresses(url: str, location: str | None) -> list[str]:
    """A URL, and the one that it redirects to."""
    target = normalise_url(location, url) if location else None
    return [url, target] if target else [url]
