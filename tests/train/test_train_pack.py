"""Packing: every token once, documents apart, labels where they belong, and a control that has seen no test."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from datasets import load_from_disk
from hypothesis import given
from hypothesis import strategies as st
from test_train_encode import FORGETFUL, PLAIN, REVIEWS
from tiny_project import MESSAGE, again, dialogue, make_run, with_base, write_sources
from transformers import AutoTokenizer

import train.pack
from corpus.documents import to_arrow, write_table
from corpus.errors import UserError
from corpus.params import Pack
from corpus.stage import Run, execute
from train.cli import main
from train.encode import Piece
from train.models import IGNORED
from train.pack import best_fit, pack_rows, plan_rows
from train.pieces import StoredPieces
from train.shards import copies, read_shard


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base from the project that all tests share, and packs of this module's own."""
    project = tmp_path_factory.mktemp("pack")
    write_sources(project)
    shutil.copytree(with_base(tmp_path_factory.getbasetemp()) / "data" / "base", project / "data" / "base")
    execute(train.pack, make_run("pack", project))
    return project


@pytest.fixture(scope="module")
def tokenizer(project: Path) -> Any:
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


def packed(sizes: list[int], length: int, padding: int) -> list[dict[str, Any]]:
    """Rows of pieces of these sizes, each of a document whose tokens are its number; made three rows at a time."""
    with tempfile.TemporaryDirectory() as folder:
        pieces = StoredPieces(Path(folder))
        for number, size in enumerate(sizes):
            pieces.add([Piece(str(number), "en", np.full(size, number, np.int32), np.arange(size) > 0)])
        rows = plan_rows(pieces, length, Path(folder))
        tables = [
            pack_rows(pieces, *rows.members(first, first + 3), length, padding) for first in range(0, len(rows), 3)
        ]
        return [row for table in tables for row in table.to_pylist()]


@given(st.lists(st.integers(1, 16), max_size=40))
def test_rows_are_those_of_best_fit_over_all_pieces(sizes: list[int]):
    members = [[int(document) for document in row["document_ids"]] for row in packed(sizes, 16, padding=0)]
    assert members == best_fit(sizes, 16)


@given(st.lists(st.integers(1, 16), min_size=1, max_size=30))
def test_rows_hold_each_piece_whole_and_padding_that_teaches_nothing(sizes: list[int]):
    found = {}
    for row in packed(sizes, 16, padding=99):
        at = 0
        for document, size in zip(row["document_ids"], row["document_lengths"], strict=True):
            assert set(row["input_ids"][at : at + size]) == {int(document)}
            assert row["labels"][at : at + size] == [IGNORED] + [int(document)] * (size - 1)
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
    assert (train.pack.VERSION, digest) == (6, "37db75b392c4e4a2"), "meant? then raise VERSION and put both here"


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


def test_the_first_tokens_of_each_language_are_taken(tmp_path: Path):
    languages = {"a": "en", "b": "zh-Hans", "c": "en", "d": "de"}
    pieces = [Piece(name, lang, np.arange(10, dtype=np.int32), np.ones(10, bool)) for name, lang in languages.items()]
    pieces[2].learned[:7] = False  # the beginning of a question

    def stored() -> StoredPieces:
        some = StoredPieces(tmp_path)
        for piece in pieces:
            some.add([piece])
        return some

    def taken(**tokens: int) -> list[tuple[str, list[int]]]:
        some = stored()
        some.keep_first_tokens({name.replace("_", "-"): n for name, n in tokens.items()})
        return [(piece.document, piece.tokens.tolist()) for piece in some.pieces()]

    ten = list(range(10))
    assert taken(en=18, zh_Hans=99) == [("a", ten), ("b", ten), ("c", ten[:8])]
    assert taken(en=16, zh_Hans=3) == [("a", ten), ("b", ten[:3])]  # six tokens of the question would teach nothing
    assert stored().tokens_by_language() == {"en": 20, "zh-Hans": 10, "de": 10}


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 9), st.integers(0, 8)), min_size=1, max_size=20),
    st.integers(0, 40),
    st.integers(0, 40),
    st.integers(1, 7),
)
def test_the_first_tokens_are_those_that_a_loop_takes(drawn: list[tuple[str, int, int]], a: int, b: int, at_once: int):
    left, expected = {"a": a, "b": b}, []
    pieces = []
    for number, (lang, size, unlearned) in enumerate(drawn):
        tokens, learned = np.arange(size) + 10 * number, np.arange(size) >= min(unlearned, size - 1)
        pieces.append(Piece(str(number), lang, tokens, learned))
        if learned[: left[lang]].any():
            expected.append((str(number), tokens[: left[lang]].tolist()))
            left[lang] -= len(expected[-1][1])
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(StoredPieces.blocks, "__defaults__", (at_once,))
        some = StoredPieces(Path(folder))
        for piece in pieces:
            some.add([piece])
        some.keep_first_tokens({"a": a, "b": b})
        assert [(piece.document, piece.tokens.tolist()) for piece in some.pieces()] == expected


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
    with pytest.raises(UserError, match="holds nothing to learn: no document"):
        execute(train.pack, make_run("pack", tmp_path))


