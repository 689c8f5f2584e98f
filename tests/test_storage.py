"""Stages with inputs and outputs on object storage: a server that speaks S3, real files, real processes."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import polars as pl
import pytest
import yaml
from conftest import Bucket, command, digests, environment

from corpus import publish as publishing
from corpus.cli import main
from corpus.errors import UserError
from corpus.publish import open_target, publish
from corpus.storage import DRAFTS, MANIFEST, fetch, fetch_folders, location
from corpus.storage_options import Options, refuse_unknown_options

TEXTS = [f"Line {n} of a text about files, folders and the programs that read them. " * 3 for n in range(7)]
Write = Callable[[str], Path]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3: Bucket) -> Path:
    """A working folder whose params.yaml names the server and a source there."""
    monkeypatch.chdir(tmp_path)
    rows = "".join(json.dumps({"text": text}) + "\n" for text in [*TEXTS, TEXTS[0]])
    s3.files.pipe_file(f"{s3.name}/in/rows.jsonl", rows.encode())
    source = {"name": "rows", "kind": "jsonl", "path": s3.address("in/*.jsonl"), "lang": "en"}
    save_params({"sources": [source], "storage": s3.options})
    return tmp_path


def save_params(tree: dict[str, Any]) -> None:
    Path("params.yaml").write_text(yaml.safe_dump(tree))


@pytest.fixture
def folder(tmp_path: Path) -> Write:
    """Write a folder of small files, one of them new each time: `folder("former")`."""

    def write(word: str) -> Path:
        path = tmp_path / "written" / word
        (path / "train").mkdir(parents=True)
        (path / ".stage").write_text("measure\n")
        (path / "same.txt").write_text("as it was")
        (path / "train" / "part-0.txt").write_text(word)
        return path

    return write


def send(folder: Path, address: str, storage: Options) -> None:
    publish(folder, open_target(address, "measure", storage), folder.parent / "sender")


def objects(s3: Bucket, path: str) -> dict[str, bytes]:
    """All objects below a path, by name."""
    root = f"{s3.name}/{path}"
    return {name[len(root) + 1 :]: s3.files.cat_file(name) for name in sorted(s3.files.find(root))}


def named(s3: Bucket, path: str) -> set[str]:
    """The objects that a published folder's manifest names."""
    manifest = json.loads(s3.files.cat_file(f"{s3.name}/{path}/{MANIFEST}"))
    return {one["object"] for one in manifest["files"].values()}


