"""Documents given to `corpus run`: nothing beside them is passed over, and what is wrong is said of the right file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from corpus.cli import main

Write = Callable[..., Path]


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[str], str]:
    """What `corpus run` says that refuses some documents."""
    monkeypatch.chdir(tmp_path)

    def run(path: str) -> str:
        assert main(["run", "--input", path, "--stages", "measure", "--workers", "1"]) == 2
        return capsys.readouterr().err

    return run


@pytest.mark.parametrize("name", ["b.jsonl", "b.jsonl.gz", "more/b.csv", "more/b.parquet"])
def test_nothing_beside_them_is_passed_over(said: Callable[[str], str], write_documents: Write, name: str) -> None:
    write_documents(Path("mine/a.parquet"), ["A text."])
    Path("mine", name).parent.mkdir(exist_ok=True)
    Path("mine", name).write_bytes(b"{}")
    assert f"error: mine/{name} lies beside Parquet and would not be read: name one kind" in said("mine")


def test_an_id_that_two_files_have(said: Callable[[str], str], write_documents: Write) -> None:
    write_documents(Path("a.parquet"), ["One.", "Two."], id=["x", "y"])
    write_documents(Path("mine/a.parquet"), ["One.", "Two."], id=["x", "y"])
    write_documents(Path("mine/b.parquet"), ["Three.", "Four."], id=["z", "y"])
    assert "the id y occurs twice, in mine/a.parquet and in mine/b.parquet: give each" in said("mine")
    write_documents(Path("b.parquet"), ["One.", "Two."], id=["x", "x"])
    assert said("b.parquet") == "error: the id x occurs twice, in b.parquet: give each document an id of its own\n"
