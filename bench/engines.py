"""One worker, a process pool and Ray on this machine: the row-wise stages over the same documents.

    python bench/engines.py --input en.parquet --megabytes 1000 --workers 4 --rounds 3 --folder SCRATCH

A project is built from the documents of a Parquet file, repeated until there is so much text. Then each stage runs
with an empty store, in turn by one worker, by processes and by Ray. Seconds are those of the whole command, Ray's own
start and end included; CPU seconds those of the command and all processes it waited for, which Ray's are not. Outputs
of all engines are compared byte by byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import yaml

STAGES = ("clean", "measure", "perplexity")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True, help="a Parquet file with a column text")
    parser.add_argument("--megabytes", type=int, default=1_000)
    parser.add_argument("--workers", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stages", nargs="+", default=STAGES)
    parser.add_argument("--folder", type=Path, required=True, help="where the project is made, and kept")
    options = parser.parse_args()
    project = options.folder / f"project-{options.megabytes}"
    if not project.exists():
        prepare(project, options.input, options.megabytes)
    engines = {
        "one worker": ["--workers", "1"],
        "processes": ["--workers", str(options.workers)],
        "Ray": ["--workers", str(options.workers), "--set", "execution.engine=ray"],
    }
    print(f"| stage | engine | seconds | × processes | CPU s | × one worker |\n| {' | '.join(['---'] * 6)} |")
    for stage in options.stages:
        found: dict[str, list[tuple[float, float]]] = {engine: [] for engine in engines}
        outputs = set()
        for _ in range(options.rounds):
            for engine, words in engines.items():
                shutil.rmtree(project / ".corpusmill" / "parts" / stage, ignore_errors=True)
                found[engine].append(run(project, "corpus", stage, *inputs_of(stage), "--output", "out", *words))
                outputs.add(digest(project / "out"))
                shutil.rmtree(project / "out")
        for engine, rounds in found.items():
            seconds, cpu = (statistics.median(column) for column in zip(*rounds, strict=True))
            pool = statistics.median(s / p for (s, _), (p, _) in zip(rounds, found["processes"], strict=True))
            one = statistics.median(c / o for (_, c), (_, o) in zip(rounds, found["one worker"], strict=True))
            processor = "– | –" if engine == "Ray" else f"{cpu:.1f} | {one:.2f}"
            print(f"| {stage} | {engine} | {seconds:.1f} | {pool:.2f} | {processor} |", flush=True)
        print(f"{stage}: {'the same bytes' if len(outputs) == 1 else 'DIFFERENT BYTES'}", file=sys.stderr)


def inputs_of(stage: str) -> list[str]:
    return ["--input", "data/scrape" if stage == "clean" else "data/clean"]


def prepare(project: Path, path: Path, megabytes: int) -> None:
    """A project as `corpus init` writes it, built up to the reference models."""
    partial = project.with_name(f"{project.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    texts = pl.read_parquet(path, columns=["text"])["text"].to_list()
    size = copy = 0
    with (partial / "rows.jsonl").open("w", encoding="utf-8") as file:
        while size < megabytes * 1e6:
            for text in texts:
                line = json.dumps({"text": f"Copy {copy}. {text}"}, ensure_ascii=False) + "\n"
                file.write(line)
                size += len(line)
            copy += 1
    run(partial, "corpus", "init", "rows.jsonl")
    params = yaml.safe_load((partial / "params.yaml").read_text("utf-8"))
    params["scrape"]["part_mb"] = 16
    params["sources"][0]["lang"] = "en"
    (partial / "params.yaml").write_text(yaml.safe_dump(params, allow_unicode=True), "utf-8")
    for stage in ("scrape", "clean", "reference"):
        run(partial, "corpus", stage)
    partial.rename(project)


def run(project: Path, *words: str) -> tuple[float, float]:
    """Run a command in a project; its wall and CPU seconds."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    program = str(Path(sys.executable).parent / words[0])
    subprocess.run([program, *words[1:]], cwd=project, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - started, cpu


def digest(folder: Path) -> str:
    total = hashlib.blake2b()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "timing.json":
            total.update(path.name.encode() + path.read_bytes())
    return total.hexdigest()


if __name__ == "__main__":
    main()
