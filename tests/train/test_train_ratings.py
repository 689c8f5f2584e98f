"""The sheet tells nothing but what is to be rated, harms no spreadsheet, and is read back or refused by line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.errors import UserError
from train.ratings import collect, in_cell, summarise, write_sheet

MODELS = ["base", "adapted", "control"]
HOSTILE = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "\n=1", " =1", "＝1"]
SAMPLES = [
    {"set": "pinned-zh", "id": str(n), "prompt": f"问题，{n}\n第二行", "reference": "答"}
    | {model: f"{said}{n}{model[0]}" for model, said in zip(MODELS, ("", '说"好"，', "=1+"), strict=True)}
    for n in range(4)
]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def filled(folder: Path, name: str, scores: dict[tuple[str, str], tuple[object, object]], **options: str) -> Path:
    """A copy of the sheet with the scores of (sample, model), as a spreadsheet saves it."""
    key, rows = json.loads((folder / "ratings_key.json").read_text()), rows_of(folder / "ratings.csv")
    for row in rows:
        entry = key[row["item"]]
        row["fluency"], row["relevance"] = map(str, scores.get((entry["id"], entry["model"]), ("", "")))
    encoding = options.pop("encoding", "utf-8-sig")
    with (folder / name).open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), **options)  # type: ignore[arg-type]
        writer.writeheader()
        writer.writerows(rows)
    return folder / name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_sheet(tmp_path, SAMPLES, MODELS)
    return tmp_path


def test_the_sheet_is_blind_and_whole(folder: Path):
    content = (folder / "ratings.csv").read_bytes()
    assert content.startswith(b"\xef\xbb\xbf") and not any(model.encode() in content for model in MODELS)
    rows, key = rows_of(folder / "ratings.csv"), json.loads((folder / "ratings_key.json").read_text())
    assert list(rows[0]) == ["item", "set", "prompt", "answer", "fluency", "relevance"]
    assert {row["item"] for row in rows} == set(key) and len(rows) == 12
    assert all(row["fluency"] == row["relevance"] == "" and row["item"][0] == "r" for row in rows)
    for row in rows:
        entry = key[row["item"]]
        assert row["answer"].removeprefix("'") == SAMPLES[int(entry["id"])][entry["model"]]
        assert row["prompt"] == SAMPLES[int(entry["id"])]["prompt"]
    order = [key[row["item"]]["model"] for row in rows]
    assert order != MODELS * 4 and order != sorted(order)


@given(st.one_of(st.sampled_from(HOSTILE), st.text()))
def test_no_cell_begins_a_formula(text: str):
    cell = in_cell(text)
    assert cell.removeprefix("'") == text.removeprefix("'")
    assert cell == "" or cell[0] not in "=+-@\t\r\n＝＋－＠"


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_cells_are_escaped(text: str):
    assert in_cell(text) == f"'{text}"


def test_means_and_agreement_against_numbers_worked_by_hand(folder: Path):
    one = {("0", "base"): (1, 2), ("1", "base"): (2, 2), ("0", "adapted"): (4, ""), ("1", "adapted"): (5, 5)}
    two = {("0", "base"): (1, ""), ("1", "base"): (3, 2), ("0", "adapted"): (4, 4), ("2", "adapted"): (5, 5)}
    found = collect(folder / "ratings_key.json", [filled(folder, "one.csv", one), filled(folder, "two.csv", two)])
    assert found["base"] == {"fluency": {"value": 7 / 4, "n": 4}, "relevance": {"value": 2, "n": 3}}
    assert found["adapted"]["fluency"] == {"value": 18 / 4, "n": 4}
    assert found["control"]["fluency"] == {"value": None, "n": 0}
    # Fluency: (1, 1), (2, 3), (4, 4). Observed squared differences 0 + 1 + 0; expected of all 9 pairings / 3.
    expected = sum((a - b) ** 2 for a in (1, 2, 4) for b in (1, 3, 4)) / 3
    assert found["weighted kappa"]["fluency"] == {"value": pytest.approx(1 - 1 / expected), "n": 3}
    # Relevance: one shared item, (2, 2): no kappa is defined.
    assert found["weighted kappa"]["relevance"] == {"value": None, "n": 1}
    table = [line.split() for line in summarise(folder / "ratings_key.json", [folder / "one.csv"]).splitlines()]
    assert ["base", "1.50", "(2)", "2.00", "(2)"] in table and ["weighted", "kappa", "–", "(0)", "–", "(0)"] in table


@pytest.mark.parametrize(
    ("encoding", "delimiter"), [("utf-8", ","), ("utf-8-sig", ";"), ("gb18030", ","), ("gb18030", ";")]
)
def test_sheets_as_spreadsheets_save_them(folder: Path, encoding: str, delimiter: str):
    path = filled(folder, "rated.csv", {("0", "base"): (" 3", "5 ")}, encoding=encoding, delimiter=delimiter)
    found = collect(folder / "ratings_key.json", [path])
    assert found["base"]["relevance"] == {"value": 5, "n": 1}


@pytest.mark.parametrize("value", ["0", "6", "3.5", "good", "-1", "33"])
def test_a_score_out_of_range_is_named(folder: Path, value: str):
    path = filled(folder, "rated.csv", {("2", "control"): (4, value)})
    with pytest.raises(UserError, match=rf"rated\.csv: line \d+: relevance '{value}' is not 1 to 5"):
        collect(folder / "ratings_key.json", [path])


def test_refusals(folder: Path, tmp_path: Path):
    key = folder / "ratings_key.json"
    sheet = (folder / "ratings.csv").read_text("utf-8")
    last = sheet.rindex('"r')
    (tmp_path / "twice.csv").write_text(sheet + sheet[last:], "utf-8")
    (tmp_path / "other.csv").write_text("item,fluency,relevance\nr000000000000,1,1\n")
    (tmp_path / "columns.csv").write_text("item,fluency\nr0,1\n")
    (tmp_path / "empty.csv").write_text("")
    for name, message in {
        "twice": r"line \d+: item 'r\w+' is there twice",
        "other": "line 2: item 'r000000000000' is not of this evaluation",
        "columns": "first line lacks",
        "empty": "first line lacks",
        "none": "cannot be read: No such file",
    }.items():
        with pytest.raises(UserError, match=rf"{name}\.csv.*{message}"):
            collect(key, [tmp_path / f"{name}.csv"])
    with pytest.raises(UserError, match=r"ratings\.csv is not the key of a sheet"):
        collect(folder / "ratings.csv", [])


def test_samples_that_are_the_same_are_one_item(tmp_path: Path):
    write_sheet(tmp_path, [*SAMPLES, SAMPLES[0]], MODELS)
    assert len(rows_of(tmp_path / "ratings.csv")) == 12
    collect(tmp_path / "ratings_key.json", [tmp_path / "ratings.csv"])


def test_an_empty_row_is_nothing_and_an_open_quotation_mark_is_named(folder: Path):
    whole = (folder / "ratings.csv").read_text("utf-8-sig")
    (folder / "more.csv").write_text(whole + '"","","","","",""\r\n', "utf-8")
    collect(folder / "ratings_key.json", [folder / "more.csv"])
    # Of the last one the csv module takes as much as other readers of this process let it.
    for torn, said in ((whole + '"r1', "is no CSV"), ('"item', "is no CSV"), (f'{whole}"{"x" * 200_000}"\n', "")):
        (folder / "torn.csv").write_text(torn, "utf-8")
        with pytest.raises(UserError, match=rf"torn\.csv: line \d+.*{said}") as raised:
            collect(folder / "ratings_key.json", [folder / "torn.csv"])
        assert len(str(raised.value)) < 1_000
