"""What is trained: by which rows, losses by token, which methods; what is written, refused and stopped."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import transformers
from conftest import command
from datasets import Dataset, load_from_disk
from hypothesis import given
from hypothesis import strategies as st
from tiny_project import again, built, make_run
from transformers import AutoModelForCausalLM

import train.finetune
from corpus.errors import StageError, UserError
from corpus.stage import Metrics, Run, execute
from train.adapter import attach_adapter, typed
from train.finetune import Task, _tasks, rows_at_once
from train.models import load_finetuned, load_model, prepare_torch
from train.rows import COLUMNS, collate, draw_rows
from train.tracking import write_live
from train.trainer import LabelTrainer


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def pack(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packs without a control, which would be trained as well."""
    folder = tmp_path_factory.mktemp("pack")
    for name in ("train", "validation"):
        (folder / name).symlink_to(project / "data" / "pack" / name)
    return folder


def run_of(project: Path, pack: Path, folder: Path, *overrides: str) -> Run:
    return again(dataclasses.replace(make_run("finetune", project, None, *overrides), inputs=(pack,)), folder / "out")


def finetune(project: Path, pack: Path, folder: Path, *overrides: str) -> Metrics:
    """Train without a control, and return the adapter's metrics with its timing."""
    metrics = execute(train.finetune, run_of(project, pack, folder, *overrides))
    timing = json.loads((folder / "out" / "timing.json").read_text())["adapted"]
    return metrics["adapted"] | {"timing": timing}


def files_of(folder: Path) -> dict[str, bytes]:
    paths = (p for p in folder.rglob("*") if p.is_file() and p.name != "timing.json")
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths}


def validation_loss(model: Any, project: Path) -> float:
    """Mean over the labels of all documents, each alone in its row."""
    nats, labels = 0.0, 0
    for row in load_from_disk(str(project / "data" / "pack" / "validation")):
        start = 0
        for length in row["document_lengths"]:
            ids, wanted = (torch.tensor(row[name][start : start + length]) for name in ("input_ids", "labels"))
            start += length
            with torch.no_grad():
                logits = model(input_ids=ids[None], use_cache=False).logits[0, -length:]
            nats += torch.nn.functional.cross_entropy(logits[:-1], wanted[1:], reduction="sum").item()
            labels += int((wanted[1:] != -100).sum())
    return nats / labels


# ---- what is written -------------------------------------------------------------------------------------------------


def test_metrics_log_and_curve(project: Path):
    metrics = json.loads((project / "reports" / "finetune.json").read_text())
    assert metrics["rows"]["in"] == metrics["adapted"]["documents"] and "timing" not in metrics
    timing = json.loads((project / "reports" / "finetune.timing.json").read_text())
    curve = pl.read_csv(project / "reports" / "plots" / "loss.csv")
    assert curve.columns == ["step", "adapted_train", "adapted_validation", "control_train", "control_validation"]
    assert curve["step"].to_list() == [5, 10, 15, 20]
    for name in ("adapted", "control"):
        ours = metrics[name]
        assert (ours["steps"], ours["stopped"]) == (20, "tokens") and 1280 < ours["tokens"] < 2560  # of 40 rows of 64
        assert (ours["method"], ours["precision"], ours["attention"], ours["mix"]) == ("lora", "fp32", "packed", {})
        best = curve.sort(f"{name}_validation").row(0, named=True)
        assert best[f"{name}_validation"] == pytest.approx(ours["best_validation_loss"], abs=1e-4)
        assert best["step"] == ours["best_step"] and curve[f"{name}_train"].null_count() == 0
        assert timing[name].keys() == {"batch", "seconds", "tokens_per_second", "peak_mb"}
        live = project / "reports" / "dvclive" / name
        points = pl.read_csv(live / "plots" / "metrics" / "validation" / "loss.tsv", separator="\t")
        assert points.columns == ["step", "loss"] and points["step"].to_list() == [5, 10, 15, 20]
        assert json.loads((live / "metrics.json").read_text())["step"] == 20
    rows = len(load_from_disk(str(project / "data" / "pack" / "train")))
    assert metrics["adapted"]["passes"] == pytest.approx(40 / rows)


