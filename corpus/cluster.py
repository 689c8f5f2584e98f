"""Runs one function over many items on a Ray cluster: the same function, the same results as in a process pool.

Tasks read and write files, so all nodes have to see the project's folder and `.corpusmill/` under the same path.
"""

from __future__ import annotations

import atexit
import dataclasses
import logging
import os
import shutil
import socket
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from corpus import __version__
from corpus.errors import StageError, UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

# Workers share the processors between them.
ONE_THREAD = dict.fromkeys(("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS"), "1")
_CONNECT_SECONDS = 5
_OBJECT_STORE_BYTES = 100_000_000  # tasks pass the names of files; Ray would take a third of the memory


@dataclasses.dataclass(frozen=True)
class Cluster:
    """A Ray cluster, and what a task takes of it."""

    address: str | None = None  # None: that of RAY_ADDRESS, or else a private one on this machine for this process
    workers: int | None = None  # tasks at once, at most; None: as many as the cluster has processors or GPUs for
    cpus: float = 1.0  # of a task
    gpus: float = 0.0
    memory_mb: int | None = None  # that must be free on a node before a task starts there


def run_on_ray(
    function: Callable[[Item], Result], items: Sequence[Item], cluster: Cluster, retries: int
) -> Iterator[tuple[Item, Result]]:
    """Apply a module-level function to each item as tasks of Ray and yield (item, result) as they finish.

    Only a few more tasks than can run are handed to Ray at a time. One whose worker or node dies is tried again, so
    often; then a StageError names its item. What the function itself raises comes through.
    """
    ray = _connect(cluster)
    task = ray.remote(
        num_cpus=cluster.cpus,
        num_gpus=cluster.gpus,
        memory=cluster.memory_mb * 1_000_000 if cluster.memory_mb else None,
        max_retries=retries,
    )(_call)
    shared = ray.put(function)  # once, and not with every task: it may hold parameters and word lists
    at_once = _tasks_at_once(ray, cluster)
    waiting = deque(items)
    running: dict[Any, Item] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                item = waiting.popleft()
                running[task.remote(shared, item, str(Path.cwd()), __version__)] = item
            done = ray.wait(list(running), num_returns=1)[0][0]
            item = running.pop(done)
            yield item, _result(ray, done, item, retries)
    finally:  # what is still in flight would go on writing into folders that the stage is about to remove
        for reference in running:
            ray.cancel(reference, force=True)


def _call(function: Callable[[Any], Any], item: Any, folder: str, version: str) -> Any:
    """What runs on a node: the function, in the folder in which the stage was started, if the node is like the driver.

    Versions of Python and Ray are Ray's to compare.
    """
    node = os.uname().nodename
    if version != __version__:
        raise UserError(f"node {node} has corpusmill {__version__}, and this machine {version}: install the same")
    if not Path(folder).is_dir():
        raise UserError(f"node {node} has no {folder}: all nodes of a Ray cluster must see the project")
    os.chdir(folder)
    return function(item)


def _result(ray: Any, reference: Any, item: object, retries: int) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, Exception):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:  # worker, node or memory: Ray has tried again by itself
        first_line = str(error).strip().splitlines()[0]
        raise StageError(f"Ray gave up {item} after {retries} retries: {first_line}") from None


def _connect(cluster: Cluster) -> Any:
    """Ray, connected. A private cluster ends with this process. Raises UserError where there is none to be had."""
    try:
        import ray
    except ImportError:
        raise UserError("execution.engine ray needs Ray: pip install 'corpusmill[ray]'") from None
    if ray.is_initialized():
        return ray
    # `init` without an address would join whatever cluster last ran on this machine.
    address = cluster.address or os.environ.get("RAY_ADDRESS") or "local"
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_task_oom_retries", "3")  # without an end by default
    options: dict[str, Any] = {}
    if address == "local":
        folder = tempfile.mkdtemp(prefix="corpus-ray-")  # short: paths of sockets have at most 107 bytes
        options = {
            "num_cpus": cluster.workers,
            "object_store_memory": _OBJECT_STORE_BYTES,
            "include_dashboard": False,
            "_temp_dir": folder,
        }
        atexit.register(_stop, ray, folder)
    elif address != "auto":
        _refuse_silence(address)
    try:
        ray.init(
            address,
            runtime_env={"env_vars": _environment()},
            log_to_driver=False,
            logging_level=logging.ERROR,
            **options,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise UserError(f"execution.address {address}: no Ray cluster answers there ({first_line})") from None
    return ray


def _refuse_silence(address: str) -> None:
    """Raises UserError where nobody answers; Ray would wait for long and then end this process itself."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"execution.address {address!r}: name HOST:PORT of the cluster's head, 10.0.0.5:6379 say")
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise UserError(f"execution.address {address}: no Ray cluster answers there ({error})") from None


def _environment() -> dict[str, str]:
    """What workers need of this process's environment: one thread each, and where modules and caches are."""
    passed = ("PYTHONPATH", "NUMBA_CACHE_DIR", "HF_HOME", "HF_HUB_OFFLINE", "CORPUSMILL_LOG")
    return ONE_THREAD | {name: os.environ[name] for name in passed if name in os.environ}


def _stop(ray: Any, folder: str) -> None:
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def _tasks_at_once(ray: Any, cluster: Cluster) -> int:
    """As many as have room, and some in reserve, so that none waits for us."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    megabytes = cluster.memory_mb or 0
    wanted = {"CPU": cluster.cpus, "GPU": cluster.gpus, "memory": megabytes * 1e6}
    room = sum(int(min(node.get(name, 0.0) / amount for name, amount in wanted.items() if amount)) for node in nodes)
    if not room:
        held = "; ".join(sorted({_told(node) for node in nodes}))
        raise UserError(
            f"a task wants {cluster.cpus:g} CPUs, {cluster.gpus:g} GPUs and {megabytes:,} MB, and the nodes of the Ray "
            f"cluster have {held}: see execution.cpus, execution.gpus and execution.memory_mb"
        )
    return cluster.workers or int(room * 1.25) + 1


def _told(node: Mapping[str, float]) -> str:
    return f"{node.get('CPU', 0):g}, {node.get('GPU', 0):g} and {node.get('memory', 0) / 1e6:,.0f} MB"
