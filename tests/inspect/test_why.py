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
from corpus.inspect import find
from corpus.inspect.find import lives
from corpus.inspect.life import MOST_RELATIVES, Life
from corpus.inspect.why import why
from corpus.params import Params
from corpus.report.index import BUCKETS, build_index, find_id, find_url, read_row, scan
from corpus.stage import Run


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = build(tmp_path_factory.mktemp("corpus"))
    (one, *_) = lives(folder / "data", "http://rows.example/again")
    write_pack(folder, [[one.id], ["f" * 32, one.id]], "aa")
    write_trained(folder, [(1, 3), (1, 9)], best_step=9)
    index_again(folder)
    return folder


def write_pack(folder: Path, document_ids: list[list[str]], fingerprint: str) -> None:
    packed = pa.table({"document_ids": document_ids, "input_ids": [[row] for row in range(len(document_ids))]})
    (folder / "data/pack/train").mkdir(parents=True, exist_ok=True)
    with pa.ipc.new_stream(str(folder / "data/pack/train/data.arrow"), packed.schema) as stream:
        stream.write_table(packed)
    (folder / "data/pack/train/state.json").write_text(json.dumps({"_fingerprint": fingerprint}))


def write_trained(folder: Path, rows: list[tuple[int, int]], best_step: int) -> None:
    (folder / "data/finetune").mkdir(exist_ok=True)
    frame = pl.DataFrame(rows, ["row", "step"], orient="row")
    frame = frame.with_columns(pack=pl.lit("train"), fingerprint=pl.lit("aa"), best_step=best_step)
    frame.write_parquet(folder / "data/finetune/rows.parquet")


