"""A base model: a pretrained one by name, or a tiny Llama with its tokenizer, trained here from the reference texts."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from corpus.errors import UserError
from corpus.params import Base
from corpus.progress import progress
from corpus.reference.texts import read_texts
from corpus.stage import Metrics, Run, count_rows
from train.lineage import write_name
from train.models import first_line, load_tokenizer, prepare_torch

READS = ()
VERSION = 3

BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"
TINY = "tiny"  # base.model that is trained here
FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")  # of a pretrained model: data, and no pickles
TEXTS = ("en.txt", "zh.txt")  # in data/reference, as the graph has them
MAX_THREADS = 2  # a tiny model gains nothing from more, and loses much where cores are shared
WARMUP, DECAY = 0.05, 0.3  # of all steps: the rate climbs linearly, stays, and falls linearly to zero

# ChatML with the markers of a document; trainers elsewhere find the answers by {% generation %}.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ bos_token + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ message['content'] + eos_token }}{% endif %}"
    "{{ '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ bos_token + 'assistant\\n' }}{% endif %}"
)


def run(run: Run) -> Metrics:
    """Write a model and its tokenizer into the output, as `AutoModelForCausalLM` and `AutoTokenizer` read them.

    With `base.model` tiny, trains on `base.texts` (or --input; by default TEXTS of data/reference) and counts their
    documents. A named model is copied file by file, safetensors only, and
    counts as one row. Raises UserError naming base.model or base.texts.
    """
    os.environ["RAYON_NUM_THREADS"] = str(run.workers)  # before tokenizers starts its threads
    settings = run.params.base
    prepare_torch(min(run.workers, MAX_THREADS), settings.seed)
    if settings.model != TINY:
        adopted = adopt(settings, run.output)
        write_name(run.output, settings)
        return adopted
    paths = [*(run.inputs or settings.texts)] or default_texts(run.data / "reference")
    documents = read_all(paths)[: run.limit]
    tokenizer = train_tokenizer(documents, settings)
    model, loss = train_model(tokenizer, documents, settings)
    model.save_pretrained(run.output)
    tokenizer.save_pretrained(run.output)
    write_name(run.output, settings)
    return count_rows(rows_in=len(documents), dropped={}) | {
        "parameters": model.num_parameters(),
        "vocabulary": len(tokenizer),
        "tokens_seen": settings.steps * _rows_per_step(settings) * settings.context,
        "final_loss": round(loss, 3),
    }


def adopt(settings: Base, output: Path) -> Metrics:
    """Copy a pretrained model and its tokenizer as they are: the weights are never held in memory.

    Only files that hold data are taken, and Python if it is trusted. Raises UserError naming base.model where there is
    no way to the hub, no causal language model in safetensors, or no tokenizer.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    patterns = [*FILES, *(["*.py"] if settings.trust_remote_code else [])]
    copy_files(Path(settings.model) if Path(settings.model).is_dir() else fetch(settings, patterns), output, patterns)
    trust = settings.trust_remote_code
    try:
        refuse_torn_weights(output)
        config = AutoConfig.from_pretrained(output, trust_remote_code=trust, local_files_only=True)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust)
        if {getattr(module, "is_causal", None) for module in model.modules()} - {None} == {False}:
            raise UserError(f"base.model: {str(output)!r} is an encoder: each token of it sees those that follow")
        tokenizer = load_tokenizer(output, "base.model", trust_remote_code=trust)
    except UserError as error:
        raise UserError(str(error).replace(str(output), settings.model)) from None
    except Exception as error:  # a foreign config.json can break the libraries in any way
        raise UserError(f"base.model: {settings.model!r} is no causal language model ({first_line(error)})") from None
    return count_rows(rows_in=1, dropped={}) | {
        "parameters": model.num_parameters(),
        "vocabulary": len(tokenizer),
        "tokens_seen": 0,
        "final_loss": None,
    }


def copy_files(source: Path, output: Path, patterns: Sequence[str]) -> None:
    """Copy the files whose names match; symbolic links, as caches have them, become files."""
    for path in sorted(source.iterdir()):
        if path.is_file() and any(path.match(pattern) for pattern in patterns):
            shutil.copyfile(path, output / path.name)


