"""Drop a document only if it is a copy of one that stays.

Plain clustering of similar documents deletes wrong ones: A is like B and B like C, but C is not like A, which is kept.
Here documents are visited in order of preference, and one is dropped only if its exact Jaccard similarity to an already
*kept* document reaches the threshold (a greedy star). So each removal names the kept document that justifies it.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from corpus.dedup.candidates import Signatures, candidate_pairs, choose_bands, likely_pairs, recall, signatures
from corpus.dedup.shingles import Hashes, jaccard, shingle_hashes
from corpus.documents import open_part, to_arrow, write_table
from corpus.errors import UserError
from corpus.executor import run_tasks
from corpus.params import Dedup
from corpus.stage import Metrics, Part, Run, batches, count_rows, map_parts, side_by_side
from corpus.text.exact import exact_key
from corpus.text.segment import SHINGLE_VIEW

READS = ("clean", "measure")
VERSION = 1

EXACT, NEAR = "dedup.exact", "dedup.near"


def run(run: Run) -> Metrics:
    """Annotate documents with kept, duplicate_of, similarity, cluster, reasons; write the edges between similar ones.

    Memory: a signature a document, and the shingle hashes of those documents that may have a duplicate.
    """
    params = run.params.dedup
    parts = side_by_side(run)
    _check_preference(parts, params.prefer)
    documents, matrix = _read_signatures(run, parts, params)
    documents = _in_order_of_preference(documents, params.prefer)

    # Documents are numbered by preference from here on: the lower number stays.
    first_copy = _first_copies(documents)
    compared = documents.filter(
        (pl.col("number") == first_copy) & pl.col("exact").is_not_null() & (pl.col("shingles") >= params.min_shingles)
    )
    matrix = matrix[compared["place"].to_numpy()]
    bands, rows = choose_bands(params.threshold, params.edge_threshold, params.num_perm)
    candidates = candidate_pairs(matrix, bands, rows)
    likely = likely_pairs(matrix, candidates, params.edge_threshold)
    similar = _verify(run, parts, compared, likely, params)

    decided = _decide(documents, first_copy, greedy_star(documents.height, similar, params.threshold))
    edges = _edges(documents["id"], first_copy, similar)
    _write(run.output, parts, decided, edges)
    return {
        **_count(decided),
        "bands": bands,
        "rows_per_band": rows,
        "recall_at_threshold": recall(params.threshold, bands, rows),
        "recall_at_edge_threshold": recall(params.edge_threshold, bands, rows),
        "pairs": {"candidates": candidates.height, "verified": likely.height, "edges": edges.height},
    }


def greedy_star(documents: int, similar: pl.DataFrame, threshold: float) -> dict[int, tuple[int, float]]:
    """Whom each dropped document duplicates, and how similar the two are: {dropped: (kept, similarity)}.

    `documents` are numbered by preference; `similar` holds pairs left < right with their exact similarity. Of several
    kept documents the most similar one is named, of equally similar ones the preferred.

    >>> chain = pl.DataFrame({"left": [0, 1], "right": [1, 2], "similarity": [0.8, 0.9]})
    >>> greedy_star(3, chain, 0.7)  # 2 resembles only the dropped 1, so it stays
    {1: (0, 0.8)}
    """
    near = similar.filter(pl.col("similarity") >= threshold)
    dropped: dict[int, tuple[int, float]] = {}
    for left, right, similarity in near.sort("right", "similarity", "left", descending=[False, True, False]).rows():
        if right not in dropped and left not in dropped:
            dropped[right] = (left, similarity)
    return dropped


# ---- signatures ------------------------------------------------------------------------------------------------------


def _read_signatures(run: Run, parts: Sequence[Part], params: Dedup) -> tuple[pl.DataFrame, Signatures]:
    """All documents with what they are compared by and preferred for, and the matrix of their signatures.

    Signatures stay in the store by part: another threshold or order of preference reads no text.
    """
    texts_only = [dataclasses.replace(part, files=part.files[:1]) for part in parts]
    own = json.dumps([SHINGLE_VIEW, params.ngram, params.num_perm, params.seed])
    frames, rows = [], []
    with tempfile.TemporaryDirectory(dir=run.output) as scratch:
        function = functools.partial(_sign_part, params.ngram, params.num_perm, params.seed)
        map_parts(dataclasses.replace(run, output=Path(scratch)), texts_only, function, VERSION, own)
        for number, part in enumerate(parts):
            table = pq.read_table(Path(scratch) / part.name)
            signed = pl.DataFrame(table.drop_columns(["signature"]))
            rows += [np.frombuffer(chunk, np.uint32) for chunk in table["signature"].to_pylist()]
            preferred_by = _read_preferences(part, params.prefer, signed["n_chars"])
            frames.append(pl.concat([signed.drop("n_chars"), preferred_by], how="horizontal").with_columns(part=number))
    documents = pl.concat(frames, how="vertical_relaxed").with_row_index("place")
    twice = documents.filter(pl.col("id").is_duplicated())
    if twice.height:
        part = parts[twice["part"][-1]]
        raise UserError(f"{part}: the id {twice['id'][-1]} occurs twice in the input: give each document its own id")
    return documents, np.stack(rows) if rows else np.empty((0, params.num_perm), np.uint32)


def _sign_part(ngram: int, num_perm: int, seed: int, part: Part, folder: Path) -> Metrics:
    """Write id, n_chars, exact, shingles (how many distinct ones) and signature of each document of a part."""
    tables = []
    for batch in batches(part, ["text"]):
        texts = [text or "" for text in batch["text"]]
        shingles = [shingle_hashes(text, ngram) for text in texts]
        matrix = signatures(shingles, num_perm, seed)
        columns = {
            "id": pa.array(batch["id"].to_list(), pa.string()),
            "n_chars": pa.array([len(text) for text in texts], pa.int64()),
            "exact": pa.array([exact_key(text) for text in texts], pa.string()),
            "shingles": pa.array([hashes.size for hashes in shingles], pa.int64()),
            "signature": pa.array([row.tobytes() for row in matrix], pa.binary(4 * num_perm)),
        }
        tables.append(pa.table(columns))
    write_table(pa.concat_tables(tables), folder / part.name)
    return {}


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


# ---- verification and decision ---------------------------------------------------------------------------------------


def _verify(
    run: Run, parts: Sequence[Part], compared: pl.DataFrame, likely: pl.DataFrame, params: Dedup
) -> pl.DataFrame:
    """Exact Jaccard similarity of the likely pairs; those that reach edge_threshold, by the numbers of documents."""
    involved = compared[pl.concat([likely["left"], likely["right"]]).unique().sort()]
    first_places = np.cumsum([0, *(part.rows for part in parts)])
    tasks = [
        (parts[number], {place - int(first_places[number]): n for place, n in frame.select("place", "number").rows()})
        for (number,), frame in involved.group_by("part", maintain_order=True)
        if isinstance(number, int)
    ]
    shingles: dict[int, Hashes] = {}
    for _, found in run_tasks(functools.partial(_shingles_of_rows, params.ngram), tasks, run.workers):
        shingles.update(found)
    numbers = compared["number"]
    left, right = numbers[likely["left"]].to_list(), numbers[likely["right"]].to_list()
    return pl.DataFrame(
        {
            "left": left,
            "right": right,
            "similarity": [jaccard(shingles[a], shingles[b]) for a, b in zip(left, right, strict=True)],
        },
        schema={"left": pl.UInt32, "right": pl.UInt32, "similarity": pl.Float64},
    ).filter(pl.col("similarity") >= params.edge_threshold)


def _shingles_of_rows(ngram: int, task: tuple[Part, dict[int, int]]) -> dict[int, Hashes]:
    """The shingles of some rows of a part, by the number that the task gives each row."""
    part, wanted = task
    found, row = {}, 0
    for batch in batches(part, ["text"]):
        texts = batch["text"]
        for place in range(batch.height):
            if row + place in wanted:
                found[wanted[row + place]] = shingle_hashes(texts[place], ngram)
        row += batch.height
    return found


def _decide(documents: pl.DataFrame, first_copy: pl.Series, dropped: dict[int, tuple[int, float]]) -> pl.DataFrame:
    """kept, duplicate_of, similarity, cluster and reasons of each document, in order of preference."""
    rows: list[tuple[bool, int | None, float | None, list[str]]] = []
    for number, first in enumerate(first_copy.to_list()):
        if first in dropped:  # an exact copy of a dropped document is as near to the kept one as that
            kept, similarity = dropped[first]
            rows.append((False, kept, similarity, [NEAR]))
        elif first != number:
            rows.append((False, first, 1.0, [EXACT]))
        else:
            rows.append((True, None, None, []))
    schema = {"kept": pl.Boolean(), "of": pl.UInt32(), "similarity": pl.Float64(), "reasons": pl.List(pl.String)}
    decided = pl.concat([documents, pl.DataFrame(rows, schema=schema, orient="row")], how="horizontal")
    duplicate_of = documents["id"].gather(decided["of"])
    return decided.with_columns(duplicate_of=duplicate_of, cluster=pl.coalesce(duplicate_of, "id"))


def _edges(ids: pl.Series, first_copy: pl.Series, similar: pl.DataFrame) -> pl.DataFrame:
    """The similar pairs and, with 1.0, each exact copy with the first: columns id_a < id_b, similarity, sorted."""
    copies = pl.DataFrame({"left": first_copy, "right": pl.int_range(len(ids), dtype=pl.UInt32, eager=True)})
    copies = copies.filter(pl.col("left") != pl.col("right")).with_columns(similarity=pl.lit(1.0))
    pairs = pl.concat([similar, copies])
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
