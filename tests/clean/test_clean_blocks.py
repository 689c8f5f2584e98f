"""Blocks and their rendering against a slow walk over lxml's tree, and small pages written down by hand."""

from __future__ import annotations

import gzip
import html
import os
import re
import time
from pathlib import Path

import lxml.html
import numpy as np
import pytest
from bs4 import BeautifulSoup
from hypothesis import example, given
from hypothesis import strategies as st

from corpus.clean.blocks import CODE_MARK, Blocks, blocks_of, date_of, nearest, title_of
from corpus.clean.decode import decode
from corpus.clean.markup import TAGS, parse
from corpus.clean.render import render, text_of_fragment

PAGES = Path(os.environ.get("CORPUSMILL_TEST_DATA", "absent")) / "web_pages"

BLOCKS = ("div", "section", "ul", "li", "blockquote", "h2", "td", "p", "body", "html")
NOT_SHOWN = (
    *("script", "style", "template", "noscript", "title", "iframe", "noembed", "noframes", "datalist", "svg"),
    *("audio", "video", "canvas", "rp"),
)


def blocks(page: str) -> Blocks:
    return blocks_of(parse(page))


# ---- blocks ----------------------------------------------------------------------------------------------------------

INLINE = st.recursive(
    st.sampled_from(
        ["a", " b ", "\n", "c d", "中文", "，", " ", "<br>", "&amp;", "&#20013;", "<script>x</script>", "<img>"]
    ),
    lambda inside: st.tuples(st.sampled_from(["b", "a href=x", "span", "em"]), st.lists(inside, max_size=3)).map(
        lambda node: f"<{node[0]}>{''.join(node[1])}</{node[0].split()[0]}>"
    ),
    max_leaves=8,
)
FLOW = st.recursive(
    INLINE,
    lambda inside: (
        st.tuples(st.sampled_from(["div", "section", "ul", "blockquote"]), st.lists(inside, max_size=4)).map(
            lambda node: f"<{node[0]}>{''.join(node[1])}</{node[0]}>"
        )
        | st.lists(INLINE, max_size=4).map(lambda inline: f"<p>{''.join(inline)}</p>")
    ),
    max_leaves=25,
)


SOUP = [
    "<",
    "</p>",
    "<td>",
    "&nbsp;",
    "&#",
    ";",
    "<pre>",
    "</pre>",
    "<tt>",
    "</tt>",
    "　",
    " ",
    "\n",
    "\r",
    "\x01",
    "\0",
]


def slow_blocks(page: str) -> list[str]:
    """The blocks' texts by a walk over lxml's tree: `\\v` for a line break, `\\0` for a border."""

    def walk(element: lxml.html.HtmlElement) -> str:
        inside = element.text or ""
        for child in element:
            inside += walk(child) + (child.tail or "")
        if element.tag in NOT_SHOWN:
            return ""
        if element.tag == "br":
            return "\v"
        return f"\0{inside}\0" if element.tag in BLOCKS else inside

    pieces = walk(lxml.html.document_fromstring(f"<body><div>{page}</div>")).split("\0")
    texts = [re.sub(r"[ \t\r\n\f]+", " ", piece).replace(" \v", "\v").replace("\v ", "\v") for piece in pieces]
    return [re.sub("\n{3,}", "\n\n", text.replace("\v", "\n")).strip() for text in texts if text.strip()]


@given(st.lists(FLOW, max_size=4).map("".join))
@example("<p>a<br> <br> <b> b</b></p> c")
def test_blocks_are_those_of_a_slow_walk(page: str) -> None:
    found = blocks(f"<body><div>{page}</div>")
    assert found.text == slow_blocks(page)
    assert found.chars.tolist() == [len(text) for text in found.text]
    assert (found.link_chars <= found.chars).all()


