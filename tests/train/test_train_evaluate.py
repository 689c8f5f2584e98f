"""Scores: every token once, whatever the length; pinned sets that stay; the same path for all models."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_project import dialogue, make_run, params, text, with_base

import train.evaluate
from corpus.errors import UserError
from corpus.stage import Run, execute
from train.compare import compare
from train.evaluate import pinned_sets
from train.models import load_finetuned, load_model, load_tokenizer
from train.scores import (
    Example,
    batches,
    exact_match,
    generate,
    label_said,
    label_scores,
    question,
    start_token,
    text_scores,
    to_score,
    token_scores,
    windows,
)
from train.shards import Document


def text_rows(tokenizer, texts):
    return [to_score(tokenizer, Example("", text)).ids for text in texts]


SETS = {"pinned-en": 3, "pinned-zh": 3, "test-en": 3, "test-zh-Hans": 4}
TEXT_SCORES = ("bleu", "chrf", "rouge_1", "rouge_2", "rouge_l")
LABEL_SCORES = ("accuracy", "majority_accuracy", "macro_f1", "no_answer")
TEMPLATE = """
applies_to: {source: reviews}
answers: ANSWERS
prompt: "{{ text }} 评价："
answer: "{{ answers[label] }}"
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny project with two adapters of random weights, as finetune leaves them."""
    from peft import LoraConfig, get_peft_model

    source = with_base(tmp_path_factory.getbasetemp())
    project = tmp_path_factory.mktemp("evaluated")
    shutil.copytree(source / "data", project / "data", dirs_exist_ok=True)
    for seed, folder in enumerate(("finetune", "finetune/control")):
        torch.manual_seed(seed)
        base = load_model(project / "data" / "base", "base.model")
        settings = LoraConfig(target_modules="all-linear", r=4, init_lora_weights=False, task_type="CAUSAL_LM")
        get_peft_model(base, settings).save_pretrained(project / "data" / folder)
    return project


@pytest.fixture(scope="module")
def model(project: Path):
    return load_model(project / "data" / "base", "base.model").eval()


@pytest.fixture(scope="module")
def tokenizer(project: Path):
    return load_tokenizer(project / "data" / "base", "base.model")


@pytest.fixture(scope="module")
def metrics(project: Path):
    return execute(train.evaluate, make_run("evaluate", project))


def elsewhere(project: Path, folder: Path, *overrides: str) -> Run:
    """A run on a copy of the project that a test may change."""
    shutil.copytree(project / "data", folder / "data")
    return make_run("evaluate", folder, None, *overrides)


def write_lines(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


# ---- tokens ----------------------------------------------------------------------------------------------------------


def alone(model, tokenizer, written: str, window: int) -> list[tuple[float, bool]]:
    """Each token's loss by itself, after what stands before it: the first window whole, then steps of half a window."""
    ids = [start_token(tokenizer), *tokenizer(written, add_special_tokens=False)["input_ids"]]
    found = []
    for position in range(1, len(ids)):
        begin = (
            0
            if position < window
            else min((position - window) // (window // 2) * (window // 2) + window // 2, len(ids) - window)
        )
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids[begin:position]]), use_cache=False).logits[0, -1]
        found.append((-torch.log_softmax(logits, -1)[ids[position]].item(), int(logits.argmax()) == ids[position]))
    return found


def test_every_token_is_scored_once_with_what_stands_before_it(model, tokenizer):
    texts = [text("zh-Hans", words, 5) if words else "" for words in (12, 0, 150, 1, 40)]
    expected = [alone(model, tokenizer, written, 16) for written in texts]
    for found, own in zip(token_scores(model, text_rows(tokenizer, texts), 16), expected, strict=True):
        assert [loss for loss, _ in found] == pytest.approx([loss for loss, _ in own], abs=1e-4)
        assert [right for _, right in found] == [right for _, right in own]


@given(st.integers(0, 300), st.integers(2, 40))
def test_windows_score_each_token_once(length: int, window: int):
    spans = list(windows(length, window))
    assert [token for _, end, scored in spans for token in range(scored + 1, end)] == list(range(1, length))
    assert all(0 <= begin <= scored and end - begin <= window for begin, end, scored in spans)


