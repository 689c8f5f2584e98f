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
import operator
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
from corpus.stage import Metrics, Run, count_rows
from train import scores
from train.encode import Template, UnfitError, pack_tokenizer, read_templates, render, template_of
from train.models import device, load_finetuned, load_model, precision_of, prepare_torch, share_cores
from train.ratings import write_sheet
from train.scores import Example
from train.shards import Document, Tally, read_shard

READS = ()
VERSION = 3

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
        template = params.pack.chat_template if any(one.messages for one in self.examples) else None
        prompts = template and template.read_text("utf-8")
        protocol = (VERSION, self.lang, params.evaluate.samples, params.evaluate.new_tokens, WINDOW, prompts)
        return hashlib.blake2b(json.dumps([protocol, self.examples]).encode(), digest_size=8).hexdigest()


def run(run: Run) -> Metrics:
    """Write samples.jsonl (set, id, prompt, reference, what each model wrote) and a sheet for people; return scores.

    A set has its fingerprint, documents, bytes, tokens, and for base, adapted and (where there is one) control:
    bits_per_byte, perplexity, token_accuracy; of the samples bleu, chrf, rouge_1, rouge_2, rouge_l (0 to 100) and
    exact_match; of labelled documents accuracy, majority_accuracy, macro_f1, no_answer. Null is what does not apply.
    `winner` is whichever of adapted and control has the lower bits per byte; `forgetting` what adapting costs on the
    pinned sets called general. Without a test shard the pinned sets are all; its rows that are no documents are dropped
    by reason. --input names another adapter's or model's folder; a --limit cuts each set.
    """
    folder, base, params = run.inputs[0] if run.inputs else run.folder("finetune"), run.folder("base"), run.params
    templates = read_templates(params.pack.templates)
    sets, tally = pinned_sets(run.data / "evaluation", templates, params.pack.seed), Tally()
    if (test := run.folder("shard") / "test").exists():
        sets += test_sets(test, templates, params, tally)
    sets = [one._replace(examples=one.examples[: run.limit]) for one in sets]
    # The base comes last: it is the others' folders that may be at fault, and that is to be said at once.
    tasks = [(name, path) for name, path in (("adapted", folder), ("control", folder / "control")) if path.is_dir()]
    if not tasks:
        raise UserError(f"{folder} does not exist: run `train finetune`, or name an adapter's folder with --input")
    at_once, threads = share_cores(base, len(tasks) + 1, run.workers)
    report = folder / "metrics.json" if run.inputs else run.data.parent / "reports" / "finetune.json"
    work = functools.partial(score_model, base, trained_method(report, params), sets, params, threads)
    found = {name: result for (name, _), result in run_tasks(work, [*tasks, ("base", None)], at_once)}
    models = {name: found[name]["sets"] for name in MODELS if name in found}
    samples = [
        functools.reduce(operator.or_, versions)  # what each model wrote beside the others
        for one in sets
        for versions in zip(*(by_set[one.name]["samples"] for by_set in models.values()), strict=True)
    ]
    with (run.output / "samples.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)
    write_sheet(run.output, samples, list(models))
    all_scores: Metrics = {
        one.name: {
            "fingerprint": one.fingerprint(params),
            "documents": len(one.examples),
            "bytes": sum(len(example.text.encode()) for example in one.examples),
            "tokens": models["base"][one.name]["tokens"],
            **{name: by_set[one.name]["scores"] for name, by_set in models.items()},
        }
        for one in sets
    }
    rows_in = sum(len(one.examples) for one in sets) + len(tally.dropped)
    return count_rows(rows_in=rows_in, dropped=tally.reasons()) | {
        "sets": all_scores,
        "winner": {name: _winner(one) for name, one in all_scores.items()},
        "forgetting": {name: _forgetting(one) for name, one in all_scores.items() if name.startswith("pinned-general")},
        "timing": {name: found[name]["timing"] for name in models},
    }


def _winner(one: Metrics) -> str | None:
    if "control" not in one:
        return None
    difference = one["adapted"]["bits_per_byte"] - one["control"]["bits_per_byte"]
    return "tie" if difference == 0 else "adapted" if difference < 0 else "control"


def _forgetting(one: Metrics) -> Metrics:
    before, after = one["base"], one["adapted"]
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
    by_language: dict[str, list[tuple[bytes, Document]]] = defaultdict(list)
    for document in read_shard(shard, tally):
        drawn = hashlib.blake2b(f"{params.evaluate.seed}\0{document.id}".encode()).digest()
        by_language[document.lang].append((drawn, dataclasses.replace(document, text=document.text[:TEST_CHARACTERS])))
    sets = []
    for lang, documents in sorted(by_language.items()):
        chosen = sorted(documents, key=lambda entry: entry[0])[: params.evaluate.test_documents]
        sets.append(
            EvaluationSet(f"test-{lang}", lang, [example(one, templates, params.pack.seed) for _, one in chosen])
        )
    return sets


def example(document: Document, templates: Sequence[Template], seed: int) -> Example:
    """A document with what is asked about it, by its dialogue or by the template that it has in training too."""
    template = template_of(templates, document, seed)
    if template is None:
        return Example(document.id, document.text, document.messages)
    try:
        prompt, answer = render(template, document)
        by_label = {one: render(template, dataclasses.replace(document, label=one))[1] for one in template.answers}
    except UnfitError:  # the template needs what the document has not: it is a text
        return Example(document.id, document.text)
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    answers = by_label if document.label in by_label else None
    return Example(document.id, document.text, messages, True, document.label, answers)


# ---- models ----------------------------------------------------------------------------------------------------------


def read_report(path: Path) -> dict[str, Any]:
    """What a stage reported. Raises UserError where it cannot be read."""
    try:
        report = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}): run the stage again, or delete it") from None
    if not isinstance(report, dict):
        raise UserError(f"{path} is no report of a stage: run the stage again, or delete it")
    return report


