"""Records of a source to parts by their ids, through files on disk: memory holds a part, never a source."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from corpus.documents import document_id
from corpus.errors import StageError
from corpus.locks import locked

BUCKETS = 256


class Unreadable(StageError):
    """What was read of a source before cannot be read again: it has to be removed."""


def bucket_of(document: str) -> int:
    """The bucket of an id: its last 32 bits, modulo.

    >>> bucket_of("970af13b2333fc5f66b77432638d7c6e")
    110
    """
    return int(document[-8:], 16) % BUCKETS


def repeat_id(first: str, number: int) -> str:
    """Id of the `number`-th repeat of a raw row. It keeps the bits that choose the part, so repeats meet there."""
    return document_id(f"{first}\0{number}")[:-8] + first[-8:]


def part_count(size: int, part_bytes: float) -> int:
    """The power of two that keeps parts near the wanted size.

    >>> part_count(0, 100), part_count(149, 100), part_count(151, 100), part_count(1_000, 100)
    (1, 1, 2, 8)
    """
    count = 1
    while size / count > 1.5 * part_bytes:
        count *= 2
    return count


def kind_of(row: dict[str, Any]) -> str:
    """What a record becomes a row of: `page` where it has a body, else `document`."""
    return "page" if "body" in row else "document"


class Spill:
    """A folder of records: kept ones in a file a bucket, opened when first needed, dropped ones in one of their own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.files: dict[str, BinaryIO] = {}
        self.rows_in = self.size = 0  # bytes of text or pages kept
        self.first: str | None = None  # kind of the first record kept: page or document

    def add(self, row: dict[str, Any]) -> None:
        self.rows_in += 1
        if "reason" in row:
            self.write("dropped", row)
        else:
            self.size += len(row["body"]) if "body" in row else len(row["text"].encode())
            self.first = self.first or kind_of(row)
            self.write(f"{bucket_of(row['id']):03d}", row)

    def write(self, name: str, row: dict[str, Any]) -> None:
        """Append a record: a line of JSON (a pickle would be code to whoever can write here), then its body's bytes."""
        if name not in self.files:
            self.files[name] = (self.folder / name).open("wb")
        body = row.get("body")
        line = json.dumps(row if body is None else row | {"body": len(body)})
        self.files[name].write(line.encode("ascii") + b"\n" + (body or b""))

    def close(self) -> None:
        for file in self.files.values():
            file.close()

    def finish(self, **more: Any) -> None:
        """Close the files, and leave the counts beside them."""
        self.close()
        counts = {"rows_in": self.rows_in, "size": self.size, "first": self.first, "files": sorted(self.files)} | more
        (self.folder / "counts.json").write_text(json.dumps(counts), "ascii")


def read_counts(folder: Path) -> dict[str, Any]:
    """What `Spill.finish` left in a folder. Raises Unreadable where it is damaged."""
    try:
        counts: dict[str, Any] = json.loads((folder / "counts.json").read_text("ascii"))
    except (FileNotFoundError, ValueError):
        raise Unreadable(f"{folder / 'counts.json'} is damaged or gone: run again") from None
    return counts


def spilled(path: Path) -> Iterator[dict[str, Any]]:
    """The records of one file in the order they came; none of a file that was not written.

    Raises Unreadable for one that was, and is gone, or damaged.
    """
    if not path.exists():
        counts = path.with_name("counts.json")
        if not path.parent.is_dir() or (counts.exists() and path.name in read_counts(path.parent)["files"]):
            raise Unreadable(f"{path} is gone: something removed it during the run; run again")
        return
    with path.open("rb") as file:
        for line in file:
            try:
                row = json.loads(line)
                body = file.read(row["body"]) if "body" in row else b""
                whole = len(body) == row.get("body", 0)
            except (ValueError, TypeError, AttributeError):
                whole = False
            if not whole:
                raise Unreadable(f"{path} is damaged: run again")
            yield row | {"body": body} if "body" in row else row


def rows_of_part(folders: Sequence[Path], part: int, parts: int) -> Iterator[dict[str, Any]]:
    """The records of a part: of several buckets, or a share of one, each in the order of the folders."""
    for bucket in range(part % BUCKETS, BUCKETS, parts):
        for folder in folders:
            for row in spilled(folder / f"{bucket:03d}"):
                if int(row["id"][-8:], 16) % parts == part:
                    yield row


class DroppedRows:
    """Dropped rows on disk, by the beginning of their ids, so that a fraction at a time can be sorted."""

    def __init__(self, folder: Path) -> None:
        self.spill = Spill(folder)
        self.reasons: Counter[str] = Counter()

    def add(self, row: dict[str, Any]) -> None:
        self.reasons[row["reason"]] += 1
        self.spill.write(row["id"][:2], row)

    def in_order(self) -> Iterator[dict[str, Any]]:
        """All of them by id; nothing can be added after."""
        self.spill.close()
        for prefix in range(256):
            rows = list(spilled(self.spill.folder / f"{prefix:02x}"))
            yield from sorted(rows, key=lambda row: (row["id"], row["reason"], row["detail"] or ""))


@contextlib.contextmanager
def scrape_lock(home: Path) -> Iterator[Path]:
    """Hold `home`/scrape, where the segments of sources lie, for one run alone; its path.

    Raises UserError where another run does not let go of it in a while.
    """
    with locked(home / "locks" / "scrape.lock", home / "scrape"):
        yield home / "scrape"


def remove_segments(stored: Path) -> int:
    """Remove the segments of all sources, those of a source at once: whoever is killed meanwhile leaves all or none.

    Returns of how many sources.
    """
    for gone in stored.glob("*.gone"):
        shutil.rmtree(gone, ignore_errors=True)
    folders = list(stored.glob("*"))
    for folder in folders:
        shutil.rmtree(folder.rename(folder.with_name(f"{folder.name}.gone")), ignore_errors=True)
    return len(folders)


class SeenIds:
    """The ids of all earlier sources, on disk by bucket."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder

    def of(self, part: int, parts: int) -> set[str]:
        """Those that could occur in a part."""
        seen: set[str] = set()
        for bucket in range(part % BUCKETS, BUCKETS, parts):
            path = self.folder / f"{bucket:03d}"
            if path.exists():
                ids = path.read_text("ascii").split()
                seen.update(i for i in ids if int(i[-8:], 16) % parts == part)
        return seen

    def add(self, ids: list[str]) -> None:
        by_bucket: dict[int, list[str]] = {}
        for document in ids:
            by_bucket.setdefault(bucket_of(document), []).append(document)
        for bucket, group in by_bucket.items():
            with (self.folder / f"{bucket:03d}").open("a", encoding="ascii") as file:
                file.write("\n".join(group) + "\n")
