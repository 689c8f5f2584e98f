"""Which pairs are worth comparing: MinHash signatures and locality-sensitive hashing over their bands."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import polars as pl
from datasketch import MinHash

from corpus.dedup.shingles import Hashes

Signatures = npt.NDArray[np.uint32]  # one row a document, one column a permutation

EDGE_RECALL = 0.90  # of the pairs at dedup.edge_threshold, which only decide what is split together
DROP_RECALL = 0.98  # of the pairs at dedup.threshold
CHUNK = 4_096  # shingles hashed, or pairs compared, at a time: 128 permutations take 2 MB


def signatures(shingles: Iterable[Hashes], num_perm: int, seed: int) -> Signatures:
    """The MinHash signature of each shingle set, bit-equal to datasketch 2 with its `affine32` scheme.

    A row can go into `LeanMinHash(seed, hashvalues=row, scheme="affine32")` and any index of datasketch.
    """
    sketch = MinHash(num_perm, seed, scheme="affine32", hashfunc=int)
    rows = []
    for hashes in shingles:
        sketch.clear()
        short = (hashes >> np.uint64(32)).tolist()  # the scheme takes 32 bits
        for start in range(0, len(short), CHUNK):
            sketch.update_batch(short[start : start + CHUNK])
        rows.append(sketch.hashvalues.astype(np.uint32))
    return np.stack(rows) if rows else np.empty((0, num_perm), np.uint32)


def recall(similarity: float, bands: int, rows: int) -> float:
    """The chance that a pair of this Jaccard similarity meets in at least one band of so many rows.

    >>> round(recall(0.6, 42, 3), 4), round(recall(0.4, 42, 3), 3), round(recall(0.02, 42, 3), 4)
    (1.0, 0.938, 0.0003)
    """
    return 1.0 - (1.0 - similarity**rows) ** bands


def choose_bands(threshold: float, edge_threshold: float, num_perm: int) -> tuple[int, int]:
    """Bands and rows a band: the longest bands that still find both kinds of pairs.

    Each row more in a band makes unrelated pairs, which grow with the square of the corpus, some 30 times rarer; since
    candidates are verified, missed pairs are all that too long bands can cost. datasketch's own optimiser, weighted
    for recall, takes 2 rows at 0.4 and with them every hundredth unrelated pair.

    >>> choose_bands(0.6, 0.4, 128), choose_bands(0.7, 0.7, 128)
    ((42, 3), (25, 5))
    """
    good = [
        (num_perm // rows, rows)
        for rows in range(1, num_perm + 1)
        if recall(edge_threshold, num_perm // rows, rows) >= EDGE_RECALL
        and recall(threshold, num_perm // rows, rows) >= DROP_RECALL
    ]
    return max(good, key=lambda pair: pair[1], default=(num_perm, 1))


def candidate_pairs(matrix: Signatures, bands: int, rows: int) -> pl.DataFrame:
    """Pairs of rows of the matrix that agree in a whole band: columns left < right (uint32), each pair once, sorted.

    The same pairs as datasketch's MinHashLSH with `params=(bands, rows)`, one band in memory at a time.
    """
    pairs = pl.DataFrame(schema={"left": pl.UInt32, "right": pl.UInt32})
    for band in range(bands):
        keys = matrix[:, band * rows : (band + 1) * rows]
        frame = pl.DataFrame({f"key{column}": keys[:, column] for column in range(rows)}).with_row_index("left")
        names = frame.columns[1:]
        shared = frame.filter(pl.struct(names).is_duplicated())
        met = shared.join(shared.rename({"left": "right"}), on=names).filter(pl.col("left") < pl.col("right"))
        pairs = pl.concat([pairs, met.select("left", "right")]).unique()
    return pairs.sort("left", "right")


def likely_pairs(matrix: Signatures, pairs: pl.DataFrame, edge_threshold: float) -> pl.DataFrame:
    """The pairs whose signatures do not rule out a similarity of `edge_threshold`.

    A signature estimates the similarity with a standard deviation of sqrt(J(1-J)/permutations); what lies four of them
    below the threshold is left out, so that one true pair in 30,000 is lost and few texts are read again.
    """
    least = edge_threshold - 4 * (edge_threshold * (1 - edge_threshold) / matrix.shape[1]) ** 0.5
    left, right = pairs["left"].to_numpy(), pairs["right"].to_numpy()
    agreement = np.empty(pairs.height, np.float64)
    for start in range(0, pairs.height, CHUNK):
        some = slice(start, start + CHUNK)
        agreement[some] = (matrix[left[some]] == matrix[right[some]]).mean(axis=1)
    return pairs.filter(agreement >= least)
