"""The rows of the shards: from a document to its chunks, and from a dialogue to its instruction pair."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import polars as pl
import pyarrow as pa

from corpus.documents import DOCUMENT
from corpus.shard.chunks import WORDS, Chunk, Tokens, cut_all

CUT_AT_ONCE = 100  # documents; each one's sentences and words are Python's while it is cut

_FIRST = ("id", "text", "source", "lang", "url", "title", "date", "licence", "label", "parent_id", "method")
_OWN = (
    pa.field("chunk", pa.int32()),  # of its document, from 0
    pa.field("overlap", pa.int32()),  # characters at its beginning with which the chunk before ends
    pa.field("copy", pa.int32()),  # 0, and further ones for documents that are taken several times
    pa.field("document_ids", pa.list_(pa.string())),  # whose words these are: the document's, and its parent's
)
_LAST = ("messages", "preference", "meta")  # meta holds the source's own ids and whatever else its rows said
SHARD = pa.schema([*map(DOCUMENT.field, _FIRST), *_OWN, *map(DOCUMENT.field, _LAST)])


def chunk_rows(documents: pl.DataFrame, limit: int | None, overlap: int = 0, tokens: Tokens = WORDS) -> pl.DataFrame:
    """A row for each chunk of each document: the columns of SHARD, and its `tokens`.

    Dialogues stay whole, for their messages do. Without a limit all documents are, and `tokens` is 0.
    """
    if limit is None:
        rows = documents.with_columns(
            chunk=pl.lit(0, pl.Int32), overlap=pl.lit(0, pl.Int32), tokens=pl.lit(0, pl.Int64)
        )
    else:
        cut = [_cut_rows(some, limit, overlap, tokens) for some in documents.iter_slices(CUT_AT_ONCE)]
        rows = pl.concat(cut, rechunk=True)  # where one piece ends and the next begins shows in a Parquet file
    return rows.with_columns(document_ids=pl.concat_list("id", "parent_id").list.drop_nulls()).select(
        *SHARD.names, "tokens"
    )


def _cut_rows(documents: pl.DataFrame, limit: int, overlap: int, tokens: Tokens) -> pl.DataFrame:
    """The documents with `chunk`, `overlap` and `tokens`, a row for each chunk."""
    whole = documents["messages"].list.len().fill_null(0) > 0
    cut = iter(cut_all(documents.filter(~whole)["text"].to_list(), limit, overlap, tokens))
    dialogues = documents.filter(whole)["text"].to_list()
    uncut = iter([Chunk(text, counted, 0) for text, counted in zip(dialogues, tokens.count(dialogues), strict=True)])
    chunks = [[next(uncut)] if stays else next(cut) for stays in whole]
    return documents.with_columns(
        pl.Series("text", [[chunk.text for chunk in own] for own in chunks], pl.List(pl.String)),
        pl.Series("chunk", [list(range(len(own))) for own in chunks], pl.List(pl.Int32)),
        pl.Series("overlap", [[chunk.overlap for chunk in own] for own in chunks], pl.List(pl.Int32)),
        pl.Series("tokens", [[chunk.tokens for chunk in own] for own in chunks], pl.List(pl.Int64)),
    ).explode("text", "chunk", "overlap", "tokens")


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
    """The lines of instruct.jsonl for the dialogues among some documents: id, input, output, messages."""
    dialogues = documents.filter(pl.col("messages").is_not_null()).select("id", "messages")
    lines = []
    for id, messages in dialogues.iter_rows():
        pair: dict[str, Any] | None = instruction(messages)
        if pair is not None:
            lines.append(json.dumps({"id": id, **pair, "messages": messages}, ensure_ascii=False) + "\n")
    return lines
