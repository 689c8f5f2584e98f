"""Back-translation with a tiny Marian pair that was trained for it, by both engines, and by an endpoint."""

import contextlib
import functools
import http.server
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
import pytest
from tiny_marian import DID, HOW, WHAT, WHO, marian_pair, sentences

from corpus.answers import answers
from corpus.augment import engines, stage, translation
from corpus.augment.engines import Direction
from corpus.errors import StageError, UserError
from corpus.params import load
from corpus.stage import Metrics, Run, execute


@pytest.fixture(scope="module")
def pair() -> tuple[Path, Path]:
    return marian_pair()


@functools.cache
def unseen(count: int) -> list[tuple[str, str]]:
    """Pairs that the models were not trained on."""
    known = set(sentences(4_000, seed=1))
    return [one for one in sentences(6_000, seed=3) if one not in known][:count]


def direction(folder: Path, home: Path, beams: int = 1) -> Direction:
    return Direction(folder, None, None, engines.convert(folder, home), beams)


def test_ctranslate2_says_what_transformers_says(pair: tuple[Path, Path], tmp_path: Path) -> None:
    english = [one for one, _ in unseen(200)]
    way = direction(pair[0], tmp_path)
    fast, slow = engines.translate_with_ctranslate2(english, way), engines.translate_with_transformers(english, way)
    assert sum(a == b for a, b in zip(fast, slow, strict=True)) >= 198
    expected = [chinese.replace("计算机", "电脑").replace("出售", "卖") for _, chinese in unseen(200)]
    usual = [text.replace("计算机", "电脑").replace("出售", "卖") for text in fast if text]
    assert sum(a == b for a, b in zip(expected, usual, strict=True)) >= 190


def test_eight_bits_that_overflow_are_noticed(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "agree", lambda rounded, exact: False)
    converted = engines.convert(pair[0], tmp_path)
    assert converted.name.endswith("-float32") and not list(converted.parent.glob("*.partial"))
    monkeypatch.undo()
    other = engines.convert(pair[1], tmp_path / "other")
    assert not engines.agree(other, converted), "another model is no rounding error"
    assert engines.agree(converted, converted)


def test_a_model_is_converted_once(pair: tuple[Path, Path], tmp_path: Path) -> None:
    first = engines.convert(pair[0], tmp_path)
    before = first.stat().st_mtime_ns
    assert engines.convert(pair[0], tmp_path) == first and first.stat().st_mtime_ns == before


def test_a_sentence_that_is_too_long_stays(pair: tuple[Path, Path], tmp_path: Path) -> None:
    long = " ".join(["the teacher bought"] * 40) + "."
    for translate in (engines.translate_with_ctranslate2, engines.translate_with_transformers):
        assert translate([long, unseen(1)[0][0]], direction(pair[0], tmp_path))[0] is None


# ---- the stage -------------------------------------------------------------------------------------------------------


@pytest.fixture
def documents(tmp_path: Path, write_documents: Callable[..., Path]) -> Path:
    """Three parts: prose with a list and code, more prose, and a document in a language without models."""
    rare = {other for words in (WHO, DID, HOW, WHAT) for (_, *others), _ in words for other in others}
    lines = [one for one, _ in unseen(1_000) if any(word in one.lower() for word in rare)][::5]
    texts = [
        "\n".join(["# 7", f"- {lines[n]}", f"- {lines[n + 1]}", "```", "x = 1", "```", *lines[n + 2 : n + 6]])
        for n in range(0, 48, 6)
    ]
    write_documents(tmp_path / "documents/part-a-0-00000.parquet", texts[:4], lang="en")
    write_documents(tmp_path / "documents/part-b-0-00000.parquet", texts[4:], lang="en")
    write_documents(tmp_path / "documents/part-c-0-00000.parquet", ["今天很好。"], lang="zh-Hans")
    return tmp_path


def augment(
    folder: Path, forward: object, backward: object, output: str = "out", workers: int = 1, **settings: Any
) -> Metrics:
    models = {"forward": str(forward), "backward": str(backward)} | settings
    changes = ["fraction=1", "swaps=0", f"backtranslate.en={json.dumps(models)}", "gates.chrf=[10, 99]"]
    params = load(None, [f"augment.{change}" for change in changes])
    run = Run(
        "augment", params, (folder / "documents",), folder / output, folder, None, folder / "home", workers=workers
    )
    return execute(stage, run)


def rows(folder: Path, output: str = "out") -> pl.DataFrame:
    return pl.concat(pl.read_parquet(path) for path in sorted((folder / output).glob("*.parquet")))


@pytest.mark.parametrize("engine", ["ctranslate2", "transformers"])
def test_documents_go_there_and_back(documents: Path, pair: tuple[Path, Path], engine: str) -> None:
    metrics = augment(documents, *pair, engine=engine)
    made = rows(documents)
    assert made.height == 8 == metrics["by_method"][translation.METHOD]["generated"]  # no models for Chinese
    assert metrics["rows"]["in"] + metrics["rows"]["generated"] == metrics["rows"]["kept"] + metrics["rows"]["dropped"]
    assert made["kept"].sum() >= 4, made.select("text", "reasons").rows()
    parents = dict(rows(documents, "documents").select("id", "text").rows())
    for row in made.filter("kept").iter_rows(named=True):
        parent = parents[row["parent_id"]]
        assert row["text"] != parent
        assert row["text"].count("- ") == 2 and "```\nx = 1\n```\n" in row["text"]
        digits = [[word for word in text.split() if word.isdigit()] for text in (row["text"], parent)]
        assert digits[0] == digits[1]


