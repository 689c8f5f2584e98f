"""Test sets that must not be learned, and the documents that hold something of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from corpus.documents import render_messages
from corpus.errors import StageError, UserError
from corpus.params import TestSet
from corpus.scrape.files import list_files
from corpus.scrape.rows import read_files
from corpus.sources import RowSource
from corpus.split.grams import GramTable, Numbers, expand, gram_table
from corpus.split.traces import grams, tokenised
from corpus.text.buffers import Texts

# A 13-gram in more documents of the corpus is a phrase (Brown et al. 2020, appendix C).
COMMON = 10
COPIED = 0.5  # of the 13-grams of a test row, common ones too: who holds so many holds the row


class TestRows(NamedTuple):
    """The rows of all test sets."""

    sets: list[str]  # of each row the set it is of
    ids: list[str]  # and what it is called there
    lengths: list[int]  # tokens
    table: GramTable  # by 13-gram the rows that have it


class Contaminated(NamedTuple):
    """Documents that hold something of a test set."""

    documents: Numbers  # each once, ascending
    rows: Numbers  # of each the test row that it holds most of


def read_test_sets(pinned: Path, named: Mapping[str, TestSet]) -> TestRows:
    """The pinned sets, each *.jsonl of a folder, and those named in params.

    Raises UserError for a path without rows, or a row without text: a test set counts whole or not at all. Raises
    StageError where a copy of one of its rows between other words would not be found: it would guard nothing.
    """
    sets: list[str] = []
    ids: list[str] = []
    lengths: list[int] = []
    hashes, owners = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    own = {f"pinned-{path.stem}": TestSet(path=str(path)) for path in sorted(pinned.glob("*.jsonl"))}
    if taken := sorted(own.keys() & named):
        raise UserError(f"split.test_sets.{taken[0]}: a pinned set has this name: call it something else")
    for name, settings in {**own, **named}.items():
        rows = list(_rows(f"split.test_sets.{name}", settings))
        first, longest = len(ids), max(rows, key=lambda row: len(row[1]))
        sets += [name] * len(rows)
        ids += [row_id for row_id, _ in rows]
        texts = Texts.of_strings(text for _, text in rows)
        own_lengths = [length for _, tokens in tokenised(texts) for length in np.diff(tokens.offsets).tolist()]
        if 0 in own_lengths:
            number = own_lengths.index(0)
            raise UserError(
                f"split.test_sets.{name}: row {rows[number][0]} of {settings.path} has no words to look for"
            )
        lengths += own_lengths
        found, of = grams_of(texts)
        hashes.append(found)
        owners.append(first + of)
        _check_canary(name, longest[1], gram_table(found, of))
    return TestRows(sets, ids, lengths, gram_table(np.concatenate(hashes), np.concatenate(owners)))


def grams_of(texts: Texts) -> tuple[np.ndarray, Numbers]:
    """The 13-grams of texts, distinct in each, and the number of the text that each is of."""
    hashes, owners, first = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)], 0
    for some, tokens in tokenised(texts):
        found = grams(tokens)
        hashes.append(found.hashes)
        owners.append(first + np.repeat(np.arange(len(some)), np.diff(found.offsets)))
        first += len(some)
    return np.concatenate(hashes), np.concatenate(owners)


def find_contaminated(documents: Numbers, places: Numbers, table: GramTable, batches: Numbers) -> Contaminated:
    """Which documents must go, given pairs of a document and the place in the table of a 13-gram it holds, each once.

    A document must go if it holds a 13-gram of a test row that at most COMMON documents of its batch and those before
    hold, or COPIED of those of a row. Of several rows the one counts of which it holds most, of these the first.
    `batches` are those of all documents, ascending.
    """
    order = np.lexsort((documents, places))
    ranked = np.arange(len(order)) - np.searchsorted(places[order], places[order])  # holders of the same one before
    same = np.unique(np.stack([places[order], batches[documents[order]]]), axis=1, return_inverse=True)[1]
    most = np.zeros(len(order), np.int64)
    np.maximum.at(most, same, ranked)  # of the last holder in the batch
    rare = documents[order][most[same] < COMMON]
    index, rows = expand(table, places)
    pairs, shared = np.unique(np.stack([documents[index], rows]), axis=1, return_counts=True)
    copied = pairs[0][shared >= COPIED * np.bincount(table.owners)[pairs[1]]]
    by_holder = np.lexsort((pairs[1], -shared, pairs[0]))
    holders, firsts = np.unique(pairs[0][by_holder], return_index=True)
    gone = np.isin(holders, np.union1d(rare, copied))
    return Contaminated(holders[gone], pairs[1][by_holder][firsts[gone]])


def _check_canary(name: str, text: str, table: GramTable) -> None:
    """Plant a row of a test set between other words and look for it in the way that all documents are looked at."""
    long_enough = len(grams_of(Texts.of_strings([text]))[0]) > 1
    planted = f"first come some other words\n{text}\nand then come some more" if long_enough else text
    hashes, owners = grams_of(Texts.of_strings([planted]))
    at, places = table.find(hashes)
    if not len(find_contaminated(owners[at], places, table, np.zeros(1, np.int64)).documents):
        raise StageError(f"the canary of {name} was not found: a copy of {text[:60]!r} would get into training")


def _rows(key: str, settings: TestSet) -> Iterator[tuple[str, str]]:
    """Id and text of each row of a test set, all its strings where it has fields of its own."""
    fields = settings.fields or ["text"]
    # Not as if a source named its field by hand: what is missing is said here, of the test set.
    named = {"name": "test", "kind": settings.kind, "path": settings.path, "text_field": fields[0]}
    source = RowSource.model_construct(set(), **named)
    try:
        entries = list_files(settings.path, settings.kind)
    except UserError as error:
        raise UserError(str(error).replace("sources:", f"{key}:", 1)) from None
    number = 0
    for number, row in enumerate(read_files(source, entries, Counter()), 1):
        more = json.loads(row.get("meta") or "{}")
        values: list[Any] = [row.get("text"), *(more.get(field, row.get(field)) for field in fields[1:])]
        if row.get("messages") and not settings.fields:
            values = [render_messages(row["messages"])]
        text = "\n".join(_strings(values))
        if "reason" in row or None in values or not text.strip():
            detail = row.get("detail") or f"not all of {', '.join(fields)} are there and hold text"
            raise UserError(f"{key}: row {number} of {settings.path}: {detail}; name the `fields` that hold its text")
        yield str(more.get("id", number)), text
    if not number:
        raise UserError(f"{key}: {settings.path} holds no row: there is nothing to guard against")


def _strings(value: Any) -> Iterator[str]:
    """All strings in a value, however deep.

    >>> list(_strings(["Who?", {"choices": ["a", "b"]}, 3]))
    ['Who?', 'a', 'b']
    """
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _strings(item)
