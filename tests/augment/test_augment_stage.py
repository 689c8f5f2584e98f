import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from corpus.augment import stage, swap
from corpus.documents import DOCUMENT, DROPPED, generated_id, write_table
from corpus.params import load
from corpus.stage import Metrics, Run, execute

EN = "Cats sleep for most of the {0}. Dogs bark when strangers come. Birds sing {0} in the morning. Fish swim in ponds."
ZH = "猫{0}大多在睡觉。狗见到生人会叫。鸟在{0}的清晨唱歌。鱼在池塘里游。"


@pytest.fixture
def project(tmp_path: Path, write_documents: Callable[..., Path]) -> Path:
    """Two parts of documents and their split: every fifth dropped, every seventh in test."""
    for part, text, lang in (("a", EN, "en"), ("b", ZH, "zh-Hans")):
        name = f"part-{part}-0-00000.parquet"
        texts = [text.format("甲乙丙丁戊己庚辛壬癸"[n // 10] + "一二三四五六七八九十"[n % 10]) for n in range(60)]
        documents = pl.read_parquet(write_documents(tmp_path / "data/clean" / name, texts, lang=lang, title="A title"))
        number = pl.int_range(pl.len())
        annotation = documents.select(
            "id",
            kept=pl.when(number % 5 > 0).then(number % 7 != 3),
            split=pl.when(number % 5 > 0).then(
                pl.when(number % 7 == 0).then(pl.lit("test")).otherwise(pl.lit("train"))
            ),
        )
        write_table(annotation.to_arrow(compat_level=pl.CompatLevel.oldest()), _folder(tmp_path / "data/split") / name)
    return tmp_path


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def augment(project: Path, *settings: str, workers: int = 1, home: str = "home", output: str = "augment") -> Metrics:
    data = project / "data"
    run = Run(
        "augment",
        load(None, [f"augment.{setting}" for setting in settings]),
        (data / "clean", data / "split"),
        data / output,
        data,
        reports=project / "reports",
        home=project / home,
        workers=workers,
    )
    return execute(stage, run)


def generated(project: Path, output: str = "augment") -> pl.DataFrame:
    return pl.concat(pl.read_parquet(path) for path in sorted((project / "data" / output).glob("*.parquet")))


def test_variants_of_kept_train_documents_alone(project: Path) -> None:
    metrics = augment(project, "fraction=0.5")
    documents = pl.concat(pl.read_parquet(path) for path in sorted((project / "data/clean").glob("*.parquet")))
    splits = pl.concat(pl.read_parquet(path) for path in sorted((project / "data/split").glob("*.parquet")))
    rows = generated(project).join(documents, left_on="parent_id", right_on="id", suffix="_parent")
    rows = rows.join(splits, left_on="parent_id", right_on="id", suffix="_parent_split")
    assert rows["kept_parent_split"].all() and (rows["split"] == "train").all()
    assert (rows["lang"] == rows["lang_parent"]).all() and (rows["title"] == "A title").all()
    assert (rows["text"] != rows["text_parent"]).all()
    assert all(Counter(a) == Counter(b) for a, b in zip(rows["text"], rows["text_parent"], strict=True))
    assert rows["id"].to_list() == [generated_id(parent, swap.METHOD, 0) for parent in rows["parent_id"]]
    drawn = splits.filter(pl.col("kept") & (pl.col("split") == "train")).height
    assert 0.3 * drawn < rows.height < 0.7 * drawn
    kept_before = int(splits["kept"].sum())
    assert metrics["rows"]["in"] == kept_before
    assert metrics["rows"]["generated"] == rows.height == metrics["by_method"][swap.METHOD]["generated"]
    assert metrics["rows"]["kept"] == kept_before + int(rows["kept"].sum())


def test_parts_have_the_schema_also_when_nothing_is_generated(project: Path) -> None:
    metrics = augment(project, "fraction=0")
    assert metrics["rows"]["generated"] == 0
    for name in ("part-a-0-00000.parquet", "part-b-0-00000.parquet"):
        assert pa.parquet.read_schema(project / "data/augment" / name).equals(stage.GENERATED)
    assert stage.GENERATED.names[: len(DOCUMENT.names)] == DOCUMENT.names


def test_what_fails_a_gate_is_a_row_with_its_reason(project: Path) -> None:
    metrics = augment(project, "fraction=1", "gates.length=[2, 3]")
    rows = generated(project)
    assert rows.height and not rows["kept"].any()
    assert rows["reasons"].to_list() == [["augment.length"]] * rows.height
    assert metrics["dropped_by_reason"] == {"augment.length": rows.height}
    assert metrics["rows"]["dropped"] == rows.height


def test_a_variant_that_another_part_has_already_is_dropped(
    project: Path, write_documents: Callable[..., Path]
) -> None:
    augment(project, "fraction=1")
    copy = generated(project)["text"][0]
    name = "part-c-0-00000.parquet"
    documents = pl.read_parquet(write_documents(project / "data/clean" / name, [copy.upper()], lang="en"))
    annotation = documents.select("id", kept=pl.lit(None, pl.Boolean), split=pl.lit(None, pl.String))
    write_table(annotation.to_arrow(compat_level=pl.CompatLevel.oldest()), project / "data/split" / name)
    assert augment(project, "fraction=1")["dropped_by_reason"] == {"augment.duplicate": 1}
    assert generated(project)["reasons"][0].to_list() == ["augment.duplicate"]


def test_dialogues_are_left_alone(tmp_path: Path, write_documents: Callable[..., Path]) -> None:
    messages = [[{"role": "user", "content": EN}], None]
    path = write_documents(tmp_path / "in.parquet", [EN, EN.format("night")], lang="en", messages=messages)
    run = Run("augment", load(None, ["augment.fraction=1"]), (path,), tmp_path / "out", reports=None, home=tmp_path)
    assert execute(stage, run)["rows"] == {"in": 2, "generated": 1, "kept": 3, "dropped": 0}


def test_a_file_with_only_id_and_text_will_do(tmp_path: Path) -> None:
    pl.DataFrame({"id": ["1", "2"], "text": [EN, ""]}).write_parquet(tmp_path / "in.parquet")
    run = Run(
        "augment",
        load(None, ["augment.fraction=1"]),
        (tmp_path / "in.parquet",),
        tmp_path / "out",
        reports=None,
        home=tmp_path / "home",
    )
    metrics = execute(stage, run)
    assert metrics["rows"] == {"in": 2, "generated": 2, "kept": 3, "dropped": 1}


def test_the_bytes_do_not_depend_on_workers(project: Path) -> None:
    augment(project, "fraction=0.5")
    augment(project, "fraction=0.5", workers=2, home="other", output="again")
    for path in sorted((project / "data/augment").glob("*.parquet")):
        assert path.read_bytes() == (project / "data/again" / path.name).read_bytes()


def test_golden(project: Path) -> None:
    augment(project, "fraction=0.5")
    rows = generated(project).select("id", "text", "kept", "reasons").rows()
    digest = hashlib.blake2b(repr(rows).encode(), digest_size=8).hexdigest()
    assert (stage.VERSION, digest) == (2, "d1c9b93d9e490e13"), (
        "the output changed: on purpose? Then raise VERSION and this digest"
    )


def test_what_holds_words_of_a_held_out_document_is_dropped(
    project: Path, write_documents: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A method that plants a sentence of test, of a test set, or of another train document, is caught by it."""
    secret, exam, other = (
        " ".join(word + letter for letter in "abcdefghijklmn") + "." for word in ("secret", "exam", "other")
    )
    name = "part-c-0-00000.parquet"
    texts = [f"{secret} {EN}", other, EN]
    documents = pl.read_parquet(write_documents(project / "data/clean" / name, texts, lang="en"))
    splits = documents.select("id", kept=pl.lit(True), split=pl.Series(["test", "train", "train"]))
    write_table(splits.to_arrow(compat_level=pl.CompatLevel.oldest()), project / "data/split" / name)
    (project / "data/evaluation").mkdir()
    (project / "data/evaluation/exam.jsonl").write_text(f'{{"id": "1", "text": "{exam}"}}\n')
    for planted, reason in ((secret, "held_out"), (exam, "held_out"), (other, "duplicate")):
        monkeypatch.setattr(swap, "swap_sentences", lambda text, *_, planted=planted: f"{text} {planted}")
        augment(project, "fraction=1", "gates.length=[0, 99]", "gates.repetition=1", home=planted[:6])
        reasons = generated(project)["reasons"].to_list()
        missed = sum(f"augment.{reason}" not in own for own in reasons)
        assert missed <= (planted == other), "only of the document itself it is no news"
        assert [f"augment.{reason}"] in reasons


def test_a_variant_that_surprises_the_language_model_is_dropped(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from corpus.reference import stage as reference

    texts = [EN.format(word) for word in (f"word{number}" for number in range(120))]
    (project / "en.txt").write_text("\n---\n".join(texts))
    params = load(None, ["reference.heldout=0.2", f"reference.texts={{en: [{project}/en.txt]}}"])
    output = project / "data/reference/model"
    output.parent.mkdir()
    execute(reference, Run("reference", params, (), output, project / "data", project / "reports", project / "home"))
    monkeypatch.setattr(swap, "swap_sentences", lambda text, *_: " ".join(reversed(text.split())))
    metrics = augment(project, "fraction=1", "gates.perplexity=1.5")
    english = generated(project).filter(pl.col("lang") == "en")
    assert all("augment.perplexity" in reasons for reasons in english["reasons"])
    assert metrics["dropped_by_reason"]["augment.perplexity"] == english.height


def test_dialogues_in_documents_become_documents_of_their_own(
    project: Path, write_documents: Callable[..., Path]
) -> None:
    page = "# Help\n\n## How do I reset a router?\n\nPress the red button for 5 seconds.\n\nQ: Is it free?\nA: Yes, {}."
    held_out = "the quick brown fox jumps over the lazy dog and then it sleeps all day long"
    texts = [
        page.format("it is and will be"),
        page.format("all of it"),
        f"Q: What did the animals do?\nA: {held_out}.",
        held_out,
    ]
    name = "part-c-0-00000.parquet"
    documents = pl.read_parquet(write_documents(project / "data/clean" / name, texts, lang="en", licence="CC0"))
    split = documents.select("id", kept=pl.lit(True), split=pl.Series(["train", "test", "train", "validation"]))
    write_table(split.to_arrow(compat_level=pl.CompatLevel.oldest()), project / "data/split" / name)
    metrics = augment(project, "instructions=[questions, answers]", "swaps=0")
    made = generated(project).filter(pl.col("method").str.starts_with("instructions"))
    first = made.filter(parent_id=documents["id"][0])
    assert first["method"].to_list() == ["instructions.questions", "instructions.answers"]
    assert first["messages"][0].to_list() == [
        {"role": "user", "content": "How do I reset a router?"},
        {
            "role": "assistant",
            "content": "Press the red button for 5 seconds.\n\nQ: Is it free?\nA: Yes, it is and will be.",
        },
    ]
    assert first["text"][1] == "user: Is it free?\nassistant: Yes, it is and will be."
    assert first["kept"].all() and set(first["licence"]) == {"CC0"}
    assert set(made["parent_id"]) == {documents["id"][0], documents["id"][2]}, "only of the train side"
    assert metrics["by_method"]["instructions.questions"] == {"generated": 1, "kept": 1}
    assert metrics["rows"]["in"] + metrics["rows"]["generated"] == sum(
        metrics["rows"][key] for key in ("kept", "dropped")
    )


def test_what_people_corrected_is_not_generated_beside_it(project: Path, write_documents: Callable[..., Path]) -> None:
    augment(project, "fraction=1")
    one, other = generated(project).filter("kept").head(2).to_dicts()
    name = "part-d-0-00000.parquet"
    path = write_documents(project / "data/clean" / name, ["It was corrected."], lang="en", parent_id=one["parent_id"])
    documents = pl.read_parquet(path).with_columns(id=pl.lit(one["id"]))
    write_table(documents.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(DOCUMENT), path)
    split = documents.select("id", kept=pl.lit(True), split=pl.lit("train"))
    write_table(split.to_arrow(compat_level=pl.CompatLevel.oldest()), project / "data/split" / name)
    metrics = augment(project, "fraction=1", output="again")
    again = generated(project, "again").filter(id=one["id"]).to_dicts()
    assert [row["reasons"] for row in again] == [["augment.corrected"]]
    assert metrics["dropped_by_reason"]["augment.corrected"] == 1
    (project / "data/scrape").mkdir()
    gone = dict.fromkeys(DROPPED.names) | {"id": other["id"], "batch": 0, "reason": "scrape.annotated"}
    write_table(pa.Table.from_pylist([gone], DROPPED), project / "data/scrape/dropped-annotated-0.parquet")
    augment(project, "fraction=1", output="third")
    assert generated(project, "third").filter(id=other["id"])["reasons"].to_list() == [["augment.corrected"]]
