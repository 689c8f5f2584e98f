"""Documents that must go leave an id and a reason, and nothing else anywhere."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from test_scrape_stage import jsonl, scrape, write_lines

import corpus.locks
from corpus.documents import document_id
from corpus.errors import UserError
from corpus.locks import locked
from corpus.params import Forget
from corpus.scrape.crawl_cache import Cache
from corpus.scrape.forget import forgetter, forgotten, purge, url_forgetter

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


def test_a_row_is_forgotten_with_its_repeats_and_a_repeat_alone(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rows.jsonl", [{"text": "twice"}, {"text": "twice"}, {"text": "once"}])
    scrape(tmp_path, [jsonl(path)])
    rows = pl.read_parquet(tmp_path / "scrape/part-*.parquet").filter(pl.col("text") == "twice")["id"]
    first = document_id(b'{"text": "twice"}')
    for forgotten_id, stays in ((first, ["once"]), (*set(rows) - {first}, ["once", "twice"])):
        scrape(tmp_path, [jsonl(path)], forget={"ids": [forgotten_id]})
        found = pl.read_parquet(tmp_path / "scrape/part-*.parquet")
        assert sorted(found["text"]) == stays
        assert set(found["id"]) <= {*rows, document_id(b'{"text": "once"}')}, "no id is another's"
        assert set(rows) <= set(pl.concat([found.select("id"), dropped_ids(tmp_path)])["id"])


def dropped_ids(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "scrape/dropped-rows-0.parquet", columns=["id"])


def test_a_page_is_known_by_its_id_and_by_any_spelling_of_its_url() -> None:
    by_id = url_forgetter(Forget(ids=[document_id("http://a.example/x")]))
    assert by_id("http://a.example/x") and not by_id("http://a.example/y") and not by_id(None)
    by_url = forgetter(Forget(urls=["http://a.example/x"]))
    spellings = ["http://A.example:80/x", "http://a.example/b/../x?utm_source=y", "http://a.example/%78#top"]
    assert all(by_url({"id": "1", "url": url}) for url in spellings)
    assert not by_url({"id": "1", "url": "no address"})


def test_purge_removes_what_killed_runs_left_and_what_was_fetched_but_not_while_a_stage_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, data = tmp_path / "home", tmp_path / "data"
    left = [home / "parts/clean/.key.1.2.partial", data / ".clean.partial", home / "remote/objects", home / "augment/1"]
    for folder in left:
        folder.mkdir(parents=True)
    monkeypatch.setattr(corpus.locks, "LOCK_SECONDS", 0.1)
    running = locked(home / "locks" / "store.lock", home, shared=True)
    with running, pytest.raises(UserError, match="home is being written by another run"):
        purge(home, data, Forget(ids=["1"]))
    assert all(folder.exists() for folder in left)
    purge(home, data, Forget(ids=["1"]))
    assert not any(folder.exists() for folder in left)


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
    broken = home / "checkpoints" / "key" / "adapted" / "not-finite-3-0.json"
    broken.parent.mkdir(parents=True)
    broken.write_text("the tokens of what a training broke on")
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
    assert not (home / "scrape").exists() and not broken.exists()
    assert "removed 4 finished parts, 1 unfinished sources, 2 answers of the web and 0 of models" in said
    assert "unknown" in said.partition("no longer there: ")[2]
    assert "still holds 1 of them: run `dvc repro`, then `dvc gc --workspace`" in said
    (data / "clean" / "part-a-0-00000.parquet").unlink()
    assert "none of these documents occurs any more" in purge(home, data, Forget(ids=["1"]))
    assert "none of these" in purge(tmp_path / "nowhere", tmp_path / "nothing", Forget(ids=["1"]))
