"""One job on three toolkits: extract, tell the language, judge the quality, drop near-duplicates.

    python bench/toolkits.py --environments ENVIRONMENTS --install [--texts en.parquet] [--pages WEB_PAGES] [--quick]

Each toolkit is one script in `peers/job_*.py`, run as a whole from a cold start, with all its processes accounted for
(`process_tree.py`), in an environment of its own. The tables go into `RESULTS.md`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl
from dedup import BENCH, THREAD_VARIABLES, environment, machine, write_section
from process_tree import Usage, run
from toolkits_input import (
    made_documents,
    made_pages,
    read_documents,
    real_pages,
    write_documents,
    write_pages,
)

sys.path.append(str(BENCH.parent / "tests"))
from poisoned_rows import ROWS, bad_rows, poisoned

LIMIT = 1_800  # seconds for a job
MADE_MEGABYTES, MADE_PAGES = 20.0, 600
QUICK_DOCUMENTS = 2_000
REPEATS = 3  # of corpusmill's jobs, which are short; the others run once


class Tool(NamedTuple):
    """A toolkit: the script of its jobs, its environment (None: the one this runs in) and what pip installs there."""

    name: str
    script: str
    environment: str | None
    package: str
    requirements: tuple[str, ...] = ()


OWN = Tool("**corpusmill**", "job_corpusmill", None, "corpusmill")
DATATROVE = Tool(
    "datatrove",
    "job_datatrove",
    "datatrove",
    "datatrove",
    # Its own extras leave out what its word tokenizer and its extractor of main text need; xxhash 4 takes no str.
    ("datatrove[io,processing]>=0.10,<0.11", "xxhash<4", "spacy", "lxml_html_clean", "py3langid"),
)
DATA_JUICER = Tool(
    "Data-Juicer",
    "job_datajuicer",
    "data-juicer",
    "py-data-juicer",
    # aiohttp it imports without asking for it; the parser of its clean_html_mapper it would install while it runs.
    ("py-data-juicer>=1.6,<1.7", "aiohttp", "selectolax", "py3langid"),
)
TOOLS = (OWN, DATATROVE, DATA_JUICER)


# ---- running ---------------------------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """A job's usage, the ids of the documents that it kept, and by id the reasons that its output gives for others."""

    usage: Usage
    kept: set[str]
    named: dict[str, str]


def install(environments: Path) -> None:
    """Make the environments that do not exist yet."""
    for tool in TOOLS:
        if tool.environment and not (environments / tool.environment / "bin" / "python").exists():
            subprocess.run([sys.executable, "-m", "venv", environments / tool.environment], check=True)
            pip = [str(environments / tool.environment / "bin" / "python"), "-m", "pip", "install", "--quiet"]
            subprocess.run([*pip, *tool.requirements], check=True)


def python_of(tool: Tool, environments: Path) -> Path:
    """The interpreter that a toolkit is installed for."""
    return environments / tool.environment / "bin" / "python" if tool.environment else Path(sys.executable)


def run_job(tool: Tool, work: str, documents: Path, cores: Sequence[int], folder: Path, kernels: str) -> Outcome:
    """Run a job on some cores, with as many processes. `kernels`: the folder of those that are compiled."""
    output = folder / "output"
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    variables = environment(folder / "home") | {"NUMBA_CACHE_DIR": str(folder / kernels)}
    variables |= {"DATA_JUICER_CACHE_HOME": str(folder / "home")}
    if len(cores) > 1:
        variables = {name: value for name, value in variables.items() if name not in THREAD_VARIABLES}
    python = python_of(tool, folder / "environments")
    script = str(BENCH / "peers" / f"{tool.script}.py")
    command = [str(python), "-P", script, work, str(documents), str(output), str(len(cores))]
    usage = run(command, output, variables, cores, LIMIT)
    if usage.status:
        print(f"{tool.name}, {work}: exit status {usage.status}: {usage.said.strip()[-300:]}", file=sys.stderr)
    return Outcome(usage, set(kept_ids(output / "kept")), reasons_of(output / "data") if tool is OWN else {})


