"""The profiles on real text: broken pages go, sound ones stay."""

import json
from pathlib import Path
from pydoc_data.topics import topics

import polars as pl
import pytest
from bs4 import BeautifulSoup

from corpus.errors import UserError
from corpus.filter.bounds import resolve
from corpus.filter.decide import decide
from corpus.filter.profile import FOLDER, Rule, check_signals, load_profile, override, profiles_of, rules_of
from corpus.measure.stage import measure
from corpus.params import Bound, Filter, Measure

SAMPLE = Path(__file__).parents[2] / "data" / "sample"
BROKEN = {
    "old/backup-strategy.html",  # mojibake
    "old/forum-archive.html",  # replacement characters
    "old/empty.html",
    "old/links.html",
    "news/promo.html",
    "news/keywords.html",
    "partner/benchmark.html",  # numbers
}


def article(path: Path) -> str:
    """The text of a sample page's article, a line a block."""
    body = path.read_bytes()
    try:
        html = body.decode("utf-8")
    except UnicodeDecodeError:
        html = body.decode("gb18030")
    soup = BeautifulSoup(html, "lxml")
    for element in soup(["nav", "header", "footer", "script", "style", "aside"]):
        element.decompose()
    return (soup.find("article") or soup.find("main") or soup).get_text("\n", strip=True)


def reasons(language: str, texts: dict[str, str]) -> dict[str, list[str]]:
    """What the profile of a language says against each text."""
    documents = pl.DataFrame({"id": list(texts), "text": list(texts.values()), "lang": [language] * len(texts)})
    rules = rules_of(load_profile(language, language))
    signals = measure(documents, Measure()).with_columns(pl.lit(language).alias("lang"), pl.lit(True).alias("kept"))
    # What other stages measure passes.
    signals = signals.with_columns(
        pl.lit(None, pl.Float64).alias(name) for name in rules if name not in signals.columns
    )
    limits, _ = resolve(language, rules, signals, {})
    return dict(decide(signals, {language: limits}).select("id", "reasons").rows())


def test_broken_chinese_pages_go_and_sound_ones_stay() -> None:
    site = SAMPLE / "site"
    pages = {str(path.relative_to(site)): article(path) for path in site.rglob("*.html") if "-en" not in path.name}
    found = reasons("zh-Hans", pages)
    assert {page for page, why in found.items() if why} - {"partner/404.html"} == BROKEN
    assert "filter.noise_ratio.max" in found["old/forum-archive.html"]
    assert "filter.digit_ratio.max" in found["partner/benchmark.html"]


@pytest.mark.parametrize("language", ["zh-Hans", "zh-Hant"])
def test_traditional_pages_stay_under_both_chinese_profiles(language: str) -> None:
    pages = {path.name: article(path) for path in (SAMPLE / "site" / "partner").glob("tw-*.html")}
    assert list(reasons(language, pages).values()) == [[], []]


def test_python_s_language_reference_stays() -> None:
    assert {name: why for name, why in reasons("en", topics).items() if why} == {}


def test_short_dialogues_stay() -> None:
    rows = [json.loads(line) for line in (SAMPLE / "dialogues.jsonl").read_text("utf-8").splitlines()]
    for language in ("en", "zh-Hans"):
        texts = {str(n): f"{row['input']}\n{row['output']}" for n, row in enumerate(rows) if row["lang"] == language}
        assert len(texts) >= 20
        assert not any(reasons(language, texts).values())


BROKEN_ENGLISH = {
    "empty": "",
    "a word": "hello",
    "links": "Home Products Downloads Pricing Login Careers Blog Press Imprint Sitemap Contact " * 5,
    "numbers": "12.50 13.75 99.10 " * 40 + "the sum of it is in the last of the rows and that is all",
    "shouting": "BUY NOW AND SAVE THE MOST ON ALL OF THE BEST DEALS THAT YOU CAN FIND IN THIS OR ANY OTHER SHOP " * 3,
    "repeated": "the best of the best is the best and " * 30,
    "chinese": "增量备份只保存上次备份以后改动过的文件，所以很快。" * 5,
}


@pytest.mark.parametrize("name", BROKEN_ENGLISH)
def test_broken_english_goes(name: str) -> None:
    assert reasons("en", {name: BROKEN_ENGLISH[name]})[name] != []


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_bound_says_where_it_comes_from(path: Path) -> None:
    profile = load_profile(path.stem, path.stem)
    assert profile.about
    for rule in rules_of(profile).values():
        assert len(rule.why) > 20


