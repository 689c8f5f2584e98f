"""A model is served by transformers; what stands in the way is said in a sentence."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from tiny_project import built

from corpus.errors import UserError
from train.serve import PACKAGES, serve

ROOT = Path(__file__).parents[2]
INSTALLED = all(importlib.util.find_spec(name) for name in PACKAGES)


def test_missing_packages_name_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else find(name))
    with pytest.raises(UserError, match=r"uvicorn.*pip install 'corpusmill\[serve\]'"):
        serve(tmp_path, "127.0.0.1", 0)


def test_a_folder_without_a_model_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    with pytest.raises(UserError, match="holds no model"):
        serve(tmp_path, "127.0.0.1", 0)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="holds an adapter"):
        serve(tmp_path, "127.0.0.1", 0)


@pytest.mark.skipif(not INSTALLED, reason="pip install 'corpusmill[serve]'")
def test_the_adapter_of_a_project_answers_as_a_stream(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    project = shutil.copytree(built(tmp_path_factory.getbasetemp()), tmp_path / "project")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = (
        f"from pathlib import Path; from train.serve import serve; serve(Path('data/finetune'), '127.0.0.1', {port})"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen([sys.executable, "-c", script], cwd=project, env=environment)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            _wait(client, server)
            assert client.get("/v1/models").status_code == 200
            asked = {
                "model": ".corpusmill/served",
                "messages": [{"role": "user", "content": "怎样打开文件?"}],
                "stream": True,
                "max_tokens": 5,
            }
            with client.stream("POST", "/v1/chat/completions", json=asked) as answer:
                assert answer.status_code == 200
                events = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: {")]
        texts = [choice["delta"].get("content") for event in events for choice in event["choices"]]
        assert len([text for text in texts if text]) > 1
    finally:
        server.terminate()
        server.wait(30)


def _wait(client: httpx.Client, server: subprocess.Popen[bytes]) -> None:
    for _ in range(240):
        assert server.poll() is None, "the server ended"
        try:
            client.get("/health").raise_for_status()
            return
        except httpx.HTTPError:
            time.sleep(0.5)
    raise AssertionError("the server does not answer")
