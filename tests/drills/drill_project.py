"""What the drills share: a small built project, ways to disturb a command, and a count of its documents by id."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import polars as pl
import pytest
import yaml
from conftest import PROJECT, command, digests, environment

STAGES = ("scrape", "clean", "measure", "reference", "perplexity", "dedup", "filter", "split", "augment", "shard")
ROWS = 240


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that every stage has built; the same one for all processes of the tests. Not to be written to."""
    shared = tmp_path_factory.getbasetemp()
    if shared.name.startswith("popen-"):  # of pytest-xdist
        shared = shared.parent
    folder = shared / "undisturbed"
    with (shared / "undisturbed.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            make_project(shared / "building")
            command(shared / "building", "corpus", "run", "--output", ".", "--workers", "2")
            (shared / "building").rename(folder)
            account(folder)
    return folder


def make_project(folder: Path) -> Path:
    """English and Chinese texts, exact and near copies, rows that scrape, clean and filter drop; in four parts."""
    generator = random.Random(7)
    reference = PROJECT / "data" / "reference"
    english = _sentences((reference / "en.txt").read_text("utf-8"), r"(?<=[.!?])\s+")
    chinese = _sentences((reference / "zh.txt").read_text("utf-8"), r"(?<=[。！？])")
    rows: list[dict[str, object]] = []
    for number in range(ROWS):
        some = generator.sample(chinese if number % 4 == 0 else english, generator.randint(3, 14))
        text: object = ("" if number % 4 == 0 else " ").join(some)
        if number % 20 == 11:
            text = rows[number - 7]["text"]
        elif number % 20 == 15:
            text = f"{rows[number - 6]['text']} Once more."
        elif number % 40 == 22:
            text = "Free pills! " * 30
        elif number % 40 == 33:
            text = "" if number % 80 == 33 else number
        rows.append({"id": f"d{number}", "text": text})
    folder.mkdir(parents=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    params = {
        "sources": [{"name": "rows", "kind": "jsonl", "path": "rows.jsonl", "id_field": "id"}],
        "scrape": {"part_mb": 0.04},
        "reference": {"texts": {"en": ["data/reference/en.txt"], "zh-Hans": ["data/reference/zh.txt"]}},
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(params), "utf-8")
    for name in ("reference", "evaluation"):
        (folder / "data" / name).mkdir(parents=True)
        for path in (PROJECT / "data" / name).iterdir():
            if path.suffix in (".txt", ".jsonl"):
                shutil.copy(path, folder / "data" / name)
    return folder


def _sentences(text: str, end: str) -> list[str]:
    return [sentence for sentence in map(str.strip, re.split(end, text)) if 20 < len(sentence) < 300]


def copy_before(undisturbed: Path, folder: Path, stage: str) -> Path:
    """A copy of the project as it was before a stage ran for the first time, what follows it left out too."""
    later = STAGES[STAGES.index(stage) :]
    shutil.copytree(undisturbed, folder, ignore=shutil.ignore_patterns("report", "index.html", "locks"))
    for name in later:
        shutil.rmtree(output_of(folder, name), ignore_errors=True)
        shutil.rmtree(folder / ".corpusmill" / "parts" / name, ignore_errors=True)
        for path in (folder / "reports").glob(f"{name}.*json"):
            path.unlink()
    return folder


def output_of(folder: Path, stage: str) -> Path:
    """Where a stage leaves its output."""
    return folder / "data" / ("reference/model" if stage == "reference" else stage)


def result(folder: Path, stage: str) -> dict[str, str]:
    """Digests of all that a stage left: its output and its metrics."""
    report = folder / "reports" / f"{stage}.json"
    return digests(output_of(folder, stage)) | {"metrics": hashlib.blake2b(report.read_bytes()).hexdigest()}


def run_stage(folder: Path, stage: str, *words: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run a stage with some changes of the environment, whatever becomes of it."""
    return subprocess.run(
        ["corpus", stage, *words],
        cwd=folder,
        env=environment() | changes,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def injected(**faults: str) -> dict[str, str]:
    """The environment that puts faults into a command's processes; see inject/sitecustomize.py."""
    path = [str(Path(__file__).parent / "inject"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(path)} | faults


def sentence_of(done: subprocess.CompletedProcess[str], *names: str) -> str:
    """The one sentence of a command that refused or failed, which has to name some things. No traceback."""
    assert done.returncode in (1, 2), (done.returncode, done.stdout, done.stderr)
    (sentence,) = done.stderr.strip().splitlines()
    assert sentence.startswith("error: " if done.returncode == 2 else "failed: ")
    for name in names:
        assert name in sentence, sentence
    return sentence


def assert_one_more_run_mends(folder: Path, undisturbed: Path, stage: str, workers: int = 1) -> None:
    """Run the stage once more: the same bytes as if nothing had happened, and nothing half-written is left beside."""
    command(folder, "corpus", stage, "--workers", str(workers))
    assert result(folder, stage) == result(undisturbed, stage)
    assert not list(output_of(folder, stage).parent.glob(".*"))


# ---- the count -------------------------------------------------------------------------------------------------------


def account(folder: Path, last: str = "shard") -> dict[str, Mapping[str, int]]:
    """Follow every row of the source by its id through the files of the stages, up to one; returns counts by stage.

    It reads the files alone and computes ids itself: what the stages say of themselves is then compared with it.
    """
    lines = (folder / "rows.jsonl").read_text("utf-8").splitlines()
    keys = [f"rows\0{json.loads(line)['id']}".encode() for line in lines]
    arrived = {hashlib.blake2b(key, digest_size=16).hexdigest() for key in keys}
    assert len(arrived) == len(lines)
    counts: dict[str, Mapping[str, int]] = {}
    for stage in ("scrape", "clean"):
        kept = _ids(output_of(folder, stage), "part-*.parquet")
        dropped = _ids(output_of(folder, stage), "dropped-*.parquet", "reason")
        counts[stage] = _balance(stage, arrived, set(), kept, dropped)
        arrived = kept
        if stage == last:
            return _as_said(folder, counts)
    documents = arrived
    for stage in ("measure", "perplexity", "dedup", "filter", "split"):
        rows = pl.concat(pl.read_parquet(path) for path in sorted(output_of(folder, stage).glob("part-*.parquet")))
        assert set(rows["id"]) == documents and rows.height == len(documents), stage
        if "kept" in rows.columns:
            judged = rows.filter(pl.col("kept").is_not_null())
            assert judged.filter(~pl.col("kept"))["reasons"].list.len().min() != 0, stage
            kept, dropped = ({*judged.filter(pl.col("kept") == side)["id"]} for side in (True, False))
        else:
            kept, dropped = documents, set[str]()
        counts[stage] = _balance(stage, arrived if "kept" in rows.columns else documents, set(), kept, dropped)
        arrived = kept
        if stage == last:
            return _as_said(folder, counts)
    made = pl.concat(pl.read_parquet(path) for path in sorted(output_of(folder, "augment").glob("part-*.parquet")))
    generated = set(made["id"])
    assert len(generated) == made.height and not generated & documents
    refused = set(made.filter(~pl.col("kept"))["id"])
    counts["augment"] = _balance("augment", arrived, generated, (arrived | generated) - refused, refused)
    arrived = (arrived | generated) - refused
    if last == "shard":
        shards = output_of(folder, "shard")
        taken = set[str]().union(*(_ids(shards / side, "*.parquet") for side in ("train", "validation", "test")))
        counts["shard"] = _balance("shard", arrived, set(), taken, _ids(shards, "dropped-*.parquet", "reason"))
    return _as_said(folder, counts)


def _ids(folder: Path, pattern: str, reason: str | None = None) -> set[str]:
    """The ids in some files, each there once and, where there has to be one, with a reason."""
    frames = [pl.read_parquet(path) for path in sorted(folder.glob(pattern))]
    ids = [document for frame in frames for document in frame["id"]]
    assert len(ids) == len(set(ids))
    assert reason is None or all(frame[reason].str.len_chars().min() != 0 for frame in frames)
    return set(ids)


def _balance(stage: str, arrived: set[str], generated: set[str], kept: set[str], dropped: set[str]) -> dict[str, int]:
    assert not kept & dropped, stage
    unaccounted = (arrived | generated) ^ (kept | dropped)
    assert not unaccounted, (stage, len(unaccounted))
    return {"in": len(arrived), "generated": len(generated), "kept": len(kept), "dropped": len(dropped)}


def _as_said(folder: Path, counts: dict[str, Mapping[str, int]]) -> dict[str, Mapping[str, int]]:
    for stage, rows in counts.items():
        assert json.loads((folder / "reports" / f"{stage}.json").read_text("utf-8"))["rows"] == rows, stage
    return counts
