"""Tokenises the shards and packs the documents into rows of one length, best fit first, as finetune reads them.

Three packs: train and validation from the shard, and control: *unfiltered* documents, with as many tokens of each
language as train has, or all where fewer exist.
"""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from corpus.documents import list_parts, open_part
from corpus.errors import UserError
from corpus.params import Pack
from corpus.stage import Metrics, Run, batches, count_rows, side_by_side
from train.models import IGNORED, load_tokenizer

READS = ("clean", "split")
VERSION = 2

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


class UnfitError(Exception):
    """A document of which nothing can be learned; says the reason."""


def run(run: Run) -> Metrics:
    """Write `train`, `validation` and `control`, each for `datasets.load_from_disk`.

    Columns: input_ids, labels and position_ids (list<int32>, pack.length long), document_ids (list<string>) and
    document_lengths (list<int32>) of the documents in the row; what follows them is padding. Each row has a label.
    What is dropped is counted of train and validation. Raises UserError where a shard or the tokenizer is missing, and
    where nothing is left of train.
    """
    os.environ["RAYON_NUM_THREADS"] = str(run.workers)  # before tokenizers starts its threads
    settings = run.params.pack
    tokenizer = load_tokenizer(run.folder("base"), "base.model")
    _refuse_too_long_rows(run)
    shards = {name: list(read_shard(run.folder("shard") / name))[: run.limit] for name in ("train", "validation")}
    if not shards["train"]:
        raise UserError(f"{run.folder('shard') / 'train'} holds no document to train on: see reports/split.json")
    repeated = {name: repeat(documents, settings) for name, documents in shards.items()}
    packs: dict[str, list[Piece]] = {}
    unfit: dict[str, str] = {}
    for name, documents in repeated.items():
        packs[name], reasons = _pieces(tokenizer, documents, settings)
        unfit |= reasons
    if not packs["train"]:
        why = dict(Counter(unfit.values())) or "pack.mixture takes none"
        raise UserError(f"{run.folder('shard') / 'train'} holds nothing to learn: {why}")
    documents = [*shards["train"], *shards["validation"]]
    left_out = [document.id for document in documents if copies(document.id, document.lang, settings) == 0]
    dropped = Counter([*unfit.values(), *("pack.mixture" for _ in left_out)])
    enough_bytes: Counter[str] = Counter()
    for document in repeated["train"]:
        enough_bytes[document.lang] += CONTROL_BYTES * len(document.text.encode())
    control = control_documents(run, enough_bytes)
    languages = {document.id: document.lang for document in [*documents, *control]}
    packs["control"] = first_tokens(
        _pieces(tokenizer, control, settings)[0], tokens_by_language(packs["train"], languages), languages
    )
    return count_rows(rows_in=len(documents), dropped=dropped) | {
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


def control_documents(run: Run, enough_bytes: Mapping[str, int]) -> list[Document]:
    """Documents as they were before dedup and filter, in an order drawn by hash, until there are enough of a language.

    None is in validation or test, or resembles one that is.
    """
    held_out = held_out_ids(run)
    columns = {"lang": None, "messages": None, "split": None}
    order: list[tuple[float, str, str, int]] = []  # hash, id, language, bytes of each copy
    for part in side_by_side(dataclasses.replace(run, limit=None)):
        for batch in batches(part, ["text"], columns):
            sizes = batch.select("id", "lang", size=pl.col("text").str.len_bytes())
            for document, lang, size in sizes.filter(~pl.col("id").is_in(held_out)).iter_rows():
                order += [
                    (_hash(run.params.pack.seed, "control", document, copy), document, lang or "und", size)
                    for copy in range(copies(document, lang or "und", run.params.pack))
                ]
    chosen: list[str] = []
    read: Counter[str] = Counter()
    for _, document, lang, size in sorted(order):
        if read[lang] < enough_bytes.get(lang, 0):
            chosen.append(document)
            read[lang] += size
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


def _pieces(tokenizer: Any, documents: Sequence[Document], settings: Pack) -> tuple[list[Piece], dict[str, str]]:
    """The documents as pieces of at most pack.length tokens, in their order, and why others have none, by id.

    Pieces without a label, such as the start of a long question, are left out: they would use up the budget.
    """
    once = {document.id: document for document in documents}
    encoded: dict[str, list[Piece]] = {}
    unfit: dict[str, str] = {}
    for document, tokens, labels in encode(tokenizer, list(once.values()), unfit):
        starts = range(0, len(tokens), settings.length)
        labels[starts] = IGNORED  # the token before it in the row is another document's
        pieces = [
            Piece(document, tokens[start : start + settings.length], labels[start : start + settings.length])
            for start in starts
        ]
        encoded[document] = [piece for piece in pieces if has_label(piece)]
        if not encoded[document]:
            unfit[document] = "pack.no_answer"
    return [piece for document in documents for piece in encoded.get(document.id, [])], unfit


def has_label(piece: Piece) -> bool:
    """Whether anything of a piece is to be learned."""
    return bool((piece.labels != IGNORED).any())


def encode(
    tokenizer: Any, documents: Sequence[Document], unfit: dict[str, str]
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Ids, tokens and labels: texts between the tokenizer's beginning and end marks, dialogues by its chat template.

    In a dialogue only the assistant's tokens have labels; without a template it is its text. Dialogues of which nothing
    can be learned are left out, and the reason noted in `unfit`.
    """
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    for first in range(0, len(documents), TOKENIZER_BATCH):
        batch = documents[first : first + TOKENIZER_BATCH]
        texts = tokenizer([document.text for document in batch], add_special_tokens=False, verbose=False)["input_ids"]
        for document, ids in zip(batch, texts, strict=True):
            if document.messages and tokenizer.chat_template:
                try:
                    yield document.id, *encode_dialogue(tokenizer, document.messages)
                except UnfitError as error:
                    unfit[document.id] = str(error)
            else:
                tokens = np.array([*start, *ids, *end], np.int32)
                yield document.id, tokens, tokens.copy()


def encode_dialogue(tokenizer: Any, messages: Messages) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of a dialogue, and labels where the assistant answers. Raises UnfitError where none does or can be found.

    An answer is what the dialogue up to it has more than the dialogue before it with the prompt to answer: so any chat
    template will do that renders turn by turn. What the assistant says first of all answers nobody.
    """
    answers = [turn for turn, message in enumerate(messages) if turn and message["role"] == "assistant"]
    if not answers:
        raise UnfitError("pack.no_answer")
    if not tokenizer.is_fast:
        raise UserError("base.model: its tokenizer does not say where its tokens stand: add a tokenizer.json to it")
    whole = _render(tokenizer, messages)
    encoded = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    tokens = np.array(encoded["input_ids"], np.int32)
    starts = np.array([start for start, _ in encoded["offset_mapping"]])
    labels = np.full_like(tokens, IGNORED)
    for turn in answers:
        asked = _render(tokenizer, messages[:turn], add_generation_prompt=True)
        answered = _render(tokenizer, messages[: turn + 1])
        if not (answered.startswith(asked) and whole.startswith(answered)):
            raise UnfitError("pack.template")
        learned = (len(asked) <= starts) & (starts < len(answered))
        labels[learned] = tokens[learned]
    return tokens, labels


def _render(tokenizer: Any, messages: Messages, add_generation_prompt: bool = False) -> str:
    from jinja2 import TemplateError

    try:
        text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt)
    except (TemplateError, TypeError):  # it refuses the roles or their order, or adds up what is not text
        raise UnfitError("pack.template") from None
    return text


def tokens_by_language(pieces: Iterable[Piece], languages: Mapping[str, str]) -> Counter[str]:
    """Tokens of pieces by the language of their documents."""
    tokens: Counter[str] = Counter()
    for piece in pieces:
        tokens[languages[piece.document]] += len(piece.tokens)
    return tokens


def first_tokens(pieces: Iterable[Piece], tokens: Mapping[str, int], languages: Mapping[str, str]) -> list[Piece]:
    """The first pieces that have so many tokens of each language, the last ones cut to fit if that leaves a label."""
    chosen, left = [], dict(tokens)
    for piece in pieces:
        lang = languages[piece.document]
        space = left.get(lang, 0)
        cut = Piece(piece.document, piece.tokens[:space], piece.labels[:space])
        if has_label(cut):
            chosen.append(cut)
            left[lang] -= len(cut.tokens)
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
    return {
        "documents": len({piece.document for piece in pieces}),
        "tokens": tokens,
        "labels": int(sum((piece.labels != IGNORED).sum() for piece in pieces)),
        "rows": table.num_rows,
        "fill": tokens / max(1, table.num_rows * length),
        "by_language": dict(tokens_by_language(pieces, languages)),
    }
