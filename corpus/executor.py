"""Runs one function over many items: in this process, in a pool whose killed workers are replaced, or on a cluster.

The results are the same whichever runs them; only the order in which they come differs.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import gc
import multiprocessing
import os
import signal
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from corpus.cluster import ONE_THREAD, Cluster, run_on_ray
from corpus.errors import StageError, is_lack_of_memory, is_panic

Item = TypeVar("Item")
Result = TypeVar("Result")

Workers = int | Cluster  # processes on this machine, or the tasks of a Ray cluster

RETRIES = 3
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def run_tasks(
    function: Callable[[Item], Result], items: Sequence[Item], workers: Workers, shown: str = ""
) -> Iterator[tuple[Item, Result]]:
    """Apply a module-level function to each item and yield (item, result) as they finish.

    With one worker or, without a cluster, one item everything runs here. When a worker is killed from outside (out of
    memory, `kill -9`), the items then in flight are tried again one at a time; one that so kills RETRIES workers is
    named in a StageError. What the function itself raises comes through. `shown` is the name of a progress bar, if
    there is to be one.
    """
    from corpus.progress import progress  # tqdm takes its time, and `--help` needs none

    with progress(total=len(items), desc=shown, unit="task", shown=bool(shown)) as bar:
        for pair in _run_tasks(function, items, workers):
            bar.update()
            yield pair


def _run_tasks(
    function: Callable[[Item], Result], items: Sequence[Item], workers: Workers
) -> Iterator[tuple[Item, Result]]:
    if isinstance(workers, Cluster):
        if items:
            yield from run_on_ray(functools.partial(_call, function), items, workers, RETRIES)
        return
    if workers <= 1 or len(items) <= 1:
        for item in items:
            yield item, function(item)
        return
    waiting = deque(range(len(items)))
    suspects: set[int] = set()
    deaths: Counter[int] = Counter()
    while waiting:
        in_flight = 1 if suspects else workers
        broken, killed = False, list[int]()
        with _one_thread_each(), _pool(min(in_flight, len(waiting))) as pool:
            running: dict[Future[Result], int] = {}
            while (waiting or running) and not broken and (suspects or in_flight == workers):
                try:
                    # No more in flight than workers, so that only those can have killed one.
                    while waiting and len(running) < in_flight:
                        running[pool.submit(_call, function, items[waiting[0]])] = waiting[0]
                        waiting.popleft()
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        result = future.result()
                        number = running.pop(future)
                        suspects.discard(number)
                        yield items[number], result
                except BrokenProcessPool:
                    broken, killed = True, list(running.values())  # none, where a worker died that had nothing to do
        if len(killed) == 1:
            deaths[killed[0]] += 1
            if deaths[killed[0]] >= RETRIES:
                name = _name(items[killed[0]])
                raise StageError(f"a worker died {RETRIES} times over {name}: is there enough memory?")
        suspects.update(killed)
        waiting.extendleft(killed)


def _call(function: Callable[[Item], Result], item: Item) -> Result:
    """What a worker does."""
    try:
        return function(item)
    except BaseException as error:
        if is_lack_of_memory(error):  # some of its kinds could not even be sent to the driver
            raise StageError(f"there is not enough memory for {_name(item)} ({error}): use fewer --workers") from None
        if is_panic(error):
            raise StageError(f"a library gave up over {_name(item)}: {error}") from None
        raise


def _name(item: object) -> str:
    """An item, or the first thing of several that make up one."""
    return str(item[0] if isinstance(item, tuple) and item else item)


def default_workers() -> int:
    """The processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies: a worker with its stage, a stage with its dvc.

    Otherwise `kill -9` of dvc leaves the stage writing, and the next `dvc repro` starts a second one beside it. Linux
    only; elsewhere the lock on the output keeps the second one out.
    """
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died between the two calls
        os.kill(os.getpid(), signal.SIGKILL)


def end_quickly() -> None:
    """Spare this process a last search for garbage: what it holds goes with it, and the search takes 0.3 s."""
    atexit.register(gc.freeze)


def _pool(workers: int) -> ProcessPoolExecutor:
    # Never fork: Polars and numba hold threads and locks that a forked child inherits in an unknown state.
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_begin_worker)


def _begin_worker() -> None:
    die_with_parent()
    end_quickly()


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Workers share the processors between them, so each library in them gets one thread."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
