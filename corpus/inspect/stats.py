"""`corpus stats`: what Parquet files hold, column by column, in one pass over batches of about BATCH_BYTES.

What grows with the input: 8 bytes for each `id`, to find repeated ones, and with the largest row group of a file. All
else is bounded: EXACT_VALUES numbers and some thousand hashes and counts a column, then histograms and estimates.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types
from rich.console import RenderableType

from corpus.documents import open_part, table_batches
from corpus.errors import UserError
from corpus.filter.table import cut, figure, printable
from corpus.histograms import QUANTILES, histogram, quantiles
from corpus.inspect.terminal import plain, table, to_text
from corpus.storage import with_addresses

SUFFIXES = (".parquet", ".pq", ".parq")
BATCH_BYTES, BATCH_ROWS = 1 << 25, 1 << 16
EXACT_VALUES = 100_000  # numbers of a column; the quantiles of more are of values rounded to two digits
HASHES = 4096  # the smallest ones of a column; more distinct values are estimated, to about 2 %
FEW_VALUES, FREQUENT_VALUES = 20, 10  # shown of a column with no more values, and of the elements of any list
COUNTED_VALUES, COUNTED_CHARS = 1000, 100  # of a column with more or longer values none are counted
KINDS = {
    "bool": (types.is_boolean,),
    "number": (types.is_integer, types.is_floating, types.is_decimal),
    "text": (types.is_string, types.is_large_string, types.is_string_view),
    "list": (types.is_list, types.is_large_list, types.is_fixed_size_list),
    "binary": (types.is_binary, types.is_large_binary, types.is_fixed_size_binary),
    "struct": (types.is_struct,),
}
SHOWN = {"min": "min", "5 %": "0.05", "median": "0.5", "95 %": "0.95", "max": "max", "mean": "mean"}
TITLES = ["column", "type", "nulls", *SHOWN]
BESIDES = ["true", "false", "characters", "bytes", "empty", "nan", "infinite"]


@dataclasses.dataclass(frozen=True)
class Column:
    """What was counted of a column; as numbers of strings, binary and lists count their lengths.

    sums: rows, nulls, true; finite, nan and infinite numbers; bytes and empty ones of strings
    total, ends, exact, bins: of finite numbers the sum, lowest and highest, all of them or how many by rounded value
    values, hashes: how often each string occurs (None: too many to tell), and the smallest hashes
    """

    sums: Counter[str]
    total: float
    ends: tuple[float, ...]
    exact: npt.NDArray[np.float64] | None
    bins: Counter[str]
    values: Counter[str] | None
    hashes: npt.NDArray[np.uint64]


def folder_stats(path: Path) -> dict[str, Any]:
    """Figures of a Parquet file, or of all in a folder and its subfolders, ready for JSON.

    `path` and `sections`: files with the same columns, those that a stage dropped apart. Each with `dropped`, `files`,
    `rows`, `bytes` (on disk), `repeated_ids` (rows whose id came before; None where no column is called id) and
    `columns`: `name` (`a.b` is a field of a struct, `a[]` the elements of a list), `type`, `rows`, `nulls`, and by type
    `true` and `false`; `numbers`, or `length` of strings (characters), lists (elements) and binary (bytes);
    `characters`, `bytes` (UTF-8), `empty`, `distinct` and the most frequent `values` of strings. Quantiles
    that are not `exact` are of values rounded to two digits, and what is not `distinct_exact` is estimated.

    Raises UserError for a path that is not there, without Parquet files, or with files that are not whole ones.
    """
    sections: dict[tuple[bool, tuple[str, ...]], list[Path]] = {}
    broken: list[str] = []
    for file in _files(path):
        try:
            key = (file.name.startswith("dropped-"), tuple(sorted(open_part(file).schema_arrow.names)))
            sections.setdefault(key, []).append(file)
        except UserError as error:
            broken.append(str(error))
    if broken:
        raise UserError("; ".join(broken[:3]) + (f"; and {len(broken) - 3} more files" if broken[3:] else ""))
    ordered = sorted((dropped, files) for (dropped, _), files in sections.items())
    return {
        "path": with_addresses(str(path)),
        "sections": [_section(path, files, dropped) for dropped, files in ordered],
    }


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"{path} does not exist: name a Parquet file, or a folder of them")
    found = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file())
    found = [file for file in found if not any(name.startswith(".") for name in file.relative_to(path).parts)]
    if not found:
        raise UserError(f"{path} holds no Parquet file ({', '.join(SUFFIXES)}): there is nothing to count")
    return found


def _section(path: Path, files: Sequence[Path], dropped: bool) -> dict[str, Any]:
    columns: dict[tuple[str, str, str, int], Column] = {}
    ids: list[npt.NDArray[np.uint64]] = []
    for batch in (batch for file in files for batch in _batches(file)):
        seen: Counter[tuple[str, str, str]] = Counter()  # `a.b` may be a column and a field of `a`
        for name, array in zip(batch.column_names, batch.columns, strict=True):
            for full, kind, named, leaf in _leaves(name, array.combine_chunks()):
                place = (full, kind, named, seen[full, kind, named])
                seen[full, kind, named] += 1
                counted, known = _column(leaf, kind), columns.get(place)
                columns[place] = _add(known, counted) if known else counted
                if full == "id" and kind in ("text", "number"):
                    ids.append(pl.Series(leaf.drop_null()).hash().to_numpy())
    return {
        "dropped": dropped,
        "files": [str(file.relative_to(path)) if file != path else file.name for file in files],
        "rows": sum(open_part(file).metadata.num_rows for file in files),
        "bytes": sum(file.stat().st_size for file in files),
        "repeated_ids": sum(map(len, ids)) - len(np.unique(np.concatenate(ids))) if ids else None,
        "columns": [{"name": n, "type": named} | _figures(n, kind, c) for (n, kind, named, _), c in columns.items()],
    }


def _batches(path: Path) -> Iterator[pa.Table]:
    """Batches of a file, first an empty one, which says what columns there are."""
    file = open_part(path)
    yield file.schema_arrow.empty_table()
    groups = (file.metadata.row_group(number) for number in range(file.num_row_groups))
    widest = max((group.total_byte_size / group.num_rows for group in groups if group.num_rows), default=1)
    rows = int(min(max(BATCH_BYTES / max(widest, 1), 1), BATCH_ROWS))
    for batch in table_batches(path, file, file.schema_arrow.names, rows):
        for name, column in zip(batch.column_names, batch.columns, strict=True):
            try:
                column.validate(full=True)
            except pa.ArrowInvalid as error:
                raise UserError(f"{path}: the column `{name}` is not what its schema says: {error}") from None
        yield batch


def _leaves(name: str, array: pa.Array) -> Iterator[tuple[str, str, str, pa.Array]]:
    """Name, kind, type and values of a column; fields of structs and elements of lists are columns of their own."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if types.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = next((kind for kind, tests in KINDS.items() if any(test(array.type) for test in tests)), "other")
    yield name, kind, kind if kind in ("struct", "list") else str(array.type), array
    if kind == "struct":
        for field, child in zip(array.type, array.flatten(), strict=True):
            yield from _leaves(f"{name}.{field.name}", child)
    elif kind == "list":
        yield from _leaves(f"{name}[]", array.flatten())


