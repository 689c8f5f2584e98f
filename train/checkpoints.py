"""Checkpoints that a kill at any moment, or a power cut, leaves whole: written aside, forced to disk, then renamed.

They lie in a folder KEY/MODEL, where KEY says what the training depends on, and have the names that Trainer gives them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from corpus.errors import UserError
from corpus.locks import locked

WHOLE = "whole.json"  # written last: the files and their sizes, the key they belong to, and why training ended there


def publish(partial: Path, checkpoint: Path, stopped: str | None) -> None:
    """Make the written folder `partial` a checkpoint; `stopped` says why training ends there, None where it goes on."""
    (partial / "training_args.bin").unlink(missing_ok=True)  # pickled; nothing reads it
    files = {str(path.relative_to(partial)): path.stat().st_size for path in partial.rglob("*") if path.is_file()}
    whole = {"files": files, "key": checkpoint.parents[1].name, "stopped": stopped}
    (partial / WHOLE).write_text(json.dumps(whole))
    replace_folder(partial, checkpoint)


def replace_folder(new: Path, old: Path) -> None:
    """Rename a folder once all its files are on the disk. What stood there before is gone."""
    for path in (*new.rglob("*"), new):
        _force(path)
    shutil.rmtree(old, ignore_errors=True)
    new.rename(old)
    _force(old.parent)


def _force(path: Path) -> None:
    """Have the kernel write a file, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def last_good(folder: Path) -> Path | None:
    """The last checkpoint that is as it was written, its best one included; None if there is none.

    Later ones are deleted. Raises UserError where one belongs to another model, other packs or other parameters.
    """
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=step_of, reverse=True):
        if is_whole(checkpoint) and is_whole(best_of(checkpoint)):
            return checkpoint
        shutil.rmtree(checkpoint)
    return None


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint has every file in its full size. Raises UserError where it was put there from elsewhere."""
    try:
        whole = json.loads((checkpoint / WHOLE).read_text())
        good = all((checkpoint / name).stat().st_size == size for name, size in whole["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    if whole["key"] != checkpoint.parents[1].name:
        raise UserError(f"{checkpoint} belongs to another model, other packs or other parameters: delete it")
    return good


def best_of(checkpoint: Path) -> Path:
    """The checkpoint with the least validation loss up to this one; itself where nothing was validated."""
    step = json.loads((checkpoint / "trainer_state.json").read_text()).get("best_global_step")
    return checkpoint.with_name(f"checkpoint-{step}") if step else checkpoint


def stopped_at(checkpoint: Path) -> str | None:
    """Why training ended at a whole checkpoint: tokens, patience or time. None where it goes on."""
    reason: str | None = json.loads((checkpoint / WHOLE).read_text())["stopped"]
    return reason


def step_of(checkpoint: Path) -> int:
    """The step a checkpoint was written after.

    >>> step_of(Path("adapted/checkpoint-120"))
    120
    """
    return int(checkpoint.name.rpartition("-")[2])


def keep_last_and_best(folder: Path) -> None:
    """Delete all checkpoints but the last and the best up to it."""
    *earlier, last = sorted(folder.glob("checkpoint-*"), key=step_of)
    for checkpoint in earlier:
        if checkpoint != best_of(last):
            shutil.rmtree(checkpoint)


def keep_finished(folder: Path) -> None:
    """Delete all that `finished` has come of."""
    for path in folder.iterdir():
        if path.is_dir() and path.name != "finished":
            shutil.rmtree(path)


@contextlib.contextmanager
def held(folder: Path, locks: Path) -> Iterator[None]:
    """Have the folder of a key for this run alone, and delete those of other keys that no run has.

    Raises UserError where another run has it, with another --output.
    """

    def lock(path: Path) -> Path:
        return locks / f"checkpoints-{path.stem}.lock"

    with locked(lock(folder), folder):
        for other in folder.parent.glob("*"):
            with lock(other).open("a") as file, contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                discard(other)
        yield


def discard(folder: Path) -> None:
    """Delete a folder so that a kill meanwhile leaves nothing that could be taken for whole."""
    rest = folder.with_suffix(".partial")
    if rest != folder:
        shutil.rmtree(rest, ignore_errors=True)
        folder.rename(rest)
    shutil.rmtree(rest)
