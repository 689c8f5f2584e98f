"""Twenty bad rows among a thousand cost no good one, and each that goes says why."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import yaml
from conftest import command
from poisoned_rows import ROWS, bad_rows, poisoned

from corpus.documents import list_parts


def test_no_good_row_is_lost_and_each_bad_one_has_a_reason(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(poisoned())
    source = {"name": "rows", "kind": "jsonl", "path": "rows.jsonl", "id_field": "id"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"sources": [source]}))
    for stage in ("scrape", "clean"):
        command(tmp_path, "corpus", stage, "--workers", "1")

    kept = pl.concat([pl.read_parquet(path) for path in list_parts(tmp_path / "data" / "clean")])
    bad = bad_rows()
    reasons = [reason for _, reason in bad.values() if reason]
    good = kept.filter(pl.col("url").str.starts_with("http://rows.example/"))
    assert good.height == ROWS - len(bad)
    assert kept.height == good.height + len(bad) - len(reasons)
    odd = kept.join(good, on="id", how="anti")["meta"].drop_nulls().to_list()
    assert sorted(key for meta in odd for key in json.loads(meta) if key != "id") == ["date", "label", "url"]

    dropped = [row for path in tmp_path.glob("data/*/dropped-*.parquet") for row in pl.read_parquet(path).to_dicts()]
    by_file = {(row["id"], row["reason"]) for row in dropped}  # clean hands on what scrape has dropped
    assert sorted(reason for _, reason in by_file) == sorted(reasons)
    assert all(row["detail"] for row in dropped if row["reason"].startswith("scrape."))
