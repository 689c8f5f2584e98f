"""The page in a real browser, opened from disk without a network: drawn whole, silent, and never obeying its texts."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from report_project import HOSTILE, HOSTILE_NAME, build
from small_corpus import build as build_corpus

from corpus.params import Params
from corpus.report import stage
from corpus.stage import Run, execute

PROGRAM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="no Chromium: install Debian's package `chromium`, or name one with CHROMIUM=PATH"
)
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=PROGRAM, args=OPTIONS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = build(tmp_path_factory.mktemp("report") / "project")
    run = Run("report", Params(), (), folder / "data/report", folder / "data", folder / "reports", home=folder / "home")
    execute(stage, run)
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus that every stage has really built, so that there are pages before cleaning."""
    return build_corpus(tmp_path_factory.mktemp("corpus"))


def opened(browser: Browser, folder: Path, said: list[str], **options: Any) -> Page:
    """The report in a new window; what its console says, and what it asks of any network, comes into the list."""
    page = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options)).new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(f"dialog {dialog.message}"))
    page.on("request", lambda request: said.append(request.url) if not request.url.startswith("file:") else None)
    page.goto((folder / "reports" / "index.html").as_uri())
    return page


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_chart_is_drawn_and_nothing_is_wider_than_the_window(
    browser: Browser, project: Path, theme: str, width: int
) -> None:
    said: list[str] = []
    page = opened(browser, project, said, color_scheme=theme, viewport={"width": width, "height": 844})
    assert said == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    charts = page.locator("svg").all()
    assert len(charts) >= 16
    for chart in charts:
        assert chart.locator("rect, polyline").count() > 0
        box = chart.bounding_box()
        assert box and box["width"] > 100 and box["height"] > 50
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, re.findall(r"\d+", background)[:3])) / 3
    assert (brightness > 128) == (theme == "light")


def test_the_whole_page_is_under_5_megabytes(corpus: Path) -> None:
    assert (corpus / "reports/index.html").stat().st_size < 5_000_000


def test_hostile_texts_stay_texts(browser: Browser, project: Path) -> None:
    said: list[str] = []
    page = opened(browser, project, said)
    page.select_option("#choose-state", "dropped")
    while page.locator("#more-documents").is_visible():
        page.click("#more-documents")
    shown = page.inner_text("#document-list")
    assert HOSTILE[0] in shown
    assert HOSTILE[1] in shown
    assert HOSTILE_NAME in shown
    assert page.title() == "Corpus report"
    assert page.locator("main iframe, main img, main meta, main style, main script").count() == 0
    assert said == []


def test_a_script_that_got_in_would_not_run(browser: Browser, project: Path, tmp_path: Path) -> None:
    """The page's policy is the second wall, behind escaping: only its own script has the right hash."""
    text = (project / "reports/index.html").read_text("utf-8")
    folder = tmp_path / "reports"
    folder.mkdir()
    broken = text.replace("<main>", "<main><script>document.title = 'taken'</script><img src=x onerror='alert(1)'>")
    (folder / "index.html").write_text(broken, "utf-8")
    said: list[str] = []
    page = opened(browser, tmp_path, said)
    assert page.title() == "Corpus report"
    assert not [one for one in said if one.startswith("dialog")]
    assert [one for one in said if "Content Security Policy" in one]


def test_the_language_switches_everything_and_is_remembered(browser: Browser, project: Path) -> None:
    said: list[str] = []
    page = opened(browser, project, said)
    assert page.inner_text("h1") == "Corpus report"
    page.click("button[value=zh]")
    assert page.inner_text("h1") == "语料报告"
    assert page.get_attribute("html", "lang") == "zh-Hans"
    assert page.get_attribute("#choose-words", "placeholder") == "词语、网址或 id"
    assert "任何原因" in page.inner_text("#choose-reason")
    titles = page.locator("h2, nav a, thead th:not(:empty)").all_inner_texts()
    assert [text for text in titles if text and not re.search("[\u4e00-\u9fff]|^[0-9]+ %$", text)] == []
    page.reload()
    assert page.inner_text("h1") == "语料报告"
    page.click("button[value=en]")
    assert page.inner_text("h1") == "Corpus report"
    assert said == []


def test_a_reader_whose_browser_is_chinese_gets_chinese(browser: Browser, project: Path) -> None:
    page = opened(browser, project, [], locale="zh-CN")
    assert page.inner_text("h1") == "语料报告"