def test_the_bytes_do_not_depend_on_workers_nor_on_the_cache(documents: Path, pair: tuple[Path, Path]) -> None:
    augment(documents, *pair)
    shutil.rmtree(documents / "home")
    augment(documents, *pair, output="again", workers=3)
    shutil.rmtree(documents / "home" / "parts")
    augment(documents, *pair, output="cached")
    for path in sorted((documents / "out").glob("*.parquet")):
        assert path.read_bytes() == (documents / "again" / path.name).read_bytes()
        assert path.read_bytes() == (documents / "cached" / path.name).read_bytes()


def test_nothing_is_translated_twice(documents: Path, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    augment(documents, *pair)
    before = rows(documents)
    shutil.rmtree(documents / "home" / "parts")
    monkeypatch.setattr(engines, "translate_with_ctranslate2", None)
    augment(documents, *pair)
    assert rows(documents).equals(before)
    with answers(documents / "home" / "answers.sqlite") as cache:
        assert cache.forget([before["parent_id"][0], "unknown"]) == 1
    with pytest.raises(TypeError):  # it would be translated again
        shutil.rmtree(documents / "home" / "parts")
        augment(documents, *pair)


# ---- models that will not do -----------------------------------------------------------------------------------------


def test_a_pair_that_does_not_lead_back_is_refused(documents: Path, pair: tuple[Path, Path]) -> None:
    with pytest.raises(UserError, match=r"backtranslate\.en: .*en-zh translates into zh, but .*en-zh from en"):
        augment(documents, pair[0], pair[0])
    with pytest.raises(UserError, match=r"backtranslate\.en\.forward: .*zh-en translates from zh, not from en"):
        augment(documents, pair[1], pair[0])


def test_a_folder_without_tokenizer_or_weights_is_named(
    documents: Path, pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors", "generation_config.json"):
        shutil.copy(pair[0] / name, bare)
    for engine in ("transformers", "ctranslate2"):
        with pytest.raises(UserError, match=r"bare has no tokenizer that loads"):
            augment(documents, bare, pair[1], engine=engine)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"augment\.backtranslate\.en\.forward: no/model is neither a folder"):
        augment(documents, "no/model", pair[1])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"forward: .*empty has no \*\.safetensors"):
        augment(documents, tmp_path / "empty", pair[1])


# ---- an endpoint -----------------------------------------------------------------------------------------------------


class Server(http.server.BaseHTTPRequestHandler):
    """Answers chat completions; `behaviour` says how, `asked` what it was asked."""

    behaviour = "translate"
    asked: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).asked.append(asked | {"authorization": self.headers["Authorization"], "path": self.path})
        text = asked["messages"][1]["content"]
        said = text.replace("bought", "purchased").replace("saw", "noticed").replace("teacher", "instructor")
        body = json.dumps({"choices": [{"message": {"role": "assistant", "content": said}}]})
        status = 200
        if self.behaviour == "prose":
            body = "Sure! Here is your translation:"
        elif self.behaviour == "busy once" and len(self.asked) == 1:
            status, body = 503, "busy"
        elif self.behaviour == "slow":
            time.sleep(3)
        elif self.behaviour == "refuse":
            status, body = 401, "who are you?"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):  # who waited has gone
            self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Server.behaviour, Server.asked = "translate", []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/v1"
        running.shutdown()


def ask(folder: Path, url: str, **settings: Any) -> Metrics:
    endpoint = {"url": url, "timeout_s": 0.5 if Server.behaviour == "slow" else 30, "tries": 2} | settings
    return augment(folder, "there", "back", languages=["English", "Chinese"], endpoint=endpoint)


def test_an_endpoint_is_asked_sentence_by_sentence(
    documents: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Server.behaviour = "busy once"
    monkeypatch.setenv("MY_KEY", "secret")
    ask(documents, server, key="MY_KEY")
    made = rows(documents)
    assert made.height == 8 and all("bought" not in text for text in made["text"])
    first = Server.asked[-1]
    assert first["path"] == "/v1/chat/completions" and first["authorization"] == "Bearer secret"
    assert {asked["model"] for asked in Server.asked} == {"there", "back"}
    assert first["temperature"] == 0
    assert "from Chinese into English" in first["messages"][0]["content"]
    before = len(Server.asked)
    shutil.rmtree(documents / "home" / "parts")
    ask(documents, server, key="MY_KEY")
    assert len(Server.asked) == before


@pytest.mark.parametrize(
    ("behaviour", "error", "said"),
    [
        ("prose", StageError, r"is no chat completion: 'Sure! Here is"),
        ("slow", StageError, r"failed 2 times \(it took more than 0.5 s\)"),
        ("refuse", UserError, r"turns us away with status 401: who are you\?"),
    ],
)
def test_an_endpoint_that_fails_is_one_sentence(
    documents: Path, server: str, behaviour: str, error: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("corpus.augment.endpoint.PAUSE_SECONDS", 0.01)
    Server.behaviour = behaviour
    with pytest.raises(error, match=said):
        ask(documents, server)
    assert not (documents / "out").exists()


def test_an_endpoint_that_is_not_there_and_a_key_that_is_not_set_are_named(documents: Path) -> None:
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:1/v1/chat/completions cannot be reached"):
        ask(documents, "http://127.0.0.1:1/v1")
    with pytest.raises(UserError, match="set the environment variable NO_SUCH_KEY"):
        ask(documents, "http://127.0.0.1:1/v1", key="NO_SUCH_KEY")
    with pytest.raises(UserError, match="add languages"):
        augment(documents, "a", "b", endpoint={"url": "http://127.0.0.1:1/v1"})
