"""Small parts of many batches laid together: each part costs every stage some files and a task."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

from corpus.documents import open_part, part_writer
from corpus.errors import UserError
from corpus.files import link


class BatchPart(NamedTuple):
    """A part of one batch of a source."""

    path: Path
    settings: object  # that clean has for it: parts of other settings do not lie in one file


def refuse_unknown(merge: Mapping[str, int], names: Iterable[str]) -> None:
    """Raises UserError where `scrape.merge` names what is no source."""
    known = sorted(set(names))
    for name in sorted(set(merge) - set(known)):
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean scrape.merge.{near[0]}?" if near else f"known: {', '.join(known)}; or take the line out"
        raise UserError(f"scrape.merge.{name} is no source: {hint}")


def merge_parts(parts: Sequence[BatchPart], part_bytes: float, output: Path) -> None:
    """Write the parts of a source's batches, in their order, into a folder: of neighbours below half the wanted size as
    many in one file as fill it. It has the name of its first part, and its rows say which batch they came with.

    A later batch changes the last of these files at most.
    """
    for group in _groups(parts, part_bytes):
        if len(group) == 1:
            link(group[0], output / group[0].name)
            continue
        with part_writer(open_part(group[0]).schema_arrow, output / group[0].name) as writer:
            for path in group:
                file = pq.ParquetFile(path)
                for number in range(file.num_row_groups):
                    writer.write_table(file.read_row_group(number))


def _groups(parts: Sequence[BatchPart], part_bytes: float) -> Iterator[list[Path]]:
    group: list[Path] = []
    size, kind = 0, None
    for part in parts:
        file = open_part(part.path)
        own = _text_bytes(file)
        if own >= part_bytes / 2:
            yield [part.path]
            continue
        if group and (size + own > part_bytes or kind != (part.settings, file.schema_arrow)):
            yield group
            group, size = [], 0
        group.append(part.path)
        size, kind = size + own, (part.settings, file.schema_arrow)
    if group:
        yield group


def _text_bytes(file: pq.ParquetFile) -> int:
    """Bytes of text, or of pages, in a part."""
    metadata = file.metadata
    place = next(metadata.schema.names.index(name) for name in ("body", "text") if name in metadata.schema.names)
    return sum(metadata.row_group(n).column(place).total_uncompressed_size for n in range(metadata.num_row_groups))
