"""Pieces of tokens in files, so that memory does not grow with the corpus that is packed."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from train.encode import Piece

BLOCK = 1_000_000  # pieces looked at together: their sizes, not their tokens

Numbers = npt.NDArray[np.int64]


class Column:
    """Numbers in a file without a name: appended, and mapped to be read."""

    def __init__(self, folder: Path, dtype: npt.DTypeLike) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (it lives as long as the column)
        self._dtype = np.dtype(dtype)
        self._length = 0
        self._mapped: npt.NDArray[Any] = np.zeros(0, self._dtype)

    def __len__(self) -> int:
        return self._length

    def append(self, values: npt.ArrayLike) -> None:
        """Add numbers at the end."""
        array = np.asarray(values, self._dtype)
        self._file.write(array.tobytes())
        self._length += len(array)

    def values(self) -> npt.NDArray[Any]:
        """All numbers up to now, mapped and not read."""
        if len(self._mapped) < self._length:
            self._file.flush()
            self._mapped = np.memmap(self._file, self._dtype, "r", shape=(self._length,))
        return self._mapped

    def stretches(self, starts: Numbers, sizes: Numbers) -> npt.NDArray[Any]:
        """The numbers of some stretches of the file, one after another."""
        self._file.flush()
        file, each = self._file.fileno(), self._dtype.itemsize
        wanted = list(zip((starts * each).tolist(), (sizes * each).tolist(), strict=True))
        # Mapped, each page that is missed would bring megabytes around it; asked for first, all are read at once.
        if hasattr(os, "posix_fadvise"):
            for start, size in wanted:
                os.posix_fadvise(file, start, size, os.POSIX_FADV_WILLNEED)
        return np.frombuffer(b"".join(os.pread(file, size, start) for start, size in wanted), self._dtype)


class Block(NamedTuple):
    """Some pieces in their order: where they lie, how many tokens they have, and the numbers of their documents."""

    places: Numbers
    sizes: Numbers
    owners: Numbers


class StoredPieces:
    """Pieces in files. Of each document, and not of each piece, memory holds some 100 bytes: its id and language."""

    def __init__(self, folder: Path) -> None:
        self.documents: list[str] = []  # ids by number
        self.langs: list[str] = []
        self._folder = folder
        self._tokens, self._learned = Column(folder, np.int32), Column(folder, np.bool_)
        self._bounds, self._owners = Column(folder, np.int64), Column(folder, np.int32)
        self._order = Column(folder, np.int64)  # the places of the pieces, some several times
        self._bounds.append([0])

    def __len__(self) -> int:
        return len(self._order)

    def add(self, pieces: Sequence[Piece], times: int = 1) -> range:
        """Append a document's pieces, `times` times one after another. Returns their places."""
        places = self._store(pieces)
        for _ in range(times):
            self._order.append(places)
        return places

    def _store(self, pieces: Sequence[Piece]) -> range:
        start = len(self._tokens)
        self._tokens.append(np.concatenate([piece.tokens for piece in pieces]))
        self._learned.append(np.concatenate([piece.learned for piece in pieces]))
        self._bounds.append(start + np.cumsum([len(piece.tokens) for piece in pieces]))
        places = range(len(self._owners), len(self._owners) + len(pieces))
        self._owners.append(np.full(len(pieces), len(self.documents), np.int32))
        self.documents.append(pieces[0].document)
        self.langs.append(pieces[0].lang)
        return places

    def reorder(self, runs: Iterable[Sequence[int] | Numbers]) -> None:
        """Be the pieces at these places from now on, one run of them after another."""
        order = Column(self._folder, np.int64)
        for places in runs:
            order.append(places)
        self._order = order

    def blocks(self, pieces: int = BLOCK) -> Iterator[Block]:
        """All pieces in their order, some at a time."""
        for start in range(0, len(self), pieces):
            yield self._block(np.array(self._order.values()[start : start + pieces]))

    def at(self, positions: Numbers) -> Block:
        """The pieces at some positions of the order."""
        return self._block(self._order.values()[positions])

    def _block(self, places: Numbers) -> Block:
        bounds = self._bounds.values()
        return Block(places, bounds[places + 1] - bounds[places], self._owners.values()[places])

    def read(self, block: Block) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
        """The tokens of some pieces one after another, and which of them are learned."""
        first = self._bounds.values()[block.places]
        return self._tokens.stretches(first, block.sizes), self._learned.stretches(first, block.sizes)

    def pieces(self) -> Iterator[Piece]:
        """One piece after another, read as they are asked for."""
        for block in self.blocks():
            for number, owner in enumerate(block.owners.tolist()):
                one = Block(*(column[number : number + 1] for column in block))
                yield Piece(self.documents[owner], self.langs[owner], *self.read(one))

    def tokens_by_document(self) -> Numbers:
        """Tokens of each document by its number."""
        tokens = np.zeros(len(self.documents), np.int64)
        for block in self.blocks():
            np.add.at(tokens, block.owners, block.sizes)
        return tokens

    def tokens_by_language(self) -> Counter[str]:
        """Tokens by the language of their documents."""
        tokens: Counter[str] = Counter()
        for lang, count in zip(self.langs, self.tokens_by_document().tolist(), strict=True):
            tokens[lang] += count
        return +tokens

    def keep_first_tokens(self, tokens: Mapping[str, int]) -> None:
        """Be the first pieces that have so many tokens of each language, the last cut to fit if that leaves a label."""
        left = dict(tokens)
        numbers = {lang: number for number, lang in enumerate(dict.fromkeys(self.langs))}
        lang_of = np.array([numbers[lang] for lang in self.langs], np.int32)
        self.reorder(self._first_of(block, left, numbers, lang_of) for block in self.blocks())

    def _first_of(
        self, block: Block, left: dict[str, int], numbers: Mapping[str, int], lang_of: npt.NDArray[np.int32]
    ) -> Numbers:
        """The places of a block's pieces that are taken; counts their tokens down in `left`."""
        places, taken = block.places, np.zeros(len(block.places), np.bool_)
        for lang, number in numbers.items():
            own = np.flatnonzero(lang_of[block.owners] == number)
            ends = np.cumsum(block.sizes[own])
            whole = int(np.searchsorted(ends, left.get(lang, 0), side="right"))
            taken[own[:whole]] = True
            if whole:
                left[lang] -= int(ends[whole - 1])
            for position in own[whole:]:
                if not (space := left.get(lang, 0)):
                    break
                one = Block(*(column[position : position + 1] for column in block))
                piece_tokens, learned = (array[:space] for array in self.read(one))
                if not learned.any():
                    continue
                taken[position] = True
                left[lang] -= len(piece_tokens)
                if len(piece_tokens) < block.sizes[position]:
                    piece = Piece(self.documents[block.owners[position]], lang, piece_tokens, learned)
                    places[position] = self._store([piece])[0]
        return places[taken]
