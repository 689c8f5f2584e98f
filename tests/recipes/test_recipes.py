"""Each recipe runs as its user says it, on small data made here, and what it gives is judged from outside."""

from __future__ import annotations

import json
import os
import random
import runpy
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import yaml

from train.cli import main as train

RECIPES = Path(__file__).parents[2] / "docs" / "recipes"
FILES = sorted(RECIPES.glob("*.py"))
BASE = {"vocabulary": 400, "hidden": 32, "heads": 1, "context": 64, "steps": 30, "batch_tokens": 256}
PARAMS = {
    "base": BASE | {"texts": ["texts.txt"]},
    "pack": {"length": 64},
    "finetune": {"tokens": 2_560, "rank": 4, "evaluations": 2, "report_to": []},
}
MESSAGES = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))


@pytest.fixture
def say(monkeypatch, tmp_path, capsys):
    """Run a recipe by its name in an empty folder; returns what it printed."""

    def run(name: str, *arguments: object) -> str:
        monkeypatch.syspath_prepend(RECIPES)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(RECIPES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def dialogue(number: int) -> list[dict[str, str]]:
    answer = "可以，先打开设置。" if number % 2 else "Open the settings and choose the folder."
    return [{"role": "user", "content": f"怎样同步 {number}?"}, {"role": "assistant", "content": answer}]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with base, pack and adapter, and shards with preferences and with labelled answers."""
    folder = tmp_path_factory.mktemp("project")
    rows = []
    for number in range(24):
        messages = dialogue(number)
        rejected = [{"role": "assistant", "content": "不知道。"}]
        rows.append(
            {"id": f"p{number}", "messages": messages, "preference": {"chosen": messages[1:], "rejected": rejected}}
        )
        answered = messages[:1] + (rejected if number % 2 else messages[1:])
        rows.append({"id": f"k{number}", "messages": answered, "label": "false" if number % 2 else "true"})
    rows.append({"id": "text", "messages": None, "label": "true"})  # a label alone makes no answer
    schema = {"id": pl.String, "messages": MESSAGES, "label": pl.String}
    frame = pl.DataFrame(
        [{"preference": None, "label": None, "text": row["id"], "lang": "zh-Hans"} | row for row in rows],
        schema_overrides=schema | {"preference": pl.Struct({"chosen": MESSAGES, "rejected": MESSAGES})},
    )
    for split, chosen in {"train": frame[:40], "validation": frame[40:]}.items():
        (folder / "data/shard" / split).mkdir(parents=True)
        chosen.write_parquet(folder / "data/shard" / split / "part-00000.parquet")
    texts = [f"{m[0]['content']}\n{m[1]['content']}" for m in map(dialogue, range(60))]
    (folder / "texts.txt").write_text("\n---\n".join(texts), "utf-8")
    (folder / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in (
            ["base", "--output", "data/base"],
            ["pack", "--input", "data/shard", "--output", "data/pack"],
            ["finetune", "--input", "data/pack", "--output", "data/finetune"],
        ):
            assert train([*command, "--workers", "1"]) == 0
    return folder


@pytest.fixture(scope="module")
def merged(project, tmp_path_factory):
    """The model as a whole, as `train export` writes it."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("merged")
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(project / "data/base"), project / "data/finetune"
    )
    model.merge_and_unload().save_pretrained(folder)
    AutoTokenizer.from_pretrained(project / "data/base").save_pretrained(folder)
    return folder


def log_probability(project: Path, adapter: Path, prompt: list, answer: list) -> float:
    """Of an answer, in nats, by the base with an adapter."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(project / "data/base")
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(project / "data/base"), adapter).eval()
    asked = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template(prompt + answer, tokenize=False)
    start = len(tokenizer(asked, add_special_tokens=False)["input_ids"])
    ids = torch.tensor([tokenizer(whole, add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0, start - 1 : -1].log_softmax(-1)
    return float(logits.gather(1, ids[0, start:, None]).sum())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_recipe_is_short_and_says_how_to_run_it(path):
    text = path.read_text("utf-8")
    assert len(text.splitlines()) < 60
    assert f"recipes/{path.name}" in text.split('"""')[1]
    for index in ("README.md", "README.zh-CN.md"):
        assert f"({path.name})" in (RECIPES / index).read_text("utf-8")


