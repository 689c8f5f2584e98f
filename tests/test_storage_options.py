"""`storage` in params.yaml: no secret gets in, none is repeated, and names are those of storages."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from corpus.cli import main
from corpus.errors import UserError
from corpus.params import load

IN = {
    "storage.s3": lambda options: {"storage": {"s3": options}},
    "sources.0.storage": lambda options: {
        "sources": [{"name": "a", "kind": "jsonl", "path": "s3://b/a.jsonl", "storage": options}]
    },
    "shard.storage": lambda options: {"shard": {"copy_to": "s3://b/a", "storage": options}},
}


def params(folder: Path, tree: object) -> Path:
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.mark.parametrize("place", IN)
@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"key": "word"}, "key"),
        ({"secret": 5}, "secret"),
        ({"token": "word"}, "token"),
        ({"client_kwargs": {"headers": {"Authorization": "word"}}}, "Authorization"),
        ({"Passphrase": "word"}, "Passphrase"),
        ({"endpoint_url": "https://me:word@host"}, "endpoint_url"),
    ],
)
def test_secrets_are_refused_and_not_told(tmp_path: Path, place: str, options: dict[str, object], name: str) -> None:
    with pytest.raises(UserError) as refused:
        load(params(tmp_path, IN[place](options)))
    assert f"{place}: `{name}` is a secret, and this file is shared: put it in the env" in str(refused.value)
    assert "word" not in str(refused.value)


@pytest.mark.parametrize("place", IN)
def test_what_is_no_secret_stays(tmp_path: Path, place: str) -> None:
    for options in ({"token": "anon"}, {"token": "/keys/service.json"}, {"anon": True, "client_kwargs": {"verify": 1}}):
        load(params(tmp_path, IN[place](options)))


def test_a_source_that_is_refused_for_something_else_keeps_its_secret(tmp_path: Path) -> None:
    tree = {"sources": [{"name": "a", "kind": "ftp", "storage": {"key": "word"}}]}
    with pytest.raises(UserError, match=r"sources\.0: ") as refused:
        load(params(tmp_path, tree))
    assert "word" not in str(refused.value)


def test_a_storage_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"storage\.gcz.*: gcz is no storage: did you mean gcs\?"):
        load(params(tmp_path, {"storage": {"gcz": {"anon": True}}}))


def test_memory_is_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    params(tmp_path, {"sources": [{"name": "a", "kind": "jsonl", "path": "memory://a.jsonl"}]})
    for words in (
        ["scrape", "--output", "out"],
        ["measure", "--input", "memory://a", "--output", "out"],
        ["measure", "--input", "data/clean", "--output", "memory://a"],
        ["export", "clean", "memory://a"],
        ["stats", "memory://a"],
        ["why", "x", "--data", "memory://a"],
    ):
        assert main(words) == 2
        assert "each process has a memory of its own: name a folder, or a storage such as" in capsys.readouterr().err
