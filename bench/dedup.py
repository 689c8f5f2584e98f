"""Near-deduplication side by side with other tools: speed, memory, and who was removed rightly.

    python bench/dedup.py --input en.parquet zh.parquet --environments ENVIRONMENTS --install

Each tool is one small script in `peers/`, run in an environment and a process of its own on one core. Its removals are
judged by the exact similarity of all pairs of documents (`jaccard.py`). The tables go into `RESULTS.md`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

BENCH = Path(__file__).resolve().parent
LEAST_SHINGLES = 5  # documents of fewer count as similar to none
SLOW_SECONDS = 60.0  # a tool that takes longer runs once
TIME_LIMIT = 900  # seconds for one run of one tool
THREAD_VARIABLES = [f"{name}_NUM_THREADS" for name in ("OMP", "RAYON", "NUMBA", "MKL", "OPENBLAS")]
THREAD_VARIABLES += ["POLARS_MAX_THREADS"]


class Tool(NamedTuple):
    """A row of the table: a script, how to run it, what to call it."""

    script: str  # in peers/, and the name of its environment
    variant: str
    name: str
    languages: tuple[str, ...] = ("en", "zh")


TOOLS = (
    Tool("corpusmill", "memory", "**corpusmill, texts in memory**"),
    Tool("corpusmill", "command", "**corpusmill, the command**"),
    Tool("datasketch", "", "datasketch"),
    Tool("gaoya", "", "gaoya"),
    Tool("rensa", "", "rensa, deduplicator"),
    Tool("rensa", "rho", "rensa, rho flags"),
    Tool("daft", "", "daft"),
    Tool("daft", "normalised", "daft, text normalised", ("en",)),
    Tool("daft", "spaced", "daft, Han spaced", ("zh",)),
    Tool("text-dedup", "", "text-dedup"),
    Tool("text-dedup", "spaced", "text-dedup, Han spaced", ("zh",)),
    Tool("datatrove", "", "datatrove"),
)
OWN_ENVIRONMENT = ("corpusmill", "datasketch")  # run where this project is installed
REQUIREMENTS = {
    "rensa": ["rensa", "pyarrow"],
    "gaoya": ["gaoya", "pyarrow"],
    "daft": ["daft", "polars", "numpy", "pyarrow"],
    "datatrove": ["datatrove[processing]", "jieba", "orjson", "spacy", "xxhash<4", "pyarrow"],  # xxhash 4 takes no str
    "text-dedup": ["text-dedup", "pyarrow"],
}
REFERENCES = ("datasketch", "gaoya")

COLUMNS = (
    "tool",
    "signatures MB/s",
    "× datasketch",
    "CPU s",
    "MB/s",
    "× datasketch",
    "× gaoya",
    "peak MB",
    "removed",
    "wrong",
    "residual pairs",
)

EXPLANATION = """\
- *signatures MB/s*: UTF-8 bytes of the documents by processor time, from text in memory to MinHash signatures, with the
  tokenising and shingling. *CPU s*, *MB/s*: all of it, to the list of documents to remove. × are ratios of MB/s.
- *peak MB*: the most memory of the process, with the texts, the interpreter and its libraries.
- *removed*: documents. *wrong*: removed, though no kept document has a Jaccard similarity of {threshold} with it, nor
  the same text. *residual pairs*: both kept, though their similarity reaches {threshold}; and their share of all such
  pairs. Similarities are exact, of all pairs, over {ngram}-token shingles, by a tokenizer in plain Python that no tool
  shares (documents of fewer than {least} shingles make no pairs). A tool that cuts tokens otherwise is not wrong in
  that; the columns tell what one gets.
- All tools: {ngram}-token shingles, threshold {threshold}, {permutations} permutations, as nearly as each can; one
  process on one core; its start, its imports and, but for those that work from file to file, loading the texts are
  before the clock starts; the least of {repeats} runs (one run where it took more than {slow:.0f} s).
- **corpusmill, texts in memory**: the kernels on an Arrow column, exact duplicates included, every removal verified by
  exact similarity. **the command**: `corpus dedup` from Parquet to Parquet, index and edges written, nothing in its
  store. Both after a warm-up on a few documents: the kernels are compiled once on a machine (some 10 s of processor
  time) and cached; starting Python and loading them takes a command some 2 s, whatever the corpus.
