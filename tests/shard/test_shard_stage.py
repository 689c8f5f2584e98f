import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import Bucket
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from corpus.augment.stage import GENERATED
from corpus.documents import DOCUMENT, write_table
from corpus.errors import UserError
from corpus.params import load
from corpus.shard import order, stage
from corpus.shard import rows as shard_rows
from corpus.shard.rows import SHARD
from corpus.stage import Metrics, Part, Run, execute
from train.shards import read_shard

DIALOGUE = [{"role": "user", "content": "How?"}, {"role": "assistant", "content": "So: “这样”."}]


def annotate(project: Path, name: str, documents: pl.DataFrame, kept: pl.Expr, split: pl.Expr) -> None:
    for folder, columns in (
        ("measure", {"n_chars": pl.col("text").str.len_chars()}),
        ("perplexity", {"ppl": pl.col("text").str.len_chars().cast(pl.Float64)}),
        ("filter", {"kept": kept}),
        ("split", {"kept": kept, "split": split}),
    ):
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


def shard(project: Path, *settings: str, workers: int = 1, output: str = "shard", more: Sequence[str] = ()) -> Metrics:
    data = project / "data"
    inputs = tuple(data / name for name in stage.READS)
    params = load(None, [*(f"shard.{setting}" for setting in settings), *more])
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
    expected = {"input": "How?", "output": "So: “这样”.", "messages": DIALOGUE}
    assert pairs and [{**pair, "id": None} for pair in pairs] == [{"id": None, **expected}] * dialogues
    assert {pair["id"] for pair in pairs} <= set(rows(project, "train")["id"])
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


def test_datasets_streams_it_from_object_storage(project: Path, s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    root, target = f"{s3.name}/corpus", s3.address("corpus")
    s3.files.pipe_file(f"{root}/train/part-train-00009.parquet", b"of an earlier, larger corpus")
    s3.files.pipe_file(f"{root}/notes.md", b"somebody's")
    shard(project, f"copy_to={target}", "chunk_tokens=4", more=[f"storage.s3.endpoint_url={s3.endpoint}"])
    names = {path.removeprefix(f"{root}/") for path in s3.files.find(root)}
    here = {str(path.relative_to(project / "data/shard")) for path in (project / "data/shard").rglob("*.*")}
    assert names == (here - {".stage"}) | {"notes.md"}
    for pattern, kind in (("part-*.parquet", "parquet"), ("text.jsonl", "json"), ("instruct.jsonl", "json")):
        options = {"storage_options": s3.options["s3"], "streaming": True}
        stream = datasets.load_dataset(kind, data_files=f"{target}/train/{pattern}", split="train", **options)
        ids = [row["id"] for row in stream]
        assert ids == ([row["id"] for row in rows(project, "train").to_dicts()] if pattern[0] != "i" else ids)
        assert ids


def test_a_copy_on_s3(project: Path, s3: Bucket) -> None:
    server = [f"storage.s3.endpoint_url={s3.endpoint}"]
    shard(project, f"copy_to={s3.address('corpus')}", more=server)
    there = {path.partition("/corpus/")[2] for path in s3.files.find(f"{s3.name}/corpus")}
    assert {"README.md", "train/text.jsonl"} <= there and ".probe" not in there
    assert s3.files.cat_file(f"{s3.name}/corpus/README.md") == (project / "data/shard/README.md").read_bytes()
    with pytest.raises(UserError, match=r"^shard\.copy_to: .* cannot be written to: denied"):
        shard(project, f"copy_to={s3.address('corpus')}", "storage={anon: true}", more=server)
    with pytest.raises(UserError, match="no such bucket"):
        shard(project, "copy_to=s3://no-such-bucket/corpus", more=server)


def test_a_storage_that_cannot_be_written_to_is_named_before_any_work(project: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for target in ("nosuch://bucket/a", f"{tmp_path}/file/corpus"):
        with pytest.raises(UserError, match=r"^shard\.copy_to: "):
            shard(project, f"copy_to={target}")


def test_chunks_by_a_named_tokenizer_with_overlap(project: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")  # a token is a character
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=100)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    named = (f"tokenizer={tmp_path}", "chunk_tokens=40", "overlap_tokens=20")
    metrics = shard(project, *named)
    train = rows(project, "train")
    assert (
        train["text"].str.len_chars().max() <= 40 < sum(map(len, ["Text number 1.", "It has a second paragraph."])) + 2
    )
    texts = (
        train.filter(pl.col("method").is_null(), lang="en").group_by("id", maintain_order=True).agg("text", "overlap")
    )
    for pieces, overlaps in texts.select("text", "overlap").iter_rows():
        whole = "".join(piece[overlap:] for piece, overlap in zip(pieces, overlaps, strict=True))
        assert whole.startswith("Text number") and whole.endswith("paragraph.")
        assert overlaps[0] == 0 and any(overlaps)
    assert metrics["splits"]["train"]["en"]["tokens"] == train.filter(lang="en")["text"].str.len_chars().sum()
    assert next(read_shard(project / "data/shard/train")).text in {row["text"] for row in everything(project)}
    card = (project / "data/shard/README.md").read_text("utf-8")
    assert "at most 40 tokens of" in card and "(20 tokens at most)" in card


def everything(project: Path) -> list[dict[str, str]]:
    return pl.concat(
        pl.read_parquet(path, columns=["id", "text"]) for path in (project / "data/clean").iterdir()
    ).to_dicts()


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "no file, no folder, and no model"), ("{}", "is no tokenizer"), ("", "is no tokenizer")],
)
def test_a_tokenizer_that_is_none_is_named(
    project: Path, tmp_path: Path, content: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=f"shard.tokenizer: .*{said}"):
        shard(project, f"tokenizer={path}", "chunk_tokens=4")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"has no tokenizer\.json"):
        shard(project, f"tokenizer={tmp_path / 'empty'}")


