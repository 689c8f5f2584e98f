"""To Label Studio and back: documents out as tasks, annotated as that program writes it, and in again by scrape."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import polars as pl
import pytest

from corpus.clean import stage as clean
from corpus.documents import DOCUMENT
from corpus.errors import UserError
from corpus.export import export_documents, write_tasks
from corpus.params import Params
from corpus.scrape import rows
from corpus.scrape import stage as scrape
from corpus.scrape.label_studio import configuration, read_task, task_of
from corpus.stage import Metrics, Run, execute

TASK_OF_USELESS = 3
TEXT = "A file is opened by its name. It has to be closed again."
ROWS = [
    {"text": TEXT, "label": "good & <cheap>", "title": "Files", "licence": "MIT", "stars": 5},
    {"text": "文件可以用名字打开，用完之后应当关闭。", "label": '"坏"', "url": "http://a.example/1"},
    {"text": "Nobody should read this text, which is of no use."},
    {
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "怎样打开文件？"},
            {"role": "assistant", "content": "用名字打开。"},
            {"role": "user", "content": "谢谢你的帮助。"},
        ]
    },
    {"prompt": "Why is the sky blue?", "chosen": "Air scatters blue light.", "rejected": "Nobody knows.", "label": "b"},
    {
        "text": "A text of its own, which is not how the messages read.",
        "messages": [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "A program."}],
    },
]


def build(folder: Path, sources: list[dict[str, Any]]) -> tuple[pl.DataFrame, Metrics]:
    """The documents that scrape and clean make of some sources, and what scrape counted."""
    params = Params.model_validate({"sources": sources, "clean": {"pii": "off"}})
    data, places = folder / "data", {"reports": folder / "reports", "home": folder / "home"}
    counted = execute(scrape, Run("scrape", params, (), data / "scrape", data, **places))
    execute(clean, Run("clean", params, (data / "scrape",), data / "clean", data, **places))
    parts = sorted((data / "clean").glob("part-*.parquet"))
    return pl.concat(pl.read_parquet(path) for path in parts).sort("id"), counted


@pytest.fixture
def exported(tmp_path: Path) -> tuple[pl.DataFrame, dict[str, Any], list[dict[str, Any]]]:
    """Documents, their source, and the tasks that were made of them."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), "utf-8")
    source = {"name": "rows", "kind": "jsonl", "path": str(path)}
    documents, _ = build(tmp_path / "first", [source])
    said = export_documents("clean", tmp_path / "tasks", "label-studio", False, tmp_path / "first/data")
    assert said == f"clean: 3 texts → {tmp_path}/tasks/texts.json, 3 dialogues → {tmp_path}/tasks/dialogues.json"
    names = sorted(path.name for path in (tmp_path / "tasks").iterdir())
    assert names == ["dialogues.json", "dialogues.xml", "texts.json", "texts.xml"]
    files = [tmp_path / f"tasks/{kind}.json" for kind in ("texts", "dialogues")]
    tasks = [task for file in files for task in json.loads(file.read_text("utf-8"))]
    return documents, source, tasks


def annotated(task: dict[str, Any], at: str = "2026-01-02T00:00:00Z", **said: str) -> dict[str, Any]:
    """A task as Label Studio exports it, with one more annotation."""
    results = [
        {
            "id": f"r{number}",
            "type": "choices" if name in ("verdict", "label") else "textarea",
            "value": {"choices": [value]} if name in ("verdict", "label") else {"text": [value]},
            "origin": "manual",
            "to_name": "document",
            "from_name": name,
        }
        for number, (name, value) in enumerate(said.items())
    ]
    annotation = {
        "id": 7, "completed_by": 1, "result": results, "was_cancelled": False, "ground_truth": False,
        "created_at": "2026-01-01T00:00:00Z", "updated_at": at, "lead_time": 3.2, "prediction": {}, "task": 1,
    }  # fmt: skip
    before = task.get("annotations", [])
    return {"id": 1, "meta": {}, "project": 3, **task, "annotations": [*before, annotation], "predictions": []}


