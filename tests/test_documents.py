"""Parts and annotations: whole or absent, side by side or refused."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.documents import aligned_batches, document_id, list_parts, read, to_arrow, write_table
from corpus.errors import StageError, UserError


@given(st.text(), st.text())
def test_ids_are_128_bit_hex_and_differ(one: str, other: str) -> None:
    assert len(document_id(one)) == 32
    assert set(document_id(one)) <= set("0123456789abcdef")
    assert (document_id(one) == document_id(other)) == (one == other)


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    table = to_arrow(pl.DataFrame({"id": [str(n) for n in range(3000)], "n": range(3000)}))
    write_table(table, tmp_path / "a.parquet")
    write_table(table.slice(0, 1500).combine_chunks(), tmp_path / "other.parquet")
    write_table(pa.concat_tables([table.slice(0, 1500), table.slice(1500)]), tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_batches_side_by_side_take_the_last_column_of_a_name(tmp_path: Path) -> None:
    ids = [f"{n:04}" for n in range(2500)]
    write_table(to_arrow(pl.DataFrame({"id": ids, "text": "t", "kept": None})), tmp_path / "documents.parquet")
    write_table(to_arrow(pl.DataFrame({"id": ids, "kept": [True] * 2500})), tmp_path / "annotation.parquet")
    batches = list(aligned_batches([tmp_path / "documents.parquet", tmp_path / "annotation.parquet"]))
    assert [batch.height for batch in batches] == [1000, 1000, 500]
    assert pl.concat(batches)["kept"].all()
    assert pl.concat(batches)["id"].to_list() == ids


@pytest.mark.parametrize("ids", [["a", "b", "c"], ["b", "a"]])
def test_an_annotation_of_other_documents_is_refused(tmp_path: Path, ids: list[str]) -> None:
    write_table(to_arrow(pl.DataFrame({"id": ["a", "b"]})), tmp_path / "documents.parquet")
    write_table(to_arrow(pl.DataFrame({"id": ids})), tmp_path / "annotation.parquet")
    with pytest.raises(StageError, match="build it again"):
        list(aligned_batches([tmp_path / "documents.parquet", tmp_path / "annotation.parquet"]))


def test_a_truncated_file_is_named(tmp_path: Path, write_documents: Callable[..., Path]) -> None:
    path = write_documents(tmp_path / "part.parquet", ["text"] * 10)
    for damaged in (path.read_bytes()[:-20], b"PAR1" + bytes(20) + b"PAR1"):  # of the second Arrow says two lines
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"part\.parquet is not a whole Parquet file") as refusal:
            list(aligned_batches([path]))
        assert "\n" not in str(refusal.value)


def test_a_file_damaged_in_its_middle_is_named(tmp_path: Path, write_documents: Callable[..., Path]) -> None:
    path = write_documents(tmp_path / "part.parquet", [f"text {number}" * 50 for number in range(500)])
    data = bytearray(path.read_bytes())
    data[200:1500] = bytes(1300)
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"part\.parquet is not a whole Parquet file"):
        list(aligned_batches([path]))


def test_folders_without_parts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        list_parts(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no Parquet file"):
        list_parts(tmp_path)


def test_read_zips_documents_with_decisions(tmp_path: Path, write_documents: Callable[..., Path]) -> None:
    path = write_documents(tmp_path / "clean" / "part-a-0-00000.parquet", ["one", "two", "three"])
    ids = pl.read_parquet(path)["id"]
    (tmp_path / "filter").mkdir()
    decisions = pl.DataFrame({"id": ids, "kept": [True, False, None]})
    write_table(to_arrow(decisions), tmp_path / "filter" / path.name)
    assert read("filter", kept=True, data=tmp_path)["text"].to_list() == ["one"]
    assert read("filter", kept=False, data=tmp_path)["text"].to_list() == ["two"]
    assert read("filter", data=tmp_path, columns=["text"]).columns == ["id", "text", "kept"]
