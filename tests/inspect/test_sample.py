"""`corpus sample` beside a draw from everything at once, from a small project written by hand."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from corpus.documents import DOCUMENT, DROPPED, PAGE, document_id, write_table
from corpus.errors import UserError
from corpus.inspect import sample as code
from corpus.inspect.sample import FIELDS, STAGES, Wanted, render_samples, sample_documents, to_lines

HOSTILE = "[red]\x1b[31m\x00\u202egnp[/red]\n\n \x1b]0;title\x07 next " + "备份" * 500
PRIVATE = "write to li@example.com or 13912345678"
FILES = ("part-help-0-00000.parquet", "part-news-0-00000.parquet")


def rows() -> list[dict[str, Any]]:
    """400 documents: dedup drops every tenth, filter judges the rest."""
    made = []
    for n in range(400):
        row: dict[str, Any] = dict.fromkeys(DOCUMENT.names) | {
            "id": document_id(str(n)),
            "batch": n // 200,
            "lang_score": 0.9,
        }
        row |= {"text": f"text {n} {PRIVATE}", "url": f"http://docs.example/{n}", "title": f"Page {n}"}
        row |= {"source": ("help", "news")[n // 200], "lang": ("en", "zh-Hans", "zh-Hant")[n % 3]}
        row |= {"copy": n % 10 == 3, "reasons": [], "margins": []}
        if n % 4 == 1 and not row["copy"]:
            row["reasons"] = ["filter.mattr.min", "filter.ppl.max", "filter.mattr_en.min"][: 1 + n % 3]
            row["margins"] = [-((n * 37 % 101) / 10) - 0.05, n / 50 + 1, None][: 1 + n % 3]
        made.append(row)
    made[8] |= {"text": HOSTILE, "title": HOSTILE, "url": HOSTILE}
    return made


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """data/ of a project up to `augment`, in parts of 200 rows."""
    everything = rows()
    for number, name in enumerate(FILES):
        own = everything[number * 200 : number * 200 + 200]
        ids = [row["id"] for row in own]
        annotations = {
            "dedup": {
                "kept": [not row["copy"] for row in own],
                "duplicate_of": [everything[0]["id"] if row["copy"] else None for row in own],
                "similarity": [0.875 if row["copy"] else None for row in own],
                "reasons": [["dedup.near"] if row["copy"] else [] for row in own],
            },
            "filter": {
                "kept": [None if row["copy"] else not row["reasons"] for row in own],
                "reasons": pl.Series([row["reasons"] for row in own], dtype=pl.List(pl.String)),
                "margins": pl.Series([row["margins"] for row in own], dtype=pl.List(pl.Float64)),
            },
            "split": {
                "kept": [True if not row["copy"] and not row["reasons"] else None for row in own],
                "split": ["train"] * len(own),
            },
        }
        for stage, columns in annotations.items():
            (tmp_path / stage).mkdir(exist_ok=True)
            frame = pl.DataFrame({"id": ids, **columns})
            frame.write_parquet(tmp_path / stage / name, row_group_size=30)
        (tmp_path / "clean").mkdir(exist_ok=True)
        documents = [{key: row[key] for key in DOCUMENT.names} for row in own]
        write_table(pa.Table.from_pylist(documents, DOCUMENT), tmp_path / "clean" / name)
    lost = {"source": "help", "batch": 0, "url": "http://docs.example/lost", "detail": "page 7", "text": PRIVATE}
    reasons = ["clean.language", "clean.empty", "clean.error.timeout"]
    dropped = [lost | {"id": document_id(f"lost {n}"), "reason": reasons[n % 3]} for n in range(30)]
    write_table(pa.Table.from_pylist(dropped, DROPPED), tmp_path / "clean" / "dropped-help-0-00000.parquet")
    (tmp_path / "augment").mkdir()
    schema = DOCUMENT.append(pa.field("kept", pa.bool_())).append(pa.field("reasons", pa.list_(pa.string())))
    generated: list[dict[str, Any]] = [
        {"id": document_id(f"made {n}"), "text": f"made {n}", "source": "help", "lang": "en", "method": "swap"}
        | {"parent_id": everything[n]["id"], "kept": n % 2 == 0}
        | {"reasons": [] if n % 2 == 0 else ["augment.unchanged"]}
        for n in range(10)
    ]
    write_table(pa.Table.from_pylist(generated, schema), tmp_path / "augment" / FILES[0])
    return tmp_path


def oracle(matching: Callable[[dict[str, Any]], bool], seed: int, number: int) -> list[str]:
    """Ids of the documents that match, by the hash of seed and id as the report draws, from all of them at once."""
    ids = [row["id"] for row in rows() if matching(row)]
    return sorted(ids, key=lambda one: hashlib.blake2b(f"{seed}\0{one}".encode(), digest_size=6).digest())[:number]


def ids(found: list[dict[str, Any]]) -> list[str]:
    return [document["id"] for document in found]


def judged(row: dict[str, Any]) -> bool:
    return not row["copy"]


@pytest.mark.parametrize("seed", [0, 1, 12345])
@pytest.mark.parametrize(
    ("wanted", "matching"),
    [
        (Wanted("clean", True), lambda row: True),
        (Wanted("filter"), judged),
        (Wanted("filter", True), lambda row: judged(row) and not row["reasons"]),
        (Wanted("filter", False), lambda row: judged(row) and row["reasons"]),
        (Wanted("filter", lang="zh-Hans"), lambda row: judged(row) and row["lang"] == "zh-Hans"),
        (Wanted("filter", lang="en", source="news"), lambda row: judged(row) and row["lang"] == "en" and row["batch"]),
        (Wanted(reason="filter"), lambda row: row["reasons"]),
        (Wanted(reason="filter.mattr"), lambda row: "filter.mattr.min" in row["reasons"]),
        (Wanted(reason="filter.mattr_en"), lambda row: "filter.mattr_en.min" in row["reasons"]),
        (Wanted(reason="filter.ppl.max"), lambda row: "filter.ppl.max" in row["reasons"]),
        (Wanted("dedup", False), lambda row: row["copy"]),
        (Wanted("split"), lambda row: judged(row) and not row["reasons"]),
    ],
)  # fmt: skip
def test_the_draw_is_that_from_everything(
    data: Path, seed: int, wanted: Wanted, matching: Callable[[dict[str, Any]], bool]
) -> None:
    expected = oracle(matching, seed, 7)
    assert len(expected) == 7
    assert ids(sample_documents(data, wanted, 7, seed)) == expected
    assert ids(sample_documents(data, wanted, 3, seed)) == expected[:3]
    everything = sample_documents(data, wanted, 10_000, seed)
    assert ids(everything) == oracle(matching, seed, 10_000)


def test_each_row_is_read_from_where_it_lies(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "ROW_GROUP_ROWS", 13)
    known = {row["id"]: row for row in rows()}
    for document in sample_documents(data, Wanted("filter"), 1000):
        row = known[document["id"]]
        assert tuple(document) == FIELDS
        assert {key: document[key] for key in ("text", "url", "title", "lang", "source", "reasons", "margins")} == {
            key: row[key] for key in ("text", "url", "title", "lang", "source", "reasons", "margins")
        }
        assert (document["stage"], document["kept"]) == ("filter", not row["reasons"])
    for document in sample_documents(data, Wanted("dedup", False), 1000):
        assert (document["duplicate_of"], document["similarity"]) == (rows()[0]["id"], 0.875)
        assert (document["reasons"], document["margins"]) == (["dedup.near"], [None])


def test_the_last_stage_that_is_built_is_the_default(data: Path) -> None:
    for stage in ("augment", "split", "filter", "dedup", "clean"):
        assert {document["stage"] for document in sample_documents(data, Wanted(), 50)} == {stage}
        shutil.rmtree(data / stage)
    with pytest.raises(UserError, match="holds no documents yet"):
        sample_documents(data, Wanted())


def test_a_stage_without_rows_is_passed_over(data: Path) -> None:
    path = data / "augment" / FILES[0]
    pl.read_parquet(path).clear().write_parquet(path)
    assert sample_documents(data, Wanted(), 1)[0]["stage"] == "split"
    with pytest.raises(UserError, match="no such documents"):
        sample_documents(data, Wanted("augment"))


def test_generated_documents_have_text_of_their_own(data: Path) -> None:
    found = sample_documents(data, Wanted("augment", False), 100)
    assert {document["text"] for document in found} == {f"made {n}" for n in range(1, 10, 2)}
    assert all(document["reasons"] == ["augment.unchanged"] for document in found)
    assert {(document["method"], document["parent_id"] is None) for document in found} == {("swap", False)}


@pytest.mark.parametrize("reason", [None, "filter.mattr", "filter.ppl"])
def test_the_nearest_margins_come_first(data: Path, reason: str | None) -> None:
    nearest: dict[str, float] = {}
    for row in rows():
        margins = [
            abs(margin)
            for name, margin in zip(row["reasons"], row["margins"], strict=True)
            if margin is not None and (reason is None or name.startswith(reason + "."))
        ]
        nearest |= {row["id"]: min(margins)} if margins else {}
    found = sample_documents(data, Wanted(reason=reason), 10_000, near=True)
    assert {document["id"] for document in found} == set(nearest)
    assert [nearest[document["id"]] for document in found] == sorted(nearest.values())
    assert ids(sample_documents(data, Wanted(reason=reason), 4, near=True)) == ids(found)[:4]
    # Where margins are equal, the seed decides.
    other = sample_documents(data, Wanted(reason=reason), 10_000, seed=9, near=True)
    assert (ids(other) == ids(found)) is (len(set(nearest.values())) == len(nearest))


def test_near_asks_for_margins(data: Path) -> None:
    for wanted in (Wanted("dedup"), Wanted("filter", True)):
        with pytest.raises(UserError, match="--near goes by the margins"):
            sample_documents(data, wanted, near=True)


def test_what_clean_dropped_is_masked(data: Path) -> None:
    found = sample_documents(data, Wanted("clean", False), 100)
    assert len(found) == 30
    assert {document["text"] for document in found} == {"write to <EMAIL> or <PHONE>"}
    assert {(document["kept"], document["detail"], document["lang"]) for document in found} == {(False, "page 7", None)}
    (name,) = {tuple(one["reasons"]) for one in sample_documents(data, Wanted(reason="clean.error"), 100)}
    assert name == ("clean.error.timeout",)
    bare = sample_documents(data, Wanted("clean", False), 100, mask=False)
    assert {document["text"] for document in bare} == {PRIVATE}
    both = sample_documents(data, Wanted("clean"), 1000)
    assert sum(document["kept"] for document in both) == 400
    assert len(both) == 430


def test_pages_have_no_text_and_documents_not_cleaned_yet_are_masked(data: Path) -> None:
    (data / "scrape").mkdir()
    page = {"id": "a", "source": "site", "batch": 0, "url": "http://site.example/", "body": PRIVATE.encode()}
    write_table(pa.Table.from_pylist([page], PAGE), data / "scrape" / "part-site-0-00000.parquet")
    mine = {"id": "b", "source": "mine", "text": PRIVATE, "title": PRIVATE}
    write_table(pa.Table.from_pylist([mine], DOCUMENT), data / "scrape" / "part-mine-0-00000.parquet")
    lost = {"id": "c", "source": "site", "reason": "scrape.robots", "text": PRIVATE}
    write_table(pa.Table.from_pylist([lost], DROPPED), data / "scrape" / "dropped-site-0.parquet")
    found = {document["id"]: document for document in sample_documents(data, Wanted("scrape"))}
    masked = "write to <EMAIL> or <PHONE>"
    assert {key: document["text"] for key, document in found.items()} == {"a": None, "b": masked, "c": masked}
    assert found["b"]["title"] == masked
    assert [document["kept"] for _, document in sorted(found.items())] == [True, True, False]
    assert "li@" not in render_samples(list(found.values()))


def test_nothing_found_says_what_there_is(data: Path) -> None:
    for wanted, said in {
        Wanted(reason="filter.matr.min"): r"filter: none .* the reason 'filter\.matr\.min': did you mean filter\.mattr",
        Wanted(reason="filter.mat"): r"filter: none .* the reason 'filter\.mat'",
        Wanted("filter", reason="xyz"): r"there is filter\.mattr\.min, filter\.mattr_en\.min, filter\.ppl\.max$",
        Wanted("filter", lang="zh-Hand"): r"the lang 'zh-Hand': did you mean zh-Han[st]\?",
        Wanted("filter", lang="de"): r"the lang 'de': there is en, zh-Hans, zh-Hant$",
        Wanted("filter", source="newz"): r"the source 'newz': did you mean news\?",
        Wanted("augment", reason="augment.unchanged", lang="en", kept=True): "none of these .* there is none",
        Wanted("clean", False, "clean.empty", "en"): r"the lang 'en': there is none$",
        Wanted("measure"): "measure keeps and drops no documents: --stage is one of scrape, clean, dedup",
        Wanted("scrape"): "scrape holds nothing yet: build it with `dvc repro scrape`",
    }.items():
        with pytest.raises(UserError, match=said):
            sample_documents(data, wanted)
    dropped = Wanted("filter", False, lang="en", source="help", reason="filter.mattr_en")
    with pytest.raises(UserError, match=r"all that at once.*reason filter\.mattr\.min.*lang en.*source help, news"):
        sample_documents(data, dropped)
    with pytest.raises(UserError, match="-n 0"):
        sample_documents(data, Wanted(), 0)


def test_an_annotation_that_decides_nothing_is_refused(data: Path) -> None:
    path = data / "filter" / FILES[1]
    pl.read_parquet(path).drop("kept").write_parquet(path)
    with pytest.raises(UserError, match=r"part-news.*no column `kept`"):
        sample_documents(data, Wanted("filter"))


def test_margins_that_are_missing_or_do_not_fit_are_none(data: Path) -> None:
    for name in FILES:
        path = data / "filter" / name
        pl.read_parquet(path).drop("margins").write_parquet(path)
    (document,) = sample_documents(data, Wanted(reason="filter.ppl"), 1)
    assert document["margins"] == [None] * len(document["reasons"])
    with pytest.raises(UserError, match="no document"):
        sample_documents(data, Wanted(), near=True)


def test_hostile_text_does_nothing_to_the_terminal(data: Path) -> None:
    everything = sample_documents(data, Wanted("filter"), 1000)
    shown = render_samples([document for document in everything if document["text"] == HOSTILE])
    assert not {"\x1b", "\x00", "\u202e", "\x07"} & set(shown)
    assert "[red] [31m gnp[/red]" in shown
    assert "characters in all" in shown
    assert (
        len(shown.splitlines()) <= 1 + 4 + 4 + 6 + 1
    )  # verdict, url and title of three widths at most, text, its length
    assert "\x1b" not in render_samples(everything)


def test_what_is_shown(data: Path) -> None:
    by_name = {document["id"]: document for document in sample_documents(data, Wanted("filter"), 1000)}
    row = next(row for row in rows() if row["reasons"] == ["filter.mattr.min", "filter.ppl.max"])
    shown = render_samples([by_name[row["id"]]])
    assert shown.splitlines()[0] == f"filter dropped  {row['id']}  {row['source']}  {row['lang']}"
    assert "filter.mattr.min  -" in shown
    assert f"+{row['margins'][1]:.2f}" in shown
    assert f"url: {row['url']}" in shown
    assert row["text"] in shown
    assert len(render_samples(list(by_name.values())[:2]).split("\n\n")) == 2


def test_lines_are_json_with_the_whole_text(data: Path) -> None:
    found = sample_documents(data, Wanted("filter"), 1000)
    lines = to_lines(found).split("\n")
    assert [json.loads(line) for line in lines] == found
    assert HOSTILE in {json.loads(line)["text"] for line in lines}
    assert to_lines(sample_documents(data, Wanted("filter"), 1000)) == to_lines(found)


def test_every_stage_that_decides_can_be_drawn_from(data: Path) -> None:
    for stage in STAGES[1:]:
        assert render_samples(sample_documents(data, Wanted(stage), 3))
