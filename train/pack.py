"""Tokenises the shards and packs the documents into rows of one length, best fit first, as finetune reads them.

Packs of train and validation, one of each general collection in finetune.mix, and within the graph the control:
*unfiltered* documents, with as many tokens of each language as train has, or all where fewer exist.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from corpus.documents import to_arrow, write_table
from corpus.errors import UserError
from corpus.files import file_digest
from corpus.params import Pack
from corpus.progress import progress
from corpus.stage import Metrics, Run, count_rows
from train.encode import Template, encode, pack_tokenizer, read_templates, refuse_useless_template
from train.lineage import refuse_other_name, write_made_for
from train.models import IGNORED
from train.pieces import Column, StoredPieces
from train.shards import NAMED, Document, Dropped, Tally, control_documents, copies, find_shards, read_shard, traces

READS = ("clean", "split")
VERSION = 6

CONTROL_BYTES = 3  # times the bytes of train are read for the control: noise may take more tokens a byte, or fewer
ROWS_AT_ONCE = 1_000  # of a pack in memory while it is written
_NO_FINGERPRINT = "0" * 16


def run(run: Run) -> Metrics:
    """Write train, validation, control and mix/NAME, each for `datasets.load_from_disk`, and dropped.parquet.

    Columns: input_ids, labels and position_ids (list<int32>, pack.length long), document_ids (list<string>) and
    document_lengths (list<int32>) of the documents in the row; what follows them is padding. Each row has a label.
    With --input there is no control. `rows` counts train and validation, each mix its own. Raises UserError where a
    shard or the tokenizer is missing, nothing is left of train, or a document stands in two of train, validation, test.
    """
    os.environ["RAYON_NUM_THREADS"] = str(run.workers)  # before tokenizers starts its threads
    settings, mixes = run.params.pack, run.params.finetune.mix
    in_graph = run.inputs == tuple(map(run.folder, READS))
    if len(run.inputs) > 1 and not in_graph:
        raise UserError(f"pack reads one --input, a folder or file of documents, not {len(run.inputs)}")
    refuse_other_name(run.folder("base"), run.params.base)
    shards = find_shards(run.folder("shard") if in_graph else run.inputs[0])
    tokenizer = pack_tokenizer(run.folder("base"), settings, run.params.base.trust_remote_code)
    _refuse_too_long_rows(run)
    templates = read_templates(settings.templates)
    plain = settings.model_copy(update={"mixture": {}})
    sources = {name: (path, settings) for name, path in shards.items() if name != "test"}
    sources |= {f"mix/{name}": (find_shards(mix.path)["train"], plain) for name, mix in mixes.items()}

    tallies: dict[str, Tally] = defaultdict(Tally)
    packs: dict[str, StoredPieces] = {}
    test = _traces_of(shards.get("test"), tallies["test"])
    held_out = test | _traces_of(shards.get("validation"), Tally())
    for name, (path, taken) in sources.items():
        read = itertools.islice(read_shard(path, tallies[name]), run.limit)
        documents = _admitted(name, read, taken, tallies[name], test if name == "validation" else held_out)
        encoded = encode(tokenizer, documents, taken, templates, tallies[name])
        packs[name] = StoredPieces(run.output)
        for own in encoded:
            packs[name].add(own, times=copies(own[0].document, own[0].lang, taken))
    counts = sum((tally.counts for tally in tallies.values()), Counter())
    refuse_useless_template(counts, settings, run.params.base.model)
    for name, (path, _) in sources.items():
        if not packs[name] and name != "validation":
            why = dict(tallies[name].reasons()) or "no document"
            first = "".join(f"; first {row.id}: {row.detail}" for row in tallies[name].dropped[:1])
            raise UserError(f"{path} holds nothing to learn: {why}{first}")
    if in_graph:
        packs["control"] = _control(run, tokenizer, templates, packs["train"], tallies)
    packs.setdefault("validation", StoredPieces(run.output))

    rows = [(name, *row) for name, tally in tallies.items() for row in tally.dropped]
    frame = pl.DataFrame(rows, dict.fromkeys(("pack", "id", "reason", "detail"), pl.String), orient="row")
    write_table(to_arrow(frame), run.output / "dropped.parquet")
    write_made_for(run.output, run.folder("base"), "tokenizer")
    written = {
        name: write_pack(run.output / name, pieces, settings.length, tokenizer) | tallies[name].metrics()
        for name, pieces in packs.items()
    }
    lineage = {
        name: written.pop(f"mix/{name}")
        | {"path": str(mix.path), "fingerprint": tallies[f"mix/{name}"].digest.hexdigest()}
        | {"dropped_by_reason": tallies[f"mix/{name}"].reasons()}
        for name, mix in mixes.items()
    }
    rows_in = tallies["train"].rows + tallies["validation"].rows
    dropped = tallies["train"].reasons() + tallies["validation"].reasons()
    return count_rows(rows_in=rows_in, dropped=dropped) | written | {"mix": lineage}


def _refuse_too_long_rows(run: Run) -> None:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(run.folder("base"), trust_remote_code=run.params.base.trust_remote_code)
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    if context is not None and run.params.pack.length > context:
        raise UserError(f"pack.length {run.params.pack.length} is more than the {context} tokens that the base can see")


def _traces_of(path: Path | None, tally: Tally) -> set[str]:
    return {trace for document in (read_shard(path, tally) if path else ()) for trace in traces(document)}


def _admitted(
    name: str, documents: Iterable[Document], settings: Pack, tally: Tally, held_out: set[str]
) -> Iterator[Document]:
    """The documents that pack.mixture takes. Raises UserError, after the last one, where any have a trace held out."""
    shared: list[str] = []
    for document in progress(documents, desc=f"pack: {name}", unit="document"):
        number = copies(document.id, document.lang, settings)
        tally.rows += 1
        tally.bytes[document.lang] += number * len(document.text.encode())
        tally.digest.update(json.dumps([document.id, document.text, document.messages]).encode())
        if not held_out.isdisjoint(traces(document)):
            shared.append(document.id)
        if number:
            yield document
        else:
            tally.dropped.append(Dropped(document.id, "pack.mixture", ""))
    if shared:
        named = ", ".join(shared[:NAMED]) + (", …" if len(shared) > NAMED else "")
        where = "test" if name == "validation" else "validation or test"
        raise UserError(
            f"{name}: {len(shared)} documents also stand in {where}, by id or by text, whose scores would "
            f"then mean nothing: take them out on one side: {named}"
        )


def _control(
    run: Run, tokenizer: Any, templates: Sequence[Template], train: StoredPieces, tallies: dict[str, Tally]
) -> StoredPieces:
    """Pieces of unfiltered documents, of each language as many tokens as train has."""
    enough_bytes = {lang: CONTROL_BYTES * size for lang, size in tallies["train"].bytes.items()}
    chosen, documents = control_documents(run, enough_bytes)
    pieces, places = StoredPieces(run.output), {}
    for own in encode(tokenizer, documents, run.params.pack, templates, tallies["control"]):
        places[own[0].document] = pieces.add(own)
    pieces.reorder(places[document] for document in chosen if document in places)
    pieces.keep_first_tokens(train.tokens_by_language())
    return pieces


# ---- rows ------------------------------------------------------------------------------------------------------------


def best_fit(sizes: Sequence[int], length: int) -> list[list[int]]:
    """Bins of positions in `sizes`, each of at most `length` in sum: the largest first, each where least is left over.

    >>> best_fit([3, 9, 4, 6, 7], 10)
    [[1], [4, 0], [3, 2]]
    """
    bins: list[list[int]] = []
    by_space: dict[int, list[list[int]]] = defaultdict(list)  # bins by what is left in them
    spaces: list[int] = []  # what is left in any, sorted
    for position in sorted(range(len(sizes)), key=lambda position: -sizes[position]):
        size = sizes[position]
        least = bisect.bisect_left(spaces, size)
        if least == len(spaces):
            bins.append([])
            space, members = length, bins[-1]
        else:
            space = spaces[least]
            members = by_space[space].pop()
            if not by_space[space]:
                spaces.pop(least)
        members.append(position)
        rest = space - size
        if rest and not by_space[rest]:
            bisect.insort(spaces, rest)
        by_space[rest].append(members)
    return bins


class Rows(NamedTuple):
    """Which pieces make up which row: those that fill one each in their order, then the others by best fit."""

    full: Column  # positions
    mixed: list[npt.NDArray[np.int64]]  # positions of the pieces of a row

    def __len__(self) -> int:
        return len(self.full) + len(self.mixed)

    def members(self, first: int, last: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The positions of the pieces of some rows, and how many each row has."""
        full = self.full.values()[first:last]
        mixed = self.mixed[max(0, first - len(self.full)) : max(0, last - len(self.full))]
        counts = [np.ones(len(full), np.int64), np.array([len(row) for row in mixed], np.int64)]
        return np.concatenate([full, *mixed]), np.concatenate(counts)


