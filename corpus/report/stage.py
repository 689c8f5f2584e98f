"""report: everything that was decided, on one page that opens from disk.

It reads the metrics of all stages that ran, counts and samples their annotations, and holds the graph to its promise:
scraped + generated = kept + dropped, from the first stage to the last.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from corpus.errors import UserError
from corpus.files import link, write_json
from corpus.params import Params
from corpus.reasons import explain
from corpus.report.chinese import Said, explain_in_chinese
from corpus.report.clusters import largest_clusters
from corpus.report.compare import Comparison, Read, compare, git, in_folder, in_git
from corpus.report.funnel import DECIDING, check_whole_graph, drops, funnel
from corpus.report.histograms import histograms
from corpus.report.index import build_index
from corpus.report.metrics import bounds_of, read_metrics
from corpus.report.mix import cluster_sizes, length_mix, perplexity_quantiles, source_losses, volumes, year_mix
from corpus.report.page import render
from corpus.report.samples import Sample, chance_of, document_samples
from corpus.report.scores import (
    CHINESE,
    NAMES,
    forgetting_sentence,
    generated_samples,
    headline,
    loss_chart,
    set_scores,
)
from corpus.report.tally import measured_scales, tally
from corpus.report.topics import topic_tables
from corpus.stage import Metrics, Run, write_plot

READS = ()
VERSION = 2

SECTIONS = (  # of the page: template, and title in English and Chinese
    ("top", "Verdict", "结论"),
    ("changes", "What changed", "变化"),
    ("scores", "Scores", "评估得分"),
    ("funnel", "Funnel", "漏斗"),
    ("drops", "Drops by reason", "丢弃原因"),
    ("signals", "Signals and bounds", "信号与阈值"),
    ("mix", "Sources and mix", "来源与构成"),
    ("topics", "Topics", "主题"),
    ("perplexity", "Perplexity", "困惑度"),
    ("duplicates", "Duplicates", "重复"),
    ("splits", "Splits", "数据划分"),
    ("augmentation", "Augmentation", "增强"),
    ("training", "Training", "训练曲线"),
    ("generated", "Generated text", "生成样例"),
    ("documents", "Documents", "文档"),
    ("params", "Parameters", "参数"),
)

# Drawn first, and in sight even where the filter has no bound for them; the other signals without one are folded away.
SIGNALS = ("n_chars", "mattr", "noise_ratio", "symbol_ratio", "ppl", "oov_rate")


def run(run: Run) -> Metrics:
    """Write index.html and the index of documents into the output, and summary.json beside the metrics.

    Within the graph the page is linked to reports/index.html, and shows what differs from git's last commit: a new
    commit changes the page, which DVC does not know of. --input names another project's folder, which holds data/ and
    reports/, as `corpus run` writes them. Metrics count over the whole graph. What lies in reports/ is replaced when
    all of it is made, a file at a time and before the output: of a run killed in between some files are new, and the
    next run writes them all again. Raises StageError with a table where documents got lost between two stages.
    """
    if run.limit:
        raise UserError("--limit: the report is of a whole graph; `corpus run --limit` builds one of a few documents")
    project = run.inputs[0] if run.inputs else run.data.parent
    data = project / run.data.name
    reports = run.reports if run.reports and not run.inputs else project / "reports"
    metrics = read_reports(reports)
    rows = check_whole_graph(metrics)
    build_index(run, data)
    page = render(
        context(data, reports, metrics, rows, run.params, run.output / "index")
        | {"comparison": since_last_commit(run, project), "revision": code_revision(run, project)}
    )
    (run.output / "index.html").write_text(page, "utf-8")
    # Numbered, because DVC sorts the bars by name.
    steps = [{"stage": f"{number} {s.stage}", "documents": s.left} for number, s in enumerate(funnel(metrics), 1)]
    write_plot(run, "funnel", pl.DataFrame(steps))
    write_json((run.reports or run.output) / "summary.json", summary_of(metrics, rows))
    if run.reports:
        _publish(run.output / "index.html", run.reports / "index.html")
    return {"rows": rows, "dropped_by_reason": {drop.reason: drop.documents for drop in drops(metrics)}}


def summary_of(metrics: Mapping[str, Metrics], rows: Mapping[str, int]) -> Metrics:
    """The few figures by which experiments are compared; those that there are.

    documents (kept, dropped); tokens to train on; bpb, the adapter's bits per byte by set. Over the pinned sets, which
    no parameter changes, the mean of: gain_over_control, bits per byte that the adapter needs fewer than the control
    on the domain's; forgetting, those that it needs more than the base on general text.
    """
    sets = {name: one for name, one in metrics.get("evaluate", {}).get("sets", {}).items() if "adapted" in one}
    bits = {name: one["adapted"]["bits_per_byte"] for name, one in sets.items()}
    general = [name for name in sets if name.startswith("pinned-general")]
    domain = [name for name in sets if name.startswith("pinned-") and name not in general and "control" in sets[name]]
    found: Metrics = {
        "documents": {name: rows[name] for name in ("kept", "dropped")},
        "tokens": metrics.get("pack", {}).get("train", {}).get("tokens"),
        "bpb": bits,
        "gain_over_control": mean_of([sets[name]["control"]["bits_per_byte"] - bits[name] for name in domain]),
        "forgetting": mean_of([bits[name] - sets[name]["base"]["bits_per_byte"] for name in general]),
    }
    return {name: value for name, value in found.items() if value not in (None, {})}


def mean_of(values: Sequence[float]) -> float | None:
    """The mean, None of nothing."""
    return sum(values) / len(values) if values else None


def write_comparison(run: Run, name: str, revision: str | None, before: Read, target: Path) -> str:
    """Write the page of the run that is built, with another run beside it; nothing else is touched.

    Returns what to print: where it is, and which scores do not compare. Raises UserError where the other run has no
    reports.
    """
    reports, now = run.data.parent / "reports", in_folder(run.data.parent)
    metrics = read_reports(reports)
    comparison = compare(name, revision, before, now)
    if comparison is None:
        raise UserError(f"{name} has no reports/scrape.json: name a revision whose reports/ were committed")
    index = run.data / "report" / "index"
    shown = context(run.data, reports, metrics, check_whole_graph(metrics), run.params, index)
    page = render(shown | {"comparison": comparison, "revision": code_revision(run, run.data.parent)})
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    partial.write_text(page, "utf-8")
    partial.replace(target)
    lines = [f"report beside {name} → {target}"]
    lines += [
        f"  note: scores on {refused[0]} do not compare: its documents are others now" for refused in comparison.refused
    ]
    return "\n".join(lines)


def read_reports(folder: Path) -> dict[str, Metrics]:
    """What each stage that ran wrote into reports/STAGE.json. Raises UserError for a broken file, or none at all."""
    stages = [*DECIDING, "measure", "reference", "perplexity", "pack", "finetune", "evaluate"]
    read = ((stage, read_metrics(folder / f"{stage}.json")) for stage in stages)
    found = {stage: metrics for stage, metrics in read if metrics is not None}
    for stage in ("scrape", "clean"):
        if stage not in found:
            raise UserError(f"{folder / stage}.json does not exist: run `dvc repro {stage}`, then the report")
    return found


def context(
    data: Path, reports: Path, metrics: dict[str, Metrics], rows: dict[str, int], params: Params, index: Path
) -> dict[str, Any]:
    """All that the page shows but for the comparison, by the names that the templates use; None for what no stage has
    made yet. `index` is that of data/."""
    bounds = bounds_of(metrics.get("filter", {}))
    scales = measured_scales(data, metrics.keys(), bounds)
    counts = tally(data, metrics.keys(), scales, bounds)
    sets = set_scores(metrics["evaluate"]["sets"]) if "evaluate" in metrics else []
    losing = [stage for stage in DECIDING if metrics.get(stage, {}).get("rows", {}).get("dropped")]
    mask, seed = params.clean.pii != "off", params.report.seed
    samples = document_samples(data, losing, bounds, params.report.samples_per_reason, seed, mask, index)
    shown = Counter(failure.reason for sample in samples for failure in sample.failures)
    topics = topic_tables(metrics)
    names = {model: Said(name, CHINESE[model]) for model, name in NAMES.items()}
    return {
        "sections": [one for one in SECTIONS if one[0] != "topics" or topics],
        "metrics": metrics,
        "rows": rows,
        "headline": headline(sets),
        "sets": sets,
        "all_names": names,
        "names": {model: name for model, name in names.items() if not sets or model in sets[0].bits},
        "forgetting": forgetting_sentence(metrics.get("evaluate", {}).get("forgetting", {})),
        "widest": max((max(one.bits.values()) for one in sets), default=1.0),
        "funnel": funnel(metrics),
        "drops": drops(metrics),
        "volumes": volumes(metrics, counts),
        "bounds": bounds,
        "beyond": {(lang, rule): number for lang, rule, number in counts.beyond.iter_rows()},
        "sources": source_losses(counts),
        "lengths": length_mix(counts),
        "years": year_mix(counts),
        "groups": counts.groups.to_dicts(),
        "histograms": histograms(counts.signals, SIGNALS, bounds, scales),
        "always": SIGNALS,
        "loss": loss_chart(reports / "plots" / "loss.csv"),
        "generated": generated_samples(data / "evaluate" / "samples.jsonl"),
        "topics": topics,
        "perplexity": perplexity_quantiles(metrics),
        "cluster_sizes": cluster_sizes(metrics),
        "clusters": largest_clusters(data) if "dedup" in metrics else [],
        "shown_reasons": {drop.reason: shown[drop.reason] for drop in drops(metrics) if drop.reason in shown},
        "shown_languages": sorted({sample.lang for sample in samples if sample.lang}),
        "shown_sources": sorted({sample.source for sample in samples if sample.source}),
        "documents": {
            "documents": [_as_json(sample, seed) for sample in samples],
            "reasons": {reason: {"en": explain(reason), "zh": explain_in_chinese(reason)} for reason in sorted(shown)},
        },
        "params": _sections(params),
    }


def _as_json(sample: Sample, seed: int) -> dict[str, Any]:
    """A sample as the page's script reads it."""
    made = dataclasses.asdict(sample)
    return made | {"title": made["excerpt"].pop("title"), "chance": round(chance_of(seed, sample.id), 6)}


