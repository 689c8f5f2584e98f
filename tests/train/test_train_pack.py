"""Packing: every token once, documents apart, labels where they belong, and a control that has seen no test."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from datasets import load_from_disk
from hypothesis import given
from hypothesis import strategies as st
from tiny_project import again, built, dialogue, make_run, write_sources

import train.pack
from corpus.documents import to_arrow, write_table
from corpus.errors import UserError
from corpus.params import Pack
from corpus.stage import execute
from train.pack import IGNORED, Document, Piece, best_fit, copies, encode_dialogue, held_out_ids, pack_rows, read_shard


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def tokenizer(project: Path):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(project / "data" / "base")


def spelled_out(sizes: list[int], length: int) -> list[list[int]]:
    """Best fit decreasing as the books have it, looking at every bin."""
    bins: list[list[int]] = []
    for position in sorted(range(len(sizes)), key=lambda p: (-sizes[p], p)):
        left = [length - sum(sizes[p] for p in members) for members in bins]
        fitting = [space for space in left if space >= sizes[position]]
        if fitting:
            bins[max(n for n, space in enumerate(left) if space == min(fitting))].append(position)
        else:
            bins.append([position])
    return bins


@given(st.lists(st.integers(1, 20), max_size=60))
def test_best_fit_is_best_fit(sizes: list[int]):
    bins = best_fit(sizes, 20)
    assert sorted(position for members in bins for position in members) == list(range(len(sizes)))

    def filled(bins: list[list[int]]) -> list[list[int]]:
        return sorted(sorted(sizes[position] for position in members) for members in bins)

    assert len(bins) == len(spelled_out(sizes, 20))
    assert sorted(map(sum, filled(bins))) == sorted(map(sum, filled(spelled_out(sizes, 20))))


@given(st.lists(st.integers(1, 16), min_size=1, max_size=30))
def test_rows_hold_each_piece_whole_and_padding_that_teaches_nothing(sizes: list[int]):
    pieces = [Piece(str(n), np.full(size, n, np.int32), np.full(size, n, np.int32)) for n, size in enumerate(sizes)]
    found = {}
    for row in pack_rows(pieces, 16, padding=99).to_pylist():
        at = 0
        for document, size in zip(row["document_ids"], row["document_lengths"], strict=True):
            assert set(row["input_ids"][at : at + size]) == {int(document)} == set(row["labels"][at : at + size])
            assert row["position_ids"][at : at + size] == list(range(size))
            found[int(document)] = size
            at += size
        assert row["input_ids"][at:] == [99] * (16 - at) and set(row["labels"][at:]) <= {IGNORED}
        assert row["position_ids"][at:] == list(range(16 - at))
    assert found == dict(enumerate(sizes))


def test_the_packs_hold_the_shards(project: Path, tokenizer):
    for name in ("train", "validation"):
        rows = load_from_disk(str(project / "data" / "pack" / name))
        documents = {document.id: document for document in read_shard(project / "data" / "shard" / name)}
        tokens: dict[str, list[list[int]]] = {document: [] for document in documents}
        for row in rows:
            assert len(row["input_ids"]) == len(row["labels"]) == len(row["position_ids"]) == 64
            ends = np.cumsum(row["document_lengths"])
            for document, end, size in zip(row["document_ids"], ends, row["document_lengths"], strict=True):
                assert row["labels"][end - size] == IGNORED
                tokens[document].append(row["input_ids"][end - size : end])
        for document, pieces in tokens.items():
            # Cut pieces lie in any row: put them in the order in which the text has them.
            whole = tokenizer.decode([t for piece in pieces for t in piece], skip_special_tokens=True)
            if documents[document].messages is None:
                assert sorted(whole) == sorted(documents[document].text)


def test_of_a_dialogue_only_the_answer_is_learned(tokenizer):
    messages = [*dialogue(1), *dialogue(2)]
    tokens, labels = encode_dialogue(tokenizer, Document("d", "", "zh-Hans", messages))
    learned = tokenizer.decode(tokens[labels != IGNORED])
    assert learned == "".join(messages[n]["content"] + "<|eos|>" for n in (1, 3))
    assert (labels[labels != IGNORED] == tokens[labels != IGNORED]).all()


def test_a_template_that_marks_no_answer_is_refused(project: Path, tokenizer):
    import copy

    silent = copy.deepcopy(tokenizer)
    silent.chat_template = silent.chat_template.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    with pytest.raises(UserError, match=r"document d: .*base\.model has no {% generation %}"):
        encode_dialogue(silent, Document("d", "", "en", dialogue(1)))
    with pytest.raises(UserError, match=r"document d: .*drop it"):
        encode_dialogue(tokenizer, Document("d", "", "en", dialogue(1)[:1]))


def test_the_bytes_are_the_same_elsewhere_and_with_other_hash_seeds(project: Path, tmp_path: Path):
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path; from tiny_project import *\n"
        "execute(train.pack, again(make_run('pack', Path(sys.argv[2]), workers=2), Path(sys.argv[3]) / 'pack'))"
    )
    arguments = [str(Path(__file__).parent), str(project), str(tmp_path)]
    environment = {"PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", script, *arguments], check=True, env=environment)
    here = {path.relative_to(project / "data" / "pack"): path for path in (project / "data" / "pack").rglob("*.*")}
    for name, path in here.items():
        assert not path.is_file() or path.read_bytes() == (tmp_path / "pack" / name).read_bytes(), name


def test_golden_pack(project: Path):
    rows = [row for name in ("train", "control") for row in load_from_disk(str(project / "data" / "pack" / name))]
    digest = hashlib.sha256(repr(rows).encode()).hexdigest()[:16]
    assert digest == "33fee7c96cee8435", "meant? then raise VERSION in train/pack.py and put this digest here"


def test_the_control_is_as_long_as_train_and_has_seen_nothing_held_out(project: Path):
    import json

    metrics = json.loads((project / "reports" / "pack.json").read_text())
    assert metrics["rows"] == {"in": 27, "generated": 0, "kept": 27, "dropped": 0}
    assert metrics["control"]["tokens"] == metrics["train"]["tokens"] == sum(metrics["train"]["by_language"].values())
    split = pl.read_parquet(project / "data" / "split").filter(pl.col("split").is_in(["validation", "test"]))
    control = load_from_disk(str(project / "data" / "pack" / "control"))
    seen = {document for ids in control["document_ids"] for document in ids}
    assert seen and not seen & set(split["id"])
    assert any(document.endswith("05") for document in seen)  # what split never saw is in


def test_copies_of_held_out_documents_are_held_out(tmp_path: Path):
    write_sources(tmp_path)
    folder = tmp_path / "data" / "dedup"
    (folder / "edges").mkdir(parents=True)
    of = {"en-05": "en-11", "en-11": "en-03", "en-17": "en-00"}  # en-03 is in validation, en-00 in train
    write_table(to_arrow(pl.DataFrame({"id": [*of], "duplicate_of": [*of.values()]})), folder / "part-a.parquet")
    edges = pl.DataFrame({"id_a": ["en-04", "en-00"], "id_b": ["en-06", "en-01"], "similarity": [0.5, 0.5]})
    write_table(to_arrow(edges), folder / "edges" / "part-00000.parquet")
    held_out = held_out_ids(make_run("pack", tmp_path))
    assert {"en-03", "en-05", "en-11", "en-04", "en-06"} <= held_out
    assert not held_out & {"en-17", "en-00", "en-01"}


def test_chunks_of_a_document_come_together_again(tmp_path: Path):
    rows = {"id": ["b", "a", "b"], "text": ["two", "alone", "one "], "chunk": [1, 0, 0], "lang": ["en"] * 3}
    write_table(to_arrow(pl.DataFrame(rows)), tmp_path / "part-00000.parquet")
    assert [(d.id, d.text) for d in read_shard(tmp_path)] == [("a", "alone"), ("b", "one two")]


def test_the_mixture_repeats_and_leaves_out_with_a_reason(project: Path, tmp_path: Path):
    run = make_run("pack", project, None, "pack.mixture={en: 0.5, zh-Hans: 2}")
    metrics = execute(train.pack, again(run, tmp_path / "pack"))
    plain = execute(train.pack, again(make_run("pack", project), tmp_path / "plain"))
    assert metrics["train"]["by_language"]["zh-Hans"] == 2 * plain["train"]["by_language"]["zh-Hans"]
    taken = sum(copies(f"en-{number:02d}", "en", Pack(mixture={"en": 0.5})) for number in range(18) if number % 6 < 4)
    assert 0 < taken < 12 and metrics["rows"] == {"in": 27, "generated": 0, "kept": 15 + taken, "dropped": 12 - taken}
    assert metrics["dropped_by_reason"] == {"pack.mixture": 12 - taken}
    assert metrics["control"]["tokens"] == metrics["train"]["tokens"]


def test_refusals(project: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"pack\.length 128 is more than the 64 tokens"):
        execute(train.pack, make_run("pack", project, tmp_path / "out", "pack.length=128"))
    write_sources(tmp_path)
    with pytest.raises(UserError, match=r"base does not exist: run `train base`"):
        execute(train.pack, make_run("pack", tmp_path))
    shutil.copytree(project / "data" / "base", tmp_path / "data" / "base")
    (tmp_path / "data" / "shard" / "train" / "part-00000.parquet").unlink()
    with pytest.raises(UserError, match="holds no document to train on"):
        execute(train.pack, make_run("pack", tmp_path))


def test_a_corpus_without_validation_is_packed(project: Path, tmp_path: Path):
    write_sources(tmp_path)
    shutil.copytree(project / "data" / "base", tmp_path / "data" / "base")
    (tmp_path / "data" / "shard" / "validation" / "part-00000.parquet").unlink()
    assert execute(train.pack, make_run("pack", tmp_path))["validation"]["rows"] == 0
    assert len(load_from_disk(str(tmp_path / "data" / "pack" / "validation"))) == 0
