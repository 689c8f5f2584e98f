"""Trains a LoRA adapter on the pack of the corpus, and a control with the same settings on unfiltered documents."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl

from corpus.errors import UserError
from corpus.executor import run_tasks
from corpus.params import Finetune
from corpus.stage import Metrics, Run, count_rows, file_digest, write_plot
from train.models import IGNORED, device, load_model, prepare_torch, share_cores

READS = ()
VERSION = 2

PACKS = {"adapted": "train", "control": "control"}  # the adapters, and what each is trained on
VALIDATION_ROWS = 64  # drawn by finetune.seed, the same for both: enough to choose by, cheap enough to ask often
PROBE = 8  # tokens of each of two documents that must not see each other
PROBE_TOLERANCE = {"none": 1e-3, "nf4": 1e-3, "int8": 1e-2}  # of the largest logit; int8 rounds by what stands beside
WHOLE = "whole.json"  # in a checkpoint written to its end: its files and their sizes, and whether training ended there
LOSSES = {"loss": "train", "eval_loss": "validation"}  # as the Trainer and as the plot call them
LOGGED = ("step", "epoch", "loss", "grad_norm", "learning_rate", "eval_loss")  # no times: they change from run to run


@dataclasses.dataclass(frozen=True)
class Task:
    """One adapter to train."""

    name: str
    pack: Path  # the packs' folder
    base: Path
    base_name: str  # what its adapter_config.json calls the base
    checkpoints: Path
    settings: Finetune
    threads: int

    def __str__(self) -> str:
        return f"the {self.name} adapter"


def run(run: Run) -> Metrics:
    """Write the adapter into the output and the control into its folder `control`, with the log and the curves.

    log.jsonl has a line an event: adapter, step and what of LOGGED there was; the plot `loss` has step and, in nats per
    token, adapted_train, adapted_validation, control_train, control_validation. --input names another folder of packs.
    """
    pack, base, settings = run.inputs[0] if run.inputs else run.folder("pack"), run.folder("base"), run.params.finetune
    documents = {name: _count_documents(pack / folder) for name, folder in PACKS.items()}
    model = run.params.base.model
    base_name = "data/base" if model is None or Path(model).is_dir() else model
    key = _key(pack, base, base_name, settings)
    checkpoints = run.home / "checkpoints" / key
    at_once, threads = share_cores(base, len(PACKS), run.workers)
    tasks = [Task(name, pack, base, base_name, checkpoints / name, settings, threads) for name in PACKS]
    results = {task.name: result for task, result in run_tasks(train_adapter, tasks, at_once)}
    shutil.copytree(checkpoints / "adapted" / "finished", run.output, dirs_exist_ok=True)
    shutil.copytree(checkpoints / "control" / "finished", run.output / "control")
    _write_logs(run, {name: results[name].pop("log") for name in PACKS})
    shutil.rmtree(checkpoints)
    return count_rows(rows_in=documents["adapted"], dropped={}) | {
        name: results[name] | {"documents": documents[name]} for name in PACKS
    }


def _count_documents(folder: Path) -> int:
    rows = load_pack(folder)
    if not len(rows):
        raise UserError(f"{folder} holds no row to train on: `train pack` says in reports/pack.json what it found")
    return len({document for ids in rows["document_ids"] for document in ids})


def load_pack(folder: Path) -> Any:
    """A pack as a datasets.Dataset. Raises UserError if it is not there."""
    import datasets

    datasets.disable_progress_bars()
    try:
        return datasets.load_from_disk(str(folder))
    except (FileNotFoundError, ValueError):
        raise UserError(f"{folder} is no pack: run `train pack`, or name a folder of packs with --input") from None


def _key(pack: Path, base: Path, base_name: str, settings: Finetune) -> str:
    """What the training depends on: checkpoints of one key are never taken up by another."""
    files = sorted([*base.glob("*.safetensors"), *pack.glob("*/*.arrow")])
    digests = [[str(path.relative_to(path.parents[1])), file_digest(path)] for path in files]
    content = json.dumps([VERSION, base_name, settings.model_dump(mode="json"), digests])
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def _write_logs(run: Run, logs: dict[str, list[dict[str, float]]]) -> None:
    with (run.output / "log.jsonl").open("w") as file:
        file.writelines(json.dumps({"adapter": name} | event) + "\n" for name, log in logs.items() for event in log)
    columns = {(name, key): f"{name}_{kind}" for name in PACKS for key, kind in LOSSES.items()}
    points: dict[int, dict[str, float]] = {}
    for name, log in logs.items():
        for event in log:
            point = points.setdefault(int(event["step"]), {"step": int(event["step"])})
            point |= {columns[name, key]: event[key] for key in LOSSES if key in event}
    schema = {"step": pl.Int64} | dict.fromkeys(columns.values(), pl.Float64)
    write_plot(run, "loss", pl.DataFrame([points[step] for step in sorted(points)], schema=schema))


# ---- one adapter -----------------------------------------------------------------------------------------------------


def train_adapter(task: Task) -> Metrics:
    """Train one adapter into `finished` beside its checkpoints, taking up the last whole one if there is any.

    Returns steps, tokens, best_validation_loss (null without validation rows), stopped_early, trainable parameters and
    the log.
    """
    finished = task.checkpoints / "finished"
    if not finished.exists():
        task.checkpoints.mkdir(parents=True, exist_ok=True)
        partial = task.checkpoints / "finished.partial"
        shutil.rmtree(partial, ignore_errors=True)
        _train(task, partial)
        partial.rename(finished)
    result: Metrics = json.loads((task.checkpoints / "result.json").read_text())
    return result


def _train(task: Task, output: Path) -> None:
    settings = task.settings
    prepare_torch(task.threads, settings.seed)
    rows = load_pack(task.pack / PACKS[task.name]).select_columns(["input_ids", "labels", "position_ids"])
    validation = _validation_rows(task)
    model = load_model(task.base, "base.model", quantization=settings.quantization)
    refuse_if_documents_mix(model, PROBE_TOLERANCE[settings.quantization])
    model = attach_adapter(model, settings)
    row_tokens = len(rows[0]["input_ids"])
    steps = math.ceil(settings.tokens / (settings.batch_size * settings.gradient_accumulation * row_tokens))
    trainer = make_trainer(model, rows, validation, settings, steps, task)
    checkpoint = last_whole_checkpoint(task.checkpoints)
    if checkpoint and has_ended(checkpoint):
        load_ended(trainer, checkpoint)
    else:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    save_adapter(model, output, task.base_name)
    best = trainer.state.best_metric
    result = {
        "steps": trainer.state.global_step,
        "tokens": trainer.state.global_step * settings.batch_size * settings.gradient_accumulation * row_tokens,
        "best_validation_loss": None if best is None else round(best, 4),
        "stopped_early": trainer.state.global_step < steps,
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "log": [{k: e[k] for k in LOGGED if k in e} for e in trainer.state.log_history if "train_runtime" not in e],
    }
    (task.checkpoints / "result.json").write_text(json.dumps(result))


def _validation_rows(task: Task) -> Any:
    import numpy as np

    rows = load_pack(task.pack / "validation").select_columns(["input_ids", "labels", "position_ids"])
    drawn = np.random.default_rng(task.settings.seed).permutation(len(rows))[:VALIDATION_ROWS]
    return rows.select(sorted(drawn.tolist()))


def refuse_if_documents_mix(model: Any, tolerance: float = PROBE_TOLERANCE["none"]) -> None:
    """Raises UserError where a packed document's logits depend on the one before it in the row, as they do in
    architectures that do not take position_ids for the bounds of their attention."""
    import torch

    random = torch.Generator().manual_seed(0)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    tokens = torch.randint(vocabulary, (1, 2 * PROBE), generator=random).to(model.device)
    positions = torch.arange(PROBE, device=model.device)[None]
    model.eval()
    try:
        with torch.no_grad():
            alone = model(input_ids=tokens[:, PROBE:], position_ids=positions, use_cache=False).logits
            packed = model(input_ids=tokens, position_ids=positions.repeat(1, 2), use_cache=False).logits[:, PROBE:]
        apart = bool((packed - alone).abs().max() <= tolerance * alone.abs().max())
    except (TypeError, ValueError):  # it takes no position_ids
        apart = False
    if not apart:
        raise UserError(
            f"base.model: documents packed into a row see each other in {type(model).__name__}; "
            "name a model whose attention follows position_ids, such as Llama, Qwen, Mistral or Gemma"
        )


def attach_adapter(model: Any, settings: Finetune) -> Any:
    """LoRA on all linear layers but the head; the embeddings train whole if asked, tied to the head as before."""
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if settings.quantization != "none":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    names = {id(module): name.rsplit(".", 1)[-1] for name, module in model.named_modules()}
    tied = bool(model.config.get_text_config().tie_word_embeddings)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules="all-linear",
        modules_to_save=[names[id(model.get_input_embeddings())]] if settings.train_embeddings else None,
        ensure_weight_tying=settings.train_embeddings and tied,
    )
    return get_peft_model(model, config)


def make_trainer(model: Any, rows: Any, validation: Any, settings: Finetune, steps: int, task: Task) -> Any:
    """transformers' Trainer: cosine schedule after a warmup, early stopping, checkpoints that are known to be whole.

    It divides the loss by the labels of all accumulated batches. Rows have position_ids and no attention mask, and the
    model no cache: only so do packed documents not see each other.
    """
    from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

    class Checkpoints(TrainerCallback):
        """Mark a checkpoint when all of it is written; ask for the validation loss of the last step as well."""

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step >= steps:
                control.should_log = True
                control.should_evaluate = len(validation) > 0

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            mark_whole(Path(args.output_dir) / f"checkpoint-{state.global_step}", control.should_training_stop)

    class PerLabel(Trainer):
        """Validates by the loss per label; the library's is a mean of batches, whatever labels each has."""

        def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
            metrics = {"eval_loss": loss_per_label(self.model, self.get_eval_dataloader())}
            self.log(metrics)
            self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
            return metrics

    model.config.use_cache = False
    every = math.ceil(steps / settings.evaluations)
    arguments = TrainingArguments(
        output_dir=str(task.checkpoints),
        max_steps=steps,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=round(settings.warmup * steps),
        max_grad_norm=settings.clip,
        seed=settings.seed,
        data_seed=settings.seed,
        use_cpu=device() == "cpu",
        dataloader_pin_memory=device() != "cpu",
        remove_unused_columns=False,
        prediction_loss_only=True,
        logging_steps=every,
        eval_strategy="steps" if len(validation) else "no",
        eval_steps=every,
        save_steps=every,
        save_total_limit=2,  # the best and the last, and never the last whole one while the next is being written
        load_best_model_at_end=len(validation) > 0,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        restore_callback_states_from_checkpoint=True,
        report_to="none",
        disable_tqdm=task.name != "adapted" or not sys.stderr.isatty(),
    )
    stopping = [EarlyStoppingCallback(settings.patience)] if len(validation) else []
    trainer = PerLabel(
        model,
        arguments,
        train_dataset=rows,
        eval_dataset=validation if len(validation) else None,
        callbacks=[*stopping, Checkpoints()],
    )
    trainer.remove_callback(PrinterCallback)  # the log has it
    return trainer


