"""Dialogues made from documents, as rows: judged by themselves, by their document, and by what is around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from corpus.augment.gates import Variant, join_reasons, normalised
from corpus.augment.pairs import failed_pair_gates
from corpus.augment.surroundings import Surroundings, failed_outside
from corpus.documents import DOCUMENT, generated_id, render_messages
from corpus.params import Gates

Row = dict[str, Any]
RULES = "instructions"  # what dialogues that rules found are called: instructions.questions, …


class Made(NamedTuple):
    """A dialogue made from a document, the `number`-th of its method."""

    parent: Row
    method: str
    number: int
    messages: list[dict[str, str]]


def generated_row(
    parent: Row, text: str, method: str, number: int, reasons: list[str], messages: list[dict[str, str]] | None = None
) -> Row:
    """A generated document with its parent's columns."""
    return {
        **{name: parent[name] for name in DOCUMENT.names},
        "id": generated_id(parent["id"], method, number),
        "text": text,
        "messages": messages,
        "parent_id": parent["id"],
        "method": method,
        "kept": not reasons,
        "reasons": reasons,
    }


def dialogue_rows(made: Sequence[Made], gates: Gates, around: Surroundings, seen: set[tuple[str, str]]) -> list[Row]:
    """Each dialogue as a row with the gates it failed. `seen` gets what was said of a parent: nothing comes twice.

    Its perplexity is not judged: a dialogue is no prose.
    """
    texts = [render_messages(one.messages) for one in made]
    variants = [Variant(one.parent["text"], text, one.method) for one, text in zip(made, texts, strict=True)]
    outside = failed_outside(variants, [None] * len(made), gates.perplexity, around)
    rows = []
    for one, text, elsewhere in zip(made, texts, outside, strict=True):
        said = one.parent["id"], normalised(text)
        reasons = failed_pair_gates(one.parent["text"], one.messages, gates)
        reasons = join_reasons(reasons, elsewhere, ["augment.duplicate"] if said in seen else [])
        seen.add(said)
        rows.append(generated_row(one.parent, text, one.method, one.number, reasons, one.messages))
    return rows
