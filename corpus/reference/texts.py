"""Reading trusted text and setting documents of it aside."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from corpus.documents import document_id
from corpus.errors import UserError

SEPARATOR = re.compile(r"^---[ \t]*$", re.MULTILINE)


def read_texts(path: Path, key: str = "reference.texts") -> list[str]:
    """The documents of a text file, between lines of `---`; in NFC, as all documents are. Blank ones do not count.

    Raises UserError naming the key of params if the file is missing or not UTF-8.
    """
    try:
        content = path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{key}: {path} does not exist: name text files in UTF-8") from None
    except (UnicodeDecodeError, OSError) as error:
        raise UserError(f"{key}: {path} is not a text file in UTF-8 ({error}): convert it, or name another") from None
    texts = (text.strip() for text in SEPARATOR.split(unicodedata.normalize("NFC", content)))
    return [text for text in texts if text]


def set_aside(texts: Sequence[str], fraction: float) -> tuple[list[str], list[str]]:
    """The documents to train on, and of the others: every k-th in the order of their hashes, k being 1 / fraction.

    Which they are depends on nothing but the texts, and copies of a document stay together.

    >>> train, heldout = set_aside([str(number) for number in range(10)], 0.2)
    >>> len(train), len(heldout)
    (8, 2)
    """
    by_hash = sorted({document_id(text) for text in texts})
    heldout = set(by_hash[:: round(1 / fraction)])
    return (
        [text for text in texts if document_id(text) not in heldout],
        [text for text in texts if document_id(text) in heldout],
    )