def loss_per_label(model: Any, rows: Iterable[dict[str, Any]]) -> float:
    """Nats per label of batches of rows. Raises UserError where there is no label at all."""
    import torch

    model.eval()
    nats, labels = 0.0, 0
    with torch.no_grad():
        for batch in rows:
            inputs = {name: values.to(model.device) for name, values in batch.items()}
            count = int((inputs["labels"][:, 1:] != IGNORED).sum())  # a row's first token is predicted by none
            if count:
                nats += count * model(**inputs, use_cache=False).loss.item()
                labels += count
    if not labels:
        raise UserError("the validation pack holds no label: run `train pack` again")
    return nats / labels


def save_adapter(model: Any, folder: Path, base_name: str) -> None:
    """Save an adapter so that `PeftModel.from_pretrained` loads it as it is and nothing in it names this machine."""
    model.save_pretrained(folder, save_embedding_layers=False)  # modules_to_save are saved either way
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty form of a model card
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text()) | {"base_model_name_or_path": base_name}
    # Lists that were sets have another order in each process.
    ordered = {key: sorted(value) if key == "target_modules" else value for key, value in config.items()}
    path.write_text(json.dumps(ordered, indent=2, sort_keys=True) + "\n")


# ---- checkpoints -----------------------------------------------------------------------------------------------------


