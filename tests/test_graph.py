"""The whole graph, as its users run it: real DVC in a temporary git repository, real commands, real bytes."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import PROJECT, command, copy_project, digests, environment

STAGES = [*yaml.safe_load((PROJECT / "dvc.yaml").read_text("utf-8"))["stages"]]
MODEL_FREE = ["scrape", "clean", "measure", "reference", "perplexity", "dedup", "filter", "split", "augment", "shard"]
SMALL = {  # a setting on which every stage does its real work in a few seconds
    "workers": 2,
    "scrape": {"part_mb": 0.02},
    "base": {"vocabulary": 600, "layers": 1, "hidden": 32, "heads": 2, "context": 64, "steps": 20, "batch_tokens": 512},
    "pack": {"length": 64},
    "finetune": {"tokens": 8_000, "rows_per_step": 8, "evaluations": 2, "rank": 4},
    "evaluate": {"samples": 1, "new_tokens": 4},
}


def small_project(folder: Path) -> Path:
    """This project on its Chinese sample site and dialogues alone, with tiny models."""
    copy_project(folder)
    params = yaml.safe_load((folder / "params.yaml").read_text("utf-8"))
    params["sources"] = [source for source in params["sources"] if source["kind"] != "site"]
    for section, values in SMALL.items():
        params[section] = params[section] | values if isinstance(values, dict) else values
    (folder / "params.yaml").write_text(yaml.safe_dump(params, allow_unicode=True, sort_keys=False), "utf-8")
    return folder


def edit_params(folder: Path, old: str, new: str) -> None:
    text = (folder / "params.yaml").read_text("utf-8")
    assert re.search(old, text), f"{old} is not in params.yaml"
    (folder / "params.yaml").write_text(re.sub(old, new, text, count=1), "utf-8")


def stages_run(output: str) -> list[str]:
    """The stages that dvc says it ran."""
    return re.findall(r"Running stage '(\w+)'", output)


def metrics(folder: Path, stage: str) -> dict[str, dict[str, int]]:
    return json.loads((folder / "reports" / f"{stage}.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository in which `dvc repro` has built everything once."""
    folder = small_project(tmp_path_factory.mktemp("graph") / "project")
    command(folder, "git", "init", "--quiet")
    command(folder, "git", "add", "--all")
    command(folder, "git", "commit", "--quiet", "--message", "start")
    done = command(folder, "dvc", "repro")
    assert sorted(stages_run(done.stdout)) == sorted(STAGES)
    return folder


def test_every_stage_accounts_for_every_document(built: Path) -> None:
    for stage in STAGES:
        rows = metrics(built, stage)["rows"]
        assert rows["in"] > 0, stage
        assert rows["in"] + rows["generated"] == rows["kept"] + rows["dropped"], stage
        assert sum(metrics(built, stage).get("dropped_by_reason", {}).values()) == rows["dropped"], stage


def test_the_report_is_one_offline_file(built: Path) -> None:
    page = (built / "reports" / "index.html").read_text("utf-8")
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", page)
    assert "Content-Security-Policy" in page


def test_scores_of_all_three_models_on_the_pinned_sets(built: Path) -> None:
    sets = metrics(built, "evaluate")["sets"]
    assert {"pinned-en", "pinned-zh"} < set(sets)
    for scores in sets.values():
        assert set(scores) >= {"fingerprint", "base", "adapted", "control"}
        assert all(scores[model]["bits_per_byte"] > 0 for model in ("base", "adapted", "control"))


def test_git_tracks_metrics_and_no_text_of_the_corpus(built: Path) -> None:
    command(built, "git", "add", "--all")
    tracked = command(built, "git", "ls-files").stdout.split()
    assert "reports/filter.json" in tracked
    assert "dvc.lock" in tracked
    outputs = [path for path in tracked if not path.startswith(("data/sample/", "corpus/"))]
    assert not [path for path in outputs if path.endswith((".parquet", ".html", ".timing.json", ".safetensors"))]
    command(built, "git", "commit", "--quiet", "--message", "built")


def test_nothing_to_do_runs_nothing(built: Path) -> None:
    done = command(built, "dvc", "repro")
    assert stages_run(done.stdout) == []
    assert "up to date" in done.stdout


