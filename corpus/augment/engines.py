"""Translation models in folders, run by CTranslate2 or by transformers: the same encoding, the same search."""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib.metadata
import json
import random
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from corpus.answers import key_of
from corpus.errors import UserError

BATCH = 16  # sentences of similar length at once
ROOM = 2, 32  # a translation has at most so many tokens a token of the sentence, and so many more
PROBE = 32, 10  # translations of so many tokens by which a converted model is judged
MOST_APART = 0.01  # of the log probabilities; 8 bits are .003 away, or .04 where their sums overflow
TOKENIZER_FILES = ("*.json", "*.spm", "*.model", "*.txt")
WEIGHT_FILES = ("*.safetensors",)  # never pickled weights, never code


class Direction(NamedTuple):
    """A model that translates one way."""

    folder: Path
    source: str | None  # languages as the model calls them, where it knows several: eng_Latn, zh, cmn_Hans
    target: str | None
    converted: Path | None  # the same for CTranslate2
    beams: int


def model_files(folder: Path) -> list[Path]:
    """The files of a model that decide what it says."""
    return sorted(path for pattern in TOKENIZER_FILES + WEIGHT_FILES for path in folder.glob(pattern))


def translate_with_transformers(sentences: Sequence[str], way: Direction) -> list[str | None]:
    """Translations by beam search; None for a sentence that is longer than the model takes."""
    import torch

    tokenizer, longest = load_tokenizer(way.folder, way.source, way.target)
    model = _transformers_model(way.folder)
    forced = _forced_token(tokenizer, way.target)

    def translate(batch: list[list[int]], room: int) -> list[list[int]]:
        settings = copy.deepcopy(model.generation_config)
        settings.max_length = room + 1  # the token with which decoding starts
        settings.num_beams, settings.do_sample = way.beams, False
        if forced is not None:
            settings.forced_bos_token_id = tokenizer.convert_tokens_to_ids(forced)
        inputs = tokenizer.pad({"input_ids": batch}, return_tensors="pt").to(model.device)
        with torch.inference_mode():
            output = model.generate(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], generation_config=settings
            )
        ids: list[list[int]] = output.tolist()
        return ids

    return _in_batches(sentences, way, tokenizer, longest, translate)


def translate_with_ctranslate2(sentences: Sequence[str], way: Direction) -> list[str | None]:
    """The same by CTranslate2, several times as fast on a CPU."""
    assert way.converted
    tokenizer, longest = load_tokenizer(way.folder, way.source, way.target)
    translator = _translator(way.converted)
    forced = _forced_token(tokenizer, way.target)

    def translate(batch: list[list[int]], room: int) -> list[list[int]]:
        results = translator.translate_batch(
            [tokenizer.convert_ids_to_tokens(ids) for ids in batch],
            target_prefix=[[forced]] * len(batch) if forced else None,
            beam_size=way.beams,
            max_decoding_length=room,
            max_input_length=0,
        )
        return [tokenizer.convert_tokens_to_ids(result.hypotheses[0]) for result in results]

    return _in_batches(sentences, way, tokenizer, longest, translate)


def _in_batches(
    sentences: Sequence[str],
    way: Direction,
    tokenizer: Any,
    longest: int,
    translate: Callable[[list[list[int]], int], list[list[int]]],
) -> list[str | None]:
    """Encode the sentences, translate them in batches of similar length, and decode in their order."""
    encoded = [tokenizer(_with_target(tokenizer, sentence, way.target))["input_ids"] for sentence in sentences]
    todo = sorted((n for n, ids in enumerate(encoded) if len(ids) <= longest), key=lambda n: (len(encoded[n]), n))
    results: list[str | None] = [None] * len(sentences)
    for start in range(0, len(todo), BATCH):
        numbers = todo[start : start + BATCH]
        room = min(longest, ROOM[0] * len(encoded[numbers[-1]]) + ROOM[1])
        ids = translate([encoded[number] for number in numbers], room)
        for number, text in zip(numbers, tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True):
            results[number] = " ".join(text.split())
    return results


# ---- loading ---------------------------------------------------------------------------------------------------------


def convert(folder: Path, home: Path) -> Path:
    """The model for CTranslate2, converted once: in float16 for a GPU, in 8 bits for a CPU that computes well in them.

    The name of the folder ends in the kind of number. Raises UserError for a model that CTranslate2 does not run.
    """
    import transformers

    from corpus.files import file_digest, own_partial

    content = [file_digest(path) for path in model_files(folder)]
    key = key_of(device(), ctranslate2_version(), transformers.__version__, *content).hex()
    known = sorted((home / "ctranslate2").glob(f"{key}-*[a-z0-9]"))
    if known:
        return known[0]
    scratch = own_partial(home / "ctranslate2" / key)
    try:
        if device() == "cuda":
            chosen = _convert(folder, scratch, "float16")
        else:
            chosen, exact = (_convert(folder, scratch, kind) for kind in ("int8", "float32"))
            if not agree(chosen, exact):
                chosen = exact
        target = home / "ctranslate2" / f"{key}-{chosen.name}"
        with contextlib.suppress(OSError):  # another run was faster: its folder has the same files
            chosen.rename(target)
        return target
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _convert(folder: Path, scratch: Path, kind: str) -> Path:
    from ctranslate2.converters import TransformersConverter

    try:
        TransformersConverter(str(folder)).convert(str(scratch / kind), quantization=kind)
    except (ValueError, OSError, KeyError, RuntimeError, AttributeError) as error:
        said = " ".join(str(error).split())
        raise UserError(f"{folder} cannot be converted for CTranslate2 ({said}): try `engine: transformers`") from None
    return scratch / kind


