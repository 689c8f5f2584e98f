"""Loading models and tokenizers safely, and the state of torch that makes a run repeatable.

Torch and transformers take seconds to import, so everything here imports them when it is called.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import warnings
from pathlib import Path
from typing import Any

from corpus.errors import UserError
from corpus.executor import Workers
from corpus.stage import Run
from train.lineage import refuse_made_for_another

IGNORED = -100  # the label that no loss counts
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")  # pickled ones (.bin) could run code of their own
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
    # It asks a hub for a kernel, which it can do without, and says so each time.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def load_model(
    source: str | Path,
    key: str,
    *,
    revision: str | None = None,
    method: str = "full",
    precision: str = "fp32",
    trust_remote_code: bool = False,
) -> Any:
    """A causal language model from a folder or the hub, safetensors only.

    `method` is that of finetune: qlora loads the linear layers in nf4 with double quantisation, int8 in eight bits.
    `precision` (fp32, bf16, fp16) is that of all other weights. Code that comes with the model runs only if it is
    trusted. Raises UserError naming `key` where nothing can be loaded.
    """
    import torch
    from transformers import AutoModelForCausalLM

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True}
    if method in ("qlora", "int8"):
        options |= {"quantization_config": _quantization_config(method, dtype), "device_map": {"": _this_device()}}
    options |= {"output_loading_info": True}
    model, loaded = _load(AutoModelForCausalLM, source, key, revision, trust_remote_code, options)
    if loaded["missing_keys"]:  # they would be drawn at random
        missing = ", ".join(sorted(loaded["missing_keys"])[:3])
        raise UserError(f"{key}: {str(source)!r} lacks weights that its config.json promises: {missing}")
    return _as_on_every_processor(model)


def _as_on_every_processor(model: Any) -> Any:
    """A model whose 4-bit weights stay as they are stored.

    On processors with AVX-512 BF16 bitsandbytes packs them anew in evaluation. That fails where a layer is no multiple
    of 32 by 64, rounds to bf16, and is not undone when the model moves (bitsandbytes issue 2078).
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def load_tokenizer(
    source: str | Path, key: str, *, revision: str | None = None, trust_remote_code: bool = False
) -> Any:
    """The tokenizer of a model. Raises UserError naming `key` where none can be loaded."""
    from transformers import AutoTokenizer

    return _load(AutoTokenizer, source, key, revision, trust_remote_code, {})


def load_finetuned(
    base: Path, folder: Path, *, method: str = "full", precision: str = "fp32", trust_remote_code: bool = False
) -> Any:
    """What finetune wrote: a whole model, or the base (as `method` loads it) with the adapter of the folder on it.

    Raises UserError where the folder holds neither, or the adapter of another base.
    """
    if (folder / "config.json").is_file():
        return load_model(folder, str(folder), precision=precision, trust_remote_code=trust_remote_code)
    for name in ADAPTER_FILES:
        if not (folder / name).is_file():
            raise UserError(f"{folder} holds no adapter: {name} is missing; run `train finetune`, or name its folder")
    refuse_made_for_another(folder, base, "weights", "train finetune")
    from peft import PeftModel, get_peft_model_state_dict, load_peft_weights
    from safetensors import SafetensorError

    model = load_model(base, "base.model", method=method, precision=precision, trust_remote_code=trust_remote_code)
    try:
        adapted = PeftModel.from_pretrained(model, folder)
        stored = load_peft_weights(str(folder), device="cpu")
        missing = get_peft_model_state_dict(adapted, save_embedding_layers=False).keys() - stored.keys()
    except (SafetensorError, RuntimeError, ValueError, KeyError) as error:
        raise UserError(f"{folder} does not fit the base ({first_line(error)}): run `train finetune`") from None
    if missing:  # peft would go on with what fits
        raise UserError(f"{folder} is the adapter of another base: it has no {min(missing)}")
    return adapted


def _load(
    auto_class: Any,
    source: str | Path,
    key: str,
    revision: str | None,
    trust_remote_code: bool,
    options: dict[str, Any],
) -> Any:
    from safetensors import SafetensorError

    local = Path(source).is_dir()
    if isinstance(source, Path) and not local:
        raise UserError(f"{source} does not exist: run `train {source.name}`, which writes it")
    try:
        return auto_class.from_pretrained(
            str(source), revision=revision, trust_remote_code=trust_remote_code, local_files_only=local, **options
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        if "trust_remote_code" in str(error):
            raise UserError(
                f"{key}: {str(source)!r} brings Python of its own, which does not run here unless "
                "base.trust_remote_code is true; read it first, or name a model without"
            ) from None
        raise UserError(
            f"{key}: {str(source)!r} cannot be loaded ({first_line(error)}); name a folder with config.json, "
            "model.safetensors and a tokenizer, or a model of the hub that has these"
        ) from None


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its kind where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _quantization_config(method: str, dtype: Any) -> Any:
    from transformers import BitsAndBytesConfig

    # It says for each layer and step that fp32 is cast.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    if method == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def precision_of(setting: str) -> str:
    """fp32, bf16 or fp16: `auto` is bf16 on a GPU that computes in it, fp16 on an older one, fp32 on a CPU."""
    import torch

    if setting != "auto":
        return setting
    if device() == "cpu":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def device() -> str:
    """Where models run: `cuda` if there is one, else `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _this_device() -> str | int:
    """The GPU of this process, where several train, or the CPU."""
    import torch

    return torch.cuda.current_device() if torch.cuda.is_available() else "cpu"


def share_work(run: Run, models: int) -> tuple[Workers, int]:
    """Who runs models of the base's size, and with how many threads each.

    Small ones run side by side with a thread each; large ones one after another with all threads. On a cluster each is
    a task with the processors and GPUs that `execution` gives the stage.
    """
    if run.cluster:
        return dataclasses.replace(run.cluster, workers=models), max(1, int(run.cluster.cpus))
    folder, workers, bytes_per_parameter = run.folder("base"), run.workers, 4
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if size <= SMALL_PARAMETERS * bytes_per_parameter:
        return min(models, workers), 1
    return 1, workers
