"""The report of a hand-written project: what it counts, what it draws, and that nothing in it can run."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from conftest import command
from report_project import HOSTILE, HOSTILE_NAME, build, write_report

from corpus.documents import document_id
from corpus.errors import StageError, UserError
from corpus.params import Params
from corpus.report import stage, tally
from corpus.report.samples import FACT_CHARS, NEAR, TEXT_CHARS, Sample, _candidates, document_samples
from corpus.stage import Metrics, Run, execute

HALF = ["evaluate", "shard", "augment", "split", "filter", "dedup", "perplexity", "measure"]


def report(folder: Path, params: Params | None = None) -> tuple[str, Metrics]:
    """Run the stage in a project; gives the page and the metrics."""
    run = Run(
        "report", params or Params(), (), folder / "data/report", folder / "data", folder / "reports", folder / "h"
    )
    metrics = execute(stage, run)
    return (folder / "reports" / "index.html").read_text("utf-8"), metrics


class Page(html.parser.HTMLParser):
    """All tags with their attributes, and the text between them, as a browser would read them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, Metrics]:
    folder = build(tmp_path_factory.mktemp("report") / "project")
    return folder, *report(folder)


def test_metrics_count_over_the_whole_graph(whole: tuple[Path, str, Metrics]) -> None:
    folder, _, metrics = whole
    rows = metrics["rows"]
    assert rows["in"] == 97
    assert rows["generated"] == 6
    assert rows["in"] + rows["generated"] == rows["kept"] + rows["dropped"]
    assert rows["kept"] == json.loads((folder / "reports/shard.json").read_text())["rows"]["kept"]
    assert {r.partition(".")[0] for r in metrics["dropped_by_reason"]} == {"clean", "dedup", "filter", "augment"}
    assert sum(metrics["dropped_by_reason"].values()) == rows["dropped"]
    funnel = (folder / "reports/plots/funnel.csv").read_text().splitlines()
    assert funnel[:3] == ["stage,documents", "1 scrape,97", "2 clean,90"]
    assert (folder / "data/report/index.html").read_bytes() == (folder / "reports/index.html").read_bytes()


def test_a_document_lost_between_two_stages_fails_with_a_table(tmp_path: Path) -> None:
    folder = build(tmp_path / "project")
    metrics = json.loads((folder / "reports/split.json").read_text())
    metrics["rows"] |= {"in": metrics["rows"]["in"] - 1, "kept": metrics["rows"]["kept"] - 1}
    write_report(folder / "reports", "split", metrics)
    with pytest.raises(StageError, match=r"around split:\nstage +in +generated") as failure:
        report(folder)
    assert re.search(r"\nsplit +45 +0 +45 +0 +46\n", str(failure.value))
    assert not (folder / "reports/index.html").exists()


def test_the_page_holds_nothing_that_could_run_or_be_fetched(whole: tuple[Path, str, Metrics]) -> None:
    page = Page(whole[1])
    names = {tag for tag, _ in page.tags}
    assert not names & {"iframe", "object", "embed", "link", "img", "form", "base", "textarea"}
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", whole[1], re.DOTALL)
    assert [attributes for attributes, _ in scripts] == [' type="application/json" id="documents-data"', ""]
    assert "<" not in scripts[0][1] and ">" not in scripts[0][1]
    digest = base64.b64encode(hashlib.sha256(scripts[1][1].encode()).digest()).decode()
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        assert attributes.get("src") is None
        assert (attributes.get("href") or "#").startswith("#")
        assert "javascript" not in str(attributes)
        assert "alert" not in str(attributes)
        if tag == "meta" and "http-equiv" in attributes:
            assert attributes["http-equiv"] == "Content-Security-Policy"
            assert "default-src 'none'" in str(attributes["content"])
            assert f"script-src 'sha256-{digest}';" in str(attributes["content"])
    style = whole[1].partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_hostile_text_is_shown_as_text(whole: tuple[Path, str, Metrics]) -> None:
    texts = "".join(Page(whole[1]).texts)
    assert HOSTILE[0] in texts
    assert HOSTILE[1] in texts
    assert HOSTILE_NAME in json.dumps(browsed(whole[1])["documents"]).replace('\\"', '"')
    assert "{{ 7 * 7 }}" in texts  # a template's braces in a text are no template
    assert not re.search("[\x00\u202e]", texts)


