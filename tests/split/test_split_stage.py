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
    assert metrics["connections"]["similar"] == len(inside)


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
        assert counts["share"] == rows.height / joined.height
        for key in ("documents", "characters", "groups"):
            assert counts[key] == sum(own[key] for own in counts["languages"].values())
    sizes = joined.group_by("group").len()["len"]
    assert metrics["groups"] == {"all": len(sizes), "largest": sizes.max(), "alone": (sizes == 1).sum()}
    assert json.loads((data / "split" / "metrics.json").read_text())["groups"] == metrics["groups"]


def test_a_new_batch_moves_no_document(data: Path, tmp_path: Path) -> None:
    before, _ = split(data)
    documents = pl.read_parquet(data / "clean" / "*.parquet")
    side = dict(before.drop_nulls("split").select("id", "split").rows())
    train, test = (
        documents.filter(pl.col("id").replace_strict(side, default=None) == name) for name in ("train", "test")
    )
    half = [train["text"][0].split(), test["text"][0].split()]
    new = pl.DataFrame(
        {
            "id": ["0" * 32, "1" * 32, "2" * 32],
            "text": [train["text"][1].replace("w", "v", 15), " ".join(half[0] + half[1]), "quite another text"],
            "lang": ["en"] * 3,
            "batch": [1] * 3,
        }
    )
    write_project(tmp_path, pl.concat([documents.with_columns(batch=pl.lit(0, pl.Int64)), new]))
    after, metrics = split(tmp_path)
    joined = before.join(after, on="id", suffix="_after")
    for name in ("kept", "split", "group"):
        assert joined[name].equals(joined[f"{name}_after"], null_equal=True, check_names=False)
    rows = {row["id"]: row for row in after.iter_rows(named=True)}
    assert rows["0" * 32]["split"] == "train" and rows["0" * 32]["group"] == side_group(after, train["id"][1])
    bridge = rows["1" * 32]
    assert (bridge["kept"], bridge["reasons"], bridge["split"]) == (False, ["split.bridge"], None)
    assert "(train)" in bridge["evidence"] and "(test)" in bridge["evidence"]
    assert rows["2" * 32]["kept"]
    assert metrics["dropped_by_reason"] == {"split.bridge": 1}
    assert metrics["rows"]["in"] == metrics["rows"]["kept"] + 1


def side_group(annotation: pl.DataFrame, document: str) -> str:
    return annotation.filter(pl.col("id") == document)["group"].item()


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
    assert (stage.VERSION, digest) == (3, "4f92e0b9e636fbd8"), "split's output changed: if on purpose, raise VERSION"


# ---- what else keeps documents together, and what must not be learned -----------------------------------------------

PLAIN = [" ".join(f"{word}{number}" for word in "abcdefghijklmnopq") for number in range(40)]


