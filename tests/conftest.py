"""What tests of more than one package share: a project in a temporary folder, and ways to run it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import settings

from corpus.documents import DOCUMENT, document_id, write_table

PROJECT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent

# The same examples every run, so that a change is judged and not a die; `--hypothesis-profile=explore` draws new ones.
# No deadline: the first call of a kernel compiles it.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile("repeatable")


@pytest.fixture
def write_documents() -> Callable[..., Path]:
    """Write texts as a Parquet part of documents: `write_documents(path, ["one", "two"], lang="en")`."""

    def write(path: Path, texts: list[str], **columns: object) -> Path:
        rows = {
            "id": [document_id(f"{path.name}:{number}:{text}") for number, text in enumerate(texts)],
            "text": texts,
            "source": ["test"] * len(texts),
            "batch": [0] * len(texts),
        }
        rows |= {name: value if isinstance(value, list) else [value] * len(texts) for name, value in columns.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = [pa.array(rows.get(f.name, [None] * len(texts)), f.type) for f in DOCUMENT]
        write_table(pa.Table.from_arrays(arrays, schema=DOCUMENT), path)
        return path

    return write


class Bucket(NamedTuple):
    """An empty bucket of an S3 on this machine."""

    name: str
    endpoint: str
    files: Any  # a client of it: s3fs.S3FileSystem

    def address(self, path: str) -> str:
        return f"s3://{self.name}/{path}"

    @property
    def options(self) -> dict[str, dict[str, object]]:
        """`storage` of params.yaml."""
        return {"s3": {"endpoint_url": self.endpoint}}


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The endpoint of a server that speaks S3, on the loopback interface."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A bucket, and the credentials for it in the environment."""
    import s3fs

    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",  # nothing is asked for credentials over a network
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
    }.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{hashlib.blake2b(str(tmp_path).encode(), digest_size=8).hexdigest()}"
    files = s3fs.S3FileSystem(endpoint_url=s3_server, use_listings_cache=False)
    files.mkdir(bucket)
    return Bucket(bucket, s3_server, files)


def copy_project(folder: Path) -> Path:
    """The files of this project that a clone would have, in another folder."""
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    folder.mkdir(parents=True)
    for name in ("corpus", "train", "data/sample"):
        shutil.copytree(PROJECT / name, folder / name, ignore=ignore)
    for name in ("reference", "evaluation", "templates"):
        (folder / "data" / name).mkdir()
        for path in (PROJECT / "data" / name).iterdir():
            if path.suffix in (".txt", ".jsonl", ".yaml"):
                shutil.copy(path, folder / "data" / name)
    for name in ("dvc.yaml", "params.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(PROJECT / name, folder / name)
    (folder / ".dvc").mkdir()
    for name in ("config", ".gitignore"):
        shutil.copy(PROJECT / ".dvc" / name, folder / ".dvc" / name)
    return folder


def command(folder: Path, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run one of the project's commands, or git, in a folder, with the environment's programs first in the path."""
    done = subprocess.run(
        words, cwd=folder, env=environment(), capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if check and done.returncode:
        raise AssertionError(f"{' '.join(words)} exited with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done


def environment() -> dict[str, str]:
    """The environment of a user who activated `.venv` and has no network."""
    git = {"GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@example.com"}
    git |= {"GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@example.com"}
    return os.environ | git | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}


def digests(folder: Path) -> dict[str, str]:
    """BLAKE2b of every file under a folder, by relative path."""
    return {
        str(path.relative_to(folder)): hashlib.blake2b(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def read_rows(path: Path) -> list[dict[str, object]]:
    """All rows of a Parquet file, for asserting on."""
    return pl.read_parquet(path).to_dicts()