def bring_back(folder: Path, tasks: list[Any], source: dict[str, Any]) -> tuple[pl.DataFrame, Metrics]:
    path = folder / "annotated.json"
    path.write_text(json.dumps(tasks, ensure_ascii=False), "utf-8")
    return build(folder / "again", [{"name": "annotated", "kind": "label_studio", "path": str(path)}, source])


def test_what_nobody_touched_comes_back_as_it_was(
    exported: tuple[pl.DataFrame, dict[str, Any], list[dict[str, Any]]], tmp_path: Path
) -> None:
    documents, source, tasks = exported
    for again in (tasks, [annotated(task) for task in tasks]):
        back, counted = bring_back(tmp_path, again, source)
        assert set(back["source"]) == {"annotated"}, "the annotated one comes in the original's place"
        same = [
            name for name in DOCUMENT.names if name not in ("source", "lang_score")
        ]  # a known language is not guessed
        for name in same:
            assert back[name].to_list() == documents[name].to_list(), name
        assert counted["dropped_by_reason"] == {"scrape.duplicate_id": 6}
        assert counted["rows"] == {"in": 12, "generated": 0, "kept": 6, "dropped": 6}


def test_corrections_labels_and_verdicts_are_heeded(
    exported: tuple[pl.DataFrame, dict[str, Any], list[dict[str, Any]]], tmp_path: Path
) -> None:
    _, source, tasks = exported
    good, bad, useless, dialogue, preferred, own_text = _in_order(tasks)
    cancelled = annotated(good, "2026-03-01", text="Cancelled.")
    cancelled["annotations"][0]["was_cancelled"] = True
    earlier = annotated(
        cancelled, "2026-01-05", text="A file was opened by its name, at first.", label="good & <cheap>"
    )
    back, counted = bring_back(
        tmp_path,
        [
            annotated(earlier, "2026-02-01", text="A file is opened by its name, and closed again.", verdict="keep"),
            annotated(bad, label="好"),
            annotated(useless, verdict="drop"),
            annotated(dialogue, answer="请按名字打开文件。", question="怎样打开一个文件？"),
            annotated(preferred, answer="Air scatters short waves more."),
            annotated(own_text, answer="A program that answers."),
        ],
        source,
    )
    by_id = {row["id"]: row for row in back.to_dicts()}
    assert by_id[good["data"]["id"]]["text"] == "A file is opened by its name, and closed again."
    assert by_id[good["data"]["id"]]["label"] == "good & <cheap>" and by_id[good["data"]["id"]]["licence"] == "MIT"
    assert by_id[bad["data"]["id"]]["label"] == "好"
    assert [message["content"] for message in by_id[dialogue["data"]["id"]]["messages"]] == [
        "Be kind.", "怎样打开一个文件？", "请按名字打开文件。", "谢谢你的帮助。",
    ]  # fmt: skip
    assert "请按名字打开文件。" in by_id[dialogue["data"]["id"]]["text"]
    chosen = [{"role": "assistant", "content": "Air scatters short waves more."}]
    rejected = [{"role": "assistant", "content": "Nobody knows."}]
    assert by_id[preferred["data"]["id"]]["preference"] == {"chosen": chosen, "rejected": rejected}
    assert by_id[preferred["data"]["id"]]["messages"][1:] == chosen
    assert by_id[own_text["data"]["id"]]["text"] == "user: Who are you?\nassistant: A program that answers."
    assert useless["data"]["id"] not in by_id and back.height == 5, "nor does its source bring it back"
    assert counted["dropped_by_reason"] == {"scrape.annotated": 1, "scrape.duplicate_id": 6}
    refused = pl.read_parquet(tmp_path / "again/data/scrape/dropped-annotated-0.parquet").to_dicts()
    assert [(row["id"], row["text"]) for row in refused] == [(useless["data"]["id"], useless["data"]["text"])]
    assert refused[0]["detail"] == f"annotated.json, object {TASK_OF_USELESS}: an annotator chose drop"