@given(st.lists(st.integers(1, 50)), st.integers(1, 100))
def test_batches_hold_each_row_once_and_no_more_than_they_may(lengths: list[int], tokens: int):
    found = list(batches(lengths, tokens))
    assert sorted(row for batch in found for row in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= tokens for batch in found)


# ---- the stage -------------------------------------------------------------------------------------------------------


def test_scores_of_all_models_and_sets(metrics):
    assert metrics["rows"] == {"in": sum(SETS.values()), "generated": 0, "kept": sum(SETS.values()), "dropped": 0}
    assert {name: one["documents"] for name, one in metrics["sets"].items()} == SETS
    for name, one in metrics["sets"].items():
        for who in ("base", "adapted", "control"):
            assert 0 < one[who]["bits_per_byte"] < 12 and one[who]["perplexity"] > 1
            assert 0 <= one[who]["token_accuracy"] <= 1
            assert all(0 <= one[who][score] <= 100 for score in TEXT_SCORES)
            assert all(one[who][score] is None for score in LABEL_SCORES)
            assert one[who]["exact_match"] is None or name == "test-zh-Hans"  # where the dialogue is
        lower = "adapted" if one["adapted"]["bits_per_byte"] < one["control"]["bits_per_byte"] else "control"
        assert metrics["winner"][name] == lower
    assert metrics["forgetting"] == {}


def test_bits_per_byte_perplexity_and_token_accuracy_by_definition(project: Path, model, tokenizer, metrics):
    texts = [example.text for example in pinned_sets(project / "data" / "evaluation")[1].examples]
    found = [score for written in texts for score in alone(model, tokenizer, written, 64)]
    size, own = sum(len(written.encode()) for written in texts), metrics["sets"]["pinned-zh"]
    nats = sum(loss for loss, _ in found)
    assert (own["bytes"], own["tokens"]) == (size, len(found))
    assert own["base"]["bits_per_byte"] == pytest.approx(nats / math.log(2) / size, abs=1e-5)
    assert own["base"]["perplexity"] == pytest.approx(math.exp(nats / len(found)), rel=1e-5)
    assert own["base"]["token_accuracy"] == pytest.approx(sum(right for _, right in found) / len(found))


def test_samples_say_what_each_model_wrote(project: Path, metrics):
    lines = (project / "data" / "evaluate" / "samples.jsonl").read_text("utf-8").splitlines()
    samples = [json.loads(line) for line in lines]
    assert [sample["set"] for sample in samples] == [name for name in SETS for _ in range(2)]
    assert all({"id", "prompt", "reference", "base", "adapted", "control"} < set(sample) for sample in samples)
    document = pinned_sets(project / "data" / "evaluation")[0].examples[0]
    assert samples[0]["prompt"] in document.text and samples[0]["reference"] in document.text


def test_two_workers_say_the_same(project: Path, metrics, tmp_path: Path):
    run = make_run("evaluate", project, tmp_path / "out", workers=2)
    assert execute(train.evaluate, dataclasses.replace(run, reports=None)) == metrics
    for name in ("samples.jsonl", "ratings.csv", "ratings_key.json"):
        assert (tmp_path / "out" / name).read_bytes() == (project / "data" / "evaluate" / name).read_bytes()
    timing = json.loads((tmp_path / "out" / "timing.json").read_text())
    assert all(timing[who][figure] > 0 for who in ("base", "adapted", "control") for figure in timing["base"])


def test_without_a_control_there_is_no_winner(project: Path, metrics, tmp_path: Path):
    run = elsewhere(project, tmp_path)
    shutil.rmtree(tmp_path / "data" / "finetune" / "control")
    shutil.copy(tmp_path / "data" / "evaluation" / "en.jsonl", tmp_path / "data" / "evaluation" / "general-en.jsonl")
    found = execute(train.evaluate, run)
    one = found["sets"]["pinned-en"]
    assert "control" not in one and one["adapted"] == metrics["sets"]["pinned-en"]["adapted"]
    assert set(found["winner"].values()) == {None}
    samples = (tmp_path / "data" / "evaluate" / "samples.jsonl").read_text("utf-8").splitlines()
    assert not any("control" in json.loads(line) for line in samples)
    assert found["forgetting"] == {
        "pinned-general-en": {
            "bits_per_byte": one["adapted"]["bits_per_byte"] - one["base"]["bits_per_byte"],
            "perplexity_before": one["base"]["perplexity"],
            "perplexity_after": one["adapted"]["perplexity"],
        }
    }