def trained_method(report: Path, params: Params) -> str:
    """How finetune trained, by its report, whatever params say by now; finetune.method where there is no report."""
    adapted = read_report(report).get("adapted") if report.is_file() else None
    method = adapted.get("method") if isinstance(adapted, dict) else None
    return method if isinstance(method, str) else params.finetune.method


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
    found = {one.name: score_set(model, tokenizer, one, params.evaluate, name) for one in sets}
    total = {key: sum(one[key] for one in found.values()) for key in ("tokens", "seconds", "generated", "generation")}
    timing = {
        "tokens_per_second": total["tokens"] / total["seconds"],
        "ms_per_token": 1000 * total["generation"] / total["generated"],
        "peak_mb": peak_mb(),
    }
    return {"sets": found, "timing": timing}


def peak_mb() -> float:
    """The most memory taken: of the GPU by the model being scored, else, on a CPU, by this process since it began.

    So where a CPU scores one model after another in one process, each figure includes those before it.
    """
    import torch

    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return torch.cuda.max_memory_allocated() / 2**20 if device() == "cuda" else own


def score_set(model: Any, tokenizer: Any, one: EvaluationSet, settings: Evaluate, name: str) -> Metrics:
    """Scores of the model called `name` on a set, tokens, samples with what it wrote, and the time it took."""
    started = time.perf_counter()
    window = min(getattr(model.config.get_text_config(), "max_position_embeddings", None) or WINDOW, WINDOW)
    texts = [example.text for example in one.examples]
    tokens = list(itertools.chain.from_iterable(scores.token_scores(model, tokenizer, texts, window)))
    nats, size = math.fsum(loss for loss, _ in tokens), sum(len(text.encode()) for text in texts)
    if not math.isfinite(nats):
        raise UserError(f"{name}: its loss on {one.name} is no number: train it at a lower learning_rate, or in fp32")
    scored = time.perf_counter()
    new_tokens = min(settings.new_tokens, window - 1)
    samples = one.examples[: settings.samples]
    asked = [scores.question(tokenizer, example, window, new_tokens) for example in samples]
    outputs, generated = scores.generate(model, tokenizer, [question.ids for question in asked], new_tokens)
    outputs = [scores.first_bytes(output, scores.BYTES_PER_TOKEN * new_tokens) for output in outputs]
    labelled = [example for example in one.examples if example.answers]
    answers = {answer for example in labelled for answer in (example.answers or {}).values()}
    few = min(new_tokens, 4 + max((len(scores.token_ids(tokenizer, answer)) for answer in answers), default=0))
    prompts = [scores.question(tokenizer, example, window, few).ids for example in labelled]
    said, more = scores.generate(model, tokenizer, prompts, few)
    ended = time.perf_counter()
    # Of a label the accuracy says it all: BLEU makes nothing of a word.
    free = [pair for pair, sample in zip(zip(outputs, asked, strict=True), samples, strict=True) if not sample.answers]
    return {
        "scores": {
            "bits_per_byte": nats / math.log(2) / max(1, size),
            "perplexity": math.exp(min(700, nats / max(1, len(tokens)))),
            "token_accuracy": sum(right for _, right in tokens) / max(1, len(tokens)),
            **scores.text_scores([(made, question.reference) for made, question in free], one.lang),
            "exact_match": scores.exact_match([(made, that.reference) for made, that in free if that.answered]),
            **scores.label_scores(said, labelled),
        },
        "samples": [
            {"set": one.name, "id": sample.id, "prompt": question.prompt, "reference": question.reference, name: output}
            for sample, question, output in zip(samples, asked, outputs, strict=True)
        ],
        "tokens": len(tokens),
        "seconds": scored - started,
        "generated": generated + more,
        "generation": ended - scored,
    }
