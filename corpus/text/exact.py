"""When two texts are the same text: everywhere in the project by the same key."""

from __future__ import annotations

import hashlib
import unicodedata


def normalised(text: str) -> str:
    """NFC, each run of white space one space, none at the ends.

    >>> normalised(" cafe\\u0301\\n\\n 早上\\u3000好 ")
    'café 早上 好'
    """
    return " ".join(unicodedata.normalize("NFC", text).split())


def exact_key(text: str) -> str | None:
    """128-bit BLAKE2b of the normalised text, in hex; None where nothing is left: empty texts are not alike.

    >>> exact_key("a  b\\n") == exact_key("a b"), exact_key("a b") == exact_key("a, b"), exact_key(" \\n")
    (True, False, None)
    """
    text = normalised(text)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest() if text else None
