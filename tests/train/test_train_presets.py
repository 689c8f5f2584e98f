"""Presets change their keys in params.yaml, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from corpus.errors import UserError
from corpus.params import load
from train.preset import FOLDER, apply_preset

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


@pytest.fixture
def params(tmp_path: Path) -> Path:
    return shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_changes_what_it_says_and_keeps_comments(name: str, params: Path) -> None:
    before = load(params)
    said = apply_preset(name, params)
    after = load(params)
    changed = {
        f"{section}.{key}"
        for section, settings in after.model_dump().items()
        if isinstance(settings, dict)
        for key, value in settings.items()
        if value != before.model_dump()[section][key]
    }
    assert changed == {line.partition(":")[0] for line in said.splitlines() if "→" in line}
    comments = [line.partition("# ")[2] for line in (ROOT / "params.yaml").read_text("utf-8").splitlines()]
    assert comments == [line.partition("# ")[2] for line in params.read_text("utf-8").splitlines()]
    assert apply_preset(name, params).startswith(f"{params} already")


def test_all_presets_lead_to_the_same_place_whatever_was_before(params: Path) -> None:
    for name in [*NAMES, "tiny-cpu"]:
        apply_preset(name, params)
    assert load(params) == load(ROOT / "params.yaml")


def test_the_7b_preset_is_what_fits_24_gb(params: Path) -> None:
    apply_preset("deepseek-7b-24gb", params)
    settings = load(params).finetune
    assert (settings.method, settings.alpha, settings.gradient_checkpointing) == ("qlora", 32, True)
    assert 8 <= settings.rank <= 16


def test_missing_sections_are_written(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("workers: 1  # mine\nbase: {}\n")
    assert "finetune.method: default → qlora" in apply_preset("deepseek-7b-24gb", tmp_path / "params.yaml")
    assert load(tmp_path / "params.yaml").pack.length == 1024
    assert "workers: 1  # mine" in (tmp_path / "params.yaml").read_text()


def test_the_list_has_a_line_each_and_an_unknown_name_shows_the_names(params: Path) -> None:
    lines = apply_preset(None, params).splitlines()
    assert [line.split()[0] for line in lines] == NAMES
    with pytest.raises(UserError, match=r"'deepseek' is unknown: there are deepseek-7b-24gb"):
        apply_preset("deepseek", params)


def test_a_broken_file_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("finetune: {methd: lora}\n")
    with pytest.raises(UserError, match=r"finetune\.methd"):
        apply_preset("tiny-cpu", path)
    assert path.read_text() == "finetune: {methd: lora}\n"
    with pytest.raises(UserError, match="does not exist"):
        apply_preset("tiny-cpu", tmp_path / "none.yaml")
    assert [file.name for file in tmp_path.iterdir()] == ["params.yaml"]


def test_a_key_that_is_there_twice_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("finetune:\n  rank: 8\n  rank: 4\n")
    with pytest.raises(UserError, match=r"params\.yaml is not YAML: .*duplicate key"):
        apply_preset("tiny-cpu", path)


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "real.yaml").write_text("finetune: {rank: 8}\n")
    (tmp_path / "params.yaml").symlink_to(Path("there", "real.yaml"))
    apply_preset("deepseek-7b-24gb", tmp_path / "params.yaml")
    assert (tmp_path / "params.yaml").is_symlink()
    assert load(tmp_path / "there" / "real.yaml").finetune.method == "qlora"
