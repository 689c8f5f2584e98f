"""The tokenizer that `shard.tokenizer` names, for counting alone."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path

from corpus.errors import UserError
from corpus.shard.chunks import WORDS, Tokens

FILE = "tokenizer.json"
_TEXTS_AT_ONCE = 10_000


def find_tokenizer(name: str) -> Path:
    """The tokenizer.json at a path, in a folder, or of a model on the hub (`owner/name`, `owner/name@revision`).

    Raises UserError where there is none that can be read.
    """
    path = Path(name) / FILE if Path(name).is_dir() else Path(name)
    if not path.is_file():
        if Path(name).is_dir():
            raise UserError(f"shard.tokenizer: {name} has no {FILE}: save the model's fast tokenizer there")
        path = _fetch(name)
    try:
        _load(path)
    except Exception as error:  # the library raises nothing narrower
        raise UserError(f"shard.tokenizer: {path} is no tokenizer of the library tokenizers: {error}") from None
    return path


def tokens_of(path: Path | None) -> Tokens:
    """What a token is: one of the tokenizer in a file, without the special ones that it adds; of no file a word."""
    return WORDS if path is None else Tokens(functools.partial(_count, path), functools.partial(_starts, path))


def _count(path: Path, texts: Sequence[str]) -> list[int]:
    tokenizer = _load(path)
    return [
        len(encoding)
        for first in range(0, len(texts), _TEXTS_AT_ONCE)
        for encoding in tokenizer.encode_batch_fast(texts[first : first + _TEXTS_AT_ONCE], add_special_tokens=False)
    ]


def _starts(path: Path, texts: Sequence[str]) -> list[list[int]]:
    tokenizer = _load(path)
    return [
        [start for start, _ in encoding.offsets]
        for first in range(0, len(texts), _TEXTS_AT_ONCE)
        for encoding in tokenizer.encode_batch(texts[first : first + _TEXTS_AT_ONCE], add_special_tokens=False)
    ]


@functools.lru_cache(maxsize=1)
def _load(path: Path):  # type: ignore[no-untyped-def]
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # `</s>` in a text is text
    return tokenizer


def _fetch(name: str) -> Path:
    missing = f"shard.tokenizer: {name} is no file, no folder, and no model with {FILE} that can be fetched"
    repository, _, revision = name.partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository) or repository.endswith(".json"):
        raise UserError(f"{missing}: on the hub its name is owner/name")
    import huggingface_hub

    try:
        return Path(huggingface_hub.hf_hub_download(repository, FILE, revision=revision or None))
    except Exception as error:  # the hub's own, httpx's and the operating system's: all mean that it is not there
        reason = str(error).splitlines()[0]
        raise UserError(f"{missing}: {reason}") from None
