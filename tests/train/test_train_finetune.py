"""The adapter: documents apart, losses by token, resumed after a kill, loadable as it is."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch
import transformers
from datasets import load_from_disk
from tiny_project import again, built, make_run
from transformers import AutoConfig, AutoModelForCausalLM

import train.finetune
from corpus.errors import UserError
from corpus.stage import Run, execute
from train.finetune import (
    Task,
    _key,
    attach_adapter,
    is_whole,
    last_whole_checkpoint,
    loss_per_label,
    make_trainer,
    mark_whole,
    refuse_if_documents_mix,
    save_adapter,
)
from train.models import load_model, prepare_torch


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.getbasetemp())


def adapter_files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def validation_loss(model: torch.nn.Module, project: Path) -> float:
    """Mean over the labels of all rows together."""
    rows = load_from_disk(str(project / "data" / "pack" / "validation")).with_format("torch")
    inputs = {name: torch.stack(list(rows[:][name])) for name in ("input_ids", "labels", "position_ids")}
    with torch.no_grad():
        return model(**inputs, use_cache=False).loss.item()


def test_packed_documents_do_not_see_each_other(project: Path):
    base = load_model(project / "data" / "base", "base.model").eval()
    first, second = torch.arange(10, 30), torch.arange(50, 75)
    positions = torch.cat([torch.arange(20), torch.arange(25)])[None]
    packed = torch.cat([first, second])[None]
    with torch.no_grad():
        alone = base(input_ids=second[None], use_cache=False).logits[0]
        together = base(input_ids=packed, position_ids=positions, use_cache=False).logits[0, 20:]
        # Beside a row of one document, as they stand in a batch.
        rows = torch.cat([packed, packed]), torch.cat([positions, torch.arange(45)[None]])
        batch = base(input_ids=rows[0], position_ids=rows[1], use_cache=False).logits[0, 20:]
        unaware = base(input_ids=packed, use_cache=False).logits[0, 20:]
    refuse_if_documents_mix(base)
    assert torch.allclose(together, alone, atol=1e-5) and torch.allclose(batch, alone, atol=1e-5)
    assert (unaware - alone).abs().max() > 1e-3


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 100}


def small_model(name: str, **other: int) -> torch.nn.Module:
    prepare_torch(1, 0)
    config = AutoConfig.for_model(name, **SMALL, **other)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():  # a fresh one pays too little attention to show what it sees
            if parameter.dim() > 1:
                parameter.normal_(std=0.2)
    return model


@pytest.mark.parametrize("name", ["llama", "qwen2", "mistral", "gemma"])
def test_models_that_keep_documents_apart_are_taken(name: str):
    refuse_if_documents_mix(small_model(name, intermediate_size=64, num_key_value_heads=1, max_position_embeddings=64))


@pytest.mark.parametrize(
    ("name", "other"),
    [("opt", {"ffn_dim": 64, "word_embed_proj_dim": 32}), ("bloom", {}), ("mamba", {"state_size": 4})],
)
def test_models_that_let_documents_see_each_other_are_refused(name: str, other: dict[str, int]):
    with pytest.raises(UserError, match=rf"base\.model: .* see each other in (?i:{name})ForCausalLM.*Llama, Qwen"):
        refuse_if_documents_mix(small_model(name, **other))


def test_the_validation_loss_is_by_label(project: Path):
    model = load_model(project / "data" / "base", "base.model")
    tokens = torch.arange(10, 30).repeat(3, 1)
    labels = tokens.clone()
    labels[0, 3:], labels[2] = -100, -100  # one row with two labels, one with nineteen, one without
    batches = [{"input_ids": tokens[[n]], "labels": labels[[n]]} for n in range(3)]
    with torch.no_grad():
        together = model.eval()(input_ids=tokens, labels=labels, use_cache=False).loss.item()
    assert loss_per_label(model, batches) == pytest.approx(together, rel=1e-5)
    with pytest.raises(UserError, match="holds no label"):
        loss_per_label(model, batches[2:])


def test_metrics_log_and_curve(project: Path):
    metrics = json.loads((project / "reports" / "finetune.json").read_text())
    assert metrics["rows"] == {"in": 20, "generated": 0, "kept": 20, "dropped": 0}
    curve = pl.read_csv(project / "reports" / "plots" / "loss.csv")
    assert curve.columns == ["step", "adapted_train", "adapted_validation", "control_train", "control_validation"]
    assert curve["step"].to_list() == [5, 10, 15, 20]
    for name in ("adapted", "control"):
        assert metrics[name]["steps"] == 20 and metrics[name]["tokens"] == 2560
        assert curve[f"{name}_validation"].min() == pytest.approx(metrics[name]["best_validation_loss"], abs=1e-4)
        assert curve[f"{name}_train"].null_count() == 0
    log = [json.loads(line) for line in (project / "data" / "finetune" / "log.jsonl").read_text().splitlines()]
    assert {event["adapter"] for event in log} == {"adapted", "control"} and not any("runtime" in str(e) for e in log)


def test_the_adapter_loads_as_it_is_and_is_the_best_one(project: Path):
    from peft import PeftModel

    folder = project / "data" / "finetune"
    metrics = json.loads((project / "reports" / "finetune.json").read_text())
    base = load_model(project / "data" / "base", "base.model").eval()
    before = validation_loss(base, project)
    for name, path in (("adapted", folder), ("control", folder / "control")):
        adapted = PeftModel.from_pretrained(load_model(project / "data" / "base", "base.model"), path).eval()
        loss = validation_loss(adapted, project)
        assert loss == pytest.approx(metrics[name]["best_validation_loss"], abs=2e-4) and loss < before


def test_no_checkpoint_path_or_time_is_left(project: Path):
    files = adapter_files(project / "data" / "finetune")
    assert set(files) == {
        ".stage",
        "log.jsonl",
        "adapter_config.json",
        "adapter_model.safetensors",
        "control/adapter_config.json",
        "control/adapter_model.safetensors",
    }
    assert not any(str(project).encode() in content for content in files.values())
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "data/base"
    assert not list((project / "home" / "checkpoints").iterdir())


@pytest.mark.parametrize("embeddings", [True, False])
def test_saved_and_loaded_it_says_the_same(project: Path, tmp_path: Path, embeddings: bool):
    from peft import PeftModel

    settings = make_run("finetune", project, None, f"finetune.train_embeddings={embeddings}").params.finetune
    prepare_torch(1, 0)
    model = attach_adapter(load_model(project / "data" / "base", "base.model"), settings)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)
    ids = torch.arange(10, 40)[None]
    save_adapter(model.eval(), tmp_path, "data/base")
    loaded = PeftModel.from_pretrained(load_model(project / "data" / "base", "base.model"), tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, loaded(input_ids=ids).logits)
    for one in (model, loaded):  # what reads and what speaks is still one matrix
        assert one.get_input_embeddings().weight.data_ptr() == one.get_output_embeddings().weight.data_ptr()


def task(project: Path, folder: Path, *overrides: str) -> Task:
    settings = make_run("finetune", project, None, *overrides).params.finetune
    return Task("adapted", project / "data" / "pack", project / "data" / "base", "data/base", folder, settings, 1)


def test_accumulated_batches_count_by_label(project: Path, tmp_path: Path):
    """Four rows at once, or two by two: the same adapter, although the rows differ in labels."""
    trained = []
    for size, accumulation in ((4, 1), (1, 4)):
        overrides = [f"finetune.batch_size={size}", f"finetune.gradient_accumulation={accumulation}"]
        one = task(project, tmp_path / str(size), *overrides, "finetune.learning_rate=0.01")
        prepare_torch(1, 0)
        rows = load_from_disk(str(project / "data" / "pack" / "train"))
        rows = rows.select_columns(["input_ids", "labels", "position_ids"])
        labels = [sum(label != -100 for label in row) for row in rows["labels"]]
        assert len(set(labels)) > 1
        model = attach_adapter(load_model(one.base, "base.model"), one.settings)
        make_trainer(model, rows, rows.select([]), one.settings, 3, one).train()
        trained.append({name: p.detach() for name, p in model.named_parameters() if p.requires_grad})
    for name, parameter in trained[0].items():
        assert torch.allclose(parameter, trained[1][name], atol=5e-4), name  # Adam magnifies what rounding differs in


KILLED = """
import os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from tiny_project import *
mark_whole, marked = train.finetune.mark_whole, []
def die_at_the_third(checkpoint, ended):
    if len(marked) == 2:
        os.kill(os.getpid(), 9)  # it is written, but for its mark
    marked.append(mark_whole(checkpoint, ended))
