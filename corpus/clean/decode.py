"""Bytes to text, and the guards that keep a hostile page away from the parsers."""

from __future__ import annotations

import codecs
import re

import charset_normalizer

_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_META_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=[\s\"']*([A-Za-z0-9_.:-]{2,40})", re.I)
_HEADER_CHARSET = re.compile(r"charset\s*=[\s\"']*([A-Za-z0-9_.:-]{2,40})", re.I)
_WIDER = {"gb2312": "gb18030", "gbk": "gb18030", "iso8859-1": "cp1252", "ascii": "cp1252", "shift_jis": "cp932"}

MAX_BYTES = 20_000_000
MAX_TAG_CHARS = 65_536
_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9:-]{0,30})[^<>]*?(/?)>")
_LONG_TAG = re.compile(rf"<[a-zA-Z][^<>]{{{MAX_TAG_CHARS},}}")
# Elements without an end tag, and those whose end tag is optional: the parser closes them at the next sibling.
_UNNESTED = frozenset(
    re.findall(
        r"\w+",
        "area base br col embed hr img input link meta param source track wbr "
        "p li dt dd option optgroup tr td th thead tbody tfoot colgroup",
    )
)
# An end tag that meets an open element of a higher rank than its own closes nothing (libxml2's rule).
_RANK = {"div": 1, "table": 2, "head": 3, "body": 3, "html": 4}


def decode(body: bytes, content_type: str | None = None) -> str | None:
    """Text of a page: byte order mark, then strict UTF-8, then the declared charset if it fits, then a guess.

    None if it is in no encoding we can tell. A wrong declaration does no harm: strict UTF-8 comes first.

    >>> decode("<meta charset=utf-8>青禾".encode("gbk"))
    '<meta charset=utf-8>青禾'
    >>> decode("naïve".encode("latin-1"), "text/html; charset=iso-8859-1")
    'naïve'
    """
    for mark, encoding in _BOMS:
        if body.startswith(mark):
            return body[len(mark) :].decode(encoding, "replace")
    for encoding in ("utf-8", *_declared(body, content_type)):
        try:
            return body.decode(encoding)
        except (UnicodeDecodeError, LookupError):
            continue
    # Chinese pages come in GBK far more often than in whatever else their bytes could be.
    best = charset_normalizer.from_bytes(body).best()
    guessed = str(best) if best else None
    try:
        chinese = body.decode("gb18030")
    except UnicodeDecodeError:
        return guessed
    return chinese if guessed is None or _common_han(chinese) >= _common_han(guessed) else guessed


_COMMON_HAN = frozenset("的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之")


def _common_han(text: str) -> float:
    """Share of the commonest Chinese characters among those that are not ASCII."""
    foreign = [character for character in text if character > "\x7f"]
    return sum(character in _COMMON_HAN for character in foreign) / len(foreign) if foreign else 0.0


def _declared(body: bytes, content_type: str | None) -> list[str]:
    """The charsets that the header and the page name, in that order, read as browsers read them."""
    names = _HEADER_CHARSET.findall(content_type or "")
    names += [name.decode("ascii") for name in _META_CHARSET.findall(body[:4096])]
    found = []
    for name in names:
        try:
            canonical = codecs.lookup(name).name
        except LookupError:
            continue
        if canonical not in (
            "utf-8",
            "utf-16",
            "utf-16-le",
            "utf-16-be",
            "utf-32",
        ):  # tried, or contradicted by its bytes
            found.append(_WIDER.get(canonical, canonical))
    return found


def scrub_surrogates(text: str) -> str:
    """Replace halves of characters, which no encoder takes, by U+FFFD.

    >>> scrub_surrogates("a\\ud800b")
    'a�b'
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def hostile(html: str, max_depth: int) -> str | None:
    """Why a page would choke a parser: `too_deep` or `long_tag`. None if it is fit to be parsed.

    >>> hostile("<div>" * 600, 500), hostile("<p>" * 600, 500), hostile("<b></i>" * 600, 500)
    ('too_deep', None, 'too_deep')
    """
    if _LONG_TAG.search(html):
        return "long_tag"
    stack: list[str] = []
    for closing, name, self_closed in _TAG.findall(html):
        tag = name.lower()
        if self_closed or tag in _UNNESTED:
            continue
        if not closing:
            stack.append(tag)
        elif tag in stack:
            start = len(stack) - 1 - stack[::-1].index(tag)
            if all(_RANK.get(inner, 0) <= _RANK.get(tag, 0) for inner in stack[start:]):
                del stack[start:]
        if len(stack) > max_depth:
            return "too_deep"
    return None
