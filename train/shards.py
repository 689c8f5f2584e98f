"""Documents to train on: those of the shards or of any Parquet or JSONL files, and unfiltered ones for the control."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from corpus.documents import list_parts, render_messages
from corpus.errors import UserError
from corpus.params import Pack
from corpus.scrape.files import SUFFIXES, FileEntry, files_in, has_suffix, list_files
from corpus.scrape.rows import read_files
from corpus.sources import RowSource
from corpus.split.contamination import find_contaminated, grams_of, read_test_sets
from corpus.stage import Run, batches, side_by_side
from corpus.text.buffers import Texts

SPLITS = ("test", "validation", "train")  # read in this order: none may share anything with those before it
SAME_ROWS = ("text.jsonl", "instruct.jsonl")  # what `corpus shard` writes beside its Parquet
NAMED = 5  # files or ids in an error
DOCUMENTS_AT_ONCE = 1_000
Messages = list[dict[str, str]]


@dataclasses.dataclass(frozen=True)
class Document:
    """What is packed of a document, and what templates may ask for."""

    id: str
    text: str
    lang: str = "und"
    messages: Messages | None = None
    label: str | None = None
    source: str | None = None
    title: str | None = None


class Dropped(NamedTuple):
    """A document or row that is not packed, and why."""

    id: str
    reason: str  # see corpus/reasons.py
    detail: str


@dataclasses.dataclass
class Tally:
    """What was read for a pack, and what became of it."""

    rows: int = 0  # documents, and rows that are none; pack counts them
    dropped: list[Dropped] = dataclasses.field(default_factory=list)
    bytes: Counter[str] = dataclasses.field(default_factory=Counter)  # of text, by language
    digest: hashlib.blake2b = dataclasses.field(default_factory=lambda: hashlib.blake2b(digest_size=16))  # of all
    counts: Counter[str] = dataclasses.field(default_factory=Counter)  # dialogues and their tokens
    templates: Counter[str] = dataclasses.field(default_factory=Counter)  # documents by template

    def reasons(self) -> Counter[str]:
        """How many were dropped, by reason."""
        return Counter(row.reason for row in self.dropped)

    def metrics(self) -> dict[str, Any]:
        """Dialogues, those that went in as text for want of a chat template, and documents by pack.templates."""
        return {name: self.counts[name] for name in ("dialogues", "dialogues_as_text")} | {"templates": self.templates}


def find_shards(path: Path) -> dict[str, Path]:
    """The shards at a path: its train, validation and test, each a folder or a file, else all of it as train.

    Raises UserError where there is none, no train beside the others, or documents that belong to none of them.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist: run `corpus shard`, or name a folder or file of documents")
    places = sorted(path.iterdir()) if path.is_dir() else []
    shards = {name: place for name in SPLITS for place in places if re.match(rf"{name}([.-]|$)", place.name)}
    others = [place for place in places if place not in shards.values() and _files(place)]
    if shards and (others or "train" not in shards):
        named = ", ".join(place.name for place in [*others[:NAMED], *shards.values()])
        raise UserError(
            f"{path} holds {named}: name a folder of one train, validation and test, each a folder or a file, of "
            "which train is needed; other documents lie elsewhere"
        )
    return shards or {"train": path}


def _files(path: Path) -> list[FileEntry]:
    """The Parquet and JSONL files at a path, in order."""
    entries = files_in(path) if path.is_dir() else list_files(str(path), "jsonl")
    return [
        entry
        for entry in entries
        if has_suffix(entry.name, SUFFIXES["parquet"] + SUFFIXES["jsonl"])
        and not Path(entry.name).name.startswith(("dropped-", "."))
    ]


