"""Topics: planted ones are found again, the numbers are the same again, and each agrees with a slow, obvious count."""

from __future__ import annotations

import dataclasses
import itertools
import math
import pickle
import random
import sys
import types
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from scipy.sparse import csr_array
from sklearn.decomposition import LatentDirichletAllocation

from corpus.errors import UserError
from corpus.measure import topics
from corpus.measure.topics import TopicModel, WordTable, coherence, fit_topics, model_key, topic_columns, word_counts
from corpus.params import Topics
from corpus.stage import Metrics, Part

ENGLISH = [
    ["engine", "wheel", "brake", "gear", "clutch", "motor", "tyre", "fuel", "piston", "exhaust"],
    ["oven", "flour", "butter", "sugar", "recipe", "dough", "baking", "yeast", "salt", "cream"],
    ["planet", "orbit", "star", "galaxy", "telescope", "comet", "moon", "rocket", "gravity", "nebula"],
]
CHINESE = [list("车轮刹油档马胎桥杆灯"), list("炉粉糖盐奶酵烤饼蛋碗"), list("星球轨镜彗河箭引云洞")]
METHODS = ["nmf", "lda"]
TYPES = {"id": pl.String, "text": pl.String, "lang": pl.String}
Facts = dict[str, Metrics]


def planted(number: int, seed: int = 0) -> pl.DataFrame:
    """Documents of one topic each: English ones with odd numbers, Chinese with even; the topic is in the id."""
    rng = random.Random(seed)
    rows = []
    for n in range(number):
        topic = rng.choices(range(3), [5, 3, 2])[0]
        words, lang, joint = (ENGLISH, "en", " the ") if n % 2 else (CHINESE, "zh-Hans", "")
        text = joint.join(rng.choices(words[topic], k=30)) + f" {n}"
        rows.append((f"{n}-{topic}", text, lang))
    return pl.DataFrame(rows, TYPES, orient="row")


def parts_of(folder: Path, *frames: pl.DataFrame) -> list[Part]:
    folder.mkdir(exist_ok=True)
    for number, frame in enumerate(frames):
        frame.write_parquet(folder / f"{number}.parquet")
    return [Part(f"{n}.parquet", (folder / f"{n}.parquet",), frame.height) for n, frame in enumerate(frames)]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[pl.DataFrame, dict[str, TopicModel], Facts]:
    documents = planted(300)
    parts = parts_of(tmp_path_factory.mktemp("topics"), documents[:90], documents[90:])
    return documents, *fit_topics(parts, Topics(count=3))


def test_planted_topics_are_found(found: tuple[pl.DataFrame, dict[str, TopicModel], Facts]) -> None:
    documents, _, facts = found
    assert set(facts) == {"en", "zh-Hans"}
    for language, words in (("en", ENGLISH), ("zh-Hans", CHINESE)):
        own = facts[language]
        assert own["documents"] == 150
        assert own["reason"] is None
        planted_shares = documents.filter(lang=language)["id"].str.slice(-1).value_counts()["count"].sort() / 150
        for topic, letters, share in zip(own["topics"], words, reversed(planted_shares.to_list()), strict=True):
            inside = set(letters) if language == "en" else {a + b for a in letters for b in letters}
            assert len(topic["words"]) == 10
            assert set(topic["words"]) <= inside
            assert topic["share"] == pytest.approx(share, abs=0.05)
            assert topic["coherence"] > (0.5 if language == "en" else 0.1)
        assert own["coherence"] == pytest.approx(np.mean([t["coherence"] for t in own["topics"]]), abs=1e-3)
        assert own["consistency"] > 0.9


