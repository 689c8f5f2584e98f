"""The stage on annotations as the stages before write them."""

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from filter_project import LANGUAGES, ROWS, run_filter, write_profile, write_project

from corpus.errors import StageError, UserError
from corpus.filter import stage
from corpus.filter.bounds import corpus_percentile, robust_spread
from corpus.filter.profile import load_profile, rules_of, sides_of
from corpus.params import Params
from corpus.stage import Run, execute
from corpus.text.ngram_lm import COLUMNS


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filter")
    (folder / "reference" / "model").mkdir(parents=True)
    quantiles = {"ppl": [float(number) for number in range(1, 100)]}
    facts = json.dumps({"quantiles": quantiles, "fingerprint": "x"})
    (folder / "reference" / "model" / "en.json").write_text(facts)
    words, diversity = (
        [100 + number % 10 for number in range(ROWS)],
        [0.7 + number % 17 / 100 for number in range(ROWS)],
    )
    write_project(folder, n_words=words, mattr=diversity)
    return folder


@pytest.fixture(scope="module")
def inputs(data: Path) -> tuple[Path, ...]:
    return tuple(data / folder for folder in stage.READS)


def everything(inputs: tuple[Path, ...]) -> pl.DataFrame:
    frames = [pl.read_parquet(folder / "*.parquet") for folder in inputs]
    return pl.concat([frames[0], *(frame.drop("id") for frame in frames[1:])], how="horizontal")


def changed(before: pl.DataFrame, after: pl.DataFrame) -> set[str]:
    return set(before["id"].filter(before["kept"].ne_missing(after["kept"])))


def test_good_documents_stay_and_what_dedup_dropped_is_not_judged(data: Path, inputs: tuple[Path, ...]) -> None:
    result, metrics = run_filter(data, *inputs)
    assert result["kept"].to_list() == [None if number % 8 == 7 else True for number in range(ROWS)]
    assert result["reasons"].list.len().sum() == result["margins"].list.len().sum() == 0
    assert metrics["rows"] == {"in": 210, "generated": 0, "kept": 210, "dropped": 0}
    assert metrics["languages"] == {language: {"in": 70, "dropped": 0} for language in LANGUAGES}


def test_all_failed_rules_are_listed_with_margins(tmp_path: Path) -> None:
    words = [100 + number % 10 for number in range(ROWS)]
    words[3], words[5] = 5, 19
    noise = [0.9 if number == 3 else 0.0 for number in range(ROWS)]
    inputs = write_project(tmp_path, n_words=words, noise_ratio=noise)
    profile = write_profile(tmp_path / "own.yaml", {"n_words": {"min": 20}, "noise_ratio": {"max": 0.2}})
    result, metrics = run_filter(tmp_path, *inputs, profile=profile)
    row = result.row(3, named=True)
    judged = [word for number, word in enumerate(words) if number % 3 == 0 and number % 8 != 7]
    spread = 1.4826 * float(np.median(np.abs(np.array(judged) - np.median(judged))))
    assert row["kept"] is False
    assert row["reasons"] == ["filter.n_words.min", "filter.noise_ratio.max"]
    assert row["margins"] == [pytest.approx((5 - 20) / spread), None]  # nearly all noise is 0: it has no spread
    assert result.row(5, named=True)["reasons"] == ["filter.n_words.min"]
    assert metrics["dropped_by_reason"] == {"filter.n_words.min": 2}
    assert metrics["failed_rules"] == {"filter.n_words.min": 2, "filter.noise_ratio.max": 1}
    assert metrics["languages"]["zh-Hant"] == {"in": 70, "dropped": 1}


def test_a_bound_changes_the_rows_it_should_and_no_other(data: Path, inputs: tuple[Path, ...]) -> None:
    before, _ = run_filter(data, *inputs)
    after, metrics = run_filter(data, *inputs, bounds={"en": {"n_words": {"min": 105}}})
    short = everything(inputs).filter((pl.col("lang") == "en") & pl.col("kept") & (pl.col("n_words") < 105))
    assert changed(before, after) == set(short["id"])
    assert 0 < short.height < 70
    assert metrics["bounds"]["en"]["n_words.min"]["bound"] == 105
    profile = rules_of(load_profile("zh-Hans", "zh-Hans"))
    assert metrics["bounds"]["zh-Hans"]["n_words.min"]["bound"] == profile["n_words"].min


def test_null_switches_a_bound_off(tmp_path: Path) -> None:
    inputs = write_project(tmp_path, n_words=[1] * ROWS)
    off = {language: {"n_words": {"min": None}} for language in LANGUAGES}
    gone = {language: {"n_words": None} for language in LANGUAGES}
    assert run_filter(tmp_path, *inputs)[1]["rows"]["kept"] == 0
    assert run_filter(tmp_path, *inputs, bounds=off)[1]["rows"]["dropped"] == 0
    assert run_filter(tmp_path, *inputs, bounds=gone)[1]["rows"]["dropped"] == 0


