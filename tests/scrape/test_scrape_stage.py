"""Rows and parts of the scrape stage, on real files."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from corpus.errors import UserError
from corpus.params import Params
from corpus.scrape import stage
from corpus.scrape.buckets import part_count
from corpus.sources import RowSource
from corpus.stage import Metrics, Run, execute


def scrape(folder: Path, sources: list[dict[str, Any]], part_mb: float = 64, limit: int | None = None) -> Metrics:
    params = Params.model_validate({"sources": sources, "scrape": {"part_mb": part_mb}})
    run = Run("scrape", params, (), folder / "scrape", reports=folder / "reports", home=folder / "home", limit=limit)
    return execute(stage, run)


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_bytes(b"\n".join(row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows))
    return path


def jsonl(path: Path, **more: Any) -> dict[str, Any]:
    return {"name": "rows", "kind": "jsonl", "path": str(path)} | more


def test_bad_lines_become_dropped_rows_with_their_place(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "rows.jsonl",
        [
            {"text": "good", "stars": 5, "url": "http://u/"},
            b"{not json",
            {"text": 5},
            b'{"text": "broken \xff byte"}',
            {"other": "no text"},
            b'{"text": "half \\ud800"}',
            {"messages": [{"role": "user"}]},
            {"input": "Q", "output": "A"},
            {"text": "good", "stars": 5, "url": "http://u/"},
        ],
    )
    metrics = scrape(tmp_path, [jsonl(path)])
    assert metrics["rows"] == {"in": 9, "generated": 0, "kept": 3, "dropped": 6}
    dropped = pl.read_parquet(tmp_path / "scrape/dropped-rows-0.parquet")
    places = {detail.split(":")[1]: reason for detail, reason in zip(dropped["detail"], dropped["reason"], strict=True)}
    assert places == {
        "2": "scrape.error.json",
        "3": "scrape.error.text",
        "4": "scrape.error.encoding",
        "5": "scrape.error.text",
        "6": "scrape.error.encoding",
        "7": "scrape.error.messages",
    }
    kept = pl.read_parquet(tmp_path / "scrape/part-rows-0-00000.parquet")
    assert kept["id"].n_unique() == 3, "a repeated row is a document of its own, for dedup to judge"
    assert sorted(kept["text"]) == ["good", "good", "user: Q\nassistant: A"]
    assert kept.filter(pl.col("text") == "good")["meta"][0] == '{"stars": 5}'


def test_an_id_that_comes_twice_is_dropped_within_and_across_sources(tmp_path: Path) -> None:
    rows = [{"key": "k1", "text": "one"}, {"key": "k1", "text": "two"}, {"key": "k2", "text": "three"}]
    path = write_lines(tmp_path / "rows.jsonl", rows)
    twice = [jsonl(path, id_field="key"), jsonl(path, id_field="key", batch=1)]
    metrics = scrape(tmp_path, twice)
    assert metrics["rows"] == {"in": 6, "generated": 0, "kept": 2, "dropped": 4}
    assert metrics["dropped_by_reason"] == {"scrape.duplicate_id": 4}


def test_a_new_row_changes_one_part_only(tmp_path: Path) -> None:
    rows = [{"text": f"document number {n} " * 20} for n in range(400)]
    path = write_lines(tmp_path / "rows.jsonl", rows)
    scrape(tmp_path, [jsonl(path)], part_mb=0.01)
    parts = {p.name: p.read_bytes() for p in (tmp_path / "scrape").glob("part-*.parquet")}
    assert len(parts) > 4
    write_lines(path, [*rows, {"text": "new"}])
    scrape(tmp_path, [jsonl(path)], part_mb=0.01)
    again = {p.name: p.read_bytes() for p in (tmp_path / "scrape").glob("part-*.parquet")}
    assert sum(parts[name] != again[name] for name in parts) == 1
    ids = pl.concat(pl.read_parquet(p) for p in sorted((tmp_path / "scrape").glob("part-*.parquet")))["id"]
    assert ids.n_unique() == 401


def test_more_parts_than_buckets_lose_nothing(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rows.jsonl", [{"text": f"{n}" * 40} for n in range(1500)])
    metrics = scrape(tmp_path, [jsonl(path)], part_mb=0.0002)
    assert part_count(metrics["sources"]["rows-0"]["bytes"], 200) > 256
    found = pl.concat(pl.read_parquet(p) for p in (tmp_path / "scrape").glob("part-*.parquet"))
    assert found["id"].n_unique() == 1500


def test_html_text_and_parquet_sources(tmp_path: Path) -> None:
    (tmp_path / "site/sub").mkdir(parents=True)
    (tmp_path / "site/sub/页 1.html").write_bytes("<p>好".encode("gbk"))
    (tmp_path / "notes.txt").write_text("a note")
    pl.DataFrame({"text": ["p", None], "n": [1, 2]}).write_parquet(tmp_path / "t.parquet")
    sources = [
        {"name": "site", "kind": "html", "path": str(tmp_path / "site"), "as": "http://h.local/"},
        {"name": "notes", "kind": "text", "path": str(tmp_path / "*.txt")},
        {"name": "table", "kind": "parquet", "path": str(tmp_path / "t.parquet"), "licence": "CC0"},
    ]
    metrics = scrape(tmp_path, sources)
    assert metrics["rows"] == {"in": 4, "generated": 0, "kept": 3, "dropped": 1}
    page = pl.read_parquet(tmp_path / "scrape/part-site-0-00000.parquet").to_dicts()[0]
    assert page["url"] == "http://h.local/sub/%E9%A1%B5%201.html"
    assert page["body"] == "<p>好".encode("gbk")
    row = pl.read_parquet(tmp_path / "scrape/part-table-0-00000.parquet").to_dicts()[0]
    assert (row["text"], row["licence"], row["meta"]) == ("p", "CC0", '{"n": 1}')
    assert scrape(tmp_path / "first", sources, limit=1)["rows"]["in"] == 3
    assert str(tmp_path) not in (tmp_path / "reports/scrape.json").read_text()


def test_each_input_and_each_kind_is_a_source_of_its_own(tmp_path: Path) -> None:
    paths = []
    for name in ("d1/a_2.jsonl", "d2/a.jsonl", "d3/a.jsonl", "mixed/page.html", "mixed/README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        paths.append(write_lines(tmp_path / name, [{"text": f"a text in {name}"}]))
    paths[3:] = [tmp_path / "mixed"]
    sources = stage.sources_of_paths(paths)
    assert [source.name for source in sources] == ["a_2", "a", "a_3", "mixed_text", "mixed_html"]
    (tmp_path / "out").mkdir()
    assert stage.gather(sources, Params().scrape, tmp_path, tmp_path / "out")["rows"]["kept"] == 5
    same = [RowSource(name="a", kind="jsonl", path=str(path)) for path in paths[:2]]
    (tmp_path / "same").mkdir()
    with pytest.raises(UserError, match="a comes twice with batch 0"):
        stage.gather(same, Params().scrape, tmp_path, tmp_path / "same")


def test_names_and_urls_that_are_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path / "site/") + "/青禾.html".encode("gbk"))).write_bytes(b"<p>a</p>")
    rows = write_lines(tmp_path / "rows.jsonl", [{"url": "http://a/\ud800", "html": "<p>b</p>"}])
    metrics = scrape(tmp_path, [{"name": "site", "kind": "html", "path": str(tmp_path / "site")}, jsonl(rows)])
    assert metrics["dropped_by_reason"] == {"scrape.error.encoding": 1}
    page = pl.read_parquet(tmp_path / "scrape/part-site-0-00000.parquet")
    assert page["url"].to_list() == ["file://site/%C7%E0%BA%CC.html"]


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        scrape(tmp_path, [jsonl(tmp_path / "nowhere.jsonl")])
    with pytest.raises(UserError, match="matches no"):
        scrape(tmp_path, [jsonl(tmp_path / "*.jsonl")])
    broken = tmp_path / "broken.parquet"
    pl.DataFrame({"text": ["a"] * 100}).write_parquet(broken)
    broken.write_bytes(broken.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"broken\.parquet is not a whole Parquet file"):
        scrape(tmp_path, [{"name": "t", "kind": "parquet", "path": str(broken)}])
    assert not (tmp_path / "scrape").exists()


def test_golden(tmp_path: Path) -> None:
    """Ids, parts and dropped rows of fixed sources. Changed on purpose? Raise VERSION, then set the digest."""
    rows = [{"text": f"row {number}", "url": f"http://a/{number}"} for number in range(20)]
    path = write_lines(tmp_path / "rows.jsonl", [*rows, {"input": "Why?", "output": "So."}, {"text": 7}])
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "a.html").write_text("<p>A page</p>")
    pages = {"name": "pages", "kind": "html", "path": str(tmp_path / "pages"), "as": "http://pages.local/"}
    scrape(tmp_path, [jsonl(path), pages], part_mb=0.00005)
    found = [
        [path.name, pl.read_parquet(path).select("id", "source", "url").rows()]
        for path in sorted((tmp_path / "scrape").glob("part-*.parquet"))
    ]
    digest = hashlib.blake2b(json.dumps(found).encode(), digest_size=8).hexdigest()
    assert len(found) > 2
    assert (stage.VERSION, digest) == (1, "171d6148d1b38d55"), "scrape's output changed: if on purpose, raise VERSION"
