"""Memory and time that fine-tuning will take, from the model's configuration alone: no weight is loaded.

A step of the real model, adapter and loss runs on torch's fake tensors, which have a shape but no memory. Autograd
tells what it keeps for the way back, and FlopCounterMode counts the products (attention scores are not among them), so
any architecture, adapter and precision counts as it is. Activations came within 5 % of real steps of a small Llama in
fp32 on a CPU, and within 15 % with gradient checkpointing; no GPU was measured. Korthikanti et al. 2022
(arXiv 2205.05198) derive much the same by hand.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any, NamedTuple

from corpus.errors import UserError
from corpus.params import Params
from train.adapter import attach_adapter
from train.base import TINY
from train.models import device, first_line, prepare_torch

GIB = 2**30
CARDS = {  # GB, and dense TFLOPS in 16 bits with sums in 32: peaks as the vendor or secondary pages state them
    "T4": (16, 65), "RTX 3060": (12, 25.5), "RTX 3090": (24, 71), "RTX 4090": (24, 165), "L4": (24, 121),
    "A10": (24, 125), "A100-40": (40, 312), "A100-80": (80, 312), "H100": (80, 989), "H200": (141, 989),
}  # fmt: skip
UTILISATION = (0.2, 0.5)  # of that: an assumption; small models, and waiting for data, stay below it
# Bytes a weight. nf4 in blocks of 64: 4 bits, 8 for a block's scale, 32 for 256 scales (QLoRA, arXiv 2305.14314).
QUANTIZED = {"qlora": (4 + 8 / 64 + 32 / (64 * 256)) / 8, "int8": 1.0}
OUTSIDE = {"cuda": 0.8 * GIB, "cpu": 0.5 * GIB}  # the driver's context and kernels; Python with torch and transformers
FRAGMENTS = 0.05  # of all else, which the allocator cannot use
MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))  # v2, v1
HALF_AS_LONG = ("pack", "length", lambda length: max(min(length, 256), length // 2), "longer documents are cut")
CHANGES: tuple[tuple[str, str, Any, str], ...] = (  # from the least harm to the most, each on top of those before
    ("finetune", "batch", lambda _: 1, "the result stays the same"),
    ("finetune", "gradient_checkpointing", lambda _: True, "takes a third more time"),
    ("finetune", "train_embeddings", lambda _: False, "a large pretrained model hardly needs it"),
    ("finetune", "method", lambda method: "lora" if method == "full" else method, "learns less far from the base"),
    ("finetune", "method", lambda _: "qlora", "the base is rounded to 4 bits"),
    HALF_AS_LONG,
    HALF_AS_LONG,
)


class Card(NamedTuple):
    """Where to train: memory in bytes, and floating point operations a second in 16 bits, None where unknown."""

    name: str
    memory: float
    speed: float | None
    kind: str = "cuda"


class Needs(NamedTuple):
    """Bytes by use, with what `row` takes for each row at once, and floating point operations a token."""

    fixed: dict[str, float]
    row: float
    operations: float

    def total(self, rows: int) -> float:
        return (sum(self.fixed.values()) + rows * self.row) * (1 + FRAGMENTS)


def plan(params: Params, base: Path, card_name: str | None) -> str:
    """A table of memory by use, the time, whether it fits, and what to change in params where it does not.

    `base` is the folder of the base model, for `base.model: tiny`; `card_name` one of CARDS, gigabytes, or None for the
    device at hand. Raises UserError naming --card or base.model.
    """
    prepare_torch(1, 0)
    card, config, settings = choose_card(card_name), load_config(params, base), params.finetune
    outside = OUTSIDE[card.kind]
    room = card.memory - outside
    needs = estimate(params, config, card.kind)
    rows = rows_at_once(params, needs, room, card.kind)
    total = needs.total(rows)
    table = needs.fixed | {f"activations and logits, {rows} x {params.pack.length} tokens": rows * needs.row}
    table |= {"fragments": total - sum(table.values()), "outside of tensors": outside}
    how = f"{settings.method}{' with gradient checkpointing' if settings.gradient_checkpointing else ''}"
    lines = [f"{params.base.model}, {how}, on {card.name}; all tokens are learned, as of plain text"]
    lines += [f"  {size / GIB:8.3f} GiB  {name}" for name, size in table.items()]
    lines += [f"  {(total + outside) / GIB:8.3f} GiB  of {card.memory / GIB:.1f}"]
    lines += [time_of(needs.operations * settings.tokens, card)]
    if settings.batch == "auto":
        lines += [f"finetune.batch: auto will be {rows} of {settings.rows_per_step} rows a step"]
    if total <= room:
        return "\n".join([*lines, "It fits."])
    lines += ["It does not fit. Set, one after the other:"]
    for section, key, change, harm in CHANGES:
        old = getattr(getattr(params, section), key)
        new = change(old)
        if new == old or (key == "batch" and old == "auto"):
            continue
        changed = params.model_copy(update={section: getattr(params, section).model_copy(update={key: new})})
        needs = estimate(changed, config, card.kind)
        less = needs.total(rows_at_once(changed, needs, room, card.kind))
        if less >= total:
            continue
        params, total, fits = changed, less, less <= room
        value = str(new).lower() if isinstance(new, bool) else new
        lines += [f"  {section}.{key}: {value}  → {(total + outside) / GIB:.2f} GiB{', which fits' * fits}; {harm}"]
        if fits:
            return "\n".join(lines)
    return "\n".join([*lines, "Even so it does not fit: name a smaller base.model, or a card with more memory."])


def rows_at_once(params: Params, needs: Needs, room: float, kind: str) -> int:
    """finetune.batch, or what `auto` comes to: as train.finetune, halved until it fits."""
    from train.finetune import CPU_TOKENS, largest_divisor

    settings = params.finetune
    if settings.batch != "auto":
        return settings.batch
    most = max(1, CPU_TOKENS // params.pack.length) if kind == "cpu" else settings.rows_per_step
    rows = largest_divisor(settings.rows_per_step, most)
    while rows > 1 and needs.total(rows) > room:
        rows = largest_divisor(settings.rows_per_step, rows // 2)
    return rows


def time_of(operations: float, card: Card) -> str:
    """
    >>> time_of(165e12 * 3600, Card("RTX 4090", 24e9, 165e12))
    '120 to 300 minutes for the model and as long for its control, at an assumed 20 to 50 % of 165 TFLOPS'
    """
    if card.speed is None:
        return f"{operations:.1e} floating point operations; no speed is known of {card.name}, so no time"
    most, least = (operations / card.speed / part / 60 for part in UTILISATION)
    low, high = (f"{100 * part:g}" for part in UTILISATION)
    minutes = f"{least:.3g} to {most:.3g} minutes for the model and as long for its control"
    return f"{minutes}, at an assumed {low} to {high} % of {card.speed / 1e12:g} TFLOPS"


def choose_card(name: str | None) -> Card:
    """A card by name or gigabytes; without either the GPU at hand, else the CPU with the memory this process may take.

    >>> choose_card("nvidia rtx-4090").name, choose_card("24").memory / GIB
    ('RTX 4090', 24.0)
    """
    import torch

    if name is None and device() == "cpu":
        return Card("this CPU", cpu_memory(), None, "cpu")
    if name is None:  # its name says more than the card's: "NVIDIA A100-SXM4-80GB"
        found = torch.cuda.get_device_properties(0)
        # A Ti, a Super or a laptop's is slower or faster than the card it is named for.
        is_variant = not _words(found.name).isdisjoint(("ti", "super", "laptop", "d"))
        known = CARDS.items() if not is_variant else ()
        speed = next((tera * 1e12 for card, (_, tera) in known if _words(card) <= _words(found.name)), None)
        return Card(found.name, found.total_memory, speed)
    for card, (gigabytes, teraflops) in CARDS.items():
        if _words(card) == _words(name):
            return Card(card, gigabytes * GIB, teraflops * 1e12)
    size = name.lower().removesuffix("gb").strip()
    if size.replace(".", "", 1).isdecimal() and float(size) > 0:
        return Card(f"a card of {size} GB", float(size) * GIB, None)
    raise UserError(f"--card: {name!r} is none of {', '.join(CARDS)}; or give its memory in GB, such as 24")


def _words(name: str) -> set[str]:
    words = name.lower().replace("-", " ").split()
    return {word.removesuffix("gb") for word in words} - {"nvidia", "geforce", "tesla", "rtx"}


def cpu_memory() -> int:
    """Bytes of this machine, or of its control group where that is allowed less."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [path.read_text().strip() for path in MEMORY_LIMITS if path.is_file()]
    return min([machine, *(int(limit) for limit in limits if limit.isdigit())])


