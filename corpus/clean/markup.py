"""A web page as a flat tree, made in one linear pass: for what must be fast, and safe on any string.

Tokens are those of the HTML standard (https://html.spec.whatwg.org/multipage/parsing.html). The tree follows its rules
for implied end tags, scopes and tables, but moves nothing: an inline element whose end tag comes too early ends with
the blocks inside it, and text stays where it stands in the source. So no text is lost or doubled.
"""

from __future__ import annotations

import functools
import html
import re
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

TAGS = (
    *("", "html", "head", "body", "title", "meta", "base", "link", "script", "style", "noscript", "template"),
    *("div", "span", "p", "a", "br", "hr", "img", "h1", "h2", "h3", "h4", "h5", "h6", "hgroup", "pre", "listing"),
    *("ul", "ol", "li", "dir", "menu", "dl", "dt", "dd", "table", "caption", "colgroup", "col", "thead", "tbody"),
    *("tfoot", "tr", "td", "th", "article", "section", "main", "nav", "aside", "header", "footer", "address"),
    *("blockquote", "center", "details", "summary", "dialog", "fieldset", "legend", "figure", "figcaption", "search"),
    *("form", "button", "input", "select", "option", "optgroup", "datalist", "textarea", "label", "output", "progress"),
    *("b", "big", "code", "em", "font", "i", "nobr", "s", "small", "strike", "strong", "tt", "u", "sub", "sup", "var"),
    *("kbd", "samp", "q", "cite", "abbr", "acronym", "dfn", "del", "ins", "mark", "time", "data", "bdi", "bdo", "wbr"),
    *("ruby", "rb", "rt", "rp", "iframe", "object", "applet", "marquee", "embed", "param", "source", "track", "area"),
    *("audio", "video", "canvas", "picture", "map", "svg", "math", "foreignobject", "desc", "frame", "frameset"),
    *("noframes", "noembed", "xmp", "plaintext", "keygen", "basefont", "bgsound"),
)
"""Names of the elements that `Markup.tag` tells apart; 0, the empty name, is the root or any other element."""

# What the standard says of an element, in bits.
_VOID, _RAW, _SPECIAL, _BARRIER, _STOP, _CLOSES_P, _HEADING, _IN_HEAD, _BREAKOUT = (1 << bit for bit in range(9))
_BLOCKS = (
    "address article aside blockquote center details dialog dir div dl fieldset figcaption figure footer form h1 h2 h3 "
    "h4 h5 h6 header hgroup hr li dd dt listing main menu nav ol p plaintext pre search section summary table ul xmp"
)
_KINDS = {
    _VOID: "area base basefont bgsound br col embed frame hr img input keygen link meta param source track wbr",
    _RAW: "script style xmp iframe noembed noframes textarea title",
    _SPECIAL: _BLOCKS + " applet body button caption colgroup html iframe marquee object noscript select tbody td "
    "template textarea tfoot th thead tr",
    _BARRIER: "applet caption table td th marquee object template foreignobject",
    _CLOSES_P: _BLOCKS,
    _HEADING: "h1 h2 h3 h4 h5 h6",
    _IN_HEAD: "base basefont bgsound link meta title script style noscript template noframes",
    _BREAKOUT: _BLOCKS + " b big body br code em embed head i img meta ruby s small span strong strike sub sup tt u "
    "var",
}
_STOPS = frozenset(_KINDS[_SPECIAL].split()) - {"address", "div", "p"}  # a new <li> closes no <li> beyond these

_HTML, _HEAD, _BODY, _P, _A, _BR, _H1, _H6 = map(TAGS.index, ("html", "head", "body", "p", "a", "br", "h1", "h6"))
_LI, _OL, _UL, _DT, _DD, _FORM, _BUTTON = map(TAGS.index, ("li", "ol", "ul", "dt", "dd", "form", "button"))
_TABLE, _CAPTION, _COLGROUP, _TR, _TD, _TH = map(TAGS.index, ("table", "caption", "colgroup", "tr", "td", "th"))
_THEAD, _TBODY, _TFOOT, _TEMPLATE = map(TAGS.index, ("thead", "tbody", "tfoot", "template"))
_OPTION, _OPTGROUP, _SCRIPT, _PLAINTEXT = map(TAGS.index, ("option", "optgroup", "script", "plaintext"))
_SVG, _MATH, _FOREIGN_OBJECT, _DESC = map(TAGS.index, ("svg", "math", "foreignobject", "desc"))