def test_without_a_test_shard_the_pinned_sets_are_all(project: Path, metrics, tmp_path: Path):
    run = elsewhere(project, tmp_path, "evaluate.samples=1", "evaluate.new_tokens=2")
    shutil.rmtree(tmp_path / "data" / "shard" / "test")
    found = execute(train.evaluate, run)
    assert set(found["sets"]) == {"pinned-en", "pinned-zh"} and found["rows"]["in"] == 6


def test_rows_of_the_test_shard_that_are_no_documents_are_dropped(project: Path, tmp_path: Path):
    run = elsewhere(project, tmp_path, "evaluate.samples=1", "evaluate.new_tokens=2")
    shard = tmp_path / "data" / "shard" / "test"
    shutil.rmtree(shard)
    shard.mkdir()
    (shard / "x.jsonl").write_text('{"id": "1", "text": "a file is", "lang": "en"}\nbroken\n{"text": 5}\n')
    found = execute(train.evaluate, run)
    assert found["rows"] == {"in": 9, "generated": 0, "kept": 7, "dropped": 2}
    assert found["dropped_by_reason"] == {"pack.error.json": 1, "pack.error.text": 1}


def test_an_adapter_is_scored_on_the_base_it_was_trained_on(project: Path, metrics, tmp_path: Path):
    run = elsewhere(project, tmp_path, "evaluate.samples=1", "evaluate.new_tokens=2")
    (tmp_path / "reports").mkdir(exist_ok=True)
    (tmp_path / "reports" / "finetune.json").write_text('{"adapted": {"method": "qlora"}}')
    found, before = execute(train.evaluate, run)["sets"]["pinned-en"], metrics["sets"]["pinned-en"]
    folders = (tmp_path / "data" / "base", tmp_path / "data" / "finetune")
    adapted, tokenizer = load_finetuned(*folders, method="qlora").eval(), load_tokenizer(folders[0], "base.model")
    texts = [example.text for example in pinned_sets(tmp_path / "data" / "evaluation")[0].examples]
    nats = sum(loss for own in token_scores(adapted, text_rows(tokenizer, texts), 64) for loss, _ in own)
    assert found["adapted"]["bits_per_byte"] == pytest.approx(nats / math.log(2) / found["bytes"], abs=1e-5)
    assert found["adapted"]["bits_per_byte"] != before["adapted"]["bits_per_byte"]
    assert found["base"]["bits_per_byte"] == before["base"]["bits_per_byte"]


def test_a_whole_model_is_scored_like_an_adapter(project: Path, metrics, tmp_path: Path):
    run = dataclasses.replace(make_run("evaluate", project, tmp_path / "out"), inputs=(project / "data" / "base",))
    found = execute(train.evaluate, dataclasses.replace(run, reports=None))["sets"]["pinned-en"]
    assert found["adapted"] == found["base"] == metrics["sets"]["pinned-en"]["base"]


