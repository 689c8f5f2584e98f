"""The exported model is the adapter's, or there is none."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny_project import built, params
from transformers import AutoModelForCausalLM, AutoTokenizer

import train.export
from corpus.errors import StageError, UserError
from train.adapter import attach_adapter
from train.export import export, model_card, plain
from train.models import load_model


@pytest.fixture
def project(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    return shutil.copytree(built(tmp_path_factory.getbasetemp()), tmp_path / "project")


def put_adapter(project: Path, method: str, *overrides: str) -> Any:
    """Replace the adapter by one with large random weights, on the base as `method` loads it; returns the model."""
    torch.manual_seed(0)
    report = json.loads((project / "reports" / "finetune.json").read_text())
    report["adapted"]["method"] = method
    (project / "reports" / "finetune.json").write_text(json.dumps(report))
    model = load_model(project / "data" / "base", "base.model", method=method)
    model = attach_adapter(model, params(f"finetune.method={method}", *overrides).finetune)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    shutil.rmtree(project / "data" / "finetune")
    model.save_pretrained(project / "data" / "finetune", save_embedding_layers=False)
    return model.eval()


@pytest.mark.parametrize("method", ["lora", "qlora", "int8"])
@pytest.mark.parametrize("embeddings", ["true", "false"])
def test_the_merged_model_is_the_adapters(method: str, embeddings: str, project: Path) -> None:
    adapted = put_adapter(project, method, f"finetune.train_embeddings={embeddings}")
    # The parameters name another method by now: what it was trained with counts.
    said = export(project / "data", params("finetune.method=lora"), project / "out")
    assert "merged; loss" in said
    merged = AutoModelForCausalLM.from_pretrained(project / "out").eval()
    tokens = AutoTokenizer.from_pretrained(project / "out")("a file is opened by its name 文件", return_tensors="pt")
    with torch.no_grad():
        expected = adapted(input_ids=tokens["input_ids"], use_cache=False).logits
        base = load_model(project / "data" / "base", "base.model")(input_ids=tokens["input_ids"]).logits
        found = merged(input_ids=tokens["input_ids"]).logits
    assert (found - expected).abs().max() < (0.3 if method == "int8" else 1e-3)
    assert (found - expected).abs().max() < 0.1 * (found - base).abs().max()
    assert "quantization_config" not in json.loads((project / "out" / "config.json").read_text())


def test_a_merge_that_changes_the_loss_is_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_adapter(project, "lora")
    monkeypatch.setattr(train.export, "merge", lambda base, *_: load_model(base, "base.model"))
    before = sorted(project.iterdir())
    with pytest.raises(StageError, match="the merged model's loss is"):
        export(project / "data", params(), project / "out")
    assert sorted(project.iterdir()) == before


def test_a_16_bit_base_gives_a_16_bit_model_only_where_that_is_exact(project: Path) -> None:
    base = project / "data" / "base"
    load_model(base, "base.model").to(torch.bfloat16).save_pretrained(base)
    put_adapter(project, "lora")
    export(project / "data", params(), project / "out")
    assert json.loads((project / "out" / "config.json").read_text())["dtype"] in ("bfloat16", "float32")
    assert not list((project / "out").glob("*.bin"))


def test_an_older_config_and_reports_of_others_do_not_matter(project: Path) -> None:
    base = project / "data" / "base"
    load_model(base, "base.model").to(torch.bfloat16).save_pretrained(base)
    config = json.loads((base / "config.json").read_text())
    config["torch_dtype"] = config.pop("dtype")
    (base / "config.json").write_text(json.dumps(config))
    adapter = put_adapter(project, "lora", "finetune.train_embeddings=false")  # of zeros, so that 16 bits are exact
    for name, parameter in adapter.named_parameters():
        parameter.data *= "lora_" not in name
    adapter.save_pretrained(project / "data" / "finetune", save_embedding_layers=False)
    (project / "reports" / "other.json").write_text("{broken")
    export(project / "data", params(), project / "out")
    assert json.loads((project / "out" / "config.json").read_text())["dtype"] == "bfloat16"
    (project / "reports" / "pack.json").write_text("{broken")
    with pytest.raises(UserError, match=r"pack\.json cannot be read"):
        export(project / "data", params(), project / "new")


def test_a_whole_model_is_copied(project: Path) -> None:
    finetuned = project / "data" / "finetune"
    shutil.rmtree(finetuned)
    shutil.copytree(project / "data" / "base", finetuned)
    (finetuned / "training_args.bin").write_bytes(b"pickle")
    assert "copied" in export(project / "data", params("finetune.method=full"), project / "out")
    names = {path.name for path in (project / "out").iterdir()}
    assert {"model.safetensors", "tokenizer.json", "README.md"} <= names
    assert "training_args.bin" not in names
    assert (project / "out" / "model.safetensors").read_bytes() == (finetuned / "model.safetensors").read_bytes()


def test_a_tuned_prompt_cannot_be_merged(project: Path) -> None:
    put_adapter(project, "lora", "finetune.peft={peft_type: PROMPT_TUNING, num_virtual_tokens: 4}")
    with pytest.raises(UserError, match="tuned prompt"):
        export(project / "data", params(), project / "out")
    assert not (project / "out").exists()


def test_a_folder_in_use_is_left_alone(project: Path) -> None:
    (project / "out").mkdir()
    (project / "out" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        export(project / "data", params(), project / "out")
    assert [path.name for path in (project / "out").iterdir()] == ["mine.txt"]
    shutil.rmtree(project / "data" / "finetune")
    with pytest.raises(UserError):
        export(project / "data", params(), project / "new")
    assert not (project / "new").exists()


def test_the_card_says_where_it_came_from_and_nothing_of_this_machine(tmp_path: Path) -> None:
    hostile = "<script>|`x`\n---\n[a](b)"
    given = params(
        "base.model=/home/someone/models/small",
        "finetune.trainer={hub_token: hf_secret, weight_decay: 0}",
        f"sources={json.dumps([{'name': 'site', 'kind': 'html', 'path': '/home/someone/pages', 'licence': hostile}])}",
    )
    rows = {"in": 10, "generated": 0, "kept": 7, "dropped": 3}
    scores = {who: {"bits_per_byte": bits} for who, bits in (("base", 3.5), ("adapted", 2.5))}
    reports = {
        "filter": {"rows": rows, "dropped_by_reason": {"filter.mattr.min": 3}},
        "pack": {"rows": rows, "dropped_by_reason": {}, "train": {"by_language": {"en": 5, "zh-Hans": 6}}},
        "evaluate": {"sets": {"pinned-en": {"fingerprint": "e108018707c377f5", "documents": 2} | scores}},
    }
    card = model_card(given, reports, "lora", "merged", {"r": 12})
    front = yaml.safe_load(card.split("---")[1])
    assert front["language"] == ["en", "zh"]
    assert "base_model" not in front  # a folder of some machine is no name on a hub
    assert "| filter | 10 | 0 | 7 | 3 | filter.mattr.min 3 |" in card
    assert "| pinned-en | e108018707c377f5 |" in card
    assert "| 3.5 | 2.5 |  |" in card
    assert "/home/" not in card and "someone" not in card and "hf_secret" not in card
    assert "<script>" not in card and "](b)" not in card and "`x`" not in card
    settings = card.split("## Parameters")[1]
    assert "as it was trained: " in settings and "12" in settings.splitlines()[2] and "when this was exp" in settings
    assert yaml.safe_load("\n".join(line[4:] for line in settings.splitlines() if line[:4] == "    "))["base"]


def test_plain_leaves_words_and_no_markup() -> None:
    assert plain("filter.mattr.min 3，文件") == "filter.mattr.min 3，文件"
    assert not re.search(r"[<>|`*\[\]]", plain("<b>|`*[x]"))