_KNOWN = len(TAGS)
_SLOTS, _UNKNOWN_GROUPS = 1024, 8192  # elements of unknown names are told apart by a hash of the name
_HASH_START, _HASH_FACTOR, _HASH_MASK = 2166136261, 16777619, 0xFFFFFFFF  # FNV-1a of 32 bits

# Columns of the stack of open elements. The last three hold the level of the nearest such element, itself included.
_ELEMENT, _GROUP, _SAME, _ENDED, _NEAREST_BARRIER, _NEAREST_SPECIAL, _NEAREST_STOP = range(7)

_SURROGATE = re.compile("[\ud800-\udfff]")


class Markup(NamedTuple):
    """A page. Elements and text runs are in document order; element 0 is a root that no tag stands for.

    An element's descendants are those from its own index + 1 to `subtree_end`, so that a sum over a subtree is a
    difference of prefix sums. Positions are in bytes of `source`.
    """

    source: npt.NDArray[np.uint8]  # the page as UTF-8
    tag: npt.NDArray[np.uint8]  # index into TAGS
    parent: npt.NDArray[np.int32]  # the root's is -1
    subtree_end: npt.NDArray[np.int32]  # index after the last descendant
    depth: npt.NDArray[np.int32]  # the root's is 0
    start: npt.NDArray[np.int32]  # where its start tag begins, at `<`; an element with no tag of its own: where it is
    attributes_start: npt.NDArray[np.int32]  # after the tag's name
    attributes_end: npt.NDArray[np.int32]  # at its `>`
    run_element: npt.NDArray[np.int32]  # the element that a stretch of text stands in; scripts and white space too
    run_start: npt.NDArray[np.int32]
    run_end: npt.NDArray[np.int32]
    deepest: int  # levels of nesting, the root's not counted
    longest_tag: int  # bytes from `<` to `>`, an unfinished tag at the end included
    most_attributes: int  # in one tag


def parse(page: str) -> Markup:
    """The elements and text runs of a page or fragment, whatever string it is. At most 2 GiB.

    Runs hold entities as they are written; `text_of_run` decodes them. Lone surrogates become U+FFFD. What stands in
    `<script>`, `<style>`, `<title>` and their like is one run.

    >>> markup = parse("<ul class=a><li>one<li>t<b>w</b>o</ul> &amp; <img src='>'><script>1<2</script>")
    >>> [TAGS[tag] for tag in markup.tag]
    ['', 'ul', 'li', 'li', 'b', 'img', 'script']
    >>> markup.parent.tolist()
    [-1, 0, 1, 1, 3, 0, 0]
    >>> [(int(element), text_of_run(markup, run)) for run, element in enumerate(markup.run_element)]
    [(2, 'one'), (3, 't'), (4, 'w'), (3, 'o'), (0, ' & '), (6, '1<2')]
    """
    try:
        source = np.frombuffer(page.encode(), np.uint8)
    except UnicodeEncodeError:
        source = np.frombuffer(_SURROGATE.sub("\ufffd", page).encode(), np.uint8)
    return Markup(source, *_parse(source, *_known_names(), _kinds()))


def text_of_run(markup: Markup, run: int) -> str:
    """The text of one run, entities decoded where its element has any."""
    text = markup.source[markup.run_start[run] : markup.run_end[run]].tobytes().decode()
    return text if TAGS[markup.tag[markup.run_element[run]]] in _WITHOUT_ENTITIES else html.unescape(text)


_WITHOUT_ENTITIES = frozenset(["script", "style", "xmp", "iframe", "noembed", "noframes", "plaintext"])


