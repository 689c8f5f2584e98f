"""datatrove: the four steps of its MinHash pipeline, one task each, from Parquet to JSONL."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.readers import ParquetReader
from datatrove.pipeline.writers import JsonlWriter
from measurement import BANDS, NGRAM, ROWS_PER_BAND, Task, read_column, read_task, timed, write_result

CONFIG = MinhashConfig(n_grams=NGRAM, num_buckets=BANDS, hashes_per_bucket=ROWS_PER_BAND)

LANGUAGES = {"en": "eng", "zh": "cmn_Hani"}  # its codes; for `zh` it would take whole clauses for words


def run(folder: Path, name: str, pipeline: list[PipelineStep], tasks: int = 1) -> None:
    LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=str(folder / "logs" / name)).run()


def sign(reader: ParquetReader, folder: Path, language: str) -> None:
    step = MinhashDedupSignature(output_folder=str(folder / "signatures"), config=CONFIG, language=language)
    run(folder, "signatures", [reader, step])


def group(reader: ParquetReader, folder: Path) -> None:
    buckets = MinhashDedupBuckets(str(folder / "signatures"), str(folder / "buckets"), config=CONFIG)
    run(folder, "buckets", [buckets], tasks=BANDS)
    run(folder, "cluster", [MinhashDedupCluster(str(folder / "buckets"), str(folder / "cluster"), config=CONFIG)])
    chosen = MinhashDedupFilter(str(folder / "cluster"), exclusion_writer=JsonlWriter(str(folder / "removed")))
    run(folder, "filter", [reader, chosen, JsonlWriter(str(folder / "kept"))])


def main(task: Task) -> None:
    (task.scratch / "input").mkdir()
    texts = read_column(task)
    table = pa.table({"id": [str(row) for row in range(len(texts))], "text": texts})
    pq.write_table(table, task.scratch / "input" / "documents.parquet")
    reader = ParquetReader(str(task.scratch / "input"))
    language = LANGUAGES[task.language]
    _, signing = timed(lambda: sign(reader, task.scratch, language))
    _, grouping = timed(lambda: group(reader, task.scratch))
    files = (task.scratch / "removed").glob("*.jsonl.gz")
    removed = [
        int(json.loads(line)["id"]) for path in files for line in gzip.decompress(path.read_bytes()).splitlines()
    ]
    write_result(task, "datatrove", signature_seconds=signing, seconds=signing + grouping, removed=removed)


if __name__ == "__main__":
    main(read_task())