def said(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    """What the command says that refuses these words, a sentence."""
    assert main(words) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ") and text.count("\n") == 1
    return text


# ---- stages ----------------------------------------------------------------------------------------------------------


def build(base: str, clean: str, data: str) -> None:
    """Four stages, each reading what those before it wrote."""
    options = ["--workers", "1", "--output"]
    assert main(["scrape", *options, f"{base}/scrape"]) == 0
    assert main(["clean", "--input", f"{base}/scrape", *options, clean]) == 0
    assert main(["measure", "--input", clean, *options, f"{base}/measure"]) == 0
    assert main(["dedup", "--input", clean, f"{base}/measure", *options, data]) == 0


def test_stages_give_the_same_bytes_there_as_here(here: Path, s3: Bucket, capsys: pytest.CaptureFixture[str]) -> None:
    build(s3.address("data"), s3.address("data/clean"), s3.address("data/dedup"))
    told = capsys.readouterr().out
    assert f"measure: 8 in, 8 kept, 0 dropped → {s3.address('data/measure')} in " in told
    build("data", "data/clean", "data/dedup")
    fetched = fetch_folders(s3.address("data"), ["scrape", "clean", "measure", "dedup"], s3.options, Path("elsewhere"))
    for stage in ("scrape", "clean", "measure", "dedup"):
        there, local = digests(fetched / stage), digests(here / "data" / stage)
        assert there.pop("timing.json", None) is None or local.pop("timing.json")
        assert there == local and "metrics.json" in local and ".stage" in local
        assert set(objects(s3, f"data/{stage}")) == named(s3, f"data/{stage}") | {MANIFEST}
    assert not Path("reports").exists()
    # Another program's reader.
    options = {"aws_endpoint_url": s3.endpoint, "aws_allow_http": "true"}
    frame = pl.read_parquet(s3.address("data/measure/**/*.parquet"), storage_options=options)
    assert frame.equals(pl.read_parquet("data/measure/*.parquet"))


def test_a_second_run_sends_only_what_changed(here: Path, s3: Bucket) -> None:
    build(s3.address("data"), s3.address("data/clean"), s3.address("data/dedup"))
    before = objects(s3, "data")
    build(s3.address("data"), s3.address("data/clean"), s3.address("data/dedup"))
    after = objects(s3, "data")
    for name in {name for name in before if "/part-" in name}:
        assert name in after
    s3.files.pipe_file(f"{s3.name}/in/more.jsonl", b'{"text": "A further text about programs."}\n')
    build(s3.address("data"), s3.address("data/clean"), s3.address("data/dedup"))
    assert set(objects(s3, "data/measure")) == named(s3, "data/measure") | {MANIFEST}
    assert pl.read_parquet(fetch(s3.address("data/measure"), s3.options) / "*.parquet").height == 9


def test_questions_and_exports_read_there_and_write_there(
    here: Path, s3: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    build(s3.address("data"), s3.address("data/clean"), s3.address("data/dedup"))
    capsys.readouterr()
    assert main(["export", "clean", s3.address("kept"), "--data", s3.address("data")]) == 0
    assert capsys.readouterr().out == f"clean: 8 kept → {s3.address('kept')}/kept.jsonl\n"
    rows = [json.loads(line) for line in objects(s3, "kept")["kept.jsonl"].splitlines()]
    assert sorted(row["text"] for row in rows) == sorted(text.strip() for text in [*TEXTS, TEXTS[0]])
    text = said(capsys, ["export", "clean", s3.address("kept"), "--data", s3.address("data")])
    assert f"{s3.address('kept')} holds what export wrote: name a new or empty folder" in text
    assert main(["why", rows[0]["id"], "--data", s3.address("data"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == rows[0]["id"]
    assert main(["sample", "--stage", "clean", "--data", s3.address("data"), "--json", "-n", "2"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert main(["stats", s3.address("data/measure"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_any_parquet_there_will_do(here: Path, s3: Bucket, write_documents: Callable[..., Path]) -> None:
    for number in (0, 1):
        path = write_documents(here / f"part-{number}.parquet", TEXTS[: number + 1], lang="en")
        s3.files.put_file(str(path), f"{s3.name}/mine/{path.name}")
    assert main(["measure", "--input", s3.address("mine"), "--output", "signals"]) == 0
    assert [pl.read_parquet(path).height for path in sorted(Path("signals").glob("*.parquet"))] == [1, 2]
    assert main(["measure", "--input", s3.address("mine/part-1.parquet"), "--output", "one"]) == 0
    assert [path.name for path in Path("one").glob("*.parquet")] == ["part-1.parquet"]
    kept = {path: path.stat().st_mtime_ns for path in Path(".corpusmill/remote/objects").iterdir()}
    path = write_documents(here / "part-0.parquet", TEXTS[:4], lang="en")
    s3.files.put_file(str(path), f"{s3.name}/mine/part-0.parquet")
    assert main(["measure", "--input", s3.address("mine"), "--output", "signals"]) == 0
    assert [pl.read_parquet(path).height for path in sorted(Path("signals").glob("*.parquet"))] == [4, 2]
    now = {path: path.stat().st_mtime_ns for path in Path(".corpusmill/remote/objects").iterdir()}
    assert kept.items() <= now.items() and len(now) == len(kept) + 1  # the other file was not fetched again


# ---- publications ----------------------------------------------------------------------------------------------------


def test_what_is_published_replaces_what_was(folder: Write, s3: Bucket, tmp_path: Path) -> None:
    address = s3.address("out")
    for word in ("former", "latter"):
        send(folder(word), address, s3.options)
        for home in ("reader", f"reader of {word}"):
            assert digests(fetch(address, s3.options, tmp_path / home)) == digests(tmp_path / "written" / word)
        assert set(objects(s3, "out")) == named(s3, "out") | {MANIFEST}
    same = [name for name in objects(s3, "out") if name.startswith("same.")]
    manifest = json.loads(objects(s3, "out")[MANIFEST])
    assert len(same) == 1 and manifest["publication"] not in same[0]  # what did not change stays
    part = fetch(f"{address}/train/part-0.txt", s3.options, tmp_path / "reader")
    assert part.name == "part-0.txt" and part.read_text() == "latter"
    assert digests(fetch(f"{address}/train", s3.options, tmp_path / "reader")).keys() == {"part-0.txt"}
    with pytest.raises(UserError, match=r"train/part-1.txt does not exist: .* names no such file or folder"):
        fetch(f"{address}/train/part-1.txt", s3.options, tmp_path / "reader")


KILLED = """
import os, signal, sys
from pathlib import Path
from corpus import publish
from corpus.publish import open_target
publish.{function} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
folder, address, endpoint = sys.argv[1:]
target = open_target(address, "measure", {{"s3": {{"endpoint_url": endpoint}}}})
publish.publish(Path(folder), target, Path(folder).parent / "sender")
"""


def kill_in(function: str, folder: Path, s3: Bucket) -> None:
    """Publish in another process, which is killed where it would call a function."""
    words = [sys.executable, "-c", KILLED.format(function=function), folder, s3.address("out"), s3.endpoint]
    assert subprocess.run(words, env=environment(), check=False).returncode == -9


def test_killed_before_the_manifest_readers_have_the_former_files(folder: Write, s3: Bucket, tmp_path: Path) -> None:
    latter = folder("latter")
    kill_in("put_manifest", latter, s3)
    with pytest.raises(UserError, match="is not published yet: wait for the run that does, or run it again"):
        fetch(s3.address("out"), s3.options, tmp_path / "reader")
    send(folder("former"), s3.address("out"), s3.options)
    assert set(objects(s3, "out")) == named(s3, "out") | {MANIFEST}

    kill_in("put_manifest", latter, s3)
    assert digests(fetch(s3.address("out"), s3.options, tmp_path / "reader")) == digests(tmp_path / "written/former")
    left = set(objects(s3, "out")) - named(s3, "out") - {MANIFEST}
    sent = {name for name in left if not name.startswith(DRAFTS)}
    assert sent and len(left) == len(sent) + 1
    send(latter, s3.address("out"), s3.options)
    assert digests(fetch(s3.address("out"), s3.options, tmp_path / "reader")) == digests(latter)
    assert set(objects(s3, "out")) == named(s3, "out") | {MANIFEST}
    assert sent <= named(s3, "out")  # not sent again


def test_killed_after_the_manifest_the_next_run_tidies_up(folder: Write, s3: Bucket, tmp_path: Path) -> None:
    send(folder("former"), s3.address("out"), s3.options)
    latter = folder("latter")
    kill_in("_clean_up", latter, s3)
    assert digests(fetch(s3.address("out"), s3.options, tmp_path / "reader")) == digests(latter)
    assert set(objects(s3, "out")) > named(s3, "out") | {MANIFEST}
    send(latter, s3.address("out"), s3.options)
    assert set(objects(s3, "out")) == named(s3, "out") | {MANIFEST}


@pytest.mark.parametrize("protocol", ["s3", "memory"])
def test_of_two_runs_at_once_one_is_refused(
    protocol: str, folder: Write, s3: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = s3.address("out") if protocol == "s3" else f"memory://{s3.name}/out"
    storage = s3.options
    send(folder("former"), address, storage)
    first, second = (open_target(address, "measure", storage) for _ in range(2))
    winner = folder("winner")
    publish(winner, first, tmp_path / "first")
    with pytest.raises(UserError, match="was published by another run meanwhile, which stays: run this again"):
        publish(folder("loser"), second, tmp_path / "second")
    # The other one comes between the files of this one and its manifest.
    third, latest = open_target(address, "measure", storage), folder("latest")

    with monkeypatch.context() as patched:
        put = publishing.put_manifest

        def send_first(target: Any, data: bytes) -> None:
            patched.undo()
            publish(winner / "train", open_target(address, "measure", storage), tmp_path / "fourth")
            put(target, data)

        patched.setattr(publishing, "put_manifest", send_first)
        with pytest.raises(UserError, match="meanwhile"):
            publish(latest, third, tmp_path / "third")
    assert digests(fetch(address, storage, tmp_path / "reader")) == digests(winner / "train")
    assert len(fsspec.filesystem(protocol, **storage.get(protocol, {})).find(address)) == 2  # nothing of the other's


def test_a_run_whose_files_another_one_tidied_away_leaves_none(
    folder: Write, s3: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    winner, loser = folder("winner"), folder("loser")
    (loser / ".first").write_text("not among the winner's, which would take it over")
    target = open_target(s3.address("out"), "measure", s3.options)
    with monkeypatch.context() as patched:
        patched.setattr("corpus.storage.TRANSFERS", 1)
        put = target.place.files.put_file

        def overtaken(source: str, path: str) -> None:
            put(source, path)
            patched.undo()  # only after its first file
            send(winner, s3.address("out"), s3.options)

        patched.setattr(target.place.files, "put_file", overtaken)
        with pytest.raises(UserError, match="was published by another run meanwhile"):
            publish(loser, target, tmp_path / "loser")
    assert set(objects(s3, "out")) == named(s3, "out") | {MANIFEST}
    send(loser, s3.address("out"), s3.options)
    assert digests(fetch(s3.address("out"), s3.options, tmp_path / "reader")) == digests(loser)


def test_the_storage_itself_decides_between_two_manifests(
    folder: Write, s3: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for word in ("first", "second"):  # a first manifest, and one that replaces another
        target = open_target(s3.address("out"), "measure", s3.options)
        send(folder(word), s3.address("out"), s3.options)
        with monkeypatch.context() as patched:  # as if the other had come after the last look
            looks, read = [target.base], publishing.read_manifest
            patched.setattr(
                publishing, "read_manifest", lambda place, looks=looks, read=read: looks.pop() if looks else read(place)
            )
            tag = publishing.list_objects(target.place)[MANIFEST]
            if target.base:
                patched.setattr(target.place.files, "info", lambda path, tag=tag: tag | {"ETag": '"a former one"'})
            with pytest.raises(publishing.Overtaken):
                publishing.put_manifest(target, b"{}")
        assert fetch(s3.address("out"), s3.options, tmp_path / "reader").is_dir()


def test_a_reader_overtaken_by_a_run_gets_the_new_files(
    folder: Write, s3: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from corpus import storage

    send(folder("former"), s3.address("out"), s3.options)
    latter, published = folder("latter"), storage._published
    with monkeypatch.context() as patched:

        def overtaken(*arguments: Any) -> Any:
            patched.undo()
            send(latter, s3.address("out"), s3.options)
            return published(*arguments)

        patched.setattr(storage, "_published", overtaken)
        assert digests(fetch(s3.address("out"), s3.options, tmp_path / "reader")) == digests(latter)


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda data: data[:-1], "part-0.txt came with 5 bytes, not 6: it was cut or replaced there"),
        (
            lambda data: data[::-1],
            "part-0.txt is not what was published, though as long: remove it and run",
        ),
        (
            lambda data: None,
            r"part-0\.\w{8}\.txt is not there, though manifest.json names it: publish",
        ),
    ],
)
def test_a_damaged_object_is_refused(
    damage: Callable[[bytes], bytes | None], sentence: str, folder: Write, s3: Bucket, tmp_path: Path
) -> None:
    send(folder("former"), s3.address("out"), s3.options)
    path = next(path for path in s3.files.find(f"{s3.name}/out") if "part-0" in path)
    damaged = damage(s3.files.cat_file(path))
    s3.files.pipe_file(path, damaged) if damaged else s3.files.rm_file(path)
    with pytest.raises(UserError, match=sentence):
        fetch(s3.address("out"), s3.options, tmp_path / "reader")
    assert not list((tmp_path / "reader").rglob("*.txt"))


def test_a_manifest_cannot_name_files_elsewhere(folder: Write, s3: Bucket, tmp_path: Path) -> None:
    send(folder("former"), s3.address("out"), s3.options)
    path = f"{s3.name}/out/{MANIFEST}"
    whole = s3.files.cat_file(path).decode()
    for changed, sentence in (
        (whole.replace("train/part-0.txt", "../../evil"), "names '../../evil', which is no file of a folder"),
        (whole.replace('"size"', '"length"'), "manifest.json is damaged: put a former version of it there"),
        (whole[:-20], "manifest.json is damaged"),
        (whole[:3], "manifest.json is damaged"),
        ("", "manifest.json is damaged"),
        (whole.replace('"corpusmill": 1', '"corpusmill": 2'), "is of another corpusmill"),
    ):
        s3.files.pipe_file(path, changed.encode())
        with pytest.raises(UserError, match=sentence):
            fetch(s3.address("out"), s3.options, tmp_path / "reader")
        if "names" not in sentence:
            with pytest.raises(UserError, match=sentence):
                open_target(s3.address("out"), "measure", s3.options)
    s3.files.pipe_file(path, b'[{"name": "an app"}]')  # of somebody else's
    assert fetch(s3.address("out"), s3.options, tmp_path / "reader").is_dir()


def test_other_peoples_files_are_left_alone(here: Path, s3: Bucket, capsys: pytest.CaptureFixture[str]) -> None:
    s3.files.pipe_file(f"{s3.name}/theirs/notes.md", b"mine")
    text = said(capsys, ["scrape", "--output", s3.address("theirs")])
    assert f"{s3.address('theirs')} holds files that no stage published, such as notes.md: name a new" in text
    assert objects(s3, "theirs") == {"notes.md": b"mine"}
    assert main(["scrape", "--output", s3.address("pages")]) == 0
    capsys.readouterr()
    clean = ["clean", "--input", s3.address("pages"), "--output"]
    assert "holds what scrape wrote" in said(capsys, ["reference", "--output", s3.address("pages")])
    assert "cannot be the output of clean, which reads" in said(capsys, [*clean, s3.address("pages/clean")])
    assert "lies in" in said(capsys, ["reference", "--output", s3.address("pages/model")])


def test_what_a_storage_refuses_is_a_sentence(
    here: Path, s3: Bucket, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scrape = ["scrape", "--output"]
    assert f"{s3.address('no')} does not exist" in said(
        capsys, ["measure", "--input", s3.address("no"), "--output", "out"]
    )
    assert "s3://no-such-bucket/x: no such bucket (" in said(capsys, [*scrape, "s3://no-such-bucket/x"])
    assert "nosuch://b/x: no storage goes by that name" in said(capsys, [*scrape, "nosuch://b/x"])
    assert "a web server can be read only" in said(capsys, [*scrape, f"{s3.endpoint}/b/x"])
    assert "name a folder or a file; patterns are for" in said(capsys, [*scrape, s3.address("*")])
    signed = "https://me:word@127.0.0.1/x?X-Amz-Signature=word"
    text = said(capsys, [*scrape, signed])
    assert "https://127.0.0.1/x: a web server can be read only" in text and "word" not in text
    assert "s3:// names nothing: write it as" in said(capsys, [*scrape, "s3://"])
    assert "`corpus run` writes into a folder here" in said(capsys, ["run", "--output", s3.address("x")])
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    assert "(pip install gcsfs)" in said(capsys, [*scrape, "gs://bucket/x"])
    own = {"name": "rows", "kind": "jsonl", "path": s3.address("in/rows.jsonl"), "storage": {"anon": True}}
    save_params({"sources": [own], "storage": s3.options})  # the source's own options win
    assert "in/rows.jsonl cannot be read: denied (" in said(capsys, [*scrape, "pages"])
    anonymous = {"sources": [], "storage": {"s3": s3.options["s3"] | {"anon": True}}}
    save_params(anonymous)
    assert "denied (" in said(capsys, [*scrape, s3.address("x")])
    for wrong, right in (
        ("endpoint_ulr", "endpoint_url"),
        ("anonn", "anon"),
        ("use_listing_cache", "use_listings_cache"),
    ):
        save_params({"storage": {"s3": {wrong: "x"}}})
        assert f"storage: {wrong} is no option of s3://: did you mean {right}?" in said(
            capsys, [*scrape, s3.address("x")]
        )
    save_params({"storage": {"s3": {"key": "x"}}})
    assert "storage.s3: `key` is a secret, and this file is shared" in said(capsys, [*scrape, s3.address("x")])
    save_params({"storage": {"s3": s3.options["s3"] | {"max_concurrency": 3}}})  # a client of its own, without keys
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert "no credentials (" in said(capsys, [*scrape, s3.address("x")])


def test_errors_name_addresses_and_not_their_mirrors(
    here: Path, s3: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    s3.files.pipe_file(f"{s3.name}/mine/a.parquet", b"no Parquet at all")
    text = said(capsys, ["measure", "--input", s3.address("mine"), "--output", "signals"])
    assert text.startswith(f"error: {s3.address('mine/a.parquet')} is not a whole Parquet file")


@pytest.mark.parametrize(
    ("protocol", "words"),
    [
        ("http", "headers ssl timeout auth cookies params proxy trust_env max_redirects client_kwargs block_size"),
        ("s3", "profile session_vars anon endpoint_url client_kwargs config_kwargs max_concurrency requester_pays"),
        ("sftp", "port username password key_filename timeout compress allow_agent look_for_keys sock"),
    ],
)
def test_options_that_storages_hand_on_are_left_alone(protocol: str, words: str) -> None:
    if protocol != "sftp" or importlib.util.find_spec("paramiko"):
        refuse_unknown_options(fsspec.get_filesystem_class(protocol), protocol, dict.fromkeys(words.split()))


def test_an_address_of_files_here_is_a_path() -> None:
    assert location("file:///tmp/x") == Path("/tmp/x") and location("x/y") == Path("x/y")


@pytest.mark.skipif(not importlib.util.find_spec("dvc_s3"), reason="dvc-s3 is not installed")
def test_dvc_keeps_outputs_there(here: Path, s3: Bucket) -> None:
    Path("data").mkdir()
    Path("data/rows.txt").write_text("rows")
    for words in (
        "init --no-scm --quiet",
        "add --quiet data",
        f"remote add --quiet --default store {s3.address('dvc')}",
        f"remote modify --quiet store endpointurl {s3.endpoint}",
        "push --quiet",
    ):
        command(here, sys.executable, "-m", "dvc", *words.split())
    for path in ("data/rows.txt", ".dvc/cache"):
        command(here, "rm", "-rf", path)
    command(here, sys.executable, "-m", "dvc", "pull", "--quiet")
    assert Path("data/rows.txt").read_text() == "rows"
