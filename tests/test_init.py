import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from corpus.cli import main
from corpus.errors import UserError
from corpus.init import describe_site, gathered, with_sources, without_settings_of_the_sample, write_project
from corpus.params import Params, load
from corpus.scrape.urls import normalise_url, path_and_query
from corpus.sources import HtmlSource, RowSource, SiteSource

PROJECT = Path(__file__).parent.parent

# Values of the template that are no defaults, because a default names no file of a project.
NOT_DEFAULT = {"reference.texts.en", "reference.texts.zh-Hans"}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one of everything, as working folder."""
    for name in (
        "docs/a.html",
        "docs/robots.txt",
        "rows.jsonl",
        "notes/a.txt",
        "notes/b.txt",
        "data.parquet",
        "odd.doc",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_source_for_each_thing_named(here: Path) -> None:
    said = write_project(
        ["http://docs.example.org/guide/", "docs", "rows.jsonl", "notes/a.txt", "notes/b.txt", "data.parquet"], Path()
    )
    site, pages, rows, notes, table = load(Path("params.yaml")).sources
    assert isinstance(site, SiteSource) and site.start == ["http://docs.example.org/guide/"]
    assert site.allow == ["^/guide/"] and site.delay_s == 1 and site.name == "docs_example_org"
    assert isinstance(pages, HtmlSource) and pages.path == "docs"
    assert isinstance(rows, RowSource) and (rows.kind, rows.path) == ("jsonl", "rows.jsonl")
    assert isinstance(notes, RowSource) and (notes.kind, notes.path) == ("text", "notes/*.txt")
    assert isinstance(table, RowSource) and (table.kind, table.name) == ("parquet", "data")
    assert "corpus run --limit 1000" in said and "dvc repro" in said


def test_the_graph_watches_the_sources_and_no_code_that_is_elsewhere(here: Path) -> None:
    write_project(["docs", "notes/*.txt", "rows.jsonl"], Path())
    graph = yaml.safe_load(Path("dvc.yaml").read_text("utf-8"))["stages"]
    assert graph["scrape"]["deps"] == ["docs", "notes", "rows.jsonl"]
    own = yaml.safe_load((PROJECT / "dvc.yaml").read_text("utf-8"))["stages"]
    outputs = {out for stage in own.values() for out in stage.get("outs", []) if isinstance(out, str)}
    for name, stage in own.items():
        data = [path for path in stage["deps"] if path.startswith(("data/", "reports/")) and path != "data/sample"]
        assert [path for path in graph[name]["deps"] if path.startswith(("data/", "reports/"))] == data
        assert graph[name]["cmd"] == stage["cmd"] and graph[name].get("outs") == stage.get("outs")
        for dependency in graph[name]["deps"]:
            # No stage waits for a file that nothing brings.
            brought = any(dependency == out or dependency.startswith(f"{out}/") for out in outputs)
            assert brought or Path(dependency).exists() or dependency.startswith("reports/"), dependency


def test_the_files_lie_where_asked_and_point_at_the_sources(here: Path) -> None:
    write_project(["rows.jsonl", "https://example.org"], Path("new/project"))
    rows, site = load(Path("new/project/params.yaml")).sources
    assert isinstance(rows, RowSource) and rows.path == "../../rows.jsonl"
    assert isinstance(site, SiteSource) and site.start == ["https://example.org/"] and site.allow == ["^/"]
    assert Path("new/project/data/evaluation/zh.jsonl").exists()
    assert "cd new/project" in write_project(["docs"], Path("other")).replace("other", "new/project")


def test_files_at_addresses_are_sources_that_dvc_does_not_watch(here: Path) -> None:
    Path("data").mkdir()
    write_project(["rows.jsonl", "s3://bucket/logs/*.jsonl.zst", "https://example.org/rows.parquet"], Path())
    _, logs, table = load(Path("params.yaml")).sources
    assert isinstance(logs, RowSource) and (logs.name, logs.path) == ("logs", "s3://bucket/logs/*.jsonl.zst")
    assert isinstance(table, RowSource) and (table.kind, table.path) == ("parquet", "https://example.org/rows.parquet")
    graph = yaml.safe_load(Path("dvc.yaml").read_text("utf-8"))["stages"]
    assert graph["scrape"]["deps"] == ["rows.jsonl"]


def test_git_ignores_what_stages_write_also_before_dvc_has_run(here: Path) -> None:
    write_project(["rows.jsonl"], Path())
    subprocess.run(["git", "init", "--quiet"], check=True)
    graph = yaml.safe_load(Path("dvc.yaml").read_text("utf-8"))["stages"]
    for output in (out for stage in graph.values() for out in stage["outs"]):
        path, tracked = (output, False) if isinstance(output, str) else (next(iter(output)), True)
        ignored = subprocess.run(["git", "check-ignore", "--quiet", path]).returncode == 0
        assert ignored is not tracked, path
    for path in ("data/reference/en.txt", "data/evaluation/en.jsonl", "params.yaml", "dvc.lock"):
        assert subprocess.run(["git", "check-ignore", "--quiet", path]).returncode == 1, path


def test_what_is_there_already_stays(here: Path) -> None:
    Path("dvc.yaml").write_text("mine")
    Path(".gitignore").write_text("mine")
    with pytest.raises(UserError, match=r"dvc\.yaml is there already"):
        write_project(["docs"], Path())
    assert Path("dvc.yaml").read_text() == "mine" and not Path("params.yaml").exists()
    Path("dvc.yaml").unlink()
    write_project(["docs"], Path())
    assert Path(".gitignore").read_text() == "mine"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "nowhere does not exist: name a web address, a folder"),
        ("odd.doc", r"odd\.doc is no source"),
        ("empty", r"empty holds no \.html"),
        ("none/*.txt", r"none/\*\.txt matches no file"),
        ("foo://example.org/rows.jsonl", "foo:// is no address that can be read"),
        ("s3://bucket/rows", r"name files, such as s3://bucket/rows/\*\.jsonl, or write into params\.yaml"),
        ("docs/*.html", "name docs"),
    ],
)
def test_what_is_no_source_is_refused_before_anything_is_written(here: Path, source: str, message: str) -> None:
    Path("empty").mkdir()
    with pytest.raises(UserError, match=message):
        write_project(["rows.jsonl", source], Path("out"))
    assert not Path("out").exists()


def test_files_of_a_shells_pattern_come_together_but_a_few_stay_apart(here: Path) -> None:
    assert gathered(["notes/a.txt", "notes/b.txt", "rows.jsonl"], Path()) == ["notes/*.txt", "rows.jsonl"]
    Path("notes/c.txt").write_text("x")
    assert gathered(["rows.jsonl", "more.jsonl"], Path()) == ["rows.jsonl", "more.jsonl"]  # beside the project's files
    assert gathered(["notes/a.txt", "notes/b.txt"], Path()) == ["notes/a.txt", "notes/b.txt"]


def test_names_differ(here: Path) -> None:
    Path("more").mkdir()
    Path("more/rows.jsonl").write_text("x")
    write_project(["rows.jsonl", "more/rows.jsonl"], Path())
    assert [source.name for source in load(Path("params.yaml")).sources] == ["rows", "rows_2"]


def test_the_command_says_what_to_do_next(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "docs"]) == 0
    assert "git init && dvc init && git add --all && git commit -m sources && dvc repro" in capsys.readouterr().out
    assert main(["init", "docs"]) == 2


# ---- the commented params.yaml says what the defaults are ------------------------------------------------------------


def template() -> str:
    params = (PROJECT / "params.yaml").read_text("utf-8")
    return without_settings_of_the_sample(with_sources(params, "sources: []\n"))


def values(tree: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict) and tree:
        for name, value in tree.items():
            yield from values(value, f"{key}.{name}".lstrip("."))
    else:
        yield key, tree


def test_every_value_of_the_template_is_the_default() -> None:
    tree = yaml.safe_load(template())
    read = dict(values(Params.model_validate(tree).model_dump()))
    default = dict(values(Params().model_dump()))
    for key, value in values(tree):
        assert key in NOT_DEFAULT or read[key] == default[key], f"{key}: {value} is not the default {default.get(key)}"


def test_the_template_names_every_parameter() -> None:
    tree = yaml.safe_load(template())
    for section, fields in Params().model_dump().items():
        missing = set(fields) - set(tree[section]) if isinstance(fields, dict) else set()
        assert not missing, f"{section} in params.yaml lacks {sorted(missing)}"


def test_the_folder_of_an_address_is_allowed_in_the_spelling_of_the_crawl() -> None:
    described = describe_site("HTTP://Example.org:80/指南/x.html?a=1#b")
    site = SiteSource.model_validate(described | {"name": "site"})
    assert site.start == [normalise_url("http://example.org/指南/x.html?a=1")]
    assert all(re.search(pattern, path_and_query(site.start[0])) for pattern in site.allow)
    for address in ("ftp://example.org/", "https://", "http://[/"):
        with pytest.raises(UserError, match="is no web address"):
            describe_site(address)
