"""The fine-tuned model as a whole: merged weights, tokenizer and model card, once the merge is proved to be exact.

An adapter is never merged into quantised weights: the base is loaded anew, dequantised before anything runs through it,
and then is what the adapter was trained on, in full precision. What was written is loaded again and has to have the
adapter's loss on validation rows, else nothing stays.
"""

from __future__ import annotations

import gc
import re
import shutil
from pathlib import Path
from typing import Any

import yaml

from corpus.errors import StageError, UserError
from corpus.params import Params
from train.base import FILES, copy_files
from train.evaluate import read_report, trained_method
from train.models import ADAPTER_FILES, first_line, load_finetuned, load_model, load_tokenizer, prepare_torch

ROWS = 16  # of the validation pack, whose loss is compared
TOLERANCE = {"int8": 1e-2}  # nats a label; int8 rounds what goes through its layers as well
USUAL_TOLERANCE = 1e-4
STAGES = (
    "scrape",
    "clean",
    "measure",
    "perplexity",
    "dedup",
    "filter",
    "split",
    "augment",
    "shard",
    "pack",
    "finetune",
)
COUNTS = ("in", "generated", "kept", "dropped")
SECRET = re.compile(r"(^|_)(token|secret|password|key)$")


def export(data: Path, params: Params, folder: Path) -> str:
    """Write model.safetensors, tokenizer and README.md into a new or empty folder; returns what to say about it.

    `data` holds base, finetune and pack; the reports lie beside it. Raises UserError naming the folder or an adapter
    that cannot be merged, StageError where the merged loss is not the adapter's; neither leaves anything behind. One
    model is held at a time: beside mapped files it took 1.2 times the model's bytes in fp32 where the base is in fp32,
    and 2.1 times where it is in bf16 (a Llama of 0.2 billion parameters on a CPU).
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not empty: name a new folder")
    import torch
    from transformers import AutoConfig

    places = {stage: data.parent / "reports" / f"{stage}.json" for stage in (*STAGES, "evaluate")}
    reports = {stage: read_report(path) for stage, path in places.items() if path.is_file()}
    method = trained_method(places["finetune"], params)
    trust = params.base.trust_remote_code
    base, trained = data / "base", data / "finetune"
    prepare_torch(2, 0)
    partial = folder.resolve().with_name(f".{folder.resolve().name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        if (trained / "config.json").is_file():
            copy_files(trained, partial, [*FILES, *(["*.py"] if trust else [])])
            load_tokenizer(trained, str(trained), trust_remote_code=trust)
            said = "trained whole, copied"
        else:
            check_adapter(trained)
            expected = loss(load_finetuned(base, trained, method=method, trust_remote_code=trust), data)
            load_tokenizer(base, "base.model", trust_remote_code=trust).save_pretrained(partial)
            own = AutoConfig.from_pretrained(base, trust_remote_code=trust, local_files_only=True).dtype
            for dtype in dict.fromkeys((own or torch.float32, torch.float32)):  # small as the base, if exact enough
                gc.collect()  # models hold themselves in cycles
                merge(base, trained, method, trust).to(dtype).save_pretrained(partial)
                gc.collect()
                found = loss(load_model(partial, str(folder), trust_remote_code=trust), data)
                if exact := abs(found - expected) <= TOLERANCE.get(method, USUAL_TOLERANCE):
                    break
            if not exact:
                raise StageError(
                    f"{folder} is not written: the merged model's loss is {found:.6f}, the adapter's {expected:.6f}; "
                    f"serve the adapter in {trained} instead"
                )
            said = f"merged; loss {found:.5f} nats a label, the adapter's {expected:.5f}"
        card = model_card(params, reports, method, said, adapter_settings(trained))
        (partial / "README.md").write_text(card, "utf-8")
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return f"{folder}: {said}"


def check_adapter(adapter: Path) -> None:
    """Raises UserError where a folder holds no adapter, or one that cannot be merged."""
    from peft import PeftConfig

    for name in ADAPTER_FILES:
        if not (adapter / name).is_file():
            raise UserError(f"{adapter} holds no adapter: {name} is missing; run `train finetune`")
    config = PeftConfig.from_pretrained(str(adapter))
    if config.is_prompt_learning:
        raise UserError(
            f"{adapter} is a tuned prompt ({config.peft_type.value}), no change of weights: it cannot be merged; "
            "load it with peft's PeftModel.from_pretrained"
        )


def merge(base: Path, adapter: Path, method: str, trust_remote_code: bool) -> Any:
    """The base in fp32 with the adapter merged into it. Raises UserError for an adapter that cannot be."""
    from peft import PeftModel

    model = load_model(base, "base.model", method=method, trust_remote_code=trust_remote_code)
    if method in ("qlora", "int8"):
        model = model.dequantize()
    try:
        return PeftModel.from_pretrained(model, adapter).merge_and_unload(safe_merge=True)
    except (AttributeError, ValueError, RuntimeError) as error:
        raise UserError(f"{adapter} cannot be merged ({first_line(error)}): load it with peft") from None


def loss(model: Any, data: Path) -> float:
    """Nats a label over the first ROWS of the validation pack, or of train where that is empty."""
    import torch

    from train.attention import use_document_attention
    from train.finetune import load_pack
    from train.models import IGNORED
    from train.rows import collate, collate_padded, label_loss

    packs: Any = (load_pack(data / "pack" / name) for name in ("validation", "train"))
    rows: list[Any] = next((pack.select(range(min(ROWS, len(pack)))).to_list() for pack in packs if len(pack)), [])
    model.eval()
    batches = [(collate if use_document_attention(model) else collate_padded)([row]) for row in rows]
    nats, count = 0.0, 0
    with torch.no_grad():
        for batch in batches:
            tensors = {k: v.to(model.device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
            labels = tensors.pop("labels")
            nats += label_loss(model(**tensors, use_cache=False), labels, 1).item()
            count += int((labels[..., 1:] != IGNORED).sum())
    if not count:
        raise UserError(f"{data / 'pack'} holds no label to compare losses by: run `train pack`")
    return nats / count


def adapter_settings(folder: Path) -> dict[str, Any]:
    """What a trained adapter itself says of its kind and size; nothing of a whole model."""
    path = folder / ADAPTER_FILES[0]
    config = read_report(path) if path.is_file() else {}
    return {key: config[key] for key in ("peft_type", "r", "lora_alpha", "lora_dropout") if key in config}


def model_card(params: Params, reports: dict[str, Any], method: str, said: str, trained: dict[str, Any]) -> str:
    """README.md as model hubs read it: where the data came from, the parameters, the scores, and the limits."""
    model = shown_path(params.base.model)
    languages = sorted(reports.get("pack", {}).get("train", {}).get("by_language", {}))
    front: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    front |= {"language": sorted({lang.split("-")[0] for lang in languages})} if languages else {}
    on_hub = re.fullmatch(r"[\w.-]+/[\w.-]+", params.base.model) and not Path(params.base.model).is_dir()
    front |= {"base_model": model} if on_hub else {}
    licences = {source.name: source.licence or "unknown" for source in params.sources}
    lineage = [
        [stage, *(report["rows"][key] for key in COUNTS), ", ".join(f"{k} {v}" for k, v in dropped.items())]
        for stage in STAGES
        if (report := reports.get(stage)) and (dropped := report["dropped_by_reason"]) is not None
    ]
    scores = [
        [name, one["fingerprint"], score, *(one.get(who, {}).get(score, "") for who in ("base", "adapted", "control"))]
        for name, one in sorted(reports.get("evaluate", {}).get("sets", {}).items())
        for score, value in one["base"].items()
        if isinstance(value, int | float)
    ]
    settings = shown(params.model_dump(mode="json", include={"base", "pack", "finetune"}))
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    return (
        "\n\n".join(
            [
                f"---\n{yaml.safe_dump(front | {'tags': ['corpusmill', method]}, sort_keys=True)}---",
                "# Fine-tuned model",
                f"{plain(model)}, fine-tuned ({method}) on a corpus built by corpusmill; {said}.",
                "## Data",
                table(["source", "licence"], list(licences.items())),
                "Documents by stage; each that was dropped has a reason.",
                table(["stage", *COUNTS, "reasons"], lineage),
                "## Scores",
                "Scores of other models compare only where the set's fingerprint is the same. The control is the base "
                "trained alike on unfiltered documents.",
                table(["set", "fingerprint", "score", "base", "adapted", "control"], scores),
                "## Limits",
                "Trained to predict text, not to be right, safe or fair: what it says has to be checked. It learned "
                f"{plain(', '.join(languages) or 'languages that are not recorded')}, and may have lost some of what "
                "the base knew. It may repeat its training text; personal data was masked where it was found. The "
                "scores are of small sets and say nothing of other uses. Sources and base keep their licences.",
                "## Parameters",
                f"The adapter as it was trained: {plain(trained) if trained else 'none, all weights were trained'}.",
                "The project's parameters when this was exported, which may have changed since the training:",
                "\n".join(f"    {line}" for line in text.splitlines()),
            ]
        )
        + "\n"
    )


def table(names: list[str], rows: Any) -> str:
    """A Markdown table; cells are escaped.

    >>> print(table(["a"], [["x|<b>"]]))
    | a |
    |---|
    | x&#124;&#60;b&#62; |
    """
    if not rows:
        return "Not recorded."
    lines = [names, *([plain(cell) for cell in row] for row in rows)]
    written = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([written[0], "|" + "---|" * len(names), *written[1:]])


def plain(value: Any) -> str:
    """A value as text that neither Markdown nor HTML reads as more than text, on one line."""
    return re.sub(r"[&<>\"'`*\[\](){}#+!|~\\]", lambda match: f"&#{ord(match[0])};", " ".join(str(value).split()))


def shown(value: Any) -> Any:
    """Settings without paths of this machine and without secrets."""
    if isinstance(value, dict):
        return {key: "(not shown)" if SECRET.search(str(key)) else shown(one) for key, one in value.items()}
    if isinstance(value, list):
        return [shown(one) for one in value]
    return shown_path(value) if isinstance(value, str) else value


def shown_path(value: str) -> str:
    """
    >>> shown_path("/home/me/models/small"), shown_path("owner/model")
    ('small', 'owner/model')
    """
    return Path(value).name if Path(value).is_absolute() or value.startswith(("~", "..")) else value