def test_both_chinese_profiles_have_the_same_bounds() -> None:
    assert load_profile("zh-Hans", "zh-Hans").rules == load_profile("zh-Hant", "zh-Hant").rules


def test_an_unknown_profile_lists_those_there_are() -> None:
    with pytest.raises(
        UserError, match=r"filter.profile.zh-Hans: .*'zh-Hens': did you mean zh-Hans\? There are c4, en, "
    ):
        load_profile("zh-Hens", "zh-Hans")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rules: [1, 2", "it is no YAML"),
        ("- a list", "valid dictionary"),
        ("about: x\nrules: {ttr: {min: 0.1}}", "rules.ttr.why is missing"),
        ("about: x\nrules: {ttr: {mni: 1, why: y}}", "rules.ttr.mni is unknown: did you mean min?"),
        ("about: x\nextend: gopher\nrules: {}", "extend is unknown: did you mean extends?"),
        ("about: x\nrules: {ttr: {why: y}}", "the rule ttr names no bound"),
        ("about: x\nrules: {ttr: null}", "extends none from which to remove it"),
        ("about: x\nrules: {ttr: {min: 2, max: 1, why: y}}", "min 2 is above max 1"),
        ("about: x\nrules: {ttr: {min: .nan, why: y}}", "rules.ttr.min"),
    ],
)
def test_a_file_that_is_no_profile_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    for name in ("mine", str(tmp_path / "mine.yaml")):
        with pytest.raises(UserError, match=r"mine\.yaml is not a profile") as error:
            load_profile(name, "en", tmp_path)
        assert message in str(error.value)


def test_a_profile_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    with pytest.raises(UserError, match=r"filter.profile.en: .*mine\.yaml cannot be read: No such file"):
        load_profile(str(path), "en")
    path.write_text(
        "about: x\nextends: gopher\nrules: {n_words: {min: 9, why: short}, hash_ratio: null, ppl: {max: 5, why: z}}"
    )
    found, gopher = load_profile(str(path), "en"), load_profile("gopher", "en")
    assert found.rules["n_words"] == Rule(min=9, why="short")  # the whole rule is replaced, also its other side
    assert list(found.rules) == [*(signal for signal in gopher.rules if signal != "hash_ratio"), "ppl"]
    assert found.rules["mean_word_length"] == gopher.rules["mean_word_length"]
    assert found.segmenter is None


def test_one_level_of_extending_is_all_there_is(tmp_path: Path) -> None:
    for name, other in (("a", "b"), ("b", "c"), ("c", None)):
        extends = f"extends: {other}" if other else ""
        (tmp_path / f"{name}.yaml").write_text(f"about: x\nsegmenter: jieba\n{extends}\n")
    assert load_profile("b", "en", tmp_path).segmenter == "jieba"
    with pytest.raises(UserError, match="a extends b, which itself extends c: one level"):
        load_profile("a", "en", tmp_path)
    (tmp_path / "d.yaml").write_text("about: x\nextends: bb")
    with pytest.raises(UserError, match=r"filter\.profile\.en: d extends: there is no profile 'bb'"):
        load_profile("d", "en", tmp_path)


# ---- published values, copied by hand from the papers and configurations that the profiles name ----------------------

