"""Back-translation: there and back through two models, sentence by sentence, kept in a cache by content."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from pathlib import Path
from typing import Any

from corpus.documents import document_id
from corpus.errors import UserError
from corpus.params import BackTranslation
from corpus.stage import file_digest
from corpus.text.sentences import split_sentences

METHOD = "back-translation"
BEAMS = 4
BATCH = 16  # sentences
MODEL_FILES = ["*.json", "*.safetensors", "*.spm", "*.model", "*.txt"]  # never pickled weights, never code


@dataclasses.dataclass(frozen=True)
class RoundTrip:
    """Two translation models in folders, and what their translations depend on."""

    forward: Path
    backward: Path
    engine: str  # library and version, beams, device, content of both models


def round_trips(settings: dict[str, BackTranslation]) -> dict[str, RoundTrip]:
    """The models by language, found here or downloaded. Raises UserError where there is none."""
    return {language: _round_trip(language, models) for language, models in settings.items()}


def _round_trip(language: str, models: BackTranslation) -> RoundTrip:
    import torch
    import transformers

    forward, backward = (
        _model_folder(getattr(models, side), f"augment.back_translation.{language}.{side}")
        for side in ("forward", "backward")
    )
    content = [file_digest(path) for folder in (forward, backward) for path in _model_files(folder)]
    library = f"transformers {transformers.__version__}, torch {torch.__version__}, {_device()}"
    engine = f"{library}, {BEAMS} beams, {document_id(' '.join(content))}"
    return RoundTrip(forward, backward, engine)


def _model_folder(name: str, key: str) -> Path:
    folder = Path(name)
    if not folder.is_dir():
        import huggingface_hub

        try:
            folder = Path(huggingface_hub.snapshot_download(name, allow_patterns=MODEL_FILES))
        except Exception as error:  # the hub's own, httpx's and the operating system's: all mean that it is not there
            reason = str(error).splitlines()[0]
            raise UserError(f"{key}: {name} is neither a folder nor a model that can be fetched: {reason}") from None
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"{key}: {name} has no *.safetensors file: only such weights are loaded, convert the model")
    return folder


def _model_files(folder: Path) -> list[Path]:
    return sorted(path for pattern in MODEL_FILES for path in folder.glob(pattern))


def back_translate(text: str, trip: RoundTrip, cache: Path) -> str:
    """The text after its way there and back; white space between the sentences stays. Cached in a file of `cache`."""
    key = hashlib.blake2b(f"{trip.engine}\0{text}".encode(), digest_size=16).hexdigest()
    path = cache / key[:2] / f"{key}.txt"
    if path.is_file():
        return path.read_bytes().decode()
    translated = _round_trip_text(text, trip)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_bytes(translated.encode())
    partial.replace(path)
    return translated


def _round_trip_text(text: str, trip: RoundTrip) -> str:
    pieces = split_sentences(text)
    bodies = [piece.strip() for piece in pieces]
    back = translate(translate([" ".join(body.split()) for body in bodies], trip.forward), trip.backward)
    return "".join(
        piece[: len(piece) - len(piece.lstrip())] + new + piece[len(piece.rstrip()) :] if body else piece
        for piece, body, new in zip(pieces, bodies, back, strict=True)
    )


def translate(sentences: list[str], folder: Path) -> list[str]:
    """Translate with beam search. A sentence longer than the model takes stays as it is, and so does an empty one."""
    import torch

    tokenizer, model, limit = _load(folder)
    results = list(sentences)
    encoded = [tokenizer(sentence).input_ids for sentence in sentences]
    todo = [number for number, ids in enumerate(encoded) if sentences[number] and len(ids) <= limit]
    for start in range(0, len(todo), BATCH):
        numbers = todo[start : start + BATCH]
        batch = tokenizer([sentences[number] for number in numbers], return_tensors="pt", padding=True)
        with torch.inference_mode():
            output = model.generate(
                input_ids=batch.input_ids.to(model.device),
                attention_mask=batch.attention_mask.to(model.device),
                num_beams=BEAMS,
                do_sample=False,
            )
        for number, translated in zip(numbers, tokenizer.batch_decode(output, skip_special_tokens=True), strict=True):
            results[number] = " ".join(translated.split())
    return results


@functools.lru_cache(maxsize=4)
def _load(folder: Path) -> tuple[Any, Any, int]:
    """Tokenizer, model and its longest input in tokens, from a folder alone: nothing is fetched, no code of it runs."""
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    torch.set_num_threads(1)  # one thread a worker; and sums in one order, so that beams never differ
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModelForSeq2SeqLM.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise UserError(f"{folder} does not load as a translation model: {' '.join(str(error).split())}") from None
    longest = min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", 512))
    return tokenizer, model.eval().to(_device()), longest


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
