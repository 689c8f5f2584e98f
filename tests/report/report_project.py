"""A small project as all stages would have left it: Parquet and JSON written by hand, with hostile text among it."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from corpus.documents import DOCUMENT, DROPPED, document_id, generated_id, write_table

HOSTILE = [
    "<script>alert('text')</script><img src=x onerror=alert(1)><svg onload=alert(2)>",
    "\"></div></section><iframe src='javascript:alert(3)'></iframe><style>*{display:none}</style>",
    "{{ 7 * 7 }} {% raw %} </title></textarea><meta http-equiv=refresh content='0;url=//evil.example/'> \x00\u202e",
]
HOSTILE_NAME = "\"><script>alert('name')</script>"
WORDS = {
    "en": ["backup", "folder", "restore", "the", "of", "a", "file", "sync", "window", "keeps", "every", "version"],
    "zh-Hans": ["备份", "文件夹", "恢复", "同步", "的", "版本", "设备", "设置", "每天", "计划", "我们", "可以"],
}
SIGNALS = ("n_chars", "mattr", "noise_ratio", "symbol_ratio", "stop_word_ratio")
BOUNDS = {
    "n_chars.min": (220, "absolute", "too short to teach anything"),
    "mattr.min": (0.35, "absolute", "repeats itself"),
    "symbol_ratio.max": (0.1, "absolute", "tables and code without prose"),
    "ppl.max": (900.0, "percentile 99 of the reference", "unlike any running text"),
}


def build(folder: Path, documents: int = 90, dropped_by_clean: int = 7) -> Path:
    """Write data/ and reports/ of a project that ran to the end; half the documents are Chinese."""
    rng = random.Random(7)
    rows = [_document(rng, number, "en" if number % 2 else "zh-Hans") for number in range(documents)]
    for number, text in enumerate(HOSTILE):
        rows[number * 4] |= {"text": text, "title": HOSTILE_NAME, "url": "javascript:alert(4)", "n_chars": len(text)}
        rows[number * 4] |= {"mattr": 0.2, "symbol_ratio": 0.4}
    _decide(rows)
    halves = {"part-help-0-00000.parquet": rows[: documents // 2], "part-news-0-00000.parquet": rows[documents // 2 :]}
    for name, own in halves.items():
        _write_part(folder / "data", name, own)
    _write_dropped(folder / "data", dropped_by_clean)
    _write_generated(folder / "data", rows)
    _write_reports(folder / "reports", rows, dropped_by_clean)
    _write_training(folder)
    return folder


def write_report(folder: Path, stage: str, metrics: dict[str, Any]) -> None:
    (folder / f"{stage}.json").write_text(json.dumps(metrics, sort_keys=True), "utf-8")


def _document(rng: random.Random, number: int, lang: str) -> dict[str, Any]:
    joint = " " if lang == "en" else ""
    length = int(rng.lognormvariate(4.2, 0.7)) + 5
    text = joint.join(rng.choice(WORDS[lang]) for _ in range(length)) + "."
    return {
        "id": document_id(f"http://docs.example/{number}"),
        "text": text,
        "source": "help" if number % 3 else "news",
        "batch": 0,
        "url": f"http://docs.example/{number}",
        "title": f"{'Page' if lang == 'en' else '页面'} {number}",
        "lang": lang,
        "lang_score": 0.99,
        "n_chars": len(text),
        "mattr": min(max(rng.gauss(0.7, 0.12), 0.05), 1.0),
        "noise_ratio": abs(rng.gauss(0, 0.01)),
        "symbol_ratio": abs(rng.gauss(0.02, 0.03)),
        "stop_word_ratio": rng.uniform(0.1, 0.4),
        "ppl": math.exp(rng.gauss(5.0, 0.8)) if lang == "en" else None,
        "oov_rate": rng.uniform(0, 0.2),
        "fluency_gain": rng.gauss(2, 0.5),
    }


def _decide(rows: list[dict[str, Any]]) -> None:
    """dedup drops every 11th as a copy of the one before it; filter judges the rest; split deals out what is left."""
    for number, row in enumerate(rows):
        copy = number % 11 == 5
        row |= {"dedup_kept": not copy, "duplicate_of": rows[number - 1]["id"] if copy else None}
        row |= {"similarity": 0.83 if copy else None, "cluster": rows[number - 1 if copy else number]["id"]}
        failed = [] if copy else [(rule, value) for rule, (value, _, _) in BOUNDS.items() if _fails(row, rule, value)]
        row["filter_kept"] = None if copy else not failed
        row["reasons"] = [f"filter.{rule}" for rule, _ in failed]
        row["margins"] = [(row[rule.rpartition(".")[0]] - value) / 50 for rule, value in failed]
        row["split"] = ("train", "train", "train", "validation", "test")[number % 5] if row["filter_kept"] else None


def _fails(row: dict[str, Any], rule: str, bound: float) -> bool:
    signal, side = rule.split(".")
    value = row[signal]
    return value is not None and (value < bound if side == "min" else value > bound)


def _write_part(data: Path, name: str, rows: list[dict[str, Any]]) -> None:
    for folder in ("clean", "measure", "perplexity", "dedup", "filter", "split"):
        (data / folder).mkdir(parents=True, exist_ok=True)
    write_table(
        pa.Table.from_pylist([{k: r.get(k) for k in DOCUMENT.names} for r in rows], DOCUMENT), data / "clean" / name
    )
    frame = pl.DataFrame(
        [{k: v for k, v in row.items() if k not in DOCUMENT.names or k == "id"} for row in rows],
        schema_overrides={"reasons": pl.List(pl.String), "margins": pl.List(pl.Float64), "ppl": pl.Float64},
        infer_schema_length=None,
    )
    dedup = [pl.when(~pl.col("dedup_kept")).then(pl.lit(["dedup.near"])).otherwise(pl.lit([], pl.List(pl.String)))]
    annotations = {
        "measure": frame.select("id", *SIGNALS),
        "perplexity": frame.select("id", "ppl", "oov_rate", "fluency_gain"),
        "dedup": frame.select(
            "id", pl.col("dedup_kept").alias("kept"), "duplicate_of", "similarity", "cluster", dedup[0].alias("reasons")
        ),
        "filter": frame.select("id", pl.col("filter_kept").alias("kept"), "reasons", "margins"),
        "split": frame.select(
            "id", pl.col("filter_kept").replace_strict({True: True}, default=None).alias("kept"), "split"
        ),
    }
    for stage, annotation in annotations.items():
        write_table(annotation.to_arrow(compat_level=pl.CompatLevel.oldest()), data / stage / name)


def _write_dropped(data: Path, number: int) -> None:
    reasons = ["clean.language", "clean.error.decode", "clean.empty.extractor"]
    rows = [
        {"id": document_id(f"dropped {n}"), "source": "help", "batch": 0, "url": f"http://docs.example/dropped/{n}"}
        | {
            "reason": reasons[n % 3],
            "detail": f"{HOSTILE_NAME} line {n}",
            "text": HOSTILE[n % 3] if n % 3 == 0 else None,
        }
        for n in range(number)
    ]
    write_table(pa.Table.from_pylist(rows, DROPPED), data / "clean" / "dropped-help-0-00000.parquet")


def _write_generated(data: Path, rows: list[dict[str, Any]]) -> None:
    (data / "augment").mkdir()
    schema = DOCUMENT.append(pa.field("kept", pa.bool_())).append(pa.field("reasons", pa.list_(pa.string())))
    parents = [row for row in rows if row["split"] == "train"][:6]
    made = [
        {name: parent.get(name) for name in DOCUMENT.names}
        | {"id": generated_id(parent["id"], "swap", 0), "parent_id": parent["id"], "method": "swap"}
        | {"kept": number > 1, "reasons": [] if number > 1 else ["augment.unchanged"]}
        for number, parent in enumerate(parents)
    ]
    write_table(pa.Table.from_pylist(made, schema), data / "augment" / "part-help-0-00000.parquet")


def _write_reports(reports: Path, rows: list[dict[str, Any]], dropped_by_clean: int) -> None:
    reports.mkdir()

    def metrics(before: int, dropped: dict[str, int], generated: int = 0) -> dict[str, Any]:
        lost = sum(dropped.values())
        counts = {"in": before, "generated": generated, "kept": before + generated - lost, "dropped": lost}
        return {"rows": counts, "dropped_by_reason": dropped}

    documents = len(rows)
    judged = [row for row in rows if row["dedup_kept"]]
    kept = [row for row in judged if row["filter_kept"]]
    first = pl.Series([r["reasons"][0] for r in judged if r["reasons"]], dtype=pl.String).value_counts().rows()
    every = pl.Series([x for r in judged for x in r["reasons"]], dtype=pl.String).value_counts().rows()
    by_clean = {"clean.language": -(-dropped_by_clean // 3), "clean.error.decode": -(-(dropped_by_clean - 1) // 3)}
    by_clean["clean.empty.extractor"] = dropped_by_clean - sum(by_clean.values())
    scraped = metrics(documents + dropped_by_clean, {})
    write_report(reports, "scrape", scraped | {"sources": {"help-0": scraped["rows"] | {"bytes": 123_456, "parts": 2}}})
    write_report(reports, "clean", metrics(documents + dropped_by_clean, by_clean))
    write_report(reports, "measure", metrics(documents, {}))
    quantiles = {
        "quantiles": [0.05, 0.25, 0.5, 0.75, 0.95],
        "languages": {"en": {"documents": documents, "signals": {"ppl": [42.0, 99.0, 150.0, 260.0, 700.0]}}},
    }
    model = {"en": {"documents": 20, "heldout_ppl": 120.0, "heldout_oov_rate": 0.05}}
    write_report(reports, "reference", metrics(20, {}) | {"languages": model})
    write_report(reports, "perplexity", metrics(documents, {}) | quantiles)
    pairs = {"pairs": {"verified": 40, "edges": 12}}
    sizes = {"cluster_sizes": {"1": 2 * len(judged) - documents, "2": documents - len(judged)}}
    write_report(reports, "dedup", metrics(documents, {"dedup.near": documents - len(judged)}) | sizes | pairs)
    bounds = {r: {"bound": b, "from": f, "why": w, "spread": 50.0} for r, (b, f, w) in BOUNDS.items()}
    own = {"failed_rules": dict(every), "bounds": {"en": bounds, "zh-Hans": bounds}}
    write_report(reports, "filter", metrics(len(judged), dict(first)) | own)
    splits: dict[str, Any] = {}
    for name in ("train", "validation", "test"):
        inside = [row for row in kept if row["split"] == name]
        splits[name] = {
            "documents": len(inside),
            "characters": sum(r["n_chars"] for r in inside),
            "groups": len(inside),
        }
        splits[name]["languages"] = {"en": dict(splits[name])}
    write_report(reports, "split", metrics(len(kept), {}) | {"splits": splits, "moved_groups": 0})
    by_method = {"by_method": {"swap": {"generated": 6, "kept": 4}}}
    write_report(reports, "augment", metrics(len(kept), {"augment.unchanged": 2}, generated=6) | by_method)
    write_report(reports, "shard", metrics(len(kept) + 4, {}))


def _write_training(folder: Path) -> None:
    (folder / "reports" / "plots").mkdir()
    lines = ["step,adapted_train,adapted_validation,control_train,control_validation"]
    for step in range(20, 161, 20):
        gains = [1 - math.exp(-step / 40), 1 - math.exp(-step / 50)]
        losses = [high - gain * share for gain in (1.4, 1.2) for high, share in zip((5, 5.1), gains, strict=True)]
        lines.append(",".join([str(step), *(f"{loss:.4f}" for loss in losses)]))
    (folder / "reports" / "plots" / "loss.csv").write_text("\n".join(lines) + "\n")

    def scores(bits: float) -> dict[str, float]:
        return {
            "bits_per_byte": bits,
            "perplexity": 2 ** (2 * bits),
            "bleu": 4 / bits,
            "chrf": 30 / bits,
            "rouge_l": 20 / bits,
        }

    sets = {
        "pinned-en": (2.4, 2.1, 2.15),
        "pinned-zh": (2.0, 1.9, 1.8),
        "test-en": (2.5, 1.95, 2.0),
    }
    evaluated = {
        name: {"fingerprint": "0f1e2d3c4b5a6978", "documents": 8, "bytes": 20_000}
        | {"base": scores(base), "adapted": scores(adapted), "control": scores(control)}
        for name, (base, adapted, control) in sets.items()
    }
    rows = {"in": 24, "generated": 0, "kept": 24, "dropped": 0}
    cost = {"pinned-general-en": {"bits_per_byte": 0.125, "perplexity_before": 40.0, "perplexity_after": 44.5}}
    scored = {"rows": rows, "dropped_by_reason": {}, "sets": evaluated, "forgetting": cost}
    write_report(folder / "reports", "evaluate", scored)
    (folder / "data" / "evaluate").mkdir()
    samples = [
        {"set": name, "id": f"{name}-1", "prompt": HOSTILE[0], "reference": "keeps every version", "base": HOSTILE[1]}
        | {"adapted": "保存每个版本", "control": HOSTILE[2]}
        for name in sets
    ]
    text = "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)
    (folder / "data" / "evaluate" / "samples.jsonl").write_text(text, "utf-8")
