"""text-dedup: its command `python -m text_dedup.minhash` on a data set on disk, called in this process.

Variants: the text as it is, or with spaces between Han characters, which it takes for one word otherwise.
"""

from datasets import Dataset, load_from_disk
from measurement import NGRAM, PERMUTATIONS, THRESHOLD, Task, read_task, read_texts, spaced, timed, write_result
from text_dedup.minhash import main as minhash_command


def arguments(task: Task) -> list[str]:
    options = {
        "path": task.scratch / "documents",
        "output": task.scratch / "kept",
        "column": "text",
        "ngram": NGRAM,
        "threshold": THRESHOLD,
        "num_perm": PERMUTATIONS,
        "min_length": 1,  # by default it drops documents of fewer than five words
        "hash_func": "xxh3",
        "hash_bits": 32,
        "num_proc": 1,
    }
    return ["--local", *(word for name, value in options.items() for word in (f"--{name}", str(value)))]


def main(task: Task) -> None:
    texts = read_texts(task)
    if task.variant == "spaced":
        texts = list(map(spaced, texts))
    documents = Dataset.from_dict({"row": list(range(len(texts))), "text": texts})
    documents.save_to_disk(task.scratch / "documents")
    _, seconds = timed(lambda: minhash_command(arguments(task), standalone_mode=False))
    kept = set(load_from_disk(task.scratch / "kept")["row"])
    removed = set(range(len(texts))) - kept
    write_result(task, "text-dedup", signature_seconds=None, seconds=seconds, removed=removed)


if __name__ == "__main__":
    main(read_task())