def test_balance_takes_train_documents_several_times_or_not_at_all(project: Path) -> None:
    shard(project, output="plain")
    metrics = shard(project, "weights.lang={en: 0.5, zh-Hans: 3}", "chunk_tokens=4")
    plain, train = rows(project, "train", "plain"), rows(project, "train")
    assert rows(project, "test").select("id").unique().height == rows(project, "test", "plain").height
    chinese = plain.filter(lang="zh-Hans").height
    assert train.filter(lang="zh-Hans").height == 3 * chinese
    assert set(train.filter(lang="zh-Hans")["copy"]) == {0, 1, 2}
    english = plain.filter(lang="en").height
    taken = train.filter(lang="en")["id"].n_unique()
    assert abs(taken - english / 2) <= 0.5
    left_out = pl.read_parquet(project / "data/shard" / stage.LEFT_OUT)
    assert set(left_out["id"]) | set(train["id"]) == set(plain["id"])
    assert set(left_out["id"]).isdisjoint(train["id"])
    kept = metrics["rows"]["kept"]
    assert metrics["rows"] == {"in": kept + len(left_out), "generated": 0, "kept": kept, "dropped": len(left_out)}
    assert metrics["dropped_by_reason"] == {"shard.balance": len(left_out)}
    assert metrics["balance"]["lang"]["zh-Hans"] == {"documents": chinese, "taken": 3 * chinese}
    neighbours = train.filter(lang="zh-Hans")["id"].to_list()
    assert any(a != b for a, b in pairwise(neighbours))
    assert "## Balance" in (project / "data/shard/README.md").read_text("utf-8")
    assert "lang: en " in metrics["notes"][0]


