"""Back-translation: there and back through two models, sentence by sentence, kept in a cache."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from corpus.answers import Answers, key_of
from corpus.augment import engines
from corpus.augment.endpoint import LOG, Question, ask_all
from corpus.augment.engines import Direction
from corpus.augment.structure import pieces
from corpus.errors import UserError
from corpus.files import file_digest
from corpus.params import BackTranslation, Endpoint

METHOD = "back-translation"
PROMPT = "Translate the user's text from {source} into {target}. Answer with the translation alone, without comment."
# Of languages that tokenizers name by three letters: what others call them.
_SHORT = {
    "eng": "en",
    "zho": "zh",
    "cmn": "zh",
    "deu": "de",
    "fra": "fr",
    "spa": "es",
    "rus": "ru",
    "jpn": "ja",
    "ara": "ar",
    "ita": "it",
    "nld": "nl",
    "pol": "pl",
    "por": "pt",
    "tur": "tr",
    "ukr": "uk",
    "vie": "vi",
    "ces": "cs",
    "hin": "hi",
    "ind": "id",
    "kor": "ko",
    "tha": "th",
}


class RoundTrip(NamedTuple):
    """Two ways of translation, and what their translations depend on."""

    ways: tuple[Direction, Direction] | tuple[Question, Question]  # a question lacks what is to be translated
    engine: str  # library and version, search, device, content of both models
    endpoint: Endpoint | None = None
    log: Path = Path(LOG)  # of what an endpoint is asked


def round_trips(settings: dict[str, BackTranslation], home: Path) -> dict[str, RoundTrip]:
    """The models by language, found here or downloaded, and converted where CTranslate2 runs them.

    Raises UserError for a model that cannot be had or has no tokenizer, and for two that do not lead back.
    """
    return {language: _round_trip(language, models, home) for language, models in settings.items()}


def _round_trip(language: str, models: BackTranslation, home: Path) -> RoundTrip:
    own, pivot = models.languages or (None, None)
    if models.endpoint:
        questions = (
            Question(models.forward, PROMPT.format(source=own, target=pivot), "", models.max_tokens),
            Question(models.backward, PROMPT.format(source=pivot, target=own), "", models.max_tokens),
        )
        engine = json.dumps([models.endpoint.url, *(question[:4] for question in questions)])
        return RoundTrip(questions, engine, models.endpoint, home / LOG)
    import transformers

    key = f"augment.backtranslate.{language}"
    forward, backward = (model_folder(getattr(models, side), f"{key}.{side}") for side in ("forward", "backward"))
    _check_directions(key, language, forward, backward)
    engines.load_tokenizer(forward, own, pivot)  # refuses what has none, or does not know a language
    engines.load_tokenizer(backward, pivot, own)
    device = engines.device()
    library, there, back = f"transformers {transformers.__version__}", None, None
    if models.engine == "ctranslate2":
        there, back = (engines.convert(folder, home) for folder in (forward, backward))
        kinds = [converted.name.rpartition("-")[2] for converted in (there, back)]
        library = f"ctranslate2 {engines.ctranslate2_version()} {kinds}, {library}"
    content = [file_digest(path) for folder in (forward, backward) for path in engines.model_files(folder)]
    ways = (
        Direction(forward, own, pivot, there, models.beams),
        Direction(backward, pivot, own, back, models.beams),
    )
    engine = json.dumps([library, device, models.engine, models.beams, own, pivot, engines.BATCH, *content])
    return RoundTrip(ways, engine)


def model_folder(name: str, key: str) -> Path:
    """The folder of a model: as it is named, or fetched from the hub (`owner/name`, or `owner/name@revision`).

    Raises UserError where it is not there, or has none but pickled weights.
    """
    folder = Path(name)
    if not folder.is_dir():
        import huggingface_hub

        repository, _, revision = name.partition("@")
        patterns = [*engines.TOKENIZER_FILES, *engines.WEIGHT_FILES]
        try:
            found = huggingface_hub.snapshot_download(repository, revision=revision or None, allow_patterns=patterns)
        except Exception as error:  # the hub's own, httpx's and the operating system's: all mean that it is not there
            reason = str(error).splitlines()[0]
            raise UserError(f"{key}: {name} is neither a folder nor a model that can be fetched: {reason}") from None
        folder = Path(found)
    if not any(folder.glob("*.safetensors")):
        raise UserError(
            f"{key}: {name} has no *.safetensors file: only such weights are loaded; convert the model, or name a "
            "revision that has some (owner/name@revision)"
        )
    return folder


def _check_directions(key: str, language: str, forward: Path, backward: Path) -> None:
    """Raises UserError where the models' tokenizers say that the second does not translate what the first gives."""
    (source, pivot), (pivot_back, back) = (_languages(folder) for folder in (forward, backward))
    own = language.split("-")[0].lower()
    if source and source != own:
        raise UserError(f"{key}.forward: {forward} translates from {source}, not from {language}")
    if pivot and pivot_back and pivot != pivot_back:
        raise UserError(
            f"{key}: {forward} translates into {pivot}, but {backward} from {pivot_back}: name two that lead back"
        )
    if back and back != own:
        raise UserError(f"{key}.backward: {backward} translates into {back}, not back into {language}")


def _languages(folder: Path) -> tuple[str | None, str | None]:
    """Source and target as a Marian tokenizer names them."""
    try:
        config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None, None
    return _short_code(config.get("source_lang")), _short_code(config.get("target_lang"))


def _short_code(name: object) -> str | None:
    """`en` for eng, en or en_US; None where nothing is said."""
    return _SHORT.get(name.lower()[:3], name.lower()[:2]) if isinstance(name, str) and name else None


# ---- documents -------------------------------------------------------------------------------------------------------


def back_translate(document: str, text: str, trip: RoundTrip, cache: Answers) -> str:
    """The text after its way there and back; what is no prose passes through. All of a document or nothing is cached.

    A sentence that a model cannot take stays as it is.
    """
    key = key_of(METHOD, trip.engine, text)
    known = cache.get(key)
    if known is not None:
        return known
    cut = list(pieces(text))
    sentences = [" ".join(piece.text.split()) for piece in cut if piece.prose]
    back = iter(_there_and_back(sentences, trip, document))
    result = "".join((next(back) or piece.text) if piece.prose else piece.text for piece in cut)
    cache.put(key, document, result)
    return result


def _there_and_back(sentences: Sequence[str], trip: RoundTrip, document: str) -> list[str | None]:
    there = translate(sentences, trip, 0, document)
    back = translate([one for one in there if one], trip, 1, document)
    left = iter(back)
    return [next(left) if one else None for one in there]


def translate(sentences: Sequence[str], trip: RoundTrip, way: int, document: str = "") -> list[str | None]:
    """Translate with the first or the second model; None for what it cannot take. `document` is for the log."""
    one = trip.ways[way]
    if isinstance(one, Question):
        assert trip.endpoint
        asked = [one._replace(user=sentence, document=document) for sentence in sentences]
        answers = list(ask_all(trip.endpoint, asked, trip.log))
        for answer in answers:
            if answer.refused:
                raise UserError(f"{trip.endpoint.url} refuses to translate: {answer.text}")
        return [" ".join(answer.text.split()) or None for answer in answers]
    run = engines.translate_with_ctranslate2 if one.converted else engines.translate_with_transformers
    return run(sentences, one)
