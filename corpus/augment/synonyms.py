"""Some words of a text replaced by synonyms: from a list that the user supplies, or by a masked language model.

Function words, negations, numbers, names and all that `structure` protects stay. A model sees the sentence twice, whole
and with the gap, which draws it to words of the same meaning (Qiang et al. 2020, LSBert).
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from corpus.answers import Answers, key_of
from corpus.augment import engines
from corpus.augment.gates import names
from corpus.augment.structure import pieces
from corpus.augment.translation import model_folder
from corpus.documents import document_id
from corpus.errors import UserError
from corpus.files import file_digest
from corpus.measure.stop_words import STOP_WORDS
from corpus.params import Synonyms

METHOD = "synonyms"
BATCH = 32  # gaps filled at once
LEAST = 0.05  # probability of a word that a model puts into a gap
CANDIDATES = 20  # of a model, the likeliest

# What changes the meaning of a sentence when it changes; beside the function words.
NEGATIONS = frozenset(
    re.findall(
        r"\S+",
        """cannot don't doesn't didn't isn't aren't wasn't weren't won't wouldn't can't couldn't shouldn't hasn't
        haven't hadn't neither never no nobody none nor not nothing nowhere without hardly rarely seldom barely unless
        except 不 没 沒 无 無 非 未 别 別 勿 莫 否 毋 不是 没有 沒有 并非 不会 不能 未曾""",
    )
)
_WORD = re.compile(r"[A-Za-z]+(?:['’-][A-Za-z]+)*|[\u3400-\u9fff]+")


class Source(NamedTuple):
    """Where the synonyms of a language come from."""

    words: Mapping[str, Sequence[str]]  # from a list, by word, case folded
    model: Path | None  # a masked language model
    fingerprint: str


def sources(settings: Synonyms) -> dict[str, Source]:
    """The lists and models by language. Raises UserError naming the key, the file and the line."""
    found = {}
    for language in sorted({*settings.words, *settings.models}):
        words, content = {}, []
        if language in settings.words:
            path = settings.words[language]
            words = read_words(path, f"augment.synonyms.words.{language}")
            content.append(file_digest(path))
        model = None
        if language in settings.models:
            import transformers

            key = f"augment.synonyms.models.{language}"
            model = model_folder(settings.models[language], key)
            load_masked(model, key)
            content += [file_digest(path) for path in engines.model_files(model)]
            content.append(f"transformers {transformers.__version__}, {engines.device()}")
        found[language] = Source(words, model, json.dumps(content))
    return found


def read_words(path: Path, key: str) -> dict[str, list[str]]:
    """A list with a word a line and its synonyms after a colon: `big: large, huge`. A line that starts with # is none.

    Raises UserError naming the line that is of another shape.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{key}: {path} cannot be read: {error}") from None
    words: dict[str, list[str]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        word, _, others = line.replace("：", ":").partition(":")
        synonyms = [other.strip() for other in re.split("[,，、]", others) if other.strip()]
        if not word.strip() or not synonyms:
            raise UserError(
                f"{key}: line {number} of {path} is {line!r}: write a word, a colon, and synonyms with commas"
            )
        words.setdefault(word.strip().casefold(), []).extend(synonyms)
    return words


def replace_words(document: str, text: str, source: Source, rate: float, key: str, cache: Answers) -> str:
    """Replace about `rate` (0 to 1) of the words that may be replaced; `key` decides which, and by what.

    What a list knows comes from there, the rest from the model. The same arguments, the same text.
    """
    cached = key_of(METHOD, source.fingerprint, str(rate), key, text)
    known = cache.get(cached) if source.model else None
    if known is not None:
        return known
    cut = [piece.text for piece in pieces(text)]
    prose = [number for number, piece in enumerate(pieces(text)) if piece.prose]
    gaps = [
        Gap(number, start, end)
        for number in prose
        for start, end in replaceable(cut[number], source)
        if _draw(key, number, start) < rate
    ]
    by_model = [gap for gap in gaps if gap.word(cut).casefold() not in source.words]
    filled = (
        dict(zip(by_model, fill(source.model, [gap.within(cut) for gap in by_model]), strict=True))
        if source.model
        else {}
    )
    for gap in sorted(gaps, reverse=True):  # from the end on, so that places stay
        word = gap.word(cut)
        choices = source.words.get(word.casefold()) or filled.get(gap) or []
        if choices:
            chosen = choices[int(_draw(f"{key}\0by", gap.piece, gap.start) * len(choices))]
            sentence = cut[gap.piece]
            cut[gap.piece] = sentence[: gap.start] + _cased(chosen, word) + sentence[gap.end :]
    result = "".join(cut)
    if source.model:
        cache.put(cached, document, result)
    return result


class Gap(NamedTuple):
    """A word of a text in pieces."""

    piece: int
    start: int
    end: int

    def word(self, cut: Sequence[str]) -> str:
        return cut[self.piece][self.start : self.end]

    def within(self, cut: Sequence[str]) -> tuple[str, int, int]:
        return cut[self.piece], self.start, self.end


def replaceable(sentence: str, source: Source) -> list[tuple[int, int]]:
    """Where the words of a sentence stand that may be replaced: those of the list, and with a model other Latin ones.

    >>> source = Source({"big": ["large"], "电脑": ["计算机"]}, None, "")
    >>> sentence = "He met Big Ben in a big house with a 电脑。"
    >>> [sentence[start:end] for start, end in replaceable(sentence, source)]
    ['big', '电脑']
    """
    capitals, protected = names(sentence), NEGATIONS | STOP_WORDS["en"]
    found = []
    for match in _WORD.finditer(sentence):
        word = match[0]
        if word[0].isascii():
            folded = word.casefold().replace("’", "'")
            wanted = folded in source.words or (source.model is not None and len(word) > 2)
            is_name = not word.islower() and (folded in capitals or match.start() > 0)
            if wanted and not is_name and folded not in protected:
                found.append(match.span())
        else:
            found += [(match.start() + start, match.start() + end) for start, end in _listed(word, source.words)]
    return found


def _listed(run: str, words: Mapping[str, Sequence[str]]) -> list[tuple[int, int]]:
    """The words of a list in a run of Han characters, the longest at each place; none that begins after a negation."""
    longest, found, at = max(map(len, words), default=0), [], 0
    while at < len(run):
        length = next((n for n in range(longest, 0, -1) if run[at : at + n] in words and len(run[at : at + n]) == n), 0)
        negated = any(run[max(0, at - n) : at] in NEGATIONS for n in (1, 2)) or run[at : at + length] in NEGATIONS
        if length and not negated:
            found.append((at, at + length))
        at += max(1, length)
    return found


def _draw(key: str, piece: int, start: int) -> float:
    return int(document_id(f"{key}\0{piece}\0{start}")[:12], 16) / 2**48


def _cased(word: str, like: str) -> str:
    return word[:1].upper() + word[1:] if like[:1].isupper() else word


# ---- masked language models ------------------------------------------------------------------------------------------


def fill(folder: Path, gaps: Sequence[tuple[str, int, int]]) -> list[list[str]]:
    """For each sentence with a gap (start and end of a word) the words that a model would put there, likeliest first.

    Only whole words of one token of the model count, of letters, and neither the word itself nor another form of it.
    """
    import torch

    tokenizer, model = load_masked(folder, str(folder))
    longest = min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", 512))
    filled: list[list[str]] = []
    for first in range(0, len(gaps), BATCH):
        some = gaps[first : first + BATCH]
        pairs = [
            (sentence, f"{sentence[:start]}{tokenizer.mask_token}{sentence[end:]}") for sentence, start, end in some
        ]
        inputs = tokenizer(*map(list, zip(*pairs, strict=True)), padding=True, return_tensors="pt")
        fits = inputs["input_ids"].shape[1] <= longest
        if not fits:  # one by one, and those that are too long stay
            filled += [fill(folder, [gap])[0] if len(some) > 1 else [] for gap in some]
            continue
        with torch.inference_mode():
            logits = model(**inputs.to(model.device)).logits.float()
        for row, (sentence, start, end) in enumerate(some):
            place = int((inputs["input_ids"][row] == tokenizer.mask_token_id).nonzero()[-1])
            chances, ids = logits[row, place].softmax(-1).topk(min(CANDIDATES, logits.shape[-1]))
            likely = [token for token, chance in zip(ids.tolist(), chances.tolist(), strict=True) if chance >= LEAST]
            words = [_whole_word(tokenizer, token) for token in likely]
            filled.append([word for word in words if word and _is_another(word, sentence[start:end])])
    return filled


def _whole_word(tokenizer: Any, token: int) -> str | None:
    """The word that a token is; None for a part of one, a mark or a special token."""
    piece = tokenizer.convert_ids_to_tokens(token)
    starts_word = not piece.startswith("##") and (piece[:1] in "Ġ▁" or not _marks_starts(tokenizer))
    word = tokenizer.convert_tokens_to_string([piece]).strip()
    return word if starts_word and word.isalpha() and token not in tokenizer.all_special_ids else None


@functools.lru_cache(maxsize=4)
def _marks_starts(tokenizer: Any) -> bool:
    """Whether the tokens of a vocabulary say that a word starts with them."""
    return sum(piece[:1] in "Ġ▁" for piece in tokenizer.get_vocab()) > len(tokenizer) // 10


def _is_another(word: str, original: str) -> bool:
    """Whether a word is more than another form: neither begins with all but the end of the other."""
    one, other = sorted((word.casefold(), original.casefold()), key=len)
    return not other.startswith(one[: max(3, len(one) - 1)]) and one not in NEGATIONS | STOP_WORDS["en"]


@functools.lru_cache(maxsize=2)
def load_masked(folder: Path, key: str) -> tuple[Any, Any]:
    """Tokenizer and masked language model of a folder. Raises UserError naming the key."""
    import torch
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    engines.be_quiet()
    torch.set_num_threads(1)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModelForMaskedLM.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except Exception as error:  # of transformers, safetensors and tokenizers, which have no class in common
        said = (" ".join(str(error).split()) or type(error).__name__)[:200]
        raise UserError(f"{key}: {folder} does not load as a masked language model: {said}") from None
    if tokenizer.mask_token is None:
        raise UserError(
            f"{key}: the tokenizer of {folder} has no mask token: name a model that fills gaps, such as BERT"
        )
    return tokenizer, model.eval().to(engines.device())
