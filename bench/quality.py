"""Quality signals side by side with other tools: speed, equal values, equal decisions.

    python bench/quality.py --input en.parquet zh.parquet --environments ENVIRONMENTS --install

Each tool is one small script in `peers/`, run in an environment and a process of its own on one core. Decisions are
compared with those of datatrove's filters (`quality_rules.py`) on the documents and on odd ones (`quality_odd.py`),
once with its own words and once with ours. The tables go into `RESULTS.md`; disagreements are printed.
"""

from __future__ import annotations

import argparse
import collections
import datetime
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pyarrow.parquet as pq
from dedup import BENCH, SLOW_SECONDS, TIME_LIMIT, environment, language_of, machine, ratio, speed, write_section
from quality_odd import odd_documents
from quality_rules import FILTERS, failed

from corpus.measure.lines import count_sentences
from corpus.measure.stage import measure
from corpus.params import Params
from corpus.text.segment import lm_sentences, words

REQUIREMENTS = {
    "datatrove": ["datatrove[processing]", "jieba", "orjson", "spacy", "xxhash<4", "pyarrow"],  # xxhash 4 takes no str
    "lexicalrichness": ["lexicalrichness", "pyarrow"],
    "kenlm": ["kenlm", "pyarrow"],  # compiled on the spot
}
CITATIONS = re.compile(r"\[\d*]|\[edit]|\[citation needed]")  # C4 cuts them before it counts sentences
TRAINING_DOCUMENTS = 2_000
EXAMPLES = 3  # of each disagreement, the shortest ones


class Tool(NamedTuple):
    """A row of the first table: what is done, by which script and variant, on which documents."""

    work: str
    name: str
    script: str  # in peers/, after `quality_`; and the name of its environment
    variant: str
    sample: str
    key: str = "seconds"


# The first of each work is what the others are compared with.
TOOLS = (
    Tool("all signals", "datatrove, four filters", "datatrove", "own", "few"),
    Tool("all signals", "**corpusmill**", "corpusmill", "measure", "few"),
    Tool("all signals", "**corpusmill**", "corpusmill", "measure", "all"),
    Tool("all signals", "**corpusmill, the command, no topics**", "corpusmill", "command without topics", "all"),
    Tool("all signals", "**corpusmill, the command**", "corpusmill", "command", "all"),
    Tool("TTR, MATTR, MTLD", "lexicalrichness, words given", "lexicalrichness", "", "few"),
    Tool("TTR, MATTR, MTLD", "**corpusmill, from the text**", "corpusmill", "lexical", "few"),
    Tool("perplexity", "kenlm, tokens given", "kenlm", "model", "all"),
    Tool("perplexity", "**corpusmill, from the text**", "corpusmill", "perplexity", "all"),
    Tool("training", "lmplz, tokens given", "lmplz", "", "training"),
    Tool("training", "**corpusmill, from the text**", "corpusmill", "perplexity", "training", "train_seconds"),
)
COMPARED = {  # whose values should be the same: what they are called, ours, theirs
    "lexical": ("values", ("corpusmill", "lexical", "few"), ("lexicalrichness", "", "few")),
    "perplexity": ("log10", ("corpusmill", "perplexity", "all"), ("kenlm", "model", "all")),
    "training": ("log10", ("corpusmill", "perplexity", "all"), ("kenlm", "lmplz", "all")),
}
Results = dict[tuple[str, str, str], list[dict[str, Any]]]  # by script, variant and sample, a result a run

