"""Documents that must go: left as an id and a reason in the corpus, and purged from stores and caches."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from corpus.answers import answers as answers_of_models
from corpus.documents import document_id
from corpus.errors import UserError
from corpus.locks import locked
from corpus.params import Forget
from corpus.scrape.buckets import remove_segments
from corpus.scrape.crawl_cache import forget as forget_answers
from corpus.scrape.urls import normalise_url

REASON = "scrape.forgotten"

Row = Mapping[str, Any]


def forgetter(forget: Forget) -> Callable[[Row], bool]:
    """Whether a row must go, by its `id` or its `url`: as a function, made once for all rows.

    >>> must_go = forgetter(Forget(urls=["http://A.example"], patterns=["/private/"]))
    >>> must_go({"id": "1", "url": "http://a.example/"}), must_go({"id": "2", "url": "http://b.example/"})
    (True, False)
    """
    ids = frozenset(forget.ids)
    by_url = url_forgetter(forget)
    return lambda row: row["id"] in ids or by_url(row.get("url"))


def url_forgetter(forget: Forget) -> Callable[[str | None], bool]:
    """Whether the document of a URL must go; URLs are compared as they are and in their one spelling.

    A page's id is made of its URL: one that `ids` names is not fetched either.

    >>> url_forgetter(Forget(ids=[document_id("http://a.example/")]))("HTTP://a.example/#top")
    True
    """
    ids, urls = frozenset(forget.ids), frozenset(forget.urls) | {normalise_url(url) for url in forget.urls}
    patterns = [re.compile(pattern) for pattern in forget.patterns]

    def is_named(url: str) -> bool:
        return url in urls or document_id(url) in ids or any(pattern.search(url) for pattern in patterns)

    if not (ids or forget.urls or patterns):
        return lambda url: False
    return lambda url: url is not None and (is_named(url) or is_named(normalise_url(url) or url))


def forgotten(row: Row) -> dict[str, Any]:
    """What is left of a row."""
    return {"id": row["id"], "url": None, "reason": REASON, "detail": None, "text": None}


def purge(run_home: Path, data: Path, forget: Forget) -> str:
    """Remove forgotten documents from what outlives a run: finished parts, spilled sources, answers of the web.

    What was generated from them goes too, what killed runs left half written, and all that was fetched from object
    storage, which is fetched again. The rest of `data` is only read, to
    learn which ids the URLs and patterns mean: `dvc repro` builds it again. Returns a sentence on what was removed and
    what is left to do. Raises UserError where nothing is named, or a stage is running.
    """
    if not (forget.ids or forget.urls or forget.patterns):
        raise UserError("forget in params.yaml names nothing: write ids, urls or patterns under it")
    with locked(run_home / "locks" / "store.lock", run_home):  # alone: every stage that runs holds it as well
        return _purge(run_home, data, forget)


def _purge(run_home: Path, data: Path, forget: Forget) -> str:
    _remove_half_written(run_home, data)
    by_url = url_forgetter(forget)
    stores = [folder for folder in sorted(run_home.glob("parts/*/*")) if folder.is_dir()]
    files = [*(path for store in stores for path in store.rglob("*.parquet")), *sorted(data.rglob("*.parquet"))]
    ids = set(forget.ids)
    urls: set[str] = set()
    for path in files:
        for document, url in _column_pairs(path, "url"):
            if document in ids or by_url(url):
                ids.add(document)
                urls |= {url} - {None}
    for path in files:
        ids |= {document for document, parent in _column_pairs(path, "parent_id") if parent in ids}
    found: set[str] = set()
    emptied = 0
    for store in stores:
        held = {i for path in store.rglob("*.parquet") for i, _ in _column_pairs(path, "id") if i in ids}
        if held:
            found |= held
            shutil.rmtree(store)
            emptied += 1
    for rows in run_home.glob("checkpoints/*/*/not-finite-*.json"):  # a training that broke left its documents' tokens
        rows.unlink(missing_ok=True)
    spilled = remove_segments(run_home / "scrape")
    for folder in ("scrape", "remote", "augment"):
        shutil.rmtree(run_home / folder, ignore_errors=True)
    translated = 0
    if (run_home / "answers.sqlite").exists():
        with answers_of_models(run_home / "answers.sqlite") as cache:
            translated = cache.forget(ids)
    answers = forget_answers(run_home, lambda url: url in urls or by_url(url) or document_id(url) in ids)
    in_data = {
        document
        for path in data.rglob("*.parquet")
        for document, reason in _column_pairs(path, "reason" if path.name.startswith("dropped-") else "id")
        if document in ids and reason != REASON
    }
    removed = (
        f"removed {emptied} finished parts, {spilled} unfinished sources, {answers} answers of the web and "
        f"{translated} of models"
    )
    if not found and not answers and not translated and not in_data:
        return f"none of these documents occurs any more in {run_home} or {data}; {removed}"
    missing = sorted(set(forget.ids) - found - in_data)
    absent = f"; no longer there: {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}" if missing else ""
    left = f"{data} still holds {len(in_data)} of them: run `dvc repro`, then " if in_data else "run "
    return (
        f"{removed}{absent}; {left}`dvc gc --workspace` for DVC's cache, and mind remotes, old commits and models "
        "trained on them"
    )


def _remove_half_written(run_home: Path, data: Path) -> None:
    """Remove the folders of killed runs: whether a forgotten document is in them cannot be told."""
    for partial in [*run_home.glob("parts/*/*.partial"), *data.glob(".*.partial")]:
        shutil.rmtree(partial, ignore_errors=True)


def _column_pairs(path: Path, column: str) -> Iterator[tuple[str, Any]]:
    """Id and another column of each row of a file; nothing of a file that lacks them or cannot be read."""
    try:
        file = pq.ParquetFile(path)
        if "id" in file.schema_arrow.names and column in file.schema_arrow.names:
            for batch in file.iter_batches(columns=["id", column]):
                yield from zip(batch["id"].to_pylist(), batch[column].to_pylist(), strict=True)
    except (pa.ArrowException, OSError):
        return