def attribute_spans(
    markup: Markup, names: tuple[str, ...], elements: npt.NDArray[np.integer] | slice = slice(None)
) -> npt.NDArray[np.int32]:
    """Where the values of some attributes stand: an array of (elements, names, 2), byte positions; -1 where absent.

    Of all elements, or of those given. The bytes are as written: entities are not decoded.

    >>> markup = parse("<p id=x class='a b'><p CLASS>")
    >>> attribute_spans(markup, ("class", "id")).tolist()
    [[[-1, -1], [-1, -1]], [[15, 18], [6, 7]], [[28, 28], [-1, -1]]]
    """
    wanted = np.array([_hash_of(name) for name in names], np.int64)
    starts, ends = markup.attributes_start[elements], markup.attributes_end[elements]
    return np.asarray(_attribute_spans(markup.source, starts, ends, wanted))


@functools.cache
def _kinds() -> npt.NDArray[np.int32]:
    kinds = np.zeros(_KNOWN, np.int32)
    for bit, names in (*_KINDS.items(), (_STOP, " ".join(sorted(_STOPS)))):
        for name in names.split():
            kinds[TAGS.index(name)] |= bit
    return kinds


@functools.cache
def _known_names() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """The names' hashes and tags, each in the first free slot from its hash on."""
    hashes, tags = np.zeros(_SLOTS, np.int64), np.zeros(_SLOTS, np.uint8)
    for tag, name in enumerate(TAGS[1:], 1):
        slot = _hash_of(name) % _SLOTS
        while tags[slot]:
            slot = (slot + 1) % _SLOTS
        hashes[slot], tags[slot] = _hash_of(name), tag
    return hashes, tags


def _hash_of(name: str) -> int:
    """As `_name_hash` in the kernel."""
    hashed = _HASH_START
    for byte in name.encode():
        hashed = ((hashed ^ byte) * _HASH_FACTOR) & _HASH_MASK
    return hashed


@njit(nogil=True, cache=True)
def _is_space(byte):
    return byte == 32 or byte == 10 or byte == 9 or byte == 13 or byte == 12


@njit(nogil=True, cache=True)
def _is_letter(byte):
    return 97 <= byte | 32 <= 122


@njit(nogil=True, cache=True)
def _name_hash(source, start, end):
    hashed = np.int64(_HASH_START)
    for i in range(start, end):
        byte = np.int64(source[i])
        if 65 <= byte <= 90:
            byte |= 32
        hashed = ((hashed ^ byte) * np.int64(_HASH_FACTOR)) & np.int64(_HASH_MASK)
    return hashed


@njit(nogil=True, cache=True)
def _next_attribute(source, i, end):
    """The attribute from i on: start and end of its name and of its value, and where to go on.

    The name's start is -1 where the tag or the source ends; one goes on at its `>` or at `end`.
    """
    while i < end and (_is_space(source[i]) or source[i] == 47):
        i += 1
    if i >= end or source[i] == 62:
        return -1, -1, -1, -1, i
    name = i
    i += 1
    while i < end and not (_is_space(source[i]) or source[i] == 47 or source[i] == 62 or source[i] == 61):
        i += 1
    name_end = i
    while i < end and _is_space(source[i]):
        i += 1
    if i >= end or source[i] != 61:
        return name, name_end, name_end, name_end, name_end
    i += 1
    while i < end and _is_space(source[i]):
        i += 1
    if i < end and (source[i] == 34 or source[i] == 39):
        quote = source[i]
        i += 1
        value = i
        while i < end and source[i] != quote:
            i += 1
        return name, name_end, value, i, min(i + 1, end)
    value = i
    while i < end and not (_is_space(source[i]) or source[i] == 62):
        i += 1
    return name, name_end, value, i, i


@njit(nogil=True, cache=True)
def _attribute_spans(source, starts, ends, wanted):
    spans = np.full((len(starts), len(wanted), 2), -1, np.int32)
    for element in range(len(starts)):
        i, end = np.int64(starts[element]), np.int64(ends[element])
        while True:
            name, name_end, value, value_end, i = _next_attribute(source, i, end)
            if name < 0:
                break
            hashed = _name_hash(source, name, name_end)
            for column in range(len(wanted)):
                if hashed == wanted[column] and spans[element, column, 0] < 0:
                    spans[element, column, 0], spans[element, column, 1] = value, value_end
    return spans


@njit(nogil=True, cache=True)
def _is_comment(source, i):
    """Whether the markup that `<` and another byte before i begin is `<!--`."""
    return i + 1 < len(source) and source[i - 1] == 33 and source[i] == 45 and source[i + 1] == 45