def test_a_corpus_without_validation_is_packed(project: Path, tmp_path: Path):
    write_sources(tmp_path)
    shutil.copytree(project / "data" / "base", tmp_path / "data" / "base")
    (tmp_path / "data" / "shard" / "validation" / "part-00000.parquet").unlink()
    assert execute(train.pack, make_run("pack", tmp_path))["validation"]["rows"] == 0
    assert len(load_from_disk(str(tmp_path / "data" / "pack" / "validation"))) == 0


# ---- documents from outside the graph, tasks and general data --------------------------------------------------------


def write_lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def texts(first: int, number: int, **columns: str) -> list[dict[str, Any]]:
    return [{"text": f"the name of file {n} is read and closed", **columns} for n in range(first, first + number)]


def outside(project: Path, tmp_path: Path, source: Path, *overrides: str) -> Run:
    """A run as `train pack --input SOURCE --output …` in the project's folder makes it."""
    run = make_run("pack", project, tmp_path / "out", *overrides)
    return dataclasses.replace(run, inputs=(source,), reports=None)


def test_any_file_is_packed_without_the_graph(project: Path, tmp_path: Path):
    rows = [*texts(0, 6), {"instruction": "Open it", "output": "by its name"}, {"id": "bad"}, {"text": "  "}]
    metrics = execute(train.pack, outside(project, tmp_path, write_lines(tmp_path / "own.jsonl", *rows)))
    assert metrics["rows"] == {"in": 9, "generated": 0, "kept": 7, "dropped": 2}
    assert metrics["dropped_by_reason"] == {"pack.error.text": 1, "pack.no_answer": 1}
    assert metrics["train"]["documents"] == 7 and metrics["train"]["dialogues"] == 1 and "control" not in metrics
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == ["train", "validation"]
    dropped = pl.read_parquet(tmp_path / "out" / "dropped.parquet")
    assert dropped["detail"].str.starts_with("own.jsonl:8: text is missing").to_list() == [True, False]
    limited = dataclasses.replace(outside(project, tmp_path / "few", tmp_path / "own.jsonl"), limit=3)
    assert execute(train.pack, limited)["rows"]["in"] == 3


