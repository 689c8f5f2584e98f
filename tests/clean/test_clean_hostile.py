"""Pages made to break parsers, among good ones: each is accounted for in its time, and the good ones do not notice."""

from __future__ import annotations

import gzip
import time
from pathlib import Path

import polars as pl
import pytest

from corpus.clean import stage
from corpus.params import Params
from corpus.stage import Run, execute

SENTENCE = "This is a sentence in plain English about nothing in particular, long enough to be read. "
GOOD = f"<html><title>A good page</title><body><article>{f'<p>{SENTENCE * 3}</p>' * 6}</article></body></html>".encode()
HOSTILE: dict[str, bytes] = {
    "nested": b"<div>" * 50_000 + SENTENCE.encode(),
    "nested_inline": b"<b>" * 50_000 + SENTENCE.encode(),
    "paragraphs": b"<p>a <a href=x>word</a> here" * 640_000,
    "one_paragraph": b"<p>" + SENTENCE.encode() * 200_000,
    "attributes": b"<p " + b" ".join(b"a%d=1" % n for n in range(100_000)) + b">" + SENTENCE.encode(),
    "long_attribute": b'<p title="' + b"x" * 5_000_000 + b'">' + SENTENCE.encode(),
    "unclosed": b"<p><div><a><b>word " * 20_000,
    "unclosed_quote": b'<a href="' * 100_000,
    "unclosed_comment": b"<!--" * 500_000,
    "open_brackets": b"<" * 2_000_000,
    "tables": b"<table><tr><td>" * 3_000 + SENTENCE.encode(),
    "surrogates": GOOD.replace(b"nothing", "\ud800\udfff\udc00".encode("utf-8", "surrogatepass")),
    "nuls": b"\x00".join(GOOD[n : n + 1] for n in range(2_000)),
    "entities": b"<p>" + b"&amp;" * 1_000_000 + b"&#x110000;&#0;&bogus;" * 10_000,
    "gzip": gzip.compress(b"x" * 10_000_000),
    "png": b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 50,
    "too_large": b"<p>" + b"word " * 4_200_000,
    "spaces": b"<pre>" + b" " * 5_000_000 + b"x</pre>",
    "empty": b"",
}


@pytest.mark.parametrize("extractor", ["auto", "bs4"])
def test_each_is_accounted_for_and_the_good_pages_are_as_if_alone(tmp_path: Path, extractor: str) -> None:
    rows = [{"id": "good0", "body": GOOD}]
    for name, body in HOSTILE.items():
        rows += [{"id": name, "body": body}, {"id": f"after {name}", "body": GOOD}]
    pl.DataFrame(rows).with_columns(url=pl.lit("http://x/")).write_parquet(tmp_path / "pages.parquet")
    params = Params.model_validate({"clean": {"timeout_s": 3, "extractor": extractor}})
    run = Run("clean", params, (tmp_path / "pages.parquet",), tmp_path / "out", reports=None, home=tmp_path / "home")
    started = time.monotonic()
    metrics = execute(stage, run)
    assert time.monotonic() - started < 10 * len(HOSTILE)
    kept = pl.read_parquet(tmp_path / "out/pages.parquet")
    dropped = pl.read_parquet(tmp_path / "out/dropped-pages.parquet")
    assert metrics["rows"] == {"in": len(rows), "generated": 0, "kept": kept.height, "dropped": dropped.height}
    assert {*kept["id"], *dropped["id"]} == {row["id"] for row in rows}
    good = kept.filter(pl.col("id").str.contains("good|after"))
    assert good.height == len(HOSTILE) + 1 and good["text"].n_unique() == 1
    reasons = dict(dropped.select("id", "reason").iter_rows())
    expected = {
        "nested": "clean.too_deep",
        "nested_inline": "clean.too_deep",
        "tables": "clean.too_deep",
        "attributes": "clean.long_tag",
        "long_attribute": "clean.long_tag",
        "gzip": "clean.not_html",
        "png": "clean.not_html",
        "too_large": "clean.too_large",
        "empty": "clean.empty",
    }
    assert {name: reasons.get(name) for name in expected} == expected
    assert all(SENTENCE.split()[0] in text for text in kept["text"] if len(text) > 200)