def browsed(page: str) -> dict[str, Any]:
    """What the document browser has to show."""
    written = re.search(r'id="documents-data">(.*?)</script>', page, re.DOTALL)
    assert written
    return dict(json.loads(written[1]))


def test_every_element_is_closed_in_order(whole: tuple[Path, str, Metrics]) -> None:
    opened: list[str] = []
    markup = re.sub(r"(<script[^>]*>).*?(</script>)", r"\1\2", whole[1], flags=re.DOTALL)
    for closing, tag, own_end in re.findall(r"<(/?)([a-z][a-z0-9]*)(?:\s[^<>]*?)?(/?)>", markup):
        if closing:
            assert opened.pop() == tag
        elif not own_end and tag not in ("meta", "br", "input"):
            opened.append(tag)
    assert opened == []


def test_anchors_lead_somewhere_and_are_unique(whole: tuple[Path, str, Metrics]) -> None:
    tags = Page(whole[1]).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {str(a["href"])[1:] for _, a in tags if "href" in a} <= set(ids)


def test_the_winner_is_named_also_where_it_is_the_control(whole: tuple[Path, str, Metrics]) -> None:
    texts = "".join(Page(whole[1]).texts)
    assert "The adapter beats the control, 2 sets to 1." in texts
    assert "the adapter on pinned-en and test-en, the control on pinned-zh." in texts
    assert (
        "on pinned-general-en the adapter needs 0.125 bits per byte more than the base (perplexity 40, then 44.5)"
        in texts
    )
    assert "The control wins: 1.800 bits per byte, 5.3 % fewer than the adapter (1.900)" in texts


def test_bounds_and_margins_are_shown(whole: tuple[Path, str, Metrics]) -> None:
    texts = "".join(Page(whole[1]).texts)
    assert "min 220" in texts
    assert "max 900" in texts
    assert "too short to teach anything" in texts
    failures = [failure for one in browsed(whole[1])["documents"] for failure in one["failures"]]
    short = [failure for failure in failures if failure["reason"] == "filter.n_chars.min"]
    assert short and all(failure["value"] < 220 and failure["margin"] < 0 for failure in short)
    assert 0.83 in [one["similarity"] for one in browsed(whole[1])["documents"] if one["other"]]


def test_the_same_bytes_again_whatever_the_hash_seed(whole: tuple[Path, str, Metrics], tmp_path: Path) -> None:
    script = "import sys; from corpus.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = ["report", "--input", str(whole[0]), "--output", "page"]
    for seed in ("1", "2"):
        (tmp_path / seed).mkdir()
        subprocess.run(
            [sys.executable, "-c", script, *arguments],
            cwd=tmp_path / seed,
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        )
    assert (tmp_path / "1/page/index.html").read_bytes() == (tmp_path / "2/page/index.html").read_bytes()
    assert (tmp_path / "1/page/index.html").read_text("utf-8") == whole[1]


@pytest.mark.parametrize("stages", range(1, len(HALF) + 1))
def test_what_is_not_made_yet_is_left_out_with_the_command_that_makes_it(tmp_path: Path, stages: int) -> None:
    folder = build(tmp_path / "project", documents=40)
    (folder / "reports/plots/loss.csv").unlink()
    (folder / "data/evaluate/samples.jsonl").unlink()
    for name in HALF[:stages]:
        (folder / "reports" / f"{name}.json").unlink()
    page, metrics = report(folder)
    rows = metrics["rows"]
    assert rows["in"] + rows["generated"] == rows["kept"] + rows["dropped"]
    assert "dvc repro finetune report" in page
    assert page.count("dvc repro evaluate report") == 2
    assert ("dvc repro shard report" in page) == (stages >= HALF.index("shard") + 1)
    assert ("dvc repro dedup report" in page) == (stages >= HALF.index("dedup") + 1)
    assert ("dvc repro perplexity report" in page) == (stages >= HALF.index("perplexity") + 1)


