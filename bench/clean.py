"""Cleaning side by side with other tools, a subcommand for each part of it.

    python bench/clean.py extraction --data WEB_PAGES [--environments ENVIRONMENTS]

`extraction`: the main text of pages with known truth, by every extractor that `clean` can use and by datatrove's.
"""

from __future__ import annotations

import argparse
import collections
import functools
import gzip
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from dedup import environment

from corpus.clean import extract as ours
from corpus.clean.decode import decode, scrub_surrogates

BENCH = Path(__file__).resolve().parent
Extractor = Callable[[str], str]


class Page(NamedTuple):
    """A page and what is known of its main text."""

    collection: str
    key: str
    host: str  # pages of one site look alike: they belong on one side of a split
    html: str
    truth: str | None  # the whole main text
    included: list[str]  # pieces that the main text has
    excluded: list[str]  # and has not


# ---- extraction: the pages -------------------------------------------------------------------------------------------


def load_pages(folder: Path) -> list[Page]:
    """The pages of three collections: `aeb_en` with whole texts, `trafilatura_multi` with pieces, `gne_zh` with texts
    that another tool found (half of its pages have none)."""
    pages = []
    for key, entry in json.loads((folder / "aeb_en/ground-truth.json").read_text()).items():
        html = _read(folder / f"aeb_en/html/{key}.html.gz")
        pages.append(Page("aeb_en", key, _host(entry["url"]), html, entry["articleBody"], [], []))
    for url, entry in json.loads((folder / "trafilatura_multi/evaldata.json").read_text()).items():
        html = _read(folder / "trafilatura_multi/html" / entry["file"])
        pages.append(Page("trafilatura_multi", url, _host(url), html, None, entry["with"], entry["without"]))
    for line in (folder / "gne_zh/pages.jsonl").read_text().splitlines():
        entry = json.loads(line)
        html = _read(folder / "gne_zh/html" / entry["file"])
        pages.append(Page("gne_zh", entry["path"], entry["path"].split("/")[1], html, entry["silver_content"], [], []))
    return pages


def _read(path: Path) -> str:
    decoded = decode(gzip.decompress(path.read_bytes()))
    return scrub_surrogates(decoded.text).replace("\x00", "") if decoded else ""


def _host(url: str) -> str:
    found = re.match(r"https?://(?:www\.)?([^/:]+)", url)
    return found[1].lower() if found else url


# ---- extraction: the scores ------------------------------------------------------------------------------------------


class Score(NamedTuple):
    """Precision, recall and their harmonic mean."""

    precision: float
    recall: float

    @property
    def f1(self) -> float:
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


def shingle_score(truths: Iterable[str], found: Iterable[str], characters: bool = False) -> Score:
    """Means over pages of precision and recall of runs of four words, or of four characters.

    As the Article Extraction Benchmark defines them: a run counts as often as it occurs in both texts; precision is the
    mean over pages where something was found, recall over pages with a truth; F1 is that of the two means.

    >>> shingle_score(["a b c d e", "x"], ["a b c d f", ""])
    Score(precision=0.5, recall=0.25)
    """
    precisions, recalls = [], []
    for truth, text in zip(truths, found, strict=True):
        wanted, got = _shingles(truth, characters), _shingles(text, characters)
        common = (wanted & got).total()
        if got:
            precisions.append(common / got.total())
        if wanted:
            recalls.append(common / wanted.total())
    return Score(statistics.fmean(precisions or [0.0]), statistics.fmean(recalls or [0.0]))


def _shingles(text: str, characters: bool) -> collections.Counter[tuple[str, ...]]:
    """The runs of four tokens with how often they occur; all tokens as one run where there are fewer."""
    tokens = re.findall(r"\w" if characters else r"\w+", text)
    runs = zip(*(tokens[start:] for start in range(4)), strict=False) if len(tokens) >= 4 else [tuple(tokens)]
    return collections.Counter(run for run in runs if run)


def piece_score(pages: Iterable[Page], found: Iterable[str]) -> Score:
    """Precision and recall over all pieces of all pages: the ones to include are right when found, the others wrong.

    White space counts as one space, so that an extractor may break lines as it likes.
    """
    right = missed = wrong = 0
    for page, text in zip(pages, found, strict=True):
        flat = " ".join(text.split())
        here = sum(" ".join(piece.split()) in flat for piece in page.included)
        right, missed = right + here, missed + len(page.included) - here
        wrong += sum(" ".join(piece.split()) in flat for piece in page.excluded)
    return Score(right / max(right + wrong, 1), right / max(right + missed, 1))


def score(collection: str, pages: Sequence[Page], found: Sequence[str]) -> Score:
    """The score that a collection's kind of truth allows."""
    if collection == "trafilatura_multi":
        return piece_score(pages, found)
    known = [(page.truth, text) for page, text in zip(pages, found, strict=True) if page.truth]
    return shingle_score(*zip(*known, strict=True), characters=collection == "gne_zh")


# ---- extraction: the tools -------------------------------------------------------------------------------------------


def trafilatura_text(html: str, fast: bool) -> str:
    """trafilatura as its users call it, without comments as our stage does."""
    import trafilatura

    return trafilatura.extract(html, fast=fast, include_comments=False) or ""


