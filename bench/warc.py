"""Web archives: records read a second by fastwarc alone, by our reader and by warcio, and the whole `corpus scrape`.

    CORPUSMILL_TEST_DATA=… python bench/warc.py

Writes archives of about 100 MB of real pages into a temporary folder, each record a gzip member or an LZ4 frame of its
own, and prints MB of records (decompressed) a second: the best of three runs, one process. Needs warcio and lz4.
"""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import lz4.frame
from fastwarc.warc import ArchiveIterator
from warcio.archiveiterator import ArchiveIterator as WarcioIterator

from corpus.scrape.archives import read_archive
from corpus.scrape.files import list_files
from corpus.sources import WarcSource

SIZE = 100_000_000
REPEATS = 3


def pages() -> Iterator[bytes]:
    """The pages of all collections, over and over."""
    folder = Path(os.environ["CORPUSMILL_TEST_DATA"]) / "web_pages"
    bodies = [gzip.decompress(path.read_bytes()) for path in sorted(folder.glob("*/html/*.gz"))]
    while True:
        yield from bodies


def write_archives(folder: Path) -> int:
    """The same records three times: as they are, by gzip, and by LZ4. Returns their bytes, decompressed."""
    written = 0
    packers: dict[str, Callable[[bytes], bytes]] = {
        "pages.warc": bytes,
        "pages.warc.gz": lambda data: gzip.compress(data, 6),
        "pages.warc.lz4": lambda data: bytes(lz4.frame.compress(data)),
    }
    files = {name: (folder / name).open("wb") for name in packers}
    for number, body in enumerate(pages()):
        http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        head = (
            b"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:%d>\r\nWARC-Date: 2024-01-01T00:00:00Z\r\n"
        )
        head += b"WARC-Target-URI: http://a.example/%d\r\nContent-Type: application/http; msgtype=response\r\n"
        record = head % (number, number) + b"Content-Length: %d\r\n\r\n" % len(http) + http + b"\r\n\r\n"
        for name, file in files.items():
            file.write(packers[name](record))
        written += len(record)
        if written >= SIZE:
            break
    for file in files.values():
        file.close()
    return written


def by_fastwarc(path: Path) -> int:
    """Records with their payload read, nothing else."""
    return sum(len(record.reader.read()) >= 0 for record in ArchiveIterator(str(path), fsspec_args=False))


def by_us(path: Path) -> int:
    """Rows as `scrape` takes them: lengths compared, HTTP taken apart, bodies decoded, URLs normalised and hashed."""
    source = WarcSource(name="pages", kind="warc", path=str(path))
    rows = read_archive(source, list_files(str(path), "warc")[0], Counter())
    return sum("body" in row or "reason" in row for row in rows)


def by_warcio(path: Path) -> int:
    """Records with their payload read."""
    with path.open("rb") as file:
        return sum(len(record.content_stream().read()) >= 0 for record in WarcioIterator(file))


def by_scrape(path: Path) -> int:
    """The whole stage, Parquet written, with the start of Python and the imports."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            Path(sys.executable).with_name("corpus"),
            "scrape",
            "--input",
            path,
            "--output",
            Path(folder) / "out",
        ]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return 0


def main() -> None:
    """Print a row for each archive and reader."""
    with tempfile.TemporaryDirectory() as folder:
        size = write_archives(Path(folder))
        print("| archive | on disk, MB | reader | records | MB/s |\n|---|---|---|---|---|")
        for path in sorted(Path(folder).iterdir()):
            for name, reader in (
                *(("fastwarc", by_fastwarc), ("ours", by_us), ("warcio", by_warcio)),
                ("`corpus scrape`", by_scrape),
            ):
                if reader is by_warcio and path.suffix == ".lz4":
                    continue  # it reads none
                seconds, records = [], 0
                for _ in range(REPEATS):
                    start = time.perf_counter()
                    records = reader(path)
                    seconds.append(time.perf_counter() - start)
                speed = size / 1e6 / min(seconds)
                print(f"| {path.name} | {path.stat().st_size / 1e6:.0f} | {name} | {records or ''} | {speed:,.0f} |")


if __name__ == "__main__":
    main()
