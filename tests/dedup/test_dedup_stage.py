"""Near-duplicates against an all-pairs oracle with a tokenizer and a Jaccard of its own."""

import functools
import hashlib
import itertools
import json
import random
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from conftest import digests
from datasketch import LeanMinHash, MinHashLSH

from corpus.dedup import stage
from corpus.errors import UserError
from corpus.params import Params
from corpus.stage import Metrics, Run, execute

WORDS = ["river", "Stone", "backup", "naïve", "café", "folder", "sync", "error", "restore", "the", "of", "and", "x42"]
WORDS += [f"word{number}" for number in range(300)]
CHARACTERS = "增量备份恢复文件夹同步错误版本历史加密日志带宽代理冲突迁移安装命令行删除覆盖手机客服退款"
CHARACTERS += "校验编码正则脚本表格网络协议"
THRESHOLD, EDGE = 0.6, 0.4


# ---- the oracle ------------------------------------------------------------------------------------------------------


def oracle_tokens(text: str) -> list[str]:
    tokens, word = [], ""
    for character in text.casefold() + " ":
        ideograph = "\u4e00" <= character <= "\u9fff"
        if not ideograph and unicodedata.category(character)[0] in "LNM":
            word += character
            continue
        tokens += [word] if word else []
        tokens += [character] if ideograph else []
        word = ""
    return tokens


@functools.cache
def oracle_shingles(text: str) -> set[tuple[str, ...]]:
    tokens = oracle_tokens(oracle_normal(text))
    return set(zip(tokens, tokens[1:], tokens[2:], strict=False))


def oracle_jaccard(left: str, right: str) -> float:
    a, b = oracle_shingles(left), oracle_shingles(right)
    return len(a & b) / len(a | b) if a | b else 0.0


def oracle_normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


# ---- input -----------------------------------------------------------------------------------------------------------


