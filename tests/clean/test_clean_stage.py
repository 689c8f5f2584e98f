"""The clean stage on real pages: the sample site, and Python's documentation server."""

from __future__ import annotations

import datetime
import hashlib
import json
import platform
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from corpus.clean import stage
from corpus.errors import UserError
from corpus.params import Params, load
from corpus.scrape import stage as scrape_stage
from corpus.stage import Metrics, Run, execute

ROOT = Path(__file__).parents[2]
GOLDEN = "3b8b487303123d48"


def clean(inputs: tuple[Path, ...], folder: Path, params: Params | None = None, workers: int = 1) -> Metrics:
    run = Run(
        "clean", params or Params(), inputs, folder / "clean", reports=None, home=folder / "home", workers=workers
    )
    return execute(stage, run)


def documents(folder: Path) -> pl.DataFrame:
    return pl.concat(pl.read_parquet(path) for path in sorted((folder / "clean").glob("part-*.parquet")))


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Metrics]:
    folder = tmp_path_factory.mktemp("sample")
    source = {"name": "qinghe", "kind": "html", "path": str(ROOT / "data/sample/site"), "as": "http://qinghe.local/"}
    params = Params.model_validate({"sources": [source]})
    execute(scrape_stage, Run("scrape", params, (), folder / "scrape", reports=None, home=folder / "home"))
    return folder, clean((folder / "scrape",), folder, params)


def page(sample: tuple[Path, Metrics], name: str) -> dict[str, object]:
    return documents(sample[0]).filter(pl.col("url") == f"http://qinghe.local/{name}.html").to_dicts()[0]


def test_nothing_vanishes_and_columns_are_those_of_a_document(sample: tuple[Path, Metrics]) -> None:
    folder, metrics = sample
    frame = documents(folder)
    dropped = pl.concat(pl.read_parquet(path) for path in (folder / "clean").glob("dropped-*.parquet"))
    pages = len(list((ROOT / "data/sample/site").rglob("*.html")))
    assert metrics["rows"] == {"in": pages, "generated": 0, "kept": frame.height, "dropped": dropped.height}
    assert frame.columns == stage.CLEANED.names
    assert sum(metrics["languages"].values()) == frame.height
    assert frame["lang"].is_in(["en", "zh-Hans", "zh-Hant"]).all()


@pytest.mark.parametrize(
    "name", ["support/faq-install", "support/slow-upload", "help/logs", "learn/http", "old/school-case"]
)
def test_good_pages_give_their_article_and_nothing_around_it(sample: tuple[Path, Metrics], name: str) -> None:
    raw = (ROOT / f"data/sample/site/{name}.html").read_bytes()
    html = raw.decode("gb18030") if name.startswith("old/") else raw.decode()
    paragraphs = [re.sub(r"<[^>]+>", "", found).strip() for found in re.findall(r"<p>(.+?)</p>", html)]
    article = [text for text in paragraphs if len(text) > 60 and "&" not in text]
    text = re.sub(r"[\s`]", "", str(page(sample, name)["text"]))
    assert len(article) > 2
    assert all(re.sub(r"[\s`]", "", paragraph) in text for paragraph in article)
    assert not re.search("友情链接|版权所有|当前位置|您现在的位置|登录\\|注册|免费下载", text)


@pytest.mark.parametrize("name", ["old/history-1", "old/manual-v1", "old/school-case", "old/engineer-diary"])
def test_gbk_pages_decode_whatever_they_declare(sample: tuple[Path, Metrics], name: str) -> None:
    found = page(sample, name)
    assert found["lang"] == "zh-Hans"
    assert "\ufffd" not in str(found["text"])
    assert str(found["text"]).count("的") > 5


def test_languages_and_personal_data_of_the_sample(sample: tuple[Path, Metrics]) -> None:
    assert page(sample, "partner/tw-reseller")["lang"] == "zh-Hant"
    assert page(sample, "partner/overview-en")["lang"] == "en"
    for name, kinds in (
        ("support/case-change-phone", "PHONE EMAIL ID"),
        ("support/case-refund", "PHONE EMAIL ID CARD"),
    ):
        text = str(page(sample, name)["text"])
        assert all(f"<{kind}>" in text for kind in kinds.split())
        assert not re.search(r"1[3-9]\d{9}|\d{17}|@example", text)
    assert page(sample, "support/faq-install")["date"] == "2024-01-02"