def agree(rounded: Path, exact: Path) -> bool:
    """Whether a converted model scores translations nearly as the exact one does.

    On processors without instructions for 8-bit sums oneDNN lets these overflow, silently: the translations are then
    fluent and wrong. MKL does not, but is slow on other makers' processors. Random tokens tell as well as sentences.
    """
    draw = random.Random(0)
    scores = []
    for folder in (rounded, exact):
        vocabulary = next(
            json.loads(path.read_text("utf-8"))
            for name in ("shared_vocabulary.json", "target_vocabulary.json")
            if (path := folder / name).exists()
        )
        draw.seed(0)
        source, target = ([draw.choices(vocabulary, k=PROBE[1]) for _ in range(PROBE[0])] for _ in range(2))
        results = _translator(folder).score_batch(source, target)
        scores.append([score for result in results for score in result.log_probs])
    _translator.cache_clear()
    apart = sum(abs(one - other) for one, other in zip(*scores, strict=True))
    return bool(apart <= MOST_APART * sum(map(abs, scores[1])))


def ctranslate2_version() -> str:
    """The version of the library, without loading it."""
    return importlib.metadata.version("ctranslate2")


@functools.lru_cache(maxsize=4)
def _translator(converted: Path) -> Any:
    kind = converted.name.rpartition("-")[2]
    import ctranslate2

    return ctranslate2.Translator(str(converted), device=device(), compute_type=kind, inter_threads=1, intra_threads=1)


@functools.lru_cache(maxsize=4)
def _transformers_model(folder: Path) -> Any:
    import torch
    from transformers import AutoModelForSeq2SeqLM

    be_quiet()
    torch.set_num_threads(1)  # one thread a worker; and sums in one order, so that beams never differ
    try:
        model = AutoModelForSeq2SeqLM.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, ImportError, KeyError) as error:
        said = " ".join(str(error).split())
        raise UserError(f"{folder} does not load as a translation model: {said}") from None
    return model.eval().to(device())


@functools.lru_cache(maxsize=8)
def load_tokenizer(folder: Path, source: str | None, target: str | None) -> tuple[Any, int]:
    """The tokenizer, told its languages, and the model's longest input in tokens.

    Raises UserError where there is none, or a language is not the model's.
    """
    from transformers import AutoConfig, AutoTokenizer

    be_quiet()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # sentencepiece's, the tokenizers library's and the operating system's
        said = (" ".join(str(error).split()) or type(error).__name__)[:200]
        raise UserError(
            f"{folder} has no tokenizer that loads ({said}): put its files beside the weights (source.spm, target.spm "
            "and vocab.json, or tokenizer.json)"
        ) from None
    if source is not None and hasattr(tokenizer, "src_lang"):
        _check_language(tokenizer, folder, source)
        tokenizer.src_lang = source
    if target is not None and _forced_token(tokenizer, target) is None:
        _check_marker(tokenizer, folder, target)
    positions = getattr(config, "max_position_embeddings", None) or 512
    return tokenizer, min(tokenizer.model_max_length, positions)


def _language_tokens(tokenizer: Any) -> list[str]:
    return [token for token in tokenizer.get_vocab() if token in set(tokenizer.all_special_tokens)]


def _check_language(tokenizer: Any, folder: Path, language: str) -> None:
    if _language_token(tokenizer, language) is None:
        known = [token.strip("_") for token in _language_tokens(tokenizer) if not token.startswith("<")]
        raise UserError(
            f"{folder} does not know the language {language!r}: it has {', '.join(sorted(known)[:8])} … "
            f"({len(known)} in all)"
        )


def _check_marker(tokenizer: Any, folder: Path, target: str) -> None:
    known = [token for token in tokenizer.get_vocab() if token.startswith(">>")]
    if known and f">>{target}<<" not in known:
        raise UserError(f"{folder} does not know the target {target!r}: it has {', '.join(sorted(known)[:8])} …")


def _language_token(tokenizer: Any, language: str) -> str | None:
    """The token of a language in a vocabulary: `eng_Latn` of NLLB, `__en__` of M2M100."""
    special = set(tokenizer.all_special_tokens)
    return next((token for token in (language, f"__{language}__") if token in special), None)


def _forced_token(tokenizer: Any, target: str | None) -> str | None:
    """The token with which a translation begins, where the model knows several languages."""
    if target is None or not hasattr(tokenizer, "src_lang"):
        return None
    return _language_token(tokenizer, target)


def _with_target(tokenizer: Any, sentence: str, target: str | None) -> str:
    """The sentence, after the target language where a Marian model has several: `>>cmn_Hans<< A sentence.`"""
    marker = f">>{target}<<"
    return f"{marker} {sentence}" if target and marker in tokenizer.get_vocab() else sentence


def be_quiet() -> None:
    """Keep the bars and warnings of transformers out of the lines of a stage."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    warnings.filterwarnings("ignore", module="transformers")


def device() -> str:
    """Where models run."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
