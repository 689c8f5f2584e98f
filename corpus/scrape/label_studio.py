"""Label Studio's JSON: documents as tasks that people annotate and correct, and what they made of them as rows.

Texts and dialogues are two projects there, since each has a labelling configuration of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple
from xml.sax.saxutils import quoteattr

from corpus.documents import render_messages
from corpus.scrape.messages import Message, dialogue_of

Row = dict[str, Any]
Kind = Literal["texts", "dialogues"]
KINDS: tuple[Kind, ...] = ("texts", "dialogues")

ANNOTATED = "scrape.annotated"
KEEP, DROP = "keep", "drop"
MAX_LABELS = 100  # to choose from
_ID = re.compile(r"[0-9a-f]{32}")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_COLUMNS = ("lang", "title", "url", "date", "licence", "label")  # as any row of a file may have them
_KEPT_AS_THEY_ARE = ("parent_id", "method", "meta")
_SHOWN = ("id", "source", "reasons", "question", "answer")  # for people to see: no part of the document


def task_of(document: Mapping[str, Any]) -> tuple[Kind, Row]:
    """A document as a task, and the project it belongs to. The configuration names its fields, so all are there.

    >>> kind, task = task_of({"id": "0" * 32, "text": "Hi", "lang": "en"})
    >>> kind, task["data"]["text"], task["data"]["title"]
    ('texts', 'Hi', '')
    """
    more = {name: document.get(name) or "" for name in ("source", *_COLUMNS, *_KEPT_AS_THEY_ARE)}
    more["reasons"] = ", ".join(document.get("reasons") or [])
    messages = document.get("messages")
    if not messages:
        return "texts", {"data": {"id": document["id"], "text": document["text"], **more}}
    asked, answered = _last_turns(messages)
    said: Row = {
        "messages": [dict(message) for message in messages],
        "question": messages[asked]["content"] if asked is not None else "",
        "answer": messages[answered]["content"] if answered is not None else "",
    }
    if document["text"] != render_messages(messages):
        said["text"] = document["text"]
    preference = document.get("preference")
    if preference and all(preference.values()):
        said["preference"] = {side: [dict(one) for one in preference[side]] for side in ("chosen", "rejected")}
    return "dialogues", {"data": {"id": document["id"], **said, **more}}


def _last_turns(messages: Sequence[Mapping[str, str]]) -> tuple[int | None, int | None]:
    """The places of the last answer of the assistant, and of the last question before it."""
    answered = max((n for n, message in enumerate(messages) if message["role"] == "assistant"), default=None)
    before = messages if answered is None else messages[:answered]
    return max((n for n, message in enumerate(before) if message["role"] == "user"), default=None), answered


def configuration(kind: Kind, labels: Iterable[str], dropped: bool = False) -> str:
    """The labelling configuration of a project: what is shown, what can be corrected, whether it is to stay.

    Labels that XML cannot hold are not among those to choose from.
    """
    shown = {
        "texts": '  <Text name="document" value="$text"/>\n' + _area("text", "The text, to correct", 12),
        "dialogues": (
            '  <Paragraphs name="document" value="$messages" nameKey="role" textKey="content" layout="dialogue"/>\n'
            + _area("question", "The last question, to correct", 4)
            + _area("answer", "Its answer, to correct", 8)
        ),
    }[kind]
    wanted = sorted(label for label in set(labels) if not _NOT_XML.search(label))[:MAX_LABELS]
    why = '  <Header value="Dropped: $reasons"/>\n' if dropped else ""
    label = '  <Header value="Label: $label"/>\n' + _choices("label", wanted) if wanted else ""
    return f"""<View>
  <Header value="$title"/>
{why}{shown}{_choices("verdict", (KEEP, DROP))}{label}</View>
"""


def _area(name: str, header: str, rows: int) -> str:
    return f"""  <Header value="{header}"/>
  <TextArea name="{name}" toName="document" value="${name}" rows="{rows}" editable="true" maxSubmissions="1"/>
