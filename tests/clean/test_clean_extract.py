"""The main text of pages: by our classifier, by other extractors, by rules; and the classifier's own parts."""

from __future__ import annotations

import collections
import gzip
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import trafilatura
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.clean import extract as module
from corpus.clean import main_text
from corpus.clean.blocks import blocks_of
from corpus.clean.decode import decode
from corpus.clean.extract import extract, unfit
from corpus.clean.main_text import AROUND, KEYWORDS, TAG_GROUPS, block_features, judge, logits, ready
from corpus.clean.markup import attribute_spans, parse
from corpus.sources import Rules

EXTRACTORS = ["auto", "trafilatura", "resiliparse", "readability", "bs4"]
SAID = (
    "The client compares each file with its copy and sends only the blocks that differ, so that a large file with one "
    "changed line takes seconds. "
)
ARTICLE = (
    "<html><head><title>How it copies | Qinghe</title></head><body><div class='top-nav'>"
    + "".join(f"<a href='/{n}'>Section {n}</a> " for n in range(9))
    + "</div><div class='article-body'><h1>How it copies</h1>"
    + "".join(f"<p>Paragraph {n}. {SAID}</p>" for n in range(6))
    + "<h2>Ports</h2><ul><li>443 for the transfer of blocks</li><li>8443 for the control of clients</li></ul>"
    + f"<pre><code>def send(block):\n    return 1\n</code></pre><p>{SAID}</p></div>"
    + "<div class='comments'><h3>Comments</h3>"
    + "".join(
        f"<div class='comment'><b>user{n}</b> Thanks, that helped a lot! <a href='#'>Reply</a></div>" for n in range(5)
    )
    + "</div><div class='footer'>© Qinghe. <a href='/legal'>Legal notice</a> <a href='/c'>Cookies</a></div></body>"
)
CHINESE = (
    "<body><div id='nav'>"
    + "".join(f"<a href='/{n}'>栏目{n}</a> | " for n in range(12))
    + "</div><div class='content'><h1>备份的办法</h1>"
    + "".join(
        f"<p>第{n}段，客户端把每个文件和它的副本比较，只发送有变化的部分，所以很快就能完成。</p>" for n in range(8)
    )
    + "</div><div class='footer'>版权所有，友情链接</div></body>"
)
TABLE = (
    "<table><tr><th>Port</th><th>Use</th></tr>"
    + "".join(f"<tr><td>{n}</td><td>service {n}</td></tr>" for n in range(20))
    + "</table>"
)
FORUM = "<body><a href='/'>Home</a> <a href='/in'>Log in</a>" + "".join(
    f"<div class='post'><i>user{n}</i><p>Post {n}: my client stops at about ninety percent and says that a file is "
    "locked, although nothing has it open at that time.</p></div>"
    for n in range(8)
)


@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_every_extractor_finds_an_article_and_leaves_what_is_around_it(extractor: str) -> None:
    found = extract(ARTICLE, None, extractor)
    assert all(f"Paragraph {n}." in found.text for n in range(6))
    assert "Section 3" not in found.text
    assert "Legal notice" not in found.text
    assert (found.title, found.method) == ("How it copies", {"auto": "blocks"}.get(extractor, extractor))


def test_auto_leaves_comments_out_and_keeps_lists_and_code() -> None:
    text = extract(ARTICLE, None, "auto").text
    assert "Thanks, that helped" not in text
    assert "443 for the transfer of blocks" in text
    assert "def send(block):\n    return 1" in text


@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_markdown_shows_headings_lists_and_code(extractor: str) -> None:
    text = extract(ARTICLE, None, extractor, "markdown").text
    assert "## Ports" in text
    assert re.search(r"^```.*\ndef send\(block\):\n    return 1\n```", text, re.MULTILINE)
    if extractor != "resiliparse":  # which takes short lists for menus
        assert re.search(r"^[-*] 443 for", text, re.MULTILINE)


@pytest.mark.parametrize("extractor", ["auto", "readability", "bs4"])
def test_chinese_text_is_whole(extractor: str) -> None:
    text = extract(CHINESE, None, extractor).text
    assert all(f"第{n}段" in text for n in range(8))
    assert "栏目3" not in text


@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_odd_pages(extractor: str) -> None:
    for nothing in ("", " \n", "<script>var x = 'a text that is none of the page';</script>", "<!-- only this -->"):
        assert extract(nothing, None, extractor).text == ""
    assert extract("One line without a tag.", None, extractor).text.strip() == "One line without a tag."
    assert extract(TABLE, None, extractor).text.strip()
    assert "Post 0" in extract(FORUM, None, extractor).text


