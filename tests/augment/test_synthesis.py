"""Questions and answers about documents: by a tiny model behind a real server, and by a server that misbehaves."""

from __future__ import annotations

import contextlib
import http.server
import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import httpx
import polars as pl
import pytest
from tiny_writer import ABOUT, SYSTEM, document, tiny_writer

from corpus.answers import answers
from corpus.augment import stage
from corpus.augment.endpoint import LOG
from corpus.augment.synthesis import Template, drawn, pairs_of
from corpus.errors import StageError, UserError
from corpus.params import load
from corpus.stage import Metrics, Run, execute
from train.serve import PACKAGES

ROOT = Path(__file__).parents[2]
SERVES = all(importlib.util.find_spec(name) for name in PACKAGES)


@pytest.fixture
def documents(tmp_path: Path, write_documents: Callable[..., Path]) -> Path:
    """Two parts: six shops; three museums and three banks, and one Chinese document."""
    (tmp_path / "short.yaml").write_text(f"lang: en\nsystem: {SYSTEM}\nprompt: '{{{{ text }}}}'\n")
    texts = [document("shop", n) for n in range(6)]
    write_documents(tmp_path / "documents/part-a-0-00000.parquet", texts, lang="en", licence="CC0")
    others = [document(kind, 10 + n) for kind in ("museum", "bank") for n in range(3)]
    write_documents(tmp_path / "documents/part-b-0-00000.parquet", others, lang="en")
    write_documents(tmp_path / "documents/part-c-0-00000.parquet", ["今天很好，商店九点开门。"], lang="zh-Hans")
    return tmp_path


def augment(
    folder: Path, url: str, output: str = "out", model: str = "m", workers: int = 1, **settings: Any
) -> Metrics:
    endpoint = {"url": url, "timeout_s": 30, "tries": 2} | settings.pop("endpoint", {})
    wanted = {"endpoint": endpoint, "model": model, "templates": [str(folder / "short.yaml")]} | settings
    changes = ["fraction=1", "swaps=0", f"synthesise={json.dumps(wanted)}"]
    params = load(None, [f"augment.{change}" for change in changes])
    run = Run("augment", params, (folder / "documents",), folder / output, folder, None, folder / "home", workers)
    return execute(stage, run)


def rows(folder: Path, output: str = "out") -> pl.DataFrame:
    return pl.concat(pl.read_parquet(path) for path in sorted((folder / output).glob("*.parquet")))


def log_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "home" / LOG).read_text("utf-8").splitlines()]


