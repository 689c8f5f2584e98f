"""Label Studio's JSON: documents as tasks that people annotate and correct, and what they made of them as rows.

Texts and dialogues are two projects there, since each has a labelling configuration of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal
from xml.sax.saxutils import quoteattr

from corpus.documents import render_messages

Row = dict[str, Any]
Kind = Literal["texts", "dialogues"]
KINDS: tuple[Kind, ...] = ("texts", "dialogues")

ANNOTATED = "scrape.annotated"
KEEP, DROP = "keep", "drop"
MAX_LABELS = 100  # to choose from
_ID = re.compile(r"[0-9a-f]{32}")
_COLUMNS = ("lang", "title", "url", "date", "licence", "label", "parent_id", "method", "meta")


def task_of(document: Mapping[str, Any]) -> tuple[Kind, Row]:
    """A document as a task, and the project it belongs to. The configuration names its fields, so all are there.

    >>> kind, task = task_of({"id": "0" * 32, "text": "Hi", "lang": "en"})
    >>> kind, task["data"]["text"], task["data"]["title"]
    ('texts', 'Hi', '')
    """
    more = {name: document.get(name) or "" for name in ("source", *_COLUMNS)}
    reasons = ", ".join(document.get("reasons") or [])
    messages = document.get("messages")
    if not messages:
        return "texts", {"data": {"id": document["id"], "text": document["text"], **more, "reasons": reasons}}
    asked, answered = _last_turns(messages)
    said = {
        "messages": [dict(message) for message in messages],
        "question": messages[asked]["content"] if asked is not None else "",
        "answer": messages[answered]["content"] if answered is not None else "",
    }
    return "dialogues", {"data": {"id": document["id"], **said, **more, "reasons": reasons}}


def _last_turns(messages: Sequence[Mapping[str, str]]) -> tuple[int | None, int | None]:
    """The places of the last answer of the assistant, and of the last question before it."""
    answered = max((n for n, message in enumerate(messages) if message["role"] == "assistant"), default=None)
    before = messages if answered is None else messages[:answered]
    return max((n for n, message in enumerate(before) if message["role"] == "user"), default=None), answered


def configuration(kind: Kind, labels: Iterable[str]) -> str:
    """The labelling configuration of a project: what is shown, what can be corrected, whether it is to stay."""
    shown = {
        "texts": '  <Text name="document" value="$text"/>\n' + _area("text", "The text, to correct", 12),
        "dialogues": (
            '  <Paragraphs name="document" value="$messages" nameKey="role" textKey="content" layout="dialogue"/>\n'
            + _area("question", "The last question, to correct", 4)
            + _area("answer", "Its answer, to correct", 8)
        ),
    }[kind]
    wanted = sorted(set(labels))[:MAX_LABELS]
    return f"""<View>
  <Header value="$title"/>
{shown}{_choices("verdict", (KEEP, DROP))}{_choices("label", wanted) if wanted else ""}</View>
"""


def _area(name: str, header: str, rows: int) -> str:
    return f"""  <Header value="{header}"/>
  <TextArea name="{name}" toName="document" value="${name}" rows="{rows}" editable="true" maxSubmissions="1"/>
"""


def _choices(name: str, values: Sequence[str]) -> str:
    choices = "".join(f"    <Choice value={quoteattr(value)}/>\n" for value in values)
    return f"""  <Choices name="{name}" toName="document" choice="single-radio">
{choices}  </Choices>
"""


# ---- back again ------------------------------------------------------------------------------------------------------


def row_of_task(task: Mapping[str, Any]) -> Row:
    """A task of an export as a document's row: its newest annotation's text, answer and label in place of the old ones.

    The row has the id of the document that was exported. One that is to go has the reason `scrape.annotated`; one that
    is no such task `scrape.error.text`.
    """
    data = task.get("data")
    if not isinstance(data, dict):
        return _refused("a task of Label Studio has an object `data`")
    results = _newest_results(task)
    if isinstance(results, str):
        return _refused(results)
    messages = data.get("messages") or None
    text = results.get("text", data.get("text"))
    if messages is not None:
        if not isinstance(messages, list) or not all(_is_message(message) for message in messages):
            return _refused("data.messages is no list of objects with role and content")
        messages = _corrected(messages, results)
        text = render_messages(messages)
    if not isinstance(text, str):
        return _refused("data.text is missing or not a string")
    row: Row = {"text": text, "messages": messages}
    row |= {name: data[name] for name in _COLUMNS if isinstance(data.get(name), str) and data[name]}
    if isinstance(results.get("label"), str):
        row["label"] = results["label"]
    if isinstance(data.get("id"), str) and _ID.fullmatch(data["id"]):
        row["id"] = data["id"]
    if results.get("verdict") == DROP:
        row |= {"reason": ANNOTATED, "detail": "an annotator chose drop"}
    return row


def _newest_results(task: Mapping[str, Any]) -> dict[str, str] | str:
    """What was said by the name of the control, in the annotation that was changed last; or what is wrong with it."""
    annotations = task.get("annotations") or []
    if not isinstance(annotations, list) or not all(isinstance(one, dict) for one in annotations):
        return "annotations is no list of objects"
    usable = [one for one in annotations if not one.get("was_cancelled")]
    if not usable:
        return {}
    newest = max(usable, key=lambda one: str(one.get("updated_at") or one.get("created_at") or ""))
    results = newest.get("result")
    if not isinstance(results, list) or not all(isinstance(one, dict) for one in results):
        return "annotations.result is no list of objects"
    found: dict[str, str] = {}
    for one in results:
        value = one.get("value")
        said = (value.get("text") or value.get("choices")) if isinstance(value, dict) else None
        said = [said] if isinstance(said, str) else said
        if isinstance(said, list) and said and all(isinstance(line, str) for line in said):
            found[str(one.get("from_name"))] = "\n".join(said)
    return found


def _corrected(messages: Sequence[Mapping[str, str]], results: Mapping[str, str]) -> list[dict[str, str]]:
    asked, answered = _last_turns(messages)
    changed = [{"role": message["role"], "content": message["content"]} for message in messages]
    for name, place in (("question", asked), ("answer", answered)):
        if place is not None and name in results:
            changed[place]["content"] = results[name]
    return changed


def _is_message(message: Any) -> bool:
    return (
        isinstance(message, dict) and isinstance(message.get("role"), str) and isinstance(message.get("content"), str)
    )


def _refused(detail: str) -> Row:
    return {"reason": "scrape.error.text", "detail": detail}