def _column(array: pa.Array, kind: str) -> Column:
    present = array.drop_null()
    sums = Counter(rows=len(array), nulls=array.null_count, true=present.true_count if kind == "bool" else 0)
    values: Counter[str] | None = Counter()
    hashes = np.empty(0, np.uint64)
    if kind == "text":
        texts = pl.Series(present, dtype=pl.String)
        lengths = texts.str.len_chars()
        sums.update(bytes=int(texts.str.len_bytes().sum()), empty=int((lengths == 0).sum()))
        hashes = np.unique(texts.hash().to_numpy())[:HASHES]
        few = len(hashes) <= COUNTED_VALUES and (lengths <= COUNTED_CHARS).all()
        values = Counter(dict(texts.value_counts().iter_rows())) if few else None
        present = lengths.to_arrow()
    elif kind in ("list", "binary"):
        present = (pc.list_value_length if kind == "list" else pc.binary_length)(present)
    elif kind != "number":
        present = pa.array([], pa.float64())
    numbers = present.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    finite = numbers[np.isfinite(numbers)]
    total = float(pl.Series(finite).sum())  # without a warning where it overflows
    sums.update(finite=len(finite), nan=int(np.isnan(numbers).sum()))
    sums["infinite"] = len(numbers) - len(finite) - sums["nan"]
    # Large whole numbers are no floats.
    ends = pc.min_max(present if types.is_integer(present.type) else pa.array(finite)).as_py().values()
    return Column(sums, total, tuple(ends) if len(finite) else (), finite, Counter(), values, hashes)


