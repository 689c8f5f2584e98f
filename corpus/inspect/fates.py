"""What became of every document of a version, and the signals of those that clean wrote."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from corpus.errors import UserError
from corpus.inspect.versions import Version, counts_of, list_stage, open_parquet, parquet_files
from corpus.report.funnel import DECIDING

ANNOTATING = ("dedup", "filter", "split")  # these say row by row of clean's documents what they kept
SIGNALS = ("measure", "perplexity")
_ROWS: dict[str, type[pl.DataType]] = {  # of Documents.frame, without number
    "id": pl.String,
    "lang": pl.String,
    "source": pl.String,
    "generated": pl.Boolean,
    "stage": pl.UInt8,
    "reason": pl.String,
    "text": pl.UInt64,
    "file": pl.UInt32,
    "row": pl.UInt32,
    "said": pl.String,
}
BATCH_ROWS = 8_192  # read at a time, so that of texts no more than that is in memory
COLUMNS_AT_ONCE = 16  # signals in memory at a time


@dataclasses.dataclass(frozen=True)
class Documents:
    """Every document of a version, once, and what the stages decided about it.

    `frame`: id, number (0, but for further rows with an id that occurred before), lang, source, generated, stage (the
    place in DECIDING of the stage that dropped it) and reason (both null where it is kept), text (a hash, good within
    one process; null where no stage has the whole text), file and row: where it stands. `files` are those files;
    `originals` the rows at the top that are clean's, in its order. `stages` are those whose decisions are in it.
    """

    frame: pl.DataFrame
    files: Sequence[str]
    originals: int
    stages: tuple[str, ...]
    notes: tuple[str, ...]


def read_documents(version: Version) -> Documents:
    """All documents of a version with what dropped them first, from the annotations of the stages that were built.

    A stage that was not built ends it, as does one that was built from other documents than those beside it: this is
    noted. Memory: about 150 bytes a document; texts are hashed a batch at a time. Raises UserError where nothing was
    scraped, or a file cannot be read.
    """
    built = [stage for stage in DECIDING if list_stage(version, stage)]
    stages = [stage for place, stage in enumerate(DECIDING) if built[: place + 1] == list(DECIDING[: place + 1])]
    if not stages:
        raise UserError(f"{version.name} has no data/scrape: build it (`dvc repro`), or get it (`dvc pull`)")
    files: list[str] = []
    notes: list[str] = []
    parts = parquet_files(version, "clean" if "clean" in stages else "scrape")
    frames = [_read_rows(version, parts, files, texts="clean" in stages)]
    originals = frames[0].height
    for stage in ANNOTATING:
        if stage in stages:
            decided = _read_decisions(version, stage, parts, frames[0])
            if decided is None:
                stages = _without(version, stage, stages, notes)
            else:
                frames[0] = _dropped_by(frames[0], stage, decided)
    for stage in ("clean", "scrape"):
        if stage in stages:
            more = _read_rows(version, parquet_files(version, stage, dropped=True), files)
            frames.append(_dropped_by(more, stage, more["said"]))
    if "augment" in stages and not _starts_with(version, "augment", frames):
        stages = _without(version, "augment", stages, notes)
    if "augment" in stages:
        more = _read_rows(version, parquet_files(version, "augment"), files, texts=True, generated=True)
        frames.append(_dropped_by(more, "augment", more["said"]))
    if "shard" in stages and not _starts_with(version, "shard", frames):
        stages = _without(version, "shard", stages, notes)
    number = pl.int_range(pl.len(), dtype=pl.UInt32).over("id")
    frame = pl.concat(frames).drop("said").with_columns(pl.col("id").fill_null("")).with_columns(number=number)
    if "shard" in stages:
        for path in parquet_files(version, "shard", dropped=True):
            with open_parquet(version, path) as file:
                left_out = pl.DataFrame(file.read(["id", "reason"])).select(pl.col("id", "reason").cast(pl.String))
            left_out = left_out.unique("id", keep="first")
            said = frame.select("id").join(left_out, on="id", how="left", maintain_order="left")["reason"]
            frame = _dropped_by(frame, "shard", said)
    return Documents(frame, files, originals, tuple(stages), tuple(notes))


def _without(version: Version, stage: str, stages: Sequence[str], notes: list[str]) -> list[str]:
    """The stages before one whose output does not fit them, which is noted."""
    notes.append(f"{version.name}: data/{stage} is not of the documents and decisions before it: `dvc repro`")
    return list(stages[: stages.index(stage)])


def _starts_with(version: Version, stage: str, frames: Sequence[pl.DataFrame]) -> bool:
    """Whether a stage began with as many documents as are left: its rows do not say, but its report does."""
    left = sum(frame["stage"].null_count() for frame in frames)
    return (counts_of(version, stage) or {"in": left})["in"] == left


def state(stages: Sequence[str]) -> pl.Expr:
    """What became of a document by the last of some stages: `kept`, or the reason it was dropped for first."""
    return pl.when(pl.col("stage") < len(stages)).then(pl.col("reason")).otherwise(pl.lit("kept"))


def _read_rows(
    version: Version, paths: Sequence[str], files: list[str], texts: bool = False, generated: bool = False
) -> pl.DataFrame:
    """Rows of some files with the columns of `Documents.frame`, all of them kept, and what they say themselves of why
    they are dropped in `said`; the files are added to `files`."""
    wanted = ["id", "lang", "source", "reason", "kept", "reasons", *(["text"] if texts else [])]
    frames = [pl.DataFrame(schema=_ROWS)]
    for path in paths:
        with open_parquet(version, path) as file:
            rows = 0
            for batch in _batches(version, path, file, [name for name in wanted if name in file.schema_arrow.names]):
                said = pl.col("reason") if "reason" in batch.columns else pl.lit(None)
                if "kept" in batch.columns:
                    said = pl.when(~pl.col("kept")).then(pl.col("reasons").list.first().fill_null("?"))
                own = {
                    "said": said,
                    "generated": pl.lit(generated),
                    "text": pl.col("text").hash() if texts else pl.lit(None),
                    "file": pl.lit(len(files)),
                    "row": pl.int_range(rows, rows + batch.height),
                }
                own |= {name: pl.lit(None) for name in _ROWS if name not in {*batch.columns, *own}}
                own |= {"reason": pl.lit(None)}  # `said` so far: an earlier stage may have dropped it
                frames.append(batch.with_columns(**own).select(_ROWS.keys()).cast(pl.Schema(_ROWS)))
                rows += batch.height
        files.append(path)
    return pl.concat(frames)


def _dropped_by(frame: pl.DataFrame, stage: str, reasons: pl.Series) -> pl.DataFrame:
    """The documents of which those that are still kept and have a reason are dropped by a stage."""
    now = frame["stage"].is_null() & reasons.is_not_null()
    return frame.with_columns(
        stage=pl.when(now).then(pl.lit(DECIDING.index(stage), pl.UInt8)).otherwise("stage"),
        reason=pl.when(now).then(reasons).otherwise("reason"),
    )


def _read_decisions(version: Version, stage: str, parts: Sequence[str], documents: pl.DataFrame) -> pl.Series | None:
    """What a stage dropped each document for; None where it did not judge just those that were still kept."""
    found, start = [pl.Series(dtype=pl.String)], 0
    paths = parquet_files(version, stage)
    if [_name(path) for path in paths] != [_name(path) for path in parts]:
        return None
    for path in paths:
        with open_parquet(version, path) as file:
            if start + file.metadata.num_rows > documents.height:
                return None
            for batch in _batches(version, path, file, ["id", "kept", "reasons"]):
                own = documents.slice(start, batch.height)
                if not (
                    own["id"].equals(batch["id"].cast(pl.String))
                    and own["stage"].is_null().equals(batch["kept"].is_not_null())
                ):
                    return None
                first = pl.when(~pl.col("kept")).then(pl.col("reasons").list.first().fill_null("?"))
                found.append(batch.select(first.cast(pl.String)).to_series())
                start += batch.height
    return pl.concat(found) if start == documents.height else None


def _batches(version: Version, path: str, file: pq.ParquetFile, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
    """Some columns of a file. Raises UserError where it lacks one."""
    if missing := {"id", *columns} - set(file.schema_arrow.names):
        raise UserError(f"{path} of {version.name} has no column {min(missing)}: it is no output of this toolkit")
    for batch in file.iter_batches(BATCH_ROWS, columns=columns):
        yield pl.DataFrame(pa.Table.from_batches([batch]))


def _name(path: str) -> str:
    return path.rpartition("/")[2]


# ---- signals ---------------------------------------------------------------------------------------------------------


def signal_names(version: Version, documents: Documents) -> dict[str, str]:
    """The numeric columns of the signals, and the stage that has each; none of a stage that saw other documents."""
    names: dict[str, str] = {}
    for stage in SIGNALS:
        paths = parquet_files(version, stage)
        if [_name(path) for path in paths] != [_name(path) for path in documents.files[: len(paths)]] or not paths:
            continue
        if _read(version, paths, ["id"])["id"].cast(pl.String).equals(documents.frame["id"][: documents.originals]):
            with open_parquet(version, paths[0]) as file:
                schema = pl.DataFrame(file.schema_arrow.empty_table()).schema
            names |= {name: stage for name, kind in schema.items() if kind.is_numeric()}
    return names


def read_signals(version: Version, names: Mapping[str, str]) -> pl.DataFrame:
    """Some signals (names and their stages) of clean's documents, in their order, as float64."""
    columns = []
    for stage in dict.fromkeys(names.values()):
        own = [name for name, of in names.items() if of == stage]
        columns.append(_read(version, parquet_files(version, stage), own).cast(pl.Float64))
    return pl.concat(columns, how="horizontal")


def _read(version: Version, paths: Sequence[str], columns: Sequence[str]) -> pl.DataFrame:
    frames = []
    for path in paths:
        with open_parquet(version, path) as file:
            frames.append(pl.DataFrame(file.schema_arrow.empty_table()).select(columns))
            frames += _batches(version, path, file, columns)
    return pl.concat(frames)
