"""Tokenises the shards and packs the documents into rows of one length, best fit first, as finetune reads them.

Three packs: train and validation from the shard, and control: as many tokens as train has of *unfiltered* documents.
"""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from corpus.documents import list_parts, open_part
from corpus.errors import UserError
from corpus.params import Pack
from corpus.stage import Metrics, Run, batches, count_rows, side_by_side
from train.models import load_tokenizer

READS = ("clean", "split")
VERSION = 1

IGNORED = -100  # the label that no loss counts
TOKENIZER_BATCH = 256  # documents
CONTROL_BYTES = 3  # times the bytes of train are read for the control: noise may take more tokens a byte, or fewer

Messages = list[dict[str, str]]


@dataclasses.dataclass(frozen=True)
class Document:
    """What is packed of a document."""

    id: str
    text: str
    lang: str
    messages: Messages | None


@dataclasses.dataclass(frozen=True)
class Piece:
    """A document's tokens and labels, or as much of them as goes into one row."""

    document: str
    tokens: np.ndarray  # int32
    labels: np.ndarray  # int32, IGNORED where nothing is to be learned


def run(run: Run) -> Metrics:
    """Write `train`, `validation` and `control`, each for `datasets.load_from_disk`.

    Columns: input_ids, labels and position_ids (list<int32>, pack.length long), document_ids (list<string>) and
    document_lengths (list<int32>) of the documents in the row; what follows them is padding.
    Raises UserError where a shard, the tokenizer or its marks of the assistant's tokens are missing.
    """
    os.environ["RAYON_NUM_THREADS"] = str(run.workers)  # before tokenizers starts its threads
    settings = run.params.pack
    tokenizer = load_tokenizer(run.folder("base"), "base.model")
    _refuse_too_long_rows(run)
    shards = {name: list(read_shard(run.folder("shard") / name))[: run.limit] for name in ("train", "validation")}
    if not shards["train"]:
        raise UserError(f"{run.folder('shard') / 'train'} holds no document to train on: see reports/split.json")
    packs = {name: _pieces(tokenizer, repeat(documents, settings), settings) for name, documents in shards.items()}
    tokens = sum(len(piece.tokens) for piece in packs["train"])
    control = control_documents(run, CONTROL_BYTES * sum(len(d.text.encode()) for d in shards["train"]))
    packs["control"] = first_tokens(_pieces(tokenizer, control, settings), tokens)
    documents = [*shards["train"], *shards["validation"]]
    left_out = sum(copies(document.id, document.lang, settings) == 0 for document in documents)
    languages = {document.id: document.lang for document in [*documents, *control]}
    return count_rows(rows_in=len(documents), dropped={"pack.mixture": left_out} if left_out else {}) | {
        name: _write_pack(run.output / name, pieces, settings.length, tokenizer, languages)
        for name, pieces in packs.items()
    }


def _refuse_too_long_rows(run: Run) -> None:
    from transformers import AutoConfig

    context = getattr(AutoConfig.from_pretrained(run.folder("base")), "max_position_embeddings", None)
    if context is not None and run.params.pack.length > context:
        raise UserError(
            f"pack.length {run.params.pack.length} is more than the {context} tokens that the base model can see"
        )


# ---- documents -------------------------------------------------------------------------------------------------------


def read_shard(folder: Path) -> Iterator[Document]:
    """The documents of a shard, each once: the chunks of one put together again. A folder without parts has none."""
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist: run `corpus shard`, which writes it")
    if not any(folder.glob("*.parquet")):
        return
    for path in list_parts(folder):
        rows = pl.DataFrame(pa.table(open_part(path).read()))
        missing = [pl.lit(None).alias(name) for name in ("lang", "chunk", "messages") if name not in rows.columns]
        whole = (
            rows.with_columns(missing)
            .sort("chunk", maintain_order=True)
            .group_by("id", maintain_order=True)
            .agg(pl.col("text").str.join(""), pl.col("lang").first(), pl.col("messages").first())
            .sort("id")
        )
        for row in whole.iter_rows(named=True):
            yield _document(row)


def _document(row: dict[str, Any]) -> Document:
    return Document(row["id"], row["text"], row["lang"] or "und", row["messages"] or None)