@pytest.mark.parametrize("name", ["dpo", "kto"])
def test_preference_training_widens_the_gap_and_leaves_the_adapter_as_it_was(name, project, tmp_path, say):
    pytest.importorskip("trl")
    before = (project / "data/finetune/adapter_model.safetensors").read_bytes()
    said = say(
        f"{name}.py",
        "--data",
        project / "data",
        "--output",
        tmp_path / "out",
        "--learning-rate",
        "1e-3",
        "--epochs",
        "2",
    )
    assert "0.000 → " in said  # the reference is the adapter that it starts from
    assert (project / "data/finetune/adapter_model.safetensors").read_bytes() == before
    gaps = []
    for adapter in (project / "data/finetune", tmp_path / "out"):
        prompt, chosen = dialogue(101)[:1], dialogue(101)[1:]
        rejected = [{"role": "assistant", "content": "不知道。"}]
        gaps.append(
            log_probability(project, adapter, prompt, chosen) - log_probability(project, adapter, prompt, rejected)
        )
    assert gaps[1] > gaps[0]


def test_shards_without_preferences_are_refused_by_name(project, tmp_path, say):
    pytest.importorskip("trl")
    data = tmp_path / "data"
    (data / "shard/train").mkdir(parents=True)
    pl.DataFrame({"id": ["a"], "text": ["a"], "label": ["sport"]}).write_parquet(data / "shard/train/part.parquet")
    for folder in ("base", "finetune"):
        (data / folder).symlink_to(project / "data" / folder)
    for name in ("dpo.py", "kto.py"):
        with pytest.raises(SystemExit, match="shard/train has"):
            say(name, "--data", data)


def test_ctranslate2_generates_as_transformers(merged, tmp_path, say):
    pytest.importorskip("ctranslate2")
    said = say("to_ctranslate2.py", merged, tmp_path / "ct2").splitlines()
    assert "8 of 8" in said[1] and said[2].startswith("int8")
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "ct2").iterdir()}
    assert sizes["model.bin"] < (merged / "model.safetensors").stat().st_size / 2 and "tokenizer.json" in sizes


def test_gguf_holds_the_weights(merged, tmp_path, say):
    gguf = pytest.importorskip("gguf")
    from safetensors.torch import load_file

    assert "8 of 8" in say("to_gguf.py", merged, tmp_path / "m.gguf")
    weights = load_file(merged / "model.safetensors")
    read = {tensor.name: tensor.data for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    assert (read["blk.0.ffn_up.weight"] == weights["model.layers.0.mlp.up_proj.weight"].numpy()).all()
    assert len(read) == len(weights)
    say("to_gguf.py", merged, tmp_path / "small.gguf", "Q8_0")
    assert (tmp_path / "small.gguf").stat().st_size < (tmp_path / "m.gguf").stat().st_size


def test_onnx_generates_as_transformers(merged, tmp_path, say):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    said = say("to_onnx.py", merged, tmp_path / "onnx").splitlines()
    assert [line.partition(":")[0] for line in said if " of 8" in line] == ["model.onnx", "model-int8.onnx"]
    assert "8 of 8" in next(line for line in said if line.startswith("model.onnx"))


def test_an_adapter_on_a_model_trained_whole(project, tmp_path, say):
    for name in ("general", "task"):
        rows = [{"id": f"{name}{number}", "messages": dialogue(number)} for number in range(20)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = {"base": BASE | {"texts": [str(project / "texts.txt")]}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS | texts))
    said = say("lora_after_full.py", "general.jsonl", "task.jsonl", "params.yaml")
    assert "full: " in said and "lora: " in said
    assert (tmp_path / "full/data/finetune/model.safetensors").is_file()
    assert (tmp_path / "lora/data/finetune/adapter_model.safetensors").is_file()
    from safetensors.torch import load_file

    whole, base = (
        load_file(tmp_path / path / "model.safetensors") for path in ("full/data/finetune", "lora/data/base")
    )
    assert all((whole[name] == base[name]).all() for name in base)


def test_optuna_reads_the_losses_of_dvc_experiments(tmp_path, say, monkeypatch):
    pytest.importorskip("optuna")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "params.yaml").write_text("finetune:\n  learning_rate: 0.1\n  rank: 8\n")
    (tmp_path / "finetune.py").write_text(
        "import json, math, pathlib, yaml\n"
        "chosen = yaml.safe_load(open('params.yaml'))['finetune']\n"
        "loss = abs(math.log10(chosen['learning_rate']) + 3) + (chosen['rank'] != 16)\n"
        "pathlib.Path('reports').mkdir(exist_ok=True)\n"
        "json.dump({'adapted': {'best_validation_loss': loss}}, open('reports/finetune.json', 'w'))\n"
    )
    stage = {"cmd": f"{sys.executable} finetune.py", "deps": ["finetune.py"], "params": ["finetune"]}
    stage["metrics"] = [{"reports/finetune.json": {"cache": False}}]
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"finetune": stage}}))
    for command in (
        ["git", "init", "-q"],
        ["git", "config", "user.email", "test@example.com"],
        ["git", "config", "user.name", "test"],
        ["dvc", "init", "-q"],
        ["dvc", "repro", "-q"],
        ["git", "add", "."],
        ["git", "commit", "-qm", "start"],
    ):
        subprocess.run(command, cwd=tmp_path, check=True)
    said = say("optuna_sweep.py", 2, 1, 1).splitlines()[-1]
    shown = json.loads(subprocess.check_output(["dvc", "exp", "show", "--json"], cwd=tmp_path))
    names = {experiment["name"] for commit in shown for experiment in commit["experiments"] or []}
    assert names == {f"trial-{number}" for number in range(2)}
    assert said.startswith("trial-") and "learning_rate" in said


