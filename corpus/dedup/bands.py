"""How a signature is cut into bands, and what can be concluded from two signatures."""

from __future__ import annotations

import math

EDGE_RECALL = 0.90  # of the pairs at dedup.edge_threshold, which only decide what is split together
DROP_RECALL = 0.98  # of the pairs at dedup.threshold


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


def least_agreement(similarity: float, num_perm: int) -> float:
    """The share of equal places below which two signatures rule out a similarity.

    A signature estimates it with a standard deviation of sqrt(J(1-J)/permutations); four of them lose one true pair in
    30,000.

    >>> round(least_agreement(0.4, 128), 3)
    0.227
    """
    return similarity - 4 * math.sqrt(similarity * (1 - similarity) / num_perm)
