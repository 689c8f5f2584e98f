"""Sources that are written to while they are read: the run fails and keeps nothing of what it read of them."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from conftest import Bucket

from corpus.errors import StageError
from corpus.params import Params
from corpus.scrape import stage
from corpus.scrape.rows import files_of, read_files
from corpus.scrape.stage import gather
from corpus.sources import RowSource, WarcSource

LINES = b"".join(json.dumps({"text": f"row {number}"}).encode() + b"\n" for number in range(50_000))


def reader(source: Any) -> Iterator[dict[str, Any]]:
    """A source's rows, of which the first has been read."""
    rows = read_files(source, files_of(source), Counter())
    next(rows)
    return rows


def replace(path: Path, data: bytes) -> None:
    other = path.with_name("new")
    other.write_bytes(data)
    other.replace(path)


def test_a_file_that_grows_is_rewritten_replaced_or_removed(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    source = RowSource(name="s", kind="jsonl", path=str(path))
    path.write_bytes(LINES)
    assert len(list(reader(source))) == 49_999
    for change in (
        lambda: path.open("ab").write(b'{"text": "more"}\n'),
        lambda: path.write_bytes(LINES[::-1]),
        lambda: replace(path, LINES),
        lambda: path.unlink(),
    ):
        path.write_bytes(LINES)
        rows = reader(source)
        change()
        with pytest.raises(StageError, match=r"rows\.jsonl changed while it was read: run again once it is complete"):
            list(rows)


def test_a_table_that_changes_is_not_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    frame = pl.DataFrame({"text": [os.urandom(500).hex() for _ in range(5_000)]})
    frame.write_parquet(path, row_group_size=500)
    rows = reader(RowSource(name="s", kind="parquet", path=str(path)))
    path.write_bytes(path.read_bytes()[:1_000])
    with pytest.raises(StageError, match="changed while it was read"):
        list(rows)


def test_an_object_that_is_replaced(s3: Bucket) -> None:
    path = f"{s3.name}/rows.jsonl"
    for change in (LINES + LINES, LINES.replace(b"row", b"ROW"), None):
        s3.files.pipe_file(path, LINES)
        rows = reader(RowSource(name="s", kind="jsonl", path=f"s3://{path}", storage=s3.options["s3"]))
        s3.files.pipe_file(path, change) if change else s3.files.rm_file(path)
        with pytest.raises(StageError, match=f"s3://{path} changed while it was read"):
            list(rows)
    s3.files.pipe_file(path, LINES[: LINES.index(b"\n") + 1])
    assert not list(reader(RowSource(name="s", kind="jsonl", path=f"s3://{path}", storage=s3.options["s3"])))


def test_an_archive_that_a_list_names(s3: Bucket) -> None:
    record = b"WARC/1.0\r\nWARC-Type: resource\r\nWARC-Target-URI: http://a/%d\r\nContent-Length: 1\r\n\r\nx\r\n\r\n"
    archive = b"".join(record % number for number in range(10_000))
    s3.files.pipe_file(f"{s3.name}/a.warc", archive)
    s3.files.pipe_file(f"{s3.name}/warc.paths", b"a.warc\n")
    where = {"path": s3.address("warc.paths"), "base": s3.address("")}
    source = WarcSource(name="s", kind="warc", paths=True, storage=s3.options["s3"], **where)
    assert len(list(reader(source))) == 9_999
    rows = reader(source)
    s3.files.pipe_file(f"{s3.name}/a.warc", archive + record % 1)
    with pytest.raises(StageError, match=r"a\.warc changed while it was read"):
        list(rows)


@pytest.mark.parametrize("kind", ["jsonl", "hf"])
def test_nothing_of_it_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    folder, home = tmp_path / "in", tmp_path / "home"
    folder.mkdir()
    path = folder / "train.jsonl"
    path.write_bytes(b'{"text": "a row"}\n' * 50)
    where = {"path": str(path)} if kind == "jsonl" else {"dataset": str(folder)}
    params = Params.model_validate({"sources": [{"name": "s", "kind": kind} | where]})
    function = "read_files" if kind == "jsonl" else "_dataset_rows"
    read = getattr(stage, function)

    def growing(*arguments: Any) -> Iterator[dict[str, Any]]:
        for number, row in enumerate(read(*arguments)):
            yield row
            if number == 0:
                path.open("ab").write(b'{"text": "one more"}\n')

    monkeypatch.setattr(stage, function, growing)
    (tmp_path / "out").mkdir()
    with pytest.raises(StageError, match=r"train\.jsonl changed while it was read"):
        gather(params.sources, params.scrape, home, tmp_path / "out")
    assert not list(home.glob("parts/scrape/*")) and not list(home.glob("scrape/*/0*"))
