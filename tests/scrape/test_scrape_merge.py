"""Small parts of many batches laid together: the same documents in fewer files."""

import json
from pathlib import Path

import polars as pl
import pytest
import yaml
from conftest import command, digests

from corpus.errors import UserError
from corpus.params import Params
from corpus.scrape import stage
from corpus.stage import Run, execute


def project(folder: Path, batches: dict[int, int], **scrape: object) -> Params:
    """A source whose batches have so many documents of 1 KB."""
    sources = []
    for batch, count in batches.items():
        path = folder / f"batch-{batch}.jsonl"
        rows = [{"text": f"Batch {batch}, document {number}. ".ljust(1_000, "x")} for number in range(count)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        sources.append({"name": "news", "kind": "jsonl", "path": str(path), "batch": batch})
    return Params.model_validate({"sources": sources, "scrape": scrape})


def run(folder: Path, params: Params, output: str = "output") -> Path:
    execute(stage, Run("scrape", params, (), folder / output, reports=None, home=folder / "home"))
    return folder / output


def parts(output: Path) -> dict[str, list[int]]:
    """Documents of each batch, by part."""
    found = {}
    for path in sorted(output.glob("part-*")):
        counts = pl.read_parquet(path)["batch"].value_counts().sort("batch")
        found[path.name] = counts.rows()
    return found


def test_neighbours_lie_together_until_a_part_is_full_and_large_ones_stay(tmp_path: Path) -> None:
    params = project(tmp_path, {0: 90, 1: 20, 2: 30, 3: 40, 4: 30, 5: 10}, part_mb=0.1, merge={"news": 4})
    assert parts(run(tmp_path, params)) == {
        "part-news-0-00000.parquet": [(0, 90)],  # more than half of 100 KB
        "part-news-1-00000.parquet": [(1, 20), (2, 30), (3, 40)],
        "part-news-4-00000.parquet": [(4, 30)],
        "part-news-5-00000.parquet": [(5, 10)],
    }


def test_documents_and_their_batches_are_what_they_were(tmp_path: Path) -> None:
    batches = {number: 10 + number for number in range(8)}
    apart = run(tmp_path, project(tmp_path, batches, part_mb=0.1), "apart")
    together = run(tmp_path, project(tmp_path, batches, part_mb=0.1, merge={"news": 7}), "together")
    one, other = (pl.read_parquet(folder / "part-*.parquet").sort("id") for folder in (apart, together))
    assert one.equals(other) and one.height == sum(batches.values())
    assert len(parts(together)) < len(parts(apart)) == 8
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    assert digests(run(fresh, project(tmp_path, batches, part_mb=0.1, merge={"news": 7}))) == digests(together)


def test_a_later_batch_changes_the_last_file_alone(tmp_path: Path) -> None:
    before = digests(run(tmp_path, project(tmp_path, dict.fromkeys(range(9), 20), part_mb=0.1, merge={"news": 8})))
    after = digests(run(tmp_path, project(tmp_path, dict.fromkeys(range(10), 20), part_mb=0.1, merge={"news": 9})))
    changed = {name for name in before if name.startswith("part-") and before[name] != after.get(name)}
    assert changed == {"part-news-8-00000.parquet"}


def test_batches_of_other_licences_do_not_share_a_part(tmp_path: Path) -> None:
    params = project(tmp_path, {0: 5, 1: 5, 2: 5}, merge={"news": 2})
    tree = params.model_dump(mode="json")
    tree["sources"][1]["licence"] = "CC-BY-4.0"
    assert list(parts(run(tmp_path, Params.model_validate(tree))).values()) == [[(0, 5)], [(1, 5)], [(2, 5)]]


@pytest.mark.parametrize("kept", ["# a comment", "part_mb: 0.5 # another"])
def test_the_command_sets_the_parameter_and_leaves_the_rest(tmp_path: Path, kept: str) -> None:
    params = project(tmp_path, {0: 5, 1: 5, 3: 5})
    tree = {"sources": [source.model_dump(mode="json", exclude_none=True) for source in params.sources]}
    text = "# a comment\n" + yaml.safe_dump(tree) + "scrape:\n  part_mb: 0.5 # another\n"
    (tmp_path / "params.yaml").write_text(text, "utf-8")
    command(tmp_path, "corpus", "scrape")
    said = command(tmp_path, "corpus", "compact").stdout
    assert said.startswith("news: batches up to 3; 3 parts now, 3 of them small (15 documents)\n")
    written = (tmp_path / "params.yaml").read_text("utf-8")
    assert kept in written and yaml.safe_load(written)["scrape"]["merge"] == {"news": 3}
    assert "nothing to do" in command(tmp_path, "corpus", "compact").stdout
    command(tmp_path, "corpus", "scrape")
    assert len(list((tmp_path / "data" / "scrape").glob("part-*"))) == 1


def test_a_name_that_is_no_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"scrape\.merge\.nesw is no source: did you mean scrape\.merge\.news\?"):
        run(tmp_path, project(tmp_path, {0: 1}, merge={"news": 0, "nesw": 0}))
    with pytest.raises(UserError, match=r"scrape\.merge\.other is no source: known: news; or take"):
        run(tmp_path, project(tmp_path, {0: 1}, merge={"other": 0}))
