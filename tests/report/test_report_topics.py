"""The section about topics: tables by language, shown as text whatever the words are, and absent without topics."""

from __future__ import annotations

import html.parser
import json
from pathlib import Path
from typing import Any

from report_project import HOSTILE, build, write_report

from corpus.params import Params
from corpus.report import stage
from corpus.report.topics import topic_tables
from corpus.stage import Run, execute

ENGLISH = {
    "method": "nmf",
    "documents": 1_200,
    "vocabulary": 8_000,
    "coherence": 0.25,
    "consistency": 0.64,
    "reason": None,
    "topics": [
        {"share": 0.5, "coherence": 0.31, "words": ["backup", HOSTILE[0], HOSTILE[2]]},
        {"share": 0.125, "coherence": None, "words": ["folder"]},
    ],
}
FEW = ENGLISH | {"topics": [], "coherence": None, "consistency": None, "reason": "3 different texts share 2 words"}


class Section(html.parser.HTMLParser):
    """The tags within <section id="topics">, and its texts but for the Chinese ones."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.inside, self.chinese = False, False
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside |= (tag, dict(attrs).get("id")) == ("section", "topics")
        self.chinese |= dict(attrs).get("class") == "zh"
        if self.inside:
            self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        self.inside &= tag != "section"
        self.chinese &= tag != "span"

    def handle_data(self, data: str) -> None:
        self.texts += data if self.inside and not self.chinese else ""


def page_with(folder: Path, topics: dict[str, Any]) -> str:
    """The report of a project in which measure found these topics by language."""
    build(folder, documents=40)
    metrics = json.loads((folder / "reports/measure.json").read_text())
    languages = {lang: {"documents": 20, "signals": {}, "topics": facts} for lang, facts in topics.items()}
    write_report(folder / "reports", "measure", metrics | {"languages": languages})
    execute(
        stage, Run("report", Params(), (), folder / "data/report", folder / "data", folder / "reports", folder / "h")
    )
    return (folder / "reports/index.html").read_text("utf-8")


def test_topics_are_tabulated_by_language_and_shown_as_text(tmp_path: Path) -> None:
    page = page_with(tmp_path / "project", {"en": ENGLISH, "zh-Hans": FEW})
    section = Section(page)
    assert '<a href="#topics">' in page
    assert HOSTILE[0] in section.texts
    assert "{{ 7 * 7 }}" in section.texts
    assert "\u202e" not in section.texts
    assert "\x00" not in section.texts
    assert not {tag for tag, _ in section.tags} & {"script", "img", "svg", "iframe"}
    widths = [attributes["style"] for tag, attributes in section.tags if tag == "i"]
    assert widths == ["width:100.0%", "width:25.0%"]
    shares, languages = ("50.0 %", "12.5 %", "0.31", "–"), ("English", "简体中文")
    notes = ("1,200 texts, 8,000 words", "mean coherence 0.25, mean consistency 0.64.")
    for shown in (*shares, *languages, *notes):
        assert shown in section.texts
    assert "No topics: 3 different texts share 2 words." in section.texts


def test_without_topics_there_is_no_section(tmp_path: Path) -> None:
    page = page_with(tmp_path / "project", {"en": FEW})
    assert "#topics" not in page
    assert Section(page).tags == []
    assert topic_tables({}) == []
    assert topic_tables({"measure": {"rows": {}}}) == []
