"""`train STAGE`: the same shape of command line as `corpus STAGE`, and what is done with a trained model."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from corpus import __version__
from corpus.cli import add_stage_options, chosen_params, guarded, run_stage, stage_module, stage_run

STAGES = {  # in the order of the graph: what each is for, and its module
    "base": ("a base model: a pretrained one by name, or a tiny one trained here", "train.base"),
    "pack": ("tokenise the shards and pack them into rows of one length", "train.pack"),
    "finetune": ("a LoRA adapter on the corpus, and a control on unfiltered documents", "train.finetune"),
    "evaluate": ("score base, adapter and control on pinned sets and the test shard", "train.evaluate"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `train`. Returns the exit code: 0, 1 for a failed stage, 2 for the user's mistakes."""
    parser = argparse.ArgumentParser("train", description="Fine-tune a model on the corpus and score it.")
    parser.add_argument("--version", action="version", version=f"corpusmill {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for stage, (purpose, _) in STAGES.items():
        command = commands.add_parser(stage, help=purpose, description=purpose)
        add_stage_options(command)
        if stage == "finetune":
            command.add_argument("--plan", action="store_true", help="estimate memory and time, and train nothing")
            command.add_argument("--card", metavar="NAME|GB", help="the GPU to plan for; default: the one at hand")
        if stage == "evaluate":
            command.add_argument(
                "--ratings", type=Path, nargs="+", metavar="CSV", help="read people's scores back, and score nothing"
            )
    preset = commands.add_parser("preset", help="write the settings for a model and card into params.yaml")
    preset.add_argument("name", nargs="?", help="without it, the presets are listed")
    preset.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE")
    compare = commands.add_parser("compare", help="the scores of two evaluations side by side, where they compare")
    compare.add_argument("scores", type=Path, nargs=2, metavar="JSON", help="reports/evaluate.json of two experiments")
    export = commands.add_parser("export", help="write the fine-tuned model as a whole, with its card")
    export.add_argument("folder", type=Path, help="a new or empty folder")
    export.add_argument("--data", type=Path, default=Path("data"))
    export.add_argument("--params", type=Path, metavar="FILE", help="default: params.yaml")
    export.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    serve = commands.add_parser("serve", help="answer over HTTP as OpenAI's API does, by `transformers serve`")
    serve.add_argument(
        "folder", type=Path, nargs="?", default=Path("data/finetune"), help="default: data/finetune, merged first"
    )
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=int, default=8000)
    options = parser.parse_args(arguments)
    return guarded(lambda: _dispatch(options))


def _dispatch(options: argparse.Namespace) -> None:
    if options.command == "preset":
        from train.preset import apply_preset

        print(apply_preset(options.name, options.params))
    elif options.command == "compare":
        from train.compare import compare

        print(compare(options.scores))
    elif options.command == "export":
        from train.export import export

        print(export(options.data, chosen_params(options), options.folder))
    elif options.command == "serve":
        from train.serve import serve

        serve(options.folder, options.host, options.port)
    elif options.command == "finetune" and (options.plan or options.card):
        from train.plan import plan

        print(plan(chosen_params(options), Path("data/base"), options.card))
    elif options.command == "evaluate" and options.ratings:
        from corpus.addresses import local_input, storage_of
        from train.ratings import summarise

        folder = local_input(options.output or Path("data/evaluate"), storage_of(options))
        print(summarise(folder / "ratings_key.json", options.ratings))
    elif options.command == "finetune" and int(os.environ.get("RANK", "0")) > 0:
        _follow(options)
    else:
        run_stage(options, options.command, STAGES[options.command][1])


def _follow(options: argparse.Namespace) -> None:
    """Train along in one of several processes; the first runs the stage and writes."""
    from train.finetune import follow

    follow(stage_run(options, "finetune", chosen_params(options), stage_module("train.finetune")))
