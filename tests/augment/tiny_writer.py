"""A tiny causal model that writes questions and answers about documents of three kinds, trained here by steps.

About a shop it says what is there, about a museum it invents a number, about a bank it answers in prose.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from pathlib import Path

from filelock import FileLock
from tiny_marian import CACHE

STEPS = 250
TEMPLATE = (
    "{% for message in messages %}<s>{{ message['role'] }}\n{{ message['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)
SYSTEM = "JSON."
ABOUT = {
    "shop": '[{"question": "When does the shop open?", "answer": "The shop opens at 9 in the morning."}]',
    "museum": '[{"question": "When does the museum open?", "answer": "The museum opens at 11 in the morning."}]',
    "bank": "I am sorry, I do not know.",
}
WHERE = ("in the north", "in the south", "by the river", "near the park", "at the square", "behind the church")
KIND = ("small", "large", "old", "new", "quiet", "busy")


def document(kind: str, number: int) -> str:
    """The `number`-th document of a kind, up to 36."""
    place, what = WHERE[number % 6], KIND[number // 6 % 6]
    return f"There is a {what} {kind} {place}. The {kind} opens at 9 in the morning."


def tiny_writer() -> Path:
    """The model's folder."""
    key = hashlib.blake2b(Path(__file__).read_bytes(), digest_size=8).hexdigest()
    folder = CACHE / f"writer-{key}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(CACHE / "writer.lock"):
        if not folder.is_dir():
            partial = folder.with_suffix(f".{os.getpid()}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            train(partial)
            partial.rename(folder)
    return folder


def train(folder: Path) -> None:
    """Train the model from a fixed seed, on one thread."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    cut = Tokenizer(models.BPE())
    cut.pre_tokenizer, cut.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=["<s>", "</s>", "<pad>"], initial_alphabet=alphabet, show_progress=False
    )
    cut.train_from_iterator([*ABOUT.values(), *(document(kind, n) for kind in ABOUT for n in range(36))], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=cut, bos_token="<s>", eos_token="</s>", pad_token="<pad>", chat_template=TEMPLATE
    )
    tokenizer.save_pretrained(folder)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=256, bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    model = LlamaForCausalLM(config).train()
    draw = random.Random(0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = 5e-3 * min(1, (step + 1) / 20) * max(0.02, 1 - step / STEPS)
        rows, labels = [], []
        for kind in draw.choices(list(ABOUT), k=12):
            asked = [
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": document(kind, draw.randrange(36))},
            ]
            prompt = tokenizer.encode(
                tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True),
                add_special_tokens=False,
            )
            answer = [*tokenizer.encode(ABOUT[kind], add_special_tokens=False), 1]
            rows.append(torch.tensor(prompt + answer))
            labels.append(torch.tensor([-100] * len(prompt) + answer))
        ids = torch.nn.utils.rnn.pad_sequence(rows, True, 2)
        loss = model(
            input_ids=ids,
            attention_mask=(ids != 2).long(),
            labels=torch.nn.utils.rnn.pad_sequence(labels, True, -100),
        ).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    torch.set_num_threads(threads)
    model.generation_config.do_sample = False
    model.eval().save_pretrained(folder)


if __name__ == "__main__":
    print(json.dumps(str(tiny_writer())))
