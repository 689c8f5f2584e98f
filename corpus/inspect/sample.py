"""`corpus sample`: a few documents that a stage kept or dropped, drawn by hash: the same ones on every run.

Two passes in flat memory: ids and decisions of all rows, of which the best few are remembered by file and row; then
the text of those alone.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from rich.text import Text

from corpus.clean.personal import mask_personal_data
from corpus.documents import ROW_GROUP_ROWS, aligned_batches, open_part, table_batches
from corpus.errors import UserError
from corpus.filter.table import cut, printable, signed, wrap
from corpus.inspect.terminal import plain, to_line, to_text
from corpus.reasons import explain
from corpus.report.samples import chance_of

STAGES = ("scrape", "clean", "dedup", "filter", "split", "augment")  # those that keep and drop
OWN_TEXT = ("scrape", "clean", "augment")  # the others annotate the documents of clean
FIELDS: tuple[str, ...] = ("stage", "kept", "id", "source", "lang", "url", "title", "date", "reasons", "margins")
FIELDS += ("detail", "duplicate_of", "similarity", "parent_id", "method", "split", "text")
ORDER = {"margin": pl.Float64, "rank": pl.Float64, "id": pl.String, "file": pl.Int64, "row": pl.Int64}
PAIR: dict[str, pl.DataType] = {"reasons": pl.List(pl.String), "margins": pl.List(pl.Float64)}
DECISION = pl.Schema({"id": pl.String(), "lang": pl.String(), "source": pl.String(), "kept": pl.Boolean(), **PAIR})
NAMES = 1000  # of reasons, languages and sources each, remembered for the case that nothing matches
TEXT_LINES, WIDTH = 6, 120


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Which documents to draw from; None leaves all in.

    stage: one of STAGES; by default that of the reason, the filter where margins are asked for, else the last one built
    kept: what it kept, or what it dropped; rows that it did not judge are in neither
    reason: a reason, or its beginning up to a dot
    """

    stage: str | None = None
    kept: bool | None = None
    reason: str | None = None
    lang: str | None = None
    source: str | None = None


def sample_documents(
    data: Path, wanted: Wanted, number: int = 5, seed: int = 0, near: bool = False, mask: bool = True
) -> list[dict[str, Any]]:
    """Up to `number` documents as FIELDS, by the hash of seed and id, or with `near` by their margins.

    A field that the stage has not is None; `reasons` and `margins` (robust spreads beyond the bound) go in pairs.
    `near` takes the smallest absolute margin of a document's reasons, of those that match where a reason is wanted.
    With `mask`, personal data is masked in title and text of rows that have not been through clean's masking.

    Raises UserError where nothing matches, saying what there is, and for a stage that is not built or drops nothing.
    """
    if number < 1:
        raise UserError(f"-n {number}: at least one document has to be drawn")
    stage = _stage(data, wanted, near)
    if near and (stage != "filter" or wanted.kept):
        raise UserError("--near goes by the margins of dropped documents, which the filter alone has: --stage filter")
    files = _files(data, stage, wanted.kept)
    best = pl.DataFrame(schema=ORDER)
    names: dict[str, set[str]] = {"reason": set(), "lang": set(), "source": set()}
    for position, together in enumerate(files):
        for batch in _decisions(together, stage):
            batch = batch.filter(pl.col("kept").is_not_null() if wanted.kept is None else pl.col("kept") == wanted.kept)
            for name, found in names.items():
                if len(found) < NAMES:
                    values = batch["reasons"].explode() if name == "reason" else batch[name]
                    found.update(values.drop_nulls().unique().to_list())
            ranked = _ranked(_matching(batch, wanted), wanted.reason, seed, near)
            ranked = ranked.with_columns(file=pl.lit(position, pl.Int64)).select(best.columns)
            best = pl.concat([best, ranked]).sort(list(ORDER)).head(number)
    if best.is_empty():
        raise UserError(f"{data / stage}: {_nothing(wanted, names)}")
    chosen = best.group_by("file").agg("row")
    rows = {file: _rows(files[file], numbers) for file, numbers in chosen.iter_rows()}
    return [_document(rows[file][row], stage, files[file][-1], mask) for file, row in best["file", "row"].iter_rows()]


