"""What docs/extending.md shows, taken out of it and run: a signal, a source and a stage in one project, by real DVC."""

from __future__ import annotations

import json
import mailbox
import re
import sys
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import PROJECT, command

from corpus.documents import document_id, read
from corpus.errors import StageError
from corpus.params import Params
from corpus.stage import Run, execute

PAGE = (PROJECT / "docs" / "extending.md").read_text("utf-8")
MOST_LINES = 30
MAILS = (
    (
        "Backup stops",
        "",
        "The nightly backup stops.\n\n1. Open it.\n2. Press start.\n\nWhy? The log of Aurora is empty.",
    ),
    (
        "备份停止",
        "<0@example.org>",
        "备份到第一个文件夹就停止了。\n\n1、打开设置。\n\n极光和 Aurora 都没有提示，怎么办？为什么？",
    ),
    ("Offer", "", None),
)


def blocks(marker: str) -> list[str]:
    """The code blocks below a comment `<!-- marker -->`, in order."""
    return re.findall(rf"<!-- {re.escape(marker)} -->\n```\w+\n(.*?)```", PAGE, re.DOTALL)


def files() -> dict[str, str]:
    """The files that the page shows, by name."""
    return {name: text for name in re.findall(r"<!-- file: (\S+) -->", PAGE) for text in blocks(f"file: {name}")}


def merged(old: Any, new: Any) -> Any:
    """Two trees of YAML as one, in which the new one's values count."""
    if isinstance(old, dict) and isinstance(new, dict):
        return old | {key: merged(old.get(key), value) for key, value in new.items()}
    return new


def edit_yaml(path: Path, changes: list[dict[str, Any]]) -> None:
    tree = yaml.safe_load(path.read_text("utf-8"))
    for change in changes:
        tree = merged(tree, change)
    path.write_text(yaml.safe_dump(tree, allow_unicode=True, sort_keys=False), "utf-8")


def write_mailbox(path: Path) -> None:
    box = mailbox.mbox(path)
    for number, (subject, thread, text) in enumerate(MAILS):
        mail = EmailMessage()
        mail["Message-ID"], mail["Subject"] = f"<{number}@example.org>", subject
        mail["Date"] = f"Mon, {number + 4} May 2026 09:00:00 +0000"
        if thread:
            mail["References"] = thread
        mail.set_content(text or "<p>page</p>", subtype="plain" if text else "html")
        box.add(mail)
    box.flush()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in git with all that the page shows, built by DVC up to the annotations."""
    folder = tmp_path_factory.mktemp("extending") / "project"
    folder.mkdir()
    for name, text in files().items():
        (folder / name).write_text(text, "utf-8")
    write_mailbox(folder / "inbox.mbox")
    command(folder, sys.executable, "mails.py", "inbox.mbox", "mails.jsonl")
    command(folder, "corpus", "init", "mails.jsonl")
    edit_yaml(folder / "params.yaml", [yaml.safe_load(text) for text in blocks("params.yaml")])
    stages = [yaml.safe_load(text) for text in blocks("stages of dvc.yaml")]
    edit_yaml(folder / "dvc.yaml", [{"stages": stage} for stage in stages])
    command(folder, "git", "init", "--quiet")
    command(folder, "dvc", "init", "--quiet")
    (folder / "mails.jsonl").unlink()
    done = command(folder, "dvc", "repro", "measure", "products")
    assert set(re.findall(r"Running stage '(\w+)'", done.stdout)) == {"mails", "scrape", "clean", "measure", "products"}
    return folder


def test_each_example_is_short_and_there() -> None:
    assert files().keys() == {"mine.py", "mails.py", "products.py", "products.yaml"}
    assert all(len(text.splitlines()) <= MOST_LINES for text in files().values())
    assert len(blocks("stages of dvc.yaml")) == 3
    assert len(blocks("params.yaml")) == 2
    shown = PAGE.count("<!-- file: ") + PAGE.count("<!-- params.yaml") + PAGE.count("<!-- stages of dvc.yaml")
    assert len(re.findall(r"^```(?:python|yaml)$", PAGE, re.MULTILINE)) == shown  # no block that is not run


def test_the_source_brings_each_mail_or_says_why_not(project: Path) -> None:
    documents = read("clean", data=project / "data").sort("date")
    assert documents["id"].to_list() == [document_id(f"mails\0<{number}@example.org>") for number in (0, 1)]
    assert documents["title"].to_list() == ["Backup stops", "备份停止"]
    assert [json.loads(meta)["thread"] for meta in documents["meta"]] == ["<0@example.org>"] * 2
    reasons = json.loads((project / "reports" / "scrape.json").read_text())["dropped_by_reason"]
    assert reasons == {"scrape.error.text": 1}


def test_the_signals_are_measured_and_judged_by(project: Path) -> None:
    measured = read("measure", data=project / "data", columns=["date", "steps", "questions"]).sort("date")
    assert measured["steps"].to_list() == [2, 1]
    assert measured["questions"].to_list() == [1, 2]
    inputs = ("--input", "data/clean", "data/measure")
    profile = "filter.profile={en: gopher, zh-Hans: gopher}"  # rules that need no language model
    bounds = "filter.bounds={en: {steps: {min: 3}}}"
    asked = ("corpus", "filter", *inputs, "--set", profile, "--what-if", bounds)
    table = command(project, *asked).stdout
    assert re.search(r"steps\.max +40 +– ", table), table  # the page's bound, which the question takes away
    assert re.search(r"steps\.min +– +3 ", table), table


def test_the_stage_annotates_and_dvc_knows_it(project: Path) -> None:
    found = read("products", data=project / "data", columns=["date", "products"]).sort("date")
    assert found["products"].to_list() == [["Aurora"], ["Aurora", "极光"]]
    metrics = json.loads((project / "reports" / "products.json").read_text())
    assert metrics["products"] == {"Aurora": 2, "极光": 1}
    assert "up to date" in command(project, "dvc", "repro", "products").stdout
    (project / "products.yaml").write_text("names: [log]\n", "utf-8")
    assert re.findall(r"Running stage '(\w+)'", command(project, "dvc", "repro", "products").stdout) == ["products"]
    assert read("products", data=project / "data", columns=["products"])["products"].explode().to_list().count("log")


def test_the_stage_has_the_options_and_the_manners_of_every_stage(project: Path) -> None:
    alone = (sys.executable, "products.py", "--input", "data/clean", "--output", "named", "--workers", "2")
    assert "products: 1 in, 1 kept" in command(project, *alone, "--limit", "1").stdout
    refused = command(project, sys.executable, "products.py", "--limit", "1", check=False)
    assert refused.returncode == 2
    assert "error: --limit needs --output" in refused.stderr


def test_what_the_page_says_of_stages_that_break_the_rules(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(project))
    monkeypatch.chdir(project)
    import products

    run = Run(
        "products", Params(), (project / "data" / "clean",), tmp_path / "out", reports=None, home=tmp_path / "home"
    )
    assert execute(products, run)["rows"]["kept"] == 2
    monkeypatch.setattr(products, "find", lambda documents, names: documents.select("id").head(0))
    monkeypatch.setattr(products, "VERSION", 2)
    with pytest.raises(StageError, match="not the documents' rows"):
        execute(products, run)
