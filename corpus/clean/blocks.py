"""The text of a page in blocks, as a browser would lay them out; its title and date."""

from __future__ import annotations

import functools
import html
import itertools
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from corpus.clean.markup import TAGS, Markup, attribute_spans, parse, text_of_run

_BLOCK_TAGS = frozenset(
    re.findall(
        r"\w+",
        "html head body address article aside blockquote caption center dd details dialog dir div dl dt fieldset "
        "figcaption figure footer form h1 h2 h3 h4 h5 h6 header hgroup hr legend li listing main marquee menu nav "
        "ol optgroup option p plaintext pre search section select summary table tbody td textarea tfoot th thead tr ul "
        "xmp",
    )
)
_NOT_SHOWN_TAGS = frozenset(
    re.findall(
        r"\w+", "script style template noscript title iframe noembed noframes datalist svg audio video canvas rp rt"
    )
)
PREFORMATTED_TAGS = frozenset({"pre", "listing", "xmp", "plaintext"})
CODE_TAGS = frozenset({"code", "tt"})

# What the text of an element is, in bits; all but the first three pass from an element to those in it.
_BLOCK, _LINE_BREAK, _ANCHOR, _NOT_SHOWN, _PREFORMATTED, _CODE, _HIDDEN, _LINK = (1 << bit for bit in range(8))
_OWN = _BLOCK | _LINE_BREAK | _ANCHOR
CODE_MARK = "\x01"  # before and after inline code; no text of a page holds it
_LONGEST_ENTITY = 33  # bytes

_MOST_META = 1000  # elements that are looked at for the title or the date
_DATE = re.compile(r"(?<!\d)((?:19|20)\d\d)[-/.年](\d{1,2})[-/.月](\d{1,2})(?!\d)")
_SPEAKS_OF_DATE = re.compile("更新|发布|發布|[Pp]ublished|[Uu]pdated")
_DATED = tuple(word.encode() for word in ("更新", "发布", "發布", "ublished", "pdated"))  # where to look for such lines
_LONGEST_DATE_LINE = 80  # characters
_LONGEST_TITLE = 500
_LONGEST_VALUE = 4000  # bytes of an attribute's value that are looked at


class Blocks(NamedTuple):
    """The text blocks of a page in document order: inline text between two borders of block-level elements.

    Text that no browser shows for what it is (scripts, styles, templates, noscript, titles, fallbacks of media) is in
    no block. Text of hidden elements is, and counted: `hidden`, `aria-hidden=true`, `display: none`.
    """

    text: list[str]  # white space collapsed unless preformatted; a `<br>` is a line break; entities decoded
    element: npt.NDArray[np.int32]  # the block-level element that it stands in directly
    first_run: npt.NDArray[np.int32]  # its text is in runs from here
    end_run: npt.NDArray[np.int32]  # to before here; unshown ones in between are none of it
    chars: npt.NDArray[np.int32]  # characters of `text`, an entity counted as one
    link_chars: npt.NDArray[np.int32]  # of them, those in links
    hidden_chars: npt.NDArray[np.int32]  # of them, those in hidden elements


def blocks_of(markup: Markup, mark_code: bool = False) -> Blocks:
    """The blocks of a page; on demand with a CODE_MARK before and after inline code, counted as no character.

    >>> blocks = blocks_of(parse("<div>One<br>two <p>thr<b>ee</b> <a href=x>f&ouml;ur</a></p><pre> f\\n  g</pre>"))
    >>> blocks.text
    ['One\\ntwo', 'three föur', ' f\\n  g']
    >>> blocks.chars.tolist(), blocks.link_chars.tolist()
    ([7, 10, 6], [0, 4, 0])
    """
    spans = attribute_spans(markup, ("href", "hidden", "aria-hidden", "style"))
    kinds, holders = _look_at_elements(markup.source, markup.tag, markup.parent, spans, _kinds())
    written, *columns = _collect(
        *(markup.source, markup.start, kinds, holders),
        *(markup.run_element, markup.run_start, markup.run_end, mark_code),
    )
    text = written.tobytes().decode()
    if "&" in text:
        text = html.unescape(text)
    return Blocks(text.replace("\xa0", " ").split("\0")[:-1], *columns)


def nearest(markup: Markup, tags: frozenset[str]) -> npt.NDArray[np.int32]:
    """For each element the nearest one with such a tag among itself and its ancestors; -1 where there is none.

    >>> nearest(parse("<table><tr><td>a<b>b</b></table>"), frozenset({"tr", "table"})).tolist()
    [-1, 1, 2, 2, 2]
    """
    return np.asarray(_nearest(markup.tag, markup.parent, _are_among(tags)))


@functools.cache
def _are_among(tags: frozenset[str]) -> npt.NDArray[np.bool_]:
    return np.array([tag in tags and tag != "" for tag in TAGS])


