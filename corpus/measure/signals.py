"""The signals: what each means, its unit and range, and where it is from. One function a column of `measure`.

Each is an expression over the counts that the kernels make of a text (`corpus.measure.{characters,lines,repetition,
lexical}`). *Characters* are code points. *Tokens* are those of `corpus.text.segment.words`: words, numbers, marks; in
Chinese single characters, or what a word segmenter says. *Words* of lexical measures are the tokens that hold a letter
or a digit. Ratios are 0 where their whole is 0, so that an empty text has values too, but for the three that say null.

The definitions of Gopher (Rae et al. 2021, "Scaling Language Models", appendix A1), C4 (Raffel et al. 2020, section
2.2), FineWeb (Penedo et al. 2024) and RefinedWeb (Penedo et al. 2023) are followed as datatrove and DCLM have them, to
the last character, so that published bounds mean here what they mean there.
"""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

Signal = Callable[[], pl.Expr]


# ---- lengths ---------------------------------------------------------------------------------------------------------


def n_chars() -> pl.Expr:
    """Length in characters, white space included; from 0."""
    return pl.col("chars")


def n_words() -> pl.Expr:
    """Tokens that are not all punctuation marks; from 0. Gopher keeps 50 to 100,000."""
    return pl.col("words")


def n_lines() -> pl.Expr:
    """Lines that hold more than white space; from 0."""
    return pl.col("full_lines")


def mean_word_length() -> pl.Expr:
    """Characters a word, of those that `n_words` counts; from 1, 0 without words. Gopher keeps 3 to 10 in English."""
    return _share("word_chars", "words")


def mean_line_length() -> pl.Expr:
    """Characters a line that is not blank, newlines apart; from 1, 0 without any. ChineseWebText keeps from 10."""
    return _quotient(n_chars() - pl.col("newlines"), pl.col("full_lines"))


# ---- lexical diversity -----------------------------------------------------------------------------------------------


def ttr() -> pl.Expr:
    """Type-token ratio: different words over all, case apart; 0 to 1. Falls with length: compare `mattr`."""
    return _share("types", "lexical_words")


def mattr() -> pl.Expr:
    """Moving-average type-token ratio: the mean of `ttr` over all windows of `measure.mattr_window` words; 0 to 1.

    It hardly depends on the length (Covington and McFall 2010, "Cutting the Gordian Knot"). Text shorter than the
    window has its `ttr`.
    """
    return pl.col("mattr")


def mtld() -> pl.Expr:
    """Measure of textual lexical diversity: the mean length of runs of words whose `ttr` stays above 0.72; from 1.

    The mean of reading forward and backward (McCarthy and Jarvis 2010). 0 without words.
    """
    return pl.col("mtld")


# ---- characters ------------------------------------------------------------------------------------------------------


def alpha_ratio() -> pl.Expr:
    """Share of letters with their marks, ideographs included, among characters but white space; 0 to 1.

    This one, the next three and what is none of these (controls, private use) sum to 1.
    """
    return _quotient(pl.col("letters") + pl.col("mark"), _visible())


def digit_ratio() -> pl.Expr:
    """Share of digits and other numbers (½, Ⅳ) among characters but white space; 0 to 1.

    MAP-NEO's Chinese pipeline drops above 0.3.
    """
    return _quotient(pl.col("digit"), _visible())


def punctuation_ratio() -> pl.Expr:
    """Share of punctuation in any script, `#`, `*`, `/` and `_` included; 0 to 1."""
    return _quotient(pl.col("punctuation"), _visible())


def symbol_ratio() -> pl.Expr:
    """Share of symbols: currency, mathematics, arrows, boxes, emoji, `| ~ ^ < = > +` and the backtick; 0 to 1."""
    return _quotient(pl.col("symbol"), _visible())


def uppercase_ratio() -> pl.Expr:
    """Share of upper-case letters among all letters, those of scripts without case included; 0 to 1."""
    return _quotient(pl.sum_horizontal(*_UPPER), pl.col("letters"))


def noise_ratio() -> pl.Expr:
    """Share of characters but white space that no author wrote; 0 to 1. See `corpus.measure.noise`.

    Control, private-use and replacement characters, text decoded with the wrong encoding, markup that the extraction
    left, and what `measure.noise_pattern` matches. Own definition.
    """
    return _quotient(pl.col("noise"), _visible())


def char_entropy() -> pl.Expr:
    """Entropy of the distribution of characters but white space, in nats; from 0.

    About 3 in English, 4 to 6 in Chinese; MAP-NEO's Chinese pipeline keeps from 3.
    """
    return pl.col("entropy")