def kept_ids(folder: Path) -> Iterable[str]:
    """The ids of the kept documents, as they came in."""
    for path in sorted(folder.glob("*.jsonl")):
        if not path.stem.endswith("_stats"):
            with path.open("rb") as file:
                yield from (natural_id(json.loads(line)) for line in file if line.strip())


def natural_id(row: dict[str, object]) -> str:
    """The id of a document as its row had it: corpusmill makes its own and keeps that one in `meta`."""
    meta = row.get("meta")
    known = json.loads(meta) if isinstance(meta, str) else {}
    return str(known.get("id", row.get("id")))


def reasons_of(data: Path) -> dict[str, str]:
    """By id the reason of each document that corpusmill dropped, in the stage where it went."""
    found: dict[str, str] = {}
    for path in sorted(data.glob("*/dropped-*.parquet")):
        found |= {str(row["id"]): f"{row['reason']} ({row['detail']})" for row in pl.read_parquet(path).to_dicts()}
    for stage in ("dedup", "filter"):
        for path in sorted((data / stage).glob("part-*.parquet")):
            dropped = pl.read_parquet(path).filter(~pl.col("kept"))
            found |= {row["id"]: row["reasons"][0] for row in dropped.to_dicts() if row["reasons"]}
    return found


# ---- the tables ------------------------------------------------------------------------------------------------------

COLUMNS = "tool | cores | wall s | CPU s | of it start-up | × | × without start-up"
COLUMNS += (
    " | peak MB, sum of RSS | sum of PSS | largest process | kept | dropped, with a reason | dropped without a word"
)