EXPLANATION = """\
- One process on one core each; the start, imports, loading texts, words and models are before the clock starts; medians
  of {repeats} runs (one run where it took more than {slow:.0f} s). *MB/s*: UTF-8 bytes of the documents by processor
  time; × are ratios of MB/s to that of the first row of the same work.
- **all signals**: some 50 numbers a document, among them all that the rules below ask for. *datatrove*: Gopher quality,
  Gopher repetition, C4 and FineWeb filters as they ship, each document by all four, so that it cuts words once (spaCy,
  for Chinese jieba). *the command*: `corpus measure` from Parquet to Parquet after a warm-up, with histograms;
  by default it fits topics to a sample, which takes the same time for any larger corpus.
- **TTR, MATTR, MTLD**: windows of 50 words. *lexicalrichness* is given the words as lists. Largest relative difference
  of a value: {lexical_difference}.
- **perplexity**: modified Kneser-Ney, order 3 in English, 4 in Chinese, trained on {training} other documents of the
  same source by corpusmill and exported as ARPA. *kenlm*: its Python module, `score` on sentences of tokens joined
  before the clock starts. Largest relative difference of a document's log probability: {perplexity_difference}.
  Training: *lmplz* of the same order, not pruned, from tokens to ARPA; corpusmill from text to a model in memory.
  Largest difference to what kenlm says by the model of lmplz: {training_difference}.
- Decisions: a *verdict* is whether a document stays, a *reason* the first rule that it fails, by datatrove's filter and
  by our signals with the same bounds: English those that datatrove ships, Chinese those of FineWeb 2 (cmn_Hani; C4 as
  it ships). *its own words*: datatrove cuts words and sentences itself. *our words*: it is given ours; *other signals*:
  values that differ in the last bit, of all rules and documents: each is asked for by a bound at it and one next to it.
  Those of repetition are n-grams that only datatrove takes for the same, as it joins their words without a border:
  `no where` and `now here`. With its own words Gopher's share of words with a letter differs most: spaCy cuts `don't`
  in two and joins `/><br`.
"""


# ---- running the tools -----------------------------------------------------------------------------------------------


def install(environments: Path) -> None:
    """Make the environments of the peers."""
    for name, packages in REQUIREMENTS.items():
        subprocess.run([sys.executable, "-m", "venv", environments / name], check=True)
        pip = [str(environments / name / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        # kenlm's build files are older than today's cmake.
        subprocess.run([*pip, *packages], check=True, env={**os.environ, "CMAKE_POLICY_VERSION_MINIMUM": "3.5"})


def run_script(name: str, variant: str, environments: Path, documents: Path, language: str) -> dict[str, Any]:
    """The result of one run, or `{"error": the last line it said}`."""
    python = Path(sys.executable) if name == "corpusmill" else environments / name / "bin" / "python"
    if not python.exists():
        return {"error": "not installed"}
    with tempfile.TemporaryDirectory() as folder:
        scratch, result = Path(folder) / "scratch", Path(folder) / "result.json"
        scratch.mkdir()
        options = {"input": documents, "language": language, "variant": variant, "scratch": scratch, "result": result}
        command = [str(python), "-P", str(BENCH / "peers" / f"quality_{name}.py")]
        command += [f"--{option}={value}" for option, value in options.items()]
        variables = environment(scratch)
        try:
            done = subprocess.run(
                command, env=variables, cwd=scratch, capture_output=True, text=True, timeout=3 * TIME_LIMIT
            )
        except subprocess.TimeoutExpired:
            return {"error": f"not done in {3 * TIME_LIMIT} s"}
        if done.returncode or not result.exists():
            print(done.stderr[-3000:], file=sys.stderr)
            return {"error": (done.stderr.strip().splitlines() or ["no result"])[-1]}
        found: dict[str, Any] = json.loads(result.read_text())
        return found


def run_lmplz(lmplz: Path | None, language: str, folder: Path) -> dict[str, Any]:
    """Train kenlm's own model on the sentences in `training.txt`; leaves it as `lmplz.arpa`."""
    if lmplz is None:
        return {"error": "no --lmplz"}
    order = {"en": "3", "zh": "4"}[language]
    with (folder / "training.txt").open("rb") as text, tempfile.TemporaryDirectory() as scratch:
        before = os.times()
        command = [str(lmplz), "-o", order, "-S", "2G", "-T", scratch, "--arpa", str(folder / "lmplz.arpa")]
        done = subprocess.run(command, stdin=text, capture_output=True, text=True)
        after = os.times()
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["failed"])[-1]}
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    return {"seconds": seconds}


def run_all(folder: Path, language: str, options: argparse.Namespace) -> Results:
    """All runs of all tools; the tools take turns, so that a slow spell of the machine meets all of them."""
    # Ours first: the model of one work is what kenlm reads.
    runs = list(dict.fromkeys((tool.script, tool.variant, sample_read(tool)) for tool in TOOLS))
    runs.sort(key=lambda run: run[0] != "corpusmill")
    results: Results = {run: [] for run in runs}
    for repeat in range(options.repeats):
        for (script, variant, sample), known in results.items():
            if known and ("error" in known[-1] or known[-1]["seconds"] > SLOW_SECONDS):
                continue
            if script == "lmplz":
                result = run_lmplz(options.lmplz, language, folder)
            else:
                documents = folder / f"{sample}.parquet"
                result = run_script(script, variant, options.environments.absolute(), documents, language)
            known.append(result)
            said = result.get("error") or f"{result['seconds']:.3f} s"
            print(f"{language} {repeat + 1}/{options.repeats} {script} {variant} {sample}: {said}", file=sys.stderr)
    return results


