"""All targets on their seeds and on bytes that hypothesis makes of them; the kernels' with checks of every index."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from types import FrameType

import pytest
from conftest import PROJECT
from hypothesis import given, settings
from hypothesis import strategies as st

from .targets import KERNELS, READERS, TARGETS

MAX_SECONDS = 20  # that one input may take, on a machine that does other things beside
EXAMPLES = 40
CHECKED = "NUMBA_BOUNDSCHECK" in os.environ


@pytest.fixture(autouse=True)
def time_limit() -> Iterator[None]:
    """An input that takes too long ends the test, wherever it is in Python."""

    def stop(_: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"still at work in {frame and frame.f_code.co_qualname}")

    before = signal.signal(signal.SIGALRM, stop)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def check(name: str, data: bytes) -> None:
    signal.alarm(MAX_SECONDS)
    TARGETS[name].check(data)
    signal.alarm(0)


def near(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Bytes that are like some seeds: pieces of them in a row, some with others put in."""
    piece = st.tuples(st.sampled_from(seeds), st.integers(0, 400), st.integers(0, 400))
    cut = piece.map(lambda drawn: drawn[0][drawn[1] : -drawn[2] or None])
    mixed = st.lists(st.one_of(cut, st.sampled_from(seeds), st.binary(max_size=8)), min_size=1, max_size=4)
    return st.one_of(mixed.map(b"".join), st.binary(max_size=100))


@pytest.mark.parametrize("name", TARGETS)
def test_seeds(name: str) -> None:
    TARGETS[name].check(TARGETS[name].seeds[0])  # kernels are compiled at their first call
    for seed in TARGETS[name].seeds:
        check(name, seed)


@pytest.mark.parametrize("name", KERNELS if CHECKED else READERS)
@given(st.data())
@settings(max_examples=EXAMPLES)
def test_any_bytes(name: str, data: st.DataObject) -> None:
    check(name, data.draw(near(TARGETS[name].seeds)))


def test_kernels_read_and_write_within_their_arrays(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The kernels' targets in a process of its own, where each index is checked; compiled once, for all of them."""
    folder = tmp_path_factory.mktemp("kernels")
    environment = os.environ | {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(folder)}
    tests = [f"{__file__}::{test}[{name}]" for test in ("test_seeds", "test_any_bytes") for name in KERNELS]
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(words, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-4_000:]
