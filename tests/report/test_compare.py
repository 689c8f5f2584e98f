"""Two runs side by side: what changed, what must not be compared, and the page that shows it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import command
from report_project import build, write_report

from corpus.cli import main
from corpus.errors import UserError
from corpus.params import Params
from corpus.report import stage
from corpus.report.compare import Figure, compare, flattened, in_folder, in_git
from corpus.stage import Run, execute


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = build(tmp_path / "project")
    (folder / "params.yaml").write_text("filter:\n  bounds: {en: {mattr: {min: 0.35}}}\n")
    for words in (["init", "--quiet"], ["add", "reports", "params.yaml"], ["commit", "--quiet", "-m", "first"]):
        command(folder, "git", *words)
    return folder


def changed(folder: Path, name: str, **values: Any) -> None:
    metrics = json.loads((folder / "reports" / f"{name}.json").read_text())
    for path, value in values.items():
        place = metrics
        *keys, last = path.split("__")
        for key in keys:
            place = place[key]
        place[last] = value
    write_report(folder / "reports", name, metrics)


def test_nothing_changed(project: Path) -> None:
    found = compare("HEAD", "abc", in_git(project, "HEAD"), in_folder(project))
    assert found is not None
    assert found.empty
    assert len(found.scores) == 3 * 3 * 2  # sets, models, bits per byte and perplexity
    assert all(score.better is None for score in found.scores)


def test_parameters_drops_and_scores_that_changed(project: Path) -> None:
    (project / "params.yaml").write_text("filter:\n  bounds: {en: {mattr: {min: 0.5}}}\nworkers: 3\n")
    rows = json.loads((project / "reports/filter.json").read_text())
    reasons = rows["dropped_by_reason"] | {"filter.mattr.min": 30}
    changed(project, "filter", dropped_by_reason=reasons)
    changed(project, "evaluate", **{"sets__pinned-en__adapted__bits_per_byte": 2.0})
    changed(project, "evaluate", **{"sets__pinned-zh__adapted__bits_per_byte": 2.0})
    found = compare("HEAD", None, in_git(project, "HEAD"), in_folder(project))
    assert found and not found.empty
    assert found.params == [("filter.bounds.en.mattr.min", "0.35", "0.5")]
    before = rows["dropped_by_reason"].get("filter.mattr.min", 0)
    assert [figure for figure in found.drops if figure.name == "filter.mattr.min"] == [
        Figure("filter.mattr.min", before, 30)
    ]
    better = {
        score.set: score.better for score in found.scores if (score.model, score.metric) == ("adapted", "bits_per_byte")
    }
    assert better == {"pinned-en": True, "pinned-zh": False, "test-en": None}


def test_scores_on_other_documents_are_refused(project: Path) -> None:
    changed(project, "evaluate", **{"sets__test-en__fingerprint": "ffff"})
    found = compare("HEAD", None, in_git(project, "HEAD"), in_folder(project))
    assert found and not found.empty
    assert found.refused == [("test-en", "0f1e2d3c4b5a6978", "ffff")]
    assert {score.set for score in found.scores} == {"pinned-en", "pinned-zh"}


def test_a_commit_with_broken_files_is_compared_as_far_as_it_goes(project: Path) -> None:
    (project / "reports/dedup.json").write_text("<<<<<<< HEAD\n{}")
    (project / "params.yaml").write_text("filter: [")
    command(project, "git", "commit", "--quiet", "--all", "-m", "broken")
    command(project, "git", "checkout", "--quiet", "HEAD~1", "--", "reports", "params.yaml")
    found = compare("HEAD", None, in_git(project, "HEAD"), in_folder(project))
    assert found and found.params == []
    assert "dedup" in {figure.name for figure in found.left if figure.before is None}
    (project / "reports/scrape.json").write_text("{")
    assert compare("HEAD", None, in_git(project, "HEAD"), in_folder(project)) is None


@pytest.mark.parametrize("shape", ["{}", "[]", "7", '{"rows": 1}', '{"rows": {"in": 1}}'])
def test_json_of_another_shape_is_no_report(project: Path, shape: str) -> None:
    whole = (project / "reports/dedup.json").read_text()
    (project / "reports/dedup.json").write_text(shape)
    command(project, "git", "commit", "--quiet", "--all", "-m", "another shape")
    run = Run("report", Params(), (), project / "data/report", project / "data", project / "reports", project / "home")
    with pytest.raises(UserError, match=r"reports/dedup\.json is not JSON of a stage"):
        execute(stage, run)
    (project / "reports/dedup.json").write_text(whole)
    execute(stage, run)
    found = compare("HEAD", None, in_git(project, "HEAD"), in_folder(project))
    assert found and "dedup" in {figure.name for figure in found.left if figure.before is None}
    changed(project, "evaluate", sets={"a": 7, "b": {}})
    found = compare("HEAD", None, in_git(project, "HEAD"), in_folder(project))
    assert found and found.scores == []


def test_a_list_of_sources_is_compared_by_name() -> None:
    before = flattened({"sources": [{"name": "a", "path": "x"}, {"name": "b", "path": "y"}]})
    now = flattened({"sources": [{"name": "new", "path": "z"}, {"name": "a", "path": "x"}, {"name": "b", "path": "y"}]})
    assert now.keys() - before.keys() == {"sources.new.path"}
    assert all(now[key] == before[key] for key in before)


def test_in_the_graph_the_page_shows_the_last_commit(project: Path) -> None:
    changed(project, "evaluate", **{"sets__test-en__fingerprint": "ffff"})
    run = Run("report", Params(), (), project / "data/report", project / "data", project / "reports", project / "home")
    execute(stage, run)
    page = (project / "reports/index.html").read_text("utf-8")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=project, capture_output=True, text=True).stdout[:10]
    assert f"the last commit ({commit})" in page
    assert "Scores on test-en do not compare" in page
    assert "git revision </span><span" in page and commit in page


def test_compare_writes_a_page_of_its_own(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    changed(project, "evaluate", **{"sets__test-en__fingerprint": "ffff"})
    assert main(["report", "--compare", "HEAD"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("report beside HEAD → reports/compare.html\n  note: scores on test-en do not compare")
    page = (project / "reports/compare.html").read_text("utf-8")
    assert "What is different from HEAD (" in page
    assert not (project / "reports/index.html").exists()
    assert main(["report", "--compare", "HAED"]) == 2
    assert "HEAD" in capsys.readouterr().err
    assert main(["report", "--compare", "HEAD", "--limit", "3"]) == 2


def test_a_folder_is_compared_as_well(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(project, other)
    changed(other, "dedup", dropped_by_reason={"dedup.near": 1})
    monkeypatch.chdir(project)
    assert main(["report", "--compare", str(other), "--output", "beside"]) == 0
    assert "dedup.near" in (project / "beside/index.html").read_text("utf-8").partition('id="scores"')[0]
    assert main(["report", "--compare", str(tmp_path)]) == 2
    assert "without data/" in capsys.readouterr().err