def test_a_page_of_hostile_length_stays_under_5_megabytes(tmp_path: Path) -> None:
    """Titles, addresses, details and texts as long as books, on many samples."""
    folder = build(tmp_path / "project", documents=2_000, dropped_by_clean=100)
    data = folder / "data"
    for path in [*data.glob("clean/*.parquet"), *data.glob("augment/part-*.parquet")]:
        long = {name: pl.col(name).fill_null("") + "长" * 10_000 for name in ("title", "url", "detail", "text")}
        frame = pl.read_parquet(path)
        frame.with_columns(**{name: words for name, words in long.items() if name in frame.columns}).write_parquet(path)
    page, _ = report(folder, Params.model_validate({"report": {"samples_per_reason": 300}}))
    shown = browsed(page)["documents"]
    assert len(shown) > 1_000
    longest = max(len(one[name] or "") for one in shown for name in ("title", "url", "detail"))
    assert longest in FACT_CHARS
    assert len(page.encode()) < 5_000_000


COUNTED = """
import resource, sys, time
from pathlib import Path
from corpus.report.clusters import largest_clusters
from corpus.report.tally import measured_scales, tally
data, stages = Path(sys.argv[1]), ["measure", "dedup"]
started = time.process_time()
counts = tally(data, stages, measured_scales(data, stages))
assert len(largest_clusters(data)) == 8
used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(counts.groups["documents"].sum(), time.process_time() - started, used)
"""


