"""gaoya: its index with its own tokenizer in Rust, and the usual loop over its answers."""

from gaoya.minhash import MinHashStringIndex
from measurement import NGRAM, THRESHOLD, Task, later_matches, read_task, read_texts, timed, write_result


def insert(texts: list[str], language: str) -> MinHashStringIndex:
    index = MinHashStringIndex(
        hash_size=32,
        jaccard_threshold=THRESHOLD,
        num_bands=42,
        band_size=3,
        analyzer="char" if language == "zh" else "word",
        lowercase=True,
        ngram_range=(NGRAM, NGRAM),
    )
    for row, text in enumerate(texts):
        index.insert_document(row, text)
    return index


def main(task: Task) -> None:
    texts = read_texts(task)
    index, inserting = timed(lambda: insert(texts, task.language))
    removed, asking = timed(lambda: later_matches(lambda row: index.query(texts[row]), len(texts)))
    write_result(task, "gaoya", signature_seconds=inserting, seconds=inserting + asking, removed=removed)


if __name__ == "__main__":
    main(read_task())