@given(st.lists(st.one_of(FLOW, st.text(max_size=5), st.sampled_from(SOUP)), max_size=8))
def test_blocks_of_any_string_are_sound(pieces: list[str]) -> None:
    markup = parse("".join(pieces))
    found = blocks_of(markup)
    assert len(found.text) == len(found.element) == len(found.chars)
    assert (found.first_run < found.end_run).all()
    assert (found.end_run[:-1] <= found.first_run[1:]).all()
    assert (found.chars > 0).all()
    assert all(text and not text.startswith("\n") and not text.endswith((" ", "\n")) for text in found.text)
    marked = blocks_of(markup, mark_code=True)
    assert [text.replace(CODE_MARK, "") for text in marked.text] == found.text
    for form in ("text", "markdown"):
        whole = render(markup, found, [True] * len(found.text), form)
        assert all(line in whole for text in found.text for line in text.split("\n")) or form == "markdown"


@pytest.mark.parametrize(
    ("page", "texts"),
    [
        ("<p>a&nbsp;&nbsp;b &nbsp; c", ["a b c"]),
        ("<p>&nbsp;&nbsp;a<br>&nbsp;&nbsp;b<br>&#160; c", ["a\n  b\n c"]),
        ("<p>&nbsp;</p><p> &#12288;\u3000&ensp;</p><div>\u200b\ufeff&#8203;</div>", []),
        ("<p>　　第一段<br>　　第二段</p>", ["第一段\n第二段"]),
        ("<p>标题　正文", ["标题　正文"]),
        ("a<br><br><br><br>b<br>&nbsp;<br>&nbsp;<br>c", ["a\n\nb\n\nc"]),
        ("<pre>\n\n  a\n\tb  \n\n c\n</pre>", ["  a\n\tb  \n\n c"]),
        ("<pre>a\r\nb\rc&nbsp;d<br>e</pre>", ["a\nb\nc d\ne"]),
        ("<pre> \n\n </pre>b", ["b"]),
        ("<pre>  <br>a</pre><pre>　 <br></pre><pre>　b　", ["a", "　b　"]),
        ("a<!-- b -->c<script>d</script>e", ["ace"]),
        ("<table><tr><td>a<td>b<tr><td>c</table>", ["a", "b", "c"]),
        ("a<hr>b<p></p>c", ["a", "b", "c"]),
        ("&lt;b&gt; &copy 2020 &amp;amp; &notanentity; AT&T", ["<b> © 2020 &amp; ¬anentity; AT&T"]),
        ("<title>a</title><noscript>b</noscript><template><p>c</template><svg><text>d</text></svg>e", ["e"]),
        ("a\0b\x01c\x0bd", ["abcd"]),
        ("a&#2c;b&#x;c&#;&#xA0;&#0000032;d&#1;", ["ac;b&#x;c&#; d"]),
        ("<select><option>a<option>b</select>", ["a", "b"]),
        ("<ruby>漢<rp>(</rp><rt>かん</rt><rp>)</rp></ruby>字", ["漢字"]),
    ],
)
def test_white_space_and_borders(page: str, texts: list[str]) -> None:
    assert blocks(page).text == texts


def test_what_is_counted_of_a_block() -> None:
    page = (
        "<div>ab <a href=x>cd &amp; e</a> <a name=y>f</a></div><p hidden>gh<p style='color:red; DISPLAY : none'>i"
        "<p aria-hidden=true>jk<p>l<span aria-hidden='false'>m</span><b style=display:none>n</b>"
        "<div style='display: nonsense-free' hidden=''><a href=''><p>中文</a></div>"
    )
    found = blocks(page)
    assert found.text == ["ab cd & e f", "gh", "i", "jk", "lmn", "中文"]
    assert found.chars.tolist() == [11, 2, 1, 2, 3, 2]
    assert found.link_chars.tolist() == [6, 0, 0, 0, 0, 2]
    assert found.hidden_chars.tolist() == [0, 2, 1, 2, 1, 2]
    assert [TAGS[parse(page).tag[element]] for element in found.element] == ["div", "p", "p", "p", "p", "p"]


