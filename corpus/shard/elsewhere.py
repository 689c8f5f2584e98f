"""A copy of the shards in another folder: here, or on object storage as fsspec knows it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from corpus.errors import UserError
from corpus.shard.order import SPLITS
from corpus.storage_errors import refusal, shown, storage_errors
from corpus.storage_options import connect, refuse_memory

LEFT_OUT = "dropped-balance.parquet"
CARD = "README.md"  # goes last: where it lies, all else does


class Elsewhere(NamedTuple):
    """A folder of a file system."""

    address: str
    files: Any  # fsspec.AbstractFileSystem
    folder: str


def open_elsewhere(location: str, storage: Mapping[str, Any], output: Path) -> Elsewhere:
    """The folder at an address. Raises UserError where that cannot be written to, before any work is done for it.

    Nor may it be, hold, or lie in the folder of the shards themselves.
    """
    refuse_memory(f"shard.copy_to: {location}", location)
    here = Path(location.removeprefix("file://")).resolve()
    if "://" not in location.removeprefix("file://") and (
        here == output or output in here.parents or here in output.parents
    ):
        raise UserError(f"shard.copy_to: {location} is, holds or lies in {output}: name a folder elsewhere")
    try:
        files, folder = connect(location, storage)
        files.find(folder)  # a storage without folders has none to list; the bucket has to be there, we make none
        files.makedirs(folder, exist_ok=True)
        files.pipe_file(f"{folder}/.probe", b"")
        files.rm_file(f"{folder}/.probe")
    except UserError:
        raise
    except Exception as error:  # each storage has errors of its own
        what = f"shard.copy_to: {shown(location)} cannot be written to"
        raise refusal(error, what, location.partition("://")[0]) from None
    return Elsewhere(location, files, folder.rstrip("/"))


def copy_files(source: Path, target: Elsewhere) -> None:
    """Copy the files of a folder whose names begin with no dot; what is there and no longer here goes.

    The card is removed first and copied last. Raises UserError or StageError where the storage fails.
    """
    wanted = {
        path.relative_to(source).as_posix(): path
        for path in sorted(source.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(source).parts)
    }
    with storage_errors(target.address):
        there = {name.removeprefix(target.folder).lstrip("/") for name in target.files.find(target.folder)}
        if CARD in there:
            target.files.rm_file(f"{target.folder}/{CARD}")
        for name in sorted(there - set(wanted)):
            if is_ours(name):
                target.files.rm_file(f"{target.folder}/{name}")
        for name in sorted(wanted, key=lambda name: (name == CARD, name)):
            path = f"{target.folder}/{name}"
            target.files.makedirs(path.rpartition("/")[0], exist_ok=True)
            target.files.put_file(str(wanted[name]), path)


def is_ours(name: str) -> bool:
    """Whether a file has a name that only shards have; others in the folder are left alone.

    >>> is_ours("train/part-train-00003.parquet"), is_ours("notes.md"), is_ours("raw/text.jsonl")
    (True, False, False)
    """
    split, _, file = name.rpartition("/")
    if split not in SPLITS:
        return name == LEFT_OUT
    return file in ("text.jsonl", "instruct.jsonl") or (file.startswith(f"part-{split}-") and file.endswith(".parquet"))
