"""Web archives: WARC and WET by fastwarc, ARC by a reader of our own; what is lost in a broken one is told.

fastwarc ends silently where a gzip member is clipped and stops for good at the first broken record. So each record's
length is compared with what was read, the last member is checked, and after damage the search goes on for the next
record or member that can be read.
"""

from __future__ import annotations

import io
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

from fastwarc.stream_io import BrotliReader, GzipReader, Lz4Reader, ZstdReader
from fastwarc.warc import ArchiveIterator

from corpus.documents import document_id
from corpus.scrape.files import FileEntry, Storage, open_raw, rust_errors
from corpus.scrape.inflate import DEFLATE, GZIP, ZLIB, inflate
from corpus.scrape.urls import normalise_url
from corpus.sources import WarcSource

PAGE_TYPES = ("text/html", "application/xhtml+xml", "text/plain")
MAX_HEAD = 1 << 16  # bytes of the headers of an HTTP answer
MAX_IN_VAIN = 16  # times the archive's size and a bit that lengths that lie may make us read
_KINDS = ("response", "resource", "conversion")  # those that hold a page
_ABOUT_THE_CRAWL = ("dns:", "whois:", "metadata:")  # URLs of what crawlers keep beside the pages
_GZIP, _LZ4, _ZSTD = b"\x1f\x8b\x08", b"\x04\x22\x4d\x18", b"\x28\xb5\x2f\xfd"
_READERS = {_GZIP: GzipReader, _LZ4: Lz4Reader, _ZSTD: ZstdReader}
_RECORD_START = re.compile(rb"WARC/[01]\.\d\r?\n|" + b"|".join(map(re.escape, _READERS)))
_CHUNK = 1 << 18

Row = dict[str, Any]


class Capture(NamedTuple):
    """A record of an archive."""

    offset: int  # of the record, or of the compressed member that holds it, in the file
    kind: str  # response, resource, conversion, or any other type of record
    url: str = ""
    content_type: str = ""  # the record's own
    block: bytes | None = None  # what it holds, for `response` with the HTTP headers; None: more than may be


class Damage(NamedTuple):
    """A place where an archive cannot be read."""

    offset: int
    what: str


class _Broken(Exception):
    """A record that is not what its header says."""


def read_archive(
    source: WarcSource, entry: FileEntry, records: Counter[str], storage: Storage | None = None
) -> Iterator[Row]:
    """A page for each answer with status 200 and text in it; dropped rows for the others, and for what is damaged.

    `records` counts all records by type. The natural key is the URL: of several captures of one the first will count.
    """
    with open_raw(entry, storage) as file:
        for found in captures(file, entry.size, source.max_bytes + MAX_HEAD):
            if isinstance(found, Damage):
                yield {
                    "id": document_id(f"{source.name}\0{entry.name}\0{found.offset}"),
                    "reason": "scrape.error.archive",
                    "detail": f"{entry.name}: byte {found.offset}: {found.what}",
                    "text": None,
                }
                continue
            records[found.kind] += 1
            if found.kind in _KINDS:
                yield page_of(found, source.max_bytes, f"{entry.name}: byte {found.offset}")


def page_of(capture: Capture, max_bytes: int, where: str) -> Row:
    """A record as a page, or as a dropped row where it is none."""
    url = normalise_url(capture.url) or capture.url or None
    row: Row = {"id": document_id(url or where), "url": url}
    if capture.url.startswith(_ABOUT_THE_CRAWL):
        return row | _refused("scrape.content_type", f"{where}: a record about the crawl")
    if capture.block is None:
        return row | _refused("scrape.too_large", f"{where}: over {max_bytes} bytes")
    body, content_type = capture.block, capture.content_type
    if capture.kind == "response":
        status, headers, body = split_http(capture.block)
        content_type = headers.get("content-type", "")
        if status != 200 and status is not None:
            return row | _refused("scrape.error.status", f"{where}: {status}")
    kind = content_type.partition(";")[0].strip().lower() or "text/html"
    if kind not in PAGE_TYPES:
        return row | _refused("scrape.content_type", f"{where}: {kind[:100]}")
    if capture.kind == "response":
        try:
            body = decode_body(body, headers, max_bytes)
        except (ValueError, OSError) as error:
            return row | _refused("scrape.error.archive", f"{where}: {error}")
    if len(body) > max_bytes:
        return row | _refused("scrape.too_large", f"{where}: over {max_bytes} bytes")
    return row | {"content_type": content_type or kind, "body": body}


