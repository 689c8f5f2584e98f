"""transformers' Trainer with what it lacks: whole checkpoints, a validation loss by label, and a stop at the first NaN.

Imported where training starts, and not before: it takes seconds.
"""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
import sys
import time
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import ExportableState

from corpus.errors import StageError, UserError
from corpus.params import Finetune
from train import checkpoints
from train.adapter import MISUSE, typed
from train.models import IGNORED, device, first_line, precision_of
from train.rows import label_loss

RESERVED = {  # TrainingArguments that finetune's parameters stand for, or that would break the stage; see also `ours`
    *("num_train_epochs", "auto_find_batch_size", "per_device_eval_batch_size", "warmup_ratio", "data_seed"),
    *("bf16_full_eval", "fp16_full_eval", "activation_checkpointing", "save_strategy", "logging_strategy"),
    *("load_best_model_at_end", "resume_from_checkpoint", "save_total_limit", "save_only_model", "push_to_hub"),
    *("dataloader_drop_last", "ignore_data_skip", "label_smoothing_factor", "average_tokens_across_devices"),
}


def training_arguments(settings: Finetune, folder: Path, steps: int, batch: int, validated: bool) -> TrainingArguments:
    """The TrainingArguments of finetune's parameters, finetune.trainer among them. Raises UserError naming a key."""
    precision, processes = precision_of(settings.precision), PartialState().num_processes
    for package in {*settings.report_to} - {"dvclive"}:
        if not importlib.util.find_spec(package):
            raise UserError(f"finetune.report_to: {package} is not installed: pip install {package}")
    if precision == "fp16" and device() == "cpu":
        raise UserError("finetune.precision: fp16 needs a GPU: name bf16, fp32 or auto")
    every = math.ceil(steps / settings.evaluations)
    ours: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": steps,
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": settings.rows_per_step // (batch * processes),
        "learning_rate": settings.learning_rate,
        "warmup_steps": round(settings.warmup * steps),
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.clip,
        "seed": settings.seed,
        "bf16": precision == "bf16",
        "fp16": precision == "fp16",
        "gradient_checkpointing": settings.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "use_cpu": device() == "cpu",
        "train_sampling_strategy": "sequential",  # the rows are drawn before
        "remove_unused_columns": False,
        "logging_steps": every,
        "logging_nan_inf_filter": False,
        "eval_strategy": "steps" if validated else "no",
        "eval_steps": every,
        "save_steps": every,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
        "restore_callback_states_from_checkpoint": True,
        "report_to": [name for name in settings.report_to if name != "dvclive"] or "none",
        "disable_tqdm": folder.name != "adapted" or not sys.stderr.isatty(),
    }
    defaults: dict[str, Any] = {
        "lr_scheduler_type": "cosine",
        "run_name": folder.name,
        "dataloader_pin_memory": device() != "cpu",
        "ddp_find_unused_parameters": False,  # mixtures of experts want true
        "log_level": "error",
        "log_level_replica": "error",
        "ddp_backend": "gloo" if device() == "cpu" and processes > 1 else None,
    }
    given = typed("trainer", settings.trainer, TrainingArguments, RESERVED | ours.keys())
    arguments = TrainingArguments(**(defaults | given | ours))
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # without torchrun one GPU trains: rows without padding cannot be cut for several
    return arguments


class Ends(TrainerCallback, ExportableState):
    """Log and validate at the last step, and make that the last which the time budget leaves (minutes; None: all)."""

    def __init__(self, minutes: float | None = None) -> None:
        self.minutes, self.spent, self.started, self.over = minutes, 0.0, time.monotonic(), False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.started = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.minutes is not None:
            self.over = agreed(self._seconds() > 60 * self.minutes)
            control.should_training_stop |= self.over
        if control.should_training_stop or state.global_step >= state.max_steps:
            control.should_log = control.should_save = True
            control.should_evaluate = args.eval_strategy != "no"

    def _seconds(self) -> float:
        return self.spent + time.monotonic() - self.started

    def state(self) -> dict[str, Any]:
        spent = 0.0 if self.minutes is None else self._seconds()  # a time only where the result depends on it
        return {"args": {"minutes": self.minutes}, "attributes": {"spent": spent}}


def agreed(value: Any) -> Any:
    """What the first of all processes says, so that none takes another path."""
    return broadcast_object_list([value])[0]


