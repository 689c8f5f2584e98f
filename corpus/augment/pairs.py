"""What a dialogue made from a document must be to stay: grounded in it, in its language, saying something."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from corpus.augment.gates import facts, language, names, normalised, repetition
from corpus.clean.language import detect_language
from corpus.params import Gates

MIN_QUESTION, MIN_ANSWER = 3, 2  # characters
SURE = 0.9  # of a language
Messages = Sequence[dict[str, str]]


def failed_pair_gates(parent: str, messages: Messages, gates: Gates) -> list[str]:
    """The reasons why a dialogue must go, by itself and the document that it was made from; none if it may stay.

    >>> dialogue = [{"role": "user", "content": "How much is it?"}, {"role": "assistant", "content": "4 euros."}]
    >>> failed_pair_gates("It costs 3 euros.", dialogue, Gates())
    ['augment.invented']
    """
    asked = " \n".join(message["content"] for message in messages if message["role"] != "assistant")
    answered = " \n".join(message["content"] for message in messages if message["role"] == "assistant")
    passed = {
        "augment.empty": len(asked.strip()) >= MIN_QUESTION
        and len(answered.strip()) >= MIN_ANSWER
        and normalised(asked) != normalised(answered),
        "augment.invented": known_facts(answered, parent, asked) >= gates.entities,
        "augment.language": not in_another_language(f"{asked}\n{answered}", language(parent)),
        "augment.repetition": repetition(answered) <= _repetition_of_parent(parent) + gates.repetition,
    }
    return [reason for reason, stays in passed.items() if not stays]


def in_another_language(text: str, expected: str) -> bool:
    """Whether a text is surely not in a language; of a few words nobody can tell."""
    found = detect_language(text)
    return found.tag not in (expected, "und") and found.score >= SURE


def known_facts(answer: str, parent: str, question: str = "") -> float:
    """The share of an answer's numbers, addresses and names that the parent or the question has; 1 of none.

    All numbers and addresses must be there: one that is not makes it 0. A number that orders a list is none.

    >>> known_facts("Of these Anna pays 3 to Bob.", "Anna owes 3 euros.")
    0.5
    >>> known_facts("1. First this.\\n2. Then that.", "This and that.")
    1.0
    """
    unnumbered = re.sub(r"^\s*\d+[.)、．]\s*", "", answer, flags=re.MULTILINE)
    if not set(facts(unnumbered)) <= _facts_of_parent(parent) | set(facts(question)):
        return 0.0
    wanted, asked, folded = names(unnumbered), question.casefold(), _folded_parent(parent)
    return sum(name in asked or name in folded for name in wanted) / len(wanted) if wanted else 1.0


# A document may hold a thousand dialogues, which are judged one after another.


@functools.lru_cache(maxsize=2)
def _facts_of_parent(parent: str) -> frozenset[str]:
    return frozenset(facts(parent))


@functools.lru_cache(maxsize=2)
def _folded_parent(parent: str) -> str:
    return parent.casefold()


@functools.lru_cache(maxsize=2)
def _repetition_of_parent(parent: str) -> float:
    return repetition(parent)
