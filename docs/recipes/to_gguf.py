"""The exported model as GGUF, for llama.cpp, Ollama and what is built on them: Llamas with a byte-level tokenizer.

    pip install gguf
    train export my-model
    python docs/recipes/to_gguf.py my-model my-model.gguf [F16, Q8_0 …; default F32]

Made for the tiny base and its like; for other models use convert_hf_to_gguf.py of llama.cpp. Reloads the file with
transformers and prints for how many prompts it generates, token by token, what the model does: in F32 all must.
"""

import json
import sys
from pathlib import Path

from gguf import MODEL_ARCH, GGMLQuantizationType, GGUFWriter, TokenType, get_tensor_name_map, quantize
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPTS = ("怎样", "如何设置", "同步目录", "The function returns", "A file object", "What does", "Return", "1.")


def main(model: Path, output: Path, kind: str = "F32") -> None:
    tokenizer, loaded = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model).float()
    config, merges = loaded.config, json.loads((model / "tokenizer.json").read_text("utf-8"))["model"]["merges"]
    tokens, special = tokenizer.convert_ids_to_tokens(range(config.vocab_size)), tokenizer.all_special_tokens
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    more = {"layer_norm_rms_eps": config.rms_norm_eps, "chat_template": tokenizer.chat_template}
    sizes = {"context_length": config.max_position_embeddings, "embedding_length": config.hidden_size} | more
    sizes |= {"block_count": config.num_hidden_layers, "feed_forward_length": config.intermediate_size}
    sizes |= {"head_count": heads["q_proj"], "head_count_kv": heads["k_proj"], "vocab_size": config.vocab_size}
    rope = {"rope_dimension_count": config.head_dim, "rope_freq_base": config.rope_parameters["rope_theta"]}
    words = {"tokenizer_model": "gpt2", "tokenizer_pre": "gpt-2", "token_list": tokens}
    words["token_merges"] = [" ".join(pair) for pair in merges]
    words["token_types"] = [TokenType.CONTROL if token in special else TokenType.NORMAL for token in tokens]
    marks = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    writer, names = GGUFWriter(output, "llama"), get_tensor_name_map(MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, value in (sizes | rope | words | marks).items():
        getattr(writer, f"add_{name}")(value)
    for name, tensor in loaded.requires_grad_(False).named_parameters():  # a tied head is not among them
        if (projection := name.split(".")[-2]) in heads:  # the halves of each head interleaved, as llama.cpp rotates
            tensor = tensor.reshape(heads[projection], 2, -1, config.hidden_size).transpose(1, 2).reshape(tensor.shape)
        of = GGMLQuantizationType[kind if tensor.ndim == 2 else "F32"]
        writer.add_tensor(names.get_name(name, [".weight"]), quantize(tensor.numpy(), of), raw_dtype=of)
    for step in ("write_header_to_file", "write_kv_data_to_file", "write_tensors_to_file", "close"):
        getattr(writer, step)()
    reloaded, equal = AutoModelForCausalLM.from_pretrained(output.parent, gguf_file=output.name), 0
    for text in PROMPTS:
        given = tokenizer(text, return_tensors="pt")["input_ids"]
        made, wanted = (one.generate(given, max_new_tokens=24, do_sample=False) for one in (reloaded, loaded))
        equal += made.tolist() == wanted.tolist()
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB, {equal} of {len(PROMPTS)} prompts as transformers")
    if kind == "F32" and equal < len(PROMPTS):
        raise SystemExit("it generates otherwise than transformers: do not use it")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
