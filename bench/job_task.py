"""What the scripts `job_*.py` are told, and the language that all of them ask for in the same way."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

NGRAM, THRESHOLD, PERMUTATIONS, BANDS, ROWS_PER_BAND = 3, 0.6, 128, 18, 7
_CODES = "ar cs de en es fr hi id it ja ko nl pl pt ru th tr uk vi zh"
LANGUAGES = _CODES.split()  # which it may be; English is kept
LANGUAGE_CHARS = 2_000  # of a text, to tell it by
STOP_WORDS = ["the", "be", "to", "of", "and", "that", "have", "with"]  # Gopher's


class Job(NamedTuple):
    """A job for one tool."""

    work: str  # texts: Parquet; rows: JSONL with `text`; pages: JSONL with `html`
    input: Path  # a folder of files
    output: Path  # an empty folder; the kept documents go into JSONL files in its folder `kept`
    workers: int


def read_job() -> Job:
    """The job from the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=["texts", "rows", "pages"])
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("workers", type=int)
    return Job(**vars(parser.parse_args()))


@functools.cache
def _classify() -> Callable[[str], tuple[str, float]]:
    import py3langid

    py3langid.set_languages(LANGUAGES)
    classify: Callable[[str], tuple[str, float]] = py3langid.classify
    return classify


def language_of(text: str) -> str:
    """The language of a text by py3langid: the tools' own fastText model is a download that not everybody can make."""
    return _classify()(text[:LANGUAGE_CHARS])[0]
