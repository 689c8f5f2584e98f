"""The rows of the shards: from a document to its chunks, and from a dialogue to its instruction pair."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import polars as pl
import pyarrow as pa

from corpus.documents import DOCUMENT
from corpus.shard.chunks import cut

_FIRST = ("id", "text", "source", "lang", "url", "title", "date", "licence", "label", "parent_id", "method")
_LAST = ("messages", "preference", "meta")  # meta holds the source's own ids and whatever else its rows said
SHARD = pa.schema([*map(DOCUMENT.field, _FIRST), pa.field("chunk", pa.int32()), *map(DOCUMENT.field, _LAST)])


def chunk_rows(documents: pl.DataFrame, limit: int | None) -> pl.DataFrame:
    """A row for each chunk of each document, `chunk` counting from 0; dialogues stay whole, for their messages do."""
    if limit is None:
        return documents.with_columns(chunk=pl.lit(0, pl.Int32)).select(SHARD.names)
    chunks = [
        [text] if dialogue else cut(text, limit)
        for text, dialogue in zip(documents["text"], documents["messages"].is_not_null(), strict=True)
    ]
    return (
        documents.with_columns(
            text=pl.Series(chunks, dtype=pl.List(pl.String)),
            chunk=pl.Series([list(range(len(pieces))) for pieces in chunks], dtype=pl.List(pl.Int32)),
        )
        .explode("text", "chunk")
        .select(SHARD.names)
    )


def instruction(messages: Sequence[dict[str, str]]) -> dict[str, str] | None:
    """What an instruction tuner reads: the assistant's last turn as output, all that precedes it as input.

    A lone question stands as it is, longer dialogues with the role before each turn. None where no assistant answers.

    >>> instruction([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}])
    {'input': 'Hi', 'output': 'Hello'}
    """
    answers = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
    if not answers or answers[-1] == 0:
        return None
    before = messages[: answers[-1]]
    rendered = "\n".join(f"{message['role']}: {message['content']}" for message in before)
    return {
        "input": before[0]["content"] if len(before) == 1 else rendered,
        "output": messages[answers[-1]]["content"],
    }


def instruction_lines(documents: pl.DataFrame) -> list[str]:
    """The lines of instruct.jsonl for the dialogues among some documents."""
    dialogues: list[list[dict[str, Any]]] = documents["messages"].drop_nulls().to_list()
    pairs = [instruction(messages) for messages in dialogues]
    return [json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs if pair is not None]
