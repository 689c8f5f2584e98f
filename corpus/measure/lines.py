"""Counts over lines as Python's `str.splitlines` gives them: the rules of Gopher, C4 and RefinedWeb that read lines."""

from __future__ import annotations

import functools
import re

import numpy as np
import numpy.typing as npt
import polars as pl
from numba import njit

from corpus.text.buffers import Texts
from corpus.text.code_points import LETTERS_END, in_categories, may_have_case, white_space

COUNTS = (
    "split_lines",  # blank ones included
    "bullet_lines",  # that begin with - or •, white space apart
    "ellipsis_lines",  # that end in ... or …, white space apart
    "hashes",
    "ellipses",  # ... and …
    "spaced_words",  # between white space
    "spaced_alpha_words",  # of them, those that hold a letter
    "c4_lines",  # lines that C4 keeps
    "c4_sentences",  # in them
    "lorem_ipsum",  # lines that make C4 drop the page
    "curly_brackets",  # likewise
    "refinedweb_words",  # in the lines that RefinedWeb's rules remove
)
_SPLIT_LINES, _BULLET_LINES, _ELLIPSIS_LINES, _HASHES, _ELLIPSES, _SPACED_WORDS, _SPACED_ALPHA_WORDS = range(7)
_C4_LINES, _C4_SENTENCES, _LOREM_IPSUM, _CURLY_BRACKETS, _REFINEDWEB_WORDS = range(7, len(COUNTS))

# Phrases that decide about a line in C4, whatever their case; looked for by their rarest letter and the one after it.
_PHRASES = (
    *("lorem ipsum", "javascript"),
    *("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies"),
)
_BY_RARITY = "jvkflympwbgducosirhnate "
_LOREM, _JAVASCRIPT = 1, 2  # bits of what is found; all others: policies

# Bits of the table of characters.
_SPACE, _LETTER, _UPPER, _DIGIT, _BREAK, _LOWER, _NOTED = 1, 2, 4, 8, 16, 32, 64
_MAY_END = 128  # of bytes: what ends a sentence begins with it
_POINTS = 0x110000
_LONGEST_WORD = 1_000  # characters; a line with a longer one is no text
_NONE, _ONE, _TWO, _THREE, _FOUR = (np.uint64(number) for number in range(5))

_SENTENCE_END = re.compile(
    r"""[.!?]++["'”’)\]]*+ (?: \s++ (?![a-z]) | \Z )   # 3.14 and e.g. this go on
      | [。！？]++["'”’」』）】》)\]]*+ \s*+              # no space needed""",
    re.VERBOSE,
)


def count_lines(texts: Texts) -> pl.DataFrame:
    """The COUNTS of each text, int64.

    >>> import pyarrow as pa
    >>> counts = count_lines(Texts.of(pa.array(["- One two three.\\nIt is so! Is it not?[1]\\n\\nSHARE THIS"])))
    >>> counts.select("split_lines", "bullet_lines", "c4_lines", "c4_sentences", "refinedweb_words").row(0)
    (4, 1, 2, 3, 2)
    """
    counts = np.zeros((len(texts), len(COUNTS)), np.int64)
    _count_lines(texts.data, texts.offsets, _characters(), *_phrases(), counts)
    return pl.DataFrame(counts, schema=list(COUNTS))


def count_sentences(line: str) -> int:
    """Sentences of one line, as the kernel counts them.

    >>> [count_sentences(line) for line in ("It is 3.14, e.g. so. “Why?” No", "好。很好！", "")]
    [3, 2, 0]
    """
    ends = [found.end() for found in _SENTENCE_END.finditer(line)]
    return len(ends) + bool(line[ends[-1] if ends else 0 :].strip())


@functools.cache
def _characters() -> npt.NDArray[np.uint8]:
    """What Python's `str` says of each code point, in bits."""
    table = np.zeros(_POINTS, np.uint8)
    spaces = white_space()
    table[spaces] = _SPACE
    table[[point for point in spaces.tolist() if f"{chr(point)}.".splitlines()[0] == ""]] |= _BREAK
    table[in_categories("L")] |= _LETTER
    table[in_categories("Nd")] |= _DIGIT
    table[[ord(character) for character in may_have_case() if character.isupper()]] |= _UPPER
    table[LETTERS_END:0x323B0] = _LETTER
    table[ord("a") : ord("z") + 1] |= _LOWER
    table[[ord(character) for character in "#.…[{\u212a"]] |= _NOTED
    table[[mark.encode()[0] for mark in ".!?。！？"]] |= _MAY_END
    return table


@functools.cache
def _phrases() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """The phrases in a row, where each begins, the place of its rarest letter, and two rows of bits by letter.

    They say of which phrases a letter is the rarest, and of which it is the one after that.
    """
    rarest = [phrase.index(min(phrase[:-1], key=_BY_RARITY.index)) for phrase in _PHRASES]
    joined = "".join(_PHRASES).encode()
    starts = np.cumsum([0, *map(len, _PHRASES)], dtype=np.int64)
    triggers = np.zeros((2, 256), np.uint8)
    for number, (phrase, place) in enumerate(zip(_PHRASES, rarest, strict=True)):
        for row, letter in enumerate(phrase[place : place + 2]):
            triggers[row, [ord(letter), ord(letter.upper())]] |= 1 << number
    return np.frombuffer(joined, np.uint8), starts, np.array(rarest, np.int64), triggers


