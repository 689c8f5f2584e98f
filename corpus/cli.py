"""`corpus STAGE` and `train STAGE`: one shape of command line for all stages.

Polars and pydantic take half a second to import, so what needs them is imported when a command runs: help is instant.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from corpus import __version__
from corpus.errors import StageError, UserError, is_lack_of_memory
from corpus.executor import default_workers, die_with_parent, end_quickly

if TYPE_CHECKING:
    from corpus.params import Params, StageName
    from corpus.publish import Target
    from corpus.stage import Metrics, Run, Stage

STAGES = {  # in the order of the graph: what each is for, and its module
    "scrape": ("fetch pages from sites, folders and files", "corpus.scrape.stage"),
    "clean": ("pages to documents: main text, language, masked personal data", "corpus.clean.stage"),
    "measure": ("signals of each document: lengths, noise, lexical diversity", "corpus.measure.stage"),
    "reference": ("an n-gram language model per language from trusted text", "corpus.reference.stage"),
    "perplexity": ("perplexity of each document under the reference models", "corpus.perplexity.stage"),
    "dedup": ("find exact and near duplicates, keep the preferred one", "corpus.dedup.stage"),
    "filter": ("keep documents within the bounds of their language's profile", "corpus.filter.stage"),
    "split": ("train, validation and test, similar documents together", "corpus.split.stage"),
    "augment": ("generate variants of train documents", "corpus.augment.stage"),
    "shard": ("write the corpus as people take it away", "corpus.shard.stage"),
    "report": ("one offline page with everything that was decided", "corpus.report.stage"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `corpus`. Returns the exit code: 0, 1 for a failed stage, 2 for the user's mistakes."""
    # Arrow's own allocator keeps some 50 MB of what it has read. It is chosen when Arrow is first imported.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    parser = argparse.ArgumentParser("corpus", description="Build, inspect and export a corpus.")
    parser.add_argument("--version", action="version", version=f"corpusmill {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for stage, (purpose, _) in STAGES.items():
        command = commands.add_parser(stage, help=purpose, description=purpose)
        add_stage_options(command)
        if stage == "filter":
            add_questions(command)
        if stage == "report":
            command.add_argument(
                "--compare",
                metavar="REV",
                help="write reports/compare.html: another run, of a revision or folder, beside this one",
            )
    several = commands.add_parser(
        "run", help="all these stages, or some, one after the other without DVC and models: a dry pass with --limit"
    )
    several.add_argument("--stages", nargs="+", default=[], metavar="STAGE", help="default: all")
    several.add_argument(
        "--input", type=_location, metavar="PATH", help="a folder or file of documents, in place of scrape and clean"
    )
    several.add_argument(
        "--export",
        type=_location,
        metavar="DIR",
        help="also write what the last stage kept into a new folder",
    )
    add_stage_options(several, inputs=False, output="try")
    export = commands.add_parser("export", help="write the documents that a stage kept as plain Parquet or JSONL")
    export.add_argument("stage", choices=[s for s in STAGES if s not in ("scrape", "reference", "report")])
    export.add_argument("folder", type=_location, help="a new or empty folder")
    export.add_argument("--dropped", action="store_true", help="also write those it dropped, with their reasons")
    export.add_argument("--format", choices=["jsonl", "parquet", "label-studio"], default="jsonl")
    _add_data(export)
    init = commands.add_parser("init", help="write a params.yaml and dvc.yaml for your own sources")
    init.add_argument("sources", nargs="+", help="web addresses, folders of pages, or files of documents")
    init.add_argument("--folder", type=Path, default=Path())
    _add_questions_about_a_corpus(commands)
    forget = commands.add_parser(
        "forget", help="purge what `forget` in params.yaml names from the store and its caches"
    )
    forget.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE")
    forget.add_argument("--data", type=Path, default=Path("data"))
    gc = commands.add_parser("gc", help="remove what of .corpusmill/ no output here is made of")
    gc.add_argument("--keep-days", type=float, default=0, metavar="N", help="keep what is younger; default: 0")
    gc.add_argument("--dry-run", action="store_true", help="only say what would go")
    compact = commands.add_parser("compact", help="lay the small parts of a source's many batches together")
    compact.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE")
    compact.add_argument("--data", type=Path, default=Path("data"))
    commands.add_parser("verdict", help="print the scores and where the report is")
    options = parser.parse_args(arguments)
    return guarded(lambda: _dispatch(options))


def _dispatch(options: argparse.Namespace) -> None:
    if options.command == "export":
        from corpus.addresses import export

        print(export(options))
    elif options.command == "init":
        from corpus.init import write_project

        print(write_project(options.sources, options.folder))
    elif options.command == "forget":
        from corpus.params import load
        from corpus.scrape.forget import purge

        print(purge(Path(".corpusmill"), options.data, load(options.params).forget))
    elif options.command == "gc":
        from corpus.gc import collect_garbage

        print(collect_garbage(Path(".corpusmill"), options.keep_days, options.dry_run))
    elif options.command == "compact":
        from corpus.compact import compact

        print(compact(options.params, options.data))
    elif options.command in QUESTIONS:
        QUESTIONS[options.command](options)
    elif options.command == "verdict":
        from corpus.report.verdict import verdict

        print(verdict(Path("reports")))
    elif options.command == "run":
        from corpus.run_stages import run_stages

        run_stages(options)
    elif options.command == "filter" and (options.explain or options.what_if or options.list):
        if text := answer(options):
            print(text)
    elif options.command == "report" and options.compare:
        print(compare_reports(options))
    else:
        run_stage(options, options.command, STAGES[options.command][1])


def compare_reports(options: argparse.Namespace) -> str:
    """Write the report with another run beside it. Returns what to print."""
    from corpus.inspect.versions import open_version
    from corpus.report.compare import in_folder, in_git
    from corpus.report.stage import write_comparison

    if options.output and not isinstance(options.output, Path):
        raise UserError(f"--output {options.output}: --compare writes a page into a folder here")
    if options.input or options.limit:
        raise UserError("--compare shows the run that is built here: leave out --input and --limit")
    run = stage_run(options, "report", chosen_params(options), stage_module(STAGES["report"][1]))
    other = open_version(options.compare)
    before = in_git(Path(), other.commit) if other.commit else in_folder(Path(other.root))
    target = options.output / "index.html" if options.output else Path("reports/compare.html")
    return write_comparison(run, options.compare, other.commit, before, target)


def add_stage_options(parser: argparse.ArgumentParser, inputs: bool = True, output: str = "data/STAGE") -> None:
    """The options every stage has."""
    if inputs:
        parser.add_argument(
            "--input",
            type=_location,
            nargs="+",
            action="extend",
            metavar="PATH",
            help="documents, then their annotations, here or at addresses like s3://bucket/folder; default: data/",
        )
    parser.add_argument(
        "--output", type=_location, metavar="DIR", help=f"a new folder, here or at an address; default: {output}"
    )
    parser.add_argument("--params", type=Path, metavar="FILE", help="default: params.yaml")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override one parameter; repeatable"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes; default: one per core")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N documents (of each source in scrape)")
    parser.add_argument("--log-json", action="store_true", help="progress and outcome as lines of JSON, for machines")


