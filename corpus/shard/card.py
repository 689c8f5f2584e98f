"""README.md of the shards: a dataset card as dataset hubs read it."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any


def dataset_card(metrics: Mapping[str, Any], chunk_tokens: int | None) -> str:
    """The card from the metrics of the stage: nothing in it but counts and names, no times."""
    splits = metrics["splits"]
    languages = sorted({language for by_language in splits.values() for language in by_language})
    return "\n".join(
        [
            "---",
            "language:" if languages else "language: []",
            *(f"- {language}" for language in languages),
            "configs:",
            "- config_name: default",
            "  data_files:",
            *_files(splits),
            "---",
            "",
            "# Corpus",
            "",
            '`datasets.load_dataset("DIR")` loads all splits of this folder DIR that have rows,',
            '`load_dataset("parquet", data_dir="DIR/train")` one of them, and',
            '`load_dataset("json", data_files="DIR/train/text.jsonl")` the same rows as JSON lines;',
            "`instruct.jsonl` holds `input` and `output` of each dialogue.",
            "",
            "## Rows",
            "",
            "| split | language | documents | chunks | characters | bytes |",
            "|---|---|--:|--:|--:|--:|",
            *(
                f"| {split} | {language} | {counts['documents']:,} | {counts['chunks']:,} "
                f"| {counts['characters']:,} | {counts['bytes']:,} |"
                for split in splits
                for language, counts in sorted(splits[split].items())
            ),
            "",
            *_table("Sources", "source", metrics["by_source"]),
            *_table("Licences", "licence", metrics["by_licence"]),
            *_table("Generated documents (train only, `parent_id` names the original)", "method", metrics["by_method"]),
            "## How it was made",
            "",
            "Pages were fetched and reduced to their main text, personal data masked, language identified. Of exact",
            "and near duplicates one was kept. Documents outside the bounds of their language's profile were dropped.",
            "Similar documents lie in the same split. Rows are in the order of a hash of their id; generated",
            f"documents follow the originals. {_chunking(chunk_tokens)}",
            "",
            "Columns: " + ", ".join(f"`{name}`" for name in metrics["columns"]) + ".",
            "",
        ]
    )


def _files(splits: Mapping[str, Any]) -> list[str]:
    """The Parquet files by split; only splits with rows, for `datasets` refuses the others."""
    filled = [split for split in splits if splits[split]]
    return [line for split in filled for line in (f"  - split: {split}", f"    path: {split}/part-*.parquet")]


def _table(title: str, column: str, counts: Mapping[str, int]) -> list[str]:
    if not counts:
        return []
    # Names may come from strangers' rows: nothing in them may end a cell or open a tag.
    safe = {name: html.escape(" ".join(name.split())[:80]).replace("|", "&#124;") for name in counts}
    rows = [f"| {safe[name]} | {count:,} |" for name, count in sorted(counts.items())]
    return [f"## {title}", "", f"| {column} | documents |", "|---|--:|", *rows, ""]


def _chunking(limit: int | None) -> str:
    if limit is None:
        return "Documents are whole."
    return f"Documents other than dialogues are cut into chunks of at most {limit:,} tokens, counted by `chunk`."
