"""split: train, validation and test, so that nothing of one is learned from the other, and nothing moves later.

Documents that belong together make a group, and a group goes to one side: by equal texts, dedup's edges, short texts
that resemble each other, 13-grams that one holds of the other, shared turns of dialogues, parents, and what
`split.group_by` names. What holds something of a test set is dropped, and so is a document of a later batch that would
join two sides.
"""

from __future__ import annotations

import dataclasses
import functools
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from corpus.documents import to_arrow, write_table
from corpus.errors import UserError
from corpus.executor import run_tasks
from corpus.params import Split
from corpus.split import grams, similar
from corpus.split.contamination import Contaminated, TestRows, find_contaminated, grams_of, read_test_sets
from corpus.split.grams import Numbers
from corpus.split.groups import BRIDGE, Members, Pairs, Placed, place
from corpus.split.traces import HOST, NGRAM, SKETCH, said, trace_part
from corpus.stage import Metrics, Part, Run, batches, count_rows, map_parts, side_by_side
from corpus.text.tokens import SHINGLE_VIEW

READS = ("clean", "filter")
VERSION = 3

SIDES = ("train", "validation", "test")
NAMED = 5  # labels in notes
LOOKED_UP = 200  # documents at a time: the arrays of their 13-grams are several times larger than their texts
CONTAMINATED, BRIDGED = "split.contaminated", "split.bridge"


def run(run: Run) -> Metrics:
    """Annotate documents with kept, reasons, split, group and evidence, all null where a stage before had dropped them.

    `group` is the id of the document that a group is named after; a dropped document has neither split nor group, and
    `evidence` says why. Edges come from data/dedup, or with --input from a folder given there that has `edges/` (named
    before the filter's, whose `kept` counts). Memory of this process: about 0.7 kB a document for ids, keys and groups,
    no text; the table of 13-grams, as much again, is a mapped file.
    """
    params = run.params.split
    parts = side_by_side(run)
    with tempfile.TemporaryDirectory(dir=run.output) as folder:
        scratch = Path(folder)
        traces = _trace(run, parts, scratch / "traces")
        tests = read_test_sets(run.data / "evaluation", params.test_sets)
        held, contamination = _look_up_grams(run, traces, tests, scratch)
        contaminated = find_contaminated(*contamination, tests.table, traces.read("batch")["batch"].to_numpy())
        pairs = {"short": _pair_short_documents(traces), "contained": held, **_pairs_of_dedup(run, traces)}
        members = similar.having(*traces.read("keys", "turns", "batch"))
        clean = np.setdiff1d(np.arange(len(traces.rows)), contaminated.documents)
        placed = _place(traces.read("id", "batch"), clean, pairs.values(), members, params)
        kept = traces.read("id", "lang", "label", "n_chars")
        decided = _decide(kept, clean, placed, contaminated, tests)
        _write(run, traces, decided)
    connections = {
        "keys": int(members.keys.max(initial=-1)) + 1,
        **{kind: len(left) for kind, (left, _) in pairs.items()},
    }
    return _measure(decided, connections, contaminated, tests, params)


class Traces(NamedTuple):
    """The traces of all documents, in files, and the kept ones, which are numbered in the order of batches and ids."""

    folder: Path
    parts: list[Part]
    rows: Numbers  # of each kept document its row among those of all parts
    numbers: Numbers  # of each row the number of the document, below 0 where it is not kept

    def read(self, *columns: str) -> pl.DataFrame:
        """Some columns of the kept documents, by number: they are read when they are needed, since they are large."""
        return _read(self.folder, self.parts, *columns)[self.rows]

    def by_part(self, column: str) -> Iterator[tuple[Part, Numbers, pl.Series]]:
        """Of each part the number of each row, and a column."""
        first = 0
        for part in self.parts:
            found = pl.read_parquet(self.folder / part.name, columns=[column])[column]
            yield part, self.numbers[first : first + part.rows], found
            first += part.rows

    def kept_by_part(self, column: str) -> Iterator[tuple[Part, Numbers, pl.Series]]:
        """Of each part the numbers of the kept documents, and a column of these."""
        for part, own, found in self.by_part(column):
            yield part, own[own >= 0], found.filter(pl.Series(own >= 0))


