"""What holds for any bytes. Each target reads some and raises AssertionError, or crashes, where its promise is broken.

Hypothesis draws bytes for all of them in `test_fuzz.py`, also with the kernels' reads and writes checked against the
bounds of their arrays; `python tests/fuzz/run.py` has atheris look for bytes that reach new code.
"""

from __future__ import annotations

import contextlib
import functools
import io
import math
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from corpus.clean.decode import decode, looks_like_text
from corpus.clean.document import Refused, Settings, clean_row
from corpus.clean.extract import unfit
from corpus.clean.markup import parse
from corpus.clean.normalise import normalise
from corpus.clean.personal import mask_personal_data
from corpus.dedup.shingles import count_distinct, shingle_sets, signatures
from corpus.errors import UserError
from corpus.measure.stage import measure
from corpus.params import Clean, Params, load
from corpus.scrape.archives import Capture, captures, decode_body, page_of, split_http
from corpus.scrape.files import list_files
from corpus.scrape.inflate import DEFLATE, GZIP, ZLIB, inflate
from corpus.scrape.rows import read_files
from corpus.scrape.urls import normalise_url
from corpus.sources import RowSource
from corpus.text.buffers import Texts
from corpus.text.exact import exact_key, exact_keys
from corpus.text.ngram_lm import NgramModel, score_texts
from corpus.text.ngram_train import number_tokens, train
from corpus.text.segment import lm_view, segment, words_view
from corpus.text.sentences import split_sentences
from corpus.text.tokens import tokenise

LIMIT = 1_000  # bytes that a body may inflate to
WORDS = "The keeper wrote down the weather.\nThe ships came back in autumn 1994, 他说：“好。”\n"


def pieces(data: bytes) -> list[bytes]:
    """Some texts out of bytes: cut at each 0xFF, which UTF-8 never has."""
    return data.split(b"\xff")


def buffers(parts: list[bytes]) -> Texts:
    """A column whose texts lie end to end, so that reading past one is reading the next."""
    return Texts(np.frombuffer(b"".join(parts), np.uint8), np.cumsum([0, *map(len, parts)]))


def text_of(data: bytes) -> str:
    return data.decode("utf-8", "replace")


# ---- kernels ---------------------------------------------------------------------------------------------------------


def spans(data: bytes) -> None:
    """Tokens lie within their text, one after the other, and leave out nothing that is a letter or a digit."""
    texts = buffers(pieces(data))
    for view in (words_view(), lm_view()):
        found = segment(texts, view)
        assert found.offsets[0] == 0 and found.offsets[-1] == len(found.hashes) == len(found.starts)
        for number in range(len(texts)):
            own = slice(found.offsets[number], found.offsets[number + 1])
            starts, ends = found.starts[own], found.ends[own]
            assert (starts >= texts.offsets[number]).all() and (ends <= texts.offsets[number + 1]).all()
            assert (starts <= ends).all() and (starts[1:] >= ends[:-1]).all()
    text = text_of(data)
    whole = text.encode()
    found = segment(buffers([whole]), words_view())
    kept = [whole[start:end].decode() for start, end in zip(found.starts, found.ends, strict=True)]
    gaps = zip([0, *found.ends], [*found.starts, len(whole)], strict=True)
    left_out = [whole[start:end].decode() for start, end in gaps]
    assert left_out[0] + "".join(a + b for a, b in zip(kept, left_out[1:], strict=True)) == text
    assert not any(character.isalnum() for gap in left_out for character in gap), left_out


def tokens(data: bytes) -> None:
    """A text's tokens and its exact key are its own, whatever lies beside it in the column."""
    parts = pieces(data)
    together, keys = tokenise(buffers(parts)), exact_keys(buffers(parts))
    for number, part in enumerate(parts):
        alone = tokenise(buffers([part]))
        own = together.hashes[together.offsets[number] : together.offsets[number + 1]]
        assert own.tolist() == alone.hashes.tolist()
        assert [keys[number]] == exact_keys(buffers([part]))
    text = unicodedata.normalize("NFC", text_of(data))
    assert exact_keys(buffers([text.encode()])) == [exact_key(text)]


def shingles(data: bytes) -> None:
    """Sets of shingles are those of a slow reader; a signature depends on the set alone."""
    parts = pieces(data)
    found = tokenise(buffers(parts))
    for ngram in (1, 3):
        sets = shingle_sets(found, ngram)
        counts = count_distinct(found, ngram, 5)
        for number in range(len(parts)):
            own = found.hashes[found.offsets[number] : found.offsets[number + 1]].tolist()
            slow = {tuple(own[at : at + ngram]) for at in range(len(own) - ngram + 1)}
            hashes = sets.hashes[sets.offsets[number] : sets.offsets[number + 1]].tolist()
            assert len(hashes) == len(slow) and hashes == sorted(set(hashes))
            assert counts[number] == min(5, len(slow))
    assert signatures(found, 3, 16, 1).shape == (len(parts), 16)
    whole = [text_of(part).encode() for part in parts]  # half a character would take the space after it
    once, again = (signatures(tokenise(buffers([b" ".join([part] * n) for part in whole])), 1, 16, 1) for n in (1, 2))
    assert once.tolist() == again.tolist()


