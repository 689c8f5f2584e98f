"""The fine-tuned model as a whole: merged weights, tokenizer and model card, once the merge is proved to be exact.

An adapter is never merged into quantised weights: the base is loaded anew, dequantised before anything runs through it,
and then is what the adapter was trained on, in full precision. What was written is loaded again and has to have the
adapter's loss on validation rows, else nothing stays.
"""

from __future__ import annotations

import gc
import re
import shutil
import textwrap
from pathlib import Path
from typing import Any

import yaml

from corpus.errors import StageError, UserError
from corpus.params import Params
from train.base import FILES, copy_files
from train.compare import MODELS
from train.evaluate import read_report, trained_method
from train.models import ADAPTER_FILES, first_line, load_finetuned, load_model, load_tokenizer, prepare_torch

ROWS = 16  # of the validation pack, whose loss is compared
TOLERANCE = {"int8": 1e-2}  # nats a label; int8 rounds what goes through its layers as well
USUAL_TOLERANCE = 1e-4
STAGES = (
    "scrape", "clean", "measure", "perplexity", "dedup", "filter", "split", "augment", "shard", "pack", "finetune",
)  # fmt: skip
COUNTS = ("in", "generated", "kept", "dropped")
SHAPE = ("peft_type", "r", "lora_alpha", "lora_dropout")  # of an adapter's config
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
            outcome = "trained whole, copied"
        else:
            expected = loss(load_adapted(base, trained, method, trust), data)
            load_tokenizer(base, "base.model", trust_remote_code=trust).save_pretrained(partial)
            smallest = AutoConfig.from_pretrained(base, trust_remote_code=trust, local_files_only=True).dtype
            for dtype in dict.fromkeys((smallest or torch.float32, torch.float32)):  # as the base, if exact enough
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
            outcome = f"merged; loss {found:.5f} nats a label, the adapter's {expected:.5f}"
        adapter = read_report(trained / ADAPTER_FILES[0]) if (trained / ADAPTER_FILES[0]).is_file() else {}
        shape = {key: value for key, value in adapter.items() if key in SHAPE}
        (partial / "README.md").write_text(model_card(params, reports, method, outcome, shape), "utf-8")
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return f"{folder}: {outcome}"


def load_adapted(base: Path, adapter: Path, method: str, trust_remote_code: bool) -> Any:
    """The adapter on the base as it was trained. Raises UserError for a tuned prompt, which cannot be merged."""
    model = load_finetuned(base, adapter, method=method, trust_remote_code=trust_remote_code)
    if model.active_peft_config.is_prompt_learning:
        raise UserError(f"{adapter} is a tuned prompt, no change of weights: load it with peft's from_pretrained")
    return model


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
    from train.models import IGNORED
    from train.rows import collate, collate_padded, label_loss, load_pack

    pack = load_pack(data / "pack" / "validation")
    pack = pack if len(pack) else load_pack(data / "pack" / "train")
    model.eval()
    collator = collate if use_document_attention(model) else collate_padded
    nats, count = 0.0, 0
    with torch.no_grad():
        for row in pack.select(range(min(ROWS, len(pack)))):
            batch = {k: v.to(model.device) if isinstance(v, torch.Tensor) else v for k, v in collator([row]).items()}
            labels = batch.pop("labels")
            nats += label_loss(model(**batch, use_cache=False), labels, 1).item()
            count += int((labels[..., 1:] != IGNORED).sum())
    if not count:
        raise UserError(f"{data / 'pack'} holds no label to compare losses by: run `train pack`")
    return nats / count


def model_card(params: Params, reports: dict[str, Any], method: str, outcome: str, adapter: dict[str, Any]) -> str:
    """README.md as model hubs read it: where the data came from, the parameters, the scores, and the limits."""
    model = shown(params.base.model)
    languages = sorted(reports.get("pack", {}).get("train", {}).get("by_language", {}))
    front: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    front |= {"tags": ["corpusmill", method]}
    if languages:
        front["language"] = sorted({language.split("-")[0] for language in languages})
    if re.fullmatch(r"[\w.-]+/[\w.-]+", params.base.model) and not Path(params.base.model).is_dir():
        front["base_model"] = model
    lineage = []
    for stage in STAGES:
        if stage in reports:
            rows, dropped = reports[stage]["rows"], reports[stage]["dropped_by_reason"]
            lineage.append([stage, *map(rows.get, COUNTS), ", ".join(f"{k} {v}" for k, v in dropped.items())])
    scores = [
        [name, scored["fingerprint"], score, *(scored.get(who, {}).get(score, "") for who in MODELS)]
        for name, scored in sorted(reports.get("evaluate", {}).get("sets", {}).items())
        for score, value in scored["base"].items()
        if isinstance(value, int | float)
    ]
    settings = shown(params.model_dump(mode="json", include={"base", "pack", "finetune"}))
    paragraphs = [
        f"---\n{yaml.safe_dump(front)}---",
        "# Fine-tuned model",
        f"{plain(model)}, fine-tuned ({method}) on a corpus built by corpusmill; {outcome}.",
        "## Data",
        table(["source", "licence"], [[source.name, source.licence or "unknown"] for source in params.sources]),
        "Documents by stage; each that was dropped has a reason.",
        table(["stage", *COUNTS, "reasons"], lineage),
        "## Scores",
        "Scores of other models compare only where the set's fingerprint is the same. The control is the base trained "
        "alike on unfiltered documents.",
        table(["set", "fingerprint", "score", *MODELS], scores),
        "## Limits",
        "Trained to predict text, not to be right, safe or fair: what it says has to be checked. It learned "
        f"{plain(', '.join(languages) or 'languages that are not recorded')}, and may have lost some of what the base "
        "knew. It may repeat its training text; personal data was masked where it was found. The scores are of small "
        "sets and say nothing of other uses. Sources and base keep their licences.",
        "## Parameters",
        f"The adapter as it was trained: {plain(adapter) if adapter else 'none, all weights were trained'}.",
        "The project's parameters when this was exported, which may have changed since the training:",
        textwrap.indent(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), "    "),
    ]
    return "\n\n".join(paragraphs)


def table(names: list[str], rows: Any) -> str:
    """A Markdown table; cells are escaped.

    >>> print(table(["a"], [["x|<b>"]]))
    | a |
    | --- |
    | x&#124;&#60;b&#62; |
    """
    if not rows:
        return "Not recorded."
    lines = [names, ["---"] * len(names), *([plain(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plain(value: Any) -> str:
    """A value as text that neither Markdown nor HTML reads as more than text, on one line."""
    return re.sub(r"[&<>\"'`*\[\](){}#+!|~\\]", lambda match: f"&#{ord(match[0])};", " ".join(str(value).split()))


def shown(value: Any) -> Any:
    """Settings without paths of this machine and without secrets.

    >>> shown({"model": "/home/me/models/small", "hub_token": "x"}), shown("owner/model")
    ({'model': 'small', 'hub_token': '(not shown)'}, 'owner/model')
    """
    if isinstance(value, dict):
        return {key: "(not shown)" if SECRET.search(str(key)) else shown(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shown(inner) for inner in value]
    is_path = isinstance(value, str) and (Path(value).is_absolute() or value.startswith(("~", "..")))
    return Path(value).name if is_path else value
