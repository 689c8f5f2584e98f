"""Reading documents in whatever shape and place, and keeping train apart from what it is judged on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tiny_project import dialogue, make_run, write_sources

from corpus.documents import document_id, to_arrow, write_table
from corpus.errors import UserError
from train.shards import Document, Tally, contaminated_ids, find_shards, held_out_ids, read_shard, traces


def write_lines(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return path


def test_rows_of_all_usual_shapes_are_documents(tmp_path: Path):
    asked = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    rows = [
        {"id": 7, "text": "plain", "lang": "en", "label": 1, "source": "reviews", "title": "T", "stars": 5},
        {"text": "no id", "label": True},
        {"messages": asked},
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
        {"instruction": "Hi", "input": "", "output": "Hello"},
        {"prompt": "Hi", "completion": "Hello"},
        {"id": "", "question": "Hi", "answer": "Hello", "label": "2"},
    ]
    found = list(read_shard(write_lines(tmp_path / "rows.jsonl", *rows)))
    assert found[0] == Document("7", "plain", "en", None, "1", "reviews", "T")
    assert found[1] == Document(document_id(json.dumps(rows[1])), "no id", label="true")
    assert [document.messages for document in found[2:]] == [asked] * 5
    assert {document.text for document in found[2:]} == {"user: Hi\nassistant: Hello"}
    assert found[6].label == "2" and len({document.id for document in found}) == 7


def test_the_same_rows_in_parquet_json_and_zstandard_are_the_same_documents(tmp_path: Path):
    rows = [{"id": str(n), "text": f"text {n}", "label": n} for n in range(5)]
    expected = list(read_shard(write_lines(tmp_path / "a.jsonl", *rows)))
    (tmp_path / "a.json").write_text(json.dumps(rows))
    write_table(to_arrow(pl.DataFrame(rows)), tmp_path / "a.parquet")
    assert list(read_shard(tmp_path / "a.json")) == list(read_shard(tmp_path / "a.parquet")) == expected
    (tmp_path / "a.json").unlink()
    with pytest.raises(UserError, match=r"holds Parquet, which is read, and a\.jsonl beside it"):
        list(read_shard(tmp_path))
    for name in ("text", "instruct"):  # the same rows once more, as `corpus shard` writes them
        write_lines(tmp_path / f"{name}.jsonl", *rows)
    (tmp_path / "a.jsonl").unlink()
    assert list(read_shard(tmp_path)) == expected


def test_bad_rows_cost_no_good_ones(tmp_path: Path):
    rows = [{"id": "a", "text": "good"}, "{broken", {"id": "b"}, {"id": "c", "messages": [{"role": "cat"}]}, "[1]"]
    html, last = {"id": "d", "html": "<p>x</p>"}, {"id": "e", "text": "good", "messages": None}
    tally = Tally()
    path = write_lines(tmp_path / "rows.jsonl", *rows, html, {"id": "f", "text": 5}, last)
    assert [document.id for document in read_shard(path, tally)] == ["a", "e"]
    assert tally.rows == 6  # the documents are counted where they are packed
    assert tally.reasons() == {
        "pack.error.json": 2,
        "pack.error.text": 2,
        "pack.error.messages": 1,
        "pack.error.page": 1,
    }
    assert [row.detail[:12] for row in tally.dropped[:2]] == ["rows.jsonl:2", "rows.jsonl:3"]


def test_half_a_character_in_a_column_costs_its_row_alone(tmp_path: Path):
    rows = [{"text": f"text {name}", name: "\ud800"} for name in ("id", "label", "source", "title", "lang")]
    tally = Tally()
    found = list(read_shard(write_lines(tmp_path / "rows.jsonl", *rows), tally))
    assert [document.text for document in found] == ["text title", "text lang"]
    assert tally.reasons() == {"pack.error.encoding": 3} and tally.rows == 3
    assert all(row.id.encode() and row.detail.encode() for row in tally.dropped)


def test_labels_are_named_as_templates_name_them(tmp_path: Path):
    labels = [1, 1.0, 0.5, True, "good", None, ["a"]]
    rows = [{"text": "x", "label": label, "n": n} for n, label in enumerate(labels)]
    found = [document.label for document in read_shard(write_lines(tmp_path / "rows.jsonl", *rows))]
    assert found == ["1", "1", "0.5", "true", "good", None, '["a"]']


def test_an_empty_or_missing_shard(tmp_path: Path):
    (tmp_path / "train").mkdir()
    assert list(read_shard(tmp_path / "train")) == []
    assert list(read_shard(write_lines(tmp_path / "empty.jsonl"))) == []
    write_table(to_arrow(pl.DataFrame(schema={"id": pl.String, "text": pl.String})), tmp_path / "none.parquet")
    assert list(read_shard(tmp_path / "none.parquet")) == []
    with pytest.raises(UserError, match="does not exist"):
        list(read_shard(tmp_path / "nowhere"))
    (tmp_path / "a.csv").write_text("text\nx\n")
    with pytest.raises(UserError, match=r"a\.csv is neither Parquet nor JSONL"):
        list(read_shard(tmp_path / "a.csv"))
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(UserError, match=r"torn\.parquet is not a whole Parquet"):
        list(read_shard(tmp_path / "torn.parquet"))


def test_dropped_rows_of_clean_are_no_documents(tmp_path: Path):
    for name in ("part-a-0-00000", "dropped-a-0-00000"):
        write_table(to_arrow(pl.DataFrame({"id": [name], "text": ["x"]})), tmp_path / f"{name}.parquet")
    assert [document.id for document in read_shard(tmp_path)] == ["part-a-0-00000"]


def test_chunks_of_a_document_come_together_again(tmp_path: Path):
    rows = {"id": ["b", "b", "b", "a", "a"], "text": ["one ", "two ", "3", "x", "y"], "chunk": [0, 1, 2, 0, 0]}
    write_table(to_arrow(pl.DataFrame(rows)), tmp_path / "part-00000.parquet")
    assert [(d.id, d.text) for d in read_shard(tmp_path)] == [("b", "one two 3"), ("a", "x"), ("a", "y")]


def test_shards_are_folders_or_files(tmp_path: Path):
    lines = write_lines(tmp_path / "plain" / "any.jsonl", {"text": "x"})
    assert find_shards(lines) == {"train": lines} and find_shards(lines.parent) == {"train": lines.parent}
    write_lines(tmp_path / "files" / "train.jsonl")
    write_lines(tmp_path / "files" / "test.jsonl")
    assert find_shards(tmp_path / "files") == {n: tmp_path / "files" / f"{n}.jsonl" for n in ("train", "test")}
    write_lines(tmp_path / "folders" / "train" / "a.jsonl")
    assert find_shards(tmp_path / "folders") == {"train": tmp_path / "folders" / "train"}
    hub = write_lines(tmp_path / "hub" / "train-00000-of-00002.jsonl")
    assert find_shards(tmp_path / "hub") == {"train": hub}
    write_lines(tmp_path / "hub" / "train-00001-of-00002.jsonl")
    with pytest.raises(UserError, match=r"hub holds train-00000.*, train-00001.*: name a folder of one train"):
        find_shards(tmp_path / "hub")
    write_lines(tmp_path / "files" / "README.md")
    write_lines(tmp_path / "files" / "dataset_info.json")
    for more in ("more.jsonl", "valid/a.jsonl"):
        write_lines(tmp_path / "files" / more)
    with pytest.raises(UserError, match=r"files holds more\.jsonl, valid, test\.jsonl, train\.jsonl: name"):
        find_shards(tmp_path / "files")
    write_lines(tmp_path / "untrained" / "test" / "a.jsonl")
    with pytest.raises(UserError, match=r"holds test: .* of which train is needed"):
        find_shards(tmp_path / "untrained")
    with pytest.raises(UserError, match="does not exist"):
        find_shards(tmp_path / "nowhere")


def test_documents_are_known_again_by_id_and_by_what_they_say():
    one = traces(Document("a", "x  y"))
    assert one & traces(Document("b", " x\ny ")) and one & traces(Document("a", "other"))
    assert not one & traces(Document("b", "xy"))
    assert traces(Document("a", " \n")) == {"a"}  # nothing is in every empty document
    # A dialogue says what its messages say, whatever stands beside them.
    said = [traces(Document(name, name, messages=dialogue(1))) for name in "ab"]
    assert said[0] & said[1] and not said[0] & traces(Document("c", "a", messages=dialogue(2)))


def test_copies_of_held_out_documents_are_held_out(tmp_path: Path):
    write_sources(tmp_path)
    folder = tmp_path / "data" / "dedup"
    (folder / "edges").mkdir(parents=True)
    of = {"en-05": "en-11", "en-11": "en-03", "en-17": "en-00"}  # en-03 is in validation, en-00 in train
    write_table(to_arrow(pl.DataFrame({"id": [*of], "duplicate_of": [*of.values()]})), folder / "part-a.parquet")
    edges = pl.DataFrame({"id_a": ["en-04", "en-00"], "id_b": ["en-06", "en-01"], "similarity": [0.5, 0.5]})
    write_table(to_arrow(edges), folder / "edges" / "part-00000.parquet")
    split = pl.read_parquet(tmp_path / "data" / "split" / "*.parquet")
    dropped = split.with_columns(kept=pl.col("kept") & (pl.col("id") != "en-02"))
    write_table(to_arrow(dropped), next((tmp_path / "data" / "split").glob("*.parquet")))
    held_out = held_out_ids(make_run("pack", tmp_path))
    assert {"en-02", "en-03", "en-05", "en-11", "en-04", "en-06"} <= held_out
    assert not held_out & {"en-17", "en-00", "en-01"}


def test_an_unfiltered_document_with_words_of_a_test_set_is_no_control(tmp_path: Path):
    write_sources(tmp_path)
    run = make_run("pack", tmp_path)
    secret = " ".join(f"word{letter}" for letter in "abcdefghijklmnopqrst")
    with (tmp_path / "data" / "evaluation" / "exam.jsonl").open("w", encoding="utf-8") as file:
        file.write(json.dumps({"id": "1", "text": secret}) + "\n")
    assert contaminated_ids(run) == set()
    (path,) = (tmp_path / "data" / "clean").glob("*.parquet")
    frame = pl.read_parquet(path)
    dropped = pl.read_parquet(next((tmp_path / "data" / "split").glob("*.parquet"))).filter(pl.col("split").is_null())
    planted = dropped["id"][0]
    texts = pl.when(pl.col("id") == planted).then(pl.lit(f"first {secret} last")).otherwise("text")
    write_table(to_arrow(frame.with_columns(text=texts)), path)
    assert contaminated_ids(run) == {planted}
