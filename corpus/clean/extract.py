"""The main text of a page: by the source's CSS rules, by trafilatura, or from the densest block."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict

import trafilatura
from bs4 import BeautifulSoup, Tag
from bs4.element import NavigableString, PageElement, PreformattedString

from corpus.sources import Rules

DENSE_SHARE = 0.25  # trafilatura's text must be at least this part of the densest block's
_BLOCKS = frozenset(
    re.findall(
        r"\w+",
        "address article aside blockquote body center dd details dialog div dl dt fieldset figcaption figure footer "
        "form h1 h2 h3 h4 h5 h6 header hr html li main marquee nav ol p pre section summary table tbody td tfoot th "
        "thead tr ul",
    )
)
_LEAVES = [
    "p",
    "pre",
    "li",
    "dd",
    "dt",
    "blockquote",
    "td",
    "div",
    "marquee",
    "h1",
    "h2",
    "h3",
    "h4",
    "section",
    "article",
]
_JUNK = "script, style, noscript, template, nav, header, footer, aside, form, button, select, iframe, svg, textarea"
_WHITE_SPACE = re.compile(r"[ \t\r\n\f]+")
_DATE = re.compile(r"(?<!\d)((?:19|20)\d\d)[-/.年](\d{1,2})[-/.月](\d{1,2})(?!\d)")


@dataclasses.dataclass(frozen=True)
class Extracted:
    text: str
    title: str | None
    date: str | None
    method: str  # rules, trafilatura or density


def extract(html: str, rules: Rules | None, extractor: str) -> Extracted:
    """Main text, title and date of a page. Empty text where it has none.

    `auto` takes trafilatura's text unless that is empty, far shorter than the densest block (it loses text of Chinese
    pages), or a table that only serves the layout.
    """
    soup = BeautifulSoup(html, "lxml")
    title = title_of(soup, rules)
    date = date_of(soup) if _DATE.search(html) else None
    if rules and rules.keep:
        return Extracted(text_by_rules(soup, rules), title, date, "rules")
    if extractor == "bs4":
        return Extracted(_without_lines(block_text(densest(soup)), rules), title, date, "density")
    # trafilatura's fast mode: the slow one tries further extractors and is no better on our pages.
    found = trafilatura.extract(html, fast=True, include_comments=False, include_tables=True) or ""
    method = "trafilatura"
    if extractor == "auto":
        best = densest(soup)
        dense = block_text(best)
        layout = (
            found.startswith("|") and best is not None and (best.name == "td" or best.find_parent("td") is not None)
        )
        if len(found) < DENSE_SHARE * len(dense) or layout:
            found, method = dense, "density"
    return Extracted(_without_lines(found, rules), title, date, method)


def text_by_rules(soup: BeautifulSoup, rules: Rules) -> str:
    """Text of the elements that `keep` selects, without those that `drop` selects and lines matching `drop_text`.

    >>> page = BeautifulSoup("<nav>Home</nav><main><h1>A</h1><p>one<br>two</p><p>Share</p></main>", "lxml")
    >>> text_by_rules(page, Rules(keep=["main"], drop=["h1"], drop_text=["^Share$"]))
    'one\\ntwo'
    """
    for element in soup.select(", ".join(rules.drop)) if rules.drop else ():
        element.extract()
    chosen = soup.select(", ".join(rules.keep))
    identities = {id(element) for element in chosen}
    outermost = [e for e in chosen if not any(id(parent) in identities for parent in e.parents)]
    return _without_lines("\n".join(block_text(element) for element in outermost), rules)


def _without_lines(text: str, rules: Rules | None) -> str:
    if not rules or not rules.drop_text:
        return text
    unwanted = re.compile("|".join(f"(?:{pattern})" for pattern in rules.drop_text))
    return "\n".join(line for line in text.split("\n") if not unwanted.search(line.strip()))


def block_text(element: Tag | None) -> str:
    """Text of an element as a browser shows it: blocks and `<br>` break lines, `<pre>` stays as it is.

    >>> block_text(BeautifulSoup("<p>a  b<br>&nbsp;&nbsp;c</p><pre>d\\n  e</pre>", "lxml"))
    'a b\\n  c\\nd\\n  e'
    """
    if element is None:
        return ""
    pieces: list[str] = []
    _collect(element, pieces)
    text = re.sub(r"(?<![ \t])[ \t]+\n", "\n", "".join(pieces).replace("\xa0", " "))
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n")


def _collect(root: Tag, pieces: list[str]) -> None:
    """Append an element's text with its line breaks. A stack, not recursion: pages nest deeper than Python calls."""
    stack: list[tuple[PageElement | None, bool]] = [
        (root, False)
    ]  # a node and whether it is preformatted; None: a break
    while stack:
        node, preformatted = stack.pop()
        if isinstance(node, PreformattedString):  # comments, doctypes
            continue
        if isinstance(node, NavigableString):
            text = str(node)
            if not preformatted:
                text = _WHITE_SPACE.sub(" ", text)
                if not pieces or pieces[-1].endswith(("\n", " ")):
                    text = text.lstrip(" ")
            if text:
                pieces.append(text)
        elif not isinstance(node, Tag):
            if pieces and not pieces[-1].endswith("\n"):
                pieces.append("\n")
        elif node.name == "br":
            pieces.append("\n")
        elif node.name not in ("script", "style", "noscript", "template"):
            if node.name in _BLOCKS:
                if pieces and not pieces[-1].endswith("\n"):
                    pieces.append("\n")
                stack.append((None, False))
            inside = preformatted or node.name == "pre"
            stack.extend((child, inside) for child in reversed(node.contents))


