"""Scores base, adapter and control on pinned sets, which no parameter changes, and on the test shard.

Bits per byte compare models whatever their tokenizers; perplexity is per token of the model's own.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from corpus.errors import UserError
from corpus.executor import run_tasks
from corpus.params import Evaluate
from corpus.stage import Metrics, Run, count_rows
from train.models import device, load_model, load_tokenizer, prepare_torch, share_cores
from train.pack import Document, read_shard

READS = ()
VERSION = 1

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")  # pickled ones (.bin) could run code of their own
PINNED = {"en": "en.jsonl", "zh": "zh.jsonl"}  # in data/evaluation
WINDOW = 1024  # tokens a model sees at once, if it can see as many
TEST_CHARACTERS = 4_000  # of a test document; few long ones would otherwise be the whole set
BATCH = 8


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
    """Documents that are scored together; all are in one language."""

    name: str
    lang: str
    documents: tuple[Document, ...]

    @property
    def fingerprint(self) -> str:
        """Digest of ids and texts: scores compare only where it is the same."""
        content = json.dumps([[document.id, document.text] for document in self.documents])
        return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


@dataclasses.dataclass(frozen=True)
class Task:
    """A model to score: the base as it is, or with an adapter."""

    name: str
    adapter: Path | None

    def __str__(self) -> str:
        return f"the scores of {self.name}"


def run(run: Run) -> Metrics:
    """Write samples.jsonl (set, id, prompt, reference, base, adapted, control) and return the scores of each set.

    A set has its fingerprint, documents, bytes, and for base, adapted and control: bits_per_byte, perplexity, bleu,
    chrf and rouge_l (0 to 100). `winner` is whichever of adapted and control has the lower bits per byte.
    --input names another adapter's folder; a --limit cuts each set.
    """
    adapter, base = run.inputs[0] if run.inputs else run.folder("finetune"), run.folder("base")
    sets = [*pinned_sets(run.data / "evaluation"), *test_sets(run)]
    if run.limit is not None:
        sets = [dataclasses.replace(one, documents=one.documents[: run.limit]) for one in sets]
    tasks = [Task("base", None), Task("adapted", adapter), Task("control", adapter / "control")]
    for task in tasks[1:]:
        for name in ADAPTER_FILES:
            if task.adapter is not None and not (task.adapter / name).is_file():
                raise UserError(
                    f"{task.adapter} holds no adapter: {name} is missing; run `train finetune` or name one with --input"
                )
    at_once, threads = share_cores(base, len(tasks), run.workers)
    work = functools.partial(score_model, base, sets, run.params.evaluate, threads)
    results = {task.name: result for task, result in run_tasks(work, tasks, at_once)}
    _write_samples(run.output / "samples.jsonl", sets, results)
    scores = {
        one.name: {
            "fingerprint": one.fingerprint,
            "documents": len(one.documents),
            "bytes": sum(len(document.text.encode()) for document in one.documents),
            **{task.name: results[task.name][one.name]["scores"] for task in tasks},
        }
        for one in sets
    }
    return count_rows(rows_in=sum(len(one.documents) for one in sets), dropped={}) | {
        "sets": scores,
        "winner": {name: _winner(score) for name, score in scores.items()},
    }


def _winner(score: Metrics) -> str:
    difference = score["adapted"]["bits_per_byte"] - score["control"]["bits_per_byte"]
    return "tie" if difference == 0 else "adapted" if difference < 0 else "control"


# ---- sets ------------------------------------------------------------------------------------------------------------


def pinned_sets(folder: Path) -> list[EvaluationSet]:
    """The sets that are the same in every experiment. Raises UserError naming the file and line that cannot be read."""
    sets = []
    for lang, name in PINNED.items():
        documents = []
        try:
            lines = (folder / name).read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{folder / name} cannot be read ({error}): restore it from git") from None
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                documents.append(Document(row["id"], row["text"], lang, None))
            except (ValueError, TypeError, KeyError):
                raise UserError(f'{folder / name}: line {number} is not {{"id": …, "text": …}}: restore it') from None
        sets.append(EvaluationSet(f"pinned-{lang}", lang, tuple(documents)))
    return sets


def test_sets(run: Run) -> list[EvaluationSet]:
    """Up to evaluate.test_documents of the test shard in each language, drawn by hash, cut to TEST_CHARACTERS."""
    by_language: dict[str, list[Document]] = defaultdict(list)
    for document in read_shard(run.folder("shard") / "test"):
        by_language[document.lang].append(dataclasses.replace(document, text=document.text[:TEST_CHARACTERS]))

    def drawn(document: Document) -> bytes:
        return hashlib.blake2b(f"{run.params.evaluate.seed}\0{document.id}".encode()).digest()

    return [
        EvaluationSet(f"test-{lang}", lang, tuple(sorted(documents, key=drawn)[: run.params.evaluate.test_documents]))
        for lang, documents in sorted(by_language.items())
    ]


# ---- scores ----------------------------------------------------------------------------------------------------------


def score_model(base: Path, sets: Sequence[EvaluationSet], settings: Evaluate, threads: int, task: Task) -> Metrics:
    """Scores and samples of one model by set: {set: {scores: {…}, prompts, references, outputs}}."""
    prepare_torch(threads, settings.seed)
    tokenizer = load_tokenizer(base, "base.model")
    model = load_model(base, "base.model").to(device())
    if task.adapter is not None:
        from peft import PeftModel
        from safetensors import SafetensorError

        try:
            model = PeftModel.from_pretrained(model, task.adapter).to(device())
        except (SafetensorError, RuntimeError) as error:
            first = str(error).strip().splitlines()[0]
            raise UserError(f"{task.adapter} does not fit the base ({first}): run `train finetune`") from None
    model.eval()
    window = min(getattr(model.config, "max_position_embeddings", WINDOW), WINDOW)
    result: Metrics = {}
    for one in sets:
        nats, tokens = 0.0, 0
        for document in one.documents:
            losses = token_nats(model, tokenizer, document.text, window)
            nats, tokens = nats + sum(losses), tokens + len(losses)
        size = sum(len(document.text.encode()) for document in one.documents)
        scores = {
            "bits_per_byte": nats / math.log(2) / max(1, size),
            "perplexity": math.exp(nats / max(1, tokens)),
        }
        tasks = [generation_task(tokenizer, d, window, settings) for d in one.documents[: settings.samples]]
        outputs = generate(model, tokenizer, [ids for ids, _, _ in tasks], settings.new_tokens)
        references = [reference for _, _, reference in tasks]
        result[one.name] = {
            "scores": scores | generation_scores(outputs, references, one.lang),
            "prompts": [prompt for _, prompt, _ in tasks],
            "references": references,
            "outputs": outputs,
        }
    return result


def token_nats(model: Any, tokenizer: Any, text: str, window: int) -> list[float]:
    """The loss of each token of a text in nats, the first one after the beginning mark.

    Longer texts are read in windows that overlap by half, so that each token is scored once and, but for the first
    window, with at least half a window before it.
    """
    import torch

    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    ids = [start_token(tokenizer), *ids]
    losses: list[float] = []
    with torch.no_grad():
        while len(losses) < len(ids) - 1:
            scored = len(losses)  # tokens 1 to `scored` have their loss
            end = min(len(ids), window if scored == 0 else scored + 1 + window // 2)
            begin = max(0, end - window)
            tokens = torch.tensor([ids[begin:end]], device=model.device)
            logits = model(input_ids=tokens, use_cache=False).logits[0, :-1]
            loss = torch.nn.functional.cross_entropy(logits.float(), tokens[0, 1:], reduction="none")
            losses += loss[scored - begin :].tolist()
    return losses


def start_token(tokenizer: Any) -> int:
    """The token before a text: the beginning mark, or what separates texts where there is none."""
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id):
        if token is not None:
            return int(token)
    raise UserError("base.model: its tokenizer has no beginning, end or padding token, so a text's first is unscorable")


def generation_task(tokenizer: Any, document: Document, window: int, settings: Evaluate) -> tuple[list[int], str, str]:
    """Tokens of the prompt, the prompt, and what should follow, at most evaluate.new_tokens of it.

    Of a dialogue the last answer should follow, of a text its second half.
    """
    answers = [n for n, message in enumerate(document.messages or []) if message["role"] == "assistant"]
    if document.messages and answers and answers[-1] > 0 and tokenizer.chat_template:
        asked, answer = document.messages[: answers[-1]], document.messages[answers[-1]]["content"]
        prompt = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        ids, following = _ids(tokenizer, prompt), _ids(tokenizer, answer)
    else:
        tokens = _ids(tokenizer, document.text)
        ids, following = [start_token(tokenizer), *tokens[: len(tokens) // 2]], tokens[len(tokens) // 2 :]
    ids = ids[-max(1, window - settings.new_tokens) :]
    return ids, _text(tokenizer, ids), _text(tokenizer, following[: settings.new_tokens])


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of tokens, without the halves of characters that a cut leaves at its ends."""
    text: str = tokenizer.decode(ids, skip_special_tokens=True)
    return text.strip("�")


