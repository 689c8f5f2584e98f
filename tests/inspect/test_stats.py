"""`corpus stats` beside what Polars says of the whole file at once, on foreign, nested, broken and empty ones."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpus.documents import DROPPED, document_id, write_table
from corpus.errors import UserError
from corpus.inspect import stats as code
from corpus.inspect.stats import folder_stats, render_stats
from corpus.inspect.terminal import to_json

HOSTILE = "[red]\x1b[31m\x00\u202egnp[/red]\nnext"


def columns(path: Path, section: int = 0) -> dict[str, dict[str, Any]]:
    """The figures of a section's columns by name."""
    return {column["name"]: column for column in folder_stats(path)["sections"][section]["columns"]}


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """Two parts of 3,000 documents, English and Chinese, with nulls, NaN and infinities, in several batches."""
    rng = np.random.default_rng(3)
    folder = tmp_path / "documents"
    folder.mkdir()
    for part in range(2):
        count = 3000
        score = rng.normal(5, 3, count)
        score[:4] = [math.nan, math.inf, -math.inf, math.nan]
        frame = pl.DataFrame(
            {
                "id": [document_id(f"{part} {n}") for n in range(count)],
                "text": ["备份文件" * int(n) if n % 2 else "restore " * int(n) for n in rng.integers(0, 40, count)],
                "lang": [("en", "zh-Hans", None)[n % 3] for n in range(count)],
                "score": score,
                "size": pl.Series([None if n % 7 == 0 else n * (part + 1) for n in range(count)], dtype=pl.Int64),
                "kept": [(True, False, None, True)[n % 4] for n in range(count)],
                "reasons": [["filter.a.min"] * (n % 2) + [f"filter.r{n % 30}.max"] * (n % 3) for n in range(count)],
            }
        )
        frame.write_parquet(folder / f"part-{part}.parquet", row_group_size=700)
    return folder


def check_against_polars(folder: Path, exact: bool) -> None:
    whole = pl.read_parquet(folder / "*.parquet")
    found = columns(folder)
    for name in ("score", "size"):
        numbers = whole[name].drop_nulls().cast(pl.Float64)
        finite = numbers.filter(numbers.is_finite())
        said = found[name]["numbers"]
        assert found[name]["nulls"] == whole[name].null_count()
        assert (said["nan"], said["infinite"]) == (numbers.is_nan().sum(), numbers.is_infinite().sum())
        assert (said["min"], said["max"]) == (finite.min(), finite.max())
        assert said["mean"] == pytest.approx(finite.mean())
        assert said["exact"] is exact
        for share, value in said["quantiles"].items():
            # The value that this share of all numbers does not exceed; rounded to two digits it is off by 5 % at most.
            true = finite.sort()[math.ceil(float(share) * len(finite)) - 1]
            assert value == (true if exact else pytest.approx(true, rel=0.06))
    text = whole["text"]
    said = found["text"]
    assert said["characters"] == text.str.len_chars().sum()
    assert said["bytes"] == sum(len(one.encode()) for one in text)
    assert said["empty"] == (text == "").sum() > 0
    assert said["length"]["max"] == text.str.len_chars().max()
    assert (said["distinct"], said["distinct_exact"]) == (text.n_unique(), True)
    languages = whole["lang"].drop_nulls().value_counts(sort=True).rows()
    assert {(one["value"], one["count"]) for one in found["lang"]["values"]} == set(languages)
    assert found["lang"]["nulls"] == whole["lang"].null_count()
    kept = dict(whole["kept"].value_counts().iter_rows())
    assert [found["kept"][key] for key in ("true", "false", "nulls")] == [kept[True], kept[False], kept[None]]
    lengths = whole["reasons"].list.len()
    assert (found["reasons"]["length"]["min"], found["reasons"]["length"]["max"]) == (lengths.min(), lengths.max())
    assert found["reasons"]["length"]["mean"] == pytest.approx(lengths.mean())
    reasons = sorted(whole["reasons"].explode().drop_nulls().value_counts().rows(), key=lambda row: (-row[1], row[0]))
    assert [(one["value"], one["count"]) for one in found["reasons[]"]["values"]] == reasons[:10]
    assert found["reasons[]"]["distinct"] == len(reasons) > 20


def test_the_figures_are_those_of_the_whole_file(documents: Path) -> None:
    check_against_polars(documents, exact=True)


def test_they_are_so_over_many_batches_and_beyond_what_is_remembered(
    documents: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code, "BATCH_ROWS", 97)
    check_against_polars(documents, exact=True)
    monkeypatch.setattr(code, "EXACT_VALUES", 1000)
    check_against_polars(documents, exact=False)


