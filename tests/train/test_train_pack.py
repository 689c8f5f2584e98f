"""Packing: every token once, documents apart, labels where they belong, and a control that has seen no test."""

from __future__ import annotations

import copy
import hashlib
import json
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
from tiny_project import MESSAGE, again, built, dialogue, make_run, write_sources

import train.pack
from corpus.documents import to_arrow, write_table
from corpus.errors import UserError
from corpus.params import Pack
from corpus.stage import execute
from train.base import CHAT_TEMPLATE
from train.models import IGNORED
from train.pack import (
    Piece,
    UnfitError,
    best_fit,
    copies,
    encode_dialogue,
    first_tokens,
    held_out_ids,
    pack_rows,
    read_shard,
)


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
    """The pieces of each text, one after another, are its tokens: the full ones in their order, then the rest."""
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
        assert any(len(pieces) > 2 for pieces in tokens.values())
        for document, pieces in tokens.items():
            in_order = sorted(pieces, key=len, reverse=True)  # stable: full ones stand in the rows as they come
            if documents[document].messages is None:
                ids = tokenizer("<|bos|>" + documents[document].text + "<|eos|>", add_special_tokens=False)["input_ids"]
                cut = len(ids) - 1 if len(ids) % 64 == 1 else len(ids)  # a token alone teaches nothing
                assert [token for piece in in_order for token in piece] == ids[:cut]


PLAIN = (  # as most models have it: no mark of the answers, white space after each turn, and a system prompt of its own
    "{% if messages[0].role != 'system' %}{{ '<|bos|>system\nHelp.<|eos|>\n' }}{% endif %}"
    "{% for message in messages %}"
    "{% if loop.index0 % 2 != (message.role == 'assistant') %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{{ '<|bos|>' + message.role + '\n' + message.content | trim + '<|eos|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|bos|>assistant\n' }}{% endif %}"
)
FORGETFUL = "{% for message in messages[-2:] %}{{ message.content }}{% endfor %}"  # earlier turns are not in it


def with_template(tokenizer, template: str):
    other = copy.deepcopy(tokenizer)
    other.chat_template = template
    return other


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, PLAIN])
def test_of_a_dialogue_only_the_answer_is_learned(tokenizer, template: str):
    messages = [*dialogue(1), *dialogue(2)]
    tokens, labels = encode_dialogue(with_template(tokenizer, template), messages)
    learned = tokenizer.decode(tokens[labels != IGNORED])
    assert learned == "".join(messages[n]["content"] + "<|eos|>\n" for n in (1, 3))
    assert (labels[labels != IGNORED] == tokens[labels != IGNORED]).all()
    assert ("Help." in tokenizer.decode(tokens)) == (template == PLAIN)


def test_dialogues_that_teach_nothing_have_a_reason(tokenizer):
    two = [*dialogue(1), *dialogue(2)]
    for template, messages, reason in (
        (CHAT_TEMPLATE, two[:1], "pack.no_answer"),
        (CHAT_TEMPLATE, two[1:2], "pack.no_answer"),
        (PLAIN, two[1:], "pack.template"),
        (FORGETFUL, two, "pack.template"),
        ("{{ 1 + 'a' }}", two, "pack.template"),
    ):
        with pytest.raises(UnfitError, match=reason):
            encode_dialogue(with_template(tokenizer, template), messages)


def add_to_train(project: Path, *dialogues: list[dict[str, str]]) -> None:
    rows = {"id": [f"odd-{n}" for n in range(len(dialogues))], "text": "?", "lang": "en", "messages": [*dialogues]}
    frame = pl.DataFrame(rows, schema_overrides={"messages": MESSAGE})
    write_table(to_arrow(frame), project / "data" / "shard" / "train" / "part-00001.parquet")


def test_a_bad_dialogue_costs_no_good_one(project: Path, tmp_path: Path):
    write_sources(tmp_path)
    shutil.copytree(project / "data" / "base", tmp_path / "data" / "base")
    (tmp_path / "data" / "base" / "chat_template.jinja").write_text(PLAIN)
    long = [{"role": "user", "content": "why? " * 100}, {"role": "assistant", "content": "because"}]
    add_to_train(tmp_path, dialogue(1)[:1], dialogue(1)[:1] * 2 + dialogue(1)[1:], long)
    metrics = execute(train.pack, make_run("pack", tmp_path))
    assert metrics["rows"] == {"in": 30, "generated": 0, "kept": 28, "dropped": 2}
    assert metrics["dropped_by_reason"] == {"pack.no_answer": 1, "pack.template": 1}
    rows = load_from_disk(str(tmp_path / "data" / "pack" / "train"))
    assert all(any(label != IGNORED for label in labels) for labels in rows["labels"])
    assert sum("odd-2" in ids for ids in rows["document_ids"]) == 1  # of the long question only what ends in the answer


def test_a_shard_that_teaches_nothing_is_refused(project: Path, tmp_path: Path):
    write_sources(tmp_path)
    shutil.copytree(project / "data" / "base", tmp_path / "data" / "base")
    add_to_train(tmp_path, dialogue(1)[:1])
    (tmp_path / "data" / "shard" / "train" / "part-00000.parquet").unlink()
    with pytest.raises(UserError, match=r"holds nothing to learn: \{'pack.no_answer': 1\}"):
        execute(train.pack, make_run("pack", tmp_path))


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
    assert digest == "37db75b392c4e4a2", "meant? then raise VERSION in train/pack.py and put this digest here"


def test_the_control_is_as_long_as_train_and_has_seen_nothing_held_out(project: Path):
    metrics = json.loads((project / "reports" / "pack.json").read_text())
    assert metrics["rows"] == {"in": 27, "generated": 0, "kept": 27, "dropped": 0}
    assert metrics["control"]["by_language"] == metrics["train"]["by_language"]
    assert metrics["control"]["tokens"] == metrics["train"]["tokens"] == sum(metrics["train"]["by_language"].values())
    split = pl.read_parquet(project / "data" / "split").filter(pl.col("split").is_in(["validation", "test"]))
    control = load_from_disk(str(project / "data" / "pack" / "control"))
    seen = {document for ids in control["document_ids"] for document in ids}
    assert seen and not seen & set(split["id"])
    assert any(document.endswith("05") for document in seen)  # what split never saw is in


def test_the_first_tokens_of_each_language_are_taken():
    languages = {"a": "en", "b": "zh-Hans", "c": "en", "d": "de"}
    pieces = [Piece(document, np.arange(10, dtype=np.int32), np.arange(10, dtype=np.int32)) for document in "abcd"]
    pieces[2].labels[:7] = IGNORED  # the beginning of a question

    def taken(**tokens: int) -> list[tuple[str, int]]:
        chosen = first_tokens(pieces, {name.replace("_", "-"): n for name, n in tokens.items()}, languages)
        return [(piece.document, len(piece.tokens)) for piece in chosen]

    assert taken(en=18, zh_Hans=99) == [("a", 10), ("b", 10), ("c", 8)]
    assert taken(en=16, zh_Hans=3) == [("a", 10), ("b", 3)]  # six tokens of the question would teach nothing


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