def test_prompt_tuning_is_scored_token_by_token(model, tokenizer, project: Path):
    from peft import PromptTuningConfig, get_peft_model

    base = load_model(project / "data" / "base", "base.model").eval()
    tuned = get_peft_model(base, PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")).eval()
    texts = [text("en", words, 1) for words in (5, 30)]
    plain = token_scores(model, text_rows(tokenizer, texts), 32)
    found = token_scores(tuned, text_rows(tokenizer, texts), 32)
    assert [len(own) for own in found] == [len(own) for own in plain] and found != plain
    assert generate(tuned, tokenizer, [tokenizer(texts[0])["input_ids"]], 4)[1] > 0


def test_labels_are_asked_for_by_the_template(project: Path, tokenizer, tmp_path: Path):
    """The answers are what this model happens to say, so that some of them are right."""
    texts, said = [text("en", 2 + n, n) for n in range(12)], []
    model = load_finetuned(project / "data" / "base", project / "data" / "finetune").eval()
    for written in texts:
        asked = [{"role": "user", "content": f"{written} 评价："}]
        prompt = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"][-58:]
        said.append(generate(model, tokenizer, [ids], 6)[0][0].strip())
    answers = {"0": max(filter(None, said), key=said.count), "1": "closed", "2": "opened"}
    (tmp_path / "reviews.yaml").write_text(TEMPLATE.replace("ANSWERS", json.dumps(answers)), "utf-8")
    run = elsewhere(project, tmp_path, f"pack.templates=[{tmp_path / 'reviews.yaml'}]", "evaluate.new_tokens=6")
    labels = ["0" if own == answers["0"] and n % 4 else "12"[n % 2] for n, own in enumerate(said)]
    rows = [
        {"id": own, "text": own, "label": label, "source": "reviews"} for own, label in zip(texts, labels, strict=True)
    ]
    rows.append({"id": "x", "text": "without label", "source": "reviews"})
    write_lines(tmp_path / "data" / "evaluation" / "reviews.jsonl", rows)
    one = execute(train.evaluate, run)["sets"]["pinned-reviews"]["adapted"]
    found = [label_said(output, answers) for output in said]
    right = [own == label for own, label in zip(found, labels, strict=True)]
    assert any(right) and not all(right)
    assert one["accuracy"] == pytest.approx(sum(right) / 12)
    assert one["majority_accuracy"] == pytest.approx(max(map(labels.count, "012")) / 12)
    assert one["no_answer"] == found.count(None) and 0 < one["macro_f1"] < 1
    assert one["bleu"] is None and one["bits_per_byte"] > 0


def test_answers_are_as_the_template_renders_them(tmp_path: Path):
    (tmp_path / "reviews.yaml").write_text(
        """{answers: {"0": 差, "1": 好}, prompt: "{{ text }}", answer: "这是{{ answers[label] }}评"}""", "utf-8"
    )
    [template] = train.evaluate.read_templates([tmp_path / "reviews.yaml"])
    found = train.evaluate.example(Document("a", "菜凉了", label="0"), [template], 0)
    assert found.answers == {"0": "这是差评", "1": "这是好评"} and found.messages[1]["content"] == "这是差评"
    assert label_scores(["这是差评。"], [found])["accuracy"] == 1
    for label in (None, "5"):  # it cannot be answered: a text
        assert train.evaluate.example(Document("a", "菜凉了", label=label), [template], 0) == Example("a", "菜凉了")


def test_golden(project: Path, tokenizer, tmp_path: Path):
    """Of a model of fixed weights, so that nothing but the scoring can change the scores."""
    run = elsewhere(project, tmp_path, "evaluate.samples=3", "evaluate.new_tokens=8")
    base = load_model(tmp_path / "data" / "base", "base.model")
    with torch.no_grad():
        for number, weights in enumerate(base.parameters()):
            weights.copy_(torch.sin(torch.arange(weights.numel()) * (0.37 + number)).view(weights.shape) / 2)
    base.save_pretrained(tmp_path / "data" / "finetune")
    write_lines(
        tmp_path / "data" / "evaluation" / "talk.jsonl", [{"id": "d", "text": "打开文件", "messages": dialogue(1)}]
    )
    one = execute(train.evaluate, run)["sets"]
    found = [
        one[name]["adapted"][score] for name in ("pinned-en", "pinned-talk") for score in ("bits_per_byte", "chrf")
    ]
    assert train.evaluate.VERSION == 5
    assert found == pytest.approx(GOLDEN, abs=0.01), "meant? then raise VERSION in train/evaluate.py, put these here"
    assert one["pinned-en"]["fingerprint"] == "1455e06b4752202c", "meant? then raise VERSION, put this here"


GOLDEN = [2.0248, 4.3165, 4.4339, 2.0080]


# ---- sets ------------------------------------------------------------------------------------------------------------


def test_only_what_decides_the_scores_is_in_the_fingerprint(project: Path, metrics, tmp_path: Path):
    def fingerprint(*overrides: str, **changes: object) -> str:
        write_lines(tmp_path / "en.jsonl", [{"id": "a", "text": "b", "label": "1", "source": "reviews"} | changes])
        run = make_run("evaluate", project, None, *overrides)
        templates = train.evaluate.read_templates(run.params.pack.templates)
        return pinned_sets(tmp_path, templates)[0].fingerprint(run.params)

    overrides = ("evaluate.seed=7", "evaluate.test_documents=1", "pack.length=32", "finetune.rank=2")
    params = make_run("evaluate", project, None, *overrides).params
    for one in pinned_sets(project / "data" / "evaluation"):
        assert one.fingerprint(params) == metrics["sets"][one.name]["fingerprint"]
    (tmp_path / "reviews.yaml").write_text(TEMPLATE.replace("ANSWERS", '{"0": closed, "1": opened}'), "utf-8")
    template, chat = f"pack.templates=[{tmp_path / 'reviews.yaml'}]", f"pack.chat_template={tmp_path / 'chat.jinja'}"
    (tmp_path / "chat.jinja").write_text("{% for turn in messages %}{{ turn.content }}{% endfor %}", "utf-8")
    found = [
        fingerprint(),
        fingerprint(id="c"),
        fingerprint(text="c"),
        fingerprint(messages=dialogue(1)),
        fingerprint(messages=dialogue(2)),
        fingerprint("evaluate.new_tokens=7"),
        fingerprint("evaluate.samples=7"),
        fingerprint(template),
        fingerprint(template, label="0"),
        fingerprint(chat, messages=dialogue(1)),
    ]
    assert len(set(found)) == len(found)
    assert fingerprint(template, source="other") == fingerprint()  # a template that takes none of it
    assert fingerprint(chat) == fingerprint()  # of a text without dialogue
    (tmp_path / "chat.jinja").write_text("{% for turn in messages %}> {{ turn.content }}{% endfor %}", "utf-8")
    assert fingerprint(chat, messages=dialogue(1)) != found[-1]


def test_languages_and_names_of_pinned_sets(tmp_path: Path):
    for name in ("en", "general-zh", "mine", "law.zh"):
        write_lines(tmp_path / f"{name}.jsonl", [{"id": "1", "text": "a\u2028b"}, {"id": "2", "text": "c"}])
    write_lines(tmp_path / "own.jsonl", [{"id": "1", "text": "a", "lang": "zh-Hant"}])
    assert {one.name: one.lang for one in pinned_sets(tmp_path)} == {
        "pinned-en": "en",
        "pinned-general-zh": "zh",
        "pinned-law.zh": "zh",
        "pinned-mine": "und",
        "pinned-own": "zh-Hant",
    }


def test_the_sets_of_the_repository():
    sizes = {
        one.name: [len(example.text) for example in one.examples]
        for one in pinned_sets(Path(__file__).parents[2] / "data" / "evaluation")
    }
    assert set(sizes) == {"pinned-en", "pinned-zh", "pinned-general-en", "pinned-general-zh"}
    assert sum(sizes["pinned-en"]) > 20_000 and sum(sizes["pinned-zh"]) > 7_000
    assert all(len(sizes[f"pinned-general-{lang}"]) >= 12 for lang in ("en", "zh"))
    assert all(400 <= size <= 1_000 for size in sizes["pinned-general-en"])
    assert all(200 <= size <= 500 for size in sizes["pinned-general-zh"])


# ---- answers ---------------------------------------------------------------------------------------------------------


def test_of_a_dialogue_the_answer_is_asked(tokenizer):
    messages = [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "because of it"}]
    found = question(tokenizer, Example("d", "", messages), 64, 6)
    assert found.prompt == tokenizer.decode(found.ids) == "<|bos|>user\nwhy?<|eos|>\n<|bos|>assistant\n"
    assert found.reference == "because of it" and found.answered


