"""Scores under models of others: a tiny Llama made here, and KenLM where it is installed."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.errors import UserError
from corpus.params import OtherModel, Params, load
from corpus.perplexity import other_models, stage
from corpus.reference.texts import read_texts
from corpus.stage import Run, execute
from corpus.text.buffers import Texts
from corpus.text.ngram_files import export_arpa
from corpus.text.ngram_lm import score_texts
from corpus.text.ngram_train import Trained, number_tokens, train
from corpus.text.segment import lm_sentences

FOLDER = Path(__file__).parents[2] / "data" / "reference"
ENGLISH = read_texts(FOLDER / "en.txt")
needs_kenlm = pytest.mark.skipif(importlib.util.find_spec("kenlm") is None, reason="kenlm is not installed")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal model of one layer that reads 16 tokens at once, with a tokenizer of bytes."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("llama")
    alphabet = ["<s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>").save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(alphabet),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def slow_perplexity(folder: Path, text: str, tokens: int) -> float:
    """Token by token: each after the window that `_windows` gives it, one sequence a call."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder)
    ids = [0, *AutoTokenizer.from_pretrained(folder)(text)["input_ids"][:tokens]]
    log_probs = []
    for at in range(1, len(ids)):
        first = 0 if at < 16 else (at - 16) // 8 * 8 + 8  # windows of 16 begin at 0, 8, 16, ...
        last_begin = max(0, len(ids) - 16)
        with torch.no_grad():
            logits = model(torch.tensor([ids[min(first, last_begin) : at]])).logits[0, -1]
        log_probs.append(float(torch.log_softmax(logits.double(), 0)[ids[at]]))
    return math.exp(-sum(log_probs) / len(log_probs))


def test_a_causal_model_scores_all_tokens_in_windows(llama: Path) -> None:
    texts = ["one two", "", "a", ENGLISH[0][:60], "增量", ENGLISH[1][:200]]
    located = other_models.locate(OtherModel(causal=str(llama)), "perplexity.model.en")
    rows = other_models.score(located, texts, 100).to_dicts()
    assert [row["lm_tokens"] for row in rows] == [7, 0, 1, 60, 6, 100]
    for text, row in zip(texts, rows, strict=True):
        assert row["ppl"] == (pytest.approx(slow_perplexity(llama, text, 100), rel=1e-4) if text else None)
        assert row["oov_rate"] is row["fluency_gain"] is row["ppl_excl_oov"] is None
    assert rows[3] == other_models.score(located, texts[3:4], 100).to_dicts()[0]


@given(st.integers(0, 100), st.integers(2, 20))
def test_windows_score_each_token_once_after_half_a_window(length: int, window: int) -> None:
    windows = list(other_models._windows(length, window))
    assert [token for begin, end, first in windows for token in range(first, end)] == list(range(1, length))
    for begin, end, first in windows:
        assert end - begin <= window
        assert begin == 0 or first - begin >= window // 2