def test_the_adapter_loads_as_it_is_and_is_the_best_one(project: Path):
    base, folder = project / "data" / "base", project / "data" / "finetune"
    metrics = json.loads((project / "reports" / "finetune.json").read_text())
    before = validation_loss(load_model(base, "base.model").eval(), project)
    for name, path in (("adapted", folder), ("control", folder / "control")):
        loss = validation_loss(load_finetuned(base, path).eval(), project)
        assert loss == pytest.approx(metrics[name]["best_validation_loss"], abs=2e-4) and loss < before


def test_no_checkpoint_path_or_time_is_left(project: Path):
    files = files_of(project / "data" / "finetune")
    adapter = {"adapter_config.json", "adapter_model.safetensors", "base.json", "rows.parquet"}
    assert files.keys() == {".stage", *adapter, *(f"control/{name}" for name in adapter)}
    assert not any(str(project).encode() in content for content in files.values())
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "data/base"
    (stored,) = (project / "home" / "checkpoints").iterdir()
    assert {path.name for path in stored.glob("*/*")} == {"finished"}


def test_the_losses_are_what_this_version_gives(project: Path, pack: Path, tmp_path: Path):
    """Change VERSION of train.finetune when this changes on purpose: checkpoints of before must not be taken up."""
    finetune(project, pack, tmp_path)
    losses = pl.read_csv(tmp_path / "out" / "plots" / "loss.csv")["adapted_validation"].round(2).to_list()
    assert (train.finetune.VERSION, losses) == (6, [3.6, 3.5, 3.45, 3.45])