def test_the_command_packs_a_folder_of_shards(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for name, first in (("train", 0), ("validation", 10), ("test", 20)):
        write_lines(tmp_path / "shards" / name / "rows.jsonl", *texts(first, 5))
    monkeypatch.chdir(project)
    options = ["--input", str(tmp_path / "shards"), "--output", str(tmp_path / "packs"), "--set", "pack.length=32"]
    assert main(["pack", *options]) == 0
    assert "pack: 10 in, 10 kept, 0 dropped" in capsys.readouterr().out
    assert load_from_disk(str(tmp_path / "packs" / "validation")).num_rows > 0
    assert main(["pack", *options, "--input", str(tmp_path / "shards"), str(tmp_path / "more")]) == 2
    assert "one --input" in capsys.readouterr().err


def test_validation_shares_nothing_with_test(project: Path, tmp_path: Path):
    write_lines(tmp_path / "in" / "train.jsonl", *texts(0, 3))
    write_lines(tmp_path / "in" / "test.jsonl", {"id": "t", "text": "the same"}, {"id": "u", "text": "u"})
    validation = [{"id": "v", "text": "the  same"}, {"id": "u", "text": "other"}, {"id": "w", "text": "own"}]
    write_lines(tmp_path / "in" / "validation.jsonl", *validation, validation[2])
    with pytest.raises(UserError, match=r"^validation: 2 documents also stand in test, .*: v, u$"):
        execute(train.pack, outside(project, tmp_path, tmp_path / "in"))


def test_bad_rows_of_test_are_named_too(project: Path, tmp_path: Path):
    write_lines(tmp_path / "in" / "train.jsonl", *texts(0, 3))
    write_lines(tmp_path / "in" / "test.jsonl", {"id": "bad"}, {"id": "t", "text": "other"})
    metrics = execute(train.pack, outside(project, tmp_path, tmp_path / "in"))
    dropped = pl.read_parquet(tmp_path / "out" / "dropped.parquet")
    assert dropped.select("pack", "reason").rows() == [("test", "pack.error.text")]
    assert metrics["rows"] == {"in": 3, "generated": 0, "kept": 3, "dropped": 0}  # test is not packed


@pytest.mark.parametrize("place", ["validation", "test"])
def test_what_is_judged_on_must_not_stand_in_train(project: Path, tmp_path: Path, place: str):
    write_lines(tmp_path / "in" / "train.jsonl", *({"id": n, **row} for n, row in enumerate(texts(0, 9))))
    spaced = {"id": "other", "text": texts(3, 1)[0]["text"].replace(" ", "\n ")}
    shared = write_lines(tmp_path / "in" / f"{place}.jsonl", *texts(50, 3), spaced, {"id": 5, "text": "another text"})
    with pytest.raises(UserError, match=r"^train: 2 documents also stand in validation or test.*: 3, 5$"):
        execute(train.pack, outside(project, tmp_path, tmp_path / "in"))
    write_lines(shared, *({"id": n, "text": f"{n}"} for n in range(9)))
    with pytest.raises(UserError, match=r"^train: 9 documents .*: 0, 1, 2, 3, 4, …$"):
        execute(train.pack, outside(project, tmp_path, tmp_path / "in"))
    write_lines(tmp_path / "in" / "train.jsonl", *texts(80, 3))
    mixed = f"finetune.mix={{wiki: {{path: {shared}, weight: 0.5}}}}"
    with pytest.raises(UserError, match=r"^mix/wiki: 9 documents also stand in validation or test"):
        execute(train.pack, outside(project, tmp_path, tmp_path / "in", mixed))
    assert not (tmp_path / "out").exists()


def test_general_data_is_packed_with_its_lineage(project: Path, tmp_path: Path):
    source = write_lines(tmp_path / "wiki.jsonl", *texts(0, 8, lang="en"), {"id": "bad"})

    def packed(name: str, *overrides: str) -> dict[str, Any]:
        mixed = f"finetune.mix={{wiki: {{path: {source}, weight: 0.1}}}}"
        return execute(train.pack, again(make_run("pack", project, None, mixed, *overrides), tmp_path / name))

    plain, mixture = packed("plain"), packed("mixture", "pack.mixture={en: 0}")
    wiki = plain["mix"]["wiki"]
    assert wiki == mixture["mix"]["wiki"]  # its part of the rows is its weight, not pack.mixture's
    assert wiki["path"] == str(source) and wiki["documents"] == 8
    assert wiki["dropped_by_reason"] == {"pack.error.text": 1}
    rows = load_from_disk(str(tmp_path / "plain" / "mix" / "wiki"))
    assert len(rows) == wiki["rows"] and sum(map(sum, rows["document_lengths"])) == wiki["tokens"]
    assert plain["rows"] == {"in": 27, "generated": 0, "kept": 27, "dropped": 0}
    write_lines(source, *texts(1, 8, lang="en"))
    assert packed("changed")["mix"]["wiki"]["fingerprint"] != wiki["fingerprint"]
    write_lines(source, {"id": "bad"})
    with pytest.raises(UserError, match=r"wiki\.jsonl holds nothing to learn: \{'pack.error.text': 1\}"):
        packed("empty")


def test_tasks_are_packed_and_labels_without_an_answer_dropped(project: Path, tmp_path: Path):
    (tmp_path / "reviews.yaml").write_text(REVIEWS, "utf-8")
    rows = [{"text": f"很好 {n}", "label": n % 3, "source": "reviews"} for n in range(9)]
    source = write_lines(tmp_path / "reviews.jsonl", *rows, *texts(0, 2))
    run = outside(project, tmp_path, source, f"pack.templates=[{tmp_path / 'reviews.yaml'}]", "pack.length=32")
    metrics = execute(train.pack, run)
    assert metrics["dropped_by_reason"] == {"pack.template": 3} and metrics["rows"]["kept"] == 8
    assert metrics["train"]["templates"] == {str(tmp_path / "reviews.yaml"): 6}
    answers = []
    tokenizer = AutoTokenizer.from_pretrained(project / "data" / "base")
    for row in load_from_disk(str(tmp_path / "out" / "train")):
        learned = [label for label in row["labels"] if label != IGNORED]
        answers += [answer for answer in ("好评", "差评") for _ in range(tokenizer.decode(learned).count(answer))]
    assert sorted(answers) == ["好评"] * 3 + ["差评"] * 3


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (FORGETFUL, "shows no answer in any of them"),
        ("{{ messages[0].content }}", "shows no answer in any of them"),
        (
            "{% if not add_generation_prompt %}{{ messages[-1].content }}{% endif %}",
            "shows nothing but answers in them",
        ),
    ],
)
def test_a_chat_template_that_hides_or_is_all_answer_is_named(project: Path, tmp_path: Path, template: str, said: str):
    source = write_lines(tmp_path / "in.jsonl", *({"messages": [*dialogue(n), *dialogue(n + 1)][:4]} for n in range(3)))
    if "[-1]" in template:
        source = write_lines(tmp_path / "in.jsonl", *({"messages": dialogue(n)} for n in range(3)))
    path = tmp_path / "chat.jinja"
    path.write_text(template)
    with pytest.raises(UserError, match=rf"pack\.chat_template {path}, of 3 dialogues, {said}"):
        execute(train.pack, outside(project, tmp_path, source, f"pack.chat_template={path}"))
    base = shutil.copytree(project / "data" / "base", tmp_path / "data" / "base")
    (base / "chat_template.jinja").write_text(template)
    run = dataclasses.replace(outside(project, tmp_path, source), data=tmp_path / "data")
    with pytest.raises(UserError, match=f"the template of tiny, of 3 dialogues, {said}"):
        execute(train.pack, run)
    everything = dataclasses.replace(outside(project, tmp_path, source, "pack.loss_on=all"), data=tmp_path / "data")
    assert execute(train.pack, everything)["rows"]["kept"] == 3  # then a template may show what it likes


