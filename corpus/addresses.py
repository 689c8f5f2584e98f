"""Options that are addresses: what a command reads is mirrored here, what it writes is published."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterable
from pathlib import Path

from corpus.errors import UserError
from corpus.params import Params, load
from corpus.publish import Target, open_target, output_folder, publish
from corpus.stage import stage_folder
from corpus.storage import fetch, fetch_folders, is_remote, with_addresses
from corpus.storage_options import Options, refuse_memory


def local_input(place: Path | str, storage: Options) -> Path:
    """A path as it is, or where an address is mirrored."""
    refuse_memory(str(place), str(place))
    return fetch(place, storage) if is_remote(place) else Path(place)


def local_output(place: Path | str, stage: str) -> Path:
    """A path as it is, or the folder here whose files go to an address."""
    return output_folder(place, stage) if is_remote(place) else Path(place)


def local_data(options: argparse.Namespace, stages: Iterable[str]) -> Path:
    """The folder of `--data`, or a mirror of the folders that these stages have in it."""
    if not is_remote(options.data):
        return Path(options.data)
    refuse_memory(options.data, options.data)
    names = [stage_folder(Path(), stage).as_posix() for stage in stages]
    return fetch_folders(options.data, names, storage_of(options))


def storage_of(options: argparse.Namespace) -> Options:
    """The options for storages that params.yaml has, where there is one."""
    default = Path("params.yaml")
    return load(options.params or (default if default.exists() else None)).storage


def open_output(options: argparse.Namespace, stage: str, params: Params) -> Target | None:
    """Where the output is published, if it is an address. Raises UserError where it cannot be, or lies in an input."""
    output = options.output
    if not is_remote(output):
        return None
    refuse_memory(output, output)
    for path in filter(is_remote, options.input or ()):
        if f"{path}/".startswith(f"{output}/") or f"{output}/".startswith(f"{path}/"):
            raise UserError(f"{output} cannot be the output of {stage}, which reads {path}: name another --output")
    return open_target(output, stage, params.storage)


def export(options: argparse.Namespace) -> str:
    """Write what `corpus export` is asked for, here or to an address. Returns the line to print."""
    from corpus.export import export_documents

    def write(folder: Path) -> str:
        return export_documents(options.stage, folder, options.format, options.dropped, data)

    refuse_memory(str(options.folder), str(options.folder))
    target = open_target(options.folder, "export", storage_of(options), new=True) if is_remote(options.folder) else None
    data = local_data(options, dict.fromkeys(("clean", options.stage)))
    if target is None:
        return write(options.folder)
    folder = output_folder(options.folder, "export")
    shutil.rmtree(folder, ignore_errors=True)
    said = write(folder)
    publish(folder, target)
    return with_addresses(said)
