"""The store of finished work: folders that are entered whole, known by a key of all that decides what they hold.

An entry is never changed. What it holds is sealed with the digests of its files, and looked at before it is used; only
time depends on the store, never a result.
"""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
from pathlib import Path

from corpus.files import DIGEST_BYTES, digest_of, file_digest, own_partial, write_json

SEAL = "files.json"  # of an entry: the digests of its files


def new_partial(entry: Path) -> Path:
    """A folder of this process's own in which to make an entry."""
    partial = own_partial(entry)
    partial.mkdir(parents=True)
    return partial


def seal(entry: Path) -> None:
    """Write down what an entry of the store holds, before it becomes one."""
    write_json(entry / SEAL, {path.name: file_digest(path) for path in _contents(entry)})


def _contents(entry: Path) -> list[Path]:
    return [path for path in entry.iterdir() if path.name != SEAL]


def become_entry(partial: Path, entry: Path) -> None:
    """Make a sealed folder an entry of the store, unless another run was faster: its entry has the same bytes."""
    try:
        partial.rename(entry)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise


def is_whole(entry: Path, home: Path) -> bool:
    """Whether an entry of the store holds what was written; if not, nothing of it is left."""
    if _holds_what_was_sealed(entry, home):
        return True
    aside = own_partial(entry)
    with contextlib.suppress(FileNotFoundError):  # there is none, or another run has seen it too
        entry.rename(aside)
        if _holds_what_was_sealed(aside, home):  # another run has just put a good one there
            become_entry(aside, entry)
        shutil.rmtree(aside, ignore_errors=True)
    return False


def _holds_what_was_sealed(entry: Path, home: Path) -> bool:
    try:
        sealed = json.loads((entry / SEAL).read_text("utf-8"))
        return bool(sealed == {path.name: known_digest(home, path) for path in _contents(entry)})
    except (OSError, ValueError):
        return False


# ---- digests that are remembered ------------------------------------------------------------------------------------


def known_digest(home: Path, path: Path) -> str:
    """The digest of a file, remembered as long as its inode, size and times stay: a threshold edit reads no texts.

    The time of change of the inode is among them: unlike that of the content nobody can set it back. A further link to
    the file changes it too, which is why `remember_digests` is called after.
    """
    memo, state = memo_of(home, path)
    try:
        remembered, _, digest = memo.read_text("ascii").rpartition(" ")
    except (OSError, ValueError):
        remembered, digest = "", ""
    if remembered == state and len(digest) == 2 * DIGEST_BYTES:
        return digest
    digest = file_digest(path)
    _remember(memo, state, digest)  # if the file has changed meanwhile, no file has that state
    return digest


def remember_digests(home: Path, entry: Path) -> None:
    """Write down for `known_digest` what a sealed entry holds, if it is one: a further link has changed its files."""
    if (entry / SEAL).exists():
        for name, digest in json.loads((entry / SEAL).read_text("utf-8")).items():
            memo, state = memo_of(home, entry / name)
            _remember(memo, state, digest)


def _remember(memo: Path, state: str, digest: str) -> None:
    memo.parent.mkdir(parents=True, exist_ok=True)
    partial = own_partial(memo)
    partial.write_text(f"{state} {digest}", "ascii")
    partial.replace(memo)


def memo_of(home: Path, path: Path) -> tuple[Path, str]:
    """Where the digest of a file is remembered, one for each inode, and the state of the file that it is true of."""
    stat = path.stat()
    state = f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"
    return home / "digests" / digest_of(f"{stat.st_dev} {stat.st_ino}"), state