def _add_questions_about_a_corpus(commands: Any) -> None:
    """The commands that only look: why, sample, stats and diff."""
    why = commands.add_parser("why", help="the life of a document: by id, URL or some words of its text")
    why.add_argument("document", nargs="+", metavar="ID|URL|TEXT")
    sample = commands.add_parser("sample", help="documents that a stage kept or dropped, by chance or near a bound")
    sample.add_argument("--stage", choices=("scrape", "clean", "dedup", "filter", "split", "augment"))
    kept = sample.add_mutually_exclusive_group()
    kept.add_argument("--kept", action="store_true", default=None, dest="kept")
    kept.add_argument("--dropped", action="store_false", default=None, dest="kept")
    sample.add_argument("--reason", help="or its beginning up to a dot: filter.mattr")
    sample.add_argument("--lang", metavar="TAG", help="as in the documents: en, zh-Hans, zh-Hant")
    sample.add_argument("--source", metavar="NAME")
    sample.add_argument("--near", action="store_true", help="the nearest to a bound of the filter first")
    sample.add_argument("--seed", type=int, default=0, metavar="N")
    sample.add_argument("-n", type=int, default=5, dest="number", metavar="N")
    stats = commands.add_parser("stats", help="figures of any Parquet files or folders")
    stats.add_argument("paths", type=_location, nargs="+", metavar="PATH")
    stats.add_argument("--params", type=Path, metavar="FILE", help="default: params.yaml; of it, `storage`")
    diff = commands.add_parser("diff", help="what changed between two revisions, experiments or folders")
    diff.add_argument("a", metavar="A")
    diff.add_argument("b", nargs="?", default="workspace", metavar="B", help="default: the working tree")
    diff.add_argument("-n", type=int, default=3, dest="number", metavar="N", help="documents to name of each change")
    for command in (why, sample, stats, diff):
        command.add_argument("--json", action="store_true", help="for other programs")
    for command in (why, sample):
        _add_data(command)


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=_location, default=Path("data"), help="the stages' folders; default: data")
    parser.add_argument("--params", type=Path, metavar="FILE", help="default: params.yaml; of it, `storage`")


