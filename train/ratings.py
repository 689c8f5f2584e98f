"""A blind sheet on which people rate the models' answers, and what its filled-in copies say."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from itertools import combinations, product
from pathlib import Path
from statistics import fmean

from corpus.errors import UserError
from corpus.files import write_json

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
    header = ["item", "set", "prompt", "answer", *CRITERIA]
    with (folder / "ratings.csv").open("w", encoding="utf-8-sig", newline="") as file:  # Excel knows UTF-8 by its mark
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([header, *sorted(rows.values())])
    write_json(folder / "ratings_key.json", key)


def in_cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula: an apostrophe goes before what would begin one.

    >>> in_cell("=HYPERLINK(1)"), in_cell("1 + 1")
    ("'=HYPERLINK(1)", '1 + 1')
    """
    return f"'{text}" if text[:1] in ("\t", "\r", "\n") or text.lstrip()[:1] in tuple("=+-@＝＋－＠") else text


def collect(key: Path, files: Sequence[Path]) -> dict[str, dict[str, dict[str, float | None]]]:
    """By model, and for `weighted kappa`, each criterion's value and the n scores behind it.

    Models have their mean. A file is a rater: `weighted kappa` is Cohen's, with quadratic weights, of the scores that
    two share, averaged over pairs of raters. Null is what has no scores, a kappa also where all of them are the same.
    Raises UserError naming file, line and value.
    """
    try:
        models = {item: entry["model"] for item, entry in json.loads(key.read_text("utf-8")).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{key} is not the key of a sheet: `train evaluate` writes it beside ratings.csv") from None
    sheets = [_read_sheet(path, set(models)) for path in files]
    found: dict[str, dict[str, dict[str, float | None]]] = defaultdict(dict)
    for criterion in CRITERIA:
        raters = [sheet[criterion] for sheet in sheets]
        for model in sorted(set(models.values())):
            scores = [score for rater in raters for item, score in rater.items() if models[item] == model]
            found[model][criterion] = {"value": fmean(scores) if scores else None, "n": len(scores)}
        shared = [[(one[item], two[item]) for item in one if item in two] for one, two in combinations(raters, 2)]
        kappas = [kappa for pairs in shared if (kappa := _kappa(pairs)) is not None]
        found["weighted kappa"][criterion] = {"value": fmean(kappas) if kappas else None, "n": sum(map(len, shared))}
    return found


def _kappa(pairs: Sequence[tuple[int, int]]) -> float | None:
    from sklearn.metrics import cohen_kappa_score

    if len({score for pair in pairs for score in pair}) < 2:  # chance alone explains it: 0 / 0
        return None
    return float(cohen_kappa_score(*zip(*pairs, strict=True), weights="quadratic", labels=SCORES))


def _read_sheet(path: Path, items: Set[str]) -> dict[str, dict[str, int]]:
    """Scores by criterion and item. These are ASCII, so the encoding that the sheet was saved in does not matter."""
    try:
        text = path.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    delimiter = ";" if ";" in text.partition("\n")[0] else ","  # as Excel writes it where the comma is in numbers
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    found: dict[str, dict[str, int]] = {criterion: {} for criterion in CRITERIA}
    seen: set[str] = set()
    try:
        if not {"item", *CRITERIA} <= set(reader.fieldnames or ()):
            raise UserError(f"{path}: its first line lacks item, fluency or relevance: fill in a copy of ratings.csv")
        for row in filter(lambda row: any(row.values()), reader):
            item, where = row["item"], f"{path}: line {reader.line_num}"
            if item not in items or item in seen:
                wrong = "there twice" if item in seen else "not of this evaluation"
                raise UserError(f"{where}: item {(item or '')[:40]!r} is {wrong}")
            seen.add(item)
            for criterion in CRITERIA:
                if value := (row[criterion] or "").strip():
                    if value not in map(str, SCORES):
                        raise UserError(f"{where}: {criterion} {value!r} is not 1 to 5, or empty: not rated")
                    found[criterion][item] = int(value)
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num} is no CSV ({error}): close its quotation marks") from None
    return found


def summarise(key: Path, files: Sequence[Path]) -> str:
    """What `collect` finds, as a table for people."""
    lines = [f"{'mean of 1 to 5 (n)':<20}" + "".join(f"{criterion:>16}" for criterion in CRITERIA)]
    for name, measures in collect(key, files).items():
        values = ["–" if measure["value"] is None else f"{measure['value']:.2f}" for measure in measures.values()]
        cells = [f"{value} ({measure['n']})" for value, measure in zip(values, measures.values(), strict=True)]
        lines.append(f"{name:<20}" + "".join(f"{cell:>16}" for cell in cells))
    return "\n".join(lines)
