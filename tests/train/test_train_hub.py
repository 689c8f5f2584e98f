"""A model by its name on the hub: fetched over HTTP from a server that answers as the hub does, without its pickles."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tiny_project import with_base

COMMIT = "1234567890abcdef1234567890abcdef12345678"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the repository team/tiny holds: the tiny base, a pickle and a program."""
    base = with_base(tmp_path_factory.getbasetemp()) / "data" / "base"
    ours = (".stage", "base.json")
    held = {path.name: path.read_bytes() for path in base.iterdir() if path.name not in ours}
    return held | {"pytorch_model.bin": b"a pickle", "setup.py": b"raise SystemExit('ran')"}


@pytest.fixture
def hub(files: dict[str, bytes]) -> Iterator[tuple[str, list[str]]]:
    """The address of the server, and what it was asked for."""
    asked: list[str] = []

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            if re.match(r"/api/models/team/tiny(/revision/[\w.-]+)?(\?|$)", self.path):
                names = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
                self._send(json.dumps({"id": "team/tiny", "sha": COMMIT, "siblings": names}).encode())
            elif self.path.startswith("/api/models/team/tiny/tree/"):
                tree = [{"type": "file", "path": n, "size": len(d), "oid": _etag(d)} for n, d in files.items()]
                self._send(json.dumps(tree).encode())
            elif found := re.match(rf"/team/tiny/resolve/{COMMIT}/(.+)", self.path):
                self._send(files[found[1]], {"X-Repo-Commit": COMMIT, "ETag": f'"{_etag(files[found[1]])}"'})
            else:
                self.send_error(404)

        do_HEAD = do_GET

        def _send(self, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(200)
            for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()


def _etag(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


def fetch(folder: Path, endpoint: str, name: str) -> subprocess.CompletedProcess[str]:
    """`train base` in an empty folder with the hub at an address."""
    (folder / "params.yaml").write_text(f"base: {{model: {name}}}\n")
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "cache"), "HF_HUB_DISABLE_XET": "1"}
    program = "import sys, train.cli; sys.exit(train.cli.main(['base']))"
    return subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


def test_a_model_of_the_hub_is_copied_without_its_pickles_and_programs(
    hub: tuple[str, list[str]], files: dict[str, bytes], tmp_path: Path
) -> None:
    endpoint, asked = hub
    done = fetch(tmp_path, endpoint, "team/tiny")
    assert done.returncode == 0, done.stderr
    written = {path.name: path.read_bytes() for path in (tmp_path / "data" / "base").iterdir()}
    del written[".stage"]
    assert json.loads(written.pop("base.json")) == {"model": "team/tiny", "revision": None}
    assert written == {name: data for name, data in files.items() if name not in ("pytorch_model.bin", "setup.py")}
    assert not any(".bin" in path or ".py" in path for path in asked)


def test_a_model_that_the_hub_does_not_have_is_named(hub: tuple[str, list[str]], tmp_path: Path) -> None:
    done = fetch(tmp_path, hub[0], "team/unheard-of")
    assert done.returncode == 2 and "base.model: 'team/unheard-of' is no folder here" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "data" / "base").exists()


def test_without_a_network_the_way_without_one_is_said(tmp_path: Path) -> None:
    done = fetch(tmp_path, "http://127.0.0.1:9", "team/tiny")
    assert done.returncode == 2
    assert (
        done.stderr.strip()
        .splitlines()[-1]
        .startswith(
            "error: base.model: 'team/tiny' is no folder here and cannot be fetched (the hub cannot be reached); "
            "without a network, copy the model's folder"
        )
    )
