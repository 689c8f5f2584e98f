"""Rows without padding and attention by document: nothing crosses a document's bounds, and each label counts once."""

from __future__ import annotations

import contextlib
import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainingArguments

from train.attention import use_document_attention
from train.models import load_model, prepare_torch
from train.rows import collate, collate_padded, label_loss

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100}
GROUPED = {"intermediate_size": 64, "num_key_value_heads": 2, "max_position_embeddings": 64, "head_dim": 8}
WINDOW = {**GROUPED, "sliding_window": 5}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", GROUPED),
    "qwen2": ("qwen2", GROUPED),
    "qwen2, window": ("qwen2", {**WINDOW, "use_sliding_window": True, "max_window_layers": 1}),
    "qwen3": ("qwen3", GROUPED),
    "mistral, window": ("mistral", WINDOW),
    "gemma": ("gemma", GROUPED),
    "gemma2, soft caps and window": ("gemma2", WINDOW),
    "gpt_oss, sinks and window": ("gpt_oss", {**WINDOW, **EXPERTS}),
    "mistral, wide window": ("mistral", {**GROUPED, "sliding_window": 16}),
    "gpt_oss, wide window": ("gpt_oss", {**GROUPED, **EXPERTS, "sliding_window": 16}),
    "phimoe": ("phimoe", {**GROUPED, **EXPERTS}),
    "gpt_neox": ("gpt_neox", {"intermediate_size": 64, "max_position_embeddings": 64}),
    "opt, learned positions": ("opt", {"ffn_dim": 64, "word_embed_proj_dim": 32, "dropout": 0.0}),
}
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "phimoe, window that its attention is not told of": ("phimoe", {**GROUPED, **EXPERTS, "sliding_window": 16}),
    "bloom": ("bloom", {}),
    "mamba": ("mamba", {"state_size": 4}),
    "falcon": ("falcon", {}),
    "llama4, chunks": ("llama4_text", {**GROUPED, **EXPERTS, "attention_chunk_size": 6}),
}


def small_model(name: str, other: dict[str, Any]) -> Any:
    prepare_torch(1, 0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **SMALL | other))
    with torch.no_grad():
        for parameter in model.parameters():  # a fresh one pays too little attention to show what it sees
            if parameter.dim() > 1:
                parameter.normal_(std=0.2)
    return model


def packed(*documents: torch.Tensor) -> dict[str, Any]:
    lengths = [len(document) for document in documents]
    positions = torch.cat([torch.arange(length) for length in lengths])
    return {"input_ids": torch.cat(documents)[None], "position_ids": positions[None], "document_lengths": lengths}


def logits(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs, use_cache=False).logits[0]


def row(*lengths: int, seed: int = 0, pads: int = 0, vocabulary: int = 100) -> dict[str, Any]:
    """A row of a pack; about half of the tokens are to be learned."""
    random = np.random.default_rng(seed)
    tokens = random.integers(vocabulary, size=sum(lengths) + pads)
    labels = np.where(random.random(len(tokens)) < 0.5, tokens, -100)
    labels[np.cumsum([0, *lengths[:-1]])] = labels[sum(lengths) :] = -100
    return {"input_ids": tokens.tolist(), "labels": labels.tolist(), "document_lengths": list(lengths)}


