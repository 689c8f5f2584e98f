"""What of each document is compared with others when groups are made: a file of traces a part, without any text."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from corpus.dedup.shingles import Shingles, shingle_sets
from corpus.documents import DOCUMENT, part_writer
from corpus.stage import Metrics, Part, batches
from corpus.text.buffers import Texts
from corpus.text.exact import exact_key
from corpus.text.tokens import Tokens, tokenise

NGRAM = 13  # tokens: what contamination and containment are measured in (Brown et al. 2020, appendix C)
SKETCH = 64  # 13-grams that stand for a longer document: those of the smallest hashes
SHINGLE = 3  # tokens: what the similarity of short documents is measured in, as in dedup
SHORT = 16  # distinct shingles up to which a document is short; MinHash is exact enough for longer ones
HOST = "host"  # in split.group_by: the host of the URL

SLICE = (64, 1_000_000)  # texts and bytes tokenised at a time: their hashes stay in the processor's cache

TRACE = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("batch", pa.int32()),
        pa.field("lang", pa.string()),
        pa.field("label", pa.string()),
        pa.field("n_chars", pa.int64()),
        pa.field("keys", pa.list_(pa.uint64())),  # documents that share one belong together
        pa.field("turns", pa.list_(pa.uint64())),  # of a dialogue, but for the system's: likewise
        pa.field("shingles", pa.list_(pa.uint64())),  # of a short document, sorted; none of others
        pa.field("sketch", pa.list_(pa.uint64())),
        pa.field("grams", pa.int64()),  # distinct 13-grams
    ]
)
_DEFAULTS = {"batch": 0, **dict.fromkeys(("lang", "label", "url", "parent_id", "messages", "preference", "meta"))}


def trace_part(group_by: Sequence[str], part: Part, folder: Path) -> Metrics:
    """Write the traces of a part's documents. Metrics: how many documents have a value for each of `group_by`."""
    found = dict.fromkeys(group_by, 0)
    columns = [name for name in group_by if name in DOCUMENT.names and name not in _DEFAULTS]
    with part_writer(TRACE, folder / part.name) as writer:
        for batch in batches(part, ["id", "text"], _DEFAULTS | dict.fromkeys(columns)):
            texts = Texts.of(batch["text"].to_arrow())
            keys = [[key] if key is not None else [] for key in text_keys(texts)]
            turns = [_turns(row) for row in batch.select("messages", "preference").iter_rows(named=True)]
            turn_keys = iter(text_keys(Texts.of_strings(turn for said in turns for turn in said)))
            similarity = _similarity_columns(texts)
            for row, own, short in zip(
                batch.drop("text").iter_rows(named=True), keys, similarity["shingles"], strict=True
            ):
                own += [_key(np.array(short.as_py(), np.uint64))] if len(short) else []
                own += [key_of("document", row[name]) for name in ("id", "parent_id") if row[name] is not None]
                values = {name: value for name in group_by if (value := grouping_value(row, name)) is not None}
                own += [key_of(f"group_by {name}", value) for name, value in values.items()]
                found |= {name: found[name] + 1 for name in values}
            plain = batch.select(
                "id",
                pl.col("batch").fill_null(0).cast(pl.Int32),
                pl.col("lang").cast(pl.String).fill_null("und"),
                pl.col("label").cast(pl.String),
                n_chars=pl.col("text").str.len_chars().cast(pl.Int64),
            )
            columns_of = {
                **{name: plain[name].to_arrow() for name in plain.columns},
                "keys": pa.array(keys, TRACE.field("keys").type),
                "turns": pa.array(
                    [[key for _ in said if (key := next(turn_keys)) is not None] for said in turns],
                    TRACE.field("turns").type,
                ),
                **similarity,
            }
            writer.write_table(pa.table(columns_of).cast(TRACE))
    return {"group_by": found}


def grouping_value(row: Mapping[str, Any], name: str) -> str | None:
    """What `split.group_by` compares: the host of the URL, a column, or what `meta` has under that name.

    >>> row = {"url": "https://example.org/a", "source": "web", "meta": '{"thread": 7}'}
    >>> [grouping_value(row, name) for name in ("host", "source", "thread", "author")]
    ['example.org', 'web', '7', None]
    """
    if name == HOST:
        try:
            return urlsplit(row["url"] or "").hostname
        except ValueError:  # an address that no parser takes
            return None
    value = row[name] if name in row else _meta(row).get(name)
    if value is None or isinstance(value, str):
        return value or None
    return json.dumps(value, sort_keys=True, default=str)


