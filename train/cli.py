"""`train STAGE`: the same shape of command line as `corpus STAGE`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from corpus.cli import add_stage_options, guarded, run_stage

STAGES = {  # in the order of the graph: what each is for, and its module
    "base": ("a base model: a pretrained one by name, or a tiny one trained here", "train.base"),
    "pack": ("tokenise the shards and pack them into rows of one length", "train.pack"),
    "finetune": ("a LoRA adapter on the corpus, and a control on unfiltered documents", "train.finetune"),
    "evaluate": ("score base, adapter and control on pinned sets and the test shard", "train.evaluate"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `train`. Returns the exit code: 0, 1 for a failed stage, 2 for the user's mistakes."""
    parser = argparse.ArgumentParser("train", description="Fine-tune a model on the corpus and score it.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for stage, (purpose, _) in STAGES.items():
        add_stage_options(commands.add_parser(stage, help=purpose, description=purpose))
    options = parser.parse_args(arguments)
    return guarded(lambda: run_stage(options, options.command, STAGES[options.command][1]))
