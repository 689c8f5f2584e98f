"""Pairs that belong together, beside all pairs compared one by one; and 13-grams of test sets."""

import itertools
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.errors import UserError
from corpus.params import TestSet
from corpus.split import contamination, similar
from corpus.split.contamination import find_contaminated, grams_of, read_test_sets
from corpus.split.grams import expand, gram_table
from corpus.split.short import PAIRS, similar_short
from corpus.text.buffers import Texts

SETS = st.lists(st.sets(st.integers(0, 12), min_size=1, max_size=8), min_size=1, max_size=14)
WORDS = [f"w{number}" for number in range(400)]


def joined(count: int, pairs: list[tuple[int, int]]) -> set[frozenset[int]]:
    """The groups that pairs make, found by spreading labels until nothing changes."""
    label = list(range(count))
    changed = True
    while changed:
        changed = False
        for a, b in pairs:
            if label[a] != label[b]:
                label[a] = label[b] = min(label[a], label[b])
                changed = True
    return {frozenset(n for n in range(count) if label[n] == one) for one in label}


@given(SETS, st.sampled_from([0.3, 0.4, 0.5, 0.8, 1.0]))
def test_short_documents_are_joined_as_all_pairs_say(sets: list[set[int]], threshold: float) -> None:
    hashes = np.array([one for each in sets for one in sorted(each)], np.uint64)
    left, right = similar_short(hashes, np.cumsum([0, *map(len, sets)]), threshold)
    alike = [
        (a, b)
        for a, b in itertools.combinations(range(len(sets)), 2)
        if len(sets[a] & sets[b]) >= threshold * len(sets[a] | sets[b])
    ]
    assert sorted(zip(left.tolist(), right.tolist(), strict=True)) == alike


def test_of_a_large_family_the_pairs_are_bounded_and_all_are_joined() -> None:
    sets = [[1, 2, 3, 100 + number] for number in range(400)]
    left, right = similar_short(np.array(sets, np.uint64).ravel(), np.arange(401) * 4, 0.5)
    assert np.bincount(right).max() == PAIRS
    assert len(joined(400, list(zip(left.tolist(), right.tolist(), strict=True)))) == 1


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 6)), max_size=40, unique=True), st.integers(1, 7))
def test_a_table_finds_owners_as_a_dictionary_does(pairs: list[tuple[int, int]], most: int) -> None:
    spread = 0x9E3779B97F4A7C15
    hashes = np.array([gram * spread % 2**64 for gram, _ in pairs], np.uint64)
    table = gram_table(hashes, np.array([owner for _, owner in pairs], np.int64), most)
    wanted = np.array([gram * spread % 2**64 for gram in range(25)], np.uint64)
    at, places = table.find(wanted)
    index, owners = expand(table, places)
    found = sorted(zip(at[index].tolist(), owners.tolist(), strict=True))
    expected = {gram: sorted(owner for other, owner in pairs if other == gram)[:most] for gram in range(25)}
    assert found == [(gram, owner) for gram, all_owners in expected.items() for owner in all_owners]


def sharing(turns: list[list[int]], batches: list[int]) -> list[set[int]]:
    """The documents of each key that several have."""
    columns = pl.Series([[number] for number in range(len(turns))], dtype=pl.List(pl.UInt64))
    members = similar.having(columns, pl.Series(turns, dtype=pl.List(pl.UInt64)), pl.Series(batches))
    return [set(members.documents[members.keys == key].tolist()) for key in np.unique(members.keys)]


def test_turns_that_many_dialogues_share_connect_nothing() -> None:
    turns = [[1, 100 + number] for number in range(30)] + [[2, 200], [2, 201], [100]]
    assert sharing(turns, [0] * 33) == [{30, 31}, {0, 32}]


def test_a_turn_counts_by_the_dialogues_up_to_its_batch() -> None:
    assert sharing([[1]] * 4 + [[1]] * 20, [0] * 4 + [1] * 20) == [{0, 1, 2, 3}]


def test_a_turn_is_no_other_key() -> None:
    assert sharing([[1], [0]], [0, 0]) == []


def held(texts: list[str]) -> set[tuple[int, int]]:
    """The pairs that similar.holds finds among texts, in the way that the stage asks for them."""
    from corpus.split.traces import SKETCH

    hashes, owners = grams_of(Texts.of_strings(texts))
    sketches = [np.sort(hashes[owners == number])[:SKETCH] for number in range(len(texts))]
    sizes, counts = np.array([len(sketch) for sketch in sketches]), np.bincount(owners, minlength=len(texts))
    rank = similar.rank_of_owners(counts, np.zeros(len(texts)))
    table = gram_table(np.concatenate(sketches), np.repeat(np.arange(len(texts)), sizes), similar.OWNERS, rank)
    at, places = table.find(hashes)
    left, right = similar.holds(owners[at], places, table, sizes)
    return set(zip(left.tolist(), right.tolist(), strict=True))


def test_a_document_inside_another_is_found() -> None:
    inner, outer = " ".join(WORDS[100:140]), " ".join(WORDS)
    half = " ".join(WORDS[120:140] + [f"v{number}" for number in range(12)])
    tenth = " ".join(WORDS[120:140] + [f"u{number}" for number in range(100)])
    assert held([outer, inner, half, tenth, "nothing of this"]) == {(1, 0), (2, 0), (2, 1), (1, 3), (2, 3)} - {(1, 3)}


