"""What a model makes of texts and questions: the loss of each token, greedy answers, and their scores."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from corpus.errors import UserError
from train.encode import Ranges, Segment, UnfitError, dialogue_segments, plain_ids, render_dialogue, tokenise
from train.shards import Messages

BATCH_TOKENS = 4_096  # generated from at once, padding included
BATCH_LOGITS = 1 << 22  # scored at once; more only where a single window has more
BYTES_PER_TOKEN = 3  # of a reference: part of a word in English, a character in Chinese, whatever the tokenizer
_CJK = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uac00-\ud7af"


class Example(NamedTuple):
    """A document to score, and what is asked about it: a dialogue's last answer, or a template's."""

    id: str
    text: str
    messages: Messages | None = None
    by_template: bool = False  # messages are a template's prompt and answer
    label: str | None = None
    answers: Mapping[str, str] | None = None  # by label, where the task is to say which


class Question(NamedTuple):
    """The tokens and the text that a model is to go on from, and what should follow."""

    ids: list[int]
    prompt: str
    reference: str
    answered: bool  # the reference is an answer with an end, and not the rest of a text


# ---- tokens ----------------------------------------------------------------------------------------------------------


class Scored(NamedTuple):
    """The tokens of an example, the first one a beginning mark, and which of those after it are scored."""

    ids: list[int]
    counts: list[bool]
    size: int  # bytes of what is scored


def to_score(tokenizer: Any, example: Example) -> Scored:
    """Of a dialogue and of a template's task the answers, each after all that precedes it; of a text all of it.

    Dialogues need a chat template that takes them, otherwise they are their text. Special tokens' strings in what
    somebody says are text.
    """
    answers = [turn["content"] for turn in example.messages or [] if turn["role"] == "assistant"]
    size = sum(len(answer.encode()) for answer in answers)
    try:
        if not answers or not (tokenizer.chat_template or example.by_template):
            raise UnfitError
        messages = example.messages or []
        if tokenizer.chat_template:
            segments = dialogue_segments(
                tokenizer, messages, lambda turns: render_dialogue(tokenizer, turns, Counter())
            )
            start = []
        else:
            prompt, answer = (turn["content"] for turn in messages)
            segments, start = [Segment(prompt, []), Segment(answer, [(0, len(answer))])], [start_token(tokenizer)]
    except UnfitError:
        ids = [start_token(tokenizer), *plain_ids(tokenizer, example.text)]
        return Scored(ids, [True] * (len(ids) - 1), len(example.text.encode()))
    encoded = tokenise(tokenizer, segments)
    ids = [*start, *(int(token) for tokens, _ in encoded for token in tokens)]
    learned = [*(False for _ in start), *(bool(one) for _, own in encoded for one in own)]
    return Scored(ids, learned[1:], size)


def token_scores(model: Any, rows: Sequence[list[int]], window: int) -> list[list[tuple[float, bool]]]:
    """For each token of each row but the first: its loss in nats, and if it was foreseen.

    Longer rows are read in windows that overlap by half, so that each token is scored once and, but for the first
    window, with at least half a window before it.
    """
    import torch

    spans = [(row, *span) for row, ids in enumerate(rows) for span in windows(len(ids), window)]
    scores: list[list[tuple[float, bool]]] = [[(math.nan, False)] * (len(ids) - 1) for ids in rows]
    most = BATCH_LOGITS // model.config.get_text_config().vocab_size
    for batch in batches([end - begin for _, begin, end, _ in spans], most):
        tokens = _padded([rows[row][begin:end] for row, begin, end, _ in (spans[n] for n in batch)], 0, "right", model)
        with torch.no_grad():  # what is padded at the end is seen by no token before it; prompt tuning adds a beginning
            logits = model(input_ids=tokens, use_cache=False).logits[:, -tokens.shape[1] : -1].float()
        true = tokens[:, 1:]
        losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), true.flatten(), reduction="none").view_as(true)
        for n, nats, foreseen in zip(batch, losses.tolist(), (logits.argmax(-1) == true).tolist(), strict=True):
            row, begin, end, scored = spans[n]
            found = list(zip(nats, foreseen, strict=True))
            scores[row][scored : end - 1] = found[scored - begin : end - begin - 1]
    return scores


def windows(length: int, window: int) -> Iterator[tuple[int, int, int]]:
    """Beginning and end of each window, and the last token that has its loss already; the first token has none.

    >>> list(windows(10, 6))
    [(0, 6, 0), (3, 9, 5), (4, 10, 8)]
    """
    scored = 0
    while scored < length - 1:
        end = min(length, window if scored == 0 else scored + 1 + window // 2)
        yield max(0, end - window), end, scored
        scored = end - 1


def batches(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Numbers of rows, the longest first, as many at once as have so many tokens together with their padding.

    >>> list(batches([2, 5, 4, 1, 2], 8))
    [[1], [2, 0], [4, 3]]
    """
    left = sorted(range(len(lengths)), key=lambda number: -lengths[number])
    while left:
        size = max(1, tokens // lengths[left[0]])
        yield left[:size]
        left = left[size:]


def start_token(tokenizer: Any) -> int:
    """The token before a text: the beginning mark, or what separates texts where there is none."""
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id):
        if token is not None:
            return int(token)
    raise UserError("base.model: its tokenizer has no beginning, end or padding token, so a text's first is unscorable")


