"""dvc.yaml says what each stage depends on: the code it imports, the folders it reads, its parameters, its metrics."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest
import yaml
from conftest import BIN

from corpus.cli import STAGES, stage_module
from corpus.params import Params
from corpus.stage import stage_folder

PROJECT = Path(__file__).parent.parent
GRAPH = yaml.safe_load((PROJECT / "dvc.yaml").read_text("utf-8"))["stages"]
FRAME = {
    *("documents", "stage", "executor", "params", "sources", "cli", "errors", "reasons", "answers", "progress"),
    *("addresses", "cluster", "files", "locks", "publish", "storage", "storage_errors", "storage_options", "store"),
    "yaml_files",
}


def imported_files(path: Path) -> set[Path]:
    """The modules of this project that a module imports, at its top or inside its functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] in ("corpus", "train"):
                module = PROJECT.joinpath(*name.split("."))
                found |= {file for file in (module.with_suffix(".py"), module / "__init__.py") if file.is_file()}
    return found


def code_of(stage: str) -> set[Path]:
    """All files of this project that a stage's module runs, but for the frame and for what only names a folder."""
    module = STAGES[stage][1] if stage in STAGES else f"train.{stage}"
    waiting, seen = {PROJECT.joinpath(*module.split(".")).with_suffix(".py")}, set()
    while waiting:
        path = waiting.pop()
        seen.add(path)
        waiting |= imported_files(path) - seen
        waiting = {file for file in waiting if not (file.parent.name == "corpus" and file.stem in FRAME)}
    return {file for file in seen if file.name != "__init__.py" or len(file.read_text("utf-8").splitlines()) > 3}


def test_there_are_at_most_15_stages_one_for_each_command() -> None:
    assert len(GRAPH) == 15
    assert set(GRAPH) == {*STAGES, "base", "pack", "finetune", "evaluate"}


@pytest.mark.parametrize("stage", GRAPH)
def test_a_stage_depends_on_the_code_it_imports(stage: str) -> None:
    dependencies = [PROJECT / path for path in GRAPH[stage]["deps"]]
    missing = {
        str(file.relative_to(PROJECT))
        for file in code_of(stage)
        if not any(file == path or path in file.parents for path in dependencies)
    }
    assert not missing


def names_a_parameter(key: str) -> bool:
    section, _, name = key.partition(".")
    return section in Params.model_fields and (not name or name in type(getattr(Params(), section)).model_fields)


@pytest.mark.parametrize("stage", GRAPH)
def test_a_stage_names_its_folders_parameters_and_metrics(stage: str) -> None:
    described = GRAPH[stage]
    program = "corpus" if stage in STAGES else "train"
    assert described["cmd"] == f"exec {program} {stage}"
    whole_file = described["params"] == [{"params.yaml": None}]
    assert whole_file or stage in described["params"]
    assert whole_file or all(names_a_parameter(key) for key in described["params"])
    assert str(stage_folder(Path("data"), stage)) in described["outs"]
    assert {f"reports/{stage}.json": {"cache": False}} in described["outs"]
    # Of all figures only these are DVC's metrics: `dvc exp show` has a column for each.
    assert described.get("metrics", []) == ([{"reports/summary.json": {"cache": False}}] if stage == "report" else [])
    module = STAGES[stage][1] if stage in STAGES else f"train.{stage}"
    for read in stage_module(module).READS:
        assert str(stage_folder(Path("data"), read)) in described["deps"]


def test_byte_code_is_no_dependency() -> None:
    ignored = subprocess.run(
        [BIN / "dvc", "check-ignore", "corpus/dedup/__pycache__/stage.cpython-311.pyc"], cwd=PROJECT, check=False
    )
    assert ignored.returncode == 0
