"""lexicalrichness: TTR, MATTR and MTLD of the words it is given."""

import importlib.metadata
import json

import pyarrow.parquet as pq
from lexicalrichness import LexicalRichness
from measurement import Task, peak_mb, read_task, timed

WINDOW = 50


def diversity(words: list[str]) -> tuple[float, float, float]:
    """TTR, MATTR and MTLD; a text shorter than the window has no MATTR."""
    lexicon = LexicalRichness(words, preprocessor=None, tokenizer=None)
    return lexicon.ttr, lexicon.mattr(window_size=WINDOW) if len(words) >= WINDOW else -1.0, lexicon.mtld()


def main(task: Task) -> None:
    documents = pq.read_table(task.input)["words"].to_pylist()
    values, seconds = timed(lambda: [diversity(words) for words in documents])
    result = {"version": importlib.metadata.version("lexicalrichness"), "peak_mb": peak_mb()}
    task.result.write_text(json.dumps(result | {"seconds": seconds, "values": values}))


if __name__ == "__main__":
    main(read_task())
