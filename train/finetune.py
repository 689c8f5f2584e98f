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
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from corpus.errors import StageError, UserError
from corpus.executor import Workers, run_tasks
from corpus.files import file_digest, link, write_json
from corpus.params import Base, Finetune
from corpus.stage import Metrics, Run, count_rows, write_plot
from train import checkpoints
from train.adapter import attach_adapter
from train.lineage import name_of, refuse_made_for_another, refuse_other_name, write_made_for
from train.models import device, load_model, load_tokenizer, precision_of, prepare_torch, share_work
from train.rows import draw_rows, load_pack

READS = ()
VERSION = 6

PACKS = {"adapted": "train", "control": "control"}  # the models, and what each is trained on
VALIDATION_ROWS = 64  # drawn by finetune.seed: enough to choose by, cheap enough to ask often
CPU_TOKENS = 1_024  # at once on a CPU, where more costs memory and gains no speed
BATCH = "batch.json"  # beside the checkpoints: how many rows at once memory was found to hold
RESULT = "result.json"  # in `finished`, beside the folder `model`
LOSSES = {"loss": "train", "eval_loss": "validation"}  # as the Trainer and as the plot call them
WATCHED = {"report_to", "profile"}  # settings that the result does not depend on


@dataclasses.dataclass(frozen=True)
class Task:
    """One model to train."""

    name: str
    run: Run
    pack: Path  # the packs' folder
    folder: Path  # of its checkpoints, and `finished`
    threads: int

    @property
    def settings(self) -> Finetune:
        return self.run.params.finetune

    @property
    def base(self) -> Path:
        return self.run.folder("base")

    @property
    def reports(self) -> Path:
        """What can be watched goes here."""
        return self.run.reports or self.run.output


def run(run: Run) -> Metrics:
    """Write the adapter (or model) into the output, the control into its folder `control`, and the plot `loss`.

    The control is trained where there is a pack for it. Beside each lies `rows.parquet`: the rows that it was trained
    on (pack, a folder of data/pack, its fingerprint, and row), the optimiser step that each came in, and best_step, the
    one whose weights were kept. The plot has step and, in nats a label, adapted_train, adapted_validation and the
    control's; dvclive's files have the gradient's norm and the learning rate as well.
    --input names another folder of packs. What was trained last stays in the store, so that the same again is a copy.
    Under torchrun the first process runs this, and the others `follow`.
    """
    tasks, crew = _tasks(run)
    with checkpoints.held(tasks[0].folder.parent, run.home / "locks"):
        results = {task.name: result for task, result in run_tasks(train_adapter, tasks, crew)}
        for task in tasks:
            target = run.output if task.name == "adapted" else run.output / task.name
            finished = task.folder / "finished" / "model"
            shutil.copytree(finished, target, copy_function=lambda a, b: link(Path(a), Path(b)), dirs_exist_ok=True)
            result = results[task.name]
            trained_rows(task, result["steps"], result["best_step"]).write_parquet(target / "rows.parquet")
    logs = {task.name: results[task.name].pop("log") for task in tasks}
    write_curves(run, logs)
    if run.reports:
        (run.reports / "dvclive").mkdir(parents=True, exist_ok=True)  # an output of the stage, if empty
    if "dvclive" in run.params.finetune.report_to:
        from train.tracking import write_live

        for task in tasks:
            write_live(task.reports / "dvclive" / task.name, logs[task.name])
    timing = {name: result.pop("timing") for name, result in results.items()}
    return count_rows(rows_in=results["adapted"]["documents"], dropped={}) | results | {"timing": timing}


def follow(run: Run) -> None:
    """Train along with the process that runs the stage, and write nothing."""
    for task in _tasks(run)[0]:
        train_adapter(task)


