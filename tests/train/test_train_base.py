"""The tiny base: loads as any model does, the same bytes whatever the threads, and safe loading of others."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_project import again, make_run, params, with_base, write_sources

import train.base
from corpus.errors import UserError
from corpus.stage import execute
from train.base import default_texts
from train.models import load_finetuned, load_model


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_base(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def tokenizer(project: Path):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(project / "data" / "base")


def test_the_command_line_knows_its_stages_without_loading_torch():
    script = "import sys, train.cli\ntry: train.cli.main(['--help'])\nexcept SystemExit: print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert all(f"{stage}  " in said for stage in ("base", "pack", "finetune", "evaluate"))
    assert said.endswith("False\n")


def test_it_loads_as_any_model_and_has_learned(project: Path, tokenizer):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(project / "data" / "base")
    metrics = json.loads((project / "reports" / "base.json").read_text())
    assert metrics["rows"] == {"in": 20, "generated": 0, "kept": 20, "dropped": 0}
    assert metrics["parameters"] == model.num_parameters() and metrics["vocabulary"] == len(tokenizer) == 400
    assert metrics["tokens_seen"] == 20 * 256 and metrics["final_loss"] < 5.9  # ln 400 = 5.99 is to know nothing
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert not [path.name for path in (project / "data" / "base").iterdir() if path.suffix in (".bin", ".pt", ".pkl")]


def test_the_bytes_are_the_same_again_with_more_threads_and_elsewhere(project: Path, tmp_path: Path):
    execute(train.base, again(make_run("base", project, workers=2), tmp_path / "elsewhere"))
    for path in (project / "data" / "base").iterdir():
        assert path.read_bytes() == (tmp_path / "elsewhere" / path.name).read_bytes(), path.name


def test_golden_tokenizer(project: Path):
    digest = hashlib.sha256((project / "data" / "base" / "tokenizer.json").read_bytes()).hexdigest()[:16]
    assert digest == "e480ce0599e2f33b", "meant? then raise VERSION in train/base.py and put this digest here"


@given(st.text())
@settings(max_examples=50, deadline=None)
def test_any_text_comes_out_of_the_tokenizer_unchanged(tokenizer, text: str):
    text = text.encode("utf-8", "replace").decode()
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text or "<|" in text


def test_the_chat_template_ends_where_the_answer_starts(tokenizer):
    asked = [{"role": "user", "content": "why?"}]
    whole = [*asked, {"role": "assistant", "content": "because"}]
    prompt = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert prompt == "<|bos|>user\nwhy?<|eos|>\n<|bos|>assistant\n"
    assert tokenizer.apply_chat_template(whole, tokenize=False) == prompt + "because<|eos|>\n"


def test_a_named_model_is_taken_as_it_is(project: Path, tmp_path: Path):
    base = project / "data" / "base"
    run = make_run("base", project, tmp_path / "copy", f"base.model={base}")
    assert execute(train.base, run)["vocabulary"] == 400
    assert (tmp_path / "copy" / "model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()
    assert str(project) not in "".join(p.read_text("utf-8") for p in (tmp_path / "copy").glob("*.json"))


def test_a_model_without_safetensors_is_refused(project: Path, tmp_path: Path):
    import torch

    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_bytes((project / "data" / "base" / "config.json").read_bytes())
    torch.save({}, pickled / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"base\.model: .*pickled.* no weights in safetensors"):
        execute(train.base, make_run("base", project, tmp_path / "out", f"base.model={pickled}"))
    assert not (tmp_path / "out").exists()


def test_a_model_with_its_own_code_is_refused_and_the_code_not_run(project: Path, tmp_path: Path):
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    auto_map = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    (foreign / "config.json").write_text(json.dumps({"model_type": "unheard_of", "auto_map": auto_map}))
    (foreign / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    shutil.copy(project / "data" / "base" / "model.safetensors", foreign)
    with pytest.raises(UserError, match=r"base\.model"):
        execute(train.base, make_run("base", project, tmp_path / "out", f"base.model={foreign}"))
    assert not (tmp_path / "ran").exists()


def test_a_model_that_is_nowhere_is_refused(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"base\.model: 'no/where' is no folder here .* without a network, copy"):
        execute(train.base, make_run("base", project, tmp_path / "out", "base.model=no/where"))
    with pytest.raises(UserError, match=r"base\.model: the folder './nowhere' does not exist"):
        execute(train.base, make_run("base", project, tmp_path / "out", "base.model=./nowhere"))


def test_by_default_the_two_reference_texts_are_read(tmp_path: Path):
    folder = tmp_path / "data" / "reference"
    folder.mkdir(parents=True)
    with pytest.raises(UserError, match=r"base\.texts: .*reference has neither en\.txt nor zh\.txt"):
        execute(train.base, make_run("base", tmp_path))
    (folder / "notes.txt").write_text("not for training")
    (folder / "zh.txt").write_text("中文")
    assert default_texts(folder) == [folder / "zh.txt"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "bert", "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}, "is an encoder"),
        ({"model_type": "llama", "hidden_size": "x"}, "is no causal language model"),
        ({"model_type": "llama", "num_attention_heads": 0}, "is no causal language model"),
        ([], "is no causal language model"),
    ],
)
def test_what_is_no_causal_model_is_refused(project: Path, tmp_path: Path, config: object, message: str):
    foreign = shutil.copytree(project / "data" / "base", tmp_path / "foreign")
    (foreign / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=rf"base\.model: '.*/foreign' {message}"):
        execute(train.base, make_run("base", project, tmp_path / "out", f"base.model={foreign}"))


@pytest.mark.parametrize(
    "index", ["no JSON", "[]", '{"weight_map": {"a": 5}}', '{"weight_map": {"a": "other.safetensors"}}']
)
def test_an_index_of_weights_that_are_not_there_is_refused(project: Path, tmp_path: Path, index: str):
    foreign = shutil.copytree(project / "data" / "base", tmp_path / "foreign")
    (foreign / "model.safetensors.index.json").write_text(index)
    with pytest.raises(UserError, match=r"base\.model: .*/foreign'"):
        execute(train.base, make_run("base", project, tmp_path / "out", f"base.model={foreign}"))


def test_the_adapter_of_another_base_is_refused(project: Path, tmp_path: Path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    smaller = load_model(project / "data" / "base", "base.model")
    get_peft_model(smaller, LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path / "adapter")
    config = AutoConfig.from_pretrained(project / "data" / "base", num_hidden_layers=2)
    larger = AutoModelForCausalLM.from_config(config)
    larger.save_pretrained(tmp_path / "larger")
    load_finetuned(project / "data" / "base", tmp_path / "adapter")
    with pytest.raises(UserError, match=r"adapter is the adapter of another base: it has no .*layers\.1\."):
        load_finetuned(tmp_path / "larger", tmp_path / "adapter")


def test_a_torn_model_is_refused(project: Path, tmp_path: Path):
    torn = shutil.copytree(project / "data" / "base", tmp_path / "torn")
    weights = torn / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"base\.model: model\.safetensors of .*torn.* is torn"):
        execute(train.base, make_run("base", project, tmp_path / "out", f"base.model={torn}"))


def test_texts_that_cannot_be_read_are_named(tmp_path: Path):
    write_sources(tmp_path)
    (tmp_path / "gbk.txt").write_bytes("中文".encode("gbk"))
    (tmp_path / "short.txt").write_text("short")
    for name, message in (
        ("gbk.txt", "not a text file in UTF-8"),
        ("missing.txt", "does not exist"),
        ("short.txt", "fewer than"),
    ):
        with pytest.raises(UserError, match=rf"base\.texts: .*{message}"):
            execute(train.base, make_run("base", tmp_path, tmp_path / "out", f"base.texts=[{tmp_path / name}]"))


def test_impossible_shapes_are_refused():
    with pytest.raises(UserError, match="hidden 30 is not a multiple of 2 x heads 2"):
        params("base.hidden=30")
