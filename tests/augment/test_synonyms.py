"""Synonyms from a list, and from a tiny BERT whose likeliest words are set by hand."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from corpus.answers import Answers
from corpus.augment import stage, synonyms
from corpus.augment.synonyms import Source, fill, read_words, replace_words, replaceable, sources
from corpus.errors import UserError
from corpus.params import Synonyms, load
from corpus.stage import Run, execute

TEXT = """# The old house

- He bought a big car, not a small one, for 300 euros in New York.
- Use `big` here.

A big dog never bites. 他买了电脑，没有电脑桌。
"""
LIST = Source({"big": ["large", "huge"], "bites": ["snaps"], "电脑": ["计算机"], "not": ["ever"]}, None, "")


def replaced(source: Source, tmp_path: Path, rate: float = 1.0, key: str = "key", text: str = TEXT) -> str:
    return replace_words("id", text, source, rate, key, Answers(tmp_path / "answers.sqlite"))


def test_words_of_a_list_are_replaced_and_protected_ones_stay(tmp_path: Path) -> None:
    found = replaced(LIST, tmp_path)
    assert found.replace("huge", "large") == (
        TEXT.replace("a big car", "a large car")
        .replace("A big dog", "A large dog")
        .replace("bites", "snaps")
        .replace("他买了电脑", "他买了计算机")
    )


def test_the_rate_and_the_key_decide(tmp_path: Path) -> None:
    text = " ".join(f"It is a big box and number {n} bites." for n in range(200))
    assert replaced(LIST, tmp_path, 0.0, text=text) == text
    half = replaced(LIST, tmp_path, 0.5, text=text)
    assert 140 < half.count("big") + half.count("bites") < 260
    assert half == replaced(LIST, tmp_path, 0.5, text=text) != replaced(LIST, tmp_path, 0.5, "other", text)
    assert 50 < replaced(LIST, tmp_path, text=text).count("huge") < 150


def test_capitals_stay_capitals(tmp_path: Path) -> None:
    assert replaced(LIST, tmp_path, text="Big dogs sleep.") in ("Large dogs sleep.", "Huge dogs sleep.")


def test_what_follows_a_chinese_negation_stays() -> None:
    assert replaceable("这里没有电脑，那里有电脑。", LIST) == [(10, 12)]


@pytest.mark.parametrize("line", ["big", "big:", ": large", "big: ,"])
def test_a_line_of_another_shape_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "list.txt").write_text(f"# a comment\n\nold: aged\n{line}\n", "utf-8")
    with pytest.raises(UserError, match=r"a\.key: line 4 of .*list.txt is"):
        read_words(tmp_path / "list.txt", "a.key")


def test_a_list_is_read(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("Big: large, huge\n电脑：计算机、微机\nbig: vast\n", "utf-8")
    assert read_words(tmp_path / "list.txt", "k") == {"big": ["large", "huge", "vast"], "电脑": ["计算机", "微机"]}
    with pytest.raises(UserError, match=r"cannot be read"):
        read_words(tmp_path / "none.txt", "k")


# ---- a model ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT that fills every gap with large (.5), bigger, ##ly, not, and vast (.1)."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    words = [
        "a",
        "big",
        "bigger",
        "car",
        "dog",
        "he",
        "house",
        "large",
        "not",
        "old",
        "sleeps",
        "the",
        "vast",
        "bought",
        "##ly",
        ".",
    ]
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=48,
    ).save_pretrained(folder)  # fmt: skip
    torch.manual_seed(0)
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=48,
            pad_token_id=0,
            initializer_range=1e-4,
        )
    )
    chances = {"large": 0.5, "bigger": 0.15, "##ly": 0.15, "not": 0.1, "vast": 0.1}
    with torch.no_grad():
        model.cls.predictions.bias.fill_(-20)
        for word, chance in chances.items():
            model.cls.predictions.bias[vocabulary[word]] = torch.tensor(chance).log()
    model.save_pretrained(folder)
    return folder


def test_a_model_fills_gaps_with_other_whole_words(bert: Path) -> None:
    gaps = [("He bought a big car.", 12, 15), ("The vast old house.", 4, 8), ("big " * 60, 0, 3)]
    assert fill(bert, gaps) == [["large", "vast"], ["large", "bigger"], []]


def test_a_model_replaces_what_no_list_knows(bert: Path, tmp_path: Path) -> None:
    source = Source({"house": ["home"]}, bert, "fingerprint")
    found = replaced(source, tmp_path, text="The house sleeps. He met Anna in Rome.")
    assert found in ("The home large. He large Anna in Rome.", *_mixed("The home {}. He {} Anna in Rome."))
    cache = Answers(tmp_path / "answers.sqlite")
    assert cache.forget(["id"]) == 1


def _mixed(shape: str) -> list[str]:
    words = ("large", "vast", "bigger")
    return [shape.format(one, other) for one in words for other in words]


def test_the_stage_writes_variants_with_synonyms(
    bert: Path, tmp_path: Path, write_documents: Callable[..., Path]
) -> None:
    texts = [f"The dog sleeps in the old house number {n}. He bought a big car for it in 19{n}." for n in range(10, 30)]
    write_documents(tmp_path / "documents/part-a-0-00000.parquet", texts, lang="en")
    (tmp_path / "list.txt").write_text("house: building\nbought: acquired\nbig: sizeable\n", "utf-8")
    changes = [
        *("fraction=1", "swaps=0", f"synonyms.words={{en: {tmp_path}/list.txt}}", f"synonyms.models={{en: {bert}}}"),
        "synonyms.rate=0.8",
        "gates.chrf=[5, 99]",
    ]
    params = load(None, [f"augment.{change}" for change in changes])
    outputs = []
    for name, workers in (("one", 1), ("two", 2)):
        output = tmp_path / name
        inputs = (tmp_path / "documents",)
        run = Run("augment", params, inputs, output, tmp_path, None, tmp_path / f"home-{name}", workers=workers)
        metrics = execute(stage, run)
        outputs.append(pl.read_parquet(output / "*.parquet"))
    assert outputs[0].equals(outputs[1])
    assert metrics["by_method"][synonyms.METHOD] == {"generated": 20, "kept": int(outputs[0]["kept"].sum())}
    kept = outputs[0].filter("kept")
    assert kept.height > 10 and (kept["method"] == synonyms.METHOD).all()
    assert not set(kept["text"]) & set(texts)


def test_a_model_that_fills_no_gaps_is_refused(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"augment\.synonyms\.models\.en: no/model is neither a folder"):
        sources(Synonyms(models={"en": "no/model"}))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match=r"models\.en: .*broken does not load as a masked language model"):
        sources(Synonyms(models={"en": str(tmp_path / "broken")}))
