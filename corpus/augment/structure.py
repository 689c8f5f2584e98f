"""What of a text may be reworded, and what passes through as it is: code, tables, addresses, placeholders, markers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from corpus.text.sentences import split_sentences

# A sentence with one of these stays as it is: web and mail addresses, code, placeholders of masked data and templates.
PROTECTED = re.compile(
    r"""https?://\S | www\.\w | [\w.+-]+@[\w-]+\.\w | <[A-Z][A-Z_]+>
      | \{\{?[\w.]+\}?\} | \$\{?\w+\}? | %\([a-z]\w*\)s | (?<!\w)%[sd]\b
      | `[^`\n]+` | \w+\(\) | \w+::\w+ | (?<![\w.])--?[a-z][\w-]+ | (?<!\w)~?/\w[\w.-]*/[\w./-]+ | \$\$?[^$\n]+\$""",
    re.VERBOSE,
)
_FENCE = re.compile(r"\s*(```|~~~)")
_CODE = re.compile(r"(?: {4}|\t)")
_MARKER = re.compile(r"\s*(?:[-*+•·]\s+|\d{1,3}[.)、]\s*|[(（]\d{1,3}[)）]\s*|\#{1,6}\s+|>\s*)*")


class Piece(NamedTuple):
    """A part of a text; all of them put together are the text."""

    text: str
    prose: bool  # whether it may be reworded: then it is one sentence, without white space around it


def pieces(text: str) -> Iterator[Piece]:
    """Cut a text into sentences of prose and whatever is around them.

    >>> text = "1. Open it.\\n\\n    x = 1\\n\\n| a | b |\\nSee http://a.b/ first. Then go."
    >>> [piece.text for piece in pieces(text) if piece.prose]
    ['Open it.', 'Then go.']
    """
    paragraph: list[str] = []
    for line, is_prose in _lines(text):
        marker = _MARKER.match(line)
        assert marker  # it matches the empty string as well
        if is_prose and not marker[0].strip():
            paragraph.append(line)
            continue
        yield from _sentences("".join(paragraph))
        paragraph = []
        if is_prose:
            yield Piece(marker[0], False)
            paragraph = [line[marker.end() :]]
        else:
            yield Piece(line, False)
    yield from _sentences("".join(paragraph))


def _lines(text: str) -> Iterator[tuple[str, bool]]:
    """Each line with its end, and whether it holds prose."""
    fence, before = "", ""
    for line in text.splitlines(keepends=True):
        found = _FENCE.match(line)
        if fence or found:
            yield line, False
            fence = "" if fence and found and found[1] == fence else fence or (found[1] if found else "")
        else:
            is_code = bool(_CODE.match(line)) and (not before.strip() or bool(_CODE.match(before)))
            yield line, not is_code and line.count("|") < 2 and any(map(str.isalpha, line))
        before = line


def _sentences(paragraph: str) -> Iterator[Piece]:
    for sentence in split_sentences(paragraph):
        body = sentence.strip()
        if not body:
            yield Piece(sentence, False)
            continue
        start = sentence.index(body)
        is_prose = any(map(str.isalpha, body)) and not PROTECTED.search(body)
        around = sentence[:start], body, sentence[start + len(body) :]
        yield from (Piece(one, is_prose and one is body) for one in around if one)