def sample_read(tool: Tool) -> str:
    """The documents that a tool's script is told of: training goes with scoring."""
    return "all" if tool.sample == "training" and tool.script != "lmplz" else tool.sample


# ---- the documents ---------------------------------------------------------------------------------------------------


def prepare(path: Path, options: argparse.Namespace, folder: Path) -> str:
    """Write the samples of a file's documents, with words and sentences for who is given them; the language."""
    documents = pl.read_parquet(path, columns=["id", "text"])
    language = language_of(pq.read_table(path, columns=["text"]))
    documents = documents.with_columns(lang=pl.lit(language))
    samples = {
        "all": documents[: options.documents],
        "few": documents[: options.slow_documents],
        "training": documents[options.documents :][:TRAINING_DOCUMENTS],
    }
    for name, sample in samples.items():
        lexical = [[word.lower() for word in words(text) if any(map(str.isalnum, word))] for text in sample["text"]]
        sentences = [[" ".join(sentence) for sentence in lm_sentences(text)] for text in sample["text"]]
        sample.with_columns(
            words=pl.Series(lexical, dtype=pl.List(pl.String)), sentences=pl.Series(sentences, dtype=pl.List(pl.String))
        ).write_parquet(folder / f"{name}.parquet", row_group_size=2_000)
        if name == "training":
            (folder / "training.txt").write_text("".join(f"{line}\n" for own in sentences for line in own))
    return language


def with_signals(texts: Sequence[str], language: str, segmenter: str = "characters") -> pl.DataFrame:
    """Texts with our signals."""
    documents = pl.DataFrame({"id": list(map(str, range(len(texts)))), "text": texts}).with_columns(
        lang=pl.lit(language)
    )
    params = Params.model_validate({"measure": {"segmenter": segmenter if language == "zh" else "characters"}})
    signals: pl.DataFrame = measure(documents, params.measure)
    return pl.concat([documents, signals.drop("id")], how="horizontal")


def with_words(documents: pl.DataFrame) -> pl.DataFrame:
    """Our words, and our counts of sentences by line, for datatrove."""
    texts = documents["text"].to_list()
    return documents.with_columns(
        words=pl.Series([words(text) for text in texts], dtype=pl.List(pl.String)),
        sentences=pl.Series([json.dumps(sentences_by_line(text)) for text in texts]),
    )


def sentences_by_line(text: str) -> dict[str, int]:
    """Our count of sentences for each line, as C4 looks at it."""
    lines = (CITATIONS.sub("", line.strip()) for line in text.splitlines())
    return {line: count_sentences(line) for line in lines}


# ---- comparing -------------------------------------------------------------------------------------------------------


class Agreement(NamedTuple):
    """How one of datatrove's filters and our signals with its bounds agree."""

    name: str
    documents: int
    theirs: int  # documents that datatrove keeps
    ours: int
    verdicts: list[int]  # rows where one keeps and the other drops
    reasons: list[int]  # rows that both drop, for another reason
    said: list[str]  # "datatrove's reason / our first one" of each row


def compare(documents: pl.DataFrame, reasons: dict[str, list[str]], language: str) -> Iterator[Agreement]:
    """What datatrove said against what follows from our signals; without documents on which datatrove breaks off."""
    rows = documents.drop("words", "sentences", strict=False).to_dicts()
    for name, theirs in reasons.items():
        ours = [failed(FILTERS[name], row, language) for row in rows]
        pairs = {
            row: pair for row, pair in enumerate(zip(theirs, ours, strict=True)) if not pair[0].startswith("raises")
        }
        yield Agreement(
            name,
            documents=len(pairs),
            theirs=sum(not said for said, _ in pairs.values()),
            ours=sum(not found for _, found in pairs.values()),
            verdicts=[row for row, (said, found) in pairs.items() if bool(said) != bool(found)],
            reasons=[row for row, (said, found) in pairs.items() if said and found and not same_reason(said, found)],
            said=[
                f"{said or 'kept'} / {found[0] if found else 'kept'}" for said, found in zip(theirs, ours, strict=True)
            ],
        )


