"""What a generated text must keep of its parent. Each gate is one small rule with its reason in corpus/reasons.py."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from corpus.augment.structure import pieces
from corpus.clean.language import detect_language
from corpus.params import Gates
from corpus.text.sentences import split_sentences

_ADDRESS = r"https?://[^\s<>\"'，。；、）)]+ | [\w.+-]+@[\w-]+\.[\w.-]+ | <[A-Z_]+>"  # or a placeholder of masked data
_FACT = re.compile(_ADDRESS + r" | \d+(?:[.,:/-]\d+)*", re.VERBOSE | re.ASCII)  # or a number with its separators
# A name: within a sentence a word with a capital; acronyms and words like iPhone or Python3 anywhere; 《titles》.
_NAME = re.compile(
    r"(?<=[a-z,;:0-9]\ )[A-Z][\w'’-]*\w | \b\w*[a-z]\w*[A-Z]\w*\b | \b[A-Z][A-Z0-9]+\b | \b[A-Za-z]+\d\w*\b"
    r" | 《[^》\n]+》",
    re.VERBOSE | re.ASCII,
)
_WORD = re.compile(r"[\u3400-\u9fff\u3040-\u30ff\uac00-\ud7af]|[^\W_]+(?:['’-][^\W_]+)*")
_RUN = 4  # words that count as a repetition when they come again


class Variant(NamedTuple):
    """A text made from a document."""

    parent: str
    text: str
    method: str
    rewords: bool = True  # whether it was made to say the same in other words


def failed_gates(variant: Variant, gates: Gates) -> list[str]:
    """The reasons why a generated text must go, by the two texts alone; none if it may stay.

    A text that equals its parent is nothing else.

    >>> failed_gates(Variant("It costs 3 euros.", "It costs 4 euros.", "any"), Gates(chrf=(0, 100)))
    ['augment.numbers']
    """
    parent, text = variant.parent, variant.text
    if is_unchanged(parent, text):
        return ["augment.unchanged"]
    passed = {
        "augment.numbers": facts(parent) == facts(text),
        "augment.entities": kept_names(parent, text) >= gates.entities,
        "augment.length": gates.length[0] * len(parent) <= len(text) <= gates.length[1] * len(parent),
        "augment.language": language(parent) == language(text),
        "augment.repetition": repetition(text) <= repetition(parent) + gates.repetition,
    }
    if variant.rewords:
        score = chrf(parent, text)
        passed |= {
            "augment.copied": copied(parent, text) <= gates.copied,
            "augment.near": score <= gates.chrf[1],
            "augment.far": score >= gates.chrf[0],
        }
    return [reason for reason, stays in passed.items() if not stays]


def is_unchanged(parent: str, text: str) -> bool:
    """Whether the two texts are equal but for case and white space."""
    return normalised(parent) == normalised(text)


def normalised(text: str) -> str:
    """Case folded, each run of white space one space."""
    return " ".join(text.casefold().split())


def facts(text: str) -> Counter[str]:
    """Numbers, web addresses and placeholders, and how often each is there.

    >>> facts("On 2024-05-01 see http://a.b/c.") == facts("See http://a.b/c. on 2024-05-01")
    True
    >>> facts("共3个") == facts("共三个")
    False
    """
    return Counter(fact.rstrip(".,:;!?") for fact in _FACT.findall(text))


def names(text: str) -> set[str]:
    """What looks like a name, case folded: capitals within a sentence, acronyms, Latin words with digits, 《titles》.

    >>> sorted(names("We went to Paris with NASA, see Python3. 他读了《红楼梦》。"))
    ['nasa', 'paris', 'python3', '《红楼梦》']
    """
    return {name.casefold() for name in _NAME.findall(re.sub(_ADDRESS, " ", text, flags=re.VERBOSE))}


def kept_names(parent: str, text: str) -> float:
    """The share of the parent's names that the text has as well; 1 where there are none.

    >>> kept_names("We met Anna in Rome.", "In Rome there was a meeting.")
    0.5
    """
    wanted = names(parent)
    folded = text.casefold()
    return sum(name in folded for name in wanted) / len(wanted) if wanted else 1.0


def copied(parent: str, text: str) -> float:
    """The share of the text's sentences of prose that are the parent's.

    >>> copied("One is here. Two is there.", "One is here. The second is there.")
    0.5
    """
    own = [normalised(piece.text) for piece in pieces(text) if piece.prose]
    known = {normalised(sentence) for sentence in split_sentences(parent)} | {
        normalised(piece.text) for piece in pieces(parent)
    }
    return sum(sentence in known for sentence in own) / len(own) if own else 0.0


def chrf(parent: str, text: str) -> float:
    """chrF2 of the text with its parent as the reference (Popović 2015), 0 to 100, by sacrebleu."""
    import sacrebleu

    return float(sacrebleu.sentence_chrf(text, [parent]).score)


def repetition(text: str) -> float:
    """The share of runs of four words (characters in Chinese) that stood before; 0 for a text of no more than four.

    >>> repetition("one two three four five"), repetition("so on and so on and so on")
    (0.0, 0.4)
    """
    words = _WORD.findall(text.casefold())
    runs = [tuple(words[at : at + _RUN]) for at in range(len(words) - _RUN + 1)]
    return 1 - len(set(runs)) / len(runs) if len(runs) > 1 else 0.0


@functools.lru_cache(maxsize=4)
def language(text: str) -> str:
    """The language that a text seems to be in, its script included: the same detector for parent and text."""
    return detect_language(text).tag


def sentences_of(text: str) -> Iterator[str]:
    """The sentences of prose in a text."""
    return (piece.text for piece in pieces(text) if piece.prose)


def join_reasons(*lists: Sequence[str]) -> list[str]:
    """All reasons, each once, in order."""
    return list(dict.fromkeys(reason for reasons in lists for reason in reasons))