def _refused(reason: str, detail: str) -> Row:
    return {"reason": reason, "detail": detail, "text": None}


# ---- HTTP ------------------------------------------------------------------------------------------------------------


def split_http(block: bytes) -> tuple[int | None, dict[str, str], bytes]:
    r"""Status, headers (names in lower case) and body of an HTTP answer. No status: the block is no HTTP at all.

    >>> split_http(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nHi")
    (200, {'content-type': 'text/plain'}, b'Hi')
    >>> split_http(b"<p>Hi")
    (None, {}, b'<p>Hi')
    """
    first = re.match(rb"HTTP/\d(?:\.\d)?[ \t]+(\d{3})[^\n]*\n", block)
    if first is None:
        return None, {}, block
    end = re.compile(rb"\r?\n\r?\n").search(block, first.end() - 2, MAX_HEAD)
    head = block[first.end() : end.start() if end else MAX_HEAD]
    fields = (line.partition(b":") for line in head.splitlines())
    headers = {name.strip().lower().decode("latin-1"): value.strip().decode("latin-1") for name, _, value in fields}
    headers.pop("", None)
    return int(first[1]), headers, block[end.end() :] if end else b""


def decode_body(body: bytes, headers: Mapping[str, str], max_bytes: int) -> bytes:
    """The body without its transfer and content encodings; no more than `max_bytes` + 1 bytes of it.

    Many archives hold bodies that were decoded already under headers that say otherwise: those stay as they are.
    Raises ValueError or OSError where an encoded body is broken or clipped.
    """
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = _join_chunks(body)
    for encoding in reversed(headers.get("content-encoding", "").lower().split(",")):
        if len(body) > max_bytes:
            return body
        encoding = encoding.strip().removeprefix("x-")
        if encoding == "gzip" and body.startswith(b"\x1f\x8b"):
            body = inflate(body, max_bytes, GZIP)
        elif encoding == "deflate" and not body.lstrip().startswith(b"<"):
            is_zlib = len(body) > 1 and body[0] & 15 == 8 and (body[0] << 8 | body[1]) % 31 == 0
            body = inflate(body, max_bytes, ZLIB if is_zlib else DEFLATE)
        elif encoding == "br" and not body.lstrip().startswith(b"<"):
            body = _read_up_to(BrotliReader(io.BytesIO(body)), max_bytes + 1)
        elif encoding == "zstd" and body.startswith(_ZSTD):
            body = _read_up_to(ZstdReader(io.BytesIO(body)), max_bytes + 1)
    return body


def _join_chunks(body: bytes) -> bytes:
    chunks: list[bytes] = []
    position = 0
    while size := re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n").match(body, position):
        length = int(size[1], 16)
        if length == 0:
            return b"".join(chunks)
        chunks.append(body[size.end() : size.end() + length])
        if len(chunks[-1]) < length:
            break
        position = size.end() + length
        position += 2 if body.startswith(b"\r\n", position) else 1
    if not chunks:
        return body
    raise ValueError("the chunks of the body end early")


def _read_up_to(reader: Any, size: int) -> bytes:
    """So many bytes of a reader that may give fewer at a time."""
    chunks: list[bytes] = []
    with rust_errors():
        while size > 0 and (data := reader.read(min(size, _CHUNK))):
            chunks.append(data)
            size -= len(data)
    return b"".join(chunks)


# ---- records ---------------------------------------------------------------------------------------------------------


def captures(file: BinaryIO, size: int, max_block: int) -> Iterator[Capture | Damage]:
    """All records of an archive in order, and the places where it is damaged. Never raises for what it holds.

    What follows a record of a wrong length is read again. Where that adds up to MAX_IN_VAIN times the archive the rest
    is left out, which the last Damage says.
    """
    size = size or file.seek(0, io.SEEK_END)
    if size == 0:
        yield Damage(0, "the file is empty")
    elif _begin(file, 0).startswith(b"filedesc:"):
        yield from _arc_captures(file, max_block)
    else:
        yield from _warc_captures(file, size, max_block)