def control_documents(run: Run, enough_bytes: int) -> list[Document]:
    """Documents as they were before dedup and filter, in an order drawn by hash; `enough_bytes` of them are enough.

    None is in validation or test, or resembles one that is.
    """
    held_out = held_out_ids(run)
    columns = {"lang": None, "messages": None, "split": None}
    order: list[tuple[float, str, int]] = []  # hash, id, bytes of each copy
    for part in side_by_side(dataclasses.replace(run, limit=None)):
        for batch in batches(part, ["text"], columns):
            sizes = batch.select("id", "lang", size=pl.col("text").str.len_bytes())
            for document, lang, size in sizes.filter(~pl.col("id").is_in(held_out)).iter_rows():
                order += [
                    (_hash(run.params.pack.seed, "control", document, copy), document, size)
                    for copy in range(copies(document, lang or "und", run.params.pack))
                ]
    order.sort()
    read = np.cumsum([0, *(size for _, _, size in order)])
    chosen = [document for (_, document, _), before in zip(order, read, strict=False) if before < enough_bytes]
    found: dict[str, Document] = {}
    for part in side_by_side(dataclasses.replace(run, limit=None)):
        for batch in batches(part, ["text"], columns):
            rows = batch.select("id", "text", "lang", "messages").filter(pl.col("id").is_in(set(chosen)))
            found |= {row["id"]: _document(row) for row in rows.iter_rows(named=True)}
    return [found[document] for document in chosen]


def held_out_ids(run: Run) -> set[str]:
    """Ids of validation and test, of their duplicates, and of whatever dedup found similar to one of them."""
    held_out: set[str] = set()
    for part in side_by_side(dataclasses.replace(run, limit=None)):
        for batch in batches(part, [], {"split": None}):
            held_out.update(batch.filter(pl.col("split").is_in(["validation", "test"]))["id"])
    if run.folder("dedup").is_dir():
        duplicate_of: dict[str, str] = {}
        for path in list_parts(run.folder("dedup")):
            rows = pl.read_parquet(path, columns=["id", "duplicate_of"]).drop_nulls()
            duplicate_of |= dict(rows.iter_rows())
        edges = pl.concat(
            [pl.DataFrame(schema={"id_a": pl.String, "id_b": pl.String})]
            + [
                pl.read_parquet(path, columns=["id_a", "id_b"])
                for path in sorted((run.folder("dedup") / "edges").glob("*.parquet"))
            ]
        )
        similar = {other for a, b in edges.iter_rows() for one, other in ((a, b), (b, a)) if one in held_out}
        held_out |= similar | {document for document in duplicate_of if held_out & set(_chain(document, duplicate_of))}
    return held_out


def _chain(document: str, duplicate_of: dict[str, str]) -> list[str]:
    """A document, what it duplicates, what that duplicates, and so on."""
    chain = [document]
    while (following := duplicate_of.get(chain[-1])) is not None and following not in chain:
        chain.append(following)
    return chain


def copies(document: str, lang: str, settings: Pack) -> int:
    """How often pack.mixture takes a document: the weight of its language, its fraction decided by hash.

    >>> [copies("a", "en", Pack(mixture={"en": weight})) for weight in (0, 1, 3)]
    [0, 1, 3]
    >>> sum(copies(str(number), "en", Pack(mixture={"en": 1.5})) for number in range(1000))
    1489
    """
    weight = settings.mixture.get(lang, 1.0)
    return int(weight) + (_hash(settings.seed, "mixture", document, 0) < weight % 1)


def repeat(documents: Iterable[Document], settings: Pack) -> list[Document]:
    """Each document as often as pack.mixture says."""
    return [document for document in documents for _ in range(copies(document.id, document.lang, settings))]