@functools.cache
def _kinds() -> npt.NDArray[np.uint8]:
    kinds = np.zeros(len(TAGS), np.uint8)
    for bit, tags in (
        *((_BLOCK, _BLOCK_TAGS), (_LINE_BREAK, {"br"}), (_ANCHOR, {"a"}), (_NOT_SHOWN, _NOT_SHOWN_TAGS)),
        *((_PREFORMATTED, PREFORMATTED_TAGS), (_CODE, CODE_TAGS)),
    ):
        kinds[[TAGS.index(tag) for tag in tags]] |= bit
    return kinds


@njit(nogil=True, cache=True)
def _nearest(tag, parent, wanted):
    found = np.full(len(tag), -1, np.int32)
    for element in range(len(tag)):
        if wanted[tag[element]]:
            found[element] = element
        elif parent[element] >= 0:
            found[element] = found[parent[element]]
    return found


@njit(nogil=True, cache=True)
def _is_space(byte):
    return byte == 32 or byte == 10 or byte == 9 or byte == 13 or byte == 12


@njit(nogil=True, cache=True)
def _stands_at(source, i, end, word):
    """Whether a lower-case ASCII word stands from i to before end, whatever its case."""
    if i + len(word) > end:
        return False
    for at in range(len(word)):
        byte = source[i + at]
        if (byte | 32 if 65 <= byte <= 90 else byte) != word[at]:
            return False
    return True


@njit(nogil=True, cache=True)
def _says_display_none(source, i, end):
    while i < end:
        if _stands_at(source, i, end, b"display"):
            i += 7
            while i < end and (_is_space(source[i]) or source[i] == 58):
                i += 1
            if _stands_at(source, i, end, b"none"):
                return True
        else:
            i += 1
    return False


@njit(nogil=True, cache=True)
def _look_at_elements(source, tag, parent, spans, kinds_of_tags):
    """Bits of each element's text, and the nearest block-level element, itself included."""
    kinds, holders = np.zeros(len(tag), np.uint8), np.zeros(len(tag), np.int32)
    for element in range(1, len(tag)):
        kind = np.int64(kinds_of_tags[tag[element]]) | (np.int64(kinds[parent[element]]) & ~_OWN)
        if kind & _ANCHOR and spans[element, 0, 0] >= 0:
            kind |= _LINK
        if (
            spans[element, 1, 0] >= 0
            or _stands_at(source, spans[element, 2, 0], spans[element, 2, 1], b"true")
            or _says_display_none(source, spans[element, 3, 0], spans[element, 3, 1])
        ):
            kind |= _HIDDEN
        kinds[element] = kind
        holders[element] = element if kind & _BLOCK else holders[parent[element]]
    return kinds, holders


@njit(nogil=True, cache=True)
def _entity(source, i, end):
    """Length in bytes of the entity at i, 1 for a mere `&`; and whether it is 1: white space, 2: of no width."""
    length = 1
    while length < _LONGEST_ENTITY and i + length < end:
        byte = source[i + length]
        if byte == 59:
            length += 1
            break
        if not (97 <= byte | 32 <= 122 or 48 <= byte <= 57 or (byte == 35 and length == 1)):
            return 1, 0
        length += 1
    if source[i + length - 1] != 59:
        return (5, 1) if _stands_at(source, i, end, b"&nbsp") else (1, 0)
    if source[i + 1] == 35:
        base = 16 if source[i + 2] | 32 == 120 else 10
        value = np.int64(0)
        for at in range(i + 2 + (base == 16), i + length - 1):
            digit = np.int64(source[at]) - 48 if source[at] <= 57 else (np.int64(source[at]) | 32) - 87
            if not 0 <= digit < base:
                return 1, 0
            value = min(value * base + digit, np.int64(0x110000))
        if value == 160 or value == 32 or 9 <= value <= 13 or value == 0x3000 or 0x2000 <= value <= 0x200A:
            return length, 1
        return length, 2 if value == 0x200B or value == 0xFEFF else 0
    for name in (b"&nbsp;", b"&ensp;", b"&emsp;", b"&thinsp;"):
        if len(name) == length and _stands_at(source, i, end, name):
            return length, 1
    return length, 0


