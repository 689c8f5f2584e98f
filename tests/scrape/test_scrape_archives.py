"""WARC, ARC and WET: what is read, what is decoded, and that nothing is lost in silence."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import lz4.frame
import pytest
import zstandard
from fastwarc.stream_io import BrotliWriter
from hypothesis import given
from hypothesis import strategies as st

from corpus.documents import document_id
from corpus.scrape.archives import Capture, Damage, captures, decode_body, page_of, read_archive, split_http
from corpus.scrape.files import list_files
from corpus.scrape.inflate import Inflater
from corpus.sources import WarcSource

PAGES = [(f"http://a.example/{n}", f"<html><p>page number {n} {'text ' * n}</p></html>".encode()) for n in range(6)]
# Where warcio, which reads no LZ4, counts as many; `unknown`: no WARC-Type.
EXPECTED = {
    "resiliparse/block-sized-records.warc": {"unknown": 3},
    "resiliparse/block-sized-records.warc.lz4": {"unknown": 3},
    "resiliparse/warcfile.warc": {"request": 17, "response": 16, "metadata": 16, "warcinfo": 1},
    "resiliparse/warcfile.warc.gz": {"request": 17, "response": 16, "metadata": 16, "warcinfo": 1},
    "warcio/example-bad.warc.gz.bad": {"response": 2, "request": 2, "warcinfo": 1, "revisit": 1},
    "warcio/example-digest.warc": {"request": 4},
    "warcio/example-iana.org-chunked.warc": {"warcinfo": 1, "response": 1, "request": 1},
    "warcio/example-resource.warc.gz": {"warcinfo": 2, "resource": 1},
    "warcio/example-wget-bad-target-uri.warc.gz": Counter(
        ["warcinfo", "request", "response", "metadata", "resource", "resource"]
    ),
    "warcio/example.arc": {"filedesc": 1, "response": 1},
    "warcio/example.arc.gz": {"filedesc": 1, "response": 1},
    "warcio/example.warc": {"warcinfo": 2, "request": 2, "response": 1, "revisit": 1},
    "warcio/example.warc.gz": {"warcinfo": 2, "request": 2, "response": 1, "revisit": 1},
}


def http(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode() + body


def warc(url: str, block: bytes, kind: str = "response", content_type: str = "application/http") -> bytes:
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\nContent-Type: {content_type}\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(block) + block + b"\r\n\r\n"


def arc(url: str, block: bytes) -> bytes:
    return f"{url} 192.0.2.1 20200101000000 text/html {len(block)}\n".encode() + block + b"\n"


def lz4_frame(data: bytes) -> bytes:
    return bytes(lz4.frame.compress(data, content_checksum=True))


WARCS = [warc(url, http(body, "Content-Type: text/html")) for url, body in PAGES]
ARCS = [arc("filedesc://a.arc", b"1 0 x\nURL\n"), *(arc(url, http(b, "Content-Type: text/html")) for url, b in PAGES)]
FORMS: dict[str, tuple[list[bytes], Callable[[bytes], bytes]]] = {
    "warc": (WARCS, bytes),
    "warc.gz": (WARCS, gzip.compress),
    "warc.lz4": (WARCS, lz4_frame),
    "warc.zst": (WARCS, zstandard.compress),
    "arc": (ARCS, bytes),
    "arc.gz": (ARCS, gzip.compress),
}


def read(data: bytes, max_block: int = 1 << 20) -> tuple[list[Capture], list[Damage]]:
    found = list(captures(io.BytesIO(data), len(data), max_block))
    return [x for x in found if isinstance(x, Capture)], [x for x in found if isinstance(x, Damage)]


def contents(found: list[Capture]) -> list[tuple[str, bytes | None]]:
    return [(x.url, x.block) for x in found if not x.url.startswith("filedesc")]


def archive(tmp_path: Path, data: bytes, name: str = "a.warc", max_bytes: int = 10_000) -> list[dict[str, object]]:
    (tmp_path / name).write_bytes(data)
    source = WarcSource(name="w", kind="warc", path=str(tmp_path / name), max_bytes=max_bytes)
    return list(read_archive(source, list_files(source.path, "warc")[0], Counter()))


@pytest.mark.parametrize("form", FORMS)
def test_a_file_cut_anywhere_gives_whole_records_and_says_what_is_lost(form: str) -> None:
    records, packed = FORMS[form]
    members = [packed(record) for record in records]
    whole = b"".join(members)
    expected = contents(read(whole)[0])
    assert [url for url, _ in expected] == [url for url, _ in PAGES]
    assert read(whole)[1] == []
    ends = [sum(map(len, members[: n + 1])) for n in range(len(members))]
    for cut in range(len(whole)):
        found, damage = read(whole[:cut])
        assert contents(found) == expected[: len(contents(found))], cut
        begun = sum(end < cut for end in [0, *ends])  # members of which there is at least a byte
        assert len(found) in (begun, begun - 1), cut
        assert len(damage) <= 1
        if len(found) < begun:
            blank = form in ("warc", "arc") and not whole[max(0, cut - 4) : cut].strip()  # only line breaks are lost
            assert damage or blank or cut == 0, cut


@pytest.mark.parametrize("form", FORMS)
def test_a_broken_record_costs_no_other(form: str) -> None:
    records, packed = FORMS[form]
    members = [packed(record) for record in records]
    expected = contents(read(b"".join(members))[0])
    for broken in range(1, len(members)):
        damaged = bytearray(members[broken])
        if form in ("warc", "arc"):
            damaged[:8] = b"garbage!"
        else:
            damaged[20:24] = bytes(255 - byte for byte in damaged[20:24])
        data = b"".join([*members[:broken], bytes(damaged), *members[broken + 1 :]])
        found, damage = read(data)
        lost = [page for page in expected if page not in contents(found)]
        assert len(lost) <= 1, (broken, lost)
        assert len(damage) == 1
        assert damage[0].offset <= sum(map(len, members[: broken + 1]))


@pytest.mark.parametrize("form", FORMS)
def test_garbage_before_between_and_after(form: str) -> None:
    records, packed = FORMS[form]
    members = [packed(record) for record in records]
    expected = contents(read(b"".join(members))[0])
    junk = bytes(range(97, 117)) * 3 + b"\n" * (form == "arc")
    for place in range(0 if form.startswith("warc") else 1, len(members) + 1):
        found, damage = read(b"".join([*members[:place], junk, *members[place:]]))
        assert contents(found) == expected, place
        assert len(damage) == 1, place


@given(st.data(), st.sampled_from(sorted(FORMS)))
def test_no_damage_raises_or_hangs(data: st.DataObject, form: str) -> None:
    records, packed = FORMS[form]
    raw = bytearray(b"".join(packed(record) for record in records))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=40))
        raw = raw or bytearray(b"x")
    found, _ = read(bytes(raw))
    assert len(found) <= len(records) + 3


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    found, damage = read(data)
    assert found or damage or not data.strip()


@pytest.mark.parametrize("length", ["-5", "abc", "", "99999999999999999999999", "18446744073709551615", "1000000"])
def test_lengths_that_lie(length: str) -> None:
    lying = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a/\r\nContent-Length: {length}\r\n\r\n<p>\r\n\r\n"
    )
    found, damage = read(WARCS[0] + lying.encode() + WARCS[1])
    assert PAGES[0][0] in [x.url for x in found]
    assert PAGES[1][0] in [x.url for x in found], "what follows is found again"
    assert len(damage) == 1


def test_a_record_larger_than_allowed_is_passed_over() -> None:
    found, damage = read(warc("http://big/", b"x" * 5_000) + WARCS[1], max_block=1_000)
    assert [(x.url, x.block is None) for x in found] == [("http://big/", True), (PAGES[1][0], False)]
    assert damage == []


def test_rows_of_all_kinds(tmp_path: Path) -> None:
    records = [
        warc("<http://A.example:80/x#top>", http("<p>ö".encode(), "content-type: text/html; charset=utf-8")),
        warc("http://a.example/gone", http(b"no", "Content-Type: text/html", status="404 Not Found")),
        warc("http://a.example/png", http(b"\x89PNG", "Content-Type: image/png")),
        warc("http://a.example/long", http(b"x" * 11_000, "Content-Type: text/html")),
        warc("http://a.example/bomb", http(gzip.compress(b"x" * 10**7), "Content-Encoding: gzip")),
        warc("http://a.example/text", b"plain", "conversion", "text/plain"),
        warc("file:///saved.html", b"<p>saved", "resource", "text/html"),
        warc("dns:a.example", b"1.2.3.4", "resource", "text/dns"),
        warc("metadata://gnu.org/wget.log", b"a log", "resource", "text/plain"),
        warc("http://a.example/req", b"GET / HTTP/1.1\r\n\r\n", "request"),
        warc("http://a.example/clip", http(gzip.compress(b"<p>clipped")[:-9], "Content-Encoding: gzip")),
    ]
    rows = archive(tmp_path, b"".join(records))
    outcome = {row["url"]: row.get("reason") or row["body"] for row in rows}
    assert outcome == {
        "http://a.example/x": "<p>ö".encode(),
        "http://a.example/gone": "scrape.error.status",
        "http://a.example/png": "scrape.content_type",
        "http://a.example/long": "scrape.too_large",
        "http://a.example/bomb": "scrape.too_large",
        "http://a.example/text": b"plain",
        "file:///saved.html": b"<p>saved",
        "dns:a.example": "scrape.content_type",
        "metadata://gnu.org/wget.log": "scrape.content_type",
        "http://a.example/clip": "scrape.error.archive",
    }
    assert rows[0]["id"] == document_id("http://a.example/x")
    assert rows[0]["content_type"] == "text/html; charset=utf-8"
    assert "a.warc: byte" in str(rows[1]["detail"])
    assert str(tmp_path) not in str(rows)


def _brotli(data: bytes) -> bytes:
    target = io.BytesIO()
    writer = BrotliWriter(target)
    writer.write(data)
    writer.close()
    return target.getvalue()


def test_bodies_are_decoded() -> None:
    body = "<p>a page of some length, 一页</p>".encode() * 20
    raw_deflate = zlib.compressobj(wbits=-15)
    chunked = b"".join(b"%x;ext=1\r\n%s\r\n" % (len(c), c) for c in (body[:7], body[7:])) + b"0\r\n\r\n"
    assert decode_body(chunked, {"transfer-encoding": "chunked"}, 10_000) == body
    encoded = {
        "gzip": gzip.compress(body),
        "x-gzip": gzip.compress(body),
        "deflate": zlib.compress(body),
        " deflate ": raw_deflate.compress(body) + raw_deflate.flush(),
        "br": _brotli(body),
        "zstd": zstandard.compress(body),
        "identity": body,
        "utf-8": body,
        "deflate, gzip": gzip.compress(zlib.compress(body)),
    }
    for name, data in encoded.items():
        assert decode_body(data, {"content-encoding": name}, 10_000) == body, name
        assert decode_body(body, {"content-encoding": name, "transfer-encoding": "chunked"}, 10_000) == body, name
        assert 11 <= len(decode_body(data, {"content-encoding": name}, 10)) <= max(len(data), len(body))
    for broken in (gzip.compress(body)[:-10], b"\x1f\x8b\x08" + bytes(50)):
        with pytest.raises(ValueError, match="compressed body"):
            decode_body(broken, {"content-encoding": "gzip"}, 10_000)
    with pytest.raises(ValueError, match="chunks"):
        decode_body(chunked[:30], {"transfer-encoding": "chunked"}, 10_000)


@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate", "br", "zstd", "chunked"]))
def test_bodies_of_any_bytes(body: bytes, encoding: str) -> None:
    block = b"HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\nTransfer-Encoding: chunked\r\n\r\n" % encoding.encode() + body
    row = page_of(Capture(0, "response", "http://a/", "", block), 1_000, "here")
    assert "body" in row or row["reason"] in ("scrape.error.archive", "scrape.too_large")


def test_heads_that_are_unusual() -> None:
    assert split_http(b"HTTP/1.0 301\nlocation: x\n\nbody") == (301, {"location": "x"}, b"body")
    assert split_http(b"HTTP/1.1 200 OK\r\n\r\nbody") == (200, {}, b"body")
    assert split_http(b"HTTP/1.1 200 OK\r\nno end of the head")[2] == b""


def test_several_captures_of_a_url_have_one_id(tmp_path: Path) -> None:
    rows = archive(tmp_path, warc("http://a/", http(b"old")) + warc("http://A:80/#x", http(b"new")))
    assert rows[0]["id"] == rows[1]["id"]


@pytest.mark.parametrize("name", EXPECTED)
def test_as_many_records_as_warcio_reads(name: str) -> None:
    if "CORPUSMILL_TEST_DATA" not in os.environ:
        pytest.skip("CORPUSMILL_TEST_DATA does not name the folder of test collections")
    path = Path(os.environ["CORPUSMILL_TEST_DATA"]) / "warc" / name
    with path.open("rb") as file:
        found, damage = read(file.read())
    assert damage == []
    assert Counter(x.kind for x in found) == EXPECTED[name]
    warcio = pytest.importorskip("warcio.archiveiterator")
    if name.endswith((".lz4", ".bad")):
        return
    with path.open("rb") as file:
        theirs = [
            (record.rec_headers.get_header("WARC-Target-URI") or "", len(record.raw_stream.read()))
            for record in warcio.ArchiveIterator(file, no_record_parse=True)
        ]
    ours = [(x.url, len(x.block or b"")) for x in found if x.kind in ("response", "resource")]
    assert len(theirs) == len(found)
    if "arc" in path.suffixes or ".warc" in name:
        assert {size for _, size in ours} <= {size for _, size in theirs}


def test_not_a_gzip_member_by_its_magic_alone() -> None:
    """A broken member may hold the magic of the next by chance."""
    members = [gzip.compress(record) for record in WARCS]
    damaged = members[1][:30] + b"\x1f\x8b\x08" + members[1][33:60] + b"\x1f\x8b\x08\x00"
    found, damage = read(b"".join([members[0], damaged, *members[2:]]))
    assert [x.url for x in found] == [url for url, _ in [PAGES[0], *PAGES[2:]]]
    assert len(damage) == 1


def test_bz2_is_no_archive() -> None:
    assert read(bz2.compress(WARCS[0]))[1][0].offset == 0


def test_gzip_bodies_of_several_members_and_cut_ones() -> None:
    body = gzip.compress(b"first ") + gzip.compress(b"second")
    encoded = {"content-encoding": "gzip"}
    assert decode_body(body, encoded, 100) == decode_body(body + b"\0" * 9, encoded, 100) == b"first second"
    long = gzip.compress(b"first " * 100) + gzip.compress(b"second " * 100)
    assert decode_body(long, encoded, 602) == b"first " * 100 + b"sec", "a byte more tells that it is too large"
    for cut in (len(body) - 1, len(body) - 9, len(gzip.compress(b"first ")) + 2):
        with pytest.raises(ValueError, match="ends early"):
            decode_body(body[:cut], encoded, 100)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4), st.integers(1, 50), st.integers(0, 700))
def test_members_in_chunks(members: list[bytes], step: int, max_bytes: int) -> None:
    data = b"".join(map(gzip.compress, members)) + b"\0\0\0"
    inflater = Inflater(max_bytes)
    for place in range(0, len(data), step):
        inflater.feed(data[place : place + step])
    assert inflater.finish() == gzip.decompress(data)[: max_bytes + 1]
    assert inflater.is_full == (len(b"".join(members)) > max_bytes)


def test_an_archive_of_lengths_that_lie_is_given_up() -> None:
    lies = gzip.compress(b"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: 99999999\r\n\r\nx\r\n\r\n")
    whole = gzip.compress(warc("http://a.example/", http(b"<p>whole")))
    started = time.monotonic()
    found, damages = read(whole + lies * 12_000 + whole, 1 << 30)
    assert time.monotonic() - started < 60, "without a bound this takes minutes"
    assert len(found) == 1
    assert len(damages) < 100 and "the rest is not read" in damages[-1].what
    found, damages = read(whole + lies * 19 + whole, 1 << 30)
    assert len(found) == 2 and len(damages) == 19
