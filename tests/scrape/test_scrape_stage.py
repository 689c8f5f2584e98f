"""Rows and parts of the scrape stage, on real files."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl
import pytest
from conftest import digests

import corpus.locks
from corpus.errors import StageError, UserError
from corpus.params import Params
from corpus.scrape import stage
from corpus.scrape.buckets import Spill, part_count, spilled
from corpus.sources import RowSource
from corpus.stage import Metrics, Run, execute


def scrape(
    folder: Path,
    sources: list[dict[str, Any]],
    part_mb: float = 64,
    limit: int | None = None,
    workers: int = 1,
    forget: dict[str, Any] | None = None,
) -> Metrics:
    params = Params.model_validate({"sources": sources, "scrape": {"part_mb": part_mb}, "forget": forget or {}})
    places = {"output": folder / "scrape", "reports": folder / "reports", "home": folder / "home"}
    return execute(stage, Run("scrape", params, (), workers=workers, limit=limit, **places))


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


def _many_files(folder: Path, files: int = 30) -> dict[str, Any]:
    """Files with rows of their own, rows that all of them have, and a broken one each."""
    folder.mkdir()
    for number in range(files):
        own = [{"text": f"row {n} of file {number}", "key": f"{number} {n}"} for n in range(5)]
        write_lines(folder / f"{number:03d}.jsonl", [*own, {"text": "everywhere", "key": "same"}, b"{"])
    return {"name": "rows", "kind": "jsonl", "path": str(folder)}


@pytest.mark.parametrize("id_field", [None, "key"])
def test_the_same_bytes_whatever_the_workers_and_segments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, id_field: str | None
) -> None:
    source = _many_files(tmp_path / "files", 8) | {"id_field": id_field}
    metrics = scrape(tmp_path / "whole", [source], part_mb=0.0005)
    assert metrics["rows"]["in"] == 56
    monkeypatch.setattr(stage, "SEGMENT_BYTES", 1)
    for workers in (1, 3):
        folder = tmp_path / str(workers)
        assert scrape(folder, [source], part_mb=0.0005, workers=workers) == metrics
        assert digests(folder / "scrape") == digests(tmp_path / "whole/scrape")
        assert not list((folder / "home/scrape").iterdir()), "nothing is left of what was spilled"


def test_killed_in_the_middle_it_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = _many_files(tmp_path / "files")
    scrape(tmp_path / "undisturbed", [source])
    script = f"""
