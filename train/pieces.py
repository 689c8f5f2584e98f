"""Pieces of tokens in a file, so that memory does not grow with the corpus that is packed."""

from __future__ import annotations

import itertools
import os
import tempfile
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import overload

import numpy as np

from train.encode import Piece

_TOKEN = 4  # bytes of a token; a byte more says whether it is learned


class StoredPieces(Sequence[Piece]):
    """Pieces in a file without a name, read one at a time: of each, memory holds some 50 bytes, of a document 200."""

    def __init__(self, folder: Path, pieces: Iterable[Piece] = ()) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (it lives as long as its pieces)
        self._ends = array("q", [0])  # bytes
        self._documents: list[str] = []  # of each piece: one string, however many of its pieces there are
        self._langs: list[str] = []
        self._order = array("q")  # of the pieces in the file, some several times
        for piece in pieces:
            self.add([piece])

    def add(self, pieces: Sequence[Piece], times: int = 1) -> range:
        """Append a document's pieces, `times` times one after another. Returns their places in the file."""
        first = len(self._documents)
        for piece in pieces:
            self._file.write(piece.tokens.astype(np.int32).tobytes() + piece.learned.astype(bool).tobytes())
            self._ends.append(self._ends[-1] + len(piece.tokens) * (_TOKEN + 1))
            self._documents.append(piece.document)
            self._langs.append(piece.lang)
        places = range(first, len(self._documents))
        self._order.extend(itertools.chain.from_iterable(itertools.repeat(places, times)))
        return places

    def reorder(self, places: Iterable[int]) -> None:
        """Be the pieces at some places of the file from now on."""
        self._order = array("q", places)

    def __len__(self) -> int:
        return len(self._order)

    @overload
    def __getitem__(self, number: int) -> Piece: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Piece]: ...
    def __getitem__(self, number: int | slice) -> Piece | Sequence[Piece]:
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(len(self)))]
        place = self._order[number]
        start, end = self._ends[place], self._ends[place + 1]
        self._file.flush()
        content = os.pread(self._file.fileno(), end - start, start)
        size = (end - start) // (_TOKEN + 1)
        tokens = np.frombuffer(content, np.int32, size)
        learned = np.frombuffer(content, bool, size, size * _TOKEN)
        return Piece(self._documents[place], self._langs[place], tokens, learned)