def _padded(rows: Sequence[list[int]], padding: int, side: str, model: Any) -> Any:
    import torch

    tensors = [torch.tensor(row) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tensors, True, padding, side).to(model.device)


# ---- answers ---------------------------------------------------------------------------------------------------------


def question(tokenizer: Any, example: Example, window: int, new_tokens: int) -> Question:
    """What to go on from: the prompt to the last answer, or a text's first half; its end where it is too long.

    The reference is the answer or the other half, cut to what new_tokens may write. Dialogues need a chat template that
    takes them, otherwise they are their text. Of special tokens a prompt has those that the chat template sets.
    """

    def to_answer(turns: Messages) -> tuple[str, Ranges]:
        whole, ranges = render_dialogue(tokenizer, turns, Counter())
        return whole[: ranges[-1][0]], []

    messages = example.messages or []
    try:
        if not messages or not tokenizer.chat_template:
            raise UnfitError
        segments, start, answered = dialogue_segments(tokenizer, messages, to_answer), [], True
        reference = [turn["content"] for turn in messages if turn["role"] == "assistant"][-1]
    except UnfitError:
        half = len(example.text) // 2
        half += max(0, example.text[half : half + 24].find(" "))  # rather not amid a word
        start, answered = [start_token(tokenizer)], example.by_template
        sides = [turn["content"] for turn in messages] if answered else (example.text[:half], example.text[half:])
        segments, reference = [Segment(sides[0], [])], sides[1]
    ids = [*start, *(int(token) for tokens, _ in tokenise(tokenizer, segments) for token in tokens)]
    kept = ids[-max(1, window - new_tokens) :]
    prompt = "".join(segment.text for segment in segments) if len(kept) == len(ids) else _text(tokenizer, kept)
    return Question(kept, prompt, first_bytes(reference, BYTES_PER_TOKEN * new_tokens), answered)


def first_bytes(text: str, size: int) -> str:
    """As much of a text's start as takes at most so many bytes of UTF-8.

    >>> first_bytes("天气 fine", 7), first_bytes("天气 fine", 5)
    ('天气 ', '天')
    """
    return text.encode()[:size].decode(errors="ignore")


