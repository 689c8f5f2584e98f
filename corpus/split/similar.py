"""What belongs together: documents that have something in common, resemble or hold one another.

Numbers are rows of a table in the order of batches. Those of a later batch never decide whether old ones are connected.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from corpus.documents import list_parts, open_part
from corpus.split.grams import GramTable, Numbers, expand
from corpus.split.groups import Members, Pairs
from corpus.split.short import similar_short

SIMILAR = 0.4  # Jaccard similarity of short documents; below 0.5, since other tools cut words in other places
CONTAINED = 0.35  # of the sketch of a document that another holds; one in 10,000 of those that hold half is missed
OWNERS = 8  # of a 13-gram that its holders are compared with: the shortest documents, to which all others lead
MOST_DIALOGUES = 0.01  # a turn in more of them is a label or a greeting
FEW_DIALOGUES = 5  # and at least in so many


def having(keys: pl.Series, turns: pl.Series, batches: pl.Series) -> Members:
    """Which documents have which of the keys that several have, and of the turns of dialogues.

    A turn that many dialogues of its batch and those before have is left out there.
    """
    rows = pl.DataFrame({"document": np.arange(len(keys)), "batch": batches, "key": keys, "turn": turns})
    own, said = (rows.select("document", "batch", key=name).explode("key").drop_nulls() for name in ("key", "turn"))
    dialogues = said.group_by("batch").agg(dialogues=pl.col("document").n_unique()).sort("batch")
    own, said = (each.filter(pl.col("key").is_duplicated()).unique() for each in (own, said))  # most keys are alone
    having = said.group_by("key", "batch").agg(having=pl.len()).sort("batch")
    few = (
        having.with_columns(pl.col("having").cum_sum().over("key"))
        .join(dialogues.with_columns(pl.col("dialogues").cum_sum()), on="batch")
        .filter(pl.col("having") <= pl.max_horizontal(FEW_DIALOGUES, MOST_DIALOGUES * pl.col("dialogues")))
    )
    said = said.join(few, on=["key", "batch"], how="semi")
    both = pl.concat([own.with_columns(kind=0), said.with_columns(kind=1)])
    shared = both.filter(pl.len().over("key", "kind") > 1).sort("document", "kind", "key")
    numbers = shared.select(pl.struct("kind", "key").rank("dense") - 1).to_series()
    return Members(shared["document"].to_numpy(), numbers.to_numpy().astype(np.int64))


def alike_when_short(shingles: pl.Series) -> Pairs:
    """Pairs of short documents, given the shingles of each, that reach SIMILAR."""
    sizes = shingles.list.len().to_numpy().astype(np.int64)
    hashes = shingles.explode(empty_as_null=False, keep_nulls=False).to_numpy()
    return similar_short(hashes.copy(), np.concatenate([[0], np.cumsum(sizes)]), SIMILAR)


def rank_of_owners(grams: Numbers, batches: Numbers) -> npt.NDArray[np.uint32]:
    """Of each document how many are preferred as an owner: those of earlier batches, then those of fewer 13-grams."""
    rank = np.empty(len(grams), np.uint32)
    rank[np.lexsort((grams, batches))] = np.arange(len(grams))
    return rank


def holds(documents: Numbers, places: Numbers, table: GramTable, sketch_sizes: npt.NDArray[Any]) -> Pairs:
    """Pairs of a document and another that holds CONTAINED of its sketch, given who holds which 13-gram, each once."""
    index, owners = expand(table, places)
    holders = documents[index]
    owners, holders = owners[owners != holders], holders[owners != holders]
    first = holders.min(initial=0)
    pairs, counts = np.unique(owners << 32 | (holders - first), return_counts=True)  # both are below 2^31
    owners, holders = pairs >> 32, first + (pairs & 0xFFFFFFFF)
    enough = counts >= CONTAINED * sketch_sizes[owners]
    return owners[enough], holders[enough]


def edges_of(folder: Path, ids: pl.Series) -> Pairs:
    """The pairs in a folder of `id_a`, `id_b`, by their places among `ids`; those of others are left out."""
    number = pl.DataFrame({"id": ids, "number": np.arange(len(ids))})
    found = [np.zeros((0, 2), np.int64)]
    for path in list_parts(folder):
        for batch in open_part(path).iter_batches(columns=["id_a", "id_b"]):
            one, other = (number.rename({"id": name, "number": f"number_{name}"}) for name in ("id_a", "id_b"))
            known = pl.DataFrame(batch).join(one, on="id_a").join(other, on="id_b")
            found.append(known.select("number_id_a", "number_id_b").to_numpy())
    left, right = np.concatenate(found).T
    return left, right
