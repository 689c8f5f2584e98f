"""Find exact and near duplicates and keep the preferred one of each; see corpus.dedup.star for the rule."""

from __future__ import annotations

import difflib
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from corpus.dedup.index import Places, build_index, read_columns, read_shingles, read_signatures
from corpus.dedup.memory import Budget
from corpus.dedup.signatures import choose_bands, recall
from corpus.dedup.star import Star, greedy_star
from corpus.documents import open_part, to_arrow, write_table
from corpus.errors import UserError
from corpus.stage import Metrics, Part, Run, batches, count_rows, side_by_side

READS = ("clean", "measure")
VERSION = 2

EXACT, NEAR = "dedup.exact", "dedup.near"


def run(run: Run) -> Metrics:
    """Annotate documents with kept, duplicate_of, similarity, cluster, reasons; write the edges between similar ones.

    Memory: the arrays of signatures, bands and shingles up to dedup.memory_mb, then in mapped files; besides some
    200 bytes a document for ids and decisions.
    """
    params = run.params.dedup
    parts = side_by_side(run)
    _check_preference(parts, params.prefer)
    with tempfile.TemporaryDirectory(dir=run.output) as folder:
        scratch = Path(folder)
        budget = Budget(params.memory_mb, scratch)
        index = build_index(run, parts, scratch, VERSION)
        documents = _in_order_of_preference(_read_documents(parts, index, params.prefer), params.prefer)

        # Documents are numbered by preference from here on: the lower number stays.
        first_copy = _first_copies(documents)
        compared = documents.filter((pl.col("number") == first_copy) & pl.col("exact").is_not_null() & "comparable")
        places = compared["place"].cast(pl.Int64).to_numpy()
        bands, rows = choose_bands(params.threshold, params.edge_threshold, params.num_perm)
        star = greedy_star(
            read_signatures(index, places, params.num_perm, budget),
            bands,
            rows,
            params.threshold,
            params.edge_threshold,
            lambda wanted: read_shingles(run, parts, places[wanted], scratch),
            budget,
        )

    numbers = compared["number"].to_numpy()
    decided = _decide(documents, first_copy, numbers, star)
    edges = _edges(documents["id"], first_copy, numbers, star)
    _write(run.output, parts, decided, edges)
    return {
        **_count(decided),
        "bands": bands,
        "rows_per_band": rows,
        "recall_at_threshold": recall(params.threshold, bands, rows),
        "recall_at_edge_threshold": recall(params.edge_threshold, bands, rows),
        "recall": {f"{tenth / 10:.1f}": recall(tenth / 10, bands, rows) for tenth in range(1, 11)},
        "pairs": {"candidates": star.candidates, "verified": star.verified, "edges": edges.height},
    }


# ---- the order of preference -----------------------------------------------------------------------------------------


