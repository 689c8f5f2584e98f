"""`corpus diff A B`: what changed between two versions of a corpus: documents, decisions, settings, signals, scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import polars as pl

from corpus.clean.personal import mask_personal_data
from corpus.errors import StageError
from corpus.inspect.diff_measures import compare_bounds, compare_parameters, compare_scores, compare_signals
from corpus.inspect.fates import Documents, read_documents, state
from corpus.inspect.versions import Version, counts_of, open_parquet, read_parameters, read_report
from corpus.report.metrics import bounds_of

SHOWN = 20  # rows of a table on the terminal, and changes that have examples: the biggest
START_CHARS = 100
MASKED_CHARS = 1_000


@dataclasses.dataclass(frozen=True)
class Difference:
    """What changed from version A (before) to B (after); `stages` are the deciding stages that both have built.

    `documents`: lang, source, generated, came, went, stayed, changed: stayed, with other text in data/clean or
    data/augment. A language is B's where both have the document.
    `decisions`: before, after (`kept`, or the reason it was dropped for first; null: not in that version), documents,
    changed: the whole table, the biggest first.
    `examples`: before, after, id, source, url, title, start (of the text) of a few documents of the biggest rows of
    `decisions` in which something changed. Ids are hashes, so that the first by id are a draw, the same each time.
    `bounds`: lang, rule, before, after: those of the filter that differ, null where there is none.
    `parameters`: key, before, after: those of params.yaml that differ, as JSON, null where it has none.
    `signals`: lang, signal, documents_before, low_before, median_before, high_before, the same after, shift: of kept
    documents that were not generated, low and high being the 5th and 95th percentiles. Shift is the median's, in
    interquartile ranges of A (where that is 0, in its high - low; null where this is, too). The largest shift first.
    `scores`: set, model, score, before, after: what reports/evaluate.json says of sets with the same fingerprint.
    `notes`: what was not compared, and why.
    """

    before: str
    after: str
    stages: tuple[str, ...]
    documents: pl.DataFrame
    decisions: pl.DataFrame
    examples: pl.DataFrame
    bounds: pl.DataFrame
    parameters: pl.DataFrame
    signals: pl.DataFrame
    scores: pl.DataFrame
    notes: tuple[str, ...]


def compare(before: Version, after: Version, examples: int = 3) -> Difference:
    """Compare two versions, with so many examples of each kind of change.

    What both have built is compared: a stage that one lacks has dropped nothing in either. Memory grows by about 600
    bytes a document (ids, hashes, what dropped it, twice, and joined) and 16 signals of one version at a time: 1.5 GB
    and half a minute for a million. Raises UserError where a version cannot be read, and StageError where its
    documents are not as many as its reports say.
    """
    versions = (before, after)
    read = [read_documents(version) for version in versions]
    for version, documents in zip(versions, read, strict=True):
        check_sums(version, documents)
    stages = min((documents.stages for documents in read), key=len)
    joined = join(read[0], read[1], stages)
    if (joined["in_a"].sum(), joined["in_b"].sum()) != tuple(_in(documents, stages).height for documents in read):
        raise StageError(f"documents of {before.name} and {after.name} got lost or counted twice in comparing them")
    decisions = count_decisions(joined)
    notes = [note for documents in read for note in documents.notes]
    for version, documents in zip(versions, read, strict=True):
        if unequal := documents.stages[len(stages) :]:
            notes.append(f"only {version.name} has built {', '.join(unequal)}: compared up to {stages[-1]}")
    parameters = [read_parameters(version) for version in versions]
    for version, own in zip(versions, parameters, strict=True):
        if own is None:
            notes.append(f"parameters: {version.name} has no params.yaml beside its data/")
    known = [own for own in parameters if own is not None]
    scores, refused = compare_scores(*(read_report(version, "evaluate") for version in versions))
    signals, alone = compare_signals(versions, read, stages)
    filters = [bounds_of(read_report(version, "filter") or {}) for version in versions]
    return Difference(
        before.name,
        after.name,
        stages,
        count_documents(joined),
        decisions,
        find_examples(joined, decisions, versions, read, examples),
        compare_bounds(*filters) if "filter" in stages else compare_bounds({}, {}),
        compare_parameters(*known) if len(known) == len(versions) else compare_parameters({}, {}),
        signals,
        scores,
        (*notes, *alone, *refused),
    )


def is_same(difference: Difference) -> bool:
    """Whether nothing differs that could be compared."""
    frames = (moved_decisions(difference.decisions), difference.bounds, difference.parameters, difference.signals)
    return not any(frame.height for frame in frames) and not other_scores(difference).height


def other_scores(difference: Difference) -> pl.DataFrame:
    return difference.scores.filter(pl.col("before") != pl.col("after"))


def check_sums(version: Version, documents: Documents) -> None:
    """Raises StageError where the documents, or those that a stage dropped, are not as many as the reports say."""
    total = 0
    for place, stage in enumerate(documents.stages):
        rows = counts_of(version, stage)
        if rows is None:
            return  # nothing is said from here on
        total += rows["generated"] + (rows["in"] if stage == "scrape" else 0)
        dropped = documents.frame["stage"].eq(place).sum()
        if dropped != rows["dropped"]:
            raise StageError(
                f"{version.name}: {stage} dropped {dropped:,} documents, {rows['dropped']:,} says its report: "
                "build it again"
            )
    if total != documents.frame.height:
        raise StageError(
            f"{version.name} has {documents.frame.height:,} documents, {total:,} by its reports: build it again"
        )


# ---- documents and decisions -----------------------------------------------------------------------------------------


def _in(documents: Documents, stages: Sequence[str]) -> pl.DataFrame:
    return documents.frame if "augment" in stages else documents.frame.filter(~pl.col("generated"))


def join(before: Documents, after: Documents, stages: Sequence[str]) -> pl.DataFrame:
    """A row for each document of either: lang, source and generated (B's before A's), the states before and after (null
    where it is not in that version), changed, file and row (A's for those that went), in_a, in_b."""
    keys, facts = ["id", "number"], ["lang", "source", "generated", "file", "row"]
    a, b = (_in(one, stages).select(*keys, *facts, "text", state=state(stages)) for one in (before, after))
    both = a.join(b, on=keys, how="full", coalesce=True, suffix="_b")
    gone = pl.col("state_b").is_null()
    return both.select(
        *keys,
        *(pl.when(gone).then(name).otherwise(pl.coalesce(f"{name}_b", name)).alias(name) for name in facts),
        before="state",
        after="state_b",
        changed=(pl.col("text") != pl.col("text_b")).fill_null(False),
        in_a=pl.col("state").is_not_null(),
        in_b=~gone,
    )


def count_documents(joined: pl.DataFrame) -> pl.DataFrame:
    """How many documents came, went and stayed, by language and source; see `Difference`."""
    by = ["lang", "source", "generated"]
    counts = joined.group_by(by).agg(
        came=(~pl.col("in_a")).sum(),
        went=(~pl.col("in_b")).sum(),
        stayed=pl.col("in_a").and_("in_b").sum(),
        changed=pl.col("changed").sum(),
    )
    return counts.sort(by, nulls_last=True)


def count_decisions(joined: pl.DataFrame) -> pl.DataFrame:
    """How many documents went from which state to which; see `Difference`."""
    counts = joined.group_by("before", "after").agg(documents=pl.len(), changed=pl.col("changed").sum())
    return counts.sort("documents", "before", "after", descending=[True, False, False], nulls_last=True)


_DIFFERS = pl.col("before").ne_missing(pl.col("after"))


def moved_decisions(decisions: pl.DataFrame) -> pl.DataFrame:
    """The rows of `Difference.decisions` in which something changed: first those that are newly kept or no longer, then
    those with another reason, then those where it was the text alone."""
    size = pl.when(_DIFFERS).then("documents").otherwise("changed")
    moved = decisions.filter(_DIFFERS | (pl.col("changed") > 0))
    kept_changed = pl.col("before").eq_missing("kept") != pl.col("after").eq_missing("kept")
    return moved.sort(kept_changed, _DIFFERS, size, descending=True, maintain_order=True)


def find_examples(
    joined: pl.DataFrame,
    decisions: pl.DataFrame,
    versions: Sequence[Version],
    read: Sequence[Documents],
    number: int,
) -> pl.DataFrame:
    """A few documents of the biggest changes; see `Difference`."""
    biggest = moved_decisions(decisions).head(SHOWN).with_row_index("place")
    moved = joined.filter(_DIFFERS | pl.col("changed"))
    drawn = (
        moved.join(biggest.select("place", "before", "after"), on=["before", "after"], nulls_equal=True)
        .sort("place", "id", "number")
        .group_by("place", maintain_order=True)
        .head(number)
    )
    told = [
        describe(versions[in_b], read[in_b].files[file], row)
        for in_b, file, row in drawn.select("in_b", "file", "row").iter_rows()
    ]
    schema = dict.fromkeys(("url", "title", "start"), pl.String)
    return pl.concat(
        [drawn.select("before", "after", "id", "source"), pl.DataFrame(told, schema, orient="row")], how="horizontal"
    )


def describe(version: Version, path: str, row: int) -> tuple[str | None, str | None, str | None]:
    """URL, title and start of the text of one row of a file: one row group is read. Personal data is masked in rows
    that have not been through clean's masking."""
    raw = path.startswith(version.path("data", "scrape") + "/") or path.rpartition("/")[2].startswith("dropped-")
    with open_parquet(version, path) as file:
        names = [name for name in ("url", "title", "text") if name in file.schema_arrow.names]
        for group in range(file.metadata.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if row < rows:
                (facts,) = file.read_row_group(group, names).slice(row, 1).to_pylist()
                url, title, start = (facts.get(name) for name in ("url", "title", "text"))
                if raw:  # with characters to spare, so that no number is cut in two before it is masked
                    title, start = (text and mask_personal_data(text[:MASKED_CHARS])[0] for text in (title, start))
                return url, title, start and start[:START_CHARS]
            row -= rows
    raise StageError(f"{path} of {version.name} changed while it was read: try again")