def generate(model: Any, tokenizer: Any, prompts: Sequence[list[int]], new_tokens: int) -> tuple[list[str], int]:
    """What a model finds likeliest to follow each prompt, token by token; and how many tokens that took.

    End marks count, the padding after them does not. Prompts of like lengths are answered together, padded on the left.
    """
    import torch

    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else start_token(tokenizer)
    ends = model.generation_config.eos_token_id  # a number, a list of them, or None
    ends = {*ends} if isinstance(ends, list) else {ends}
    greedy = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0}  # whatever the model's own settings
    options = {"max_new_tokens": new_tokens, "pad_token_id": padding, **greedy}
    outputs, spent = [""] * len(prompts), 0
    for batch in batches([len(prompt) + new_tokens for prompt in prompts], BATCH_TOKENS):
        ids = _padded([prompts[n] for n in batch], padding, "left", model)
        mask = _padded([[1] * len(prompts[n]) for n in batch], 0, "left", model)
        with torch.no_grad():
            new = model.generate(input_ids=ids, attention_mask=mask, **options)[:, ids.shape[1] :]
        for n, row in zip(batch, new.tolist(), strict=True):
            outputs[n] = _text(tokenizer, row)
            spent += next((count for count, token in enumerate(row, 1) if token in ends), len(row))  # then padding
    return outputs, spent


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of tokens, without the halves of characters that a cut leaves at its ends."""
    text: str = tokenizer.decode(ids, skip_special_tokens=True)
    return text.strip("\ufffd")


# ---- scores ----------------------------------------------------------------------------------------------------------


def text_scores(pairs: Sequence[tuple[str, str]], lang: str) -> dict[str, float | None]:
    """BLEU, chrF and ROUGE 1, 2 and L (F measure), 0 to 100, of texts beside what they should be; null without any.

    Chinese is taken by character: BLEU has a tokeniser for it, ROUGE is given one.

    >>> text_scores([("今天下雨", "今天下雨")], "zh-Hans")
    {'bleu': 100.0, 'chrf': 100.0, 'rouge_1': 100.0, 'rouge_2': 100.0, 'rouge_l': 100.0}
    """
    import sacrebleu
    from rouge_score.rouge_scorer import RougeScorer

    rouge = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}
    if not pairs:
        return dict.fromkeys(["bleu", "chrf", *rouge])
    outputs, references = (list(side) for side in zip(*pairs, strict=True))
    scorer = RougeScorer(list(rouge.values()), tokenizer=_Characters())
    overlaps = [scorer.score(reference, output) for output, reference in pairs]
    found = {
        "bleu": sacrebleu.corpus_bleu(outputs, [references], tokenize="zh" if lang[:2] == "zh" else "13a").score,
        "chrf": sacrebleu.corpus_chrf(outputs, [references]).score,
        **{name: 100 * fmean(overlap[kind].fmeasure for overlap in overlaps) for name, kind in rouge.items()},
    }
    return {name: round(value, 4) for name, value in found.items()}


class _Characters:
    """Words in lower case, and Chinese, Japanese and Korean by character: what rouge-score itself leaves out."""

    def tokenize(self, text: str) -> list[str]:
        return re.findall(rf"[{_CJK}]|[^\W_{_CJK}]+", text.lower())


def exact_match(pairs: Sequence[tuple[str, str]]) -> float | None:
    """The share of answers that are as they should be but for case, width and white space; null without any."""
    return fmean(_plain(output) == _plain(reference) for output, reference in pairs) if pairs else None


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def label_said(output: str, answers: Mapping[str, str]) -> str | None:
    """The label whose answer an output begins with, the first one of those that share it; None where it is no answer.

    >>> answers = {"0": "no", "1": "好评", "2": "not sure"}
    >>> [label_said(output, answers) for output in (" No.", "“Not sure”, no", "好评如潮", "nobody", "")]
    ['0', '2', '1', None, None]
    """
    plain = {label: _plain(answer) for label, answer in answers.items()}
    for label, answer in sorted(plain.items(), key=lambda item: -len(item[1])):
        if answer and re.match(rf"[\s\"'“‘「『《\[(*:.]*?{re.escape(answer)}(?![^\W{_CJK}])", _plain(output)):
            return label
    return None


def label_scores(outputs: Sequence[str], examples: Sequence[Example]) -> dict[str, float | None]:
    """Accuracy, macro F1 over the labels that occur (both 0 to 1), and how many outputs were no answer, and so wrong.

    `majority_accuracy` is that of always saying the most frequent label. All are null without examples.
    """
    if not examples:
        return dict.fromkeys(["accuracy", "majority_accuracy", "macro_f1", "no_answer"])
    from sklearn.metrics import accuracy_score, f1_score

    answers = [example.answers or {} for example in examples]
    right = [answers_of[str(example.label)] for example, answers_of in zip(examples, answers, strict=True)]
    true, predicted = (
        [label_said(text, answers_of) or "" for text, answers_of in zip(texts, answers, strict=True)]
        for texts in (right, outputs)
    )
    return {
        "accuracy": float(accuracy_score(true, predicted)),
        "majority_accuracy": max(Counter(true).values()) / len(true),
        "macro_f1": float(f1_score(true, predicted, labels=sorted(set(true)), average="macro", zero_division=0)),
        "no_answer": predicted.count(""),
    }
