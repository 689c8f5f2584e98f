"""Dialogues in the shapes they are published in."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from corpus.documents import render_messages
from corpus.scrape.messages import dialogue_of
from corpus.scrape.rows import document_of

U, A, S = ({"role": role, "content": content} for role, content in (("user", "Q"), ("assistant", "A"), ("system", "S")))
CALL = [{"type": "function", "function": {"name": "查", "arguments": "{}"}}]

ACCEPTED: dict[str, tuple[dict[str, Any], list[dict[str, str]]]] = {
    "input and output": ({"input": "Q", "output": "A"}, [U, A]),
    "question and answer": ({"question": "Q", "answer": "A", "system": "S"}, [S, U, A]),
    "alpaca": ({"instruction": "Q", "input": "", "output": "A"}, [U, A]),
    "alpaca with input": ({"instruction": "Add", "input": "1", "output": "A"}, [{**U, "content": "Add\n1"}, A]),
    "alpaca with history": (
        {"instruction": "Q", "output": "A", "system": "S", "history": [["Q", "A"], ["Q", "A"]], "input": None},
        [S, U, A, U, A, U, A],
    ),
    "sharegpt": (
        {
            "conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}],
            "system": "S",
            "tools": "[]",
        },
        [S, U, A],
    ),
    "sharegpt with tools": (
        {"conversations": [{"from": f, "value": "x"} for f in ("human", "function_call", "observation", "gpt")]},
        [{"role": role, "content": "x"} for role in ("user", "assistant", "tool", "assistant")],
    ),
    "openai": ({"messages": [{**S, "role": "developer"}, U, {**A, "tool_calls": None}]}, [S, U, A]),
    "openai in parts": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Q"}]}, A], "loss": 1},
        [U, A],
    ),
    "openai with calls": (
        {
            "messages": [
                U,
                {"role": "assistant", "content": None, "tool_calls": CALL},
                {"role": "tool", "content": ""},
                A,
            ]
        },
        [U, {**A, "content": json.dumps(CALL, ensure_ascii=False, sort_keys=True)}, {"role": "tool", "content": ""}, A],
    ),
    "assistant first": ({"messages": [A, U, A]}, [A, U, A]),
}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown role": ({"messages": [U, {"role": "cat", "content": "?"}]}, "message 2: the role cat is none of user"),
    "no role": ({"messages": [{"message": "你好"}]}, "message 1 has no role"),
    "empty": ({"messages": [U, {**A, "content": " \n"}]}, r"message 2 \(assistant\): the content is empty"),
    "no content": ({"messages": [U, {"role": "assistant"}]}, r"message 2 \(assistant\) has no content"),
    "image": (
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        "a part of the content is image_url: only text",
    ),
    "no list": ({"messages": "Q"}, "messages is str, not a list"),
    "no messages": ({"conversations": []}, "conversations is empty"),
    "no dict": ({"messages": ["Q"]}, r"message 1 is str, not \{role, content\}"),
    "number": ({"input": 5, "output": "A"}, "input is int, not a string"),
    "empty output": ({"instruction": "Q", "output": ""}, "output: the content is empty"),
    "no output": ({"instruction": "Q"}, "instruction without output"),
    "history": ({"instruction": "Q", "output": "A", "history": [["Q"]]}, "history: turn 1 is no pair"),
    "chosen": ({"prompt": "Q", "chosen": "", "rejected": "A"}, "chosen: the content is empty"),
}
GOOD, BAD = ({"role": "assistant", "content": content} for content in ("good", "bad"))
PREFERENCES: dict[str, dict[str, Any]] = {
    "strings": {"prompt": "Q", "chosen": "good", "rejected": "bad"},
    "lists": {"prompt": [U], "chosen": [GOOD], "rejected": [BAD]},
    "the whole dialogue twice": {"chosen": [U, GOOD], "rejected": [U, BAD]},
    "the prompt thrice": {"prompt": "Q", "chosen": [U, GOOD], "rejected": [U, BAD]},
    "sharegpt": {
        "conversations": [{"from": "human", "value": "Q"}],
        "chosen": {"from": "gpt", "value": "good"},
        "rejected": {"from": "gpt", "value": "bad"},
    },
    "alpaca": {"instruction": "Q", "input": "", "chosen": "good", "rejected": "bad"},
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_shapes_that_are_known(name: str) -> None:
    row, expected = ACCEPTED[name]
    found = dialogue_of(row)
    assert found is not None
    assert found.messages == expected
    document = document_of(row, "text")
    assert document["text"] == render_messages(expected)
    rest = json.loads(document["meta"] or "{}")
    assert set(rest) == set(row) - {*found.used, "messages"}, "what was not used stays in meta"


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_named(name: str) -> None:
    row, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        dialogue_of(row)
    assert document_of(row, "text")["reason"] == "scrape.error.messages"


@pytest.mark.parametrize("name", PREFERENCES)
def test_preferences(name: str) -> None:
    document = document_of(PREFERENCES[name], "text")
    assert document["messages"] == [U, GOOD]
    assert document["preference"] == {"chosen": [GOOD], "rejected": [BAD]}
    assert document["text"] == "user: Q\nassistant: good"
    assert document["meta"] is None


def test_longer_preferences_keep_their_turns() -> None:
    row = {"prompt": [S, U], "chosen": [U, A, U, GOOD], "rejected": [U, A, U, BAD]}
    found = dialogue_of(row)
    assert found is not None
    assert found.messages == [S, U, A, U, GOOD]
    assert found.preference == {"chosen": [GOOD], "rejected": [BAD]}
    different = dialogue_of({"prompt": "Q", "chosen": [GOOD, U, A], "rejected": [BAD]})
    assert different is not None
    assert different.messages == [U, GOOD, U, A]


def test_labels() -> None:
    assert document_of({"prompt": "Q", "completion": "A", "label": False}, "text")["label"] == "false"
    assert document_of({"messages": [U, A], "label": True}, "text")["label"] == "true"
    assert document_of({"messages": [U, A], "label": "kept"}, "text")["label"] == "kept"


def test_text_beside_what_looks_like_a_dialogue() -> None:
    found = document_of({"text": "a text", "question": "", "answer": 5}, "text")
    assert (found["text"], found["messages"]) == ("a text", None)
    assert document_of({"text": "a text", "messages": [U, A]}, "text")["messages"] == [U, A]
    assert document_of({"messages": [{**U, "content": "\ud800"}]}, "text")["reason"] == "scrape.error.encoding"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["user", "gpt", "", "text", "Q"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "from", "content", "value", "type", "text", "tool_calls"]), inner)
    ),
    max_leaves=12,
)
FIELDS = ["messages", "conversations", "instruction", "input", "output", "history", "system", "prompt", "chosen"]


@given(st.dictionaries(st.sampled_from([*FIELDS, "rejected", "question", "answer", "label", "text"]), VALUES))
def test_rows_of_any_shape_are_read_or_refused(row: dict[str, Any]) -> None:
    found = document_of(row, "text")
    if "reason" in found:
        assert found["detail"]
    else:
        assert isinstance(found["text"], str)
        assert all(isinstance(m["content"], str) and m["role"] for m in found["messages"] or ())


@pytest.mark.parametrize(
    ("name", "accepted", "refusals"),
    [
        ("alpaca_en_demo", 506, set()),
        ("alpaca_seed_tasks", 0, {"instruction without output"}),  # its answers are in a list of instances
        ("alpaca_zh_demo", 518, set()),
        ("dpo_en_demo", 150, set()),
        ("dpo_zh_demo", 160, set()),
        ("glaive_toolcall_en_demo", 143, set()),
        ("glaive_toolcall_zh_demo", 156, set()),
        ("gsm8k", 4414, set()),
        ("kdconv_zh_dialogues", 0, {"message 1 has no role"}),  # it does not say who speaks
        ("kto_en_demo", 158, set()),
        ("v1_sft_demo", 269, set()),
    ],
)
def test_published_sets(name: str, accepted: int, refusals: set[str]) -> None:
    if "CORPUSMILL_TEST_DATA" not in os.environ:
        pytest.skip("CORPUSMILL_TEST_DATA does not name the folder of test collections")
    path = Path(os.environ["CORPUSMILL_TEST_DATA"]) / "sft" / f"{name}.jsonl.zst"
    with zstandard.open(path, "rt", encoding="utf-8") as file:
        found = [document_of(json.loads(line), "text") for line in file]
    assert {row["detail"] for row in found if "reason" in row} == refusals
    kept = [row for row in found if "reason" not in row]
    assert len(kept) == accepted
    assert all(row["messages"] for row in kept)
    if name.startswith("dpo"):
        assert all(row["preference"]["chosen"] and row["preference"]["rejected"] for row in kept)
    if name.startswith("kto"):
        assert set(Counter(row["label"] for row in kept)) == {"true", "false"}
