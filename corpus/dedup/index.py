"""What is known of each document without its text: files by part in the store; and the texts of the few that matter.

A file of the index has a row a document: id, n_chars (code points), exact (see corpus.text.exact), comparable (long
enough to be compared by shingles) and signature (uint32 values as bytes, as datasketch has them).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpus.dedup.memory import Budget
from corpus.dedup.shingles import Signatures, count_distinct, shingle_sets, signatures
from corpus.dedup.star import ShingleSets
from corpus.documents import open_part, table_batches
from corpus.errors import UserError
from corpus.executor import run_tasks
from corpus.params import Dedup
from corpus.stage import Metrics, Part, Run, map_parts
from corpus.text.buffers import Texts
from corpus.text.exact import exact_keys
from corpus.text.tokens import SHINGLE_VIEW, tokenise

BATCH_ROWS = 2_048  # documents read at a time
INDEX_ROWS = 16_384  # of the index read at a time
SLICE_TEXTS, SLICE_BYTES = 64, 1_000_000  # tokenised at a time: their hashes stay in the processor's cache

_INDEX = pa.schema(  # and the signature
    [("id", pa.string()), ("n_chars", pa.int64()), ("exact", pa.binary(16)), ("comparable", pa.bool_())]
)
Signed = tuple[list[bytes | None], npt.NDArray[np.bool_], Signatures]  # exact keys, comparable, signatures
Places = npt.NDArray[np.int64]  # documents counted in the order of parts


def build_index(run: Run, parts: Sequence[Part], folder: Path, version: int) -> list[Path]:
    """The file of the index of each part, in a folder; from the store where the part is known."""
    params = run.params.dedup
    texts_only = [dataclasses.replace(part, files=part.files[:1]) for part in parts]
    pyarrow = f"pyarrow {pa.__version__}"
    own = json.dumps([SHINGLE_VIEW, params.ngram, params.num_perm, params.seed, params.min_shingles, pyarrow])
    folder.mkdir()
    function = functools.partial(_index_part, params)
    map_parts(dataclasses.replace(run, output=folder), texts_only, function, version, own)
    return [folder / part.name for part in parts]


def read_columns(index: Path) -> pl.DataFrame:
    """id, n_chars, exact, comparable of the documents of a part."""
    columns = ["id", "n_chars", "exact", "comparable"]
    batches = [pl.DataFrame(batch) for batch in _read(index, columns)]
    return pl.concat(batches) if batches else pl.DataFrame(pa.Table.from_batches([], _INDEX)).select(columns)


def read_signatures(index: Sequence[Path], places: Places, num_perm: int, budget: Budget) -> Signatures:
    """The signatures of the documents at some places, in that order; part by part.

    Each row is a `LeanMinHash(seed=seed, hashvalues=row, scheme="affine32")`.
    """
    matrix: Signatures = budget.array((len(places), num_perm), np.uint32)
    _read_rows(index, "signature", places, matrix)
    return matrix


def read_exact_keys(index: Sequence[Path], places: Places) -> npt.NDArray[np.uint8]:
    """The exact keys of the documents at some places, 16 bytes each, in that order."""
    matrix = np.empty((len(places), 16), np.uint8)
    _read_rows(index, "exact", places, matrix)
    return matrix


def _read_rows(index: Sequence[Path], column: str, places: Places, matrix: npt.NDArray[Any]) -> None:
    """Fill a matrix with the values, of equally many bytes, that a column has at some places."""
    order = np.argsort(places)
    in_order = places[order]
    first = 0
    for batch in itertools.chain.from_iterable(_read(path, [column]) for path in index):
        values = batch[column]
        rows = np.frombuffer(values.buffers()[1], matrix.dtype).reshape(-1, matrix.shape[1])
        rows = rows[values.offset :][: len(values)]
        start, end = np.searchsorted(in_order, [first, first + len(rows)])
        matrix[order[start:end]] = rows[in_order[start:end] - first]
        first += len(rows)


def read_shingles(run: Run, parts: Sequence[Part], places: Places, folder: Path) -> ShingleSets:
    """The shingle sets of the documents at some places; reads only the row groups that hold them."""
    order = np.argsort(places)
    first_places = np.cumsum([0, *(part.rows for part in parts)])
    bounds = np.searchsorted(places[order], first_places)
    tasks = [
        (part, folder / f"shingles-{number}", places[order[start:end]] - first_places[number])
        for number, (part, (start, end)) in enumerate(zip(parts, itertools.pairwise(bounds), strict=True))
        if end > start
    ]
    sizes = np.empty(len(places), np.int64)
    for (_, path, _), found in run_tasks(
        functools.partial(_shingle_rows, run.params.dedup.ngram), tasks, run.crew, "dedup: comparing"
    ):
        start = bounds[int(path.name.removeprefix("shingles-"))]
        sizes[order[start : start + len(found)]] = found
    starts = np.empty(len(places), np.int64)
    starts[order] = np.cumsum(sizes[order]) - sizes[order]
    files = [path for _, path, _ in tasks if path.stat().st_size]
    return ShingleSets([np.memmap(path, np.uint64, "r") for path in files], starts, sizes)


def _read(index: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Columns of a file of the index, batch by batch. Raises UserError where it is damaged."""
    try:
        file = pq.ParquetFile(index, page_checksum_verification=True, pre_buffer=False)
        yield from file.iter_batches(INDEX_ROWS, columns=columns)
    except (pa.ArrowException, OSError) as error:
        message = f"the index of {index.name} is damaged ({error}): run again"
        raise UserError(message) from None