def test_time_grows_with_the_documents_and_memory_does_not(tmp_path: Path) -> None:
    """Eight times the documents, every other one a copy of the one before it."""
    figures = []
    for documents in (4_000, 32_000):
        folder = tmp_path / str(documents)
        numbers = pl.select(number=pl.int_range(documents))["number"]
        ids = [document_id(str(number)) for number in numbers]
        clean = pl.DataFrame({"id": ids}).with_columns(text=pl.lit("a text"), source=pl.lit("a"), lang=pl.lit("en"))
        clean = clean.with_columns(pl.lit(None, pl.String).alias(name) for name in ("date", "title", "url"))
        signals = {f"signal_{place}": (numbers * (place + 1) % 997 / 997) for place in range(30)}
        dedup = {"cluster": [ids[number // 2 * 2] for number in numbers], "kept": numbers % 2 == 0}
        frames = {"clean": clean, "measure": pl.DataFrame({"id": ids} | signals)}
        frames["dedup"] = pl.DataFrame({"id": ids} | dedup).with_columns(
            similarity=pl.lit(1.0), reasons=pl.when(~pl.col("kept")).then(pl.lit(["dedup.exact"])).otherwise([])
        )
        for name, frame in frames.items():
            (folder / name).mkdir(parents=True)
            frame.write_parquet(folder / name / "part-a-0-00000.parquet", row_group_size=1_000)
        done = command(tmp_path, sys.executable, "-c", COUNTED, str(folder))
        figures.append([float(word) for word in done.stdout.split()])
        assert figures[-1][0] == documents
    (_, few, small), (_, many, large) = figures
    assert many < 20 * few
    assert large < small + 100_000  # kilobytes


def test_counts_of_many_batches_are_summed_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "SUMMED_ROWS", 20)
    counts: dict[str, list[pl.DataFrame]] = {"lengths": []}
    for _ in range(1_000):
        tally._add(counts, "lengths", pl.DataFrame({"group": ["0", "1"], "documents": [1, 2], "kept": [1, 0]}))
        assert sum(one.height for one in counts["lengths"]) <= 22
    assert tally._sum(counts["lengths"], ["group"]).rows() == [("0", 1_000, 1_000), ("1", 2_000, 0)]


def test_the_nearest_of_a_reason_go_by_its_own_margin(tmp_path: Path) -> None:
    ids = [document_id(str(number)) for number in range(3)]
    documents = {"id": ids, "text": ["t"] * 3, "source": ["a"] * 3, "lang": ["en"] * 3}
    margins = [[-0.1, 9.0], [-0.5, 0.6], [-0.3, 2.0]]
    judged = {"id": ids, "kept": [False] * 3, "reasons": [["filter.a.min", "filter.b.max"]] * 3, "margins": margins}
    for name, columns in (("clean", documents), ("filter", judged)):
        (tmp_path / name).mkdir()
        pl.DataFrame(columns).write_parquet(tmp_path / name / "part-a-0-00000.parquet")
    near = {
        stratum.removesuffix(NEAR): frame.sort("rank")["id"].to_list()
        for batch in _candidates(tmp_path, ["filter"], {}, 0)
        for (stratum,), frame in batch.group_by("stratum")
        if str(stratum).endswith(NEAR)
    }
    assert near == {"filter.a.min": [ids[0], ids[2], ids[1]], "filter.b.max": [ids[1], ids[2], ids[0]]}


def test_a_repeated_id_is_shown_beside_the_document_that_has_it(tmp_path: Path) -> None:
    import pyarrow as pa

    from corpus.documents import DROPPED, write_table

    folder = build(tmp_path / "project", documents=40)
    kept = pl.read_parquet(folder / "data/split/part-help-0-00000.parquet").filter("kept")["id"][0]
    row = {"id": kept, "source": "help", "batch": 0, "reason": "scrape.duplicate_id", "text": "the second one"}
    (folder / "data/scrape").mkdir()
    write_table(pa.Table.from_pylist([row], DROPPED), folder / "data/scrape/dropped-help-0.parquet")
    found = [sample for sample in document_samples(folder / "data", ["scrape"], {}, 99, 0) if sample.id == kept]
    assert sorted((sample.stage, sample.kept) for sample in found) == [("scrape", False), ("split", True)]
    assert {sample.excerpt.text == "the second one" for sample in found} == {True, False}


def test_a_limit_is_refused(tmp_path: Path) -> None:
    folder = build(tmp_path / "project", documents=40)
    run = Run("report", Params(), (folder,), tmp_path / "page", reports=None, home=tmp_path / "h", limit=3)
    with pytest.raises(UserError, match="--limit"):
        execute(stage, run)


def test_what_shard_left_out_is_shown_with_its_reason(tmp_path: Path) -> None:
    folder = build(tmp_path / "project", documents=40)
    metrics = json.loads((folder / "reports/shard.json").read_text())
    metrics["rows"] |= {"kept": metrics["rows"]["kept"] - 1, "dropped": 1}
    write_report(folder / "reports", "shard", metrics | {"dropped_by_reason": {"shard.balance": 1}})
    (folder / "data/shard").mkdir()
    left_out = {"id": ["left out"], "reason": ["shard.balance"]}
    pl.DataFrame(left_out).write_parquet(folder / "data/shard/dropped-balance.parquet")
    page, _ = report(folder)
    (one,) = [one for one in browsed(page)["documents"] if one["stage"] == "shard"]
    assert [failure["reason"] for failure in one["failures"]] == ["shard.balance"]


def test_without_any_stage_it_says_what_to_run(tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()
    with pytest.raises(UserError, match=r"reports/scrape\.json does not exist: run `dvc repro scrape`"):
        report(tmp_path)


def test_broken_metrics_are_named(tmp_path: Path) -> None:
    folder = build(tmp_path / "project", documents=40)
    (folder / "reports/dedup.json").write_text("{")
    with pytest.raises(UserError, match=r"reports/dedup\.json is not JSON of a stage"):
        report(folder)


def by_reason(samples: list[Sample]) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        for failure in sample.failures:
            found.setdefault(failure.reason, []).append(sample)
    return found


def test_samples_are_few_cut_and_of_all_kinds(whole: tuple[Path, str, Metrics]) -> None:
    data, stages = whole[0] / "data", ["clean", "dedup", "filter", "augment"]
    bounds = json.loads((whole[0] / "reports/filter.json").read_text())["bounds"]
    few, many = (document_samples(data, stages, bounds, number, 0) for number in (2, 1_000))
    assert by_reason(few).keys() == by_reason(many).keys()
    assert {sample.id for sample in few} < {sample.id for sample in many}
    assert len({sample.id for sample in many}) == len(many)
    for reason, samples in by_reason(few).items():
        assert len(samples) >= min(2, len(by_reason(many)[reason]))
        assert all(len(sample.excerpt.text) <= TEXT_CHARS for sample in samples)
    assert all(sample.other for sample in by_reason(many)["dedup.near"])
    assert all(sample.other for sample in by_reason(many)["augment.unchanged"])
    other_seed = document_samples(data, stages, bounds, 2, 1)
    assert {sample.id for sample in other_seed} != {sample.id for sample in few}


def test_with_all_samples_every_document_is_there_with_its_distance(whole: tuple[Path, str, Metrics]) -> None:
    data = whole[0] / "data"
    bounds = json.loads((whole[0] / "reports/filter.json").read_text())["bounds"]
    samples = {sample.id: sample for sample in document_samples(data, ["dedup", "filter"], bounds, 1_000, 0)}
    rows = [
        {**a, **b, **c}
        for part in sorted((data / "measure").iterdir())
        for a, b, c in zip(
            *(pl.read_parquet(data / stage / part.name).to_dicts() for stage in ("measure", "perplexity", "filter")),
            strict=True,
        )
    ]
    assert len(rows) == 90
    for row in rows:
        sample = samples[row["id"]]
        assert sample.kept == bool(row["kept"])
        if row["kept"]:  # the nearest of the bounds, by hand
            away = {
                rule: abs(row[rule.rpartition(".")[0]] - facts["bound"]) / facts["spread"]
                for rule, facts in bounds["en"].items()
                if row[rule.rpartition(".")[0]] is not None
            }
            assert sample.distance == pytest.approx(min(away.values()))
            assert sample.nearest == min(away, key=lambda rule: away[rule])
        elif row["margins"]:
            assert sample.distance == pytest.approx(max(abs(margin) for margin in row["margins"]))


def test_personal_data_in_what_clean_dropped_is_masked(tmp_path: Path) -> None:
    import pyarrow as pa

    from corpus.documents import DROPPED, write_table

    folder = build(tmp_path / "project", documents=40)
    text = "x" * (TEXT_CHARS - 8) + " 13912345678"
    row = {"id": "1", "source": "help", "batch": 0, "reason": "clean.language", "text": text}
    write_table(pa.Table.from_pylist([row], DROPPED), folder / "data/clean/dropped-more-0.parquet")
    (sample,) = [s for s in document_samples(folder / "data", ["clean"], {}, 99, 0) if s.id == "1"]
    assert "139" not in sample.excerpt.text
    assert sample.excerpt.cut == len(text) - TEXT_CHARS
    (sample,) = [s for s in document_samples(folder / "data", ["clean"], {}, 99, 0, False) if s.id == "1"]
    assert sample.excerpt.text.endswith(" 1391234")


def test_parameters_are_shown_but_for_the_workers(tmp_path: Path) -> None:
    folder = build(tmp_path / "project", documents=40)
    params = Params.model_validate({"workers": 3, "dedup": {"threshold": 0.77}})
    page, _ = report(folder, params)
    assert "threshold: 0.77" in page
    assert "workers" not in page
    sections: dict[str, Any] = stage._sections(params)
    assert yaml.safe_load(sections["dedup"])["threshold"] == 0.77