def test_auto_keeps_a_table_and_a_thread_whole() -> None:
    rows = extract(TABLE, None, "auto").text.split("\n")
    assert len(rows) == 21
    assert all(str(n) in row for n, row in enumerate(rows[1:]))
    thread = extract(FORUM, None, "auto").text
    assert all(f"Post {n}:" in thread for n in range(8))


def test_rules_come_first() -> None:
    rules = Rules(keep=["main", "main p"], drop=["h1", ".ad"], title="h1", drop_text=["^Share$"])
    page = "<nav>Home</nav><main><h1>A  title</h1><p>one<br>two</p><p class=ad>Buy</p><p>Share</p></main>"
    found = extract(page, rules, "auto")
    assert (found.text, found.title, found.method) == ("one\ntwo", "A title", "rules")
    assert extract(page, Rules(keep=["table"]), "auto").text == ""
    dropped = extract(ARTICLE, Rules(drop=["pre"], drop_text=["^Paragraph 1"]), "auto")
    assert dropped.method == "blocks"
    assert "def send" not in dropped.text
    assert ["Paragraph 1." in dropped.text, "Paragraph 2." in dropped.text] == [False, True]


def test_a_slow_extractor_that_fails_costs_auto_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = extract(ARTICLE, None, "auto")
    monkeypatch.setattr(module, "CERTAIN", 1.1)
    asked = extract(ARTICLE, None, "auto")
    assert asked.method == "blocks+trafilatura"
    assert "Paragraph 5." in asked.text
    assert extract(CHINESE, None, "auto").method == "blocks+readability"
    monkeypatch.setattr(trafilatura, "extract", lambda *_, **__: 1 / 0)
    assert extract(ARTICLE, None, "auto") == fast
    with pytest.raises(ZeroDivisionError):
        extract(ARTICLE, None, "trafilatura")


def test_unfit_pages() -> None:
    assert unfit(parse("<div>" * 501), 500) == "too_deep"
    assert unfit(parse("<ul><li><b>x</b></ul>" * 5_000), 500) is None
    assert unfit(parse("<a " + "x='1' " * 20_000 + ">"), 500) == "long_tag"
    assert unfit(parse(f"<img src='data:{'A' * 100_000}'>"), 500) is None
    assert unfit(parse(f"<img src='data:{'A' * 2_000_000}'>"), 500) == "long_tag"


@settings(max_examples=60)
@given(
    st.lists(
        st.sampled_from(
            ["<p>", "</p>", "<div class=nav>", "</div>", "<table><td>", "a b. ", "好，", "\x00", "&#x0;", "<h1>"]
        )
        | st.text(max_size=9)
    ).map("".join)
)
def test_any_page_gives_some_of_its_text(page: str) -> None:
    blocks = blocks_of(parse(page))
    found = module.auto_text(page, parse(page), blocks, "text") if blocks.text else ("", "")
    assert bool(blocks.text) == bool(found[0])
    if blocks.text:
        probability = judge(parse(page), blocks).probability
        assert len(probability) == len(blocks.text)
        assert ((probability >= 0) & (probability <= 1)).all()


# ---- the classifier's parts ------------------------------------------------------------------------------------------


def _named(value: str) -> set[str]:
    """The groups of keywords in an attribute's value, by regular expressions."""
    found = set()
    for group, words in KEYWORDS.items():
        for word in words.split():
            opens, closes = word.startswith("_"), word.endswith("_")
            pattern = f"(?i:{re.escape(word.strip('_'))})"
            if opens:
                pattern = "(?:(?<![A-Za-z])|(?<=[a-z])(?=[A-Z]))" + pattern
            if closes:
                pattern += "(?![a-z])"
            if re.search(pattern, value):
                found.add(group)
    return found


_WORDS = sorted({word for line in KEYWORDS.values() for word in line.replace("_", " ").split()})


@given(
    st.lists(
        st.sampled_from(_WORDS).flatmap(lambda word: st.sampled_from([word, word.title(), word.upper()])), max_size=4
    ),
    st.sampled_from([" ", "-", "_", "", "s", "4"]),
)
def test_keywords_are_those_that_regular_expressions_find(words: list[str], between: str) -> None:
    value = between.join(words)
    markup = parse(f'<p class="{value}">')
    bits = main_text._find_keywords(markup.source, attribute_spans(markup, ("class", "id")), *main_text._patterns())
    assert {group for n, group in enumerate(KEYWORDS) if bits[1] >> n & 1} == _named(value)


