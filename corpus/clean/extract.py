"""The main text of a page: by the source's CSS rules, by our block classifier, or by an extractor of others."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from bs4 import BeautifulSoup, Tag
from bs4.element import NavigableString, PreformattedString

from corpus.clean.blocks import Blocks, blocks_of, date_of, nearest, title_of
from corpus.clean.main_text import Flags, Network, certainty, judge
from corpus.clean.markup import Markup, parse
from corpus.clean.render import Format, render, text_of_fragment
from corpus.sources import Rules

MAX_TAG_BYTES = 1_000_000  # a picture within the page may be that long
MAX_ATTRIBUTES = 1_000  # of a tag; parsers take quadratic time for many
CERTAIN = 0.8  # below that expected F1 a slow extractor is asked too; higher gains little and costs much
MAX_ELEMENTS_FOR_SLOW = 5_000  # it takes seconds for the largest pages, and advises no better there
_MOSTLY_HAN = 0.3
_NAVIGATION = frozenset(["nav", "footer"])
_WHITE_SPACE = re.compile(r"\s+")

# For `bs4`: elements that hold text, those that are part of another's text, and those that hold none of the page's own.
_LEAVES = re.findall(r"\w+", "p pre li dd dt blockquote td div marquee h1 h2 h3 h4 section article")
_OWN_HOLDERS = frozenset(["td", "div", "section", "article"])
_INLINE = frozenset(
    re.findall(r"\w+", "abbr b big br cite code em font i ins kbd mark q s small span strong sub sup time tt u var")
)
_JUNK = "script, style, noscript, template, nav, header, footer, aside, form, button, select, iframe, svg, textarea"


@dataclasses.dataclass(frozen=True)
class Extracted:
    text: str
    title: str | None
    date: str | None  # YYYY-MM-DD
    method: str  # rules, blocks, trafilatura, resiliparse, readability or bs4; blocks+trafilatura, blocks+readability


def unfit(markup: Markup, max_depth: int) -> str | None:
    """Why a page would choke a parser that builds a tree: `too_deep` or `long_tag`. None if it is fit for one.

    >>> unfit(parse("<div>" * 600), 500), unfit(parse("<p>" * 600), 500), unfit(parse("<a" + " x" * 2000 + ">"), 500)
    ('too_deep', None, 'long_tag')
    """
    if markup.longest_tag > MAX_TAG_BYTES or markup.most_attributes > MAX_ATTRIBUTES:
        return "long_tag"
    return "too_deep" if markup.deepest > max_depth else None


def extract(
    html: str, rules: Rules | None, extractor: str, form: Format = "text", markup: Markup | None = None
) -> Extracted:
    """Main text, title and date of a page that is fit for parsers (`unfit`). Empty text only where it has none.

    `rules.keep` takes the extractor's place; without it `rules.drop` goes before, `rules.drop_text` after any of them.
    `auto` is our block classifier, with the advice of a slow extractor where that is unsure. `markup` is the page
    parsed, if it is at hand. What trafilatura, resiliparse, readability or beautifulsoup4 raises comes through, except
    with `auto`.
    """
    markup = parse(html) if markup is None else markup
    title, date = title_of(markup), date_of(markup)
    text, method = "", ""
    if rules and (rules.keep or rules.drop or rules.title):
        soup = BeautifulSoup(html, "lxml")
        stated = soup.select_one(rules.title) if rules.title else None
        title = (" ".join(stated.get_text(" ").split())[:500] if stated else "") or title
        for element in soup.select(", ".join(rules.drop)) if rules.drop else ():
            element.extract()
        if rules.keep:
            kept = (text_of_fragment(str(element), form) for element in _outermost(soup, ", ".join(rules.keep)))
            text, method = "\n".join(filter(None, kept)), "rules"
        elif rules.drop:
            html = str(soup)
            markup = parse(html)
    if not method:
        text, method = _find(html, markup, extractor, form)
    if rules and rules.drop_text:
        unwanted = re.compile("|".join(f"(?:{pattern})" for pattern in rules.drop_text))
        text = "\n".join(line for line in text.split("\n") if not unwanted.search(line.strip()))
    return Extracted(text, title, date, method)


def _find(html: str, markup: Markup, extractor: str, form: Format) -> tuple[str, str]:
    """Text and method by an extractor, or by others where it leaves a page empty that has text."""
    blocks = blocks_of(markup)
    text, method = "", "blocks" if extractor == "auto" else extractor
    if blocks.text and extractor == "auto":
        return auto_text(html, markup, blocks, form)
    for method in dict.fromkeys([extractor, "readability", "bs4"]) if blocks.text else ():
        text = text_by(method, html, form)
        if text.strip():
            break
    return text, method


def _outermost(soup: BeautifulSoup, selector: str) -> list[Tag]:
    chosen = soup.select(selector)
    identities = {id(element) for element in chosen}
    return [element for element in chosen if not any(id(parent) in identities for parent in element.parents)]


# ---- auto ------------------------------------------------------------------------------------------------------------


def auto_text(
    html: str, markup: Markup, blocks: Blocks, form: Format, networks: Sequence[Network] | None = None
) -> tuple[str, str]:
    """Text and method: the blocks, of which there is at least one, that the classifier holds for main text.

    Where it is unsure, a slow extractor has the same say on each block: readability on Chinese and Japanese pages,
    where the others lose text, trafilatura on all others. `networks` take the place of ours.
    """
    judged = judge(markup, blocks, networks)
    keep = judged.probability > min(0.5, judged.probability.max() / 2)
    # Without what the page itself calls navigation, if anything is left. The networks know that by themselves, but for
    # pages of a few lines, which they have not seen.
    around = nearest(markup, _NAVIGATION)[blocks.element] < 0
    keep = keep & around if (keep & around).any() else keep
    method = "blocks"
    if certainty(judged, keep) < CERTAIN and len(markup.tag) <= MAX_ELEMENTS_FOR_SLOW:
        slow = "readability" if judged.han > _MOSTLY_HAN else "trafilatura"
        try:
            found = text_by(slow, html, "text")
        except Exception:  # whatever an odd page does to it, we have a text
            found = ""
        if found.strip():
            both = (judged.probability + _occurs_in(found, blocks)) / 2 > 0.5
            if both.any():
                keep, method = both, f"blocks+{slow}"
    return render(markup, blocks, keep, form), method


def _occurs_in(text: str, blocks: Blocks) -> Flags:
    """Which blocks' texts occur in a text, white space aside."""
    flat = _WHITE_SPACE.sub("", text)
    return np.array([_WHITE_SPACE.sub("", block) in flat for block in blocks.text])


