"""Tasks on Ray: the same results as in processes, and what happens when workers and nodes die. Real clusters, here."""

import functools
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from corpus import __version__
from corpus.cluster import Cluster, _call, _tasks_at_once
from corpus.errors import StageError, UserError
from corpus.executor import run_tasks

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'corpusmill[ray]'")

HERE = Cluster("local", workers=2)


@pytest.fixture(autouse=True, scope="module")
def _these_functions_are_known_to_workers() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        yield
    ray.shutdown()


def square(number: int) -> int:
    return number * number


def die_once(marker: Path) -> str:
    """Kill the worker the first time the marker is worked on, succeed the second time."""
    if not marker.exists():
        marker.write_text("died")
        os.kill(os.getpid(), signal.SIGKILL)
    return marker.name


def die_always(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def refuse(number: int) -> int:
    raise UserError(f"{number} is not acceptable")


def environment(name: str) -> str | None:
    return os.environ.get(name)


def log_start(folder: Path, number: int) -> int:
    (folder / str(number)).touch()
    time.sleep(0.05)
    return number


def test_every_item_gets_its_result() -> None:
    assert dict(run_tasks(square, range(50), HERE)) == {n: n * n for n in range(50)}


def test_no_item_is_no_work() -> None:
    assert list(run_tasks(square, [], HERE)) == []


def test_a_worker_has_one_thread_and_the_folder_of_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert dict(run_tasks(environment, ["POLARS_MAX_THREADS"], HERE)) == {"POLARS_MAX_THREADS": "1"}
    monkeypatch.chdir(tmp_path)
    assert [result for _, result in run_tasks(os.path.realpath, ["."], HERE)] == [str(tmp_path.resolve())]


def test_a_killed_worker_costs_a_retry_and_no_item(tmp_path: Path) -> None:
    markers = [tmp_path / str(n) for n in range(4)]
    markers[0].write_text("fine")
    assert {name for _, name in run_tasks(die_once, markers, HERE)} == {"0", "1", "2", "3"}


def test_an_item_that_always_kills_its_worker_is_named() -> None:
    with pytest.raises(StageError, match="Ray gave up 7 after 3 retries: "):
        dict(run_tasks(die_always, [7], HERE))


def test_what_the_function_raises_comes_through() -> None:
    with pytest.raises(UserError, match="is not acceptable"):
        dict(run_tasks(refuse, [1, 2], HERE))


def test_no_more_tasks_are_handed_over_than_asked_for(tmp_path: Path) -> None:
    results = run_tasks(functools.partial(log_start, tmp_path), range(20), HERE)
    next(results)
    assert len(list(tmp_path.iterdir())) <= 4  # two done at most, and two more
    results.close()
    time.sleep(0.3)
    assert len(list(tmp_path.iterdir())) <= 4  # the rest was never begun


def test_a_task_that_no_node_has_room_for_is_refused() -> None:
    with pytest.raises(
        UserError, match="a task wants 1 CPUs, 8 GPUs and 0 MB, and the nodes of the Ray cluster have 2, 0 and "
    ):
        dict(run_tasks(square, [1], Cluster("local", gpus=8)))
    with pytest.raises(UserError, match="and 9,999,999 MB, and the nodes"):
        dict(run_tasks(square, [1], Cluster("local", memory_mb=9_999_999)))


def test_nodes_have_the_room_of_each_and_not_of_all_together() -> None:
    cluster = Cluster(cpus=2, memory_mb=3_000)
    small, large = ({"CPU": cpus, "memory": 1e9 * cpus} for cpus in (2.0, 7.0))
    assert _tasks_at_once(_Nodes(small, large, small), cluster) == 3  # two on the large one, and one in reserve
    with pytest.raises(UserError, match=r"nodes of the Ray cluster have 2, 0 and 2,000 MB: see execution.cpus"):
        _tasks_at_once(_Nodes(small, small, small), cluster)


class _Nodes:
    """What Ray says of its nodes."""

    def __init__(self, *resources: dict[str, float]) -> None:
        self.resources = resources

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": one} for one in self.resources]


def test_a_node_with_another_version_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert _call(square, 3, str(tmp_path), __version__) == 9
    with pytest.raises(UserError, match=f"node .* has corpusmill {__version__}, and this machine 0.0.9: install"):
        _call(square, 3, str(tmp_path), "0.0.9")


@pytest.mark.parametrize(
    ("address", "said"),
    [("127.0.0.1:1", "no Ray cluster answers there"), ("head", "name HOST:PORT"), ("ray://head", "name HOST:PORT")],
)
def test_an_address_where_no_cluster_is(address: str, said: str) -> None:
    ray.shutdown()
    with pytest.raises(UserError, match=f"execution.address .*{address}.*{said}"):
        dict(run_tasks(square, [1], Cluster(address)))