"""


def _choices(name: str, values: Sequence[str]) -> str:
    choices = "".join(f"    <Choice {_choice(value)}/>\n" for value in values)
    return f"""  <Choices name="{name}" toName="document" choice="single-radio">
{choices}  </Choices>
"""


def _choice(value: str) -> str:
    # A value with $ is taken for the name of a field; an alias, which goes into the results, is not.
    return f"value={quoteattr(value)}" + (f" alias={quoteattr(value)}" if "$" in value else "")


# ---- back again ------------------------------------------------------------------------------------------------------


class Annotated(NamedTuple):
    """What a task says of its document."""

    id: str | None  # of the document that was exported; None of a task that people made
    row: Row  # corrected, in the shape of any file's row
    columns: Row  # of a document, beside those that are made of the row
    dropped: bool  # an annotator said that it must go


def read_task(task: Mapping[str, Any], text_field: str = "text") -> Annotated:
    """A task of an export, with its newest annotation's text, question, answer and label in place of the old ones.

    `text_field` is that of tasks that people made. Raises ValueError saying what is wrong with one that is no task.

    >>> annotation = {"result": [{"from_name": "text", "value": {"text": ["Bye"]}}], "was_cancelled": False}
    >>> read_task({"data": {"text": "Hi", "stars": 5}, "annotations": [annotation]}).row
    {'text': 'Bye', 'stars': 5}
    """
    data = task.get("data")
    if not isinstance(data, dict):
        flat = " (this is JSON-MIN, which loses the documents' ids: export as JSON)" if "annotation_id" in task else ""
        raise ValueError(f"a task of Label Studio has an object `data`{flat}")
    said = _newest_results(task)
    dropped = DROP in said.get("verdict", ())
    if said.get("label"):
        data = data | {"label": ", ".join(said["label"])}
    if not isinstance(data.get("id"), str) or not _ID.fullmatch(data["id"]):
        return Annotated(None, _corrected(data, said, text_field), {}, dropped)
    row = {name: data[name] for name in data if name not in (*_SHOWN, *_KEPT_AS_THEY_ARE, "preference")}
    row = {name: value for name, value in row.items() if value != "" or name not in _COLUMNS}
    columns: Row = {name: data[name] for name in _KEPT_AS_THEY_ARE if isinstance(data.get(name), str) and data[name]}
    before = row.get("messages")
    row = _corrected(row, said, "text")
    if data.get("preference") is not None:
        columns["preference"] = _preference(data["preference"], before, row.get("messages"))
    return Annotated(data["id"], row, columns, dropped)


def _newest_results(task: Mapping[str, Any]) -> dict[str, list[str]]:
    """What was said by the name of the control, in the annotation that was changed last."""
    annotations = task.get("annotations") or []
    if not isinstance(annotations, list) or not all(isinstance(one, dict) for one in annotations):
        raise ValueError("annotations is no list of objects")
    usable = [one for one in annotations if not one.get("was_cancelled")]
    if not usable:
        return {}
    newest = sorted(usable, key=lambda one: str(one.get("updated_at") or one.get("created_at") or ""))[-1]
    results = newest.get("result")
    if not isinstance(results, list) or not all(isinstance(one, dict) for one in results):
        raise ValueError("annotations.result is no list of objects")
    found: dict[str, list[str]] = {}
    for one in results:
        value = one.get("value")
        said = (value.get("text") or value.get("choices")) if isinstance(value, dict) else None
        said = [said] if isinstance(said, str) else said
        if isinstance(said, list) and said and all(isinstance(line, str) for line in said):
            found[str(one.get("from_name"))] = said
    return found


def _corrected(data: Row, said: Mapping[str, list[str]], text_field: str) -> Row:
    """The fields of a task with what people wrote in their place; a text that renders messages goes with them.

    Messages that are none are left as they are, for the reader of rows to say what is wrong with them.
    """
    if not data.get("messages"):
        fields = [(text_field, "text"), *((name, name) for name in ("question", "answer") if data.get(name))]
        return data | {field: _correction(said[name], data.get(field)) for field, name in fields if name in said}
    try:
        messages = _messages(data["messages"])
    except ValueError:
        return data
    changed = [dict(message) for message in messages]
    for name, place in zip(("question", "answer"), _last_turns(messages), strict=True):
        if place is not None and name in said:
            changed[place]["content"] = _correction(said[name], messages[place]["content"])
    rest = data if changed == messages else {name: value for name, value in data.items() if name != text_field}
    return rest | {"messages": changed}


def _correction(said: Sequence[str], before: Any) -> Any:
    """What people wrote into an area, or what was there before where that is nothing.

    When an annotation is saved again, Label Studio adds what the area was filled with once more.

    >>> _correction(["new", "old"], "old"), _correction(["old"], "old"), _correction([" "], "old")
    ('new', 'old', 'old')
    """
    return "\n".join(one for one in said if one.strip() and one != before) or before


def _preference(given: Any, before: Any, after: Sequence[Message] | None) -> dict[str, list[Message]]:
    """Chosen and rejected answer; the chosen one, with which the messages end, as it was corrected."""
    if not isinstance(given, dict):
        raise ValueError("data.preference is no object with chosen and rejected")
    chosen, rejected = (_messages(given.get(side)) for side in ("chosen", "rejected"))
    if before and after and _messages(before)[-len(chosen) :] == chosen:
        chosen = list(after[-len(chosen) :])
    return {"chosen": chosen, "rejected": rejected}


def _messages(given: Any) -> list[Message]:
    dialogue = dialogue_of({"messages": given})
    if dialogue is None:
        raise ValueError("messages are missing")
    return dialogue.messages


def joined_meta(meta: str | None, more: str | None) -> str | None:
    """A document's meta, both JSON, with that of fields which its task has got since.

    >>> joined_meta('{"stars": 5}', '{"team": "b"}'), joined_meta('{"stars":5}', None)
    ('{"stars": 5, "team": "b"}', '{"stars":5}')
    """
    if meta is None or more is None:
        return meta or more
    try:
        known = json.loads(meta)
    except ValueError:
        known = meta
    known = known if isinstance(known, dict) else {"meta": known}
    return json.dumps(known | json.loads(more), sort_keys=True)
