import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpus.augment.stage import GENERATED
from corpus.documents import DOCUMENT, write_table
from corpus.errors import UserError
from corpus.params import load
from corpus.shard import stage
from corpus.shard.rows import SHARD
from corpus.stage import Metrics, Run, execute

DIALOGUE = [{"role": "user", "content": "How?"}, {"role": "assistant", "content": "So: “这样”."}]


def annotate(project: Path, name: str, documents: pl.DataFrame, kept: pl.Expr, split: pl.Expr) -> None:
    for folder, columns in (("filter", {"kept": kept}), ("split", {"kept": kept, "split": split})):
        (project / "data" / folder).mkdir(parents=True, exist_ok=True)
        frame = documents.select("id", **columns)
        write_table(frame.to_arrow(compat_level=pl.CompatLevel.oldest()), project / "data" / folder / name)


@pytest.fixture
def project(tmp_path: Path, write_documents: Callable[..., Path]) -> Path:
    """40 English texts, 10 Chinese dialogues, a generated document kept and one dropped; nothing in validation."""
    number = pl.int_range(pl.len())
    split = pl.when(number % 4 == 0).then(pl.lit("test")).otherwise(pl.lit("train"))
    for name, texts, columns in (
        (
            "part-a-0-00000.parquet",
            [f"Text number {n}.\n\nIt has a second paragraph." for n in range(40)],
            {"lang": "en"},
        ),
        ("part-b-0-00000.parquet", [f"问题{n}" for n in range(10)], {"lang": "zh-Hans", "messages": [DIALOGUE] * 10}),
    ):
        path = write_documents(tmp_path / "data/clean" / name, texts, licence="CC0", **columns)
        kept = pl.when(number % 5 > 0).then(number % 5 != 3)  # null, false, true
        annotate(tmp_path, name, pl.read_parquet(path), kept, split)
    rows = [
        dict.fromkeys(DOCUMENT.names)
        | {"id": letter * 32, "text": f"Generated {letter}.", "source": "test", "lang": "en", "kept": letter == "a"}
        | {"parent_id": "p", "method": "sentence-swap", "reasons": []}
        for letter in "ab"
    ]
    (tmp_path / "data/augment").mkdir()
    write_table(pa.Table.from_pylist(rows, GENERATED), tmp_path / "data/augment/part-a-0-00000.parquet")
    return tmp_path


def shard(project: Path, *settings: str, workers: int = 1, output: str = "shard") -> Metrics:
    data = project / "data"
    inputs = tuple(data / name for name in stage.READS)
    params = load(None, [f"shard.{setting}" for setting in settings])
    run = Run("shard", params, inputs, data / output, data, project / "reports", project / "home", workers)
    return execute(stage, run)


def rows(project: Path, split: str, output: str = "shard") -> pl.DataFrame:
    return pl.concat(pl.read_parquet(p) for p in sorted((project / "data" / output / split).glob("part-*.parquet")))


def test_every_kept_document_is_in_its_split_and_nowhere_else(project: Path) -> None:
    metrics = shard(project)
    expected = {
        split: set(
            pl.concat(pl.read_parquet(p) for p in (project / "data/split").iterdir())
            .filter(pl.col("kept") & (pl.col("split") == split))["id"]
        )
        for split in stage.SPLITS
    }  # fmt: skip
    expected["train"].add("a" * 32)
    for split in stage.SPLITS:
        assert set(rows(project, split)["id"]) == expected[split]
        assert rows(project, split).height == len(expected[split])
    total = sum(map(len, expected.values()))
    assert metrics["rows"] == {"in": total, "generated": 0, "kept": total, "dropped": 0}
    assert metrics["splits"]["validation"] == {}
    assert metrics["splits"]["train"]["en"]["documents"] == rows(project, "train").filter(lang="en").height
    assert metrics["splits"]["train"]["en"]["bytes"] == sum(
        len(text.encode()) for text in rows(project, "train").filter(lang="en")["text"]
    )
    assert metrics["by_method"] == {"sentence-swap": 1}
    assert metrics["by_licence"] == {"CC0": total - 1, "not named": 1}


def test_sources_mix_and_generated_documents_come_last(project: Path) -> None:
    shard(project)
    train = rows(project, "train")
    assert train["method"].is_not_null().to_list() == [False] * (train.height - 1) + [True]
    languages = train["lang"].to_list()
    assert languages != sorted(languages)
    shard(project, "seed=1", output="other")
    assert rows(project, "train", "other")["id"].to_list() != train["id"].to_list()
    assert set(rows(project, "train", "other")["id"]) == set(train["id"])


def test_files_have_the_schema_also_for_an_empty_split(project: Path) -> None:
    shard(project)
    for split in stage.SPLITS:
        for path in (project / "data/shard" / split).glob("*.parquet"):
            assert pq.read_schema(path).equals(SHARD)
    assert rows(project, "validation").height == 0
    assert not (project / "data/shard/.scratch").exists()


def test_preferences_stay_whole_beside_their_dialogue(project: Path) -> None:
    path = project / "data/clean/part-b-0-00000.parquet"
    preference = {"chosen": DIALOGUE, "rejected": [*DIALOGUE[:1], {"role": "assistant", "content": "No."}]}
    table = pq.read_table(path)
    column = pa.array([preference] * table.num_rows, DOCUMENT.field("preference").type)
    write_table(table.set_column(DOCUMENT.get_field_index("preference"), "preference", column), path)
    shard(project, "chunk_tokens=4")
    dialogues = rows(project, "train").filter(pl.col("messages").is_not_null())
    assert dialogues.height and dialogues["preference"].to_list() == [preference] * dialogues.height


