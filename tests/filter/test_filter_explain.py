"""`--explain`: what it says of kept, dropped and duplicate documents agrees with the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from filter_project import ROWS, run_filter, write_profile, write_project

from corpus.cli import main
from corpus.errors import UserError
from corpus.filter import stage
from corpus.filter.explain import explain_documents, explanations, render
from corpus.filter.table import columns_of
from corpus.params import Params
from corpus.stage import Run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explain")
    words = [5 if number == 3 else 100 + number % 10 for number in range(ROWS)]
    noise = [0.9 if number == 3 else 0.0 for number in range(ROWS)]
    write_project(folder, n_words=words, noise_ratio=noise, curly=[number % 2 == 0 for number in range(ROWS)])
    return folder


def run_of(data: Path, **params: Any) -> Run:
    inputs = tuple(data / folder for folder in stage.READS)
    return Run("filter", Params.model_validate({"filter": params}), inputs, data / "nowhere", data=data, reports=None)


BOUNDS = {"en": {"ppl": {"max_score": 1.5}, "mattr": {"min_z": -1}, "hash_ratio": {"max_score": 3}}}


def test_every_document_is_explained_as_the_run_decides(data: Path) -> None:
    run = run_of(data, bounds=BOUNDS)
    result, metrics = run_filter(data, *run.inputs, bounds=BOUNDS)
    some = result[[3, *range(0, ROWS, 11)]]
    for one, row in zip(explanations(run, some["id"].to_list()), some.iter_rows(named=True), strict=True):
        assert one.id == row["id"]
        assert one.judged == (row["kept"] is not None)
        if one.judged:
            assert [f"filter.{check.signal}.{check.side}" for check in one.failed] == row["reasons"]
            assert [check.margin for check in one.failed] == row["margins"]
        bounds = metrics["bounds"][one.lang]
        with_bound = [check for check in one.checks if check.bound is not None]
        assert [f"{check.signal}.{check.side}" for check in with_bound] == list(bounds)
        for check in with_bound:
            facts = bounds[f"{check.signal}.{check.side}"]
            assert (check.bound, check.origin, check.why) == (facts["bound"], facts["from"], facts["why"])


def test_a_dropped_document(data: Path) -> None:
    rules: dict[str, dict[str, Any]] = {
        "mean_word_length": {"min": 0},
        "n_words": {"min": 20, "why": "set below the shortest page of a long book, which has more words than this one"},
        "ppl": {"max_percentile": 99},
        "noise_ratio": {"max": 0.2},
    }
    run = run_of(data, profile=write_profile(data / "own.yaml", rules))
    identity = pl.read_parquet(data / "clean" / "*.parquet")["id"][3]
    text = explain_documents(run, [identity[:8]], 110)
    lines = text.splitlines()
    assert lines[0] == f"document  {identity}"
    assert "url       http://made.local/3" in lines and "text      nobody reads this" in lines
    assert "Dropped: it fails 2 of 4 bounds." in text
    shown = [line.split()[:2] for line in lines if line.startswith(("FAIL", "ok"))]
    assert shown == [["FAIL", "n_words"], ["FAIL", "noise_ratio"], ["ok", "mean_word_length"], ["ok", "ppl"]]
    assert ["FAIL", "n_words", "5", "min", "20"] in [line.split()[:5] for line in lines]
    assert "      set below the shortest page of a long book" in text
    assert "percentile 99 of the corpus" in text
    assert ["curly", "0"] in [line.split()[:2] for line in lines]
    assert not any(line.split()[0] == "batch" for line in lines if line)
    assert max(map(columns_of, lines)) <= 110
    assert not (data / "nowhere").exists()


def test_a_duplicate_and_several_at_once(data: Path) -> None:
    ids = pl.read_parquet(data / "clean" / "*.parquet")["id"]
    one, two = explanations(run_of(data), [ids[0][:10], ids[7]])
    assert "Kept: it is within all" in render(one, 100)
    said = " ".join(render(two, 200).split())
    assert f"Dropped before the filter (dedup.near): a duplicate of {ids[0]}, similarity 0.5." in said
    assert "The filter did not judge it; it would have kept it." in said
    both = explain_documents(run_of(data), [ids[0], ids[7]])
    assert both.index(ids[0]) < both.rindex(f"document  {ids[7]}")


def test_signals_that_nobody_could_measure_pass(data: Path) -> None:
    ids = pl.read_parquet(data / "clean" / "*.parquet").filter(pl.col("lang") == "zh-Hant")["id"]
    (one,) = explanations(run_of(data, bounds={"zh-Hant": {"ppl": {"max_percentile": 99}}}), [ids[0]])
    ppl = next(check for check in one.checks if check.signal == "ppl")
    assert (ppl.value, ppl.bound, ppl.origin, ppl.failed) == (None, None, "nothing to take it from", False)
    assert ["–", "ppl", "–", "max", "–"] in [line.split()[:5] for line in render(one, 120).splitlines()]


def test_a_document_of_a_language_that_is_gone(tmp_path: Path) -> None:
    inputs = write_project(tmp_path, lang=["zh-Hant" if number == 7 else "en" for number in range(ROWS)])
    ids = pl.read_parquet(inputs[0] / "*.parquet")["id"]
    said = explain_documents(run_of(tmp_path), [ids[7]])
    assert "Dropped before the filter (dedup.near)" in said and "among 0 documents in zh-Hant" in said
    with pytest.raises(UserError, match="no input has a signal `pppl`: did you mean ppl"):
        explain_documents(run_of(tmp_path, bounds={"zh-Hant": {"pppl": {"max": 3}}}), [ids[7]])
    with pytest.raises(UserError, match=f"{ids[7]} is in zh-Hant: filter.profile has no profile for it, only for en"):
        explain_documents(run_of(tmp_path, profile={"en": "en"}), [ids[7]])


def test_ids_that_do_not_exist(data: Path) -> None:
    ids = pl.read_parquet(data / "clean" / "*.parquet")["id"]
    wrong = ids[20][:20] + "zzz"
    with pytest.raises(UserError, match=f"no document has this id: the nearest is {ids[20]}"):
        explain_documents(run_of(data), [wrong])
    with pytest.raises(UserError, match=r"no document has this id: ids are the column `id` of .*clean"):
        explain_documents(run_of(data), ["zzz"])
    several = next(one[:1] for one in ids if ids.str.starts_with(one[:1]).sum() > 1)
    with pytest.raises(UserError, match=rf"--explain {several}: .* begin so: say more of it"):
        explain_documents(run_of(data), [several])


def test_what_clean_dropped(tmp_path: Path) -> None:
    inputs = write_project(tmp_path)
    dropped = {"id": ["feedbeef"], "reason": ["clean.language"], "detail": ["fr"]}
    pl.DataFrame(dropped).write_parquet(inputs[0] / "dropped-made-0-00000.parquet")
    with pytest.raises(UserError, match=r"feedbeef was dropped before, as clean\.language \(fr\): it has no signals"):
        explain_documents(run_of(tmp_path), ["feedb"])


def test_in_the_graph_s_folders(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data)
    for name in stage.READS:
        Path("data").mkdir(exist_ok=True)
        Path("data", name).symlink_to(data / name)
    Path("params.yaml").write_text("filter: {bounds: {en: {ppl: {max: 1}}}}\n")
    ids = pl.read_parquet(data / "clean" / "*.parquet")["id"]
    assert main(["filter", "--explain", ids[0], ids[1]]) == 0
    said = capsys.readouterr().out
    assert said.count("document  ") == 2 and "max 1 " in said
    assert main(["filter", "--explain", "zzz"]) == 2
    assert capsys.readouterr().err.startswith("error: --explain zzz")
