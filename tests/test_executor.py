"""The executor gives every result once, whatever dies on the way."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from corpus.errors import StageError, UserError
from corpus.executor import RETRIES, run_tasks


def square(number: int) -> int:
    return number * number


def die_once(marker: Path) -> str:
    """Kill the worker the first time the marker is worked on, succeed the second time."""
    if not marker.exists():
        marker.write_text("died")
        os.kill(os.getpid(), signal.SIGKILL)
    return marker.name


def die_always(number: int) -> int:
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.2)  # so that the others are in flight when it dies
    return number


def refuse(number: int) -> int:
    raise UserError(f"{number} is not acceptable")


@pytest.mark.parametrize("workers", [1, 3])
def test_every_item_gets_its_result(workers: int) -> None:
    assert dict(run_tasks(square, range(20), workers)) == {n: n * n for n in range(20)}


def test_a_killed_worker_costs_a_retry_and_no_item(tmp_path: Path) -> None:
    markers = [tmp_path / str(n) for n in range(5)]
    for marker in markers[1:]:
        marker.write_text("fine")
    assert {name for _, name in run_tasks(die_once, markers, 2)} == {"0", "1", "2", "3", "4"}


def test_a_worker_killed_while_it_has_nothing_to_do_is_replaced(tmp_path: Path) -> None:
    """After one death items run one at a time; between two of them the caller works and the worker waits."""
    markers = [tmp_path / str(number) for number in range(4)]
    for marker in markers[1:]:
        marker.touch()
    results = {}
    for marker, result in run_tasks(die_once, markers, 2):
        results[marker] = result
        if len(results) == 1:
            for worker in multiprocessing.active_children():
                worker.kill()
            time.sleep(0.3)
    assert set(results) == set(markers)


def test_an_item_that_always_kills_its_worker_is_named_and_not_its_neighbours() -> None:
    with pytest.raises(StageError, match=f"died {RETRIES} times over 2:"):
        dict(run_tasks(die_always, [1, 3, 4, 2, 5], 3))


@pytest.mark.parametrize("workers", [1, 2])
def test_what_the_function_raises_comes_through(workers: int) -> None:
    with pytest.raises(UserError, match="is not acceptable"):
        dict(run_tasks(refuse, [1, 2], workers))