def test_any_table_with_id_and_text_will_do(tmp_path: Path) -> None:
    table = pl.DataFrame({"id": ["a", "b"], "text": ["ＯＫ, this is a sentence in plain English.\r\n", "  "]})
    table.write_parquet(tmp_path / "mine.parquet")
    metrics = clean((tmp_path / "mine.parquet",), tmp_path)
    assert metrics["dropped_by_reason"] == {"clean.empty": 1}
    assert pl.read_parquet(tmp_path / "clean/mine.parquet")["text"][0] == "OK, this is a sentence in plain English."
    with pytest.raises(UserError, match="neither a column `text` nor `body`"):
        table.drop("text").write_parquet(tmp_path / "none.parquet")
        clean((tmp_path / "none.parquet",), tmp_path)


def test_a_foreign_table_gets_our_types_or_a_plain_refusal(tmp_path: Path) -> None:
    table = pl.DataFrame({"id": [7], "text": ["This is a sentence in plain English."], "label": [3]})
    table = table.with_columns(
        date=pl.lit(datetime.datetime(2024, 1, 2, 3)), meta=pl.struct(stars=5), lang=pl.lit("en_US")
    )
    table.write_parquet(tmp_path / "mine.parquet")
    clean((tmp_path / "mine.parquet",), tmp_path)
    row = pl.read_parquet(tmp_path / "clean/mine.parquet").to_dicts()[0]
    assert [row[name] for name in ("id", "label", "date", "meta", "lang")] == [
        "7",
        "3",
        "2024-01-02",
        '{"stars": 5}',
        "en",
    ]
    for wrong in (pl.struct(a=1).alias("title"), pl.lit("x").alias("messages"), pl.lit("x").alias("batch")):
        table.with_columns(wrong).write_parquet(tmp_path / "wrong.parquet")
        with pytest.raises(UserError, match=rf"wrong\.parquet: the column `{wrong.meta.output_name()}` should hold"):
            clean((tmp_path / "wrong.parquet",), tmp_path)
    pl.concat([table, table]).write_parquet(tmp_path / "twice.parquet")
    with pytest.raises(UserError, match="7"):
        clean((tmp_path / "twice.parquet",), tmp_path)


