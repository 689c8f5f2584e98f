"""Files of a source, here or on object storage: listed, opened, and decompressed as they are read."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple, cast
from urllib.parse import quote

from fastwarc.stream_io import Lz4Reader, ZstdReader

from corpus.errors import StageError, UserError, is_panic
from corpus.storage import stamp_of
from corpus.storage_errors import is_missing, refusal, shown
from corpus.storage_options import connect

SUFFIXES = {
    "jsonl": (".jsonl", ".ndjson"),
    "parquet": (".parquet",),
    "csv": (".csv", ".tsv"),
    "text": (".txt", ".md", ".rst", ".log", ".tex"),
    "html": (".html", ".htm", ".xhtml", ".shtml"),
    "warc": (".warc", ".arc", ".wet"),
}
OF_KIND = SUFFIXES | {"label_studio": (".json",)}  # a kind that nothing but a source's word tells from others
COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".lz4")
DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError)  # what reading a broken or clipped file raises
MAX_LINE = 64 << 20  # bytes; no row of text is longer, and memory holds one
_BUFFER = 1 << 18

Storage = Mapping[str, Any]


class FileEntry(NamedTuple):
    """A file of a source."""

    path: str  # where it is opened
    name: str  # what details and ids call it: the same wherever the source's folder lies
    size: int  # bytes; 0 where the storage does not say
    stamp: str  # changes with the content, as far as the storage can tell

    @property
    def is_local(self) -> bool:
        return "://" not in self.path

    @property
    def shown(self) -> str:
        """Its path for messages."""
        return shown(self.path)


def has_suffix(name: str, suffixes: Sequence[str], compressed: bool = True) -> bool:
    """Whether a file's name ends like one of a kind, compressed or not.

    >>> has_suffix("a.JSONL.gz", (".jsonl",)), has_suffix("a.csv", (".jsonl",)), has_suffix("a.gz", (".jsonl",))
    (True, False, False)
    """
    path = PurePosixPath(name.lower())
    return path.suffix in suffixes or (compressed and path.suffix in COMPRESSED and Path(path.stem).suffix in suffixes)


def is_of_kind(name: str, kind: str) -> bool:
    """Whether a file that is named by itself is of a kind: in folders, `.json` may be anything.

    >>> is_of_kind("alpaca.json", "jsonl"), is_of_kind("rows.jsonl.gz", "jsonl"), is_of_kind("rows.json", "text")
    (True, True, False)
    """
    return has_suffix(name, OF_KIND[kind], kind != "parquet") or (kind == "jsonl" and has_suffix(name, (".json",)))


def refuse_beside_parquet(inputs: Iterable[Path]) -> None:
    """Raises UserError where documents lie beside the Parquet, or in folders below it, that would not be read."""
    suffixes = [suffix for kind in SUFFIXES.values() for suffix in kind]
    for path in inputs:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            read = file.suffix == ".parquet" and file.parent in (path, path.parent)
            if has_suffix(file.name, suffixes) and not read and file.is_file():
                raise UserError(f"{file} lies beside Parquet and would not be read: name one kind of file with --input")


def list_files(location: str, kind: str, storage: Storage | None = None) -> list[FileEntry]:
    """The files at a path, in a folder, or that a pattern with * matches, sorted by path.

    `location` is a path here or an address that fsspec knows (`s3://`, `gs://`, `https://`, …), `storage` its options.
    Raises UserError where there is none, or the storage refuses.
    """
    location = location.removeprefix("file://")
    found = _list_local(Path(location), kind) if "://" not in location else _list_remote(location, kind, storage or {})
    if not found:
        raise UserError(
            f"sources: {shown(location)} matches no {' or '.join(OF_KIND[kind])} file: there is nothing to read"
        )
    return found


def _list_local(path: Path, kind: str) -> list[FileEntry]:
    if path.is_file():
        return [_local_entry(path, path.name)]
    root = path
    if path.is_dir():
        found = [p for p in path.rglob("*") if has_suffix(p.name, OF_KIND[kind], kind != "parquet") and p.is_file()]
    elif "*" in str(path):
        parts = path.parts
        first = next(i for i, part in enumerate(parts) if "*" in part)
        root = Path(*parts[:first])
        found = [p for p in root.glob(str(Path(*parts[first:]))) if p.is_file()] if root.is_dir() else []
    else:
        raise UserError(f"sources: {path} does not exist: name a file, a folder, or a pattern with *")
    return [_local_entry(p, p.relative_to(root).as_posix()) for p in sorted(found)]


def files_in(folder: Path) -> list[FileEntry]:
    """All files in a folder, of whatever kind, sorted by path."""
    return [_local_entry(p, p.relative_to(folder).as_posix()) for p in sorted(folder.rglob("*")) if p.is_file()]


def _local_entry(path: Path, name: str) -> FileEntry:
    stat = path.stat()
    return FileEntry(str(path), readable_name(name), stat.st_size, f"{stat.st_mtime_ns} {stat.st_ctime_ns}")


def readable_name(name: str) -> str:
    """A file's name as it is, or with its bytes quoted where they are not UTF-8."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return quote(os.fsencode(name))
    return name


