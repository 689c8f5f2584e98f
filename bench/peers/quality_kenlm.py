"""kenlm: its Python module scores sentences that are already cut into tokens, under a model in ARPA form.

Variant `model`: corpusmill's, exported. Variant `lmplz`: the one that kenlm's own trainer made of the same tokens.
"""

import importlib.metadata
import json

import kenlm
import pyarrow.parquet as pq
from measurement import Task, peak_mb, read_task, timed


def main(task: Task) -> None:
    documents = pq.read_table(task.input)["sentences"].to_pylist()
    model = kenlm.Model(str(task.input.with_name(f"{task.variant}.arpa")))
    model.score("warm up", bos=True, eos=True)
    scores, seconds = timed(lambda: [sum(map(model.score, sentences)) for sentences in documents])
    result = {"version": importlib.metadata.version("kenlm"), "peak_mb": peak_mb()}
    task.result.write_text(json.dumps(result | {"seconds": seconds, "log10": scores}))


if __name__ == "__main__":
    main(read_task())