def test_a_dialogue_that_no_template_takes_is_its_text(tokenizer):
    messages = [{"role": "assistant", "content": "hello"}]
    for example in (Example("d", "read a file", messages), Example("d", "read a file")):
        found = question(tokenizer, example, 64, 6)
        assert (found.prompt, found.reference, found.answered) == ("read a", " file", False)


@pytest.mark.parametrize("mark", ["<|eos|>", "<|bos|>"])
def test_no_special_token_comes_from_what_is_scored(model, tokenizer, mark: str, monkeypatch: pytest.MonkeyPatch):
    """The chat template's own marks stay, the strings of them in texts, prompts and answers are text."""
    marks, written = tokenizer.convert_tokens_to_ids(["<|bos|>", "<|eos|>"]), f"read {mark} a file"
    messages = [{"role": "user", "content": written}, {"role": "assistant", "content": f"{mark} {mark}"}]
    ids = tokenizer(written, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert not {*marks} & {*ids}
    asked = Example("t", "", messages, by_template=True)
    monkeypatch.setattr(tokenizer, "chat_template", None)
    assert question(tokenizer, asked, 64, 6).ids == [start_token(tokenizer), *ids]
    monkeypatch.undo()
    whole = question(tokenizer, asked, 64, 6)
    assert whole.prompt == f"<|bos|>user\n{written}<|eos|>\n<|bos|>assistant\n" and whole.reference == f"{mark} {mark}"
    assert [token for token in whole.ids if token in marks] == [marks[0], marks[1], marks[0]]
    ids = [start_token(tokenizer), *ids]
    with torch.no_grad():
        losses = -torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0, :-1], -1)
    expected = [losses[place, token].item() for place, token in enumerate(ids[1:])]
    assert [nats for nats, _ in token_scores(model, text_rows(tokenizer, [written]), 64)[0]] == pytest.approx(
        expected, abs=1e-4
    )