@pytest.mark.parametrize(("removed", "padding"), [(["pad_token"], "<|eos|>"), (["pad_token", "eos_token"], None)])
def test_a_tokenizer_without_padding(project: Path, tmp_path: Path, removed: list[str], padding: str | None):
    base = shutil.copytree(project / "data" / "base", tmp_path / "data" / "base")
    config = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps({k: v for k, v in config.items() if k not in removed}))
    source = write_lines(tmp_path / "in.jsonl", *texts(0, 3))
    execute(train.pack, dataclasses.replace(outside(project, tmp_path, source), data=tmp_path / "data"))
    last = load_from_disk(str(tmp_path / "out" / "train"))[-1]
    used = sum(last["document_lengths"])
    expected = AutoTokenizer.from_pretrained(base).convert_tokens_to_ids(padding) if padding else 0
    assert set(last["input_ids"][used:]) == {expected} and set(last["labels"][used:]) == {IGNORED}


def test_pieces_in_a_file_are_the_pieces_that_were_put_there(tmp_path: Path):
    pieces = [Piece(str(n), "en", np.arange(n, dtype=np.int32), np.arange(n) % 2 > 0) for n in range(1, 6)]
    stored = StoredPieces(tmp_path)
    assert len(stored) == 0 and list(stored.pieces()) == []
    for piece in pieces[:2]:
        stored.add([piece])
    several = [piece._replace(document="several") for piece in pieces[2:]]
    assert stored.add(several, times=2) == range(2, 5)
    expected = [*pieces[:2], *several, *several]
    assert [(p.document, p.lang, p.tokens.tolist(), p.learned.tolist()) for p in stored.pieces()] == [
        (p.document, p.lang, p.tokens.tolist(), p.learned.tolist()) for p in expected
    ]
    assert stored.tokens_by_document().tolist() == [1, 2, 24]
    stored.reorder([range(4, 5), range(2)])
    assert [len(piece.tokens) for piece in stored.pieces()] == [5, 1, 2] and len(stored) == 3
    assert list(tmp_path.iterdir()) == []
