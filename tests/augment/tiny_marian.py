"""A pair of tiny Marian models that translate a small language of ours, English to Chinese and back, trained here.

The sentences come from a grammar with synonyms on both sides, so that the way there and back rewords them; numbers are
kept. A direction takes some 30 seconds on one core, once: the models are kept beside the checkout's other caches.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

STEPS = 700
CACHE = Path(__file__).parent.parent.parent / ".corpusmill" / "tests"

WHO = [
    (("the teacher", "the instructor"), ("老师",)),
    (("the student", "the pupil"), ("学生",)),
    (("the doctor", "the physician"), ("医生",)),
    (("my friend", "my pal"), ("我的朋友",)),
    (("the company", "the firm"), ("公司",)),
    (("the child", "the kid"), ("孩子",)),
]
DID = [
    (("bought", "purchased"), ("买了",)),
    (("saw", "noticed"), ("看到了",)),
    (("fixed", "repaired"), ("修理了",)),
    (("found", "discovered"), ("发现了",)),
    (("sold",), ("卖了", "出售了")),
    (("lost",), ("丢了",)),
]
HOW = [
    (("big", "large"), ("大",)),
    (("small", "little"), ("小",)),
    (("new",), ("新",)),
    (("old",), ("旧",)),
    (("cheap", "inexpensive"), ("便宜的",)),
]
WHAT = [
    (("cars", "automobiles"), ("汽车",)),
    (("houses", "homes"), ("房子",)),
    (("computers",), ("电脑", "计算机")),
    (("books",), ("书",)),
    (("pictures", "photos"), ("照片",)),
]
WHEN = [
    (("yesterday",), ("昨天",)),
    (("last week",), ("上周",)),
    (("this morning",), ("今天早上",)),
    (("in 2019",), ("2019年",)),
    (("in 1998",), ("1998年",)),
]
NUMBERS = ("2", "3", "5", "10")


def sentences(count: int, seed: int) -> list[tuple[str, str]]:
    """Pairs of an English and a Chinese sentence, each once."""
    draw = random.Random(seed)
    found: set[tuple[str, str]] = set()
    while len(found) < count:
        (who, who_zh), (did, did_zh), (how, how_zh), (what, what_zh), (when, when_zh) = (
            # The first synonym is the usual one: a model that may choose freely would choose by rounding errors.
            tuple(words[0] if draw.random() < 0.7 else words[-1] for words in draw.choice(kind))
            for kind in (WHO, DID, HOW, WHAT, WHEN)
        )
        number = draw.choice(NUMBERS)
        english = f"{who} {did} {number} {how} {what} {when}.".capitalize()
        found.add((english, f"{when_zh}{who_zh}{did_zh}{number}个{how_zh}{what_zh}。"))
    return sorted(found)


def marian_pair() -> tuple[Path, Path]:
    """The folders of the two models, en-zh and zh-en."""
    key = hashlib.blake2b(Path(__file__).read_bytes(), digest_size=8).hexdigest()
    CACHE.mkdir(parents=True, exist_ok=True)
    folders = []
    for name, side in (("en-zh", 0), ("zh-en", 1)):
        folder = CACHE / f"marian-{key}-{name}"
        with FileLock(CACHE / f"{name}.lock"):
            if not folder.is_dir():
                partial = folder.with_suffix(f".{os.getpid()}.partial")
                shutil.rmtree(partial, ignore_errors=True)
                train(*name.split("-"), [(pair[side], pair[1 - side]) for pair in sentences(4_000, seed=1)], partial)
                partial.rename(folder)
        folders.append(folder)
    return folders[0], folders[1]


def train(source: str, target: str, pairs: Sequence[tuple[str, str]], folder: Path) -> None:
    """Train a model of one layer by so many steps, from a fixed seed, on one thread."""
    import sentencepiece
    import torch
    from transformers import GenerationConfig, MarianConfig, MarianMTModel, MarianTokenizer

    folder.mkdir(parents=True)
    vocabulary = {"</s>": 0, "<unk>": 1}
    for name, texts in (("source", [one for one, _ in pairs]), ("target", [other for _, other in pairs])):
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_prefix=str(folder / name),
            vocab_size=160,
            hard_vocab_limit=False,
            character_coverage=1.0,
            minloglevel=2,
            num_threads=1,
        )
        (folder / f"{name}.model").rename(folder / f"{name}.spm")
        (folder / f"{name}.vocab").unlink()
        cut = sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{name}.spm"))
        for number in range(cut.get_piece_size()):
            if cut.id_to_piece(number) not in ("<s>", "</s>", "<unk>"):
                vocabulary.setdefault(cut.id_to_piece(number), len(vocabulary))
    pad = vocabulary["<pad>"] = len(vocabulary)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), "utf-8")
    tokenizer = MarianTokenizer(
        str(folder / "source.spm"), str(folder / "target.spm"), str(folder / "vocab.json"),
        source_lang=source, target_lang=target, model_max_length=64,
    )  # fmt: skip
    tokenizer.save_pretrained(folder)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    draw = random.Random(0)
    config = MarianConfig(
        vocab_size=len(vocabulary), d_model=64, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=128, decoder_ffn_dim=128, max_position_embeddings=64,
        pad_token_id=pad, eos_token_id=0, bos_token_id=0, decoder_start_token_id=pad, forced_eos_token_id=0,
        scale_embedding=True, activation_function="swish", dropout=0.0, static_position_embeddings=True,
        share_encoder_decoder_embeddings=True, tie_word_embeddings=True,
    )  # fmt: skip
    model = MarianMTModel(config).train()
    encoded = [(tokenizer(one).input_ids, tokenizer(text_target=other).input_ids) for one, other in pairs]
    optimiser = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98))
    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * min(1, (step + 1) / 50) * max(0.02, 1 - step / STEPS)
        inputs, outputs = zip(*draw.sample(encoded, 48), strict=True)
        rows = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in inputs], True, pad)
        labels = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in outputs], True, -100)
        loss = model(input_ids=rows, attention_mask=(rows != pad).long(), labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        model.model.shared.weight.data[pad] = 0  # CTranslate2 starts from zeros, transformers from this row
    torch.set_num_threads(threads)
    model.generation_config = GenerationConfig(
        bos_token_id=0, eos_token_id=0, forced_eos_token_id=0, pad_token_id=pad, decoder_start_token_id=pad,
        bad_words_ids=[[pad]], num_beams=4, max_length=64,
    )  # fmt: skip
    model.eval().save_pretrained(folder)