def _stage(data: Path, wanted: Wanted, near: bool) -> str:
    """The stage that is meant, which is built."""
    if wanted.stage is not None and wanted.stage not in STAGES:
        raise UserError(f"{wanted.stage} keeps and drops no documents: --stage is one of {', '.join(STAGES)}")
    named = wanted.stage or ("filter" if near else (wanted.reason or "").split(".")[0])
    if named in STAGES:
        if not any((data / named).glob("*.parquet")):
            raise UserError(f"{data / named} holds nothing yet: build it with `dvc repro {named}`")
        return named
    for stage in STAGES[:0:-1]:
        # A stage that had nothing to do, as augment without methods, is passed over.
        if any(open_part(path).metadata.num_rows for path in (data / stage).glob("*.parquet")):
            return stage
    raise UserError(f"{data} holds no documents yet: build them with `dvc repro`, or name another folder with --data")


def _is_dropped(path: Path) -> bool:
    return path.name.startswith("dropped-")


def _files(data: Path, stage: str, kept: bool | None) -> list[Sequence[Path]]:
    """What lies side by side: documents and their annotation, where they are not one file."""
    found = sorted(path for path in (data / stage).glob("*.parquet") if not path.name.startswith("."))
    if stage in ("scrape", "clean") and kept is not None:
        found = [path for path in found if _is_dropped(path) != kept]
    return [[path] if stage in OWN_TEXT else [data / "clean" / path.name, path] for path in found]


def _decisions(files: Sequence[Path], stage: str) -> Iterator[pl.DataFrame]:
    """Batches of DECISION and row; what a file has not is null."""
    start = 0
    for batch in aligned_batches(files, ["reason", *DECISION]):
        if "reason" in batch.columns:
            batch = batch.with_columns(reasons=pl.concat_list("reason"))
        if "kept" not in batch.columns and stage in ("scrape", "clean"):
            batch = batch.with_columns(kept=pl.lit(not _is_dropped(files[-1])))
        elif "kept" not in batch.columns:
            raise UserError(f"{files[-1]} has no column `kept`: it was not written by `corpus {stage}`")
        present = (pl.col(name) if name in batch.columns else pl.lit(None).alias(name) for name in DECISION)
        yield batch.select(present, row=pl.int_range(start, start + batch.height, dtype=pl.Int64)).cast(DECISION)
        start += batch.height


def _matching(batch: pl.DataFrame, wanted: Wanted) -> pl.DataFrame:
    for name, value in (("lang", wanted.lang), ("source", wanted.source)):
        if value is not None:
            batch = batch.filter(pl.col(name) == value)
    if wanted.reason is not None:
        batch = batch.filter(pl.col("reasons").list.eval(_is_or_begins(pl.element(), wanted.reason)).list.any())
    return batch


def _is_or_begins(reason: pl.Expr, name: str) -> pl.Expr:
    return (reason == name) | reason.str.starts_with(f"{name}.")


def _ranked(batch: pl.DataFrame, reason: str | None, seed: int, near: bool) -> pl.DataFrame:
    """The rows with rank and margin, which is 0 unless nearness counts; those without a margin then are left out."""
    if near:
        pairs = batch.filter(pl.col("reasons").list.len() == pl.col("margins").list.len()).select("row", *PAIR)
        pairs = pairs.explode(list(PAIR)).drop_nulls().drop_nans("margins")
        if reason is not None:
            pairs = pairs.filter(_is_or_begins(pl.col("reasons"), reason))
        batch = batch.join(pairs.group_by("row").agg(margin=pl.col("margins").abs().min()), on="row")
    else:
        batch = batch.with_columns(margin=pl.lit(0.0))
    chances = [chance_of(seed, one) for one in batch["id"].to_list()]  # as the report draws
    return batch.with_columns(pl.Series("rank", chances, pl.Float64))


