"""The flat tree of a page against the standard's examples, trees that were built first, and lxml on real pages."""

from __future__ import annotations

import gzip
import html
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import lxml.html
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from corpus.clean.decode import decode
from corpus.clean.markup import TAGS, Markup, attribute_spans, parse, text_of_run

DATA = Path(os.environ.get("CORPUSMILL_TEST_DATA", "absent"))
TOKENS = DATA / "adversarial" / "html5lib" / "tokenizer"
PAGES = DATA / "web_pages"

NAMES = ["p", "div", "a", "b", "li", "ul", "table", "tr", "td", "br", "script", "title", "h1", "y-z", "svg", "option"]
SOUP = st.lists(
    st.one_of(
        st.sampled_from([f"<{name}>" for name in NAMES] + [f"</{name}>" for name in NAMES]),
        st.sampled_from(["<", ">", "</", "<!", "<!--", "-->", "--!>", "<!-->", "<?", "/>", "<a href='", '"', "=", " "]),
        st.sampled_from(["<p class=a id='b c'>", '<a HREF="x>y">', "&amp;", "&nbsp", "中", "\0", "\ud800", "</script"]),
        st.text(max_size=4),
    ),
    max_size=40,
).map("".join)


def name_of(markup: Markup, element: int) -> str:
    written = markup.source[markup.start[element] + 1 : markup.attributes_start[element]].tobytes()
    return written.lower().decode()


def outline(page: str) -> str:
    """The tree in brackets, as a person would write it down: tags, texts, nothing else."""
    markup = parse(page)
    following: list[list[tuple[int, str]]] = [[] for _ in markup.tag]
    for element in range(len(markup.tag) - 1, 0, -1):
        inside = "".join(text for _, text in sorted(following[element]))
        name = TAGS[markup.tag[element]] or name_of(markup, element)
        texts = [
            (int(start), text_of_run(markup, run))
            for run, start in enumerate(markup.run_start)
            if markup.run_element[run] == element
        ]
        inside = "".join(text for _, text in sorted(following[element] + texts))
        following[markup.parent[element]].append((int(markup.start[element]), f"{name}({inside})"))
    texts = [(int(s), text_of_run(markup, r)) for r, s in enumerate(markup.run_start) if markup.run_element[r] == 0]
    return "".join(text for _, text in sorted(following[0] + texts))


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        # tokens
        ("a < b <3 </ c", "a < b <3 "),
        ("a<!-- b -- > c -->d<!-->e<!--->f<!-- --!>g<!-- h", "adefg"),
        ("a<!b>c<?d>e</3 f>g</>h<![CDATA[i]]>j<!doctype html>k", "acegh" + "jk"),
        ("<a title='>' href=\"<b>\" c=d/>e", "a(e)"),
        ("<br/>a<hr />b<img src=x>c<div/>d", "br()ahr()bimg()cdiv(d)"),
        ("a<b c='d", "a"),
        ("a<", "a<"),
        ("a</", "a</"),
        ("a<!", "a"),
        ("&lt;p&gt; &amp;amp; 3<4", "<p> &amp; 3<4"),
        # raw text
        ("<script>a<b></scrip></SCRIPT >c", "script(a<b></scrip>)c"),
        ("<script><!-- <script> </script> --></script>a", "script(<!-- <script> </script> -->)a"),
        ("<script><!-- </script>a", "script(<!-- )a"),
        ("<script><!--> <script> </script>a", "script(<!--> <script> )a"),
        ("<style>p>a{}</style><xmp><b>&amp;</xmp><title>a<b>&amp;</title>", "style(p>a{})xmp(<b>&amp;)title(a<b>&)"),
        ("<textarea><p>a</textarea>b", "textarea(<p>a)b"),
        ("<plaintext>a</plaintext>", "plaintext(a</plaintext>)"),
        ("<noscript><p>a</noscript>b", "noscript(p(a))b"),
        # implied end tags
        ("<p>a<p>b<div>c</div>d", "p(a)p(b)div(c)d"),
        ("<p><b>a<p>b", "p(b(a))p(b)"),
        ("<ul><li>a<li>b<ul><li>c</ul>d<li>e</ul>f", "ul(li(a)li(bul(li(c))d)li(e))f"),
        ("<li><div><li>a", "li(div())li(a)"),
        ("<dl><dt>a<dd>b<dt>c</dl>d", "dl(dt(a)dd(b)dt(c))d"),
        ("<select><option>a<option>b<optgroup><option>c</select>d", "select(option(a)option(b)optgroup(option(c)))d"),
        ("<h1>a<h2>b</h3>c", "h1(a)h2(b)c"),
        ("a</p>b</br>c", "ap()bbr()c"),
        ("<button>a<button>b", "button(a)button(b)"),
        # tables
        (
            "<table><tr><td>a<td>b<tr><th>c<tbody><tr><td>d</table>e",
            "table(tr(td(a)td(b))tr(th(c))tbody(tr(td(d))))e",
        ),
        (
            "<table><caption>a<tr><td><p>b<table><tr><td>c</table>d<td>e",
            "table(caption(a)tr(td(p(b)table(tr(td(c)))d)td(e)))",
        ),
        ("<table><tr><td>a</div></table></table>b", "table(tr(td(a)))b"),
        ("<div><table><tr><td>a</div>b</table>c</div>d", "div(table(tr(td(ab)))c)d"),
        # end tags
        ("<div><p>a</div>b", "div(p(a))b"),
        ("<b><i>a</b>b</i>c", "b(i(a))bc"),
        ("<a href=x><div>a</a>b</div>c", "a(div(ab))c"),
        ("<a>a<a>b</a>c", "a(a)a(b)c"),
        ("<form><div>a</form>b</div>c", "form(div(ab))c"),
        ("<x-a><x-b>a</x-a>b</x-b>c", "x-a(x-b(a))bc"),
        ("<span><p>a</span>b</p>c", "span(p(ab))c"),
        ("</div>a</x></b>b", "ab"),
        # document
        ("<html><head><title>a</title><p>b</head></body>c</html>d", "html(head(title(a))p(bcd))"),
        ("<head> <body b><body><html>c", "head( )body(c)"),
        ("<head> a<link><title>b</title>", "head() alink()title(b)"),
        ("<head><noscript><div></head><body>a</body>b", "head(noscript(div()))body(ab)"),
        ("<svg><path/><title>a</title><p>b", "svg(path()title(a))p(b)"),
        ("<svg><foreignObject><p>a</p></svg>b", "svg(foreignobject(p(a)))b"),
    ],
)
def test_small_pages(page: str, expected: str) -> None:
    assert outline(page) == expected


