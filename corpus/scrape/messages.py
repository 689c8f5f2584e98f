"""Dialogues in the shapes they are published in: OpenAI, ShareGPT, Alpaca, question and answer, preferences."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

ROLES = {
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model", "function_call"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "function", "observation", "function_response"), "tool"),
}
PAIRS = (("prompt", "completion"), ("question", "answer"), ("input", "output"))

Message = dict[str, str]


class Dialogue(NamedTuple):
    """What a row says as messages, and which of its fields said it."""

    messages: list[Message]  # of preference data: the prompt and the chosen answer
    used: tuple[str, ...]
    preference: dict[str, list[Message]] | None = None  # `chosen` and `rejected`, both without the prompt
    label: str | None = None  # "true" or "false" where a row says whether its answer was wanted


def dialogue_of(row: Mapping[str, Any]) -> Dialogue | None:
    """The dialogue in a row of one of the usual shapes; None if it has none.

    `messages` or `conversations` (role and content, or from and value), `instruction` with `input`, `output`, `system`
    and `history`, the PAIRS, and any of these as the prompt of `chosen` and `rejected`. What is null counts as absent.
    Raises ValueError saying which message cannot be used, and why.

    >>> dialogue_of({"instruction": "Add", "input": "1 2", "output": "3"}).messages
    [{'role': 'user', 'content': 'Add\\n1 2'}, {'role': 'assistant', 'content': '3'}]
    >>> dialogue_of({"conversations": [{"from": "human", "value": "Hi"}, {"from": "cat", "value": "?"}]})
    Traceback (most recent call last):
        ...
    ValueError: message 2: the role cat is none of user, assistant, system, tool
    """
    given = {name: value for name, value in row.items() if value is not None}
    if "chosen" in given and "rejected" in given:
        return _preference(given)
    used: tuple[str, ...]
    listed = next((name for name in ("messages", "conversations") if name in given), None)
    if listed:
        messages, used = _system(given) + _messages(given[listed], listed), (listed, "system")
    elif "instruction" in given:
        if "output" not in given:
            raise ValueError("instruction without output")
        messages = [*_alpaca_prompt(given), _message("assistant", given["output"], "output")]
        used = ("instruction", "input", "output", "system", "history")
    else:
        pair = next((pair for pair in PAIRS if pair[0] in given and pair[1] in given), None)
        if pair is None:
            return None
        asked, answered = (_as_list(given[name], role, name) for name, role in zip(pair, _TURN, strict=True))
        messages, used = _system(given) + asked + answered, (*pair, "system")
    label = given.get("label")
    if not isinstance(label, bool):
        return Dialogue(messages, used)
    return Dialogue(messages, (*used, "label"), label=str(label).lower())


_TURN = ("user", "assistant")


def _preference(given: Mapping[str, Any]) -> Dialogue:
    used: tuple[str, ...]
    listed = next((name for name in ("prompt", "messages", "conversations", "question") if name in given), None)
    if listed:
        prompt, used = _system(given) + _as_list(given[listed], "user", listed), (listed, "system")
    elif "instruction" in given:
        prompt, used = _alpaca_prompt(given), ("instruction", "input", "system", "history")
    else:
        prompt, used = _system(given), ("system",)
    chosen, rejected = (_as_list(given[name], "assistant", name) for name in ("chosen", "rejected"))
    # Some repeat the prompt, or its end, in both answers.
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    again = next(n for n in range(min(shared, len(prompt)), -1, -1) if prompt[len(prompt) - n :] == chosen[:n])
    prompt += chosen[again:shared]
    chosen, rejected = chosen[shared:], rejected[shared:]
    preference = {"chosen": chosen, "rejected": rejected}
    return Dialogue(prompt + chosen, (*used, "chosen", "rejected"), preference)


def _alpaca_prompt(given: Mapping[str, Any]) -> list[Message]:
    messages = _system(given)
    history = given.get("history", [])
    if not isinstance(history, list):
        raise ValueError(f"history is {_kind(history)}, not a list of pairs")
    for number, turn in enumerate(history, 1):
        if not isinstance(turn, list | tuple) or len(turn) != 2:
            raise ValueError(f"history: turn {number} is no pair of question and answer")
        messages += [_message(role, said, f"history: turn {number}") for role, said in zip(_TURN, turn, strict=True)]
    parts = [given["instruction"], given.get("input", "")]
    if not all(isinstance(part, str) for part in parts):
        raise ValueError("instruction and input are not both strings")
    return [*messages, _message("user", "\n".join(part for part in parts if part), "instruction")]


def _system(given: Mapping[str, Any]) -> list[Message]:
    said = given.get("system")
    return [_message("system", said, "system")] if isinstance(said, str) and said.strip() else []


def _as_list(value: Any, role: str, name: str) -> list[Message]:
    """A string as one message of a role; a message, or a list of them, as they are."""
    if isinstance(value, list):
        return _messages(value, name)
    return [_turn(value, name)] if isinstance(value, dict) else [_message(role, value, name)]


def _messages(value: Any, name: str) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{name} is {_kind(value) if value else 'empty'}, not a list of messages")
    return [_turn(item, f"message {number}") for number, item in enumerate(value, 1)]


def _turn(item: Any, where: str) -> Message:
    """One message, as {role, content} or {from, value}; calls of tools become JSON in its content."""
    if not isinstance(item, dict):
        raise ValueError(f"{where} is {_kind(item)}, not {{role, content}}")
    role = item.get("role") if item.get("role") is not None else item.get("from")
    if role is None:
        raise ValueError(f"{where} has no role")
    known = ROLES.get(role.lower()) if isinstance(role, str) else None
    if known is None:
        raise ValueError(f"{where}: the role {str(role)[:40]} is none of user, assistant, system, tool")
    content = item.get("content") if item.get("content") is not None else item.get("value")
    said = [] if content is None else [_content(content, f"{where} ({role})")]
    calls = item.get("tool_calls") or item.get("function_call")
    if calls:
        said = [part for part in said if part] + [json.dumps(calls, ensure_ascii=False, sort_keys=True, default=str)]
    if not said:
        raise ValueError(f"{where} ({role}) has no content")
    return _message(known, "\n".join(said), f"{where} ({role})")


def _content(content: Any, where: str) -> str:
    """Text, or the text of all parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence) or isinstance(content, bytes):
        raise ValueError(f"{where}: the content is {_kind(content)}, not a string")
    texts = []
    for part in content:
        text = part if isinstance(part, str) else None
        if isinstance(part, dict) and part.get("type", "text") in ("text", "input_text", "output_text"):
            text = part.get("text") if part.get("text") is not None else part.get("value")
        if not isinstance(text, str):
            kind = part.get("type") if isinstance(part, dict) else _kind(part)
            raise ValueError(f"{where}: a part of the content is {str(kind)[:40]}: only text can be used")
        texts.append(text)
    return "\n".join(texts)


def _message(role: str, content: Any, where: str) -> Message:
    if not isinstance(content, str):
        raise ValueError(f"{where} is {_kind(content)}, not a string")
    if not content.strip() and role != "tool":  # a tool may have nothing to say
        raise ValueError(f"{where}: the content is empty")
    return {"role": role, "content": content}


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__
