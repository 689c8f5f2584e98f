"""Fine-tunes the base on the pack of the corpus, and a control with the same settings on unfiltered documents."""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import json
import math
import os
import resource
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from corpus.errors import StageError, UserError
from corpus.executor import run_tasks
from corpus.params import Finetune
from corpus.stage import Metrics, Run, count_rows, file_digest, write_plot
from train import checkpoints
from train.models import device, first_line, load_model, load_tokenizer, precision_of, prepare_torch, share_cores

READS = ()
VERSION = 3

PACKS = {"adapted": "train", "control": "control"}  # the models, and what each is trained on
COLUMNS = ["input_ids", "labels", "document_lengths", "document_ids"]  # of a pack; positions follow from the lengths
VALIDATION_ROWS = 64  # drawn by finetune.seed, the same for both: enough to choose by, cheap enough to ask often
CPU_TOKENS = 4_096  # at once on a CPU, where more costs memory and gains no speed
BATCH = "batch.json"  # beside the checkpoints: how many rows at once memory was found to hold
LOSSES = {"loss": "train", "eval_loss": "validation"}  # as the Trainer and as the plot call them
LOGGED = ("step", "epoch", "loss", "grad_norm", "learning_rate", "eval_loss")  # no times: they change from run to run
WATCHED = ("report_to", "profile")  # settings that the result does not depend on
LORA_KEYS = {"rank": ["r"], "alpha": ["lora_alpha"], "dropout": ["lora_dropout"], "target_modules": ["target_modules"]}


@dataclasses.dataclass(frozen=True)
class Task:
    """One model to train."""

    name: str
    pack: Path  # the packs' folder
    base: Path
    base_name: str  # what its adapter_config.json calls the base
    trust_remote_code: bool
    checkpoints: Path
    settings: Finetune
    threads: int
    reports: Path  # what can be watched goes here

    def __str__(self) -> str:
        return f"the {self.name} model"


def run(run: Run) -> Metrics:
    """Write the adapter (or model) into the output and the control into its folder `control`, with log and curves.

    The control is trained where there is a pack for it. log.jsonl has a line an event: adapter, step and what of LOGGED
    there was; the plot `loss` has step and, in nats per label, adapted_train, adapted_validation and the control's.
    --input names another folder of packs. Under torchrun the first process runs this, and the others `follow`.
    """
    tasks, at_once = _tasks(run)
    results = {task.name: result for task, result in run_tasks(train_adapter, tasks, at_once)}
    for task in tasks:
        target = run.output if task.name == "adapted" else run.output / task.name
        shutil.copytree(task.checkpoints / "finished", target, dirs_exist_ok=True)
    logs = {task.name: results[task.name].pop("log") for task in tasks}
    _write_logs(run, logs)
    if "dvclive" in run.params.finetune.report_to:
        from train.tracking import write_live

        for task in tasks:
            write_live(task.reports / "dvclive" / task.name, logs[task.name])
    checkpoints.discard(tasks[0].checkpoints.parent)
    timing = {name: result.pop("timing") for name, result in results.items()}
    return count_rows(rows_in=results["adapted"]["documents"], dropped={}) | results | {"timing": timing}


def follow(run: Run) -> None:
    """Train along with the process that runs the stage, and write nothing."""
    for task in _tasks(run)[0]:
        train_adapter(task)


