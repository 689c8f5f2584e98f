"""The built-in profiles on real text: broken documents go, sound ones stay. Published bounds are as published."""

from __future__ import annotations

import json
import random
from pathlib import Path
from pydoc_data.topics import topics

import polars as pl
import pytest
from bs4 import BeautifulSoup

from corpus.errors import UserError
from corpus.filter.bounds import resolve
from corpus.filter.decide import decide
from corpus.filter.profile import FOLDER, Rule, check_signals, load_profile, override, profiles_of, rules_of
from corpus.measure.signals import columns
from corpus.measure.stage import measure
from corpus.params import Bound, Filter, Measure, Reference
from corpus.reference.stage import encoded, train_language
from corpus.reference.texts import read_texts, set_aside
from corpus.text.buffers import Texts
from corpus.text.ngram_lm import COLUMNS, score_texts
from corpus.text.ngram_train import number_tokens

DATA = Path(__file__).parents[2] / "data"
SAMPLE = DATA / "sample"
REFERENCE = {"en": read_texts(DATA / "reference" / "en.txt"), "zh-Hans": read_texts(DATA / "reference" / "zh.txt")}
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


def reasons(language: str, texts: dict[str, str], scores: pl.DataFrame | None = None) -> dict[str, list[str]]:
    """What the profile of a language says against each text. Without `scores`, those of `perplexity`, these pass."""
    documents = pl.DataFrame({"id": list(texts), "text": list(texts.values()), "lang": [language] * len(texts)})
    rules = rules_of(load_profile(language, language))
    if scores is None:
        scores = pl.DataFrame({name: [None] * len(texts) for name in COLUMNS}, COLUMNS)
    signals = measure(documents, Measure()).with_columns(pl.lit(language).alias("lang"), pl.lit(True).alias("kept"))
    signals = pl.concat([signals, scores], how="horizontal")
    limits, _ = resolve(language, rules, signals, {})
    return dict(decide(signals, {language: limits}).select("id", "reasons").rows())


def complaints(language: str, texts: dict[str, str]) -> dict[str, list[str]]:
    """The texts that the profile drops, and why."""
    return {name: why for name, why in reasons(language, texts).items() if why}


# ---- sound text ------------------------------------------------------------------------------------------------------

VERSE = {
    "en": """Shall I compare thee to a summer's day?
Thou art more lovely and more temperate:
Rough winds do shake the darling buds of May,
And summer's lease hath all too short a date;
Sometime too hot the eye of heaven shines,
And often is his gold complexion dimm'd;""",
    "zh-Hans": "床前明月光，\n疑是地上霜。\n举头望明月，\n低头思故乡。",
    "zh-Hant": "白日依山盡，\n黃河入海流。\n欲窮千里目，\n更上一層樓。",
}


@pytest.mark.parametrize("language", REFERENCE)
def test_articles_stay(language: str) -> None:
    assert complaints(language, {str(n): text for n, text in enumerate(REFERENCE[language])}) == {}


@pytest.mark.parametrize("language", VERSE)
def test_verse_stays(language: str) -> None:
    assert complaints(language, {"verse": VERSE[language]}) == {}


def test_sound_pages_of_a_site_stay_and_broken_ones_go() -> None:
    site = SAMPLE / "site"
    pages = {str(path.relative_to(site)): article(path) for path in site.rglob("*.html")}
    other = {page: text for page, text in pages.items() if "-en" in page or "/tw-" in page}
    found = complaints("zh-Hans", {page: text for page, text in pages.items() if page not in other})
    assert found.keys() - {"partner/404.html"} == BROKEN
    assert "filter.noise_ratio.max" in found["old/forum-archive.html"]
    assert "filter.digit_ratio.max" in found["partner/benchmark.html"]
    assert complaints("en", {page: text for page, text in other.items() if "-en" in page}) == {}


def test_traditional_pages_are_only_too_traditional_for_simplified_ones() -> None:
    pages = {path.name: article(path) for path in (SAMPLE / "site" / "partner").glob("tw-*.html")}
    assert len(pages) == 2
    assert complaints("zh-Hant", pages) == {}
    said = {reason for why in complaints("zh-Hans", pages).values() for reason in why}
    assert said <= {"filter.traditional_ratio.max"}


def test_python_s_language_reference_stays_but_for_a_page_or_two() -> None:
    assert len(complaints("en", topics)) <= len(topics) // 40


def test_short_dialogues_stay() -> None:
    rows = [json.loads(line) for line in (SAMPLE / "dialogues.jsonl").read_text("utf-8").splitlines()]
    for language in ("en", "zh-Hans"):
        texts = {str(n): f"{row['input']}\n{row['output']}" for n, row in enumerate(rows) if row["lang"] == language}
        assert len(texts) >= 20
        assert complaints(language, texts) == {}