def _read(folder: Path, parts: list[Part], *columns: str) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(folder / part.name, columns=list(columns)) for part in parts])


def _trace(run: Run, parts: list[Part], folder: Path) -> Traces:
    """Write the traces of all documents into a folder, and find who is kept.

    Raises UserError for a column of split.group_by that no document has.
    """
    folder.mkdir()
    group_by = run.params.split.group_by
    texts_only = [dataclasses.replace(part, files=part.files[:1]) for part in parts]
    function = functools.partial(trace_part, group_by)
    found = map_parts(
        dataclasses.replace(run, output=folder), texts_only, function, VERSION, str(SHINGLE_VIEW), *group_by
    )
    for name in group_by:
        if not any(metrics["group_by"][name] for metrics in found):
            known = f"{HOST}, a column of the documents, or what their source's rows have beside the text"
            raise UserError(f"split.group_by: no document has {name}: name {known}")
    kept = [batch["kept"].fill_null(False) for part in parts for batch in batches(part, ["id"], {"kept": True})]
    every = _read(folder, parts, "id", "batch").with_row_index("row")
    rows = every.filter(pl.concat(kept).cast(pl.Boolean)).sort("batch", "id")["row"].to_numpy().astype(np.int64)
    numbers = np.full(every.height, -1)
    numbers[rows] = np.arange(len(rows))
    return Traces(folder, parts, rows, numbers)


# ---- 13-grams --------------------------------------------------------------------------------------------------------


def _look_up_grams(run: Run, traces: Traces, tests: TestRows, scratch: Path) -> tuple[Pairs, tuple[Numbers, Numbers]]:
    """Who of the kept documents holds another, and who holds which 13-gram of the test sets."""
    _write_sketches(traces, scratch)
    grams.save(tests.table, scratch / "tests")
    np.save(scratch / "numbers.npy", traces.numbers)
    firsts = np.cumsum([0, *(part.rows for part in traces.parts)]).tolist()
    tasks = [(part, first) for part, first in zip(traces.parts, firsts, strict=False)]
    found = {
        part.name: pairs
        for (part, _), pairs in run_tasks(
            functools.partial(_search_part, scratch), tasks, run.crew, "split: similar documents"
        )
    }
    columns = list(zip(*(found[part.name] for part in traces.parts), strict=True))
    owners, holders, documents, places = (np.concatenate(column) for column in columns)
    return (owners, holders), (documents, places)


def _write_sketches(traces: Traces, scratch: Path) -> None:
    """Write how large the sketches are, and their table: of each 13-gram the OWNERS that are preferred."""
    kept = traces.read("grams", "batch")
    np.save(scratch / "sizes.npy", kept["grams"].clip(upper_bound=SKETCH).cast(pl.UInt8).to_numpy())
    rank = similar.rank_of_owners(kept["grams"].to_numpy(), kept["batch"].to_numpy())
    runs = []
    for part, own, sketches in traces.kept_by_part("sketch"):
        owners = np.repeat(own, sketches.list.len().to_numpy())
        hashes = sketches.explode(empty_as_null=False, keep_nulls=False).to_numpy()
        runs.append(scratch / "runs" / part.name)
        grams.write_run(runs[-1], hashes, owners, rank[owners], similar.OWNERS)
    grams.merge(runs, scratch / "sketches", similar.OWNERS, rank)
    shutil.rmtree(scratch / "runs")


def _search_part(scratch: Path, task: tuple[Part, int]) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """Of one part: pairs of documents of which the second holds the first; documents, and the test grams they hold."""
    part, first = task
    sketches, tests = (grams.load(scratch / name) for name in ("sketches", "tests"))
    sizes, numbers = (np.load(scratch / f"{name}.npy", mmap_mode="r") for name in ("sizes", "numbers"))
    found: list[tuple[Numbers, ...]] = [(np.zeros(0, np.int64),) * 4]
    whole = batches(part, ["id", "text"], {"messages": None, "preference": None})
    for some in (some for batch in whole for some in batch.iter_slices(LOOKED_UP)):
        own = numbers[first : first + some.height]
        first += some.height
        hashes, owners = grams_of(said(some.filter(pl.Series(own >= 0))))
        documents = own[own >= 0][owners]
        (at, places), (at_tests, test_places) = sketches.find(hashes), tests.find(hashes)
        pairs = similar.holds(documents[at], places, sketches, sizes)
        found.append((*pairs, documents[at_tests], test_places))
    owners, holders, documents, test_grams = (np.concatenate(column) for column in zip(*found, strict=True))
    return owners, holders, documents, test_grams