import sys, time
sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parent.parent)!r}]
from pathlib import Path
from corpus.scrape import stage
from test_scrape_stage import scrape
read, stage.SEGMENT_BYTES = stage.read_files, 1
stage.read_files = lambda *arguments: (time.sleep(0.05), read(*arguments))[1]
scrape(Path({str(tmp_path / "killed")!r}), [{source!r}])
"""
    process = subprocess.Popen([sys.executable, "-c", script])
    spilled = tmp_path / "killed/home/scrape"
    deadline = time.monotonic() + 60
    while len(list(spilled.glob("*/[0-9]*"))) < 5:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in spilled.glob("*/[0-9]*/*")}
    segments = {int(path.parent.name) for path in finished}
    assert 5 <= len(segments) < 30

    read_again: list[str] = []
    read = stage.read_files
    monkeypatch.setattr(stage, "SEGMENT_BYTES", 1)
    monkeypatch.setattr(
        stage,
        "read_files",
        lambda source, entries, records: (
            read_again.extend(entry.name for entry in entries) or read(source, entries, records)
        ),
    )
    scrape(tmp_path / "killed", [source])
    assert read_again == [f"{number:03d}.jsonl" for number in range(30) if number not in segments]
    assert digests(tmp_path / "killed/scrape") == digests(tmp_path / "undisturbed/scrape")
    assert not list(spilled.iterdir())


def test_a_changed_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = _many_files(tmp_path / "files", 3)
    monkeypatch.setattr(stage, "SEGMENT_BYTES", 1)
    monkeypatch.setattr(stage, "_write_source", lambda *_: (_ for _ in ()).throw(UserError("stopped")))
    with pytest.raises(UserError, match="stopped"):
        scrape(tmp_path, [source])
    assert len(list((tmp_path / "home/scrape").glob("*/[0-9]*"))) == 3
    monkeypatch.undo()
    write_lines(tmp_path / "files/001.jsonl", [{"text": "another"}])
    assert scrape(tmp_path, [source])["rows"]["in"] == 15


def test_a_dataset_goes_on_after_its_last_whole_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "set").mkdir()
    frame = pl.DataFrame({"text": [f"row {n}" for n in range(95)], "n": range(95)})
    frame.write_parquet(tmp_path / "set/train.parquet")
    source = {"name": "h", "kind": "hf", "dataset": str(tmp_path / "set")}
    scrape(tmp_path / "whole", [source])
    monkeypatch.setattr(stage, "SEGMENT_ROWS", 20)
    read = stage.read_dataset_row

    def fails_at(row: dict[str, Any], number: int) -> Any:
        if row["n"] == number:
            raise UserError("stopped")

    monkeypatch.setattr(stage, "read_dataset_row", lambda s, row, w: fails_at(row, 70) or read(s, row, w))
    with pytest.raises(UserError, match="stopped"):
        scrape(tmp_path / "stopped", [source])
    assert len(list((tmp_path / "stopped/home/scrape").glob("*/[0-9]*"))) == 3
    monkeypatch.setattr(stage, "read_dataset_row", lambda s, row, w: fails_at(row, 59) or read(s, row, w))
    assert scrape(tmp_path / "stopped", [source])["rows"]["kept"] == 95
    assert digests(tmp_path / "stopped/scrape") == digests(tmp_path / "whole/scrape")
    assert scrape(tmp_path / "few", [source], limit=7)["rows"]["in"] == 7


def test_dropped_rows_are_in_order_however_many(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rows.jsonl", [b"{ %d" % n for n in range(2_500)] + [b"{ 1"] * 3)
    metrics = scrape(tmp_path, [jsonl(path)])
    assert metrics["dropped_by_reason"] == {"scrape.error.json": 2_503}
    dropped = pl.read_parquet(tmp_path / "scrape/dropped-rows-0.parquet")
    assert dropped.height == 2_503
    assert dropped.equals(dropped.sort("id", "reason", "detail"))


def test_pages_of_an_archive(tmp_path: Path) -> None:
    def record(url: str, status: str, body: bytes, kind: str = "response") -> bytes:
        block = f"HTTP/1.1 {status}\r\nContent-Type: text/html\r\n\r\n".encode() + body
        head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\nContent-Length: {len(block)}\r\n\r\n"
        return gzip.compress(head.encode() + block + b"\r\n\r\n")

    pages = [record(f"http://a/{n}", "200 OK", b"<p>page %d" % n) for n in range(3)]
    others = [record("http://a/0", "200 OK", b"<p>later"), record("http://a/x", "500 No", b"")]
    asked = record("http://a/1", "200 OK", b"", "request")
    (tmp_path / "a.warc.gz").write_bytes(b"".join([*pages, *others, asked, pages[1][:-4]]))
    metrics = scrape(tmp_path, [{"name": "w", "kind": "warc", "path": str(tmp_path / "a.warc.gz")}])
    assert metrics["rows"] == {"in": 7, "generated": 0, "kept": 3, "dropped": 4}
    assert metrics["dropped_by_reason"] == {
        "scrape.duplicate_id": 2,
        "scrape.error.archive": 1,
        "scrape.error.status": 1,
    }
    assert metrics["sources"]["w-0"]["records"] == {"response": 6, "request": 1}
    found = pl.read_parquet(tmp_path / "scrape/part-w-0-00000.parquet")
    assert sorted(found["body"]) == [b"<p>page 0", b"<p>page 1", b"<p>page 2"], "of one URL the first capture counts"
    assert [source.kind for source in stage.sources_of_paths([tmp_path / "a.warc.gz"])] == ["warc"]


def test_one_run_at_a_time_uses_what_is_spilled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_lines(tmp_path / "rows.jsonl", [{"text": f"row {n}"} for n in range(50)])
    source = RowSource(name="rows", kind="jsonl", path=str(path))
    write = stage._write_part
    began, ended = threading.Event(), threading.Event()

    def slow(source: Any, number: int, *more: Any) -> list[str]:
        began.set()
        assert ended.wait(30)
        return write(source, number, *more)

    results: list[Metrics] = []

    def gather(name: str) -> None:
        (tmp_path / name).mkdir()
        results.append(stage.gather([source], Params().scrape, tmp_path / "home", tmp_path / name))

    monkeypatch.setattr(stage, "_write_part", slow)
    first = threading.Thread(target=gather, args=["a"])
    first.start()
    assert began.wait(30)
    monkeypatch.setattr(corpus.locks, "LOCK_SECONDS", 0.1)
    with pytest.raises(UserError, match="scrape is being written by another run"):
        gather("b")
    monkeypatch.setattr(corpus.locks, "LOCK_SECONDS", 30)
    second = threading.Thread(target=gather, args=["c"])
    second.start()
    ended.set()
    first.join()
    second.join()
    assert [metrics["rows"]["kept"] for metrics in results] == [50, 50]
    for name in ("a", "c"):
        assert sum(pl.read_parquet(p).height for p in (tmp_path / name).glob("part-*.parquet")) == 50


def test_spilled_rows_that_vanish_are_no_empty_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spill = Spill(tmp_path / "spill")
    spill.add({"id": "00", "reason": "x"})
    spill.finish()
    assert list(spilled(tmp_path / "spill/dropped")) == [{"id": "00", "reason": "x"}]
    assert list(spilled(tmp_path / "spill/000")) == []
    (tmp_path / "spill/dropped").unlink()
    with pytest.raises(StageError, match="dropped is gone"):
        list(spilled(tmp_path / "spill/dropped"))
    path = write_lines(tmp_path / "rows.jsonl", [{"text": f"row {n}"} for n in range(50)])
    monkeypatch.setattr(stage, "rows_of_part", lambda *_: iter(()))
    with pytest.raises(StageError, match="of 50 rows read some are gone"):
        scrape(tmp_path, [jsonl(path)])


def test_what_killed_runs_left_of_other_settings_is_removed(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rows.jsonl", [{"text": "a"}])
    (tmp_path / "home/scrape/another/000000").mkdir(parents=True)
    scrape(tmp_path, [jsonl(path)], limit=1)
    assert list((tmp_path / "home/scrape").iterdir())
    scrape(tmp_path, [jsonl(path)])
    assert not list((tmp_path / "home/scrape").iterdir())


@pytest.mark.parametrize(("first", "refused"), [("html", "document"), ("text", "page")])
def test_a_source_is_of_the_kind_of_its_first_record(tmp_path: Path, first: str, refused: str) -> None:
    other = "html" if first == "text" else "text"
    rows = [{first: "<p>0</p>"}, *({name: f"<p>{name} {n}</p>"} for n in range(20) for name in (first, other))]
    path = write_lines(tmp_path / "rows.jsonl", [b"{", *rows])
    metrics = scrape(tmp_path, [jsonl(path)], part_mb=0.00005)
    assert metrics["dropped_by_reason"] == {"scrape.error.json": 1, "scrape.error.text": 20}
    dropped = pl.read_parquet(tmp_path / "scrape/dropped-rows-0.parquet").filter(
        pl.col("reason") == "scrape.error.text"
    )
    assert set(dropped["detail"].str.split(",").list[0]) == {f"a {refused}"}
    assert all(text.startswith(f"<p>{other} ") for text in dropped["text"])
    parts = list((tmp_path / "scrape").glob("part-*.parquet"))
    assert len(parts) > 1
    assert sum(pl.read_parquet(part).height for part in parts) == 21
    assert {("body" in pl.read_parquet_schema(part)) for part in parts} == {first == "html"}


def test_details_of_dropped_rows_can_be_written(tmp_path: Path) -> None:
    role = b'{"messages": [{"role": "\\ud800", "content": "x"}]}'
    path = write_lines(tmp_path / "rows.jsonl", [role, {"text": "good"}])
    assert scrape(tmp_path, [jsonl(path)])["dropped_by_reason"] == {"scrape.error.messages": 1}
    assert "the role ? is none" in pl.read_parquet(tmp_path / "scrape/dropped-rows-0.parquet")["detail"][0]


def test_no_two_names_of_files_make_one_url(tmp_path: Path) -> None:
    names = ["a.html", "a b.html", "a%20b.html", "a#b.html", "a.html?utm_x=1.html", "a;sid=1.html", "x:y.html"]
    (tmp_path / "site").mkdir()
    for name in names:
        (tmp_path / "site" / name).write_text(f"<p>{name}</p>")
    source = {"name": "site", "kind": "html", "path": str(tmp_path / "site"), "as": "https://h.local/docs"}
    assert scrape(tmp_path, [source])["rows"]["kept"] == len(names)
    pages = pl.read_parquet(tmp_path / "scrape/part-site-*.parquet")
    urls = {body.decode()[3:-4]: url for body, url in zip(pages["body"], pages["url"], strict=True)}
    assert urls["a.html"] == "https://h.local/docs/a.html"
    assert urls["a%20b.html"] == "https://h.local/docs/a%2520b.html"
    assert {name: unquote(url.removeprefix("https://h.local/docs/")) for name, url in urls.items()} == {
        name: name for name in names
    }


def test_a_dataset_whose_files_changed_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "set").mkdir()
    source = {"name": "h", "kind": "hf", "dataset": str(tmp_path / "set")}
    pl.DataFrame({"text": [f"old {n}" for n in range(30)]}).write_parquet(tmp_path / "set/train.parquet")
    monkeypatch.setattr(stage, "SEGMENT_ROWS", 10)
    monkeypatch.setattr(stage, "_write_source", lambda *_: (_ for _ in ()).throw(UserError("stopped")))
    with pytest.raises(UserError, match="stopped"):
        scrape(tmp_path, [source])
    monkeypatch.undo()
    pl.DataFrame({"text": [f"new {n}" for n in range(35)]}).write_parquet(tmp_path / "set/train.parquet")
    assert scrape(tmp_path, [source])["rows"]["kept"] == 35
    texts = pl.read_parquet(tmp_path / "scrape/part-h-*.parquet")["text"]
    assert all(text.startswith("new ") for text in texts)


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
    assert (stage.VERSION, digest) == (4, "171d6148d1b38d55"), "scrape's output changed: if on purpose, raise VERSION"
