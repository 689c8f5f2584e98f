"""`corpus run`: stages one after the other in one process, in a folder with `data/` and `reports/`, as a project has.

Starting Python and loading compiled kernels take a command a second; here they are spent once.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from corpus import given
from corpus.addresses import local_input
from corpus.cli import STAGES, check_numbers, params_file, run_and_tell, stage_module, workers_of
from corpus.errors import UserError
from corpus.export import export_documents
from corpus.params import Params, load
from corpus.stage import Run, stage_folder
from corpus.storage import is_remote

BEFORE_DOCUMENTS = ("scrape", "clean")
EXPORTED = [stage for stage in STAGES if stage not in ("scrape", "reference", "report")]


def run_stages(options: argparse.Namespace) -> None:
    """Run the named stages, or all, in the order of the graph; with `--export` write what the last one kept."""
    check_numbers(options)
    if options.log_json:
        os.environ["CORPUSMILL_LOG"] = "json"
    stages = chosen_stages(options.stages, has_documents=options.input is not None)
    root = options.output or Path("try")
    if is_remote(root):
        raise UserError(f"--output {root}: `corpus run` writes into a folder here; each stage writes to an address")
    if options.export and is_remote(options.export):
        raise UserError(f"--export {options.export}: name a folder here, or `corpus export --data {root / 'data'}`")
    last = next((stage for stage in reversed(stages) if stage in EXPORTED), None)
    if options.export and last is None:
        raise UserError(f"--export: of {', '.join(stages)} there are no documents to write; name {', '.join(EXPORTED)}")
    if options.export and options.export.exists() and (options.export.is_file() or any(options.export.iterdir())):
        raise UserError(f"--export {options.export} is in use: name a new or empty folder")
    params = load(params_file(options), options.set)
    if options.input is not None:
        documents = local_input(options.input, params.storage)
        run_and_tell(given, run_of(options, params, root, "clean", (documents,)))
    for stage in stages:
        code = stage_module(STAGES[stage][1])
        # Of the stages that were not named, what lies there from another time; not beside documents given now.
        lying = [] if options.input else [name for name in STAGES if stage_folder(root / "data", name).is_dir()]
        read = [name for name in code.READS if name in (*stages, *lying, code.READS[0])]
        inputs = tuple(stage_folder(root / "data", name) for name in read)
        run_and_tell(code, run_of(options, params, root, stage, inputs))
        pa.default_memory_pool().release_unused()  # the next stage would come on top of what allocators keep
    if options.export and last:
        print(export_documents(last, options.export, "jsonl", False, root / "data"))


def chosen_stages(named: Sequence[str], has_documents: bool) -> list[str]:
    """The stages to run, in the order of the graph. Raises UserError for one that there is not, or that cannot run.

    >>> chosen_stages(["filter", "measure"], has_documents=True)
    ['measure', 'filter']
    """
    for stage in named:
        if stage not in STAGES:
            raise UserError(f"{stage} is no stage: name {', '.join(STAGES)}")
        if has_documents and stage in BEFORE_DOCUMENTS:
            raise UserError(f"{stage} reads the sources in params.yaml, --input documents: leave out one of the two")
    before = BEFORE_DOCUMENTS if has_documents else ()
    return [stage for stage in STAGES if (stage in named if named else stage not in before)]


def run_of(options: argparse.Namespace, params: Params, root: Path, stage: str, inputs: tuple[Path, ...]) -> Run:
    """What a stage is told here."""
    # The limit is for what comes in: of sources in scrape, which later stages see all of, or of documents given.
    limited = stage == "scrape" or (options.input is not None and stage == "clean")
    return Run(
        stage,
        params,
        inputs=inputs,
        output=stage_folder(root / "data", stage),
        data=root / "data",
        reports=root / "reports",
        **workers_of(options, params, stage),
        limit=options.limit if limited else None,
    )
