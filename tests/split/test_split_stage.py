"""Similar documents on one side, and old documents where they were."""

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from corpus.dedup import stage as dedup_stage
from corpus.errors import UserError
from corpus.params import Params
from corpus.split import stage
from corpus.stage import Metrics, Run, execute

PARAMS = Params.model_validate({"dedup": {"threshold": 0.9, "edge_threshold": 0.4}})


def make_documents(families: int) -> pl.DataFrame:
    """Families of up to four texts with about a tenth of their words changed: similar, but no duplicates at 0.9."""
    generator = random.Random(8)
    rows = []
    for number in range(families):
        words = [f"w{generator.randrange(5_000)}" for _ in range(100)]
        for member in range(1 + number % 4):
            text = " ".join(word if generator.random() > 0.06 else f"x{number}{member}" for word in words)
            lang = "en" if number % 2 else "zh-Hans"
            rows.append((hashlib.md5(text.encode()).hexdigest(), text, lang))
    return pl.DataFrame(rows, schema=["id", "text", "lang"], orient="row")


def write_project(data: Path, documents: pl.DataFrame, parts: int = 2) -> None:
    """data/clean, data/dedup as built from it, data/filter that drops each tenth kept document."""
    size = -(-documents.height // parts)
    for folder in ("clean", "filter"):
        (data / folder).mkdir(parents=True)
    for number in range(parts):
        documents.slice(number * size, size).write_parquet(data / "clean" / f"part-made-0-{number:05d}.parquet")
    execute(dedup_stage, Run("dedup", PARAMS, (data / "clean",), data / "dedup", reports=None, home=data / "home"))
    for path in sorted((data / "dedup").glob("*.parquet")):
        kept = pl.when(pl.col("kept")).then(pl.col("id").str.slice(0, 1) != "7")
        pl.read_parquet(path).select("id", kept=kept).write_parquet(data / "filter" / path.name)


def split(data: Path, *inputs: Path, **params: Any) -> tuple[pl.DataFrame, Metrics]:
    settings = Params.model_validate({"split": params})
    inputs = inputs or (data / "clean", data / "filter")
    run = Run("split", settings, inputs, data / "split", data=data, reports=None, home=data / "home")
    metrics = execute(stage, run)
    return pl.read_parquet(data / "split" / "*.parquet"), metrics


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("split")
    write_project(folder, make_documents(80))
    return folder


def test_no_edge_joins_two_splits(data: Path) -> None:
    result, metrics = split(data)
    side = {row["id"]: row["split"] for row in result.filter("kept").rows(named=True)}
    edges = pl.read_parquet(data / "dedup" / "edges" / "*.parquet").rows()
    inside = [(left, right) for left, right, _ in edges if left in side and right in side]
    assert len(inside) > 50
    assert all(side[left] == side[right] for left, right in inside)
    assert set(side.values()) == {"train", "validation", "test"}
    assert metrics["moved_groups"] == 0


def test_what_was_dropped_before_is_not_judged(data: Path) -> None:
    result, metrics = split(data)
    kept = pl.read_parquet(data / "filter" / "*.parquet")["kept"].fill_null(False)
    assert not kept.all()
    assert result["kept"].equals(pl.select(pl.when(kept).then(True)).to_series())
    assert result.filter(~kept)["split"].null_count() == result.filter(~kept)["group"].null_count() == (~kept).sum()
    assert metrics["rows"] == {"in": kept.sum(), "generated": 0, "kept": kept.sum(), "dropped": 0}


def test_a_group_is_named_by_its_smallest_id(data: Path) -> None:
    result, _ = split(data)
    groups = result.filter("kept").group_by("group").agg(pl.col("id").min(), pl.col("split").n_unique())
    assert groups["group"].equals(groups["id"])
    assert groups["split"].to_list() == [1] * groups.height


def test_metrics_count_documents_characters_and_groups(data: Path) -> None:
    result, metrics = split(data)
    joined = result.filter("kept").join(pl.read_parquet(data / "clean" / "*.parquet"), on="id")
    for name, counts in metrics["splits"].items():
        rows = joined.filter(pl.col("split") == name)
        assert counts["documents"] == rows.height
        assert counts["characters"] == rows["text"].str.len_chars().sum()
        assert counts["groups"] == rows["group"].n_unique()
        for key in ("documents", "characters", "groups"):
            assert counts[key] == sum(own[key] for own in counts["languages"].values())
    assert json.loads((data / "split" / "metrics.json").read_text())["splits"] == metrics["splits"]


def test_a_new_document_moves_at_most_its_own_group(data: Path, tmp_path: Path) -> None:
    before, _ = split(data)
    documents = pl.read_parquet(data / "clean" / "*.parquet")
    near = documents["text"][5].replace("w", "v", 20)
    new = pl.DataFrame({"id": ["0" * 32, "8" * 32], "text": [near, "quite another text"], "lang": ["en", "en"]})
    write_project(tmp_path, pl.concat([documents, new]))
    after, _ = split(tmp_path)
    joined = before.join(after, on="id", suffix="_after")
    moved = joined.filter(pl.col("split") != pl.col("split_after"))
    assert set(moved["group_after"]) <= {"0" * 32}
    assert joined.filter(pl.col("group") != pl.col("group_after"))["group"].n_unique() <= 1


def test_order_of_rows_does_not_matter(data: Path, tmp_path: Path) -> None:
    shuffled = pl.read_parquet(data / "clean" / "*.parquet").sample(fraction=1, shuffle=True, seed=2)
    write_project(tmp_path, shuffled, parts=3)
    (before, metrics), (after, metrics_after) = split(data), split(tmp_path)
    assert before.sort("id").equals(after.sort("id"))
    assert metrics == metrics_after


def test_plain_documents_are_grouped_by_equal_text(tmp_path: Path) -> None:
    texts = ["same text", "same  text\n", "other", "third", "fourth", "", ""]
    path = tmp_path / "plain.parquet"
    pl.DataFrame({"id": list("gfedcba"), "text": texts}).write_parquet(path)
    result, metrics = split(tmp_path, path)
    assert dict(result.select("id", "group").rows()) == {one: one for one in "edcba"} | {"g": "f", "f": "f"}
    assert sum(counts["documents"] for counts in metrics["splits"].values()) == 7
    assert all(counts["documents"] for counts in metrics["splits"].values())


def test_edges_come_from_a_folder_given_as_input(data: Path, tmp_path: Path) -> None:
    run = Run(
        "split",
        Params(),
        (data / "clean", data / "dedup", data / "filter"),
        tmp_path / "out",
        data=tmp_path,
        reports=None,
        home=tmp_path / "home",
    )
    execute(stage, run)
    assert pl.read_parquet(tmp_path / "out" / "*.parquet").equals(split(data)[0])


def test_missing_edges_are_named(tmp_path: Path) -> None:
    for folder in ("clean", "filter"):
        (tmp_path / folder).mkdir()
        pl.DataFrame({"id": ["a"], "text": ["x"], "kept": [True]}).write_parquet(tmp_path / folder / "part.parquet")
    with pytest.raises(UserError, match="run `corpus dedup`"):
        split(tmp_path)


def test_golden(data: Path) -> None:
    result, _ = split(data, seed=4)
    digest = hashlib.blake2b(json.dumps(result.rows()).encode(), digest_size=8).hexdigest()
    assert (stage.VERSION, digest) == (1, "d907256f93b10807"), "split's output changed: if on purpose, raise VERSION"
