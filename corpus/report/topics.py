"""The topics that `measure` found in each language, ready to tabulate."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

METHODS = {"nmf": "non-negative matrix factorisation", "lda": "latent Dirichlet allocation"}


@dataclasses.dataclass(frozen=True)
class Topic:
    """A row of the table; `width` is the length of its bar in percent of the longest."""

    number: int  # as in the column `topic`
    share: float
    width: float
    words: str
    coherence: float | None


@dataclasses.dataclass(frozen=True)
class TopicTable:
    """The topics of one language, the largest first; none of a language with too few documents, for a reason."""

    lang: str
    documents: int
    vocabulary: int
    method: str
    coherence: float | None
    consistency: float | None
    reason: str | None
    topics: list[Topic]


def topic_tables(metrics: Mapping[str, Mapping[str, Any]]) -> list[TopicTable]:
    """A table per language that measure looked for topics in; nothing where it found none in any.

    >>> topic_tables({"measure": {"languages": {"en": {"documents": 5, "signals": {}}}}})
    []
    """
    languages = metrics.get("measure", {}).get("languages", {})
    tables = [_table(lang, facts["topics"]) for lang, facts in languages.items() if facts.get("topics")]
    return tables if any(table.topics for table in tables) else []


def _table(lang: str, facts: Mapping[str, Any]) -> TopicTable:
    largest = max((topic["share"] for topic in facts["topics"]), default=0) or 1
    topics = [
        Topic(
            number,
            topic["share"],
            round(100 * topic["share"] / largest, 2),
            " · ".join(topic["words"]),
            topic["coherence"],
        )
        for number, topic in enumerate(facts["topics"])
    ]
    method = METHODS.get(facts["method"], facts["method"])
    figures = (facts["documents"], facts["vocabulary"], method, facts["coherence"], facts["consistency"])
    return TopicTable(lang, *figures, facts["reason"], topics)