@njit(nogil=True, cache=True)
def _collect(source, start, kinds, holders, run_element, run_start, run_end, marks):
    """The blocks' texts, each with a 0 byte behind it, and their columns.

    A byte is never written twice, and a line break, mark or end of a block only where a tag was, so there is room.
    """
    written = np.empty(len(source) + 4, np.uint8)
    n_runs = len(run_start)
    columns = np.empty((6, n_runs), np.int32)
    n_blocks, at, element = 0, 0, 1
    begin, chars, link_chars, hidden_chars = 0, 0, 0, 0  # of the block under way, whose bytes begin there
    first_run, last_run, holder = 0, 0, -1
    border, line_breaks, space, in_code, has_text = False, 0, False, False, False
    for run in range(n_runs + 1):
        if run < n_runs:
            while element < len(start) and start[element] < run_start[run]:
                if not kinds[element] & _NOT_SHOWN:
                    border |= kinds[element] & _BLOCK != 0
                    line_breaks += kinds[element] & _LINE_BREAK != 0
                element += 1
            kind = kinds[run_element[run]]
            if kind & _NOT_SHOWN:
                continue
            border |= holders[run_element[run]] != holder
        if border or run == n_runs:
            at = at if has_text else begin
            while at > begin and _is_space(written[at - 1]):
                at -= 1
                chars -= 1
        if (border or run == n_runs) and at > begin:
            if in_code:
                written[at] = 1
                at += 1
            written[at] = 0
            at += 1
            columns[0, n_blocks], columns[1, n_blocks], columns[2, n_blocks] = holder, first_run, last_run + 1
            columns[3, n_blocks] = chars
            columns[4, n_blocks], columns[5, n_blocks] = min(link_chars, chars), min(hidden_chars, chars)
            n_blocks += 1
        if run == n_runs:
            break
        if border:
            begin, chars, link_chars, hidden_chars, holder = at, 0, 0, 0, holders[run_element[run]]
            line_breaks, space, in_code, has_text = 0, False, False, False
        border = False
        preformatted = kind & _PREFORMATTED != 0
        is_code = marks and kind & _CODE != 0 and not preformatted
        if in_code and not is_code:
            written[at] = 1
            at += 1
            in_code = False
        i, end = np.int64(run_start[run]), np.int64(run_end[run])
        before, carried = chars, space  # a space from before the run is none of its characters
        while i < end:
            byte = source[i]
            i += 1
            width = 1  # bytes to write; 0: no character; with `blank` a space
            blank = indents = False
            is_text = True
            if byte < 33:
                blank = _is_space(byte)
                width = 1 if blank else 0
                if byte == 13 and i < end and source[i] == 10:
                    continue
            elif byte == 38:
                width, sort = _entity(source, i - 1, end)
                i += width - 1
                blank = indents = sort == 1
                width = 0 if sort == 2 else width
            elif byte >= 0xC2:
                width = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
                i += width - 1
                if byte == 0xC2 and source[i - 1] == 0xA0:
                    blank = indents = True
                elif byte == 0xE3 and source[i - 2] == 0x80 and source[i - 1] == 0x80:
                    # An ideographic space at the beginning of a line indents a paragraph, elsewhere it is meant.
                    blank = not preformatted and (at == begin or line_breaks > 0)
                    is_text = False
                elif (byte == 0xE2 and source[i - 2] == 0x80 and source[i - 1] == 0x8B) or (
                    byte == 0xEF and source[i - 2] == 0xBB and source[i - 1] == 0xBF
                ):
                    width = 0  # a space of no width, a byte order mark
            if width == 0:
                continue
            if blank and not preformatted:
                if line_breaks and indents and at > begin:
                    # An indent by hard spaces: write it after the break.
                    at, chars = _break_line(written, at, chars, line_breaks, in_code)
                    line_breaks, space, in_code = 0, False, False
                    written[at] = 32
                    at += 1
                    chars += 1
                elif indents and at > begin and written[at - 1] == 32:
                    written[at] = 32
                    at += 1
                    chars += 1
                else:
                    space = True
                continue
            if blank and (byte == 10 or byte == 13) and not has_text:
                at, chars, before = begin, 0, 0  # no empty lines before the first
                continue
            if line_breaks and not has_text:
                at, chars, before = begin, 0, 0
            if at == begin:
                first_run = run
                space = False
            elif line_breaks:
                at, chars = _break_line(written, at, chars, line_breaks, in_code)
                space, in_code = False, False
            line_breaks = 0
            has_text |= is_text and not blank
            if space and written[at - 1] != 32:
                written[at] = 32
                at += 1
                chars += 1
                before += carried
            space = carried = False
            if is_code and not in_code:
                written[at] = 1
                at += 1
            in_code = is_code
            last_run = run
            chars += 1
            if blank:
                written[at] = 10 if byte == 13 else 32 if indents else byte
                at += 1
                continue
            for k in range(i - width, i):
                written[at] = source[k]
                at += 1
            while has_text and i < end and 38 < source[i] < 128:  # the rest of a word, the usual case, without ado
                written[at] = source[i]
                at += 1
                chars += 1
                i += 1
        if kind & _LINK:
            link_chars += chars - before
        if kind & _HIDDEN:
            hidden_chars += chars - before
    return (
        written[:at],
        *(columns[0, :n_blocks], columns[1, :n_blocks], columns[2, :n_blocks]),
        *(columns[3, :n_blocks], columns[4, :n_blocks], columns[5, :n_blocks]),
    )


