"""Kills a stage at chosen moments, runs it once more each time, and prints what was there after both as JSON.

Run as a script: PROJECT STAGE FOLDER MOMENTS; PROJECT is copied for each moment, and MOMENTS is how many, spread
evenly, or `all`. A moment is just before a file or folder of the project is opened for writing, made, linked, renamed
or removed, or rows are written to Parquet, whose file is then torn. Each run is a fork of this process, so that the
imports are paid once; that is why nothing here may call Polars, whose threads a fork does not inherit.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from conftest import digests  # noqa: E402
from drill_project import output_of  # noqa: E402

from corpus.cli import main  # noqa: E402

EVENTS = ("open", "os.link", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "sqlite3.connect")
SECONDS = 120


def watch(moment: Callable[[str], None]) -> None:
    """Call `moment` with what is about to happen to a file of the project."""
    here = os.fspath(Path.cwd())

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event not in EVENTS:
            return
        path = os.fspath(arguments[0]) if isinstance(arguments[0], str | os.PathLike) else ""
        if not path or (path.startswith("/") and not path.startswith(here)):
            return
        if event != "open" or int(str(arguments[2])) & (os.O_WRONLY | os.O_RDWR):
            moment(f"{event} {path.removeprefix(here)}")

    write = pq.ParquetWriter.write_table

    def write_and_tell(writer: pq.ParquetWriter, *arguments: object, **options: object) -> None:
        write(writer, *arguments, **options)
        moment("rows were written")

    pq.ParquetWriter.write_table = write_and_tell
    sys.addaudithook(hook)


def in_fork(folder: Path, stage: str, moment: Callable[[str], None] | None) -> int:
    """Run a stage in a fork; returns its wait status."""
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(SECONDS)
            os.chdir(folder)
            with open(os.devnull, "w") as nowhere:  # noqa: PTH123
                os.dup2(nowhere.fileno(), 1)
            if moment:
                watch(moment)
            os._exit(main([stage, "--workers", "1"]))
        finally:
            os._exit(99)
    return os.waitpid(child, 0)[1]


def left_by(folder: Path, stage: str) -> dict[str, str]:
    """Digests of a stage's output and metrics, as far as they are there."""
    report = folder / "reports" / f"{stage}.json"
    metrics = {"metrics": digests(report.parent).get(report.name, "")} if report.exists() else {}
    return digests(output_of(folder, stage)) | metrics


def sweep(project: Path, stage: str, folder: Path, moments: str) -> dict[str, object]:
    """The moments, what the killed and the second run ended with, and what was there after each."""
    shutil.copytree(project, folder / "undisturbed")
    journal = folder / "journal"

    def write_down(what: str) -> None:
        with journal.open("a") as file:
            file.write(what + "\n")

    assert in_fork(folder / "undisturbed", stage, write_down) == 0
    happened = journal.read_text().splitlines()
    chosen = range(len(happened))
    if moments != "all" and int(moments) < len(happened):
        chosen = [round((n + 0.5) * len(happened) / int(moments)) for n in range(int(moments))]
    outcomes = []
    for number in chosen:
        left = [number]

        def die(what: str, left: list[int] = left) -> None:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1

        copy = folder / str(number)
        shutil.copytree(project, copy)
        killed, there = in_fork(copy, stage, die), left_by(copy, stage)
        again, mended = in_fork(copy, stage, None), left_by(copy, stage)
        beside = [path.name for path in output_of(copy, stage).parent.glob(".*") if path.name != ".gitignore"]
        outcomes.append([happened[number], killed, there, again, mended, beside])
        shutil.rmtree(copy)
    return {"before": left_by(project, stage), "undisturbed": left_by(folder / "undisturbed", stage), "ends": outcomes}


if __name__ == "__main__":
    project, stage, folder, moments = sys.argv[1:]
    for name in ("corpus.stage", "corpus.text.tokens"):  # a stage itself may call Polars where it is imported
        importlib.import_module(name)
    gc.freeze()
    print(json.dumps(sweep(Path(project), stage, Path(folder), moments)))