def plan_rows(pieces: StoredPieces, length: int, folder: Path) -> Rows:
    """Rows of at most so many tokens. In memory is what concerns pieces that fill no row: one or two a document."""
    full, start = Column(folder, np.int64), 0
    others, sizes = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for block in pieces.blocks():
        fills = block.sizes == length
        full.append(start + np.flatnonzero(fills))
        others.append(start + np.flatnonzero(~fills))
        sizes.append(block.sizes[~fills])
        start += len(block.sizes)
    positions = np.concatenate(others)
    return Rows(full, [positions[row] for row in best_fit(np.concatenate(sizes).tolist(), length)])


def pack_rows(
    pieces: StoredPieces, positions: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], length: int, padding: int
) -> pa.Table:
    """The pieces at some positions as rows of `length`, `counts` of them in each.

    The positions of tokens start again at 0 with each piece, which is what keeps them apart.
    """
    block = pieces.at(positions)
    read, learned = pieces.read(block)
    rows = len(counts)
    row_of = np.repeat(np.arange(rows), counts)
    used = np.bincount(row_of, block.sizes, rows).astype(np.int64)
    before = np.cumsum(block.sizes) - block.sizes  # tokens read before each piece
    place_in_piece = np.arange(len(read)) - np.repeat(before, block.sizes)
    columns = np.arange(len(read)) - np.repeat((np.cumsum(used) - used)[row_of], block.sizes)
    cells = np.repeat(row_of * length, block.sizes) + columns

    tokens = np.full(rows * length, padding, np.int32)
    labels = np.full(rows * length, IGNORED, np.int32)
    places = (np.arange(length) - used[:, None]).astype(np.int32).ravel()  # of the padding; the others follow
    tokens[cells], labels[cells], places[cells] = read, np.where(learned, read, IGNORED), place_in_piece
    offsets = np.arange(0, rows * length + 1, length, dtype=np.int32)
    arrays = {"input_ids": tokens, "labels": labels, "position_ids": places}
    table = pa.table({name: pa.ListArray.from_arrays(offsets, array) for name, array in arrays.items()})
    bounds = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    documents = pa.array([pieces.documents[owner] for owner in block.owners.tolist()], pa.string())
    table = table.append_column("document_ids", pa.ListArray.from_arrays(bounds, documents))
    return table.append_column("document_lengths", pa.ListArray.from_arrays(bounds, block.sizes.astype(np.int32)))