# ---- scripts ---------------------------------------------------------------------------------------------------------


def han_ratio() -> pl.Expr:
    """Share of Han characters among characters but white space; 0 to 1. ChineseWebText keeps from 0.3."""
    return _share("every_han", "visible")


def latin_ratio() -> pl.Expr:
    """Share of Latin letters among characters but white space; 0 to 1."""
    return _quotient(pl.col("latin") + pl.col("latin_upper"), _visible())


def kana_ratio() -> pl.Expr:
    """Share of Japanese kana, with bopomofo, among characters but white space; 0 to 1."""
    return _quotient(pl.col("kana"), _visible())


def hangul_ratio() -> pl.Expr:
    """Share of Korean hangul among characters but white space; 0 to 1."""
    return _quotient(pl.col("hangul"), _visible())


def cyrillic_ratio() -> pl.Expr:
    """Share of Cyrillic letters among characters but white space; 0 to 1."""
    return _quotient(pl.col("cyrillic") + pl.col("cyrillic_upper"), _visible())


def other_script_ratio() -> pl.Expr:
    """Share of letters of all other scripts among characters but white space; 0 to 1."""
    return _quotient(pl.col("letter") + pl.col("letter_upper"), _visible())


def traditional_ratio() -> pl.Expr:
    """Characters that only Traditional Chinese has, over those that only one of the two forms has; 0 to 1.

    Null without any of either. By the character sets GB 2312 and Big5 (`corpus.text.scripts.chinese_forms`); rare
    characters are left out.
    """
    either = pl.col("simplified") + pl.col("traditional")
    return pl.when(either > 0).then(pl.col("traditional") / either)


def rare_han_ratio() -> pl.Expr:
    """Share of Han characters that modern Chinese hardly uses, among Han characters; 0 to 1.

    Neither in GB 2312 nor in the frequently used half of Big5. Near 0 in prose, a few hundredths in old verse; high
    where characters were misread or decoded wrongly. Own definition.
    """
    return _share("rare_han", "every_han")


# ---- Gopher: quality -------------------------------------------------------------------------------------------------


def hash_ratio() -> pl.Expr:
    """Number signs a token; from 0. Gopher drops above 0.1."""
    return _share("hashes", "tokens")


def ellipsis_ratio() -> pl.Expr:
    """Ellipses, `...` and `…`, a token; from 0. Gopher drops above 0.1."""
    return _share("ellipses", "tokens")


def bullet_line_ratio() -> pl.Expr:
    """Share of lines that begin with `-` or `•`, of all, blank ones included; 0 to 1. Gopher drops above 0.9."""
    return _share("bullet_lines", "split_lines")


def ellipsis_line_ratio() -> pl.Expr:
    """Share of lines that end in an ellipsis, of all, blank ones included; 0 to 1. Gopher drops above 0.3."""
    return _share("ellipsis_lines", "split_lines")


def alpha_word_ratio() -> pl.Expr:
    """Share of words between white space that hold a letter; 0 to 1. Gopher keeps from 0.8.

    This is how the paper counts; in Chinese such a word is a clause.
    """
    return _share("spaced_alpha_words", "spaced_words")


def alpha_token_ratio() -> pl.Expr:
    """Share of tokens that hold a letter, punctuation marks being tokens too; 0 to 1.

    This is how datatrove counts for FineWeb (from 0.8) and FineWeb2 (cmn_Hani, from 0.735 with jieba's words).
    """
    return _share("letter_tokens", "tokens")


def stop_word_ratio() -> pl.Expr:
    """Share of words that are function words; 0 to 1, null for a language without a list.

    A third or more in running text, near 0 in lists and menus; in Chinese by character, where the list has those. The
    idea is Gopher's; a share needs no minimal length.
    """
    return pl.when(pl.col("has_stop_words")).then(_share("stop_words", "lexical_words"))


def distinct_stop_words() -> pl.Expr:
    """Different words of a short list that occur as spelled; from 0, null for a language without one.

    Gopher keeps from 2 of the, be, to, of, and, that, have, with; FineWeb2 from 2 of 21 Han characters and the `·`.
    """
    return pl.when(pl.col("has_stop_words")).then("different_stop_words")


# ---- Gopher: repetition ----------------------------------------------------------------------------------------------


def duplicate_line_ratio() -> pl.Expr:
    """Share of lines that repeat an earlier one to the character, empty ones within apart; 0 to 1. Gopher: 0.3."""
    return _share("duplicate_lines", "lines")


