"""A blind sheet on which people rate the models' answers, and what its filled-in copies say."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations, product
from pathlib import Path
from statistics import fmean

from corpus.errors import UserError
from corpus.stage import write_json

CRITERIA = ("fluency", "relevance")
SCORES = (1, 2, 3, 4, 5)


def write_sheet(folder: Path, samples: Sequence[Mapping[str, str]], models: Sequence[str]) -> None:
    """Write ratings.csv, a line for each sample and model in an order that tells nothing, and ratings_key.json.

    An item's name follows from what it shows, so that no sheet is read by the key of other answers.
    """
    key, rows = {}, {}  # by item: of samples that are the same one is rated
    for sample, model in product(samples, models):
        shown = [sample["set"], sample["prompt"], sample[model]]
        digest = hashlib.blake2b(json.dumps([sample["id"], model, *shown]).encode(), digest_size=6).hexdigest()
        key[f"r{digest}"] = {"set": sample["set"], "id": sample["id"], "model": model}
        rows[f"r{digest}"] = [f"r{digest}", *map(in_cell, shown), *("" for _ in CRITERIA)]
    with (folder / "ratings.csv").open("w", encoding="utf-8-sig", newline="") as file:  # Excel knows UTF-8 by its mark
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(
            [["item", "set", "prompt", "answer", *CRITERIA], *sorted(rows.values())]
        )
    write_json(folder / "ratings_key.json", key)


def in_cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula: an apostrophe goes before what would begin one.

    >>> in_cell("=HYPERLINK(1)"), in_cell("1 + 1")
    ("'=HYPERLINK(1)", '1 + 1')
    """
    return f"'{text}" if text[:1] in ("\t", "\r", "\n") or text.lstrip()[:1] in tuple("=+-@＝＋－＠") else text


def collect(key: Path, files: Sequence[Path]) -> dict[str, dict[str, dict[str, float | None]]]:
    """By model, and for `weighted kappa` and `equal scores`, each criterion's value and the n scores behind it.

    Models have their mean. A file is a rater: of the scores that two share, Cohen's kappa with quadratic weights and
    the share of equal ones, averaged over pairs of raters; null where there are none, a kappa also where all are the
    same. Raises UserError naming file, line and value.
    """
    try:
        models = {item: entry["model"] for item, entry in json.loads(key.read_text("utf-8")).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{key} is not the key of a sheet: `train evaluate` writes it beside ratings.csv") from None
    raters = [_read_sheet(path, models) for path in files]
    found: dict[str, dict[str, dict[str, float | None]]] = defaultdict(dict)
    for criterion in CRITERIA:
        scores = [{item: score for (item, kind), score in rater.items() if kind == criterion} for rater in raters]
        for model in sorted(set(models.values())):
            own = [score for rater in scores for item, score in rater.items() if models[item] == model]
            found[model][criterion] = {"value": _mean(own), "n": len(own)}
        pairs = [[(one[item], two[item]) for item in one if item in two] for one, two in combinations(scores, 2)]
        for name, measure in (("weighted kappa", _kappa), ("equal scores", _equal)):
            values = [value for pair in pairs if (value := measure(pair)) is not None]
            found[name][criterion] = {"value": _mean(values), "n": sum(map(len, pairs))}
    return dict(found)


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _equal(pairs: Sequence[tuple[int, int]]) -> float | None:
    return _mean([one == two for one, two in pairs])


def _kappa(pairs: Sequence[tuple[int, int]]) -> float | None:
    from sklearn.metrics import cohen_kappa_score

    if len({score for pair in pairs for score in pair}) < 2:  # chance alone explains it: 0 / 0
        return None
    return float(cohen_kappa_score(*zip(*pairs, strict=True), weights="quadratic", labels=SCORES))


def _read_sheet(path: Path, known: Mapping[str, str]) -> dict[tuple[str, str], int]:
    """Scores by item and criterion. These are ASCII, so the encoding that the sheet was saved in does not matter."""
    try:
        text = path.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    delimiter = ";" if ";" in text.partition("\n")[0] else ","  # as Excel writes it where the comma is in numbers
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader if any(row.values())]
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num} is no CSV ({error}): close its quotation marks") from None
    if not {"item", *CRITERIA} <= set(reader.fieldnames or ()):
        raise UserError(f"{path}: its first line lacks item, {' or '.join(CRITERIA)}: fill in a copy of ratings.csv")
    found: dict[tuple[str, str], int] = {}
    seen: set[str] = set()
    for number, row in rows:
        item, where = row["item"], f"{path}: line {number}"
        if item not in known or item in seen:
            raise UserError(
                f"{where}: item {(item or '')[:40]!r} is {'there twice' if item in seen else 'not of this evaluation'}"
            )
        seen.add(item)
        for criterion in CRITERIA:
            value = (row[criterion] or "").strip()
            if value and value not in map(str, SCORES):
                raise UserError(f"{where}: {criterion} {value!r} is not 1 to 5, or empty: not rated")
            if value:
                found[item, criterion] = int(value)
    return found


def summarise(key: Path, files: Sequence[Path]) -> str:
    """What `collect` finds, as a table for people."""
    lines = [f"{'mean of 1 to 5 (n)':<20}" + "".join(f"{criterion:>16}" for criterion in CRITERIA)]
    for name, own in collect(key, files).items():
        values = [("–" if one["value"] is None else f"{one['value']:.2f}") + f" ({one['n']})" for one in own.values()]
        lines.append(f"{name:<20}" + "".join(f"{value:>16}" for value in values))
    return "\n".join(lines)
