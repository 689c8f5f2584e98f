"""How time and memory of `corpus measure` and `corpus filter` grow with the corpus.

    python bench/quality_growth.py --input en.parquet --megabytes 250 1000 --documents 1000000 --folder SCRATCH

Makes corpora by repeating the documents of a file under other ids, a part a copy. Each is measured by the command, with
one worker and with as many as it takes by itself; then a corpus of signals alone, of so many documents, is filtered.
Memory is that of the command's processes together, pages that they share counted once.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from corpus.documents import part_name

ROW_GROUP = 2_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True, help="a Parquet file with id, text, lang")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[250, 1_000], help="sizes of text, about")
    parser.add_argument("--documents", type=int, default=1_000_000, help="to filter")
    parser.add_argument("--folder", type=Path, required=True, help="where the corpora are made, and kept")
    options = parser.parse_args()
    documents = pl.read_parquet(options.input, columns=["id", "text", "lang"])
    size = int(documents["text"].str.len_bytes().sum()) / 1e6
    rows = []
    for workers in (1, None):
        for megabytes in options.megabytes:
            copies = max(1, round(megabytes / size))
            corpus = options.folder / f"corpus-{copies}"
            repeat(documents, corpus, copies)
            rows.append({"text MB": copies * size} | run_stage("measure", [corpus], workers))
    print(table(rows, per="text MB"))

    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        one = options.folder / "corpus-1"
        repeat(documents, one, 1)
        run_stage("measure", [one], None, keep=Path(scratch) / "measured")
        measured = pl.read_parquet(Path(scratch) / "measured" / "*.parquet")
        copies = -(-options.documents // documents.height)
        # No text is read. As scores of a language model anything will do.
        frames = {
            "documents": documents.with_columns(text=pl.lit("")),
            "signals": measured,
            "scores": measured.select("id", ppl=100 * pl.col("char_entropy"), oov_rate="digit_ratio"),
        }
        for name, frame in frames.items():
            repeat(frame, Path(scratch) / name, copies)
        inputs = [Path(scratch) / name for name in frames]
        print(table([{"documents": copies * documents.height} | run_stage("filter", inputs, None)], per="documents"))


def repeat(documents: pl.DataFrame, folder: Path, copies: int) -> None:
    """Write a part a copy; the same ones for the same input."""
    if folder.exists():
        return
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for copy in range(copies):
        # Ids stay as long as they were.
        own = documents.with_columns(id=pl.lit(f"{copy:08x}") + pl.col("id").str.slice(8))
        own.write_parquet(partial / part_name("copy", 0, copy), compression_level=1, row_group_size=ROW_GROUP)
    partial.rename(folder)


def run_stage(stage: str, inputs: list[Path], workers: int | None, keep: Path | None = None) -> dict[str, Any]:
    """Run a command from an empty store: wall and processor seconds, peaks of memory."""
    with tempfile.TemporaryDirectory(dir=inputs[0].parent) as scratch:
        output = keep or Path(scratch) / "output"
        command = [str(Path(sys.executable).with_name("corpus")), stage]
        command += ["--input", *(str(path.absolute()) for path in inputs), "--output", str(output.absolute())]
        command += ["--workers", str(workers)] if workers else []
        started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        process = subprocess.Popen(command, cwd=scratch, stdout=subprocess.DEVNULL)
        peaks = {"together": 0, "largest": 0}
        watcher = threading.Thread(target=watch, args=(process, peaks))
        watcher.start()
        if process.wait():
            raise SystemExit(f"{' '.join(command)} failed")
        seconds = time.perf_counter() - started
        watcher.join()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "workers": str(workers or "default"),
        "wall s": seconds,
        "CPU s": cpu,
        "peak MB, all processes": peaks["together"] / 1e3,
        "peak MB, largest process": peaks["largest"] / 1e3,
    }


def watch(process: subprocess.Popen[bytes], peaks: dict[str, int]) -> None:
    """Keep the highest amounts of memory of a process with all its children, in kB."""
    while process.poll() is None:
        sizes = [size for number in family(process.pid) for size in proportional_kb(number)]
        peaks["together"] = max(peaks["together"], sum(sizes))
        peaks["largest"] = max([peaks["largest"], *sizes])
        time.sleep(0.05)


def family(number: int) -> Iterator[int]:
    """A process and all that it has started."""
    yield number
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{number}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from family(int(child))


def proportional_kb(number: int) -> Iterator[int]:
    """The memory of a process, of shared pages its part; nothing if it has ended."""
    with contextlib.suppress(OSError, IndexError):
        yield int(Path(f"/proc/{number}/smaps_rollup").read_text().split("\nPss:")[1].split()[0])


def table(rows: list[dict[str, Any]], per: str) -> str:
    """The measurements as a Markdown table; ratios are to the row before with as many workers."""
    lines = ["| " + " | ".join([*rows[0], "CPU ratio", "memory ratio"]) + " |", "|" + "---:|" * (len(rows[0]) + 2)]
    first: dict[str, dict[str, Any]] = {}
    for row in rows:
        base = first.setdefault(row["workers"], row)
        cpu = row["CPU s"] / base["CPU s"] / (row[per] / base[per])
        memory = row["peak MB, all processes"] / base["peak MB, all processes"]
        cells = [f"{value:,.1f}" if isinstance(value, float) else f"{value}" for value in row.values()]
        lines.append("| " + " | ".join([*cells, f"{cpu:.2f}", f"{memory:.2f}"]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
