"""What was written of unchanged files is not read again; what the sources before brought decides along with them."""

import json
from pathlib import Path

import pytest
from conftest import digests, read_rows

from corpus.params import Params
from corpus.scrape import stage
from corpus.stage import Metrics, Run, execute


def write(path: Path, *texts: str) -> Path:
    """Rows without an id of their own: equal ones have the same."""
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    return path


def scrape(folder: Path, *files: Path, home: str = "home") -> tuple[Path, Metrics]:
    sources = [{"name": path.stem, "kind": "jsonl", "path": str(path)} for path in files]
    output = folder / f"output-{home}"
    run = Run("scrape", Params.model_validate({"sources": sources}), (), output, reports=None, home=folder / home)
    return output, execute(stage, run)


def entries(folder: Path) -> set[str]:
    return {path.name for path in (folder / "home" / "parts" / "scrape").iterdir()}


def test_a_new_source_is_all_that_is_read_and_the_bytes_are_those_of_a_first_run(tmp_path: Path) -> None:
    old = [write(tmp_path / "a.jsonl", "First.", "Second."), write(tmp_path / "b.jsonl", "Second.", "Third.")]
    scrape(tmp_path, *old)
    known = entries(tmp_path)
    new = write(tmp_path / "c.jsonl", "First.", "Fourth.")
    output, metrics = scrape(tmp_path, *old, new)
    assert known < entries(tmp_path) and len(entries(tmp_path)) == 3
    assert metrics["rows"] == {"in": 6, "generated": 0, "kept": 4, "dropped": 2}
    assert metrics["dropped_by_reason"] == {"scrape.duplicate_id": 2}
    fresh, again = scrape(tmp_path, *old, new, home="fresh")
    assert digests(fresh) == digests(output) and again == metrics


@pytest.mark.parametrize("removed", ["a row", "the source"])
def test_what_is_gone_before_a_source_comes_back_in_it(tmp_path: Path, removed: str) -> None:
    a, b = write(tmp_path / "a.jsonl", "First.", "Second."), write(tmp_path / "b.jsonl", "Second.", "Third.")
    scrape(tmp_path, a, b)
    write(a, "First.")
    output, metrics = scrape(tmp_path, *([a, b] if removed == "a row" else [b]))
    assert "Second." in {row["text"] for path in output.glob("part-b-*") for row in read_rows(path)}
    assert metrics["rows"]["dropped"] == 0


def test_the_same_ids_before_a_source_change_nothing_in_it(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.jsonl", "First."), write(tmp_path / "b.jsonl", "Second.")
    scrape(tmp_path, a, b)
    a.touch()
    scrape(tmp_path, a, b)
    assert len(entries(tmp_path)) == 3  # a was read twice, b once