def duplicate_line_char_ratio() -> pl.Expr:
    """Share of characters in lines that repeat an earlier one; 0 to 1. Gopher drops above 0.2."""
    return _quotient(pl.col("duplicate_line_chars"), n_chars())


def duplicate_paragraph_ratio() -> pl.Expr:
    """Share of paragraphs, between empty lines, that repeat an earlier one; 0 to 1. Gopher drops above 0.3."""
    return _share("duplicate_paragraphs", "paragraphs")


def duplicate_paragraph_char_ratio() -> pl.Expr:
    """Share of characters in paragraphs that repeat an earlier one; 0 to 1. Gopher drops above 0.2."""
    return _quotient(pl.col("duplicate_paragraph_chars"), n_chars())


def top_2_gram_ratio() -> pl.Expr:
    """Share of characters in the most frequent pair of tokens, a space in between; from 0. Gopher drops above 0.2."""
    return _quotient(pl.col("top_2_gram_chars"), n_chars())


def top_3_gram_ratio() -> pl.Expr:
    """Likewise of three tokens. Gopher drops above 0.18."""
    return _quotient(pl.col("top_3_gram_chars"), n_chars())


def top_4_gram_ratio() -> pl.Expr:
    """Likewise of four tokens. Gopher drops above 0.16."""
    return _quotient(pl.col("top_4_gram_chars"), n_chars())


def duplicate_5_gram_ratio() -> pl.Expr:
    """Share of characters in runs of five tokens that occurred before, not overlapping; 0 to 1.

    Gopher drops above 0.15.
    """
    return _quotient(pl.col("duplicate_5_gram_chars"), n_chars())


def duplicate_6_gram_ratio() -> pl.Expr:
    """Likewise of six tokens. Gopher drops above 0.14."""
    return _quotient(pl.col("duplicate_6_gram_chars"), n_chars())


def duplicate_7_gram_ratio() -> pl.Expr:
    """Likewise of seven tokens. Gopher drops above 0.13."""
    return _quotient(pl.col("duplicate_7_gram_chars"), n_chars())


def duplicate_8_gram_ratio() -> pl.Expr:
    """Likewise of eight tokens. Gopher drops above 0.12."""
    return _quotient(pl.col("duplicate_8_gram_chars"), n_chars())


def duplicate_9_gram_ratio() -> pl.Expr:
    """Likewise of nine tokens. Gopher drops above 0.11."""
    return _quotient(pl.col("duplicate_9_gram_chars"), n_chars())


def duplicate_10_gram_ratio() -> pl.Expr:
    """Likewise of ten tokens. Gopher drops above 0.10."""
    return _quotient(pl.col("duplicate_10_gram_chars"), n_chars())


# ---- C4, FineWeb, RefinedWeb -----------------------------------------------------------------------------------------


def c4_sentences() -> pl.Expr:
    """Sentences in the lines that C4 keeps; from 0. C4 drops below 5.

    It keeps lines of three words or more, no word longer than 1,000 characters, that, once citation marks are cut out,
    end in `. ! ? " '` but not in an ellipsis, hold neither `{` nor "lorem ipsum", and name neither JavaScript nor
    policies of privacy, cookies and use. Sentences are those of `corpus.measure.lines.count_sentences`.
    """
    return pl.col("c4_sentences")


def c4_line_ratio() -> pl.Expr:
    """Share of lines, blank ones included, that C4 keeps; 0 to 1."""
    return _share("c4_lines", "split_lines")


def lorem_ipsum() -> pl.Expr:
    """Lines with "lorem ipsum", long and ended as C4 asks of lines; from 0. C4 drops the page for one."""
    return pl.col("lorem_ipsum")


def curly_brackets() -> pl.Expr:
    """Lines with `{`, long and ended as C4 asks, that do not name JavaScript; from 0. C4 drops the page for one."""
    return pl.col("curly_brackets")


def terminal_line_ratio() -> pl.Expr:
    """Share of lines that end in a mark that ends sentences (Unicode's Sentence_Terminal); 0 to 1, blank lines apart.

    FineWeb drops below 0.12, FineWeb2 (cmn_Hani) below 0.106.
    """
    return _share("terminal_lines", "full_lines")


def short_line_ratio() -> pl.Expr:
    """Share of lines of at most 30 characters, blank ones apart; 0 to 1. FineWeb drops above 0.67.

    In Chinese 30 characters are a sentence.
    """
    return _share("short_lines", "full_lines")


