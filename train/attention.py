"""Attention within each document of a row: packed documents cannot see each other, and no mask is built.

The row is cut at the documents' bounds, and each goes through the model's own attention, sdpa or eager, alone.
`document_lengths`, ints that travel as a keyword argument from the model to its attention, say where.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

PROBE, WINDOW = 8, 4  # tokens of each document that is tried, and of sliding windows meanwhile
ROUNDING, ROUNDING_INT8 = 1e-3, 5e-2  # of the largest logit; int8 rounds by what stands beside
LAYERS = {"full_attention", "sliding_attention"}


def use_document_attention(model: Any) -> bool:
    """Let a causal model attend by document, if it can; call it when the adapter is on.

    The model then takes batches of `rows.collate`, and no others. False, with nothing changed, where documents of a row
    have other logits than alone: without transformers' attention interface (Bloom), with a state that runs through the
    row (Mamba), attention in chunks (Llama 4), a tuned prompt. Such models train on `rows.collate_padded`.
    """
    import torch
    from transformers import AttentionInterface

    bare = model.get_base_model() if hasattr(model, "get_base_model") else model
    before, training = bare.config._attn_implementation, model.training
    if before in ("document_sdpa", "document_eager"):
        return True
    if not LAYERS.issuperset(getattr(bare.config.get_text_config(), "layer_types", None) or ()):
        return False
    kind = "eager" if before == "eager" else "sdpa"
    AttentionInterface.register(f"document_{kind}", partial(attend_by_document, kind))
    rounding = ROUNDING_INT8 if getattr(bare, "is_loaded_in_8bit", False) else ROUNDING
    size = bare.get_input_embeddings().weight.shape[0]
    documents = torch.randint(size, (3, PROBE), generator=torch.Generator().manual_seed(0)).to(model.device)
    model.eval()
    try:
        with _narrow_windows(bare):
            alone = _last_logits(model, documents[:1])
            bare.set_attn_implementation(f"document_{kind}")
            packed, beside_another = _last_logits(model, documents[[1, 0]]), _last_logits(model, documents[[2, 0]])
        # The two rows differ in the neighbour only; `alone` has another shape, and so other last bits.
        isolation, rest = ((packed - other).abs().max() / packed.abs().max() for other in (beside_another, alone))
        exact = bool(isolation <= rounding and rest <= rounding + 4 * torch.finfo(bare.dtype).eps)
        exact &= bare.config._attn_implementation != before  # else by masks of its own, which a cache turns off
    except (AttributeError, TypeError, ValueError, RuntimeError):  # it takes no such arguments, or gives other shapes
        exact = False
    finally:
        model.train(training)
    if not exact and bare.config._attn_implementation != before:
        bare.set_attn_implementation(before)
    return exact


def attend_by_document(kind: str, module: Any, query: Any, key: Any, value: Any, mask: Any, **options: Any) -> Any:
    """An attention for transformers: queries (1, heads, tokens, size) to outputs (1, tokens, heads, size) and None.

    `kind` is the attention of each document: sdpa, or eager, the model's own with its soft caps and sinks. Raises
    ValueError where document_lengths do not sum to the tokens of one row: it would attend wrongly.
    """
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    lengths, outputs = options.pop("document_lengths", []), []
    if query.shape[0] != 1 or query.shape[2] != sum(lengths) or mask is not None:
        raise ValueError("document attention takes one row, no mask, and document_lengths that sum to its tokens")
    own: Any = (
        sys.modules[type(module).__module__].eager_attention_forward if kind == "eager" else sdpa_attention_forward
    )
    # Of a split the gradient is one concatenation, of slices a whole row of zeros for each.
    for length, *states in zip(lengths, *(each.split(lengths, dim=2) for each in (query, key, value)), strict=True):
        window, mask = min(length, options.get("sliding_window") or length), None
        if kind == "eager" or window < length:  # a token sees itself and the window - 1 before it
            hidden = query.new_full((1, 1, length, length), float("-inf"))
            mask = hidden.triu(1) + hidden.tril(-window)
        outputs.append(own(module, *states, mask, **options)[0])
    return torch.cat(outputs, dim=1), None


@contextlib.contextmanager
def _narrow_windows(model: Any) -> Iterator[None]:
    """Sliding windows as narrow as WINDOW, that the tried documents may show whether they are heeded."""
    holders = [model.config.get_text_config(), *model.modules()]
    windows = [(holder, getattr(holder, "sliding_window", None)) for holder in holders]
    wide = [(holder, window) for holder, window in windows if isinstance(window, int) and window > WINDOW]
    for holder, _ in wide:
        holder.sliding_window = WINDOW
    try:
        yield
    finally:
        for holder, window in wide:
            holder.sliding_window = window


def _last_logits(model: Any, documents: Any) -> Any:
    """Logits of the last of the documents (number, length) that stand in one row."""
    import torch

    number, length = documents.shape
    places = torch.arange(length, device=documents.device)
    inputs = {"input_ids": documents.reshape(1, -1), "position_ids": places.repeat(number)[None], "use_cache": False}
    lengths = {"document_lengths": [length] * number} if number > 1 else {}
    with torch.no_grad():
        return model(**inputs, **lengths, logits_to_keep=places - length).logits.float()
