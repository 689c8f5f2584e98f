"""One row through all the steps of cleaning, and what is shown of it when it is dropped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from corpus.clean import stage
from corpus.clean.decode import looks_like_text
from corpus.clean.document import Refused, Settings, check, clean_row
from corpus.errors import UserError
from corpus.params import Clean, Params
from corpus.sources import Rules
from corpus.stage import Run, execute

ENGLISH = "This is a sentence in plain English about the backup of files and folders. " * 3
TRADITIONAL = "這個軟體可以設定備份的時間，也可以選擇資料夾。"


def clean(row: dict[str, Any], **params: Any) -> dict[str, Any]:
    return clean_row(row, Settings(Clean.model_validate(params)))


def refusal(row: dict[str, Any], **params: Any) -> tuple[str, str | None]:
    with pytest.raises(Refused) as refused:
        clean(row, **params)
    return refused.value.reason, refused.value.detail


def test_all_chinese_is_converted_before_its_language_is_judged() -> None:
    found = clean({"text": TRADITIONAL}, languages=["en", "zh-Hans"], chinese="simplified")
    assert (found["text"], found["lang"]) == ("这个软体可以设定备份的时间，也可以选择资料夹。", "zh-Hans")
    assert found["changes"]["converted"] == 12
    assert refusal({"text": TRADITIONAL}, languages=["en"], chinese="simplified") == ("clean.language", "zh-Hans 1.00")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"languages": ["zh"]}, "zh-Hans and zh-Hant"),
        ({"languages": ["zh-Hant"], "chinese": "simplified"}, "add it to clean.languages"),
        ({"language": {"among": ["en", "tlh"]}}, "tlh"),
        ({"flagged_words": {"en": "nowhere.txt"}}, r"nowhere\.txt cannot be read"),
    ],
)
def test_parameters_that_would_cost_documents_are_refused_at_once(params: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(Clean.model_validate(params))


@pytest.mark.parametrize(
    ("stated", "lang"), [("eng", "en"), ("en_GB", "en"), ("und", "en"), ("unknown", "en"), ("English", "en")]
)
def test_a_language_may_be_stated_in_many_ways(stated: str, lang: str) -> None:
    assert clean({"text": ENGLISH, "lang": stated})["lang"] == lang


def test_whatever_is_masked_is_counted_once() -> None:
    messages = [{"role": "user", "content": "Write to li@example.com, please"}, {"role": "assistant", "content": "Yes"}]
    row = {"text": "user: Write to li@example.com, please\nassistant: Yes", "messages": messages, "lang": "en"}
    found = clean(row | {"title": "li@example.com"})
    assert found["title"] == "<EMAIL>" and found["masked"] == {"email": 2}
    assert found["text"] == "user: Write to <EMAIL>, please\nassistant: Yes"
    chosen = {"chosen": messages[:1], "rejected": [{"role": "assistant", "content": None}]}
    found = clean({"text": ENGLISH, "preference": chosen})
    assert found["masked"] == {"email": 1} and found["preference"]["rejected"][0]["content"] is None


def test_rules_that_select_nothing_say_so() -> None:
    settings = Settings(Clean(), Rules(keep=["main.article"]))
    with pytest.raises(Refused) as refused:
        clean_row({"body": f"<p>{ENGLISH}</p>".encode()}, settings)
    assert (refused.value.reason, refused.value.detail) == ("clean.empty.extractor", "rules.keep selects no text")


def test_navigation_of_a_short_page_is_no_text() -> None:
    page = f"<body><nav><a href=/>Home</a><a href=/a>About us</a></nav><p>{ENGLISH}</p><footer>© Us</footer></body>"
    assert clean({"body": page.encode()})["text"] == ENGLISH.strip()


def test_words_that_begin_like_a_signature_are_text() -> None:
    for text in ("RIFF is a container.", "OTTO von Bismarck was", "ID3 tags and", "BZh is how"):
        assert looks_like_text(text.encode())
        assert not looks_like_text(text.encode()[:4] + bytes(range(128, 250)) + b"\x00\x01" * 50)


def test_dropped_rows_show_no_personal_data(tmp_path: Path) -> None:
    many = " ".join(f"a.very.long.mailbox.name.{n}@some.long.host.example.com" for n in range(120))
    pages = {
        "entity": b"<div>" * 600 + b"<p>mail li&#64;example.com",
        "utf16": ("<div>" * 600 + "<p>mail li@example.com").encode("utf-16"),
        "german": f"<p>Das ist ein Satz auf Deutsch, und hier stehen viele Adressen: {many}".encode(),
    }
    frame = pl.DataFrame({"id": list(pages), "body": list(pages.values())}).with_columns(url=pl.lit(None, pl.String))
    frame.write_parquet(tmp_path / "pages.parquet")
    params = Params.model_validate({"clean": {"max_depth": 500}})
    run = Run("clean", params, (tmp_path / "pages.parquet",), tmp_path / "out", reports=None, home=tmp_path / "home")
    assert execute(stage, run)["rows"]["dropped"] == 3
    for text in pl.read_parquet(tmp_path / "out/dropped-pages.parquet")["text"]:
        assert "example.com" not in text and "mailbox" not in text and "l\x00i" not in text


def test_bodies_may_be_strings(tmp_path: Path) -> None:
    rows = pl.DataFrame({"id": ["a"], "body": [f"<p>{ENGLISH}</p>"]})
    rows.write_parquet(tmp_path / "pages.parquet")
    run = Run("clean", Params(), (tmp_path / "pages.parquet",), tmp_path / "out", reports=None, home=tmp_path / "home")
    assert execute(stage, run)["rows"]["kept"] == 1
