"""Shard and pack beside the tokenizer's own encode_batch, on the same text in one run.

    python bench/shard.py DOCUMENTS.parquet [--base data/base] [--megabytes 10 40] [--rounds 3]

CPU seconds (one thread each, every command a process of its own, its start on ten documents subtracted), as ratios to
encode_batch; peak memory at both sizes; the fill of chunks and packed rows; whether two runs give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import polars as pl

ENCODE = """
import sys
import pyarrow.parquet as pq
from tokenizers import Tokenizer
tokenizer = Tokenizer.from_file(sys.argv[2])
total = 0
for batch in pq.ParquetFile(sys.argv[1]).iter_batches(256, columns=["text"]):
    total += sum(map(len, tokenizer.encode_batch(batch["text"].to_pylist(), add_special_tokens=False)))
print(total)
"""


class Cost(NamedTuple):
    """What a command took."""

    cpu: float
    peak_mb: float


def run(command: list[str], folder: Path) -> Cost:
    """Run a command with one thread and measure it. Raises where it fails."""
    threads = ("RAYON_NUM_THREADS", "POLARS_MAX_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS")
    environment = os.environ | dict.fromkeys(threads, "1") | {"HF_HUB_OFFLINE": "1"}
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}:\n{(folder / 'log.txt').read_text()}")
    return Cost(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def commands(documents: Path, tokenizer: Path, length: int, output: Path) -> dict[str, list[str]]:
    """What is compared, by name."""
    one, name = ["--workers", "1"], output.name
    program = str(Path(sys.executable).parent)
    return {
        "encode_batch": [sys.executable, "-c", ENCODE, str(documents), str(tokenizer)],
        "corpus shard": [
            *(f"{program}/corpus", "shard", "--input", str(documents), "--output", f"shard-{name}", *one),
            *("--set", f"shard.chunk_tokens={length}", "--set", f"shard.tokenizer={tokenizer}"),
        ],
        "train pack": [
            *(f"{program}/train", "pack", "--input", str(documents), "--output", f"pack-{name}", *one),
            *("--set", f"pack.length={length}"),
        ],
    }


def first_megabytes(documents: Path, megabytes: float, target: Path) -> Path:
    """The first documents with so much text, each id once."""
    frame = pl.read_parquet(documents, columns=["id", "text", "lang"]).unique("id", maintain_order=True)
    size = frame["text"].str.len_bytes().cast(pl.Int64).cum_sum()
    frame.filter(size <= megabytes * 1e6).unique("text", maintain_order=True).write_parquet(target)
    return target


def digest(folder: Path) -> str:
    """Of all files of an output but its log and timing."""
    whole = hashlib.blake2b()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and "timing" not in path.name):
        whole.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return whole.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", type=Path)
    parser.add_argument("--base", type=Path, default=Path("data/base"))
    parser.add_argument("--megabytes", type=float, nargs=2, default=(10, 40))
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(options.base, folder / "data" / "base")
        tokenizer = folder / "data" / "base" / "tokenizer.json"
        (folder / "params.yaml").write_text("sources: []\n")
        few = folder / "few.parquet"
        pl.read_parquet(options.documents, columns=["id", "text", "lang"]).head(10).write_parquet(few)
        start = {name: run(command, folder) for name, command in commands(few, tokenizer, options.length, few).items()}
        for megabytes in options.megabytes:
            documents = first_megabytes(options.documents, megabytes, folder / f"{megabytes:g}.parquet")
            rounds: list[dict[str, Cost]] = []
            digests = set()
            for _ in range(options.rounds if megabytes == options.megabytes[0] else 1):
                own = commands(documents, tokenizer, options.length, documents)
                rounds.append({name: run(command, folder) for name, command in own.items()})
                digests.add(tuple(digest(folder / f"{kind}-{documents.name}") for kind in ("shard", "pack")))
            print(f"\n{megabytes:g} MB of text, {len(rounds)} rounds, equal bytes: {len(digests) == 1}")
            for name in start:
                seconds = [one[name].cpu - start[name].cpu for one in rounds]
                peer = [one["encode_batch"].cpu - start["encode_batch"].cpu for one in rounds]
                ratios = [one / other for one, other in zip(seconds, peer, strict=True)]
                print(
                    f"{name:14} {statistics.median(seconds):7.1f} CPU s (start {start[name].cpu:.1f}), "
                    f"{statistics.median(ratios):.2f} x ({min(ratios):.2f} to {max(ratios):.2f}), "
                    f"peak {max(one[name].peak_mb for one in rounds):,.0f} MB"
                )
            shard = json.loads((folder / f"shard-{documents.name}" / "metrics.json").read_text())["full_chunks"]
            pack = json.loads((folder / f"pack-{documents.name}" / "metrics.json").read_text())["train"]
            full = shard["tokens"] / max(1, shard["chunks"] * options.length)
            print(f"fill: chunks {full:.3f}, rows {pack['fill']:.4f}")


if __name__ == "__main__":
    main()