def same_reason(said: str, found: list[str]) -> bool:
    """Whether datatrove's reason is our first; of C4's two that drop a page, the one on an earlier line counts."""
    pages = ("lorem_ipsum", "curly_bracket")
    return said == found[0] or (said in pages and said in found and found[0] in pages)


def agree(folder: Path, language: str, own: dict[str, Any], options: argparse.Namespace) -> Iterator[str]:
    """The rows of the second table; prints every kind of disagreement."""
    texts = pl.read_parquet(folder / "all.parquet", columns=["text"])["text"].to_list()
    if "error" not in own:
        for segmenter in ("characters", "jieba") if language == "zh" else ("words",):
            documents = with_signals(texts[: options.slow_documents], language, segmenter)
            for found in compare(documents, own["reasons"], language):
                print_kinds(f"{language}, datatrove's own words, ours {segmenter}", found)
                ours = f", ours by {segmenter}" if language == "zh" else ""
                yield agreement_row(f"its own words{ours}", found, "")
    for name, some in (("our words", texts), ("our words, odd documents", odd_documents(options.odd))):
        documents = with_words(with_signals(some, language))
        documents.write_parquet(folder / "given.parquet")
        environments = options.environments.absolute()
        given = run_script("datatrove", "given", environments, folder / "given.parquet", language)
        if "error" in given:
            yield f"| {name} | did not run: {given['error'][:150].replace('|', '/')} | | | | | | |"
            continue
        for found in compare(documents, given["reasons"], language):
            own_rules = {rule.reason for rule in FILTERS[found.name]}
            different = {reason: rows for reason, rows in given["different"].items() if reason in own_rules}
            yield agreement_row(name, found, str(sum(map(len, different.values()))))
            print_kinds(f"{language}, {name}", found)
            print_shortest("verdict or reason", found.verdicts + found.reasons, documents)
            for reason, rows in different.items():
                print_shortest(f"{len(rows)} other values of {reason}", rows, documents)


def print_kinds(title: str, found: Agreement) -> None:
    """How often which reasons stand against each other."""
    kinds = collections.Counter(found.said[row] for row in found.verdicts + found.reasons)
    print(f"{title}, {found.name}: {dict(kinds.most_common()) or 'no disagreement'}")


def print_shortest(what: str, rows: Sequence[int], documents: pl.DataFrame) -> None:
    """The shortest of some documents."""
    for text in sorted((documents["text"][row] for row in rows), key=len)[:EXAMPLES]:
        print(f"  {what}: {text[:300]!r}")


def largest_difference(ours: Sequence[Any], theirs: Sequence[Any]) -> float:
    """The largest relative difference of two lists of numbers, or of tuples of them."""
    flat = [
        list(zip(*pair, strict=True)) if isinstance(pair[0], list) else [pair]
        for pair in zip(ours, theirs, strict=True)
    ]
    # -1 stands for what lexicalrichness has no value for.
    pairs = [(a, b) for pairs in flat for a, b in pairs if b is not None and b != -1]
    return max((abs(a - b) / max(abs(b), 1e-300) if b else abs(a) for a, b in pairs), default=0.0)


# ---- the report ------------------------------------------------------------------------------------------------------


def seconds_of(tool: Tool, results: Results) -> float | None:
    """The median time of a tool, None where it did not run."""
    runs = results[tool.script, tool.variant, sample_read(tool)]
    return None if "error" in runs[0] else statistics.median(run[tool.key] for run in runs)


