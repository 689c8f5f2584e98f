"""Signals of the user's own: an SQL expression in params, or a Python function."""

from __future__ import annotations

import difflib
import importlib
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import polars as pl

from corpus.documents import DOCUMENT
from corpus.errors import UserError
from corpus.files import file_digest
from corpus.params import OwnSignal

Function = Callable[[pl.DataFrame], pl.Series]

# What a column of `measure` must not be called: stages read these from wherever they stand.
_COLUMNS_OF_STAGES = {field.name for field in DOCUMENT} | {
    *("kept", "reasons", "margins", "duplicate_of", "similarity", "cluster", "split", "group", "segmenter"),
    *("ppl", "ppl_excl_oov", "oov_rate", "fluency_gain", "word_gain", "lm_tokens"),
}


def own_signals(documents: pl.DataFrame, signals: Mapping[str, OwnSignal]) -> pl.DataFrame:
    """A float64 column per signal for a batch of documents (id, text, lang, and the measured signals).

    Expressions and functions see a batch at a time and must judge each document by itself; what is not finite is null.

    Raises UserError naming the signal where an expression cannot be evaluated, or a function fails or returns anything
    but one number a document.

    >>> documents = pl.DataFrame({"id": ["a"], "text": ["why? why not?"]})
    >>> questions = OwnSignal(sql="LENGTH(text) - LENGTH(REPLACE(text, '?', ''))")
    >>> own_signals(documents, {"questions": questions})["questions"].to_list()
    [2.0]
    """
    columns = {name: _evaluate(f"measure.signals.{name}", signal, documents) for name, signal in signals.items()}
    return pl.DataFrame(columns, dict.fromkeys(signals, pl.Float64))


def source_digests(signals: Mapping[str, OwnSignal]) -> str:
    """What the functions' modules hold, for the keys of finished parts: an edited function measures again."""
    digests = {}
    for name, signal in sorted(signals.items()):
        if signal.python:
            function = _function(f"measure.signals.{name}", signal.python)
            file = getattr(sys.modules[signal.python.partition(":")[0]], "__file__", None)
            digests[name] = file_digest(Path(file)) if file else repr(function)
    return repr(digests)


def refuse_taken_names(names: Iterable[str], taken: Iterable[str]) -> None:
    """Raises UserError for a signal that has the name of another column."""
    for name in names:
        if name in {*taken, *_COLUMNS_OF_STAGES}:
            raise UserError(f"measure.signals.{name}: another column has this name: choose one of your own")


def _evaluate(key: str, signal: OwnSignal, documents: pl.DataFrame) -> pl.Series:
    if signal.sql is not None:
        try:
            values = documents.select(pl.sql_expr(signal.sql).alias("value"))["value"]
        except pl.exceptions.PolarsError as error:
            raise UserError(f"{key}.sql: {signal.sql}: {_said_of_sql(error, documents.columns)}") from None
    else:
        try:
            values = _function(key, signal.python or "")(documents)
        except UserError:
            raise
        except (Exception, SystemExit) as error:  # whatever a user's function raises is the user's to mend
            raise UserError(
                f"{key}.python: {signal.python} failed: {type(error).__name__}: {_first_line(error)}"
            ) from error
        if isinstance(values, pl.Series) and len(values) != documents.height:
            raise UserError(f"{key} gave {len(values)} values for {documents.height} documents: give one a document")
    return _numbers(key, values, documents.height)


def _numbers(key: str, values: object, height: int) -> pl.Series:
    if not isinstance(values, pl.Series) or len(values) not in (1, height):
        shape = f"{len(values)} values" if isinstance(values, pl.Series) else type(values).__name__
        raise UserError(
            f"{key} gave {shape} for {height} documents: it must give a Polars Series, one number a document"
        )
    if not (values.dtype.is_numeric() or values.dtype in (pl.Boolean, pl.Null)):
        raise UserError(f"{key} gave {values.dtype}, not numbers: cast it, or compare it with something")
    whole = values if len(values) == height else values.new_from_index(0, height)
    numbers = whole.cast(pl.Float64)
    return numbers.set(~numbers.is_finite(), None)


def _function(key: str, name: str) -> Function:
    """The function that `module:function` names; the module may lie in the working folder."""
    module, _, attribute = name.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        function: Function = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:  # whatever a user's module raises is the user's to mend
        said = f"{type(error).__name__}: {_first_line(error)}"
        raise UserError(f"{key}.python: {name}: {said}; it names a function as module:function") from None
    if not callable(function):
        raise UserError(f"{key}.python: {name} is no function but {function!r}")
    return function


def _said_of_sql(error: Exception, columns: Sequence[str]) -> str:
    said = _first_line(error)
    unknown = re.match(r'unable to find column "(\w+)"', said)
    if unknown is None:
        return said
    near = difflib.get_close_matches(unknown[1], columns, n=1)
    return f"no column {unknown[1]}: " + (f"did you mean {near[0]}?" if near else f"there are {', '.join(columns)}")


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
