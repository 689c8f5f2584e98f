"""Compiled kernels on bytes that may be no UTF-8: what they find is what plain Python finds, and each text is alone."""

from __future__ import annotations

import itertools
import unicodedata
from pathlib import Path

import numpy as np
import polars as pl

from corpus.clean.blocks import blocks_of, date_of, nearest, title_of
from corpus.clean.main_text import judge
from corpus.clean.markup import TAGS, Markup, attribute_spans, parse, text_of_run
from corpus.dedup.bands import choose_bands
from corpus.dedup.memory import Budget
from corpus.dedup.shingles import ROTATION, count_distinct, permutations, shingle_sets, signatures
from corpus.dedup.star import ShingleSets, greedy_star
from corpus.measure.characters import KINDS, count_characters
from corpus.measure.lexical import count_words
from corpus.measure.lines import count_lines
from corpus.measure.repetition import count_repeated_grams, count_repeated_lines
from corpus.measure.stage import measure
from corpus.measure.stop_words import hashed_stop_words
from corpus.params import Measure
from corpus.split.short import PAIRS, similar_short
from corpus.text.buffers import Texts
from corpus.text.exact import exact_key, exact_keys
from corpus.text.ngram_lm import score_texts, score_tokens, sentences
from corpus.text.ngram_train import number_tokens, train
from corpus.text.segment import lm_view, segment, words_view
from corpus.text.tokens import tokenise

from .oracles import slow_hash, slow_shingles, slow_signature, slow_tokens
from .seeds import PARTS

_NUM_PERM, _SEED = 16, 7


def texts_of(pieces: list[bytes]) -> Texts:
    """Bytes as a column of texts, whatever they are."""
    return Texts(np.frombuffer(b"".join(pieces), np.uint8), np.cumsum([0, *map(len, pieces)], dtype=np.int64))


def options_and_pieces(data: bytes) -> tuple[int, list[bytes]]:
    """The first byte of an input, which chooses settings, and the texts that follow it."""
    return data[0] if data else 0, data[1:].split(PARTS)


def decoded(piece: bytes) -> str | None:
    """A text as a string, halves of characters included; None if it is no UTF-8."""
    try:
        return piece.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None


def spans(data: bytes) -> None:
    """Tokens lie in their text in order; between them is nothing but white space, marks and invisible characters."""
    options, pieces = options_and_pieces(data)
    view = lm_view() if options & 1 else words_view()
    texts = texts_of(pieces)
    joined = np.frombuffer(texts.data.tobytes(), np.uint8) & 1 if options & 2 else None
    found = segment(texts, view, joined)
    for number, piece in enumerate(pieces):
        own = slice(found.offsets[number], found.offsets[number + 1])
        start = int(texts.offsets[number])
        alone = segment(texts_of([piece]), view, None if joined is None else joined[start : start + len(piece)].copy())
        assert (alone.hashes == found.hashes[own]).all()
        assert (alone.flags == found.flags[own]).all()
        assert (alone.starts == found.starts[own] - start).all()
        at, text = 0, decoded(piece)
        places = zip(alone.starts.tolist(), alone.ends.tolist(), alone.lengths.tolist(), strict=True)
        for first, end, length in places:
            assert at <= first < end <= len(piece)
            if text is not None:
                assert _separates(piece[at:first]), piece[at:first]
                assert len(piece[first:end].decode("utf-8", "surrogatepass")) == length
            at = end
        assert text is None or _separates(piece[at:])


def _separates(between: bytes) -> bool:
    text = between.decode("utf-8", "surrogatepass")
    return all(c.isspace() or unicodedata.category(c)[0] == "M" or unicodedata.category(c) == "Cf" for c in text)