def test_of_a_large_family_all_lead_to_the_shortest() -> None:
    family = [" ".join(WORDS[:60] + [f"m{member}x{word}" for word in range(40)]) for member in range(40)]
    pairs = held(family)
    assert len(joined(40, list(pairs))) == 1
    assert len(pairs) <= similar.OWNERS * 40


def contaminated(texts: list[str], tests: list[str], batches: list[int] | None = None) -> list[int]:
    found, of = grams_of(Texts.of_strings(tests))
    table = gram_table(found, of)
    hashes, owners = grams_of(Texts.of_strings(texts))
    at, places = table.find(hashes)
    all_batches = np.array(batches or [0] * len(texts))
    return find_contaminated(owners[at], places, table, all_batches).documents.tolist()


def test_thirteen_words_of_a_test_set_are_found_and_twelve_are_not() -> None:
    test, other = " ".join(WORDS[:80]), "quite other words before and after"
    texts = [f"{other} {' '.join(WORDS[20 : 20 + words])} {other}" for words in (12, 13, 14)]
    assert contaminated([*texts, other, test.upper().replace(" ", ", ")], [test]) == [1, 2, 4]


def test_chinese_is_compared_by_characters() -> None:
    test = "增量备份只复制上次备份之后改变过的文件，因此比完整备份快得多。"
    quote = test[4:17]
    assert contaminated([f"他说：{quote}，然后走了。", f"他说：{test[4:16]}，然后走了。"], [test]) == [0]


def test_a_phrase_of_many_documents_is_none_of_the_test_set() -> None:
    phrase, rest = " ".join(WORDS[:13]), " ".join(WORDS[50:120])
    texts = [f"{phrase} and the words of document number {number}" for number in range(contamination.COMMON + 1)]
    assert contaminated(texts, [f"{phrase} {rest}"]) == []
    assert contaminated(texts[:-1], [f"{phrase} {rest}"]) == list(range(contamination.COMMON))
    assert contaminated([f"{phrase} {rest}"] * 20, [f"{phrase} {rest}"]) == list(range(20)), "who copies all must go"


def test_contamination_in_an_old_batch_does_not_depend_on_the_new_one() -> None:
    phrase, rest = " ".join(WORDS[:13]), " ".join(WORDS[50:120])
    texts = [f"{phrase} and the words of document number {number}" for number in range(20)]
    assert contaminated(texts, [f"{phrase} {rest}"], [0] * 5 + [1] * 15) == [0, 1, 2, 3, 4]


def test_a_short_test_row_is_found_only_as_a_whole() -> None:
    assert contaminated(["Who wrote it?", "He asked: who wrote it?", "who wrote IT"], ["Who wrote it?"]) == [0, 2]


# ---- reading test sets -----------------------------------------------------------------------------------------------


def test_rows_of_all_shapes_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"id": "one", "text": "Some text."}\n{"input": "Who?", "output": "Nobody knows."}\n', "utf-8"
    )
    pl.DataFrame({"question": ["How?", "Why?"], "choices": [["so", "thus"], ["since", "as"]]}).write_parquet(
        tmp_path / "b.parquet"
    )
    rows = read_test_sets(
        tmp_path / "none",
        {
            "a": TestSet(path=str(tmp_path / "a.jsonl")),
            "b": TestSet(path=str(tmp_path / "b.parquet"), kind="parquet", fields=["question", "choices"]),
        },
    )
    assert rows.sets == ["a", "a", "b", "b"]
    assert rows.ids[0] == "one"
    whole = "How?\nso\nthus"
    found, _ = grams_of(Texts.of_strings([whole]))
    assert np.isin(found, rows.table.hashes).all()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"text": "fine"}\n{"title": "no text"}\n', r"split\.test_sets\.mine: row 2 of .*: .*text.*`fields`"),
        (b"no json\n", r"split\.test_sets\.mine: row 1 of .*"),
        (b"", r"split\.test_sets\.mine: .* holds no row"),
        (b'{"text": "  "}\n', r"row 1 of"),
        (b'{"text": "fine"}\n{"text": "!!! ???"}\n', r"row 2 of .* has no word"),
    ],
)
def test_a_test_set_counts_whole_or_not_at_all(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "t.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=said):
        read_test_sets(tmp_path / "none", {"mine": TestSet(path=str(tmp_path / "t.jsonl"))})


def test_a_missing_test_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"split\.test_sets\.mine: .*gone.jsonl does not exist"):
        read_test_sets(tmp_path, {"mine": TestSet(path=str(tmp_path / "gone.jsonl"))})


def test_all_named_fields_are_guarded_whatever_their_order(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"question": "Who was it?", "text": "Once upon a time."}\n')
    for fields in (["question", "text"], ["text", "question"]):
        rows = read_test_sets(tmp_path / "none", {"mine": TestSet(path=str(tmp_path / "t.jsonl"), fields=fields)})
        assert rows.lengths == [7]


def test_a_set_cannot_take_the_name_of_a_pinned_one(tmp_path: Path) -> None:
    (tmp_path / "en.jsonl").write_text('{"text": "Once upon a time."}\n')
    with pytest.raises(UserError, match="pinned-en: a pinned set has this name"):
        read_test_sets(tmp_path, {"pinned-en": TestSet(path=str(tmp_path / "en.jsonl"))})


def test_a_table_without_the_field_is_named_as_a_test_set(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("title\nOnce upon a time.\n")
    with pytest.raises(UserError, match=r"split\.test_sets\.mine: row 1 of .*; name the `fields`"):
        read_test_sets(tmp_path / "none", {"mine": TestSet(path=str(tmp_path / "t.csv"), kind="csv")})
