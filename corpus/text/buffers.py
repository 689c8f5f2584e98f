"""A column of texts as the plain buffers that compiled kernels read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc


@dataclasses.dataclass(frozen=True)
class Texts:
    """The buffers of a string column: text i is `data[offsets[i]:offsets[i + 1]]`, UTF-8."""

    data: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        for name in ("data", "offsets"):  # read-only, whoever made them: kernels are compiled for one kind of array
            array = getattr(self, name).view()
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    @classmethod
    def of(cls, column: pa.Array | pa.ChunkedArray) -> Texts:
        """The buffers of an Arrow column, without a copy where it is one chunk of large_string; null is empty.

        >>> texts = Texts.of(pa.array(["naïve", None, "增量"]))
        >>> texts.offsets.tolist(), [texts.text(number) for number in range(len(texts))]
        ([0, 6, 6, 12], ['naïve', '', '增量'])
        """
        column = pc.cast(column, pa.large_string())
        if isinstance(column, pa.ChunkedArray):
            column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
        if column.null_count:
            column = pc.fill_null(column, "")
        _, offsets, data = column.buffers()
        if offsets is None or data is None:
            return cls(np.empty(0, np.uint8), np.zeros(len(column) + 1, np.int64))
        ends = np.frombuffer(offsets, np.int64)
        return cls(np.frombuffer(data, np.uint8), ends[column.offset : column.offset + len(column) + 1])

    @classmethod
    def of_strings(cls, strings: Iterable[str]) -> Texts:
        """The buffers of some strings; lone surrogates come through."""
        encoded = [string.encode("utf-8", "surrogatepass") for string in strings]
        offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, some: slice) -> Texts:
        """A run of the texts, without a copy."""
        start, end, _ = some.indices(len(self))
        return Texts(self.data, self.offsets[start : end + 1])

    def slices(self, texts: int, most_bytes: int) -> Iterator[Texts]:
        """Runs of at most so many texts and bytes, but of at least one text."""
        start = 0
        while start < len(self):
            enough = int(np.searchsorted(self.offsets, self.offsets[start] + most_bytes, side="right")) - 1
            end = min(start + texts, max(start + 1, enough))
            yield self[start:end]
            start = end

    @property
    def size(self) -> int:
        """Bytes of all texts."""
        return int(self.offsets[-1] - self.offsets[0])

    def raw(self, number: int) -> bytes:
        """The bytes of one of the texts."""
        return self.data[self.offsets[number] : self.offsets[number + 1]].tobytes()

    def text(self, number: int) -> str:
        """One of the texts as a string; a lone surrogate comes through, other broken bytes as U+FFFD."""
        raw = self.raw(number)
        try:
            return raw.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return raw.decode("utf-8", "replace")