@pytest.fixture
def copy(corpus: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    for name in ("data", "reports"):
        shutil.copytree(corpus / name, tmp_path / name)
    return tmp_path


def index_again(folder: Path) -> None:
    shutil.rmtree(folder / "data/report/index", ignore_errors=True)
    (folder / "data/report").mkdir(exist_ok=True)
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
    expected, everything = rows_by_id(data), scan(data, pl.Expr.is_not_null)
    assert len(expected) > 70
    for identity, rows in expected.items():
        places = find_id(data, identity)
        assert {(place.file, place.row) for place in places if place.kind == "id"} == rows
        assert [place for place in places if place.kind != "url"] == everything[identity]
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


def test_without_an_index_or_with_an_old_one_all_files_are_read(copy: Path) -> None:
    wanted = "http://site.example/keeper.html"
    with_index = life(copy, wanted)
    part = copy / "data/clean/part-site-0-00000.parquet"
    pl.read_parquet(part).reverse().write_parquet(part)  # its annotations are now another document's
    for stage in ("measure", "perplexity", "dedup", "filter", "split"):
        beside = copy / "data" / stage / part.name
        pl.read_parquet(beside).reverse().write_parquet(beside)
    again = life(copy, wanted)
    assert (again.verdict, again.checks, again.cleaned) == (with_index.verdict, with_index.checks, with_index.cleaned)
    shutil.rmtree(copy / "data/report/index")
    with pytest.raises(UserError, match="dvc repro report"):
        find_url(copy / "data", wanted)
    assert life(copy, wanted).checks == with_index.checks
    assert life(copy, with_index.id[:9]).id == life(copy, with_index.id.upper()).id == with_index.id


@pytest.mark.parametrize("broken", ["{", "[]", "{}", "7", "\x00"])
def test_a_broken_index_is_as_none(copy: Path, broken: str) -> None:
    before = life(copy, "http://rows.example/again")
    (copy / "data/report/index/files.json").write_text(broken)
    assert life(copy, "http://rows.example/again").steps == before.steps


def test_what_shard_and_pack_left_out_was_dropped_by_them(copy: Path) -> None:
    one = life(copy, "http://rows.example/again")
    left_out = {"id": [one.id], "pack": ["control"], "reason": ["pack.no_answer"], "detail": ["no label"]}
    pl.DataFrame(left_out).write_parquet(copy / "data/pack/dropped.parquet")
    index_again(copy)
    assert life(copy, one.id).verdict == one.verdict  # the control is no part of the corpus
    write_pack(copy, [["f" * 32]], "aa")
    pl.DataFrame(left_out | {"pack": ["train"]}).write_parquet(copy / "data/pack/dropped.parquet")
    for index in (True, False):
        dropped = life(copy, one.id)
        assert dropped.verdict.startswith("Dropped by pack: pack.no_answer (nothing in it")
        assert dropped.verdict.endswith("it is in the train split of the corpus.")
        (step,) = [step for step in dropped.steps if step.stage == "pack"]
        assert (step.outcome, step.facts) == ("dropped", {"pack": "train", "detail": "no label"})
        if index:
            index_again(copy)
    part = next((copy / "data/shard/train").glob("*.parquet"))
    held = pl.read_parquet(part)
    held.filter(~pl.col("document_ids").list.contains(one.id)).write_parquet(part)
    balanced = {"id": [one.id], "reason": ["shard.balance"]}
    pl.DataFrame(balanced).write_parquet(copy / "data/shard/dropped-balance.parquet")
    index_again(copy)
    dropped = life(copy, one.id)
    assert dropped.verdict.startswith("Dropped by shard: shard.balance (")
    lines = "\n".join(why(copy / "data", one.id, False, 200)).splitlines()
    assert any(line.startswith("shard") and "dropped" in line for line in lines)


def test_a_pack_that_was_rebuilt_tells_no_steps_of_the_one_before(copy: Path) -> None:
    one = life(copy, "http://rows.example/again")
    size = (copy / "data/pack/train/data.arrow").stat().st_size
    write_pack(copy, [["f" * 32, one.id], [one.id]], "bb")
    assert (copy / "data/pack/train/data.arrow").stat().st_size == size  # so that the index cannot tell
    again = life(copy, one.id)
    assert [step.stage for step in again.steps][-1] == "pack"
    assert again.verdict == "Kept: it is in the train split of the corpus."
    assert again.notes == [
        "finetune/rows.parquet is not of the pack train as it is now, steps are left out: `dvc repro finetune`"
    ]
    assert again.notes[0] in " ".join(" ".join(why(copy / "data", one.id, False, 200)).split())
    write_pack(copy, [["f" * 32], [one.id]], "aa")  # the first row of the two, says the index, and that is no more
    (step,) = [step for step in life(copy, one.id).steps if step.stage == "pack"]
    assert step.facts["rows"] == [1]
    pl.DataFrame({"pack": ["train"], "row": [1], "step": [1]}).write_parquet(copy / "data/finetune/rows.parquet")
    assert "dvc repro finetune" in life(copy, one.id).notes[0]


def test_steps_after_the_best_are_not_in_the_adapter(copy: Path) -> None:
    write_trained(copy, [(0, 1), (1, 3), (1, 9)], best_step=5)
    one = life(copy, "http://rows.example/again")
    assert one.verdict == "Kept, and trained on in steps 1, 3."
    facts = one.steps[-1].facts
    assert (facts["steps"], facts["later_steps"], facts["best_step"]) == ([1, 3], [9], 5)
    write_trained(copy, [(1, 9)], best_step=5)
    one = life(copy, "http://rows.example/again")
    assert one.verdict == "Kept, and trained on in steps 9, but the adapter is that of step 5, the best one."


def test_annotations_of_other_documents_are_named_and_the_others_told(copy: Path) -> None:
    one = life(copy, "http://site.example/keeper.html")
    part = "part-site-0-00000.parquet"
    pl.read_parquet(copy / "data/filter" / part).reverse().write_parquet(copy / "data/filter" / part)
    pl.read_parquet(copy / "data/measure" / part).head(1).write_parquet(copy / "data/measure" / part)
    (copy / "data/perplexity" / part).write_bytes(b"no parquet")
    for stage in ("dedup", "clean"):  # one after the other: with clean, no annotation fits
        again = life(copy, one.id)
        outdated = {step.stage: step.facts["note"] for step in again.steps if step.outcome == "outdated"}
        assert {"filter", "measure", "perplexity"} <= outdated.keys()
        assert outdated["filter"] == "not of these documents: `dvc repro filter`"
        assert "dvc repro filter" in "".join(why(copy / "data", one.id, False, 200))
        assert outcomes(again)["split"] == "not judged" or stage == "clean"
        path = copy / "data" / stage / part
        pl.read_parquet(path).reverse().write_parquet(path)
    (copy / "data/clean" / part).unlink()
    assert outcomes(life(copy, one.id)) == {"scrape": "kept"}
    assert life(copy, "http://rows.example/again").relatives[0].relation == "copy"  # of which the text is gone


@pytest.mark.parametrize("identity", ["abcdef12", "zz" * 16, "a page", "12345678901234567", "ABCDEF", "é", "http://x/"])
def test_ids_that_are_not_ours_are_found(tmp_path: Path, identity: str) -> None:
    rows = {"id": [identity, "other"], "text": ["a text of it", "another"], "source": ["a", "a"]}
    (tmp_path / "data/clean").mkdir(parents=True)
    pl.DataFrame(rows).write_parquet(tmp_path / "data/clean/part-a-0-00000.parquet")
    assert life(tmp_path, identity).id == identity
    index_again(tmp_path)
    assert life(tmp_path, identity).id == identity
    assert [one.id for one in lives(tmp_path / "data", "another")] == ["other"]
    for nothing in ("zzzzzz", "abcdef" * 5, "g" * 32, "0x1234"):
        with pytest.raises(UserError, match="no document has the id"):
            life(tmp_path, nothing)


@pytest.mark.parametrize("broken", ["{", "[]", "{}", '{"rows": 3}', None, "3", '{"bounds": []}'])
def test_without_bounds_a_life_is_told_all_the_same(copy: Path, broken: str | None) -> None:
    path = copy / "reports/filter.json"
    if broken is None:
        report = json.loads(path.read_text())
        broken = json.dumps({"rows": report["rows"]})
    path.write_text(broken)
    one = life(copy, "http://rows.example/short")
    assert one.checks == []
    assert one.verdict.startswith("Dropped by filter")
    assert [("reports/filter.json" in note) for note in one.notes] == [True] * ("rows" not in broken or "3" in broken)


def test_bounds_are_beside_the_data_however_its_folder_is_named(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy / "data")
    (one,) = lives(Path(), "http://rows.example/short")
    assert one.checks


def test_of_many_copies_a_few_are_told(tmp_path: Path) -> None:
    ids = [document_id(str(number)) for number in range(300)]
    texts = {"id": ids, "text": ["the same"] * 300, "source": ["a"] * 300}
    dedup = {"id": ids, "kept": [True] + [False] * 299, "reasons": [[], *[["dedup.exact"]] * 299]}
    dedup |= {"duplicate_of": [None, *ids[:1] * 299], "similarity": [None, *[1.0] * 299]}
    for stage, columns in (("clean", texts), ("dedup", dedup)):
        (tmp_path / "data" / stage).mkdir(parents=True)
        pl.DataFrame(columns).write_parquet(tmp_path / "data" / stage / "part-a-0-00000.parquet")
    index_again(tmp_path)
    one = life(tmp_path, ids[0])
    assert len(one.relatives) == MOST_RELATIVES
    assert one.notes == [f"{299 - MOST_RELATIVES} more relatives: copy"]


def test_lives_are_told_as_they_are_found(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(find, "life_of", lambda data, identity, *_: told.append(identity))
    first = lives(copy / "data", "e")
    next(first)
    assert len(told) == 1
    shutil.rmtree(copy / "data/report/index")
    scans: list[int] = []
    real = find.scan
    monkeypatch.setattr(find, "scan", lambda *words: [scans.append(1), real(*words)][1])
    assert len([*lives(copy / "data", "的")]) > find.AT_ONCE
    assert len(scans) < 10  # not one for each document


def test_numbers_that_json_does_not_know_are_null(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = life(copy, "http://rows.example/again")
    part = copy / "data/measure/part-rows-0-00000.parquet"
    pl.read_parquet(part).with_columns(mattr=pl.lit(float("nan"))).write_parquet(part)
    assert main(["why", one.id, "--json", "--data", str(copy / "data")]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert {check["value"] for check in found["checks"] if check["signal"] == "mattr"} <= {None}


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
