"""datatrove: its four quality filters, one document after the other, all four on each so that it cuts words once.

Variant `own` times them as they ship, with datatrove's own word tokenizers. Variant `given` hands them our words and
our counts of sentences: then every signal must be the same to the last bit. A filter does not tell its values, so each
signal of ours becomes the bound of its rule: the filter must keep the document at it, and drop it at the next number.
"""

import functools
import importlib.metadata
import json
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow.parquet as pq
from datatrove.data import Document
from datatrove.pipeline import filters
from datatrove.pipeline.filters import (
    c4_filters,
    fineweb_quality_filter,
    gopher_quality_filter,
    gopher_repetition_filter,
)
from measurement import Task, peak_mb, read_task, read_texts, timed
from quality_rules import CHINESE_STOP_WORDS, FILTERS, Rule, arguments

LANGUAGES = {"en": "eng", "zh": "cmn_Hani"}  # its codes; for `zh` it would take whole clauses for words
SIGNALS = sorted({rule.signal for rules in FILTERS.values() for rule in rules})
SMALLEST = 5e-324

Judge = Callable[[str], str]


def judge(name: str, language: str, **options: Any) -> Judge:
    """A filter as a function from a text to the reason why it drops it, empty if it keeps it."""
    made = getattr(filters, name)(language=LANGUAGES[language], **options)

    def reason(text: str) -> str:
        try:
            verdict = made.filter(Document(text=text, id=""))
        except (ArithmeticError, RuntimeWarning) as error:  # it divides by the number of words, whatever that is
            return f"raises {type(error).__name__}"
        return verdict[1] if isinstance(verdict, tuple) else "" if verdict else "dropped"

    return reason


def published(name: str, language: str) -> Judge:
    """A filter with the published bounds of a language."""
    rules = FILTERS[name]
    options = arguments(rules, {rule.reason: rule.bound(language) for rule in rules})
    if name == "GopherQualityFilter" and language == "zh":
        options["stop_words"] = CHINESE_STOP_WORDS
    return judge(name, language, **options)


def probes(rule: Rule, value: float) -> Iterator[tuple[float, bool]]:
    """Bounds around our value, and whether a document of just that value would be dropped; none of 0, which is off."""
    below, above = math.nextafter(value, -math.inf), math.nextafter(value, math.inf)
    if isinstance(value, int):
        below, above = value - 0.5, value + 0.5
    if rule.side == "max":
        yield value or SMALLEST, False
        if value:
            yield below, True
    else:
        yield above, True
        if value:
            yield value, False


def differs(name: str, rule: Rule, language: str, text: str, value: float | None) -> bool:
    """Whether datatrove has another value than ours."""
    options = {"stop_words": CHINESE_STOP_WORDS} if rule.argument == "min_stop_words" and language == "zh" else {}
    for bound, drops in probes(rule, value) if value is not None else ():
        reason = judge(name, language, **arguments(FILTERS[name], {rule.reason: bound}), **options)(text)
        # A rule before it may share its argument, and the value may be none that datatrove could compute.
        if reason in ("", rule.reason) and (reason == rule.reason) != drops:
            return True
    return False


def time_own(task: Task) -> dict[str, Any]:
    """Seconds for all four filters as they ship, and what they say with the published bounds of the language."""
    shipped = [judge(name, task.language) for name in FILTERS]
    judges = {name: published(name, task.language) for name in FILTERS}
    ask_all(shipped, "Warm up. 热身。")  # loads jieba's dictionary
    seconds = 0.0
    rows = []
    for text in read_texts(task):
        _, own = timed(functools.partial(ask_all, shipped, text))
        seconds += own
        rows.append(ask_all(judges.values(), text))  # datatrove still knows the words
    return {"seconds": seconds, "reasons": dict(zip(FILTERS, zip(*rows, strict=True), strict=True))}


def ask_all(judges: Iterable[Judge], text: str) -> list[str]:
    return [reason(text) for reason in judges]


def compare_given(task: Task) -> dict[str, Any]:
    """What the filters say when they are given our words, and by rule the rows whose value is another."""
    warnings.simplefilter("error")  # the mean of no words is a warning
    table = pq.read_table(task.input)
    texts, counts = table["text"].to_pylist(), table["sentences"].to_pylist()
    given = dict(zip(texts, table["words"], strict=True))
    sentences = {line: count for own in counts for line, count in json.loads(own).items()}

    @functools.lru_cache(maxsize=1)
    def words(text: str, language: str) -> list[str]:
        found: list[str] = given[text].as_py()
        return found

    for module in (gopher_quality_filter, gopher_repetition_filter, fineweb_quality_filter):
        module.split_into_words = words
    c4_filters.split_into_sentences = lambda line, language: [line] * sentences[line]
    judges = {name: published(name, task.language) for name in FILTERS}
    reasons: dict[str, list[str]] = {name: [] for name in FILTERS}
    different: dict[str, list[int]] = {}
    for row, (text, signals) in enumerate(zip(texts, table.select(SIGNALS).to_pylist(), strict=True)):
        for name, rules in FILTERS.items():
            reasons[name].append(judges[name](text))
            for rule in rules:
                if rule.argument and differs(name, rule, task.language, text, signals[rule.signal]):
                    different.setdefault(rule.reason, []).append(row)
    return {"reasons": reasons, "different": different}


def main(task: Task) -> None:
    result = time_own(task) if task.variant == "own" else compare_given(task)
    result |= {"version": importlib.metadata.version("datatrove"), "peak_mb": peak_mb()}
    task.result.write_text(json.dumps(result))


if __name__ == "__main__":
    main(read_task())