def _location(text: str) -> Path | str:
    """A path, or an address on object storage."""
    from corpus.storage import location

    return location(text)


def _why(options: argparse.Namespace) -> None:
    from corpus.addresses import local_data
    from corpus.inspect.why import why

    data = local_data(options, [stage for stage in STAGES if stage != "report"])
    for text in why(data, " ".join(options.document), options.json, _width()):
        print(text, flush=True)


def _sample(options: argparse.Namespace) -> None:
    from corpus.addresses import local_data
    from corpus.inspect.sample import Wanted, render_samples, sample_documents, to_lines

    if options.number < 1:
        raise UserError(f"-n {options.number}: ask for at least one document")
    wanted = Wanted(options.stage, options.kept, options.reason, options.lang, options.source)
    data = local_data(options, [stage for stage in STAGES if stage != "report"])
    found = sample_documents(data, wanted, options.number, options.seed, options.near)
    print(to_lines(found) if options.json else render_samples(found, _width()))


def _stats(options: argparse.Namespace) -> None:
    from corpus.addresses import local_input, storage_of
    from corpus.inspect.stats import folder_stats, render_stats
    from corpus.inspect.terminal import to_json

    found = [folder_stats(local_input(path, storage_of(options))) for path in options.paths]
    print(to_json(found) if options.json else "\n\n".join(render_stats(one, _width()) for one in found))


def _diff(options: argparse.Namespace) -> None:
    from corpus.inspect.diff import compare
    from corpus.inspect.diff_text import as_json, render_difference
    from corpus.inspect.versions import open_version

    if options.number < 0:
        raise UserError(f"-n {options.number}: name 0 or more documents")
    found = compare(open_version(options.a), open_version(options.b), options.number)
    print(as_json(found) if options.json else render_difference(found, _width()))


QUESTIONS: dict[str, Callable[[argparse.Namespace], None]] = {
    "why": _why,
    "sample": _sample,
    "stats": _stats,
    "diff": _diff,
}


def _width() -> int:
    return shutil.get_terminal_size((120, 24)).columns


def add_questions(parser: argparse.ArgumentParser) -> None:
    """What filter answers from the annotations alone, writing nothing."""
    questions = parser.add_mutually_exclusive_group()
    questions.add_argument(
        "--explain",
        nargs="+",
        metavar="ID",
        help="each rule beside these documents' signals; the beginning of an id will do",
    )
    questions.add_argument(
        "--what-if", action="append", metavar="filter.KEY=VALUE", help="which documents a change would move; repeatable"
    )
    parser.add_argument("--list", action="store_true", help="with --what-if: all documents that move, a line each")