def test_percentile_of_the_corpus_is_of_the_documents_judged(data: Path, inputs: tuple[Path, ...]) -> None:
    result, metrics = run_filter(data, *inputs, bounds={"en": {"ppl": {"max_percentile": 80, "min_percentile": 10}}})
    joined = everything(inputs).filter((pl.col("lang") == "en") & pl.col("kept"))
    ordered = sorted(joined["ppl"])
    bounds = metrics["bounds"]["en"]
    assert bounds["ppl.max"]["from"] == "percentile 80 of the corpus"
    assert bounds["ppl.max"]["bound"] == ordered[56]  # the 70 values have indices 0 to 69; 55.2 is rounded up
    assert bounds["ppl.min"]["bound"] == ordered[6]
    dropped = set(result.filter(~pl.col("kept"))["id"])
    assert dropped == set(joined.filter((pl.col("ppl") > ordered[56]) | (pl.col("ppl") < ordered[6]))["id"])


def test_percentile_of_the_reference(data: Path, inputs: tuple[Path, ...]) -> None:
    bounds = {language: {"ppl": {"max_percentile": 60.5, "of": "reference"}} for language in LANGUAGES}
    result, metrics = run_filter(data, *inputs, bounds=bounds)
    above = everything(inputs).filter((pl.col("lang") == "en") & pl.col("kept") & (pl.col("ppl") > 60.5))
    assert set(result.filter(~pl.col("kept"))["id"]) == set(above["id"])
    assert metrics["bounds"]["en"]["ppl.max"]["bound"] == 60.5
    assert "ppl.max" not in metrics["bounds"]["zh-Hans"]  # it has no reference model


def test_signals_without_a_model_pass(data: Path, inputs: tuple[Path, ...]) -> None:
    result, _ = run_filter(data, *inputs, bounds={language: {"ppl": {"max": 0}} for language in LANGUAGES})
    joined = everything(inputs).with_columns(decided=result["kept"]).filter("kept")
    assert set(joined.filter(pl.col("decided"))["lang"]) == {"zh-Hant"}


def test_workers_change_no_byte(data: Path, inputs: tuple[Path, ...], tmp_path: Path) -> None:
    bounds = {"en": {"ppl": {"max_percentile": 80}}, "zh-Hans": {"n_words": {"min": 104}}}
    run_filter(data, *inputs, bounds=bounds)
    one = {path.name: path.read_bytes() for path in sorted((data / "out").iterdir())}
    run = Run("filter", Params.model_validate({"filter": {"bounds": bounds}}), inputs, tmp_path / "out", data=data)
    execute(stage, Run(**{**vars(run), "reports": None, "home": tmp_path / "home", "workers": 2}))
    assert {path.name: path.read_bytes() for path in sorted((tmp_path / "out").iterdir())} == one


def test_bounds_and_where_they_come_from_are_in_the_metrics(data: Path, inputs: tuple[Path, ...]) -> None:
    _, metrics = run_filter(data, *inputs, bounds={"en": {"mattr": {"min": 0.2}}})
    facts = metrics["bounds"]["en"]
    rules = rules_of(load_profile("en", "en"))
    assert list(facts) == [f"{signal}.{side}" for signal, rule in rules.items() for side in sides_of(rule)]
    assert facts["n_words.min"]["why"] == rules["n_words"].why
    assert facts["mattr.min"]["why"] == "set in params: filter.bounds"
    assert facts["mattr.min"]["from"] == "absolute"
    assert facts["mattr.min"]["spread"] > 0


def test_a_column_of_languages_is_not_needed_for_one(tmp_path: Path) -> None:
    inputs = write_project(tmp_path)
    plain = tmp_path / "plain.parquet"
    frame = everything(inputs).drop("lang", "kept", "text")
    frame.write_parquet(plain)
    result, _ = run_filter(tmp_path, plain, profile={"en": "en"})
    assert result["kept"].to_list().count(True) >= ROWS - 2
    with pytest.raises(UserError, match="has no column `lang`"):
        run_filter(tmp_path, plain)


def test_a_document_dropped_before_has_no_say_in_percentiles(tmp_path: Path) -> None:
    ppl = [1e9 if number % 8 == 7 else 10.0 + number for number in range(ROWS)]
    bounds = {language: {"ppl": {"max_percentile": 99}} for language in LANGUAGES}
    _, metrics = run_filter(tmp_path, *write_project(tmp_path, ppl=ppl), bounds=bounds)
    assert all(own["ppl.max"]["bound"] < 300 for own in metrics["bounds"].values())