def _tasks(run: Run) -> tuple[list[Task], int]:
    """The models to train, and how many at once."""
    pack, base, settings = run.inputs[0] if run.inputs else run.folder("pack"), run.folder("base"), run.params.finetune
    names = [name for name in PACKS if name == "adapted" or (pack / PACKS[name]).is_dir()]
    model = run.params.base.model
    base_name = "data/base" if model == "tiny" or Path(model).is_dir() else model
    folder = run.home / "checkpoints" / _key(pack, base, base_name, settings)
    at_once, threads = share_cores(base, len(names), run.workers)
    if world() > 1:
        at_once, threads = 1, max(1, run.workers // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    reports = run.reports or run.output
    trusted = run.params.base.trust_remote_code
    return [Task(n, pack, base, base_name, trusted, folder / n, settings, threads, reports) for n in names], at_once


def world() -> int:
    """How many processes train together, each on its device."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this is the process that writes."""
    return os.environ.get("RANK", "0") == "0"


def _key(pack: Path, base: Path, base_name: str, settings: Finetune) -> str:
    """What the training depends on: checkpoints of one key are never taken up by another."""
    files = sorted([*base.glob("*.safetensors"), *base.glob("config.json"), *pack.rglob("*.arrow")])
    digests = [[str(path.relative_to(path.parents[1])), file_digest(path)] for path in files]
    content = json.dumps([VERSION, base_name, settings.model_dump(mode="json", exclude={*WATCHED}), digests])
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def _write_logs(run: Run, logs: Mapping[str, list[dict[str, float]]]) -> None:
    with (run.output / "log.jsonl").open("w") as file:
        file.writelines(json.dumps({"adapter": name} | event) + "\n" for name, log in logs.items() for event in log)
    columns = {(name, key): f"{name}_{kind}" for name in logs for key, kind in LOSSES.items()}
    points: dict[int, dict[str, float]] = {}
    for name, log in logs.items():
        for event in log:
            point = points.setdefault(int(event["step"]), {"step": int(event["step"])})
            point |= {columns[name, key]: event[key] for key in LOSSES if key in event}
    schema = {"step": pl.Int64} | dict.fromkeys(columns.values(), pl.Float64)
    write_plot(run, "loss", pl.DataFrame([points[step] for step in sorted(points)], schema=schema))


# ---- rows ------------------------------------------------------------------------------------------------------------


def load_pack(folder: Path, model: Any = None) -> Any:
    """A pack as a datasets.Dataset. Raises UserError if it is not there, or of another vocabulary than the model's."""
    import datasets
    import pyarrow.compute as pc

    datasets.disable_progress_bars()
    try:
        rows = datasets.load_from_disk(str(folder)).select_columns(COLUMNS)
    except (FileNotFoundError, ValueError):
        raise UserError(f"{folder} is no pack: run `train pack`, or name a folder of packs with --input") from None
    if model is not None and len(rows):
        vocabulary = model.get_input_embeddings().weight.shape[0]
        context = getattr(model.config.get_text_config(), "max_position_embeddings", None) or math.inf
        largest, longest = (pc.max(pc.list_flatten(rows.data[c])).as_py() for c in ("input_ids", "document_lengths"))
        if largest >= vocabulary or longest > context:
            raise UserError(
                f"{folder} has the token {largest} and a document of {longest} tokens, but the base knows {vocabulary} "
                f"and reads {context}: it was packed for another model; run `train pack` again"
            )
    return rows


def draw_rows(sizes: Mapping[str, int], weights: Mapping[str, float], total: int, seed: int) -> np.ndarray:
    """Which of all packs' rows, counted through, are trained on, in which order: `total` numbers.

    Each pack of `weights` has its part of them, the first pack what is left. A pack's rows come in a new order each
    time that it is gone through, and none again before all have come.

    >>> draw_rows({"train": 2, "general": 1}, {"general": 0.25}, 8, seed=0).tolist()
    [0, 1, 1, 2, 0, 1, 0, 2]
    """
    random = np.random.default_rng(seed)
    counts = [round(weights.get(name, 0) * total) for name in sizes]
    counts[0] = total - sum(counts[1:])
    turns = random.permutation(np.repeat(np.arange(len(sizes)), counts))
    order = np.empty(total, np.int64)
    first = 0
    for number, (size, count) in enumerate(zip(sizes.values(), counts, strict=True)):
        passes = [random.permutation(size) for _ in range(math.ceil(count / size))]
        order[turns == number] = first + np.concatenate([[], *passes])[:count]
        first += size
    return order


def _rows(task: Task, model: Any) -> tuple[Any, Any, Metrics]:
    """The rows to train on, in their order, those to validate on, and counts: documents, tokens a row, the mix."""
    import datasets
    import pyarrow.compute as pc

    settings = task.settings
    folders = {task.name: PACKS[task.name]} | {name: f"mix/{name}" for name in settings.mix}
    packs = {name: load_pack(task.pack / folder, model) for name, folder in folders.items()}
    for name, rows in packs.items():
        if not len(rows):
            raise UserError(f"{task.pack / folders[name]} holds no row to train on: reports/pack.json says why")
    sizes, own = {name: len(rows) for name, rows in packs.items()}, packs[task.name]
    total = math.ceil(settings.tokens / (settings.rows_per_step * len(own[0]["input_ids"]))) * settings.rows_per_step
    order = draw_rows(sizes, {name: mix.weight for name, mix in settings.mix.items()}, total, settings.seed)
    validation = load_pack(task.pack / "validation", model)
    chosen = np.random.default_rng(settings.seed).permutation(len(validation))[:VALIDATION_ROWS]
    bounds = np.cumsum([0, *sizes.values()])
    drawn = dict(zip(sizes, np.histogram(order, bounds)[0].tolist(), strict=True))
    counted = {
        "documents": pc.count_distinct(pc.list_flatten(own.data["document_ids"])).as_py(),
        "row_tokens": pc.sum(pc.list_flatten(own.data["document_lengths"])).as_py() / len(own),
        "passes": drawn[task.name] / len(own),
        "mix": {n: {"rows": sizes[n], "part": drawn[n] / total, "repeated": drawn[n] / sizes[n]} for n in settings.mix},
    }
    rows = datasets.concatenate_datasets([*packs.values()]).select(order)
    return rows, validation.select(sorted(chosen.tolist())), counted


# ---- one model -------------------------------------------------------------------------------------------------------


def train_adapter(task: Task) -> Metrics:
    """Train one model into `finished` beside its checkpoints, taking up the last good one if there is any.

    Returns steps, best_step, tokens, documents, best_validation_loss (null without validation rows), stopped (tokens,
    patience or time), method, precision, trainable_parameters, the mix, the log, and under `timing` what depends on the
    machine. Where memory runs out, fewer rows go through at once; the same rows are a step.
    """
    import torch

    from train.trainer import agreed

    prepare_torch(task.threads, task.settings.seed)
    if world() > 1:
        from accelerate import PartialState

        PartialState(cpu=device() == "cpu")  # lets the processes find each other
    while not agreed((task.checkpoints / "finished").exists()):
        task.checkpoints.mkdir(parents=True, exist_ok=True)
        batch, smaller = agreed(rows_at_once(task)), None
        if device() == "cuda":
            torch.cuda.reset_peak_memory_stats()
        try:
            _train(task, batch)
        except RuntimeError as error:
            smaller = _smaller_batch(task, batch, error)
        if smaller:  # out of the handler, which keeps all that was in memory
            (task.checkpoints / BATCH).write_text(json.dumps(smaller))
            gc.collect()
            torch.cuda.empty_cache()
        if smaller and world() > 1:
            raise StageError(
                f"memory ran out with {batch} rows at once on a device: run it again, it goes on with {smaller} "
                "from the last checkpoint (torchrun --max-restarts does so by itself)"
            )
    result: Metrics = json.loads((task.checkpoints / "result.json").read_text()) if is_first() else {}
    return result


def rows_at_once(task: Task) -> int:
    """How many rows go through at once on a device. Raises UserError where a step cannot be cut into as many."""
    settings, devices = task.settings, world()
    fixed = 1 if settings.batch == "auto" else settings.batch
    if settings.rows_per_step % (fixed * devices):
        raise UserError(
            f"finetune.rows_per_step: {settings.rows_per_step} is no multiple of {devices} devices x {fixed} "
            "rows at once"
        )
    if settings.batch != "auto":
        return fixed
    most = settings.rows_per_step
    if (task.checkpoints / BATCH).exists():
        most = int(json.loads((task.checkpoints / BATCH).read_text()))
    elif device() == "cpu" and len(rows := load_pack(task.pack / PACKS[task.name])):
        most = max(1, CPU_TOKENS // len(rows[0]["input_ids"]))
    return largest_divisor(settings.rows_per_step // devices, most)


def largest_divisor(number: int, most: int) -> int:
    """The largest divisor of a number that is not above `most`.

    >>> largest_divisor(12, 5)
    4
    """
    return next(divisor for divisor in range(min(number, most), 0, -1) if number % divisor == 0)


def _smaller_batch(task: Task, batch: int, error: RuntimeError) -> int:
    """How many rows to try after memory ran out. Raises any other error, and UserError where none is left to try."""
    import torch
    from accelerate.utils.memory import should_reduce_batch_size

    if not (isinstance(error, torch.OutOfMemoryError) or should_reduce_batch_size(error)):
        raise error
    if batch == 1 or task.settings.batch != "auto":
        raise UserError(
            f"finetune.batch: memory ran out with {batch} rows at once: name fewer or auto, set "
            "finetune.gradient_checkpointing, finetune.method qlora or a smaller pack.length"
        )
    return largest_divisor(task.settings.rows_per_step // world(), batch // 2)


def _train(task: Task, batch: int) -> None:
    """Train from the last good checkpoint on to the end, and write `finished` and result.json."""
    import torch

    from train.attention import use_document_attention
    from train.rows import collate, collate_padded
    from train.tracking import watchers
    from train.trainer import LabelTrainer, agreed

    settings, folder, precision = task.settings, task.checkpoints, precision_of(task.settings.precision)
    prepare_torch(task.threads, settings.seed)
    model = load_model(
        task.base,
        "base.model",
        method=settings.method,
        precision="fp32" if settings.method == "full" else precision,  # small updates would be lost in sixteen bits
        trust_remote_code=task.trust_remote_code,
    )
    rows, validation, counted = _rows(task, model)
    model = attach_adapter(model, settings)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    sixteen = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    with torch.autocast(device(), sixteen, enabled=sixteen is not None):  # as it will be trained
        collating = collate if use_document_attention(model) else collate_padded
    seen = watchers(settings, task.reports, folder, task.name) if is_first() else []
    try:
        trainer = LabelTrainer(model, task, batch, rows, validation, collating, seen)
    except (TypeError, ValueError, ImportError) as error:
        raise UserError(f"finetune.trainer: {first_line(error)}") from error
    started, checkpoint = time.monotonic(), agreed(checkpoints.last_good(folder) if is_first() else None)
    before = checkpoints.step_of(checkpoint) if checkpoint else 0
    if not (checkpoint and checkpoints.stopped_at(checkpoint)):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        checkpoint = folder / f"checkpoint-{trainer.state.global_step}"
    seconds = time.monotonic() - started
    trainer.load_best(checkpoint)
    _save(trainer, task, folder / "finished.partial")
    state, row_tokens = trainer.state, len(rows[0]["input_ids"])
    log = [event for event in state.log_history if "train_runtime" not in event]
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    result = {
        "method": settings.method,
        "precision": precision,
        "documents": counted["documents"],
        "steps": state.global_step,
        "best_step": state.best_global_step or state.global_step,
        "tokens": state.global_step * settings.rows_per_step * row_tokens,
        "best_validation_loss": None if state.best_metric is None else round(state.best_metric, 4),
        "stopped": checkpoints.stopped_at(checkpoint),
        "trainable_parameters": trainable,
        "mix": counted["mix"],
        "log": [  # the Trainer's epochs are of the rows as drawn, ours of the pack
            {key: event[key] * (counted["passes"] if key == "epoch" else 1) for key in LOGGED if key in event}
            for event in log
        ],
        "timing": {
            "batch": batch,
            "seconds": seconds,
            "tokens_per_second": (state.global_step - before)
            * settings.rows_per_step
            * counted["row_tokens"]
            / seconds,
            "peak_mb": (torch.cuda.max_memory_allocated() if device() == "cuda" else used) / 2**20,
        },
    }
    if is_first():
        (folder / "result.json").write_text(json.dumps(result))
        checkpoints.replace_folder(folder / "finished.partial", folder / "finished")
    trainer.accelerator.wait_for_everyone()


# ---- what is trained of the model ------------------------------------------------------------------------------------


def attach_adapter(model: Any, settings: Finetune) -> Any:
    """The model as finetune.method and finetune.peft have it trained: whole, or frozen with an adapter.

    LoRA stands on all linear layers but the head; the embeddings train whole if asked, tied to the head as before. What
    is trained is in fp32. Raises UserError naming a key of finetune.peft or a module that the model does not have.
    """
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING, get_peft_model

    from train.trainer import check_keys

    if settings.method == "full":
        if settings.peft:
            raise UserError("finetune.peft: the method full trains no adapter; name lora, qlora or int8")
        return model
    configs = {kind.value: config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    kind = str(settings.peft.get("peft_type", "LORA")).upper()
    if kind not in configs:
        raise UserError(f"finetune.peft.peft_type: peft has no {kind}, but {', '.join(sorted(configs))}")
    config, given = configs[kind], {key: value for key, value in settings.peft.items() if key != "peft_type"}
    known = {field.name for field in dataclasses.fields(config)} - {"task_type", "inference_mode"}
    check_keys("peft", given, LORA_KEYS if kind == "LORA" else {}, known)
    if kind == "LORA":
        given = _lora(model, settings) | given
    try:
        model = get_peft_model(model, config(task_type="CAUSAL_LM", **given))
    except (TypeError, ValueError, ImportError) as error:
        raise UserError(f"finetune.peft: {first_line(error)}") from None
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model


def _lora(model: Any, settings: Finetune) -> dict[str, Any]:
    """What the parameters of finetune say of peft's LoraConfig."""
    import torch

    names = {id(module): name.rsplit(".", 1)[-1] for name, module in model.named_modules()}
    if isinstance(settings.target_modules, list):
        modules = [name for name, _ in model.named_modules()]
        unknown = [t for t in settings.target_modules if not any(f".{name}".endswith(f".{t}") for name in modules)]
        if unknown:
            linear = {names[id(module)] for module in model.modules() if isinstance(module, torch.nn.Linear)}
            raise UserError(
                f"finetune.target_modules: {type(model).__name__} has no {', '.join(unknown)}; "
                f"its linear modules are {', '.join(sorted(linear))}"
            )
    tied = bool(model.config.get_text_config().tie_word_embeddings)
    return {
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        "target_modules": settings.target_modules,
        "modules_to_save": [names[id(model.get_input_embeddings())]] if settings.train_embeddings else None,
        "ensure_weight_tying": settings.train_embeddings and tied,
    }


def _save(trainer: Any, task: Task, folder: Path) -> None:
    """Save the adapter or model so that it loads as it is and nothing in it names this machine."""
    if is_first():
        shutil.rmtree(folder, ignore_errors=True)
    if task.settings.method == "full" and not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        import torch

        dtype = json.loads((task.base / "config.json").read_text()).get("dtype", "float32")
        trainer.model.to(getattr(torch, dtype))
    trainer.save_model(str(folder))
    if not is_first():
        return
    for name in ("README.md", "training_args.bin"):  # peft's empty form of a model card, and a pickle
        (folder / name).unlink(missing_ok=True)
    if task.settings.method == "full":
        load_tokenizer(task.base, "base.model", trust_remote_code=task.trust_remote_code).save_pretrained(folder)
        return
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text()) | {"base_model_name_or_path": task.base_name}
    # Lists that were sets have another order in each process.
    ordered = {key: sorted(value) if key == "target_modules" else value for key, value in config.items()}
    path.write_text(json.dumps(ordered, indent=2, sort_keys=True) + "\n")
