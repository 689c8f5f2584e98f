"""corpusmill: the commands that a user types, one after the other, in a folder with a params.yaml."""

import os
import shlex
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
    commands = ["measure --input data/clean --output data/measure"]
    commands += ["dedup --input data/clean data/measure --output data/dedup"]
    commands += ["filter --input data/clean data/measure data/dedup --output data/filter"]
    if job.work == "texts":
        (job.output / "data").mkdir()
        (job.output / "data" / "clean").symlink_to(job.input.absolute())
    else:
        commands = ["scrape", "clean", *commands]
    program = shlex.quote(str(Path(sys.executable).with_name("corpus")))
    lines = [f"{program} {command} --workers {job.workers}" for command in commands] + [f"{program} export filter kept"]
    os.chdir(job.output)
    os.execvp("sh", ["sh", "-e", "-c", "\n".join(lines)])  # nothing of this script is left to be counted


if __name__ == "__main__":
    main(job_task.read_job())
