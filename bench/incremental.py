"""What a new batch costs: documents come in two batches, and all stages up to split run after each.

    python bench/incremental.py --input en.parquet --copies 4 --new 0.01 --folder SCRATCH

A corpus is made from a Parquet file with a column text: each copy replaces a tenth of the words, so that there are near
duplicates, but no exact ones. A share of it is the new batch. Project `grown` builds the old batch and then both;
project `full` builds both at once. The table has the processor seconds of each stage in either, and documents that the
row-wise stages worked on; then the bytes of both are compared.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import yaml

STAGES = ("scrape", "clean", "measure", "reference", "perplexity", "dedup", "filter", "split")
REPLACED = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True, help="a Parquet file with a column text")
    parser.add_argument("--copies", type=int, default=4)
    parser.add_argument("--new", type=float, default=0.01, help="share of the documents that come later")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--folder", type=Path, required=True, help="where the projects are made anew")
    options = parser.parse_args()
    rows = list(corpus(options.input, options.copies))
    random.Random(1).shuffle(rows)
    new = round(len(rows) * options.new)
    figures = {}
    for name, batches in (("grown", [rows[new:], rows[:new]]), ("full", [rows[new:], rows[:new]])):
        project = options.folder / name
        shutil.rmtree(project, ignore_errors=True)
        prepare(project, batches)
        if name == "grown":
            figures["old batch"] = build(project, [0], options.workers)
        figures[name] = build(project, [0, 1], options.workers)
    print(f"{len(rows):,} documents, {sum(map(len, rows)) / 1e6:,.0f} MB; {new:,} of them new\n")
    print("| stage | full, CPU s | new batch, CPU s | share | documents worked on |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for stage in STAGES:
        full, grown = figures["full"][stage], figures["grown"][stage]
        share = grown["cpu_seconds"] / full["cpu_seconds"]
        worked = grown.get("work", {}).get("documents", "")
        print(f"| {stage} | {full['cpu_seconds']:.1f} | {grown['cpu_seconds']:.1f} | {share:.0%} | {worked} |")
    one, other = (digests(options.folder / name) for name in ("grown", "full"))
    print(f"\n{len(one)} files, {sum(one[name] != other.get(name) for name in one)} of them differ")


def corpus(path: Path, copies: int) -> Iterator[str]:
    """The texts, and copies of them in which some words are replaced by their likes of another document."""
    texts = pl.read_parquet(path, columns=["text"])["text"].to_list()
    generator = random.Random(7)
    words = [word for text in texts[:200] for word in text.split()]
    for copy in range(copies):
        for text in texts:
            if copy == 0:
                yield text
            else:
                own = text.split(" ")
                yield " ".join(generator.choice(words) if generator.random() < REPLACED else word for word in own)


def prepare(project: Path, batches: list[list[str]]) -> None:
    """A project as `corpus init` writes it, with a file of rows for each batch."""
    project.mkdir(parents=True)
    for number, rows in enumerate(batches):
        lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in rows)
        (project / f"batch-{number}.jsonl").write_text("".join(lines), "utf-8")
    run(project, "corpus", "init", "batch-0.jsonl")


def build(project: Path, batches: list[int], workers: int) -> dict[str, dict[str, float]]:
    """Run the stages on some batches; their timing."""
    params = yaml.safe_load((project / "params.yaml").read_text("utf-8"))
    params["sources"] = [
        {"name": "rows", "kind": "jsonl", "path": f"batch-{number}.jsonl", "batch": number, "lang": "en"}
        for number in batches
    ]
    params["scrape"]["part_mb"] = 8
    (project / "params.yaml").write_text(yaml.safe_dump(params, allow_unicode=True), "utf-8")
    for stage in STAGES:
        run(project, "corpus", stage, "--workers", str(workers))
    return {stage: json.loads((project / "reports" / f"{stage}.timing.json").read_text("utf-8")) for stage in STAGES}


def run(project: Path, *words: str) -> None:
    subprocess.run(
        [str(Path(sys.executable).parent / words[0]), *words[1:]], cwd=project, check=True, stdout=sys.stderr
    )


def digests(project: Path) -> dict[str, str]:
    files = [*(project / "data").rglob("*"), *(project / "reports").glob("*.json")]
    return {
        str(path.relative_to(project)): hashlib.blake2b(path.read_bytes()).hexdigest()
        for path in files
        if path.is_file() and not path.name.endswith(".timing.json")
    }


if __name__ == "__main__":
    main()