def _list_remote(location: str, kind: str, storage: Storage) -> list[FileEntry]:
    with _storage_errors(location):
        files, root = connect(location, storage)
        files.invalidate_cache()
        if "*" in root:
            found = files.glob(root, detail=True)
            base = root[: root.index("*")].rpartition("/")[0]
        else:
            info = files.info(root)
            if info["type"] != "directory":
                return [_remote_entry(files, root, info, PurePosixPath(root.partition("?")[0]).name)]
            found = files.find(root, detail=True)
            suffixes, base = OF_KIND[kind], root.rstrip("/")
            found = {path: info for path, info in found.items() if has_suffix(path, suffixes, kind != "parquet")}
        return [
            _remote_entry(files, path, info, path[len(base) :].lstrip("/"))
            for path, info in sorted(found.items())
            if info["type"] == "file"
        ]


def _remote_entry(files: Any, path: str, info: Mapping[str, Any], name: str) -> FileEntry:
    return FileEntry(files.unstrip_protocol(path), readable_name(name), info.get("size") or 0, stamp_of(info))


@contextlib.contextmanager
def _storage_errors(location: str) -> Iterator[None]:
    """Turn whatever a storage's client raises into one sentence: each has exceptions of its own."""
    try:
        yield
    except (UserError, StageError):
        raise
    except Exception as error:
        seen = shown(location)
        if isinstance(error, FileNotFoundError) and is_missing(error):
            raise UserError(f"sources: {seen} does not exist: name a file, a folder, or a pattern with *") from None
        raise refusal(error, f"sources: {seen} cannot be read", location.partition("://")[0]) from None


def state_of(entry: FileEntry, storage: Storage | None = None) -> tuple[int, str] | None:
    """Size and stamp that a file has now; None where it is gone."""
    try:
        if entry.is_local:
            now = _local_entry(Path(entry.path), entry.name)
            return now.size, now.stamp
    except FileNotFoundError:
        return None
    with _storage_errors(entry.path):
        files, path = connect(entry.path, storage or {})
        # What was listed is what it was before. S3 can be asked past it, which spares the next file a request.
        anew = {"refresh": True} if hasattr(files, "call_s3") else {}
        if not anew:
            files.invalidate_cache()
        try:
            now = _remote_entry(files, path, files.info(path, **anew), entry.name)
        except FileNotFoundError as error:
            if not is_missing(error):
                raise
            return None
    return now.size, now.stamp


@contextlib.contextmanager
def unchanged(entry: FileEntry, storage: Storage | None = None) -> Iterator[None]:
    """Raises StageError where a file is not, after it was read, what it was when it was listed.

    Where the listing says nothing of its state, that before reading counts. What looks like damage may be a change.
    """
    before = (entry.size, entry.stamp) if entry.stamp else state_of(entry, storage)
    try:
        yield
    except Exception:
        _refuse_changed(entry, storage, before)
        raise
    _refuse_changed(entry, storage, before)


