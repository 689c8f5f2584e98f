"""A field that a source names by hand and no row has is refused; what only some rows lack costs those rows."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import TypeAdapter

from corpus.errors import UserError
from corpus.params import Params
from corpus.scrape.rows import files_of, read_files
from corpus.scrape.stage import gather
from corpus.sources import AnySource

ROWS = [{"content": f"Text {number}.", "key": number} for number in range(5)]


def read(kind: str, path: Path, **more: Any) -> list[dict[str, Any]]:
    source: Any = TypeAdapter(AnySource).validate_python({"name": "s", "kind": kind, "path": str(path)} | more)
    return list(read_files(source, files_of(source), Counter()))


def write(folder: Path, kind: str, rows: list[dict[str, Any]] = ROWS) -> Path:
    path = folder / f"rows.{kind}"
    if kind == "parquet":
        pl.DataFrame(rows).write_parquet(path)
    elif kind == "csv":
        pl.DataFrame(rows).write_csv(path)
    elif kind == "json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "csv"])
def test_a_name_that_no_row_has(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, kind)
    read_as = kind.removesuffix("l") + "l" if kind.startswith("json") else kind
    assert len([row for row in read(read_as, path, text_field="content", id_field="key") if "text" in row]) == 5
    with pytest.raises(UserError) as refused:
        read(read_as, path, text_field="contents")
    assert str(refused.value) == (
        f"sources: s: {path} has no field `contents`, which text_field names (did you mean content?); "
        "it has content, key"
    )
    with pytest.raises(UserError, match=r"has no field `id`, which id_field names; it has content, key"):
        read(read_as, path, text_field="content", id_field="id")
    with pytest.raises(UserError, match="has no field `text`, which text_field names"):
        read(read_as, path, text_field="text")
    assert {row["reason"] for row in read(read_as, path)} == {"scrape.error.text"}, "not named by hand"


def test_rows_that_lack_it_are_dropped_for_that(tmp_path: Path) -> None:
    rows = [*ROWS, {"content": "Without."}, {"content": "A list.", "key": []}, {"key": 9}]
    found = read("jsonl", write(tmp_path, "jsonl", rows), text_field="content", id_field="key")
    assert [row["detail"].partition(": ")[2] for row in found if "reason" in row] == [
        "id_field key is missing",
        "id_field key is list, no string or integer",
        "content is missing; text_field may name another of: none",
    ]


def test_a_dialogue_needs_no_text(tmp_path: Path) -> None:
    rows = [{"prompt": "Hi", "completion": "Hello"}]
    for kind in ("jsonl", "parquet", "csv"):
        assert "reason" not in read(kind, write(tmp_path, kind, rows), text_field="text")[0]
        with pytest.raises(UserError, match="has no field `txt`"):
            read(kind, write(tmp_path, kind, rows), text_field="txt")


def test_nothing_to_see_is_nothing_to_refuse(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    for text in ("", "no JSON\n", "5\n"):
        path.write_text(text)
        assert not any("text_field" in str(row) for row in read("jsonl", path, text_field="content"))


def test_tasks_that_were_exported_have_fields_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "tasks.json"
    path.write_text(json.dumps([{"data": {"id": "0" * 32, "text": "Ours."}}]))
    assert read("label_studio", path, text_field="body")[0]["text"] == "Ours."
    path.write_text(json.dumps([{"data": {"txt": "Theirs."}}]))
    with pytest.raises(UserError, match=r"has no field `text`.*did you mean txt\?"):
        read("label_studio", path, text_field="text")


def test_a_dataset(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder, "parquet")
    for field, wrong in (("text_field", "contents"), ("id_field", "keys")):
        named = {"text_field": "content", field: wrong}
        source = {"name": "s", "kind": "hf", "dataset": str(folder)} | named
        params = Params.model_validate({"sources": [source]})
        (tmp_path / field).mkdir()
        with pytest.raises(UserError, match=f"dataset {folder} has no field `{wrong}`, which {field} names .did you"):
            gather(params.sources, params.scrape, tmp_path / "home", tmp_path / field)
