"""Where sentences end, in English, Chinese and mixtures of the two; nothing of the text is lost."""

from __future__ import annotations

import re

WRAPPED = 50  # a line at least this long may go on in the next one; a shorter one is a heading, an item, a verse

# It begins with a set of characters, which the engine looks for without trying the rest at every place.
_BREAK = re.compile(
    r"""[。！？.!?…\n] (?:
        (?<=[。！？]) [。！？]*[”’」』）】》"]* \s*                   # Chinese: no space needed
      | (?<=…) …+[”’」』）】》"]* \s*
      | (?<=[.!?]) (?<![.!?][.!?]) [.!?]*["'”’)\]]* \s+         # Latin: `3.14` and `a.b` stay whole
      | (?<=\n) \s*
    )""",
    re.VERBOSE,
)
_WORD_BEFORE = re.compile(r"[\w.]+\Z")
_ABBREVIATIONS = re.compile(
    r"al|approx|art|cf|ch|chap|co|corp|dept|dr|e\.g|ed|eds|eq|etc|fig|figs|gen|gov|i\.e|inc|jr|lt|ltd|mr|mrs|ms|no|nos|"
    r"op|p|pp|prof|resp|rev|sec|sen|sr|st|vol|vs|viz|[a-z](\.[a-z])+",
    re.IGNORECASE,
)


def split_sentences(text: str) -> list[str]:
    """Cut a text into sentences, each with the white space that follows it; put together they are the text.

    Lines that stand alone (headings, items) are pieces too; a sentence wrapped over several lines is one piece.

    >>> split_sentences("Use a list, e.g. a short one. It's fast!\\n\\nSee 3.14. 今天很好。明天呢？")
    ['Use a list, e.g. a short one. ', "It's fast!\\n\\n", 'See 3.14. ', '今天很好。', '明天呢？']
    """
    pieces, start = [], 0
    for found in _BREAK.finditer(text):
        if found[0][0] in "。！？…" or _ends_sentence(text, found):
            pieces.append(text[start : found.end()])
            start = found.end()
    if start < len(text):
        pieces.append(text[start:])
    return pieces


def ends_complete(sentence: str) -> bool:
    """Whether a piece ends as a sentence does, and not as a heading or an item.

    >>> [ends_complete(piece) for piece in ("Done.) ", "Contents\\n", "“好。”")]
    [True, False, True]
    """
    return sentence.rstrip().rstrip("\"'”’)]」』）】》").endswith((".", "!", "?", "。", "！", "？", "……"))


def _ends_sentence(text: str, found: re.Match[str]) -> bool:
    """Whether a mark of Latin script, or the end of a line, ends a sentence."""
    mark, following = found[0], text[found.end() : found.end() + 1]
    if mark[0] == "\n":
        line = found.start() - text.rfind("\n", 0, found.start()) - 1
        return mark.count("\n") > 1 or line < WRAPPED or not following.islower()
    if mark.count("\n") > 1:
        return True
    return not following.islower() and not (mark[0] == "." and _is_abbreviation(text, found.start()))


def _is_abbreviation(text: str, dot: int) -> bool:
    """Whether the full stop belongs to an abbreviation, an initial, or the number of an item."""
    window = text[max(0, dot - 12) : dot]
    found = _WORD_BEFORE.search(window)
    if not found:
        return False
    word = found[0]
    starts_line = len(word) == dot or window[: found.start()].endswith("\n")
    return (
        bool(_ABBREVIATIONS.fullmatch(word)) or (len(word) == 1 and word.isupper()) or (word.isdigit() and starts_line)
    )