# ---- attention -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", MODELS)
def test_a_packed_document_is_as_if_alone(name: str, training: bool):
    model = small_model(*MODELS[name]).eval()
    first, other, second, third = (torch.randint(100, (length,)) for length in (17, 17, 12, 1))
    alone = [logits(model, {"input_ids": document[None]}) for document in (first, second, third)]
    assert use_document_attention(model) and not model.training
    model.train(training)
    together = logits(model, packed(first, second, third))
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)
    replaced = logits(model, packed(other, second, third))
    assert torch.equal(replaced[17:], together[17:]) and not torch.equal(replaced[:17], together[:17])
    kept = logits(model, packed(first, second, third) | {"logits_to_keep": torch.tensor([3, 20, 29])})
    torch.testing.assert_close(kept, together[[3, 20, 29]], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_those_of_the_documents_alone(name: str):
    model = small_model(*MODELS[name])
    apart = copy.deepcopy(model)
    rows = [row(9, 3, 14, seed=1, pads=4), row(11, seed=2)]
    batch = collate(rows)
    labels = batch.pop("labels")
    assert use_document_attention(model)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    loss = label_loss(model(**batch), labels)
    loss.backward()
    nats, count = torch.tensor(0.0), 0
    for each in rows:
        start = 0
        for length in each["document_lengths"]:
            tokens, learned = (torch.tensor(each[c][start : start + length]) for c in ("input_ids", "labels"))
            found = apart(input_ids=tokens[None], use_cache=False).logits[0, :-1]
            nats = nats + cross_entropy(found, learned[1:], reduction="sum")
            count += int((learned[1:] != -100).sum())
            start += length
    (nats / count).backward()
    assert loss.item() == pytest.approx(nats.item() / count, abs=1e-5)
    expected = dict(apart.named_parameters())
    for parameter, mine in model.named_parameters():
        if mine.grad is not None and expected[parameter].grad is not None:
            torch.testing.assert_close(mine.grad, expected[parameter].grad, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", OTHERS)
def test_other_models_keep_their_attention_and_train_on_padded_rows(name: str):
    model = small_model(*OTHERS[name])
    before = model.config._attn_implementation
    assert not use_document_attention(model)
    assert model.config._attn_implementation == before and model.training
    rows = [row(9, 3, seed=1, pads=4), row(7, seed=2)]
    batch = collate_padded(rows)
    labels = batch.pop("labels")
    together = label_loss(model.eval()(**batch, use_cache=False), labels, 1).item()
    alone = 0.0
    for ids, learned, length in zip(batch["input_ids"], labels, (9, 3, 7), strict=True):
        outputs = model(input_ids=ids[None, :length], use_cache=False)
        alone += cross_entropy(outputs.logits[0, :-1], learned[1:length], reduction="sum").item()
    assert together == pytest.approx(alone, rel=1e-4)


@pytest.mark.parametrize("first", ["adapter", "attention"])
def test_with_an_adapter(first: str):
    model = small_model(*MODELS["llama"])
    if first == "attention":
        assert use_document_attention(model)
    model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    assert use_document_attention(model) and use_document_attention(model)
    one, other, second = (torch.randint(100, (10,)) for _ in range(3))
    found = [logits(model.eval(), packed(document, second))[10:] for document in (one, other)]
    assert torch.equal(*found)


def test_a_tuned_prompt_takes_padded_rows():
    model = get_peft_model(
        small_model(*MODELS["llama"]), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    )
    assert not use_document_attention(model)
    batch = collate_padded([row(9, 3, seed=1)])
    labels = batch.pop("labels")
    loss = label_loss(model(**batch), labels, 1)
    alone = sum(
        cross_entropy(model(input_ids=ids[None]).logits[0, 3:-1], learned[1:], reduction="sum")
        for ids, learned in zip(batch["input_ids"], labels, strict=True)
    )
    assert loss.item() == pytest.approx(alone.item(), rel=1e-5)


@pytest.mark.parametrize("method", ["qlora", "int8"])
def test_quantised(method: str, tmp_path: Path):
    small_model("llama", GROUPED | {"hidden_size": 64}).save_pretrained(tmp_path)
    model = load_model(tmp_path, "base.model", method=method)
    assert use_document_attention(model)
    one, other, second = (torch.randint(100, (10,)) for _ in range(3))
    found = [logits(model.eval(), packed(document, second))[10:] for document in (one, other)]
    assert torch.equal(*found) if method == "qlora" else (found[0] - found[1]).abs().max() < 0.05 * found[0].abs().max()


def test_half_precision_is_no_reason_to_refuse():
    assert use_document_attention(small_model(*MODELS["qwen3"]).to(torch.bfloat16))


@pytest.mark.parametrize("change", [{"document_lengths": [10, 11]}, {"document_lengths": []}, {"input_ids": 2}])
def test_wrong_lengths_are_refused_rather_than_attended(change: dict[str, Any]):
    model = small_model(*MODELS["llama"])
    assert use_document_attention(model)
    inputs = packed(torch.arange(10), torch.arange(10))
    if "input_ids" in change:
        change = {"input_ids": inputs["input_ids"].repeat(change["input_ids"], 1)}
    with pytest.raises(ValueError, match="document_lengths that sum to its tokens"):
        model(**inputs | change)


# ---- rows ------------------------------------------------------------------------------------------------------------

PIECES = st.lists(
    st.lists(st.tuples(st.integers(1, 99), st.booleans()), min_size=1, max_size=9), min_size=1, max_size=5
)


@given(st.lists(st.tuples(PIECES, st.integers(0, 6)), min_size=1, max_size=4))
def test_collate_against_a_slow_and_obvious_one(drawn: list[tuple[list[list[tuple[int, bool]]], int]]):
    rows = [
        {
            "input_ids": [token for piece in pieces for token, _ in piece] + [0] * pads,
            "labels": [token if learn else -100 for piece in pieces for token, learn in piece] + [-100] * pads,
            "document_lengths": [len(piece) for piece in pieces],
        }
        for pieces, pads in drawn
    ]
    tokens, positions, keep, learned, padded = [], [], [], [], []
    for pieces, _ in drawn:
        for piece in pieces:
            padded.append(([token for token, _ in piece], [-100]))
            for position, (token, learn) in enumerate(piece):
                if learn and position > 0:
                    keep.append(len(tokens) - 1)
                    learned.append(token)
                if position > 0:
                    padded[-1][1].append(token if learn else -100)
                tokens.append(token)
                positions.append(position)
    batch = collate(rows)
    assert batch["input_ids"].tolist() == [tokens] and batch["position_ids"].tolist() == [positions]
    assert batch["document_lengths"] == [len(ids) for ids, _ in padded]
    assert batch["logits_to_keep"].tolist() == keep and batch["labels"].tolist() == [-100, *learned]
    batch = collate_padded(rows)
    longest = max(len(ids) for ids, _ in padded)
    assert batch["input_ids"].tolist() == [ids + [0] * (longest - len(ids)) for ids, _ in padded]
    assert batch["labels"].tolist() == [labels + [-100] * (longest - len(labels)) for _, labels in padded]


def test_a_batch_without_labels_has_the_loss_0_and_a_gradient():
    model = small_model(*MODELS["llama"])
    assert use_document_attention(model)
    for count in (None, torch.tensor(0)):
        batch = collate([row(5, 4) | {"labels": [-100] * 9}])
        labels = batch.pop("labels")
        loss = label_loss(model(**batch), labels, count)
        loss.backward()
        assert loss.item() == 0 and all(not p.grad.any() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("by_document", [True, False])
def test_accumulation_changes_nothing(by_document: bool, tmp_path: Path):
    rows = [row(*lengths, seed=n, pads=n % 3) for n, lengths in enumerate([(9, 3), (17,), (2, 2, 5), (4,)] * 4)]
    rows[3]["labels"] = [-100] * len(rows[3]["labels"])  # a batch of its own where batches are small
    found = []
    for batch, accumulated in ((8, 1), (4, 2), (2, 4), (1, 8)):
        model = small_model(*MODELS["llama"])
        assert not by_document or use_document_attention(model)
        arguments = TrainingArguments(
            output_dir=str(tmp_path),
            max_steps=2,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulated,
            learning_rate=0.1,
            train_sampling_strategy="sequential",
            optim="sgd",  # Adam would blow up the last bits of small gradients
            max_grad_norm=1.0,
            use_cpu=True,
            remove_unused_columns=False,
            save_strategy="no",
            logging_steps=1,
            report_to="none",
            disable_tqdm=True,
        )
        trainer = Trainer(
            model,
            arguments,
            train_dataset=rows,
            data_collator=collate if by_document else collate_padded,
            compute_loss_func=label_loss,
        )
        with contextlib.redirect_stdout(None):
            trainer.train()
        losses = [event["loss"] for event in trainer.state.log_history if "loss" in event]
        found.append((torch.tensor(losses), torch.nn.utils.parameters_to_vector(model.parameters()).detach()))
    for losses, weights in found[1:]:
        torch.testing.assert_close(losses, found[0][0], atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(weights, found[0][1], atol=1e-6, rtol=0)
    first = collate(rows[:8])  # by hand
    labels = first.pop("labels")
    model = small_model(*MODELS["llama"])
    assert use_document_attention(model)
    nats = cross_entropy(logits(model, first), labels[1:])
    assert found[0][0][0].item() == pytest.approx(nats.item(), rel=1e-5)