def test_plots_are_drawn_offline(built: Path) -> None:
    command(built, "python", "-m", "corpus.report.plots_template", ".dvc/offline_plots.html")
    done = command(built, "dvc", "plots", "show")
    page = Path(done.stdout.strip().removeprefix("file://")).read_text("utf-8")
    assert "vegaEmbed" in page
    assert not re.findall(r"""<script[^>]+src=""", page)


def test_a_threshold_edit_runs_the_filter_and_what_follows(built: Path) -> None:
    before = metrics(built, "filter")["rows"]
    edit_params(built, r"bounds: .*", "bounds: {zh-Hans: {n_chars: {min: 600}}}")
    done = command(built, "dvc", "repro")
    assert metrics(built, "filter")["rows"]["kept"] < before["kept"]
    follows = ["filter", "split", "augment", "shard", "pack", "finetune", "evaluate", "report"]
    assert stages_run(done.stdout) == follows


def test_a_new_document_touches_its_own_part_only(built: Path) -> None:
    before = digests(built / "data" / "clean")
    article = "<html><head><meta charset='utf-8'><title>新文</title></head><body><article>{}</article></body></html>"
    sentences = "".join(
        f"<p>第{n}段讲的是怎样给备份任务起一个看得懂的名字，免得以后找不到。</p>" for n in "一二三四五六七"
    )
    (built / "data" / "sample" / "site" / "help" / "naming.html").write_text(article.format(sentences), "utf-8")
    command(built, "dvc", "repro", "measure")
    after = digests(built / "data" / "clean")
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert len(changed) == 1, changed


def test_kill_dvc_and_no_stage_is_left_writing(built: Path) -> None:
    edit_params(built, r"steps: 20", "steps: 1000000")  # minutes, if nobody stops it
    plain_shell = environment() | {"SHELL": "/bin/sh"}  # as without SHELL; bash would make way for the stage unasked
    with subprocess.Popen(
        ["dvc", "repro", "base"], cwd=built, env=plain_shell, stdout=subprocess.PIPE, text=True
    ) as dvc:
        assert dvc.stdout is not None
        assert any("> exec train base" in line for line in dvc.stdout)
        while not [words for words in _processes_in(built) if "train base" in words]:
            time.sleep(0.05)
        time.sleep(1)
        dvc.kill()
    deadline = time.monotonic() + 10
    while _processes_in(built) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert _processes_in(built) == []
    assert not (built / "data" / "base").exists()


def _processes_in(folder: Path) -> list[str]:
    """Command lines of the processes whose working directory is the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve() == folder and "State:\tZ" not in (process / "status").read_text():
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


# ---- the same bytes, whatever happens --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All stages up to pack, one worker, in a clone of its own without git."""
    folder = small_project(tmp_path_factory.mktemp("undisturbed") / "clone")
    build_up_to_pack(folder, workers=1)
    return folder


def build_up_to_pack(folder: Path, workers: int) -> None:
    for stage in MODEL_FREE:
        command(folder, "corpus", stage, "--workers", str(workers))
    for stage in ("base", "pack"):
        command(folder, "train", stage, "--workers", str(workers))


def results(folder: Path) -> dict[str, str]:
    built = {path: digest for path, digest in digests(folder / "data").items() if not path.startswith("sample")}
    reports = {path: digest for path, digest in digests(folder / "reports").items() if "timing" not in path}
    return built | reports


def test_the_same_bytes_in_another_clone_with_four_workers(undisturbed: Path, tmp_path: Path) -> None:
    other = small_project(tmp_path / "another" / "clone")
    build_up_to_pack(other, workers=4)
    assert results(other) == results(undisturbed)


def kill_when(far_enough: Callable[[], bool], folder: Path, *words: str) -> None:
    """Start a command in a folder and kill it with -9 as soon as it is far enough."""
    with subprocess.Popen(words, cwd=folder, env=environment(), stdout=subprocess.DEVNULL) as process:
        while not far_enough():
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.005)
        process.kill()


@pytest.mark.parametrize("stage", ["clean", "augment"])
def test_a_stage_killed_in_mid_run_ends_with_the_same_bytes(undisturbed: Path, tmp_path: Path, stage: str) -> None:
    folder = tmp_path / "clone"
    shutil.copytree(undisturbed, folder)
    store = folder / ".corpusmill" / "parts" / stage
    finished = {path.name for path in store.iterdir()}
    shutil.rmtree(store)
    shutil.rmtree(folder / "data" / stage)
    kill_when(lambda: len(list(store.glob("*[0-9a-f]"))) >= 2, folder, "corpus", stage, "--workers", "2")
    left = {path.name for path in store.iterdir() if path.suffix != ".partial"}
    assert left < finished
    assert not (folder / "data" / stage).exists()
    command(folder, "corpus", stage, "--workers", "2")
    assert results(folder) == results(undisturbed)


