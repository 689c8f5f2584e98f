"""Topics: what the documents of a language are about, by a model that is fitted on a sample of them.

With `measure.topics.signal` each document has three columns, null where no topic has any of its words, or where its
language has too few documents for a model:

- `topic` (int64, from 0): the topic that it has most of, by its place in the metrics: 0 is the largest.
- `topic_share` (float64, above 0 to 1): that topic's share of the document.
- `topic_consistency` (float64, 0 to 1): 1 if the document has one topic alone, 0 if it has all in equal parts: 1 minus
  Pielou's evenness of its shares (1966, J. Theor. Biol. 13), their entropy over its maximum. A definition of our own.

The sample of a language is the documents whose hashes of seed and id are smallest: the same ones in whatever order
the parts come. Of each the first `measure.topics.characters` characters are read, and of documents that begin with the
same text one counts. One thread computes from a fixed seed, and what is shown is rounded, so equal input gives equal
numbers; a processor of another make may add up in another order, and differ in a last digit.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import operator
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from corpus.errors import UserError
from corpus.measure.stop_words import stop_words
from corpus.params import Topics
from corpus.stage import Metrics, Part, batches
from corpus.text.scripts import UNSPACED

COLUMNS = {"topic": pl.Int64, "topic_share": pl.Float64, "topic_consistency": pl.Float64}
VIEW = 1  # raise it when `word_counts` or `topic_shares` give something else
TOP_WORDS = 10

_DOCUMENTS_A_TOPIC = 5  # fewer documents have fewer topics
_MAX_VOCABULARY = 8_000  # the words that most documents have
_MIN_DOCUMENTS, _MAX_DOCUMENT_SHARE = 2, 0.5  # words of fewer or more documents tell no topics apart
_SWEEPS = 50  # of inference; always as many, so that no document's shares depend on which others are in the batch

Floats = npt.NDArray[np.float64]
Row = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]  # a text: numbers of its words, and their counts
Matrix = Any  # scipy.sparse.csr_array, documents x words; scipy and scikit-learn are slow to import and untyped


@dataclasses.dataclass(frozen=True)
class TopicModel:
    """The topics of one language as plain arrays."""

    method: str  # "nmf" or "lda"
    vocabulary: tuple[str, ...]  # sorted
    idf: Floats  # weight of each word; 1 for lda
    components: Floats  # topics x words: each topic's shares (nmf), its pseudo-counts (lda)

    @functools.cached_property
    def numbers(self) -> dict[str, int]:
        """Word to number."""
        return {word: number for number, word in enumerate(self.vocabulary)}

    @functools.cached_property
    def fingerprint(self) -> str:
        """128-bit BLAKE2b of the content, in hex."""
        digest = hashlib.blake2b("\n".join([self.method, *self.vocabulary]).encode(), digest_size=16)
        for array in (self.idf, self.components):
            digest.update(array.tobytes())
        return digest.hexdigest()


def fit_topics(parts: Sequence[Part], params: Topics) -> tuple[dict[str, TopicModel], dict[str, Metrics]]:
    """Models by language (`und` where it is not known), and for the metrics the facts that `fit` gives, likewise.

    Reads ids and languages of all documents first, then the texts of the sample. Raises UserError where `chinese` asks
    for rjieba, which is not installed.
    """
    if not params.count:
        return {}, {}
    fitted = {language: fit(texts, params) for language, texts in sorted(_sample(parts, params).items())}
    models = {language: model for language, (model, _) in fitted.items() if model is not None}
    return models, {language: facts for language, (_, facts) in fitted.items()}


def model_key(models: Mapping[str, TopicModel], params: Topics) -> str:
    """All that decides `topic_columns`, for the key of a measured part."""
    own = {language: model.fingerprint for language, model in models.items()}
    return json.dumps([VIEW, params.chinese, params.characters, own], sort_keys=True)


def topic_columns(documents: pl.DataFrame, models: Mapping[str, TopicModel], params: Topics) -> pl.DataFrame:
    """COLUMNS of a batch of documents (text, lang), row by row, without their ids."""
    rows: list[tuple[int | None, float | None, float | None]] = [(None, None, None)] * documents.height
    texts, languages = _beginnings(documents, params), _languages(documents)
    for language in sorted(set(languages) & models.keys()):
        mine = (languages == language).arg_true().to_list()
        model = models[language]
        counted = [_numbered(word_counts(texts[row], params.chinese), model.numbers) for row in mine]
        shares = topic_shares(model, _matrix(counted, len(model.vocabulary)))
        for row, own, consistent in zip(mine, shares, consistency(shares), strict=True):
            if own.any():
                rows[row] = (int(own.argmax()), round(float(own.max()), 4), round(float(consistent), 4))
    return pl.DataFrame(rows, COLUMNS, orient="row")


# ---- words -----------------------------------------------------------------------------------------------------------

_STOP = stop_words(None) or frozenset()  # all lists: Chinese pages hold English, too
_cut_out = re.compile(r"(?:https?://|www\.)[!-~]+|<[A-Z_]+>").sub  # addresses, and what `clean` masks
_LETTER = rf"[^\W\d_{UNSPACED}]"
_find_words = re.compile(rf"{_LETTER}[^\W_{UNSPACED}]+(?:'{_LETTER}+)*").findall
_find_unspaced = re.compile(f"[{UNSPACED}]+").findall
_AT_STOP_CHARACTERS = str.maketrans(dict.fromkeys(_STOP & set(map(chr, range(0x3000, 0xA000))), " "))


def word_counts(text: str, chinese: str = "bigrams") -> Counter[str]:
    """The words that topics are made of and how often they occur: no numbers, no addresses, no stop words.

    Words have two letters or more, in lower case. Where a script has no spaces each pair of neighbours is a word unless
    one of them is a stop character, which parts words more often than it is part of one; or, with `jieba`, what
    rjieba cuts.

    >>> dict(word_counts("It’s Python, isn't it? See https://python.org"))
    {'python': 1, 'see': 1}
    >>> dict(word_counts("用Linux备份的数据。"))
    {'linux': 1, '备份': 1, '数据': 1}
    """
    text = _cut_out(" ", text).lower().replace("’", "'")
    found = _find_words(text)
    for run in _find_unspaced(text) if not text.isascii() else ():
        if chinese == "jieba":
            found += [word for word in _jieba_words(run) if len(word) > 1 and not _STOP.issuperset(word)]
        else:
            for piece in run.translate(_AT_STOP_CHARACTERS).split():
                found += map(operator.add, piece, piece[1:])
    counts = Counter(found)
    for word in _STOP.intersection(counts):
        del counts[word]
    return counts


def _jieba_words(text: str) -> list[str]:
    try:
        import rjieba
    except ImportError:
        raise UserError(
            "measure.topics.chinese: jieba needs rjieba, which is not installed: `pip install rjieba`, or say bigrams"
        ) from None
    words: list[str] = rjieba.cut(text)
    return words


def _numbered(counts: Mapping[str, int], numbers: Mapping[str, int]) -> Row:
    known = {numbers[word]: count for word, count in counts.items() if word in numbers}
    return np.array(list(known), np.int32), np.array(list(known.values()), np.int32)


# ---- the sample ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class WordTable:
    """Which words each text of a sample has, and how often, while it is being filled."""

    numbers: dict[str, int] = dataclasses.field(default_factory=dict)
    rows: dict[bytes, Row] = dataclasses.field(default_factory=dict)  # by hash of the text

    def add(self, text: str, chinese: str) -> None:
        """Count the words of a text; of one that was counted before, not again."""
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        if digest not in self.rows:
            counts = word_counts(text, chinese)
            for word in counts:
                self.numbers.setdefault(word, len(self.numbers))
            self.rows[digest] = _numbered(counts, self.numbers)

    def matrix(self) -> tuple[Matrix, npt.NDArray[np.object_]]:
        """Counts of texts x words with the words, both in an order of their own; texts without a word are left out."""
        words = np.array(list(self.numbers), np.object_)
        order = np.argsort(words, kind="stable")
        rank = np.argsort(order, kind="stable")
        rows = [self.rows[digest] for digest in sorted(self.rows)]
        ranked = [(rank[numbers].astype(np.int32), counts) for numbers, counts in rows if len(numbers)]
        return _matrix(ranked, len(words)), words[order]


def _sample(parts: Sequence[Part], params: Topics) -> dict[str, WordTable]:
    """By language, the words of the sample."""
    smallest: dict[str, npt.NDArray[np.uint64]] = {}
    for part in parts:
        for batch in batches(part, [], {"lang": None}):
            keys, languages = _hashes(batch, params.seed), _languages(batch)
            for language in set(languages):
                own = keys[(languages == language).to_numpy()]
                smallest[language] = np.sort(np.append(smallest.get(language, own[:0]), own))[: params.sample]
    tables: dict[str, WordTable] = defaultdict(WordTable)
    for part in parts:
        for batch in batches(part, ["text"], {"lang": None}):
            keys = _hashes(batch, params.seed)
            for key, text, language in zip(keys, _beginnings(batch, params), _languages(batch), strict=True):
                if key <= smallest[language][-1]:
                    tables[language].add(text, params.chinese)
    return tables


def _hashes(documents: pl.DataFrame, seed: int) -> npt.NDArray[np.uint64]:
    digests = (hashlib.blake2b(f"{seed}\0{own}".encode(), digest_size=8).digest() for own in documents["id"])
    return np.frombuffer(b"".join(digests), np.dtype(">u8")).astype(np.uint64)


def _beginnings(documents: pl.DataFrame, params: Topics) -> pl.Series:
    return documents["text"].cast(pl.String).fill_null("").str.head(params.characters)


def _languages(documents: pl.DataFrame) -> pl.Series:
    return documents["lang"].cast(pl.String).fill_null("und")


def _matrix(rows: Sequence[Row], width: int) -> Matrix:
    """Counts of documents x words."""
    from scipy.sparse import csr_array

    ends = np.cumsum([0, *(len(numbers) for numbers, _ in rows)])
    numbers, counts = (np.concatenate([np.zeros(0, np.int32), *(row[side] for row in rows)]) for side in (0, 1))
    matrix = csr_array((counts.astype(np.float64), numbers, ends), shape=(len(rows), width))
    matrix.sort_indices()  # so that sums do not depend on the order in which a text has its words
    return matrix


# ---- the model -------------------------------------------------------------------------------------------------------


def fit(table: WordTable, params: Topics) -> tuple[TopicModel | None, Metrics]:
    """The model of a sample (None: too few documents or words), and the facts about it.

    Facts: `documents` (different texts with a word), `vocabulary` (words), `topics` (`share` of the sample, `coherence`
    and top `words` of each, the largest first), their mean `coherence`, the documents' mean `consistency` (both null
    without topics) and `reason`: why there are fewer topics than asked for, or null.
    """
    counts, words = table.matrix()
    documents = counts.shape[0]
    present = np.bincount(counts.indices, minlength=len(words))
    telling = np.flatnonzero((present >= _MIN_DOCUMENTS) & (present <= _MAX_DOCUMENT_SHARE * documents))
    telling = np.sort(telling[np.argsort(-present[telling], kind="stable")][:_MAX_VOCABULARY])
    counts, present = counts[:, telling], present[telling]
    facts: Metrics = {"method": params.method, "documents": documents, "vocabulary": len(telling)}
    topics = min(params.count, documents // _DOCUMENTS_A_TOPIC, len(telling))
    few = f"{documents} different texts share {len(telling)} words: too few for {params.count} topics"
    if not topics:
        return None, facts | {"topics": [], "coherence": None, "consistency": None, "reason": few}
    idf = np.log((1 + documents) / (1 + present)) + 1 if params.method == "nmf" else np.ones(len(telling))
    model = TopicModel(params.method, tuple(words[telling]), idf, _components(counts, idf, params, topics))
    shares = topic_shares(model, counts)
    largest_first = np.argsort(-shares.sum(axis=0).round(6), kind="stable")
    model = dataclasses.replace(model, components=model.components[largest_first])
    shares = shares[shares.any(axis=1)][:, largest_first]
    described: list[Metrics] = []
    for share, weights in zip(shares.mean(axis=0), model.components, strict=True):
        top = np.argsort(-weights, kind="stable")[:TOP_WORDS]
        top = top[weights[top] > 0]
        own = {"coherence": coherence(counts, top), "words": [model.vocabulary[number] for number in top]}
        described.append({"share": round(float(share), 4), **own})
    known: list[float] = [topic["coherence"] for topic in described if topic["coherence"] is not None]
    return model, facts | {
        "topics": described,
        "coherence": round(sum(known) / len(known), 3) if known else None,
        "consistency": round(float(consistency(shares).mean()), 3),
        "reason": few if len(described) < params.count else None,
    }


def _components(counts: Matrix, idf: Floats, params: Topics, topics: int) -> Floats:
    """Topics x words; topics that came out empty are left out."""
    from sklearn.decomposition import NMF, LatentDirichletAllocation
    from threadpoolctl import threadpool_limits

    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")  # not converged to the last digit
        if params.method == "lda":
            lda = LatentDirichletAllocation(topics, learning_method="online", max_iter=5, random_state=params.seed)
            components: Floats = lda.fit(counts).components_
            return components
        # 100 rounds: twice as many, its default, take twice as long and move the mean coherence by less than 0.01.
        nmf = NMF(topics, init="nndsvd", max_iter=100, random_state=params.seed).fit(_tf_idf(counts, idf))
    components = nmf.components_[nmf.components_.any(axis=1)]
    components /= components.sum(axis=1, keepdims=True)
    return components


def _tf_idf(counts: Matrix, idf: Floats) -> Matrix:
    """Weighted counts, each document of length 1."""
    weighted = counts.copy()
    weighted.data = counts.data * idf[counts.indices]
    length = np.sqrt(weighted.power(2).sum(axis=1))
    weighted.data /= np.repeat(length, np.diff(counts.indptr))
    return weighted


def topic_shares(model: TopicModel, counts: Matrix) -> Floats:
    """Documents x topics: each document's shares, which sum to 1, or are all 0 where no topic has any of its words.

    nmf: non-negative least squares of the TF-IDF weights by coordinate descent. lda: variational inference (Hoffman,
    Blei & Bach 2010, algorithm 2, E step) with scikit-learn's prior of 1 / topics.
    """
    from threadpoolctl import threadpool_limits

    infer = _nmf_weights if model.method == "nmf" else _lda_weights
    with threadpool_limits(1):
        some = [infer(model, counts[at : at + 1_000]) for at in range(0, max(counts.shape[0], 1), 1_000)]
    weights: Floats = np.concatenate(some)
    total = weights.sum(axis=1, keepdims=True)
    weights /= np.where(total > 0, total, 1)
    return weights


def _nmf_weights(model: TopicModel, counts: Matrix) -> Floats:
    gram = model.components @ model.components.T
    target = np.ascontiguousarray((_tf_idf(counts, model.idf) @ model.components.T).T)
    weights: Floats = np.zeros_like(target)
    for _ in range(_SWEEPS):
        for topic, row in enumerate(gram):
            weights[topic] = np.maximum(weights[topic] + (target[topic] - row @ weights) / row[topic], 0)
    return weights.T


def _lda_weights(model: TopicModel, counts: Matrix) -> Floats:
    from scipy.special import psi

    prior = 1 / len(model.components)
    words = np.exp(psi(model.components) - psi(model.components.sum(axis=1, keepdims=True))).T
    document = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    weights = np.ones((counts.shape[0], len(model.components)))
    explained = counts.copy()
    for _ in range(_SWEEPS):
        own = np.exp(psi(weights) - psi(weights.sum(axis=1, keepdims=True)))
        explained.data = counts.data / (np.einsum("nt,nt->n", own[document], words[counts.indices]) + 1e-100)
        weights = prior + own * (explained @ words)
    weights[np.diff(counts.indptr) == 0] = 0  # no word, no topic
    return weights


# ---- measures of topics ----------------------------------------------------------------------------------------------


def coherence(counts: Matrix, words: npt.NDArray[np.int64]) -> float | None:
    """Mean normalised pointwise mutual information of all pairs of some words; None of less than two words.

    From -1 (no document has both) over 0 (as often together as by chance) to 1 (only together), counted in documents.
    NPMI: Bouma 2009; as a topic's coherence, which agrees with what people judge: Lau, Newman & Baldwin 2014.
    """
    if len(words) < 2:
        return None
    present = (counts[:, words] > 0).astype(np.float64)
    together = (present.T @ present).toarray() / counts.shape[0]
    alone = np.diag(together)
    first, second = np.triu_indices(len(words), 1)
    both = together[first, second]
    with np.errstate(divide="ignore", invalid="ignore"):
        npmi = np.log(both / (alone[first] * alone[second])) / -np.log(both)
    return round(float(np.where(both == 0, -1.0, np.where(both == 1, 1.0, npmi)).mean()), 3)


def consistency(shares: Floats) -> Floats:
    """Of each document, how much one topic prevails, 0 to 1; 1 if there is one topic only.

    >>> consistency(np.array([[1.0, 0.0], [0.5, 0.5], [0.75, 0.25]])).round(3).tolist()
    [1.0, 0.0, 0.189]
    """
    topics = shares.shape[1]
    if topics < 2:
        return np.ones(len(shares))
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    evenness: Floats = -(shares * logs).sum(axis=1) / np.log(topics)
    return 1 - evenness