def test_columns_name_the_planted_topic(found: tuple[pl.DataFrame, dict[str, TopicModel], Facts]) -> None:
    documents, models, _ = found
    columns = topic_columns(documents, models, Topics(count=3))
    assert columns.schema == topics.COLUMNS
    assert columns["topic"].to_list() == [int(own[-1]) for own in documents["id"]]
    assert columns["topic_share"].min() > 0.8
    mixed = " ".join(ENGLISH[0] + ENGLISH[1])
    odd = pl.DataFrame(
        {"id": list("abcdef"), "text": [mixed, "", "42 the", None, mixed, mixed], "lang": ["en"] * 4 + ["fr", None]},
        TYPES,
    )
    first, *rest = topic_columns(odd, models, Topics(count=3)).rows()
    assert first[1] == pytest.approx(0.5, abs=0.1)
    assert first[2] == pytest.approx(1 - math.log(2) / math.log(3), abs=0.05)
    assert rest == [(None, None, None)] * 5


@pytest.mark.parametrize("method", METHODS)
def test_neither_order_nor_parts_nor_company_changes_a_number(tmp_path: Path, method: str) -> None:
    documents = planted(160)
    params = Topics.model_validate({"count": 3, "method": method, "sample": 60})
    shuffled = documents.sample(fraction=1, shuffle=True, seed=4)
    models, facts = fit_topics(parts_of(tmp_path / "one", documents), params)
    others, again = fit_topics(parts_of(tmp_path / "many", shuffled[:50], shuffled[50:51], shuffled[51:]), params)
    assert again == facts
    assert facts["en"]["documents"] == 60
    assert model_key(others, params) == model_key(models, params)
    copied = pickle.loads(pickle.dumps(models))  # as a worker process gets them
    alone = pl.concat([topic_columns(documents[n : n + 1], copied, params) for n in range(40)])
    assert alone.rows() == topic_columns(documents, models, params).rows()[:40]


def test_what_decides_the_columns_is_in_the_key(found: tuple[pl.DataFrame, dict[str, TopicModel], Facts]) -> None:
    _, models, _ = found
    other = dataclasses.replace(models["en"], idf=models["en"].idf * 2)
    keys = [
        model_key(models, Topics()),
        model_key({}, Topics()),
        model_key(models | {"en": other}, Topics()),
        model_key(models, Topics(characters=10)),
        model_key(models, Topics(chinese="jieba")),
    ]
    assert len(set(keys)) == len(keys)
    assert model_key(models, Topics(count=7, sample=3, seed=9)) == keys[0]  # the models have these in them


def test_the_sample_depends_on_the_seed_and_reads_beginnings_only(tmp_path: Path) -> None:
    parts = parts_of(tmp_path, planted(160).filter(lang="en"))
    tables = [topics._sample(parts, Topics(sample=20, seed=seed))["en"] for seed in (0, 0, 1)]
    assert tables[0].rows.keys() == tables[1].rows.keys() != tables[2].rows.keys()
    beginnings = topics._sample(parts, Topics(characters=12))["en"]
    assert max(len(numbers) for numbers, _ in beginnings.rows.values()) == 2  # words in twelve characters
    assert len(beginnings.rows) < 80  # texts that begin alike count once


LINES = ["", "the", "oven oven", "oven butter flour", "oven butter", "烤饼", "wheel"]


