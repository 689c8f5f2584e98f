"""Records of a source to parts by their ids, through files on disk: memory holds a part, never a source."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from corpus.documents import document_id

BUCKETS = 256


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


class Spill:
    """Files of records in a folder, one a bucket, opened when first needed."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.files: dict[int, BinaryIO] = {}

    def add(self, row: dict[str, Any]) -> None:
        bucket = bucket_of(row["id"])
        if bucket not in self.files:
            self.files[bucket] = (self.folder / f"{bucket:03d}").open("wb")
        # JSON: a pickle would be quicker, and code to whoever can write into the folder.
        body = {"body": base64.b64encode(row["body"]).decode("ascii")} if "body" in row else {}
        self.files[bucket].write(json.dumps(row | body).encode("ascii") + b"\n")

    def close(self) -> None:
        for file in self.files.values():
            file.close()

    def rows(self, part: int, parts: int) -> Iterator[dict[str, Any]]:
        """The records of a part: of several buckets, or a share of one, each in the order they came."""
        for bucket in range(part % BUCKETS, BUCKETS, parts):
            path = self.folder / f"{bucket:03d}"
            if not path.exists():
                continue
            with path.open("rb") as file:
                for line in file:
                    row = json.loads(line)
                    if int(row["id"][-8:], 16) % parts == part:
                        yield row | ({"body": base64.b64decode(row["body"])} if "body" in row else {})


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
