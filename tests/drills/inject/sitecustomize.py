"""Faults of the machine, put into every Python process that is started with this folder in PYTHONPATH.

DRILL_KILL: a pattern; a worker kills itself, as the OOM killer would, just before it opens for writing, or makes, a
path that matches; with DRILL_ANYWHERE any process does so. DRILL_ONCE: a file; with it only the first one does so.
DRILL_MEMORY: megabytes of address space that a worker may have. DRILL_CLOCK: seconds by which the clock jumps, forth at
one look and back at the next.
"""

from __future__ import annotations

import itertools
import os
import re
import resource
import signal
import sys
import time
from pathlib import Path


def kill_before(pattern: str, once: str | None) -> None:
    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event not in ("open", "os.mkdir") or not isinstance(arguments[0], str | os.PathLike):
            return
        if not re.search(pattern, os.fspath(arguments[0])):
            return
        if once is not None:
            try:
                os.mkdir(once)  # noqa: PTH102 - one of all workers can
            except FileExistsError:
                return
        os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def jump(seconds: float) -> None:
    real, real_ns, turns = time.time, time.time_ns, itertools.cycle((1, 0, -1))
    time.time = lambda: real() + next(turns) * seconds
    time.time_ns = lambda: real_ns() + next(turns) * int(seconds * 1e9)


def is_worker() -> bool:
    return "--multiprocessing-fork" in Path("/proc/self/cmdline").read_text().split("\0")


if "DRILL_CLOCK" in os.environ:
    jump(float(os.environ["DRILL_CLOCK"]))
if "DRILL_KILL" in os.environ and ("DRILL_ANYWHERE" in os.environ or is_worker()):
    kill_before(os.environ["DRILL_KILL"], os.environ.get("DRILL_ONCE"))
if "DRILL_MEMORY" in os.environ and is_worker():
    resource.setrlimit(resource.RLIMIT_AS, (int(os.environ["DRILL_MEMORY"]) << 20,) * 2)