def write_pack(folder: Path, pieces: StoredPieces, length: int, tokenizer: Any) -> Metrics:
    """Save one pack as a dataset; returns its documents, tokens, labels, rows, fill (0 to 1) and tokens by language."""
    # What is padding no model sees, so that any token will do where the tokenizer has none for it.
    padding = next((mark for mark in (tokenizer.pad_token_id, tokenizer.eos_token_id) if mark is not None), 0)
    folder.parent.mkdir(parents=True, exist_ok=True)
    rows, labels = plan_rows(pieces, length, folder.parent), 0
    none = pack_rows(pieces, *rows.members(0, 0), length, padding)
    with dataset_writer(folder, none) as write:
        for first in range(0, len(rows), ROWS_AT_ONCE):
            some = pack_rows(pieces, *rows.members(first, first + ROWS_AT_ONCE), length, padding)
            labels += int((some["labels"].combine_chunks().flatten().to_numpy() != IGNORED).sum())
            write(some)
    by_language, by_document = pieces.tokens_by_language(), pieces.tokens_by_document()
    return {
        "documents": len({pieces.documents[number] for number in np.flatnonzero(by_document).tolist()}),
        "tokens": by_language.total(),
        "labels": labels,
        "rows": len(rows),
        "fill": by_language.total() / max(1, len(rows) * length),
        "by_language": dict(by_language),
    }


@contextlib.contextmanager
def dataset_writer(folder: Path, none: pa.Table) -> Iterator[Callable[[pa.Table], None]]:
    """Write tables into a folder for `datasets.load_from_disk`, given one without rows.

    The library saves the empty one, which says how files look, and ours takes its place: it would write rows twice, and
    draw a fingerprint where ours is the content's, so that equal packs are equal files.
    """
    import datasets

    datasets.disable_progress_bars()
    datasets.Dataset(none, fingerprint=_NO_FINGERPRINT).save_to_disk(folder, num_shards=1)
    (file,) = folder.glob("*.arrow")
    with pa.ipc.open_stream(str(file)) as saved:
        schema = saved.schema
    with pa.ipc.new_stream(str(file), schema) as stream:
        yield lambda table: stream.write_table(table.replace_schema_metadata(schema.metadata))
    state = folder / "state.json"
    state.write_text(state.read_text("utf-8").replace(_NO_FINGERPRINT, file_digest(file)[:16]), "utf-8")
