"""`corpus diff` on real Parquet and in a real DVC repository, beside a slow count in dictionaries."""

from __future__ import annotations

import collections
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import yaml
from conftest import command

from corpus.documents import DOCUMENT, DROPPED, PAGE, document_id, write_table
from corpus.errors import StageError, UserError
from corpus.inspect.diff import Difference, compare, describe, is_same
from corpus.inspect.diff_text import as_json, render_difference
from corpus.inspect.versions import open_version
from corpus.report.funnel import DECIDING

Rows = list[dict[str, Any]]
ORDER = ("scrape", "clean", "dedup", "filter", "split", "augment", "shard")
FATES = ["kept"] * 8 + [
    "scrape.error.status",
    "clean.empty",
    "dedup.near",
    "filter.mattr.min",
    "filter.n_words.min",
    "split.contaminated",
    "shard.balance",
]
HOSTILE = "[red]\x1b[2J\x1b]0;owned\x07\u202eevil[/red]\nsecond line"


# ---- a version, written by hand --------------------------------------------------------------------------------------


def random_rows(seed: int, number: int = 120) -> Rows:
    rng = random.Random(seed)
    rows = [_row(rng, f"{seed} {place}", rng.choice(FATES)) for place in range(number)]
    made = [_row(rng, f"made {place}", rng.choice(["kept", "augment.near", "shard.balance"])) for place in range(9)]
    kept = next(row for row in rows if row["fate"] == "kept")
    repeated = kept | {"fate": "scrape.duplicate_id"}
    return rows + [row | {"generated": True} for row in made] + [repeated]


def _row(rng: random.Random, key: str, fate: str) -> dict[str, Any]:
    lang = rng.choice(["en", "zh-Hans"])
    return {
        "id": document_id(key),
        "text": f"text of {key} {rng.random()}" if lang == "en" else f"{key}的文字{rng.random()}",
        "source": rng.choice(["faq", "news"]),
        "url": f"http://docs.example/{key.replace(' ', '/')}",
        "title": f"title of {key}",
        "lang": lang,
        "fate": fate,
        "generated": False,
        "mattr": rng.random(),
        "n_words": rng.randint(1, 500),
        "ppl": rng.choice([None, float("nan"), rng.uniform(10, 900)]),
    }


def changed_rows(rows: Rows, seed: int) -> Rows:
    """Some documents less, some more, some with other texts, fates and signals."""
    rng = random.Random(seed)
    left = [dict(row) for row in rows if rng.random() < 0.9]
    for row in left:
        if rng.random() < 0.2 and row["fate"] != "scrape.duplicate_id":
            row["fate"] = "kept" if row["fate"] != "kept" else "augment.near" if row["generated"] else rng.choice(FATES)
        if rng.random() < 0.1:
            row["text"] += " and more"
        row["n_words"] += rng.randint(0, 100)
    return left + [_row(rng, f"new {seed} {place}", rng.choice(FATES)) for place in range(15)]


