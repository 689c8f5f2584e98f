"""A wrong parameter is refused in one sentence that names the file, the key, the value and the cure."""

from pathlib import Path

import pytest

from corpus.errors import UserError
from corpus.params import Params, load


@pytest.mark.parametrize(
    ("yaml", "sentence"),
    [
        ("dedup: {treshold: 1}", "dedup.treshold is unknown: did you mean dedup.threshold?"),
        ("dudup: {}", "dudup is unknown: did you mean dedup?"),
        ("dedup: {threshold: high}", "dedup.threshold: input should be a valid number.*not 'high'"),
        ("sources: [{name: a, kind: site, strat: [x]}]", "did you mean sources.0.start"),
        ("filter: {bounds: {en: {ppl: {maxx: 1}}}}", "did you mean filter.bounds.en.ppl.max?"),
        ("sources: [{name: a, kind: ftp}]", "'ftp'.*'site', 'urls'"),
        ("sources: [{name: a/b, kind: text, path: x}]", "sources.0.name: string should match pattern"),
        ("split: {train: 0.5}", "sum to 0.8 instead of 1"),
        ("measure: {noise_pattern: '('}", "not a regular expression"),
        ("dedup: {threshold: 0.3}", "edge_threshold 0.4 is above threshold 0.3"),
        ("a: [", "is not YAML"),
        ("[]", "holds no sections"),
        ("scrape: {as_of: 2024-02-30}", "is not YAML: line 1, column 17: 2024-02-30 is no timestamp: put quotes"),
        ("workers: !!int ''", "is not YAML: line 1, column 10:  is no int"),
        ("clean: {max_mb: " + "9" * 5_000 + "}", "is not YAML: line 1, column 17: 9{40} is no int"),
        ('a: "\\U00110000"', "is not YAML: "),
        ("a: \0", "is not YAML: unacceptable character"),
        ("a: " + "[" * 1_500, "is not YAML: it is nested too deeply"),
        ("a: &a [*a]", r"is not YAML: line 1: an alias \(\*\) stands within what it repeats"),
    ],
)
def test_refusals(tmp_path: Path, yaml: str, sentence: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(yaml)
    with pytest.raises(UserError, match=sentence) as refusal:
        load(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("first", "next_"), [("[x]", "[{}]"), ("{x: y}", "{{<<: [{}]}}")])
def test_aliases_that_multiply_values_are_refused_before_they_fill_the_memory(
    tmp_path: Path, first: str, next_: str
) -> None:
    lines = [f"a{n}: &a{n} " + next_.format(", ".join([f"*a{n - 1}"] * 9)) for n in range(1, 12)]
    path = tmp_path / "params.yaml"
    path.write_text("\n".join([f"a0: &a0 {first}", *lines, "clean: *a11"]))
    with pytest.raises(UserError, match=r"its aliases \(\*\) repeat more than 100,000 values"):
        load(path)


def test_aliases_may_repeat_what_is_written_once(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("clean: {languages: &both [en, zh-Hans], language: {among: *both}}\nforget: {ids: [&a x, *a]}")
    params = load(path)
    assert params.clean.languages == params.clean.language.among == ["en", "zh-Hans"]
    assert params.forget.ids == ["x", "x"]


def test_two_sources_of_one_name(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    source = "{name: a, kind: text, path: x}"
    path.write_text(f"sources: [{source}, {source}]")
    with pytest.raises(UserError, match="two sources are called a with batch 0"):
        load(path)


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="corpus init"):
        load(tmp_path / "params.yaml")


def test_overrides(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("sources: [{name: a, kind: text, path: x}]")
    params = load(path, ["dedup.threshold=0.9", "filter.bounds.en.ppl.max=800", "sources.0.batch=3"])
    assert params.dedup.threshold == 0.9
    assert params.filter.bounds["en"]["ppl"].max == 800
    assert params.sources[0].batch == 3


@pytest.mark.parametrize(
    "override", ["dedup", "=1", "sources.7.batch=1", "dedup.threshold.x=1", "clean.pii=[", "a=1", "workers=!!int ''"]
)
def test_wrong_overrides(tmp_path: Path, override: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("dedup: {threshold: 0.7}")
    with pytest.raises(UserError):
        load(path, [override])


def test_defaults_need_no_file() -> None:
    assert load(None) == Params()
