"""Files of every kind, here and on object storage, compressed and broken."""

from __future__ import annotations

import bz2
import functools
import gzip
import http.server
import json
import lzma
import os
import shutil
import socket
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import lz4.frame
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from conftest import Bucket
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from corpus.documents import document_id
from corpus.errors import StageError, UserError
from corpus.scrape import files, rows
from corpus.scrape.files import list_files, read_lines
from corpus.scrape.hub import stream
from corpus.scrape.rows import files_of, read_files
from corpus.sources import AnySource, HfSource
from corpus.storage import fetch

LINES = b"".join(json.dumps({"text": f"row {n}", "n": n}).encode() + b"\n" for n in range(200))
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
    ".lz4": lambda data: bytes(lz4.frame.compress(data)),
}


def source_of(kind: str, path: object, **more: Any) -> Any:
    return TypeAdapter(AnySource).validate_python({"name": "s", "kind": kind, "path": str(path)} | more)


def read(kind: str, path: object, **more: Any) -> list[dict[str, Any]]:
    source = source_of(kind, path, **more)
    return list(read_files(source, files_of(source), Counter()))


@pytest.fixture
def memory() -> Iterator[Any]:
    storage = fsspec.filesystem("memory")
    yield storage
    storage.store.clear()
    storage.pseudo_dirs[:] = [""]


