"""datatrove: Gopher's two filters, then the four steps of MinHash, as in its example of FineWeb; JSONL in between."""

import functools
from pathlib import Path

import job_task
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter, LambdaFilter
from datatrove.pipeline.readers import JsonlReader, ParquetReader
from datatrove.pipeline.writers import JsonlWriter

CONFIG = MinhashConfig(
    n_grams=job_task.NGRAM, num_buckets=job_task.BANDS, hashes_per_bucket=job_task.ROWS_PER_BAND, seed=1
)
SECONDS_A_PAGE = 20  # as in corpusmill; its default of one loses pages on a busy machine


def is_english(document) -> bool:
    return job_task.language_of(document.text) == "en"


def read(job: job_task.Job) -> list[PipelineStep]:
    """The reader, and for pages what makes texts of them."""
    if job.work == "texts":
        return [ParquetReader(str(job.input))]
    if job.work == "rows":
        return [JsonlReader(str(job.input))]
    reader = JsonlReader(str(job.input), text_key="html")
    return [reader, Trafilatura(timeout=SECONDS_A_PAGE), LambdaFilter(is_english)]


def main(job: job_task.Job) -> None:
    folder = {name: str(job.output / name) for name in ("good", "signatures", "buckets", "cluster", "kept")}
    files = len(list(job.input.iterdir()))

    def run(name: str, pipeline: list[PipelineStep], tasks: int) -> None:
        logs = str(job.output / "logs" / name)
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=min(tasks, job.workers), logging_dir=logs).run()

    write = functools.partial(JsonlWriter, compression=None)
    run("filter", [*read(job), GopherRepetitionFilter(), GopherQualityFilter(), write(folder["good"])], files)
    good = JsonlReader(folder["good"])
    run("signatures", [good, MinhashDedupSignature(folder["signatures"], config=CONFIG)], files)
    buckets = MinhashDedupBuckets(folder["signatures"], folder["buckets"], config=CONFIG)
    run("buckets", [buckets], job_task.BANDS)
    run("cluster", [MinhashDedupCluster(folder["buckets"], folder["cluster"], config=CONFIG)], 1)
    run("keep", [good, MinhashDedupFilter(folder["cluster"]), write(folder["kept"])], files)
    Path(folder["kept"]).mkdir(exist_ok=True)


if __name__ == "__main__":
    main(job_task.read_job())
