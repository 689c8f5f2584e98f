"""Translation by CTranslate2 beside transformers: the same models, search and sentences, alternated in one run.

    python bench/translation.py

Two Marian models: a tiny one that is trained here, and one with the layers of opus-mt (6 of 512), random weights and
the tiny vocabulary, whose words mean nothing. One thread each; medians of the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "augment"))
from tiny_marian import marian_pair, sentences

from corpus.augment import engines
from corpus.augment.engines import Direction

ENGINES = {"CTranslate2": engines.translate_with_ctranslate2, "transformers": engines.translate_with_transformers}


def as_large_as_opus(tiny: Path, folder: Path) -> Path:
    """A model of that size with the tiny one's tokenizer."""
    import shutil

    import torch
    from transformers import AutoTokenizer, GenerationConfig, MarianConfig, MarianMTModel

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    torch.manual_seed(0)
    pad = tokenizer.pad_token_id
    sizes = dict.fromkeys(("encoder_layers", "decoder_layers"), 6) | dict.fromkeys(
        ("encoder_attention_heads", "decoder_attention_heads"), 8
    )
    config = MarianConfig(
        vocab_size=len(tokenizer), d_model=512, encoder_ffn_dim=2048, decoder_ffn_dim=2048,
        max_position_embeddings=512, pad_token_id=pad, eos_token_id=0, bos_token_id=0, decoder_start_token_id=pad,
        forced_eos_token_id=0, scale_embedding=True, activation_function="swish", static_position_embeddings=True,
        share_encoder_decoder_embeddings=True, tie_word_embeddings=True, **sizes,
    )  # fmt: skip
    model = MarianMTModel(config)
    model.model.shared.weight.data[pad] = 0
    model.generation_config = GenerationConfig(
        bos_token_id=0, eos_token_id=0, forced_eos_token_id=0, pad_token_id=pad, decoder_start_token_id=pad,
        bad_words_ids=[[pad]],
    )  # fmt: skip
    shutil.copytree(tiny, folder)
    model.save_pretrained(folder)
    return folder


def measure(folder: Path, home: Path, texts: Sequence[str], beams: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each round by engine; the first translations, which load the models, do not count."""
    way = Direction(folder, None, None, engines.convert(folder, home), beams)
    for translate in ENGINES.values():
        translate(texts[:2], way)
    seconds: dict[str, list[float]] = {name: [] for name in ENGINES}
    for _ in range(rounds):
        for name, translate in ENGINES.items():
            started = time.perf_counter()
            translate(texts, way)
            seconds[name].append(time.perf_counter() - started)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    texts = [english for english, _ in sentences(6_000, seed=3)]
    tiny = marian_pair()[0]
    print("| model | beams | numbers | transformers, s | CTranslate2, s | ratio (least to most) |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        large = as_large_as_opus(tiny, Path(scratch) / "large")
        for name, folder, count in (("tiny", tiny, 480), ("of opus-mt's size", large, 32)):
            for beams in (1, 4):
                seconds = measure(folder, Path(scratch), texts[:count], beams, options.rounds)
                kind = engines.convert(folder, Path(scratch)).name.rpartition("-")[2]
                ratios = [a / b for a, b in zip(seconds["transformers"], seconds["CTranslate2"], strict=True)]
                slow, fast = (statistics.median(seconds[engine]) for engine in ("transformers", "CTranslate2"))
                ratio = f"{statistics.median(ratios):.1f} × ({min(ratios):.1f} to {max(ratios):.1f})"
                print(f"| {name} | {beams} | {kind} | {slow:.2f} | {fast:.2f} | {ratio} |", flush=True)


if __name__ == "__main__":
    main()