def answer(options: argparse.Namespace) -> str:
    """The answer to `--explain` or `--what-if`."""
    from corpus.filter.explain import explain_documents
    from corpus.filter.what_if import check_changes, what_if
    from corpus.params import load

    check_numbers(options)
    if options.output:
        raise UserError(f"--output {options.output}: --explain and --what-if write nothing, leave it out")
    if options.list and not options.what_if:
        raise UserError("--list names the documents that a change would move: add --what-if filter.KEY=VALUE")
    check_changes(options.what_if or [])
    params = chosen_params(options)
    run = stage_run(options, "filter", params, stage_module(STAGES["filter"][1]))
    width = _width()
    if options.explain:
        return explain_documents(run, options.explain, width)
    changed = load(params_file(options), [*options.set, *options.what_if])
    return what_if(run, changed, options.what_if, options.list, width)


def run_stage(options: argparse.Namespace, stage: str, module: str) -> None:
    """Run one stage as the command line asks and print its summary line."""
    from corpus.addresses import open_output

    if "DVC_STAGE" in os.environ:
        die_with_parent()
    if options.log_json:
        os.environ["CORPUSMILL_LOG"] = "json"
    check_numbers(options)
    for option in ("input", "limit", "set"):
        if getattr(options, option) and not options.output:
            raise UserError(f"--{option} needs --output: the graph's own folders hold what dvc repro built")
    params = chosen_params(options)
    code = stage_module(module)
    target = open_output(options, stage, params)  # before inputs are fetched for it
    run_and_tell(code, stage_run(options, stage, params, code), target)


def run_and_tell(code: Stage, run: Run, target: Target | None = None) -> None:
    """Run a stage, publish its output if that is its target, and print its final line; with `--log-json` as an event on
    standard error."""
    from corpus.progress import log, logs_json
    from corpus.stage import execute

    started = time.perf_counter()
    size = bytes_of(run.inputs)  # before the stage, which may write into a folder of one of them

    def finish() -> None:
        if target:
            from corpus.publish import publish

            publish(run.output, target)

    metrics = execute(code, run, finish)
    output = target.place.address if target else str(run.output)
    seconds = time.perf_counter() - started
    if not logs_json():
        print(summary(run, metrics, seconds, size, output), flush=True)
        return
    known: Metrics = {name: metrics[name] for name in ("rows", "dropped_by_reason", "notes") if name in metrics}
    if run.work:
        known["work"] = dict(run.work)
    log("done", stage=run.stage, seconds=round(seconds, 3), bytes_read=size, output=output, **known)


def bytes_of(inputs: Sequence[Path]) -> int:
    """The size of files and of all files in folders."""
    files = (path for one in inputs for path in (one.rglob("*") if one.is_dir() else [one]))
    return sum(path.stat().st_size for path in files if path.is_file())


def stage_run(options: argparse.Namespace, stage: str, params: Params, code: Stage) -> Run:
    """What a stage is told, from the command line's options; inputs at addresses are mirrored here first."""
    from corpus.addresses import local_input, local_output
    from corpus.stage import Run, stage_folder

    data = Path("data")
    inputs = [local_input(one, params.storage) for one in options.input or ()]
    return Run(
        stage,
        params,
        inputs=tuple(inputs or (stage_folder(data, name) for name in code.READS)),
        output=local_output(options.output or stage_folder(data, stage), stage),
        reports=None if options.output or options.input else Path("reports"),
        **workers_of(options, params, stage),
        limit=options.limit,
    )


def workers_of(options: argparse.Namespace, params: Params, stage: str) -> dict[str, Any]:
    """The fields of a run that say who does the work, from `execution`, `workers` and --workers."""
    from corpus.cluster import Cluster

    wanted, execution = options.workers or params.workers, params.execution
    if execution.engine == "inline":
        return {"workers": 1}
    if execution.engine == "processes":
        return {"workers": wanted or default_workers()}
    name = cast("StageName", stage)
    cluster = Cluster(
        execution.address,
        wanted or None,
        execution.cpus.get(name, 1.0),
        execution.gpus.get(name, 0.0),
        execution.memory_mb.get(name),
    )
    return {"workers": wanted or default_workers(), "cluster": cluster}