def test_a_crawl_killed_in_mid_run_ends_with_the_same_bytes(tmp_path: Path) -> None:
    params = yaml.safe_load((PROJECT / "params.yaml").read_text("utf-8"))
    (site,) = [source for source in params["sources"] if source["kind"] == "site"]
    for name in ("undisturbed", "killed"):
        (tmp_path / name).mkdir()
        text = yaml.safe_dump({"sources": [site | {"max_pages": 60}]})
        (tmp_path / name / "params.yaml").write_text(text)
    command(tmp_path / "undisturbed", "corpus", "scrape")
    cache = tmp_path / "killed/.corpusmill/crawl/exchanges.sqlite"

    def has_twenty_answers() -> bool:
        if not cache.exists():
            return False
        with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(sqlite3.connect(cache)) as database:
            return bool(database.execute("SELECT count(*) FROM exchanges").fetchone()[0] >= 20)
        return False

    kill_when(has_twenty_answers, tmp_path / "killed", "corpus", "scrape")
    assert not (tmp_path / "killed" / "data").exists() or not list((tmp_path / "killed" / "data").glob("[!.]*"))
    command(tmp_path / "killed", "corpus", "scrape")
    assert results(tmp_path / "killed") == results(tmp_path / "undisturbed")


# ---- bad input -------------------------------------------------------------------------------------------------------


def refused(folder: Path, *words: str) -> str:
    """Run a command that has to be refused: exit 2, one sentence, nothing written. Returns the sentence."""
    before = digests(folder)
    done = command(folder, *words, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    after = {path: digest for path, digest in digests(folder).items() if not path.startswith(".corpusmill")}
    assert after == {path: digest for path, digest in before.items() if not path.startswith(".corpusmill")}
    return sentence


def test_bad_input_is_refused_in_one_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "params.yaml").write_text("sources: [{name: a, kind: jsonl, path: rows.jsonl}]")
    (folder / "cut.parquet").write_bytes(b"PAR1 and then nothing")
    (folder / "empty.jsonl").write_text("")
    scrape = ("corpus", "scrape", "--output", "out", "--set")
    assert "dedup.threshold" in refused(folder, *scrape, "dedup.treshold=0.7")
    assert "dedup.threshold" in refused(folder, *scrape, "dedup.threshold=high")
    assert "rows.jsonl" in refused(folder, "corpus", "scrape")
    assert "data/clean does not exist" in refused(folder, "corpus", "measure")
    assert "cut.parquet is not a whole" in refused(
        folder, "corpus", "measure", "--input", "cut.parquet", "--output", "out"
    )
    assert "no document" in refused(folder, *scrape, "sources.0.path=empty.jsonl")
    site = "{name: a, kind: site, start: ['http://127.0.0.1:9/'], private_addresses: true}"
    assert "http://127.0.0.1:9/" in refused(folder, *scrape, f"sources=[{site}]")
    assert "--output" in refused(folder, "corpus", "measure", "--input", "cut.parquet")


def test_a_bad_row_costs_no_good_row(tmp_path: Path) -> None:
    good = [json.dumps({"text": f"Row {n} is a line of text like any other."}).encode() for n in range(3)]
    bad = [b'{"text": 7}', b"{not json", b'{"text": "broken \xff byte"}', b'"a string"']
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join([good[0], *bad[:2], good[1], *bad[2:], good[2]]) + b"\n")
    (tmp_path / "params.yaml").write_text("sources: [{name: rows, kind: jsonl, path: rows.jsonl}]")
    command(tmp_path, "corpus", "scrape")
    assert metrics(tmp_path, "scrape")["rows"] == {"in": 7, "generated": 0, "kept": 3, "dropped": 4}
    import polars as pl

    (path,) = (tmp_path / "data" / "scrape").glob("dropped-*.parquet")
    assert sorted(pl.read_parquet(path)["detail"].str.extract(r"(rows\.jsonl:\d+)")) == [
        "rows.jsonl:2",
        "rows.jsonl:3",
        "rows.jsonl:5",
        "rows.jsonl:6",
    ]
