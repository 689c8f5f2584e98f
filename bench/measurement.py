"""What the scripts in `peers/` share: reading the documents, the clock, the shingles made in Python, the result."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import re
import resource
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

NGRAM, THRESHOLD, PERMUTATIONS, SEED = 3, 0.6, 128, 1
# What datasketch's optimiser takes for this threshold and as many permutations; for tools that ask for the numbers.
BANDS, ROWS_PER_BAND = 18, 7

_english_words = re.compile(r"\w+").findall
_chinese_tokens = re.compile(r"[\u4e00-\u9fff]|[a-z0-9]+").findall
_between_han = re.compile(r"(?<=[\u4e00-\u9fff])|(?=[\u4e00-\u9fff])")

Result = TypeVar("Result")


class Task(NamedTuple):
    """What a script is told."""

    input: Path  # Parquet with id, text
    language: str
    variant: str  # for scripts with several rows in the table
    scratch: Path  # an empty folder of the script's own
    result: Path  # where the result goes


def read_task() -> Task:
    """The task from the command line."""
    parser = argparse.ArgumentParser()
    for name in ("input", "language", "variant", "scratch", "result"):
        kind = str if name in ("language", "variant") else Path
        parser.add_argument(f"--{name}", type=kind, required=True)
    return Task(**vars(parser.parse_args()))


def read_column(task: Task) -> pa.Array:
    """The texts in one Arrow array."""
    column = pq.read_table(task.input, columns=["text"])["text"]
    return column.cast(pa.large_string()).combine_chunks()


def read_texts(task: Task) -> list[str]:
    """The texts as Python strings."""
    texts: list[str] = read_column(task).to_pylist()
    return texts


def shingles(text: str, language: str) -> Iterator[bytes]:
    """The runs of three words, or of three characters in Chinese, as users of these libraries make them.

    Joined by `map`, which takes half the time of slices in a comprehension.
    """
    found = _chinese_tokens(text.lower()) if language == "zh" else _english_words(text.lower())
    tokens = [token.encode() for token in found]
    return map(b" ".join, zip(*(tokens[start:] for start in range(NGRAM)), strict=False))


def spaced(text: str) -> str:
    """The text with a space on both sides of each Han character, for tools whose words end at spaces."""
    return " ".join(_between_han.sub(" ", text).split(" "))


def cpu_seconds() -> float:
    """Processor time of this process and of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def timed(work: Callable[[], Result]) -> tuple[Result, float]:
    """What some work gives, and its processor time."""
    start = cpu_seconds()
    return work(), cpu_seconds() - start


def later_matches(matches: Callable[[int], Iterable[int]], count: int) -> set[int]:
    """The usual loop over an index: visit in order, pass over removed ones, remove all matches that come later."""
    removed: set[int] = set()
    for row in range(count):
        if row not in removed:
            removed.update(other for other in matches(row) if other > row)
    return removed


def write_result(
    task: Task, package: str, *, signature_seconds: float | None, seconds: float, removed: Iterable[int]
) -> None:
    """Leave the result for the caller."""
    result = {
        "version": importlib.metadata.version(package),
        "signature_seconds": signature_seconds,
        "seconds": seconds,
        "peak_mb": peak_mb(),
        "removed": sorted(map(int, removed)),
    }
    task.result.write_text(json.dumps(result))


def peak_mb() -> float:
    """The most memory that this process, or one of its children, has held.

    `ru_maxrss` of a process begins with that of the one that started it; the kernel's VmHWM does not.
    """
    status = Path("/proc/self/status").read_text()
    own = int(status.split("VmHWM:")[1].split()[0])
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024