def densest(soup: BeautifulSoup) -> Tag | None:
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
        length = _own_text(block)
        parent = block.parent if block.name not in ("td", "div", "section", "article") else block
        for holder, share in ((parent, 1.0), (parent.parent if parent else None, 0.5)):
            if length and holder is not None and holder.name != "[document]":
                elements[id(holder)] = holder
                scores[id(holder)] += share * length
    return elements[max(scores, key=lambda key: scores[key])] if scores else soup.body


def _own_text(block: Tag) -> int:
    """Characters of a block outside links and outside the blocks within it."""
    length = 0
    stack = list(block.children)
    while stack:
        node = stack.pop()
        if isinstance(node, NavigableString):
            length += 0 if isinstance(node, PreformattedString) else len(node.strip())
        elif isinstance(node, Tag) and node.name != "a" and node.name not in _BLOCKS:
            stack.extend(node.children)
    return length


def title_of(soup: BeautifulSoup, rules: Rules | None = None) -> str | None:
    """The title as the rules' selector, og:title, the first `<h1>` or `<title>` gives it."""
    stated = soup.find("meta", property="og:title", content=True)
    places = [soup.select_one(rules.title) if rules and rules.title else None, stated, soup.h1, soup.title]
    for place in places:
        if place is not None:
            text = str(place.get("content")) if place is stated else place.get_text(" ")
            text = " ".join(text.split())
            if text:
                return text[:500]
    return None


def date_of(soup: BeautifulSoup) -> str | None:
    """The date that a page states in its metadata, a `<time>`, or a short line about its update, as YYYY-MM-DD.

    >>> date_of(BeautifulSoup("<p class=meta>最后更新：2024年1月2日</p>", "lxml"))
    '2024-01-02'
    """
    stated = soup.select_one("meta[property='article:published_time'], meta[name='date'], meta[name='pubdate']")
    time = soup.select_one("time[datetime]")
    line = soup.find(string=re.compile(r"更新|发布|發布|[Pp]ublished|[Uu]pdated"))
    candidates = [
        stated and stated.get("content"),
        time and time.get("datetime"),
        line if line and len(line) < 80 else None,
    ]
    for candidate in candidates:
        found = _DATE.search(str(candidate)) if candidate else None
        if found and 1 <= int(found[2]) <= 12 and 1 <= int(found[3]) <= 31:
            return f"{found[1]}-{int(found[2]):02d}-{int(found[3]):02d}"
    return None