def shingles(data: bytes) -> None:
    """Tokens, shingles, their counts, signatures and exact keys are those of plain Python."""
    options, pieces = options_and_pieces(data)
    ngram, short = 1 + options % 7, bool(options & 8)
    tokens = tokenise(texts_of(pieces))
    keys = exact_keys(tokens.texts)
    sets = shingle_sets(tokens, ngram, short)
    counts = count_distinct(tokens, ngram, 5)
    rows = signatures(tokens, ngram, _NUM_PERM, _SEED)
    factors, summands = (each.tolist() for each in permutations(_NUM_PERM, _SEED))
    for number, piece in enumerate(pieces):
        own = tokens.hashes[tokens.offsets[number] : tokens.offsets[number + 1]].tolist()
        text = decoded(piece)
        if text is None:
            assert own == tokenise(texts_of([piece])).hashes.tolist()
        else:
            assert own == [slow_hash(token) for token in slow_tokens(text)]
            assert keys[number] == exact_key(text)
        full = slow_shingles(own, ngram, ROTATION)
        fewer = slow_shingles(own, len(own), ROTATION) if short and 0 < len(own) < ngram else full
        assert sets.hashes[sets.offsets[number] : sets.offsets[number + 1]].tolist() == sorted(fewer)
        assert counts[number] == min(5, len(full))
        assert rows[number].tolist() == slow_signature(full, factors, summands)


def measures(data: bytes) -> None:
    """Counts of a text are the same beside others and alone, and sum up to what Python counts."""
    options, pieces = options_and_pieces(data)
    texts = texts_of(pieces)
    together = _counts(texts, options)
    for number, piece in enumerate(pieces):
        row = together.row(number, named=True)
        assert row == _counts(texts_of([piece]), options).row(0, named=True), piece
        assert all(value >= 0 for value in row.values())
        text = decoded(piece)
        if text is not None:
            assert sum(row[kind] for kind in KINDS) == len(text)
            assert (row["newlines"], row["hashes"]) == (text.count("\n"), text.count("#"))
            assert row["split_lines"] == len(text.splitlines())
            assert row["spaced_words"] == len(text.split())
            assert row["words"] <= row["tokens"] and row["types"] <= row["lexical_words"]