def test_a_long_prompt_keeps_its_end(tokenizer):
    found = question(tokenizer, Example("d", text("en", 200, 1)), 32, 6)
    whole = question(tokenizer, Example("d", text("en", 200, 1)), 10_000, 6)
    assert found.ids == whole.ids[-26:] and whole.prompt.endswith(found.prompt) and found.reference == whole.reference


def test_prompts_of_different_lengths_are_answered_as_if_alone(model, tokenizer):
    prompts = [tokenizer(text("en", words, words))["input_ids"] for words in (3, 9, 14)]
    single = [generate(model, tokenizer, [prompt], 5)[0][0] for prompt in prompts]
    assert generate(model, tokenizer, prompts, 5)[0] == single and all(single)


def test_padding_after_the_end_is_not_counted_as_generated(model, tokenizer):
    prompts = [tokenizer(text("en", words, words))["input_ids"] for words in (3, 9, 14)]
    alone = [model.generate(torch.tensor([ids]), max_new_tokens=9, do_sample=False)[0, len(ids) :] for ids in prompts]
    ends = model.generation_config.eos_token_id
    model.generation_config.eos_token_id = [ends, int(alone[0][1])]  # so that some end early
    try:
        single = [generate(model, tokenizer, [ids], 9)[1] for ids in prompts]
        assert min(single) <= 2 and generate(model, tokenizer, prompts, 9)[1] == sum(single)
    finally:
        model.generation_config.eos_token_id = ends


# ---- scores ----------------------------------------------------------------------------------------------------------


def test_text_scores_are_those_of_the_libraries():
    import sacrebleu
    from rouge_score.rouge_scorer import RougeScorer

    made, reference = "the cat sat on a mat today", "the cat sat on the mat"
    scores = text_scores([(made, reference)], "en")
    rouge = RougeScorer(["rouge1", "rouge2", "rougeL"]).score(reference, made)
    expected = {f"rouge_{kind[-1].lower()}": 100 * score.fmeasure for kind, score in rouge.items()}
    expected |= {"bleu": sacrebleu.corpus_bleu([made], [[reference]]).score}
    expected |= {"chrf": sacrebleu.corpus_chrf([made], [[reference]]).score}
    assert scores == pytest.approx(expected) and all(scores.values())


def test_chinese_is_scored_by_character():
    scores = text_scores([("他打开了文件", "他打开了目录")], "zh-Hans")
    assert scores["bleu"] > 40 and scores["rouge_1"] == scores["rouge_l"] == pytest.approx(100 * 4 / 6)
    assert scores["rouge_2"] == pytest.approx(100 * 3 / 5)
    assert text_scores([("a b", "c d")], "en")["rouge_l"] == 0
    assert text_scores([("", "c d")], "en") == dict.fromkeys(TEXT_SCORES, 0)
    assert text_scores([], "en") == dict.fromkeys(TEXT_SCORES)


def test_exact_match():
    assert exact_match([("Yes ", "yes"), ("Ｙｅｓ", "yes"), ("no", "yes"), ("yes!", "yes")]) == 0.5
    assert exact_match([]) is None