def corpusmill_text(html: str, extractor: str) -> str:
    """The stage's extractor, on a page as the stage gives it."""
    return ours.extract(html, None, extractor).text


EXTRACTORS: dict[str, Extractor] = {
    "trafilatura fast": functools.partial(trafilatura_text, fast=True),
    "trafilatura default": functools.partial(trafilatura_text, fast=False),
    **{
        f"corpusmill {name}": functools.partial(corpusmill_text, extractor=name)
        for name in ("auto", "trafilatura", "resiliparse", "readability", "bs4")
    },
}


def run_rounds(
    extractors: dict[str, Extractor], pages: Sequence[Page], rounds: int
) -> tuple[dict[str, list[str]], dict[str, dict[str, float]]]:
    """What each extractor finds, and its median processor time by collection.

    The extractors take turns collection by collection, so that a slow spell of the machine meets all of them. An
    exception counts as an empty text.
    """
    found: dict[str, list[str]] = {}
    times: dict[str, dict[str, list[float]]] = {name: collections.defaultdict(list) for name in extractors}
    for extractor in extractors.values():  # imports, compiled kernels
        _text(extractor, pages[0].html)
    by_collection: dict[str, list[Page]] = collections.defaultdict(list)
    for page in pages:
        by_collection[page.collection].append(page)
    for number in range(rounds):
        for collection, own in by_collection.items():
            for name, extractor in extractors.items():
                start = time.process_time()
                texts = [_text(extractor, page.html) for page in own]
                times[name][collection].append(time.process_time() - start)
                if number == 0:
                    found.setdefault(name, []).extend(texts)
    medians = {name: {key: statistics.median(values) for key, values in own.items()} for name, own in times.items()}
    return found, medians


def _text(extractor: Extractor, html: str) -> str:
    try:
        return extractor(html)
    except Exception as error:
        print(f"{type(error).__name__}: {error}"[:200], file=sys.stderr)
        return ""


def run_datatrove(pages: Sequence[Page], environments: Path, folder: Path) -> dict[str, Any]:
    """What datatrove's extractor finds, in its own environment: texts, seconds by collection; or an error."""
    python = environments / "datatrove" / "bin" / "python"
    if not python.exists():
        return {"error": f"{python} does not exist"}
    columns = {name: [getattr(page, name) for page in pages] for name in ("key", "collection", "html")}
    pq.write_table(pa.table(columns), folder / "pages.parquet")
    command = [str(python), "-P", str(BENCH / "peers" / "clean_datatrove.py"), str(folder / "pages.parquet")]
    done = subprocess.run(
        [*command, str(folder / "found.json")], capture_output=True, text=True, env=environment(folder)
    )
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no result"])[-1]}
    found: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return found


def routes(pages: Sequence[Page]) -> dict[str, dict[str, int]]:
    """How many pages of each collection were extracted by which method of `auto`."""
    counts: dict[str, dict[str, int]] = {}
    for page in pages:
        own = counts.setdefault(page.collection, collections.Counter())
        own[ours.extract(page.html, None, "auto").method] += 1
    return {name: dict(sorted(own.items())) for name, own in counts.items()}


def extraction(options: argparse.Namespace) -> str:
    """Score and time all extractors; the Markdown tables."""
    pages = load_pages(options.data)
    found, seconds = run_rounds(EXTRACTORS, pages, options.rounds)
    with tempfile.TemporaryDirectory() as folder:
        peer = run_datatrove(pages, options.environments.absolute(), Path(folder)) if options.environments else {}
    if "error" in peer:
        print(f"datatrove: {peer['error']}", file=sys.stderr)
    elif peer:
        found["datatrove"], seconds["datatrove"] = peer["texts"], peer["seconds"]
    parts = []
    for collection in seconds["trafilatura fast"]:
        places = [number for number, page in enumerate(pages) if page.collection == collection]
        own = [pages[number] for number in places]
        rows = [f"{collection}, {len(own)} pages", "", "| extractor | F1 | P | R | empty | pages/CPU s | × |"]
        rows.append("|---|---:|---:|---:|---:|---:|---:|")
        reference = seconds["trafilatura fast"][collection]
        for name, texts in found.items():
            here = [texts[number] for number in places]
            result, spent = score(collection, own, here), seconds[name][collection]
            empty = sum(not text.strip() for text in here)
            rows.append(
                f"| {name} | {result.f1:.4f} | {result.precision:.4f} | {result.recall:.4f} | {empty} | "
                f"{len(own) / spent:.0f} | {reference / spent:.2f} |"
            )
        parts.append("\n".join(rows))
    return "\n\n".join([*parts, f"Methods of auto: {json.dumps(routes(pages))}"])


def main() -> None:
    """Run the part that is asked for and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(required=True)
    part = parts.add_parser("extraction")
    part.add_argument("--data", type=Path, required=True, help="folder with aeb_en, trafilatura_multi and gne_zh")
    part.add_argument("--rounds", type=int, default=3)
    part.add_argument("--environments", type=Path, help="folder with a virtual environment `datatrove`")
    part.set_defaults(run=extraction)
    options = parser.parse_args()
    print(options.run(options))


if __name__ == "__main__":
    main()