TREES = st.recursive(
    st.one_of(st.sampled_from(["a", " b ", "中", "1<2", "&", "'"]), st.just(("br", {}, None))),
    lambda inside: st.tuples(
        st.sampled_from(["div", "span", "section", "x-y", "em", "td"]),
        st.dictionaries(st.sampled_from(["class", "id", "data-x"]), st.sampled_from(["", "a b", "<p>", "&\"'", "/"])),
        st.lists(inside, max_size=4),
    ).filter(lambda node: node[0] != "td"),
    max_leaves=30,
)


@given(st.lists(TREES, max_size=4))
def test_a_tree_that_is_written_down_is_read_again(trees: list) -> None:
    expected: list[tuple[str, int, dict[str, str], str]] = []  # name, parent, attributes, own text

    def write(node: object, parent: int) -> str:
        if isinstance(node, str):
            name, above, attributes, text = expected[parent]
            expected[parent] = (name, above, attributes, text + node)
            return html.escape(node)
        assert isinstance(node, tuple)
        name, attributes, children = node
        expected.append((name, parent, attributes, ""))
        index = len(expected) - 1
        tag = name + "".join(f' {key}="{html.escape(value)}"' for key, value in attributes.items())
        return f"<{tag}>" if children is None else f"<{tag}>{''.join(write(c, index) for c in children)}</{name}>"

    expected.append(("", -1, {}, ""))
    markup = parse("".join(write(tree, 0) for tree in trees))
    wanted = ("class", "id", "data-x")
    spans = attribute_spans(markup, wanted)
    found = [
        (
            name_of(markup, element) if element else "",
            int(markup.parent[element]),
            {
                name: html.unescape(markup.source[start:end].tobytes().decode())
                for name, (start, end) in zip(wanted, spans[element].tolist(), strict=True)
                if start >= 0
            },
            "".join(text_of_run(markup, run) for run in np.flatnonzero(markup.run_element == element)),
        )
        for element in range(len(markup.tag))
    ]
    assert found == expected


def assert_sound(markup: Markup) -> None:
    """What holds for the arrays whatever the page is."""
    indices = np.arange(len(markup.tag))
    assert (markup.parent[1:] < indices[1:]).all()
    assert (markup.parent[1:] >= 0).all()
    assert (markup.depth[1:] == markup.depth[markup.parent[1:]] + 1).all()
    ends = [1] * len(indices)  # of the subtrees, from the parents alone
    for element in indices[:0:-1]:
        ends[element] = max(ends[element], int(element) + 1)
        ends[markup.parent[element]] = max(ends[markup.parent[element]], ends[element])
    assert markup.subtree_end.tolist() == ends
    assert markup.deepest == markup.depth.max()
    assert (markup.start[1:-1] < markup.start[2:]).all()
    places = np.stack([markup.attributes_start[1:], markup.attributes_end[1:]])
    assert (np.diff(places, axis=0) >= 0).all()
    assert places.size == 0 or (places.min() >= 0 and places.max() < len(markup.source))
    assert (markup.run_start < markup.run_end).all()
    assert (markup.run_end[:-1] <= markup.run_start[1:]).all()
    assert len(markup.run_end) == 0 or markup.run_end[-1] <= len(markup.source)
    for element, start in zip(markup.run_element, markup.run_start, strict=True):
        assert markup.attributes_end[element] <= start or element == 0


