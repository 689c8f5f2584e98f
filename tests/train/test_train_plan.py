"""The plan's figures are those of real training steps, measured by torch's profiler and by bitsandbytes."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import train.plan
from corpus.errors import UserError
from corpus.params import load
from train.adapter import attach_adapter
from train.attention import use_document_attention
from train.models import load_model
from train.plan import CARDS, GIB, choose_card, estimate, load_config, plan
from train.rows import collate, label_loss

LENGTH = 64
CONFIG = LlamaConfig(
    vocab_size=600,
    hidden_size=256,
    intermediate_size=768,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    tie_word_embeddings=False,
)


def params(*overrides: str) -> Any:
    return load(None, [f"pack.length={LENGTH}", "finetune.train_embeddings=false", *overrides])


def peak_of_a_step(settings: Any, rows: int) -> int:
    """Bytes alive at once in a real step that has run before, by the allocations that torch's profiler saw."""
    model = attach_adapter(LlamaForCausalLM(CONFIG), settings)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    assert use_document_attention(model)
    model.train()
    row = {"input_ids": [5] * LENGTH, "labels": [5] * LENGTH, "document_lengths": [LENGTH]}
    batch = collate([row] * rows)
    labels = batch.pop("labels")
    label_loss(model(**batch, use_cache=False), labels).backward()
    with torch.profiler.profile(profile_memory=True) as profile:
        label_loss(model(**batch, use_cache=False), labels).backward()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("checkpointing", ["false", "true"])
def test_activations_are_those_of_a_real_step(method: str, checkpointing: str) -> None:
    given = params(f"finetune.method={method}", f"finetune.gradient_checkpointing={checkpointing}")
    needs = estimate(given, CONFIG, "cpu")
    real = {rows: peak_of_a_step(given.finetune, rows) for rows in (1, 2, 4)}
    constant = 2 * real[1] - real[2]
    assert needs.row * 4 + constant == pytest.approx(real[4], rel=0.15 if checkpointing == "true" else 0.05)


def test_checkpointing_takes_less_and_multiplies_more() -> None:
    plain, less = (estimate(params(f"finetune.gradient_checkpointing={on}"), CONFIG, "cpu") for on in ("false", "true"))
    assert less.row < 0.6 * plain.row
    assert 1.3 < less.operations / plain.operations < 1.6


def test_weights_and_their_state_are_those_of_the_model() -> None:
    model = LlamaForCausalLM(CONFIG)
    weights = 4 * model.num_parameters()
    full = estimate(params("finetune.method=full"), CONFIG, "cpu").fixed
    assert (full["trained weights"], full["gradients"], full["Adam's two moments"]) == (weights, weights, 2 * weights)
    rank = 8
    lora = estimate(params("finetune.method=lora", f"finetune.rank={rank}"), CONFIG, "cuda").fixed
    shapes = [p.shape for name, p in model.named_parameters() if "proj" in name]
    assert lora["weights"] == weights / 2  # 16 bits on a GPU
    assert lora.get("trained weights", 0) in (0, 4 * rank * sum(map(sum, shapes)))  # below a megabyte it has no line


@pytest.mark.parametrize("method", ["qlora", "int8"])
def test_quantised_weights_are_those_of_bitsandbytes(method: str, tmp_path: Path) -> None:
    config = LlamaConfig(**CONFIG.to_dict() | {"hidden_size": 512, "intermediate_size": 1536, "num_attention_heads": 8})
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    model = load_model(tmp_path, "base.model", method=method)
    real = model.get_memory_footprint()
    for module in model.modules():  # what the footprint leaves out: the scales of nf4
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if state is not None:
            real += sum(t.nbytes for t in (state.absmax, state.state2.absmax, state.state2.code, state.code))
    found = estimate(params(f"finetune.method={method}"), config, "cpu").fixed["weights"]
    assert found == pytest.approx(real, rel=0.03)


