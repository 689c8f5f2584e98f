"""Train, validation and test: similar documents never on both sides, and old documents stay when others come.

Groups are the connected components of kept documents over dedup's edges and equal texts. A hash of the seed and the
group's name, its smallest id, says into which split the whole group goes; so only a new document that is similar to an
old one, and has a smaller id or joins two groups, can move it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from corpus.documents import list_parts, open_part, to_arrow, write_table
from corpus.errors import UserError
from corpus.params import Split
from corpus.split.groups import assign, group_by_edges
from corpus.stage import Metrics, Part, Run, batches, count_rows, side_by_side
from corpus.text.exact import exact_key

READS = ("clean", "filter")
VERSION = 1


def run(run: Run) -> Metrics:
    """Annotate documents with kept, split and group, all null where a stage before had dropped them.

    Memory: id, length and key of each document, no text. Edges come from data/dedup, or with --input from a folder
    given there that has `edges/` (named before the filter's, whose `kept` counts); without any, equal texts alone make
    groups.
    """
    parts = side_by_side(run)
    documents = pl.concat(
        [_read_part(part).with_columns(part=pl.lit(number)) for number, part in enumerate(parts)],
        how="vertical_relaxed",
    )
    kept = documents.filter("kept")
    edges = [*_equal_texts(kept), *_edges(_edge_folder(run), set(kept["id"]))]
    groups = group_by_edges(kept["id"], edges)
    splits, moved = assign(set(groups.values()), _ratios(run.params.split), run.params.split.seed)

    group = pl.Series("group", [groups.get(one) for one in documents["id"]], pl.String)
    split = pl.Series("split", [None if name is None else splits[name] for name in group], pl.String)
    # What a stage before dropped is not judged here.
    judged = pl.when(pl.col("kept")).then(True).alias("kept")
    annotated = documents.with_columns(judged, split, group)
    for number, part in enumerate(parts):
        columns = annotated.filter(pl.col("part") == number).select("id", "kept", "split", "group")
        write_table(to_arrow(columns), run.output / part.name)
    return {**count_rows(rows_in=kept.height, dropped={}), "splits": _count(annotated), "moved_groups": moved}


def _ratios(params: Split) -> dict[str, float]:
    return {"train": params.train, "validation": params.validation, "test": params.test}


def _read_part(part: Part) -> pl.DataFrame:
    """id, kept, lang, n_chars and the exact key of each document of a part."""
    frames = []
    for batch in batches(part, ["text"], {"kept": True, "lang": "und"}):
        text = batch["text"].cast(pl.String).fill_null("")
        keys = pl.Series("exact", [exact_key(one) for one in text], pl.Binary)
        kept = batch["kept"].fill_null(False)
        frames.append(
            batch.select("id", pl.col("lang").fill_null("und")).with_columns(kept, keys, n_chars=text.str.len_chars())
        )
    return pl.concat(frames, how="vertical_relaxed")


def _equal_texts(kept: pl.DataFrame) -> Iterator[tuple[str, str]]:
    """An edge from each document to the smallest id with the same text."""
    pairs = kept.filter(pl.col("exact").is_not_null()).select("id", first=pl.col("id").min().over("exact"))
    yield from pairs.filter(pl.col("id") != pl.col("first")).rows()


def _edge_folder(run: Run) -> Path | None:
    """Where dedup's edges lie. Raises UserError if the graph's are missing."""
    given = [folder / "edges" for folder in run.inputs if (folder / "edges").is_dir()]
    if given:
        return given[0]
    if run.inputs[0].resolve() != run.folder("clean").resolve():
        return None
    folder = run.folder("dedup") / "edges"
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist: run `corpus dedup`, which says what is similar")
    return folder


def _edges(folder: Path | None, ids: set[str]) -> Iterator[tuple[str, str]]:
    """The edges between kept documents."""
    for path in list_parts(folder) if folder else []:
        for batch in open_part(path).iter_batches(columns=["id_a", "id_b"]):
            pairs = zip(batch["id_a"].to_pylist(), batch["id_b"].to_pylist(), strict=True)
            yield from ((left, right) for left, right in pairs if left in ids and right in ids)


def _count(annotated: pl.DataFrame) -> Metrics:
    """Documents, characters and groups of each split, in all and by language."""

    def measure(rows: pl.DataFrame) -> Metrics:
        return {"documents": rows.height, "characters": rows["n_chars"].sum(), "groups": rows["group"].n_unique()}

    counts: Metrics = {}
    for name in ("train", "validation", "test"):
        rows = annotated.filter(pl.col("split") == name)
        languages = {lang: measure(rows.filter(pl.col("lang") == lang)) for lang in rows["lang"].unique().sort()}
        counts[name] = {**measure(rows), "languages": languages}
    return counts