@given(SOUP)
@example("")
@example("\0")
@example("<html><body><p>" * 3)
def test_any_string_gives_a_sound_tree(page: str) -> None:
    markup = parse(page)
    assert_sound(markup)
    for run in range(len(markup.run_start)):
        text_of_run(markup, run)
    attribute_spans(markup, ("class", "href"))


@given(st.text())
def test_text_without_markup_is_one_run(page: str) -> None:
    page = page.replace("<", "")
    markup = parse(page)
    whole = "".join(text_of_run(markup, run) for run in range(len(markup.run_start)))
    assert whole == html.unescape(page)
    assert len(markup.tag) == 1


@given(st.lists(st.sampled_from([*NAMES[:10], *("/" + name for name in NAMES[:10])]), max_size=60))
def test_text_is_neither_lost_nor_doubled(tags: list[str]) -> None:
    page = "".join(f"<{tag}>{number};" for number, tag in enumerate(tags))
    markup = parse(page)
    text = "".join(text_of_run(markup, run) for run in range(len(markup.run_start)))
    assert text == "".join(f"{number};" for number in range(len(tags)))


HOSTILE = {
    "nested": "<div>" * 50_000,
    "paragraphs and links": "<p>a<a href=x>b</a>" * 300_000,
    "attributes": "<p " + " ".join(f"a{i}=b" for i in range(100_000)) + ">x",
    "unclosed": "<p>a<div>b<a>c<b>d" * 20_000 + "</p></a></b>" * 20_000,
    "less than": "<" * 1_000_000,
    "comments": "<!--" * 1_000_000,
    "quotes": '<a "' * 1_000_000,
    "open quotes": '<a href="' * 100_000,
    "foreign end tags": "<y>" * 200_000 + "</x>" * 200_000,
    "other names": "".join(f"<y{i % 5_000}>" for i in range(100_000))
    + "".join(f"</y{i % 7_000}>" for i in range(200_000)),
    "late ends": "<form><a><div></form></a>" * 50_000,
    "tables": "<table><tr><td>" * 50_000 + "</tr>" * 50_000,
    "scripts": "<script><!--<script></scrip" * 100_000,
    "raw ends": "<title></titl" * 100_000,
    "foreign": "<svg><p>" * 100_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pages_take_no_time(name: str) -> None:
    parse("<p>")  # compiled before
    began = time.process_time()
    markup = parse(HOSTILE[name])
    # Each takes 0.1 s at most on any machine of today; what is not linear would take minutes.
    assert time.process_time() - began < 5
    assert markup.subtree_end[0] == len(markup.tag)


def test_what_a_guard_wants_to_know() -> None:
    markup = parse("<div><p>a<br><b c d=e f></b></div><i g='>'>")
    assert (markup.deepest, markup.longest_tag, markup.most_attributes) == (3, 11, 3)
    assert parse("<a " + "b " * 100).most_attributes == 100
    assert parse("<a " + "b " * 100).longest_tag >= 203


def test_lone_surrogates_are_replaced() -> None:
    assert text_of_run(parse("a\ud800b"), 0) == "a\ufffdb"


def test_kernels_stay_within_their_arrays(tmp_path: Path) -> None:
    """Numba checks no index by itself; one read beyond a page's end would be silent."""
    script = f"""
import itertools, random
from corpus.clean.blocks import blocks_of, date_of, title_of
from corpus.clean.markup import parse
pieces = {["<", ">", "</", "p", "a", "=", "'", "!", "--", " ", "中", "&", "#", ";"]!r}
pages = ["".join(some) for n in range(3) for some in itertools.product(pieces, repeat=n)]
pages += ["<script><!--<script" , "<script><!-", "<title>a</titl", "<p>" * 500 + "</p>" * 500, "<tt>a<p>b" * 50]
pages += ["a" + "<br>" * 9 + "&nbsp;b", "<pre>\\n \\n</pre>\\u200b\\ufeff\\u3000", "<p style=display:non>"]
some = random.Random(0)
pages += ["".join(some.choices(pieces, k=some.randrange(3, 9))) for _ in range(1_000)]
for page in pages:
    for whole in (page, "<p>" + page, "<p " + page + ">a", "<code>" + page + "</code>"):
        markup = parse(whole)
        blocks_of(markup, mark_code=True)
    title_of(markup), date_of(markup)
"""
    environment = os.environ | {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)


# ---- the standard's own examples and real pages ----------------------------------------------------------------------


def unescaped(value: object, twice: bool) -> str:
    text = str(value)
    return re.sub(r"\\u([0-9A-Fa-f]{4})", lambda found: chr(int(found[1], 16)), text) if twice else text


def token_cases() -> list[tuple[str, str, str, list]]:
    """Description, page, expected characters and expected start tags, for the states a page can be in."""
    openings = {"Data state": "", "RCDATA state": "<{}>", "RAWTEXT state": "<{}>", "Script data state": "<{}>"}
    usual = {"RCDATA state": "title", "RAWTEXT state": "xmp", "Script data state": "script"}
    cases = []
    for file in sorted(TOKENS.glob("*.test")):
        for test in json.loads(file.read_text("utf-8"))["tests"]:
            twice = test.get("doubleEscaped", False)
            page = unescaped(test["input"], twice).replace("\r\n", "\n").replace("\r", "\n")
            characters = "".join(unescaped(token[1], twice) for token in test["output"] if token[0] == "Character")
            tags = [
                (unescaped(token[1], twice), {unescaped(k, twice): unescaped(v, twice) for k, v in token[2].items()})
                for token in test["output"]
                if token[0] == "StartTag"
            ]
            for state in test.get("initialStates", ["Data state"]):
                name = test.get("lastStartTag", usual.get(state))
                if state in openings and (state == "Data state" or name == usual[state]):
                    prefix = openings[state].format(name)
                    cases.append((f"{state}: {test['description']}", prefix + page, characters, tags))
    return cases


@pytest.mark.skipif(not TOKENS.is_dir(), reason="CORPUSMILL_TEST_DATA names no folder with adversarial/html5lib")
def test_tokens_of_the_html5lib_tests() -> None:
    cases = token_cases()
    wrong = []
    for description, page, characters, tags in cases:
        markup = parse(page)
        found = "".join(text_of_run(markup, run) for run in range(len(markup.run_start)))
        names = [name_of(markup, element).replace("\0", "\ufffd") for element in range(1, len(markup.tag))]
        attributes = [attributes_of(markup, element) for element in range(1, len(markup.tag))]
        before = 0 if description.startswith("Data") else 1  # the tag that leads to the state
        if "&#" in page:  # Python drops what the standard calls an error and keeps
            characters = "".join(c for c in characters if c == "&" or html.unescape(f"&#{ord(c)};"))
        found, characters = found.replace("\0", "\ufffd"), re.sub("[\0\ud800-\udfff]", "\ufffd", characters)
        if found != characters or list(zip(names, attributes, strict=True))[before:] != tags:
            wrong.append((description, page, found, characters))
    assert len(cases) > 2_000
    assert wrong == []


def attributes_of(markup: Markup, element: int) -> dict[str, str]:
    """Names and values of all attributes, by an expression of its own."""
    written = markup.source[markup.attributes_start[element] : markup.attributes_end[element]].tobytes().decode()
    pattern = r"""[_/]*([^_/][^_/=]*)(?:[_]*=[_]*(?:"([^"]*)"|'([^']*)'|([^_]*)))?""".replace("_", r" \t\n\f\r")
    found: dict[str, str] = {}
    for name, *values in re.findall(pattern, written):
        name = re.sub("[A-Z]", lambda letter: letter[0].lower(), name).replace("\0", "\ufffd")
        found.setdefault(name, html.unescape("".join(values)).replace("\0", "\ufffd"))
    return found


def visible_text(page: str) -> str:
    """All text outside scripts and styles as lxml reads the page, without white space."""
    parser = lxml.html.HTMLParser(encoding="utf-8", huge_tree=True, remove_comments=True, remove_pis=True)
    tree = lxml.html.document_fromstring(page.encode(), parser=parser).getroottree()
    return "".join("".join(tree.xpath("//text()[not(parent::script or parent::style)]")).split())


@pytest.mark.skipif(not PAGES.is_dir(), reason="CORPUSMILL_TEST_DATA names no folder with web_pages/")
def test_text_of_real_pages_is_that_of_lxml() -> None:
    other = []
    files = sorted(PAGES.glob("*/html/*.gz"))[::4]
    for file in files:
        decoded = decode(gzip.decompress(file.read_bytes()), "text/html")
        assert decoded is not None
        markup = parse(decoded.text)
        unseen = [TAGS.index("script"), TAGS.index("style")]
        runs = np.flatnonzero(~np.isin(markup.tag[markup.run_element], unseen))
        text = "".join("".join(text_of_run(markup, run) for run in runs.tolist()).split())
        if text != visible_text(decoded.text.replace("\0", "")):
            other.append(file.name)
    # Over all 630 pages one differs: lxml shows a script of it as text.
    assert len(other) <= len(files) / 100, other