@settings(max_examples=60)
@given(st.lists(st.sampled_from(LINES), max_size=40), st.sampled_from(METHODS), st.integers(1, 12), st.booleans())
def test_few_documents_or_words_have_fewer_topics_or_none(
    lines: list[str], method: str, count: int, different: bool
) -> None:
    table = WordTable()
    for number, line in enumerate(lines):
        table.add(f"{number} {line}" if different else line, "bigrams")
    params = Topics.model_validate({"count": count, "method": method})
    model, facts = topics.fit(table, params)
    assert len(facts["topics"]) <= min(count, facts["documents"] // 5)
    assert (facts["reason"] is None) == (len(facts["topics"]) == count)
    assert (model is None) == (not facts["topics"])
    numbers = [topic[name] for topic in facts["topics"] for name in ("share", "coherence") if topic[name] is not None]
    assert all(math.isfinite(number) for number in [*numbers, facts["coherence"] or 0, facts["consistency"] or 0])
    if model is not None:
        assert np.isfinite(model.components).all()
        documents = pl.DataFrame({"text": lines, "lang": ["en"] * len(lines)}, {"text": pl.String, "lang": pl.String})
        columns = topic_columns(documents, {"en": model}, params)
        assert columns["topic_share"].drop_nulls().is_between(0, 1).all()
        assert columns["topic_consistency"].drop_nulls().is_between(-1e-4, 1).all()


def test_a_reason_says_what_there_was(tmp_path: Path) -> None:
    models, facts = fit_topics(parts_of(tmp_path, planted(8)), Topics())
    assert models == {}
    assert facts["en"]["reason"] == "4 different texts share 10 words: too few for 10 topics"
    assert fit_topics([], Topics(count=0)) == ({}, {})


@given(st.lists(st.sets(st.integers(0, 4)), min_size=1, max_size=12))
def test_coherence_is_the_mean_npmi_of_pairs(documents: list[set[int]]) -> None:
    dense = np.array([[3 if word in own else 0 for word in range(5)] for own in documents], np.float64)
    pairs = []
    for a, b in itertools.combinations(range(5), 2):
        only_a, only_b = (sum(word in own for own in documents) / len(documents) for word in (a, b))
        both = sum(a in own and b in own for own in documents) / len(documents)
        if both == 0:
            pairs.append(-1.0)
        elif both == 1:
            pairs.append(1.0)
        else:
            pairs.append(math.log(both / only_a / only_b) / -math.log(both))
    assert coherence(csr_array(dense), np.arange(5)) == pytest.approx(sum(pairs) / 10, abs=6e-4)
    assert coherence(csr_array(dense), np.arange(1)) is None


def test_shares_are_those_of_other_solvers(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    counts = csr_array(rng.poisson(0.6, (40, 30)).astype(np.float64))
    words = tuple(f"w{n:02}" for n in range(30))
    components = rng.random((4, 30))
    components /= components.sum(axis=1, keepdims=True)
    shares = topics.topic_shares(TopicModel("nmf", words, np.ones(30), components), counts)
    for own, row in zip(shares, counts.toarray(), strict=True):
        weights, _ = nnls(components.T, row / np.linalg.norm(row))
        assert own == pytest.approx(weights / weights.sum(), abs=2e-3)
    monkeypatch.setattr(topics, "_SWEEPS", 1_000)  # so that both have arrived where they go
    lda = LatentDirichletAllocation(4, random_state=0, max_doc_update_iter=1_000, mean_change_tol=1e-9).fit(counts)
    shares = topics.topic_shares(TopicModel("lda", words, np.ones(30), lda.components_), counts)
    assert shares == pytest.approx(lda.transform(counts), abs=1e-4)


@given(st.text(st.sampled_from("aBé'’ _1中的备份用カ。<>"), max_size=30))
def test_words_have_two_letters_and_no_stop_word(text: str) -> None:
    counts = word_counts(text)
    assert all(len(word) >= 2 and word == word.lower() for word in counts)
    assert not any(set(word) & set("的中 _。<>") for word in counts)
    assert all(word[0].isalpha() and word.replace("'", "").isalnum() for word in counts)


def test_what_is_no_word_of_the_text_is_cut_out() -> None:
    text = "Write to <EMAIL> or see https://example.com/page?x=1、文件 at www.example.org!"
    assert dict(word_counts(text)) == {"write": 1, "see": 1, "文件": 1}


def test_words_by_rjieba_where_it_is_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cutter = types.SimpleNamespace(cut=lambda text: [text[at : at + 3] for at in range(0, len(text), 3)])
    monkeypatch.setitem(sys.modules, "rjieba", cutter)
    assert dict(word_counts("备份文件夹里的是", "jieba")) == {"备份文": 1, "件夹里": 1}  # 的是: stop characters alone
    monkeypatch.setitem(sys.modules, "rjieba", None)
    with pytest.raises(UserError, match=r"measure\.topics\.chinese: jieba needs rjieba, which is not installed"):
        fit_topics(parts_of(tmp_path, planted(20)), Topics(chinese="jieba"))
