"""Loading models and tokenizers safely, and the state of torch that makes a run repeatable.

Torch and transformers take seconds to import, so everything here imports them when it is called.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

from corpus.errors import UserError

IGNORED = -100  # the label that no loss counts
SMALL_PARAMETERS = 50_000_000  # up to here a model fills one core; several train side by side


def prepare_torch(threads: int, seed: int) -> None:
    """Seed torch, keep to `threads` threads and to deterministic kernels, and silence the libraries' chatter."""
    import torch
    import transformers

    torch.set_num_threads(max(1, threads))
    torch.manual_seed(seed)
    if device() == "cuda":  # on a CPU the kernels used here are, and asking for it costs two seconds
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", module=r"(peft|transformers|torch|bitsandbytes)\b")


def load_model(source: str | Path, key: str, revision: str | None = None, quantization: str = "none") -> Any:
    """A causal language model in fp32 from a folder or the hub: safetensors only, and never code that comes with it.

    `quantization` is none, int8 or nf4. Raises UserError naming `key` where nothing can be loaded.
    """
    import torch
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {"dtype": torch.float32, "use_safetensors": True}
    if quantization != "none":
        options |= {"quantization_config": _quantization_config(quantization), "device_map": {"": device()}}
    return _load(AutoModelForCausalLM, source, key, revision, options)


def load_tokenizer(source: str | Path, key: str, revision: str | None = None) -> Any:
    """The tokenizer of a model. Raises UserError naming `key` where none can be loaded."""
    from transformers import AutoTokenizer

    return _load(AutoTokenizer, source, key, revision, {})


def _load(auto_class: Any, source: str | Path, key: str, revision: str | None, options: dict[str, Any]) -> Any:
    from safetensors import SafetensorError

    local = Path(source).is_dir()
    if isinstance(source, Path) and not local:
        raise UserError(f"{source} does not exist: run `train {source.name}`, which writes it")
    try:
        return auto_class.from_pretrained(
            str(source), revision=revision, trust_remote_code=False, local_files_only=local, **options
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        first = str(error).strip().splitlines()[:1]
        raise UserError(
            f"{key}: {str(source)!r} cannot be loaded ({' '.join(first) or type(error).__name__}); "
            "name a folder with config.json, model.safetensors and a tokenizer, or a model of the hub that has these"
        ) from None


def _quantization_config(kind: str) -> Any:
    import logging

    import torch
    from transformers import BitsAndBytesConfig

    # It says for each layer and step that fp32 is cast.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )


def device() -> str:
    """Where models run: `cuda` if there is one, else `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def share_cores(folder: Path, models: int, workers: int) -> tuple[int, int]:
    """How many of `models` models in a folder's size to run at once, and with how many threads each.

    Small ones run side by side with a thread each; large ones one after another with all threads.
    """
    bytes_per_parameter = 4
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if size <= SMALL_PARAMETERS * bytes_per_parameter:
        return min(models, workers), 1
    return 1, workers
