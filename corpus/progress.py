"""Progress of long work: a bar on a terminal, nothing in a pipe, and with `--log-json` a JSON line now and then."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
LOG = "CORPUSMILL_LOG"  # the environment's, so that worker processes know as well; `json` is the one value it has
SECONDS = 1.0  # between two lines at least


class _Lines(tqdm):  # type: ignore[type-arg]
    """A bar that writes lines of JSON on standard error: event, stage, done, total, unit, seconds."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        facts = self.format_dict
        log(
            "progress",
            stage=self.desc.removesuffix(": "),
            done=facts["n"],
            total=facts["total"],
            unit=facts["unit"],
            seconds=round(facts["elapsed"], 3),
        )


def progress(items: Iterable[Item] | None = None, *, shown: bool = True, **options: Any) -> Any:
    """A tqdm bar over some items, or to be updated, with tqdm's options; silent where `shown` is false."""
    if not shown:
        return tqdm(items, disable=True)
    if not logs_json():
        return tqdm(items, disable=None, **options)
    # What tqdm itself prints, a line break at the end, is in nobody's JSON.
    return _Lines(items, mininterval=SECONDS, file=io.StringIO(), **options)


def logs_json() -> bool:
    """Whether `--log-json` was said."""
    return os.environ.get(LOG) == "json"


def log(event: str, **facts: Any) -> None:
    """Write a line of JSON on standard error."""
    with contextlib.suppress(ValueError):  # closed
        print(json.dumps({"event": event, **facts}, ensure_ascii=False), file=sys.stderr, flush=True)
