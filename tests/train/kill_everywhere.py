"""Kills a training at chosen moments of its checkpoints' writing, resumes each, and prints what came out as JSON.

Run as a script: FOLDER PROJECT PACK MOMENTS OVERRIDES…; MOMENTS is how many, spread evenly, with one more after all is
trained, or `all`. A moment is just before a file below `checkpoints` is opened for writing, linked, renamed or removed,
or in the middle of one that torch or safetensors write. Each run is a fork of this process, so that the imports are
paid once.
"""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import bitsandbytes  # noqa: F401
import dvclive  # noqa: F401
import peft
import safetensors.torch
import torch
from tiny_project import make_run

import train.finetune
import train.trainer
from corpus.stage import Run, execute

EVENTS = ("open", "os.link", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")


def watch(moment: Callable[[str], None]) -> None:
    """Call `moment` with what is about to happen in a folder of checkpoints."""

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event not in EVENTS or "/checkpoints/" not in str(arguments[0]):
            return
        if event != "open" or int(str(arguments[2])) & (os.O_WRONLY | os.O_RDWR):
            moment(f"{event} {arguments[0]}")

    def halfway(write: Callable[..., None], place: int) -> Callable[..., None]:
        def write_and_tear(*arguments: object, **options: object) -> None:
            write(*arguments, **options)
            whole = Path(str(arguments[place])).read_bytes()
            Path(str(arguments[place])).write_bytes(whole[: len(whole) // 2])
            moment(f"half of {arguments[place]}")
            Path(str(arguments[place])).write_bytes(whole)

        return write_and_tear

    sys.addaudithook(hook)
    torch.save = halfway(torch.save, 1)
    peft.peft_model.safe_save_file = halfway(safetensors.torch.save_file, 1)


def in_fork(run: Run, moment: Callable[[str], None] | None) -> int:
    """Train in a fork; returns its wait status."""
    child = os.fork()
    if child == 0:
        try:
            torch.set_num_threads(1)
            if moment:
                watch(moment)
            execute(train.finetune, run)
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1]


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "timing.json"
    }


def main(folder: Path, project: Path, pack: Path, moments: str, *overrides: str) -> None:
    run = make_run("finetune", project, folder / "out", *overrides)
    run = dataclasses.replace(run, inputs=(pack,), reports=None)
    journal = folder / "journal"
    journal.touch()

    def write_down(what: str) -> None:
        with journal.open("a") as file:
            file.write(what + "\n")

    def at(name: str) -> Run:
        return dataclasses.replace(run, output=folder / name / "out", home=folder / name / "home")

    gc.freeze()
    assert in_fork(at("undisturbed"), write_down) == 0
    happened = journal.read_text().splitlines()
    chosen = range(len(happened))
    if moments != "all":
        chosen = [round((n + 0.5) * len(happened) / int(moments)) for n in range(int(moments))]
        chosen += [max(n for n, what in enumerate(happened) if what.startswith("os.link"))]
    outcomes = []
    for number in chosen:
        left = [number]

        def die(what: str, left: list[int] = left) -> None:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1

        killed = in_fork(at(str(number)), die)
        resumed = in_fork(at(str(number)), None)
        outcomes.append([happened[number], killed, resumed, digests(folder / str(number) / "out")])
    print(json.dumps({"undisturbed": digests(folder / "undisturbed" / "out"), "killed": outcomes}))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), *sys.argv[4:])