@pytest.fixture
def any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny base passes for one of any name."""
    monkeypatch.setattr(train.finetune, "refuse_other_name", lambda *_: None)


@pytest.mark.usefixtures("any_name")
def test_of_a_local_base_no_path_is_written(project: Path, pack: Path, tmp_path: Path):
    finetune(project, pack, tmp_path, f"base.model={project / 'data' / 'base'}")
    name = "adapter_config.json"
    assert (tmp_path / "out" / name).read_bytes() == (project / "data" / "finetune" / name).read_bytes()


@pytest.mark.usefixtures("any_name")
def test_what_checkpoints_depend_on(project: Path):
    def key(*overrides: str) -> str:
        return _tasks(make_run("finetune", project, None, *overrides))[0][0].folder.parent.name

    same = [key(), key("finetune.report_to=[]"), key("finetune.profile=true"), key("base.revision=main")]
    named = [key("base.model=x/y"), key("base.model=x/y", "base.revision=main")]
    other = [key("finetune.rank=3"), key("finetune.trainer.optim=sgd")]
    assert len(set(same)) == 1 and len({*same, *named, *other}) == 5


# ---- rows ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 60), st.integers(0, 3))
def test_each_row_comes_before_any_comes_again(sizes: list[int], total: int, seed: int):
    weights = {str(number): 0.33 for number in range(1, len(sizes))}
    named = {str(number): size for number, size in enumerate(sizes)}
    order = draw_rows(named, weights, total, seed)
    assert len(order) == total and np.array_equal(order, draw_rows(named, weights, total, seed))
    first = 0
    for number, size in enumerate(sizes):
        own = order[(order >= first) & (order < first + size)]
        first += size
        if number:
            assert len(own) == int(0.33 * total)
        for start in range(0, len(own), size):
            assert len(set(own[start : start + size].tolist())) == len(own[start : start + size])


def test_in_a_git_repository_without_a_commit_dvclive_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for words in (["git", "init", "--quiet"], ["dvc", "init", "--quiet"]):
        command(tmp_path, *words)
    write_live(tmp_path / "live", [{"step": 1, "loss": 2.0}])
    assert not (tmp_path / "live").exists()
    command(tmp_path, "git", "commit", "--quiet", "--message", "first")
    write_live(tmp_path / "live", [{"step": 1, "loss": 2.0}])
    assert json.loads((tmp_path / "live" / "metrics.json").read_text())["train"] == {"loss": 2.0}


def test_the_rows_trained_on_are_named(project: Path):
    metrics = json.loads((project / "reports" / "finetune.json").read_text())
    for name, folder, pack in (("adapted", "", "train"), ("control", "control", "control")):
        rows = pl.read_parquet(project / "data" / "finetune" / folder / "rows.parquet")
        lengths = load_from_disk(str(project / "data" / "pack" / pack))["document_lengths"]
        assert set(rows["pack"]) == {pack}
        assert sum(sum(lengths[row]) for row in rows["row"]) == metrics[name]["tokens"]
        assert rows["step"].n_unique() == metrics[name]["steps"] == rows["step"].max()
        assert set(rows["best_step"]) == {metrics[name]["best_step"]}
        state = json.loads((project / "data" / "pack" / pack / "state.json").read_text())
        assert set(rows["fingerprint"]) == {state["_fingerprint"]}


def test_a_mix_has_its_part_of_the_rows(project: Path, pack: Path, tmp_path: Path):
    mixed = tmp_path / "mixed"
    (mixed / "mix").mkdir(parents=True)
    for name in ("train", "validation"):
        (mixed / name).symlink_to(pack / name)
    load_from_disk(str(project / "data" / "pack" / "control")).select(range(3)).save_to_disk(str(mixed / "mix/general"))
    mix = "finetune.mix={general: {path: general.jsonl, weight: 0.25}}"
    metrics = finetune(project, mixed, tmp_path, mix, "finetune.evaluations=1")
    assert metrics["mix"] == {"general": {"rows": 3, "part": 0.25, "repeated": pytest.approx(10 / 3)}}
    with pytest.raises(UserError, match="mix/general is no pack"):
        finetune(project, pack, tmp_path / "without", mix)


@pytest.mark.parametrize("batch", [1, 2])
def test_accumulated_batches_count_by_label(project: Path, tmp_path: Path, batch: int):
    """Four rows at once, two by two, or one by one: the same loss and gradient, although the rows differ in labels."""
    rows = load_from_disk(str(project / "data" / "pack" / "train"))
    assert len({sum(label != -100 for label in row) for row in rows["labels"]}) > 1
    logs = []
    for size in (4, batch):
        overrides = ["finetune.rows_per_step=4", "finetune.evaluations=5", f"finetune.batch={size}"]
        task = task_of(project, tmp_path / str(size), *overrides, "finetune.learning_rate=0.01")
        prepare_torch(1, 0)
        model = attach_adapter(load_model(task.base, "base.model"), task.settings)
        assert train.attention.use_document_attention(model)
        drawn, validation = rows.select(range(20)), rows.select(range(3))
        trainer_of(model, task, size, drawn, validation).train()
        state = json.loads((task.folder / "checkpoint-5" / "trainer_state.json").read_text())
        logs.append([event for event in state["log_history"] if event["step"] <= 5])
    for one, other in zip(*logs, strict=True):
        assert one == pytest.approx(other, abs=2e-5)
    first = [event for log in logs for event in log if event["step"] == 1 and "loss" in event]
    assert first[0]["loss"] == pytest.approx(first[1]["loss"], abs=1e-6)


def trainer_of(model: Any, task: Task, batch: int, rows: Dataset, validation: Dataset) -> LabelTrainer:
    parts = {"train_dataset": rows, "eval_dataset": validation, "data_collator": collate}
    return LabelTrainer(model, task.settings, task.folder, batch, **parts)


def task_of(project: Path, home: Path, *overrides: str) -> Task:
    run = dataclasses.replace(make_run("finetune", project, None, *overrides), home=home)
    task = _tasks(run)[0][0]
    task.folder.mkdir(parents=True, exist_ok=True)
    return task


def test_the_validation_loss_is_by_label(project: Path, tmp_path: Path):
    rows = load_from_disk(str(project / "data" / "pack" / "validation"))
    task = task_of(project, tmp_path, "finetune.rows_per_step=2")
    model = load_model(task.base, "base.model")
    assert train.attention.use_document_attention(model)
    trainer = trainer_of(model, task, 2, rows, rows)
    plain = load_model(task.base, "base.model").eval()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(validation_loss(plain, project), rel=1e-5)
    empty = rows.map(lambda row: {"labels": [-100] * len(row["labels"])})
    trainer.eval_dataset = empty
    with pytest.raises(UserError, match="holds no label"):
        trainer.evaluate()


# ---- methods ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["qlora", "int8"])
def test_the_base_may_be_quantised(project: Path, pack: Path, tmp_path: Path, method: str):
    metrics = finetune(project, pack, tmp_path, f"finetune.method={method}", "finetune.tokens=1280")
    model = load_finetuned(project / "data" / "base", tmp_path / "out", method=method).eval()
    assert validation_loss(model, project) == pytest.approx(metrics["best_validation_loss"], abs=0.02)
    assert metrics["method"] == method


def test_a_whole_model_may_be_trained(project: Path, pack: Path, tmp_path: Path):
    metrics = finetune(project, pack, tmp_path, "finetune.method=full")
    base = load_model(project / "data" / "base", "base.model")
    assert metrics["trainable_parameters"] == base.num_parameters()
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert model.dtype == base.dtype
    assert validation_loss(model, project) == pytest.approx(metrics["best_validation_loss"], abs=2e-4)
    assert (tmp_path / "out" / "tokenizer.json").exists()
    assert not any(str(project).encode() in content for content in files_of(tmp_path / "out").values())


def test_values_have_the_types_of_their_fields():
    given = {"adam_epsilon": "1e-8", "fsdp": True, "neftune_noise_alpha": 5, "deepspeed": None, "optim_args": "a=1"}
    assert typed("trainer", given, transformers.TrainingArguments, set()) == given | {"adam_epsilon": 1e-8}


@pytest.mark.parametrize("settings", [["use_dora=true"], ["use_rslora=true"], ["peft_type=IA3"]])
def test_settings_of_peft(project: Path, pack: Path, tmp_path: Path, settings: list[str]):
    metrics = finetune(
        project, pack, tmp_path, *(f"finetune.peft.{s}" for s in settings), "finetune.learning_rate=0.01"
    )
    model = load_finetuned(project / "data" / "base", tmp_path / "out").eval()
    assert validation_loss(model, project) == pytest.approx(metrics["best_validation_loss"], abs=2e-4)
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    key, _, value = settings[0].partition("=")
    assert str(config[key]).lower() == value.lower()


def adapter_config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "out" / "adapter_config.json").read_text())
    return config


def test_what_was_a_set_is_written_in_order_and_text_as_it_is(project: Path, pack: Path, tmp_path: Path):
    short = ["finetune.tokens=128", "finetune.evaluations=1"]
    finetune(project, pack, tmp_path / "sets", *short, "finetune.peft.exclude_modules=[v_proj,q_proj,k_proj,up_proj]")
    config = adapter_config(tmp_path / "sets")
    assert config["exclude_modules"] == ["k_proj", "q_proj", "up_proj", "v_proj"]
    assert config["target_modules"] == sorted(config["target_modules"]) and "modules_to_tie" not in config
    pattern = r".*\.(q|v)_proj"
    finetune(
        project, pack, tmp_path / "text", *short, f"finetune.peft={{peft_type: LOHA, target_modules: '{pattern}'}}"
    )
    assert adapter_config(tmp_path / "text")["target_modules"] == pattern
    load_finetuned(project / "data" / "base", tmp_path / "text" / "out")


@pytest.mark.usefixtures("any_name")
def test_of_a_base_of_the_hub_its_commit_is_written(project: Path, pack: Path, tmp_path: Path):
    finetune(project, pack, tmp_path, "base.model=x/y", "base.revision=abc", "finetune.tokens=128")
    config = adapter_config(tmp_path)
    assert (config["base_model_name_or_path"], config["revision"]) == ("x/y", "abc")


def test_modules_trained_whole_are_those_of_both_parameters(project: Path):
    settings = make_run("finetune", project, None, "finetune.peft.modules_to_save=[norm]").params.finetune
    model = attach_adapter(load_model(project / "data" / "base", "base.model"), settings)
    assert {"embed_tokens", "norm"} <= {*model.peft_config["default"].modules_to_save}
    named = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert any("embed_tokens" in name for name in named) and any(".norm." in name for name in named)


def test_a_whole_model_keeps_the_type_that_an_older_config_names(project: Path, pack: Path, tmp_path: Path):
    base = tmp_path / "data" / "base"
    shutil.copytree(project / "data" / "base", base)
    load_model(base, "base.model", precision="bf16").save_pretrained(base)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"torch_dtype": config.pop("dtype")} | {"dtype": None}))
    run = run_of(project, pack, tmp_path, "finetune.method=full", "finetune.tokens=128")
    execute(train.finetune, dataclasses.replace(run, data=tmp_path / "data"))
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == torch.bfloat16


def test_a_tuned_prompt_learns(project: Path, pack: Path, tmp_path: Path):
    prompt = ["finetune.peft.peft_type=PROMPT_TUNING", "finetune.peft.num_virtual_tokens=8"]
    metrics = finetune(
        project, pack, tmp_path, *prompt, "finetune.learning_rate=0.3", "finetune.tokens=7680", "finetune.evaluations=2"
    )
    before = validation_loss(load_model(project / "data" / "base", "base.model").eval(), project)
    after = validation_loss(load_finetuned(project / "data" / "base", tmp_path / "out").eval(), project)
    assert after == pytest.approx(metrics["best_validation_loss"], abs=2e-4) and after < before - 0.01


def test_in_sixteen_bits_documents_are_packed_as_well(
    project: Path, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def never(_: object) -> None:
        raise AssertionError("documents are padded")

    monkeypatch.setattr(train.rows, "collate_padded", never)
    plain = finetune(project, pack, tmp_path / "fp32")
    metrics = finetune(project, pack, tmp_path / "bf16", "finetune.precision=bf16")
    assert metrics["precision"] == "bf16"
    assert metrics["best_validation_loss"] == pytest.approx(plain["best_validation_loss"], abs=0.02)


@pytest.mark.parametrize("embeddings", [True, False])
def test_saved_and_loaded_it_says_the_same(project: Path, tmp_path: Path, embeddings: bool):
    settings = make_run("finetune", project, None, f"finetune.train_embeddings={embeddings}").params.finetune
    prepare_torch(1, 0)
    model = attach_adapter(load_model(project / "data" / "base", "base.model"), settings)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)
    ids = torch.arange(10, 40)[None]
    model.eval().save_pretrained(tmp_path)
    loaded = load_finetuned(project / "data" / "base", tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, loaded(input_ids=ids).logits)
    for one in (model, loaded):  # what reads and what speaks is still one matrix
        assert one.get_input_embeddings().weight.data_ptr() == one.get_output_embeddings().weight.data_ptr()


def test_checkpointed_gradients_are_the_same(project: Path, pack: Path, tmp_path: Path):
    saved = []
    for switch in ("false", "true"):
        finetune(project, pack, tmp_path / switch, f"finetune.gradient_checkpointing={switch}", "finetune.tokens=640")
        saved.append(files_of(tmp_path / switch / "out")["plots/loss.csv"])
    assert saved[0] == saved[1]


# ---- the end, and what stops it --------------------------------------------------------------------------------------


def test_it_stops_early_when_the_loss_does_not_fall(project: Path, pack: Path, tmp_path: Path):
    overrides = ["finetune.learning_rate=1000", "finetune.clip=1000", "finetune.evaluations=20", "finetune.patience=2"]
    metrics = finetune(project, pack, tmp_path, *overrides)
    assert metrics["stopped"] == "patience" and metrics["steps"] == metrics["best_step"] + 2 < 20


def test_it_stops_when_its_time_is_over(project: Path, pack: Path, tmp_path: Path):
    metrics = finetune(project, pack, tmp_path, "finetune.time_budget=1e-6")
    assert (metrics["stopped"], metrics["steps"], metrics["best_step"]) == ("time", 1, 1)


@pytest.mark.parametrize(
    "overrides", [[], ["finetune.learning_rate=1000", "finetune.clip=1000", "finetune.evaluations=20"]]
)
def test_killed_after_its_end_it_trains_no_further(
    project: Path, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str]
):
    finetune(project, pack, tmp_path / "one", *overrides)

    def killed(*_: object) -> None:
        raise OSError("as if killed: training has ended, and nothing of it is saved")

    def not_again(*_: object, **__: object) -> None:
        raise AssertionError("it trains further")

    with monkeypatch.context() as patched:
        patched.setattr(train.finetune, "_save", killed)
        with pytest.raises(OSError, match="as if killed"):
            finetune(project, pack, tmp_path / "two", *overrides)
    with monkeypatch.context() as patched:
        patched.setattr(transformers.Trainer, "train", not_again)
        finetune(project, pack, tmp_path / "two", *overrides)
    assert files_of(tmp_path / "one" / "out") == files_of(tmp_path / "two" / "out")


def test_killed_before_its_output_is_there_it_copies_what_is_finished(
    project: Path, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def never(*_: object) -> None:
        raise OSError("as if killed")

    finetune(project, pack, tmp_path / "one")
    for name, place in (("write_plot", train.finetune), ("load_model", train.finetune)):
        with monkeypatch.context() as patched:
            patched.setattr(place, name, never)
            if name == "write_plot":
                with pytest.raises(OSError, match="as if killed"):
                    finetune(project, pack, tmp_path / "two")
                assert not (tmp_path / "two" / "out").exists()
            else:
                finetune(project, pack, tmp_path / "two")
    assert files_of(tmp_path / "one" / "out") == files_of(tmp_path / "two" / "out")


def test_a_torn_note_of_what_memory_holds_is_as_none(project: Path, tmp_path: Path):
    task = task_of(project, tmp_path, "finetune.rows_per_step=4")
    for torn in ("", "[1]", "{"):
        (task.folder / train.finetune.BATCH).write_text(torn)
        assert rows_at_once(task) == 4


def test_an_overflow_stops_it_and_its_rows_are_kept(project: Path, pack: Path, tmp_path: Path):
    with pytest.raises(
        StageError, match=r"not finite at step 3; .*not-finite-3-0\.json.* lower finetune\.learning_rate"
    ):
        finetune(project, pack, tmp_path, "finetune.learning_rate=1e30", "finetune.batch=1")
    (path,) = (tmp_path / "home").rglob("not-finite-*.json")
    saved = json.loads(path.read_text())
    task = task_of(project, tmp_path / "other")
    rows = load_from_disk(str(pack / "train"))
    order = draw_rows({"train": len(rows)}, {}, 40, task.settings.seed)[4:6]  # of the third step
    expected = [rows[int(number)] for number in order]
    assert saved["rows"] == [{name: row[name] for name in COLUMNS} for row in expected]
    assert saved["step"] == 3 and saved["grad_norm"] in ("nan", "inf")


def out_of_memory(most: int, tokens: int, failed: list[int]) -> Callable[..., Any]:
    """A training step whose memory holds so many rows of so many tokens, and at the fourth step of all has less."""
    step = transformers.Trainer.training_step

    def training_step(self: Any, model: Any, inputs: Any, *rest: Any) -> Any:
        if inputs["input_ids"].numel() > most * tokens and self.state.global_step >= 3:
            failed.append(self.args.per_device_train_batch_size)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return step(self, model, inputs, *rest)

    return training_step


def test_where_memory_runs_out_fewer_rows_go_through_at_once(
    project: Path, pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    overrides = ["finetune.rows_per_step=4", "finetune.evaluations=5", "finetune.tokens=2560"]
    plain = finetune(project, pack, tmp_path / "plain", *overrides)
    failed: list[int] = []
    monkeypatch.setattr(transformers.Trainer, "training_step", out_of_memory(1, 64, failed))
    metrics = finetune(project, pack, tmp_path / "short", *overrides)
    assert failed == [4, 2] and (plain.pop("timing")["batch"], metrics.pop("timing")["batch"]) == (4, 1)
    assert metrics.pop("mix") == plain.pop("mix") and metrics == pytest.approx(plain, abs=2e-4)
    with pytest.raises(UserError, match=r"finetune\.batch: memory ran out with 4 rows at once: name fewer or auto"):
        finetune(project, pack, tmp_path / "fixed", *overrides, "finetune.batch=4")


def test_a_trace_of_a_few_steps(project: Path, pack: Path, tmp_path: Path):
    finetune(project, pack, tmp_path, "finetune.profile=true")
    trace = json.loads((tmp_path / "out" / "finetune.trace.json").read_text())
    assert any("mm" in event.get("name", "") for event in trace["traceEvents"])


def test_without_validation_rows_it_trains_to_the_end(project: Path, pack: Path, tmp_path: Path):
    rows = load_from_disk(str(pack / "train"))
    rows.save_to_disk(str(tmp_path / "pack" / "train"))
    write_empty(tmp_path / "pack" / "validation", rows)
    metrics = finetune(project, tmp_path / "pack", tmp_path)
    assert metrics["steps"] == metrics["best_step"] == 20 and metrics["best_validation_loss"] is None


def write_empty(folder: Path, like: Dataset) -> None:
    Dataset.from_dict({name: [] for name in like.column_names}, like.features).save_to_disk(str(folder), num_shards=1)


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("peft.use_dorra=true", r"finetune\.peft\.use_dorra is unknown: did you mean use_dora\?"),
        ("peft.r=3", r"finetune\.peft\.r is for finetune's own parameters to say"),
        ("peft.peft_type=LOHAA", r"finetune\.peft\.peft_type: peft has no LOHAA; there are .*LOHA"),
        ("trainer.max_steps=4", r"finetune\.trainer\.max_steps is for finetune's own"),
        ("trainer.neftune_noise=5", r"trainer\.neftune_noise is unknown: did you mean neftune_noise_alpha\?"),
        ("trainer.output_dir=x", r"finetune\.trainer\.output_dir is .* or fixed: leave it out"),
        ("trainer.lr_scheduler_type=linar", r"finetune\.trainer: linar is not a valid SchedulerType"),
        ("trainer.torch_compile_backend=zz", r"finetune\.trainer: 'ZZ' is not a valid DynamoBackend"),
        (
            "target_modules=[q_proj,vv_proj]",
            r"LlamaForCausalLM has no vv_proj; its linear modules are down_proj, .*q_p",
        ),
        ("precision=fp16", r"finetune\.precision: fp16 needs a GPU"),
        ("report_to=[mlflow]", r"finetune\.report_to: mlflow is not installed: pip install mlflow"),
        ("trainer.log_level=loud", r"finetune\.trainer: .*loud"),
        ("trainer.lr_scheduler_kwargs={foo: 1}", r"finetune\.trainer: .*foo"),
        (
            "trainer.neftune_noise_alpha=five",
            r"trainer\.neftune_noise_alpha: input should be a valid number.* not 'five'",
        ),
        ("trainer.adam_beta1=x", r"finetune\.trainer\.adam_beta1: input should be a valid number"),
        ("trainer.optim=galore_adamw", r"finetune\.trainer: "),
        ("trainer.optim=schedule_free_sgd", r"finetune\.trainer: "),
        ("peft.rank_pattern=5", r"finetune\.peft\.rank_pattern: input should be a valid dict"),
        (
            "peft={peft_type: MULTITASK_PROMPT_TUNING, num_virtual_tokens: 4}",
            r"MULTITASK.* rows of a pack name no task",
        ),
        ("peft={peft_type: ADALORA, total_step: 20}", r"peft_type: ADALORA does not train here: its ranks"),
        ("seed=-1", r"finetune\.seed: input should be greater than or equal to 0"),
        ("batch=3", r"rows_per_step: 2 is no multiple of 1 devices x 3 rows at once"),
    ],
)
def test_refused_settings(project: Path, pack: Path, tmp_path: Path, override: str, message: str):
    with pytest.raises(UserError, match=message):
        finetune(project, pack, tmp_path, f"finetune.{override}")
    assert not (tmp_path / "out").exists()


def test_refused_options(project: Path, pack: Path, tmp_path: Path):
    run = run_of(project, pack, tmp_path)
    with pytest.raises(UserError, match=r"--limit: finetune\.tokens says"):
        execute(train.finetune, dataclasses.replace(run, limit=1))
    with pytest.raises(UserError, match=r"--input .*: name one folder of packs"):
        execute(train.finetune, dataclasses.replace(run, inputs=(pack, project / "data")))


def test_a_whole_model_takes_no_adapter(project: Path, pack: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"finetune\.peft: the method full trains no adapter"):
        finetune(project, pack, tmp_path, "finetune.method=full", "finetune.peft.use_dora=true")


def test_rows_that_the_devices_cannot_share(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert rows_at_once(task_of(project, tmp_path, "finetune.rows_per_step=6")) == 3
    with pytest.raises(UserError, match="3 is no multiple of 2 devices"):
        rows_at_once(task_of(project, tmp_path, "finetune.rows_per_step=3"))


def test_refused_packs(project: Path, pack: Path, tmp_path: Path):
    with pytest.raises(UserError, match="is no pack: run `train pack`"):
        finetune(project, tmp_path / "missing", tmp_path)
    rows = load_from_disk(str(pack / "train"))
    other = tmp_path / "other"
    for name, changed in (
        ("validation", rows),
        ("train", rows.map(lambda row: {"input_ids": [*row["input_ids"][:-1], 4_000]})),
    ):
        changed.save_to_disk(str(other / name))
    with pytest.raises(UserError, match=r"has the token 4000, but the base knows 400: it was packed for another model"):
        finetune(project, other, tmp_path)
    write_empty(tmp_path / "empty" / "train", rows)
    rows.save_to_disk(str(tmp_path / "empty" / "validation"))
    with pytest.raises(UserError, match=r"holds no row to train on: reports/pack\.json"):
        finetune(project, tmp_path / "empty", tmp_path)