def read_shard(path: Path, tally: Tally | None = None) -> Iterator[Document]:
    """The documents of a folder or file, Parquet if there is any, else JSONL; chunks of one are put together again.

    Rows hold `text`, or a dialogue in one of the shapes of `corpus.scrape.messages.dialogue_of`; `id` (else one is made
    from the row), `lang`, `label`, `source`, `title`. Rows that hold neither are noted in the tally as pack.error.….
    Raises UserError for what is missing, damaged, or of both kinds.
    """
    chunks: list[Document] = []  # of one document
    for document, overlap in _documents(path, tally or Tally()):
        if chunks and (overlap is None or document.id != chunks[0].id):
            yield dataclasses.replace(chunks[0], text="".join(chunk.text for chunk in chunks))
            chunks.clear()
        chunks.append(dataclasses.replace(document, text=document.text[overlap if chunks else 0 :]))
    if chunks:
        yield dataclasses.replace(chunks[0], text="".join(chunk.text for chunk in chunks))


def _documents(path: Path, tally: Tally) -> Iterator[tuple[Document, int | None]]:
    """Each row as a document, and if it is a later chunk of one how many characters it repeats of the one before."""
    for row in _rows(path):
        # What a document has no column for is in `meta`, as are numbers where it has text.
        more = json.loads(row.get("meta") or "{}")
        given, label, source = more.get("id"), label_text(row.get("label", more.get("label"))), more.get("source")
        identity = str(given) if isinstance(given, str | int) and given != "" else row["id"]
        source = source if isinstance(source, str) else None
        reason, detail = row.get("reason"), row.get("detail", "")
        if reason is None and "text" not in row:
            reason, detail = "page", "HTML: run `corpus clean` on it first"
        if reason is None and re.search("[\ud800-\udfff]", f"{identity}{label}{source}"):
            reason, detail = "encoding", "its id, label or source holds half of a character (a lone surrogate)"
            identity = row["id"]
        if reason is not None:
            tally.rows += 1
            tally.dropped.append(Dropped(identity, f"pack.error.{reason.rsplit('.', 1)[-1]}", detail))
            continue
        lang, messages = row.get("lang") or "und", row.get("messages") or None
        overlap = None
        if more.get("chunk"):
            overlap = more["overlap"] if isinstance(more.get("overlap"), int) else 0
        yield Document(identity, row["text"], lang, messages, label, source, row.get("title")), overlap