def since_last_commit(run: Run, project: Path) -> Comparison | None:
    """What differs from the reports in git's last commit; None outside the graph, or where there are none."""
    commit = (git(project, "rev-parse", "HEAD") or "").strip() if run.reports else ""
    return compare("the last commit", commit, in_git(project, commit), in_folder(project)) if commit else None


def code_revision(run: Run, project: Path) -> dict[str, Any] | None:
    """The commit that git has checked out, and whether files differ from it that no stage writes."""
    commit = (git(project, "rev-parse", "HEAD") or "").strip() if run.reports else ""
    if not commit:
        return None
    unchanged = git(project, "diff", "--quiet", "HEAD", "--", ".", ":!reports", ":!dvc.lock")
    return {"commit": commit, "changed": unchanged is None}


_NO_RESULT: Any = {
    "workers": True,
    "execution": True,
    "storage": True,
    "shard": {"storage"},
    "sources": {"__all__": {"storage"}},
}


def _sections(params: Params) -> dict[str, str]:
    """The sections of the parameters as YAML, but for what changes no result: who works, and how storages are reached,
    in which somebody may have put a secret."""
    tree = params.model_dump(mode="json", by_alias=True, exclude=_NO_RESULT, exclude_none=True)
    return {name: yaml.safe_dump(value, allow_unicode=True, sort_keys=False) for name, value in tree.items()}


def _publish(page: Path, target: Path) -> None:
    partial = target.with_name(f".{target.name}.partial")
    partial.unlink(missing_ok=True)
    link(page, partial)
    partial.replace(target)
