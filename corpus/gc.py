"""`corpus gc` removes what of the store no output here is made of. Only time depends on the store, never a result."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from corpus.files import digest_of
from corpus.locks import locked
from corpus.stage import MARKER
from corpus.store import memo_of

SECONDS_A_DAY = 86_400


def collect_garbage(home: Path, keep_days: float, dry_run: bool) -> str:
    """Remove finished parts and stars that the last run of no existing output used, what killed runs left, and mirrors
    of object storage.

    What was written within the last days stays, for going back to earlier parameters. The answers of the web, of
    translators and models stay in any case: to get them again costs others. Returns what to print. Raises UserError
    while a stage runs.
    """
    if not home.is_dir():
        return f"{home} does not exist: nothing is stored here"
    with locked(home / "locks" / "store.lock", home):
        used, outputs = _used(home)
        youngest = time.time() - keep_days * SECONDS_A_DAY
        freed: Counter[str] = Counter()
        entries: Counter[str] = Counter()
        for kind, path in _entries(home):
            if path in used or (keep_days and path.stat().st_mtime > youngest):
                continue
            freed[kind] += _size(path)
            entries[kind] += 1
            if not dry_run:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if not dry_run:
            _forget_what_is_gone(home, outputs)
    if not entries:
        by = ", ".join(sorted(path.name for path in outputs)) or "nothing here"
        return f"{home} holds nothing that can go: all of it is used by {by}" + (", or young" if keep_days else "")
    what = ", ".join(f"{kind} {count:,} ({freed[kind] / 1e6:,.1f} MB)" for kind, count in sorted(entries.items()))
    verb = "would remove" if dry_run else "removed"
    return (
        f"{verb} {entries.total():,} entries, {freed.total() / 1e6:,.1f} MB: {what}\n"
        "DVC's own cache is trimmed by `dvc gc --workspace`"
    )


def _used(home: Path) -> tuple[set[Path], set[Path]]:
    """What the last runs used, of outputs that still lie where they were written, and those outputs."""
    used: set[Path] = set()
    outputs: set[Path] = set()
    for path in (home / "uses").glob("*.json"):
        try:
            use = json.loads(path.read_text("utf-8"))
        except ValueError:  # cut short when a machine went down: what it named is made again when it is wanted
            continue
        if (Path(use["output"]) / MARKER).exists():
            used |= {home / entry for entry in use["entries"]}
            outputs.add(Path(use["output"]))
    return used, outputs


def _forget_what_is_gone(home: Path, outputs: set[Path]) -> None:
    """Remove what is noted here of outputs and files that are no longer there; it is small, and only grows."""
    noted = {home / "uses" / f"{digest_of(str(output))}.json" for output in outputs}
    files = [path for folder in (home / "parts", *outputs) for path in folder.rglob("*") if path.is_file()]
    digests = {memo_of(home, path)[0] for path in files}
    for path in [*(home / "uses").glob("*"), *(home / "digests").glob("*")]:
        if path not in noted and path not in digests:
            path.unlink()


def _entries(home: Path) -> Iterator[tuple[str, Path]]:
    """All that can be made again from what is here, with a word for what it is."""
    for entry in sorted(home.glob("parts/*/*")):
        yield ("half-written" if entry.suffix == ".partial" else entry.parent.name), entry
    for entry in sorted(home.glob("stars/*")):
        yield "stars", entry
    for entry in sorted(home.glob("augment/*")):
        yield "augment", entry
    for entry in sorted([*home.glob("remote/*"), *home.glob("remote/objects/*")]):  # it can be fetched again
        if entry.name != "objects":
            yield "mirrors", entry


def _size(path: Path) -> int:
    """Bytes that removing it frees: files that lie in an output as well are links and take no room of their own."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(stat.st_size for file in files if (stat := file.stat()).st_nlink == 1 and file.is_file())