def test_json_lines_hold_the_same_rows_and_the_dialogues(project: Path) -> None:
    shard(project)
    folder = project / "data/shard/train"
    lines = [json.loads(line) for line in (folder / "text.jsonl").read_text("utf-8").splitlines()]
    assert [(line["id"], line["text"]) for line in lines] == rows(project, "train").select("id", "text").rows()
    pairs = [json.loads(line) for line in (folder / "instruct.jsonl").read_text("utf-8").splitlines()]
    dialogues = rows(project, "train")["messages"].drop_nulls().len()
    assert pairs == [{"input": "How?", "output": "So: “这样”."}] * dialogues
    assert "这样" in (folder / "instruct.jsonl").read_text("utf-8")


def test_chunks_give_the_documents_back(project: Path) -> None:
    metrics = shard(project, "chunk_tokens=4", output="cut")
    shard(project)
    for split in stage.SPLITS:
        cut = rows(project, split, "cut").group_by("id", maintain_order=True).agg("text", "chunk")
        assert ["".join(texts) for texts in cut["text"]] == rows(project, split)["text"].to_list()
        assert all(list(chunks) == list(range(len(chunks))) for chunks in cut["chunk"])
    assert metrics["splits"]["train"]["en"]["chunks"] > metrics["splits"]["train"]["en"]["documents"]
    assert (
        metrics["rows"]["in"] == metrics["rows"]["kept"] == sum(rows(project, s)["id"].n_unique() for s in stage.SPLITS)
    )


def test_many_small_buckets_give_the_same_rows_whatever_the_passes_and_workers(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard(project)
    monkeypatch.setattr(stage, "PART_BYTES", 150)
    monkeypatch.setattr(stage, "OPEN_BUCKETS", 3)
    shard(project, output="small")
    monkeypatch.setattr(stage, "OPEN_BUCKETS", 100)
    shard(project, workers=2, output="again")
    assert len(list((project / "data/small/train").glob("*.parquet"))) > 5
    for split in stage.SPLITS:
        assert rows(project, split, "small").equals(rows(project, split))
        for path in sorted((project / "data/small" / split).iterdir()):
            assert path.read_bytes() == (project / "data/again" / split / path.name).read_bytes()
            assert path.suffix != ".parquet" or pl.read_parquet(path)["text"].str.len_bytes().sum() <= 150


def test_datasets_loads_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(project / "cache"))
    import datasets

    datasets.disable_progress_bars()
    shard(project)
    folder, cache = project / "data/shard", str(project / "cache")
    filled = ("train", "test")  # of an empty split `datasets` says that it has no data
    for split in filled:
        loaded = datasets.load_dataset("parquet", data_dir=str(folder / split), cache_dir=cache)
        assert loaded.num_rows == {split: rows(project, split).height}
    everything = datasets.load_dataset(str(folder), cache_dir=cache)
    assert everything.num_rows == {split: rows(project, split).height for split in filled}
    assert everything["train"]["id"][:] == rows(project, "train")["id"].to_list()
    for file in ("text.jsonl", "instruct.jsonl"):
        loaded = datasets.load_dataset("json", data_files=str(folder / "train" / file), split="train", cache_dir=cache)
        assert loaded.num_rows == len((folder / "train" / file).read_text("utf-8").splitlines())


def test_the_card_counts_and_holds_no_times(project: Path) -> None:
    shard(project)
    card = (project / "data/shard/README.md").read_text("utf-8")
    metrics = json.loads((project / "reports/shard.json").read_text("utf-8"))
    assert f"| train | en | {metrics['splits']['train']['en']['documents']} |" in card
    assert "- zh-Hans" in card and "| CC0 |" in card and "| sentence-swap | 1 |" in card
    assert "train/part-" in card and "path: validation/" not in card
    assert str(project) not in card


def test_a_table_of_id_and_text_is_all_train_and_takes_no_other_projects_variants(
    project: Path, tmp_path: Path
) -> None:
    pl.DataFrame({"id": ["1", "2"], "text": ["one", "two"]}).write_parquet(tmp_path / "own.parquet")
    run = Run(
        "shard", load(None), (tmp_path / "own.parquet",), tmp_path / "out", project / "data", None, tmp_path / "h"
    )
    assert execute(stage, run)["rows"]["in"] == 2
    assert set(pl.read_parquet(tmp_path / "out/train/part-train-00000.parquet")["text"]) == {"one", "two"}


def test_a_kept_document_without_a_split_is_refused(project: Path, write_documents: Callable[..., Path]) -> None:
    name = "part-c-0-00000.parquet"
    path = write_documents(project / "data/clean" / name, ["x"])
    annotate(project, name, pl.read_parquet(path), pl.lit(True), pl.lit("dev"))
    with pytest.raises(UserError, match="its split is 'dev': it should be train, validation, test"):
        shard(project)


def test_golden(project: Path) -> None:
    shard(project, "chunk_tokens=4")
    content = [rows(project, split).rows() for split in stage.SPLITS]
    digest = hashlib.blake2b(repr(content).encode(), digest_size=8).hexdigest()
    assert (stage.VERSION, digest) == (3, "58de45549e13190b"), (
        "the output changed: on purpose? Then raise VERSION and this digest"
    )