# ---- a real server with a tiny model ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The address of `train serve` with the tiny model, and the model's name."""
    folder = tiny_writer()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = "import sys; from pathlib import Path; from train.serve import serve; "
    program += "serve(Path(sys.argv[1]), '127.0.0.1', int(sys.argv[2]))"
    command = [sys.executable, "-c", program, str(folder), str(port)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(command, cwd=tmp_path_factory.mktemp("server"), env=environment)
    try:
        for _ in range(240):
            assert server.poll() is None, "the server ended"
            with contextlib.suppress(httpx.HTTPError):
                httpx.get(f"http://127.0.0.1:{port}/health").raise_for_status()
                break
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1", str(folder)
    finally:
        server.terminate()
        server.wait(30)


@pytest.mark.skipif(not SERVES, reason="pip install 'corpusmill[serve]'")
def test_a_model_writes_pairs_and_each_is_judged(documents: Path, served: tuple[str, str]) -> None:
    url, model = served
    metrics = augment(documents, url, model=model, max_tokens=100, endpoint={"timeout_s": 120})
    made = rows(documents)
    kept = made.filter("kept")
    assert kept.height == 6 and set(kept["method"]) == {"synthesis"} and set(kept["licence"]) == {"CC0"}
    pair = json.loads(ABOUT["shop"])[0]
    dialogue = [{"role": "user", "content": pair["question"]}, {"role": "assistant", "content": pair["answer"]}]
    assert kept["messages"].to_list() == [dialogue] * 6
    assert made.filter(~pl.col("kept"))["reasons"].to_list() == [["augment.invented"]] * 3 + [["augment.answer"]] * 3
    assert ABOUT["bank"] in made["text"].to_list()
    assert metrics["rows"] == {"in": 13, "generated": 12, "kept": 19, "dropped": 6}
    assert metrics["synthesis"]["requests"] == 12 == len(log_of(documents))
    assert metrics["synthesis"]["tokens"] > 12 * 46
    asked = {line["document"] for line in log_of(documents)}
    assert asked == set(made["parent_id"])
    before = (documents / "out" / stage.SYNTHESIS_PART).read_bytes()
    augment(documents, url, "again", model=model, max_tokens=100, workers=2)
    assert (documents / "again" / stage.SYNTHESIS_PART).read_bytes() == before
    assert len(log_of(documents)) == 12, "nothing is asked twice"


# ---- a server that misbehaves ----------------------------------------------------------------------------------------


class Server(http.server.BaseHTTPRequestHandler):
    """Answers with a pair about what it is asked; `behaviour` says how else."""

    behaviour = ""
    asked: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).asked.append(asked)
        text = asked["messages"][1]["content"]
        said = json.dumps([{"question": "What is this about?", "answer": text.split(". ")[0] + "."}])
        status = 200
        if self.behaviour == "fenced":
            said = f"Here you are:\n```json\n{said}\n```"
        elif self.behaviour == "slow":
            time.sleep(2)
        elif self.behaviour == "half a character":
            said = said[:-3] + "\ud83d" + said[-3:]
        elif self.behaviour == "refuses museums" and "museum" in text:
            status = 400
        elif self.behaviour == "refuses all":
            status = 422
        usage = {} if self.behaviour == "no usage" else {"usage": {"prompt_tokens": 60, "completion_tokens": 40}}
        body = json.dumps({"choices": [{"message": {"content": said}}]} | usage).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Server.behaviour, Server.asked = "", []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/v1"
        running.shutdown()


def test_a_fence_around_the_answer_does_not_matter(documents: Path, server: str) -> None:
    Server.behaviour = "fenced"
    augment(documents, server)
    assert rows(documents)["kept"].to_list() == [True] * 12


def test_requests_have_a_limit_and_the_same_documents_are_asked_about(documents: Path, server: str) -> None:
    augment(documents, server, max_requests=5)
    first = rows(documents)
    assert len(Server.asked) == 5 == first.height and "5 of 5 requests" in metrics_of(documents)["notes"][0]
    augment(documents, server, "more", max_requests=8)
    assert len(Server.asked) == 8 and set(first["id"]) < set(rows(documents, "more")["id"])


def metrics_of(folder: Path, output: str = "out") -> Metrics:
    return json.loads((folder / output / "metrics.json").read_text("utf-8"))


def test_tokens_have_a_limit_also_for_answers_that_are_known(documents: Path, server: str) -> None:
    augment(documents, server, max_total_tokens=350, endpoint={"concurrency": 2})
    assert metrics_of(documents)["synthesis"] == {"requests": 4, "refused": 0, "no_list": 0, "tokens": 400}
    assert "max_total_tokens was reached" in metrics_of(documents)["notes"][0]
    assert 4 <= len(Server.asked) <= 4 + 2
    augment(documents, server, "all")
    augment(documents, server, "again", max_total_tokens=350)
    assert rows(documents, "again").equals(rows(documents))


def test_what_is_refused_costs_its_document_alone(documents: Path, server: str) -> None:
    Server.behaviour = "refuses museums"
    augment(documents, server)
    refused = rows(documents).filter(~pl.col("kept"))
    assert refused["reasons"].to_list() == [["augment.refused"]] * 3
    assert {line["outcome"] for line in log_of(documents)} == {"status 200", "status 400"}
    Server.behaviour = "refuses all"
    with pytest.raises(UserError, match="refuses each of the first 12 requests"):
        augment(documents, server, "none", model="other")
    assert not (documents / "none").exists()
    Server.behaviour = ""
    augment(documents, server, "mended", model="other")
    assert rows(documents, "mended")["kept"].all(), "what was refused is asked anew"