def _index_part(params: Dedup, part: Part, folder: Path) -> Metrics:
    schema = _INDEX.append(pa.field("signature", pa.binary(4 * params.num_perm)))
    # Signatures do not compress, and a checksum a page tells a damaged index from a whole one.
    options = {"compression": "none", "use_dictionary": False, "write_page_checksum": True}
    with pq.ParquetWriter(folder / part.name, schema, **options) as writer:
        for table in _text_batches(part):
            texts = Texts.of(table["text"])
            slices = [_sign_texts(params, some) for some in texts.slices(SLICE_TEXTS, SLICE_BYTES)]
            exact, comparable, matrices = zip(*slices, strict=True)
            rows = pa.py_buffer(np.concatenate(matrices))
            columns = [
                table["id"],
                _arrow(pl.Series(pc.utf8_length(table["text"])).fill_null(0), pl.Int64),
                _arrow(list(itertools.chain(*exact)), pl.Binary).cast(pa.binary(16)),
                _arrow(np.concatenate(comparable), pl.Boolean),
                pa.FixedSizeBinaryArray.from_buffers(schema.field("signature").type, len(texts), [None, rows]),
            ]
            writer.write_table(pa.table(columns, schema=schema))
    return {}


def _sign_texts(params: Dedup, texts: Texts) -> Signed:
    """Exact key, whether there are shingles enough to compare, and signature of each text."""
    tokens = tokenise(texts)
    comparable = count_distinct(tokens, params.ngram, params.min_shingles) == params.min_shingles
    return exact_keys(tokens.texts), comparable, signatures(tokens, params.ngram, params.num_perm, params.seed)


def _arrow(values: Any, dtype: type[pl.DataType]) -> pa.Array:
    """An Arrow array by way of Polars: pyarrow's own constructor imports pandas first, where there is one."""
    return pl.Series(values, dtype=dtype).to_arrow(compat_level=pl.CompatLevel.oldest())


def _text_batches(part: Part) -> Iterator[pa.Table]:
    """id and text of a part's documents, straight from Parquet to the buffers that the kernels read."""
    file = open_part(part.files[0])
    kind = file.schema_arrow.field("text").type if "text" in file.schema_arrow.names else None
    if kind is None or "id" not in file.schema_arrow.names:
        lacking = "text" if kind is None else "id"
        raise UserError(
            f"{part} has no column `{lacking}`: documents have `id` and `text`, and come first of the inputs"
        )
    if kind not in (pa.string(), pa.large_string(), pa.string_view(), pa.null()):
        raise UserError(f"{part}: the column `text` holds {kind}, not text")
    left = part.rows
    for table in table_batches(part.files[0], file, ["id", "text"], BATCH_ROWS):
        table = table.slice(0, left)
        if table["id"].null_count:
            raise UserError(f"{part}: a document has no id: give each one of its own")
        if table.num_rows:
            ids = _arrow(pl.Series(table["id"]).cast(pl.String), pl.String)
            yield pa.table({"id": ids.cast(pa.string()), "text": pc.cast(table["text"], pa.large_string())})
        left -= table.num_rows
        if left <= 0:
            return


def _texts_at(part: Part, rows: Places) -> Iterator[Texts]:
    """The texts of some rows of a part, in ascending order, from the row groups that hold them."""
    file = open_part(part.files[0])
    first = 0
    for group in range(file.num_row_groups):
        end = first + file.metadata.row_group(group).num_rows
        if np.searchsorted(rows, first) < np.searchsorted(rows, end):
            for batch in table_batches(part.files[0], file, ["text"], BATCH_ROWS, [group]):
                wanted = rows[np.searchsorted(rows, first) : np.searchsorted(rows, first + batch.num_rows)] - first
                texts = pc.cast(batch["text"], pa.large_string()).take(_arrow(wanted, pl.Int64))
                yield from Texts.of(texts).slices(SLICE_TEXTS, SLICE_BYTES)
                first += batch.num_rows
        first = end


def _shingle_rows(ngram: int, task: tuple[Part, Path, Places]) -> npt.NDArray[np.int64]:
    """Write the shingle sets of some rows of a part one after the other into a file; their sizes."""
    part, path, rows = task
    sizes = []
    with path.open("wb") as file:
        for texts in _texts_at(part, rows):
            shingles = shingle_sets(tokenise(texts), ngram)
            shingles.hashes.tofile(file)
            sizes.append(np.diff(shingles.offsets))
    return np.concatenate(sizes)
