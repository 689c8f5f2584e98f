"""Arrays that lie in memory while a budget lasts, and in mapped files after that."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


class Budget:
    """How much memory the large arrays may take, and where those go that find no room.

    A mapped file costs no memory of the process's own: its pages are the system's, which writes them out when others
    need the room.
    """

    def __init__(self, megabytes: int, folder: Path) -> None:
        self.left = megabytes * 1_000_000
        self.folder = folder
        self.files = 0

    def array(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """A new array, its content undefined."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size <= self.left:
            self.left -= size
            return np.empty(shape, dtype)
        self.files += 1
        path = self.folder / f"array-{self.files}"
        path.touch()
        take_room(path, size)
        return np.memmap(path, dtype, "r+", shape=shape)


def take_room(path: Path, size: int) -> None:
    """Have the disk set a file's bytes aside before it is mapped: a full one is an OSError here, and a crash later."""
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, size)