- **datasketch**: `MinHash.bulk` with xxh32 over shingles made in Python, `MinHashLSH` with its own choice of bands, and
  the usual loop: visit in order, pass over removed ones, remove all later matches.
- **gaoya**: exports no signatures; under signatures stands the insertion into its index. Word n-grams for English,
  character n-grams for Chinese. The same loop.
- **rensa**: its README's `RMinHashDeduplicator` (32 bands), and its rho pipeline, which flags *every* member of a group
  and does not say whom to keep: counted as flagged, so whole groups are gone. It samples positions and hardly finds
  edited copies of long texts; other orders of the shingles or numbers of bands did not help. Shingles made in Python.
- **daft** has the `minhash` function alone, with words that end at spaces; bands ({bands} of {rows}) and connected
  components in Polars. *normalised*: by its own `normalize`, as its docs advise, on the clock. *Han spaced*: spaces
  between Han characters made before the clock starts.
- **text-dedup**: its command `text_dedup.minhash`, from a data set on disk to one on disk; it times no signatures.
- **datatrove**: its four steps ({bands} buckets of {rows}), Parquet to JSONL, on the first {datatrove_documents}
  documents only, for its speed; with its word tokenizers, spaCy and for Chinese jieba, so that its shingles are longer.
"""


# ---- running the tools -----------------------------------------------------------------------------------------------


def install(environments: Path, names: Iterable[str]) -> None:
    """Make the environments of the peers that have one."""
    for name in names:
        if name in REQUIREMENTS:
            subprocess.run([sys.executable, "-m", "venv", environments / name], check=True)
            pip = [str(environments / name / "bin" / "python"), "-m", "pip", "install", "--quiet"]
            subprocess.run([*pip, *REQUIREMENTS[name]], check=True)


def run_tool(tool: Tool, environments: Path, documents: Path, language: str) -> dict[str, Any]:
    """The result of one run, or `{"error": the last line it said}`."""
    own = tool.script in OWN_ENVIRONMENT
    python = Path(sys.executable) if own else environments / tool.script / "bin" / "python"
    if not python.exists():
        return {"error": "not installed"}
    with tempfile.TemporaryDirectory() as folder:
        scratch, result = Path(folder) / "scratch", Path(folder) / "result.json"
        scratch.mkdir()
        options = {"input": documents, "language": language, "variant": tool.variant}
        options |= {"scratch": scratch, "result": result}
        command = [str(python), "-P", str(BENCH / "peers" / f"{tool.script}.py")]
        command += [f"--{name}={value}" for name, value in options.items()]
        try:
            done = subprocess.run(
                command, env=environment(scratch), cwd=scratch, capture_output=True, text=True, timeout=TIME_LIMIT
            )
        except subprocess.TimeoutExpired:
            return {"error": f"not done in {TIME_LIMIT} s"}
        if done.returncode or not result.exists():
            print(done.stderr[-3000:], file=sys.stderr)
            return {"error": (done.stderr.strip().splitlines() or ["no result"])[-1]}
        found: dict[str, Any] = json.loads(result.read_text())
        return found


def environment(home: Path) -> dict[str, str]:
    """The variables for a tool: one thread, this folder's modules, no network, caches in a folder of its own."""
    variables = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, "1")}
    variables |= {"PYTHONHASHSEED": "0", "PYTHONPATH": os.pathsep.join([str(BENCH), str(BENCH.parent)])}
    return variables | {"HF_HOME": str(home / "cache"), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def run_all(
    tools: Sequence[Tool], environments: Path, samples: dict[str, Path], language: str, repeats: int
) -> dict[Tool, dict[str, Any]]:
    """The best run of each tool; the tools take turns, so that a slow spell of the machine meets all of them."""
    best: dict[Tool, dict[str, Any]] = {}
    for repeat in range(repeats):
        for tool in tools:
            known = best.get(tool)
            if known and ("error" in known or known["seconds"] > SLOW_SECONDS):
                continue
            sample = samples["few" if tool.script == "datatrove" else "all"]
            result = run_tool(tool, environments, sample, language)
            said = result.get("error") or f"{result['seconds']:.2f} s, {len(result['removed'])} removed"
            print(f"{language} {repeat + 1}/{repeats} {tool.script} {tool.variant}: {said}", file=sys.stderr)
            if known and "error" not in result:
                if known["removed"] != result["removed"]:
                    print(f"{tool.name}: removed others than in the run before", file=sys.stderr)
                signing = [run["signature_seconds"] for run in (known, result) if run["signature_seconds"] is not None]
                result = min(known, result, key=lambda run: run["seconds"])
                result["signature_seconds"] = min(signing, default=None)
            best[tool] = result if "error" not in result else (known or result)
    return best


# ---- the documents ---------------------------------------------------------------------------------------------------


def read_documents(path: Path, count: int) -> pa.Table:
    """The first documents of a Parquet file: id and text, and lang where there is one."""
    with pq.ParquetFile(path) as file:
        columns = [name for name in ("id", "text", "lang") if name in file.schema_arrow.names]
        return file.read(columns).slice(0, count)


def language_of(documents: pa.Table) -> str:
    """`zh` or `en`, by the column `lang` or the share of Han characters."""
    from jaccard import han_share

    if "lang" in documents.column_names:
        return str(documents["lang"][0].as_py())[:2]
    return "zh" if han_share(documents["text"].slice(0, 200).to_pylist()) > 0.3 else "en"


def prepare(path: Path, count: int, few: int, folder: Path) -> tuple[str, dict[str, Path]]:
    """The language of a file, and its first documents, and the first few, as Parquet files in a folder."""
    documents = read_documents(path, count)
    samples = {"all": folder / "documents.parquet", "few": folder / "few.parquet"}
    columns = documents.select(["id", "text"])
    pq.write_table(columns, samples["all"], compression="zstd", row_group_size=2_000)
    pq.write_table(columns.slice(0, few), samples["few"], compression="zstd", row_group_size=2_000)
    return language_of(documents), samples


# ---- the report ------------------------------------------------------------------------------------------------------


def table(results: dict[Tool, dict[str, Any]], samples: dict[str, Path], details: bool) -> str:
    """The Markdown table of one language."""
    import jaccard
    from measurement import NGRAM, THRESHOLD

    texts = {name: pq.read_table(path)["text"].to_pylist() for name, path in samples.items()}
    megabytes = {name: sum(len(text.encode()) for text in own) / 1e6 for name, own in texts.items()}
    judged = jaccard.judge(texts["all"], NGRAM, THRESHOLD)
    speeds: dict[Tool, tuple[float | None, float]] = {}
    for tool, result in results.items():
        if "error" not in result:
            size = megabytes[sample_of(tool)]
            signing = result["signature_seconds"]
            speeds[tool] = (size / signing if signing else None, size / result["seconds"])
    reference = {tool.script: speed for tool, speed in speeds.items() if tool.script in REFERENCES}
    lines = [f"| {' | '.join(COLUMNS)} |", "|---|" + "---:|" * (len(COLUMNS) - 1)]
    for tool, result in results.items():
        if "error" in result:
            lines.append(f"| {tool.name} | did not run: {result['error'][:150].replace('|', '/')} |" + " |" * 9)
            continue
        found = jaccard.quality(judged, result["removed"], len(texts[sample_of(tool)]), LEAST_SHINGLES)
        if details and tool.script == "corpusmill":
            print_doubtful(tool.name, found, texts["all"])
        signing, whole = speeds[tool]
        cells = [
            tool.name,
            speed(signing),
            ratio(signing, reference.get("datasketch", (None, None))[0]),
            f"{result['seconds']:.2f}",
            speed(whole),
            ratio(whole, reference.get("datasketch", (None, None))[1]),
            ratio(whole, reference.get("gaoya", (None, None))[1]),
            f"{result['peak_mb']:.0f}",
            f"{found.removed:,}",
            f"{len(found.wrong):,}",
            f"{len(found.residual):,} of {found.pairs:,} ({len(found.residual) / max(1, found.pairs):.1%})",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def sample_of(tool: Tool) -> str:
    """Which sample a tool works on: datatrove, being slow, on the smaller one."""
    return "few" if tool.script == "datatrove" else "all"


def speed(value: float | None) -> str:
    """MB/s with two or three digits.

    >>> speed(123.4), speed(8.25), speed(None)
    ('123', '8.2', '–')
    """
    return "–" if value is None else f"{value:.0f}" if value >= 20 else f"{value:.2g}"


def ratio(value: float | None, reference: float | None) -> str:
    """How many times the reference's speed."""
    return "–" if value is None or reference is None else speed(value / reference)


def print_doubtful(name: str, found: Any, texts: Sequence[str]) -> None:
    """Say which removals and pairs the judge does not agree with."""
    for row in found.wrong:
        print(f"{name}: wrong removal {row}: {texts[row][:80]!r}", file=sys.stderr)
    for left, right in found.residual:
        print(f"{name}: residual {left} {right}: {texts[left][:80]!r} {texts[right][:80]!r}", file=sys.stderr)


def machine() -> str:
    """The processor's name."""
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return f"{found[1] if found else platform.processor()}, {os.cpu_count()} cores"


def section(arguments: argparse.Namespace, tables: Sequence[str], versions: dict[str, str]) -> str:
    """All that stands between the markers."""
    from measurement import BANDS, NGRAM, PERMUTATIONS, ROWS_PER_BAND, THRESHOLD

    names = " ".join(path.name for path in arguments.input)
    command = f"python bench/dedup.py --input {names} --documents {arguments.documents} --environments ENVIRONMENTS"
    listed = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    explained = EXPLANATION.format(
        threshold=THRESHOLD,
        ngram=NGRAM,
        permutations=PERMUTATIONS,
        bands=BANDS,
        rows=ROWS_PER_BAND,
        least=LEAST_SHINGLES,
        repeats=arguments.repeats,
        slow=SLOW_SECONDS,
        datatrove_documents=f"{arguments.datatrove_documents:,}",
    )
    about = f"{datetime.date.today()}, {machine()}, Python {platform.python_version()}. {listed}."
    return "\n\n".join(["## Near-deduplication", about, f"```\n{command}\n```", *tables, explained.strip()])


def write_section(path: Path, name: str, text: str) -> None:
    """Put a text between its markers in a file; what else the file holds stays."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    whole = path.read_text() if path.exists() else "# Results\n"
    if start not in whole:
        whole = f"{whole.rstrip()}\n\n{start}\n{end}\n"
    before, rest = whole.split(start, 1)
    path.write_text(f"{before}{start}\n{text}\n{end}{rest.split(end, 1)[1]}")


def main() -> None:
    """Run, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    scripts = list(dict.fromkeys(tool.script for tool in TOOLS))
    peers = [name for name in scripts if name != "corpusmill"]
    parser.add_argument("--input", type=Path, nargs="+", required=True, help="Parquet files with id and text")
    parser.add_argument("--documents", type=int, default=10_000, help="the first so many of each file")
    parser.add_argument("--datatrove-documents", type=int, default=1_000, help="fewer for datatrove, which is slow")
    parser.add_argument("--environments", type=Path, required=True, help="folder with a virtual environment a peer")
    parser.add_argument("--peers", nargs="*", choices=peers, default=peers, metavar="PEER", help=", ".join(peers))
    parser.add_argument("--install", action="store_true", help="make the environments first")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)), help="the core that all tools run on")
    parser.add_argument("--results", type=Path, default=BENCH / "RESULTS.md")
    arguments = parser.parse_args()
    if arguments.install:
        install(arguments.environments.absolute(), arguments.peers)
    os.sched_setaffinity(0, {arguments.core})

    tables: list[str] = []
    versions: dict[str, str] = {}
    for path in arguments.input:
        with tempfile.TemporaryDirectory() as folder:
            language, samples = prepare(path, arguments.documents, arguments.datatrove_documents, Path(folder))
            tools = [tool for tool in TOOLS if tool.script in [*arguments.peers, "corpusmill"]]
            tools = [tool for tool in tools if language in tool.languages]
            results = run_all(tools, arguments.environments.absolute(), samples, language, arguments.repeats)
            versions |= {tool.script: one["version"] for tool, one in results.items() if "version" in one}
            size = sum(len(text.as_py().encode()) for text in pq.read_table(samples["all"])["text"]) / 1e6
            count = pq.read_metadata(samples["all"]).num_rows
            heading = f"### {path.stem}: {count:,} documents, {size:.1f} MB"
            tables.append(f"{heading}\n\n{table(results, samples, details=True)}")
            print(tables[-1], flush=True)
    write_section(arguments.results, "dedup", section(arguments, tables, versions))


if __name__ == "__main__":
    main()
