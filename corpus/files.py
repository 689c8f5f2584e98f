"""Files that appear whole or not at all, links to them, and their digests."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

DIGEST_BYTES = 16


def link(source: Path, target: Path) -> None:
    """Make a file appear at a second place without a second copy where the file system can."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def own_partial(path: Path) -> Path:
    """Where this process makes what is to become a file or folder: a name of nobody else's, on any machine.

    Its last parts are `PID`, `RANDOM` and `partial`: whoever finds a stray one can tell what left it.
    """
    return path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex}.partial")


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    """Write JSON for people and git: sorted keys, floats rounded to six digits, whole or not at all.

    Without an indent it is one line, which takes a tenth of the time.
    """
    write_beside(path, value, indent).replace(path)


def write_beside(path: Path, value: Any, indent: int | None = 2) -> Path:
    """Write what is to become a file of JSON; where it is until then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(_rounded(value), indent=indent, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")
    return partial


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if value == value and abs(value) != float("inf") else None
    if isinstance(value, dict):
        return {str(key): item if type(item) is int else _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value


def file_digest(path: Path) -> str:
    """BLAKE2b of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=DIGEST_BYTES)).hexdigest()


def digest_of(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).hexdigest()
