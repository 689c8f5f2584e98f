"""Language models that others trained: KenLM's files, and causal models of transformers.

What such a model cannot tell is null: a causal model knows no unknown words, and neither compares with a model of order
1. Their libraries are imported where they are needed.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from corpus.errors import UserError
from corpus.files import file_digest
from corpus.params import OtherModel
from corpus.text.buffers import Texts
from corpus.text.ngram_lm import COLUMNS, END, sentences
from corpus.text.segment import LM_VIEW, lm_spelling

MODEL_FILES = ("*.json", "*.safetensors", "*.model", "*.txt")  # never pickled weights, never code
DIGITS = 6  # of a causal model's scores; further ones depend on the machine

_LOGITS_AT_ONCE = 2**27  # numbers, 512 MB: bounds memory whatever the vocabulary


@dataclasses.dataclass(frozen=True)
class Located:
    """A model of somebody else's: where it lies, how to use it, and a digest of all that decides its scores."""

    path: Path
    settings: OtherModel
    fingerprint: str


def locate(settings: OtherModel, key: str) -> Located:
    """Find a model, fetch it from the hub if need be, and take its fingerprint.

    Raises UserError naming `key` where it, or the library that reads it, is not there.
    """
    if settings.kenlm is not None:
        _import_kenlm(key)
        if not settings.kenlm.is_file():
            raise UserError(f"{key}.kenlm: {settings.kenlm} does not exist: name an .arpa or a binary file of KenLM's")
        return Located(settings.kenlm, settings, _digest([settings.kenlm], "kenlm", settings))
    folder = _model_folder(str(settings.causal), settings.revision, f"{key}.causal")
    files = sorted(path for pattern in MODEL_FILES for path in folder.glob(pattern))
    return Located(folder, settings, _digest(files, "transformers", settings, _device()))


def score(model: Located, texts: Sequence[str], max_tokens: int) -> pl.DataFrame:
    """The columns of `perplexity` for each text, over its first tokens; what the model cannot tell is null."""
    if model.settings.kenlm is not None:
        return kenlm_scores(_load_kenlm(model.path), texts, model.settings.tokens, max_tokens)
    return causal_scores(*_load_causal(model.path), texts, model.settings.window, max_tokens)


def _digest(files: Sequence[Path], library: str, settings: OtherModel, device: str = "cpu") -> str:
    libraries = [f"{one} {importlib.metadata.version(one)}" for one in (library, "torch")]
    what = [*libraries, f"{settings.tokens} {LM_VIEW}", str(settings.window), device]
    return hashlib.blake2b("\n".join([*what, *map(file_digest, files)]).encode(), digest_size=16).hexdigest()


# ---- KenLM -----------------------------------------------------------------------------------------------------------


def kenlm_scores(model: Any, texts: Sequence[str], tokens: str, max_tokens: int) -> pl.DataFrame:
    """`ppl`, `ppl_excl_oov`, `oov_rate` and `lm_tokens` under a model of KenLM's, ends of sentences included."""
    rows = []
    for lines in spelled_sentences(Texts.of_strings(texts)) if tokens == "ours" else map(_lines, texts):
        scored = [one for line in lines for one in model.full_scores(line)][:max_tokens]
        known = [log_prob for log_prob, _, is_unknown in scored if not is_unknown]
        rows.append(
            {
                "ppl": _perplexity([log_prob for log_prob, _, _ in scored]),
                "ppl_excl_oov": _perplexity(known),
                "oov_rate": 1 - len(known) / len(scored) if scored else None,
                "lm_tokens": len(scored),
            }
        )
    return _columns(rows)


def spelled_sentences(texts: Texts) -> Iterator[list[str]]:
    """Of each text the sentences that `reference` learns from, their tokens with spaces between them.

    >>> list(spelled_sentences(Texts.of_strings(["In 2023, we moved.\\n\\n我们", ""])))
    [['in 0000 , we moved .', '我 们'], []]
    """
    found = sentences(texts)
    spellings = {int(END): "\n"}
    starts, ends = found.spans.starts[found.sources].tolist(), found.spans.ends[found.sources].tolist()
    tokens = found.tokens.tolist()
    raw = texts.data.tobytes()
    for first, last in zip(found.offsets[:-1].tolist(), found.offsets[1:].tolist(), strict=True):
        for at in range(first, last):
            if tokens[at] not in spellings:
                spellings[tokens[at]] = lm_spelling(raw[starts[at] : ends[at]].decode("utf-8", "replace"))
        yield [line.strip(" ") for line in " ".join(spellings[token] for token in tokens[first:last]).split("\n")[:-1]]


def _lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.strip()]


