"""The report of a hand-written project: what it counts, what it draws, and that nothing in it can run."""

from __future__ import annotations

import html.parser
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from report_project import HOSTILE, HOSTILE_NAME, build, write_report

from corpus.errors import StageError, UserError
from corpus.params import Params
from corpus.report import stage
from corpus.report.samples import TEXT_CHARS, dropped_samples
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
    assert not names & {"script", "iframe", "object", "embed", "link", "img", "form", "base", "textarea"}
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        assert attributes.get("src") is None
        assert (attributes.get("href") or "#").startswith("#")
        assert "javascript" not in str(attributes)
        assert "alert" not in str(attributes)
        if tag == "meta" and "http-equiv" in attributes:
            assert attributes["http-equiv"] == "Content-Security-Policy"
            assert "default-src 'none'" in str(attributes["content"])
            assert "script-src" not in str(attributes["content"])
    style = whole[1].partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_hostile_text_is_shown_as_text(whole: tuple[Path, str, Metrics]) -> None:
    texts = "".join(Page(whole[1]).texts)
    assert HOSTILE[0] in texts
    assert HOSTILE[1] in texts
    assert HOSTILE_NAME in texts
    assert "{{ 7 * 7 }}" in texts  # a template's braces in a text are no template
    assert not re.search("[\x00\u202e]", texts)


def test_every_element_is_closed_in_order(whole: tuple[Path, str, Metrics]) -> None:
    opened: list[str] = []
    for closing, tag, own_end in re.findall(r"<(/?)([a-z][a-z0-9]*)(?:\s[^<>]*?)?(/?)>", whole[1]):
        if closing:
            assert opened.pop() == tag
        elif not own_end and tag not in ("meta", "br"):
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
    assert re.search(r"filter\.n_chars\.min = \d+ \(margin -\d", texts)
    assert "kept instead, similarity 0.83" in texts


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


def test_without_any_stage_it_says_what_to_run(tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()
    with pytest.raises(UserError, match=r"reports/scrape\.json does not exist: run `dvc repro scrape`"):
        report(tmp_path)


def test_broken_metrics_are_named(tmp_path: Path) -> None:
    folder = build(tmp_path / "project", documents=40)
    (folder / "reports/dedup.json").write_text("{")
    with pytest.raises(UserError, match=r"reports/dedup\.json is not JSON"):
        report(folder)


def test_samples_are_few_cut_and_masked(whole: tuple[Path, str, Metrics]) -> None:
    data = whole[0] / "data"
    few = dropped_samples(data, ["clean", "dedup", "filter", "augment"], 2, 0)
    many = dropped_samples(data, ["clean", "dedup", "filter", "augment"], 1_000, 0)
    assert few.keys() == many.keys()
    for reason, samples in few.items():
        assert samples == many[reason][: len(samples)]
        assert len(samples) == min(2, len(many[reason]))
        assert all(reason in [failure.reason for failure in sample.failures] for sample in samples)
        assert all(len(sample.excerpt.text) <= TEXT_CHARS for sample in samples)
    assert many["dedup.near"][0].other is not None
    assert many["augment.unchanged"][0].other is not None
    assert [s.id for s in many["dedup.near"]] != [
        s.id for s in dropped_samples(data, ["dedup"], 1_000, 1)["dedup.near"]
    ]


def test_personal_data_in_what_clean_dropped_is_masked(tmp_path: Path) -> None:
    import pyarrow as pa

    from corpus.documents import DROPPED, write_table

    folder = build(tmp_path / "project", documents=40)
    text = "x" * (TEXT_CHARS - 8) + " 13912345678"
    row = {"id": "1", "source": "help", "batch": 0, "reason": "clean.language", "text": text}
    write_table(pa.Table.from_pylist([row], DROPPED), folder / "data/clean/dropped-more-0.parquet")
    (sample,) = [s for s in dropped_samples(folder / "data", ["clean"], 99, 0)["clean.language"] if s.id == "1"]
    assert "139" not in sample.excerpt.text
    assert sample.excerpt.cut == len(text) - TEXT_CHARS
    (sample,) = [s for s in dropped_samples(folder / "data", ["clean"], 99, 0, False)["clean.language"] if s.id == "1"]
    assert sample.excerpt.text.endswith(" 1391234")


def test_parameters_are_shown_but_for_the_workers(tmp_path: Path) -> None:
    folder = build(tmp_path / "project", documents=40)
    params = Params.model_validate({"workers": 3, "dedup": {"threshold": 0.77}})
    page, _ = report(folder, params)
    assert "threshold: 0.77" in page
    assert "workers" not in page
    sections: dict[str, Any] = stage._sections(params)
    assert yaml.safe_load(sections["dedup"])["threshold"] == 0.77
