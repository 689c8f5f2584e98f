"""Who won: base, adapter and control on every evaluation set, said in a sentence; and the curves of the training."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from corpus.report.charts import place, polyline, ticks
from corpus.report.chinese import Said

MODELS = ("base", "adapted", "control")
NAMES = {"base": "base", "adapted": "adapter", "control": "control"}
CHINESE = {"base": "基座", "adapted": "适配器", "control": "对照"}
LESS_IS_BETTER = ("bits_per_byte", "perplexity", "no_answer")
WIDTH, HEIGHT = 640.0, 200.0
SAMPLES_PER_SET = 3
PROMPT_CHARS = 300  # the end of a prompt is what the models go on from


@dataclasses.dataclass(frozen=True)
class Row:
    """One score of one set for all models."""

    metric: str
    less_is_better: bool
    values: dict[str, float | None]
    best: str | None  # None where two are equal


@dataclasses.dataclass(frozen=True)
class SetScores:
    """The scores of one evaluation set."""

    name: str
    fingerprint: str
    bits: dict[str, float]  # per byte, by model
    rows: list[Row]
    winner: str | None
    sentence: Said


def set_scores(sets: Mapping[str, Mapping[str, Any]]) -> list[SetScores]:
    """The scores by set, as reports/evaluate.json has them; the winner needs the fewest bits per byte.

    The control may be missing, and scores that do not apply are null: their rows are left out.
    """
    found = []
    for name, one in sets.items():
        scores = {model: one[model] for model in MODELS if model in one}
        rows = [
            _row(metric, {model: own.get(metric) for model, own in scores.items()})
            for metric in sorted(scores["base"], key=lambda metric: (metric not in LESS_IS_BETTER, metric))
            if any(own.get(metric) is not None for own in scores.values())
        ]
        bits = {model: own["bits_per_byte"] for model, own in scores.items()}
        found.append(SetScores(name, one["fingerprint"], bits, rows, _best(bits, less=True), _sentence(bits)))
    return found


def _row(metric: str, values: dict[str, float | None]) -> Row:
    less = metric in LESS_IS_BETTER
    known = {model: value for model, value in values.items() if value is not None}
    return Row(metric, less, values, _best(known, less))


def _best(values: Mapping[str, float], less: bool) -> str | None:
    """The best model, None where two are equal as shown.

    >>> _best({"base": 2.0, "adapted": 1.0, "control": 1.5}, less=True)
    'adapted'
    >>> _best({"base": 1.0, "adapted": 1.0001, "control": 1.5}, less=True) is None
    True
    """
    ranked = sorted(values, key=lambda model: values[model] if less else -values[model])
    return None if len({f"{values[model]:.3f}" for model in ranked[:2]}) < 2 else ranked[0]


def _sentence(bits: Mapping[str, float]) -> Said:
    """Who won, and by how much.

    >>> _sentence({"base": 2.5, "adapted": 2.0, "control": 1.9}).en[:75]
    'The control wins: 1.900 bits per byte, 5.0 % fewer than the adapter (2.000)'
    >>> _sentence({"base": 2.5, "adapted": 2.0, "control": 2.0}).zh
    '平手：适配器与对照每字节都需要 2.000 比特。'
    """
    first, *rest = sorted(bits, key=lambda model: bits[model])
    least = f"{bits[first]:.3f}"
    if _best(bits, less=True) is None:
        return Said(
            f"A draw: the {NAMES[first]} and the {NAMES[rest[0]]} both need {least} bits per byte.",
            f"平手：{CHINESE[first]}与{CHINESE[rest[0]]}每字节都需要 {least} 比特。",
        )
    saved = {model: f"{100 * (1 - bits[first] / bits[model]):.1f} %" for model in rest}
    others = " and ".join(f"{saved[model]} fewer than the {NAMES[model]} ({bits[model]:.3f})" for model in rest)
    chinese = "，".join(f"比{CHINESE[model]}（{bits[model]:.3f}）少 {saved[model]}" for model in rest)
    return Said(
        f"The {NAMES[first]} wins: {least} bits per byte, {others}.",
        f"{CHINESE[first]}最好：每字节 {least} 比特，{chinese}。",
    )


def headline(found: Sequence[SetScores]) -> Said:
    """Who is ahead over all sets, the adapter or its control, and who needs the fewest bits per byte where."""
    if not found:
        return Said("No model was evaluated yet.", "还没有评估过模型。")
    rival = "control" if all("control" in one.bits for one in found) else "base"
    duels = [_best({model: one.bits[model] for model in ("adapted", rival)}, less=True) for one in found]
    adapter, control = duels.count("adapted"), duels.count(rival)
    other = CHINESE[rival]
    if adapter == control:
        duel = Said(
            f"Adapter and {rival} are level, {adapter} sets each.", f"适配器与{other}持平，各胜 {adapter} 个评估集。"
        )
    elif adapter > control:
        duel = Said(
            f"The adapter beats the {rival}, {adapter} sets to {control}.",
            f"适配器以 {adapter} 比 {control} 个评估集胜过{other}。",
        )
    else:
        duel = Said(
            f"The {rival} beats the adapter, {control} sets to {adapter}.",
            f"{other}以 {control} 比 {adapter} 个评估集胜过适配器。",
        )
    wins = {model: [one.name for one in found if one.winner == model] for model in ("adapted", "control", "base")}
    best = [f"the {NAMES[model]} on {_listed(names)}" for model, names in wins.items() if names]
    chinese = [f"{CHINESE[model]}：{'、'.join(names)}" for model, names in wins.items() if names]
    if draws := [one.name for one in found if one.winner is None]:
        best.append(f"a draw on {_listed(draws)}")
        chinese.append(f"平手：{'、'.join(draws)}")
    worse = [one.name for one in found if one.bits["adapted"] >= one.bits["base"]]
    lesson = f" The adapter is no better than the base it was trained on: {_listed(worse)}." if worse else ""
    warned = f"适配器并不好于它的基座：{'、'.join(worse)}。" if worse else ""
    return Said(
        f"{duel.en} Fewest bits per byte: {', '.join(best)}.{lesson}",
        f"{duel.zh}每字节比特最少者——{'；'.join(chinese)}。{warned}",
    )


def forgetting_sentence(forgetting: Mapping[str, Mapping[str, float]]) -> Said | None:
    """What adapting cost on text far from the domain; None where no such set was scored.

    >>> cost = {"bits_per_byte": 0.25, "perplexity_before": 40.0, "perplexity_after": 44.0}
    >>> forgetting_sentence({"general": cost}).en
    'Forgetting: on general the adapter needs 0.250 bits per byte more than the base (perplexity 40, then 44).'
    """
    costs = [
        f"on {name} the adapter needs {abs(one['bits_per_byte']):.3f} bits per byte "
        f"{'more' if one['bits_per_byte'] > 0 else 'less'} than the base "
        f"(perplexity {one['perplexity_before']:.4g}, then {one['perplexity_after']:.4g})"
        for name, one in forgetting.items()
    ]
    chinese = [
        f"在 {name} 上，适配器每字节比基座{'多' if one['bits_per_byte'] > 0 else '少'}用 "
        f"{abs(one['bits_per_byte']):.3f} 比特"
        f"（困惑度由 {one['perplexity_before']:.4g} 变为 {one['perplexity_after']:.4g}）"
        for name, one in forgetting.items()
    ]
    return Said(f"Forgetting: {'; '.join(costs)}.", f"遗忘：{'；'.join(chinese)}。") if costs else None


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


# ---- curves ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Curve:
    """A line of the chart, in pixels."""

    model: str
    kind: str  # train or validation
    points: str
    last: float
    low: float


@dataclasses.dataclass(frozen=True)
class LossChart:
    """Loss by step, of the adapter and of the control."""

    curves: list[Curve]
    x_ticks: list[tuple[float, float]]  # pixels, value
    y_ticks: list[tuple[float, float]]


def loss_chart(path: Path) -> LossChart | None:
    """The curves of reports/plots/loss.csv (step, MODEL_train, MODEL_validation); None where there are none."""
    if not path.exists():
        return None
    wide = pl.read_csv(path, infer_schema=False).cast({"step": pl.Int64})
    log = (
        wide.unpivot(index="step", variable_name="curve", value_name="loss")
        .with_columns(pl.col("loss").cast(pl.Float64), pl.col("curve").str.split_exact("_", 1))
        .unnest("curve")
        .rename({"field_0": "adapter", "field_1": "kind"})
    )
    log = log.drop_nulls("loss").filter(pl.col("loss").is_finite())
    if log.is_empty():
        return None
    steps, values = log["step"].to_list(), log["loss"].to_list()
    right, low, high = max(steps), min(values), max(values)
    curves = []
    for model in MODELS[1:]:
        for kind in ("train", "validation"):
            own = log.filter((pl.col("adapter") == model) & (pl.col("kind") == kind)).sort("step")
            if own.height:
                points = [
                    (place(step, 0, right, WIDTH), HEIGHT - place(loss, low, high, HEIGHT))
                    for step, loss in own.select("step", "loss").iter_rows()
                ]
                own_losses = own["loss"].to_list()
                curves.append(Curve(model, kind, polyline(points), own_losses[-1], min(own_losses)))
    return LossChart(
        curves,
        [(place(tick, 0, right, WIDTH), tick) for tick in ticks(0, right)],
        [(round(HEIGHT - place(tick, low, high, HEIGHT), 1), tick) for tick in ticks(low, high, 4)],
    )


def generated_samples(path: Path, per_set: int = SAMPLES_PER_SET) -> dict[str, list[dict[str, str]]]:
    """By set, the first few rows of data/evaluate/samples.jsonl: id, prompt, reference and the models' texts."""
    found: dict[str, list[dict[str, str]]] = {}
    if path.exists():
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                own = found.setdefault(row["set"], [])
                if len(own) < per_set:
                    own.append(row | {"prompt": row["prompt"][-PROMPT_CHARS:]})
    return found
