"""Profiles: the bounds of one language as data, each with its reason, and what params.yaml changes of them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from corpus.errors import UserError
from corpus.params import Bound, Filter
from corpus.sources import Section
from corpus.yaml_files import parse_yaml

FOLDER = Path(__file__).parent / "profiles"

Side = Literal["min", "max"]
SIDES: tuple[Side, Side] = ("min", "max")
LANGUAGE_MODEL_SIGNALS = ("ppl", "ppl_excl_oov", "oov_rate", "fluency_gain", "word_gain")  # what `perplexity` writes
KINDS = ("", "_percentile", "_score", "_z")  # what a side may be bounded by: min, min_percentile, …


class Rule(Bound):
    """Bounds of one signal, and where they come from."""

    why: str = Field(min_length=1)


class Profile(Section):
    """What documents of a language must be like. Rules are judged, and reported, in this order."""

    about: str
    extends: str | None = None  # a profile whose rules come first; one named here replaces that one's, null removes it
    segmenter: str | None = None  # what words must have been cut by for the values to mean anything: words, jieba, …
    rules: dict[str, Rule | None] = Field({}, validate_default=False)

    @model_validator(mode="after")
    def _rules_bound_something(self) -> Profile:
        for signal, rule in self.rules.items():
            if rule is None and self.extends is None:
                raise ValueError(f"the rule {signal} is empty, and the profile extends none from which to remove it")
            if rule is not None and not sides_of(rule):
                raise ValueError(f"the rule {signal} names no bound")
        return self


def sides_of(rule: Bound) -> list[Side]:
    """The sides that a rule bounds.

    >>> sides_of(Bound(max_score=3.5))
    ['max']
    """
    return [side for side in SIDES if any(getattr(rule, f"{side}{kind}") is not None for kind in KINDS)]


def load_profile(name: str, language: str, folder: Path = FOLDER) -> Profile:
    """Read a profile, with the rules of the one it extends: one of ours by name, or a file by its path, `*.yaml`.

    Raises UserError, listing those there are, if there is none of that name or it cannot be read.
    """
    profile = _read(name, f"filter.profile.{language}", folder)
    if profile.extends is None:
        return profile
    key = f"filter.profile.{language}: {name} extends"
    parent = _read(profile.extends, key, folder)
    if parent.extends is not None:
        raise UserError(f"{key} {profile.extends}, which itself extends {parent.extends}: one level is all there is")
    for signal, rule in profile.rules.items():
        if rule is None and signal not in parent.rules:
            raise UserError(f"{name}: {signal} is null, but {profile.extends} has no such rule to take out")
    rules = {signal: rule for signal, rule in (parent.rules | profile.rules).items() if rule is not None}
    return profile.model_copy(update={"rules": rules, "segmenter": profile.segmenter or parent.segmenter})


def _read(name: str, key: str, folder: Path) -> Profile:
    """One file, without what it extends. `key` says in errors who asked for it."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    known = sorted(file.stem for file in folder.glob("*.yaml"))
    if path.name == name + ".yaml" and name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(
            f"{key}: there is no profile {name!r}: {hint}There are {', '.join(known)};"
            " one of your own goes by its path, *.yaml"
        )
    try:
        tree = parse_yaml(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"{key}: {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path} is not a profile: it is no YAML: {error}") from None
    try:
        return Profile.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"{path} is not a profile: {'; '.join(_describe(e) for e in error.errors()[:3])}") from None


def _describe(error: Any) -> str:
    """One validation error of pydantic as a sentence."""
    location = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        known = list((Rule if error["loc"][0] == "rules" else Profile).model_fields)
        near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
        return f"{location} is unknown: " + (f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}")
    if error["type"] == "missing":
        return f"{location} is missing"
    message = error["msg"].removeprefix("Value error, ")
    return f"{location}: {message}" if location else message


def rules_of(profile: Profile) -> dict[str, Rule]:
    """The rules of a profile that are not removed."""
    return {signal: rule for signal, rule in profile.rules.items() if rule is not None}


def profiles_of(params: Filter) -> dict[str, Profile]:
    """The profile of each language, its rules with what `bounds` change of them. Raises UserError for unknown ones."""
    profiles = {language: load_profile(name, language) for language, name in params.profile.items()}
    for language in params.bounds:
        if language not in profiles:
            near = difflib.get_close_matches(language, profiles, n=1)
            hint = f": did you mean {near[0]}?" if near else ""
            raise UserError(
                f"filter.bounds.{language}: filter.profile has no profile for it, only for {', '.join(profiles)}{hint}"
            )
    return {
        language: profile.model_copy(
            update={"rules": override(profile.rules, params.bounds.get(language, {}), language)}
        )
        for language, profile in profiles.items()
    }


def override(
    rules: Mapping[str, Rule | None], bounds: Mapping[str, Bound | None], language: str = ""
) -> dict[str, Rule]:
    """The rules with what filter.bounds says of one language put in their place.

    What params name of a side, `min` or `min_percentile`, replaces that side of the rule, null removes it; the other
    side stays as it was. Null for a whole signal removes its rule, a signal without a rule gets one at the end. Raises
    UserError where the two sides then contradict each other.

    >>> rules = {"ppl": Rule(min=20, max_percentile=99, why="tails")}
    >>> changed = override(rules, {"ppl": Bound(max=500)})["ppl"]
    >>> changed.min, changed.max, changed.max_percentile
    (20.0, 500.0, None)
    >>> override(rules, {"ppl": None})
    {}
    """
    result = {signal: rule for signal, rule in rules.items() if rule is not None}
    for signal, bound in bounds.items():
        if bound is None:
            result.pop(signal, None)
            continue
        changes = {key: getattr(bound, key) for key in bound.model_fields_set}
        for side in SIDES:
            keys = {f"{side}{kind}" for kind in KINDS}
            if changes.keys() & keys:
                changes = dict.fromkeys(keys) | changes
        old = result[signal].model_dump() if signal in result else {}
        try:
            result[signal] = Rule.model_validate(old | changes | {"why": "set in params: filter.bounds"})
        except ValidationError as error:
            key = f"filter.bounds.{language}.{signal}"
            raise UserError(f"{key}, with the profile's other side: {_describe(error.errors()[0])}") from None
    return result


def check_signals(language: str, rules: Iterable[str], known: Iterable[str]) -> None:
    """Raises UserError for a rule on a signal that the input lacks, naming the nearest."""
    names = sorted(known)
    for signal in rules:
        if signal not in names:
            near = difflib.get_close_matches(signal, names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}." if names else ""
            if signal in LANGUAGE_MODEL_SIGNALS or not names:
                hint = f"`corpus {'perplexity' if signal in LANGUAGE_MODEL_SIGNALS else 'measure'}` writes it."
            raise UserError(
                f"filter.bounds.{language}: no input has a signal `{signal}`: {hint} "
                f"Or add the annotation that has it as a further --input, or set filter.bounds.{language}.{signal}=null"
            )