def _nothing(wanted: Wanted, names: dict[str, set[str]]) -> str:
    """What to say where nothing matches: the name that is not there and the one nearest to it, or all there are."""
    if not any(names.values()):
        return "there are no such documents, whatever their reason, lang and source: try another stage"
    for option, name in (("reason", wanted.reason), ("lang", wanted.lang), ("source", wanted.source)):
        parts = ((full.split(".") if option == "reason" else [full]) for full in names[option])
        known = {begins for words in parts for begins in itertools.accumulate(words, "{}.{}".format)}
        if name is not None and name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.75)
            hint = f"did you mean {_listed(near)}?" if near else f"there is {_listed(names[option])}"
            return f"none of these documents has the {option} {name!r}: {hint}"
    there = "; ".join(f"{option} {_listed(known)}" for option, known in names.items() if known)
    return f"no document is all that at once, leave an option out; there is {there}"


def _listed(names: Collection[str]) -> str:
    shown = ", ".join(printable(name) for name in sorted(names)[:12])
    return f"{shown} and {len(names) - 12} more" if len(names) > 12 else shown or "none"


def _rows(files: Sequence[Path], numbers: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Rows of files side by side by their numbers; only the row groups that hold them are read."""
    found: dict[int, dict[str, Any]] = {number: {} for number in numbers}
    for path in files:
        file, start = open_part(path), 0
        names = [name for name in file.schema_arrow.names if name in (*FIELDS, "reason")]
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            inside = [number for number in numbers if start <= number < end]
            for table in table_batches(path, file, names, ROW_GROUP_ROWS, [group]) if inside else ():
                for number in inside:
                    if start <= number < start + table.num_rows:
                        found[number] |= table.slice(number - start, 1).to_pylist()[0]
                start += table.num_rows
            start = end
    return found


def _document(row: dict[str, Any], stage: str, file: Path, mask: bool) -> dict[str, Any]:
    dropped = stage in ("scrape", "clean") and _is_dropped(file)
    row = {"kept": not dropped} | row | {"stage": stage}
    row["reasons"] = [row["reason"]] if dropped else row.get("reasons") or []
    margins = row.get("margins") or []
    row["margins"] = margins if len(margins) == len(row["reasons"]) else [None] * len(row["reasons"])
    if mask and (dropped or stage == "scrape"):
        row |= {name: mask_personal_data(row[name])[0] for name in ("title", "text") if row.get(name)}
    return {name: row.get(name) for name in FIELDS}


def to_lines(documents: Sequence[dict[str, Any]]) -> str:
    """One JSON object per line, with the whole text."""
    return "\n".join(map(to_line, documents))


def render_samples(documents: Sequence[dict[str, Any]], width: int = WIDTH) -> str:
    """The documents for reading: what was decided and why, where they come from, and how they begin."""
    lines = (line for document in documents for line in (*_lines(document, width), Text()))
    return to_text(*lines, width=width).rstrip("\n")


def _lines(document: dict[str, Any], width: int) -> Iterator[Text]:
    verdict = Text("kept", "bold green") if document["kept"] else Text("dropped", "bold red")
    named = [plain(document[name]) for name in ("id", "source", "lang", "split") if document[name]]
    yield Text("  ").join([Text.assemble(f"{document['stage']} ", verdict), *named])
    for reason, margin in zip(document["reasons"], document["margins"], strict=True):
        # Of what is nearest, two digits after the point would all be zero.
        beyond = "" if margin is None else f"{margin:+.2g}" if abs(margin) < 0.1 else signed(margin)
        yield Text("  ").join([Text(), plain(reason), Text(beyond), plain(explain(reason))])
    for name in ("duplicate_of", "similarity", "parent_id", "method", "detail", "url", "title"):
        if document[name] is not None:
            yield Text.assemble((f"  {name}: ", "dim"), cut(printable(str(document[name])), 3 * width))
    yield from beginning(document["text"] or "", width)


def beginning(text: str, width: int) -> Iterator[Text]:
    """The first TEXT_LINES lines of a text, none wider than `width`, and how many characters there are in all."""
    shown = text[: TEXT_LINES * width * 2]
    lines = [line for written in shown.splitlines() for line in wrap(printable(written), width - 4)]
    yield from (Text.assemble(("  │ ", "dim"), line) for line in lines[:TEXT_LINES])
    if len(lines) > TEXT_LINES or len(shown) < len(text):
        yield Text(f"  … {len(text):,} characters in all", "dim")
