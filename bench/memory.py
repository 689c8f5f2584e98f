"""How the memory of each stage grows with the corpus, under a hard limit.

    python bench/memory.py --input en.parquet zh.parquet --megabytes 250 2000 --limit-mb 3000 --folder SCRATCH

Makes corpora of mixed sentences out of the texts of Parquet files: each document has as many sentences as one of
theirs, one in 50 is a copy and one in 50 a near copy of an earlier one. Each stage is then run as its user runs it,
in a project of its own, from `scrape` to `pack`. The limit is one of a memory control group, which holds all
processes of a stage together with their page cache and kills what needs more; where none can be made, each process
gets it as RLIMIT_DATA. Memory is sampled: that of all processes of a stage together, pages that they share counted
once, and that of its largest process. Prints a Markdown table, with the ratio of the last size to the first.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import yaml

from corpus.documents import write_table

PROJECT = Path(__file__).parent.parent
STAGES = ("scrape", "clean", "measure", "perplexity", "dedup", "filter", "split", "augment", "shard", "pack")
NOT_MEASURED = {"perplexity": "reference", "pack": "base"}  # run before; they do not depend on the corpus
FILE_BYTES = 50_000_000
DEDUP_MB = 64  # what arrays may take before they are mapped: by default more than such corpora need
COPIES = 50  # one document in so many is a copy, and one a near copy
SENTENCE = re.compile(r".+?(?:[.!?]+(?=\s)|[。！？]+|\n|$)\s*")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, nargs="+", required=True, help="Parquet files with a column text")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[250, 2_000], help="sizes of text, about")
    parser.add_argument("--limit-mb", type=int, default=3_000)
    parser.add_argument("--part-mb", type=float, default=64, help="a part; the smallest corpus wants one a worker")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES, help="those before must have been run")
    parser.add_argument("--folder", type=Path, required=True, help="where the corpora are made, and kept")
    options = parser.parse_args()
    peaks: dict[int, dict[str, dict[str, float]]] = {}
    for megabytes in options.megabytes:
        project = options.folder / f"memory-{megabytes}"
        make_project(project, options.input, megabytes, options.part_mb)
        peaks[megabytes] = {}
        for stage in options.stages:
            if stage in NOT_MEASURED:
                run(project, NOT_MEASURED[stage], options.workers, options.limit_mb)
            peaks[megabytes][stage] = run(project, stage, options.workers, options.limit_mb)
            print(megabytes, stage, json.dumps(peaks[megabytes][stage]), file=sys.stderr, flush=True)
            if peaks[megabytes][stage]["code"]:
                break  # what follows has nothing to read
    print(table(peaks))


# ---- the corpora -----------------------------------------------------------------------------------------------------


def make_project(project: Path, sources: list[Path], megabytes: int, part_mb: float) -> None:
    """A project whose one source are files of made documents: the same for the same input and size."""
    if project.exists():
        return
    partial = project.with_name(f"{project.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "made").mkdir(parents=True)
    for number, texts in enumerate(documents(sources, megabytes)):
        ids = pa.array([f"{number}-{place}" for place in range(len(texts))])
        table = pa.table({"id": ids, "text": pa.array(texts, pa.large_string())})
        write_table(table, partial / "made" / f"{number:05d}.parquet")
    params = yaml.safe_load((PROJECT / "params.yaml").read_text("utf-8"))
    params["sources"] = [{"name": "made", "kind": "parquet", "path": "made", "id_field": "id"}]
    params["scrape"]["part_mb"] = part_mb
    params["base"] |= {"steps": 20}
    params["pack"]["mixture"] = {}  # the sample's takes Chinese ten times
    params["dedup"]["memory_mb"] = DEDUP_MB
    (partial / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False, allow_unicode=True), "utf-8")
    for name in ("reference", "evaluation"):
        shutil.copytree(PROJECT / "data" / name, partial / "data" / name, ignore=shutil.ignore_patterns("model"))
    partial.rename(project)


def documents(sources: list[Path], megabytes: int) -> Iterator[list[str]]:
    """Texts of FILE_BYTES at a time; of each file as much as of any other."""
    generator = random.Random(megabytes)
    pools = []
    for path in sources:
        split = [SENTENCE.findall(text) for text in pl.read_parquet(path, columns=["text"])["text"].to_list()]
        sentences = [sentence for found in split for sentence in found if len(sentence) > 15]
        pools.append((sentences, [len(found) for found in split]))
    left = megabytes * 1_000_000
    while left > 0:
        texts: list[str] = []
        size = 0
        while size < min(FILE_BYTES, left):
            sentences, lengths = generator.choice(pools)
            kind = generator.randrange(COPIES) if texts else 2
            if kind < 2:
                text = generator.choice(texts) + (f" {generator.choice(sentences)}" if kind else "")
            else:
                text = "".join(generator.choices(sentences, k=generator.choice(lengths)))
            texts.append(text)
            size += len(text.encode())
        left -= size
        yield texts


# ---- the measurement -------------------------------------------------------------------------------------------------


def run(project: Path, stage: str, workers: int, limit_mb: int) -> dict[str, float]:
    """Run a stage from an empty store under the limit: exit code, seconds, and peaks in MB."""
    shutil.rmtree(project / ".corpusmill" / "parts" / stage, ignore_errors=True)
    program = Path(sys.executable).with_name("train" if stage in ("base", "pack") else "corpus")
    started = time.perf_counter()
    with control_group(limit_mb) as group:

        def confine() -> None:
            if group is None:
                resource.setrlimit(resource.RLIMIT_DATA, (limit_mb * 1_000_000,) * 2)
            else:
                (group / "cgroup.procs").write_text(str(os.getpid()))

        process = subprocess.Popen(
            [program, stage, "--workers", str(workers)],
            cwd=project,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            preexec_fn=confine,
        )
        peaks = {"together": 0, "own": 0, "largest": 0}
        watcher = threading.Thread(target=watch, args=(process, peaks))
        watcher.start()
        said = process.communicate()[1]
        watcher.join()
    if process.returncode:
        print(f"{stage} of {project} ended with {process.returncode}: {said.decode()}", file=sys.stderr)
    ended = {"code": process.returncode, "seconds": time.perf_counter() - started}
    return ended | {name: kilobytes / 1e3 for name, kilobytes in peaks.items()}


@contextlib.contextmanager
def control_group(limit_mb: int) -> Iterator[Path | None]:
    """A memory control group of its own, of either version; None where none can be made."""
    for root, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        group = Path(root) / f"drill-{os.getpid()}"
        try:
            group.mkdir()
            (group / limit).write_text(str(limit_mb * 1_000_000))
        except OSError:
            with contextlib.suppress(OSError):
                group.rmdir()
            continue
        try:
            yield group
        finally:
            for _ in range(100):
                try:
                    group.rmdir()
                    break
                except OSError:  # the last process is still ending
                    time.sleep(0.1)
        return
    yield None


def watch(process: subprocess.Popen[bytes], peaks: dict[str, int]) -> None:
    """Keep the highest amounts of memory of a process with all its children, in kB.

    `together`: shared pages counted once, those of mapped files too; `own`: what no file backs; `largest`: of `own`,
    that of one process.
    """
    while process.poll() is None:
        sizes = [size for number in family(process.pid) for size in memory_kb(number)]
        peaks["together"] = max(peaks["together"], sum(size for size, _ in sizes))
        peaks["own"] = max(peaks["own"], sum(own for _, own in sizes))
        peaks["largest"] = max([peaks["largest"], *(own for _, own in sizes)])
        time.sleep(0.05)


def family(number: int) -> Iterator[int]:
    """A process and all that it has started."""
    yield number
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{number}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from family(int(child))


def memory_kb(number: int) -> Iterator[tuple[int, int]]:
    """The memory of a process, of shared pages its part, and what of it no file backs; nothing if it has ended."""
    with contextlib.suppress(OSError, IndexError):
        lines = Path(f"/proc/{number}/smaps_rollup").read_text()
        yield tuple(int(lines.split(f"\n{name}:")[1].split()[0]) for name in ("Pss", "Pss_Anon"))


def table(peaks: dict[int, dict[str, dict[str, float]]]) -> str:
    """The peaks by stage and size, in MB."""
    sizes = list(peaks)
    kinds = {"together": "all processes", "own": "of it no file's", "largest": "largest process"}
    head = ["stage", *(f"{kind}, {size} MB" for kind in kinds.values() for size in sizes)]
    head += [f"ratio, {kind}" for kind in kinds.values()] + [f"s, {size} MB" for size in sizes]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for stage in peaks[sizes[0]]:
        found = [peaks[size].get(stage, {"code": None}) for size in sizes]
        whole = all(one["code"] == 0 for one in found)
        cells = [f"{one[kind]:,.0f}" if one["code"] == 0 else "failed" for kind in kinds for one in found]
        cells += [f"{found[-1][kind] / found[0][kind]:.2f}" if whole else "–" for kind in kinds]
        cells += [f"{one['seconds']:.0f}" if one["code"] == 0 else "–" for one in found]
        lines.append(f"| {stage} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
