"""rensa: the deduplicator of its README on R-MinHash, or the rho pipeline that its own benchmark shows.

Both take shingles made in Python; the rho pipeline in the order of the text, for it samples positions. The deduplicator
says whom to keep; the rho pipeline flags every member of a group.
"""

from measurement import PERMUTATIONS, SEED, THRESHOLD, Task, read_task, read_texts, shingles, timed, write_result
from rensa import RMinHash, RMinHashDeduplicator, RMinHashLSH

BANDS = 32  # it takes divisors of the permutations only; 16 would miss most pairs near the threshold


def sign(texts: list[str], language: str) -> list[RMinHash]:
    return RMinHash.from_token_sets((set(shingles(text, language)) for text in texts), PERMUTATIONS, SEED)


def group(hashes: list[RMinHash]) -> list[int]:
    deduplicator = RMinHashDeduplicator(THRESHOLD, PERMUTATIONS, use_lsh=True, num_bands=BANDS, seed=SEED)
    keep = deduplicator.add_pairs((str(row), minhash) for row, minhash in enumerate(hashes))
    return [row for row, kept in enumerate(keep) if not kept]


def main(task: Task) -> None:
    texts = read_texts(task)
    if task.variant == "rho":
        lists = (list(shingles(text, task.language)) for text in texts)
        matrix, signing = timed(lambda: RMinHash.digest_matrix_from_token_sets_rho(lists, PERMUTATIONS, SEED))
        index = RMinHashLSH(THRESHOLD, PERMUTATIONS, BANDS)
        flags, grouping = timed(lambda: index.query_duplicate_flags_matrix_one_shot(matrix))
        removed = [row for row, flag in enumerate(flags) if flag]
    else:
        hashes, signing = timed(lambda: sign(texts, task.language))
        removed, grouping = timed(lambda: group(hashes))
    write_result(task, "rensa", signature_seconds=signing, seconds=signing + grouping, removed=removed)


if __name__ == "__main__":
    main(read_task())
