"""The judge: exact Jaccard similarities of all pairs of documents, by code that shares nothing with any tool.

Its tokens: words of letters, digits and marks, case folded; each Han, kana or Thai character and Hangul syllable one.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse

SINGLE = (
    "CJK UNIFIED",
    "CJK COMPATIBILITY IDEO",
    "HIRAGANA LETTER",
    "KATAKANA LETTER",
    "THAI CHARACTER",
    "HANGUL SYLL",
)
TOKEN_BITS = 21  # three token numbers fit into 63 bits
BLOCK = 256  # documents compared with all at a time

Numbers = npt.NDArray[np.int64]


class Judged(NamedTuple):
    """What is true of some documents, whatever a tool says."""

    left: Numbers  # all pairs of documents that are similar enough, left < right
    right: Numbers
    sizes: Numbers  # distinct shingles of each document
    texts: list[int]  # the same number for the same normalised text


class Quality(NamedTuple):
    """How a tool's removals stand up."""

    removed: int
    wrong: list[int]  # removed, though like no kept document
    residual: list[tuple[int, int]]  # similar, and both kept
    pairs: int  # similar pairs in all


class _Spelling(dict[int, str]):
    """What each character becomes, for `str.translate`; found out when it first occurs."""

    def __missing__(self, point: int) -> str:
        character = chr(point)
        category = unicodedata.category(character)
        if category == "Cf" or character in "'’＇":
            spelling = ""
        elif category[0] in "LM" and unicodedata.name(character, "").startswith(SINGLE):
            spelling = f" {character} "
        else:
            spelling = character if category[0] in "LMN" else " "
        self[point] = spelling
        return spelling


_spelling = _Spelling()


def tokens(text: str) -> list[str]:
    """The tokens of a text.

    >>> tokens("Don’t panic: 增量 naïve_NAÏVE x\\u00ad2")
    ['dont', 'panic', '增', '量', 'naïve', 'naïve', 'x2']
    """
    spelled = unicodedata.normalize("NFC", text).casefold().translate(_spelling)
    found = spelled.split()
    marks = "".join(character for character in set(spelled) if unicodedata.category(character)[0] == "M")
    if marks:  # a mark continues a word and starts none, unless it is a token itself
        marks = "".join(mark for mark in marks if len(_spelling[ord(mark)]) == 1)
        found = [token for token in (token.lstrip(marks) for token in found) if token]
    return found


def shingle_sets(texts: Iterable[str], ngram: int) -> list[npt.NDArray[np.int64]]:
    """The distinct shingles of each text, numbered by their tokens and so never confused. Raises OverflowError."""
    numbers: dict[str, int] = {}
    sets = []
    for text in texts:
        row = np.array([numbers.setdefault(token, len(numbers)) for token in tokens(text)], np.int64)
        count = max(0, len(row) - ngram + 1)
        combined = np.zeros(count, np.int64)
        for position in range(ngram):
            combined = combined << TOKEN_BITS | row[position : position + count]
        sets.append(np.unique(combined))
    if len(numbers) >= 1 << TOKEN_BITS or ngram * TOKEN_BITS > 63:
        raise OverflowError(f"{len(numbers)} different tokens in shingles of {ngram} are too many for this judge")
    return sets


def similar_pairs(
    sets: Sequence[npt.NDArray[np.int64]], threshold: float
) -> tuple[Numbers, Numbers, npt.NDArray[np.float64]]:
    """All pairs of sets whose Jaccard similarity reaches a threshold, and the similarities."""
    sizes = np.array([len(one) for one in sets], np.int64)
    _, columns, counts = np.unique(np.concatenate(sets), return_inverse=True, return_counts=True)
    rows = np.repeat(np.arange(len(sets)), sizes)
    shared = counts[columns] > 1  # a shingle of one document alone adds to no intersection
    ones = np.ones(int(shared.sum()), np.int32)
    matrix = scipy.sparse.csr_array((ones, (rows[shared], columns[shared])), shape=(len(sets), len(counts)))
    transposed = matrix.T.tocsr()
    found = []
    for start in range(0, len(sets), BLOCK):
        block = (matrix[start : start + BLOCK] @ transposed).tocoo()
        left, right, both = block.row.astype(np.int64) + start, block.col.astype(np.int64), block.data
        similarity = both / (sizes[left] + sizes[right] - both)
        wanted = (similarity >= threshold) & (left < right)
        found.append((left[wanted], right[wanted], similarity[wanted]))
    left, right, similarity = (np.concatenate(column) for column in zip(*found, strict=True))
    return left, right, similarity


def judge(texts: Sequence[str], ngram: int, threshold: float) -> Judged:
    """The similar pairs of some documents, and which are the same text but for white space."""
    sets = shingle_sets(texts, ngram)
    left, right, _ = similar_pairs(sets, threshold)
    numbers: dict[str, int] = {}
    same = [numbers.setdefault(" ".join(unicodedata.normalize("NFC", text).split()), len(numbers)) for text in texts]
    return Judged(left, right, np.array([len(one) for one in sets]), same)


def quality(judged: Judged, removed: Iterable[int], count: int, least_shingles: int) -> Quality:
    """A tool's removals among the first `count` documents.

    Pairs count where both documents have `least_shingles`, for of less no similarity can be told.
    """
    gone = np.zeros(count, np.bool_)
    gone[list(removed)] = True
    within = judged.right < count
    left, right = judged.left[within], judged.right[within]
    justified = np.zeros(count, np.bool_)
    justified[left[~gone[right]]] = True
    justified[right[~gone[left]]] = True
    kept_texts = {judged.texts[row] for row in np.flatnonzero(~gone).tolist()}
    wrong = [row for row in np.flatnonzero(gone & ~justified).tolist() if judged.texts[row] not in kept_texts]
    long = (judged.sizes[left] >= least_shingles) & (judged.sizes[right] >= least_shingles)
    left, right = left[long], right[long]
    both_kept = ~gone[left] & ~gone[right]
    residual = list(zip(left[both_kept].tolist(), right[both_kept].tolist(), strict=True))
    return Quality(int(gone.sum()), wrong, residual, len(left))


def han_share(texts: Iterable[str]) -> float:
    """The share of Han characters among letters and digits.

    >>> han_share(["增量 ab"])
    0.5
    """
    characters = [character for text in itertools.islice(texts, 200) for character in text if character.isalnum()]
    return sum("\u4e00" <= character <= "\u9fff" for character in characters) / max(1, len(characters))
