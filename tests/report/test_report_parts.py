"""The parts of the report that are pure: scales, histograms, figures, and the offline page of `dvc plots`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dvc_render.html import HTML
from dvc_render.vega import VegaRenderer
from hypothesis import given
from hypothesis import strategies as st

from corpus.errors import UserError
from corpus.reasons import REASONS
from corpus.report.charts import log_ticks, ticks
from corpus.report.chinese import explain_in_chinese, untranslated
from corpus.report.histograms import HEIGHT, histograms
from corpus.report.page import anchor, percent
from corpus.report.plots_template import main, write_plots_page
from corpus.report.scores import headline, loss_chart, set_scores
from corpus.report.tally import measured_scales, scale_of
from corpus.report.verdict import verdict

ANY_SIGNAL = st.sampled_from(["n_chars", "ppl", "mattr", "noise_ratio", "mean_word_length", "fluency_gain"])


@given(ANY_SIGNAL, st.floats(allow_nan=False, allow_infinity=False))
def test_a_value_lies_in_the_bin_that_its_position_names(signal: str, value: float) -> None:
    scale = scale_of(signal)
    (number,) = pl.select(scale.bin(pl.lit(value))).to_series()
    position = scale.position(value)
    assert 0 <= number < scale.bins
    assert number - 1e-6 <= position <= number + 1 + 1e-6


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_round_few_and_inside(low: float, width: float) -> None:
    marks = ticks(low, low + width)
    assert 1 <= len(marks) <= 8
    assert all(low - width * 1e-6 <= mark <= low + width * (1 + 1e-6) for mark in marks)


def test_log_ticks_over_many_decades_are_few() -> None:
    assert len(log_ticks(1, 1e8)) <= 5


def count(signal: str, kept: list[float], dropped: list[float]) -> pl.DataFrame:
    rows = [("en", signal, state, v) for state, values in (("kept", kept), ("dropped", dropped)) for v in values]
    frame = pl.DataFrame(rows, ["lang", "signal", "state", "value"], orient="row")
    binned = frame.with_columns(bin=scale_of(signal).bin(pl.col("value")))
    return binned.group_by("lang", "signal", "state", "bin").agg(pl.len().alias("documents"))


@given(st.lists(st.floats(0, 1), min_size=10, max_size=60), st.lists(st.floats(0, 1), max_size=20), st.floats(0, 1))
def test_a_histogram_counts_every_document_and_shows_its_bound(
    kept: list[float], dropped: list[float], bound: float
) -> None:
    bounds = {"en": {"mattr.min": {"bound": bound}}}
    (chart,) = histograms(count("mattr", kept, dropped), ["mattr"], bounds)["en"]
    assert sum(bar.kept for bar in chart.bars) == len(kept)
    assert sum(bar.dropped for bar in chart.bars) == len(dropped)
    assert chart.documents == len(kept) + len(dropped)
    assert len(chart.bars) <= 40
    assert min(bar.dropped_y for bar in chart.bars) == 0
    assert all(bar.kept_y <= HEIGHT for bar in chart.bars)
    ((_, side, value),) = chart.bounds
    assert (side, value) == ("min", bound)
    assert chart.bars[0].low <= bound <= chart.bars[-1].high + 1e-3


def write_signal(path: Path, groups: list[list[float | None]]) -> None:
    """A part of data/measure with a row group for each list of values."""
    path.parent.mkdir(parents=True)
    schema = pa.schema([("id", pa.string()), ("gain", pa.float64()), ("nothing", pa.float64())])
    with pq.ParquetWriter(path, schema) as writer:
        for values in groups:
            columns = {"id": ["x"] * len(values), "gain": values, "nothing": [None] * len(values)}
            writer.write_table(pa.table(columns, schema))


def test_a_scale_holds_what_was_measured_and_the_bounds(tmp_path: Path) -> None:
    write_signal(tmp_path / "measure/part-a-0-00000.parquet", [[0.25, 0.5], [None, None], [0.75]])
    scales = measured_scales(tmp_path, ["measure"])
    assert (scales["gain"].low, scales["gain"].high) == (0.25, 0.75)  # not wider for the row group of nulls
    assert (scales["nothing"].low, scales["nothing"].high) == (-10, 10)
    bounds = {"en": {"gain.max": {"bound": 3.0}, "gain.min": {"bound": None}, "unknown.max": {"bound": 9.0}}}
    scale = measured_scales(tmp_path, ["measure"], bounds)["gain"]
    assert scale.edge(0) == 0.25 and scale.edge(scale.bins) == 3.0
    counts = pl.DataFrame({"lang": ["en"] * 20, "signal": "gain", "state": "kept", "value": [0.25, 0.75] * 10})
    counts = counts.with_columns(bin=scale.bin(pl.col("value"))).drop("value").with_columns(documents=1)
    (chart,) = histograms(counts, ["gain"], bounds, {"gain": scale})["en"]
    (drawn, _, _), *_ = chart.bounds
    assert drawn > chart.bars[-1].x - 30 and chart.bars[-1].high >= 3.0  # right of all documents, where it belongs


def test_few_documents_make_no_histogram() -> None:
    assert histograms(count("mattr", [0.5] * 9, []), ["mattr"], {}) == {"en": []}


def test_anchors_of_different_names_differ() -> None:
    names = ["filter.n_chars.min", "filter-n_chars-min", "filter.n-chars.min", "Filter.n_chars.min", '"><b>']
    assert len({anchor(name) for name in names}) == len(names)
    assert all(re.fullmatch(r"[a-z0-9_-]+", anchor(name)) for name in names)


def test_percent_of_little_is_not_nothing() -> None:
    assert percent(1, 100_000) == "0.001 %"


def scores(base: float, adapted: float, control: float) -> dict[str, object]:
    bits = {"base": base, "adapted": adapted, "control": control}
    return {"fingerprint": "f", **{model: {"bits_per_byte": b, "perplexity": 2**b} for model, b in bits.items()}}


def test_headlines_say_who_won() -> None:
    assert headline([]).en == "No model was evaluated yet."
    better, worse = scores(3, 1, 2), scores(3, 2, 1)
    assert headline(set_scores({"a": better, "b": better, "c": worse})).en == (
        "The adapter beats the control, 2 sets to 1. Fewest bits per byte: the adapter on a and b, the control on c."
    )
    assert headline(set_scores({"a": worse, "b": worse})).en.startswith("The control beats the adapter, 2 sets to 0.")
    assert headline(set_scores({"a": scores(1, 2, 3)})).en.endswith(
        "the base on a. The adapter is no better than the base it was trained on: a."
    )
    assert headline(set_scores({"a": better, "b": worse})).zh.startswith("适配器与对照持平，各胜 1 个评估集。")
    assert headline(set_scores({"a": scores(3, 2, 2)})).en == (
        "Adapter and control are level, 0 sets each. Fewest bits per byte: a draw on a."
    )


def test_scores_without_a_control_and_those_that_do_not_apply() -> None:
    one = scores(3, 1, 2)
    del one["control"]
    for model, accuracy in (("base", 0.5), ("adapted", 0.75)):
        one[model] |= {"accuracy": accuracy, "bleu": None}  # type: ignore[operator]
    [found] = set_scores({"a": one})
    assert [(row.metric, list(row.values), row.best) for row in found.rows] == [
        ("bits_per_byte", ["base", "adapted"], "adapted"),
        ("perplexity", ["base", "adapted"], "adapted"),
        ("accuracy", ["base", "adapted"], "adapted"),
    ]
    assert found.sentence.en == "The adapter wins: 1.000 bits per byte, 66.7 % fewer than the base (3.000)."
    assert headline([found]).en == "The adapter beats the base, 1 sets to 0. Fewest bits per byte: the adapter on a."


def test_the_verdict_shows_labels_and_forgetting(tmp_path: Path) -> None:
    one = scores(3, 1, 2)
    for model in ("base", "adapted", "control"):
        one[model] |= {"accuracy": 0.625, "macro_f1": None}  # type: ignore[operator]
    cost = {"bits_per_byte": -0.5, "perplexity_before": 9.0, "perplexity_after": 8.0}
    metrics = {"sets": {"a": one, "general": scores(2, 1, 1)}, "forgetting": {"general": cost}}
    (tmp_path / "evaluate.json").write_text(json.dumps(metrics))
    lines = verdict(tmp_path).splitlines()
    assert lines[0].split()[-3:] == ["base", "adapted", "control"]
    assert lines[3].startswith("accuracy of labels") and lines[4].split() == ["a", "0.625", "0.625", "0.625"]
    assert "Forgetting: on general the adapter needs 0.500 bits per byte less than the base" in lines[-2]
    del one["control"]
    (tmp_path / "evaluate.json").write_text(json.dumps({"sets": {"a": one}}))
    assert verdict(tmp_path).splitlines()[:2] == [
        f"{'bits per byte, less is better':<30}{'base':>9}{'adapted':>9}",
        f"{'a':<30}{3:>9.3f}{1:>9.3f}",
    ]


def test_every_reason_is_explained_in_chinese() -> None:
    assert not untranslated()
    assert all(re.search("[\u4e00-\u9fff]", explain_in_chinese(reason)) for reason in REASONS)
    assert explain_in_chinese("shard.balance.weights") == explain_in_chinese("shard.balance")


def test_a_loss_log_without_validation_is_drawn(tmp_path: Path) -> None:
    path = tmp_path / "loss.csv"
    path.write_text("step,adapted_train,control_train,control_validation\n10,3.5,3.75,\n20,3.25,,\n")
    chart = loss_chart(path)
    assert chart is not None
    assert [(curve.model, curve.kind, curve.last) for curve in chart.curves] == [
        ("adapted", "train", 3.25),
        ("control", "train", 3.75),
    ]
    path.write_text("step,adapted_train,control_train,control_validation\n")
    assert loss_chart(path) is None
    assert loss_chart(tmp_path / "none.csv") is None


def test_the_plots_page_needs_no_network(tmp_path: Path) -> None:
    path = tmp_path / "offline_plots.html"
    assert main([str(path)]) == 0
    page = HTML(path.read_text("utf-8"))
    renderer = VegaRenderer([{"step": 1, "loss": 2, "rev": "workspace"}], "loss", x="step", y="loss")
    page.with_scripts(renderer.SCRIPTS).with_element(renderer.generate_html())
    drawn = page.embed()
    assert drawn.count("<script") == drawn.count("</script>") == 2
    assert not re.search(r"<(?:script|link)\s[^>]*(?:src|href)=", drawn)
    assert "jsdelivr" not in drawn
    assert "vegaEmbed('#loss', spec)" in drawn
    assert "{plot_divs}" not in drawn
    assert "{scripts}" not in drawn


def test_the_plots_page_is_not_written_twice(tmp_path: Path) -> None:
    path = tmp_path / "offline_plots.html"
    write_plots_page(path)
    before = path.stat().st_mtime_ns
    write_plots_page(path)
    assert path.stat().st_mtime_ns == before
    with pytest.raises(UserError, match="is no folder"):
        write_plots_page(tmp_path / "missing" / "offline_plots.html")
    assert main([]) == 2