def label_text(label: Any) -> str | None:
    """A label as templates name it: a string as it is, anything else as JSON, a whole number without its point.

    >>> label_text("good"), label_text(True), label_text(1.0), label_text(0.5), label_text(None)
    ('good', 'true', '1', '0.5', None)
    """
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    return label if label is None or isinstance(label, str) else json.dumps(label)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a folder or file as `corpus scrape` reads them, those that it would drop as well."""
    found = list_files(str(path), "jsonl") if path.is_file() and has_suffix(path.name, (".json",)) else _files(path)
    parquet = [entry for entry in found if has_suffix(entry.name, SUFFIXES["parquet"])]
    others = [entry.name for entry in found if entry not in parquet and Path(entry.name).name not in SAME_ROWS]
    if parquet and others:
        raise UserError(f"{path} holds Parquet, which is read, and {', '.join(others[:NAMED])} beside it: move these")
    if path.is_file() and not found:
        raise UserError(f"{path} is neither Parquet nor JSONL: documents are read from these")
    source = RowSource(name="rows", kind="parquet" if parquet else "jsonl", path=str(path))
    yield from read_files(source, parquet or found, Counter())


def traces(document: Document) -> set[str]:
    """By what a document is known again: its id, and a digest of what it says, whatever the white space.

    >>> len(traces(Document("a", "x  y")) & traces(Document("b", "x\\ny")))
    1
    """
    said = " ".join((render_messages(document.messages) if document.messages else document.text).split())
    return {document.id, hashlib.blake2b(said.encode(), digest_size=16).hexdigest()} if said else {document.id}


def hashed(seed: int, purpose: str, document: str, number: int = 0) -> float:
    """A number in [0, 1) that depends on nothing but its arguments."""
    digest = hashlib.blake2b(f"{seed}\0{purpose}\0{document}\0{number}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def copies(document: str, lang: str, settings: Pack) -> int:
    """How often pack.mixture takes a document: the weight of its language, its fraction decided by hash.

    >>> [copies("a", "en", Pack(mixture={"en": weight})) for weight in (0, 1, 3)]
    [0, 1, 3]
    >>> sum(copies(str(number), "en", Pack(mixture={"en": 1.5})) for number in range(1000))
    1489
    """
    weight = settings.mixture.get(lang, 1.0)
    return int(weight) + (hashed(settings.seed, "mixture", document) < weight % 1)


# ---- the control -----------------------------------------------------------------------------------------------------


def control_documents(run: Run, enough_bytes: Mapping[str, int]) -> tuple[list[str], Iterator[Document]]:
    """Documents as they were before dedup and filter: their ids in an order drawn by hash, and each of them once.

    Of a language there are so many that they have enough bytes. None is in validation or test, resembles one that is,
    or holds something of a test set. Each id comes as often as pack.mixture says.
    """
    held_out = held_out_ids(run) | contaminated_ids(run)
    rows = (
        (hashed(run.params.pack.seed, "control", one.id, copy), one.id, one.lang, len(one.text.encode()))
        for one in _unfiltered(run)
        if one.id not in held_out
        for copy in range(copies(one.id, one.lang, run.params.pack))
    )
    kinds = {"hash": pl.Float64, "id": pl.String, "lang": pl.String, "bytes": pl.Int64}  # of each copy
    order = pl.DataFrame(schema=kinds)
    while some := list(itertools.islice(rows, DOCUMENTS_AT_ONCE)):
        order = order.vstack(pl.DataFrame(some, kinds, orient="row"))
    chosen: list[str] = []
    read: Counter[str] = Counter()
    for document, lang, size in order.sort("hash", "id").drop("hash").iter_rows():
        if read[lang] < enough_bytes.get(lang, 0):
            chosen.append(document)
            read[lang] += size
    wanted = set(chosen)
    return chosen, (document for document in _unfiltered(run) if document.id in wanted)


def contaminated_ids(run: Run) -> set[str]:
    """Ids of the unfiltered documents that hold something of a test set: split has looked at the kept ones alone."""
    tests = read_test_sets(run.data / "evaluation", run.params.split.test_sets)
    ids: list[str] = []
    found = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
    documents = _unfiltered(run)
    while some := list(itertools.islice(documents, DOCUMENTS_AT_ONCE)):
        said = [f"{one.text}\n{render_messages(one.messages or [])}" for one in some]
        hashes, owners = grams_of(Texts.of_strings(said))
        at, places = tests.table.find(hashes)
        found.append((len(ids) + owners[at], places))
        ids += [one.id for one in some]
    owners, places = (np.concatenate(column) for column in zip(*found, strict=True))
    contaminated = find_contaminated(owners, places, tests.table, np.zeros(len(ids), np.int64))
    return {ids[number] for number in contaminated.documents.tolist()}


def _unfiltered(run: Run) -> Iterator[Document]:
    names = [field.name for field in dataclasses.fields(Document)]
    for part in side_by_side(dataclasses.replace(run, limit=None)):
        for batch in batches(part, ["text"], dict.fromkeys([*names[2:], "split"])):
            for row in batch.select(names).with_columns(pl.col("lang").fill_null("und")).iter_rows():
                yield Document(*row)


def held_out_ids(run: Run) -> set[str]:
    """Ids of validation and test, of what split dropped, of what dedup found similar to one, and of all duplicates."""
    split = pl.concat(
        pl.read_parquet(path, columns=["id", "split", "kept"]) for path in list_parts(run.folder("split"))
    )
    held_out = set(split.filter(pl.col("split").is_in(["validation", "test"]) | ~pl.col("kept"))["id"])
    if run.folder("dedup").is_dir():
        edges = sorted((run.folder("dedup") / "edges").glob("*.parquet"))
        pairs = [pair for path in edges for pair in pl.read_parquet(path, columns=["id_a", "id_b"]).iter_rows()]
        held_out |= {b for a, b in pairs if a in held_out} | {a for a, b in pairs if b in held_out}
        rows = [pl.read_parquet(path, columns=["id", "duplicate_of"]) for path in list_parts(run.folder("dedup"))]
        duplicate_of = dict(pl.concat(rows).drop_nulls().iter_rows())
        while more := {one for one, other in duplicate_of.items() if other in held_out} - held_out:
            held_out |= more  # and what duplicates these
    return held_out