# ---- extractors of others --------------------------------------------------------------------------------------------


def text_by(extractor: str, html: str, form: Format) -> str:
    """The text that an extractor finds. They are imported late: each takes its time, and `auto` needs few of them."""
    if extractor == "trafilatura":
        import trafilatura

        # Its fast mode: the slow one asks further extractors too and is no better on our pages.
        kind = "markdown" if form == "markdown" else "txt"
        return trafilatura.extract(html, fast=True, include_comments=False, output_format=kind) or ""
    if extractor == "resiliparse":
        from resiliparse.extract.html2text import extract_plain_text

        layout: Any = "minimal_html" if form == "markdown" else True
        found = extract_plain_text(html, preserve_formatting=layout, main_content=True, alt_texts=False, comments=False)
        return text_of_fragment(found, form) if form == "markdown" else found
    if extractor == "readability":
        from readability import Document
        from readability.readability import Unparseable

        try:
            return text_of_fragment(Document(html).summary(html_partial=True), form)
        except Unparseable:  # no text at all
            return ""
    return text_of_fragment(str(_densest(BeautifulSoup(html, "lxml")) or ""), form)


def _densest(soup: BeautifulSoup) -> Tag | None:
    """The element that holds most of the text outside links: readability's rule, without its weights.

    Each block's text counts for its parent, and half for the parent's parent. Junk is removed from the soup.
    """
    for element in soup.select(_JUNK):
        # `<header>` inside an article holds its title.
        if not element.decomposed and not (element.name == "header" and element.find_parent("article")):
            element.decompose()
    scores: dict[int, float] = defaultdict(float)
    elements: dict[int, Tag] = {}
    for block in soup.find_all(_LEAVES):
        length = _own_length(block)
        holder = block if block.name in _OWN_HOLDERS else block.parent
        for around, share in ((holder, 1.0), (holder.parent if holder else None, 0.5)):
            if length and around is not None and around.name != "[document]":
                elements[id(around)] = around
                scores[id(around)] += share * length
    return elements[max(scores, key=lambda key: scores[key])] if scores else soup.body


def _own_length(block: Tag) -> int:
    """Characters of a block outside links and outside the blocks within it."""
    length = 0
    stack = list(block.children)
    while stack:
        node = stack.pop()
        if isinstance(node, NavigableString):
            length += 0 if isinstance(node, PreformattedString) else len(node.strip())
        elif isinstance(node, Tag) and node.name in _INLINE:
            stack.extend(node.children)
    return length
