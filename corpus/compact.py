"""`corpus compact`: the small parts of a source's many batches laid together, by one parameter."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from corpus.documents import open_part
from corpus.params import Params, load
from corpus.yaml_files import edit_yaml


def compact(params_file: Path, data: Path) -> str:
    """Set `scrape.merge` for each source of several batches to its newest one; returns what to print.

    Documents, their batches and all decisions stay; the stages work once more on those that come to lie in other parts.
    Raises UserError for a file that is no params.yaml.
    """
    params = load(params_file)
    newest = {name: max(batches) for name, batches in _batches(params).items() if len(batches) > 1}
    wanted = params.scrape.merge | newest
    if wanted == params.scrape.merge:
        return "no source has batches that are not laid together yet: nothing to do"
    edit_yaml(params_file, {"scrape": {"merge": wanted}})
    lines = [
        _told(name, batch, params, data) for name, batch in newest.items() if batch != params.scrape.merge.get(name)
    ]
    return "\n".join([*lines, f"{params_file}: scrape.merge is {wanted}; `dvc repro` lays them together"])


def _batches(params: Params) -> dict[str, set[int]]:
    found: dict[str, set[int]] = defaultdict(set)
    for source in params.sources:
        found[source.name].add(source.batch)
    return found


def _told(name: str, batch: int, params: Params, data: Path) -> str:
    """What there is to lay together, as far as it has been built."""
    parts = [path for path in (data / "scrape").glob(f"part-{name}-*-*.parquet") if path.is_file()]
    small = [path for path in parts if path.stat().st_size < params.scrape.part_mb * 1e6 / 2]
    rows = sum(open_part(path).metadata.num_rows for path in small)
    return f"{name}: batches up to {batch}; {len(parts):,} parts now, {len(small):,} of them small ({rows:,} documents)"