def _in_order(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tasks in the order of ROWS, by the words that each begins with."""

    def begins(row: dict[str, Any]) -> str:
        return str(row.get("prompt") or row.get("text") or row["messages"][-1]["content"])

    def place(task: dict[str, Any]) -> int:
        said = json.dumps(task["data"], ensure_ascii=False)
        return next(n for n, row in enumerate(ROWS) if begins(row) in said)

    return sorted(tasks, key=place)


def test_a_bad_task_costs_itself_alone(
    exported: tuple[pl.DataFrame, dict[str, Any], list[dict[str, Any]]], tmp_path: Path
) -> None:
    tasks = exported[2]
    bad = [5, "text", {}, {"data": []}, {"data": {"text": 5}}, {"data": {"messages": [{"role": "user"}]}},
           {"data": {"text": "x"}, "annotations": 3}, {"data": {"text": "x"}, "annotations": [{"result": "y"}]},
           {"data": {"text": "half \ud800"}}]  # fmt: skip
    by_hand = [{"data": {"text": "Written by hand in that program, without any id at all."}}]
    path = tmp_path / "annotated.json"
    path.write_text(json.dumps([*bad, *tasks, *by_hand]))
    back, counted = build(tmp_path / "again", [{"name": "annotated", "kind": "label_studio", "path": str(path)}])
    assert back.height == len(tasks) + 1
    assert counted["rows"]["dropped"] == len(bad) and counted["rows"]["in"] == len(bad) + len(tasks) + 1
    path.write_text(json.dumps(tasks)[:-30])
    clipped, counted = build(tmp_path / "clipped", [{"name": "annotated", "kind": "label_studio", "path": str(path)}])
    assert clipped.height == len(tasks) - 1 and counted["dropped_by_reason"] == {"scrape.error.json": 1}


def test_results_of_other_kinds_are_passed_over() -> None:
    _, task = task_of({"id": "0" * 32, "text": "One.", "label": "a"})
    one = annotated(task, text="Two.")
    one["annotations"][0]["result"] += [
        {"type": "rectanglelabels", "value": {"x": 1}}, {"from_name": "label", "value": {"choices": []}}, {"value": 3},
        {"from_name": "text", "value": {"text": [7]}}, {"from_name": "text", "value": None},
    ]  # fmt: skip
    found = read_task(one)
    assert (found.row["text"], found.row["label"], found.id) == ("Two.", "a", "0" * 32)
    for nothing in (None, []):
        assert read_task(task | {"annotations": nothing}).row["text"] == "One."


def test_an_area_that_was_emptied_or_saved_again_corrects_nothing_more() -> None:
    _, text = task_of({"id": "0" * 32, "text": "Old."})
    messages = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    _, dialogue = task_of({"id": "1" * 32, "text": "user: Why?\nassistant: So.", "messages": messages})
    for empty in ("", " \n"):
        assert read_task(annotated(text, text=empty)).row["text"] == "Old."
        assert read_task(annotated(dialogue, answer=empty, question=empty)).row["messages"] == messages
    again = annotated(text, text="New.")
    # Label Studio puts the words that an area was filled with behind a correction that is opened and saved once more.
    again["annotations"][0]["result"][0]["value"]["text"].append("Old.")
    assert read_task(again).row["text"] == "New."


def test_of_annotations_saved_at_one_time_the_last_counts() -> None:
    _, task = task_of({"id": "0" * 32, "text": "Old."})
    assert read_task(annotated(annotated(task, text="First."), text="Second.")).row["text"] == "Second."


def test_an_array_that_is_one_endless_line_is_read(
    exported: tuple[pl.DataFrame, dict[str, Any], list[dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MAX_LINE", 200)
    path = tmp_path / "annotated.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(exported[2]).encode())
    back, _ = build(tmp_path / "again", [{"name": "annotated", "kind": "label_studio", "path": str(path)}])
    assert back["id"].to_list() == exported[0]["id"].to_list()


def test_tasks_made_by_hand_and_fields_of_other_programs(
    exported: tuple[pl.DataFrame, dict[str, Any], list[dict[str, Any]]], tmp_path: Path
) -> None:
    good, bad = _in_order(exported[2])[:2]
    for task in (good, bad):
        task["data"]["team"] = {"name": "b"}
    by_hand = {"data": {"body": "Made by hand, and not at all by a program.", "number": 3, "question": "asked?"}}
    pair = {"data": {"question": "What is a file?", "answer": "It is bad."}}
    tasks = [good, bad, annotated(by_hand, text="Made by hand, and corrected."), annotated(pair, answer="It is bytes.")]
    path = tmp_path / "annotated.json"
    path.write_text(json.dumps(tasks))
    source = {"name": "annotated", "kind": "label_studio", "path": str(path), "text_field": "body"}
    back, counted = build(tmp_path / "again", [source])
    assert counted["rows"]["kept"] == 4
    by_text = {row["text"]: row for row in back.to_dicts()}
    assert by_text[TEXT]["meta"] == '{"stars": 5, "team": {"name": "b"}}'
    assert by_text[ROWS[1]["text"]]["meta"] == '{"team": {"name": "b"}}'
    assert by_text["Made by hand, and corrected."]["meta"] == '{"number": 3, "question": "asked?"}'
    assert "user: What is a file?\nassistant: It is bytes." in by_text


def test_a_project_exported_as_json_min_is_told_so() -> None:
    with pytest.raises(ValueError, match="JSON-MIN, which loses the documents' ids: export as JSON"):
        read_task({"id": 7, "text": "Hi", "verdict": "keep", "annotation_id": 3})


def test_dropped_ones_have_a_configuration_of_their_own(tmp_path: Path) -> None:
    kept = pl.DataFrame([{"id": "0" * 32, "text": "One.", "label": "good"}])
    dropped = pl.DataFrame([{"id": "1" * 32, "text": "Two.", "label": "bad", "reasons": ["filter.mattr.min", "x.y"]}])
    write_tasks([kept], tmp_path, "")
    write_tasks([dropped], tmp_path, "dropped-")
    choices = {
        path.name: [choice.get("value") for choice in ElementTree.parse(path).iter("Choice")]
        for path in sorted(tmp_path.glob("*.xml"))
    }
    assert choices == {"dropped-texts.xml": ["keep", "drop", "bad"], "texts.xml": ["keep", "drop", "good"]}
    assert "$reasons" in (tmp_path / "dropped-texts.xml").read_text("utf-8")
    (task,) = json.loads((tmp_path / "dropped-texts.json").read_text("utf-8"))
    assert task["data"]["reasons"] == "filter.mattr.min, x.y"


def test_labels_that_would_break_the_configuration() -> None:
    hostile = ['"/><View a="', "]]>", "<!--", "&lt;", "a\nb\tc", "nul\x00", "bell\x07", "\ufffe", "$5", "'\"", "表情😀"]
    root = ElementTree.fromstring(configuration("texts", hostile))
    choices = list(root.iter("Choice"))[2:]
    assert {choice.get("value") for choice in choices} == set(hostile) - {"nul\x00", "bell\x07", "\ufffe"}
    assert [choice.get("alias") for choice in choices if choice.get("value") == "$5"] == ["$5"]
    assert len(list(root.iter("View"))) == 1


def test_the_configuration_names_only_what_tasks_have() -> None:
    for document in ({"id": "a", "text": "x"}, {"id": "b", "text": "", "messages": [{"role": "user", "content": "x"}]}):
        kind, task = task_of(document)
        root = ElementTree.fromstring(configuration(kind, ['"a" & <b>', "好"], dropped=True))
        values = [element.get("value", "") for element in root.iter() if element.tag != "Choice"]
        assert {name for value in values for name in re.findall(r"\$(\w+)", value)} <= set(task["data"])
        assert [choice.get("value") for choice in root.iter("Choice")] == ["keep", "drop", '"a" & <b>', "好"]
        names = [element.get("name") for element in root.iter() if element.get("name")]
        assert len(names) == len(set(names))


def test_rows_that_are_no_whole_documents_are_not_exported(tmp_path: Path) -> None:
    (tmp_path / "data/shard").mkdir(parents=True)
    with pytest.raises(UserError, match="shard --format label-studio: these rows are no whole documents"):
        export_documents("shard", tmp_path / "out", "label-studio", False, tmp_path / "data")
