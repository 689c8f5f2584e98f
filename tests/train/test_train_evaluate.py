"""Scores: every token once, whatever the length; pinned sets that stay; the same path for all three models."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from tiny_project import built, make_run, text

import train.evaluate
from corpus.errors import UserError
from corpus.stage import execute
from train.evaluate import generate, generation_scores, generation_task, pinned_sets, start_token, token_nats
from train.models import load_model, load_tokenizer
from train.pack import Document

SETS = {"pinned-en": 3, "pinned-zh": 3, "test-en": 3, "test-zh-Hans": 4}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def model(project: Path):
    return load_model(project / "data" / "base", "base.model").eval()


@pytest.fixture(scope="module")
def tokenizer(project: Path):
    return load_tokenizer(project / "data" / "base", "base.model")


@pytest.fixture(scope="module")
def metrics(project: Path):
    return execute(train.evaluate, make_run("evaluate", project))


def loss_after(model, ids: list[int], context: int, position: int) -> float:
    """The loss of one token after so many before it, by itself."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids[position - context : position]]), use_cache=False).logits[0, -1]
    return -torch.log_softmax(logits, -1)[ids[position]].item()


@pytest.mark.parametrize("words", [0, 1, 12, 150])
def test_every_token_is_scored_once_with_what_stands_before_it(model, tokenizer, words: int):
    written = text("zh-Hans", words, 5) if words else ""
    ids = [start_token(tokenizer), *tokenizer(written, add_special_tokens=False)["input_ids"]]
    window = 16
    expected = []
    for position in range(1, len(ids)):
        # The first window whole, then steps of half a window: what a token has before it follows from where it stands.
        first = position < window
        begin = 0 if first else min((position - window) // 8 * 8 + 8, len(ids) - window)
        expected.append(loss_after(model, ids, position - begin, position))
    assert token_nats(model, tokenizer, written, window) == pytest.approx(expected, abs=1e-4)


def test_scores_of_all_models_and_sets(project: Path, metrics):
    assert metrics["rows"] == {"in": sum(SETS.values()), "generated": 0, "kept": sum(SETS.values()), "dropped": 0}
    assert {name: one["documents"] for name, one in metrics["sets"].items()} == SETS
    for name, one in metrics["sets"].items():
        for who in ("base", "adapted", "control"):
            assert set(one[who]) == {"bits_per_byte", "perplexity", "bleu", "chrf", "rouge_l"}
            assert 0 < one[who]["bits_per_byte"] < 8 and 1 < one[who]["perplexity"] < 400
        lower = "adapted" if one["adapted"]["bits_per_byte"] < one["control"]["bits_per_byte"] else "control"
        assert metrics["winner"][name] == lower
        assert one["adapted"]["bits_per_byte"] < one["base"]["bits_per_byte"]


def test_bits_per_byte_are_nats_over_the_bytes_of_the_text(project: Path, model, tokenizer, metrics):
    documents = pinned_sets(project / "data" / "evaluation")[1].documents
    nats = sum(sum(token_nats(model, tokenizer, document.text, 64)) for document in documents)
    size = sum(len(document.text.encode()) for document in documents)
    assert metrics["sets"]["pinned-zh"]["bytes"] == size
    assert metrics["sets"]["pinned-zh"]["base"]["bits_per_byte"] == pytest.approx(nats / math.log(2) / size)


def test_samples_say_what_each_model_wrote(project: Path, tokenizer, metrics):
    lines = (project / "data" / "evaluate" / "samples.jsonl").read_text("utf-8").splitlines()
    samples = [json.loads(line) for line in lines]
    assert [sample["set"] for sample in samples] == [name for name in SETS for _ in range(2)]
    assert all({"id", "prompt", "reference", "base", "adapted", "control"} < set(sample) for sample in samples)
    document = pinned_sets(project / "data" / "evaluation")[0].documents[0]
    assert samples[0]["prompt"] + samples[0]["reference"] in document.text


def test_two_workers_say_the_same(project: Path, metrics, tmp_path: Path):
    run = make_run("evaluate", project, tmp_path / "out", workers=2)
    assert execute(train.evaluate, dataclasses.replace(run, reports=None)) == metrics


def test_parameters_do_not_touch_the_pinned_sets(project: Path, metrics):
    overrides = ("evaluate.seed=7", "evaluate.test_documents=1", "pack.length=32", "base.context=64")
    sets = pinned_sets(make_run("evaluate", project, None, *overrides).data / "evaluation")
    assert [one.fingerprint for one in sets] == [metrics["sets"][f"pinned-{x}"]["fingerprint"] for x in ("en", "zh")]
    changed = dataclasses.replace(sets[0], documents=sets[0].documents[1:])
    assert changed.fingerprint != sets[0].fingerprint


def test_the_repository_pins_twenty_kilobytes_a_language():
    folder = Path(__file__).parents[2] / "data" / "evaluation"
    for one in pinned_sets(folder):
        assert sum(len(document.text.encode()) for document in one.documents) > 20_000


def test_of_a_dialogue_the_answer_is_asked(project: Path, tokenizer):
    messages = [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "because of it"}]
    settings = make_run("evaluate", project).params.evaluate
    ids, prompt, reference = generation_task(tokenizer, Document("d", "", "en", messages), 64, settings)
    assert tokenizer.decode(ids) == "<|bos|>user\nwhy?<|eos|>\n<|bos|>assistant\n" and "why?" in prompt
    assert "because of it".startswith(reference) and reference


def test_prompts_of_different_lengths_are_answered_as_if_alone(model, tokenizer):
    prompts = [tokenizer(text("en", words, words))["input_ids"] for words in (3, 9, 14)]
    alone = [generate(model, tokenizer, [prompt], 5)[0] for prompt in prompts]
    assert generate(model, tokenizer, prompts, 5) == alone and all(alone)


def test_chinese_is_scored_by_character():
    scores = generation_scores(["他打开了文件"], ["他打开了目录"], "zh-Hans")
    assert scores["bleu"] > 40 and scores["rouge_l"] == pytest.approx(100 * 4 / 6, abs=1e-3)
    assert generation_scores(["a b"], ["c d"], "en")["rouge_l"] == 0
    assert generation_scores([""], ["c d"], "en") == {"bleu": 0.0, "chrf": 0.0, "rouge_l": 0.0}


def test_refusals(project: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"holds no adapter: adapter_config\.json is missing; run `train finetune`"):
        execute(train.evaluate, dataclasses.replace(make_run("evaluate", project), inputs=(tmp_path,)))
    pickled = shutil.copytree(project / "data" / "finetune", tmp_path / "pickled")
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    with pytest.raises(UserError, match=r"pickled holds no adapter: adapter_model\.safetensors is missing"):
        execute(train.evaluate, dataclasses.replace(make_run("evaluate", project), inputs=(pickled,)))
    (pickled / "adapter_model.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match="pickled does not fit the base"):
        execute(train.evaluate, dataclasses.replace(make_run("evaluate", project), inputs=(pickled,)))
    (tmp_path / "en.jsonl").write_text('{"id": "a", "text": "b"}\n{"id": 1}\n')
    with pytest.raises(UserError, match=r"en\.jsonl: line 2 is not"):
        pinned_sets(tmp_path)
    with pytest.raises(UserError, match=r"nowhere/en\.jsonl cannot be read"):
        pinned_sets(tmp_path / "nowhere")
