"""The two ways a stage ends badly; the command line turns them into one sentence and an exit code."""


class UserError(Exception):
    """The user's mistake: the message names the file, key or row, the value, and what would be right. Exit 2."""


class StageError(Exception):
    """A stage failed through nobody's typing: a worker died again and again, a law was broken. Exit 1."""
