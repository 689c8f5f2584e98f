"""Find exact and near duplicates and keep the preferred one of each; see corpus.dedup.star for the rule."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from corpus.dedup.bands import choose_bands, recall
from corpus.dedup.earlier import longest_star, store_star
from corpus.dedup.index import Places, build_index, read_exact_keys, read_shingles, read_signatures
from corpus.dedup.memory import Budget
from corpus.dedup.partitions import Thresholds, partitioned_star
from corpus.dedup.ranking import Ranking, check_preference, rank_documents
from corpus.dedup.star import Indices, ShingleSets, Star, greedy_star
from corpus.documents import part_writer, to_arrow, write_table
from corpus.errors import UserError
from corpus.stage import Metrics, Part, Run, count_rows, side_by_side
from corpus.text.tokens import SHINGLE_VIEW

READS = ("clean", "measure")
VERSION = 2

EXACT, NEAR = "dedup.exact", "dedup.near"
EDGES_AT_ONCE = 200_000  # written
PARTITIONED_FROM = 500_000  # documents to compare: with fewer, starting workers takes longer than it saves


def run(run: Run) -> Metrics:
    """Annotate documents with kept, duplicate_of, similarity, cluster, reasons; write the edges between similar ones.

    Memory: the arrays of signatures, bands and shingles up to dedup.memory_mb, then in mapped files; besides some
    300 bytes a document for ids and decisions.
    """
    params = run.params.dedup
    parts = side_by_side(run)
    check_preference(parts, params.prefer)
    if any(part.name == "edges" for part in parts):
        raise UserError("a part called edges would stand where the edges go: give the file another name")
    with tempfile.TemporaryDirectory(dir=run.output) as folder:
        scratch = Path(folder)
        index = build_index(run, parts, scratch / "index", VERSION)
        ranking = rank_documents(parts, index, params.prefer)
        bands, rows = choose_bands(params.threshold, params.edge_threshold, params.num_perm)

        first_ones = ranking.first_copy == np.arange(len(ranking.ids))
        compared = np.flatnonzero(first_ones & ranking.comparable)
        places = ranking.places[compared]
        thresholds = Thresholds(bands, rows, params.threshold, params.edge_threshold)
        star = _draw_star(run, parts, index, places, thresholds, scratch)

    decisions = _decide(ranking, compared, star)
    _write_annotation(run.output, parts, ranking, decisions)
    edges = _write_edges(run.output / "edges", ranking, compared, star)
    return {
        **_count(decisions),
        "bands": bands,
        "rows_per_band": rows,
        "recall_at_threshold": recall(params.threshold, bands, rows),
        "recall_at_edge_threshold": recall(params.edge_threshold, bands, rows),
        "recall": {f"{tenth / 10:.1f}": recall(tenth / 10, bands, rows) for tenth in range(1, 11)},
        "pairs": {"verified": star.verified, "edges": edges},
    }


def _draw_star(
    run: Run, parts: Sequence[Part], index: Sequence[Path], places: Places, thresholds: Thresholds, scratch: Path
) -> Star:
    """The star over the documents at some places: that of the store, or of an earlier run with what has come since, or
    drawn anew."""
    params = run.params.dedup
    keys = read_exact_keys(index, places)
    settings = f"{VERSION} {SHINGLE_VIEW} {params.model_dump_json(exclude={'memory_mb', 'prefer'})}"
    store = run.home / "stars"
    earlier = longest_star(store, settings, keys)
    if earlier and len(earlier.kept_of) == len(keys):
        run.used.add(store_star(store, settings, keys, earlier))
        return earlier
    budget = Budget(params.memory_mb, scratch)
    signatures = read_signatures(index, places, params.num_perm, budget)

    def fetch(wanted: Indices) -> ShingleSets:
        return read_shingles(run, parts, places[wanted], scratch)

    known = len(earlier.kept_of) if earlier else 0
    if run.crew == 1 or len(keys) - known < PARTITIONED_FROM:
        star = greedy_star(signatures, *thresholds, fetch, budget, earlier=earlier)
    else:
        star = partitioned_star(signatures, thresholds, fetch, scratch, run.crew, params.memory_mb // run.workers)
    run.used.add(store_star(store, settings, keys, star))
    return star


class Decisions(NamedTuple):
    """What becomes of each document, by number."""

    duplicate_of: npt.NDArray[np.int64]  # the number of a kept document, or -1
    similarity: npt.NDArray[np.float64]  # to that one
    near: npt.NDArray[np.bool_]  # and not of the same text


def _decide(ranking: Ranking, compared: npt.NDArray[np.int64], star: Star) -> Decisions:
    """The star's decisions, carried over to exact copies: that of a dropped one is as near to the kept one as it."""
    count = len(ranking.ids)
    duplicate_of, similarity = np.full(count, -1, np.int64), np.ones(count)
    dropped = star.kept_of >= 0
    duplicate_of[compared[dropped]] = compared[star.kept_of[dropped]]
    similarity[compared[dropped]] = star.similarity[dropped]
    duplicate_of, similarity = duplicate_of[ranking.first_copy], similarity[ranking.first_copy]
    near = duplicate_of >= 0
    copies = ~near & (ranking.first_copy != np.arange(count))
    return Decisions(np.where(copies, ranking.first_copy, duplicate_of), similarity, near)