def write_version(folder: Path, rows: Rows, stages: tuple[str, ...] = ORDER, **params: Any) -> Path:
    """data/, reports/ and params.yaml of rows with a fate: `kept`, or the reason that they are dropped for."""
    stage_of = {id(row): row["fate"].split(".")[0] for row in rows}
    own = [row for row in rows if not row["generated"]]
    cleaned = [row for row in own if stage_of[id(row)] not in ("scrape", "clean")]
    for stage in ("scrape", "clean"):
        if stage in stages:
            dropped = [row | {"reason": row["fate"]} for row in own if stage_of[id(row)] == stage]
            _write(folder / "data" / stage / "dropped-faq-0-00000.parquet", dropped, DROPPED)
    parts = {source: [row for row in cleaned if row["source"] == source] for source in ("faq", "news")}
    for source, part in parts.items():
        name = f"part-{source}-0-00000.parquet"
        pages = [row for row in own if row["source"] == source and stage_of[id(row)] != "scrape"]
        _write(folder / "data/scrape" / name, pages, PAGE)
        if "clean" not in stages:
            continue
        _write(folder / "data/clean" / name, part, DOCUMENT)
        for stage, columns in (("measure", ["mattr", "n_words"]), ("perplexity", ["ppl"])):
            frame = pl.DataFrame(part, {"id": pl.String, **dict.fromkeys(columns, pl.Float64)}, strict=False)
            _write(folder / "data" / stage / name, frame.to_dicts(), frame.to_arrow().schema)
        gone: set[str] = set()
        for stage in ("dedup", "filter", "split"):
            if stage in stages:
                now = {row["id"]: row["fate"] for row in part if stage_of[id(row)] == stage}
                decided = [
                    {"id": row["id"], "kept": None if row["id"] in gone else row["id"] not in now}
                    | {"reasons": [now[row["id"]], f"{stage}.other"] if row["id"] in now else []}
                    for row in part
                ]
                _write(folder / "data" / stage / name, decided, ANNOTATION)
                gone |= now.keys()
    if "augment" in stages:
        made = [row | {"kept": stage_of[id(row)] != "augment"} for row in rows if row["generated"]]
        made = [row | {"reasons": [] if row["kept"] else [row["fate"]]} for row in made]
        _write(folder / "data/augment/part-faq-0-00000.parquet", made, GENERATED)
    if "shard" in stages:
        (folder / "data/shard/train").mkdir(parents=True)
        (folder / "data/shard/README.md").write_text("a corpus")
        left_out = [row | {"reason": row["fate"]} for row in rows if stage_of[id(row)] == "shard"]
        _write(folder / "data/shard/dropped-balance.parquet", left_out, DROPPED)
    left = len(own)
    for stage in stages:
        generated = sum(row["generated"] for row in rows) if stage == "augment" else 0
        dropped_here = sum(name == stage for name in stage_of.values())
        counts = {"in": left, "generated": generated, "dropped": dropped_here}
        left += generated - dropped_here
        write_report(folder, stage, {"rows": counts | {"kept": left}})
    (folder / "params.yaml").write_text(yaml.safe_dump(params or {"dedup": {"threshold": 0.6}}))
    return folder


ANNOTATION = pa.schema([("id", pa.string()), ("kept", pa.bool_()), ("reasons", pa.list_(pa.string()))])
GENERATED = pa.schema([*DOCUMENT, *list(ANNOTATION)[1:]])


def _write(path: Path, rows: Rows, schema: pa.Schema) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(pa.Table.from_pylist([{name: row.get(name) for name in schema.names} for row in rows], schema), path)


def write_report(folder: Path, stage: str, report: dict[str, Any]) -> None:
    (folder / "reports").mkdir(exist_ok=True)
    counts = {"rows": {"in": 0, "generated": 0, "kept": 0, "dropped": 0}}
    (folder / "reports" / f"{stage}.json").write_text(json.dumps(counts | report))


def diff(a: Path, b: Path, examples: int = 3) -> Difference:
    return compare(open_version(str(a)), open_version(str(b)), examples)


# ---- the slow count --------------------------------------------------------------------------------------------------