def test_nearest_is_the_first_such_ancestor() -> None:
    page = "<ul><li><b>a<ul><li>b</ul></b><table><tr><td><li>c</table>"
    markup = parse(page)

    def slow(element: int) -> int:
        while element >= 0 and TAGS[markup.tag[element]] not in ("li", "td"):
            element = int(markup.parent[element])
        return element

    assert nearest(markup, frozenset({"li", "td"})).tolist() == [slow(element) for element in range(len(markup.tag))]


# ---- rendering -------------------------------------------------------------------------------------------------------

LISTS = "<ul><li>a<ol start=3><li><p>b</p><p>b2</p><li>c<br>c2</ol></li><li><ul><li>d</ul><li><h3>e</h3>f</ul>g"
TABLE = "<table><caption>T</caption><tr><th>a|b<th>c</tr><tr><td>1<td></tr><tr><td>2<br>3<td><p>4<p>5</table>"
LAYOUT = (
    "<table><tr><td>a<td>b</table><table><tr><td>c<tr><td>d</table><table><tr><td><pre>1\n2</pre><td><pre>x</table>"
)
CODE = "<p>Use <code>a `b`</code>, <code>c</code> <tt>d</tt>.</p><pre class='x language-Python'>def f():\n  ```\n</pre>"
QUOTE = "<blockquote><p>a<p>b<ul><li>c</ul><blockquote>d</blockquote></blockquote>e"


@pytest.mark.parametrize(
    ("page", "form", "expected"),
    [
        (LISTS, "text", "- a\n3. b\nb2\n4. c\nc2\n- d\ne\nf\ng"),
        (LISTS, "markdown", "- a\n  3. b\n\n     b2\n\n  4. c\n     c2\n- d\n\n### e\n\nf\n\ng"),
        (TABLE, "text", "T\na|b | c\n1\n2 3 | 4 5"),
        (TABLE, "markdown", "T\n\n| a\\|b | c |\n| --- | --- |\n| 1 |  |\n| 2 3 | 4 5 |"),
        (LAYOUT, "text", "a\nb\nc\nd\n\n1\n2\n\nx"),
        (LAYOUT, "markdown", "a\n\nb\n\nc\n\nd\n\n```\n1\n2\n```\n\n```\nx\n```"),
        (CODE, "text", "Use a `b`, c d.\n\ndef f():\n  ```"),
        (CODE, "markdown", "Use `` a `b` ``, `c` `d`.\n\n````python\ndef f():\n  ```\n````"),
        (QUOTE, "text", "a\nb\n- c\nd\ne"),
        (QUOTE, "markdown", "> a\n>\n> b\n>\n> - c\n>\n> > d\n\ne"),
        ("<h1>A<br>B</h1>a<h6>C</h6>", "markdown", "# A B\n\na\n\n###### C"),
        ("<h1>A<br>B</h1>a<h6>C</h6>", "text", "A\nB\na\nC"),
        ("a<br><br>b", "text", "a\nb"),
        ("a<br><br>b", "markdown", "a\n\nb"),
        ("<pre><code class=lang-c><div>a</div><div> b</div></code></pre>c", "markdown", "```c\na\n b\n```\n\nc"),
        ("<div class='highlight-source-rust'><pre>a</pre></div>", "markdown", "```rust\na\n```"),
        ("<dl><dt>a<dd>b</dl>", "markdown", "a\n\nb"),
        ("<pre class='langbox brush: js'>b</pre>", "markdown", "```js\nb\n```"),
        ("<blockquote><pre>a\n\nb</pre></blockquote>", "markdown", "> ```\n> a\n>\n> b\n> ```"),
        ("<ol><li>a<pre>b\n\nc</pre>d</ol>", "markdown", "1. a\n\n   ```\n   b\n\n   c\n   ```\n\n   d"),
        ("<p class=language-x>a</p><div><pre>b</pre></div>", "markdown", "a\n\n```\nb\n```"),
        (
            "<h2>标题</h2><p>第一段，<b>重点</b>。</p><ol><li>一</li><li>二</li></ol>",
            "markdown",
            "## 标题\n\n第一段，重点。\n\n1. 一\n2. 二",
        ),
        ("", "text", ""),
        ("<script>a</script>", "markdown", ""),
    ],
)
def test_rendering(page: str, form: str, expected: str) -> None:
    assert text_of_fragment(page, form) == expected


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        *(("# a", "\\# a"), ("#a", "#a"), ("- a", "\\- a"), ("-a", "-a"), ("+ a", "\\+ a"), ("* a", "\\* a")),
        *(("&gt; a", "\\> a"), ("```", "\\```"), ("~~~~", "\\~~~~"), ("a<br>---", "a\n\\---"), ("a<br>==", "a\n\\==")),
        *(
            ("* * *", "\\* * *"),
            ("1. a", "1. a"),
            ("*a* _b_ [c](d)", "*a* _b_ [c](d)"),
            ("-", "\\-"),
            ("－ 中", "－ 中"),
        ),
    ],
)
def test_what_would_by_accident_be_markup_is_escaped(text: str, escaped: str) -> None:
    assert text_of_fragment(f"<p>{text}</p>", "markdown") == escaped
    assert text_of_fragment(f"<p>{text}</p>", "text") == html.unescape(text.replace("<br>", "\n"))