def load_config(params: Params, base: Path) -> Any:
    """The configuration of base.model: of its folder, or from the hub. Raises UserError naming base.model."""
    from transformers import AutoConfig

    settings = params.base
    if settings.model == TINY and not (base / "config.json").is_file():
        raise UserError(f"{base} has no config.json: run `train base`, which writes it")
    source = str(base) if settings.model == TINY else settings.model
    try:
        return AutoConfig.from_pretrained(
            source, revision=settings.revision, trust_remote_code=settings.trust_remote_code
        )
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"base.model: the configuration of {source!r} cannot be loaded ({first_line(error)}); without a network, "
            "name a folder that has the model's config.json, the weights are not needed for this"
        ) from None


def estimate(params: Params, config: Any, kind: str) -> Needs:
    """What a step of finetune needs on `kind`, cuda or cpu. Raises UserError for a model that cannot be followed."""
    try:
        return _follow_a_step(params, config, kind)
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UserError(
            f"base.model: a step of {config.model_type} cannot be followed without memory ({first_line(error)}): "
            "train with few finetune.tokens, and see peak_mb in reports/finetune.timing.json"
        ) from None


def _follow_a_step(params: Params, config: Any, kind: str) -> Needs:
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode  # as torch's documentation of fake tensors has it
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AttentionInterface, AutoModelForCausalLM

    from train.attention import attend_by_document

    settings, length = params.finetune, params.pack.length
    half = settings.precision in ("bf16", "fp16") or (settings.precision == "auto" and kind == "cuda")
    dtype = torch.bfloat16 if half and settings.method != "full" else torch.float32
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=params.base.trust_remote_code)
        head = model.get_output_embeddings()
        linear = [m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
        model = attach_adapter(model, settings)
    trained = sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    frozen = sum(parameter.nbytes for parameter in model.parameters()) - trained
    fixed = {"weights": frozen, "trained weights": trained, "gradients": trained, "Adam's two moments": 2 * trained}
    fixed["trained weights in 16 bits"] = trained / 2 if half else 0  # autocast's
    if bytes_a_weight := QUANTIZED.get(settings.method):
        fixed["weights"] += sum(linear) * (bytes_a_weight - dtype.itemsize)
        fixed["one layer, dequantised"] = max(linear, default=0) * dtype.itemsize
    attention = "eager" if model.config._attn_implementation == "eager" else "sdpa"  # as use_document_attention chooses
    AttentionInterface.register(f"document_{attention}", functools.partial(attend_by_document, attention))
    model.set_attn_implementation(f"document_{attention}")
    model.train()
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
        layer = 0.0
        once, _ = _forward(model, length, 1, half)
        if settings.gradient_checkpointing:  # then a layer at a time is computed again
            model.gradient_checkpointing_enable({"use_reentrant": False})
            whole, (once, _) = once, _forward(model, length, 1, half)
            layer = (whole - once - fixed["trained weights in 16 bits"]) / config.get_text_config().num_hidden_layers
        with FlopCounterMode(display=False) as counter:
            twice, loss = _forward(model, length, 2, half)
            loss.backward()
    logits = length * config.get_text_config().vocab_size * torch.float32.itemsize  # of their loss, two gradients
    row = twice - once + max(2 * logits, layer)
    fixed = {use: size for use, size in fixed.items() if size >= 2**20}
    return Needs(fixed, row, counter.get_total_flops() / (2 * length))


def _forward(model: Any, length: int, rows: int, half: bool) -> tuple[int, Any]:
    """Bytes that autograd keeps of a forward pass beside the model's own, and the loss."""
    import torch

    from train.rows import collate, label_loss

    batch = collate([{"input_ids": [0] * length, "labels": [0] * length, "document_lengths": [length]}] * rows)
    labels, kept = batch.pop("labels"), set()

    def keep(tensor: Any) -> Any:
        kept.add(tensor.untyped_storage())
        return tensor

    with (
        torch.autocast("cpu", torch.bfloat16, enabled=half),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        loss = label_loss(model(**batch, use_cache=False), labels)
    own = {tensor.untyped_storage() for tensor in [*model.parameters(), *model.buffers()]}
    return sum(storage.nbytes() for storage in kept - own), loss