def _tasks(run: Run) -> tuple[list[Task], Workers]:
    """The models to train, and who trains them. Raises UserError for options that would not be heeded."""
    settings, base = run.params.finetune, run.params.base
    if run.limit:
        raise UserError("--limit: finetune.tokens says how much is trained on; leave it out")
    if len(run.inputs) > 1:
        raise UserError(f"--input {run.inputs[1]}: name one folder of packs, finetune.mix mixes others in")
    pack = run.inputs[0] if run.inputs else run.folder("pack")
    refuse_other_name(run.folder("base"), base)
    refuse_made_for_another(pack, run.folder("base"), "tokenizer", "train pack")
    names = [name for name in PACKS if name == "adapted" or (pack / PACKS[name]).is_dir()]
    folder = run.home / "checkpoints" / _key(pack, run.folder("base"), _known_as(base), settings)
    crew, threads = share_work(run, len(names))
    if world() > 1:
        crew, threads = 1, max(1, run.workers // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    return [Task(name, run, pack, folder / name, threads) for name in names], crew


def _known_as(base: Base) -> dict[str, str | None]:
    """What an adapter_config.json says of the base: no path of this machine, but a name and a commit of the hub."""
    name, revision = name_of(base).values()
    local = name in ("tiny", "a folder")
    return {"base_model_name_or_path": "data/base" if local else name, "revision": revision}


def world() -> int:
    """How many processes train together, each on its device."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this is the process that writes."""
    return os.environ.get("RANK", "0") == "0"


def _key(pack: Path, base: Path, known_as: dict[str, str | None], settings: Finetune) -> str:
    """What the training depends on: checkpoints of one key are never taken up by another."""
    files = sorted([*base.glob("*.safetensors"), *base.glob("config.json"), *pack.rglob("*.arrow")])
    digests = [[str(path.relative_to(path.parents[1])), file_digest(path)] for path in files]
    content = json.dumps([VERSION, known_as, settings.model_dump(mode="json", exclude=WATCHED), digests])
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def write_curves(run: Run, logs: Mapping[str, list[dict[str, float]]]) -> None:
    """The plot `loss`: the models' losses beside each other, by step."""
    points: dict[float, dict[str, float]] = defaultdict(dict)
    for name, log in logs.items():
        for event in log:
            points[event["step"]] |= {f"{name}_{kind}": event[key] for key, kind in LOSSES.items() if key in event}
    columns = [f"{name}_{kind}" for name in logs for kind in LOSSES.values()]
    rows = [{"step": step} | points[step] for step in sorted(points)]
    write_plot(run, "loss", pl.DataFrame(rows, {"step": pl.Int64} | dict.fromkeys(columns, pl.Float64)))


def _rows(task: Task, model: Any) -> tuple[Any, Any, Metrics]:
    """The rows to train on, in their order, those to validate on, and counts: documents, passes, the mix."""
    import datasets
    import pyarrow.compute as pc

    settings = task.settings
    folders = _folders(task)
    packs = {name: load_pack(task.pack / folder, model) for name, folder in folders.items()}
    for name, rows in packs.items():
        if not len(rows):
            raise UserError(f"{task.pack / folders[name]} holds no row to train on: reports/pack.json says why")
    sizes, own = {name: len(rows) for name, rows in packs.items()}, packs[task.name]
    order = _order(settings, sizes, len(own[0]["input_ids"]))
    total = len(order)
    bounds = np.cumsum([0, *sizes.values()])
    drawn = dict(zip(sizes, np.histogram(order, bounds)[0].tolist(), strict=True))
    validation = load_pack(task.pack / "validation", model)
    chosen = np.random.default_rng(settings.seed).permutation(len(validation))[:VALIDATION_ROWS]
    counted = {
        "documents": pc.count_distinct(pc.list_flatten(own.data["document_ids"])).as_py(),
        "passes": drawn[task.name] / len(own),
        "mix": {n: {"rows": sizes[n], "part": drawn[n] / total, "repeated": drawn[n] / sizes[n]} for n in settings.mix},
    }
    rows = datasets.concatenate_datasets([*packs.values()]).select(order)
    return rows, validation.select(sorted(chosen.tolist())), counted


def _folders(task: Task) -> dict[str, str]:
    """The folders of the packs that a model is trained on: its own first, then those mixed in."""
    return {task.name: PACKS[task.name]} | {name: f"mix/{name}" for name in task.settings.mix}


def _order(settings: Finetune, sizes: Mapping[str, int], length: int) -> npt.NDArray[np.int64]:
    """The numbers of the rows, all packs counted through, in the order in which they are trained on."""
    total = math.ceil(settings.tokens / (settings.rows_per_step * length)) * settings.rows_per_step
    return draw_rows(sizes, {name: mix.weight for name, mix in settings.mix.items()}, total, settings.seed)


def trained_rows(task: Task, steps: int, best_step: int) -> pl.DataFrame:
    """What a model was trained on in so many steps: pack (a folder of data/pack), row and step, in that order; and the
    same in all rows best_step, and in those of a pack its fingerprint, by which `corpus why` knows it again."""
    folders, each = _folders(task), task.settings.rows_per_step
    packs = {name: load_pack(task.pack / folder) for name, folder in folders.items()}
    sizes = {name: len(rows) for name, rows in packs.items()}
    order = _order(task.settings, sizes, len(packs[task.name][0]["input_ids"]))[: steps * each]
    bounds = np.cumsum([0, *sizes.values()])
    place = np.searchsorted(bounds, order, side="right") - 1
    folder_of_pack = np.array(list(folders.values()))
    columns = {"pack": folder_of_pack[place], "row": order - bounds[place], "step": np.arange(len(order)) // each + 1}
    fingerprints = {folder: fingerprint_of(task.pack / folder) for folder in folders.values()}
    frame = pl.DataFrame(columns).sort("pack", "row", "step").with_columns(best_step=pl.lit(best_step, pl.Int64))
    return frame.with_columns(fingerprint=pl.col("pack").replace_strict(fingerprints, return_dtype=pl.String))


def fingerprint_of(pack: Path) -> str | None:
    """What tells a pack's content from that of others, as datasets keeps it beside the rows."""
    found = json.loads((pack / "state.json").read_text("utf-8")).get("_fingerprint")
    return found if isinstance(found, str) else None


# ---- one model -------------------------------------------------------------------------------------------------------


def train_adapter(task: Task) -> Metrics:
    """Train one model into `finished`, from the last good checkpoint on if there is any.

    Returns method, precision, attention (packed; padded where the model cannot attend by document), documents, passes
    over them, steps, best_step, tokens (seen, without padding), best_validation_loss (null without validation rows),
    stopped (tokens, patience or time), trainable_parameters, the mix, the log, and under `timing` what depends on the
    machine. Where memory runs out, fewer rows go through at once; the same rows are a step.
    """
    if device() == "cpu" and not any(key.startswith("torch_compile") for key in task.settings.trainer):
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")  # 45 MB; before peft imports it
    from accelerate import PartialState
    from accelerate.utils.memory import should_reduce_batch_size

    from train.trainer import agreed

    prepare_torch(task.threads, task.settings.seed)
    if world() > 1:
        PartialState(cpu=device() == "cpu")  # lets the processes find each other
    while not agreed((task.folder / "finished").exists()):
        task.folder.mkdir(parents=True, exist_ok=True)
        batch, fits = agreed(rows_at_once(task)), True
        try:
            _train(task, batch)
        except RuntimeError as error:
            fits = not should_reduce_batch_size(error)
            if fits:
                raise
        if not fits:  # out of the handler, which keeps all that was in memory
            _try_fewer_rows(task, batch)
    if not is_first():
        return {}
    checkpoints.keep_finished(task.folder)
    result: Metrics = json.loads((task.folder / "finished" / RESULT).read_text())
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
    try:
        most = int(json.loads((task.folder / BATCH).read_text()))
    except (OSError, ValueError, TypeError):
        most = settings.rows_per_step
        if device() == "cpu" and len(rows := load_pack(task.pack / PACKS[task.name])):
            most = CPU_TOKENS // len(rows[0]["input_ids"])
    return largest_divisor(settings.rows_per_step // devices, most)


def largest_divisor(number: int, most: int) -> int:
    """The largest divisor of a number that is not above `most`, and 1 where that is below.

    >>> largest_divisor(12, 5)
    4
    """
    return next((divisor for divisor in range(min(number, most), 0, -1) if number % divisor == 0), 1)


def _try_fewer_rows(task: Task, batch: int) -> None:
    """Note that memory holds half as many rows at most. Raises UserError where no fewer can be tried."""
    import torch

    if batch == 1 or task.settings.batch != "auto":
        raise UserError(
            f"finetune.batch: memory ran out with {batch} rows at once: name fewer or auto, set "
            "finetune.gradient_checkpointing, finetune.method qlora or a smaller pack.length"
        )
    write_json(task.folder / BATCH, batch // 2)
    gc.collect()
    torch.cuda.empty_cache()
    if world() > 1:
        raise StageError(
            f"memory ran out with {batch} rows at once on a device: run it again, it goes on with fewer "
            "from the last checkpoint (torchrun --max-restarts does so by itself)"
        )


def _train(task: Task, batch: int) -> None:
    """Train from the last good checkpoint on to the end, and write `finished`."""
    import torch

    from train.trainer import agreed

    if device() == "cuda":
        torch.cuda.reset_peak_memory_stats()
    trainer, result = _load(task, batch)
    started, checkpoint = time.monotonic(), agreed(checkpoints.last_good(task.folder) if is_first() else None)
    before = checkpoints.step_of(checkpoint) if checkpoint else 0
    if not (checkpoint and checkpoints.stopped_at(checkpoint)):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        checkpoint = task.folder / f"checkpoint-{trainer.state.global_step}"
    seconds = time.monotonic() - started
    trainer.load_best(checkpoint)
    partial, state = task.folder / "finished.partial", trainer.state
    _save(trainer, task, partial / "model")
    if is_first():
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        result |= {
            "steps": state.global_step,
            "best_step": state.best_global_step or state.global_step,
            "tokens": trainer.tokens(0, state.global_step),
            "best_validation_loss": None if state.best_metric is None else round(state.best_metric, 4),
            "stopped": checkpoints.stopped_at(checkpoint),
            "log": [event for event in state.log_history if "train_runtime" not in event],
            "timing": {
                "batch": batch,
                "seconds": seconds,
                "tokens_per_second": trainer.tokens(before, state.global_step) / seconds,
                "peak_mb": (torch.cuda.max_memory_allocated() if device() == "cuda" else used) / 2**20,
            },
        }
        (partial / RESULT).write_text(json.dumps(result))
        checkpoints.replace_folder(partial, task.folder / "finished")
    trainer.accelerator.wait_for_everyone()


def _load(task: Task, batch: int) -> tuple[Any, Metrics]:
    """The trainer of a task's model and rows, and what the metrics say of these."""
    import torch

    from train.attention import use_document_attention
    from train.rows import collate, collate_padded
    from train.tracking import watchers
    from train.trainer import LabelTrainer

    settings, precision = task.settings, precision_of(task.settings.precision)
    prepare_torch(task.threads, settings.seed)
    model = load_model(
        task.base,
        "base.model",
        method=settings.method,
        precision="fp32" if settings.method == "full" else precision,  # small updates would be lost in sixteen bits
        trust_remote_code=task.run.params.base.trust_remote_code,
    )
    rows, validation, counted = _rows(task, model)
    model = attach_adapter(model, settings)
    sixteen = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    with torch.autocast(device(), sixteen, enabled=sixteen is not None):  # as it will be trained
        packed = use_document_attention(model)
    facts = {
        "method": settings.method,
        "precision": precision,
        "attention": "packed" if packed else "padded",
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }
    trainer = LabelTrainer(
        model,
        settings,
        task.folder,
        batch,
        train_dataset=rows,
        eval_dataset=validation,
        data_collator=collate if packed else collate_padded,
        callbacks=watchers(settings, task.reports, task.folder, task.name) if is_first() else [],
    )
    return trainer, facts | counted


def _save(trainer: Any, task: Task, folder: Path) -> None:
    """Save the adapter or model so that it loads as it is and nothing in it names this machine."""
    import torch
    from transformers import AutoConfig

    full, trusted = task.settings.method == "full", task.run.params.base.trust_remote_code
    if is_first():
        shutil.rmtree(folder.parent, ignore_errors=True)
    if full and not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        trainer.model.to(AutoConfig.from_pretrained(task.base, trust_remote_code=trusted).dtype or torch.float32)
    trainer.save_model(str(folder))
    if not is_first():
        return
    for name in ("README.md", "training_args.bin"):  # peft's empty form of a model card, and a pickle
        (folder / name).unlink(missing_ok=True)
    if full:
        load_tokenizer(task.base, "base.model", trust_remote_code=trusted).save_pretrained(folder)
        return
    (known,) = trainer.accelerator.unwrap_model(trainer.model).peft_config.values()
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text()) | _known_as(task.run.params.base)
    # A set has another order in each process.
    config |= {key: sorted(value) for key, value in vars(known).items() if isinstance(value, set) and key in config}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    write_made_for(folder, task.base, "weights")