# ---- kernels ---------------------------------------------------------------------------------------------------------


@njit(nogil=True, cache=True)
def _character_at(data, at, end):
    """Code point and width in bytes of the character at a place; a broken one is its first byte."""
    byte = data[at]
    if byte < 0xC0:
        return np.uint64(byte), _ONE
    if 0xE0 <= byte < 0xF0 and at + _TWO < end:
        point = (byte & 0x0F) << 12 | (data[at + _ONE] & 0x3F) << 6 | data[at + _TWO] & 0x3F
        return np.uint64(point), _THREE
    if byte < 0xE0 and at + _ONE < end:
        return np.uint64((byte & 0x1F) << 6 | data[at + _ONE] & 0x3F), _TWO
    if 0xF0 <= byte < 0xF5 and at + _THREE < end:
        point = (byte & 0x07) << 18 | (data[at + _ONE] & 0x3F) << 12
        point |= (data[at + _TWO] & 0x3F) << 6 | data[at + _THREE] & 0x3F
        return np.uint64(min(point, _POINTS - 1)), _FOUR
    return np.uint64(byte), _ONE


@njit(nogil=True, cache=True)
def _count_lines(data, offsets, characters, phrases, phrase_starts, rarest, triggers, counts):
    """Fill counts (text, COUNTS)."""
    longest = np.int64(0)
    for number in range(offsets.shape[0] - 1):
        longest = max(longest, offsets[number + 1] - offsets[number])
    without_citations = np.empty(longest, np.uint8)
    for number in range(offsets.shape[0] - 1):
        at, end = np.uint64(offsets[number]), np.uint64(offsets[number + 1])
        own = counts[number]
        dots_end = at  # up to where dots belong to an ellipsis that was counted
        while at < end:
            # No branch at the ends of words, which a processor cannot foresee: each character is added to all counts.
            # From `first` to `last` the line is without white space at its ends; `space`, `letters` and `begin` are of
            # the character before, of its word so far, and the length of the line before that word.
            first, last = at, at
            length, upper, digits, words, alpha_words = 0, 0, 0, 0, 0
            space, letters, begin, longest_word = 1, 0, 0, 0
            brackets, curly = False, False
            its, width = 0, _ONE
            while at < end:
                point, width = np.uint64(data[at]), _ONE
                if point >= 0x80:
                    point, width = _character_at(data, at, end)
                its = int(characters[point])
                if its & (_BREAK | _NOTED):
                    if its & _BREAK:
                        break
                    if point == 0x2E:
                        if at >= dots_end and _are_dots(data, at, end):
                            own[_ELLIPSES] += 1
                            dots_end = at + _THREE
                    else:
                        own[_HASHES] += point == 0x23
                        own[_ELLIPSES] += point == 0x2026
                        curly |= point == 0x7B
                        brackets |= point == 0x5B or point == 0x212A  # the Kelvin sign, whose small letter is a k
                before, space = space, its & _SPACE
                alpha_words += space * (letters != 0)
                letters = 0 if space else letters | its & _LETTER
                upper += (its & _UPPER) != 0
                digits += (its & _DIGIT) != 0
                first = at if words == 0 else first
                words += before & ~space
                begin = length if before else begin
                length += 1
                longest_word = max(longest_word, 0 if space else length - begin)
                at += width
                last = last if space else at
            alpha_words += letters != 0
            own[_SPACED_ALPHA_WORDS] += alpha_words
            if at < end:  # over the break
                at += _TWO if data[at] == 0x0D and at + _ONE < end and data[at + _ONE] == 0x0A else width
            own[_SPLIT_LINES] += 1
            own[_SPACED_WORDS] += words
            if words == 0:
                continue
            own[_BULLET_LINES] += data[first] == 0x2D or _is(data, first, last, 0x2022)
            own[_ELLIPSIS_LINES] += _ends_in_dots(data, first, last) or (
                last - first >= _THREE and _is(data, last - _THREE, last, 0x2026)
            )
            if upper > 0.5 * length or digits > 0.999999 * length or words < 2:
                own[_REFINEDWEB_WORDS] += words
            if longest_word > _LONGEST_WORD or words < 3:
                continue
            if brackets:
                stop = _cut_citations(data, first, last, characters, without_citations)
                _count_c4_line(
                    without_citations, _NONE, stop, curly, characters, phrases, phrase_starts, rarest, triggers, own
                )
            else:
                _count_c4_line(data, first, last, curly, characters, phrases, phrase_starts, rarest, triggers, own)


@njit(nogil=True, cache=True)
def _count_c4_line(line, start, end, curly, characters, phrases, phrase_starts, rarest, triggers, own):
    """What C4's rules say of a line of at least three words, none too long; `curly`: it has a curly bracket."""
    if end == start or not _ends_c4_line(line, start, end):
        return
    found = _find_phrases(line, start, end, phrases, phrase_starts, rarest, triggers)
    if found & _LOREM:
        own[_LOREM_IPSUM] += 1
    elif not found & _JAVASCRIPT:
        if curly:
            own[_CURLY_BRACKETS] += 1
        elif not found:
            own[_C4_LINES] += 1
            own[_C4_SENTENCES] += _count_sentences(line, start, end, characters)


