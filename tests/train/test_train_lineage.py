"""What was made for one base is not used with another, and names that lie are found out."""

import json
import shutil
from pathlib import Path

import pytest
from tiny_project import built, make_run, params

import train.base
import train.evaluate
import train.finetune
import train.pack
from corpus.errors import UserError
from corpus.params import Base
from corpus.stage import execute
from train.lineage import fingerprint, name_of, refuse_other_name


@pytest.fixture
def project(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that is built, to change."""
    shutil.copytree(built(tmp_path_factory.getbasetemp()) / "data", tmp_path / "data")
    return tmp_path


@pytest.mark.parametrize("name", ["owner/other", "/no/such/folder"])
def test_another_base_than_the_parameters_name_is_refused(project: Path, name: str):
    for stage, module in (("pack", train.pack), ("finetune", train.finetune)):
        with pytest.raises(UserError, match=f"base.model is {name}, but .*base holds tiny: run `train base`"):
            execute(module, make_run(stage, project, project / "out", f"base.model={name}"))


def test_packs_and_adapters_of_another_base_are_refused(project: Path):
    kept = project / "kept"
    shutil.copytree(project / "data" / "base", kept)
    execute(train.base, make_run("base", project, None, "base.seed=1"))  # the same tokenizer, other weights
    with pytest.raises(
        UserError, match=r"finetune was made for another base than .*base, of other weights: run `train f"
    ):
        execute(train.evaluate, make_run("evaluate", project))
    execute(train.finetune, make_run("finetune", project, project / "again"))
    tokenizer = project / "data" / "base" / "tokenizer.json"
    changed = json.loads(tokenizer.read_text("utf-8"))
    changed["model"]["merges"] = changed["model"]["merges"][::-1]
    tokenizer.write_text(json.dumps(changed), "utf-8")
    with pytest.raises(
        UserError, match=r"pack was made for another base than .*, of other tokenizer: run `train pack`"
    ):
        execute(train.finetune, make_run("finetune", project, project / "more"))


def test_a_base_that_does_not_say_what_it_is_is_taken(project: Path):
    for path in project.glob("data/*/base.json"):
        path.unlink()
    refuse_other_name(project / "data" / "base", params("base.model=owner/other").base)


def test_a_name_holds_no_path_of_this_machine(tmp_path: Path):
    assert name_of(Base(model=str(tmp_path))) == {"model": "a folder", "revision": None}


def test_a_fingerprint_sees_both_ends_of_a_file(tmp_path: Path):
    for name, content in (("a", b"x" * 3_000_000), ("b", b"x" * 2_999_999 + b"y"), ("c", b"y" + b"x" * 2_999_999)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(content)
    assert len({fingerprint(tmp_path / name, ("*.safetensors",)) for name in "abc"}) == 3