def test_only_the_kept_blocks_are_rendered() -> None:
    page = "<ol><li>a<li>b<li>c</ol><table><tr><td>1<td>2<tr><td>3<td>4<tr><td>5<td>6</table><pre>x</pre>y"
    markup = parse(page)
    found = blocks_of(markup)
    keep = [text in "bc136y" for text in found.text]
    assert render(markup, found, keep, "text") == "2. b\n3. c\n1\n3\n6\ny"
    keep = [text in "c123456" for text in found.text]
    assert render(markup, found, keep, "markdown") == "3. c\n\n| 1 | 2 |\n| --- | --- |\n| 3 | 4 |\n| 5 | 6 |"
    assert render(markup, found, np.zeros(len(found.text), bool), "text") == ""


HOSTILE = {
    "nested lists": "<ul><li>a" * 20_000,
    "empty nested lists": "<ul><li>" * 20_000 + "<li>a" * 20_000,
    "quotations": "<blockquote>a" * 20_000,
    "tables": "<table><tr><td>a<td>b<tr><td>a<td>b</table>" * 5_000,
    "nested tables": "<table><tr><td>a<td>" * 10_000,
    "numbered": "<ol start=7><li>a</ol>" * 20_000,
    "code": "<pre class=language-x>a</pre><code>`</code>" * 20_000,
    "backticks": f"<pre>{'`' * 1_000_000}</pre>",
    "breaks": "<br>" * 300_000 + "a" + "<br>&nbsp;" * 300_000 + "b",
    "entities": "&" * 1_000_000 + "&a" * 300_000 + "&nbsp;" * 100_000,
    "bars": "- " * 300_000 + "<p>" + "-" * 300_000 + "=" + "<p>" + " " * 300_000 + "a",
    "meta": "<meta property=og:title content=''>" * 50_000 + "<h1>" * 10_000,
    "updates": "<p>Updated" * 50_000,
    "times": "<time datetime=x>" * 50_000 + "<title>" * 1_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pages_take_no_time(name: str) -> None:
    for form in ("text", "markdown"):
        text_of_fragment("<p>a", form)  # compiled before
    began = time.process_time()
    markup = parse(HOSTILE[name])
    for form in ("text", "markdown"):
        written = render(markup, blocks_of(markup), [True] * len(blocks_of(markup).text), form)
        assert len(written) < 4 * len(HOSTILE[name])
    title_of(markup), date_of(markup)
    # Each takes a second at most; what is not linear would take minutes.
    assert time.process_time() - began < 20


# ---- title and date --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("page", "title"),
    [
        ("<title>T</title><h1>H</h1><meta property=og:title content=' O &amp;  P '>", "O & P"),
        ("<title>T</title><h1>H <b>b</b><br>c</h1><meta property=og:title content=''>", "H b c"),
        ("<title>T | 中 &amp;\n x</title><h1>A</h1><h1>B</h1>", "T | 中 & x"),
        ("<svg><title>icon</title></svg><h1><img></h1>", None),
        ("<svg><title>icon</title></svg><title>T</title>", "T"),
        ("<title></title>", None),
        ("<title>The <b> of HTML</title>", "The <b> of HTML"),
        ("", None),
        ("<h1>" + "a" * 600, "a" * 500),
        ("<meta name='og:title' content=N>", "N"),
    ],
)
def test_title(page: str, title: str | None) -> None:
    assert title_of(parse(page)) == title


