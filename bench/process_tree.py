"""Run a command and account for all of its processes, also those that outlive it or are never waited for. Linux."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_TICK = 0.05  # seconds between two looks at the memory
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Usage(NamedTuple):
    """What a command took, with all processes that it started."""

    status: int  # exit status; of a signal its negative number; None became -9 at the time limit
    wall: float  # seconds
    cpu: float  # processor seconds, of the user and the system
    rss_mb: float  # peak of the sum of resident memory: pages that processes share are counted in each
    pss_mb: float  # peak of the sum, shared pages counted once
    largest_mb: float  # peak of the largest process
    said: str  # its output, the last part of it


def run(command: Sequence[str], folder: Path, variables: Mapping[str, str], cores: Sequence[int], limit: int) -> Usage:
    """Run a command in a folder on some cores. Its orphans become ours, so that their time is counted as well."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    pinned = ["taskset", "--cpu-list", ",".join(map(str, cores)), *command]
    log = folder / "said.txt"
    before, start = _children_cpu(), time.perf_counter()
    with log.open("ab") as output:
        process = subprocess.Popen(
            pinned, cwd=folder, env=variables, stdout=output, stderr=output, stdin=subprocess.DEVNULL
        )
        peak = _Peak()
        peak.start()
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        wall = time.perf_counter() - start
        peak.ended.set()
        peak.join()
    _reap()
    said = log.read_bytes()[-20_000:].decode("utf-8", "replace")
    return Usage(status, wall, _children_cpu() - before, peak.rss, peak.pss, peak.largest, said)


class _Peak(threading.Thread):
    """Looks at the memory of all descendants of this process, over and over."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.ended = threading.Event()
        self.rss = self.pss = self.largest = 0.0

    def run(self) -> None:
        looks = 0
        while not self.ended.wait(_TICK):
            pids = descendants(os.getpid())
            sizes = [_resident_mb(pid) for pid in pids]
            self.rss = max(self.rss, sum(sizes))
            self.largest = max([self.largest, *sizes])
            if looks % 4 == 0:  # it costs the kernel more
                self.pss = max(self.pss, sum(map(_proportional_mb, pids)))
            looks += 1


def descendants(root: int) -> list[int]:
    """The processes that a process has started, and those that these have."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(path.parent.name))
    found, todo = [], [root]
    while todo:
        children = parents.get(todo.pop(), [])
        found += children
        todo += children
    return found


def _resident_mb(pid: int) -> float:
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE / 1e6
    return 0.0


def _proportional_mb(pid: int) -> float:
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/smaps_rollup").read_text().split("\nPss:")[1].split()[0]) * 1024 / 1e6
    return 0.0


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _reap() -> None:
    """Wait a little for what the command left running, then end it; only then does its time count as ours."""
    deadline = time.monotonic() + 5
    while left := descendants(os.getpid()):
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
        if time.monotonic() > deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
