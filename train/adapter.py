"""What is trained of a model: an adapter of peft's on the frozen base, or with the method full all of it."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from corpus.errors import UserError
from corpus.params import Finetune
from train.models import first_line

# What the libraries raise for settings that they cannot take; memory that runs out is a RuntimeError.
MISUSE = (TypeError, ValueError, ImportError, LookupError, AttributeError, AssertionError)
RESERVED = {"task_type", "inference_mode"}  # of peft's configs
LORA_RESERVED = {"r", "lora_alpha", "lora_dropout", "target_modules"}
UNFIT = {  # kinds of adapters that train wrongly here, or not at all
    "ADALORA": "its ranks would stay as they are, for no one allocates them between the steps",
    "MULTITASK_PROMPT_TUNING": "the rows of a pack name no task",
}


def attach_adapter(model: Any, settings: Finetune) -> Any:
    """The model as finetune.method and finetune.peft have it trained: whole, or frozen with an adapter.

    LoRA stands on all linear layers but the head; the embeddings train whole if asked, tied to the head as before. What
    is trained is in fp32. Raises UserError naming a key of finetune.peft or a module that the model does not have.
    """
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING, get_peft_model

    if settings.method == "full":
        if settings.peft:
            raise UserError("finetune.peft: the method full trains no adapter; name lora, qlora or int8")
        return model
    configs = {kind.value: config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    kind = str(settings.peft.get("peft_type", "LORA")).upper()
    if kind not in configs or kind in UNFIT:
        why = f"{kind} does not train here: {UNFIT[kind]}" if kind in UNFIT else f"peft has no {kind}"
        raise UserError(f"finetune.peft.peft_type: {why}; there are {', '.join(sorted(configs.keys() - UNFIT.keys()))}")
    given = {key: value for key, value in settings.peft.items() if key != "peft_type"}
    given = typed("peft", given, configs[kind], RESERVED | (LORA_RESERVED if kind == "LORA" else set()))
    if kind == "LORA":
        ours = _lora(model, settings)
        whole = {*ours["modules_to_save"], *(given.pop("modules_to_save", None) or [])}
        given = ours | given | {"modules_to_save": sorted(whole) or None}
    try:
        model = get_peft_model(model, configs[kind](task_type="CAUSAL_LM", **given))
    except MISUSE as error:
        raise UserError(f"finetune.peft: {first_line(error)}") from None
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model


def _lora(model: Any, settings: Finetune) -> dict[str, Any]:
    """What the parameters of finetune say of peft's LoraConfig."""
    import torch

    modules = dict(model.named_modules())
    if isinstance(settings.target_modules, list):
        targets = settings.target_modules
        unknown = [target for target in targets if not any(f".{name}".endswith(f".{target}") for name in modules)]
        if unknown:
            linear = {name.rpartition(".")[2] for name, one in modules.items() if isinstance(one, torch.nn.Linear)}
            raise UserError(
                f"finetune.target_modules: {type(model).__name__} has no {', '.join(unknown)}; "
                f"its linear modules are {', '.join(sorted(linear))}"
            )
    embeddings = next(name for name, module in modules.items() if module is model.get_input_embeddings())
    return {
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        "target_modules": settings.target_modules,
        "modules_to_save": [embeddings.rpartition(".")[2]] if settings.train_embeddings else [],
        "ensure_weight_tying": settings.train_embeddings and bool(model.config.get_text_config().tie_word_embeddings),
    }


def typed(section: str, given: Mapping[str, Any], fields: Any, reserved: Collection[str]) -> dict[str, Any]:
    """The settings of finetune.peft or finetune.trainer in the types of a dataclass's fields: YAML reads 1e-8 as text.

    Raises UserError naming a key that is unknown or reserved, or whose value is of another type.
    """
    types, values = get_type_hints(fields), {}
    for key, value in given.items():
        if key in reserved:
            raise UserError(f"finetune.{section}.{key} is for finetune's own parameters to say, or fixed: leave it out")
        if key not in types:
            near = difflib.get_close_matches(key, types, n=1, cutoff=0.5)
            raise UserError(f"finetune.{section}.{key} is unknown{f': did you mean {near[0]}?' if near else ''}")
        try:
            # Some take null, or true for a default, whatever their type says.
            values[key] = value if value is None or value is True else TypeAdapter(types[key]).validate_python(value)
        except ValidationError as error:
            message = error.errors()[0]["msg"]
            raise UserError(f"finetune.{section}.{key}: {message[:1].lower()}{message[1:]}, not {value!r}") from None
    return values