def _warc_captures(file: BinaryIO, size: int, max_block: int) -> Iterator[Capture | Damage]:
    start: int | None = 0
    in_vain = 0  # bytes read that will be read again
    packed = _read_at(file, 0, 4).startswith(tuple(_READERS))
    suspect: Damage | None = None  # damage that lies after its record, or in the one at `start`: the next round tells
    while start is not None and start < size:
        last: Capture | None = None
        length = 0
        try:
            for capture, stated in _round(file, start, max_block):
                last, length = capture, stated
                if suspect:
                    yield suspect
                    suspect = None
                yield capture
            clipped = _clipped_member(file, last.offset if last else start, start)
            if suspect and not clipped:
                yield suspect
            if clipped:
                yield clipped
            return
        except _Broken as error:
            offset, what = error.args
            yield Damage(offset, what)
            in_vain += file.tell() - offset
            if in_vain > MAX_IN_VAIN * (size + _CHUNK):
                yield Damage(offset + 1, "the rest is not read: too many records before have a wrong length")
                return
            suspect, start = None, _find_start(file, offset + 1, packed)
        except OSError as error:
            what = str(error)
            if last is None:
                yield Damage(start, what)
                suspect, start = None, _find_start(file, start + 1, packed)
            else:
                suspect = Damage(last.offset, f"after the record that begins there: {what}")
                start = _find_start(file, last.offset + (1 if packed else max(length, 1)), packed)
    if suspect:
        yield suspect


def _round(file: BinaryIO, start: int, max_block: int) -> Iterator[tuple[Capture, int]]:
    """The records from a place on, with the lengths they state. Raises OSError or _Broken at the first that is none."""
    file.seek(start)
    with rust_errors():
        for record in ArchiveIterator(file, parse_http=False, fsspec_args=False):
            headers = record.headers
            offset, length = record.stream_pos, record.content_length
            if not (headers.get("Content-Length") or "").strip().isdigit():
                raise _Broken(offset, "a record without a length")
            kind = (headers.get("WARC-Type") or "unknown").lower()
            block = None
            if kind in _KINDS and length <= max_block:
                block = record.reader.read(length) if length else b""
                got = len(block)
            else:
                got = record.consume() if length else 0
            if got < length:
                raise _Broken(offset, f"a record of {length} bytes, of which {got} are there")
            url = (headers.get("WARC-Target-URI") or "").strip().removeprefix("<").removesuffix(">")
            yield Capture(offset, kind, url, headers.get("Content-Type") or "", block), length


def _begin(file: BinaryIO, start: int) -> bytes:
    """The first bytes of what begins at a place, decompressed."""
    file.seek(start)
    magic = file.read(4)
    file.seek(start)
    reader = next((reader for key, reader in _READERS.items() if magic.startswith(key)), None)
    try:
        with rust_errors():
            return bytes((reader(file) if reader else file).read(9))
    except OSError:
        return b""


def _find_start(file: BinaryIO, position: int, packed: bool) -> int | None:
    """The next place from which records can be read: a line that begins one, or a compressed member that does.

    In a compressed file only members count: LZ4 may keep the line as it is.
    """
    behind = 16  # bytes looked at again, in case a start lies across two chunks
    while True:
        chunk = _read_at(file, position, _CHUNK)
        for found in _RECORD_START.finditer(chunk):
            start = position + found.start()
            is_line = found[0].startswith(b"WARC")
            if not (packed and is_line) and (is_line or _begin(file, start).startswith(b"WARC/")):
                return start
        if len(chunk) <= behind:
            return None
        position += len(chunk) - behind


def _clipped_member(file: BinaryIO, last: int, start: int) -> Damage | None:
    """The compressed member that the file's end clips, from the one at `last` on, or from `start` if none begins there.

    Elsewhere than in gzip, clipped data raise when they are read; an LZ4 frame with nothing but a head does not.
    """
    for place in dict.fromkeys((last, start)):
        file.seek(place)
        magic = file.read(4)
        if magic.startswith(_GZIP):
            members = _Members(file, place)
            try:
                while members.read(_CHUNK):
                    pass
            except OSError as error:
                return Damage(members.start, str(error))
            return None
        if magic == _LZ4:
            frame = _last_place(file, _LZ4, place)
            return None if _begin(file, frame) else Damage(frame, "the last LZ4 frame is clipped")
    return None