def make_text(generator: random.Random, kind: str) -> list[str]:
    length = generator.randrange(30, 120)
    if kind == "zh":
        return [generator.choice(CHARACTERS) for _ in range(length)]
    if kind == "en":
        return [generator.choice(WORDS) + " " for _ in range(length)]
    return make_text(generator, "en")[: length // 2] + make_text(generator, "zh")[: length // 2]


def edited(generator: random.Random, tokens: list[str], share: float) -> list[str]:
    return [generator.choice([*WORDS, *CHARACTERS]) + " " if generator.random() < share else one for one in tokens]


def make_documents(seed: int = 5, families: int = 60) -> pl.DataFrame:
    """Families of copies with 0 to 30 % of their tokens changed, cut, joined, in other case; and what is too short."""
    generator = random.Random(seed)
    texts: list[str] = []
    for number in range(families):
        tokens = make_text(generator, ["en", "zh", "mixed"][number % 3])
        texts.append("".join(tokens))
        shares = generator.sample([0.0, 0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.3], generator.randrange(5))
        texts += ["".join(edited(generator, tokens, share)) for share in shares]
        if number % 5 == 0:
            texts.append("".join(tokens).upper() + "!")
            texts.append(unicodedata.normalize("NFD", "".join(tokens)).replace(" ", "  \n"))
            texts.append("".join(tokens[: int(len(tokens) * 0.8)]))
    texts += ["", "", " \n", "x", "x", "。", "好的，谢谢", "好的，谢谢", "好的 谢谢", "one two three", "one two four"]
    return pl.DataFrame(
        {
            "id": [hashlib.md5(f"{seed} {number}".encode()).hexdigest() for number in range(len(texts))],
            "text": texts,
        }
    )


def write_parts(folder: Path, documents: pl.DataFrame, sizes: list[int]) -> Path:
    folder.mkdir(parents=True)
    start = 0
    for number, size in enumerate([*sizes, documents.height - sum(sizes)]):
        documents.slice(start, size).write_parquet(folder / f"part-made-0-{number:05d}.parquet")
        start += size
    return folder


def dedup(tmp_path: Path, name: str, *inputs: Path, workers: int = 1, **params: Any) -> tuple[Path, Metrics]:
    settings = Params.model_validate({"dedup": {"threshold": THRESHOLD, "edge_threshold": EDGE, **params}})
    output = tmp_path / name
    run = Run("dedup", settings, inputs, output, reports=None, home=tmp_path / f"home-{name}", workers=workers)
    return output, execute(stage, run)


def annotation(output: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in pl.read_parquet(output / "*.parquet").rows(named=True)}


def edges(output: Path) -> list[tuple[str, str, float]]:
    return pl.read_parquet(output / "edges" / "*.parquet").rows()


@pytest.fixture(scope="module")
def documents() -> pl.DataFrame:
    return make_documents()


@pytest.fixture(scope="module")
def result(documents: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Metrics]:
    tmp_path = tmp_path_factory.mktemp("dedup")
    return dedup(tmp_path, "out", write_parts(tmp_path / "in", documents, [70, 30]))


# ---- against the oracle ----------------------------------------------------------------------------------------------


def test_every_removal_is_justified_by_a_kept_document(documents: pl.DataFrame, result: tuple[Path, Metrics]) -> None:
    text = dict(documents.rows())
    rows = annotation(result[0])
    dropped = [row for row in rows.values() if not row["kept"]]
    assert len(dropped) > 80
    for row in dropped:
        kept, own = rows[row["duplicate_of"]], text[row["id"]]
        assert kept["kept"]
        assert row["cluster"] == kept["id"] == kept["cluster"]
        if row["reasons"] == ["dedup.exact"]:
            assert oracle_normal(own) == oracle_normal(text[kept["id"]])
            assert row["similarity"] == 1.0
        else:
            assert row["reasons"] == ["dedup.near"]
            assert row["similarity"] == pytest.approx(oracle_jaccard(own, text[kept["id"]]))
            assert row["similarity"] >= THRESHOLD
    assert all(row["reasons"] == [] and row["duplicate_of"] is None for row in rows.values() if row["kept"])


def test_no_similar_pair_stays(documents: pl.DataFrame, result: tuple[Path, Metrics]) -> None:
    rows = annotation(result[0])
    long = [(one, text) for one, text in documents.rows() if rows[one]["kept"] and len(oracle_shingles(text)) >= 5]
    residual = [(a, b) for (a, x), (b, y) in itertools.combinations(long, 2) if oracle_jaccard(x, y) >= THRESHOLD]
    assert residual == []


def test_the_decision_is_the_greedy_star_over_all_pairs(documents: pl.DataFrame, result: tuple[Path, Metrics]) -> None:
    text = dict(documents.rows())
    kept: list[str] = []
    names: dict[str, str] = {}
    for one in sorted(text, key=lambda one: (-len(text[one]), one)):
        near = [
            (1.0 if same else similarity, -position, other)
            for position, other in enumerate(kept)
            for same in [oracle_normal(text[one]) == oracle_normal(text[other]) != ""]
            for similarity in [oracle_jaccard(text[one], text[other])]
            if same or (similarity >= THRESHOLD and min(len(oracle_shingles(text[x])) for x in (one, other)) >= 5)
        ]
        if near:
            names[one] = max(near)[2]
        else:
            kept.append(one)
    rows = annotation(result[0])
    assert {one: row["duplicate_of"] for one, row in rows.items() if not row["kept"]} == names


def test_edges_are_true_and_nearly_complete(documents: pl.DataFrame, result: tuple[Path, Metrics]) -> None:
    text = dict(documents.rows())
    found = edges(result[0])
    assert len({edge[:2] for edge in found}) == len(found)
    for left, right, similarity in found:
        assert left < right
        assert similarity == pytest.approx(oracle_jaccard(text[left], text[right])) or (
            similarity == 1.0 and oracle_normal(text[left]) == oracle_normal(text[right])
        )
    # Copies of one text have one edge, to the preferred of them: pairs are counted between different texts.
    in_order = sorted(text, key=lambda one: (-len(text[one]), one))
    first = {oracle_normal(text[one]): one for one in reversed(in_order)}
    different = [one for one in first.values() if len(oracle_shingles(text[one])) >= 5]
    # What was dropped is compared with kept documents that are preferred to it, and with no others.
    kept = {one for one, row in annotation(result[0]).items() if row["kept"]}
    true = {
        tuple(sorted(pair))
        for pair in itertools.combinations(sorted(different, key=in_order.index), 2)
        if pair[0] in kept and oracle_jaccard(*map(text.get, pair)) >= EDGE
    }
    assert len(true) > 100
    assert len(true & {edge[:2] for edge in found}) >= 0.97 * len(true)


def test_metrics_count_documents_and_pairs(documents: pl.DataFrame, result: tuple[Path, Metrics]) -> None:
    output, metrics = result
    rows = annotation(output)
    assert metrics["rows"]["in"] == documents.height
    assert metrics["rows"]["dropped"] == sum(not row["kept"] for row in rows.values())
    assert sum(metrics["dropped_by_reason"].values()) == metrics["rows"]["dropped"]
    assert sum(int(size) * count for size, count in metrics["cluster_sizes"].items()) == documents.height
    assert metrics["pairs"]["edges"] == len(edges(output))
    assert (metrics["bands"], metrics["rows_per_band"]) == (42, 3)
    assert json.loads((output / "metrics.json").read_text())["rows"] == metrics["rows"]


# ---- order, workers, store -------------------------------------------------------------------------------------------


def test_order_of_rows_and_parts_does_not_matter(
    tmp_path: Path, documents: pl.DataFrame, result: tuple[Path, Metrics]
) -> None:
    shuffled = documents.sample(fraction=1, shuffle=True, seed=3)
    output, metrics = dedup(tmp_path, "shuffled", write_parts(tmp_path / "in", shuffled, [5, 0, 100]))
    assert annotation(output) == annotation(result[0])
    assert edges(output) == edges(result[0])
    assert metrics == result[1]


def test_workers_change_no_byte(tmp_path: Path, documents: pl.DataFrame, result: tuple[Path, Metrics]) -> None:
    folder = write_parts(tmp_path / "in", documents, [70, 30])
    output, _ = dedup(tmp_path, "two", folder, workers=2)
    names = sorted(str(path.relative_to(output)) for path in output.rglob("*") if path.is_file())
    assert names == sorted(str(path.relative_to(result[0])) for path in result[0].rglob("*") if path.is_file())
    assert all((output / name).read_bytes() == (result[0] / name).read_bytes() for name in names)


def test_annotation_has_the_rows_of_the_documents(documents: pl.DataFrame, result: tuple[Path, Metrics]) -> None:
    parts = sorted(result[0].glob("*.parquet"))
    assert [part.name for part in parts] == [f"part-made-0-0000{number}.parquet" for number in range(3)]
    frames = [pl.read_parquet(part) for part in parts]
    assert [frame.height for frame in frames] == [70, 30, documents.height - 100]
    assert pl.concat(frames)["id"].equals(documents["id"])
    assert frames[0].schema == {
        "id": pl.String,
        "kept": pl.Boolean,
        "duplicate_of": pl.String,
        "similarity": pl.Float64,
        "cluster": pl.String,
        "reasons": pl.List(pl.String),
    }


def test_another_threshold_uses_the_signatures_again(tmp_path: Path, documents: pl.DataFrame) -> None:
    folder = write_parts(tmp_path / "in", documents.head(50), [])
    dedup(tmp_path, "out", folder)
    store = tmp_path / "home-out" / "parts" / "dedup"
    before = {entry: entry.stat().st_mtime_ns for entry in store.iterdir()}
    dedup(tmp_path, "out", folder, threshold=0.9)
    assert {entry: entry.stat().st_mtime_ns for entry in store.iterdir()} == before
    dedup(tmp_path, "out", folder, ngram=2)
    assert len(list(store.iterdir())) == len(before) + 1


def test_a_higher_threshold_keeps_more(tmp_path: Path, documents: pl.DataFrame) -> None:
    folder = write_parts(tmp_path / "in", documents, [])
    kept = [
        dedup(tmp_path, "out", folder, threshold=threshold)[1]["rows"]["kept"] for threshold in (0.4, 0.6, 0.8, 1.0)
    ]
    assert kept == sorted(kept)
    assert kept[0] < kept[-1]


def test_limit_looks_at_the_first_documents_only(tmp_path: Path, documents: pl.DataFrame) -> None:
    folder = write_parts(tmp_path / "in", documents, [20, 20])
    run = Run("dedup", Params(), (folder,), tmp_path / "out", reports=None, home=tmp_path / "home", limit=30)
    assert execute(stage, run)["rows"]["in"] == 30
    head, _ = dedup(tmp_path, "head", write_parts(tmp_path / "short", documents.head(30), [20]))
    assert annotation(tmp_path / "out") == annotation(head)


def test_a_new_batch_is_indexed_alone_and_gives_what_all_at_once_gives(tmp_path: Path, documents: pl.DataFrame) -> None:
    documents = documents.with_columns(batch=(pl.int_range(pl.len()) >= 90).cast(pl.Int32))
    folder = write_parts(tmp_path / "in", documents.head(90), [50])
    dedup(tmp_path, "out", folder)
    before = old_entries(tmp_path / "home-out")
    documents.slice(90).write_parquet(folder / "part-made-1-00000.parquet")
    grown, metrics = dedup(tmp_path, "out", folder)
    new = old_entries(tmp_path / "home-out").keys() - before.keys()
    assert len(new) == 1
    assert before.items() <= old_entries(tmp_path / "home-out").items()
    full, full_metrics = dedup(tmp_path, "full", folder)
    assert metrics == full_metrics
    names = sorted(str(path.relative_to(full)) for path in full.rglob("*.parquet"))
    assert all((grown / name).read_bytes() == (full / name).read_bytes() for name in names)
    early = [row for row in annotation(full).values() if row["id"] in set(documents["id"][:90])]
    assert all(row["duplicate_of"] is None or row["duplicate_of"] in set(documents["id"][:90]) for row in early)


def old_entries(home: Path) -> dict[Path, int]:
    return {entry: entry.stat().st_mtime_ns for entry in (home / "parts" / "dedup").iterdir()}


def test_little_memory_changes_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a budget that the signatures exceed, the arrays lie in mapped files; row groups are small, too."""
    mapped_files: list[str] = []
    real_memmap = np.memmap

    def noting_memmap(path: Path, *arguments: Any, **others: Any) -> np.memmap:
        mapped_files.append(path.name)
        return real_memmap(path, *arguments, **others)

    monkeypatch.setattr(np, "memmap", noting_memmap)
    many = make_documents(seed=8, families=900)
    (tmp_path / "in").mkdir()
    many.head(1_000).write_parquet(tmp_path / "in" / "part-made-0-00000.parquet", row_group_size=37)
    many.slice(1_000).write_parquet(tmp_path / "in" / "part-made-0-00001.parquet", row_group_size=3_000)
    mapped, metrics = dedup(tmp_path, "mapped", tmp_path / "in", memory_mb=1)
    assert {"array-1", "array-2"} <= set(mapped_files)
    mapped_files.clear()
    free, free_metrics = dedup(tmp_path, "free", tmp_path / "in")
    assert not [name for name in mapped_files if name.startswith("array")]
    assert metrics == free_metrics
    for path in sorted(free.rglob("*.parquet")):
        assert path.read_bytes() == (mapped / path.relative_to(free)).read_bytes()
    in_one_part, _ = dedup(tmp_path, "one", write_parts(tmp_path / "whole", many, []))
    assert annotation(in_one_part) == annotation(free)


def test_columns_in_any_order_and_ids_of_any_type(tmp_path: Path) -> None:
    rows = {"text": [ALIKE + "one", ALIKE + "two words", "other"], "note": [1, 2, 3], "id": [30, 20, 10]}
    output, _ = dedup(tmp_path, "out", write_parts(tmp_path / "in", pl.DataFrame(rows), [1]))
    assert {one: row["duplicate_of"] for one, row in annotation(output).items()} == {"30": "20", "20": None, "10": None}


def test_a_very_long_document_and_odd_ones(tmp_path: Path) -> None:
    """50 MB beside its own near copy, one character, none, null: each judged, none alike but the two."""
    generator = random.Random(2)
    long = " ".join(generator.choices(WORDS, k=200_000)) * 40
    assert len(long) > 50_000_000
    texts = [long, long + " and a little more", "x", "", None, "。。。", "文", "\u0301"]
    documents = pl.DataFrame({"id": list("abcdefgh"), "text": pl.Series(texts, dtype=pl.String)})
    output, metrics = dedup(tmp_path, "out", write_parts(tmp_path / "in", documents, []))
    rows = annotation(output)
    assert {one: row["duplicate_of"] for one, row in rows.items() if not row["kept"]} == {"a": "b"}
    assert rows["a"]["similarity"] > 0.999
    assert metrics["pairs"]["verified"] == 1


def test_the_index_loads_into_datasketch(tmp_path: Path, documents: pl.DataFrame) -> None:
    """A row of the index is a LeanMinHash as it is; MinHashLSH with our bands finds all that was dropped as near."""
    output, metrics = dedup(tmp_path, "out", write_parts(tmp_path / "in", documents, []))
    (stored,) = (tmp_path / "home-out" / "parts" / "dedup").glob("*/part-*.parquet")
    index = MinHashLSH(num_perm=128, params=(metrics["bands"], metrics["rows_per_band"]))
    sketches = {
        one: LeanMinHash(seed=1, hashvalues=np.frombuffer(row, np.uint32), scheme="affine32")
        for one, row in pl.read_parquet(stored).select("id", "signature").iter_rows()
    }
    for one, sketch in sketches.items():
        index.insert(one, sketch)
    near = [row for row in annotation(output).values() if row["reasons"] == ["dedup.near"]]
    assert len(near) > 50
    for row in near:
        assert row["duplicate_of"] in index.query(sketches[row["id"]])
        estimate = sketches[row["id"]].jaccard(sketches[row["duplicate_of"]])
        assert estimate == pytest.approx(row["similarity"], abs=0.2)


# ---- who stays -------------------------------------------------------------------------------------------------------

ALIKE = "the first copy of a text that came in twice and differs in its very last " + "word " * 3


def test_preference_decides_who_stays(tmp_path: Path) -> None:
    rows = {"id": ["a", "b", "c"], "text": [ALIKE + "one", ALIKE + "two", ALIKE + "three"]}
    folder = write_parts(tmp_path / "in", pl.DataFrame({**rows, "batch": [1, 0, 0]}), [])
    signals = write_parts(
        tmp_path / "signals", pl.DataFrame({"id": rows["id"], "n_chars": [9, 8, 7], "ttr": [None, 0.4, 0.5]}), []
    )

    def kept(*prefer: str) -> list[str]:
        output, _ = dedup(tmp_path, "out", folder, signals, prefer=list(prefer))
        return [one for one, row in annotation(output).items() if row["kept"]]

    assert kept("batch", "-n_chars", "id") == ["b"]
    assert kept("-n_chars") == ["a"]
    assert kept("-ttr") == ["c"]
    assert kept("ttr") == ["b"]
    assert kept("-id") == ["c"]
    assert kept() == ["a"]


def test_earlier_batches_win(tmp_path: Path) -> None:
    folder = write_parts(
        tmp_path / "in",
        pl.DataFrame({"id": ["new", "old"], "text": [ALIKE + "longer words", ALIKE], "batch": [1, 0]}),
        [],
    )
    output, _ = dedup(tmp_path, "out", folder)
    assert annotation(output)["new"]["duplicate_of"] == "old"


def test_copies_of_a_dropped_document_name_the_kept_one(tmp_path: Path) -> None:
    texts = [ALIKE + "and some more", ALIKE + "end", ALIKE + " end "]
    folder = write_parts(tmp_path / "in", pl.DataFrame({"id": ["a", "b", "c"], "text": texts}), [])
    output, metrics = dedup(tmp_path, "out", folder)
    rows = annotation(output)
    assert rows["b"]["duplicate_of"] == rows["c"]["duplicate_of"] == "a"
    assert rows["b"]["similarity"] == rows["c"]["similarity"] < 1
    assert metrics["dropped_by_reason"] == {"dedup.exact": 0, "dedup.near": 2}
    assert ("b", "c", 1.0) in edges(output)


def test_a_chain_is_cut_at_the_kept_document(tmp_path: Path) -> None:
    """a ~ b ~ c, but c is not like a: c stays."""
    words = [f"w{number}" for number in range(60)]
    texts = [" ".join(words[start : start + 40]) + "!" * (9 - start // 8) for start in (0, 8, 16)]
    folder = write_parts(tmp_path / "in", pl.DataFrame({"id": ["a", "b", "c"], "text": texts}), [])
    output, _ = dedup(tmp_path, "out", folder, prefer=["id"])
    assert [row["kept"] for row in annotation(output).values()] == [True, False, True]


@pytest.mark.parametrize("texts", [[""], ["", ""], ["x"], ["x", "y"], ["", "x", None], ["a b c d e f g h"] * 2])
def test_the_smallest_inputs(tmp_path: Path, texts: list[str | None]) -> None:
    ids = [str(number) for number in range(len(texts))]
    folder = write_parts(tmp_path / "in", pl.DataFrame({"id": ids, "text": pl.Series(texts, dtype=pl.String)}), [])
    _, metrics = dedup(tmp_path, "out", folder)
    copies = len(texts) - len({text or number for number, text in enumerate(texts)})
    assert metrics["rows"] == {"in": len(texts), "generated": 0, "kept": len(texts) - copies, "dropped": copies}


# ---- mistakes --------------------------------------------------------------------------------------------------------


def refused(tmp_path: Path, *inputs: Path, **params: Any) -> str:
    with pytest.raises(UserError) as error:
        dedup(tmp_path, "out", *inputs, **params)
    assert not (tmp_path / "out").exists()
    return str(error.value)


def test_an_unknown_preference_names_the_nearest(tmp_path: Path, documents: pl.DataFrame) -> None:
    folder = write_parts(tmp_path / "in", documents.head(3), [])
    assert "did you mean n_chars?" in refused(tmp_path, folder, prefer=["-n_char"])


def test_preferences_of_two_kinds_are_refused(tmp_path: Path) -> None:
    folder = write_parts(tmp_path / "in", pl.DataFrame({"id": ["a"], "text": ["x"], "rank": [1]}), [])
    pl.DataFrame({"id": ["b"], "text": ["y"], "rank": ["9"]}).write_parquet(folder / "part-made-1-00000.parquet")
    assert "`rank` holds numbers in" in refused(tmp_path, folder, prefer=["rank"])


def test_not_a_number_comes_last(tmp_path: Path) -> None:
    rows = {"id": ["a", "b"], "text": [ALIKE + "one", ALIKE + "two"], "ttr": [float("nan"), 0.1]}
    output, _ = dedup(tmp_path, "out", write_parts(tmp_path / "in", pl.DataFrame(rows), []), prefer=["-ttr"])
    assert annotation(output)["a"]["duplicate_of"] == "b"


def test_documents_without_ids_are_refused(tmp_path: Path) -> None:
    folder = write_parts(tmp_path / "in", pl.DataFrame({"text": ["x"]}), [])
    assert "has no column `id`" in refused(tmp_path, folder, prefer=["n_chars"])
    assert "has no column `id`" in refused(tmp_path, folder)
    folder = write_parts(tmp_path / "null", pl.DataFrame({"id": [None, "b"], "text": ["x", "y"]}), [])
    assert "a document has no id" in refused(tmp_path, folder)


def test_a_truncated_part_is_refused(tmp_path: Path, documents: pl.DataFrame) -> None:
    folder = write_parts(tmp_path / "in", documents, [50])
    part = folder / "part-made-0-00001.parquet"
    part.write_bytes(part.read_bytes()[:-100])
    assert str(part) in refused(tmp_path, folder)


def test_an_id_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    folder = write_parts(tmp_path / "in", pl.DataFrame({"id": ["a", "a"], "text": ["x", "y"]}), [1])
    assert "the id a occurs twice" in refused(tmp_path, folder)


def test_text_that_is_no_text_is_refused(tmp_path: Path) -> None:
    folder = write_parts(tmp_path / "in", pl.DataFrame({"id": ["a"], "text": [1]}), [])
    assert "the column `text` holds int64" in refused(tmp_path, folder)


def test_a_damaged_index_is_made_anew(tmp_path: Path, documents: pl.DataFrame) -> None:
    folder = write_parts(tmp_path / "in", documents, [])
    dedup(tmp_path, "out", folder)
    expected = digests(tmp_path / "out")
    (stored,) = (tmp_path / "home-out" / "parts" / "dedup").glob("*/part-*.parquet")
    whole = bytearray(stored.read_bytes())
    for place in (len(whole) // 2, 1_000):  # in a signature; in an id
        damaged = whole.copy()
        damaged[place] ^= 1
        stored.write_bytes(damaged)
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        dedup(tmp_path, "out", folder)
        assert digests(tmp_path / "out") == expected
        assert stored.read_bytes() == whole


def test_an_empty_part_is_no_corpus(tmp_path: Path, documents: pl.DataFrame) -> None:
    folder = write_parts(tmp_path / "in", documents.head(0), [])
    assert "no document to work on" in refused(tmp_path, folder)


# ---- version ---------------------------------------------------------------------------------------------------------


def test_golden(tmp_path: Path) -> None:
    folder = write_parts(tmp_path / "in", make_documents(seed=11, families=12), [])
    output, _ = dedup(tmp_path, "out", folder)
    everything = json.dumps([list(annotation(output).values()), edges(output)], ensure_ascii=False)
    digest = hashlib.blake2b(everything.encode(), digest_size=8).hexdigest()
    assert (stage.VERSION, digest) == (2, "90da8127fda6f7e5"), "dedup's output changed: if on purpose, raise VERSION"
