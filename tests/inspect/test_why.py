"""The life of a document: found by id, URL and words, with and without an index, equal to what the files say."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from small_corpus import HOSTILE, build

from corpus.cli import main
from corpus.documents import document_id
from corpus.errors import UserError
from corpus.inspect.find import lives, scan_for_id
from corpus.inspect.life import Life
from corpus.inspect.why import why
from corpus.params import Params
from corpus.report.index import BUCKETS, build_index, find_id, find_url, key_of_id, read_row
from corpus.stage import Run


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = build(tmp_path_factory.mktemp("corpus"))
    (one, *_) = lives(folder / "data", "http://rows.example/again")
    packed = pa.table({"document_ids": [[one.id], ["f" * 32, one.id]], "input_ids": [[1, 2], [3, 4]]})
    (folder / "data/pack/train").mkdir(parents=True)
    with pa.ipc.new_stream(str(folder / "data/pack/train/data.arrow"), packed.schema) as stream:
        stream.write_table(packed)
    (folder / "data/finetune").mkdir()
    rows = {"pack": ["train", "train"], "row": [1, 1], "step": [3, 9]}
    pl.DataFrame(rows).write_parquet(folder / "data/finetune/rows.parquet")
    index_again(folder)
    return folder


def index_again(folder: Path) -> None:
    shutil.rmtree(folder / "data/report/index")
    build_index(Run("report", Params(), (), folder / "data/report", folder / "data", None), folder / "data")


def life(corpus: Path, wanted: str) -> Life:
    (one,) = lives(corpus / "data", wanted)
    return one


def outcomes(one: Life) -> dict[str, str]:
    return {step.stage: step.outcome for step in one.steps}


def rows_by_id(data: Path) -> dict[str, set[tuple[str, int]]]:
    """Where each id stands in scrape, clean and augment: the slow, obvious way."""
    found = defaultdict(set)
    for stage in ("scrape", "clean", "augment"):
        for path in (data / stage).glob("*.parquet"):
            for row, identity in enumerate(pl.read_parquet(path)["id"]):
                found[identity].add((f"{stage}/{path.name}", row))
    return found


def test_the_index_has_every_row_of_every_document(corpus: Path) -> None:
    data = corpus / "data"
    expected = rows_by_id(data)
    assert len(expected) > 70
    for identity, rows in expected.items():
        places = find_id(data, identity)[key_of_id(identity)]
        assert {(place.file, place.row) for place in places if place.kind == "id"} == rows
        assert sorted(places, key=str) == sorted(scan_for_id(data, identity)[key_of_id(identity)], key=str)
        for file, row in rows:
            assert read_row(data / file, row)["id"] == identity
    assert len(list((data / "report/index").glob("*.parquet"))) == BUCKETS


def test_the_index_is_the_same_whoever_builds_it(corpus: Path) -> None:
    before = {path.name: path.read_bytes() for path in (corpus / "data/report/index").iterdir()}
    index_again(corpus)
    assert {path.name: path.read_bytes() for path in (corpus / "data/report/index").iterdir()} == before


def test_a_kept_document_from_its_page_to_its_training_steps(corpus: Path) -> None:
    one = life(corpus, "http://rows.example/again")
    assert one.verdict == "Kept, and trained on in steps 3, 9."
    steps = {step.stage: step for step in one.steps}
    assert [*steps] == [
        *("scrape", "clean", "measure", "perplexity", "dedup", "filter", "split", "shard", "pack", "finetune")
    ]
    assert steps["pack"].facts == {"pack": "train", "rows": [0, 1]}
    copies = [other for other in one.relatives if other.relation == "copy"]
    assert [other.url for other in copies] == ["http://site.example/keeper.html"]
    assert copies[0].similarity and copies[0].similarity > 0.8
    assert copies[0].reasons == ["dedup.near"]


def test_of_a_copy_the_kept_document_is_named_and_what_cleaning_cut(corpus: Path) -> None:
    one = life(corpus, "http://site.example/keeper.html")
    assert one.verdict.startswith("Dropped by dedup: dedup.near")
    assert outcomes(one)["dedup"] == "dropped"
    assert outcomes(one)["filter"] == "not judged"
    assert [(other.relation, other.url) for other in one.relatives] == [("duplicate of", "http://rows.example/again")]
    assert [line for change in one.cleaned if change.kind == "cut" for line in change.lines] == ["Menu of the site"]


def test_every_failed_rule_stands_beside_its_bound(corpus: Path) -> None:
    one = life(corpus, "http://rows.example/short")
    kept = pl.read_parquet(corpus / "data/filter/part-rows-0-00000.parquet").filter(pl.col("id") == one.id)
    measured = pl.read_parquet(corpus / "data/measure/part-rows-0-00000.parquet").filter(pl.col("id") == one.id)
    failed = [check for check in one.checks if check.failed]
    assert [f"filter.{check.signal}.{check.side}" for check in failed]
    assert {f"filter.{check.signal}.{check.side}" for check in failed} == set(kept["reasons"][0])
    margins = dict(zip(kept["reasons"][0], kept["margins"][0], strict=True))
    for check in failed:
        assert check.margin == pytest.approx(margins[f"filter.{check.signal}.{check.side}"], rel=1e-4)
        assert check.value == (measured[check.signal][0] if check.signal in measured.columns else check.value)
    bounds = json.loads((corpus / "reports/filter.json").read_text())["bounds"]["en"]
    assert {f"{check.signal}.{check.side}": check.bound for check in one.checks} == {
        rule: facts["bound"] for rule, facts in bounds.items()
    }


def test_a_row_that_was_no_document_is_found_too(corpus: Path) -> None:
    (row,) = pl.read_parquet(corpus / "data/scrape/dropped-rows-0.parquet").to_dicts()
    one = life(corpus, row["id"])
    assert one.verdict.startswith("Dropped by scrape: scrape.error.text")


def test_a_generated_document_and_its_parent_name_each_other(corpus: Path) -> None:
    made = pl.concat([pl.read_parquet(p) for p in (corpus / "data/augment").glob("part-*")]).to_dicts()
    assert made
    for row in made:
        child = life(corpus, row["id"])
        assert ("parent", row["parent_id"]) in [(other.relation, other.id) for other in child.relatives]
        parent = life(corpus, row["parent_id"])
        assert ("generated", row["id"]) in [(other.relation, other.id) for other in parent.relatives]


def test_an_address_may_be_spelled_in_other_ways(corpus: Path) -> None:
    assert life(corpus, "HTTP://rows.example:80/again#top").id == life(corpus, "http://rows.example/again").id


def test_words_are_found_across_lines_and_in_any_case(corpus: Path) -> None:
    found = [one.url for one in lives(corpus / "data", "LIGHTHOUSE   keeper\nwrote down")]
    assert set(found) == {
        *("http://rows.example/again", "http://rows.example/hostile"),
        "http://site.example/keeper.html",
    }


def test_without_an_index_or_with_an_old_one_all_files_are_read(corpus: Path, tmp_path: Path) -> None:
    for name in ("data", "reports"):
        shutil.copytree(corpus / name, tmp_path / name)
    wanted = "http://site.example/keeper.html"
    with_index = life(tmp_path, wanted)
    part = tmp_path / "data/clean/part-site-0-00000.parquet"
    pl.read_parquet(part).reverse().write_parquet(part)  # its annotations are now another document's
    for stage in ("measure", "perplexity", "dedup", "filter", "split"):
        beside = tmp_path / "data" / stage / part.name
        pl.read_parquet(beside).reverse().write_parquet(beside)
    again = life(tmp_path, wanted)
    assert (again.verdict, again.checks, again.cleaned) == (with_index.verdict, with_index.checks, with_index.cleaned)
    shutil.rmtree(tmp_path / "data/report/index")
    with pytest.raises(UserError, match="dvc repro report"):
        find_url(tmp_path / "data", wanted)
    assert life(tmp_path, wanted).checks == with_index.checks
    assert life(tmp_path, with_index.id[:9]).id == with_index.id


def test_personal_data_from_before_cleaning_is_masked(corpus: Path) -> None:
    text = "".join(why(corpus / "data", "http://rows.example/short", True, 120))
    assert "keeper@example.com" not in text
    assert "<EMAIL>" in text


def test_hostile_text_moves_no_cursor(corpus: Path) -> None:
    text = "\n".join(why(corpus / "data", "http://rows.example/hostile", False, 200))
    assert "\x1b" not in text
    assert "[red]red[/red]" in text
    assert HOSTILE.split(" \x1b")[0] in " ".join(text.split())


def test_what_is_nowhere_is_said_in_a_sentence(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for wanted in ("decade", "0" * 32, "http://nowhere.example/", "no such words anywhere"):
        assert main(["why", wanted, "--data", str(corpus / "data")]) == 2
        assert wanted in capsys.readouterr().err
    assert main(["why", "x", "--data", "nowhere"]) == 2
    assert "`dvc repro` builds them" in capsys.readouterr().err


def test_as_json_there_is_an_object_on_each_line(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why", "lighthouse", "keeper", "--json", "--data", str(corpus / "data")]) == 0
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(objects) == 3
    assert all(len(one["id"]) == len(document_id("x")) and one["steps"] for one in objects)


def test_the_other_questions_on_the_command_line(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(corpus)
    assert main(["sample", "--dropped", "--reason", "dedup", "-n", "1", "--json"]) == 0
    (drawn,) = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert drawn["reasons"][0].startswith("dedup.")
    assert main(["sample", "--near", "-n", "2"]) == 0
    assert capsys.readouterr().out.count("filter dropped") == 2
    assert main(["stats", "data/clean", "--json"]) == 0
    (counted,) = json.loads(capsys.readouterr().out)
    assert counted
    assert main(["diff", ".", "workspace"]) == 0
    assert "the same" in capsys.readouterr().out
    for words in (["sample", "-n", "0"], ["sample", "--kept", "--dropped"], ["stats", "nowhere"], ["diff", "nowhere"]):
        try:
            assert main(words) == 2
        except SystemExit as refused:  # argparse's own refusals
            assert refused.code == 2
        assert "error: " in capsys.readouterr().err
