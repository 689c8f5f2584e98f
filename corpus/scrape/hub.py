"""Rows of a dataset on the hub or in a folder, as a stream: nothing of it is downloaded before it is read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain
from typing import Any

from corpus.errors import StageError, UserError
from corpus.sources import HfSource
from corpus.storage_errors import is_unreachable, shown


def stream(source: HfSource, skip: int = 0) -> Iterator[dict[str, Any]]:
    """The rows of a dataset from the `skip`-th on. Code that a dataset brings is never run.

    Raises UserError where the dataset, its configuration or its split is missing, StageError where the hub cannot be
    reached.
    """
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    from datasets import load_dataset

    try:
        rows = iter(
            load_dataset(
                source.dataset, source.config, split=source.split, revision=source.revision, streaming=True
            ).skip(skip)
        )
        first = next(rows, None)
    except Exception as error:  # datasets raises what its many file systems and parsers raise
        raise _refused(source, error) from None
    return _rest(source, [] if first is None else [first], rows)


def _rest(source: HfSource, first: list[dict[str, Any]], rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    try:
        yield from chain(first, rows)
    except GeneratorExit:
        raise
    except Exception as error:
        raise _refused(source, error) from None


def _refused(source: HfSource, error: Exception) -> UserError | StageError:
    said = shown(" ".join(str(error).split()))[:300] or type(error).__name__
    what = f"sources: {source.name}: dataset {source.dataset}, split {source.split}: {said}"
    if is_unreachable(error) and "OfflineMode" not in said:  # which its user has chosen
        return StageError(f"{what}; run again when the hub can be reached")
    return UserError(f"{what}; name one that is on the hub or in a folder, and whether it can be reached")