GOPHER = """
n_words 50..100000 | mean_word_length 3..10 | hash_ratio ..0.1 | ellipsis_ratio ..0.1 | bullet_line_ratio ..0.9
ellipsis_line_ratio ..0.3 | alpha_word_ratio 0.8.. | distinct_stop_words 2..
duplicate_paragraph_ratio ..0.3 | duplicate_paragraph_char_ratio ..0.2
duplicate_line_ratio ..0.3 | duplicate_line_char_ratio ..0.2
top_2_gram_ratio ..0.2 | top_3_gram_ratio ..0.18 | top_4_gram_ratio ..0.16
duplicate_5_gram_ratio ..0.15 | duplicate_6_gram_ratio ..0.14 | duplicate_7_gram_ratio ..0.13
duplicate_8_gram_ratio ..0.12 | duplicate_9_gram_ratio ..0.11 | duplicate_10_gram_ratio ..0.1
"""
PUBLISHED = {
    "gopher": GOPHER,
    "c4": "c4_sentences 5.. | lorem_ipsum ..0 | curly_brackets ..0",
    "fineweb": GOPHER.replace("alpha_word_ratio", "alpha_token_ratio")
    + "terminal_line_ratio 0.12.. | short_line_ratio ..0.67 | repeated_line_char_ratio ..0.01 | newline_ratio ..0.3",
    "refinedweb": GOPHER + "refinedweb_removed_ratio ..0.05",
    "fineweb2-zh": """
n_words 50..100000 | mean_word_length 1..5 | hash_ratio ..0.1 | ellipsis_ratio ..0.1 | bullet_line_ratio ..0.9
ellipsis_line_ratio ..0.3 | alpha_token_ratio 0.735.. | distinct_stop_words 2.. | duplicate_line_ratio ..0.287
top_2_gram_ratio ..0.256 | top_3_gram_ratio ..0.201 | top_4_gram_ratio ..0.171
duplicate_5_gram_ratio ..0.198 | duplicate_6_gram_ratio ..0.182 | duplicate_7_gram_ratio ..0.167
duplicate_8_gram_ratio ..0.154 | duplicate_9_gram_ratio ..0.14 | duplicate_10_gram_ratio ..0.127
terminal_line_ratio 0.106.. | repeated_line_char_ratio ..0.1 | newline_ratio ..0.178
""",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_named_profile_has_the_published_values(name: str) -> None:
    expected = {}
    for rule in PUBLISHED[name].replace("\n", "|").split("|"):
        if rule.strip():
            signal, bounds = rule.split()
            low, high = bounds.split("..")
            expected[signal] = (float(low) if low else None, float(high) if high else None)
    rules = rules_of(load_profile(name, "en"))
    assert {signal: (rule.min, rule.max) for signal, rule in rules.items()} == expected
    assert load_profile(name, "en").segmenter == ("jieba" if name == "fineweb2-zh" else None)
    kinds = {key for rule in rules.values() for key in rule.model_dump(exclude_none=True)}
    assert kinds <= {"min", "max", "why", "of"}


def test_an_unknown_signal_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no input has a signal `n_word`: did you mean n_words\?"):
        check_signals("en", ["n_word"], ["n_words", "ttr"])


def test_an_override_replaces_one_side_and_leaves_the_other() -> None:
    rules = {"ttr": Rule(min=0.1, max_percentile=99, of="reference", why="x")}

    def after(**bounds: object) -> dict[str, object]:
        return override(rules, {"ttr": Bound.model_validate(bounds)})["ttr"].model_dump(
            exclude={"why"}, exclude_none=True
        )

    assert after(min=0.3) == {"min": 0.3, "max_percentile": 99, "of": "reference"}
    assert after(min=None) == {"max_percentile": 99, "of": "reference"}
    assert after(max=0.9) == {"min": 0.1, "max": 0.9, "of": "reference"}
    assert after(max=None) == {"min": 0.1, "of": "reference"}
    assert after(of="corpus") == {"min": 0.1, "max_percentile": 99, "of": "corpus"}
    assert override(rules, {"mattr": Bound(min=0.5)})["mattr"].min == 0.5
    assert list(override(rules, {"mattr": Bound(min=0.5)})) == ["ttr", "mattr"]


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"min": 1, "min_percentile": 5}, "name min or min_percentile, not both"),
        ({"max_score": 3, "max_z": 3}, "name max_score or max_z, not both"),
        ({"min_score": 3, "max_score": -3}, "min_score 3 is above max_score -3"),
    ],
)
def test_bounds_that_contradict_each_other_are_refused(bounds: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Bound.model_validate(bounds)


def test_a_side_set_in_params_may_not_contradict_the_profile_s_other() -> None:
    params = Filter.model_validate({"profile": {"en": "gopher"}, "bounds": {"en": {"mean_word_length": {"min": 12}}}})
    with pytest.raises(UserError, match=r"filter.bounds.en.mean_word_length, .*: min 12 is above max 10"):
        profiles_of(params)


def test_an_outlier_score_takes_the_place_of_another_bound() -> None:
    rules = {"ttr": Rule(min=0.1, max_percentile=99, why="x")}
    found = override(rules, {"ttr": Bound(max_score=3.5, min_z=-3)})["ttr"].model_dump(
        exclude={"why"}, exclude_none=True
    )
    assert found == {"min_z": -3, "max_score": 3.5, "of": "corpus"}
