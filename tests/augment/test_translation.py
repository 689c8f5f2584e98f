"""Back-translation with a tiny random Marian model: the code is real, the language is not."""

import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from corpus.augment import stage, translation
from corpus.params import BackTranslation, load
from corpus.stage import Metrics, Run, execute

TEXTS = [
    f"The {animal} sleeps in the {place}.\n\nA bird sings there. It has {number} eggs."
    for number, (animal, place) in enumerate([("cat", "house"), ("dog", "garden"), ("cow", "barn"), ("fox", "wood")])
]


@pytest.fixture(scope="module")
def marian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Marian model of one layer with random weights, and a tokenizer of whole words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import GenerationConfig, MarianConfig, MarianMTModel, PreTrainedTokenizerFast

    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("marian")
    words = sorted({word for text in TEXTS for word in text.replace(".", " . ").split()})
    vocabulary = {word: number for number, word in enumerate(["</s>", "<unk>", *words, "<pad>"])}
    pad = vocabulary["<pad>"]
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>", pad_token="<pad>", model_max_length=24
    ).save_pretrained(folder)
    size = dict.fromkeys(("encoder_layers", "decoder_layers"), 1) | dict.fromkeys(
        ("encoder_attention_heads", "decoder_attention_heads"), 2
    )
    config = MarianConfig(
        vocab_size=len(vocabulary), d_model=16, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=32,
        pad_token_id=pad, eos_token_id=0, bos_token_id=0, decoder_start_token_id=pad, forced_eos_token_id=0, **size,
    )  # fmt: skip
    model = MarianMTModel(config)
    model.generation_config = GenerationConfig(
        eos_token_id=0, bos_token_id=0, pad_token_id=pad, decoder_start_token_id=pad, max_length=12,
        bad_words_ids=[[pad]],
    )  # fmt: skip
    model.save_pretrained(folder)
    return folder


def augment(folder: Path, models: Path, output: str, workers: int = 1) -> Metrics:
    params = load(
        None, ["augment.fraction=1", f"augment.back_translation.en={{forward: {models}, backward: {models}}}"]
    )
    documents = (folder / "documents",)
    run = Run("augment", params, documents, folder / output, reports=None, home=folder / "home", workers=workers)
    return execute(stage, run)


@pytest.fixture
def documents(tmp_path: Path, write_documents: Callable[..., Path]) -> Path:
    write_documents(tmp_path / "documents/part-a-0-00000.parquet", TEXTS[:2], lang="en")
    write_documents(tmp_path / "documents/part-b-0-00000.parquet", TEXTS[2:], lang="en")
    write_documents(tmp_path / "documents/part-c-0-00000.parquet", ["今天很好。"], lang="zh-Hans")
    return tmp_path


def test_the_stage_translates_there_and_back_and_judges_the_result(documents: Path, marian: Path) -> None:
    metrics = augment(documents, marian, "out")
    rows = pl.concat(pl.read_parquet(path) for path in sorted((documents / "out").glob("*.parquet")))
    back = rows.filter(pl.col("method") == translation.METHOD)
    assert back.height == 4  # no models are named for Chinese
    assert metrics["by_method"][translation.METHOD] == {"generated": 4, "kept": int(back["kept"].sum())}
    assert metrics["rows"]["in"] + metrics["rows"]["generated"] == metrics["rows"]["kept"] + metrics["rows"]["dropped"]
    assert not back["kept"].any()  # the model is random
    assert all("augment.numbers" in reasons for reasons in back["reasons"])
    assert all(text.count("\n\n") == 1 for text in back["text"])  # paragraphs stay


def test_the_same_bytes_with_two_workers_and_from_the_cache(documents: Path, marian: Path) -> None:
    augment(documents, marian, "out")
    cached = sorted((documents / "home/translations").rglob("*.txt"))
    assert len(cached) == 4
    shutil.rmtree(documents / "home/parts")
    times = [path.stat().st_mtime_ns for path in cached]
    augment(documents, marian, "cached")
    assert [path.stat().st_mtime_ns for path in cached] == times
    (documents / "home").rename(documents / "gone")
    augment(documents, marian, "fresh", workers=2)
    for path in sorted((documents / "out").glob("*.parquet")):
        assert path.read_bytes() == (documents / "cached" / path.name).read_bytes()
        assert path.read_bytes() == (documents / "fresh" / path.name).read_bytes()


def test_a_cached_translation_is_used_and_another_engine_has_its_own(tmp_path: Path, marian: Path) -> None:
    trip = translation.round_trips({"en": BackTranslation(forward=str(marian), backward=str(marian))})["en"]
    assert "4 beams" in trip.engine and "transformers " in trip.engine
    first = translation.back_translate(TEXTS[0], trip, tmp_path)
    (cached,) = tmp_path.rglob("*.txt")
    assert cached.read_text() == first
    cached.write_text("from the cache")
    assert translation.back_translate(TEXTS[0], trip, tmp_path) == "from the cache"
    other = translation.RoundTrip(trip.forward, trip.backward, "another engine")
    assert translation.back_translate(TEXTS[0], other, tmp_path) == first


def test_too_long_and_empty_sentences_stay(marian: Path) -> None:
    long = "cat " * 40
    translated = translation.translate([long, "", "The cat sleeps ."], marian)
    assert translated[:2] == [long, ""]
    assert translated[2] != "The cat sleeps ."


def test_pickled_weights_are_not_loaded(tmp_path: Path, marian: Path) -> None:
    from corpus.errors import UserError

    for path in marian.iterdir():
        target = tmp_path / ("pytorch_model.bin" if path.suffix == ".safetensors" else path.name)
        target.write_bytes(path.read_bytes())
    with pytest.raises(UserError, match="safetensors"):
        translation.round_trips({"en": BackTranslation(forward=str(tmp_path), backward=str(marian))})