@njit(nogil=True, cache=True)
def _is(data, start, end, point):
    """Whether the character of three bytes at a place is this one."""
    return start + _THREE <= end and _character_at(data, start, end)[0] == point


@njit(nogil=True, cache=True)
def _are_dots(data, start, end):
    return start + _THREE <= end and data[start] == 0x2E and data[start + _ONE] == 0x2E and data[start + _TWO] == 0x2E


@njit(nogil=True, cache=True)
def _ends_in_dots(data, start, end):
    return end - start >= _THREE and _are_dots(data, end - _THREE, end)


@njit(nogil=True, cache=True)
def _cut_citations(data, start, end, characters, line):
    """Copy a line without `[12]`, `[]`, `[edit]` and `[citation needed]`, the Kelvin sign as k; its new length."""
    length = np.uint64(0)
    at = start
    while at < end:
        if data[at] == 0x5B:
            stop = at + _ONE
            while stop < end:
                point, width = _character_at(data, stop, end)
                if not characters[point] & _DIGIT:
                    break
                stop += width
            if stop < end and data[stop] == 0x5D:
                at = stop + _ONE
                continue
            if _starts_with(data, at, end, b"[edit]"):
                at += np.uint64(6)
                continue
            if _starts_with(data, at, end, b"[citation needed]"):
                at += np.uint64(17)
                continue
        if data[at] == 0xE2 and _is(data, at, end, 0x212A):
            line[length] = 0x6B
            at += _THREE
        else:
            line[length] = data[at]
            at += _ONE
        length += _ONE
    return length


@njit(nogil=True, cache=True)
def _starts_with(data, start, end, phrase):
    if start + np.uint64(len(phrase)) > end:
        return False
    same = True
    for place in range(len(phrase)):
        same &= data[start + np.uint64(place)] == phrase[place]
    return same


@njit(nogil=True, cache=True)
def _ends_c4_line(line, start, end):
    """Whether it ends in . ? ! " ' and not in an ellipsis."""
    last = line[end - _ONE]
    mark = last == 0x2E or last == 0x3F or last == 0x21 or last == 0x22 or last == 0x27
    return mark and not _ends_in_dots(line, start, end)


@njit(nogil=True, cache=True)
def _find_phrases(line, start, end, phrases, phrase_starts, rarest, triggers):
    """Bits of the phrases that a line holds, in any case of its letters."""
    found = 0
    for place in range(start, end - _ONE):
        candidates = triggers[0, line[place]] & triggers[1, line[place + _ONE]]
        if not candidates:
            continue
        for number in range(rarest.shape[0]):
            if not candidates >> number & 1:
                continue
            size = phrase_starts[number + 1] - phrase_starts[number]
            begin = np.int64(place) - rarest[number]
            if begin < np.int64(start) or begin + size > np.int64(end):
                continue
            same = True
            for offset in range(size):
                byte = line[begin + offset]
                if 0x41 <= byte <= 0x5A:
                    byte |= 0x20
                if byte != phrases[phrase_starts[number] + offset]:
                    same = False
                    break
            if same:
                found |= 1 << min(number, 2)
    return found


@njit(nogil=True, cache=True)
def _count_sentences(line, start, end, characters):
    """Ends of sentences, and one more if something follows the last; see `count_sentences`."""
    sentences, after_last = 0, start
    at = start
    while at < end:
        if not characters[line[at]] & _MAY_END:
            at += _ONE
            continue
        point, width = _character_at(line, at, end)
        chinese = point == 0x3002 or point == 0xFF01 or point == 0xFF1F
        if not (chinese or point == 0x2E or point == 0x21 or point == 0x3F):
            at += width
            continue
        while at < end:  # the row of marks
            point, width = _character_at(line, at, end)
            if chinese and not (point == 0x3002 or point == 0xFF01 or point == 0xFF1F):
                break
            if not chinese and not (point == 0x2E or point == 0x21 or point == 0x3F):
                break
            at += width
        while at < end:  # what closes after them
            point, width = _character_at(line, at, end)
            closes = (
                point == 0x22 or point == 0x27 or point == 0x201D or point == 0x2019 or point == 0x29 or point == 0x5D
            )
            if chinese:
                closes |= point == 0x300D or point == 0x300F or point == 0xFF09 or point == 0x3011 or point == 0x300B
            if not closes:
                break
            at += width
        spaces = 0
        while at < end:
            point, width = _character_at(line, at, end)
            if not characters[point] & _SPACE:
                break
            spaces += 1
            at += width
        if chinese or at == end or (spaces > 0 and not characters[point] & _LOWER):
            sentences += 1
            after_last = at
    while after_last < end:
        point, width = _character_at(line, after_last, end)
        if not characters[point] & _SPACE:
            return sentences + 1
        after_last += width
    return sentences
