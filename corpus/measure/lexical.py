"""Signals counted in words, each of a list of words in lower case; in Chinese each character is a word.

Text without words has the value 0.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence


def mean_word_length(words: Sequence[str]) -> float:
    """Characters a word; from 1 up. Gopher keeps 3 to 10 in English; Chinese is always near 1 here.

    >>> mean_word_length(["on", "time"])
    3.0
    """
    return sum(map(len, words)) / len(words) if words else 0.0


def ttr(words: Sequence[str]) -> float:
    """Type-token ratio: different words over all words; above 0 to 1. Falls with length: compare `mattr` instead.

    >>> ttr(["to", "be", "or", "not", "to", "be"]) == 4 / 6
    True
    """
    return len(set(words)) / len(words) if words else 0.0


def mattr(words: Sequence[str], window: int) -> float:
    """Moving-average type-token ratio: the mean of `ttr` over all windows of so many words; above 0 to 1.

    It hardly depends on the length (Covington and McFall 2010, "Cutting the Gordian Knot"). Text shorter than the
    window has its `ttr`.

    >>> mattr(["a", "b", "a", "a"], window=2) == (1 + 1 + 1 / 2) / 3
    True
    """
    last_start = len(words) - window
    if last_start < 0:
        return ttr(words)
    types = 0  # summed over all windows
    seen: dict[str, int] = {}
    for position, word in enumerate(words):
        # The word is new to the windows that hold this position but not the one where it stood before.
        first = max(seen.get(word, -1) + 1, position - window + 1)
        types += max(0, min(position, last_start) - first + 1)
        seen[word] = position
    return types / (window * (last_start + 1))


def stop_word_ratio(words: Sequence[str], stop_words: Collection[str]) -> float:
    """Share of words that are function words; 0 to 1. Running text is a third or more, lists and menus are near 0.

    The idea is Gopher's, which asks for two of eight English words; a share needs no minimal length.

    >>> stop_word_ratio(["the", "cat", "and", "dog"], {"the", "and"})
    0.5
    """
    return sum(word in stop_words for word in words) / len(words) if words else 0.0
