"""Documents to train on: those of the shards or of any Parquet or JSONL files, and unfiltered ones for the control."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from corpus.documents import list_parts, render_messages
from corpus.errors import UserError
from corpus.params import Pack
from corpus.sources import RowSource
from corpus.stage import Run, batches, side_by_side

SPLITS = ("test", "validation", "train")  # read in this order: none may share anything with those before it
SAME_ROWS = ("text.jsonl", "instruct.jsonl")  # what `corpus shard` writes beside its Parquet
NAMED = 5  # files or ids in an error
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

    Raises UserError where there is none, validation or test but no train, or documents that belong to none of them.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist: run `corpus shard`, or name a folder or file of documents")
    found = {name: [*path.glob(name), *path.glob(f"{name}[.-]*")] for name in SPLITS}
    for name, places in found.items():
        if len(places) > 1:
            raise UserError(f"{path} holds {len(places)} files of {name}: put them into a folder {name}")
    shards = {name: places[0] for name, places in found.items() if places}
    if shards and "train" not in shards:
        raise UserError(f"{path} holds {' and '.join(shards)} but no train: nothing would be left to train on")
    if shards and (
        others := [one.name for one in sorted(path.iterdir()) if one not in shards.values() and _files(one)]
    ):
        raise UserError(
            f"{path}: {', '.join(others[:NAMED])} beside {' and '.join(shards)}: put documents into "
            f"{', '.join(reversed(SPLITS))}, or elsewhere what is not to be read"
        )
    return shards or {"train": path}


def _files(path: Path) -> list[Path]:
    """The Parquet and JSONL files at a path, in order."""
    from corpus.scrape.files import SUFFIXES, has_suffix

    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return [
        file
        for file in files
        if has_suffix(file.name, SUFFIXES["parquet"] + SUFFIXES["jsonl"])
        and not file.name.startswith(("dropped-", "."))
    ]


def read_shard(path: Path, tally: Tally | None = None) -> Iterator[Document]:
    """The documents of a folder or file, Parquet if there is any, else JSONL; chunks of one are put together again.

    Rows hold `text`, or a dialogue in one of the shapes of `corpus.scrape.messages.dialogue_of`; `id` (else one is made
    from the row), `lang`, `label`, `source`, `title`. Rows that hold neither are noted in the tally as pack.error.….
    Raises UserError for what is missing, damaged, or of both kinds.
    """
    tally = tally or Tally()
    held: Document | None = None
    chunks: list[str] = []  # of its text, as many as were read
    for row in _rows(path):
        # What a document has no column for is in `meta`, as are numbers where it has text.
        more = json.loads(row.get("meta") or "{}")
        given, label, source = more.get("id"), label_text(row.get("label", more.get("label"))), more.get("source")
        identity = str(given) if isinstance(given, str | int) and given != "" else row["id"]
        source = source if isinstance(source, str) else None
        reason, detail = row.get("reason"), row.get("detail", "HTML: run `corpus clean` on it first")
        if reason is None and any("\ud800" <= sign <= "\udfff" for sign in f"{identity}{label}{source}"):
            reason, detail = "encoding", "its id, label or source holds half of a character (a lone surrogate)"
            identity = row["id"]
        if reason is not None or "text" not in row:
            tally.rows += 1
            tally.dropped.append(Dropped(identity, f"pack.error.{(reason or 'page').rsplit('.', 1)[-1]}", detail))
            continue
        if held and more.get("chunk") and held.id == identity:
            chunks.append(row["text"])
            continue
        if held:
            yield dataclasses.replace(held, text="".join(chunks))
        lang, messages = row.get("lang") or "und", row.get("messages") or None
        held, chunks = Document(identity, "", lang, messages, label, source, row.get("title")), [row["text"]]
    if held:
        yield dataclasses.replace(held, text="".join(chunks))


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
    from corpus.scrape.files import SUFFIXES, FileEntry, has_suffix
    from corpus.scrape.rows import read_files

    if not path.exists():
        raise UserError(f"{path} does not exist: run `corpus shard`, or name a folder or file of documents")
    found = [path] if path.is_file() and has_suffix(path.name, (".json",)) else _files(path)
    parquet = [file for file in found if has_suffix(file.name, SUFFIXES["parquet"])]
    others = [file.name for file in found if file not in parquet and file.name not in SAME_ROWS]
    if parquet and others:
        named = ", ".join(others[:NAMED])
        raise UserError(
            f"{path} holds Parquet, which is read, and {named} beside it: put these into a folder of their own"
        )
    if path.is_file() and not found:
        raise UserError(f"{path} is neither Parquet nor JSONL: documents are read from these")
    folder = path if path.is_dir() else path.parent
    entries = [FileEntry(str(file), file.relative_to(folder).as_posix(), 0, "") for file in parquet or found]
    source = RowSource(name="rows", kind="parquet" if parquet else "jsonl", path=str(path))
    yield from read_files(source, entries, Counter())


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


def control_documents(run: Run, enough_bytes: Mapping[str, int]) -> list[Document]:
    """Documents as they were before dedup and filter, in an order drawn by hash, until there are enough of a language.

    None is in validation or test, or resembles one that is. Each comes as often as pack.mixture says.
    """
    held_out = held_out_ids(run)
    order = [  # hash, id, language, bytes of each copy
        (hashed(run.params.pack.seed, "control", one.id, copy), one.id, one.lang, len(one.text.encode()))
        for one in _unfiltered(run)
        if one.id not in held_out
        for copy in range(copies(one.id, one.lang, run.params.pack))
    ]
    chosen: list[str] = []
    read: Counter[str] = Counter()
    for _, document, lang, size in sorted(order):
        if read[lang] < enough_bytes.get(lang, 0):
            chosen.append(document)
            read[lang] += size
    wanted = set(chosen)
    found = {document.id: document for document in _unfiltered(run) if document.id in wanted}
    return [found[document] for document in chosen]


def _unfiltered(run: Run) -> Iterator[Document]:
    names = [field.name for field in dataclasses.fields(Document)]
    for part in side_by_side(dataclasses.replace(run, limit=None)):
        for batch in batches(part, ["text"], dict.fromkeys([*names[2:], "split"])):
            for row in batch.select(names).with_columns(pl.col("lang").fill_null("und")).iter_rows():
                yield Document(*row)


def held_out_ids(run: Run) -> set[str]:
    """Ids of validation and test, of what dedup found similar to one of them, and of the duplicates of either."""
    held_out: set[str] = set()
    for part in side_by_side(dataclasses.replace(run, limit=None)):
        for batch in batches(part, [], {"split": None}):
            held_out.update(batch.filter(pl.col("split").is_in(["validation", "test"]))["id"])
    if run.folder("dedup").is_dir():
        edges = sorted((run.folder("dedup") / "edges").glob("*.parquet"))
        pairs = [pair for path in edges for pair in pl.read_parquet(path, columns=["id_a", "id_b"]).iter_rows()]
        held_out |= {other for a, b in pairs for one, other in ((a, b), (b, a)) if one in held_out}
        rows = [pl.read_parquet(path, columns=["id", "duplicate_of"]) for path in list_parts(run.folder("dedup"))]
        duplicate_of = dict(pl.concat(rows).drop_nulls().iter_rows())
        while more := {one for one, other in duplicate_of.items() if other in held_out} - held_out:
            held_out |= more  # and what duplicates these
    return held_out