def test_files_rows_bytes_and_ids(documents: Path) -> None:
    (section,) = folder_stats(documents)["sections"]
    assert section["files"] == ["part-0.parquet", "part-1.parquet"]
    assert section["rows"] == 6000
    assert section["bytes"] == sum(path.stat().st_size for path in documents.iterdir())
    assert section["repeated_ids"] == 0
    (documents / "more.parquet").write_bytes((documents / "part-0.parquet").read_bytes())
    assert folder_stats(documents)["sections"][0]["repeated_ids"] == 3000
    (alone,) = folder_stats(documents / "part-1.parquet")["sections"]
    assert (alone["files"], alone["rows"]) == (["part-1.parquet"], 3000)


def test_many_distinct_values_are_estimated(tmp_path: Path) -> None:
    pl.DataFrame({"key": [document_id(str(n)) for n in range(50_000)] * 2}).write_parquet(tmp_path / "a.parquet")
    key = columns(tmp_path)["key"]
    assert key["distinct"] == pytest.approx(50_000, rel=0.05)
    assert key["distinct_exact"] is False
    assert "values" not in key
    assert "~" in render_stats(folder_stats(tmp_path))


def test_dropped_rows_and_other_columns_are_sections_of_their_own(tmp_path: Path) -> None:
    pl.DataFrame({"id": ["a", "b"], "kept": [True, None]}).write_parquet(tmp_path / "part-a-0-00000.parquet")
    rows = [{"id": "c", "source": "s", "batch": 0, "reason": "clean.empty"}]
    write_table(pa.Table.from_pylist(rows, DROPPED), tmp_path / "dropped-a-0-00000.parquet")
    (tmp_path / "edges").mkdir()
    pl.DataFrame({"id_a": ["a"], "id_b": ["b"]}).write_parquet(tmp_path / "edges" / "part-00000.parquet")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "half.parquet").write_bytes(b"no Parquet")
    (tmp_path / "README.md").write_text("# about")
    sections = folder_stats(tmp_path)["sections"]
    assert [(one["dropped"], one["files"], one["rows"], one["repeated_ids"]) for one in sections] == [
        (False, ["edges/part-00000.parquet"], 1, None),
        (False, ["part-a-0-00000.parquet"], 2, 0),
        (True, ["dropped-a-0-00000.parquet"], 1, 0),
    ]
    (reason,) = columns(tmp_path, 2)["reason"]["values"]
    assert reason == {"value": "clean.empty", "count": 1}
    assert "dropped-* files 1: dropped-a-0-00000.parquet" in render_stats(folder_stats(tmp_path))


def test_foreign_types_and_nested_columns(tmp_path: Path) -> None:
    fields = pa.struct([("role", pa.string()), ("words", pa.list_(pa.int16()))])
    table = pa.table(
        {
            "n.b": pa.array([1, None, 3], pa.decimal128(5, 2)),
            "large": pa.array([2**63, 2**64 - 1, None], pa.uint64()),
            "half": pa.array(np.array([0.5, np.nan, 2], np.float16)),
            "when": pa.array([0, None, 2], pa.timestamp("us", "UTC")),
            "nothing": pa.nulls(3),
            "kind": pa.array(["a", None, "a"]).dictionary_encode(),
            "body": pa.array([b"\xff\xfe", None, b""], pa.large_binary()),
            "vector": pa.array([[1.0, 2.0], None, [3.0, math.nan]], pa.list_(pa.float32(), 2)),
            "talk": pa.array([[{"role": "user", "words": [1, 2]}, None], [], None], pa.list_(fields)),
            "meta": pa.array([{"role": None, "words": None}, None, {"role": "x", "words": [5]}], fields),
            "pairs": pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int32())),
        }
    )
    pq.write_table(table, tmp_path / "foreign.parquet")
    found = columns(tmp_path / "foreign.parquet")
    nulls = {name: found[name]["nulls"] for name in table.column_names}
    assert nulls == dict.fromkeys(table.column_names, 1) | {"half": 0, "nothing": 3}
    assert (found["large"]["numbers"]["min"], found["large"]["numbers"]["max"]) == (2**63, 2**64 - 1)
    assert found["n.b"]["numbers"]["mean"] == 2
    assert (found["half"]["numbers"]["nan"], found["half"]["numbers"]["max"]) == (1, 2)
    assert found["kind"]["values"] == [{"value": "a", "count": 2}]
    assert (found["body"]["length"]["min"], found["body"]["length"]["total"]) == (0, 2)
    assert (found["vector[]"]["rows"], found["vector[]"]["numbers"]["nan"]) == (4, 1)
    assert (found["talk"]["length"]["max"], found["talk[]"]["nulls"]) == (2, 1)
    assert found["talk[].words[]"]["numbers"]["max"] == 2
    assert (found["meta.role"]["nulls"], found["meta.words[]"]["numbers"]["min"]) == (2, 5)
    assert json.loads(to_json(folder_stats(tmp_path)))["sections"][0]["repeated_ids"] is None
    assert "timestamp" in render_stats(folder_stats(tmp_path))


