"""The rows of packs: which are trained on, what a model is called with for them, and its loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from corpus.errors import UserError
from train.models import IGNORED

COLUMNS = ["input_ids", "labels", "document_lengths", "document_ids"]  # of a pack; positions follow from the lengths
Row = Mapping[str, Sequence[int]]


def load_pack(folder: Path, model: Any = None) -> Any:
    """A pack as a datasets.Dataset.

    Raises UserError if it is not there, of another vocabulary than the model's, or longer than the model's context.
    """
    import datasets
    import pyarrow.compute as pc

    datasets.disable_progress_bars()
    try:
        rows = datasets.load_from_disk(str(folder)).select_columns(COLUMNS)
    except (FileNotFoundError, ValueError):
        raise UserError(f"{folder} is no pack: run `train pack`, or name a folder of packs with --input") from None
    if model is not None and len(rows):
        vocabulary = model.get_input_embeddings().weight.shape[0]
        token = pc.max(pc.list_flatten(rows.data["input_ids"])).as_py()
        if token >= vocabulary:
            raise UserError(
                f"{folder} has the token {token}, but the base knows {vocabulary}: it was packed for another model; "
                "run `train pack` again"
            )
        longest = pc.max(pc.list_flatten(rows.data["document_lengths"])).as_py()
        context = getattr(model.config.get_text_config(), "max_position_embeddings", None) or math.inf
        if longest > context:
            raise UserError(
                f"{folder} has a document of {longest} tokens, but the base sees {context}: set pack.length to at most "
                f"{context} and run `train pack` again"
            )
    return rows


def draw_rows(sizes: Mapping[str, int], weights: Mapping[str, float], total: int, seed: int) -> np.ndarray:
    """Which of all packs' rows, counted through, are trained on, in which order: `total` numbers.

    Each pack of `weights` has its part of them, the first pack what is left. A pack's rows come in a new order each
    time that it is gone through, and none again before all have come.

    >>> draw_rows({"train": 2, "general": 1}, {"general": 0.25}, 8, seed=0).tolist()
    [0, 1, 1, 2, 0, 1, 0, 2]
    """
    random = np.random.default_rng(seed)
    counts = [int(weights.get(name, 0) * total) for name in sizes]
    counts[0] = total - sum(counts[1:])
    turns = random.permutation(np.repeat(np.arange(len(sizes)), counts))
    order = np.empty(total, np.int64)
    first = 0
    for number, (size, count) in enumerate(zip(sizes.values(), counts, strict=True)):
        passes = [random.permutation(size) for _ in range(math.ceil(count / size))]
        order[turns == number] = first + np.concatenate([[], *passes])[:count]
        first += size
    return order


def collate(rows: Sequence[Row]) -> dict[str, Any]:
    """The rows of a micro-batch as one row without padding, for models that attend by document.

    input_ids and position_ids (1, tokens); document_lengths, ints; logits_to_keep (n), the positions whose next token
    is to be learned, so that the head runs on no other; labels (1 + n), those tokens after an IGNORED, because Trainer
    counts labels from the second on (`num_items_in_batch`). A document's first token is learned by none. Rows need
    input_ids, labels and document_lengths; what follows the documents is left out.

    >>> row = {"input_ids": [5, 6, 7, 8, 9, 0], "labels": [-100, -100, 7, -100, 9, -100], "document_lengths": [3, 2]}
    >>> batch = collate([row])
    >>> batch["position_ids"].tolist(), batch["logits_to_keep"].tolist(), batch["labels"].tolist()
    ([[0, 1, 2, 0, 1]], [1, 3], [-100, 7, 9])
    """
    import torch

    lengths = [length for row in rows for length in row["document_lengths"]]
    tokens, labels = _without_padding(rows, "input_ids"), _without_padding(rows, "labels")
    starts = np.cumsum(lengths) - lengths
    labels[starts] = IGNORED
    learned = np.flatnonzero(labels != IGNORED)
    return {
        "input_ids": torch.from_numpy(tokens)[None],
        "position_ids": torch.from_numpy(np.arange(len(tokens)) - np.repeat(starts, lengths))[None],
        "document_lengths": lengths,
        "logits_to_keep": torch.from_numpy(learned - 1),
        "labels": torch.from_numpy(np.concatenate([[IGNORED], labels[learned]])),
    }


def collate_padded(rows: Sequence[Row]) -> dict[str, Any]:
    """A micro-batch with a row for each document, padded at its end, for models that cannot attend by document.

    input_ids and labels (documents, longest), labels at their own tokens and the first of each row IGNORED. There is no
    mask: causal models do not look ahead. Costs documents x longest tokens, whatever the pack's rows hold.

    >>> row = {"input_ids": [5, 6, 7, 8, 9, 0], "labels": [-100, -100, 7, -100, 9, -100], "document_lengths": [3, 2]}
    >>> batch = collate_padded([row])
    >>> batch["input_ids"].tolist(), batch["labels"].tolist()
    ([[5, 6, 7], [8, 9, 0]], [[-100, -100, 7], [-100, 9, -100]])
    """
    import torch

    batch = collate(rows)
    lengths = batch["document_lengths"]
    labels = torch.full_like(batch["input_ids"], IGNORED)
    labels[0, batch["logits_to_keep"] + 1] = batch["labels"][1:]
    return {
        name: torch.nn.utils.rnn.pad_sequence(values[0].split(lengths), batch_first=True, padding_value=padding)
        for name, values, padding in (("input_ids", batch["input_ids"], 0), ("labels", labels, IGNORED))
    }


def label_loss(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
    """Cross-entropy in nats, in fp32: the sum over the labels by `num_items_in_batch`, their mean where that is None.

    For Trainer's `compute_loss_func`, with batches of either collate: `labels` of one dimension belong to the kept
    logits, of two to all tokens of a row (a tuned prompt may have logits before them). A batch without labels
    has the loss 0.
    """
    import torch

    logits = outputs["logits"] if labels.dim() == 1 else outputs["logits"][:, -labels.shape[1] : -1]
    targets = labels[..., 1:].flatten().to(logits.device)
    total = torch.nn.functional.cross_entropy(
        logits.flatten(0, -2).float(), targets, ignore_index=IGNORED, reduction="sum"
    )
    items = (targets != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
    return total / torch.as_tensor(items, device=total.device).clamp(min=1)


def _without_padding(rows: Sequence[Row], column: str) -> np.ndarray:
    """A column of the rows, one after the other, as int64."""
    return np.concatenate([np.asarray(row[column][: sum(row["document_lengths"])], np.int64) for row in rows])