@njit(nogil=True, cache=True)
def _comment_end(source, i):
    """The position after the comment or declaration whose `<!`, `<?` or `</` ends before i."""
    end = len(source)
    if _is_comment(source, i):
        i += 2
        if i < end and source[i] == 62:
            return i + 1
        if i + 1 < end and source[i] == 45 and source[i + 1] == 62:
            return i + 2
        while i + 2 < end:
            if source[i] == 45 and source[i + 1] == 45:
                if source[i + 2] == 62:
                    return i + 3
                if i + 3 < end and source[i + 2] == 33 and source[i + 3] == 62:
                    return i + 4
            i += 1
        return end
    while i < end and source[i] != 62:
        i += 1
    return min(i + 1, end)


@njit(nogil=True, cache=True)
def _has_name(source, i, name, name_end):
    """Whether the tag's name that stands from `name` on stands at i too, whatever its case."""
    end = i + name_end - name
    if end >= len(source) or not (_is_space(source[end]) or source[end] == 47 or source[end] == 62):
        return False
    while name < name_end and source[i] | 32 == source[name] | 32:
        i, name = i + 1, name + 1
    return name == name_end


@njit(nogil=True, cache=True)
def _raw_end(source, i, name, name_end, is_script):
    """Where the end tag of a raw text element begins. A script may hold `<!-- <script> </script> -->`."""
    end = len(source)
    escaped = 0  # 1 within `<!--`, 2 within a `<script>` in that
    while i < end:
        while escaped == 0 and i < end and source[i] != 60:
            i += 1
        if i >= end:
            break
        byte = source[i]
        if byte == 60 and i + 1 < end:
            if source[i + 1] == 47:
                if _has_name(source, i + 2, name, name_end):
                    if escaped < 2:
                        return i
                    escaped = 1
            elif is_script and escaped == 1 and _has_name(source, i + 1, name, name_end):
                escaped = 2
            elif is_script and escaped == 0 and _is_comment(source, i + 2):
                escaped = 1
                i += 1  # its dashes may be those of `-->`
        elif escaped and byte == 45 and i + 2 < end and source[i + 1] == 45 and source[i + 2] == 62:
            escaped = 0
        i += 1
    return end


@njit(nogil=True, cache=True)
def _pop_to(level, top, stack, nearest_open, subtree_end, n_elements):
    """Close the elements from a level of the stack on, and those below that have ended already. Returns the new top."""
    while top > 0 and (top >= level or stack[top, _ENDED]):
        subtree_end[stack[top, _ELEMENT]] = n_elements
        nearest_open[stack[top, _GROUP]] = stack[top, _SAME]
        top -= 1
    return top


@njit(nogil=True, cache=True)
def _level_to_close(tag, stack, top, nearest_open, kinds, current):
    """From which level on the start of an element closes others by implication; top + 1 if it closes none."""
    level = top + 1
    barrier = stack[top, _NEAREST_BARRIER]
    if tag in (_LI, _DT, _DD):
        item = nearest_open[_LI] if tag == _LI else max(nearest_open[_DT], nearest_open[_DD])
        if item > 0 and item >= stack[top, _NEAREST_STOP]:
            level = min(level, item)
    if kinds[tag] & _CLOSES_P and nearest_open[_P] > max(barrier, nearest_open[_BUTTON]):
        level = min(level, nearest_open[_P])
    if kinds[tag] & _HEADING and kinds[current] & _HEADING:
        level = min(level, top)
    if tag == _BUTTON and nearest_open[_BUTTON] > barrier:
        level = min(level, nearest_open[_BUTTON])
    if tag in (_OPTION, _OPTGROUP) and current == _OPTION:
        level = top
    if tag in (_TD, _TH, _TR, _TBODY, _THEAD, _TFOOT, _CAPTION):
        table = max(nearest_open[_TABLE], nearest_open[_TEMPLATE])
        for part in (_TD, _TH, _CAPTION, _COLGROUP, _TR, _TBODY, _THEAD, _TFOOT):
            if (part == _TR and tag in (_TD, _TH)) or (part == _TBODY and tag == _TR):
                break
            if nearest_open[part] > table:
                level = min(level, nearest_open[part])
    return level