def test_only_folders_with_safe_weights(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"perplexity\.model\.en\.causal: 'no/such' is no folder and cannot be had"):
        other_models.locate(OtherModel(causal="no/such"), "perplexity.model.en")
    (tmp_path / "config.json").write_bytes((llama / "config.json").read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(UserError, match=r"has no \*\.safetensors file"):
        other_models.locate(OtherModel(causal=str(tmp_path)), "perplexity.model.en")
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    broken = other_models.locate(OtherModel(causal=str(tmp_path)), "perplexity.model.en")
    with pytest.raises(UserError, match="does not load as a causal language model"):
        other_models.score(broken, ["a"], 10)


def test_the_fingerprint_is_of_content_and_settings(llama: Path, tmp_path: Path) -> None:
    def fingerprint(folder: Path, **settings: object) -> str:
        model = OtherModel.model_validate({"causal": str(folder), **settings})
        return other_models.locate(model, "perplexity.model.en").fingerprint

    copy = tmp_path / "copy"
    copy.mkdir()
    for path in llama.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    assert fingerprint(copy) == fingerprint(llama) != fingerprint(llama, window=8)
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert fingerprint(copy) != fingerprint(llama)


def test_the_stage_uses_the_model_that_params_name(
    llama: Path, tmp_path: Path, write_documents: Callable[..., Path]
) -> None:
    write_documents(
        tmp_path / "clean" / "part-a-0-00000.parquet", ["one two", "eins zwei", ""], lang=["en", "de", "en"]
    )
    params = Params.model_validate({"perplexity": {"model": {"en": {"causal": str(llama)}}}})
    home, reports = tmp_path / "home", tmp_path / "reports"
    run = Run("perplexity", params, (tmp_path / "clean",), tmp_path / "perplexity", tmp_path, reports, home)
    metrics = execute(stage, run)
    located = other_models.locate(params.perplexity.model["en"], "")
    assert metrics["models"] == {"en": located.fingerprint}
    rows = pl.read_parquet(tmp_path / "perplexity" / "part-a-0-00000.parquet")
    assert rows.schema == {"id": pl.String, **stage.COLUMNS}
    assert rows["lm_tokens"].to_list() == [7, 0, 0]
    assert rows["ppl"].to_list() == [other_models.score(located, ["one two"], 9)["ppl"][0], None, None]


@pytest.mark.parametrize("settings", [{}, {"kenlm": "a.arpa", "causal": "b"}])
def test_one_model_a_language(settings: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"perplexity\.model\.en: name kenlm or causal, one of the two"):
        load(None, [f"perplexity.model.en={json.dumps(settings)}"])


# ---- KenLM -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def trained(tmp_path: Path) -> Trained:
    model = train(number_tokens([Texts.of_strings(ENGLISH[:20])]), 3)
    export_arpa(model, tmp_path / "en.arpa")
    return model


def test_kenlm_missing_is_said_with_the_way_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kenlm", None)
    with pytest.raises(UserError, match=r"perplexity\.model\.en\.kenlm needs a library: pip install kenlm"):
        other_models.locate(OtherModel(kenlm=tmp_path / "en.arpa"), "perplexity.model.en")


@needs_kenlm
def test_kenlm_scores_our_arpa_as_we_do(trained: Trained, tmp_path: Path) -> None:
    asked = [*ENGLISH[18:24], "", "unheard of\n\n增量"]
    located = other_models.locate(OtherModel(kenlm=tmp_path / "en.arpa"), "perplexity.model.en")
    theirs = other_models.score(located, asked, 200)
    ours = score_texts(trained.model, Texts.of_strings(asked), 200)
    for one, other in zip(theirs.to_dicts(), ours.to_dicts(), strict=True):
        assert one.pop("fluency_gain") is None
        other.pop("fluency_gain")
        assert [name for name in one if one[name] is None] == [name for name in other if other[name] is None]
        assert [v for v in one.values() if v is not None] == pytest.approx(
            [v for v in other.values() if v is not None], rel=1e-5
        )


@needs_kenlm
def test_kenlm_reads_lines_as_they_are(trained: Trained, tmp_path: Path) -> None:
    model = OtherModel(kenlm=tmp_path / "en.arpa", tokens="spaces")
    rows = other_models.score(other_models.locate(model, "perplexity.model.en"), ["the file.\n\nIs", "\n"], 99)
    assert rows["lm_tokens"].to_list() == [5, 0]
    with pytest.raises(UserError, match="is no model of KenLM's"):
        broken = tmp_path / "broken.arpa"
        broken.write_text("nothing")
        other_models.score(other_models.locate(OtherModel(kenlm=broken), "perplexity.model.en"), ["a"], 9)
    with pytest.raises(UserError, match=r"perplexity\.model\.en\.kenlm: .*none\.arpa does not exist"):
        other_models.locate(OtherModel(kenlm=tmp_path / "none.arpa"), "perplexity.model.en")


@given(st.lists(st.text("ab中1.!。 \t\n", max_size=20), max_size=4))
def test_spelled_sentences_are_those_that_reference_learns_from(texts: list[str]) -> None:
    expected = [[" ".join(sentence) for sentence in lm_sentences(text)] for text in texts]
    assert list(other_models.spelled_sentences(Texts.of_strings(texts))) == expected
