"""`--what-if` against two real runs, and what it prints."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from filter_project import LANGUAGES, ROWS, run_filter, write_project
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from corpus.cli import main
from corpus.errors import UserError
from corpus.filter import stage
from corpus.filter.profile import load_profile, profiles_of, rules_of
from corpus.filter.signals import limits_of, read_judged
from corpus.filter.what_if import check_changes, compare, what_if
from corpus.params import Params
from corpus.stage import Run, side_by_side

SHORTEST = f"{rules_of(load_profile('en', 'en'))['n_words'].min:g}"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("what-if")
    words = [5 if number % 40 == 3 else 100 + number % 10 for number in range(ROWS)]
    write_project(folder, n_words=words)
    return folder


def inputs(data: Path) -> tuple[Path, ...]:
    return tuple(data / folder for folder in stage.READS)


BOUND = st.one_of(
    st.none(),
    st.builds(lambda value: {"max": value}, st.floats(0, 500)),
    st.builds(lambda value: {"min": value}, st.floats(0, 500)),
    st.builds(lambda value: {"max_percentile": value}, st.integers(0, 100)),
    st.builds(lambda value: {"max_score": value}, st.floats(0, 4)),
    st.builds(lambda value: {"min_z": value}, st.floats(-3, 0)),
)
BOUNDS = st.dictionaries(
    st.sampled_from(LANGUAGES),
    st.dictionaries(st.sampled_from(["ppl", "n_words", "mattr"]), BOUND, max_size=2),
    max_size=2,
)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(BOUNDS, BOUNDS)
def test_it_is_the_difference_of_two_runs(data: Path, one: dict[str, Any], other: dict[str, Any]) -> None:
    params = [Params.model_validate({"filter": {"bounds": bounds}}) for bounds in (one, other)]
    try:
        profiles = [profiles_of(own.filter) for own in params]
    except UserError:  # a side contradicts the profile's other
        assume(False)
    old, new = (run_filter(data, *inputs(data), **p.filter.model_dump(exclude_unset=True)) for p in params)
    run = Run("filter", params[0], inputs(data), data / "nowhere", data=data, reports=None)
    parts = side_by_side(run)
    judged = read_judged(parts, *(p.filter for p in params))
    found = compare(judged.values, *(limits_of(judged, own, {})[0] for own in profiles))

    for result, metrics in (old, new):
        decided = result["kept"].drop_nulls()
        rows = {"in": len(decided), "generated": 0, "kept": decided.sum(), "dropped": (~decided).sum()}
        assert metrics["rows"] == rows and rows["in"] == 210
        assert sum(metrics["dropped_by_reason"].values()) == rows["dropped"]

    ids, lang = old[0]["id"].to_list(), judged.values["lang"].to_list()
    was, now = old[0]["kept"].to_list(), new[0]["kept"].to_list()
    moved = {(ids[row], move) for row, move in found.moved.select("row", "now").iter_rows()}
    expected = {(ids[n], "kept" if now[n] else "dropped") for n in range(ROWS) if was[n] != now[n]}
    assert moved == expected and found.moved.height == len(expected)

    for language, count, kept_before, kept_after, dropped, kept in found.languages.iter_rows():
        mine = [n for n in range(ROWS) if lang[n] == language and was[n] is not None]
        assert count == len(mine) == old[1]["languages"][language]["in"]
        assert kept_before == sum(bool(was[n]) for n in mine)
        assert kept_after == sum(bool(now[n]) for n in mine) == kept_before - dropped + kept

    failed = [
        Counter((lang[n], reason) for n, own in enumerate(result["reasons"]) for reason in own)
        for result in (old[0], new[0])
    ]
    for language, reason, *_, before, after, dropped, kept in found.rules.iter_rows():
        assert (before, after) == (failed[0][language, reason], failed[1][language, reason])
        rows = [n for n in range(ROWS) if lang[n] == language]
        assert dropped == sum(was[n] is True and reason in new[0]["reasons"][n] for n in rows)
        assert kept == sum(now[n] is True and reason in old[0]["reasons"][n] for n in rows)
    listed = {(language, reason) for language, reason, *_ in found.rules.iter_rows()}
    assert {key for key in failed[0] | failed[1] if failed[0][key] != failed[1][key]} <= listed


def ask(data: Path, *changes: str, everything: bool = False) -> str:
    check_changes(changes)
    run = Run("filter", Params(), inputs(data), data / "nowhere", data=data, reports=None)
    tree: dict[str, Any] = {}
    for change in changes:
        *keys, last = change.split("=")[0].split(".")
        node = tree
        for key in keys:
            node = node.setdefault(key, {})
        node[last] = json.loads(change.split("=")[1])
    return what_if(run, Params.model_validate(tree), changes, everything, 100)


def test_what_it_prints(data: Path) -> None:
    before, _ = run_filter(data, *inputs(data))
    after, _ = run_filter(data, *inputs(data), bounds={"en": {"n_words": {"min": 105}}})
    text = ask(data, "filter.bounds.en.n_words.min=105")
    newly = before.filter(pl.col("kept") & ~after["kept"])["id"]
    lines = text.splitlines()
    assert lines[0] == "filter.bounds.en.n_words.min=105"
    assert lines[2].split() == [
        "language",
        "judged",
        "kept",
        "before",
        "kept",
        "after",
        "newly",
        "dropped",
        "newly",
        "kept",
    ]
    assert ["en", "n_words.min", SHORTEST, "105"] in [line.split()[:4] for line in lines]
    shown = [line for line in lines if line.strip().startswith(tuple(one[:12] for one in newly))]
    assert f"10 of {len(newly)}" in text and len(shown) == 10
    values = [int(line.split()[3]) for line in shown]
    assert values[0] == 104 and values == sorted(values, reverse=True)  # the nearest first
    assert any("http://made.local/" in line for line in shown) and any("nobody reads this" in line for line in shown)
    assert "\x1b" not in text and max(map(len, lines)) <= 100
    assert not (data / "nowhere").exists()


def test_a_looser_bound_and_a_rule_that_goes(data: Path) -> None:
    text = ask(data, "filter.bounds.zh-Hans.n_words.min=4", "filter.bounds.zh-Hant.n_words=null")
    assert "Newly kept" in text and "Newly dropped" not in text
    assert ("没有人会读这段文字" in text) == any(number % 2 == 0 for number in range(3, ROWS, 40) if number % 3)
    moved = [
        line.split("\t") for line in ask(data, "filter.bounds.zh-Hans.n_words.min=4", everything=True).splitlines()
    ]
    kept = run_filter(data, *inputs(data))[0].filter(~pl.col("kept"))
    assert {row[1] for row in moved} < set(kept["id"])
    assert {tuple(row[:1] + row[2:]) for row in moved} == {("kept", "zh-Hans", "filter.n_words.min", "5.0", "4.0")}


def test_nothing_changes(data: Path) -> None:
    same = f"filter.bounds.en.n_words.min={SHORTEST}"
    assert ask(data, same).endswith("No bound changes.")
    assert ask(data, same, everything=True) == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("filter.bounds.en.ppl", "write it as key=value, for example filter.bounds.en.ppl.max=800"),
        ("dedup.threshold=0.5", "only filter's parameters"),
        ("bounds.en.ppl.max=5", "did you mean filter.bounds.en.ppl.max?"),
        ("fliter.bounds.en.ppl.max=5", "did you mean filter.bounds.en.ppl.max?"),
        ("filter.bounds.en.ppl.maxx=5", "did you mean filter.bounds.en.ppl.max?"),
        ("filter.bound.en.ppl.max=5", "did you mean filter.bounds?"),
        ("filter.bounds.en.pppl.max=5", "no input has a signal `pppl`: did you mean ppl?"),
        ("filter.bounds.zh-Hens.ppl.max=5", "did you mean zh-Hans?"),
        ("filter.profile.en=gofer", "did you mean gopher?"),
        ("filter.bounds.en.ppl.max=much", "filter.bounds.en.ppl.max"),
    ],
)
def test_mistakes_are_named(
    data: Path, change: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data)
    assert main(["filter", "--input", *map(str, inputs(data)), "--what-if", change]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and message in said


def test_on_the_command_line(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    given_inputs = ["filter", "--input", *map(str, inputs(data))]
    changes = ["--what-if", "filter.bounds.en.n_words.min=105", "--what-if", "filter.bounds.en.mattr=null"]
    assert main([*given_inputs, *changes]) == 0
    assert "mattr.min" in capsys.readouterr().out
    assert main([*given_inputs, *changes[:2], "--set", "filter.bounds.en.n_words.min=105", "--list"]) == 0
    assert capsys.readouterr().out == ""
    assert main([*given_inputs, *changes, "--output", "x"]) == 2
    assert "write nothing" in capsys.readouterr().err
    assert main([*given_inputs, "--list"]) == 2
    assert "add --what-if" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_language_whose_profile_is_missing_before_is_named(data: Path) -> None:
    run = Run(
        "filter", Params.model_validate({"filter": {"profile": {"en": "en", "zh-Hans": "zh-Hans"}}}), inputs(data), data
    )
    with pytest.raises(UserError, match=r"filter\.profile\.zh-Hant is missing"):
        what_if(run, Params(), ["filter.profile.zh-Hant=zh-Hant"])
