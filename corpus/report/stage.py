"""report: everything that was decided, on one page that opens from disk.

It reads the metrics of all stages that ran, counts and samples their annotations, and holds the graph to its promise:
scraped + generated = kept + dropped, from the first stage to the last.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from corpus.errors import UserError
from corpus.params import Params
from corpus.reasons import explain
from corpus.report.funnel import DECIDING, check_whole_graph, drops, funnel
from corpus.report.histograms import histograms
from corpus.report.index import build_index
from corpus.report.page import render
from corpus.report.samples import dropped_samples
from corpus.report.scores import NAMES, forgetting_sentence, generated_samples, headline, loss_chart, set_scores
from corpus.report.tally import tally
from corpus.report.topics import topic_tables
from corpus.stage import Metrics, Run, link, write_plot

READS = ()
VERSION = 1

# Drawn even where the filter has no bound for them.
SIGNALS = ("n_chars", "mattr", "noise_ratio", "symbol_ratio", "ppl", "oov_rate")


def run(run: Run) -> Metrics:
    """Write index.html into the output and, within the graph, link it to reports/index.html.

    --input names another project's folder, which holds data/ and reports/, as `corpus run` writes them. Metrics count
    over the whole graph. Raises StageError with a table where documents got lost between two stages.
    """
    project = run.inputs[0] if run.inputs else run.data.parent
    data = project / run.data.name
    reports = run.reports if run.reports and not run.inputs else project / "reports"
    metrics = read_reports(reports)
    rows = check_whole_graph(metrics)
    # Numbered, because DVC sorts the bars by name.
    steps = [{"stage": f"{number} {s.stage}", "documents": s.left} for number, s in enumerate(funnel(metrics), 1)]
    write_plot(run, "funnel", pl.DataFrame(steps))
    build_index(run, data)
    page = render(context(data, reports, metrics, rows, run.params))
    (run.output / "index.html").write_text(page, "utf-8")
    if run.reports:
        _publish(run.output / "index.html", run.reports / "index.html")
    return {"rows": rows, "dropped_by_reason": {drop.reason: drop.documents for drop in drops(metrics)}}


def read_reports(folder: Path) -> dict[str, Metrics]:
    """What each stage that ran wrote into reports/STAGE.json. Raises UserError for a broken file, or none at all."""
    stages = [*DECIDING, "measure", "reference", "perplexity", "evaluate"]
    found = {}
    for stage in stages:
        path = folder / f"{stage}.json"
        if path.exists():
            try:
                found[stage] = json.loads(path.read_text("utf-8"))
            except ValueError as error:
                raise UserError(f"{path} is not JSON ({error}): `dvc repro {stage} --force` writes it again") from None
    for stage in ("scrape", "clean"):
        if stage not in found:
            raise UserError(f"{folder / stage}.json does not exist: run `dvc repro {stage}`, then the report")
    return found


def context(
    data: Path, reports: Path, metrics: dict[str, Metrics], rows: dict[str, int], params: Params
) -> dict[str, Any]:
    """All that the page shows, by the names that the template uses; None for what no stage has made yet."""
    bounds = metrics.get("filter", {}).get("bounds", {})
    named = [key.rpartition(".")[0] for own in bounds.values() for key in own]
    signals = list(dict.fromkeys([*SIGNALS, *named]))
    counts = tally(data, metrics.keys(), signals)
    sets = set_scores(metrics["evaluate"]["sets"]) if "evaluate" in metrics else []
    losing = [stage for stage in DECIDING if metrics.get(stage, {}).get("rows", {}).get("dropped")]
    mask = params.clean.pii != "off"
    samples = dropped_samples(data, losing, params.report.samples_per_reason, params.report.seed, mask)
    return {
        "metrics": metrics,
        "rows": rows,
        "headline": headline(sets),
        "sets": sets,
        "names": {model: name for model, name in NAMES.items() if not sets or model in sets[0].bits},
        "forgetting": forgetting_sentence(metrics.get("evaluate", {}).get("forgetting", {})),
        "widest": max((max(one.bits.values()) for one in sets), default=1.0),
        "funnel": funnel(metrics),
        "drops": drops(metrics),
        "explanations": {reason: explain(reason) for reason in samples},
        "bounds": bounds,
        "groups": counts.groups.to_dicts(),
        "histograms": histograms(counts.signals, SIGNALS, bounds),
        "loss": loss_chart(reports / "plots" / "loss.csv"),
        "generated": generated_samples(data / "evaluate" / "samples.jsonl"),
        "topics": topic_tables(metrics),
        "perplexity": perplexity_quantiles(metrics),
        "cluster_sizes": cluster_sizes(metrics),
        # In the order of the graph.
        "samples": {d.reason: samples[d.reason] for d in drops(metrics) if d.reason in samples},
        "params": _sections(params),
    }


def cluster_sizes(metrics: Mapping[str, Metrics]) -> list[tuple[int, int]]:
    """Documents in a cluster and the number of such clusters, the largest first; documents that stand alone left out.

    >>> cluster_sizes({"dedup": {"cluster_sizes": {"1": 90, "2": 7, "10": 1}}})
    [(10, 1), (2, 7)]
    """
    sizes = metrics.get("dedup", {}).get("cluster_sizes", {})
    return sorted(((int(size), number) for size, number in sizes.items() if int(size) > 1), reverse=True)


def perplexity_quantiles(metrics: Mapping[str, Metrics]) -> list[dict[str, Any]]:
    """A row per language and signal: its quantiles, and the median of the trusted text that was held out, if known."""
    models = metrics.get("reference", {}).get("languages", {})
    return [
        {"lang": lang, "signal": signal, "quantiles": values, "trusted": models.get(lang, {}).get(f"heldout_{signal}")}
        for lang, facts in metrics.get("perplexity", {}).get("languages", {}).items()
        for signal, values in facts["signals"].items()
        if values and signal != "lm_tokens"
    ]


def _sections(params: Params) -> dict[str, str]:
    """The sections of the parameters as YAML, but for `workers`, which changes no result."""
    tree = params.model_dump(mode="json", by_alias=True, exclude={"workers"}, exclude_none=True)
    return {name: yaml.safe_dump(value, allow_unicode=True, sort_keys=False) for name, value in tree.items()}


def _publish(page: Path, target: Path) -> None:
    partial = target.with_name(f".{target.name}.partial")
    partial.unlink(missing_ok=True)
    link(page, partial)
    partial.replace(target)