def test_accuracy_and_macro_f1_by_hand():
    answers = {"0": "差评", "1": "好评", "2": "一般"}
    # true, said: of label 0 two of three are found, of 1 one of one but with a false one, of 2 none.
    pairs = [("0", "差评"), ("0", "差评。"), ("0", "好评"), ("1", "好评！"), ("2", "天气")]
    examples = [Example(str(n), "", label=label, answers=answers) for n, (label, _) in enumerate(pairs)]
    found = label_scores([output for _, output in pairs], examples)
    f1 = [2 * 2 / (2 + 3), 2 * 1 / (2 + 1), 0]
    assert found == {
        "accuracy": pytest.approx(3 / 5),
        "majority_accuracy": pytest.approx(3 / 5),
        "macro_f1": pytest.approx(sum(f1) / 3),
        "no_answer": 1,
    }
    assert label_scores([], []) == dict.fromkeys(LABEL_SCORES)


def test_labels_with_the_same_answer_are_one():
    answers = {"4": "good", "5": "good", "1": "bad"}
    examples = [Example(label, "", label=label, answers=answers) for label in ("4", "5", "1")]
    assert label_scores(["good", "good", "bad"], examples)["accuracy"] == 1


@given(st.dictionaries(st.text(max_size=3), st.text(max_size=6), max_size=4), st.text(max_size=20))
def test_whatever_is_said_is_a_label_or_none(answers: dict[str, str], output: str):
    assert label_said(output, answers) in {None, *answers}


@pytest.mark.parametrize("answer", ["(a)", "***", "yes", "好", "Not Sure"])
def test_an_answer_is_understood(answer: str):
    for output in (answer, f" {answer}.", f"“{answer}”", f"{answer}\nmore"):
        assert label_said(output, {"1": answer, "2": "another"}) == "1"


# ---- comparisons and refusals ----------------------------------------------------------------------------------------


def test_only_equal_sets_are_compared(tmp_path: Path):
    def write(name: str, **sets: object) -> Path:
        (tmp_path / name).write_text(json.dumps({"sets": sets}))
        return tmp_path / name

    def scores(fingerprint: str, bits: float, tokens: int = 9) -> dict[str, object]:
        values = {"bits_per_byte": bits, "perplexity": 2 * bits, "accuracy": None}
        return {"fingerprint": fingerprint, "tokens": tokens, "adapted": values, "base": values}

    first = write("a.json", same=scores("f", 2.5), other=scores("g", 2), gone=scores("i", 2), cut=scores("k", 2))
    second = write("b.json", same=scores("f", 2.25), other=scores("h", 1), cut=scores("k", 1, 8))
    table = compare([first, second])
    assert [line.split() for line in table.splitlines() if "adapted" in line] == [
        ["same", "adapted", "bits_per_byte", "2.5", "2.25", "-0.25"],
        ["same", "adapted", "perplexity", "5", "4.5", "-0.5"],
        ["cut", "adapted", "bits_per_byte", "2", "1", "-1"],
    ]
    assert "not compared: other, whose fingerprints differ: g and h" in table
    assert "not compared: gone, whose fingerprints differ: i and none at all" in table
    assert "not compared: perplexity of cut, whose tokens differ" in table
    sets = (1, {"base": 3}, {"fingerprint": "f", "base": 3}, {"fingerprint": "f", "base": {"bleu": "3"}})
    wrong = [json.dumps({"sets": {"a": one}}) for one in sets] + ['{"sets": []}', "[" * 100_000]
    for content in wrong:
        (tmp_path / "bad.json").write_text(content)
        for name in ("bad.json", "none.json"):
            with pytest.raises(UserError, match=rf"{name} cannot be read as scores"):
                compare([first, tmp_path / name])


