"""What a generated text must keep of its parent. Each gate is one small rule with its reason in corpus/reasons.py."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter

import numpy as np

LENGTH_RATIO = (0.67, 1.5)  # characters of the generated text per character of its parent
# Web addresses, placeholders of masked personal data, numbers with their separators.
_FACT = re.compile(r"https?://[^\s<>\"'，。；、）)]+|<[A-Z_]+>|\d+(?:[.,:/-]\d+)*")


def failed_gates(parent: str, generated: str, corpus: np.ndarray) -> list[str]:
    """The reasons why a generated text must go; none if it may stay.

    `corpus` holds the sorted hashes (`text_hash`) of all documents. A text that equals its parent is nothing else.

    >>> failed_gates("It costs 3 euros.", "It costs 4 euros.", np.array([], np.uint64))
    ['augment.numbers']
    """
    if is_unchanged(parent, generated):
        return ["augment.unchanged"]
    verdicts = {
        "augment.numbers": keeps_facts(parent, generated),
        "augment.length": keeps_length(parent, generated),
        "augment.language": keeps_script(parent, generated),
        "augment.duplicate": not is_known(generated, corpus),
    }
    return [reason for reason, passed in verdicts.items() if not passed]


def is_unchanged(parent: str, generated: str) -> bool:
    """Whether the two texts are equal but for case and white space."""
    return _normalised(parent) == _normalised(generated)


def keeps_facts(parent: str, generated: str) -> bool:
    """Whether numbers, web addresses and placeholders are the same, each as often; order does not matter.

    >>> keeps_facts("On 2024-05-01 see http://a.b/c.", "See http://a.b/c. on 2024-05-01")
    True
    >>> keeps_facts("共3个", "共三个")
    False
    """
    return _facts(parent) == _facts(generated)


def _facts(text: str) -> Counter[str]:
    return Counter(fact.rstrip(".,:;!?") for fact in _FACT.findall(text))


def keeps_length(parent: str, generated: str) -> bool:
    """Whether the length in characters stays within LENGTH_RATIO of the parent's."""
    low, high = LENGTH_RATIO
    return low * len(parent) <= len(generated) <= high * len(parent)


def keeps_script(parent: str, generated: str) -> bool:
    """Whether most letters are of the same script: enough to tell a language from its translation across scripts.

    >>> keeps_script("今天很好 OK", "Today is good")
    False
    """
    return main_script(parent) == main_script(generated)


def main_script(text: str) -> str:
    """The script of most letters as Unicode names it, `` without letters.

    >>> main_script("Привет, world"), main_script("你好 ok"), main_script("123")
    ('CYRILLIC', 'CJK', '')
    """
    scripts: Counter[str] = Counter()
    for character, count in Counter(text).items():
        if character.isalpha():
            scripts[unicodedata.name(character, "?").split()[0]] += count
    return min(scripts, key=lambda script: (-scripts[script], script), default="")


def is_known(text: str, corpus: np.ndarray) -> bool:
    """Whether a document of the corpus has this text, by its hash among the sorted ones."""
    wanted = np.uint64(text_hash(text))
    place = int(np.searchsorted(corpus, wanted))
    return place < len(corpus) and bool(corpus[place] == wanted)


def text_hash(text: str) -> int:
    """64-bit BLAKE2b of a text without regard to case and white space."""
    return int.from_bytes(hashlib.blake2b(_normalised(text).encode(), digest_size=8).digest(), "big")


def _normalised(text: str) -> str:
    return " ".join(text.casefold().split())