def test_nothing_beside_parquet_is_left_unread(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pl.DataFrame({"id": ["a"], "text": ["one"]}).write_parquet(tmp_path / "in/a.parquet")
    (tmp_path / "in/b.jsonl").write_text('{"text": "two"}')
    with pytest.raises(UserError, match=r"b\.jsonl lies beside Parquet"):
        clean((tmp_path / "in",), tmp_path)


def test_jsonl_of_pages_and_of_documents(tmp_path: Path) -> None:
    article = "".join(f"<p>Paragraph {n} says something about backups and files.</p>" for n in range(9))
    pages = [{"url": "http://a/", "html": f"<article>{article}</article>"}, {"url": "http://b/", "html": "<div>" * 600}]
    (tmp_path / "pages.jsonl").write_text("\n".join(map(json.dumps, [*pages, 5])))
    metrics = clean((tmp_path / "pages.jsonl",), tmp_path)
    assert metrics["rows"] == {"in": 3, "generated": 0, "kept": 1, "dropped": 2}
    assert metrics["dropped_by_reason"] == {"clean.too_deep": 1, "scrape.error.json": 1}
    dialogue = {"input": "Write to li@example.com?", "output": "Yes, please write to that address.", "lang": "en"}
    (tmp_path / "talk.jsonl").write_text(json.dumps(dialogue))
    clean((tmp_path / "talk.jsonl",), tmp_path)
    row = documents(tmp_path).to_dicts()[0]
    assert row["text"] == "user: Write to <EMAIL>?\nassistant: Yes, please write to that address."
    assert row["messages"][0] == {"role": "user", "content": "Write to <EMAIL>?"}


def test_a_slow_page_is_dropped_alone(tmp_path: Path) -> None:
    words = "This is a sentence of a page that takes its time. "
    rows = {"id": ["slow", "good"], "body": [("<p>" + words * 3).encode() * 20_000, f"<p>{words * 20}".encode()]}
    pl.DataFrame(rows | {"url": [None, None]}).write_parquet(tmp_path / "pages.parquet")
    params = Params.model_validate({"clean": {"timeout_s": 0.5, "extractor": "trafilatura"}})
    assert clean((tmp_path / "pages.parquet",), tmp_path, params)["dropped_by_reason"] == {"clean.error.timeout": 1}


def test_personal_data_can_drop_or_stay(tmp_path: Path) -> None:
    texts = ["Please write to me at li@example.com some day.", "Nothing of the kind is to be found in this text."]
    pl.DataFrame({"id": ["a", "b"], "text": texts}).write_parquet(tmp_path / "mine.parquet")
    drop = Params.model_validate({"clean": {"pii": "drop"}})
    assert clean((tmp_path / "mine.parquet",), tmp_path, drop)["dropped_by_reason"] == {"clean.pii": 1}
    clean((tmp_path / "mine.parquet",), tmp_path, Params.model_validate({"clean": {"pii": "off"}}))
    assert pl.read_parquet(tmp_path / "clean/mine.parquet")["text"][0] == texts[0]


@pytest.mark.parametrize("workers", [1, 2])
def test_golden(tmp_path: Path, workers: int) -> None:
    """The output on fixed input, whatever the workers. Changed on purpose? Raise VERSION, then set the digest."""
    for number, name in enumerate(("support/case-refund", "old/history-1", "partner/overview-en")):
        rows = {"id": [name], "body": [(ROOT / f"data/sample/site/{name}.html").read_bytes()], "url": ["http://x/"]}
        (tmp_path / "in").mkdir(exist_ok=True)
        pl.DataFrame(rows).write_parquet(tmp_path / f"in/part-x-0-{number:05d}.parquet")
    clean((tmp_path / "in",), tmp_path, workers=workers)
    digest = hashlib.sha256(documents(tmp_path).write_json().encode()).hexdigest()[:16]
    assert (stage.VERSION, digest) == (4, GOLDEN), "the output of clean changed: raise VERSION and set the new digest"


def test_pydoc_pages_hold_nothing_of_this_machine(tmp_path: Path) -> None:
    """The default source, cut to a few pages, from a live server: text, and nothing that tells where it was made."""
    params = load(ROOT / "params.yaml")
    pydoc = next(source for source in params.sources if source.name == "pydoc")
    few = (
        r"^/(json|cgi|platform|socket|os|configparser|shutil|wave)\.html$|^/topic\?key=(LOOPING|SLICINGS)$|^/$|^/topics"
    )
    params = params.model_copy(update={"sources": [pydoc.model_copy(update={"allow": [few]})]})
    execute(scrape_stage, Run("scrape", params, (), tmp_path / "scrape", reports=None, home=tmp_path / "home"))
    first = (tmp_path / "scrape/part-pydoc-0-00000.parquet").read_bytes()
    execute(scrape_stage, Run("scrape", params, (), tmp_path / "scrape", reports=None, home=tmp_path / "other"))
    assert (tmp_path / "scrape/part-pydoc-0-00000.parquet").read_bytes() == first, "a second crawl gave other bytes"
    metrics = clean((tmp_path / "scrape",), tmp_path, params)
    assert metrics["rows"]["dropped"] == 0
    assert metrics["rows"]["kept"] >= 8
    bodies = pl.read_parquet(tmp_path / "scrape/part-pydoc-0-00000.parquet")["body"]
    frame = documents(tmp_path)
    everything = "\n".join([*frame["text"], *frame["title"], *(body.decode() for body in bodies)])
    release = platform.release()
    for trace in (sys.prefix, sys.base_prefix, release, "127.0.0.1:", "Module Index", " at 0x"):
        assert trace not in "\n".join([*frame["text"], *frame["title"]]), trace
    for trace in (sys.base_prefix + "/lib", release):
        assert trace not in everything, trace
    looping = frame.filter(pl.col("url").str.ends_with("LOOPING"))["text"][0]
    assert 'The "while" statement is used for repeated execution' in looping
    assert "\xa0" not in everything.split("<", 1)[0]
    shown = frame.filter(pl.col("url").str.ends_with("/json.html"))["text"][0]
    assert "    >>> json.dumps(['foo', {'bar': ('baz', None, 1.0, 2)}])\n" in shown


def test_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "docs.jsonl").write_text('{"text": "A sentence that is written in plain English."}\n')
    command = [sys.executable, "-c", "from corpus.cli import main; raise SystemExit(main())", "clean"]
    done = subprocess.run(
        [*command, "--input", "docs.jsonl", "--output", "out"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 in, 1 kept, 0 dropped" in done.stdout
    done = subprocess.run(
        [*command, "--input", "gone.jsonl", "--output", "out"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "gone.jsonl does not exist" in done.stderr