def fates(folder: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """By id and occurrence, what a whole version says of a document, from all its files in memory."""

    def rows(stage: str, pattern: str) -> Iterator[dict[str, Any]]:
        for path in sorted((folder / "data" / stage).glob(pattern)):
            yield from pl.read_parquet(path).to_dicts()

    found: dict[tuple[str, int], dict[str, Any]] = {}
    seen: collections.Counter[str] = collections.Counter()

    def add(row: dict[str, Any], state: str, text: str | None, generated: bool = False) -> None:
        facts = {"lang": row.get("lang"), "source": row["source"], "generated": generated, "text": text, "state": state}
        found[row["id"], seen[row["id"]]] = facts
        seen[row["id"]] += 1

    decided: dict[str, str] = {}
    for stage in ("split", "filter", "dedup"):
        decided |= {row["id"]: row["reasons"][0] for row in rows(stage, "part-*") if row["kept"] is False}
    balanced = {row["id"] for row in rows("shard", "dropped-*")}
    for row in rows("clean", "part-*"):
        add(row, decided.get(row["id"], "shard.balance" if row["id"] in balanced else "kept"), row["text"])
    for stage in ("clean", "scrape"):
        for row in rows(stage, "dropped-*"):
            add(row, row["reason"], None)
    for row in rows("augment", "part-*"):
        state = "shard.balance" if row["id"] in balanced else "kept" if row["kept"] else row["reasons"][0]
        add(row, state, row["text"], generated=True)
    return found


def slow_tables(a: Path, b: Path) -> tuple[collections.Counter[Any], collections.Counter[Any]]:
    """documents by (lang, source, generated, what), decisions by (before, after, whether the text is another)."""
    old, new = fates(a), fates(b)
    documents: collections.Counter[Any] = collections.Counter()
    decisions: collections.Counter[Any] = collections.Counter()
    for key in old.keys() | new.keys():
        before, after = old.get(key), new.get(key)
        facts = (after or {}), (before or {})
        lang = facts[0].get("lang") or facts[1].get("lang")
        latest = after or before
        assert latest is not None
        where = (lang, latest["source"], latest["generated"])
        what = "came" if before is None else "went" if after is None else "stayed"
        changed = bool(before and after and before["text"] and after["text"] and before["text"] != after["text"])
        documents[(*where, what)] += 1
        documents[(*where, "changed")] += changed
        decisions[before and before["state"], after and after["state"], "documents"] += 1
        decisions[before and before["state"], after and after["state"], "changed"] += changed
    return documents, decisions


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    rows = random_rows(1)
    return write_version(tmp_path / "a", rows), write_version(tmp_path / "b", changed_rows(rows, 2))


@pytest.mark.parametrize("seed", range(4))
def test_the_tables_are_those_of_the_slow_count(tmp_path: Path, seed: int) -> None:
    rows = random_rows(seed)
    a = write_version(tmp_path / "a", rows)
    b = write_version(tmp_path / "b", changed_rows(rows, seed + 100))
    difference = diff(a, b)
    documents, decisions = slow_tables(a, b)
    assert difference.stages == DECIDING
    fast = {
        (row["lang"], row["source"], row["generated"], what): row[what]
        for row in difference.documents.to_dicts()
        for what in ("came", "went", "stayed", "changed")
    }
    assert {key: n for key, n in fast.items() if n} == {key: n for key, n in documents.items() if n}
    fast = {
        (row["before"], row["after"], what): row[what]
        for row in difference.decisions.to_dicts()
        for what in ("documents", "changed")
    }
    assert {key: n for key, n in fast.items() if n} == {key: n for key, n in decisions.items() if n}
    sums = difference.documents.sum().row(0, named=True)
    assert sums["came"] > 0
    assert sums["changed"] > 0
    assert sums["went"] + sums["stayed"] == len(rows)
    assert sums["came"] + sums["stayed"] == len(fates(b))
    assert difference.notes == ()


def test_quantiles_of_kept_documents(two: tuple[Path, Path]) -> None:
    found = {(row["lang"], row["signal"]): row for row in diff(*two).signals.to_dicts()}
    assert {signal for _, signal in found} >= {"n_words", "ppl"}
    for (lang, signal), row in found.items():
        middle = []
        for folder, when in zip(two, ("before", "after"), strict=True):
            kept = {id for (id, _), one in fates(folder).items() if one["state"] == "kept" and not one["generated"]}
            values = {
                one["id"]: one[signal]
                for path in (folder / "data").glob("[mp]e*/part-*")
                for one in pl.read_parquet(path).to_dicts()
                if one.get(signal) is not None and not np.isnan(one[signal])
            }
            langs = {id: one["lang"] for (id, number), one in fates(folder).items() if not number}
            own = [value for id, value in values.items() if id in kept and langs[id] == lang]
            assert row[f"documents_{when}"] == len(own)
            low, first, median, third, high = np.quantile(own, [0.05, 0.25, 0.5, 0.75, 0.95])
            assert [row[f"{name}_{when}"] for name in ("low", "median", "high")] == pytest.approx([low, median, high])
            middle.append((median, third - first))
        assert row["shift"] == pytest.approx((middle[1][0] - middle[0][0]) / middle[0][1])
    shifts = [abs(row["shift"]) for row in diff(*two).signals.to_dicts()]
    assert shifts == sorted(shifts, reverse=True)


def test_signals_that_one_version_lacks_or_has_of_other_documents(two: tuple[Path, Path]) -> None:
    shutil.rmtree(two[0] / "data/perplexity")
    path = two[1] / "data/measure/part-faq-0-00000.parquet"
    frame = pl.read_parquet(path)
    write_table(frame.reverse().to_arrow(compat_level=pl.CompatLevel.oldest()), path)
    difference = diff(*two)
    assert difference.signals.is_empty()
    assert difference.notes == ("signals that only one version has of its documents: mattr, n_words, ppl",)


def test_a_version_and_itself(two: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(two[0], tmp_path / "copy")
    same = diff(two[0], tmp_path / "copy")
    assert is_same(same)
    assert "are the same" in render_difference(same)
    assert json.loads(as_json(same))["same"] is True
    assert same.decisions.filter(pl.col("before").ne_missing(pl.col("after"))).is_empty()
    assert same.examples.is_empty()
    assert not is_same(diff(*two))


def test_the_same_input_gives_the_same_output(two: tuple[Path, Path]) -> None:
    assert as_json(diff(*two)) == as_json(diff(*two))
    assert render_difference(diff(*two)) == render_difference(diff(*two))


def test_examples_are_of_their_kind_of_change(two: tuple[Path, Path]) -> None:
    old, new = fates(two[0]), fates(two[1])
    difference = diff(*two, examples=2)
    counted = collections.Counter()
    for row in difference.examples.to_dicts():
        assert (row["before"], row["after"]) in {
            (old.get((row["id"], n), {}).get("state"), new.get((row["id"], n), {}).get("state")) for n in (0, 1)
        }
        latest = new.get((row["id"], 0)) or old[row["id"], 0]
        if row["start"] and latest["text"]:
            assert latest["text"].startswith(row["start"])
        assert row["url"].startswith("http://docs.example/")
        counted[row["before"], row["after"]] += 1
    moved = difference.decisions.filter(pl.col("before").ne_missing(pl.col("after"))).head(5)
    for before, after, documents, _ in moved.iter_rows():
        assert counted[before, after] == min(documents, 2)


# ---- settings and scores ---------------------------------------------------------------------------------------------


def test_parameters_and_bounds(tmp_path: Path) -> None:
    rows = random_rows(3)
    sources = [{"name": "faq", "kind": "html", "path": "a"}, {"name": "news", "kind": "html", "path": "n"}]
    a = write_version(tmp_path / "a", rows, sources=sources, filter={"bounds": {}}, dedup={"threshold": 0.6})
    sources = [{"name": "new", "kind": "text"}, sources[0] | {"path": "b"}, sources[1]]
    b = write_version(tmp_path / "b", rows, sources=sources, filter={"bounds": {"en": {"ppl": {"max": 9}}}}, workers=2)
    for folder, bound in ((a, 0.4), (b, 0.5)):
        report = json.loads((folder / "reports/filter.json").read_text())
        bounds = {"mattr.min": {"bound": bound}, "ppl.max": {"bound": 900.0}}
        write_report(
            folder, "filter", report | {"bounds": {"en": bounds | ({"x.max": {"bound": 1}} if bound > 0.4 else {})}}
        )
    difference = diff(a, b)
    assert difference.parameters.rows() == [
        ("dedup.threshold", "0.6", None),
        ("filter.bounds.en.ppl.max", None, "9"),
        ("sources.faq.path", '"a"', '"b"'),
        ("sources.new.kind", None, '"text"'),
        ("sources.new.name", None, '"new"'),
        ("workers", None, "2"),
    ]
    assert difference.bounds.rows() == [("en", "mattr.min", 0.4, 0.5), ("en", "x.max", None, 1.0)]
    assert json.loads(as_json(difference))["parameters"][0] == {"key": "dedup.threshold", "before": 0.6, "after": None}
    (b / "params.yaml").write_text("")
    assert diff(a, b).parameters["after"].null_count() == diff(a, b).parameters.height > 0
    (b / "params.yaml").unlink()  # as in what `corpus run` writes
    difference = diff(a, b)
    assert difference.parameters.is_empty()
    assert difference.notes == ("parameters: b has no params.yaml beside its data/".replace("b has", f"{b} has"),)


def scored(fingerprint: str, bits: float, tokens: int = 9) -> dict[str, Any]:
    models = ("base", "adapted", "control")
    scores = {model: {"bits_per_byte": bits, "perplexity": 2**bits, "chrf": None} for model in models}
    return {"fingerprint": fingerprint, "tokens": tokens, **scores}


def test_scores_of_other_documents_are_not_compared(tmp_path: Path) -> None:
    rows = random_rows(4)
    a, b = (write_version(tmp_path / name, rows) for name in "ab")
    sets = {"pinned": scored("f1", 2.0), "test": scored("f2", 2.0), "gone": scored("f3", 2.0), "cut": scored("f4", 2.0)}
    write_report(a, "evaluate", {"sets": sets})
    sets = {"pinned": scored("f1", 1.5), "test": scored("f9", 1.5), "cut": scored("f4", 2.0, tokens=8)}
    write_report(b, "evaluate", {"sets": sets})
    difference = diff(a, b)
    assert difference.scores.filter(pl.col("score") == "bits_per_byte").rows() == [
        *(("cut", model, "bits_per_byte", 2.0, 2.0) for model in ("base", "adapted", "control")),
        *(("pinned", model, "bits_per_byte", 2.0, 1.5) for model in ("base", "adapted", "control")),
    ]
    assert difference.scores.filter(set="cut", score="perplexity").is_empty()
    assert difference.notes == (
        "scores of cut: perplexity is not comparable, the tokens differ",
        "scores of cut: token_accuracy is not comparable, the tokens differ",
        "scores of gone: only A has this set",
        "scores of test: not comparable, its documents differ: fingerprints f2 and f9",
    )
    text = render_difference(difference)
    assert "not comparable, its documents differ: fingerprints f2 and f9" in text
    assert "-0.5" in text
    write_report(b, "evaluate", {"sets": {"pinned": 7}})
    with pytest.raises(UserError, match=r"evaluate\.json is not what"):
        diff(a, b)


# ---- versions that are not whole -------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", ["scrape", "clean", "dedup", "split", "augment"])
def test_stages_that_one_version_lacks_have_dropped_nothing_in_either(tmp_path: Path, last: str) -> None:
    stages = ORDER[: ORDER.index(last) + 1]
    rows = random_rows(5)
    a, b = write_version(tmp_path / "a", rows), write_version(tmp_path / "b", rows, stages)
    difference = diff(a, b)
    assert difference.stages == stages
    assert is_same(difference)
    assert difference.notes == (f"only {a} has built {', '.join(ORDER[len(stages) :])}: compared up to {last}",)
    states = set(difference.decisions["before"]) - {"kept"}
    assert {state.split(".")[0] for state in states} <= set(stages)


def test_a_stage_that_judged_other_documents_is_left_out(two: tuple[Path, Path]) -> None:
    path = two[1] / "data/dedup/part-faq-0-00000.parquet"
    rows = pl.read_parquet(path).to_dicts()
    place = next(n for n, row in enumerate(rows) if row["kept"])
    rows[place] |= {"kept": False, "reasons": ["dedup.exact"]}  # built again, the filter not yet
    _write(path, rows, ANNOTATION)
    report = json.loads((two[1] / "reports/dedup.json").read_text())
    report["rows"] |= {"dropped": report["rows"]["dropped"] + 1, "kept": report["rows"]["kept"] - 1}
    write_report(two[1], "dedup", report)
    difference = diff(*two)
    assert difference.stages == ("scrape", "clean", "dedup")
    assert any("data/filter is not of the documents and decisions before it" in note for note in difference.notes)


@pytest.mark.parametrize("stage", ["augment", "shard"])
def test_generated_documents_and_shards_of_other_documents_are_left_out(two: tuple[Path, Path], stage: str) -> None:
    report = json.loads((two[1] / f"reports/{stage}.json").read_text())
    report["rows"]["in"] += 1
    write_report(two[1], stage, report)
    assert diff(*two).stages == ORDER[: ORDER.index(stage)]


def test_sums_that_are_not_those_of_the_reports(two: tuple[Path, Path]) -> None:
    report = json.loads((two[1] / "reports/filter.json").read_text())
    report["rows"]["dropped"] += 1
    write_report(two[1], "filter", report)
    with pytest.raises(StageError, match=r"filter dropped \d+ documents, \d+ says its report"):
        diff(*two)
    report["rows"]["dropped"] -= 1
    write_report(two[1], "filter", report)
    scraped = json.loads((two[1] / "reports/scrape.json").read_text())
    scraped["rows"]["in"] += 1
    write_report(two[1], "scrape", scraped)
    with pytest.raises(StageError, match=r"has \d+ documents, \d+ by its reports"):
        diff(*two)


def test_personal_data_of_rows_from_before_cleaning_is_masked(tmp_path: Path) -> None:
    rows = random_rows(6)
    for row in rows:
        row |= {"text": f"{row['text']} of me@example.com", "title": "by me@example.com"}
    a = write_version(tmp_path / "a", rows)
    for path in sorted((a / "data/scrape").glob("*.parquet")) + sorted((a / "data/clean").glob("*.parquet")):
        told = describe(open_version(str(a)), str(path), 0)
        masked = path.parent.name == "scrape" or path.name.startswith("dropped-")
        assert ("me@example.com" in f"{told}") != (masked or told[1:] == (None, None))


def test_a_damaged_file_and_a_folder_without_anything(two: tuple[Path, Path], tmp_path: Path) -> None:
    (two[1] / "data/split/part-news-0-00000.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(UserError, match=r"data/split/part-news-0-00000\.parquet of .* is not a whole Parquet file"):
        diff(*two)
    (tmp_path / "empty/data").mkdir(parents=True)
    with pytest.raises(UserError, match="has no data/scrape"):
        diff(two[0], tmp_path / "empty")
    for broken in ("[1", "[]", "{}", '{"rows": []}', '{"rows": {"in": null}}', "[" * 100_000):
        (two[0] / "reports/scrape.json").write_text(broken)
        with pytest.raises(UserError, match=r"reports/scrape\.json of .* is not JSON of a stage"):
            diff(two[0], two[0])


def test_text_of_documents_cannot_move_the_cursor(tmp_path: Path) -> None:
    rows = random_rows(6)
    hostile = {"title": HOSTILE, "url": HOSTILE, "text": HOSTILE, "source": "faq", "lang": HOSTILE}
    mine = next(row for row in rows if row["fate"] == "kept") | hostile | {"id": HOSTILE}
    a = write_version(tmp_path / "a", rows)
    b = write_version(tmp_path / "b", [*rows, mine], **{HOSTILE: HOSTILE})
    difference = diff(a, b)
    text = render_difference(difference)
    assert "[red]" in text  # as it is, and not as a colour
    assert not {char for char in text if char < " " and char != "\n"} | ({"\u202e"} & set(text))
    assert "\nsecond line" not in text
    (row,) = json.loads(as_json(difference))["examples"]
    assert row["title"] == HOSTILE
    assert all(len(line) <= 60 for line in render_difference(difference, width=60).splitlines())


# ---- revisions and experiments ---------------------------------------------------------------------------------------


DVC_YAML = """\
stages:
  build:
    cmd: rm -rf data reports && cp -r versions/${which}/data versions/${which}/reports .
    deps: [versions]
    params: [which]
    outs: [data, {reports: {cache: false}}]
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions in a real DVC repository: HEAD and the working tree have a, the experiment `other` has b."""
    folder = tmp_path_factory.mktemp("diff") / "project"
    rows = random_rows(7)
    write_version(folder / "versions/a", rows)
    write_version(folder / "versions/b", changed_rows(rows, 8))
    (folder / "dvc.yaml").write_text(DVC_YAML)
    (folder / "params.yaml").write_text("which: a\n")
    command(folder, "git", "init", "--quiet")
    command(folder, "dvc", "init", "--quiet")
    command(folder, "git", "add", "--all")
    command(folder, "git", "commit", "--quiet", "--message", "start")
    command(folder, "dvc", "repro", "--quiet")
    command(folder, "git", "add", "--all")
    command(folder, "git", "commit", "--quiet", "--message", "built")
    command(folder, "git", "branch", "versions")
    command(folder, "dvc", "exp", "run", "--quiet", "--temp", "--name", "other", "--set-param", "which=b")
    return folder


def tables(difference: Difference) -> list[list[tuple[Any, ...]]]:
    frames = (difference.documents, difference.decisions, difference.examples, difference.signals)
    return [frame.rows() for frame in frames]


def test_revisions_and_experiments(repository: Path) -> None:
    expected = diff(repository / "versions/a", repository / "versions/b")
    for a in ("HEAD", "workspace", "versions/a"):
        difference = compare(open_version(a, repository), open_version("other", repository))
        assert tables(difference) == tables(expected)
    difference = compare(open_version("HEAD", repository), open_version("other", repository))
    assert difference.parameters.rows() == [("which", '"a"', '"b"')]
    assert render_difference(difference).startswith("From HEAD to other ")
    assert is_same(compare(open_version("HEAD", repository), open_version("workspace", repository)))


@pytest.mark.parametrize("config", ["[core\n", "[core]\nremote = nowhere\nunknown = 1\n"])
def test_a_broken_configuration_of_dvc_is_named(tmp_path: Path, config: str) -> None:
    command(tmp_path, "git", "init", "--quiet")
    command(tmp_path, "dvc", "init", "--quiet")
    command(tmp_path, "git", "commit", "--quiet", "--all", "--message", "start")
    (tmp_path / ".dvc/config").write_text(config)
    with pytest.raises(UserError, match="DVC cannot open this project"):
        open_version("HEAD", tmp_path)


def test_a_project_below_the_top_of_its_repository(tmp_path: Path) -> None:
    rows = random_rows(9, number=20)
    folder = write_version(tmp_path / "top" / "project", rows)
    command(tmp_path / "top", "git", "init", "--quiet")
    command(folder, "dvc", "init", "--quiet", "--subdir")
    command(folder, "dvc", "add", "--quiet", "data")
    command(folder, "git", "add", "--all")
    command(folder, "git", "commit", "--quiet", "--message", "start")
    difference = compare(open_version("HEAD", folder), open_version("workspace", folder))
    assert is_same(difference)
    assert difference.documents["stayed"].sum() == len(rows)


def test_a_folder_wins_over_a_revision_of_its_name(repository: Path) -> None:
    with pytest.raises(UserError, match=r"versions is a folder without data/: .* heads/versions"):
        open_version("versions", repository)
    assert open_version("heads/versions", repository).commit is not None


def test_names_that_are_nothing(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"othre is no folder, revision or experiment: near ones are .*other"):
        open_version("othre", repository)
    with pytest.raises(UserError, match="--all is no folder"):
        open_version("--all", repository)
    with pytest.raises(UserError, match=r"HEAD: .* this is no git repository"):
        open_version("HEAD", tmp_path)
    with pytest.raises(UserError, match="workspace is a folder without data/: `dvc repro`"):
        open_version("workspace", tmp_path)
    start = open_version("HEAD~1", repository)
    with pytest.raises(UserError, match="HEAD~1 has no data/scrape"):
        compare(start, open_version("workspace", repository))


def test_data_in_neither_cache_nor_remote(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    folder = tmp_path / "project"
    shutil.copytree(repository, folder)
    cache, remote = folder / ".dvc/cache/files", tmp_path / "remote/files"
    expected = tables(compare(open_version("HEAD", folder), open_version("other", folder)))
    (tmp_path / "remote").mkdir()
    cache.rename(remote)
    with pytest.raises(UserError, match=r"of other is in neither cache nor remote .*`dvc fetch --all-commits`"):
        compare(open_version("workspace", folder), open_version("other", folder))
    command(folder, "dvc", "remote", "add", "--default", "store", str(tmp_path / "remote"))  # newer than the revision
    assert tables(compare(open_version("HEAD", folder), open_version("other", folder))) == expected
    files = sorted(path for path in remote.rglob("*") if path.is_file() and path.suffix != ".dir")
    for path in files:
        path.unlink()
    with pytest.raises(UserError, match=r"part-.*\.parquet of HEAD is in neither cache nor remote .*`dvc pull`"):
        compare(open_version("HEAD", folder), open_version("other", folder))