@njit(nogil=True, cache=True)
def _close(tag, group, top, stack, nearest_open, kinds, subtree_end, n_elements):
    """Do what an end tag says. An inline element or form with blocks open in it ends when the last of them does."""
    level = nearest_open[group]
    if level <= 0 or tag in (_HTML, _BODY):
        return top
    barrier = stack[top, _NEAREST_BARRIER]
    if tag in (_TABLE, _TD, _TH, _TR, _TBODY, _THEAD, _TFOOT):
        barrier = max(nearest_open[_TABLE], nearest_open[_TEMPLATE])
    elif tag == _LI:
        barrier = max(barrier, nearest_open[_OL], nearest_open[_UL])
    elif tag == _P:
        barrier = max(barrier, nearest_open[_BUTTON])
    elif tag in (_SVG, _MATH):
        barrier = 0
    if level < barrier:
        return top
    if (tag == _FORM or not kinds[tag] & _SPECIAL) and stack[top, _NEAREST_SPECIAL] > level:
        stack[level, _ENDED] = 1
        return top
    return _pop_to(level, top, stack, nearest_open, subtree_end, n_elements)


@njit(nogil=True, cache=True)
def _parse(source, known_hashes, known_tags, kinds):
    length = len(source)
    room = 2  # is enough with one for each `<`: every element and every run ends at one of its own
    for byte in source:
        room += byte == 60
    tag, parent, subtree_end = np.empty(room, np.uint8), np.empty(room, np.int32), np.empty(room, np.int32)
    depth, start = np.empty(room, np.int32), np.empty(room, np.int32)
    attributes_start, attributes_end = np.empty(room, np.int32), np.empty(room, np.int32)
    run_element, run_start, run_end = np.empty(room, np.int32), np.empty(room, np.int32), np.empty(room, np.int32)
    stack = np.empty((room, 7), np.int64)
    nearest_open = np.full(_KNOWN + _UNKNOWN_GROUPS, -1, np.int64)
    tag[0], parent[0], subtree_end[0], depth[0], start[0], attributes_start[0], attributes_end[0] = 0, -1, 0, 0, 0, 0, 0
    stack[0] = 0
    top, n_elements, n_runs, text, i = 0, 1, 0, 0, 0
    longest_tag, most_attributes = 0, 0
    while True:
        # Find the next markup; what stands before it is text.
        following = np.uint8(0)
        while i < length:
            if source[i] == 60:
                following = source[i + 1] if i + 1 < length else np.uint8(0)
                if _is_letter(following) or following == 33 or following == 63 or (following == 47 and i + 2 < length):
                    break
            i += 1
        if text < i:
            if tag[stack[top, _ELEMENT]] == _HEAD:
                for at in range(text, i):
                    if not _is_space(source[at]):
                        top = _pop_to(top, top, stack, nearest_open, subtree_end, n_elements)
                        break
            run_element[n_runs], run_start[n_runs], run_end[n_runs] = stack[top, _ELEMENT], text, i
            n_runs += 1
        if i >= length:
            break
        is_end = following == 47
        name = i + 1 + is_end
        if not _is_letter(source[name]):
            i = _comment_end(source, i + 2) if not (is_end and source[name] == 62) else i + 3
            text = i
            continue
        # A tag.
        tag_start = i
        i = name
        while i < length and not (_is_space(source[i]) or source[i] == 47 or source[i] == 62):
            i += 1
        name_end = last_end = i
        n_attributes = 0
        while True:
            attribute, _, _, _, i = _next_attribute(source, i, length)
            if attribute < 0:
                break
            last_end = i
            n_attributes += 1
        longest_tag = max(longest_tag, i + 1 - tag_start)
        most_attributes = max(most_attributes, n_attributes)
        if i >= length:  # the standard drops an unfinished tag
            break
        self_closing = source[i - 1] == 47 and i - 1 >= last_end
        tag_end = i
        i += 1
        text = i
        hashed = _name_hash(source, name, name_end)
        slot = hashed % _SLOTS
        while known_tags[slot] != 0 and known_hashes[slot] != hashed:
            slot = (slot + 1) % _SLOTS
        kind = np.int64(known_tags[slot])
        group = kind if kind else _KNOWN + (hashed >> 10) % _UNKNOWN_GROUPS
        if is_end:
            if kind == _P and nearest_open[_P] <= max(stack[top, _NEAREST_BARRIER], nearest_open[_BUTTON]):
                attribute = 0  # a stray </p> is an empty paragraph, </br> a line break
            elif kind == _BR:
                attribute = 0
            elif _H1 <= kind <= _H6:
                for other in range(_H1, _H6 + 1):
                    if nearest_open[other] > nearest_open[group]:
                        kind = group = np.int64(other)
            if attribute < 0:
                top = _close(kind, group, top, stack, nearest_open, kinds, subtree_end, n_elements)
                continue
            name_end = tag_end
        # Which of the open elements the new one closes.
        foreign = max(nearest_open[_SVG], nearest_open[_MATH])
        if foreign > 0 and kinds[kind] & _BREAKOUT:
            while foreign > max(nearest_open[_FOREIGN_OBJECT], nearest_open[_DESC]):
                top = _pop_to(foreign, top, stack, nearest_open, subtree_end, n_elements)
                foreign = max(nearest_open[_SVG], nearest_open[_MATH])
        if kind == _BODY and nearest_open[_BODY] < 0 and nearest_open[_HEAD] > 0:
            top = _pop_to(nearest_open[_HEAD], top, stack, nearest_open, subtree_end, n_elements)
        elif tag[stack[top, _ELEMENT]] == _HEAD and not kinds[kind] & _IN_HEAD:
            top = _pop_to(top, top, stack, nearest_open, subtree_end, n_elements)
        current = tag[stack[top, _ELEMENT]]
        if kind in (_HTML, _HEAD, _BODY):
            outermost = top == 0 or (top == 1 and current == _HTML and kind != _HTML)
            if not outermost or nearest_open[_BODY] > 0:
                continue
        if kind == _A:
            top = _close(kind, group, top, stack, nearest_open, kinds, subtree_end, n_elements)
        level = _level_to_close(kind, stack, top, nearest_open, kinds, current)
        if level <= top:
            top = _pop_to(level, top, stack, nearest_open, subtree_end, n_elements)
        # The new element.
        element, holder = n_elements, stack[top, _ELEMENT]
        n_elements += 1
        tag[element], parent[element], depth[element], start[element] = kind, holder, depth[holder] + 1, tag_start
        attributes_start[element], attributes_end[element] = name_end, tag_end
        if kinds[kind] & _VOID or is_end or (self_closing and foreign > 0) or (self_closing and kind == _SVG):
            subtree_end[element] = n_elements
            continue
        below, top = top, top + 1
        stack[top, _ELEMENT], stack[top, _GROUP], stack[top, _ENDED] = element, group, 0
        stack[top, _SAME] = nearest_open[group]
        nearest_open[group] = top
        stack[top, _NEAREST_BARRIER] = top if kinds[kind] & _BARRIER else stack[below, _NEAREST_BARRIER]
        stack[top, _NEAREST_SPECIAL] = top if kinds[kind] & _SPECIAL else stack[below, _NEAREST_SPECIAL]
        stack[top, _NEAREST_STOP] = top if kinds[kind] & _STOP else stack[below, _NEAREST_STOP]
        if kinds[kind] & _RAW:
            i = _raw_end(source, i, name, name_end, kind == _SCRIPT)
            if text < i:
                run_element[n_runs], run_start[n_runs], run_end[n_runs] = element, text, i
                n_runs += 1
                text = i
        elif kind == _PLAINTEXT:
            i = length
    _pop_to(0, top, stack, nearest_open, subtree_end, n_elements)
    subtree_end[0] = n_elements
    return (
        *(tag[:n_elements], parent[:n_elements], subtree_end[:n_elements], depth[:n_elements], start[:n_elements]),
        *(attributes_start[:n_elements], attributes_end[:n_elements]),
        *(run_element[:n_runs], run_start[:n_runs], run_end[:n_runs]),
        *(depth[:n_elements].max(), longest_tag, most_attributes),
    )