def test_an_id_that_is_a_number_counts_too(tmp_path: Path) -> None:
    pl.DataFrame({"id": [1, 2, 2, None, 2, None]}).write_parquet(tmp_path / "a.parquet")
    assert folder_stats(tmp_path)["sections"][0]["repeated_ids"] == 2


def test_no_rows(tmp_path: Path) -> None:
    schema = pl.Schema({"id": pl.String(), "reasons": pl.List(pl.String), "n": pl.Float64(), "kept": pl.Boolean()})
    pl.DataFrame(schema=schema).write_parquet(tmp_path / "a.parquet")
    found = columns(tmp_path)
    assert list(found) == ["id", "reasons", "reasons[]", "n", "kept"]
    assert (found["n"]["numbers"]["min"], found["n"]["numbers"]["quantiles"]) == (None, {})
    assert (found["id"]["distinct"], found["kept"]["true"]) == (0, 0)
    assert "NaN" not in to_json(folder_stats(tmp_path))
    assert "0 rows" in render_stats(folder_stats(tmp_path))


def test_hostile_names_and_values_do_nothing_to_the_terminal(tmp_path: Path) -> None:
    folder = tmp_path / "[red]\x1b[31m"
    folder.mkdir()
    pl.DataFrame({HOSTILE: [HOSTILE, None]}).write_parquet(folder / "\x1b]0;x\x07.parquet")
    shown = render_stats(folder_stats(folder))
    assert not {"\x1b", "\x00", "\u202e", "\x07"} & set(shown)
    assert "[red] [31m gnp[/red] next" in " ".join(shown.split())
    assert folder_stats(folder)["sections"][0]["columns"][0]["values"] == [{"value": HOSTILE, "count": 1}]


def test_the_same_files_give_the_same_words(documents: Path) -> None:
    shown = render_stats(folder_stats(documents))
    assert shown == render_stats(folder_stats(documents))
    assert to_json(folder_stats(documents)) == to_json(folder_stats(documents))
    assert "6,000 rows" in shown
    assert all(len(line) <= 120 for line in shown.splitlines())


def test_what_is_no_parquet_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere does not exist"):
        folder_stats(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no Parquet file"):
        folder_stats(tmp_path)
    (tmp_path / "rows.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match=r"rows\.jsonl is no Parquet"):
        folder_stats(tmp_path / "rows.jsonl")
    for name in ("a", "b", "c", "d", "e"):
        (tmp_path / f"{name}.parquet").write_text("no")
    pl.DataFrame({"id": ["a"]}).write_parquet(tmp_path / "good.parquet")
    with pytest.raises(UserError, match=r"a\.parquet.*b\.parquet.*c\.parquet.*and 2 more files"):
        folder_stats(tmp_path)


def test_a_file_damaged_in_its_middle_is_named(tmp_path: Path) -> None:
    pl.DataFrame({"text": [document_id(str(n)) for n in range(5000)]}).write_parquet(tmp_path / "a.parquet")
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    content[4 : len(content) // 2] = b"\xff" * (len(content) // 2 - 4)
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.parquet is not a whole Parquet file"):
        folder_stats(tmp_path)


def test_strings_that_are_no_utf8_are_named(tmp_path: Path) -> None:
    offsets = pa.array([0, 2], pa.int32()).buffers()[1]
    broken = pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(b"\xff\xfe")])
    pq.write_table(pa.table({"words": broken}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet.*words.*UTF8"):
        folder_stats(tmp_path)


def test_columns_of_one_name_are_told_apart(tmp_path: Path) -> None:
    struct = pa.array([{"b": 1}, {"b": 2}])
    pq.write_table(
        pa.table(
            {
                "a": struct,
                "a.b": pa.array(
                    [
                        10,
                        20,
                    ]
                ),
            }
        ),
        tmp_path / "one.parquet",
    )
    (section,) = folder_stats(tmp_path)["sections"]
    named = [column["numbers"]["max"] for column in section["columns"] if column["name"] == "a.b"]
    assert named == [2, 20]