def signals(data: bytes) -> None:
    """Signals are numbers or null, shares lie between 0 and 1, and none depends on the other documents."""
    parts = [text_of(part) for part in pieces(data)]
    languages = [("en", "zh-Hans", None)[number % 3] for number in range(len(parts))]
    documents = pl.DataFrame({"id": [str(n) for n in range(len(parts))], "text": parts, "lang": languages})
    documents = documents.cast({"lang": pl.String})
    found = measure(documents, Params().measure)
    for name, dtype in found.schema.items():
        if dtype.is_float():
            values = found[name].drop_nulls()
            assert values.is_finite().all(), (name, values.to_list())
            assert not name.endswith("_ratio") or not len(values) or values.min() >= 0, name
    for number in range(len(parts)):
        assert measure(documents[number], Params().measure).equals(found[number])


@functools.cache
def small_model() -> NgramModel:
    return train(number_tokens([Texts.of(pa.array([WORDS * 3]))]), 3).model


def language_model(data: bytes) -> None:
    """Scores are finite and a text's own; training on any text that has a token ends in a model that scores it."""
    parts = pieces(data)
    found = score_texts(small_model(), buffers(parts))
    for number, row in enumerate(found.iter_rows(named=True)):
        assert all(value is None or math.isfinite(value) for value in row.values()), row
        assert row["ppl"] is None or row["ppl"] >= 1
        (alone,) = score_texts(small_model(), buffers([parts[number]])).iter_rows(named=True)
        assert alone == row
    numbered = number_tokens([buffers(parts)])
    if numbered.tokens:
        own = score_texts(train(numbered, 3).model, buffers(parts))
        assert own["lm_tokens"].sum() >= numbered.tokens  # and the ends of sentences
        assert not own["oov_rate"].sum()


# ---- readers ---------------------------------------------------------------------------------------------------------


def decoders(data: bytes) -> None:
    """Any page is text that can be written again, or none we can tell; normalising it once more changes nothing."""
    looks_like_text(data)
    found = decode(data)
    if found is not None:
        found.text.encode("utf-8")
        text = normalise(found.text).text
        assert unicodedata.is_normalized("NFC", text) and "\0" not in text
        assert normalise(text, repair=False).text == text  # ftfy may find something in what it made itself
        masked, counts = mask_personal_data(text)
        assert counts or masked == text
        assert "".join("".join(split_sentences(text)).split()) == "".join(text.split())


def html(data: bytes) -> None:
    """A page becomes a document or a reason, and its markup a tree whose parents come first."""
    page = text_of(data)
    markup = parse(page)
    parents = markup.parent
    assert all(-1 <= int(parents[n]) < max(n, 1) for n in range(len(parents)))
    unfit(markup, 500)
    try:
        columns = clean_row({"body": data, "content_type": "text/html"}, PLAIN)
    except Refused as refused:
        assert refused.reason.startswith("clean.")
    else:
        text = columns["text"]
        assert text.strip() and unicodedata.is_normalized("NFC", text)
        text.encode("utf-8")


PLAIN = Settings(Clean.model_validate({"extractor": "resiliparse"}), lang="en")  # the fastest; auto asks them all


def compressed(data: bytes) -> None:
    """Whatever is inflated stays within its limit."""
    for window in (GZIP, ZLIB, DEFLATE):
        try:
            assert len(inflate(data, LIMIT, window)) <= LIMIT + 1
        except ValueError:
            continue


def archive(data: bytes) -> None:
    """Records and damages lie in the archive, and each record is a page or says why not."""
    for found in captures(io.BytesIO(data), len(data), LIMIT):
        assert 0 <= found.offset <= len(data)
        if isinstance(found, Capture):
            row = page_of(found, LIMIT, "here")
            assert ("body" in row and len(row["body"]) <= LIMIT + 1) or row["reason"]
    status, headers, body = split_http(data)
    assert status is None or status >= 0
    with contextlib.suppress(ValueError):
        assert len(decode_body(body, headers, LIMIT)) <= max(LIMIT + 1, len(body))


def rows(data: bytes) -> None:
    """Each line of JSONL that is not blank, each record of CSV and each file of text is a document or a reason."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        for kind, suffix in (("jsonl", "jsonl"), ("csv", "csv"), ("text", "txt"), ("jsonl", "json")):
            path = Path(folder) / f"rows.{suffix}"
            path.write_bytes(data)
            source = RowSource.model_validate({"name": "rows", "kind": kind, "path": str(path)})
            try:
                found = list(read_files(source, list_files(str(path), kind), Counter()))
            except UserError:  # a table without a header
                assert kind == "csv"
                continue
            assert all(row.get("reason") or row["text"].encode("utf-8") is not None for row in found)
            assert len({row["id"] for row in found if "raw" not in row}) == len([r for r in found if "raw" not in r])
            if suffix == "jsonl" and not data.lstrip().startswith(b"["):
                lines = [line for line in data.split(b"\n") if line.strip()]
                assert len(found) == len(lines) or (not lines and not found), (len(found), lines)


MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


def params(data: bytes) -> None:
    """Any file is parameters, or refused in a sentence that names it."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        path = Path(folder) / "params.yaml"
        path.write_bytes(data)
        try:
            assert isinstance(load(path), Params)
        except UserError as error:
            assert str(path) in str(error) and "Traceback" not in str(error)


def urls(data: bytes) -> None:
    """A link has one spelling, and that of a spelling is itself."""
    link = text_of(data)
    found = normalise_url(link, "http://a.example/b/c?d")
    assert found is None or (found.startswith(("http://", "https://")) and normalise_url(found) == found)


KERNELS: list[Callable[[bytes], None]] = [spans, tokens, shingles, signals, language_model]
READERS: list[Callable[[bytes], None]] = [decoders, html, compressed, archive, rows, params, urls]