def generate(model: Any, tokenizer: Any, prompts: Sequence[list[int]], new_tokens: int) -> list[str]:
    """What a model finds likeliest to follow each prompt, token by token."""
    import torch

    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else start_token(tokenizer)
    outputs: list[str] = []
    for first in range(0, len(prompts), BATCH):
        batch = prompts[first : first + BATCH]
        longest = max(map(len, batch))
        ids = torch.tensor([[padding] * (longest - len(p)) + p for p in batch], device=model.device)
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in batch], device=model.device)
        with torch.no_grad():
            made = model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=new_tokens, do_sample=False, pad_token_id=padding
            )
        outputs += [_text(tokenizer, row[longest:].tolist()) for row in made]
    return outputs


def generation_scores(outputs: Sequence[str], references: Sequence[str], lang: str) -> Metrics:
    """BLEU, chrF and ROUGE-L (0 to 100) of outputs; Chinese is taken character by character.

    >>> generation_scores(["今天下雨"], ["今天下雨"], "zh-Hans")
    {'bleu': 100.0, 'chrf': 100.0, 'rouge_l': 100.0}
    """
    import sacrebleu
    from rouge_score.rouge_scorer import RougeScorer

    tokenize = "zh" if lang.startswith("zh") else "13a"
    scorer = RougeScorer(["rougeL"], tokenizer=_Characters())
    rouge = [
        scorer.score(reference, made)["rougeL"].fmeasure for made, reference in zip(outputs, references, strict=True)
    ]
    return {
        "bleu": round(sacrebleu.corpus_bleu(list(outputs), [list(references)], tokenize=tokenize).score, 4),
        "chrf": round(sacrebleu.corpus_chrf(list(outputs), [list(references)]).score, 4),
        "rouge_l": round(100 * sum(rouge) / max(1, len(rouge)), 4),
    }


class _Characters:
    """Words in lower case, and Chinese, Japanese and Korean by character: what rouge-score itself leaves out."""

    def tokenize(self, text: str) -> list[str]:
        import re

        return re.findall(r"[぀-ヿ㐀-鿿豈-﫿가-힯]|[^\W_぀-ヿ㐀-鿿豈-﫿가-힯]+", text.lower())


def _write_samples(path: Path, sets: Sequence[EvaluationSet], results: dict[str, Metrics]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for one in sets:
            base = results["base"][one.name]
            for number, document in enumerate(one.documents[: len(base["outputs"])]):
                row = {"set": one.name, "id": document.id, "prompt": base["prompts"][number]}
                row |= {"reference": base["references"][number]}
                row |= {name: result[one.name]["outputs"][number] for name, result in results.items()}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
