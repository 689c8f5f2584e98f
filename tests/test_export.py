import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from corpus.augment.stage import GENERATED
from corpus.cli import main
from corpus.documents import DOCUMENT, DROPPED, write_table
from corpus.errors import UserError
from corpus.export import export_documents

TEXTS = ['第一篇\n\n"引号"', "second", "third", "fourth"]


@pytest.fixture
def data(tmp_path: Path, write_documents: Callable[..., Path]) -> Path:
    """Two parts; of each filter keeps two, drops one, and one had been dropped before."""
    data = tmp_path / "data"
    for source in "ab":
        name = f"part-{source}-0-00000.parquet"
        path = write_documents(data / "clean" / name, TEXTS, lang="en", lang_score=0.99)
        ids = pl.read_parquet(path)["id"]
        save(data / "measure" / name, pl.DataFrame({"id": ids, "ttr": [0.5, 0.25, 1.0, 0.125]}))
        reasons = [[], [], ["filter.ttr.min", "filter.n_chars.min"], []]
        margins = [[], [], [-1.5, None], []]
        columns = {"id": ids, "kept": [True, True, False, None], "reasons": reasons, "margins": margins}
        save(data / "filter" / name, pl.DataFrame(columns))
        gone = {"id": f"gone-{source}", "source": source, "batch": 0, "url": None, "reason": "clean.empty"}
        write_table(
            pa.Table.from_pylist([gone | {"detail": None, "text": ""}], DROPPED),
            data / f"clean/dropped-{source}.parquet",
        )
    rows = [dict.fromkeys(DOCUMENT.names) | {"id": str(n), "text": "new", "kept": n > 0, "reasons": []} for n in (0, 1)]
    (data / "augment").mkdir()
    write_table(pa.Table.from_pylist(rows, GENERATED), data / "augment/part-a-0-00000.parquet")
    return data


def save(path: Path, frame: pl.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(frame.to_arrow(compat_level=pl.CompatLevel.oldest()), path)


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_kept_and_dropped_with_text_and_columns(data: Path, tmp_path: Path) -> None:
    said = export_documents("filter", tmp_path / "out", "jsonl", True, data)
    assert said == f"filter: 4 kept → {tmp_path}/out/kept.jsonl, 2 dropped → {tmp_path}/out/dropped.jsonl"
    kept, dropped = lines(tmp_path / "out/kept.jsonl"), lines(tmp_path / "out/dropped.jsonl")
    assert [row["text"] for row in kept] == TEXTS[:2] * 2
    assert [row["text"] for row in dropped] == ["third"] * 2
    assert dropped[0]["reasons"] == ["filter.ttr.min", "filter.n_chars.min"]
    assert dropped[0]["margins"] == [-1.5, None]
    assert kept[0]["url"] is None and kept[0]["lang"] == "en"
    assert "第一篇" in (tmp_path / "out/kept.jsonl").read_text("utf-8")


def test_parquet_has_the_same_rows(data: Path, tmp_path: Path) -> None:
    for form in ("jsonl", "parquet"):
        export_documents("filter", tmp_path / form, form, True, data)
    for name in ("kept", "dropped"):
        rows = pl.read_parquet(tmp_path / f"parquet/{name}.parquet").to_dicts()
        expected = lines(tmp_path / f"jsonl/{name}.jsonl")
        assert [row | {"lang_score": None} for row in rows] == [row | {"lang_score": None} for row in expected]


def test_stages_that_only_measure_give_all_rows(data: Path, tmp_path: Path) -> None:
    export_documents("measure", tmp_path / "out", "jsonl", False, data)
    rows = lines(tmp_path / "out/kept.jsonl")
    assert [(row["text"], row["ttr"]) for row in rows[:2]] == [(TEXTS[0], 0.5), ("second", 0.25)]
    assert len(rows) == 8
    with pytest.raises(UserError, match="measure drops no documents"):
        export_documents("measure", tmp_path / "other", "jsonl", True, data)
    assert not (tmp_path / "other").exists()


def test_clean_brings_the_pages_it_dropped_and_augment_its_own_documents(data: Path, tmp_path: Path) -> None:
    export_documents("clean", tmp_path / "clean", "parquet", True, data)
    assert pl.read_parquet(tmp_path / "clean/kept.parquet").height == 8
    assert pl.read_parquet(tmp_path / "clean/dropped.parquet")["id"].to_list() == ["gone-a", "gone-b"]
    export_documents("augment", tmp_path / "augment", "jsonl", True, data)
    assert [row["id"] for row in lines(tmp_path / "augment/kept.jsonl")] == ["1"]
    assert [row["id"] for row in lines(tmp_path / "augment/dropped.jsonl")] == ["0"]


def test_shard_gives_the_rows_of_all_splits(data: Path, tmp_path: Path) -> None:
    for split in ("test", "train"):
        save(data / "shard" / split / f"part-{split}-00000.parquet", pl.DataFrame({"id": [split], "text": ["x"]}))
    export_documents("shard", tmp_path / "out", "jsonl", False, data)
    assert [row["split"] for row in lines(tmp_path / "out/kept.jsonl")] == ["test", "train"]


def test_an_existing_folder_is_left_as_it_is(data: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(UserError, match="out is in use: name a new or empty folder"):
        export_documents("filter", tmp_path / "out", "jsonl", False, data)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
    with pytest.raises(UserError, match="split does not exist: build it with `dvc repro split`"):
        export_documents("split", tmp_path / "new", "jsonl", False, data)


def test_a_damaged_part_leaves_nothing_half_written(data: Path, tmp_path: Path) -> None:
    path = data / "filter/part-b-0-00000.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="is not a whole Parquet file"):
        export_documents("filter", tmp_path / "out", "parquet", False, data)
    assert list((tmp_path / "out").iterdir()) == []


def test_the_command_prints_one_line(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "filter", str(tmp_path / "out"), "--data", str(data)]) == 0
    assert capsys.readouterr().out == f"filter: 4 kept → {tmp_path}/out/kept.jsonl\n"
    assert main(["export", "filter", str(tmp_path / "out"), "--data", str(data)]) == 2
