"""Cut a document into chunks of at most so many tokens, at the ends of paragraphs and sentences where there are any."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np

from corpus.text.scripts import UNSPACED
from corpus.text.sentences import split_sentences

_TOKEN = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")
_WORD = re.compile(rf"\s*(?:[{UNSPACED}]|[^\s{UNSPACED}]+)\s*|\s+")
STEPS = 32  # of a chunk: words of a long sentence are taken together up to so small a part of it
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
    """The texts' sentences; of one with more than half of the limit runs of words, of a word over it its tokens."""
    sentences = [split_sentences(text) for text in texts]
    flat = [sentence for own in sentences for sentence in own]
    # Where tokens begin is asked at once for what looks long, so that little is read twice.
    looks_long = list(dict.fromkeys(sentence for sentence in flat if len(sentence) > 2 * limit))
    starts = dict(zip(looks_long, tokens.starts(looks_long), strict=True))
    others = iter(tokens.count([sentence for sentence in flat if sentence not in starts]))
    counts = {sentence: len(own) for sentence, own in starts.items()}
    found = [(sentence, counts[sentence] if sentence in starts else next(others)) for sentence in flat]
    more = list(dict.fromkeys(text for text, count in found if 2 * count > limit and text not in starts))
    starts |= dict(zip(more, tokens.starts(more), strict=True))
    counted = iter(found)
    return [_pieces_of(list(itertools.islice(counted, len(own))), starts, limit) for own in sentences]


def _pieces_of(sentences: Sequence[tuple[str, int]], starts: Mapping[str, list[int]], limit: int) -> list[Piece]:
    """The pieces of a text from its sentences and their tokens."""
    total = sum(count for _, count in sentences)
    if total <= limit:  # it is one chunk, whatever is in it
        return [Piece("".join(sentence for sentence, _ in sentences), total, PARAGRAPH)]
    pieces: list[Piece] = []
    for sentence, count in sentences:
        if 2 * count > limit:
            pieces += _parts(sentence, starts[sentence], limit)
        else:
            pieces.append(Piece(sentence, count, _ending(sentence)))
    return pieces


def _ending(sentence: str) -> int:
    return PARAGRAPH if "\n" in sentence else SENTENCE


def _parts(sentence: str, starts: Sequence[int], limit: int) -> list[Piece]:
    """The runs of words of a sentence as pieces, by where its tokens begin; the tokens of a word that has too many."""
    ends = np.array([found.end() for found in _WORD.finditer(sentence)])
    begun = np.array(starts)
    places = np.searchsorted(begun, ends)  # tokens up to each end of a word
    # Of the ends with equally many whole steps of tokens before them the last is taken: a run is at least a word.
    last_of_step = np.append(np.diff(places // max(1, limit // STEPS)) > 0, True)
    cuts = [0, *ends[last_of_step].tolist()]
    long = [n for n, (start, end) in enumerate(pairwise([0, *places[last_of_step].tolist()])) if end - start > limit]
    for number in reversed(long):
        inner = begun[(begun > cuts[number]) & (begun < cuts[number + 1])]
        cuts[number + 1 : number + 1] = np.unique(inner).tolist()
    tokens = np.searchsorted(begun, cuts).tolist()
    runs = [
        Piece(sentence[start:end], last - first, WORD)
        for (start, first), (end, last) in pairwise(zip(cuts, tokens, strict=True))
    ]
    return [*runs[:-1], runs[-1]._replace(ends=_ending(sentence))]


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
    if overlap <= 0:  # pieces without a token would do
        return stop
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
