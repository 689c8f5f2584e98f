"""The two ways a stage ends badly; the command line turns them into one sentence and an exit code."""

_WANTING = (
    "Cannot allocate memory",
    "Resource temporarily unavailable",
    "can't start new thread",
    "failed to map segment",
    "allocation of",
    "capacity overflow",
    "failed to spawn thread",
    "error return without exception set",  # what an extension says that could not even say this
)


class UserError(Exception):
    """The user's mistake: the message names the file, key or row, the value, and what would be right. Exit 2."""


class StageError(Exception):
    """A stage failed through nobody's typing: a worker died again and again, a law was broken. Exit 1."""


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was wanting, or address space, or room for another thread.

    >>> is_lack_of_memory(MemoryError()), is_lack_of_memory(OSError(12, "Cannot allocate memory"))
    (True, True)
    """
    said = str(error)
    return isinstance(error, MemoryError) or any(phrase in said for phrase in _WANTING)


def is_panic(error: BaseException) -> bool:
    """Whether a library of Rust gave up: Python's class of it is no Exception, and has no name to import."""
    return type(error).__name__ == "PanicException"