class LabelTrainer(Trainer):
    """The loss is the sum over the labels of a step by their number, whatever the batches and devices it is cut into.

    Checkpoints appear whole, `whole.json` among their files. A loss or gradient that is not finite raises StageError.
    """

    def __init__(self, model: Any, settings: Finetune, folder: Path, batch: int, **parts: Any) -> None:
        """Checkpoints go into `folder`, named like the model. `parts` are Trainer's, both data sets among them."""
        steps, validated = len(parts["train_dataset"]) // settings.rows_per_step, len(parts["eval_dataset"]) > 0
        self.settings, self.folder, self.step_loss = settings, folder, cast(Any, 0.0)
        try:
            arguments = training_arguments(settings, folder, steps, batch, validated)
            super().__init__(model, arguments, compute_loss_func=label_loss, **parts)
        except MISUSE as error:
            raise UserError(f"finetune.trainer: {first_line(error)}") from error
        self.model_accepts_loss_kwargs = False  # the loss is ours
        self.add_callback(Ends(settings.time_budget))
        if validated:
            self.add_callback(EarlyStoppingCallback(settings.patience))
        self.remove_callback(PrinterCallback)  # the log has it

    def _prepare_for_training(self, *arguments: Any, **options: Any) -> Any:
        try:
            return super()._prepare_for_training(*arguments, **options)  # makes the optimiser and the schedule
        except MISUSE as error:
            raise UserError(f"finetune.trainer: {first_line(error)}") from error

    def tokens(self, first: int, last: int) -> int:
        """How many tokens the steps between have, without padding."""
        size, rows = self.settings.rows_per_step, cast(Any, self.train_dataset).select_columns("document_lengths")
        return sum(map(sum, rows[first * size : last * size]["document_lengths"]))

    def compute_loss(self, model: Any, inputs: Any, *arguments: Any, **options: Any) -> Any:
        loss: Any = super().compute_loss(model, inputs, *arguments, **options)
        self.step_loss += loss.detach()
        return loss

    def _clip_grad_norm(self, model: Any) -> Any:
        """Clip, but raise StageError and save the step's rows where its loss or gradient is not finite."""
        norm = super()._clip_grad_norm(model)
        loss, self.step_loss = float(self.step_loss), 0.0
        overflown = norm is not None and not math.isfinite(norm) and not self.args.fp16  # its scaler skips
        if math.isfinite(loss) and not overflown:
            return norm
        done, size = self.state.global_step, self.settings.rows_per_step
        path = self.folder / f"not-finite-{done + 1}-{self.args.process_index}.json"
        rows = cast(Any, self.train_dataset).select(range(done * size, (done + 1) * size)).to_list()
        saved = {
            "step": done + 1,
            "loss": str(loss),
            "grad_norm": str(norm if norm is None else float(norm)),
            "rows": rows,
        }
        path.write_text(json.dumps(saved))
        raise StageError(
            f"the loss or gradient of the {self.folder.name} model is not finite at step {done + 1}; its rows are in "
            f"{path}: look at their documents, lower finetune.learning_rate or finetune.clip, or set "
            "finetune.precision to fp32"
        )

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """The loss in nats per label over all validation rows; the library's is a mean of batches, whatever in them."""
        rows, model = cast(Any, self.eval_dataset), cast(Any, self.model)
        size, together = self.args.per_device_train_batch_size, self.args.world_size
        batches = math.ceil(len(rows) / size)
        sums = torch.zeros(2, dtype=torch.float64)  # nats, labels
        model.eval()
        with torch.no_grad():
            # Each process runs as often as the others, as sharded models must; what is over does not count.
            for number in range(self.args.process_index, math.ceil(batches / together) * together, together):
                chosen = range(size * (number % batches), min(len(rows), size * (number % batches + 1)))
                inputs = self._prepare_inputs(self.data_collator(rows.select(chosen).to_list()))
                labels = inputs.pop("labels")
                loss = label_loss(model(**inputs), labels, 1).item()
                if number < batches:
                    sums += torch.tensor([loss, int((labels[..., 1:] != IGNORED).sum())])
        nats, labels = self.accelerator.reduce(sums.to(self.args.device), "sum").tolist()
        if not labels:
            raise UserError("the validation pack holds no label: run `train pack` again")
        metrics = {"eval_loss": nats / labels}
        if not math.isfinite(nats):
            raise StageError(
                f"the {self.folder.name} model has the validation loss {nats}: lower finetune.learning_rate"
            )
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Let the library write into a folder aside, and give that its name when all of it is on the disk."""
        folder, partial = self.folder, self.folder / "partial"
        name = f"checkpoint-{self.state.global_step}"
        if self.is_world_process_zero():
            shutil.rmtree(partial, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self.args.output_dir = str(partial)
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.output_dir = str(folder)
        self.state.best_model_checkpoint = None  # it would be in the folder aside; best_global_step says which it is
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            checkpoints.publish(partial / name, folder / name, self._reason())
            checkpoints.keep_last_and_best(folder)
        self.accelerator.wait_for_everyone()

    def _reason(self) -> str | None:
        """Why training ends here, if it does."""
        if not self.control.should_training_stop:
            return None
        if self.state.global_step >= self.state.max_steps:
            return "tokens"
        return "time" if any(getattr(c, "over", False) for c in self.callback_handler.callbacks) else "patience"

    def load_best(self, checkpoint: Path) -> None:
        """Take up the weights of the best checkpoint up to this one, and the state of this one."""
        self.state = self.state.load_from_json(str(checkpoint / "trainer_state.json"))
        self.state.best_model_checkpoint = str(checkpoints.best_of(checkpoint))
        self._load_best_model()