def _add(left: Column, right: Column) -> Column:
    sums = Counter({name: left.sums[name] + right.sums[name] for name in left.sums | right.sums})
    ends, exact, bins = sorted([*left.ends, *right.ends]), None, Counter[str]()
    if left.exact is not None and right.exact is not None and sums["finite"] <= EXACT_VALUES:
        exact = np.concatenate([left.exact, right.exact])
    else:
        for side in (left, right):
            bins.update(side.bins if side.exact is None else histogram(pl.Series(side.exact)))
    values = None if left.values is None or right.values is None else left.values + right.values
    values = None if values is None or len(values) > COUNTED_VALUES else values
    hashes, total = np.union1d(left.hashes, right.hashes)[:HASHES], left.total + right.total
    return Column(sums, total, tuple(ends[:1] + ends[-1:]), exact, bins, values, hashes)


def _figures(name: str, kind: str, column: Column) -> dict[str, Any]:
    sums, distinct = column.sums, len(column.hashes)
    figures: dict[str, Any] = {"rows": sums["rows"], "nulls": sums["nulls"]}
    if kind == "bool":
        figures |= {"true": sums["true"], "false": sums["rows"] - sums["nulls"] - sums["true"]}
    elif kind in ("number", "text", "list", "binary"):
        shares = quantiles(column.bins)
        if column.exact is not None and len(column.exact):
            shares = np.quantile(column.exact, QUANTILES, method="inverted_cdf").tolist()
        mean = column.total / max(sums["finite"], 1)
        summary: dict[str, Any] = dict(zip(["min", "max"], column.ends or (None, None), strict=True))
        summary |= {"mean": mean if column.ends and math.isfinite(mean) else None, "exact": column.exact is not None}
        summary["quantiles"] = dict(zip(map(str, QUANTILES), shares, strict=False))
        summary |= {key: sums[key] for key in ("nan", "infinite")} if kind == "number" else {"total": int(column.total)}
        figures["numbers" if kind == "number" else "length"] = summary
    if kind == "text":
        if distinct == HASHES:
            distinct = round((HASHES - 1) / (int(column.hashes[-1]) / 2**64))
        figures |= {"characters": int(column.total), "bytes": sums["bytes"], "empty": sums["empty"]}
        figures |= {"distinct": distinct, "distinct_exact": len(column.hashes) < HASHES}
        shown = FEW_VALUES if distinct <= FEW_VALUES else FREQUENT_VALUES * name.endswith("[]")
        ordered = sorted((column.values or {}).items(), key=lambda pair: (-pair[1], pair[0]))[:shown]
        figures |= {"values": [{"value": value, "count": count} for value, count in ordered]} if ordered else {}
    return figures


def render_stats(stats: dict[str, Any], width: int = 120) -> str:
    """The figures for reading, a table for each section; `~` stands before what is rounded or estimated."""
    parts: list[RenderableType] = []
    for section in stats["sections"]:
        files, ids = section["files"], section["repeated_ids"]
        counts = f"{section['rows']:,} rows, {section['bytes']:,} bytes"
        parts.append(plain(f"{stats['path']}: {counts}{'' if ids is None else f', {ids:,} repeated ids'}"))
        shown = " … ".join(dict.fromkeys([files[0], files[-1]]))
        parts.append(plain(f"{'dropped-* ' * section['dropped']}files {len(files):,}: {shown}"))
        rows, besides = [], []
        for column in section["columns"]:
            of = column.get("numbers") or column.get("length") or {}
            shares = {key: "~" * (not of["exact"]) + figure(value) for key, value in of.get("quantiles", {}).items()}
            figures = [shares.get(key, figure(of.get(key)) if of else "") for key in SHOWN.values()]
            rows.append([column["name"], column["type"], f"{column['nulls']:,}", *figures])
            besides += [[column["name"], said]] if (said := _besides(column | of)) else []
        parts += [table(TITLES, rows, right=range(2, len(TITLES))), table(["", ""], besides) if besides else "", ""]
    return to_text(*parts, width=width).rstrip("\n")


def _besides(column: dict[str, Any]) -> str:
    """What else there is to say of a column, such as its most frequent values."""
    counts = [f"{column[key]:,} {key}" for key in BESIDES if column.get(key)]
    if column.get("distinct"):
        counts.append(f"{'~' * (not column['distinct_exact'])}{column['distinct']:,} distinct")
    values = "; ".join(f"{cut(printable(one['value']), 40)} {one['count']:,}" for one in column.get("values", []))
    return ", ".join(counts) + (f": {values}" if values else "")