def test_operations_are_four_or_six_for_each_weight() -> None:
    weights = sum(p.numel() for name, p in LlamaForCausalLM(CONFIG).named_parameters() if "embed" not in name)
    full = estimate(params("finetune.method=full"), CONFIG, "cpu").operations
    lora = estimate(params("finetune.rank=1"), CONFIG, "cpu").operations
    assert full == pytest.approx(6 * weights, rel=0.05)
    assert lora == pytest.approx(4 * weights, rel=0.05)


def test_what_does_not_fit_is_made_to_fit_step_by_step(tmp_path: Path) -> None:
    config = LlamaConfig(**CONFIG.to_dict() | {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 3})
    config.save_pretrained(tmp_path)
    given = params(f"base.model={tmp_path}", "finetune.method=full", "pack.length=1024", "finetune.rows_per_step=8")
    assert "It fits." in plan(given, tmp_path, "24")
    said = plan(given, tmp_path, "1.0")
    assert "does not fit" in said
    totals = [float(total) for total in re.findall(r"→ ([\d.]+) GiB", said)]
    assert totals == sorted(totals, reverse=True)
    assert said.splitlines()[-1].count("which fits") == 1
    assert totals[-1] <= 1.0 < min(totals[:-1], default=2)
    overrides = re.findall(r"^  ([\w.]+): (\w+)  →", said, re.MULTILINE)
    changed = params(
        f"base.model={tmp_path}",
        *("finetune.method=full", "pack.length=1024", "finetune.rows_per_step=8"),
        *(f"{key}={value}" for key, value in overrides),
    )
    assert "It fits." in plan(changed, tmp_path, "1.0")
    assert "Even so it does not fit" in plan(given, tmp_path, "0.85")


def test_batch_auto_comes_to_what_memory_holds(tmp_path: Path) -> None:
    CONFIG.save_pretrained(tmp_path)
    given = params(f"base.model={tmp_path}", "finetune.rows_per_step=64", "pack.length=512")
    batches = [re.search(r"auto will be (\d+) of 64", plan(given, tmp_path, card)) for card in ("0.9", "24")]
    assert [int(batch[1]) for batch in batches if batch] == sorted(int(batch[1]) for batch in batches if batch)
    assert batches[1] and batches[1][1] == "64"


def test_cards() -> None:
    assert choose_card("RTX 3090") == choose_card("NVIDIA GeForce RTX 3090") == choose_card("3090")
    assert choose_card("A100-80GB").memory == 80 * GIB
    assert choose_card("12GB").speed is None
    assert {choose_card(name).name for name in CARDS} == {*CARDS}
    for wrong in ("RTX 3060 Ti", "A100", "Voodoo 2", "-4", "0", "nan", "inf", ""):
        with pytest.raises(UserError, match="--card"):
            choose_card(wrong)


@pytest.mark.parametrize(
    ("name", "speed"),
    [("NVIDIA A100-SXM4-80GB", 312e12), ("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA L40", None)],
)
def test_the_gpu_at_hand(name: str, speed: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    found = SimpleNamespace(name=name, total_memory=16 * GIB)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: found)
    monkeypatch.setattr(train.plan, "device", lambda: "cuda")
    assert choose_card(None) == (name, 16 * GIB, speed, "cuda")


def test_a_cpu_has_what_its_control_group_may_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(train.plan, "MEMORY_LIMITS", (limit,))
    machine = train.plan.cpu_memory()
    for written, expected in (("max\n", machine), (f"{machine // 2}\n", machine // 2), ("9" * 19, machine)):
        limit.write_text(written)
        assert train.plan.cpu_memory() == expected


def test_no_model_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="run `train base`"):
        load_config(load(None), tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"base\.model: .*nobody/nothing.* without a network"):
        load_config(load(None, ["base.model=nobody/nothing"]), tmp_path)


def test_a_model_that_cannot_be_followed_is_one_sentence() -> None:
    given = params("finetune.peft={peft_type: PROMPT_TUNING, num_virtual_tokens: 4}")
    with pytest.raises(UserError, match=r"cannot be followed .* peak_mb"):
        estimate(given, CONFIG, "cpu")