def mark_whole(checkpoint: Path, ended: bool) -> None:
    """Note the files of a checkpoint and their sizes, now that all are written, and whether training ended there."""
    files = {path.name: path.stat().st_size for path in sorted(checkpoint.iterdir()) if path.name != WHOLE}
    (checkpoint / WHOLE).write_text(json.dumps({"files": files, "ended": ended}))


def has_ended(checkpoint: Path) -> bool:
    """Whether training ended at a whole checkpoint, at its last step or early."""
    return bool(json.loads((checkpoint / WHOLE).read_text())["ended"])


def load_ended(trainer: Any, checkpoint: Path) -> None:
    """Take up the state and the best weights of a training that ended at a checkpoint, and train no further."""
    from peft import load_peft_weights, set_peft_model_state_dict
    from transformers import TrainerState

    trainer.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    best = Path(trainer.state.best_model_checkpoint or checkpoint).name
    set_peft_model_state_dict(trainer.model, load_peft_weights(str(checkpoint.parent / best), device="cpu"))


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint that was written to its end; what a kill left of others is deleted."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    whole = [path for path in found if is_whole(path)]
    for path in found:
        if path not in whole:
            shutil.rmtree(path)
    return whole[-1] if whole else None


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint has its mark and every file in its full size."""
    try:
        files = json.loads((checkpoint / WHOLE).read_text())["files"]
    except (OSError, ValueError, KeyError):
        return False
    return all(
        (checkpoint / name).is_file() and (checkpoint / name).stat().st_size == size for name, size in files.items()
    )