def test_documents_are_searched_chosen_and_sorted(browser: Browser, project: Path) -> None:
    said: list[str] = []
    page = opened(browser, project, said)
    everything = json.loads(page.inner_text("#documents-data") or page.text_content("#documents-data") or "")
    documents = everything["documents"]

    def number() -> int:
        return int(page.inner_text("#document-count").split()[0])

    assert number() == len(documents)
    words = next(one["title"] for one in documents if one["title"] and one["title"].startswith("Page "))
    page.fill("#choose-words", words.upper())
    expected = [one for one in documents if words.lower() in json.dumps(one, ensure_ascii=False).lower()]
    assert number() == len(expected) > 0
    assert words in page.locator("#document-list mark").first.inner_text()
    page.fill("#choose-words", "")
    page.click("#drops a[data-reason='filter.n_chars.min']")
    failed = [one for one in documents if any(f["reason"] == "filter.n_chars.min" for f in one["failures"])]
    assert number() == len(failed)
    page.select_option("#choose-order", "near")
    ids = [line.split(" · ")[-1] for line in page.locator("#document-list article > p:nth-child(2)").all_inner_texts()]
    ranked = sorted(failed, key=lambda one: (one["distance"] is None, one["distance"]))
    assert ids == [one["id"] for one in ranked[: len(ids)]]
    page.select_option("#choose-reason", "")
    page.select_option("#choose-state", "kept")
    page.select_option("#choose-lang", "zh-Hans")
    assert number() == sum(one["kept"] and one["lang"] == "zh-Hans" for one in documents)
    assert said == []


def test_what_cleaning_cut_is_shown(browser: Browser, corpus: Path) -> None:
    said: list[str] = []
    page = opened(browser, corpus, said)
    page.fill("#choose-words", "The keeper")
    page.click("#document-list details summary")
    assert page.locator("#document-list .line.cut").all_inner_texts() == ["Menu of the site"]
    assert "lighthouse keeper" in page.locator("#document-list .line.same").first.inner_text()
    assert said == []


def test_the_figures_are_those_of_the_files(browser: Browser, corpus: Path) -> None:
    """Every figure that the page marks is summed again from the Parquet files."""
    page = opened(browser, corpus, [])
    shown = {
        one.get_attribute("data-figure"): int(one.inner_text().replace(",", ""))
        for one in page.locator("[data-figure]:not([data-figure^='score'])").all()
        if one.inner_text() != "–"
    }
    assert shown == counted(corpus / "data", shown.keys(), json.loads((corpus / "reports/filter.json").read_text()))
    assert len(shown) > 60


def counted(data: Path, names: Any, filtered: dict[str, Any]) -> dict[str, int]:
    """The figures by name, the slow and obvious way."""

    def whole(stage: str, pattern: str = "part-*.parquet") -> pl.DataFrame:
        frames = [pl.read_parquet(path) for path in sorted((data / stage).glob(pattern))]
        return pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame({"id": [], "reason": []})

    clean, dedup, kept, split = (whole(name) for name in ("clean", "dedup", "filter", "split"))
    made = whole("augment")
    early = {name: whole(name, "dropped-*.parquet") for name in ("scrape", "clean")}
    generated, good = made.height, made.filter("kept").height
    found: dict[str, Any] = {
        "in": clean.height + early["scrape"].height + early["clean"].height,
        "generated": generated,
    }
    left: dict[str, Any] = {"scrape": clean.height + early["clean"].height, "clean": clean.height}
    left |= {"dedup": dedup["kept"].sum(), "filter": kept["kept"].sum(), "split": split["kept"].sum()}
    left |= {"augment": left["split"] + good, "shard": left["split"] + good}
    found |= {"kept": left["shard"], "dropped": found["in"] + generated - left["shard"]}
    found |= {f"left.{name}": number for name, number in left.items()}
    reasons = [*early["scrape"]["reason"], *early["clean"]["reason"]]
    for frame in (dedup, kept, split, made):
        reasons += [row[0] for row in frame.filter(~pl.col("kept"))["reasons"]]
    measured = pl.concat([whole("measure"), whole("perplexity").drop("id")], how="horizontal")
    judged = kept["kept"].is_not_null()
    length = measured["n_chars"]
    found |= {"characters.clean": clean["text"].str.len_chars().sum()}
    found |= {
        f"characters.{name}": length.filter(frame["kept"].fill_null(False)).sum()
        for name, frame in (("dedup", dedup), ("filter", kept))
    }
    shards = pl.concat([pl.read_parquet(path, columns=["text"]) for path in (data / "shard").glob("*/*.parquet")])
    found["characters.shard"] = shards["text"].str.len_chars().sum()
    for name in names - found.keys():
        kind, _, rest = name.partition(".")
        if kind == "drop":
            found[name] = reasons.count(rest)
        elif kind == "group":
            lang, source = rest.split(".")
            found[name] = clean.filter((pl.col("lang") == lang) & (pl.col("source") == source)).height
        elif kind == "split":
            found[name] = split.filter(pl.col("split") == rest).height
        elif kind == "beyond":
            lang, signal, side = rest.split(".")
            own = measured.filter(judged & (clean["lang"] == lang))[signal]
            bound = filtered["bounds"][lang][f"{signal}.{side}"]["bound"]
            found[name] = ((own < bound) if side == "min" else (own > bound)).sum()
        elif kind == "source":
            source, what = rest.split(".")
            rows = pl.concat([frame.filter(pl.col("source") == source).select("id") for frame in early.values()])
            own = clean["source"] == source
            lost = [own & ~frame["kept"].fill_null(True) for frame in (dedup, kept, split)]
            dropped = rows.height + sum(int(mask.sum()) for mask in lost)
            found[name] = dropped if what == "dropped" else rows.height + int(own.sum())
    return {name: int(found[name]) for name in names}