def fetch(settings: Base, patterns: list[str]) -> Path:
    """The folder of what the hub has of a model. Raises UserError naming base.model, and the way without a network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(settings.model, revision=settings.revision, allow_patterns=patterns))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        if settings.model.startswith(("/", ".", "~")):
            raise UserError(f"base.model: the folder {settings.model!r} does not exist: name one that does") from None
        offline = isinstance(error, LocalEntryNotFoundError | ConnectionError)
        why = "the hub cannot be reached" if offline else first_line(error)
        raise UserError(
            f"base.model: {settings.model!r} is no folder here and cannot be fetched ({why}); without a network, "
            "copy the model's folder from a machine that has it and name that folder, or use `tiny`"
        ) from None


def refuse_torn_weights(folder: Path) -> None:
    """Raises UserError naming base.model where a safetensors file is missing or ends too early, or there is none."""
    from safetensors import SafetensorError, safe_open

    index = folder / "model.safetensors.index.json"
    named = json.loads(index.read_text("utf-8"))["weight_map"].values() if index.exists() else ()
    files = sorted({*(folder / str(file) for file in named), *folder.glob("*.safetensors")})
    if not files:
        raise UserError(f"base.model: {str(folder)!r} has no weights in safetensors, and others are not loaded")
    for path in files:
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"base.model: {path.name} of {str(folder)!r} is torn or missing ({first_line(error)})"
            ) from None


def read_all(paths: Sequence[Path]) -> list[str]:
    """The documents of text files, which stand between lines of `---`. Raises UserError naming base.texts."""
    documents = [document for path in paths for document in read_texts(path, "base.texts")]
    if not documents:
        raise UserError(f"base.texts: {', '.join(map(str, paths))} holds no text to train on")
    return documents


def default_texts(folder: Path) -> list[Path]:
    """Those of TEXTS that exist. Raises UserError naming base.texts if none does."""
    found = [folder / name for name in TEXTS if (folder / name).is_file()]
    if not found:
        raise UserError(f"base.texts: {folder} has neither {' nor '.join(TEXTS)}: restore them, or name others")
    return found


def train_tokenizer(documents: Sequence[str], settings: Base) -> Any:
    """A byte-level BPE tokenizer: any text goes in and comes out unchanged, Chinese as well."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocabulary,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        chat_template=CHAT_TEMPLATE,
        model_max_length=settings.context,
        clean_up_tokenization_spaces=False,
    )


def train_model(tokenizer: Any, documents: Sequence[str], settings: Base) -> tuple[Any, float]:
    """A tiny Llama trained on random windows of the documents' tokens. Returns it and the mean loss of the last steps.

    The loss is in nats per token. Raises UserError where the texts are shorter than one window.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    ids = tokenizer(list(documents), add_special_tokens=False)["input_ids"]
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    stream = torch.tensor([token for document in ids for token in (bos, *document, eos)])
    if len(stream) <= settings.context:
        raise UserError(f"base.texts: {len(stream)} tokens are fewer than base.context {settings.context}: add text")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden,
        intermediate_size=3 * settings.hidden,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        max_position_embeddings=settings.context,
        tie_word_embeddings=True,
        bos_token_id=bos,
        eos_token_id=eos,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), settings.learning_rate, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, settings.steps))
    random = torch.Generator().manual_seed(settings.seed)
    rows, losses = _rows_per_step(settings), []
    for _ in progress(range(settings.steps), desc="base", unit="step"):
        starts = torch.randint(len(stream) - settings.context, (rows, 1), generator=random)
        window = stream[starts + torch.arange(settings.context)]
        loss = model(input_ids=window, labels=window, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    last = losses[-math.ceil(0.05 * len(losses)) :]
    return model.eval(), sum(last) / len(last)


def rate(step: int, steps: int) -> float:
    """Warmup, stable, decay: the part of the learning rate at a step.

    >>> [round(rate(step, 100), 2) for step in (0, 4, 50, 85, 99)]
    [0.2, 1.0, 1.0, 0.5, 0.03]
    """
    return min(1.0, (step + 1) / max(1, WARMUP * steps), (steps - step) / max(1, DECAY * steps))


def _rows_per_step(settings: Base) -> int:
    return max(1, settings.batch_tokens // settings.context)
