"""corpusmill: the command that a user types, in a folder with a params.yaml."""

import os
import sys
from pathlib import Path

import job_task

PARAMS = """\
sources: [{{name: bench, kind: jsonl, path: "{input}/*.jsonl", id_field: id}}]
clean: {{languages: [en], pii: "off", language: {{among: [{languages}]}}}}
measure: {{topics: {{count: 0}}}}
dedup: {{ngram: {ngram}, threshold: {threshold}, num_perm: {permutations}}}
filter: {{profile: {{en: gopher}}}}
"""


def main(job: job_task.Job) -> None:
    (job.output / "params.yaml").write_text(
        PARAMS.format(
            input=job.input.absolute(),
            languages=", ".join(job_task.LANGUAGES),
            ngram=job_task.NGRAM,
            threshold=job_task.THRESHOLD,
            permutations=job_task.PERMUTATIONS,
        )
    )
    program = str(Path(sys.executable).with_name("corpus"))
    stages = [*(() if job.work == "texts" else ("scrape", "clean")), "measure", "dedup", "filter"]
    options = ["--output", ".", "--export", "kept", "--workers", str(job.workers)]
    if job.work == "texts":
        options += ["--input", str(job.input.absolute())]
    os.chdir(job.output)
    os.execv(program, [program, "run", "--stages", *stages, *options])  # nothing of this script is left to be counted


if __name__ == "__main__":
    main(job_task.read_job())