def _write_annotation(output: Path, parts: Sequence[Part], ranking: Ranking, decisions: Decisions) -> None:
    number_at = np.empty_like(ranking.places)
    number_at[ranking.places] = np.arange(len(number_at))
    first = 0
    for part in parts:
        numbers = number_at[first : first + part.rows]
        first += part.rows
        kept = pl.Series(decisions.duplicate_of[numbers] < 0)
        of = pl.Series(decisions.duplicate_of[numbers]).set(kept, None)
        annotation = pl.DataFrame(
            {
                "id": ranking.ids.gather(numbers),
                "kept": kept,
                "duplicate_of": ranking.ids.gather(of),
                "similarity": pl.Series(decisions.similarity[numbers]).set(kept, None),
                "near": decisions.near[numbers],
            }
        ).with_columns(
            cluster=pl.coalesce("duplicate_of", "id"),
            reasons=pl.when("kept").then(pl.lit([], pl.List(pl.String))).when("near").then([NEAR]).otherwise([EXACT]),
        )
        write_table(to_arrow(annotation.drop("near")), output / part.name)


def _write_edges(folder: Path, ranking: Ranking, compared: npt.NDArray[np.int64], star: Star) -> int:
    """Similar pairs and, with 1.0, each exact copy with the first: columns id_a < id_b, similarity. How many."""
    copies = np.flatnonzero(ranking.first_copy != np.arange(len(ranking.ids)))
    left = np.concatenate([compared[star.left], ranking.first_copy[copies]])
    right = np.concatenate([compared[star.right], copies])
    similarity = np.concatenate([star.edge_similarity, np.ones(len(copies))])
    order = np.lexsort((right, left))
    empty = to_arrow(pl.DataFrame(schema={"id_a": pl.String, "id_b": pl.String, "similarity": pl.Float64}))
    folder.mkdir()
    with part_writer(empty.schema, folder / "part-00000.parquet") as writer:
        for start in range(0, len(order), EDGES_AT_ONCE):
            some = order[start : start + EDGES_AT_ONCE]
            one, other = ranking.ids.gather(left[some]), ranking.ids.gather(right[some])
            edges = pl.DataFrame({"one": one, "other": other, "similarity": similarity[some]})
            id_a, id_b = pl.min_horizontal("one", "other"), pl.max_horizontal("one", "other")
            writer.write_table(to_arrow(edges.select(id_a=id_a, id_b=id_b, similarity="similarity")))
    return len(order)


def _count(decisions: Decisions) -> Metrics:
    kept = decisions.duplicate_of < 0
    sizes = Counter((np.bincount(decisions.duplicate_of[~kept], minlength=len(kept))[kept] + 1).tolist())
    near = int(decisions.near.sum())
    return {
        **count_rows(rows_in=len(kept), dropped={EXACT: int((~kept).sum()) - near, NEAR: near}),
        "cluster_sizes": {str(size): sizes[size] for size in sorted(sizes)},
    }