def repeated_line_char_ratio() -> pl.Expr:
    """Characters of lines that repeat an earlier one, blank ones apart, among all but newlines; 0 to 1.

    FineWeb drops above 0.01, FineWeb2 (cmn_Hani) above 0.1.
    """
    return _quotient(pl.col("repeated_line_chars"), n_chars() - pl.col("newlines"))


def newline_ratio() -> pl.Expr:
    """Newlines a token; from 0. FineWeb drops above 0.3, FineWeb2 (cmn_Hani) above 0.178 with jieba's words."""
    return _share("newlines", "tokens")


def refinedweb_removed_ratio() -> pl.Expr:
    """Share of words between white space in lines that RefinedWeb takes out; 0 to 1. It drops the page above 0.05.

    Lines mostly in upper case, of digits alone, or of one word; its rules on counters and calls to action are left out.
    """
    return _share("refinedweb_words", "spaced_words")


# ---- the list --------------------------------------------------------------------------------------------------------

_HAN = ("han", "simplified", "traditional", "rare_han")
_UPPER = ("latin_upper", "cyrillic_upper", "letter_upper")
_LETTERS = ("latin", "cyrillic", "kana", "hangul", "letter", *_HAN, *_UPPER)
_NOT_SPACE = ("other", "digit", "punctuation", "symbol", "mark", *_LETTERS)

ALL: tuple[Signal, ...] = (
    *(n_chars, n_words, n_lines, mean_word_length, mean_line_length),
    *(ttr, mattr, mtld),
    *(alpha_ratio, digit_ratio, punctuation_ratio, symbol_ratio, uppercase_ratio, noise_ratio, char_entropy),
    *(han_ratio, latin_ratio, kana_ratio, hangul_ratio, cyrillic_ratio, other_script_ratio),
    *(traditional_ratio, rare_han_ratio),
    *(hash_ratio, ellipsis_ratio, bullet_line_ratio, ellipsis_line_ratio),
    *(alpha_word_ratio, alpha_token_ratio, stop_word_ratio, distinct_stop_words),
    *(duplicate_line_ratio, duplicate_line_char_ratio, duplicate_paragraph_ratio, duplicate_paragraph_char_ratio),
    *(top_2_gram_ratio, top_3_gram_ratio, top_4_gram_ratio),
    *(duplicate_5_gram_ratio, duplicate_6_gram_ratio, duplicate_7_gram_ratio),
    *(duplicate_8_gram_ratio, duplicate_9_gram_ratio, duplicate_10_gram_ratio),
    *(c4_sentences, c4_line_ratio, lorem_ipsum, curly_brackets),
    *(terminal_line_ratio, short_line_ratio, repeated_line_char_ratio, newline_ratio, refinedweb_removed_ratio),
)
COUNTED = (n_chars, n_words, n_lines, distinct_stop_words, c4_sentences, lorem_ipsum, curly_brackets)  # whole numbers


def columns() -> dict[str, pl.DataType]:
    """Name and type of each signal's column, in order.

    >>> columns()["mattr"], len(columns()) > 40
    (Float64, True)
    """
    return {signal.__name__: pl.Int64() if signal in COUNTED else pl.Float64() for signal in ALL}


def totals() -> dict[str, pl.Expr]:
    """Sums of kinds of characters that many signals are taken of: columns to add to the counts, once."""
    sums = {"letters": _LETTERS, "every_han": _HAN, "visible": _NOT_SPACE, "chars": ("space", *_NOT_SPACE)}
    return {name: pl.sum_horizontal(*kinds) for name, kinds in sums.items()}


def _visible() -> pl.Expr:
    """Number of characters but white space."""
    return pl.col("visible")


def _share(part: str, whole: str) -> pl.Expr:
    return _quotient(pl.col(part), pl.col(whole))


def _quotient(part: pl.Expr, whole: pl.Expr) -> pl.Expr:
    """Quotient in float64, 0 where the whole is 0."""
    return pl.when(whole > 0).then(part.cast(pl.Float64) / whole.cast(pl.Float64)).otherwise(0.0)


def markdown() -> str:
    """The table of docs/signals.md: each signal's name, and what its docstring says.

    >>> print(markdown().splitlines()[-1][:30])
    | `refinedweb_removed_ratio` |
    """
    said = {signal.__name__: " ".join((signal.__doc__ or "").split()).replace("|", "\\|") for signal in ALL}
    rows = [f"| `{name}` | {text} |" for name, text in said.items()]
    return "\n".join(["| signal | meaning, unit, range, source |", "|---|---|", *rows])