def _last_place(file: BinaryIO, magic: bytes, place: int) -> int:
    """Where some bytes, which are at `place`, occur for the last time."""
    position = found = place
    while len(chunk := _read_at(file, position, _CHUNK)) >= len(magic):
        if (inside := chunk.rfind(magic)) >= 0:
            found = position + inside
        position += len(chunk) - len(magic) + 1
    return found


def _read_at(file: BinaryIO, position: int, size: int) -> bytes:
    file.seek(position)
    return file.read(size)


class _Members(io.RawIOBase):
    """The gzip members of a file, one after the other; reading raises OSError at a broken one and goes on after it."""

    def __init__(self, file: BinaryIO, start: int = 0) -> None:
        self.file, self.start = file, start  # `start` is that of the member being read
        self.next = start
        self.left = b""
        self.decoder: Any = None
        file.seek(start)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            if not self.left:
                self.left = self.file.read(_CHUNK)
                self.next += len(self.left)
                if not self.left and self.decoder:
                    self.decoder = None
                    raise OSError("the last gzip member is clipped")
                if not self.left:
                    return 0
            if self.decoder is None:
                self.start, self.decoder = self.next - len(self.left), zlib.decompressobj(31)
            try:
                data = self.decoder.decompress(self.left, len(buffer))
            except zlib.error as error:
                self._go_on_after(self.start + 1)
                raise OSError(f"a broken gzip member: {error}") from None
            ended = self.decoder.eof
            self.left = self.decoder.unused_data if ended else self.decoder.unconsumed_tail
            if ended:
                self.decoder = None
            if data:
                buffer[: len(data)] = data
                return len(data)

    def _go_on_after(self, position: int) -> None:
        """Seek the next member. A broken one may hold its magic by chance; what follows then is broken as well."""
        self.left, self.decoder = b"", None
        while True:
            self.file.seek(position)
            chunk = self.file.read(_CHUNK)
            place = chunk.find(_GZIP)
            if place >= 0 or len(chunk) < len(_GZIP):
                self.next = position + (place if place >= 0 else len(chunk))
                self.file.seek(self.next)
                return
            position += len(chunk) - len(_GZIP) + 1


def _arc_captures(file: BinaryIO, max_block: int) -> Iterator[Capture | Damage]:
    """Records of an ARC file: a line with URL and length, then as many bytes.

    Their offsets are those of the gzip member where there are any.
    """
    file.seek(0)
    members = _Members(file) if file.read(3) == _GZIP else None
    file.seek(0)
    stream: Any = io.BufferedReader(members, _CHUNK) if members else file
    lost: int | None = None  # where the search for the next record began
    while True:
        offset = members.start if members else stream.tell()
        try:
            line = stream.readline(MAX_HEAD)
            if not line:
                return
            if not line.strip():
                continue
            head = _arc_head(line)
            if head is None:
                if lost is None:
                    yield Damage(offset, "a line that is no head of an ARC record")
                    lost = offset
                continue
            lost = None
            url, content_type, length = head
            block = _read_up_to(stream, min(length, max_block + 1))
            got = len(block)
            while length > got and (data := stream.read(min(length - got, _CHUNK))):
                got += len(data)
        except OSError as error:
            yield Damage(members.start if members else offset, str(error))
            lost = offset
            continue
        if got < length:
            yield Damage(offset, f"a record of {length} bytes, of which {got} are there")
            return
        is_page = url.lower().startswith(("http:", "https:"))
        kind = "response" if is_page else "filedesc" if url.startswith("filedesc:") else "other"
        yield Capture(offset, kind, url, content_type, block if length <= max_block else None)


def _arc_head(line: bytes) -> tuple[str, str, int] | None:
    """URL, content type and length from the line before a record: URL, address, date, type, …, length. Else None.

    >>> _arc_head(b"http://a.example/ 192.0.2.1 20200101000000 text/html 120\\n")
    ('http://a.example/', 'text/html', 120)
    """
    fields = line.split()
    if len(fields) < 4 or not line.endswith(b"\n") or not re.match(rb"[A-Za-z][\w+.-]{1,9}:", fields[0]):
        return None
    if not (fields[2].isdigit() and 4 <= len(fields[2]) <= 14 and fields[-1].isdigit() and len(fields[-1]) < 19):
        return None
    return fields[0].decode("utf-8", "replace"), fields[3].decode("latin-1"), int(fields[-1])
