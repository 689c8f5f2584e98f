"""Data-Juicer: `dj-process` with the operators nearest to Gopher's rules, then its MinHash; the rest as it ships."""

import json
import subprocess
import sys
from pathlib import Path

import job_task

RULES = [
    {"words_num_filter": {"min_num": 50, "max_num": 100_000}},
    {"alphanumeric_filter": {"min_ratio": 0.6}},  # of the characters: it knows no share of words with a letter
    {"special_characters_filter": {"max_ratio": 0.4}},
    {"stopwords_filter": {"lang": "en", "min_ratio": 0.02}},  # of Gopher's eight; it counts no distinct ones
    *(
        {"word_repetition_filter": {"rep_len": length, "max_ratio": most}}
        for length, most in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))
    ),
]


def add_language(sample: dict) -> dict:
    """For its `python_file_mapper`."""
    return sample | {"lang": job_task.language_of(sample["html"])}


def main(job: job_task.Job) -> int:
    stop_words = job.output / "stop_words"
    stop_words.mkdir()
    (stop_words / "stopwords.json").write_text(json.dumps({"en": job_task.STOP_WORDS}))
    RULES[3]["stopwords_filter"]["stopwords_dir"] = str(stop_words)
    dedup = {"tokenization": "space", "window_size": job_task.NGRAM, "num_permutations": job_task.PERMUTATIONS}
    process = [*RULES, {"document_minhash_deduplicator": {**dedup, "jaccard_threshold": job_task.THRESHOLD}}]
    if job.work == "pages":
        language = {"python_file_mapper": {"file_path": str(Path(__file__)), "function_name": "add_language"}}
        english = {"specified_field_filter": {"field_key": "lang", "target_value": ["en"]}}
        process = [{"clean_html_mapper": {}}, language, english, *process]
    config = {
        "project_name": "bench",
        "dataset_path": str(job.input),
        "export_path": str(job.output / "kept" / "kept.jsonl"),
        "np": job.workers,
        "text_keys": "html" if job.work == "pages" else "text",
        "process": process,
    }
    path = job.output / "config.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    (job.output / "kept").mkdir()
    return subprocess.run([Path(sys.executable).with_name("dj-process"), "--config", path]).returncode


if __name__ == "__main__":
    sys.exit(main(job_task.read_job()))