def speed_table(folder: Path, results: Results) -> str:
    """The Markdown table of speeds of one language."""
    lines = ["| work | tool | documents | MB | CPU s | MB/s | × |", "|---|---|---:|---:|---:|---:|---:|"]
    first: dict[str, float] = {}
    for tool in TOOLS:
        texts = pl.read_parquet(folder / f"{tool.sample}.parquet", columns=["text"])["text"]
        megabytes = int(texts.str.len_bytes().sum()) / 1e6
        seconds = seconds_of(tool, results)
        if seconds is None:
            error = results[tool.script, tool.variant, sample_read(tool)][0]["error"]
            lines.append(f"| {tool.work} | {tool.name} | did not run: {error[:150].replace('|', '/')} | | | | |")
            continue
        rate = megabytes / seconds
        if tool.work not in first:
            first[tool.work] = rate if tool.script != "corpusmill" else 0.0
        times = ratio(rate, first[tool.work] or None)
        cells = [tool.work, tool.name, f"{len(texts):,}", f"{megabytes:.1f}", f"{seconds:.3g}", speed(rate), times]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def agreement_row(words_of: str, found: Agreement, signals: str) -> str:
    """A row of the table of decisions."""
    same = 1 - len(found.verdicts) / max(1, found.documents)
    cells = [
        words_of,
        found.name.removesuffix("Filter"),
        f"{found.documents:,}",
        f"{found.theirs:,}",
        f"{found.ours:,}",
    ]
    cells += [f"{len(found.verdicts):,} ({same:.2%} agree)", f"{len(found.reasons):,}", signals]
    return f"| {' | '.join(cells)} |"


AGREEMENT_HEAD = """\
| datatrove with | filter | documents | it keeps | we keep | other verdict | other reason | other signals |
|---|---|---:|---:|---:|---:|---:|---:|"""


def section(options: argparse.Namespace, tables: Sequence[str], versions: dict[str, str], facts: dict[str, str]) -> str:
    """All that stands between the markers."""
    names = " ".join(path.name for path in options.input)
    counts = f"--documents {options.documents} --slow-documents {options.slow_documents} --odd {options.odd}"
    command = f"python bench/quality.py --input {names} {counts} --environments ENVIRONMENTS --lmplz LMPLZ"
    listed = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    about = f"{datetime.date.today()}, {machine()}, Python {platform.python_version()}. {listed}."
    explained = EXPLANATION.format(
        repeats=options.repeats, slow=SLOW_SECONDS, training=f"{TRAINING_DOCUMENTS:,}", **facts
    )
    return "\n\n".join(["## Quality signals", about, f"```\n{command}\n```", *tables, explained.strip()])


def main() -> None:
    """Run, compare, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--input", type=Path, nargs="+", required=True, help="Parquet files with id and text")
    parser.add_argument("--documents", type=int, default=2_000, help="the first so many of each file")
    parser.add_argument("--slow-documents", type=int, default=500, help="fewer where a slow peer takes part")
    parser.add_argument(
        "--odd", type=int, default=2_000, help="documents made by chance for the comparison of decisions"
    )
    parser.add_argument("--environments", type=Path, required=True, help="folder with a virtual environment a peer")
    parser.add_argument("--lmplz", type=Path, help="kenlm's trainer, which its Python package does not have")
    parser.add_argument("--install", action="store_true", help="make the environments first")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)), help="the core that all tools run on")
    parser.add_argument("--results", type=Path, default=BENCH / "RESULTS.md")
    options = parser.parse_args()
    if options.install:
        install(options.environments.absolute())
    os.sched_setaffinity(0, {options.core})

    tables: list[str] = []
    versions: dict[str, str] = {}
    differences: dict[str, list[str]] = {what: [] for what in COMPARED}
    for path in options.input:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            language = prepare(path, options, folder)
            results = run_all(folder, language, options)
            versions |= {run[0]: found[0]["version"] for run, found in results.items() if "version" in found[0]}
            if options.lmplz:
                trained = run_script(
                    "kenlm", "lmplz", options.environments.absolute(), folder / "all.parquet", language
                )
                results["kenlm", "lmplz", "all"] = [trained]
            for what, (key, ours, theirs) in COMPARED.items():
                values = [results[run][0][key] for run in (ours, theirs) if run in results and key in results[run][0]]
                if len(values) == 2:
                    differences[what].append(f"{largest_difference(*values):.1e} ({path.stem})")
            rows = agree(folder, language, results["datatrove", "own", "few"][0], options)
            heading = f"### {path.stem}"
            tables.append("\n\n".join([heading, speed_table(folder, results), "\n".join([AGREEMENT_HEAD, *rows])]))
            print(tables[-1], flush=True)
    facts = {f"{what}_difference": ", ".join(found) or "not compared" for what, found in differences.items()}
    write_section(options.results, "quality", section(options, tables, versions, facts))


if __name__ == "__main__":
    main()
