"""Real near-duplicates: translators' drafts beside the published articles, and one article at three reading levels.

The collections may not be published; CORPUSMILL_TEST_DATA names the folder that holds `neardup/`.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from corpus.dedup import stage
from corpus.params import Params
from corpus.stage import Run, execute

DATA = Path(os.environ.get("CORPUSMILL_TEST_DATA", "absent")) / "neardup"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="CORPUSMILL_TEST_DATA names no folder with neardup/")


def rows(collection: str, name: str) -> Iterator[dict[str, Any]]:
    with pa.input_stream(str(DATA / collection / f"{name}.jsonl.zst"), compression="zstd") as stream:
        yield from map(json.loads, stream.read().decode("utf-8").rstrip("\n").split("\n"))


def shingles(text: str) -> set[tuple[str, ...]]:
    """Three tokens each: words and numbers, or single characters of Chinese; written without the project's code."""
    folded = unicodedata.normalize("NFC", text).casefold()
    for passed_over in "'’\u00ad\u200b\u200c\u200d\u2060\ufeff\u200e\u200f":
        folded = folded.replace(passed_over, "")
    tokens = re.findall(
        r"[\u3005\u3007\u3041-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W_\u3005\u3007\u3041-\u30ff\u3400-\u9fff\uf900-\ufaff]+",
        folded,
    )
    return set(zip(tokens, tokens[1:], tokens[2:], strict=False))


def jaccard(one: set[tuple[str, ...]], other: set[tuple[str, ...]]) -> float:
    return len(one & other) / len(one | other) if one | other else 0.0


def judged(collection: str, tmp_path: Path, threshold: float) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    documents = pl.DataFrame([{"id": row["id"], "text": row["text"]} for row in rows(collection, "docs")])
    path = tmp_path / "part-real-0-00000.parquet"
    documents.write_parquet(path)
    params = Params.model_validate({"dedup": {"threshold": threshold}})
    execute(stage, Run("dedup", params, (path,), tmp_path / "out", reports=None, home=tmp_path / "home", workers=2))
    annotation = pl.read_parquet(tmp_path / "out" / "*.parquet").rows(named=True)
    return {row["id"]: row for row in annotation}, dict(documents.rows())


def test_drafts_and_published_articles(tmp_path: Path) -> None:
    """Of each pair that is similar enough one goes; nothing goes that is less similar to what stays."""
    decided, text = judged("lctt_draft_vs_published", tmp_path, 0.6)
    similar = [
        (pair["a"], pair["b"])
        for pair in rows("lctt_draft_vs_published", "pairs")
        if jaccard(shingles(text[pair["a"]]), shingles(text[pair["b"]])) >= 0.6
    ]
    both_kept = [(a, b) for a, b in similar if decided[a]["kept"] and decided[b]["kept"]]
    assert len(similar) > 2_500
    assert len(both_kept) <= 0.001 * len(similar), both_kept
    dropped = [row for row in decided.values() if not row["kept"]]
    below = [
        row["id"]
        for row in dropped
        if jaccard(shingles(text[row["id"]]), shingles(text[row["duplicate_of"]])) < 0.6
        and row["reasons"] != ["dedup.exact"]
    ]
    assert below == []


def test_reading_levels_of_one_article_are_no_duplicates(tmp_path: Path) -> None:
    """Rewritten for other readers they are all less similar than 0.8; what goes is an article that is there twice."""
    decided, text = judged("onestop_levels", tmp_path, 0.8)
    levels = {frozenset((pair["a"], pair["b"])) for pair in rows("onestop_levels", "pairs")}
    dropped = [row for row in decided.values() if not row["kept"]]
    assert not [row for row in dropped if frozenset((row["id"], row["duplicate_of"])) in levels]
    assert all(jaccard(shingles(text[row["id"]]), shingles(text[row["duplicate_of"]])) >= 0.8 for row in dropped)