# ---- groups ----------------------------------------------------------------------------------------------------------


def _pair_short_documents(traces: Traces) -> Pairs:
    """Pairs of short documents that resemble each other."""
    found = [
        pl.DataFrame({"number": own, "shingles": shingles}).filter(pl.col("shingles").list.len() > 0)
        for _, own, shingles in traces.kept_by_part("shingles")
    ]
    short = pl.concat(found).sort("number")
    left, right = similar.alike_when_short(short["shingles"])
    return short["number"].to_numpy()[left], short["number"].to_numpy()[right]


def _pairs_of_dedup(run: Run, traces: Traces) -> dict[str, Pairs]:
    """The pairs of kept documents that dedup found similar."""
    folder = _edge_folder(run)
    return {"similar": similar.edges_of(folder, traces.read("id")["id"])} if folder else {}


def _edge_folder(run: Run) -> Path | None:
    """Where dedup's edges lie. Raises UserError if the graph's are missing."""
    given = [folder / "edges" for folder in run.inputs if (folder / "edges").is_dir()]
    if given:
        return given[0]
    if run.inputs[0].resolve() != run.folder("clean").resolve():
        return None
    folder = run.folder("dedup") / "edges"
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist: run `corpus dedup`, which says what is similar")
    return folder


def _place(kept: pl.DataFrame, clean: Numbers, pairs: Iterable[Pairs], members: Members, params: Split) -> Placed:
    """Place some of the documents. Raises UserError where they are all one group."""
    number = np.full(kept.height, -1)
    number[clean] = np.arange(len(clean))
    left, right = (number[np.concatenate(ends)] for ends in zip(*pairs, strict=True))
    both = (left >= 0) & (right >= 0)
    having = number[members.documents]
    shared = Members(having[having >= 0], members.keys[having >= 0])
    documents = kept[clean]
    ratios = (params.train, params.validation, params.test)
    ends = left[both], right[both]
    imports = documents["batch"].to_numpy().astype(np.int64)
    placed = place(documents["id"].to_list(), imports, ends, shared, ratios, params.seed)
    if len(np.unique(placed.groups)) == 1 and sum(ratio > 0 for ratio in ratios) > 1:
        many = f"all {len(clean):,} documents are one group" if len(clean) > 1 else "there is only one document"
        raise UserError(
            f"split: {many}, which cannot be divided: give more documents, fewer split.group_by, "
            "or a higher dedup.edge_threshold"
        )
    return placed


def _decide(
    kept: pl.DataFrame, clean: Numbers, placed: Placed, contaminated: Contaminated, tests: TestRows
) -> pl.DataFrame:
    """The kept documents with split, group, reason and evidence."""
    ids = kept["id"]
    side, group = np.full(kept.height, BRIDGE), np.full(kept.height, -1)
    side[clean], group[clean] = placed.sides, clean[placed.groups]
    reason: dict[int, str] = {}
    evidence: dict[int, str] = {}
    for document, row in zip(contaminated.documents.tolist(), contaminated.rows.tolist(), strict=True):
        reason[document], evidence[document] = CONTAMINATED, f"{tests.sets[row]}: {tests.ids[row]}"
    for bridge, others in placed.bridged.items():
        joined = [f"{ids[int(clean[other])]} ({SIDES[placed.sides[other]]})" for other in others]
        reason[int(clean[bridge])], evidence[int(clean[bridge])] = BRIDGED, ", ".join(joined)
    stays = pl.Series(side >= 0)
    return kept.with_columns(
        reason=pl.Series([reason.get(number) for number in range(kept.height)], dtype=pl.String),
        evidence=pl.Series([evidence.get(number) for number in range(kept.height)], dtype=pl.String),
        split=pl.Series(np.array([*SIDES, None, None], object)[side].tolist(), dtype=pl.String),
        group=pl.select(pl.when(stays).then(ids.gather(np.maximum(group, 0)))).to_series(),
    )