@pytest.mark.parametrize(
    ("page", "date"),
    [
        ("<meta property='article:published_time' content='2020-03-04T05:06:07Z'>", "2020-03-04"),
        ("<meta name=pubdate content='2020/3/4'><time datetime=2019-01-01>", "2020-03-04"),
        ("<meta name=date content='soon'><time datetime='2019-01-01'>", "2019-01-01"),
        ("<time>2018-01-01</time><time datetime=2019.1.31>", "2019-01-31"),
        ("<script>var updated='2011-01-01'</script><p>Last updated: 2021-12-01</p>", "2021-12-01"),
        ("<p>发布时间：2024年1月2日</p>", "2024-01-02"),
        ("<p>Published " + "x" * 80 + " 2021-12-01</p>", None),
        ("<p>Published 2021-13-01</p>", None),
        ("<p>2021-12-01</p>", None),
        ("<p title='Updated 2021-12-01'>", None),
        ("<p title='Updated 2021-12-01'>2020-01-01", None),
        ("", None),
    ],
)
def test_date(page: str, date: str | None) -> None:
    assert date_of(parse(page)) == date


# ---- real pages ------------------------------------------------------------------------------------------------------


def real_pages(step: int) -> list[str]:
    pages = [
        decode(gzip.decompress(file.read_bytes()), "text/html") for file in sorted(PAGES.glob("*/html/*.gz"))[::step]
    ]
    return [page.text.replace("\0", "") for page in pages if page]


@pytest.mark.skipif(not PAGES.is_dir(), reason="CORPUSMILL_TEST_DATA names no folder with web_pages/")
def test_shown_text_of_real_pages_is_that_of_lxml() -> None:
    other = 0
    pages = real_pages(8)
    ignored = re.compile("[\\s\u200b\ufeff\x00-\x1f]+")
    hidden = " or ".join(f"self::{name}" for name in NOT_SHOWN)
    for page in pages:
        parser = lxml.html.HTMLParser(encoding="utf-8", huge_tree=True, remove_comments=True, remove_pis=True)
        tree = lxml.html.document_fromstring(page.encode(), parser=parser).getroottree()
        shown = "".join(tree.xpath(f"//text()[not(ancestor::*[{hidden}])]"))
        other += ignored.sub("", shown) != ignored.sub("", "".join(blocks(page).text))
    assert other <= len(pages) / 25


@pytest.mark.skipif(not PAGES.is_dir(), reason="CORPUSMILL_TEST_DATA names no folder with web_pages/")
def test_titles_of_real_pages_are_those_of_a_soup() -> None:
    other = []
    pages = real_pages(20)
    for page in pages:
        soup = BeautifulSoup(page, "lxml")
        stated = soup.find("meta", property="og:title", content=True)
        headings = soup.find_all("h1")
        places = [str(stated["content"]) if stated else ""]
        places += [headings[0].get_text()] if len(headings) == 1 else []
        places += [soup.title.get_text()] if soup.title else []
        expected = next(("".join(place.split()) for place in places if place.split()), "")
        found = "".join((title_of(parse(page)) or "").split())
        if found != expected[: len(found)] or (not found and expected):
            other.append((found, expected))
    assert len(other) <= len(pages) / 25, other
