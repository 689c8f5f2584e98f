"""What leaks from train into test: by groups as `corpus split` makes them, and by drawing lots.

    python bench/split.py --data DATA

The judge compares all test documents with all train documents, exactly, with tokens of its own (`jaccard.py`): a test
document leaks if its Jaccard similarity to a train document (3-token shingles) reaches 0.5, if one of the two holds
half of the other's 13-grams, or if a dialogue shares what was asked or answered. DATA holds the collections named in
COLLECTIONS; a collection that is missing is left out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import scipy.sparse
import zstandard
from jaccard import tokens

from corpus.documents import DOCUMENT, document_id, render_messages

SIDES = ("train", "validation", "test")
SIMILAR = CONTAINED = 0.5
BLOCK = 256  # test documents compared with all at a time
GROWTH = 0.1


def pairs(path: Path) -> list[dict[str, Any]]:
    rows = pl.read_parquet(path).unique(["en", "zh"], maintain_order=True)
    return [_dialogue(f"{n}", row["en"], row["zh"]) for n, row in enumerate(rows.iter_rows(named=True))]


def lines(path: Path) -> list[dict[str, Any]]:
    with zstandard.open(path, "rt", encoding="utf-8") as file:
        return [{"id": row["id"], "text": row["text"]} for row in map(json.loads, file)]


def instructions(path: Path) -> list[dict[str, Any]]:
    with zstandard.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [
        _dialogue(str(n), f"{row['instruction']}\n{row['input']}".strip(), row["output"]) for n, row in enumerate(rows)
    ]


def table(path: Path) -> list[dict[str, Any]]:
    return list(pl.read_parquet(path, columns=["id", "text"]).iter_rows(named=True))


def _dialogue(name: str, asked: str, answered: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    return {"id": name, "text": render_messages(messages), "messages": messages}


COLLECTIONS: dict[str, tuple[str, Callable[[Path], list[dict[str, Any]]]]] = {
    "tldr pairs": ("parallel_en_zh/tldr_segments.parquet", pairs),
    "Python documentation pairs": ("parallel_en_zh/python_docs_segments.parquet", pairs),
    "Alpaca, English": ("sft/alpaca_en_demo.jsonl.zst", instructions),
    "Alpaca, Chinese": ("sft/alpaca_zh_demo.jsonl.zst", instructions),
    "licences": ("neardup/spdx_licences/docs.jsonl.zst", lines),
    "Chinese statutes": ("neardup/cn_laws_versions/docs.jsonl.zst", lines),
    "articles at three levels": ("neardup/onestop_levels/docs.jsonl.zst", lines),
    "drafts and publications": ("neardup/lctt_draft_vs_published/docs.jsonl.zst", lines),
    "English articles": ("scale/en.parquet", table),
    "Chinese articles": ("scale/zh.parquet", table),
}


# ---- the judge -------------------------------------------------------------------------------------------------------


def gram_matrix(texts: Iterable[str], ngram: int) -> scipy.sparse.csr_array:
    """A row a text, a column for each run of so many tokens that more than one text has; and how many each text has."""
    numbers: dict[tuple[str, ...], int] = {}
    rows = []
    for text in texts:
        words = tokens(text)
        found = {tuple(words[at : at + ngram]) for at in range(len(words) - ngram + 1)}
        rows.append(np.array([numbers.setdefault(gram, len(numbers)) for gram in found], np.int64))
    offsets = np.cumsum([0, *map(len, rows)])
    columns = np.concatenate(rows)
    return scipy.sparse.csr_array((np.ones(len(columns), np.int32), columns, offsets), shape=(len(rows), len(numbers)))


def leaking(matrix: scipy.sparse.csr_array, test: np.ndarray, train: np.ndarray, jaccard: bool) -> np.ndarray:
    """Which of the test rows are similar to a train row, or hold half of one, or are held by half."""
    sizes = np.diff(matrix.indptr)
    transposed = matrix[train].T.tocsr()
    found = [np.zeros(0, np.int64)]
    for start in range(0, len(test), BLOCK):
        some = test[start : start + BLOCK]
        shared = (matrix[some] @ transposed).tocoo()
        one, other = sizes[some][shared.row], sizes[train][shared.col]
        share = shared.data / (one + other - shared.data if jaccard else np.minimum(one, other))
        found.append(some[shared.row[share >= (SIMILAR if jaccard else CONTAINED)]])
    return np.unique(np.concatenate(found))


def shared_turns(rows: list[dict[str, Any]], test: np.ndarray, train: np.ndarray) -> np.ndarray:
    """The dialogues of the test rows of which a train row has a question or an answer."""
    said = [{" ".join(turn["content"].casefold().split()) for turn in row.get("messages") or []} for row in rows]
    known = set().union(*(said[row] for row in train))
    return np.array([row for row in test if said[row] & known], np.int64)


def judge(rows: list[dict[str, Any]], sides: dict[str, str | None]) -> dict[str, float]:
    """Shares of test rows that leak, by what they leak by and in all."""
    rows = [row for row in rows if sides.get(row["id"])]
    side = np.array([sides[row["id"]] for row in rows])
    test, train = np.flatnonzero(side == "test"), np.flatnonzero(side == "train")
    texts = [row["text"] for row in rows]
    leaks = {
        "similar": leaking(gram_matrix(texts, 3), test, train, jaccard=True),
        "held": leaking(gram_matrix(texts, 13), test, train, jaccard=False),
        "turns": shared_turns(rows, test, train),
    }
    leaks["all"] = np.unique(np.concatenate(list(leaks.values())))
    return {name: len(found) / max(1, len(test)) for name, found in leaks.items()}


# ---- the split -------------------------------------------------------------------------------------------------------


def write(rows: list[dict[str, Any]], path: Path) -> None:
    columns = {name: [row.get(name) for row in rows] for name in ("id", "text", "messages", "batch")}
    schema = {name: kind for name, kind in pl.DataFrame(DOCUMENT.empty_table()).schema.items() if name in columns}
    path.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(columns, schema=schema).with_columns(pl.col("batch").fill_null(0)).write_parquet(path)


def split(rows: list[dict[str, Any]], folder: Path) -> tuple[dict[str, str | None], dict[str, Any], float]:
    """The side of each document that stays, the metrics of the split, and its seconds."""
    write(rows, folder / "documents" / "part.parquet")
    corpus = str(Path(sys.executable).with_name("corpus"))
    documents, dedup, result = (str(folder / name) for name in ("documents", "dedup", "split"))
    subprocess.run(
        [corpus, "dedup", "--input", documents, "--output", dedup], check=True, cwd=folder, capture_output=True
    )
    started = time.perf_counter()
    command = [corpus, "split", "--input", documents, dedup, "--output", result]
    subprocess.run(command, check=True, cwd=folder, capture_output=True)
    seconds = time.perf_counter() - started
    annotation = pl.read_parquet(folder / "split" / "part.parquet").filter("kept")
    return (
        dict(annotation.select("id", "split").iter_rows()),
        json.loads(Path(result, "metrics.json").read_text()),
        seconds,
    )


def lots(names: Iterable[str]) -> dict[str, str]:
    """A side for each document by its own hash."""
    places = {name: int(document_id(f"lots {name}")[:8], 16) / 2**32 for name in names}
    return {name: "train" if place < 0.7 else "validation" if place < 0.8 else "test" for name, place in places.items()}


def measure(name: str, rows: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    sides, metrics, seconds = split(rows, folder / "whole")
    ours, theirs = judge(rows, sides), judge(rows, lots(sides))
    older = [row for row in rows if int(document_id(f"growth {row['id']}")[:8], 16) / 2**32 > GROWTH]
    before, *_ = split(older, folder / "before")
    known = {row["id"] for row in older}
    after, grown, _ = split([row | {"batch": int(row["id"] not in known)} for row in rows], folder / "after")
    kept = metrics["rows"]["kept"]
    return {
        "name": name,
        "documents": kept,
        "lots": theirs,
        "ours": ours,
        "shares": [metrics["splits"][side]["documents"] / kept for side in SIDES],
        "largest": metrics["groups"]["largest"],
        "moved": sum(after[id] != before[id] for id in before.keys() & after.keys()),
        "grown": judge(rows, after),
        "bridges": grown["dropped_by_reason"].get("split.bridge", 0),
        "grown_by": len(rows) - len(older),
        "seconds": seconds,
        "mb": sum(len(row["text"].encode()) for row in rows) / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=list(COLLECTIONS))
    options = parser.parse_args()
    print(
        "| collection | documents | leak by lots | by groups (similar, held, turns) | 7:1:2 | largest group |", end=""
    )
    print(" moved by growth | leak after | bridges | s | MB/s |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for name in options.only:
        path, read = options.data / COLLECTIONS[name][0], COLLECTIONS[name][1]
        if not path.exists():
            continue
        with tempfile.TemporaryDirectory() as folder:
            found = measure(name, read(path), Path(folder))
        ours, shares = found["ours"], " / ".join(f"{100 * share:.1f}" for share in found["shares"])
        print(
            f"| {name} | {found['documents']:,} | {found['lots']['all']:.1%} | {ours['all']:.2%} "
            f"({ours['similar']:.2%}, {ours['held']:.2%}, {ours['turns']:.2%}) | {shares} | {found['largest']:,} "
            f"| {found['moved']} | {found['grown']['all']:.2%} | {found['bridges']} of {found['grown_by']:,} "
            f"| {found['seconds']:.1f} | {found['mb'] / found['seconds']:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
