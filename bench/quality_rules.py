"""The rules of Gopher, C4 and FineWeb as datatrove 0.10 has them, written down once more beside our signals.

`FILTERS` has datatrove's filters, each with its rules in the order in which it asks them; the first that a document
fails is the reason it gives. Bounds for English are those that datatrove ships, for Chinese those that FineWeb 2 was
made with (`configs/cmn_Hani.yml`); None where a rule is off.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

CHINESE_STOP_WORDS = list("的年在月是和日了於·為有被人中为他與後也而由")


class Rule(NamedTuple):
    """A document stays if its signal is at least (`min`) or at most (`max`) the bound."""

    reason: str  # as datatrove calls it
    signal: str  # our column
    side: str
    english: float | None
    chinese: float | None
    argument: str = ""  # of datatrove's constructor; none where it has none, or only switches the rule
    length: int = 0  # of the n-grams, where the argument lists several

    def bound(self, language: str) -> float | None:
        """The published bound."""
        return self.chinese if language == "zh" else self.english

    def fails(self, value: float | None, bound: float | None) -> bool:
        """Whether a value is beyond a bound."""
        if value is None or bound is None:
            return False
        return value < bound if self.side == "min" else value > bound


FILTERS: dict[str, tuple[Rule, ...]] = {
    "GopherQualityFilter": (
        Rule("gopher_short_doc", "n_words", "min", 50, 50, "min_doc_words"),
        Rule("gopher_long_doc", "n_words", "max", 100_000, 100_000, "max_doc_words"),
        Rule("gopher_below_avg_threshold", "mean_word_length", "min", 3, 1, "min_avg_word_length"),
        Rule("gopher_above_avg_threshold", "mean_word_length", "max", 10, 5, "max_avg_word_length"),
        Rule("gopher_too_many_hashes", "hash_ratio", "max", 0.1, 0.1, "max_symbol_word_ratio"),
        Rule("gopher_too_many_ellipsis", "ellipsis_ratio", "max", 0.1, 0.1, "max_symbol_word_ratio"),
        Rule("gopher_too_many_bullets", "bullet_line_ratio", "max", 0.9, 0.9, "max_bullet_lines_ratio"),
        Rule("gopher_too_many_end_ellipsis", "ellipsis_line_ratio", "max", 0.3, 0.3, "max_ellipsis_lines_ratio"),
        Rule("gopher_below_alpha_threshold", "alpha_token_ratio", "min", 0.8, 0.735, "max_non_alpha_words_ratio"),
        Rule("gopher_enough_stop_words", "distinct_stop_words", "min", 2, 2, "min_stop_words"),
    ),
    "GopherRepetitionFilter": (
        Rule("empty", "n_chars", "min", 1, 1),
        Rule("dup_para_frac", "duplicate_paragraph_ratio", "max", 0.3, None, "dup_para_frac"),
        Rule("dup_para_char_frac", "duplicate_paragraph_char_ratio", "max", 0.2, None, "dup_para_char_frac"),
        Rule("dup_line_frac", "duplicate_line_ratio", "max", 0.3, 0.287, "dup_line_frac"),
        Rule("dup_line_char_frac", "duplicate_line_char_ratio", "max", 0.2, None, "dup_line_char_frac"),
        Rule("top_2_gram", "top_2_gram_ratio", "max", 0.2, 0.256, "top_n_grams", 2),
        Rule("top_3_gram", "top_3_gram_ratio", "max", 0.18, 0.201, "top_n_grams", 3),
        Rule("top_4_gram", "top_4_gram_ratio", "max", 0.16, 0.171, "top_n_grams", 4),
        Rule("duplicated_5_n_grams", "duplicate_5_gram_ratio", "max", 0.15, 0.198, "dup_n_grams", 5),
        Rule("duplicated_6_n_grams", "duplicate_6_gram_ratio", "max", 0.14, 0.182, "dup_n_grams", 6),
        Rule("duplicated_7_n_grams", "duplicate_7_gram_ratio", "max", 0.13, 0.167, "dup_n_grams", 7),
        Rule("duplicated_8_n_grams", "duplicate_8_gram_ratio", "max", 0.12, 0.154, "dup_n_grams", 8),
        Rule("duplicated_9_n_grams", "duplicate_9_gram_ratio", "max", 0.11, 0.14, "dup_n_grams", 9),
        Rule("duplicated_10_n_grams", "duplicate_10_gram_ratio", "max", 0.1, 0.127, "dup_n_grams", 10),
    ),
    "C4QualityFilter": (
        Rule("lorem_ipsum", "lorem_ipsum", "max", 0, 0),
        Rule("curly_bracket", "curly_brackets", "max", 0, 0),
        Rule("too_few_sentences", "c4_sentences", "min", 5, 5, "min_num_sentences"),
    ),
    "FineWebQualityFilter": (
        Rule("empty", "n_lines", "min", 1, 1),
        Rule("line_punct_ratio", "terminal_line_ratio", "min", 0.12, 0.106, "line_punct_thr"),
        Rule("short_line_ratio", "short_line_ratio", "max", 0.67, None, "short_line_thr"),
        Rule("char_dup_ratio", "repeated_line_char_ratio", "max", 0.01, 0.1, "char_duplicates_ratio"),
        Rule("list_ratio", "newline_ratio", "max", 0.3, 0.178, "new_line_ratio"),
    ),
}
OFF: dict[str, Any] = {  # what turns a rule off; None where it is not listed
    "top_n_grams": (),
    "dup_n_grams": (),
    "min_num_sentences": -1,
    "line_punct_thr": 0,
    "short_line_thr": float("inf"),
    "char_duplicates_ratio": float("inf"),
    "new_line_ratio": float("inf"),
}


def arguments(rules: tuple[Rule, ...], bounds: Mapping[str, float | None]) -> dict[str, Any]:
    """The arguments of datatrove's constructor for some bounds by reason; rules without one are off.

    >>> arguments(FILTERS["C4QualityFilter"], {"too_few_sentences": 3})
    {'min_num_sentences': 3}
    """
    found: dict[str, Any] = {rule.argument: OFF.get(rule.argument) for rule in rules if rule.argument}
    for rule in rules:
        bound = bounds.get(rule.reason)
        if bound is None or not rule.argument:
            continue
        if rule.length:
            found[rule.argument] += ((rule.length, bound),)
        else:
            found[rule.argument] = bound
    return found


def failed(rules: tuple[Rule, ...], signals: Mapping[str, float | None], language: str) -> list[str]:
    """The reasons of all rules that a document with these signals fails, in order.

    >>> failed(FILTERS["C4QualityFilter"], {"lorem_ipsum": 0, "curly_brackets": 1, "c4_sentences": 2}, "en")
    ['curly_bracket', 'too_few_sentences']
    """
    return [rule.reason for rule in rules if rule.fails(signals[rule.signal], rule.bound(language))]
