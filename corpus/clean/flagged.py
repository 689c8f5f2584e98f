"""Flagged words: lists of the user's, by language, and how much of a text they are."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from corpus.errors import UserError
from corpus.text.scripts import UNSPACED

_WORD = re.compile(f"[^\\W{UNSPACED}]+")
_ANY_WORD = re.compile(r"\w+")
_ASCII_WORD = re.compile(r"[A-Za-z0-9_]+")
_SLOTS = 1 << 20
_UNSPACED = re.compile(f"[{UNSPACED}]")
_UNSPACED_LANGUAGES = frozenset(("zh", "ja", "th", "lo", "km", "my"))


class Flagged(NamedTuple):
    """A list of flagged words, case-folded.

    Words of scripts with blanks count where they stand alone: `words` are those and phrases of them, `first_words` how
    long those are that begin with a word. Words of scripts without blanks count wherever they stand: `parts`, and by
    their first two characters `first_pairs`; `characters` are those of one. `pairs` marks the slots of those two.
    """

    words: frozenset[str]
    first_words: dict[str, list[int]]
    parts: frozenset[str]
    first_pairs: dict[str, list[int]]
    characters: tuple[str, ...]
    pairs: npt.NDArray[np.bool_]


def load_flagged(paths: Mapping[str, Path]) -> dict[str, Flagged]:
    """Lists by language: UTF-8, a word or phrase a line; empty lines and those that begin with `#` are left out.

    A file is read once a process, and again when it has changed. Raises UserError naming the file and the line.
    """
    return {language: _load(Path(path), _stamp(Path(path))) for language, path in paths.items()}


def flagged(entries: Iterable[str]) -> Flagged:
    """A list made of words and phrases, in any order.

    >>> sorted(flagged(["Damn", "holy  cow"]).words), sorted(flagged(["混蛋"]).parts)
    (['damn', 'holy cow'], ['混蛋'])
    """
    folded = {entry.casefold() for entry in entries}
    parts = {"".join(entry.split()) for entry in folded if _UNSPACED.search(entry)}
    first_pairs = _lengths((entry[:2], len(entry)) for entry in parts if len(entry) > 1)
    pairs = np.zeros(_SLOTS, np.bool_)
    for pair in first_pairs:
        pairs[_pair_slots(pair)] = True
    words = {" ".join(_WORD.findall(entry)) for entry in folded if not _UNSPACED.search(entry)}
    return Flagged(
        frozenset(words),
        _lengths((entry.partition(" ")[0], entry.count(" ") + 1) for entry in words),
        frozenset(parts),
        first_pairs,
        tuple(sorted(entry for entry in parts if len(entry) == 1)),
        pairs,
    )


def count_flagged(text: str, words: Flagged) -> int:
    """How often words of a list occur; of two that overlap the first, of two that begin at one place the longer.

    >>> count_flagged("Damned? No: damn. Holy cow!", flagged(["damn", "holy", "holy cow"]))
    2
    >>> count_flagged("你这个混蛋真混", flagged(["混蛋", "混蛋真"]))
    1
    """
    text = text.casefold()
    count = sum(map(text.count, words.characters))
    if words.words:
        found = _words(text)
        none = words.first_words.keys().isdisjoint(found)
        starts = [] if none else [at for at, word in enumerate(found) if word in words.first_words]
        places = [(at, words.first_words[found[at]]) for at in starts]
        count += _count_apart(places, lambda at, length: " ".join(found[at : at + length]) in words.words)
    if words.parts:
        starts = np.flatnonzero(words.pairs[_pair_slots(text)]).tolist()
        places = [(at, words.first_pairs.get(text[at : at + 2], [])) for at in starts]
        count += _count_apart(places, lambda at, length: text[at : at + length] in words.parts)
    return count


def flagged_share(count: int, text: str, lang: str) -> float:
    """Flagged words a word (0 to 1); in Chinese, Japanese and others written without blanks, a character.

    >>> flagged_share(1, "one damn word more", "en"), flagged_share(1, "你这个混蛋！", "zh-Hans")
    (0.25, 0.2)
    """
    unspaced = lang.partition("-")[0] in _UNSPACED_LANGUAGES
    total = len(_UNSPACED.findall(text) if unspaced else _words(text))
    return min(1.0, count / total) if total else 0.0


def _stamp(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


@functools.lru_cache(maxsize=32)
def _load(path: Path, stamp: int) -> Flagged:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UserError(f"clean.flagged_words: {path} cannot be read: {error.strerror}") from None
    entries = []
    for number, line in enumerate(lines, 1):
        try:
            entry = line.decode("utf-8-sig").strip()
        except UnicodeDecodeError:
            raise UserError(f"clean.flagged_words: {path}, line {number} is not UTF-8: save the list as such") from None
        if not entry or entry.startswith("#"):
            continue
        if not re.search(r"\w", entry):
            raise UserError(f"clean.flagged_words: {path}, line {number}: {entry!r} is no word: take it out")
        entries.append(entry)
    if not entries:
        raise UserError(f"clean.flagged_words: {path} has no words: write one a line")
    return flagged(entries)


def _words(text: str) -> list[str]:
    """The words of a text in scripts with blanks; most texts are all ASCII, or have no others."""
    if text.isascii():
        return _ASCII_WORD.findall(text)
    return (_WORD if _UNSPACED.search(text) else _ANY_WORD).findall(text)


def _pair_slots(text: str) -> npt.NDArray[np.uint32]:
    """A slot for each two neighbouring characters: one in a hundred shares it with a pair of a list of 10,000."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    return (codes[:-1] * np.uint32(0x9E3779B1) + codes[1:]) % np.uint32(_SLOTS)


def _count_apart(places: Iterable[tuple[int, list[int]]], matches: Callable[[int, int], bool]) -> int:
    """How many matches there are, of one of the lengths at each place, that do not overlap."""
    count = end = 0
    for at, lengths in places:
        length = next((length for length in lengths if matches(at, length)), 0) if at >= end else 0
        if length:
            count, end = count + 1, at + length
    return count


def _lengths(starts: Iterable[tuple[str, int]]) -> dict[str, list[int]]:
    """By their start, how long words are, the longest first."""
    lengths: dict[str, set[int]] = {}
    for start, length in starts:
        lengths.setdefault(start, set()).add(length)
    return {start: sorted(found, reverse=True) for start, found in lengths.items()}
