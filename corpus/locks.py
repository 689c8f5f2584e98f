"""Locks between runs: a file that one of them holds, and that goes with it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from corpus.errors import UserError

LOCK_SECONDS = 10.0


@contextlib.contextmanager
def locked(path: Path, output: Path, *, shared: bool = False, passing: bool = False) -> Iterator[None]:
    """Hold the lock of an output, alone or with others that share it; wait a little for a run that is being killed.

    A `passing` one is removed afterwards; none that others lock by means of their own may be. Raises UserError if the
    lock stays with another.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + LOCK_SECONDS
    while (file := _lock(path, shared)) is None:
        if time.monotonic() > deadline:
            raise UserError(f"{output} is being written by another run: wait for it, or stop it")
        time.sleep(0.1)
    with file:
        try:
            yield
        finally:
            if passing:
                path.unlink(missing_ok=True)


def locked_output(output: Path) -> contextlib.AbstractContextManager[None]:
    """Hold the lock of a stage's output, an absolute path. It lies beside it: runs of other folders see it as well."""
    return locked(output.with_name(f".{output.name}.lock"), output, passing=True)


def _lock(path: Path, shared: bool) -> IO[str] | None:
    """The locked file, or None while another run holds it."""
    file = path.open("a+")
    with contextlib.suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        if path.stat().st_ino == os.fstat(file.fileno()).st_ino:  # and not one that its holder has just removed
            return file
    file.close()
    return None