def test_refusals(project: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"holds no adapter: adapter_config\.json is missing; run `train finetune`"):
        execute(train.evaluate, dataclasses.replace(make_run("evaluate", project), inputs=(tmp_path,)))
    with pytest.raises(UserError, match=r"nowhere does not exist: run `train finetune`"):
        execute(train.evaluate, dataclasses.replace(make_run("evaluate", project), inputs=(tmp_path / "nowhere",)))
    pickled = shutil.copytree(project / "data" / "finetune", tmp_path / "pickled")
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    with pytest.raises(UserError, match=r"pickled holds no adapter: adapter_model\.safetensors is missing"):
        execute(train.evaluate, dataclasses.replace(make_run("evaluate", project), inputs=(pickled,)))
    (pickled / "adapter_model.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match="pickled does not fit the base"):
        execute(train.evaluate, dataclasses.replace(make_run("evaluate", project), inputs=(pickled,)))


@pytest.mark.parametrize("line", ['{"id": "a"}', "[]", "no", '{"id": "a", "text": "\\ud800"}', "[" * 100_000])
def test_a_line_that_is_no_document_is_named(tmp_path: Path, line: str):
    (tmp_path / "en.jsonl").write_text(f'{{"id": "a", "text": "b"}}\n{line}\n{{"id": "c", "text": "d"}}\n')
    with pytest.raises(UserError, match=r"en\.jsonl holds what is not .*en\.jsonl:2"):
        pinned_sets(tmp_path)
    (tmp_path / "en.jsonl").write_text("")
    with pytest.raises(UserError, match=r"en\.jsonl holds what is not .*no line"):
        pinned_sets(tmp_path)


def test_pinned_lines_are_read_as_those_of_shards(tmp_path: Path):
    answers = """{answers: {"true": 好, "false": 差}, prompt: "{{ text }}", answer: "{{ answers[label] }}"}"""
    (tmp_path / "reviews.yaml").write_text(answers, "utf-8")
    templates = train.evaluate.read_templates([tmp_path / "reviews.yaml"])
    for lang in (["en"], 5):
        write_lines(tmp_path / "zh.jsonl", [{"id": 1, "text": "a", "lang": lang, "label": True}])
        [one] = pinned_sets(tmp_path, templates)
        assert (one.lang, one.examples[0].id, one.examples[0].label) == ("zh", "1", "true")


def test_no_pinned_set(tmp_path: Path):
    with pytest.raises(UserError, match=r"nowhere holds no \*\.jsonl"):
        pinned_sets(tmp_path / "nowhere")


def test_a_model_of_no_numbers_is_refused(project: Path, tmp_path: Path):
    run = elsewhere(project, tmp_path)
    base = load_model(tmp_path / "data" / "base", "base.model")
    base.model.norm.weight.data.fill_(float("nan"))
    base.save_pretrained(tmp_path / "data" / "finetune")
    with pytest.raises(UserError, match="adapted: its loss on pinned-en is no number"):
        execute(train.evaluate, run)


def test_of_a_dialogue_the_answers_are_scored_as_training_learns_them(project: Path):
    """The same tokens, with the same losses, as the labels of a pack of that dialogue."""
    from train.encode import encode
    from train.shards import Tally

    base = project / "data" / "base"
    model, tokenizer = load_model(base, "base.model").eval(), load_tokenizer(base, "base.model")
    messages = [
        {"role": "user", "content": "怎样打开文件？"},
        {"role": "assistant", "content": "Open it by its name."},
        {"role": "user", "content": "And then?"},
        {"role": "assistant", "content": "然后读取。"},
    ]
    row = to_score(tokenizer, Example("a", "whatever", messages))
    ((piece,),) = encode(
        tokenizer, [Document("a", "whatever", messages=messages)], params("pack.length=256").pack, [], Tally()
    )
    assert row.ids == piece.tokens.tolist() and row.counts == piece.learned[1:].tolist()
    assert 0 < sum(row.counts) < len(row.counts)
    assert row.size == len("Open it by its name.然后读取。".encode())
    labels = torch.tensor(
        [[id if learned else -100 for id, learned in zip(row.ids, [False, *row.counts], strict=True)]]
    )
    expected = model(input_ids=torch.tensor([row.ids]), labels=labels).loss.item()
    (found,) = token_scores(model, [row.ids], 256)
    scored = [nats for (nats, _), counts in zip(found, row.counts, strict=True) if counts]
    assert sum(scored) / len(scored) == pytest.approx(expected, abs=1e-4)


def test_a_dialogue_without_chat_template_is_its_text_and_a_task_its_answer(project: Path):
    tokenizer = load_tokenizer(project / "data" / "base", "base.model")
    tokenizer.chat_template = None
    messages = [{"role": "user", "content": "Good?"}, {"role": "assistant", "content": "yes"}]
    text = to_score(tokenizer, Example("a", "user: Good?", messages))
    assert all(text.counts) and text.size == len("user: Good?")
    task = to_score(tokenizer, Example("a", "Good", messages, by_template=True))
    assert tokenizer.decode([id for id, counts in zip(task.ids[1:], task.counts, strict=True) if counts]) == "yes"
    assert task.size == 3
