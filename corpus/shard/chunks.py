"""Cut a document into chunks of at most so many tokens, at the ends of paragraphs and sentences where there are any."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from itertools import accumulate

from corpus.text.scripts import UNSPACED
from corpus.text.sentences import split_sentences

_TOKEN = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")
_PARAGRAPH = re.compile(r"\n\s*")


def count_tokens(text: str) -> int:
    """Tokens without a model: what stands between white space; in scripts without spaces each character.

    >>> count_tokens("two words"), count_tokens("五个字OK。")
    (2, 4)
    """
    return len(_TOKEN.findall(text))


def cut(text: str, limit: int) -> list[str]:
    """Chunks of at most `limit` tokens (at least 1) which put together are the text, byte for byte.

    A chunk ends with the last paragraph in its second half, else with the last sentence there, else after `limit`
    tokens. A token is never cut but where a sentence ends in it. A text without tokens is one chunk.

    >>> cut("One two three. Four five.\\n\\nSix seven eight.", 6)
    ['One two three. Four five.\\n\\n', 'Six seven eight.']
    """
    tokens = [found.span() for found in _TOKEN.finditer(text)]
    if len(tokens) <= limit:
        return [text]
    starts, ends = [start for start, _ in tokens], [end for _, end in tokens]
    paragraphs = [found.end() for found in _PARAGRAPH.finditer(text)]
    sentences = list(accumulate(len(piece) for piece in split_sentences(text)))
    chunks, start = [], 0
    while (first := bisect_right(ends, start)) + limit < len(tokens):
        latest, half = starts[first + limit], max(start, starts[first + limit // 2])
        stop = _last_between(paragraphs, half, latest) or _last_between(sentences, half, latest) or latest
        chunks.append(text[start:stop])
        start = stop
    return [*chunks, text[start:]]


def _last_between(places: list[int], after: int, until: int) -> int | None:
    """The last of ascending places in (after, until]."""
    number = bisect_right(places, until)
    return places[number - 1] if number > bisect_left(places, after + 1) else None