# ---- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"bounds": {"en": {"n_word": {"min": 5}}}}, "did you mean n_words"),
        ({"bounds": {"fr": {"n_words": {"min": 5}}}}, "filter.bounds.fr: filter.profile has no profile"),
        ({"profile": {"en": "eng"}}, "did you mean en"),
        ({"profile": {"en": "en", "zh-Hans": "zh-Hans"}}, "filter.profile.zh-Hant is missing"),
        (
            {"bounds": {"en": {"ppl": {"max_percentile": 99.5, "of": "reference"}}}},
            "filter.bounds.en.ppl.max_percentile: percentiles of the reference go from 1 to 99, not 99.5",
        ),
    ],
)
def test_mistakes_are_named(data: Path, inputs: tuple[Path, ...], params: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        run_filter(data, *inputs, **params)
    assert message in str(error.value)


def test_a_missing_reference_is_named(tmp_path: Path) -> None:
    inputs = write_project(tmp_path)
    with pytest.raises(UserError, match=r"filter\.bounds\.en\.ppl is a percentile of the reference"):
        run_filter(tmp_path, *inputs, bounds={"en": {"ppl": {"max_percentile": 90, "of": "reference"}}})


def test_documents_without_a_language_are_named(tmp_path: Path) -> None:
    inputs = write_project(tmp_path, lang=[None, *["en"] * (ROWS - 1)])
    with pytest.raises(UserError, match="documents without `lang`"):
        run_filter(tmp_path, *inputs)


def test_missing_signals_are_named(data: Path, inputs: tuple[Path, ...]) -> None:
    with pytest.raises(UserError, match=rf"no input has a signal `({'|'.join(COLUMNS)})`.*add the annotation"):
        run_filter(data, inputs[0], inputs[1], inputs[3])


def test_a_truncated_annotation_is_refused(tmp_path: Path) -> None:
    inputs = write_project(tmp_path)
    part = inputs[1] / "part-made-0-00001.parquet"
    part.write_bytes(part.read_bytes()[:-50])
    with pytest.raises(UserError, match="is not a whole Parquet file"):
        run_filter(tmp_path, *inputs)


# ---- statistics ------------------------------------------------------------------------------------------------------


def test_percentiles_leave_no_more_outside_than_they_say() -> None:
    generator = random.Random(1)
    for size in (1, 2, 7, 99, 100, 101, 250):
        values = pl.Series([generator.random() for _ in range(size)])
        for percentile in (0, 1, 5, 50, 95, 99, 100):
            upper = corpus_percentile(values, percentile, "max")
            lower = corpus_percentile(values, percentile, "min")
            assert (values > upper).sum() <= size * (100 - percentile) / 100
            assert (values < lower).sum() <= size * percentile / 100


def test_what_has_no_values_has_no_bound_and_no_spread() -> None:
    nothing = pl.Series([], dtype=pl.Float64)
    assert corpus_percentile(nothing, 99, "max") is None
    assert robust_spread(nothing) is None


def test_golden(data: Path, inputs: tuple[Path, ...], tmp_path: Path) -> None:
    bounds = {"en": {"n_words": {"min": 104}, "mattr": {"max": 0.82}}, "zh-Hans": {"n_words": {"max_percentile": 90}}}
    result, _ = run_filter(data, *inputs, bounds=bounds, profile=write_profile(tmp_path / "own.yaml", {}))
    digest = hashlib.blake2b(json.dumps(result.rows()).encode(), digest_size=8).hexdigest()
    assert (stage.VERSION, digest) == (2, "081667942045ebe2"), "filter's output changed: if on purpose, raise VERSION"


# ---- how words were cut ----------------------------------------------------------------------------------------------


def test_a_profile_refuses_words_cut_otherwise(tmp_path: Path) -> None:
    chinese = dict.fromkeys(LANGUAGES, "fineweb2-zh")
    cut = ["words" if number % 3 == 0 else "characters" for number in range(ROWS)]
    inputs = write_project(tmp_path / "a", segmenter=cut)
    message = (
        r"filter\.profile\.zh-Hans: .* fineweb2-zh .* by 'jieba', .* by 'characters': set measure\.segmenter=jieba"
    )
    with pytest.raises(UserError, match=message):
        run_filter(tmp_path / "a", *inputs, profile={**chinese, "en": "en"})
    by_jieba = ["words" if number % 3 == 0 else "jieba" for number in range(ROWS)]
    inputs = write_project(tmp_path / "b", segmenter=by_jieba)
    _, metrics = run_filter(tmp_path / "b", *inputs, profile={**chinese, "en": "en"})
    assert metrics["rows"] == {"in": 210, "generated": 0, "kept": 210, "dropped": 0}
    # Only documents still kept count, and an annotation that does not say how words were cut is believed.
    gone = ["characters" if number % 8 == 7 else "jieba" for number in range(ROWS)]
    run_filter(tmp_path / "c", *write_project(tmp_path / "c", segmenter=gone), profile=chinese)
    run_filter(tmp_path / "d", *write_project(tmp_path / "d"), profile=chinese)


# ---- types and sizes -------------------------------------------------------------------------------------------------


def test_signals_of_all_types_are_judged_as_numbers(tmp_path: Path) -> None:
    kinds = {"small": pl.Int8, "truth": pl.Boolean, "single": pl.Float32, "large": pl.UInt32}
    values = {"small": [-3, 5], "truth": [True, False], "single": [0.3, 0.25], "large": [7, 9]}
    frame = pl.DataFrame({"id": [1, 2], **values}, {"id": pl.Int64} | kinds)
    frame.write_parquet(tmp_path / "signals.parquet")
    (tmp_path / "mine.yaml").write_text("about: nothing but what params say\n")
    bounds = {"small": {"max": 4.5}, "truth": {"max": 0}, "single": {"max": 0.3}, "large": {"min": 9}}
    profile = {"en": str(tmp_path / "mine.yaml")}
    result, _ = run_filter(tmp_path, tmp_path / "signals.parquet", profile=profile, bounds={"en": bounds})
    # 0.3 in single precision is a little more than 0.3.
    assert result.select("id", "reasons").rows() == [
        ("1", ["filter.truth.max", "filter.single.max", "filter.large.min"]),
        ("2", ["filter.small.max"]),
    ]


def test_equality_keeps(tmp_path: Path) -> None:
    inputs = write_project(tmp_path, mattr=[0.8] * ROWS)
    bounds = {language: {"mattr": {"min": 0.8, "max": 0.8}} for language in LANGUAGES}
    assert run_filter(tmp_path, *inputs, bounds=bounds)[1]["rows"]["dropped"] == 0


def test_parts_of_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [5 if number % 7 == 0 else 100 for number in range(ROWS)]
    inputs = write_project(tmp_path, n_words=words)
    whole, metrics = run_filter(tmp_path, *inputs)
    monkeypatch.setattr(stage, "ROWS_AT_ONCE", 33)
    cut, again = run_filter(tmp_path / "again", *inputs)
    assert cut.equals(whole) and again == metrics
    for folder in inputs:
        frame = pl.read_parquet(folder / "*.parquet")
        frame.head(0).write_parquet(folder / "part-made-0-00002.parquet")
    assert run_filter(tmp_path, *inputs)[0].equals(whole)
    assert pl.read_parquet(tmp_path / "out" / "part-made-0-00002.parquet").schema == whole.schema


def test_the_limit_counts_rows_over_parts(tmp_path: Path) -> None:
    inputs = write_project(tmp_path)
    run = Run(
        "filter", Params(), inputs, tmp_path / "out", data=tmp_path, reports=None, home=tmp_path / "home", limit=160
    )
    metrics = execute(stage, run)
    assert metrics["rows"]["in"] == 140  # of 160 every eighth was dropped before
    assert [pl.read_parquet(path).height for path in sorted((tmp_path / "out").glob("*.parquet"))] == [150, 10]


def test_rows_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    inputs = write_project(tmp_path)
    part = inputs[1] / "part-made-0-00001.parquet"
    whole = pl.read_parquet(part)
    whole.head(40).write_parquet(part)
    with pytest.raises(StageError, match=r"has 40 rows, .* has 90: build it again"):
        run_filter(tmp_path, *inputs)
    whole.reverse().write_parquet(part)
    with pytest.raises(StageError, match="row by row: build it again"):
        run_filter(tmp_path, *inputs)
    whole.drop("id").write_parquet(part)
    with pytest.raises(UserError, match="has no column `id`"):
        run_filter(tmp_path, *inputs)


def test_a_profile_without_rules_keeps_everything(tmp_path: Path) -> None:
    inputs = write_project(tmp_path)
    (tmp_path / "all.yaml").write_text("about: everything\n")
    _, metrics = run_filter(tmp_path, *inputs, profile=dict.fromkeys(LANGUAGES, str(tmp_path / "all.yaml")))
    assert metrics["rows"] == {"in": 210, "generated": 0, "kept": 210, "dropped": 0}
    assert metrics["bounds"] == {"en": {}, "zh-Hans": {}, "zh-Hant": {}}


def test_nothing_left_to_judge_is_said(tmp_path: Path) -> None:
    inputs = write_project(tmp_path)
    for path in inputs[3].glob("*.parquet"):
        pl.read_parquet(path).with_columns(kept=pl.lit(False)).write_parquet(path)
    with pytest.raises(UserError, match="no document to work on"):
        run_filter(tmp_path, *inputs)
