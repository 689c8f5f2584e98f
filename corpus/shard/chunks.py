"""Cut a document into chunks of at most so many tokens, at the ends of paragraphs and sentences where there are any."""

from __future__ import annotations

import dataclasses
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

from corpus.text.scripts import UNSPACED
from corpus.text.sentences import split_sentences

_TOKEN = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")
_WORD = re.compile(rf"\s*(?:[{UNSPACED}]|[^\s{UNSPACED}]+)\s*|\s+")
WORD, SENTENCE, PARAGRAPH = range(3)  # what ends with a piece; a chunk had better end with the greatest


class Piece(NamedTuple):
    """A run of characters that chunks are put together from."""

    text: str
    tokens: int
    ends: int  # WORD, SENTENCE or PARAGRAPH


class Chunk(NamedTuple):
    """A part of a document."""

    text: str
    tokens: int
    overlap: int  # characters at its beginning with which the chunk before ends


@dataclasses.dataclass(frozen=True)
class Tokens:
    """What a token is."""

    count: Callable[[Sequence[str]], list[int]]  # the tokens of each of some texts
    starts: Callable[[Sequence[str]], list[list[int]]]  # the characters at which they begin, ascending


def _word_starts(texts: Sequence[str]) -> list[list[int]]:
    return [[found.start() for found in _TOKEN.finditer(text)] for text in texts]


def count_words(texts: Sequence[str]) -> list[int]:
    """Tokens without a model: what stands between white space; in scripts without spaces each character.

    >>> count_words(["two words", "五个字OK。"])
    [2, 4]
    """
    return [len(_TOKEN.findall(text)) for text in texts]


WORDS = Tokens(count_words, _word_starts)


def cut_all(texts: Sequence[str], limit: int, overlap: int = 0, tokens: Tokens = WORDS) -> list[list[Chunk]]:
    """Chunks of at most `limit` tokens of each text; without their overlaps they are the text, byte for byte.

    A chunk ends with the last paragraph in its second half, else with the last sentence there, else with a word. Its
    first sentences are the last ones of the chunk before, as many as have no more than `overlap` tokens, at most half
    of the limit. Tokens are counted sentence by sentence: put together these have hardly ever more. Only what cannot be
    cut, a single character, may have more than `limit`.

    >>> [chunk.text for chunk in cut_all(["One two three. Four five.\\n\\nSix seven eight."], 6)[0]]
    ['One two three. Four five.\\n\\n', 'Six seven eight.']
    >>> [chunk.text for chunk in cut_all(["One two. Three four. Five six."], 4, overlap=2)[0]]
    ['One two. Three four. ', 'Three four. Five six.']
    """
    return [list(_assemble(pieces, limit, overlap)) for pieces in _pieces(texts, limit, tokens)]


def _pieces(texts: Sequence[str], limit: int, tokens: Tokens) -> list[list[Piece]]:
    """The texts' sentences; of one with more than half of the limit its words, of a word over it its tokens."""
    sentences = [split_sentences(text) for text in texts]
    counts = iter(tokens.count([sentence for own in sentences for sentence in own]))
    found = [
        [Piece(sentence, next(counts), PARAGRAPH if "\n" in sentence else SENTENCE) for sentence in own]
        for own in sentences
    ]
    long = [piece for pieces in found for piece in pieces if 2 * piece.tokens > limit]
    if not long:
        return found
    starts = tokens.starts([piece.text for piece in long])
    parts = {piece: _parts(piece, own, limit) for piece, own in zip(long, starts, strict=True)}
    return [[part for piece in pieces for part in parts.get(piece, [piece])] for pieces in found]


def _parts(piece: Piece, starts: Sequence[int], limit: int) -> list[Piece]:
    """The words of a sentence as pieces, by where its tokens begin; the characters between these of a longer word."""
    ends = [found.end() for found in _WORD.finditer(piece.text)]
    cuts = [0]
    for end in ends:
        inner = starts[bisect_left(starts, cuts[-1]) : bisect_left(starts, end)]
        if len(inner) > limit:
            cuts += [start for start in dict.fromkeys(inner) if start > cuts[-1]]
        cuts.append(end)
    places = [bisect_left(starts, cut) for cut in cuts]
    words = [
        Piece(piece.text[start:end], last - first, WORD)
        for (start, first), (end, last) in pairwise(zip(cuts, places, strict=True))
    ]
    return [*words[:-1], words[-1]._replace(ends=piece.ends)]


def _assemble(pieces: Sequence[Piece], limit: int, overlap: int) -> Iterator[Chunk]:
    before = [0, *accumulate(piece.tokens for piece in pieces)]  # tokens before each piece
    start = repeated = 0  # the first piece, and how many of the next ones the chunk before has too
    while before[-1] - before[start] > limit and start + repeated + 1 < len(pieces):
        first = start + repeated
        latest = first + 1  # a chunk brings something new, even if that alone is too much
        while before[latest + 1] - before[start] <= limit:
            latest += 1
        half = before[start] + limit / 2
        second_half = [end for end in range(first + 1, latest + 1) if before[end] > half]
        stop = max(second_half, key=lambda end: (pieces[end - 1].ends, end), default=latest)
        yield _chunk(pieces[start:stop], repeated)
        most = min(overlap, limit - pieces[stop].tokens)  # the next piece must have room
        start = _overlap_start(pieces, before, stop, most, first + 1)
        repeated = stop - start
    yield _chunk(pieces[start:], repeated)


def _overlap_start(pieces: Sequence[Piece], before: Sequence[int], stop: int, overlap: int, earliest: int) -> int:
    """The first of the sentences before `stop` that the next chunk repeats; `stop` if it repeats none."""
    starts = [
        start
        for start in range(stop - 1, earliest - 1, -1)
        if before[stop] - before[start] <= overlap and pieces[start - 1].ends > WORD
    ]
    return starts[-1] if starts else stop


def _chunk(pieces: Sequence[Piece], repeated: int) -> Chunk:
    return Chunk(
        "".join(piece.text for piece in pieces),
        sum(piece.tokens for piece in pieces),
        sum(len(piece.text) for piece in pieces[:repeated]),
    )
