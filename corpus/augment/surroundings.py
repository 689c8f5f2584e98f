"""What a generated text meets outside its parent: the rest of the corpus, held-out documents, the language models."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from corpus.augment.gates import Variant, normalised
from corpus.executor import run_tasks
from corpus.files import digest_of, file_digest, own_partial
from corpus.perplexity.stage import Models, find_models, perplexity
from corpus.split import similar
from corpus.split.contamination import grams_of, read_test_sets
from corpus.split.grams import GramTable, Hashes, Numbers, load, merge, write_run
from corpus.split.traces import SKETCH
from corpus.stage import Part, Run, batches
from corpus.text.buffers import Texts

HELD_OUT = ("validation", "test")
TABLES = ("texts", "held_out", "sketches")
MAX_TOKENS = 100_000  # of a text, scored for its perplexity
LOOKED_AT = 200  # documents at a time: the arrays of their 13-grams are several times larger than their texts
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
    tests = read_test_sets(run.data / "evaluation", run.params.split.test_sets)
    partial = own_partial(run.home / "augment" / "surroundings")
    partial.mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir=run.output) as folder:
        scratch = Path(folder).resolve()
        firsts = np.cumsum([0, *(part.rows for part in parts)]).tolist()
        tasks = [(part, first) for part, first in zip(parts, firsts, strict=False)]
        found = {
            part.name: sizes
            for (part, _), sizes in run_tasks(
                functools.partial(_write_runs, scratch), tasks, run.crew, f"{run.stage}: documents"
            )
        }
        sizes = np.concatenate([found[part.name] for part in parts])
        runs = {name: [scratch / name / part.name for part in parts] for name in TABLES}
        write_run(scratch / "tests", tests.table.hashes)
        merge(runs["texts"], partial / "texts")
        merge([*runs["held_out"], scratch / "tests"], partial / "held_out")
        merge(runs["sketches"], partial / "sketches", similar.OWNERS, sizes)
    np.save(partial / "sizes.npy", sizes)
    files = sorted(path for path in partial.rglob("*") if path.is_file())
    folder_of_content = partial.with_name(digest_of(" ".join(map(file_digest, files))))
    if folder_of_content.is_dir():
        shutil.rmtree(partial)
    else:
        partial.rename(folder_of_content)
    reference = run.folder("reference")
    models = find_models(reference, run.params.perplexity) if reference.is_dir() else {}
    return Surroundings(folder_of_content, models)


def _write_runs(scratch: Path, task: tuple[Part, int]) -> npt.NDArray[np.uint8]:
    """Write of a part the hashes of its texts, sketches of the kept documents, and all 13-grams of the held-out ones.

    A document is numbered by its row among those of all parts. Returns how large the sketch of each is.
    """
    part, first = task
    none = np.zeros(0, np.uint64)
    found = [(none, np.zeros(0, np.uint8), none, none)]
    whole = batches(part, ["id", "text"], _DEFAULTS)
    for some in (some for batch in whole for some in batch.iter_slices(LOOKED_AT)):
        texts = np.array([text_hash(text) for text in some["text"]], np.uint64)
        is_kept = some["kept"].fill_null(False).to_numpy()
        kept = some.filter(is_kept)
        hashes, owners = grams_of(Texts.of(kept["text"].to_arrow()))
        counts = np.bincount(owners, minlength=kept.height)
        within = np.arange(len(hashes)) - np.repeat(np.cumsum(counts) - counts, counts)
        is_held_out = kept["split"].is_in(HELD_OUT).fill_null(False).to_numpy()
        sizes = np.zeros(some.height, np.uint8)
        sizes[is_kept] = np.minimum(counts, SKETCH)
        sketches = hashes[within < SKETCH]  # those of a document are sorted
        found.append((texts, sizes, sketches, hashes[is_held_out[owners]]))
    texts, sizes, sketches, held_out = (np.concatenate(column) for column in zip(*found, strict=True))
    write_run(scratch / "texts" / part.name, texts)
    write_run(scratch / "held_out" / part.name, held_out)
    owners = first + np.repeat(np.arange(len(sizes)), sizes)
    write_run(scratch / "sketches" / part.name, sketches, owners, np.repeat(sizes, sizes), similar.OWNERS)
    return sizes


def failed_outside(
    variants: Sequence[Variant], languages: Sequence[str | None], ratio: float, around: Surroundings
) -> list[list[str]]:
    """Of each variant the reasons why it must go because of what it is not made from."""
    if not variants:
        return []
    known, held_out, sketches, sizes = _tables(around.folder)
    copied_texts, _ = known.find(np.array([text_hash(variant.text) for variant in variants], np.uint64))
    hashes, owners = grams_of(Texts.of_strings(variant.text for variant in variants))
    number_of = {parent: number for number, parent in enumerate(dict.fromkeys(one.parent for one in variants))}
    parent_of = np.array([number_of[variant.parent] for variant in variants])
    own, parents = grams_of(Texts.of_strings(number_of))
    new = ~np.isin(_pairs(hashes, parent_of[owners]), _pairs(own, parents))  # what its parent has is no news
    hashes, owners = hashes[new], owners[new]
    at, _ = held_out.find(hashes)
    leaking = set(owners[at].tolist())
    at, places = sketches.find(hashes)
    _, holders = similar.holds(-1 - owners[at], places, sketches, sizes)  # below 0: none is a document
    copies = set((-1 - holders).tolist()) | set(copied_texts.tolist())
    surprising = _too_surprising(variants, languages, ratio, around.models)
    return [
        [
            reason
            for reason, failed in (
                ("augment.held_out", number in leaking),
                ("augment.duplicate", number in copies),
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
def _tables(folder: Path) -> tuple[GramTable, GramTable, GramTable, npt.NDArray[np.uint8]]:
    texts, held_out, sketches = (load(folder / name) for name in TABLES)
    return texts, held_out, sketches, np.load(folder / "sizes.npy", mmap_mode="r")


def text_hash(text: str) -> int:
    """64-bit BLAKE2b of a text without regard to case and white space."""
    digest = hashlib.blake2b(normalised(text).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")
