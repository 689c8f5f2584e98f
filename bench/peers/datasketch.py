"""datasketch: `MinHash.bulk` over shingles made in Python, `MinHashLSH`, and the usual loop over its answers."""

import xxhash
from datasketch import MinHash, MinHashLSH
from measurement import (
    PERMUTATIONS,
    SEED,
    THRESHOLD,
    Task,
    later_matches,
    read_task,
    read_texts,
    shingles,
    timed,
    write_result,
)


def sign(texts: list[str], language: str) -> list[MinHash]:
    sets = (set(shingles(text, language)) for text in texts)
    return MinHash.bulk(sets, num_perm=PERMUTATIONS, seed=SEED, scheme="affine32", hashfunc=xxhash.xxh32_intdigest)


def group(hashes: list[MinHash]) -> set[int]:
    index = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
    with index.insertion_session() as session:
        for row, minhash in enumerate(hashes):
            session.insert(row, minhash)
    return later_matches(lambda row: index.query(hashes[row]), len(hashes))


def main(task: Task) -> None:
    texts = read_texts(task)
    hashes, signing = timed(lambda: sign(texts, task.language))
    removed, grouping = timed(lambda: group(hashes))
    write_result(task, "datasketch", signature_seconds=signing, seconds=signing + grouping, removed=removed)


if __name__ == "__main__":
    main(read_task())
