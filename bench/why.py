"""How long `corpus why` takes by id, URL and words, on so many documents: `python bench/why.py [--documents 1000000]`.

The documents are made up and only scraped and cleaned, so that the index is what is measured.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa

from corpus.documents import DOCUMENT, document_id, part_name, write_table
from corpus.params import Params
from corpus.report.index import build_index
from corpus.stage import Run

PART = 20_000
ROUNDS = 5


def write_documents(data: Path, documents: int) -> None:
    """Parts of scrape and clean with one document a number."""
    for stage in ("scrape", "clean"):
        (data / stage).mkdir(parents=True)
    for number, first in enumerate(range(0, documents, PART)):
        own = range(first, min(first + PART, documents))
        columns = {
            "id": [document_id(f"document {n}") for n in own],
            "text": [
                f"Document {n} is about things that nobody reads, and about {n * 7919 % 10007}. " * 12 for n in own
            ],
            "source": ["made"] * len(own),
            "batch": [0] * len(own),
            "url": [f"http://made.example/{n}" for n in own],
            "lang": ["en"] * len(own),
        }
        arrays = [pa.array(columns.get(field.name, [None] * len(own)), field.type) for field in DOCUMENT]
        for stage in ("scrape", "clean"):
            write_table(pa.Table.from_arrays(arrays, schema=DOCUMENT), data / stage / part_name("made", 0, number))


def first_line(data: Path, wanted: str) -> float:
    """Seconds until `corpus why` has printed its first line."""
    command = [str(Path(sys.executable).parent / "corpus"), "why", wanted, "--data", str(data)]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        line = running.stdout.readline()
        seconds = time.perf_counter() - started
        running.kill()
    assert line.startswith("document "), line
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=1_000_000)
    documents = parser.parse_args().documents
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        write_documents(data, documents)
        output = data / "report"
        output.mkdir()
        started = time.perf_counter()
        build_index(Run("report", Params(), (), output, data, None), data)
        size = sum(path.stat().st_size for path in (output / "index").iterdir())
        print(f"{documents:,} documents; index {time.perf_counter() - started:.1f} s, {size / 1e6:.0f} MB")
        middle = documents // 2 + 1
        for name, wanted in (
            ("id", document_id(f"document {middle}")),
            ("beginning of an id", document_id(f"document {middle}")[:10]),
            ("URL", f"http://made.example/{middle}"),
            ("words, near the start", "Document 17 is about"),
            ("words, near the end", f"Document {documents - 3} is about"),
        ):
            seconds = [first_line(data, wanted) for _ in range(ROUNDS)]
            print(f"{name:24} {statistics.median(seconds):.2f} s (up to {max(seconds):.2f})")


if __name__ == "__main__":
    main()
