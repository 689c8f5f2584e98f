"""Readers of what strangers wrote, on any bytes: a sound result, a refusal that says why, or a row that is dropped for
a known reason. Nothing else may be raised.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import tempfile
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from corpus.clean.decode import decode, looks_like_text, scrub_surrogates
from corpus.clean.document import Refused, Settings, clean_row
from corpus.clean.normalise import normalise
from corpus.documents import DOCUMENT, PAGE, render_messages
from corpus.errors import UserError
from corpus.filter.profile import load_profile
from corpus.params import Clean, Scrape, load
from corpus.reasons import REASONS
from corpus.scrape.archives import Capture, captures, decode_body, page_of, split_http
from corpus.scrape.files import COMPRESSED, FileEntry
from corpus.scrape.inflate import DEFLATE, GZIP, ZLIB, Inflater, inflate
from corpus.scrape.rows import FileRows, read_files
from corpus.scrape.sitemaps import parse_sitemap
from corpus.scrape.stage import gather
from corpus.scrape.urls import (
    netloc_of,
    normalise_url,
    path_and_query,
    refused_address,
    root_of,
    trap,
    variants_of,
    wanted,
)
from corpus.sources import HtmlSource, RowSource, WarcSource
from corpus.text.sentences import split_sentences

_TYPES = ("text/html", "text/html; charset=utf-8", "text/plain", "text/html; charset=gb2312", "x; charset=\xff", "")
_EXTRACTORS = ("auto", "bs4", "resiliparse", "readability", "trafilatura")
_MOST = 1_000_000  # bytes that anything may inflate to here


def bytes_of_page(data: bytes) -> None:
    """Decoding gives text that every encoder takes, and tells UTF-8 from what is none."""
    content_type, body = _TYPES[data[0] % len(_TYPES)] if data else "", data[1:]
    found = decode(body, content_type)
    looks_like_text(body)
    if found is not None:
        scrub_surrogates(found.text).encode()
        assert len(found.text) <= len(body) + 1
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return
    if found and found.how == "utf-8":
        assert found.text == text


def page(data: bytes) -> None:
    """A page becomes a document in which all is text, or is refused for a known reason."""
    options = data[0] if data else 0
    params = {
        "extractor": _EXTRACTORS[options % len(_EXTRACTORS)],
        "format": ("text", "markdown")[options // 8 % 2],
        "chinese": ("as_is", "simplified")[options // 16 % 2],
        "pii": ("off", "mask")[options // 32 % 2],
    }
    stated = "zh-Hans" if options % 3 else None  # otherwise most pages would be refused for their language
    _clean({"body": data[1:], "content_type": _TYPES[options // 64 % len(_TYPES)], "lang": stated}, params)


def text_row(data: bytes) -> None:
    """A text becomes a document, or is refused; cleaning it twice changes nothing more, and sentences are the text."""
    text = data[1:].decode("utf-8", "surrogatepass" if data[:1] > b"\x7f" else "replace") if _is_text(data) else ""
    once = normalise(scrub_surrogates(text)).text
    assert normalise(once).text == once
    assert unicodedata.is_normalized("NFC", once)
    assert "".join(split_sentences(text)) == text
    messages = [{"role": "user", "content": part} for part in text.split("\n\n")]
    _clean({"text": text, "title": text[:50]}, {})
    _clean({"text": text, "lang": "zh-Hans"}, {"chinese": "traditional"})
    _clean({"text": render_messages(messages), "messages": messages}, {"chinese": "traditional"})


def _is_text(data: bytes) -> bool:
    try:
        data[1:].decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data[:1] <= b"\x7f"
    return True


def _clean(row: Mapping[str, Any], params: Mapping[str, object]) -> None:
    settings = Settings(Clean.model_validate({"languages": ["en", "zh-Hans", "zh-Hant"], **params}))
    try:
        document = clean_row(row, settings)
    except Refused as refused:
        assert refused.reason in REASONS
        return
    json.dumps(document, ensure_ascii=False).encode()
    assert document["text"].strip() and document["lang"] in settings.clean.languages


def compressed(data: bytes) -> None:
    """A body inflates to the same whether it comes whole or in pieces, and never to more than it may."""
    options, body = data[0] if data else 0, data[1:]
    most, window = 10 ** (options // 16 % 7), (GZIP, ZLIB, DEFLATE)[options % 3]
    whole = _inflated(lambda: inflate(body, most, window))
    inflater = Inflater(most, window)
    for at in range(0, len(body), size := 1 + options % 5 * 100):
        if isinstance(_inflated(lambda piece=body[at : at + size]: inflater.feed(piece) or b""), str):
            break
    else:  # what is broken just where it is too long may be refused for either
        assert inflater.is_full or _inflated(inflater.finish) == whole
    if isinstance(whole, bytes):
        assert len(whole) <= most + 1
        decoder = zlib.decompressobj(window)
        assert whole.startswith(decoder.decompress(body, most))


def _inflated(read: Callable[[], bytes]) -> bytes | str:
    try:
        return read()
    except ValueError as error:
        return str(error)


def http_answer(data: bytes) -> None:
    """An HTTP answer as an archive keeps it: its body is decoded, refused, or too large by one byte at most."""
    _, headers, body = split_http(data[1:])
    try:
        found = decode_body(body, headers, _MOST)
    except (ValueError, OSError):
        return
    assert len(found) <= max(len(body), _MOST + 1)


def archive(data: bytes) -> None:
    """All that an archive holds comes as pages or dropped rows, or is damage at a place in it."""
    for found in captures(io.BytesIO(data), len(data), 100_000):
        assert 0 <= found.offset <= len(data)
        if isinstance(found, Capture):
            _check_row(page_of(found, 1_000, "here"))


def rows(data: bytes) -> None:
    """A file of any kind: each line of JSONL is a row, and each row a document, a page, or dropped with a reason."""
    source, name = _source_of(data)
    content = data[1:]
    with _file(source, name, content) as (given, entry):
        try:
            found = [*read_files(given, [entry], Counter())]
        except UserError as error:
            assert "\n" not in str(error), error
            return
    for row in found:
        _check_row(row)
    if name == "x.jsonl":
        lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
        assert len(found) == sum(bool(line.strip()) for line in lines)


def scraped(data: bytes) -> None:
    """A file of any kind becomes parts that hold each row, kept or dropped, or is refused in a sentence."""
    source, name = _source_of(data)
    with _file(source, name, data[1:]) as (given, entry):
        output = Path(entry.path).parent / "output"
        output.mkdir()
        try:
            found = [*read_files(given, [entry], Counter())]
            metrics = gather([given], Scrape(), output.parent / "home", output, limit=1_000_000)
        except UserError as error:
            assert "\n" not in str(error), error
            return
        written = sum(pq.read_metadata(path).num_rows for path in output.glob("*.parquet"))
    assert written == len(found) == metrics["rows"]["in"] == metrics["rows"]["kept"] + metrics["rows"]["dropped"]


def _source_of(data: bytes) -> tuple[FileRows, str]:
    """The source and the name of its file that the first byte of an input chooses."""
    options = data[0] if data else 0
    kind, suffix = _FILES[options // 8 % len(_FILES)]
    fields: dict[str, object] = {"name": "a", "kind": kind, "path": "x"}
    name = f"x{suffix}" + ("" if kind == "parquet" else ("", *COMPRESSED)[options % 8 % 6])
    if kind == "html":
        return HtmlSource.model_validate(fields | {"as": "http://a/", "max_bytes": 1_000}), name
    if kind == "warc":
        return WarcSource.model_validate(fields | {"max_bytes": 1_000}), name
    return RowSource.model_validate(fields | ({"id_field": "id"} if options & 64 else {})), name


_FILES = (
    *(("jsonl", ".jsonl"), ("jsonl", ".json"), ("label_studio", ".json"), ("csv", ".csv"), ("text", ".txt")),
    *(("html", ".html"), ("warc", ".warc"), ("parquet", ".parquet")),
)


@contextlib.contextmanager
def _file(source: FileRows, name: str, content: bytes) -> Iterator[tuple[FileRows, FileEntry]]:
    with tempfile.TemporaryDirectory(dir=_IN_MEMORY) as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        yield source.model_copy(update={"path": str(path)}), FileEntry(str(path), name, len(content), "")


_IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


def _check_row(row: Mapping[str, Any]) -> None:
    assert re.fullmatch("[0-9a-f]{32}", row["id"])
    if "reason" in row:
        assert row["reason"] in REASONS
        assert isinstance(row["detail"], str)
        return
    schema = PAGE if "body" in row else DOCUMENT
    (written,) = pa.Table.from_pylist([row], schema=schema).to_pylist()
    assert written["body" if schema is PAGE else "text"] is not None


def sitemap(data: bytes) -> None:
    """A sitemap names addresses that are normalised, or is refused."""
    try:
        found = parse_sitemap(data, "http://a/")
    except ValueError:
        return
    for address in [*(entry.url for entry in found.pages), *found.sitemaps]:
        assert normalise_url(address) == address


def url(data: bytes) -> None:
    """An address has one spelling, in ASCII, of which everything can be asked."""
    text = data.decode("utf-8", "surrogatepass") if _is_text(b"\xff" + data) else data.decode("latin-1")
    for base in ("", "http://base.example/a/b?c"):
        found = normalise_url(text, base)
        if found is None:
            continue
        assert found.isascii() and not re.search(r"[\s#\\\x00-\x20]", found), found
        assert normalise_url(found) == found, (found, normalise_url(found))
        assert found.startswith(root_of(found)) and root_of(found).endswith("/")
        assert urlsplit(found).netloc == netloc_of(found) and "@" not in netloc_of(found)
        assert path_and_query(found).startswith("/")
        assert not re.search(r"/\.\.?(/|$)", found.partition("?")[0])
        wanted(found, ["a"], ["b"])
        (trap(found), variants_of(found), refused_address(found))


def params(data: bytes) -> None:
    """Parameters are read, or refused in a sentence; so is a profile of the filter."""
    with tempfile.TemporaryDirectory(dir=_IN_MEMORY) as folder:
        path = Path(folder) / "params.yaml"
        path.write_bytes(data)
        for read in (lambda: load(path), lambda: load_profile(str(path), "en")):
            _in_a_sentence(read)


def override(data: bytes) -> None:
    """What `--set` names is set, or refused in a sentence."""
    given = data.decode("utf-8", "surrogateescape")
    _in_a_sentence(lambda: load(None, [given]))
    _in_a_sentence(lambda: load(None, ["sources=[{name: a, kind: site, start: [x]}]", given, given]))


def _in_a_sentence(read: Callable[[], object]) -> None:
    with contextlib.suppress(UserError):
        read()
