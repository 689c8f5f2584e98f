"""Answers over HTTP as OpenAI's API does, streaming and many at once, by `transformers serve`."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

from corpus.errors import UserError
from corpus.params import load
from train.models import device

PACKAGES = ("fastapi", "openai", "uvicorn")  # of transformers[serving], which the extra `serve` brings


def serve(folder: Path, host: str, port: int) -> None:
    """Serve a model's folder, as `train export` writes it, in place of this process. Does not return.

    A project's `finetune` with an adapter is merged into `.corpusmill/served` first, which proves the merge. Clients
    name the folder as `model`. Nothing is asked of a hub. Raises UserError naming the folder, or the missing packages.
    """
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise UserError(f"train serve needs {', '.join(missing)}: pip install 'corpusmill[serve]'")
    if (folder / "adapter_config.json").is_file():
        if folder.name != "finetune":
            raise UserError(f"{folder} holds an adapter: name the folder `finetune` of a project, or an exported model")
        from train.export import export

        merged, params = Path(".corpusmill/served"), Path("params.yaml")
        shutil.rmtree(merged, ignore_errors=True)
        print(export(folder.parent, load(params if params.is_file() else None), merged), flush=True)
        folder = merged
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} holds no model: name a folder that `train export` wrote")
    cache = Path(os.environ.get("HF_HUB_CACHE", ".corpusmill/hub"))
    cache.mkdir(parents=True, exist_ok=True)  # without it the list of models is an error
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache.resolve())}
    options = ["--host", host, "--port", str(port), "--continuous-batching", "--attn-implementation", "sdpa"]
    if device() == "cpu":
        options += ["--cb-max-memory-percent", "0.05"]  # it would take most of the memory for its cache
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder), *options]
    os.execve(sys.executable, command, environment)
