"""What a generated text meets outside its parent: the rest of the corpus, held-out documents, the language models."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from corpus.augment.gates import Variant, normalised
from corpus.executor import run_tasks
from corpus.perplexity.stage import Models, find_models, perplexity
from corpus.split import similar
from corpus.split.contamination import grams_of, read_test_sets
from corpus.split.grams import Finder, GramTable, Hashes, Numbers, load, save
from corpus.split.traces import SKETCH
from corpus.stage import Part, Run, batches, digest_of, file_digest
from corpus.text.buffers import Texts

HELD_OUT = ("validation", "test")
MAX_TOKENS = 100_000  # of a text, scored for its perplexity
_DEFAULTS = {"kept": True, "split": "train"}


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """Where the tables lie, in a folder that is named by their content, and the language models."""

    folder: Path
    models: Models

    def fingerprint(self) -> str:
        """What verdicts depend on."""
        return json.dumps([self.folder.name, {name: model.fingerprint for name, model in self.models.items()}])


def write_surroundings(run: Run, parts: Sequence[Part]) -> Surroundings:
    """Write what generated texts are compared with: texts of all documents, 13-grams of kept and of held-out ones."""
    found = {part.name: arrays for part, arrays in run_tasks(read_part, parts, run.crew, f"{run.stage}: documents")}
    texts, sketches, sizes, held_out = (
        np.concatenate(each) for each in zip(*(found[p.name] for p in parts), strict=True)
    )
    tests = read_test_sets(run.data / "evaluation", run.params.split.test_sets)
    partial = run.home / "augment" / f".{digest_of(str(run.output.resolve()))}.partial"
    partial.mkdir(parents=True, exist_ok=True)
    np.save(partial / "texts.npy", np.unique(texts))
    np.save(partial / "held_out.npy", np.unique(np.concatenate([held_out, tests.table.hashes])))
    np.save(partial / "sizes.npy", sizes)
    save(similar.sketch_table(sketches, sizes, sizes, np.zeros_like(sizes)), partial, "sketches")
    folder = partial.with_name(digest_of(" ".join(file_digest(path) for path in sorted(partial.glob("*.npy")))))
    if folder.is_dir():
        shutil.rmtree(partial)
    else:
        partial.rename(folder)
    reference = run.folder("reference")
    return Surroundings(folder, find_models(reference, run.params.perplexity) if reference.is_dir() else {})


def read_part(part: Part) -> tuple[Hashes, Hashes, Numbers, Hashes]:
    """The hashes of a part's texts; of the kept documents sketches and their sizes; of held-out ones all 13-grams."""
    none = np.zeros(0, np.uint64)
    found: list[tuple[Hashes, Hashes, Numbers, Hashes]] = [(none, none, np.zeros(0, np.int64), none)]
    for batch in batches(part, ["id", "text"], _DEFAULTS):
        texts = np.array([text_hash(text) for text in batch["text"]], np.uint64)
        kept = batch.filter(pl.col("kept").fill_null(False))
        hashes, owners = grams_of(Texts.of(kept["text"].to_arrow()))
        counts = np.bincount(owners, minlength=kept.height)
        within = np.arange(len(hashes)) - np.repeat(np.cumsum(counts) - counts, counts)
        is_held_out = kept["split"].is_in(HELD_OUT).fill_null(False).to_numpy()
        sketches = hashes[within < SKETCH]  # those of a document are sorted
        found.append((texts, sketches, np.minimum(counts, SKETCH), hashes[is_held_out[owners]]))
    all_texts, all_sketches, sizes, held_out = (np.concatenate(column) for column in zip(*found, strict=True))
    return all_texts, all_sketches, sizes, held_out


def failed_outside(
    variants: Sequence[Variant], languages: Sequence[str | None], ratio: float, around: Surroundings
) -> list[list[str]]:
    """Of each variant the reasons why it must go because of what it is not made from."""
    if not variants:
        return []
    known, held_out, sketches, sizes = _tables(around.folder)
    hashes, owners = grams_of(Texts.of_strings(variant.text for variant in variants))
    number_of = {parent: number for number, parent in enumerate(dict.fromkeys(one.parent for one in variants))}
    parent_of = np.array([number_of[variant.parent] for variant in variants])
    own, parents = grams_of(Texts.of_strings(number_of))
    new = ~np.isin(_pairs(hashes, parent_of[owners]), _pairs(own, parents))  # what its parent has is no news
    hashes, owners = hashes[new], owners[new]
    at, _ = held_out.find(hashes)
    leaking = set(owners[at].tolist())
    at, places = sketches.find(hashes)
    _, holders = similar.holds(-1 - owners[at], places, sketches.table, sizes)  # below 0: none is a document
    copies = set((-1 - holders).tolist())
    surprising = _too_surprising(variants, languages, ratio, around.models)
    return [
        [
            reason
            for reason, failed in (
                ("augment.held_out", number in leaking),
                ("augment.duplicate", number in copies or is_known(variant.text, known)),
                ("augment.perplexity", number in surprising),
            )
            if failed
        ]
        for number, variant in enumerate(variants)
    ]


def _pairs(hashes: Hashes, owners: Numbers) -> Hashes:
    """One number for a 13-gram of a variant; the owner is mixed into the hash."""
    return hashes ^ (owners.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))


def _too_surprising(
    variants: Sequence[Variant], languages: Sequence[str | None], ratio: float, models: Models
) -> set[int]:
    """The variants whose perplexity is more than so many times their parent's."""
    lang = pl.Series(languages, dtype=pl.String)
    if lang.null_count() == len(lang):
        return set()
    of_parents, of_variants = (
        perplexity(pl.DataFrame({"id": range(len(texts)), "text": texts, "lang": lang}), models, MAX_TOKENS)["ppl"]
        for texts in ([variant.parent for variant in variants], [variant.text for variant in variants])
    )
    return set((of_variants > ratio * of_parents).fill_null(False).arg_true().to_list())


@functools.lru_cache(maxsize=1)
def _tables(folder: Path) -> tuple[Hashes, Finder, Finder, Numbers]:
    held_out = np.load(folder / "held_out.npy", mmap_mode="r")
    places = np.zeros(0, np.int64)
    return (
        np.load(folder / "texts.npy", mmap_mode="r"),
        Finder(GramTable(held_out, places, places)),
        Finder(load(folder, "sketches")),
        np.load(folder / "sizes.npy", mmap_mode="r"),
    )


def is_known(text: str, known: Hashes) -> bool:
    """Whether a document of the corpus has this text, by its hash among the sorted ones."""
    wanted = np.uint64(text_hash(text))
    place = int(np.searchsorted(known, wanted))
    return place < len(known) and bool(known[place] == wanted)


def text_hash(text: str) -> int:
    """64-bit BLAKE2b of a text without regard to case and white space."""
    digest = hashlib.blake2b(normalised(text).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")
