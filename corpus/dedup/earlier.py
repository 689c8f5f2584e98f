"""The star of an earlier run, so that new documents are compared with old ones, and old ones not again with each other.

That works where new documents come after all old ones in the order of preference, as `dedup.prefer` has it by default
with a new batch.
"""

from __future__ import annotations

import hashlib
import itertools
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from corpus.dedup.star import Star
from corpus.files import digest_of, own_partial

ExactKeys = npt.NDArray[np.uint8]  # 16 bytes a document: texts of the same key have the same shingles


def longest_star(store: Path, settings: str, keys: ExactKeys) -> Star | None:
    """The star that was stored for the most of the first documents in this order, if any."""
    stored = {}
    for path in store.glob(f"{digest_of(settings)}-*.npz"):
        count = int(path.stem.split("-")[1])
        if count <= len(keys):
            stored[count, path.stem.split("-")[2]] = path
    counts = sorted({count for count, _ in stored})
    for known in reversed(list(zip(counts, first_digests(keys, counts), strict=True))):
        if known in stored and (star := _read(stored[known])):
            return star
    return None


def _read(path: Path) -> Star | None:
    """A stored star; None where the file is damaged, for it can be drawn again."""
    try:
        with np.load(path) as arrays:
            star = Star(**{name: arrays[name] for name in Star._fields[:5]}, verified=int(arrays["verified"]))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        path.unlink(missing_ok=True)
        return None
    return star


def store_star(store: Path, settings: str, keys: ExactKeys, star: Star) -> Path:
    """Keep a star for later runs. It holds numbers only: neither ids nor texts. Returns the file."""
    (digest,) = first_digests(keys, [len(keys)])
    path = store / f"{digest_of(settings)}-{len(keys)}-{digest}.npz"
    if path.exists():
        return path
    store.mkdir(parents=True, exist_ok=True)
    partial = own_partial(path)
    with partial.open("wb") as file:
        np.savez(file, **{name: getattr(star, name) for name in Star._fields[:6]})
    partial.replace(path)
    return path


def first_digests(keys: ExactKeys, counts: Sequence[int]) -> list[str]:
    """Digests of the first so many documents, for each of some ascending numbers, in one pass.

    >>> keys = np.arange(64, dtype=np.uint8).reshape(4, 16)
    >>> first_digests(keys, [2, 4])[1] == first_digests(keys, [4])[0] != first_digests(keys, [2])[0]
    True
    """
    digest = hashlib.blake2b(digest_size=16)
    found = []
    for start, count in itertools.pairwise([0, *counts]):
        digest.update(keys[start:count].tobytes())
        found.append(digest.hexdigest())
    return found