def _meta(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The object in `meta`; nothing where others put something else there."""
    try:
        meta = json.loads(row["meta"] or "{}")
    except ValueError:
        return {}
    return meta if isinstance(meta, dict) else {}


def key_of(kind: str, value: str) -> int:
    """64 bits of BLAKE2b."""
    digest = hashlib.blake2b(f"{kind}\0{value}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def text_keys(texts: Texts) -> list[int | None]:
    """A key of each text: equal where the words are, whatever their case, punctuation and white space.

    A text without words has the key of all that it holds, an empty one has none: such are not alike.

    >>> one, same, other = text_keys(Texts.of_strings(["Copy it, now!", "copy it now", "now copy it"]))
    >>> one == same, one == other
    (True, False)
    """
    keys: list[int | None] = []
    for some, tokens in tokenised(texts):
        for number, (start, end) in enumerate(itertools.pairwise(tokens.offsets.tolist())):
            keys.append(_key(tokens.hashes[start:end]) if end > start else _key_of_symbols(some.text(number)))
    return keys


def _key(hashes: npt.NDArray[np.uint64]) -> int:
    return int.from_bytes(hashlib.blake2b(hashes.tobytes(), digest_size=8).digest(), "big")


def _key_of_symbols(text: str) -> int | None:
    exact = exact_key(text)
    return int.from_bytes(exact[:8], "big") if exact else None


def grams(tokens: Tokens) -> Shingles:
    """The distinct 13-grams of each document; one of fewer tokens is a single gram, one without tokens has none."""
    return shingle_sets(tokens, NGRAM, short=True)


def tokenised(texts: Texts) -> Iterator[tuple[Texts, Tokens]]:
    """A few texts at a time, and their tokens."""
    for some in texts.slices(*SLICE):
        yield some, tokenise(some)


def _similarity_columns(texts: Texts) -> dict[str, pa.Array]:
    """The columns shingles, sketch and grams."""
    shingles, sketches, counts = [], [], []
    for _, tokens in tokenised(texts):
        sets, whole = shingle_sets(tokens, SHINGLE, short=True), grams(tokens)
        sizes = np.diff(sets.offsets)
        shingles.append(_first_of_each(sets, np.where(sizes <= SHORT, sizes, 0)))
        sketches.append(_first_of_each(whole, np.minimum(np.diff(whole.offsets), SKETCH)))
        counts.append(np.diff(whole.offsets))
    empty = pa.array([], TRACE.field("sketch").type)
    return {
        "shingles": pa.concat_arrays([empty, *shingles]),
        "sketch": pa.concat_arrays([empty, *sketches]),
        "grams": np.concatenate([np.zeros(0, np.int64), *counts]),
    }


def _first_of_each(sets: Shingles, counts: npt.NDArray[np.int64]) -> pa.Array:
    """The first so many hashes of each set, as a column of lists."""
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    places = np.repeat(sets.offsets[:-1] - offsets[:-1], counts) + np.arange(offsets[-1])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(sets.hashes[places], pa.uint64()))


def _turns(row: Mapping[str, Any]) -> list[str]:
    """What user, assistant and tools say in a dialogue or in the two of preference data, each once."""
    dialogues = [row["messages"] or [], *(row["preference"] or {}).values()]
    said = [turn["content"] for messages in dialogues for turn in messages or [] if turn["role"] != "system"]
    return list(dict.fromkeys(filter(None, said)))


def said(documents: pl.DataFrame) -> Texts:
    """All that documents say: their text, and what stands in their dialogues, which need not be its rendering."""
    texts = documents["text"].to_list()
    for number, row in enumerate(documents.select("messages", "preference").iter_rows(named=True)):
        dialogues = [row["messages"] or [], *(row["preference"] or {}).values()]
        turns = dict.fromkeys(turn["content"] or "" for messages in dialogues for turn in messages or [])
        texts[number] = "\n".join([texts[number], *turns])
    return Texts.of_strings(texts)