def _write(run: Run, traces: Traces, decided: pl.DataFrame) -> None:
    columns = decided.select(
        kept=pl.col("reason").is_null(),
        reasons=pl.concat_list("reason").list.drop_nulls(),
        split="split",
        group="group",
        evidence="evidence",
    )
    for part, own, ids in traces.by_part("id"):
        numbers = pl.Series("number", own)
        rows = columns.select(pl.all().gather(pl.lit(numbers.set(numbers < 0, None))))
        write_table(to_arrow(rows.insert_column(0, ids)), run.output / part.name)


# ---- metrics ---------------------------------------------------------------------------------------------------------


def _measure(
    decided: pl.DataFrame, connections: Metrics, contaminated: Contaminated, tests: TestRows, params: Split
) -> Metrics:
    """Counts by split, the largest group, what connected documents, and test rows and documents that held some."""
    reasons = {reason: decided.filter(pl.col("reason") == reason).height for reason in (CONTAMINATED, BRIDGED)}
    groups = decided["group"].drop_nulls().value_counts()["count"]
    by_set = {name: {"rows": tests.sets.count(name), "documents": 0} for name in dict.fromkeys(tests.sets)}
    for row in contaminated.rows.tolist():
        by_set[tests.sets[row]]["documents"] += 1
    return {
        **count_rows(rows_in=decided.height, dropped={reason: count for reason, count in reasons.items() if count}),
        "splits": _count(decided),
        "groups": {"all": len(groups), "largest": groups.max() or 0, "alone": (groups == 1).sum()},
        "connections": connections,
        "test_sets": by_set,
        "notes": [_shares(decided), *_short_rows(tests), *_absent_labels(decided, params)],
    }


def _shares(decided: pl.DataFrame) -> str:
    placed = decided.filter(pl.col("split").is_not_null())
    counts = {side: placed.filter(pl.col("split") == side).height for side in SIDES}
    parts = [f"{side} {count:,} ({count / max(1, placed.height):.1%})" for side, count in counts.items()]
    return f"{', '.join(parts)} in {placed['group'].n_unique():,} groups"


def _count(decided: pl.DataFrame) -> Metrics:
    """Documents, their share, characters and groups of each split, in all, by language and by label."""
    total = max(1, decided["split"].count())

    def measure(rows: pl.DataFrame) -> Metrics:
        return {"documents": rows.height, "characters": rows["n_chars"].sum(), "groups": rows["group"].n_unique()}

    counts: Metrics = {}
    for name in SIDES:
        rows = decided.filter(pl.col("split") == name)
        languages = {lang: measure(own) for (lang,), own in sorted(rows.partition_by("lang", as_dict=True).items())}
        labels = dict(sorted(rows["label"].drop_nulls().value_counts().iter_rows()))
        counts[name] = {**measure(rows), "share": rows.height / total, "languages": languages, "labels": labels}
    return counts


def _absent_labels(decided: pl.DataFrame, params: Split) -> Iterator[str]:
    """A sentence for each of the first NAMED labels that a side lacks, and one for the others."""
    left = 0
    placed = decided.filter(pl.col("split").is_not_null(), pl.col("label").is_not_null())
    for (label,), rows in sorted(placed.partition_by("label", as_dict=True).items()):
        absent = [side for side in SIDES if getattr(params, side) > 0 and side not in rows["split"]]
        left += bool(absent)
        if absent and left <= NAMED:
            yield (
                f"label {label!r} is in no document of {' and '.join(absent)}: it has {rows.height:,} documents in "
                f"{rows['group'].n_unique():,} groups"
            )
    if left > NAMED:
        yield f"{left - NAMED:,} more labels are not on all sides"


def _short_rows(tests: TestRows) -> Iterator[str]:
    """A sentence for each test set with rows of fewer tokens than a gram."""
    for name in dict.fromkeys(tests.sets):
        short = sum(own == name and length < NGRAM for own, length in zip(tests.sets, tests.lengths, strict=True))
        if short:
            rows = f"{short:,} of {tests.sets.count(name):,} rows of {name}"
            yield f"{rows} have fewer than {NGRAM} words: they are found only where a document is nothing else"