@njit(nogil=True, cache=True)
def _break_line(written, at, chars, line_breaks, in_code):
    """Write one line break, or two for an empty line; white space before it goes. The new `at` and `chars`."""
    while written[at - 1] == 32:
        at -= 1
        chars -= 1
    if in_code:
        written[at] = 1
        at += 1
    if written[at - 1] == 10:
        line_breaks = min(line_breaks, 1 if written[at - 2] != 10 else 0)
    for _ in range(min(line_breaks, 2)):
        written[at] = 10
        at += 1
        chars += 1
    return at, chars


def title_of(markup: Markup) -> str | None:
    """The title as og:title gives it, or else the only `<h1>`, or else `<title>`.

    >>> title_of(parse("<title>A title | A site</title><h1>A <b>title</b></h1>"))
    'A title'
    """
    headings = np.flatnonzero(markup.tag == TAGS.index("h1"))
    is_title = (markup.tag == TAGS.index("title")) & (markup.tag[markup.parent] != TAGS.index("svg"))
    titles = np.flatnonzero(is_title[markup.run_element])
    candidates = itertools.chain(
        _stated(markup, {b"og:title"}),
        (_text_within(markup, int(heading)) for heading in headings if len(headings) == 1),
        (text_of_run(markup, int(run)) for run in titles[:1]),
    )
    for candidate in candidates:
        text = " ".join(candidate.split())
        if text:
            return text[:_LONGEST_TITLE]
    return None


def date_of(markup: Markup) -> str | None:
    """The date that a page states in its metadata, a `<time>`, or a short line about its update, as YYYY-MM-DD.

    >>> date_of(parse("<p class=meta>最后更新：2024年1月2日</p>"))
    '2024-01-02'
    """
    times = np.flatnonzero(markup.tag == TAGS.index("time"))
    spans = attribute_spans(markup, ("datetime",), times)[:, 0]
    candidates = itertools.chain(
        itertools.islice(_stated(markup, {b"article:published_time", b"date", b"pubdate"}), 1),
        (_value(markup, *span) for span in spans[spans[:, 0] >= 0][:1].tolist()),
        _dated_lines(markup),
    )
    for candidate in candidates:
        found = _DATE.search(candidate)
        if found and 1 <= int(found[2]) <= 12 and 1 <= int(found[3]) <= 31:
            return f"{found[1]}-{int(found[2]):02d}-{int(found[3]):02d}"
    return None


def _stated(markup: Markup, names: set[bytes]) -> Iterator[str]:
    """Contents of the `<meta>` elements with such a name or property."""
    elements = np.flatnonzero(markup.tag == TAGS.index("meta"))[:_MOST_META]
    source = markup.source.tobytes()
    for name, prop, content in attribute_spans(markup, ("name", "property", "content"), elements).tolist():
        if content[0] >= 0 and not names.isdisjoint((source[slice(*name)], source[slice(*prop)])):
            yield _value(markup, *content)


def _value(markup: Markup, start: int, end: int) -> str:
    """The first characters of an attribute's value, empty where it is absent."""
    value = markup.source[start : min(end, start + _LONGEST_VALUE)] if start >= 0 else markup.source[:0]
    return html.unescape(value.tobytes().decode(errors="ignore"))


def _text_within(markup: Markup, element: int) -> str:
    """The text of an element on one line."""
    first = int(np.searchsorted(markup.run_start, markup.attributes_end[element]))
    last = first
    while last < len(markup.run_start) and element <= markup.run_element[last] < markup.subtree_end[element]:
        last += 1
    if last == first:
        return ""
    inside = markup.source[markup.run_start[first] : markup.run_end[last - 1]].tobytes().decode()
    return " ".join(blocks_of(parse(inside)).text)


def _dated_lines(markup: Markup) -> Iterator[str]:
    """Short shown texts that speak of an update or a publication."""
    source = markup.source.tobytes()
    places = np.array(sorted(place for word in _DATED for place in _places_of(word, source)), np.int64)
    runs = np.unique(np.searchsorted(markup.run_start, places, side="right") - 1)
    runs = runs[runs >= 0]
    lengths = markup.run_end[runs] - markup.run_start[runs]
    shown = ~np.isin(markup.tag[markup.run_element[runs]], [TAGS.index(tag) for tag in _NOT_SHOWN_TAGS])
    for run in runs[shown & (lengths < 4 * _LONGEST_DATE_LINE)].tolist():
        text = text_of_run(markup, run)
        if len(text) < _LONGEST_DATE_LINE and _SPEAKS_OF_DATE.search(text):
            yield text


def _places_of(word: bytes, source: bytes) -> Iterator[int]:
    at = source.find(word)
    while at >= 0:
        yield at
        at = source.find(word, at + len(word))