def plain(path: Path, **columns: list[Any]) -> Path:
    """Documents that resemble each other in nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame({"id": [f"{n:02d}" for n in range(40)], "text": PLAIN} | columns).write_parquet(path)
    return path


def groups(result: pl.DataFrame) -> dict[str, str]:
    return dict(result.select("id", "group").rows())


def test_parents_and_named_columns_keep_together(tmp_path: Path) -> None:
    path = plain(
        tmp_path / "p.parquet",
        parent_id=[None] * 38 + ["05", "gone"],
        url=[f"https://h{n % 20}.example/{n}" for n in range(40)],
        meta=[json.dumps({"thread": n // 4}) if n < 20 else None for n in range(40)],
    )
    alone, _ = split(tmp_path, path)
    assert groups(alone) == {f"{n:02d}": f"{n:02d}" for n in range(40)} | {"38": "05"}
    by_host, _ = split(tmp_path, path, group_by=["host"])
    assert groups(by_host)["20"] == groups(by_host)["00"] and groups(by_host)["39"] == groups(by_host)["19"]
    by_thread, _ = split(tmp_path, path, group_by=["thread"])
    assert groups(by_thread)["19"] == "16" and groups(by_thread)["21"] == "21"


def test_a_column_that_no_document_has_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"split\.group_by: no document has therad"):
        split(tmp_path, plain(tmp_path / "p.parquet"), group_by=["therad"])


def test_dialogues_that_share_a_question_stay_together(tmp_path: Path) -> None:
    def dialogue(asked: str, answered: str) -> list[dict[str, str]]:
        start = [{"role": "system", "content": "You help."}]
        return [*start, {"role": "user", "content": asked}, {"role": "assistant", "content": answered}]

    messages = [dialogue(f"Question {n}?", "yes") for n in range(40)]
    messages[7] = dialogue("question 3", "Quite another answer.")
    messages[9] = dialogue("Why?", "quite ANOTHER answer")
    result, metrics = split(tmp_path, plain(tmp_path / "p.parquet", messages=messages))
    named = groups(result)
    assert named["07"] == named["09"] == "03" and metrics["groups"] == {"all": 38, "largest": 3, "alone": 37}


def test_what_holds_something_of_a_test_set_is_dropped(tmp_path: Path) -> None:
    """The canary: a row of a pinned set, and some words of another test set, planted into documents."""
    pinned, named = "The quick " + PLAIN[0].replace("0", "x"), "Slowly " + PLAIN[0].replace("0", "y")
    texts = list(PLAIN)
    texts[4] = f"before {pinned} after"
    texts[8] = f"other words {' '.join(named.split()[2:15])} in between"
    texts[9] = f"other words {' '.join(named.split()[2:14])} in between"
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "mine.jsonl").write_text(json.dumps({"id": "first", "text": pinned}) + "\n")
    (tmp_path / "exam.jsonl").write_text(json.dumps({"id": 7, "question": named, "choices": ["a", "b"]}) + "\n")
    exam = {"path": str(tmp_path / "exam.jsonl"), "fields": ["question", "choices"]}
    path = plain(tmp_path / "p.parquet", text=texts)
    result, metrics = split(tmp_path, path, test_sets={"exam": exam})
    dropped = {row["id"]: row for row in result.filter(~pl.col("kept")).iter_rows(named=True)}
    assert {one: row["evidence"] for one, row in dropped.items()} == {"04": "pinned-mine: first", "08": "exam: 7"}
    assert all(row["reasons"] == ["split.contaminated"] and row["split"] is None for row in dropped.values())
    assert metrics["test_sets"] == {"pinned-mine": {"rows": 1, "documents": 1}, "exam": {"rows": 1, "documents": 1}}
    assert metrics["rows"] == {"in": 40, "generated": 0, "kept": 38, "dropped": 2}


def test_one_group_cannot_be_divided(tmp_path: Path) -> None:
    path = plain(tmp_path / "p.parquet", source=["web"] * 40)
    with pytest.raises(UserError, match="all 40 documents are one group"):
        split(tmp_path, path, group_by=["source"])
    assert set(split(tmp_path, path, group_by=["source"], train=1, validation=0, test=0)[0]["split"]) == {"train"}


def test_a_label_that_a_side_lacks_is_named(tmp_path: Path) -> None:
    path = plain(tmp_path / "p.parquet", label=["common"] * 39 + ["rare"])
    _, metrics = split(tmp_path, path)
    shares, said = metrics["notes"]
    assert shares == "train 28 (70.0%), validation 4 (10.0%), test 8 (20.0%) in 40 groups"
    assert "label 'rare' is in no document of" in said and "1 documents in 1 groups" in said


def test_bytes_do_not_depend_on_workers(data: Path, tmp_path: Path) -> None:
    outputs = []
    for workers in (1, 3):
        inputs = (data / "clean", data / "filter")
        home = tmp_path / f"home{workers}"
        output = tmp_path / f"out{workers}"
        execute(stage, Run("split", Params(), inputs, output, data=data, reports=None, home=home, workers=workers))
        outputs.append({path.name: path.read_bytes() for path in sorted(output.glob("*"))})
    assert outputs[0] == outputs[1]


def test_a_group_does_not_fall_apart_with_the_document_that_is_dropped(tmp_path: Path) -> None:
    """The first of a host is contaminated; the others are one group all the same."""
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "mine.jsonl").write_text(json.dumps({"text": PLAIN[0]}) + "\n")
    urls = ["https://a.example/"] * 20 + [f"https://b{n}.example/" for n in range(20)]
    result, _ = split(tmp_path, plain(tmp_path / "p.parquet", url=urls), group_by=["host"])
    assert result["reasons"][0].to_list() == ["split.contaminated"]
    assert set(result["group"][1:20]) == {"01"} and result["split"][1:20].n_unique() == 1


@pytest.mark.parametrize("place", ["messages", "preference"])
def test_what_a_dialogue_says_beside_its_text_is_looked_at(tmp_path: Path, place: str) -> None:
    secret = "The quick " + PLAIN[0].replace("0", "x")
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "mine.jsonl").write_text(json.dumps({"text": secret}) + "\n")
    turns = [{"role": "user", "content": "Well?"}, {"role": "assistant", "content": secret}]
    said: list[Any] = [None] * 40
    said[7] = turns if place == "messages" else {"chosen": turns[:1], "rejected": turns}
    result, _ = split(tmp_path, plain(tmp_path / "p.parquet", **{place: said}))
    assert result.filter(~pl.col("kept"))["id"].to_list() == ["07"]


def test_odd_columns_are_no_groups(tmp_path: Path) -> None:
    odd = ["[1]", "no json", '{"author": ""}', '{"author": null}', '{"author": "one"}', '{"author": "one"}']
    result, _ = split(tmp_path, plain(tmp_path / "p.parquet", meta=odd + [None] * 34), group_by=["author"])
    assert groups(result) == {f"{n:02d}": f"{n:02d}" for n in range(40)} | {"05": "04"}


def test_of_many_labels_that_are_not_everywhere_some_are_named(tmp_path: Path) -> None:
    _, metrics = split(tmp_path, plain(tmp_path / "p.parquet", label=[str(n) for n in range(40)]))
    assert len(metrics["notes"]) == 7 and metrics["notes"][-1] == "35 more labels are not on all sides"


def test_when_nothing_is_kept_it_says_so(tmp_path: Path) -> None:
    path = plain(tmp_path / "p.parquet", kept=[False] * 40)
    with pytest.raises(UserError, match="no document to work on"):
        split(tmp_path, path)