def _perplexity(log10_probs: Sequence[float]) -> float | None:
    return 10.0 ** (-math.fsum(log10_probs) / len(log10_probs)) if log10_probs else None


def _import_kenlm(key: str) -> Any:
    try:
        import kenlm
    except ImportError:
        raise UserError(f"{key}.kenlm needs a library: pip install kenlm, with a C++ compiler at hand") from None
    return kenlm


@functools.lru_cache(maxsize=4)  # once a process, not once a batch
def _load_kenlm(path: Path) -> Any:
    try:
        return _import_kenlm("perplexity.model").Model(str(path))
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path} is no model of KenLM's ({error}): name an .arpa or a binary file") from None


# ---- causal models ---------------------------------------------------------------------------------------------------


def causal_scores(model: Any, tokenizer: Any, texts: Sequence[str], window: int, max_tokens: int) -> pl.DataFrame:
    """`ppl` and `lm_tokens` under a causal model, in its own tokens.

    A text's first token counts where the model knows a mark that precedes texts. Longer texts are read in windows that
    overlap by half, so that each token is scored once and, but for the first window, with at least half a window before
    it. Windows of like length share a batch.
    """
    window = min(window, getattr(model.config, "max_position_embeddings", None) or window)
    begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    encoded = [
        begin + tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"][:max_tokens] for text in texts
    ]
    windows = [(number, *one) for number, ids in enumerate(encoded) for one in _windows(len(ids), window)]
    windows.sort(key=lambda one: (one[2] - one[1], one))
    nats = np.zeros(len(texts))
    rows_at_once = max(1, _LOGITS_AT_ONCE // (model.config.vocab_size * window))
    for start in range(0, len(windows), rows_at_once):
        batch = windows[start : start + rows_at_once]
        losses = _token_losses(model, [encoded[number][first:last] for number, first, last, _ in batch])
        for (number, first, _, scored), own in zip(batch, losses, strict=True):
            nats[number] += own[scored - first - 1 :].sum()
    counts = [max(0, len(ids) - 1) for ids in encoded]
    rows = [
        {"ppl": float(f"{math.exp(total / count):.{DIGITS}g}") if count else None, "lm_tokens": count}
        for total, count in zip(nats, counts, strict=True)
    ]
    return _columns(rows)


def _windows(length: int, window: int) -> Iterator[tuple[int, int, int]]:
    """Where windows begin and end, and the first token that each scores; the very first token has nothing before it.

    >>> list(_windows(10, 4))
    [(0, 4, 1), (2, 6, 4), (4, 8, 6), (6, 10, 8)]
    """
    scored = 1
    while scored < length:
        end = min(length, window if scored == 1 else scored + max(1, window // 2))
        yield max(0, end - window), end, scored
        scored = end


def _token_losses(model: Any, rows: Sequence[Sequence[int]]) -> list[np.ndarray[Any, Any]]:
    """The loss of each token of some rows but the first, in nats."""
    import torch

    longest = max(map(len, rows))
    tokens = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=model.device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=model.device)
    with torch.inference_mode():
        logits = model(input_ids=tokens, attention_mask=mask, use_cache=False).logits[:, :-1].float()
        losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")
    return [own[: len(row) - 1] for own, row in zip(losses.double().cpu().numpy(), rows, strict=True)]


def _model_folder(name: str, revision: str | None, key: str) -> Path:
    """The folder of a model; one of the hub is fetched. Raises UserError naming the key."""
    folder = Path(name)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        try:
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=list(MODEL_FILES)))
        except Exception as error:  # the hub's errors, those of its HTTP library, and bad names
            first = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise UserError(f"{key}: {name!r} is no folder and cannot be had from the hub ({first})") from None
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"{key}: {name} has no *.safetensors file: only such weights are loaded, convert the model")
    return folder


@functools.lru_cache(maxsize=1)  # once a process, not once a batch
def _load_causal(folder: Path) -> tuple[Any, Any]:
    import torch
    import transformers

    torch.set_num_threads(1)  # one thread a worker; and sums in one order, so that scores never differ
    chatter: Any = transformers.logging
    chatter.set_verbosity_error()
    chatter.disable_progress_bar()
    on_gpu = _device() == "cuda"
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), **options)
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            str(folder), use_safetensors=True, dtype=torch.bfloat16 if on_gpu else torch.float32, **options
        )
    except Exception as error:  # of transformers, safetensors and tokenizers, which have no class in common
        raise UserError(f"{folder} does not load as a causal language model: {' '.join(str(error).split())}") from None
    return model.to(_device()).eval(), tokenizer


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _columns(rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame([dict.fromkeys(COLUMNS) | row for row in rows], COLUMNS)
