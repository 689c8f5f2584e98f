"""Profiles: the bounds of one language as data, each with its reason, and what params.yaml changes of them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import yaml
from pydantic import ValidationError

from corpus.errors import UserError
from corpus.params import Bound, Section

FOLDER = Path(__file__).parent / "profiles"

Side = Literal["min", "max"]


class Rule(Bound):
    """Bounds of one signal, and where they come from."""

    why: str


class Profile(Section):
    """What documents of a language must be like. Rules are judged, and reported, in this order."""

    about: str
    rules: dict[str, Rule]


def load_profile(name: str, language: str, folder: Path = FOLDER) -> Profile:
    """Read a profile. Raises UserError, listing those there are, if there is none of that name or it cannot be read."""
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(f"filter.profile.{language}: there is no profile {name!r}: {hint}There are {', '.join(known)}")
    path = folder / f"{name}.yaml"
    try:
        return Profile.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except (yaml.YAMLError, ValidationError) as error:
        raise UserError(f"{path} is not a profile: {' '.join(str(error).split())}") from None


def override(rules: Mapping[str, Rule], bounds: Mapping[str, Bound | None]) -> dict[str, Rule]:
    """The rules with what filter.bounds says of one language put in their place.

    What params name of a side, `min` or `min_percentile`, replaces that side of the rule, null removes it; the other
    side stays as it was. Null for a whole signal removes its rule, a signal without a rule gets one at the end.

    >>> rules = {"ppl": Rule(min=20, max_percentile=99, why="tails")}
    >>> changed = override(rules, {"ppl": Bound(max=500)})["ppl"]
    >>> changed.min, changed.max, changed.max_percentile
    (20.0, 500.0, None)
    >>> override(rules, {"ppl": None})
    {}
    """
    result = dict(rules)
    for signal, bound in bounds.items():
        if bound is None:
            result.pop(signal, None)
            continue
        changes = {key: getattr(bound, key) for key in bound.model_fields_set}
        for side in ("min", "max"):
            if changes.keys() & {side, f"{side}_percentile"}:
                changes = {side: None, f"{side}_percentile": None} | changes
        old = rules[signal].model_dump() if signal in rules else {}
        result[signal] = Rule.model_validate(old | changes | {"why": "set in params: filter.bounds"})
    return result


def check_signals(language: str, rules: Iterable[str], known: Iterable[str]) -> None:
    """Raises UserError for a rule on a signal that the input lacks, naming the nearest."""
    names = sorted(known)
    for signal in rules:
        if signal not in names:
            near = difflib.get_close_matches(signal, names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}."
            raise UserError(
                f"filter.bounds.{language}: no input has a signal `{signal}`: {hint} "
                f"Or add the annotation that has it as a further --input, or set filter.bounds.{language}.{signal}=null"
            )