def _hash(seed: int, purpose: str, document: str, number: int) -> float:
    """A number in [0, 1) that depends on nothing but its arguments."""
    digest = hashlib.blake2b(f"{seed}\0{purpose}\0{document}\0{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


# ---- tokens ----------------------------------------------------------------------------------------------------------


def _pieces(tokenizer: Any, documents: Sequence[Document], settings: Pack) -> list[Piece]:
    """The documents as pieces of at most pack.length tokens, in their order."""
    once = {document.id: document for document in documents}
    encoded: dict[str, list[Piece]] = {}
    for document, tokens, labels in encode(tokenizer, list(once.values())):
        starts = range(0, len(tokens), settings.length)
        labels[starts] = IGNORED  # the token before it in the row is another document's
        encoded[document] = [
            Piece(document, tokens[start : start + settings.length], labels[start : start + settings.length])
            for start in starts
        ]
    return [piece for document in documents for piece in encoded[document.id]]


def encode(tokenizer: Any, documents: Sequence[Document]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Ids, tokens and labels: texts between the tokenizer's beginning and end marks, dialogues by its chat template.

    In a dialogue only the assistant's tokens have labels; without a template it is its text.
    """
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    for first in range(0, len(documents), TOKENIZER_BATCH):
        batch = documents[first : first + TOKENIZER_BATCH]
        texts = tokenizer([document.text for document in batch], add_special_tokens=False, verbose=False)["input_ids"]
        for document, ids in zip(batch, texts, strict=True):
            if document.messages and tokenizer.chat_template:
                yield document.id, *encode_dialogue(tokenizer, document)
            else:
                tokens = np.array([*start, *ids, *end], np.int32)
                yield document.id, tokens, tokens.copy()


def encode_dialogue(tokenizer: Any, document: Document) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of a dialogue, and labels where the assistant speaks. Raises UserError where none would be left."""
    rendered = tokenizer.apply_chat_template(
        document.messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    tokens = np.array(rendered["input_ids"], np.int32)
    mask = np.array(rendered["assistant_masks"], bool)
    if not mask.any():
        speaks = any(message["role"] == "assistant" for message in document.messages or [])
        cure = "the chat template of base.model has no {% generation %} marks: add them" if speaks else "drop it"
        raise UserError(
            f"document {document.id}: no token of its dialogue is the assistant's, so there is no label; {cure}"
        )
    return tokens, np.where(mask, tokens, IGNORED).astype(np.int32)


def first_tokens(pieces: Iterable[Piece], tokens: int) -> list[Piece]:
    """The first pieces that have so many tokens together, the last one cut to fit."""
    chosen, left = [], tokens
    for piece in pieces:
        if left <= 0:
            break
        chosen.append(Piece(piece.document, piece.tokens[:left], piece.labels[:left]))
        left -= len(piece.tokens)
    return chosen


# ---- rows ------------------------------------------------------------------------------------------------------------


def best_fit(sizes: Sequence[int], length: int) -> list[list[int]]:
    """Bins of positions in `sizes`, each of at most `length` in sum: the largest first, each where least is left over.

    >>> best_fit([3, 9, 4, 6, 7], 10)
    [[1], [4, 0], [3, 2]]
    """
    bins: list[list[int]] = []
    by_space: dict[int, list[int]] = defaultdict(list)  # what is left in a bin, and the bins of that
    spaces: list[int] = []  # the keys of by_space that have a bin, sorted
    for position in sorted(range(len(sizes)), key=lambda position: (-sizes[position], position)):
        size = sizes[position]
        found = bisect.bisect_left(spaces, size)
        if found == len(spaces):
            number, space = len(bins), length
            bins.append([])
        else:
            space = spaces[found]
            number = by_space[space].pop()
            if not by_space[space]:
                spaces.pop(found)
        bins[number].append(position)
        rest = space - size
        if rest:
            if not by_space[rest]:
                bisect.insort(spaces, rest)
            by_space[rest].append(number)
    return bins


def pack_rows(pieces: Sequence[Piece], length: int, padding: int) -> pa.Table:
    """Pieces as rows of `length`: positions start again at 0 with each piece, which is what keeps them apart."""
    bins = best_fit([len(piece.tokens) for piece in pieces], length)
    tokens = np.full((len(bins), length), padding, np.int32)
    labels = np.full((len(bins), length), IGNORED, np.int32)
    positions = np.zeros((len(bins), length), np.int32)
    for row, members in enumerate(bins):
        at = 0
        for piece in (pieces[member] for member in members):
            size = len(piece.tokens)
            tokens[row, at : at + size] = piece.tokens
            labels[row, at : at + size] = piece.labels
            positions[row, at : at + size] = np.arange(size)
            at += size
        positions[row, at:] = np.arange(length - at)
    numbers = pa.list_(pa.int32())
    offsets = np.arange(0, len(bins) * length + 1, length, dtype=np.int32)
    columns = {
        name: pa.ListArray.from_arrays(offsets, values.ravel())
        for name, values in (("input_ids", tokens), ("labels", labels), ("position_ids", positions))
    }
    ids = [[pieces[member].document for member in members] for members in bins]
    lengths = [[len(pieces[member].tokens) for member in members] for members in bins]
    return pa.table(
        columns | {"document_ids": pa.array(ids, pa.list_(pa.string())), "document_lengths": pa.array(lengths, numbers)}
    )


def _write_pack(
    folder: Path, pieces: Sequence[Piece], length: int, tokenizer: Any, languages: dict[str, str]
) -> Metrics:
    """Save one pack as a dataset; returns its documents, tokens, rows, fill (0 to 1) and tokens by language."""
    import datasets

    datasets.disable_progress_bars()
    padding = next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)
    table = pack_rows(pieces, length, padding)
    # The library would draw a fingerprint; ours is the content's, so that equal packs are equal files.
    fingerprint = hashlib.blake2b(digest_size=8)
    for column in table.columns:
        for chunk in column.chunks:
            for buffer in chunk.buffers():
                fingerprint.update(buffer or b"")
    dataset = datasets.Dataset(datasets.table.InMemoryTable(table), fingerprint=fingerprint.hexdigest())
    dataset.save_to_disk(folder, num_shards=1)
    tokens = sum(len(piece.tokens) for piece in pieces)
    by_language: Counter[str] = Counter()
    for piece in pieces:
        by_language[languages[piece.document]] += len(piece.tokens)
    return {
        "documents": len({piece.document for piece in pieces}),
        "tokens": tokens,
        "labels": int(sum((piece.labels != IGNORED).sum() for piece in pieces)),
        "rows": table.num_rows,
        "fill": tokens / max(1, table.num_rows * length),
        "by_language": dict(by_language),
    }
