"""Documents that must go leave an id and a reason, and nothing else anywhere."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import polars as pl
from test_scrape_stage import jsonl, scrape, write_lines

from corpus.documents import document_id
from corpus.params import Forget
from corpus.scrape.crawl_cache import Cache
from corpus.scrape.forget import forgetter, forgotten, purge

SECRET = "Eulalia"


def test_rows_by_id_url_and_pattern() -> None:
    forget = Forget(ids=["1"], urls=["HTTP://a.example:80/x#y"], patterns=[r"^http://b\.example/private"])
    rows: list[dict[str, Any]] = [
        {"id": "1", "url": None, "text": SECRET},
        {"id": "2", "url": "http://a.example/x", "text": SECRET},
        {"id": "3", "url": "http://b.example/private/z", "body": SECRET.encode(), "content_type": "text/html"},
        {"id": "4", "url": "http://b.example/public", "text": "stays"},
        {"id": "5", "text": "stays"},
    ]
    must_go = forgetter(forget)
    assert [must_go(row) for row in rows] == [True, True, True, False, False]
    found = [forgotten(row) if must_go(row) else row for row in rows]
    assert found[3:] == rows[3:]
    assert [row["id"] for row in found] == ["1", "2", "3", "4", "5"]
    for row in found[:3]:
        assert {name: value for name, value in row.items() if value is not None} == {
            "id": row["id"],
            "reason": "scrape.forgotten",
        }


def test_scrape_leaves_an_id_and_a_reason(tmp_path: Path) -> None:
    by_id, repeated = ({"text": f"{SECRET} {n}"} for n in range(2))
    rows = [by_id, {"text": "stays"}, repeated, repeated, {"text": f"{SECRET} 5", "url": "http://a/5"}, {"text": 5}]
    path = write_lines(tmp_path / "rows.jsonl", [*rows, f'{{"{SECRET}'.encode()])
    before = scrape(tmp_path, [jsonl(path)])
    ids = {row["text"]: row["id"] for row in pl.read_parquet(tmp_path / "scrape/part-*.parquet").to_dicts()}
    broken = document_id(f'{{"{SECRET}'.encode())
    repeats = [i for text, i in ids.items() if text == f"{SECRET} 1"]
    first = document_id(json.dumps(repeated).encode())
    every = pl.read_parquet(tmp_path / "scrape/part-*.parquet").filter(pl.col("text") == f"{SECRET} 1")["id"].to_list()
    assert set(repeats) < set(every) and first in every
    forget = {"ids": [ids[f"{SECRET} 0"], broken, *every], "patterns": ["/5$"]}
    metrics = scrape(tmp_path, [jsonl(path)], forget=forget)
    assert metrics["rows"]["in"] == before["rows"]["in"] == 7
    assert metrics["dropped_by_reason"] == {"scrape.forgotten": 5, "scrape.error.text": 1}
    dropped = pl.read_parquet(tmp_path / "scrape/dropped-rows-0.parquet")
    gone = dropped.filter(pl.col("reason") == "scrape.forgotten")
    assert {broken, first} < set(gone["id"])
    assert gone.select("url", "detail", "text").null_count().row(0) == (5, 5, 5)
    for file in (tmp_path / "scrape").glob("*.parquet"):
        assert SECRET not in str(pl.read_parquet(file).to_dicts())
    kept = pl.read_parquet(tmp_path / "scrape/part-*.parquet")
    assert kept["text"].to_list() == ["stays"]


def test_a_first_row_forgotten_does_not_rename_its_repeat(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rows.jsonl", [{"text": "twice"}, {"text": "twice"}])
    scrape(tmp_path, [jsonl(path)])
    first = document_id(b'{"text": "twice"}')
    ids = set(pl.read_parquet(tmp_path / "scrape/part-*.parquet")["id"])
    scrape(tmp_path, [jsonl(path)], forget={"ids": [first]})
    assert set(pl.read_parquet(tmp_path / "scrape/part-*.parquet")["id"]) == ids - {first}


def _entry(home: Path, stage: str, key: str, **columns: list[Any]) -> Path:
    folder = home / "parts" / stage / key
    folder.mkdir(parents=True)
    pl.DataFrame(columns).write_parquet(folder / "part-a-0-00000.parquet")
    (folder / "metrics.json").write_text("{}")
    return folder


def test_purge_removes_parts_spills_and_answers(tmp_path: Path) -> None:
    home, data = tmp_path / "home", tmp_path / "data"
    gone = [
        _entry(home, "clean", "k1", id=["1", "2"], url=["http://a/private", None], text=[SECRET, "x"]),
        _entry(home, "measure", "k2", id=["1", "2"], n=[1, 2]),
        _entry(home, "augment", "k3", id=["9"], parent_id=["1"], text=[SECRET]),
        _entry(home, "measure", "k4", id=["9"], n=[1]),
    ]
    stays = [_entry(home, "clean", "k5", id=["3"], url=["http://a/public"]), home / "parts" / "clean" / "k6"]
    stays[1].mkdir()
    (home / "scrape" / "key" / "000000").mkdir(parents=True)
    (data / "clean").mkdir(parents=True)
    pl.DataFrame({"id": ["1", "3"], "text": [SECRET, "y"]}).write_parquet(data / "clean" / "part-a-0-00000.parquet")
    with contextlib.closing(Cache(home, "agent")) as cache:
        for url in ("http://a/private", "http://a/by-id", "http://a/public"):
            cache.put(url, 200, {}, f"{SECRET} {url}".encode())
    by_id = document_id("http://a/by-id")
    said = purge(home, data, Forget(patterns=["/private"], ids=["unknown", by_id]))
    with contextlib.closing(Cache(home, "agent")) as cache:
        assert cache.get("http://a/public")
        assert not cache.get("http://a/private") and not cache.get("http://a/by-id")
    assert f"{SECRET} http://a/private".encode() not in b"".join(p.read_bytes() for p in home.rglob("*") if p.is_file())
    assert not any(folder.exists() for folder in gone)
    assert all(folder.exists() for folder in stays)
    assert not (home / "scrape").exists()
    assert "removed 4 finished parts, 1 unfinished sources and 2 answers of the web" in said
    assert "unknown" in said.partition("no longer there: ")[2]
    assert "still holds 1 of them: run `dvc repro`, then `dvc gc --workspace`" in said
    (data / "clean" / "part-a-0-00000.parquet").unlink()
    assert "none of these documents occurs any more" in purge(home, data, Forget(ids=["1"]))
    assert "none of these" in purge(tmp_path / "nowhere", tmp_path / "nothing", Forget(ids=["1"]))
