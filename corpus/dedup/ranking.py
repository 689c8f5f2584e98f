"""In which order documents are visited: the preferred one of two alike comes first, and stays."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import polars.selectors as cs
import pyarrow as pa

from corpus.dedup.index import read_columns
from corpus.documents import open_part
from corpus.errors import UserError
from corpus.stage import Part, batches


class Ranking(NamedTuple):
    """The documents numbered in order of preference. A place is a document's position in the order of parts."""

    ids: pl.Series  # by number
    places: npt.NDArray[np.int64]  # by number
    first_copy: npt.NDArray[np.int64]  # by number: the first document with the same text, mostly itself
    comparable: npt.NDArray[np.bool_]  # by number: holds text, and shingles enough to be compared by them


def rank_documents(parts: Sequence[Part], index: Sequence[Path], prefer: Sequence[str]) -> Ranking:
    """Sort by the columns of dedup.prefer; nulls and NaN come last, and the id decides what is left equal."""
    frames = []
    for part, path in zip(parts, index, strict=True):
        known = read_columns(path)
        preferred_by = _read_preferences(part, prefer, known["n_chars"])
        frames.append(pl.concat([known.drop("n_chars"), preferred_by], how="horizontal"))
    documents = pl.concat(frames, how="vertical_relaxed").with_row_index("place")
    order = [(column.removeprefix("-"), column.startswith("-")) for column in [*prefer, "id"]]
    documents = documents.sort(
        [name if name == "id" else f"prefer_{name}" for name, _ in order],
        descending=[descending for _, descending in order],
        nulls_last=True,
    ).select("place", "id", "exact", "comparable")
    numbered = documents.select("exact").with_row_index("number")
    first = pl.when(pl.col("exact").is_null()).then("number").otherwise(pl.col("number").min().over("exact"))
    comparable = documents["comparable"] & documents["exact"].is_not_null()
    return Ranking(
        documents["id"],
        documents["place"].cast(pl.Int64).to_numpy(),
        numbered.select(first.cast(pl.Int64)).to_series().to_numpy(),
        comparable.to_numpy(),
    )


def check_preference(parts: Sequence[Part], prefer: Sequence[str]) -> None:
    """Raises UserError for a column that a part lacks, that has no order, or another kind of values in another part."""
    kinds: dict[str, tuple[str, Part]] = {}
    for part in parts:
        fields = {field.name: field.type for path in part.files for field in open_part(path).schema_arrow}
        known = {name: _kind(dtype) for name, dtype in fields.items() if not pa.types.is_nested(dtype)}
        known = {"batch": "numbers", "n_chars": "numbers"} | known
        for column in prefer:
            name = column.removeprefix("-")
            if name == "id":
                continue
            if name not in known:
                near = difflib.get_close_matches(name, sorted(known), n=1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"
                raise UserError(f"dedup.prefer: {part} and its annotations have no column `{name}`: {hint}")
            kind, first = kinds.setdefault(name, (known[name], part))
            if kind != known[name] and "nothing" not in (kind, known[name]):
                raise UserError(f"dedup.prefer: `{name}` holds {kind} in {first} and {known[name]} in {part}")


def _kind(dtype: pa.DataType) -> str:
    """What can be put in one order."""
    types = pa.types
    if types.is_integer(dtype) or types.is_floating(dtype) or types.is_decimal(dtype):
        return "numbers"
    if types.is_string(dtype) or types.is_large_string(dtype) or types.is_string_view(dtype):
        return "text"
    return "nothing" if types.is_null(dtype) else str(dtype)


def _read_preferences(part: Part, prefer: Sequence[str], n_chars: pl.Series) -> pl.DataFrame:
    """The columns of dedup.prefer; n_chars as computed and batch 0 where the input lacks them."""
    names = [name for name in dict.fromkeys(column.removeprefix("-") for column in prefer) if name != "id"]
    present = {name for path in part.files for name in open_part(path).schema_arrow.names}
    stored = pl.concat(batches(part, [name for name in names if name in present]))
    computed = {"n_chars": n_chars, "batch": pl.repeat(0, stored.height, dtype=pl.Int32, eager=True)}
    columns = pl.DataFrame({f"prefer_{name}": stored[name] if name in present else computed[name] for name in names})
    return columns.with_columns(cs.float().fill_nan(None))