def reviews(count: int, words: dict[str, list[str]], seed: int) -> pl.DataFrame:
    """Reviews whose words tell the label."""
    draw = random.Random(seed)
    labels = [draw.choice(sorted(words)) for _ in range(count)]
    texts = ["".join(draw.choices(words[label], k=2)) + f"{number}" for number, label in enumerate(labels)]
    return pl.DataFrame({"text": texts, "label": labels})


def test_chinese_reviews_are_learned_and_put_beside_baselines(tmp_path, monkeypatch, capsys):
    data = reviews(500, {"0": ["很差", "难吃", "太慢", "退货"], "1": ["很好", "好吃", "很快", "喜欢"]}, seed=0)
    # The tiny base knows the words of its answers from the texts, as it does with real reviews.
    data = data.with_columns(pl.col("text") + pl.Series(["，不是好评就是差评"]))
    data.cast({"label": pl.Int64}).write_csv(tmp_path / "reviews.csv")
    monkeypatch.syspath_prepend(RECIPES)
    monkeypatch.chdir(tmp_path)
    main = runpy.run_path(str(RECIPES / "sentiment_zh.py"))["main"]
    main("reviews.csv", 400, 100, rates=(0.004, 1e-5), tokens=100_000)
    said = capsys.readouterr().out
    found = {
        line.split(":")[0]: float(line.split()[line.split().index("accuracy") + 1].rstrip(","))
        for line in said.splitlines()
        if "accuracy" in line
    }
    assert found["model"] > 0.9 > found["most frequent label"] and found["naive Bayes"] > 0.9
    assert "learning rate 0.004," in said  # the other one learns next to nothing


def test_film_reviews_run_on_labels_that_are_words(tmp_path, monkeypatch, capsys):
    reviews(600, {"neg": ["bad ", "dull "], "pos": ["good ", "fine "]}, seed=1).write_parquet(tmp_path / "imdb.parquet")
    monkeypatch.syspath_prepend(RECIPES)
    monkeypatch.chdir(tmp_path)
    recipe = runpy.run_path(str(RECIPES / "imdb.py"))
    recipe["main"]("imdb.parquet", 500, 100, recipe["TASK"], "en", rates=(0.004,), tokens=8_000)
    assert "model: accuracy" in capsys.readouterr().out
    assert yaml.safe_load((tmp_path / "task.yaml").read_text())["answers"] == {"neg": "neg", "pos": "pos"}


def test_support_dialogues_end_in_answers_side_by_side(tmp_path, say):
    rows = [{"messages": dialogue(number) + dialogue(number + 1)} for number in range(40)]
    rows += [{"input": f"怎么退款{number}？", "output": "请打开订单页面，然后申请退款。"} for number in range(40)]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    said = say("support_dialogues_zh.py", "d.jsonl")
    counts = {said.count(f"\n{name:>9}: ") for name in ("prompt", "reference", "base", "adapted")}
    assert counts == {5}  # of 80 dialogues every sixteenth
    assert "adapted: 请打开订单页面" in said
