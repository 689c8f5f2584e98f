"""README.md of the shards: a dataset card as dataset hubs read it."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from corpus.params import Params
from corpus.shard.rows import SHARD
from corpus.sources import AnySource, HfSource, SiteSource

# Licences that the hub knows by their SPDX names in lower case; it wants `other` for all else.
_HUB_LICENCES = (
    *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-2.0", "cc-by-3.0", "cc-by-4.0"),
    *("cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "odc-by", "odbl", "pddl"),
    *("gpl-2.0", "gpl-3.0", "lgpl-3.0", "mpl-2.0", "unlicense"),
)
_SIZES = (
    *((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")),
    *((10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B")),
)
_MARKDOWN = re.compile(r"[|`*_\[\]()!~<>\\]|:(?=//)")
_DECIDE = ("clean", "dedup", "filter", "split", "augment", "shard")  # the sections of params that made the corpus so


def dataset_card(metrics: Mapping[str, Any], params: Params) -> str:
    """The card from the metrics of the stage and the parameters: no times, nothing of this machine."""
    splits = metrics["splits"]
    limit = params.shard.chunk_tokens
    return "\n".join(
        [
            "---",
            *yaml.safe_dump(_front_matter(metrics), allow_unicode=True, sort_keys=False).splitlines(),
            "---",
            "",
            "# Corpus",
            "",
            '`datasets.load_dataset("DIR")` loads all splits of this folder DIR that have rows,',
            '`load_dataset("parquet", data_dir="DIR/train")` one of them, and',
            '`load_dataset("json", data_files="DIR/train/text.jsonl")` the same rows as JSON lines; all of them take',
            "`streaming=True`. `instruct.jsonl` holds `input`, `output` and `messages` of each dialogue.",
            "",
            "## Rows",
            "",
            f"| split | language | documents | copies | chunks | characters | bytes |{' tokens |' if limit else ''}",
            f"|---|---|--:|--:|--:|--:|--:|{'--:|' if limit else ''}",
            *(
                f"| {split} | {_cell(language)} | {counts['documents']:,} | {counts['copies']:,} "
                f"| {counts['chunks']:,} | {counts['characters']:,} | {counts['bytes']:,} |{_tokens(counts, limit)}"
                for split in splits
                for language, counts in sorted(splits[split].items())
            ),
            "",
            *_table("Sources", "source", metrics["by_source"], _origins(params.sources)),
            *_table("Licences", "licence", metrics["by_licence"]),
            *_table("Generated documents (train only, `parent_id` names the original)", "method", metrics["by_method"]),
            *(_balance(metrics["balance"]) if "balance" in metrics else []),
            "## How it was made",
            "",
            "Pages were fetched and reduced to their main text, personal data masked, language identified. Of exact",
            "and near duplicates one was kept. Documents outside the bounds of their language's profile were dropped.",
            "Similar documents lie in the same split. Rows are in the order of a hash of their id; generated",
            f"documents follow the originals. {_chunking(params)}",
            "",
            "The parameters that are not the defaults of their stage:",
            "",
            "```yaml",
            *yaml.safe_dump(_settings(params), allow_unicode=True, sort_keys=True).splitlines(),
            "```",
            "",
            "Columns: " + ", ".join(f"`{name}`" for name in SHARD.names) + ".",
            "",
        ]
    )


def _front_matter(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What hubs read: languages, licences, size, and the Parquet files by split, for `datasets` refuses empty ones."""
    splits = metrics["splits"]
    rows = sum(counts["chunks"] for by_language in splits.values() for counts in by_language.values())
    files = [{"split": split, "path": f"{split}/part-*.parquet"} for split in splits if splits[split]]
    return {
        "language": sorted({language for by_language in splits.values() for language in by_language}),
        "license": sorted(
            {name.lower() if name.lower() in _HUB_LICENCES else "other" for name in metrics["by_licence"]}
        ),
        "size_categories": [next((name for most, name in _SIZES if rows < most), "n>1B")],
        "configs": [{"config_name": "default", "data_files": files}],
    }


def _origins(sources: Sequence[AnySource]) -> dict[str, str]:
    """Of each source its kind and, where it is public, its place."""
    return {source.name: f"{source.kind} {_place(source)}".strip() for source in sources}


def _place(source: AnySource) -> str:
    if isinstance(source, HfSource):
        return source.dataset
    if isinstance(source, SiteSource):
        return source.public_base or ", ".join((source.start or source.sitemaps)[:3])
    return ""


def _settings(params: Params) -> dict[str, Any]:
    """What params.yaml says otherwise than the defaults, without keys to any storage."""
    return params.model_dump(
        mode="json", include=set(_DECIDE), exclude={"shard": {"copy_to", "storage"}}, exclude_defaults=True
    )


def _tokens(counts: Mapping[str, int], limit: int | None) -> str:
    return f" {counts['tokens']:,} |" if limit else ""


def _table(title: str, column: str, counts: Mapping[str, int], more: Mapping[str, str] | None = None) -> list[str]:
    if not counts:
        return []
    rows = [
        f"| {_cell(name)} | {count:,} |{f' {_cell(more.get(name, str()))} |' if more else ''}"
        for name, count in sorted(counts.items())
    ]
    head = f"| {column} | documents |{' from |' if more else ''}"
    return [f"## {title}", "", head, f"|---|--:|{'---|' if more else ''}", *rows, ""]


def _balance(balance: Mapping[str, Mapping[str, Mapping[str, int]]]) -> list[str]:
    rows = [
        f"| {column} | {_cell(value)} | {counts['documents']:,} | {counts['taken']:,} |"
        for column, values in sorted(balance.items())
        for value, counts in values.items()
    ]
    return [
        "## Balance",
        "",
        "How often the train documents were taken; those taken no time are named in `dropped-balance.parquet`.",
        "",
        "| column | value | documents | taken |",
        "|---|---|--:|--:|",
        *rows,
        "",
    ]


def _cell(name: str) -> str:
    """A name that strangers' rows may have brought: nothing in it ends a cell, opens a tag, or is Markdown."""
    escaped = html.escape(" ".join(name.split())[:80])
    return _MARKDOWN.sub(lambda sign: f"&#{ord(sign[0])};", escaped)


def _chunking(params: Params) -> str:
    limit, overlap, tokenizer = params.shard.chunk_tokens, params.shard.overlap_tokens, params.shard.tokenizer
    if limit is None:
        return "Documents are whole."
    counted = f"tokens of {json.dumps(tokenizer, ensure_ascii=False)}" if tokenizer else "words, in Chinese characters,"
    repeats = f" The first `overlap` characters of a chunk end the one before ({overlap} tokens at most)."
    return (
        f"Documents other than dialogues are cut into chunks of at most {limit:,} {counted} at the ends of sentences, "
        f"counted by `chunk`.{repeats if overlap else ''}"
    )
