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
from corpus.filter.profile import FOLDER, Rule, check_signals, load_profile, override
from corpus.measure.stage import measure
from corpus.params import Bound, Measure

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
    perplexity = [pl.lit(None, pl.Float64).alias(name) for name in ("ppl", "oov_rate")]
    signals = measure(documents, Measure()).with_columns(pl.lit(language).alias("lang"), pl.lit(True).alias("kept"))
    signals = signals.with_columns(perplexity)
    limits, _ = resolve(language, load_profile(language, language).rules, signals, {})
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
    for rule in profile.rules.values():
        assert len(rule.why) > 20
        assert {rule.min, rule.max, rule.min_percentile, rule.max_percentile} != {None}


def test_both_chinese_profiles_have_the_same_bounds() -> None:
    assert load_profile("zh-Hans", "zh-Hans").rules == load_profile("zh-Hant", "zh-Hant").rules


def test_an_unknown_profile_lists_those_there_are() -> None:
    with pytest.raises(
        UserError, match=r"filter.profile.zh-Hans: .*'zh-Hens': did you mean zh-Hans\? There are en, zh-"
    ):
        load_profile("zh-Hens", "zh-Hans")


@pytest.mark.parametrize(
    "text", ["rules: [1, 2", "about: x\nrules: {ttr: {min: 0.1}}", "about: x\nrules: {ttr: {mni: 1}}"]
)
def test_a_file_that_is_no_profile_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=r"mine\.yaml is not a profile"):
        load_profile("mine", "en", tmp_path)


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


def test_two_bounds_on_one_side_are_refused() -> None:
    with pytest.raises(ValueError, match="min or min_percentile, not both"):
        Bound(min=1, min_percentile=5)