def speed_table(
    work: str, documents: Path, count: int, core_sets: Sequence[Sequence[int]], repeats: int, folder: Path
) -> str:
    """A table of all tools on the same documents, first all of them on one core."""
    lines = [f"| {COLUMNS} |", "|---|" + "---:|" * COLUMNS.count("|")]
    few = folder / "few"
    one_of_each(work, documents, few)
    cold = run_job(OWN, work, few, core_sets[0], folder, "cold").usage
    for cores in core_sets:
        own: list[float] = []  # processor seconds of corpusmill: all, and without the start-up
        for tool in TOOLS:
            start = run_job(tool, work, few, cores, folder, "kernels").usage
            if tool is OWN:  # that has compiled the kernels
                start = run_job(tool, work, few, cores, folder, "kernels").usage
            runs = [
                run_job(tool, work, documents, cores, folder, "kernels") for _ in range(repeats if tool is OWN else 1)
            ]
            middle = sorted(runs, key=lambda one: one.usage.cpu)[len(runs) // 2]
            usage = middle.usage
            spent = [usage.cpu, usage.cpu - start.cpu]
            own = own or spent
            dropped = count - len(middle.kept)
            named = dropped if tool is OWN and len(middle.named) == dropped else len(middle.named)
            cells = [tool.name, len(cores), f"{usage.wall:.1f}", f"{usage.cpu:.1f}"]
            cells += ["failed" if start.status else f"{start.cpu:.1f}"]
            cells += [f"{spent[0] / own[0]:.1f}", "–" if start.status else f"{spent[1] / own[1]:.1f}"]
            cells += [f"{max(one.usage.rss_mb for one in runs):.0f}"]
            cells += [f"{max(one.usage.pss_mb for one in runs):.0f}"]
            cells += [f"{max(one.usage.largest_mb for one in runs):.0f}"]
            cells += [f"{len(middle.kept):,}", f"{named:,}", f"{dropped - named:,}"]
            status = f" (exit status {usage.status})" if usage.status else ""
            lines.append(f"| {' | '.join(map(str, cells))}{status} |")
            print(lines[-1], flush=True)
    lines += ["", f"corpusmill's first run on a machine compiles its kernels: {cold.cpu:.1f} s of processor time for "]
    lines[-1] += "this job on one document a file, where it then takes what stands under start-up."
    return "\n".join(lines)


def one_of_each(work: str, documents: Path, folder: Path) -> None:
    """The first document of each part, to tell what a tool takes before it does any work."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in sorted(documents.iterdir()):
        if work == "texts":
            pl.read_parquet(path, n_rows=1).write_parquet(folder / path.name)
        else:
            with path.open("rb") as file:
                (folder / path.name).write_bytes(file.readline())


def poisoned_table(alone: bool, core: int, folder: Path) -> str:
    """Good rows lost, with all bad rows in one file and, if `alone`, with one kind a file."""
    files: dict[str, list[str]] = {"none, for comparison": [], f"all {len(bad_rows())} kinds together": [*bad_rows()]}
    files |= {kind: [kind] for kind in bad_rows()} if alone else {}
    lines = ["| bad rows among 1,000 | " + " | ".join(tool.name for tool in TOOLS) + " |", "|---|---|---|---|"]
    for title, kinds in files.items():
        documents = folder / "rows"
        shutil.rmtree(documents, ignore_errors=True)
        documents.mkdir(parents=True)
        (documents / "rows.jsonl").write_bytes(poisoned(kinds))
        bad = len(kinds)
        cells = [poisoned_cell(tool, documents, ROWS - bad, bad, core, folder) for tool in TOOLS]
        lines.append(f"| {title} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def poisoned_cell(tool: Tool, documents: Path, good: int, bad: int, core: int, folder: Path) -> str:
    """What became of the good rows, and of the bad ones where the tool says so."""
    outcome = run_job(tool, "rows", documents, [core], folder, "kernels")
    kept = {name for name in outcome.kept if name.startswith("good-")}
    lost = good - len(kept)
    said = f"{lost:,} lost" if lost else "none lost"
    if tool is OWN:
        odd = len(outcome.kept) - len(kept)
        said += f"; {len(outcome.named)} of {bad} dropped with a reason" + (f", {odd} kept" if odd else "")
    return f"{said}, exit {outcome.usage.status}"


EXPLANATION = """\
- A job is all that a user would start, from the command line to JSONL files of the kept documents, with every process
  and its orphans: *CPU s* is the processor time of them all, with imports; *start-up* that of the same job on one
  document of each file; *×* that over corpusmill's on as many cores. One run (corpusmill: the median of {repeats}).
  *peak MB* is looked at every 50 ms: of the sum over processes, in which pages that they share count for each (RSS) or
  once (PSS), and of the largest process. One core: pinned to it, libraries with one thread.
- *dropped, with a reason*: documents whose id stands in the tool's output with the rule that dropped them; *without a
  word*: all others that are gone. datatrove counts reasons in its statistics, and writes dropped documents out where a
  script adds a writer to each filter; Data-Juicer's tracer, off by default, shows ten.
- **corpusmill**: `corpus run --stages measure dedup filter --export kept` with the profile `gopher`; for rows and pages
  `scrape` and `clean` before these. By default `measure` also fits topics,
  here off as the others have none. Near-duplicates: {ngram} tokens a shingle, {permutations} permutations, exact
  Jaccard of {threshold} to a kept document.
- **datatrove**: GopherRepetitionFilter and GopherQualityFilter as they ship (spaCy's words), MinHash with {ngram} words
  a shingle in {bands} buckets of {rows}, no verification. Pages: its Trafilatura, with 20 s a page instead of one.
- **Data-Juicer**: `dj-process` with the operators that Gopher's rules have a counterpart in (number of words, letters
  and digits, special characters, stop words, repeated runs of 5 to 10 words), each as it ships, then
  document_minhash_deduplicator with {ngram} words between white space, {permutations} permutations, threshold
  {threshold}. Pages: clean_html_mapper, which takes the tags out and leaves menus and footers in.
  Of the six rules on repeated runs all but the first read the figure of the first, which it takes for its own.
- The quality rules are thus Gopher's in the first two; what is kept differs with the words (see *Quality signals*),
  with Data-Juicer's rules also otherwise. Language: English is kept, by py3langid in all three; the fastText model
  that the others would use is a download.
- Rows with a fault: the job of texts on one JSONL file of {row_count:,} rows, of which some have a fault
  (`tests/poisoned_rows.py`; {bad_count} kinds). *lost*: good rows that are not among what the tool kept, of which
  nobody is told where the exit status is 0. corpusmill keeps rows of which only the URL, the date or the label is of a
  wrong type, with that in `meta`.
"""


def section(tables: Sequence[str], command: str, environments: Path) -> str:
    """All that stands between the markers."""
    from job_task import BANDS, NGRAM, PERMUTATIONS, ROWS_PER_BAND, THRESHOLD

    versions = ", ".join(f"{tool.name.strip('*')} {version_of(tool, environments)}" for tool in TOOLS)
    about = f"{datetime.date.today()}, {machine()}, Python {platform.python_version()}. {versions}."
    explained = EXPLANATION.format(
        repeats=REPEATS,
        ngram=NGRAM,
        permutations=PERMUTATIONS,
        threshold=THRESHOLD,
        bands=BANDS,
        rows=ROWS_PER_BAND,
        row_count=ROWS,
        bad_count=len(bad_rows()),
    )
    return "\n\n".join(["## Toolkits: the whole job", about, f"```\n{command}\n```", *tables, explained.strip()])


def version_of(tool: Tool, environments: Path) -> str:
    """The version that is installed."""
    ask = f"import importlib.metadata as known; print(known.version({tool.package!r}))"
    return subprocess.run(
        [python_of(tool, environments), "-c", ask], capture_output=True, text=True, check=True
    ).stdout.strip()


def main() -> None:
    """Make the inputs, run the jobs, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--environments", type=Path, required=True, help="folder with a virtual environment a toolkit")
    parser.add_argument("--install", action="store_true", help="make those that do not exist yet")
    parser.add_argument("--texts", type=Path, help="Parquet with id and text; default: made of docstrings")
    parser.add_argument("--pages", type=Path, help="collections of pages, as clean.py has them; default: made ones")
    parser.add_argument("--times", type=int, default=5, help="how often each page of a collection is taken")
    parser.add_argument("--quick", action="store_true", help="a few documents, on one core, bad rows together only")
    parser.add_argument("--only", nargs="+", choices=["texts", "pages", "rows"], default=["texts", "pages", "rows"])
    parser.add_argument("--results", type=Path, default=BENCH / "RESULTS.md")
    options = parser.parse_args()
    if options.install:
        install(options.environments.absolute())
    for tool in TOOLS:
        if not python_of(tool, options.environments).exists():
            parser.error(f"{options.environments} has no environment {tool.environment}: add --install")

    cores = sorted(os.sched_getaffinity(0))
    core_sets = [cores[-1:]] if options.quick or len(cores) == 1 else [cores[-1:], cores]
    tables = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "environments").symlink_to(options.environments.absolute())
        if "texts" in options.only:
            documents = (
                read_documents(options.texts, QUICK_DOCUMENTS if options.quick else None)
                if options.texts
                else made_documents(MADE_MEGABYTES / 10 if options.quick else MADE_MEGABYTES)
            )
            size = write_documents(documents, folder / "texts")
            title = f"### Quality and near-duplicates: {documents.height:,} documents, {size / 1e6:.1f} MB of text"
            print(title, flush=True)
            table = speed_table("texts", folder / "texts", documents.height, core_sets, REPEATS, folder)
            tables.append(f"{title}, {options.texts.stem if options.texts else 'made'}\n\n{table}")
        if "pages" in options.only:
            pages = real_pages(options.pages, 1 if options.quick else options.times) if options.pages else None
            pages = pages or made_pages(MADE_PAGES // 6 if options.quick else MADE_PAGES)
            size = write_pages(pages, folder / "pages")
            title = f"### From HTML: {len(pages):,} pages, {size / 1e6:.1f} MB"
            print(title, flush=True)
            repeated = f", each page {options.times} times" if options.pages and not options.quick else ""
            table = speed_table("pages", folder / "pages", len(pages), core_sets, REPEATS, folder)
            tables.append(f"{title}{repeated}{'' if options.pages else ', made'}\n\n{table}")
        if "rows" in options.only:
            table = poisoned_table(not options.quick, cores[-1], folder)
            tables.append(f"### Rows with a fault\n\n{table}")
        told = " ".join(f"--{key} {value.name}" for key in ("texts", "pages") if (value := getattr(options, key)))
        command = f"python bench/toolkits.py --environments ENVIRONMENTS {told}".strip()
        environments = folder / "environments"
        write_section(options.results, "toolkits", section(tables, command + " --quick" * options.quick, environments))


if __name__ == "__main__":
    main()
