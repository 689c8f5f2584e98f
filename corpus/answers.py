"""What models and endpoints answered, in a file that outlives runs: nothing is asked twice, a killed run goes on."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from corpus.errors import UserError

WAIT_SECONDS = 60.0  # for another process that is writing


class Answers:
    """Answers by a key of all that decides them. Each names the document it is about, so that it can be forgotten."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._named(), contextlib.ExitStack() as closing:
            self._connection = sqlite3.connect(path, timeout=WAIT_SECONDS, isolation_level=None)
            closing.callback(self._connection.close)
            self._write_ahead()
            self._connection.execute("PRAGMA secure_delete = ON")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, document TEXT, answer TEXT) WITHOUT ROWID"
            )
            closing.pop_all()

    def _write_ahead(self) -> None:
        """Switch the file to write-ahead logging. SQLite does not wait by itself where others open it just now."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if time.monotonic() > deadline or not _is_busy(error):
                    raise
                time.sleep(0.01)

    def get(self, key: bytes) -> str | None:
        """The answer to a key, if there is one."""
        with self._named():
            found = self._connection.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        return found[0] if found else None

    def put(self, key: bytes, document: str, answer: str) -> None:
        """Keep an answer; at once safe from a kill."""
        with self._named():
            self._connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", (key, document, answer))

    def forget(self, documents: Collection[str]) -> int:
        """Remove the answers of some documents, also from the file's free pages. How many there were."""
        removed = sum(
            self._connection.execute("DELETE FROM answers WHERE document = ?", (one,)).rowcount for one in documents
        )
        if removed:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.execute("VACUUM")
        return removed

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise UserError(f"{self._path} cannot be used: {error}; make room or wait, and run again") from None
        except sqlite3.DatabaseError as error:
            raise UserError(f"{self._path} is damaged: {error}; delete it, and models are asked again") from None

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def _is_busy(error: sqlite3.OperationalError) -> bool:
    return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


@contextlib.contextmanager
def answers(path: Path) -> Iterator[Answers]:
    """Open a file of answers for a while."""
    opened = Answers(path)
    try:
        yield opened
    finally:
        opened.close()


def key_of(*parts: str) -> bytes:
    """128 bits of BLAKE2b over some strings.

    >>> key_of("a", "b") != key_of("ab", "")
    True
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return digest.digest()
