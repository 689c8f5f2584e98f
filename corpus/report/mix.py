"""What the corpus is made of, stage by stage, as rows for the page's tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from corpus.report.chinese import Said
from corpus.report.tally import LENGTHS, Tally
from corpus.stage import Metrics


def volumes(metrics: Mapping[str, Metrics], counts: Tally) -> list[dict[str, Any]]:
    """What there is after each stage: documents, bytes, characters and tokens, None where nobody counted."""

    def row(stage: str, documents: int | None, known: Mapping[str, Any], what: Said | None = None) -> dict[str, Any]:
        figures = {name: known.get(name) for name in ("bytes", "characters", "tokens")}
        return {"stage": stage, "what": what, "documents": documents} | figures

    sources = metrics["scrape"].get("sources", {})
    scraped = {"bytes": sum(one["bytes"] for one in sources.values())} if sources else {}
    found = [row("scrape", metrics["scrape"]["rows"]["kept"], scraped)]
    found.append(row("clean", metrics["clean"]["rows"]["kept"], metrics["clean"]))
    for stage in ("dedup", "filter"):
        if stage in metrics:
            column = f"{stage}_characters"
            known = {"characters": counts.groups[column].sum()} if column in counts.groups.columns else {}
            found.append(row(stage, metrics[stage]["rows"]["kept"], known))
    if "shard" in metrics:
        cells = [cell for own in metrics["shard"].get("splits", {}).values() for cell in own.values()]
        known = {name: sum(cell[name] for cell in cells) for name in ("bytes", "characters")} if cells else {}
        found.append(row("shard", metrics["shard"]["rows"]["kept"], known))
    for name, what in (("train", Said("to train on", "训练用")), ("validation", Said("to validate on", "验证用"))):
        if name in metrics.get("pack", {}):
            packed = metrics["pack"][name]
            found.append(row("pack", packed["documents"], packed, what))
    if "adapted" in metrics.get("finetune", {}):
        seen = Said("seen in training", "训练中见到")
        found.append(row("finetune", None, metrics["finetune"]["adapted"], seen))
    return found


def source_losses(counts: Tally, most: int = 3) -> list[dict[str, Any]]:
    """The sources, the one that lost the largest share first: documents that came in, dropped, and the main reasons."""
    cleaned = dict(counts.groups.group_by("source").agg(pl.col("documents").sum()).iter_rows())
    losses: dict[str, list[tuple[str, int]]] = {}
    for source, reason, documents in counts.reasons.sort("documents", "reason", descending=[True, False]).iter_rows():
        losses.setdefault(source, []).append((reason, documents))
    found = []
    for name in sorted(cleaned.keys() | losses.keys(), key=str):
        reasons = losses.get(name, [])
        before = sum(number for reason, number in reasons if reason.startswith(("scrape.", "clean.")))
        dropped = sum(number for _, number in reasons)
        found.append(
            {"name": name, "documents": cleaned.get(name, 0) + before, "dropped": dropped, "reasons": reasons[:most]}
        )
    return sorted(found, key=lambda one: -one["dropped"] / one["documents"])


def length_mix(counts: Tally) -> list[dict[str, Any]]:
    """Documents by length in characters: name, documents, and how many are kept."""
    names = [f"{low + 1:,} – {high:,}" for low, high in zip((-1, *LENGTHS), LENGTHS, strict=False)]
    names.append(f"> {LENGTHS[-1]:,}")
    rows = {group: (documents, kept) for group, documents, kept in counts.lengths.iter_rows() if group is not None}
    found = []
    for place, name in enumerate(names):
        documents, kept = rows.get(str(place), (0, 0))
        found.append({"name": Said(name, name), "documents": documents, "kept": kept})
    return found if rows else []


def year_mix(counts: Tally) -> list[dict[str, Any]]:
    """Documents by the year of their date, those without one last: name, documents, and how many are kept."""
    unknown = Said("no date", "无日期")
    return [
        {"name": Said(year, year) if year else unknown, "documents": documents, "kept": kept}
        for year, documents, kept in counts.years.sort("group", nulls_last=True).iter_rows()
    ]


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