train.finetune.mark_whole = die_at_the_third
execute(train.finetune, again(make_run("finetune", Path(sys.argv[2]), None, *sys.argv[4:]), Path(sys.argv[3])))
"""


def test_killed_in_mid_run_it_ends_with_the_same_bytes(project: Path, tmp_path: Path):
    overrides = ["finetune.tokens=5120", "finetune.evaluations=8", "finetune.patience=8"]
    output = tmp_path / "two" / "out"
    arguments = [str(Path(__file__).parent), str(project), str(output), *overrides]
    process = subprocess.Popen([sys.executable, "-c", KILLED, *arguments], cwd=Path(__file__).parents[2])
    undisturbed = again(make_run("finetune", project, None, *overrides), tmp_path / "one" / "out")
    execute(train.finetune, undisturbed)
    assert process.wait(60) == -signal.SIGKILL
    checkpoints = output.parent / "home" / "checkpoints"
    (folder,) = checkpoints.glob("*/adapted")
    assert not output.exists()
    assert sorted(path.name for path in folder.glob("checkpoint-*")) == ["checkpoint-10", "checkpoint-15"]
    weights = folder / "checkpoint-15" / "adapter_model.safetensors"  # as if killed while writing it
    weights.write_bytes(weights.read_bytes()[:100])
    execute(train.finetune, dataclasses.replace(undisturbed, output=output, home=output.parent / "home"))
    assert adapter_files(tmp_path / "one" / "out") == adapter_files(output)
    assert not list(checkpoints.iterdir())


@pytest.mark.parametrize(
    ("end", "overrides"),
    [
        (
            "early",
            ["finetune.learning_rate=1000", "finetune.clip=1000", "finetune.evaluations=20", "finetune.patience=2"],
        ),
        ("at the last step", []),
    ],
)
def test_killed_after_its_end_it_trains_no_further(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, overrides: list[str]
):
    one = again(make_run("finetune", project, None, *overrides), tmp_path / "one" / "out")
    assert execute(train.finetune, one)["control"]["stopped_early"] == (end == "early")
    two = again(one, tmp_path / "two" / "out")

    def saved_but_the_control(model: torch.nn.Module, folder: Path, base_name: str) -> None:
        if folder.parent.name == "control":
            raise OSError("as if killed: training has ended, and nothing of it is saved")
        save_adapter(model, folder, base_name)

    def not_again(*_: object, **__: object) -> None:
        raise AssertionError("it trains further")

    with monkeypatch.context() as patched:
        patched.setattr(train.finetune, "save_adapter", saved_but_the_control)
        with pytest.raises(OSError, match="as if killed"):
            execute(train.finetune, two)
    with monkeypatch.context() as patched:
        patched.setattr(transformers.Trainer, "train", not_again)
        execute(train.finetune, two)
    assert adapter_files(tmp_path / "one" / "out") == adapter_files(tmp_path / "two" / "out")


def test_of_a_local_base_no_path_is_written(project: Path, tmp_path: Path):
    base = project / "data" / "base"
    run = again(make_run("finetune", project, None, f"base.model={base}"), tmp_path / "out")
    execute(train.finetune, run)
    name = "adapter_config.json"
    assert (tmp_path / "out" / name).read_bytes() == (project / "data" / "finetune" / name).read_bytes()
    assert not any(str(project).encode() in content for content in adapter_files(tmp_path / "out").values())


def test_the_name_of_the_base_is_part_of_the_key(project: Path):
    settings = make_run("finetune", project).params.finetune
    keys = {_key(project / "data" / "pack", project / "data" / "base", name, settings) for name in ("data/base", "x/y")}
    assert len(keys) == 2


def test_only_whole_checkpoints_count(tmp_path: Path):
    for number in (5, 10, 15):
        folder = tmp_path / f"checkpoint-{number}"
        folder.mkdir()
        (folder / "weights").write_text("0123456789")
    for number in (5, 10):
        mark_whole(tmp_path / f"checkpoint-{number}", ended=False)
    (tmp_path / "checkpoint-10" / "weights").write_text("01234")
    assert is_whole(tmp_path / "checkpoint-5") and not is_whole(tmp_path / "checkpoint-10")
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-5"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-5"]


def test_it_stops_early_when_the_loss_does_not_fall(project: Path, tmp_path: Path):
    overrides = ["finetune.learning_rate=1000", "finetune.clip=1000", "finetune.evaluations=20", "finetune.patience=2"]
    run = again(make_run("finetune", project, None, *overrides), tmp_path / "out")
    adapted = execute(train.finetune, run)["adapted"]
    assert adapted["stopped_early"] and adapted["steps"] < 20


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_the_base_may_be_quantised(project: Path, tmp_path: Path, quantization: str):
    run = make_run("finetune", project, None, f"finetune.quantization={quantization}", "finetune.tokens=1280")
    metrics = execute(train.finetune, again(run, tmp_path / "out"))
    assert metrics["adapted"]["best_validation_loss"] < 6


def test_without_validation_rows_it_trains_to_the_end(project: Path, tmp_path: Path):
    import datasets

    for name in ("train", "control"):
        rows = load_from_disk(str(project / "data" / "pack" / name))
        rows.save_to_disk(str(tmp_path / "pack" / name))
    datasets.Dataset.from_dict({name: [] for name in rows.column_names}).save_to_disk(
        str(tmp_path / "pack" / "validation"), num_shards=1
    )
    run: Run = dataclasses.replace(make_run("finetune", project), inputs=(tmp_path / "pack",))
    metrics = execute(train.finetune, again(run, tmp_path / "out"))
    assert metrics["adapted"]["steps"] == 20 and metrics["adapted"]["best_validation_loss"] is None


def test_refusals(project: Path, tmp_path: Path):
    with pytest.raises(UserError, match="is no pack: run `train pack`"):
        execute(train.finetune, dataclasses.replace(make_run("finetune", project), inputs=(tmp_path / "missing",)))