@given(st.lists(st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=20), max_size=5))
def test_counts_of_a_text(texts: list[str]) -> None:
    joined = np.frombuffer("".join(f"{text}\x00" for text in texts).encode(), np.uint8)
    for text, counts in zip(texts, main_text._count_text(joined, len(texts)), strict=True):
        letter = r"A-Za-z0-9À-ÖØ-öø-\u1fff"
        han = len(re.findall(r"[\u3040-\u9fff\uac00-\ud7a3\uf900-\ufaff]", text))
        assert counts[0] == pytest.approx(len(re.findall(f"[{letter}]+", text)) + 0.6 * han)
        assert counts[1] == len(re.findall(f"[{letter}]", text)) + 2 * han
        assert counts[2] == len(re.findall("[0-9]", text))
        assert counts[3] == len(re.findall("[A-Z]", text))
        assert counts[4] == len(re.findall("[,;，、；]", text))
        assert counts[5] == len(re.findall("[.!?。！？…]", text))
        assert counts[8] == bool(re.match(r"[\x00-\x20]*[a-z]", text))


def test_features_are_bounded_and_as_many_as_the_networks_take() -> None:
    markup = parse(ARTICLE)
    features, _ = block_features(markup, blocks_of(markup))
    networks = main_text.our_networks()
    assert features.shape[1] == 14 + len(TAG_GROUPS) + 1 + 2 * len(KEYWORDS) + len(AROUND) + 24 + 36
    assert all(len(network["mean"]) == features.shape[1] for network in networks)
    assert np.isfinite(features).all()
    assert np.abs(features).max() < 20


@pytest.mark.parametrize("rows", [1, 3, 40])
def test_the_network_is_what_it_says(rows: int) -> None:
    """Against its definition, a block and a neighbour at a time."""
    generator = np.random.default_rng(rows)
    width, hidden = 6, 5
    shapes = {"mean": (width,), "input": (width, hidden), "input_bias": (hidden,), "page": (hidden, hidden)}
    shapes |= {"convolutions": (4, 3 * hidden, hidden), "biases": (4, hidden), "output": (hidden,), "output_bias": ()}
    network = ready({name: generator.normal(size=shape).tolist() for name, shape in shapes.items()})
    network["deviation"] = np.full(width, 2.0, np.float32)
    features = generator.normal(size=(rows, width)).astype(np.float32) * 3
    state = [
        np.maximum(np.clip((row - network["mean"]) / 2, -5, 5) @ network["input"] + network["input_bias"], 0)
        for row in features
    ]
    for layer in range(4):
        nothing = np.zeros(hidden)
        at = dict(enumerate(state))
        state = [
            own
            + np.maximum(
                np.concatenate([at.get(n - 2**layer, nothing), own, at.get(n + 2**layer, nothing)])
                @ network["convolutions"][layer]
                + network["biases"][layer],
                0,
            )
            for n, own in enumerate(state)
        ]
        if layer == 1:
            mean = np.mean(state, axis=0)
            state = [own + mean @ network["page"] for own in state]
    expected = [own @ network["output"] + network["output_bias"] for own in state]
    np.testing.assert_allclose(logits(network, features), expected, rtol=1e-3, atol=1e-3)


# ---- pages with known truth ------------------------------------------------------------------------------------------


def test_main_text_of_real_pages() -> None:
    data = os.environ.get("CORPUSMILL_TEST_DATA")
    if not data:
        pytest.skip("CORPUSMILL_TEST_DATA names no folder with web_pages")
    folder = Path(data) / "web_pages"
    scores = []
    for key, entry in json.loads((folder / "aeb_en/ground-truth.json").read_text()).items():
        scores.append(_overlap(_text(folder / f"aeb_en/html/{key}.html.gz"), entry["articleBody"]))
    assert np.mean([precision for precision, _ in scores]) > 0.91
    assert np.mean([recall for _, recall in scores]) > 0.96
    for line in (folder / "gne_zh/pages.jsonl").read_text().splitlines():
        assert _text(folder / "gne_zh/html" / json.loads(line)["file"]).strip(), line[:100]


def _text(path: Path) -> str:
    decoded = decode(gzip.decompress(path.read_bytes()))
    assert decoded is not None
    return extract(decoded.text, None, "auto").text


def _overlap(text: str, truth: str) -> tuple[float, float]:
    """Precision and recall of runs of four words."""
    found, wanted = (
        collections.Counter(zip(*(re.findall(r"\w+", one)[start:] for start in range(4)), strict=False))
        for one in (text, truth)
    )
    common = (found & wanted).total()
    return common / max(found.total(), 1), common / max(wanted.total(), 1)