# ---- broken text -----------------------------------------------------------------------------------------------------

ARTICLE = REFERENCE["zh-Hans"][0]
JAPANESE = (
    "この文書は日本語で書かれています。差分バックアップは変更されたファイルだけを保存するので、とても速く終わります。"
)
BROKEN_TEXTS = {
    "en": {
        "empty": "",
        "a word": "hello",
        "links": "Home Products Downloads Pricing Login Careers Blog Press Imprint Sitemap Contact " * 5,
        "a menu": "About us\nOur products\nPrice list\nLog in\nWork with us\nThe blog\nPress room\nContact us\n" * 2,
        "numbers": "12.50 13.75 99.10 " * 40 + "the sum of it is in the last of the rows and that is all",
        "shouting": "BUY NOW AND SAVE THE MOST ON ALL OF THE BEST DEALS THAT YOU CAN FIND IN THIS OR ANY OTHER SHOP "
        * 3,
        "repeated": "the best of the best is the best and " * 30,
        "chinese": "增量备份只保存上次备份以后改动过的文件，所以很快。" * 5,
        "japanese": JAPANESE,
        "mojibake": ARTICLE.encode().decode("cp1252", "replace"),
        "UTF-16 as Latin-1": REFERENCE["en"][0].encode("utf-16-le").decode("latin-1"),
    },
    "zh-Hans": {
        "empty": "",
        "a word": "备份",
        "a menu": "首页\n产品\n下载\n价格\n登录\n招聘\n博客\n新闻\n联系我们\n网站地图\n帮助\n论坛",
        "numbers": "合计 12.50 13.75 99.10 " * 40,
        "repeated": "免费下载最新版本，" * 20,
        "english": REFERENCE["en"][0],
        "japanese": JAPANESE,
        "mojibake": ARTICLE.encode().decode("cp1252", "replace"),
        "UTF-8 as GB 18030": ARTICLE.encode().decode("gb18030", "replace"),
        "GB 18030 as UTF-8": ARTICLE.encode("gb18030").decode("utf-8", "replace"),
    },
}
# That UTF-8 read as GB 18030 is not Chinese, the bounds on the two forms tell, which Traditional Chinese does without.
BROKEN_TEXTS["zh-Hant"] = {name: text for name, text in BROKEN_TEXTS["zh-Hans"].items() if name != "UTF-8 as GB 18030"}


@pytest.mark.parametrize("language", BROKEN_TEXTS)
def test_broken_text_goes(language: str) -> None:
    found = reasons(language, BROKEN_TEXTS[language])
    assert [name for name, why in found.items() if not why] == []


def shuffled(text: str, language: str, generator: random.Random) -> str:
    """The words of a text in any order; in Chinese its characters."""
    words = text.split() if language == "en" else list(text)
    return (" " if language == "en" else "").join(generator.sample(words, len(words)))


@pytest.mark.parametrize("language", REFERENCE)
def test_shuffled_text_goes_by_its_model_alone(language: str) -> None:
    known, unseen = set_aside(REFERENCE[language], 0.3)
    model = train_language(number_tokens(encoded(known)), language, Reference()).model
    generator = random.Random(1)
    texts = {f"sound {n}": text for n, text in enumerate(unseen)}
    texts |= {f"shuffled {n}": shuffled(text, language, generator) for n, text in enumerate(unseen)}
    found = reasons(language, texts, score_texts(model, Texts.of_strings(list(texts.values()))))
    by_model = {f"filter.{name}.{side}" for name in COLUMNS for side in ("min", "max")}
    gone = [name for name, why in found.items() if by_model & set(why)]
    assert all(name.startswith("shuffled") for name in gone)
    assert len(gone) > len(unseen) * 3 / 4


# ---- what profiles are made of ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_bound_says_where_it_comes_from(path: Path) -> None:
    profile = load_profile(path.stem, path.stem)
    assert profile.about
    for rule in rules_of(profile).values():
        assert len(rule.why) > 20


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_bound_is_on_a_signal_that_there_is(path: Path) -> None:
    profile = load_profile(path.stem, path.stem)
    check_signals(path.stem, rules_of(profile), [*columns(), *COLUMNS])
    assert rules_of(profile)


def test_both_chinese_profiles_have_the_same_bounds_but_those_that_tell_the_forms() -> None:
    simplified, traditional = (rules_of(load_profile(name, name)) for name in ("zh-Hans", "zh-Hant"))
    assert traditional == {signal: rule for signal, rule in simplified.items() if signal in traditional}
    assert simplified.keys() - traditional.keys() <= {"traditional_ratio", "rare_han_ratio"}


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