def test_copies_are_the_same_whatever_the_passes_and_workers(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ("weights.lang={en: 1.5}", "buckets.n_chars=[2, 0]")
    shard(project, *settings)
    monkeypatch.setattr(stage, "PART_BYTES", 150)
    monkeypatch.setattr(stage, "OPEN_BUCKETS", 3)
    shard(project, *settings, workers=2, output="small")
    assert rows(project, "train", "small").equals(rows(project, "train"))


def test_bytes_are_the_same_however_many_documents_are_worked_on_at_once(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("chunk_tokens=4", "overlap_tokens=2", "weights.lang={en: 1.5}")
    shard(project, *settings)
    monkeypatch.setattr(shard_rows, "CUT_AT_ONCE", 3)
    monkeypatch.setattr(order, "SCATTERED", 1)
    shard(project, *settings, output="few")
    files = [path.relative_to(project / "data/shard") for path in (project / "data/shard").rglob("*.*")]
    assert len(files) > 3 * len(stage.SPLITS)
    for name in files:
        assert (project / "data/few" / name).read_bytes() == (project / "data/shard" / name).read_bytes(), name


def test_a_bucket_comes_in_few_pieces(tmp_path: Path, write_documents: Callable[..., Path]) -> None:
    path = write_documents(tmp_path / "many.parquet", [f"Text {number}" for number in range(9_000)])
    sources = [order.Source(Part(path.name, (path,), 9_000), False)]
    documents = order.survey(sources, load(None).shard)
    assert documents.estimated_size() < 16 * documents.height
    taken, _ = stage.balance(documents, load(None).shard)
    (bucket,) = order.plan(documents, taken, stage.PART_BYTES)
    assert order.scatter(sources, 0, taken, [bucket], [bucket], tmp_path).is_empty()
    with pa.ipc.open_stream(str(bucket.scratch(tmp_path, "arrow"))) as stream:
        assert len([batch.num_rows for batch in stream]) == -(-9 // order.SCATTERED)
    assert order.read_bucket(bucket, tmp_path).height == 9_000


@pytest.mark.parametrize("stage", ["dedup", "augment", "shard"])
def test_no_worker_holds_pandas(stage: str) -> None:
    program = f"import sys, corpus.{stage}.stage; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_the_card_is_safe_whatever_documents_say(project: Path, write_documents: Callable[..., Path]) -> None:
    name = "part-d-0-00000.parquet"
    licence = "![x](https://evil.example/t.png) | <b>"
    path = write_documents(project / "data/clean" / name, ["x", "y"], lang="no", licence=licence)
    annotate(project, name, pl.read_parquet(path), pl.lit(True), pl.lit("train"))
    shard(project)
    card = (project / "data/shard/README.md").read_text("utf-8")
    front = yaml.safe_load(card.split("---\n")[1])
    assert "no" in front["language"] and front["configs"][0]["data_files"][0]["split"] == "train"
    assert "evil.example" in card and "](http" not in card and "<b>" not in card and "https://evil" not in card


def test_other_peoples_files_beside_the_copy_stay(project: Path, tmp_path: Path) -> None:
    for name in ("raw/text.jsonl", "notes/dropped-balance.md", "raw/part-raw-1.parquet"):
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / name).write_text("mine")
    shard(project, f"copy_to={tmp_path / 'copy'}")
    assert (tmp_path / "copy/raw/text.jsonl").read_text() == "mine"
    assert (tmp_path / "copy/notes/dropped-balance.md").exists() and (tmp_path / "copy/raw/part-raw-1.parquet").exists()
    for target in ("data", "data/shard", "data/shard/train", "."):
        with pytest.raises(UserError, match=r"is, holds or lies in .*: name a folder elsewhere"):
            shard(project, f"copy_to={project / target}")


def test_rows_say_which_documents_they_come_from(project: Path) -> None:
    shard(project)
    for row in rows(project, "train").to_dicts():
        assert row["document_ids"] == [row["id"]] + ([row["parent_id"]] if row["parent_id"] else [])


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
    assert (stage.VERSION, digest) == (4, "e6301f24fa6e998d"), (
        "the output changed: on purpose? Then raise VERSION and this digest"
    )
