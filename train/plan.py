"""Memory and time that fine-tuning will take, from the model's configuration alone: no weight is loaded.

A training step runs through the real model, adapter and loss on tensors that have a shape but no memory (torch's
FakeTensorMode); what is alive at once and what is multiplied is counted as it happens. So any architecture counts as it
is, with what gradient checkpointing keeps. Korthikanti et al. 2022 (arXiv 2205.05198) derive the same by hand; their
term for attention scores is not in it, since fused attention never stores them.
"""

from __future__ import annotations

import contextlib
import functools
import os
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from corpus.errors import UserError
from corpus.params import Params
from train.base import TINY
from train.models import device, first_line, prepare_torch

GIB = 2**30
CARDS = {  # GB, and dense TFLOPS in 16 bits with sums in 32: peaks as the vendor or secondary pages state them
    "T4": (16, 65), "RTX 3060": (12, 25.5), "RTX 3090": (24, 71), "RTX 4060": (8, 30), "RTX 4070": (12, 58),
    "RTX 4090": (24, 165), "RTX 5090": (32, 209), "L4": (24, 121), "L40S": (48, 362), "A10": (24, 125),
    "A100-40": (40, 312), "A100-80": (80, 312), "H100": (80, 989), "H200": (141, 989),
}  # fmt: skip
MAKER = {"nvidia", "geforce", "tesla", "rtx"}  # words that a name may have or lack
VARIANTS = {"ti", "super", "laptop", "mobile", "max", "d"}  # words that make it another card
UTILISATION = (0.2, 0.5)  # of that: an assumption; small models, and waiting for data, stay below it
# Bytes a weight. nf4 in blocks of 64: 4 bits, 8 for a block's scale, 32 for 256 scales (QLoRA, arXiv 2305.14314).
QUANTIZED = {"qlora": (4 + 8 / 64 + 32 / (64 * 256)) / 8, "int8": 1.0}
OUTSIDE = {"cuda": 0.8 * GIB, "cpu": 0.5 * GIB}  # the driver's context and kernels; Python with torch and transformers
FRAGMENTS = 0.05  # of all else, which the allocator cannot use
CHANGES: tuple[tuple[str, str, Any, str], ...] = (  # from the least harm to the most, each on top of those before
    ("finetune", "batch", lambda _: 1, "the result stays the same"),
    ("finetune", "gradient_checkpointing", lambda _: True, "takes a third more time"),
    ("finetune", "train_embeddings", lambda _: False, "a large pretrained model hardly needs it"),
    ("finetune", "method", lambda method: "lora" if method == "full" else method, "learns less far from the base"),
    ("finetune", "method", lambda _: "qlora", "the base is rounded to 4 bits"),
    ("pack", "length", lambda length: max(min(length, 256), length // 2), "longer documents are cut"),
    ("pack", "length", lambda length: max(min(length, 256), length // 2), "longer documents are cut"),
)


MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))  # v2, v1


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


def plan(params: Params, base: Path, card: str | None) -> str:
    """A table of memory by use, the time, whether it fits, and what to change in params where it does not.

    `base` is the folder of the base model, for `base.model: tiny`; `card` a name of CARDS, gigabytes, or None for the
    device at hand. Raises UserError naming --card or base.model.
    """
    prepare_torch(1, 0)
    chosen, config, settings = choose_card(card), load_config(params, base), params.finetune
    needs, room = estimate(params, config, chosen.kind), chosen.memory - OUTSIDE[chosen.kind]
    rows = rows_at_once(params, needs, room, chosen.kind)
    table = needs.fixed | {f"activations and logits, {rows} x {params.pack.length} tokens": rows * needs.row}
    table |= {"fragments": needs.total(rows) - sum(table.values()), "outside of tensors": OUTSIDE[chosen.kind]}
    how = f"{settings.method}{' with gradient checkpointing' if settings.gradient_checkpointing else ''}"
    lines = [f"{params.base.model}, {how}, on {chosen.name}; all tokens are learned, as of plain text"]
    lines += [f"  {size / GIB:8.3f} GiB  {name}" for name, size in table.items()]
    lines += [f"  {sum(table.values()) / GIB:8.3f} GiB  of {chosen.memory / GIB:.1f}"]
    lines += [time_of(needs.operations * settings.tokens, chosen)]
    if settings.batch == "auto":
        lines += [f"finetune.batch: auto will be {rows} of {settings.rows_per_step} rows a step"]
    if needs.total(rows) <= room:
        return "\n".join([*lines, "It fits."])
    lines, before = [*lines, "It does not fit. Set, one after the other:"], needs.total(rows)
    for section, key, change, harm in CHANGES:
        old = getattr(getattr(params, section), key)
        if (new := change(old)) == old or (key == "batch" and old == "auto"):
            continue
        changed = getattr(params, section).model_copy(update={key: new})
        changed_params = params.model_copy(update={section: changed})
        needs = estimate(changed_params, config, chosen.kind)
        now = needs.total(rows_at_once(changed_params, needs, room, chosen.kind))
        if now >= before:
            continue
        params, before, fits, total = changed_params, now, now <= room, now + OUTSIDE[chosen.kind]
        value = str(new).lower() if isinstance(new, bool) else new
        lines += [f"  {section}.{key}: {value}  → {total / GIB:.2f} GiB{', which fits' if fits else ''}; {harm}"]
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
    return (
        f"{least:.3g} to {most:.3g} minutes for the model and as long for its control, at an assumed "
        f"{100 * UTILISATION[0]:g} to {100 * UTILISATION[1]:g} % of {card.speed / 1e12:g} TFLOPS"
    )


def choose_card(name: str | None) -> Card:
    """A card by name or gigabytes; without either the GPU at hand, else the CPU with the memory this process may take.

    >>> choose_card("nvidia rtx-4090").name, choose_card("24").memory / GIB
    ('RTX 4090', 24.0)
    """
    import torch

    if name is None and device() == "cpu":
        return Card("this CPU", cpu_memory(), None, "cpu")
    memory = None
    if name is None:
        found = torch.cuda.get_device_properties(0)
        name, memory = found.name, found.total_memory
    words = _words(name)
    at_hand = memory and not words & VARIANTS  # its name says more than the card's: "NVIDIA A100-SXM4-80GB"
    fits = [card for card in CARDS if _words(card) == words or (at_hand and _words(card) < words)]
    if fits:
        card = max(fits, key=lambda card: len(_words(card)))
        gigabytes, teraflops = CARDS[card]
        return Card(card, memory or gigabytes * GIB, teraflops * 1e12)
    with contextlib.suppress(ValueError):
        if 0 < (size := float(name.lower().removesuffix("gb"))) < 1e6:
            return Card(f"a card of {size:g} GB", size * GIB, None)
    if memory:
        return Card(name, memory, None)
    raise UserError(f"--card: {name!r} is none of {', '.join(CARDS)}; or give its memory in GB, such as 24")


def _words(name: str) -> set[str]:
    return {word.removesuffix("gb") for word in name.lower().replace("-", " ").split()} - MAKER - {""}


def cpu_memory() -> int:
    """Bytes of this machine, or of its control group where that is allowed less."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [path.read_text().strip() for path in MEMORY_LIMITS if path.is_file()]
    return min(machine, *(int(limit) for limit in limits if limit.isdigit()), machine)


def load_config(params: Params, base: Path) -> Any:
    """The configuration of base.model: of its folder, or from the hub. Raises UserError naming base.model."""
    from transformers import AutoConfig

    settings = params.base
    source = str(base) if settings.model == TINY else settings.model
    if settings.model == TINY and not (base / "config.json").is_file():
        raise UserError(f"{base} has no config.json: run `train base`, which writes it")
    try:
        return AutoConfig.from_pretrained(
            source,
            revision=settings.revision,
            trust_remote_code=settings.trust_remote_code,
            local_files_only=Path(source).is_dir(),
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
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        raise UserError(
            f"base.model: a step of {config.model_type} cannot be followed without memory ({first_line(error)}): "
            "train with few finetune.tokens, and see peak_mb in reports/finetune.timing.json"
        ) from None


def _follow_a_step(params: Params, config: Any, device_kind: str) -> Needs:
    import torch
    from transformers import AttentionInterface, AutoModelForCausalLM

    from train.attention import attend_by_document
    from train.finetune import attach_adapter
    from train.rows import collate, label_loss

    settings, length = params.finetune, params.pack.length
    half = settings.precision in ("bf16", "fp16") or (settings.precision == "auto" and device_kind == "cuda")
    dtype = torch.bfloat16 if half and settings.method != "full" else torch.float32
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=params.base.trust_remote_code)
        head = model.get_output_embeddings()
        linear = [m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
        model = attach_adapter(model, settings)
    kind = "eager" if model.config._attn_implementation == "eager" else "sdpa"  # as use_document_attention chooses
    AttentionInterface.register(f"document_{kind}", functools.partial(attend_by_document, kind))
    model.set_attn_implementation(f"document_{kind}")
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    row = {"input_ids": [0] * length, "labels": [0] * length, "document_lengths": [length]}
    peaks = []
    with torch.device("cpu"), _without_memory(model):
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        for parameter in trained:
            parameter.grad = torch.zeros_like(parameter)
        for rows in (1, 2):
            batch = collate([row] * rows)
            labels = batch.pop("labels")
            known = [*model.parameters(), *model.buffers(), *(parameter.grad for parameter in trained)]
            with _count(known) as counted, torch.autocast("cpu", torch.bfloat16, enabled=half):
                label_loss(model(**batch, use_cache=False), labels).backward()
            peaks.append(counted.peak)
    frozen = sum(parameter.nbytes for parameter in model.parameters() if not parameter.requires_grad)
    size = sum(parameter.nbytes for parameter in trained)
    fixed = {"weights": frozen, "trained weights": size, "gradients": size, "Adam's two moments": 2 * size}
    if bytes_a_weight := QUANTIZED.get(settings.method):
        fixed["weights"] += sum(linear) * (bytes_a_weight - dtype.itemsize)
        fixed["one layer, dequantised"] = max(linear, default=0) * dtype.itemsize
    fixed["weights in 16 bits"] = max(0.0, 2 * peaks[0] - peaks[1])  # autocast's, the same for any number of rows
    return Needs({k: v for k, v in fixed.items() if v >= 2**20}, peaks[1] - peaks[0], counted.operations / (2 * length))


@contextlib.contextmanager
def _without_memory(model: Any) -> Iterator[None]:
    """Give a model of the meta device tensors that claim to be the CPU's, so that the CPU's kernels are chosen."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True):
        made: dict[Any, Any] = {}  # by the tensor itself: tied weights stay tied
        for module in model.modules():
            for tensors in (module._parameters, module._buffers):
                for name, old in tensors.items():
                    if old is not None and old not in made:
                        new = torch.empty(old.shape, dtype=old.dtype)
                        weight = isinstance(old, torch.nn.Parameter)
                        made[old] = torch.nn.Parameter(new, old.requires_grad) if weight else new
                    tensors[name] = made.get(old)
        yield


def _count(known: Iterable[Any]) -> Any:
    """A context that counts the bytes made within that are alive at once, `peak`, and the `operations` of products.

    `known` are tensors that were there before. Attention scores are not among the operations.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves
    from torch.utils.flop_counter import flop_registry

    class Count(TorchDispatchMode):
        now, peak, operations = 0, 0, 0

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            if function._overloadpacket in flop_registry:
                self.operations += flop_registry[function._overloadpacket](*args, **(kwargs or {}), out_val=result)
            for tensor in tree_leaves(result):
                storage = tensor.untyped_storage() if isinstance(tensor, torch.Tensor) else None
                if storage is not None and storage._cdata not in alive:
                    alive[storage._cdata] = storage.nbytes()
                    weakref.finalize(storage, self.drop, storage._cdata)
                    self.now += storage.nbytes()
                    self.peak = max(self.peak, self.now)
            return result

        def drop(self, key: int) -> None:
            self.now -= alive.pop(key)

    alive = {tensor.untyped_storage()._cdata: 0 for tensor in known}
    return Count()