def signals(data: bytes) -> None:
    """Signals are numbers or null, none of them infinite, and those of a document do not depend on the others."""
    options, pieces = options_and_pieces(data)
    texts = [piece.decode("utf-8", "replace") for piece in pieces]
    languages = [("en", "zh-Hans", None)[(options + number) % 3] for number in range(len(texts))]
    columns = {"id": [str(number) for number in range(len(texts))], "text": texts, "lang": languages}
    documents = pl.DataFrame(columns, {"id": pl.String, "text": pl.String, "lang": pl.String})
    found = measure(documents, Measure(mattr_window=1 + options // 8))
    for name, dtype in found.schema.items():
        if dtype.is_numeric():
            values = found[name].drop_nulls().cast(pl.Float64)
            assert values.is_finite().all() and (values >= 0).all(), (name, values.to_list())
    for number in range(len(texts)):
        assert measure(documents[number], Measure(mattr_window=1 + options // 8)).equals(found[number])


def _counts(texts: Texts, options: int) -> pl.DataFrame:
    found = segment(texts, words_view(), places=False)
    lists = np.full(len(texts), options % 4 - 1, np.int64)
    return pl.concat(
        [
            *(count_characters(texts), count_lines(texts), count_repeated_lines(texts), count_repeated_grams(found)),
            count_words(found, 1 + options // 4, hashed_stop_words(), lists),
        ],
        how="horizontal",
    )


def language_model(data: bytes) -> None:
    """A model of some texts scores any others: probabilities at most 1, and a text the same beside others and alone."""
    options, pieces = options_and_pieces(data)
    learnt, asked = pieces[: len(pieces) // 2 + 1], pieces
    numbered = number_tokens([texts_of(learnt)])
    if not numbered.tokens:
        return
    prune = [[], [0, 1], [1], [0, 0, 2]][options // 4 % 4]
    model = train(numbered, 1 + options % 4, prune).model
    texts = texts_of(asked)
    scores = score_tokens(model, sentences(texts).tokens)
    assert (scores.log_probs >= 0).all() and (scores.alone >= -1).all()
    limit = options // 16 or None
    together = score_texts(model, texts, limit).to_dicts()
    assert together == [score_texts(model, texts_of([piece]), limit).to_dicts()[0] for piece in asked]
    for row in together:
        assert (row["ppl"] is None) == (row["lm_tokens"] == 0)
        assert all(row[name] is None or row[name] >= 1 for name in ("ppl", "ppl_excl_oov"))
        assert row["oov_rate"] is None or 0 <= row["oov_rate"] <= 1


def similar_sets(data: bytes) -> None:
    """Short documents: all pairs that reach the threshold. Duplicates: each dropped one resembles a kept one."""
    options, pieces = options_and_pieces(data)
    threshold = (1 + options % 10) / 10
    sets = [set(piece) for piece in pieces if piece][:PAIRS]
    if not sets:
        return
    hashes = np.array([one for each in sets for one in sorted(each)], np.uint64)
    offsets = np.cumsum([0, *map(len, sets)])
    left, right = similar_short(hashes, offsets, threshold)
    alike = [pair for pair in itertools.combinations(range(len(sets)), 2) if _reaches(sets, *pair, threshold)]
    assert sorted(zip(left.tolist(), right.tolist(), strict=True)) == alike
    tokens = tokenise(Texts.of_strings([" ".join(f"w{one}" for one in sorted(each)) for each in sets]))
    shingled, rows = shingle_sets(tokens, 1), signatures(tokens, 1, _NUM_PERM, _SEED)

    def fetch(numbers: np.ndarray) -> ShingleSets:
        chunks = [shingled.hashes[shingled.offsets[n] : shingled.offsets[n + 1]] for n in numbers.tolist()]
        sizes = np.array([*map(len, chunks)], np.int64)
        return ShingleSets(chunks, np.cumsum(sizes) - sizes, sizes)

    bands = choose_bands(threshold, threshold, _NUM_PERM)
    star = greedy_star(rows, *bands, threshold, threshold, fetch, Budget(1_000, Path()))
    half = len(sets) // 2
    first = greedy_star(rows[:half], *bands, threshold, threshold, fetch, Budget(1_000, Path()))
    grown = greedy_star(rows, *bands, threshold, threshold, fetch, Budget(1_000, Path()), earlier=first)
    assert all((a == b).all() for a, b in zip(star[:5], grown[:5], strict=True))
    for number, kept in enumerate(star.kept_of.tolist()):
        if kept >= 0:
            assert kept < number and star.kept_of[kept] == -1
            assert _reaches(sets, kept, number, threshold)
        equals = [other for other in range(number) if sets[other] == sets[number]]
        assert kept >= 0 or not equals


def _reaches(sets: list[set[int]], left: int, right: int, threshold: float) -> bool:
    return len(sets[left] & sets[right]) >= threshold * len(sets[left] | sets[right])


def markup(data: bytes) -> None:
    """A tree of any string is sound: elements within their parents, and runs of text apart and in order."""
    page = data[1:].decode("utf-8", "surrogateescape")
    found = parse(page)
    _check_tree(found)
    for run in range(len(found.run_start)):
        text_of_run(found, run)
    values = attribute_spans(found, ("href", "class", "style", "datetime"))
    assert ((values == -1) | ((values >= 0) & (values <= len(found.source)))).all()
    assert (values[:, :, 0] <= values[:, :, 1]).all()
    around = nearest(found, frozenset({"div", "p"}))
    assert (around <= np.arange(len(found.tag))).all()
    blocks = blocks_of(found, mark_code=bool(data[:1] > b"\x7f"))
    assert all(len(blocks.text) == len(column) for column in blocks[1:])
    assert (blocks.link_chars <= blocks.chars).all() and (blocks.hidden_chars <= blocks.chars).all()
    assert (blocks.first_run < blocks.end_run).all()
    if blocks.text:
        probability = judge(found, blocks).probability
        assert ((probability >= 0) & (probability <= 1)).all()
    title_of(found)
    date_of(found)


def _check_tree(found: Markup) -> None:
    count = len(found.tag)
    places = np.arange(1, count)
    assert found.parent[0] == -1 and (found.parent[1:] < places).all() and (found.parent[1:] >= 0).all()
    assert (found.depth[1:] == found.depth[found.parent[1:]] + 1).all()
    assert (found.subtree_end > np.arange(count)).all() and (found.subtree_end <= count).all()
    assert (found.subtree_end[1:] <= found.subtree_end[found.parent[1:]]).all()
    assert (found.tag < len(TAGS)).all() and found.deepest == found.depth.max()
    assert (np.diff(found.start) >= 0).all() and (found.attributes_start <= found.attributes_end).all()
    size = len(found.source)
    assert (found.run_start < found.run_end).all() and (found.run_end <= size).all()
    assert (found.run_start[1:] >= found.run_end[:-1]).all()
    assert (found.run_element < count).all() and (found.run_element >= 0).all()
