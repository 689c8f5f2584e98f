"""Mirrors of object storage: what was fetched once is trusted only as long as it is what was fetched."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from conftest import Bucket

from corpus.cli import main
from corpus.errors import UserError
from corpus.publish import open_target, publish
from corpus.storage import fetch, fetch_folders, with_addresses


def put(s3: Bucket, name: str, data: bytes) -> str:
    s3.files.pipe_file(f"{s3.name}/{name}", data)
    return s3.address(name)


def overwrite(path: Path, data: bytes) -> None:
    """Write into the file itself, so that all its links have it."""
    with path.open("r+b") as file:
        file.truncate()
        file.write(data)


@pytest.mark.parametrize("damage", [b"", b"a par", b"A PART"])
def test_what_was_damaged_here_is_fetched_again(s3: Bucket, tmp_path: Path, damage: bytes) -> None:
    folder = tmp_path / "written"
    folder.mkdir()
    (folder / "part.txt").write_bytes(b"a part")
    publish(folder, open_target(s3.address("out"), "measure", s3.options), tmp_path / "sender")
    listed, home = put(s3, "listed/part.txt", b"a part"), tmp_path / "home"
    addresses = [s3.address("out")] if damage == b"A PART" else [s3.address("out"), s3.address("listed"), listed]
    for address in addresses:
        mirror = fetch(address, s3.options, home)
        file = mirror / "part.txt" if mirror.is_dir() else mirror
        overwrite(file, damage)
        assert fetch(address, s3.options, home) == mirror and file.read_bytes() == b"a part"
        file.unlink()
        assert fetch(address, s3.options, home) == mirror and file.read_bytes() == b"a part"


def test_an_address_may_end_in_any_word(s3: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("address", "objects", "in/address"):
        address = put(s3, f"folder/{name}", name.encode())
        assert fetch(address, s3.options).read_bytes() == name.encode()
        assert with_addresses(f"{fetch(address, s3.options)}: no") == f"{address}: no"
    put(s3, "address/a.txt", b"a")
    assert (fetch(s3.address("address"), s3.options) / "a.txt").read_bytes() == b"a"


def test_names_that_cannot_lie_side_by_side(s3: Bucket, tmp_path: Path) -> None:
    put(s3, "both/a", b"file")
    put(s3, "both/a/b/c", b"in a folder")
    with pytest.raises(UserError, match=r"both holds a and a/b/c: here one is a folder, rename the other"):
        fetch(s3.address("both"), s3.options, tmp_path)


def test_links_are_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    address = f"local://{folder}"
    assert [path.name for path in fetch(address, {}, tmp_path / "home").iterdir()] == ["a.txt"]
    for target in ("/etc/hostname", "../secret.txt", "a.txt", "nowhere"):
        (folder / "link.txt").symlink_to(target)
        with pytest.raises(UserError, match=r"there holds link\.txt, a link or no file at all"):
            fetch(address, {}, tmp_path / "home")
        (folder / "link.txt").unlink()


def test_mirrors_of_several_folders_can_be_moved(s3: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("clean", "measure"):
        put(s3, f"data/{name}/a.txt", name.encode())
    names = ["clean", "measure", "reference/model"]
    (tmp_path / "before").mkdir()
    monkeypatch.chdir(tmp_path / "before")
    mirror = fetch_folders(s3.address("data"), names, s3.options)
    moved = (tmp_path / "before").rename(tmp_path / "after")
    monkeypatch.chdir(moved)
    assert (mirror / "clean" / "a.txt").read_bytes() == b"clean"
    (mirror / "measure").unlink()
    (mirror / "measure").symlink_to("/nowhere")
    assert fetch_folders(s3.address("data"), names, s3.options) == mirror
    assert (mirror / "measure" / "a.txt").read_bytes() == b"measure"


def test_addresses_stand_for_their_mirrors(
    s3: Bucket,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    write_documents: Callable[..., Path],
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_documents(tmp_path / "part-a.parquet", ["A text of some words.", "Another one of them."], lang="en")
    address = put(s3, "docs/part-a.parquet", path.read_bytes()).removesuffix("/part-a.parquet")
    Path("params.yaml").write_text(json.dumps({"storage": s3.options}))
    assert main(["stats", address]) == 0 and main(["stats", address, "--json"]) == 0
    assert main(["run", "--input", address, "--stages", "measure", "--workers", "1"]) == 0
    told = capsys.readouterr().out
    assert told.count(address) >= 3 and not re.search("remote/[0-9a-f]{32}", told)
    assert f"the documents of {address} as they are" in Path("try/reports/clean.json").read_text()
    assert pl.read_parquet("try/data/clean/*.parquet").height == 2
