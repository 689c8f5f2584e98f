"""In which order documents are visited: the preferred one of two alike comes first, and stays."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
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
    """Sort by the columns of dedup.prefer; nulls come last, and the id decides what is left equal.

    Raises UserError where an id occurs twice.
    """
    frames = []
    for part, path in zip(parts, index, strict=True):
        known = read_columns(path)
        preferred_by = _read_preferences(part, prefer, known["n_chars"])
        frames.append(pl.concat([known.drop("n_chars"), preferred_by], how="horizontal"))
    documents = pl.concat(frames, how="vertical_relaxed").with_row_index("place")
    _refuse_repeated_ids(parts, documents["id"])
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


def _refuse_repeated_ids(parts: Sequence[Part], ids: pl.Series) -> None:
    hashes = np.sort(ids.hash().to_numpy())
    if not (hashes[1:] == hashes[:-1]).any():
        return
    repeated = ids.is_duplicated().arg_true()
    if len(repeated):
        place = repeated[-1]
        part = parts[int(np.searchsorted(np.cumsum([part.rows for part in parts]), place, side="right"))]
        raise UserError(f"{part}: the id {ids[place]} occurs twice in the input: give each document its own id")


def check_preference(parts: Sequence[Part], prefer: Sequence[str]) -> None:
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
