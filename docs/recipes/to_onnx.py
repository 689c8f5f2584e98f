"""The exported model as ONNX, for onnxruntime on any platform, and in int8 about a quarter of the size.

    pip install onnx onnxruntime onnxscript
    train export my-model
    python docs/recipes/to_onnx.py my-model my-model-onnx

Writes model.onnx (float32) and model-int8.onnx (weights in 8 bit) beside the tokenizer; both take `input_ids` (batch,
length) and give `logits`, without a cache, so that any architecture converts. Generates with both: float32 must give,
token by token, what transformers does; prints for how many prompts each does, and the sizes.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from onnxruntime import InferenceSession
from onnxruntime.quantization import QuantType, quantize_dynamic
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPTS = ("怎样", "如何设置", "同步目录", "The function returns", "A file object", "What does", "Return", "1.")


class Logits(torch.nn.ModuleList):
    """A list of one model, as a function from tokens to logits."""

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self[0](input_ids=input_ids, use_cache=False).logits


def main(model: Path, output: Path) -> None:
    tokenizer, loaded = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model).float()
    output.mkdir(parents=True)
    free = {"input_ids": {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}}
    options = {"input_names": ["input_ids"], "output_names": ["logits"], "dynamic_shapes": free, "verbose": False}
    example = (torch.zeros((2, 6), dtype=torch.int64),)
    torch.onnx.export(Logits([loaded]).eval(), example, output / "model.onnx", **options)
    quantize_dynamic(output / "model.onnx", output / "model-int8.onnx", weight_type=QuantType.QInt8)
    tokenizer.save_pretrained(output)
    prompts = [tokenizer(text, return_tensors="pt")["input_ids"] for text in PROMPTS]
    expected = [loaded.generate(ids, max_new_tokens=24, do_sample=False)[0].tolist() for ids in prompts]
    for name in ("model.onnx", "model-int8.onnx"):
        session, equal = InferenceSession(output / name), 0
        for ids, wanted in zip(prompts, expected, strict=True):
            made = ids[0].tolist()
            while len(made) < len(wanted) and made == wanted[: len(made)]:
                made.append(int(session.run(["logits"], {"input_ids": np.array([made])})[0][0, -1].argmax()))
            equal += made == wanted
        size = sum(file.stat().st_size for file in output.glob(f"{name}*")) / 1e6
        print(f"{name}: {size:.1f} MB, {equal} of {len(PROMPTS)} prompts as transformers")
        if name == "model.onnx" and equal < len(PROMPTS):
            raise SystemExit("it generates otherwise than transformers: do not use it")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
