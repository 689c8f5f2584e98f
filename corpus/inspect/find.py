"""Which documents somebody means by an id, the beginning of one, a URL, or some words of a text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import polars as pl

from corpus.documents import aligned_batches
from corpus.errors import UserError
from corpus.inspect.life import Life, life_of
from corpus.report.index import (
    KINDS,
    Outdated,
    Place,
    entries_of,
    find_id,
    find_url,
    indexed_files,
    key_of_id,
    read_row,
)
from corpus.scrape.urls import normalise_url

_ID = re.compile(r"[0-9a-f]{6,32}")


def lives(data: Path, wanted: str, mask: bool = True) -> Iterator[Life]:
    """The lives of the documents that have an id (or one beginning with at least six digits of it), a URL, or a text
    with a fragment in it (white space and case aside), in this order of trying; the fragment's as they are found.

    Where the index is missing or older than the files, ids and URLs are looked for in all files. Personal data in what
    was there before cleaning is masked on demand. Raises UserError where there is no such document.
    """
    wanted = wanted.strip()
    if not (data / "scrape").is_dir() and not (data / "clean").is_dir():
        raise UserError(f"{data} holds neither scrape nor clean: `dvc repro` builds them, --data names another folder")
    if not wanted:
        raise UserError("corpus why: name an id, a URL, or some words of a text")
    found = [*_by_id(data, wanted.lower(), mask)] if _ID.fullmatch(wanted.lower()) else []
    for url in dict.fromkeys([wanted, normalise_url(wanted) or wanted]) if "://" in wanted else []:
        found = found or [*_by_url(data, url, mask)]
    yield from found
    if found:
        return
    seen: set[str] = set()
    for identity in fragment_hits(data, wanted):
        if identity not in seen:
            seen.add(identity)
            yield from _by_id(data, identity, mask)
    if not seen:
        raise UserError(f"no document has the id or URL {wanted!r}, or this in its text: `corpus sample` shows some")


def _by_id(data: Path, wanted: str, mask: bool) -> Iterator[Life]:
    """By the index, and where that does not serve by reading all ids."""
    for scan in (False, True):
        try:
            places = scan_for_id(data, wanted) if scan else find_id(data, wanted)
            for identity, own in sorted(_by_document(data, places, wanted).items()):
                yield life_of(data, identity, own, mask)
            return
        except Outdated:
            if scan:
                raise UserError(
                    f"{data}: the stages were built from other documents than one another: `dvc repro`"
                ) from None
        except UserError:
            if scan:
                raise


def _by_url(data: Path, url: str, mask: bool) -> Iterator[Life]:
    try:
        rows = [(place, read_row(data / place.file, place.row)) for place in find_url(data, url)]
        if any(row.get("url") != url for _, row in rows):
            raise Outdated
        identities = {str(row["id"]) for _, row in rows}
    except (Outdated, UserError):
        identities = scan_for_url(data, url)
    for identity in sorted(identities):
        yield from _by_id(data, identity, mask)


def _by_document(data: Path, places: Mapping[int, Sequence[Place]], wanted: str) -> dict[str, list[Place]]:
    """The places by the ids that stand there. Raises Outdated where a row is not about a document of its key."""
    found: dict[str, list[Place]] = {}
    for key, own in places.items():
        identities = set()
        for place in own:
            if place.kind == "id":
                row = read_row(data / place.file, place.row)
                if not row or key_of_id(str(row["id"])) != key:
                    raise Outdated
                identities.add(str(row["id"]))
        for identity in identities:
            if identity.startswith(wanted):
                found[identity] = list(own)
    return found


def scan_for_id(data: Path, wanted: str) -> dict[int, list[Place]]:
    """As `find_id`, by reading the ids of all files."""
    found: dict[int, list[Place]] = {}
    low, high = (
        (int(wanted[:16].ljust(16, digit), 16) for digit in "0f") if len(wanted) < 32 else [key_of_id(wanted)] * 2
    )
    for file in indexed_files(data):
        name = str(file.relative_to(data))
        for entries in entries_of(file, 0):
            near = entries.filter(pl.col("key").is_between(pl.lit(low, pl.UInt64), pl.lit(high, pl.UInt64)))
            for key, kind, row in near.select("key", "kind", "row").iter_rows():
                found.setdefault(key, []).append(Place(KINDS[kind], name, row))
    return found


def scan_for_url(data: Path, url: str) -> set[str]:
    """The ids of the rows that have a URL."""
    found: set[str] = set()
    for file in indexed_files(data):
        if file.parent.name in ("scrape", "clean", "augment"):
            for batch in aligned_batches([file], ["url"]):
                found |= set(batch.filter(pl.col("url") == url)["id"])
    return found


def fragment_hits(data: Path, fragment: str) -> Iterator[str]:
    """The ids of the documents with some words in their text or title, in any case, those of clean first."""
    pattern = r"(?i)" + r"\s+".join(re.escape(word) for word in fragment.split())
    files = [file for file in indexed_files(data) if file.parent.name in ("clean", "augment", "scrape")]
    order = sorted(files, key=lambda file: (("clean", "augment", "scrape").index(file.parent.name), file.name))
    for file in order:
        for batch in aligned_batches([file], ["text", "title"]):
            texts = [pl.col(n).str.contains(pattern).fill_null(False) for n in ("text", "title") if n in batch.columns]
            if texts:
                yield from batch.filter(pl.any_horizontal(texts))["id"]