def test_a_run_that_fails_goes_on_where_it_stopped(
    documents: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("corpus.augment.endpoint.PAUSE_SECONDS", 0.01)
    augment(documents, server, max_requests=4)
    Server.behaviour = "slow"
    with pytest.raises(StageError, match=r"failed 2 times \(it took more than 0.5 s\): what it answered"):
        augment(documents, server, "failed", endpoint={"timeout_s": 0.5})
    assert [line["attempt"] for line in log_of(documents) if "took more" in line["outcome"]].count(2) >= 1
    Server.behaviour, Server.asked = "", []
    augment(documents, server, "done")
    assert len(Server.asked) == 8 and rows(documents, "done").height == 12


def test_tokens_that_nobody_counts_are_estimated(documents: Path, server: str) -> None:
    Server.behaviour = "no usage"
    augment(documents, server, max_total_tokens=100)
    assert 1 < metrics_of(documents)["synthesis"]["requests"] < 5


def test_half_a_character_in_an_answer_costs_nothing(documents: Path, server: str) -> None:
    Server.behaviour = "half a character"
    augment(documents, server)
    assert rows(documents)["kept"].all() and "?" in rows(documents)["text"][0]


def test_a_fraction_of_nothing_asks_nothing(documents: Path, server: str) -> None:
    folder = documents / "documents"
    for path in sorted(folder.iterdir())[:2]:
        path.unlink()
    augment(documents, server)
    assert rows(documents).height == 0 and Server.asked == []


def test_answers_can_be_forgotten(documents: Path, server: str) -> None:
    augment(documents, server)
    parent = rows(documents)["parent_id"][0]
    with answers(documents / "home" / "answers.sqlite") as cache:
        assert cache.forget([parent]) == 1


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("prompt: '{{ text }'", "prompt: no Jinja, line 1"),
        ("prompt: '{{ text }} {{ cost }}'", "prompt: unknown cost; there are pairs, text, title"),
        ("prompt: Write something.", r"prompt: it shows no \{\{ text \}\}"),
        ("prompt: A context of {{ title }}.", r"prompt: it shows no \{\{ text \}\}"),
        ("pairs: 3", "prompt: Field required"),
        ("pairs: 0\nprompt: '{{ text }}'", "pairs: Input should be greater than or equal to 1"),
        ("promt: '{{ text }}'", "promt: Extra inputs"),
        ("- a", "the file: "),
        ("a: [", "cannot be read as YAML"),
    ],
)
def test_a_template_that_is_wrong_is_named_before_anything_is_asked(
    documents: Path, server: str, template: str, said: str
) -> None:
    (documents / "short.yaml").write_text(template)
    with pytest.raises(UserError, match=rf"augment\.synthesise\.templates: .*short\.yaml:? ?.*{said}"):
        augment(documents, server)
    assert Server.asked == []


def test_our_templates_ask_in_the_language_of_the_document(documents: Path, server: str) -> None:
    augment(documents, server, templates=[])
    assert len(Server.asked) == 13
    prompts = [asked["messages"][1]["content"] for asked in Server.asked]
    assert sum("请阅读" in prompt for prompt in prompts) == 1
    assert all(prompt.count("==========") == 2 for prompt in prompts)


def test_pairs_are_read_strictly() -> None:
    assert pairs_of('[{"question": 1, "answer": "x"}]') == pairs_of('[{"question": "x"}]') == pairs_of("[]") == []
    assert pairs_of('{"question": "x", "answer": "y"}') == []
    assert [pair.answer for pair in pairs_of('{"pairs": [{"question": "x", "answer": "y", "why": "z"}]}')] == ["y"]


def test_documents_are_drawn_by_hash_and_others_do_not_change_which() -> None:
    frame = pl.DataFrame({"id": [str(n) for n in range(100)], "lang": ["en", "zh-Hans"] * 50})
    templates = [Template(lang="en", prompt="{{ text }}"), Template(prompt="{{ text }}")]
    ids, requests = drawn(frame, templates, 20, 0)
    assert requests in (19, 20) and len(ids) < 20
    assert drawn(frame.sample(fraction=1, shuffle=True, seed=1), templates, 20, 0)[0] == ids
    assert drawn(frame, templates, 10**6, 0) == (set(frame["id"]), 150)