def _refuse_changed(entry: FileEntry, storage: Storage | None, before: tuple[int, str] | None) -> None:
    if before is not None and state_of(entry, storage) != before:
        raise StageError(f"{entry.shown} changed while it was read: run again once it is complete")


@contextlib.contextmanager
def open_raw(entry: FileEntry, storage: Storage | None = None) -> Iterator[BinaryIO]:
    """A file's bytes as they are stored, seekable.

    Reading raises UserError where a storage fails, so that a network that is down is not taken for a broken file.
    """
    if entry.is_local:
        with Path(entry.path).open("rb") as file:
            yield file
        return
    with _storage_errors(entry.path):
        import fsspec

        opened = fsspec.open(entry.path, "rb", **(storage or {})).open()
    with opened, io.BufferedReader(_Stored(opened, entry.path), _BUFFER) as file:
        if opened.seekable():
            yield file
            return
        with tempfile.TemporaryFile() as copy:
            shutil.copyfileobj(file, copy, _BUFFER)
            copy.seek(0)
            yield cast(BinaryIO, copy)


class _Stored(io.RawIOBase):
    """A file of fsspec's, whose errors are the user's to see."""

    def __init__(self, file: Any, path: str) -> None:
        self.file, self.path = file, path

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self.file.seekable())

    def readinto(self, buffer: Any) -> int:
        with _storage_errors(self.path):
            data = self.file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with _storage_errors(self.path):
            return int(self.file.seek(offset, whence))

    def tell(self) -> int:
        return int(self.file.tell())


@contextlib.contextmanager
def open_bytes(entry: FileEntry, storage: Storage | None = None) -> Iterator[BinaryIO]:
    """A file's bytes, decompressed by its suffix while they are read: memory holds a buffer, whatever they become.

    Reading raises one of DAMAGE where the file is broken or clipped.
    """
    with open_raw(entry, storage) as raw, decompressed(raw, entry.name) as file:
        yield file


def decompressed(raw: BinaryIO, name: str) -> BinaryIO:
    """A stream that decompresses another by the suffix of its name, or that stream itself."""
    suffix = PurePosixPath(name.lower()).suffix
    if suffix == ".gz":
        return cast(BinaryIO, gzip.GzipFile(fileobj=raw))
    if suffix == ".bz2":
        return cast(BinaryIO, bz2.BZ2File(raw))
    if suffix == ".xz":
        return cast(BinaryIO, lzma.LZMAFile(raw))
    if suffix in (".zst", ".lz4"):
        # Not zstandard's own: it takes a clipped file for a whole one.
        return cast(BinaryIO, io.BufferedReader(_Raw(ZstdReader(raw) if suffix == ".zst" else Lz4Reader(raw)), _BUFFER))
    return raw


class _Raw(io.RawIOBase):
    """What Python's buffers ask of a file, over a reader that can only `read(n)`."""

    def __init__(self, reader: Any) -> None:
        self.reader = reader

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with rust_errors():
            data = self.reader.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


@contextlib.contextmanager
def rust_errors() -> Iterator[None]:
    """Turn what fastwarc cannot recover from into OSError."""
    try:
        yield
    except BaseException as error:
        if not is_panic(error):
            raise
        raise OSError(str(error)[:200]) from None


def read_lines(location: str, kind: str = "text", storage: Storage | None = None) -> Iterator[str]:
    """The lines of text files, one file or several, compressed or not; without empty ones and comments (#).

    For lists of addresses. Raises UserError for what is missing, damaged, or no text; StageError as `unchanged` does.
    """
    for entry in list_files(location, kind, storage):
        try:
            with unchanged(entry, storage), open_bytes(entry, storage) as file:
                while line := file.readline(MAX_LINE):
                    text = line.decode("utf-8-sig").strip()
                    if text and not text.startswith("#"):
                        yield text
        except DAMAGE as error:
            raise UserError(f"{entry.shown} is damaged ({error}): copy it again") from None
        except UnicodeDecodeError:
            raise UserError(f"{entry.shown} is no list: it should be text in UTF-8 with an address a line") from None