@pytest.mark.parametrize("suffix", PACKERS)
def test_compressed_lines_are_the_same_rows(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows.jsonl{suffix}"
    path.write_bytes(PACKERS[suffix](LINES))
    found = read("jsonl", path)
    assert [row["text"] for row in found] == [f"row {n}" for n in range(200)]
    assert found[0]["id"] == document_id(b'{"text": "row 0", "n": 0}')
    assert read("jsonl", tmp_path) == found, "the same in a folder"


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_clipped_files_give_what_is_whole_and_say_so(tmp_path: Path, suffix: str) -> None:
    rng = b"".join(document_id(str(n)).encode() for n in range(20_000))  # does not compress into one block
    data = b"".join(json.dumps({"text": rng[n : n + 500].decode()}).encode() + b"\n" for n in range(0, 600_000, 500))
    whole = PACKERS[suffix](data)
    path = tmp_path / f"rows.jsonl{suffix}"
    path.write_bytes(whole[: len(whole) * 3 // 4])
    found = read("jsonl", path)
    lost = [row for row in found if "reason" in row]
    assert [row["reason"] for row in lost] == ["scrape.error.archive"]
    assert lost[0]["detail"].startswith(f"rows.jsonl{suffix}: ")
    assert len(found) > 100 or suffix == ".bz2"


@pytest.mark.parametrize("suffix", [suffix for suffix in PACKERS if suffix])
def test_garbage_under_a_compressed_name(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a.jsonl{suffix}").write_bytes(b"no such format at all" * 10)
    (tmp_path / f"b.jsonl{suffix}").write_bytes(PACKERS[suffix](LINES))
    found = read("jsonl", tmp_path)
    assert [row.get("reason") for row in found[:2]] == ["scrape.error.archive", None]
    assert len(found) == 201


def test_storage_patterns_and_names(memory: Any, tmp_path: Path) -> None:
    for name in ("a/one.jsonl", "a/b/two.jsonl.gz", "a/other.csv"):
        memory.pipe(f"/bucket/{name}", gzip.compress(LINES) if name.endswith("gz") else LINES)
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(gzip.compress(LINES) if name.endswith("gz") else LINES)
    expected = ["b/two.jsonl.gz", "one.jsonl"]
    for root in ("memory://bucket/a", str(tmp_path / "a"), f"file://{tmp_path}/a"):
        assert [entry.name for entry in list_files(root, "jsonl")] == expected
        assert [entry.name for entry in list_files(f"{root}/*.jsonl", "jsonl")] == ["one.jsonl"]
        assert [entry.name for entry in list_files(f"{root}/one.jsonl", "jsonl")] == ["one.jsonl"]
    here, there = (read("jsonl", root) for root in (tmp_path / "a", "memory://bucket/a"))
    assert here == there
    memory.pipe("/bucket/a/bad.jsonl", b"{")
    assert any(row.get("detail", "").startswith("bad.jsonl:1: ") for row in read("jsonl", "memory://bucket/a"))


def test_every_kind_from_storage(memory: Any) -> None:
    table = pa.table({"text": ["p", None], "n": [1, 2]})
    with memory.open("/k/t.parquet", "wb") as file:
        pq.write_table(table, file)
    http_page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p>w"
    record = b"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a/\r\nContent-Length: %d\r\n\r\n%s\r\n\r\n"
    contents = {
        "text": ("n.txt", b"a note"),
        "html": ("p.html.zst", zstandard.compress(b"<p>h")),
        "csv": ("c.csv", '﻿text;n\r\n"a;b";1\r\n'.encode()),
        "warc": ("w.warc.gz", gzip.compress(record % (len(http_page), http_page))),
    }
    for name, data in contents.values():
        memory.pipe(f"/k/{name}", data)
    got = {kind: read(kind, f"memory://k/{contents[kind][0]}")[0] for kind in contents}
    assert got["text"]["text"] == "a note"
    assert (got["html"]["body"], got["html"]["url"]) == (b"<p>h", "file://s/p.html.zst")
    assert (got["csv"]["text"], got["csv"]["meta"]) == ("a;b", '{"n": "1"}')
    assert (got["warc"]["body"], got["warc"]["url"]) == (b"<p>w", "http://a/")
    assert [row.get("reason") for row in read("parquet", "memory://k/t.parquet")] == [None, "scrape.error.text"]
    memory.pipe("/k/warc.paths", b"w.warc.gz\n")
    listed = read("warc", "memory://k/warc.paths", paths=True, base="memory://k/")
    assert [row["body"] for row in listed] == [b"<p>w"]
    with pytest.raises(UserError, match=r"nowhere.*does not exist"):
        read("jsonl", "memory://nowhere/a.jsonl")


def test_files_behind_http(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(LINES))
    handler_class: Any = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    handler = functools.partial(handler_class, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}"
        found = read("jsonl", f"{base}/rows.jsonl.gz")
        (tmp_path / "a.warc").write_bytes(b"WARC/1.0\r\nWARC-Type: request\r\nContent-Length: 1\r\n\r\nx\r\n\r\n")
        assert read("warc", f"{base}/a.warc") == []
        with pytest.raises(UserError, match=r"gone\.jsonl"):
            read("jsonl", f"{base}/gone.jsonl")
        server.shutdown()
    assert len(found) == 200
    assert "127.0.0.1" not in json.dumps(found)


def test_a_network_that_fails_is_no_broken_file(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe("/k/a.jsonl", LINES)
    memory.pipe("/k/a.warc", b"WARC/1.0\r\n")
    monkeypatch.setattr(type(memory.open("/k/a.jsonl")), "read", lambda *_: (_ for _ in ()).throw(OSError("reset")))
    for kind, name in (("jsonl", "a.jsonl"), ("warc", "a.warc")):
        with pytest.raises(UserError, match=f"{name} cannot be read: reset"):
            read(kind, f"memory://k/{name}")


def test_storage_that_is_not_known_or_refuses(s3: Bucket) -> None:
    for path in ("s3://bucket/rows.jsonl", "nosuch://bucket/rows.jsonl"):
        with pytest.raises(UserError, match="cannot be read"):
            read("jsonl", path, storage=s3.options["s3"] | {"anon": True})


def test_a_server_that_does_not_answer_is_nobodys_mistake(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        gone = f"http://127.0.0.1:{taken.getsockname()[1]}"
    for path, storage in (("s3://b/a.jsonl", {"endpoint_url": gone}), (f"{gone}/a.jsonl?sig=word", {})):
        with pytest.raises(StageError, match=r"a\.jsonl cannot be read: no answer \(.*127.*run again when") as failed:
            read("jsonl", path, storage=storage)
        assert "word" not in str(failed.value)
        with pytest.raises(StageError, match="no answer"):
            fetch(path, {"s3": storage})


def test_a_server_that_fails_is_nobodys_mistake() -> None:
    def refuse(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_error(503)

    handler: Any = type(
        "Busy", (http.server.BaseHTTPRequestHandler,), {"log_message": lambda *_: None, "do_GET": refuse}
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(StageError, match=r"no answer \(503"):
            read("jsonl", f"http://me:word@127.0.0.1:{server.server_port}/a.jsonl")
        server.shutdown()


def test_a_bomb_does_not_fill_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (files, rows):
        monkeypatch.setattr(module, "MAX_LINE", 1 << 20)
    bomb = b'{"text": "' + b"x" * 100_000_000 + b'"}\n' + LINES
    for suffix in (".gz", ".zst"):
        (tmp_path / f"rows.jsonl{suffix}").write_bytes(PACKERS[suffix](bomb))
        (tmp_path / f"page.html{suffix}").write_bytes(PACKERS[suffix](bomb))
        (tmp_path / f"note.txt{suffix}").write_bytes(PACKERS[suffix](bomb))
    del bomb
    tracemalloc.start()
    found = read("jsonl", tmp_path)
    pages = read("html", tmp_path) + read("text", tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6
    assert Counter(row.get("reason") for row in found) == {"scrape.too_large": 2, None: 400}
    assert found[0]["id"] == found[201]["id"]
    assert [row["reason"] for row in pages] == ["scrape.too_large"] * 4


def test_tables_of_fields(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes('\ufefftext\tid\n\n多行\t1\n"two\nlines"\t2\nshort\nlong\t3\t4\nlast\t5\n'.encode() + b"\xff\t6\n")
    found = read("csv", path, id_field="id")
    assert [row["text"] for row in found if "reason" not in row] == ["多行", "two\nlines", "last"]
    assert found[0]["id"] == document_id("s\x001")
    refused = [(row["detail"], row["reason"]) for row in found if "reason" in row]
    assert refused == [
        ("t.csv:6: 1 fields, where the header has 2", "scrape.error.csv"),
        ("t.csv:7: 3 fields, where the header has 2", "scrape.error.csv"),
        ("t.csv:9: no UTF-8", "scrape.error.encoding"),
    ]
    path.write_bytes(b'text,n\n"open,1\nmore,2\n')
    assert [row.get("reason") for row in read("csv", path)] == ["scrape.error.csv", None]
    path.write_bytes(b"text\none\n")
    assert [row["text"] for row in read("csv", path)] == ["one"]
    path.write_bytes(b"")
    assert read("csv", path) == []
    path.write_bytes(b"text,text\na,b\n")
    with pytest.raises(UserError, match="name each column once"):
        read("csv", path)
    path.write_bytes(b"text,n\na,b\n")
    with pytest.raises(UserError, match=r"t\.csv has no field `key`"):
        read("csv", path, id_field="key")
    path.write_bytes(b'text,"a\nb"\na,b\n')
    with pytest.raises(UserError, match=r"which id_field names; it has text, a b$"):
        read("csv", path, id_field="key")


@given(st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=2, max_size=2), max_size=5))
def test_tables_that_polars_wrote(tmp_path_factory: pytest.TempPathFactory, table: list[list[str]]) -> None:
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    frame = pl.DataFrame(table, schema={"text": pl.String, "other": pl.String}, orient="row")
    frame.write_csv(path, quote_style="always")
    found = read("csv", path)
    assert [row["text"] for row in found] == [row[0] for row in table]
    assert [json.loads(row["meta"])["other"] for row in found] == [row[1] for row in table]
    shutil.rmtree(path.parent)


def test_text_in_another_encoding(tmp_path: Path) -> None:
    text = "从前有一个农夫，他在田里干活。有一天他看见一只兔子撞在树上死了，就把兔子捡回家去。" * 5
    path = tmp_path / "故事.txt"
    path.write_bytes(text.encode("gbk"))
    row = read("text", path)[0]
    assert (row["text"], row["title"], row["id"]) == (text, "故事", document_id(text.encode("gbk")))
    assert json.loads(row["meta"])["encoding"] == "gb18030"
    path.write_bytes(bytes(range(256)) * 20)
    assert read("text", path)[0].get("reason") in (None, "scrape.error.encoding")
    path.write_bytes(text.encode())
    row = read("text", path)[0]
    assert (row["text"], row.get("meta"), row["id"]) == (text, None, document_id(text.encode()))


def test_lists_of_addresses(tmp_path: Path) -> None:
    path = tmp_path / "list.txt.gz"
    path.write_bytes(gzip.compress("\ufeffhttp://a/\n\n# why\n http://b/ \n".encode()))
    assert list(read_lines(str(path))) == ["http://a/", "http://b/"]
    path.write_bytes(path.read_bytes()[:-6])
    with pytest.raises(UserError, match="damaged"):
        list(read_lines(str(path)))


def test_a_dataset_in_a_folder(tmp_path: Path) -> None:
    for number in range(3):
        frame = pl.DataFrame({"text": [f"row {number} {n}" for n in range(50)], "n": range(50)})
        frame.write_parquet(tmp_path / f"train-{number}.parquet")
    source = HfSource(name="h", kind="hf", dataset=str(tmp_path))
    everything = list(stream(source))
    assert [row["text"] for row in everything] == [f"row {number} {n}" for number in range(3) for n in range(50)]
    assert list(stream(source, 70)) == everything[70:]
    assert list(stream(source, 150)) == []


@pytest.mark.parametrize(("dataset", "split"), [("nowhere/at-all", "train"), ("", "test")])
def test_a_dataset_that_cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: str, split: str
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    pl.DataFrame({"text": ["a"]}).write_parquet(tmp_path / "train.parquet")
    with pytest.raises(UserError) as refused:
        list(stream(HfSource(name="h", kind="hf", dataset=dataset or str(tmp_path), split=split)))
    assert "\n" not in str(refused.value)
    assert split in str(refused.value)


def _adversarial(name: str) -> list[Path]:
    if "CORPUSMILL_TEST_DATA" not in os.environ:
        pytest.skip("CORPUSMILL_TEST_DATA does not name the folder of test collections")
    folder = Path(os.environ["CORPUSMILL_TEST_DATA"]) / "adversarial" / name
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_json_that_is_none(tmp_path: Path) -> None:
    """Every file of JSONTestSuite as a line: y_ is JSON, n_ is not, and one good row stands beside each."""
    for path in _adversarial("json_test_suite"):
        if path.suffix != ".json":
            continue
        line = path.read_bytes().replace(b"\r", b" ").replace(b"\n", b" ")  # in JSON any white space will do
        target = tmp_path / "rows.jsonl"
        target.write_bytes(line + b'\n{"text": "good"}\n')
        found = read("jsonl", target)
        assert found[-1]["text"] == "good"
        reasons = [row.get("reason") for row in found[:-1]]
        if path.name.startswith("y_"):
            assert reasons in ([None], ["scrape.error.text"], ["scrape.error.json"]), path.name
            assert "not an object" in str(found[0]) or "scrape.error.json" not in reasons, path.name
        if path.name.startswith("n_") and reasons:  # some hold nothing but white space or a byte order mark
            assert reasons[0] in ("scrape.error.json", "scrape.error.encoding"), path.name


def test_parquet_that_is_damaged_or_odd() -> None:
    read_whole = 0
    for path in _adversarial("parquet_testing"):
        if path.suffix == ".parquet" and "large_string_map" not in path.name:  # one row of 2 GB
            try:
                found = read("parquet", path)
                read_whole += bool(found)
                assert all("id" in row for row in found)
            except UserError as error:
                assert str(path) in str(error) and "\n" not in str(error)
    assert read_whole > 25


@given(st.binary(min_size=1, max_size=60), st.integers(0, 2_000))
def test_parquet_with_bytes_overwritten(tmp_path_factory: pytest.TempPathFactory, junk: bytes, place: int) -> None:
    path = tmp_path_factory.mktemp("parquet") / "t.parquet"
    pl.DataFrame({"text": [f"row {n}" for n in range(50)], "n": range(50)}).write_parquet(path)
    data = bytearray(path.read_bytes())
    data[place % len(data) : place % len(data) + len(junk)] = junk
    path.write_bytes(data)
    try:
        read("parquet", path)
    except UserError as error:
        assert "t.parquet" in str(error)
    shutil.rmtree(path.parent)


def test_a_quote_that_is_never_closed_costs_its_own_line(tmp_path: Path) -> None:
    rows = [f'{n},"text number {n}, with a comma"' for n in range(50)]
    rows[10] = '10,"never closed'
    rows[20] = '20,"closed" too early"'
    rows[49] = '49,"at the end'
    (tmp_path / "t.csv").write_text("id,text\n" + "\n".join(rows) + "\n")
    found = read("csv", tmp_path / "t.csv", id_field="id")
    assert [row["detail"].split(": ")[0] for row in found if "reason" in row] == ["t.csv:12", "t.csv:22", "t.csv:51"]
    assert sum("reason" not in row for row in found) == 47


def test_quotes_that_never_close_cost_bounded_time(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    bad = 16_000
    path.write_text("text,b,c\n" + 'x",y,"z\n' * bad + "good,1,2\n" + 'long,1,"' + "line\n" * 5 + '"\n')
    started = time.monotonic()
    found = read("csv", path)
    assert time.monotonic() - started < 60, "reading again is bounded: without a bound this takes minutes"
    assert Counter(row.get("reason") for row in found) == {"scrape.error.csv": bad, None: 2}
    assert [row["text"] for row in found[-2:]] == ["good", "long"]


def test_a_record_of_many_lines_is_whole_up_to_a_bound(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for lines, whole in ((rows.MAX_RECORD_LINES - 1, True), (rows.MAX_RECORD_LINES, False)):
        path.write_text('text\n"' + "a line\n" * lines + '"\nlast\n')
        found = read("csv", path)
        assert (found[0].get("text") == "a line\n" * lines) is whole
        assert found[-1]["text"] == "last"
    path.write_text('text\n"' + ("a" * (rows.MAX_RECORD_CHARS // 2) + "\n") * 3 + '"\nlast\n')
    found = read("csv", path)
    assert found[0]["reason"] == "scrape.error.csv" and found[-1]["text"] == "last"


def test_columns_without_a_name_and_lines_before_the_header(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("text,,\nbye,1,2\n")
    assert json.loads(read("csv", path)[0]["meta"]) == {"column_2": "1", "column_3": "2"}
    path.write_text(",text\n0,of pandas\n")
    assert json.loads(read("csv", path)[0]["meta"]) == {"": "0"}, "its index has had no name, which is one name"
    path.write_text("\r\n\n\ntext;b\nx;1\ny;1;2\n")
    good, bad = read("csv", path)
    assert (good["text"], good["meta"]) == ("x", '{"b": "1"}')
    assert bad["detail"].startswith("t.csv:6: 3 fields")
    path.write_text("text,text\n")
    with pytest.raises(UserError, match=str(path)):
        read("csv", tmp_path)


@pytest.mark.parametrize("depth", range(100, 1_101, 50))
def test_json_nested_deeply_costs_its_own_row(tmp_path: Path, depth: int) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "x", "m": ' + "[" * depth + "]" * depth + '}\n{"text": "good"}\n')
    deep, good = read("jsonl", path)
    assert deep.get("reason") in (None, "scrape.error.json") and good["text"] == "good"


def test_values_of_parquet_that_python_cannot_hold_cost_their_row(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    odd = {
        "timestamp": pa.array([0, 10**17, 1], pa.timestamp("ms")),
        "duration": pa.array([0, 10**18, 1], pa.duration("s")),
        "string": pa.array([b"a", b"\xff\xfe", b"c"], pa.binary()).view(pa.string()),
    }
    for values in odd.values():
        pq.write_table(pa.table({"text": ["first", "odd", "last"], "m": values}), path)
        first, refused, last = read("parquet", path)
        assert (first["text"], last["text"]) == ("first", "last")
        assert refused["reason"] == "scrape.error.encoding" and refused["detail"].startswith("t.parquet:2: ")


def test_a_folder_in_a_list_of_archives_gives_all_of_them(tmp_path: Path) -> None:
    (tmp_path / "crawl/b").mkdir(parents=True)
    for name in ("crawl/1.warc", "crawl/b/2.warc", "3.warc"):
        (tmp_path / name).touch()
    (tmp_path / "list.txt").write_text("crawl/\n3.warc\n")
    source = source_of("warc", tmp_path / "list.txt", paths=True, base=f"{tmp_path}/")
    assert [entry.name for entry in files_of(source)] == ["crawl/1.warc", "crawl/b/2.warc", "3.warc"]


def test_json_arrays_are_read_object_by_object(tmp_path: Path) -> None:
    rows = [{"instruction": f"Question {n}", "output": f"Answer {n}"} for n in range(3)]
    path = tmp_path / "alpaca.json"
    path.write_text(json.dumps(rows, indent=2))
    assert [row["messages"][1]["content"] for row in read("jsonl", path)] == ["Answer 0", "Answer 1", "Answer 2"]
    for cut in range(1, len(path.read_text()) - 1):
        (tmp_path / "cut.json").write_text(path.read_text()[:cut])
        found = read("jsonl", tmp_path / "cut.json")
        assert found[-1]["reason"] == "scrape.error.json" and all("reason" not in row for row in found[:-1])
    path.write_text('[{"text": "good"}, 5, {"text": "also good"} {"text": "lost"}]')
    assert [row.get("reason") for row in read("jsonl", path)] == [None, "scrape.error.json", "scrape.error.json"]
    path.write_text('[{"text": "good"}]\n{"text": "after"}\nnoise\n')
    good, after = read("jsonl", path)
    assert good["text"] == "good" and after["reason"] == "scrape.error.json"
    assert after["detail"].startswith("alpaca.json, after object 1: ") and after["text"].startswith('{"text": "after"}')


def test_a_body_of_text_is_no_page_and_a_missing_text_names_the_fields_there_are(tmp_path: Path) -> None:
    (tmp_path / "tickets.jsonl").write_text(json.dumps({"subject": "Hello", "body": "a < b\nand c > d"}))
    (found,) = read("jsonl", tmp_path / "tickets.jsonl")
    assert found["detail"] == "tickets.jsonl:1: text is missing; text_field may name another of: subject, body"
    (found,) = read("jsonl", tmp_path / "tickets.jsonl", text_field="body")
    assert found["text"] == "a < b\nand c > d"
