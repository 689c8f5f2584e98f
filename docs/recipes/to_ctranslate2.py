"""The exported model for CTranslate2: in int8, several times as fast as transformers on a CPU.

    train export my-model
    python docs/recipes/to_ctranslate2.py my-model my-model-int8 [int8, int8_float16, bfloat16 …; default int8]

Converts in float32 first, which must generate, token by token, what transformers does: so what int8 then generates
otherwise is due to rounding alone. Prints for how many prompts each does as transformers, the seconds and the sizes.
Use it with `ctranslate2.Generator("my-model-int8")`; the tokenizer is transformers', and lies beside it.
"""

import sys
import tempfile
import time
from pathlib import Path

from ctranslate2 import Generator
from ctranslate2.converters import TransformersConverter
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPTS = ("怎样", "如何设置", "同步目录", "The function returns", "A file object", "What does", "Return", "1.")


def main(model: Path, output: Path, kind: str = "int8") -> None:
    tokenizer, loaded = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model).float()
    prompts = [tokenizer(text, return_tensors="pt")["input_ids"] for text in PROMPTS]
    tokens = [tokenizer.convert_ids_to_tokens(ids[0].tolist()) for ids in prompts]
    started = time.perf_counter()
    expected = [loaded.generate(ids, max_new_tokens=24, do_sample=False)[0, ids.shape[1] :].tolist() for ids in prompts]
    print(f"transformers: {time.perf_counter() - started:.2f} s, {loaded.num_parameters() * 4 / 1e6:.1f} MB in float32")
    files = [path.name for path in (*model.glob("tokenizer*"), *model.glob("*.jinja"))]
    with tempfile.TemporaryDirectory() as exact:
        for quantization, folder in (("float32", exact), (kind, str(output))):
            converter = TransformersConverter(str(model), copy_files=files)
            converter.convert(folder, quantization=quantization, force=folder == exact)
            generator, started = Generator(folder), time.perf_counter()
            results = generator.generate_batch(  # one by one: prompts of several lengths go wrong together in 4.8
                tokens, max_length=24, max_batch_size=1, include_prompt_in_result=False, return_end_token=True
            )
            seconds = time.perf_counter() - started
            equal = sum(one.sequences_ids[0] == other for one, other in zip(results, expected, strict=True))
            size = (Path(folder) / "model.bin").stat().st_size / 1e6
            print(f"{quantization}: {seconds:.2f} s, {size:.1f} MB, {equal} of {len(PROMPTS)} prompts as transformers")
            if folder == exact and equal < len(PROMPTS):
                raise SystemExit("it generates otherwise than transformers: do not use it")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
