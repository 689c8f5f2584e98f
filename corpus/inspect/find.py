"""Which documents somebody means by an id, the beginning of one, a URL, or some words of a text."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from corpus.documents import aligned_batches
from corpus.errors import UserError
from corpus.inspect.life import Life, life_of
from corpus.report.index import (
    Outdated,
    Place,
    find_beginning,
    find_id,
    find_url,
    indexed_files,
    key_of_id,
    read_row,
    scan,
)
from corpus.scrape.urls import normalise_url

ID_DIGITS = 32
AT_ONCE = 20  # ids that are looked for in one pass over all files, where no index serves
_BEGINNING = re.compile(r"[0-9a-f]{6,31}")


def lives(data: Path, wanted: str, mask: bool = True) -> Iterator[Life]:
    """The lives of the documents that have an id, or one beginning with at least six digits of it, a URL, or a text
    with a fragment in it (white space and case aside), in this order of trying; each as soon as it is found.

    Where the index is missing or older than the files, ids and URLs are looked for in all files. Personal data in what
    was there before cleaning is masked on demand. Raises UserError where there is no such document.
    """
    wanted = wanted.strip()
    if not (data / "scrape").is_dir() and not (data / "clean").is_dir():
        raise UserError(f"{data} holds neither scrape nor clean: `dvc repro` builds them, --data names another folder")
    if not wanted:
        raise UserError("corpus why: name an id, a URL, or some words of a text")
    for search in (exact_ids, beginning_ids, url_ids, fragment_ids):
        found = False
        for life in _lives_of(data, search(data, wanted), mask):
            found = True
            yield life
        if found:
            return
    raise UserError(f"no document has the id or URL {wanted!r}, or this in its text: `corpus sample` shows some")


def _lives_of(data: Path, identities: Iterator[str], mask: bool) -> Iterator[Life]:
    """The lives of those documents that there are: by the index, and where that does not serve by reading all ids."""
    for identity in identities:
        try:
            places = find_id(data, identity)
            if any(place.kind == "id" for place in places):
                yield life_of(data, identity, places, mask)
            continue
        except (Outdated, UserError):  # the files say themselves what is wrong with them
            together = [identity, *itertools.islice(identities, AT_ONCE - 1)]
        found = scan(data, functools.partial(pl.Expr.is_in, other=together))
        for one in together:
            if any(place.kind == "id" for place in found.get(one, [])):
                yield _fresh_life(data, one, found[one], mask)


def _fresh_life(data: Path, identity: str, places: list[Place], mask: bool) -> Life:
    try:
        return life_of(data, identity, places, mask)
    except Outdated:
        raise UserError(f"{data} changed while it was read: ask again when `dvc repro` is done") from None


# ---- ways to mean a document -----------------------------------------------------------------------------------------


def exact_ids(data: Path, wanted: str) -> Iterator[str]:
    """The id itself; one of ours also in capitals."""
    yield wanted
    if len(wanted) == ID_DIGITS and wanted.lower() != wanted:
        yield wanted.lower()


def beginning_ids(data: Path, wanted: str) -> Iterator[str]:
    """Our ids that begin with six digits or more."""
    digits = wanted.lower()
    if not _BEGINNING.fullmatch(digits):
        return
    try:
        places = find_beginning(data, digits)
        rows = {
            key: [read_row(data / place.file, place.row) for place in own if place.kind == "id"]
            for key, own in places.items()
        }
        if any(not row or key_of_id(str(row["id"])) != key for key, own in rows.items() for row in own):
            raise Outdated
        identities = {str(row["id"]) for own in rows.values() for row in own}
    except (Outdated, UserError):
        identities = {*scan(data, lambda name: name.str.starts_with(digits))}
    yield from sorted(one for one in identities if len(one) == ID_DIGITS and one.startswith(digits))


def url_ids(data: Path, wanted: str) -> Iterator[str]:
    """The ids of the rows with a URL, as it is written or else as scrape would write it."""
    for url in dict.fromkeys([wanted, normalise_url(wanted) or wanted]) if "://" in wanted else []:
        try:
            rows = [read_row(data / place.file, place.row) for place in find_url(data, url)]
            if any(row.get("url") != url for row in rows):
                raise Outdated
            identities = {str(row["id"]) for row in rows}
        except (Outdated, UserError):
            identities = scan_for_url(data, url)
        if identities:
            yield from sorted(identities)
            return


def scan_for_url(data: Path, url: str) -> set[str]:
    """The ids of the rows that have a URL, by reading all URLs."""
    found: set[str] = set()
    for file in indexed_files(data):
        if file.parent.name in ("scrape", "clean", "augment"):
            for batch in aligned_batches([file], ["url"]):
                found |= set(batch.filter(pl.col("url") == url)["id"]) if "url" in batch.columns else set()
    return found


def fragment_ids(data: Path, fragment: str) -> Iterator[str]:
    """The ids of the documents with some words in their text or title, in any case, each once, those of clean first."""
    pattern = r"(?i)" + r"\s+".join(re.escape(word) for word in fragment.split())
    stages = ("clean", "augment", "scrape")
    files = [file for file in indexed_files(data) if file.parent.name in stages]
    seen: set[str] = set()
    for file in sorted(files, key=lambda file: (stages.index(file.parent.name), file.name)):
        for batch in aligned_batches([file], ["text", "title"]):
            texts = [pl.col(n).str.contains(pattern).fill_null(False) for n in ("text", "title") if n in batch.columns]
            for identity in batch.filter(pl.any_horizontal(texts))["id"] if texts else ():
                if identity not in seen:
                    seen.add(identity)
                    yield identity
