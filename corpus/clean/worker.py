"""A process of its own for what pages may do to a parser: it is killed when a page takes too long, and replaced.

Nothing that a page can do, from an endless loop in C to a crash or a full memory, costs more than its own row. The
process is asked in Arrow and answers in JSON: what has read hostile pages hands over data, never objects.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import multiprocessing
import os
import resource
import time
import warnings
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pyarrow as pa

from corpus.clean.document import Refused, Settings, clean_row, warm_up
from corpus.errors import StageError, UserError
from corpus.executor import die_with_parent

START_SECONDS = 300.0  # imports, and the kernels, which are compiled when they are used for the first time
WALL_FACTOR = 10  # a page may take so many times its limit by the clock: other processes must not cost it its place
LOOK_SECONDS = 0.5  # between two looks at a page that takes long
MEMORY_BYTES = 3 << 30  # of data; a page within clean.max_mb needs some hundreds of megabytes at most
BATCH_BYTES = 8 << 20
BATCH_ROWS = 64

Outcome = dict[str, Any]  # the columns of a document that cleaning sets; or `reason` and `detail`, and `text` if read


def clean_rows(rows: pa.Table, settings: Settings, timeout_s: float) -> Iterator[Outcome]:
    """The outcome of each row, in order, each within `timeout_s` seconds of processor time.

    A row that kills the process is tried once more in a fresh one, for it may not have been its fault.
    """
    for table in _slices(rows):
        done = deaths = 0
        while done < table.num_rows:
            worker = _running_worker()
            with worker.asked(settings, table.slice(done)):
                for outcome in worker.answers(table.num_rows - done, timeout_s):
                    if outcome is None:
                        deaths += 1
                        if deaths < 2:
                            break
                        outcome = {"reason": "clean.error.crash", "detail": worker.how_it_ended()}
                    yield outcome
                    done, deaths = done + 1, 0


def _slices(rows: pa.Table) -> Iterator[pa.Table]:
    """The rows in tables small enough to be sent at once."""
    size = max(1, min(BATCH_ROWS, int(BATCH_BYTES * max(1, rows.num_rows) / max(1, rows.nbytes))))
    for start in range(0, rows.num_rows, size):
        yield rows.slice(start, size)


# ---- the side that asks ----------------------------------------------------------------------------------------------


class _Worker:
    """The process and the pipe to it."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        self.alive, self.unread = True, 0
        if not self.pipe.poll(START_SECONDS) or not self._receive():
            raise StageError(f"the process that cleans pages does not start: {self.how_it_ended()}")

    @contextlib.contextmanager
    def asked(self, settings: Settings, table: pa.Table) -> Iterator[None]:
        """Send rows; whoever leaves before all answers are read leaves a process that is of no more use."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        self.unread = table.num_rows
        try:
            with contextlib.suppress(OSError):  # it has died: the first answer will say so
                self.pipe.send_bytes(settings.to_json().encode())
                self.pipe.send_bytes(sink.getvalue())
            yield
        finally:
            if self.unread and self.alive:
                self.stop()

    def answers(self, count: int, timeout_s: float) -> Iterator[Outcome | None]:
        """The outcomes of the rows asked about; None for one over which the process died, which ends them."""
        for _ in range(count):
            if self._waits_in_vain(timeout_s):
                self.stop()
                yield {"reason": "clean.error.timeout", "detail": f"over {timeout_s:g} s"}
                return
            answer = self._receive()
            if answer is None:
                self.process.join(1)  # its exit code says more than that of a killed one
                self.stop()
                yield None
                return
            self.unread -= 1
            outcome = json.loads(answer)
            if "broken" in outcome:  # our fault or the installation's, not the page's
                raise (UserError if outcome.get("user") else StageError)(outcome["broken"])
            yield outcome

    def _waits_in_vain(self, timeout_s: float) -> bool:
        """Wait for the next answer; True if the page has used up its time."""
        if self.pipe.poll(LOOK_SECONDS):
            return False
        started, used = time.monotonic() - LOOK_SECONDS, _processor_seconds(self.process.pid)
        while not self.pipe.poll(min(LOOK_SECONDS, timeout_s)):
            elapsed = time.monotonic() - started
            spent = _processor_seconds(self.process.pid) - used + LOOK_SECONDS
            if min(spent, elapsed) > timeout_s or elapsed > WALL_FACTOR * timeout_s:
                return True
        return False

    def _receive(self) -> bytes | None:
        try:
            return self.pipe.recv_bytes()
        except (EOFError, OSError):
            return None

    def how_it_ended(self) -> str:
        code = self.process.exitcode
        return f"signal {-code}" if code and code < 0 else f"exit code {code}"

    def stop(self) -> None:
        self.alive = False
        self.pipe.close()
        self.process.kill()
        self.process.join()


_workers: list[_Worker] = []  # one a process, kept for the next part; a list, so that it can be replaced


def _running_worker() -> _Worker:
    if not _workers or not _workers[0].alive:
        _workers[:] = [_Worker()]
    return _workers[0]


def _processor_seconds(process: int | None) -> float:
    """Processor time that a process has used so far; by the clock where the system does not tell."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return time.monotonic()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime and stime of proc(5)


# ---- the side that answers -------------------------------------------------------------------------------------------


def _serve(pipe: Connection) -> None:
    """Answer until the pipe is closed."""
    die_with_parent()
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    warnings.simplefilter("ignore")  # what libraries think of a page is nothing that its owner could mend
    logging.disable()
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        warm_up()
        pipe.send_bytes(b"ready")
        while True:
            settings = _settings(pipe.recv_bytes())
            for row in pa.ipc.open_stream(pipe.recv_bytes()).read_all().to_pylist():
                pipe.send_bytes(_as_json(_outcome(row, settings)))


def _as_json(outcome: Outcome) -> bytes:
    return json.dumps(outcome, ensure_ascii=False).encode("utf-8", "surrogatepass")


@functools.lru_cache(maxsize=8)
def _settings(given: bytes) -> Settings:
    return Settings.from_json(given.decode())


def _outcome(row: Mapping[str, Any], settings: Settings) -> Outcome:
    """`clean_row` with every failure as an outcome."""
    try:
        return clean_row(row, settings)
    except Refused as refused:
        return {"reason": refused.reason, "detail": refused.detail, "text": refused.text}
    except MemoryError:
        return {"reason": "clean.error.memory", "detail": f"over {MEMORY_BYTES >> 20} MB"}
    except ImportError as error:  # of a part that is installed badly
        return {"broken": f"clean: {error}"}
    except UserError as error:
        return {"broken": str(error), "user": True}
    except Exception as error:
        return {"reason": "clean.error.parse", "detail": f"{type(error).__name__}: {error}"[:500]}