def chosen_params(options: argparse.Namespace) -> Params:
    """The parameters that --params and --set name; params.yaml by default."""
    from corpus.params import load

    return load(params_file(options), options.set)


def check_numbers(options: argparse.Namespace) -> None:
    if options.limit is not None and options.limit < 1:
        raise UserError(f"--limit {options.limit}: name at least one document")
    if options.workers is not None and options.workers < 1:
        raise UserError(f"--workers {options.workers}: at least one is needed")


def params_file(options: argparse.Namespace) -> Path | None:
    """params.yaml; its absence is fine for a stage that is given its input."""
    default = Path("params.yaml")
    if options.params is None and getattr(options, "input", None) and not default.exists():
        return None
    return cast("Path", options.params or default)


def stage_module(name: str) -> Stage:
    """Import a stage only when it runs: torch and trafilatura take seconds."""
    return cast("Stage", importlib.import_module(name))


def summary(run: Run, metrics: Metrics, seconds: float, size: int, output: str) -> str:
    """A line: what came in, how much of it was worked on where parts came from the store, what became of it, where it
    is, how long it took; and one for each thing to know before going on. `size` is that of the input, in bytes as they
    lie on disk."""
    rows = metrics["rows"]
    stored = run.work["stored_documents"]
    # Of what was not worked on a speed says nothing.
    worked_on = run.work["documents"] if stored else rows["in"]
    parts = [f"{rows['in']:,} in" + (f" ({worked_on:,} worked on)" if stored else "")]
    if rows["generated"]:
        parts.append(f"{rows['generated']:,} generated")
    parts += [f"{rows['kept']:,} kept", f"{rows['dropped']:,} dropped"]
    reasons = sorted(metrics.get("dropped_by_reason", {}).items(), key=lambda item: -item[1])[:3]
    named = ", ".join(f"{reason} {count:,}" for reason, count in reasons if count)
    speed = f", {worked_on / seconds:,.0f} rows/s" if worked_on and seconds else ""
    if size and seconds and not stored:
        megabytes = size / 1e6 / seconds
        speed += f", {megabytes:,.0f} MB/s" if megabytes >= 100 else f", {megabytes:.3g} MB/s"
    took = f"{seconds:.1f} s{speed}"
    notes = list(metrics.get("notes", []))
    if rows["in"] and not rows["kept"]:
        notes.append("nothing is kept: what comes after will have nothing to work on")
    line = f"{run.stage}: {', '.join(parts)}{f' ({named})' if named else ''} → {output} in {took}"
    return "\n".join([line, *(f"  note: {note}" for note in notes)])


def guarded(action: Callable[[], None]) -> int:
    """Call the action; turn our errors into one sentence on standard error and an exit code."""
    end_quickly()
    try:
        action()
    except UserError as error:
        return _fail("error", str(error), 2)
    except StageError as error:
        return _fail("failed", str(error), 1)
    except BrokenPipeError:
        return 0
    except OSError as error:  # no space, no permission: an operating system's errors say what and where
        short = "requested and" in str(error)  # NumPy says no more than how many items it could write
        return _fail("failed", f"a file could not be written, is the disk full? ({error})" if short else str(error), 1)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BaseException as error:
        if not is_lack_of_memory(error):
            raise
        print(f"failed: there is not enough memory ({error}): use fewer --workers", file=sys.stderr)
        return 1
    return 0


def _fail(word: str, why: str, code: int) -> int:
    """Say what failed, with addresses instead of the folders here that stand for them; with `--log-json` as an event.

    Returns the exit code.
    """
    from corpus.progress import log, logs_json
    from corpus.storage import with_addresses

    why = with_addresses(why)
    if logs_json():
        log("failed", error=why, code=code)
    else:
        print(f"{word}: {why}", file=sys.stderr)
    return code
