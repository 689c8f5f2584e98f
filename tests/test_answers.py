"""The file of answers: opened by many processes at once, which is how augment's workers find it on a first run."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from corpus.answers import answers, key_of

WORKERS, ROUNDS = 8, 12


def _put(path: Path, number: int) -> str | None:
    with answers(path) as opened:
        opened.put(key_of(str(number)), f"document {number}", f"answer {number}")
        return opened.get(key_of(str(number)))


def test_many_processes_may_open_a_new_file_at_once(tmp_path: Path) -> None:
    with ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn")) as pool:
        for attempt in range(ROUNDS):
            path = tmp_path / f"{attempt}.sqlite"
            found = pool.map(_put, [path] * WORKERS, range(WORKERS))
            assert list(found) == [f"answer {number}" for number in range(WORKERS)]
