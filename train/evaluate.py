"""Scores base, adapted and control on pinned sets, which no parameter changes, and on the test shard.

Bits per byte compare models whatever their tokenizers; perplexity and token accuracy are per token of the model's own.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import hashlib
import itertools
import json
import math
import re
import resource
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from corpus.errors import UserError
from corpus.executor import run_tasks
from corpus.params import Evaluate, Params
from corpus.progress import progress
from corpus.stage import Metrics, Run, count_rows
from train import scores
from train.encode import Template, UnfitError, pack_tokenizer, plain_ids, read_templates, render, template_of
from train.models import device, load_finetuned, load_model, precision_of, prepare_torch, share_work
from train.ratings import write_sheet
from train.scores import Example
from train.shards import Document, Tally, read_shard

READS = ()
VERSION = 5

MODELS = ("base", "adapted", "control")
WINDOW = 1024  # tokens a model sees at once, if it can see as many
TEST_CHARACTERS = 4_000  # of a test document; few long ones would otherwise be the whole set


class EvaluationSet(NamedTuple):
    """Documents that are scored together."""

    name: str
    lang: str  # how their words are told apart
    examples: list[Example]

    def fingerprint(self, params: Params) -> str:
        """Digest of all that decides the scores besides the model: they compare only where it is the same."""
        template = params.pack.chat_template if any(example.messages for example in self.examples) else None
        prompts = template and template.read_text("utf-8")
        protocol = (VERSION, self.lang, params.evaluate.samples, params.evaluate.new_tokens, WINDOW, prompts)
        return hashlib.blake2b(json.dumps([protocol, self.examples]).encode(), digest_size=8).hexdigest()


def run(run: Run) -> Metrics:
    """Write samples.jsonl (set, id, prompt, reference, what each model wrote) and a sheet for people; return scores.

    A set has its fingerprint, documents, bytes and tokens that are scored (of dialogues and tasks the answers), and for
    base, adapted and (where there is one) control: bits_per_byte, perplexity, token_accuracy; of the samples bleu,
    chrf, rouge_1, rouge_2, rouge_l (0 to 100) and exact_match; of labelled documents accuracy, majority_accuracy,
    macro_f1, no_answer. Null is what does not apply.
    `winner` has the lower bits per byte of adapted and control; `forgetting` is what the sets called pinned-general
    lose by adapting. --input names another adapter's or model's folder; a --limit cuts each set.
    """
    if len(run.inputs) > 1:
        raise UserError(f"--input {run.inputs[1]}: name one adapter's folder; sets to score lie in data/evaluation")
    folder, base, params = run.inputs[0] if run.inputs else run.folder("finetune"), run.folder("base"), run.params
    templates = read_templates(params.pack.templates)
    sets, tally = pinned_sets(run.data / "evaluation", templates, params.pack.seed), Tally()
    if (test := run.folder("shard") / "test").exists():
        sets += test_sets(test, templates, params, tally)
    sets = [group._replace(examples=group.examples[: run.limit]) for group in sets]
    # The base comes last: it is the others' folders that may be at fault, and that is to be said at once.
    tasks = [(name, path) for name, path in (("adapted", folder), ("control", folder / "control")) if path.is_dir()]
    if not tasks:
        missing = "is no folder of an adapter" if folder.exists() else "does not exist"
        raise UserError(f"{folder} {missing}: run `train finetune`, or name an adapter's folder with --input")
    crew, threads = share_work(run, len(tasks) + 1)
    report = folder / "metrics.json" if run.inputs else run.data.parent / "reports" / "finetune.json"
    work = functools.partial(score_model, base, trained_method(report, params), sets, params, threads)
    found = {name: result for (name, _), result in run_tasks(work, [*tasks, ("base", None)], crew)}
    models = {name: found[name] for name in MODELS if name in found}
    by_set: Metrics = {}
    samples = []
    for group in sets:
        results = {name: model["sets"][group.name] for name, model in models.items()}
        by_set[group.name] = {
            "fingerprint": group.fingerprint(params),
            "documents": len(group.examples),
            "bytes": results["base"]["bytes"],
            "tokens": results["base"]["tokens"],
            **{name: result["scores"] for name, result in results.items()},
        }
        for number, sample in enumerate(results["base"]["samples"]):
            outputs = {name: result["outputs"][number] for name, result in results.items()}
            samples.append({"set": group.name, **sample, **outputs})
    with (run.output / "samples.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)
    write_sheet(run.output, samples, list(models))
    rows_in = sum(len(group.examples) for group in sets) + len(tally.dropped)
    return count_rows(rows_in=rows_in, dropped=tally.reasons()) | {
        "sets": by_set,
        "winner": {name: _winner(by_set[name]) for name in by_set},
        "forgetting": {name: _forgetting(by_set[name]) for name in by_set if name.startswith("pinned-general")},
        "timing": {name: model["timing"] for name, model in models.items()},
    }


def _winner(by_model: Metrics) -> str | None:
    if "control" not in by_model:
        return None
    adapted, control = (by_model[name]["bits_per_byte"] for name in ("adapted", "control"))
    return "tie" if adapted == control else "adapted" if adapted < control else "control"


def _forgetting(by_model: Metrics) -> Metrics:
    before, after = by_model["base"], by_model["adapted"]
    bits = after["bits_per_byte"] - before["bits_per_byte"]
    return {"bits_per_byte": bits, "perplexity_before": before["perplexity"], "perplexity_after": after["perplexity"]}


# ---- sets ------------------------------------------------------------------------------------------------------------


def pinned_sets(folder: Path, templates: Sequence[Template] = (), seed: int = 0) -> list[EvaluationSet]:
    """The sets that are the same in every experiment: each NAME.jsonl of a folder, by name.

    Lines are as `read_shard` takes them. A set's language is that of its lines, or the en or zh in its name. Raises
    UserError naming the file and the first line that is no document: a set counts whole or not at all.
    """
    sets = []
    for path in sorted(folder.glob("*.jsonl")):
        named = next((part for part in re.split(r"[-_.]", path.stem) if part in ("en", "zh")), "und")
        documents = list(read_shard(path, tally := Tally()))
        if tally.dropped or not documents:
            detail = tally.dropped[0].detail if tally.dropped else "no line"
            raise UserError(f'{path} holds what is not {{"id": …, "text": …}} ({detail}): mend or restore it')
        langs = {named if document.lang == "und" else document.lang for document in documents}
        lang = langs.pop() if len(langs) == 1 else "und"
        examples = [example(document, templates, seed) for document in documents]
        sets.append(EvaluationSet(f"pinned-{path.stem}", lang, examples))
    if not sets:
        raise UserError(f"{folder} holds no *.jsonl to evaluate on: restore them from git, or put your own there")
    return sets


def test_sets(shard: Path, templates: Sequence[Template], params: Params, tally: Tally) -> list[EvaluationSet]:
    """Up to evaluate.test_documents of the test shard in each language, drawn by hash, cut to TEST_CHARACTERS.

    Rows that are no documents are noted in the tally.
    """
    by_language: dict[str, list[Document]] = defaultdict(list)
    for document in read_shard(shard, tally):
        by_language[document.lang].append(dataclasses.replace(document, text=document.text[:TEST_CHARACTERS]))

    def drawn(document: Document) -> bytes:
        return hashlib.blake2b(f"{params.evaluate.seed}\0{document.id}".encode()).digest()

    sets = []
    for lang, documents in sorted(by_language.items()):
        chosen = sorted(documents, key=drawn)[: params.evaluate.test_documents]
        examples = [example(document, templates, params.pack.seed) for document in chosen]
        sets.append(EvaluationSet(f"test-{lang}", lang, examples))
    return sets


def example(document: Document, templates: Sequence[Template], seed: int) -> Example:
    """A document with what is asked about it, by its dialogue or by the template that it has in training too."""
    template = template_of(templates, document, seed)
    if template is None:
        return Example(document.id, document.text, document.messages)
    try:
        prompt, answer = render(template, document)
        answers = {label: render(template, dataclasses.replace(document, label=label))[1] for label in template.answers}
    except UnfitError:  # the template needs what the document has not: it is a text
        return Example(document.id, document.text)
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    labelled = document.label in answers
    return Example(document.id, document.text, messages, True, document.label, answers if labelled else None)


# ---- models ----------------------------------------------------------------------------------------------------------


def read_report(path: Path) -> dict[str, Any]:
    """What a stage reported. Raises UserError where it cannot be read."""
    try:
        return {**json.loads(path.read_text("utf-8"))}
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}): run the stage again, or delete it") from None


def trained_method(report: Path, params: Params) -> str:
    """How finetune trained, by its report, whatever params say by now; finetune.method where there is no report."""
    adapted = read_report(report).get("adapted") if report.is_file() else None
    return str(adapted["method"]) if isinstance(adapted, dict) and "method" in adapted else params.finetune.method


def score_model(
    base: Path, method: str, sets: Sequence[EvaluationSet], params: Params, threads: int, task: tuple[str, Path | None]
) -> Metrics:
    """What one model, the base or what finetune wrote, makes of the sets: see score_set; and its speed and memory.

    Adapters are on the base as `method` loads it, which is how they were trained; the base itself is not quantised.
    """
    import torch

    (name, folder), trusted = task, params.base.trust_remote_code
    prepare_torch(threads, params.evaluate.seed)
    if device() == "cuda":  # of the model before nothing is to count
        gc.collect()
        torch.cuda.reset_peak_memory_stats()
    tokenizer = pack_tokenizer(base, params.pack, trusted)
    options: dict[str, Any] = {"precision": precision_of("auto"), "trust_remote_code": trusted}
    if folder:
        model = load_finetuned(base, folder, method=method, **options)
    else:
        model = load_model(base, "base.model", **options)
    model = model.to(device()).eval()
    shown = progress(sets, desc="evaluate", unit="set", shown=name == "base")  # the others take as long
    found = {group.name: score_set(model, tokenizer, group, params.evaluate, name) for group in shown}
    keys = ("tokens", "seconds", "new", "new_seconds")
    tokens, seconds, new, new_seconds = (sum(result[key] for result in found.values()) for key in keys)
    timing = {"tokens_per_second": tokens / seconds, "ms_per_token": 1000 * new_seconds / new, "peak_mb": peak_mb()}
    return {"sets": found, "timing": timing}


def peak_mb() -> float:
    """The most memory of the GPU that this model took; on a CPU of this process since it began, models before too."""
    import torch

    if device() == "cuda":
        return float(torch.cuda.max_memory_allocated() / 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def score_set(model: Any, tokenizer: Any, group: EvaluationSet, settings: Evaluate, name: str) -> Metrics:
    """Scores of the model called `name` on a set; tokens; samples and its outputs; new tokens; and the times taken."""
    started = time.perf_counter()
    window = min(getattr(model.config.get_text_config(), "max_position_embeddings", None) or WINDOW, WINDOW)
    rows = [scores.to_score(tokenizer, example) for example in group.examples]
    found = scores.token_scores(model, [row.ids for row in rows], window)
    tokens = [score for row, own in zip(rows, found, strict=True) for score in itertools.compress(own, row.counts)]
    nats, size = math.fsum(loss for loss, _ in tokens), sum(row.size for row in rows)
    if not math.isfinite(nats):
        raise UserError(f"{name}: its loss on {group.name} is no number: train it at a lower learning_rate, or in fp32")
    scored = time.perf_counter()
    new_tokens = min(settings.new_tokens, window - 1)
    samples = group.examples[: settings.samples]
    questions = [scores.question(tokenizer, example, window, new_tokens) for example in samples]
    outputs, new = scores.generate(model, tokenizer, [question.ids for question in questions], new_tokens)
    outputs = [scores.first_bytes(output, scores.BYTES_PER_TOKEN * new_tokens) for output in outputs]
    labelled = [example for example in group.examples if example.answers]
    answers = {answer for example in labelled for answer in (example.answers or {}).values()}
    few = min(new_tokens, 4 + max((len(plain_ids(tokenizer, answer)) for answer in answers), default=0))
    prompts = [scores.question(tokenizer, example, window, few).ids for example in labelled]
    verdicts, more = scores.generate(model, tokenizer, prompts, few)
    ended = time.perf_counter()
    # Of a label the accuracy says it all: BLEU makes nothing of a word.
    answered = zip(samples, questions, outputs, strict=True)
    free = [(output, question) for sample, question, output in answered if not sample.answers]
    return {
        "scores": {
            "bits_per_byte": nats / math.log(2) / max(1, size),
            "perplexity": math.exp(min(700, nats / max(1, len(tokens)))),
            "token_accuracy": sum(foreseen for _, foreseen in tokens) / max(1, len(tokens)),
            **scores.text_scores([(output, question.reference) for output, question in free], group.lang),
            "exact_match": scores.exact_match([(output, asked.reference) for output, asked in free if asked.answered]),
            **scores.label_scores(verdicts, labelled),
        },
        "samples": [
            {"id": sample.id, "prompt": question.prompt, "reference": question.reference}
            for sample, question in zip(samples, questions, strict=True)
        ],
        "outputs": outputs,
        "tokens": len(tokens),
        "bytes": size,
        "seconds": scored - started,
        "new": new + more,
        "new_seconds": ended - scored,
    }
