"""Chinese words, by jieba's dictionary and model, for profiles whose bounds were made with them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from corpus.errors import UserError
from corpus.text.buffers import Texts


def joined_by_jieba(texts: Texts, chosen: Sequence[bool]) -> npt.NDArray[np.uint8]:
    """Where characters of the chosen texts go on with the word before them, as `corpus.text.segment.segment` takes it.

    Raises UserError where rjieba is not installed.
    """
    try:
        from rjieba import cut
    except ImportError:
        raise UserError("measure.segmenter is jieba, which is not installed: pip install 'corpusmill[jieba]'") from None
    joined = np.zeros(len(texts.data), np.uint8)
    for number in np.flatnonzero(chosen):
        start, end = int(texts.offsets[number]), int(texts.offsets[number + 1])
        lengths = [len(word) for word in cut(texts.text(int(number)))]
        character_starts = np.flatnonzero((texts.data[start:end] & 0xC0) != 0x80)
        joined[start:end] = 1
        joined[start + character_starts[np.cumsum([0, *lengths])[:-1]]] = 0
    return joined