def _check_preference(parts: Sequence[Part], prefer: Sequence[str]) -> None:
    """Raises UserError for a column that no input has or that has no order."""
    for part in parts:
        fields = [field for path in part.files for field in open_part(path).schema_arrow]
        known = {field.name for field in fields if not pa.types.is_nested(field.type)} | {"batch", "n_chars"}
        for column in prefer:
            name = column.removeprefix("-")
            if name not in known:
                near = difflib.get_close_matches(name, sorted(known), n=1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"
                raise UserError(f"dedup.prefer: {part} and its annotations have no column `{name}`: {hint}")


def _read_documents(parts: Sequence[Part], index: Sequence[Path], prefer: Sequence[str]) -> pl.DataFrame:
    """Ids, exact keys and preferences of all documents; `place` counts them in the order of parts."""
    frames = []
    for number, (part, path) in enumerate(zip(parts, index, strict=True)):
        known = read_columns(path)
        preferred_by = _read_preferences(part, prefer, known["n_chars"])
        frames.append(pl.concat([known.drop("n_chars"), preferred_by], how="horizontal").with_columns(part=number))
    documents = pl.concat(frames, how="vertical_relaxed").with_row_index("place")
    twice = documents.filter(pl.col("id").is_duplicated())
    if twice.height:
        part = parts[twice["part"][-1]]
        raise UserError(f"{part}: the id {twice['id'][-1]} occurs twice in the input: give each document its own id")
    return documents


def _read_preferences(part: Part, prefer: Sequence[str], n_chars: pl.Series) -> pl.DataFrame:
    """The columns of dedup.prefer; n_chars as computed and batch 0 where the input lacks them."""
    names = [name for name in dict.fromkeys(column.removeprefix("-") for column in prefer) if name != "id"]
    present = {name for path in part.files for name in open_part(path).schema_arrow.names}
    stored = pl.concat(batches(part, [name for name in names if name in present]))
    computed = {"n_chars": n_chars, "batch": pl.repeat(0, stored.height, dtype=pl.Int32, eager=True)}
    return pl.DataFrame({f"prefer_{name}": stored[name] if name in present else computed[name] for name in names})


def _in_order_of_preference(documents: pl.DataFrame, prefer: Sequence[str]) -> pl.DataFrame:
    """The documents, the preferred first, numbered; nulls come last and the id decides what is left equal."""
    order = [(column.removeprefix("-"), column.startswith("-")) for column in [*prefer, "id"]]
    return documents.sort(
        [name if name == "id" else f"prefer_{name}" for name, _ in order],
        descending=[descending for _, descending in order],
        nulls_last=True,
    ).with_row_index("number")


def _first_copies(documents: pl.DataFrame) -> pl.Series:
    """For each document the number of the preferred one with the same normalised text: mostly itself."""
    first = pl.when(pl.col("exact").is_null()).then("number").otherwise(pl.col("number").min().over("exact"))
    return documents.select(first.alias("first_copy")).to_series()


# ---- decisions -------------------------------------------------------------------------------------------------------


def _decide(documents: pl.DataFrame, first_copy: pl.Series, numbers: Places, star: Star) -> pl.DataFrame:
    """kept, duplicate_of, similarity, cluster and reasons of each document, in order of preference.

    An exact copy of a dropped document is as near to the kept one as that.
    """
    count = documents.height
    first = first_copy.to_numpy()
    near_of, similarity = np.full(count, -1, np.int64), np.ones(count)
    dropped = star.kept_of >= 0
    near_of[numbers[dropped]] = numbers[star.kept_of[dropped]]
    similarity[numbers[dropped]] = star.similarity[dropped]
    near_of, similarity = near_of[first], similarity[first]
    is_near, is_copy = near_of >= 0, first != np.arange(count)
    columns = pl.DataFrame({"of": np.where(is_near, near_of, first), "similarity": similarity, "near": is_near})
    gone = pl.Series("gone", is_near | is_copy)
    decided = documents.with_columns(columns).with_columns(kept=~gone)
    return decided.with_columns(
        duplicate_of=pl.when(gone).then(documents["id"].gather(columns["of"])),
        similarity=pl.when(gone).then("similarity"),
        reasons=pl.when(~gone).then(pl.lit([], pl.List(pl.String))).when("near").then([NEAR]).otherwise([EXACT]),
    ).with_columns(cluster=pl.coalesce("duplicate_of", "id"))


def _edges(ids: pl.Series, first_copy: pl.Series, numbers: Places, star: Star) -> pl.DataFrame:
    """The similar pairs and, with 1.0, each exact copy with the first: columns id_a < id_b, similarity, sorted."""
    copies = pl.DataFrame({"left": first_copy, "right": pl.int_range(len(ids), dtype=pl.UInt32, eager=True)})
    copies = copies.filter(pl.col("left") != pl.col("right")).with_columns(similarity=pl.lit(1.0))
    similar = pl.DataFrame(
        {"left": numbers[star.left], "right": numbers[star.right]}, schema=copies.drop("similarity").schema
    )
    pairs = pl.concat([similar.with_columns(similarity=star.edge_similarity), copies])
    left, right = ids.gather(pairs["left"]), ids.gather(pairs["right"])
    return (
        pl.DataFrame({"left": left, "right": right, "similarity": pairs["similarity"]})
        .select(
            id_a=pl.min_horizontal("left", "right"), id_b=pl.max_horizontal("left", "right"), similarity="similarity"
        )
        .sort("id_a", "id_b")
    )


def _write(output: Path, parts: Iterable[Part], decided: pl.DataFrame, edges: pl.DataFrame) -> None:
    columns = ["id", "kept", "duplicate_of", "similarity", "cluster", "reasons"]
    in_parts = decided.sort("place")
    for number, part in enumerate(parts):
        write_table(to_arrow(in_parts.filter(pl.col("part") == number).select(columns)), output / part.name)
    (output / "edges").mkdir()
    write_table(to_arrow(edges), output / "edges" / "part-00000.parquet")


def _count(decided: pl.DataFrame) -> Metrics:
    reasons = Counter(decided["reasons"].explode().drop_nulls().to_list())
    sizes = Counter(decided["cluster"].value_counts()["count"].to_list())
    return {
        **count_rows(rows_in=decided.height, dropped={reason: reasons[reason] for reason in (EXACT, NEAR)}),
        "cluster_sizes": {str(size): sizes[size] for size in sorted(sizes)},
    }
