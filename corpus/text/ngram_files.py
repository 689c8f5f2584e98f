"""N-gram language models as files, and as ARPA for other programs.

A model of a language is LANGUAGE.ngrams.npy, the table, and LANGUAGE.json, what else there is to know.
LANGUAGE.vocabulary.parquet has each token's spelling, hash and count, for people: scoring does without.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from corpus.documents import to_arrow, write_table
from corpus.errors import UserError
from corpus.files import write_json
from corpus.text.ngram_lm import Hashes, NgramModel, look_up
from corpus.text.ngram_train import Rows, Trained
from corpus.text.segment import LM_VIEW

FORMAT = 2  # raise it when tables, or hashes of n-grams, are made in another way

_ROWS = 1 << 20  # n-grams written at a time
_NEVER = -99.0  # what ARPA has for the logarithm of 0


def save(trained: Trained, folder: Path, language: str, facts: Mapping[str, object]) -> None:
    """Write a model's files, with further facts in LANGUAGE.json."""
    model, tokens = trained.model, trained.ngrams[0]
    partial = folder / f".{language}.ngrams.npy.partial"
    with partial.open("wb") as file:
        np.save(file, model.table, allow_pickle=False)
    partial.replace(folder / f"{language}.ngrams.npy")
    vocabulary = {"token": trained.spellings, "hash": tokens.hashes, "count": tokens.counts}
    write_table(to_arrow(pl.DataFrame(vocabulary)), folder / f"{language}.vocabulary.parquet")
    own = {"format": FORMAT, "lm_view": LM_VIEW, "order": model.order, "fingerprint": model.fingerprint}
    write_json(folder / f"{language}.json", {**facts, **own, "table": model.facts()})


def describe_models(folder: Path) -> dict[str, dict[str, Any]]:
    """By language, what LANGUAGE.json says: order, fingerprint, quantiles of the held-out documents.

    Raises UserError where there is no model, or one whose tokens today's segmentation would not give.
    """
    found = {path.stem: _read_facts(path) for path in sorted(folder.glob("*.json"))}
    models = {language: facts for language, facts in found.items() if "fingerprint" in facts}
    if not models:
        raise UserError(f"{folder} holds no language model: run `corpus reference` first")
    for language, facts in models.items():
        if (facts.get("format"), facts.get("lm_view")) != (FORMAT, LM_VIEW):
            raise UserError(
                f"{folder / language}.json was built with another segmentation: run `corpus reference` again"
            )
    return models


def _read_facts(path: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not whole ({error}): run `corpus reference` again") from None
    return facts


def load(folder: Path, language: str, fingerprint: str) -> NgramModel:
    """Read a model. Raises UserError where files are missing or are not those of the fingerprint."""
    facts = describe_models(folder).get(language)
    if facts and facts["fingerprint"] == fingerprint and (table := _read_table(folder / f"{language}.ngrams.npy")):
        shape = facts["table"]
        starts, lines = (np.array(shape[name], np.uint64) for name in ("starts", "lines"))
        model = NgramModel(table[0], starts, lines, shape["steps"], shape["unknown"])
        if model.fingerprint == fingerprint:
            return model
    raise UserError(f"the model of {language} in {folder} is not the one it was built as: run `corpus reference` again")


def _read_table(path: Path) -> tuple[Hashes] | None:
    """The table in a file; None where there is none."""
    try:
        table = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))  # workers share what the system caches
    except (OSError, ValueError, EOFError):
        return None
    return (table,) if table.dtype == np.uint64 and table.ndim == 1 else None


def export_arpa(trained: Trained, path: Path) -> None:
    """Write a model as ARPA, base-10 logarithms of what its table has: KenLM, SRILM and others read it.

    They score as the model does what `corpus.text.segment.lm_sentences` gives, joined by spaces.
    """
    model = trained.model
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        kept = [int(np.count_nonzero(ngrams.kept)) for ngrams in trained.ngrams]
        kept[0] += 1  # <unk>
        sizes = "".join(f"ngram {length}={count}\n" for length, count in enumerate(kept, start=1))
        file.write(f"\\data\\\n{sizes}".encode())
        for length in range(1, model.order + 1):
            file.write(f"\n\\{length}-grams:\n".encode())
            if length == 1:
                file.write(f"{-model.unknown / model.steps / math.log(10):.7f}\t<unk>\t0\n".encode())
            for rows in _arpa_rows(trained, length):
                rows.write_csv(file, include_header=False, separator="\t", quote_style="never", float_precision=7)
        file.write(b"\n\\end\\\n")
    partial.replace(path)


def _arpa_rows(trained: Trained, length: int) -> Iterator[pl.DataFrame]:
    """Log probability, tokens and backoff weight (none of the longest) of the kept n-grams of a length."""
    spellings = pl.Series(_unambiguous(trained.spellings))
    ngrams = trained.ngrams[length - 1]
    kept = np.flatnonzero(ngrams.kept)
    for rows in np.split(kept, range(_ROWS, len(kept), _ROWS)):
        log_prob, log_backoff = look_up(trained.model, length, ngrams.hashes[rows])
        numbers: list[Rows] = []
        shorter = rows.astype(np.int32)
        for longer in reversed(trained.ngrams[:length]):  # token by token from the left
            numbers.append(longer.first[shorter])
            shorter = longer.lower[shorter]
        if length == 1:
            log_prob[numbers[0] == 0] = _NEVER * math.log(10)  # <s>
        columns = {
            "log_prob": log_prob / math.log(10),
            "ngram": pl.select(pl.concat_str([spellings.gather(own) for own in numbers], separator=" ")).to_series(),
            "log_backoff": log_backoff / math.log(10),
        }
        frame = pl.DataFrame(columns)
        yield frame.drop("log_backoff") if length == trained.model.order else frame


def _unambiguous(spellings: list[str]) -> list[str]:
    """The spellings, changed where ARPA could not hold them: bytes that were no UTF-8 look alike, 0 parts words."""
    seen: dict[str, int] = {}
    changed = []
    for spelling in spellings:
        plain = spelling.replace("\0", "\N{SYMBOL FOR NULL}")
        seen[plain] = seen.get(plain, 0) + 1
        changed.append(plain if seen[plain] == 1 else f"{plain}\N{REPLACEMENT CHARACTER}{seen[plain]}")
    return changed
