"""A text as a set of hashed token n-grams: the definition of similarity that signatures and verification share."""

from __future__ import annotations

import functools
import hashlib

import numpy as np
import numpy.typing as npt

from corpus.text.exact import normalised
from corpus.text.segment import shingle_tokens

Hashes = npt.NDArray[np.uint64]

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no position of an n-gram loses bits


@functools.lru_cache(maxsize=1 << 16)  # words repeat; the cache only saves time
def _token_hash(token: str) -> int:
    return int.from_bytes(hashlib.blake2b(token.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def shingle_hashes(text: str, ngram: int) -> Hashes:
    """The distinct `ngram`-token shingles of a text as sorted 64-bit hashes; none where it has fewer tokens.

    Case and punctuation do not count; a Chinese character is a token (see corpus.text.segment.shingle_tokens).

    >>> [shingle_hashes(text, 3).size for text in ("one two three four", "增量备份。", "one two")]
    [2, 2, 0]
    >>> bool((shingle_hashes("One, TWO: three!", 3) == shingle_hashes("one two three", 3)).all())
    True
    """
    tokens = shingle_tokens(normalised(text))
    count = len(tokens) - ngram + 1
    if count < 1:
        return np.empty(0, np.uint64)
    words = np.fromiter(map(_token_hash, tokens), np.uint64, len(tokens))
    hashes = np.zeros(count, np.uint64)
    for position in range(ngram):
        hashes *= _MULTIPLIER
        hashes += words[position : position + count]
    return np.unique(hashes)


def jaccard(left: Hashes, right: Hashes) -> float:
    """Shared shingles divided by all shingles of two sets, 0 to 1; 0 where either is empty.

    >>> jaccard(np.array([1, 2, 3], np.uint64), np.array([2, 3, 4], np.uint64))
    0.5
    """
    shared = np.intersect1d(left, right, assume_unique=True).size
    return shared / (left.size + right.size - shared) if shared else 0.0
