"""How time and memory of deduplication grow with the corpus.

    python bench/dedup_growth.py --input en.parquet --documents 100000 1000000 --memory-mb 200 --folder SCRATCH

Makes corpora of one similarity structure in every size: half of the documents are unlike all others, the other half are
clusters of 2 to 50 near copies, of each of which up to 8 % of the words (--replaced) were replaced. An original is put
together from pieces of a dozen words out of real text, so that common phrases are shared as in real text; of larger
pieces (halves of documents) a small input would repeat each so often that the clusters themselves would grow with the
corpus. Each size is deduplicated in a process of its own on one core, after a warm-up that loads the compiled kernels.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from corpus.dedup import stage
from corpus.documents import write_table
from corpus.params import Params
from corpus.stage import Run, execute

PIECE_WORDS, PIECES = 12, 14
PART_DOCUMENTS = 50_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True, help="a Parquet file with a column text")
    parser.add_argument("--documents", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--memory-mb", type=int, default=2_000)
    parser.add_argument("--copies", type=int, help="one cluster of so many near copies instead of the mix")
    parser.add_argument("--replaced", type=int, default=8, help="per cent of a copy's words, at most")
    parser.add_argument("--folder", type=Path, required=True, help="where the corpora are made, and kept")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.memory_mb)))
        return
    rows = []
    for count in [options.copies] if options.copies else options.documents:
        corpus = options.folder / f"{'copies' if options.copies else 'mix'}-{count}-{options.replaced}"
        if not corpus.exists():
            make_corpus(options.input, corpus, count, options.replaced, one_cluster=bool(options.copies))
        command = [sys.executable, __file__, "--measure", str(corpus), "--memory-mb", str(options.memory_mb)]
        command += ["--input", str(options.input), "--folder", str(options.folder)]
        environment = os.environ | dict.fromkeys(("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
        rows.append(json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout))
    print(table(rows))


def make_corpus(source: Path, folder: Path, count: int, replaced: int, one_cluster: bool) -> None:
    """Write parts of documents: the same for the same input and count."""
    generator = random.Random(count)
    words = " ".join(pl.read_parquet(source, columns=["text"])["text"].to_list()).split()
    pieces = [" ".join(words[at : at + PIECE_WORDS]) for at in range(0, len(words), PIECE_WORDS)]
    sizes = iter([count]) if one_cluster else cluster_sizes(generator, count)
    texts = [text for size in sizes for text in near_copies(generator, pieces, words[:100_000], size, replaced)]
    generator.shuffle(texts)
    partial = folder.with_name(folder.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(range(0, count, PART_DOCUMENTS)):
        some = texts[start : start + PART_DOCUMENTS]
        ids = pa.array([f"{start + place:032x}" for place in range(len(some))])
        table = pa.table({"id": ids, "text": pa.array(some, pa.large_string())})
        write_table(table, partial / f"part-grown-0-{number:05d}.parquet")
    partial.rename(folder)


def cluster_sizes(generator: random.Random, count: int) -> Iterator[int]:
    """Documents alone until half of them are made, then 2 to 50 together."""
    made = 0
    while made < count:
        size = 1 if made < count // 2 else min(generator.randint(2, 50), count - made)
        yield size
        made += size


def near_copies(
    generator: random.Random, pieces: list[str], vocabulary: list[str], size: int, replaced: int
) -> Iterator[str]:
    """An original and its near copies."""
    original = " ".join(generator.choices(pieces, k=PIECES))
    yield original
    for _ in range(size - 1):
        words = original.split(" ")
        for place in generator.sample(range(len(words)), generator.randint(0, len(words) * replaced // 100)):
            words[place] = generator.choice(vocabulary)
        yield " ".join(words)


def measure(corpus: Path, memory_mb: int) -> dict[str, Any]:
    """CPU seconds and peaks of memory of one run over a corpus, on one core of this machine."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    sizes = [pl.scan_parquet(path).select(pl.col("text").str.len_bytes().sum()) for path in corpus.glob("*.parquet")]
    text_mb = sum(size.collect(engine="streaming").item() for size in sizes) / 1e6
    with tempfile.TemporaryDirectory(dir=corpus.parent) as scratch:
        folder = Path(scratch)
        (folder / "warm").mkdir()
        warm = pa.table({"id": ["a", "b"], "text": ["one two three four five six seven " * 2] * 2})
        write_table(warm, folder / "warm" / "part-warm-0-00000.parquet")
        deduplicate(folder / "warm", folder / "first", memory_mb)
        peak = [0]
        threading.Thread(target=watch, args=(peak,), daemon=True).start()
        started = cpu_seconds()
        metrics = deduplicate(corpus, folder / "second", memory_mb)
        seconds = cpu_seconds() - started
    return {
        "documents": metrics["rows"]["in"],
        "text MB": text_mb,
        "CPU s": seconds,
        "own memory, peak MB": peak[0] / 1e3,
        "resident, peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        "dropped": metrics["rows"]["dropped"],
        **metrics["pairs"],
    }


def deduplicate(corpus: Path, folder: Path, memory_mb: int) -> dict[str, Any]:
    params = Params.model_validate({"dedup": {"memory_mb": memory_mb}})
    return execute(stage, Run("dedup", params, (corpus,), folder / "out", reports=None, home=folder / "home"))


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def watch(peak: list[int]) -> None:
    """Keep the highest amount of memory that is the process's own, in kB: pages of mapped files are not."""
    while True:
        status = Path("/proc/self/status").read_text()
        peak[0] = max(peak[0], int(status.split("RssAnon:")[1].split()[0]))
        time.sleep(0.02)


def table(rows: list[dict[str, Any]]) -> str:
    """The measurements as a Markdown table; growth is that of the time over that of the text, from the first row."""
    lines = ["| " + " | ".join([*rows[0], "growth"]) + " |", "|" + " --- |" * (len(rows[0]) + 1)]
    for row in rows:
        growth = row["CPU s"] / rows[0]["CPU s"] / (row["text MB"] / rows[0]["text MB"])
        values = [f"{value:,.1f}" if isinstance(value, float) else f"{value:,}" for value in row.values()]
        lines.append("| " + " | ".join([*values, f"{growth:.2f}"]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
