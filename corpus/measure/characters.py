"""Signals counted in characters and lines, as Polars expressions over the text.

The shares of kinds of characters are of all characters but white space, by Unicode general category, so that letters,
digits, punctuation, symbols and the rest (controls, private use) sum to 1. Text without characters has the share 0.
"""

from __future__ import annotations

import polars as pl

from corpus.text.scripts import HAN


def n_chars(text: pl.Expr) -> pl.Expr:
    """Length in characters (code points), white space included; int64, from 0."""
    return text.str.len_chars().cast(pl.Int64)


def n_lines(text: pl.Expr) -> pl.Expr:
    """Lines that are not blank; int64, from 0.

    >>> pl.select(n_lines(pl.lit("one\\n\\n two\\n")))[0, 0]
    2
    """
    return _lines(text).list.len().cast(pl.Int64)


def duplicate_line_ratio(text: pl.Expr) -> pl.Expr:
    """Share of lines that repeat an earlier line, white space at the ends and blank lines apart; 0 to 1.

    Gopher drops above 0.3 (Rae et al. 2021, table A1: duplicate line fraction).

    >>> pl.select(duplicate_line_ratio(pl.lit("menu\\ntext\\nmenu \\nmenu")))[0, 0]
    0.5
    """
    lines = _lines(text)
    return _share(lines.list.len() - lines.list.n_unique(), lines.list.len())


def alpha_ratio(text: pl.Expr) -> pl.Expr:
    """Share of letters with their marks, ideographs included; 0 to 1.

    >>> pl.select(alpha_ratio(pl.lit("价格 12.")))[0, 0]
    0.4
    """
    return _share(text.str.count_matches(r"[\p{L}\p{M}]"), _visible(text))


def digit_ratio(text: pl.Expr) -> pl.Expr:
    """Share of digits and other numbers (½, Ⅳ); 0 to 1. MAP-NEO's Chinese pipeline drops above 0.3."""
    return _share(text.str.count_matches(r"\p{N}"), _visible(text))


def punctuation_ratio(text: pl.Expr) -> pl.Expr:
    """Share of punctuation in any script, `#`, `*`, `/` and `_` included; 0 to 1."""
    return _share(text.str.count_matches(r"\p{P}"), _visible(text))


def symbol_ratio(text: pl.Expr) -> pl.Expr:
    """Share of symbols: currency, mathematics, arrows, boxes, emoji, `| ~ ^ < = > +` and the backtick; 0 to 1.

    >>> pl.select(symbol_ratio(pl.lit("a = b → ★ c")))[0, 0]
    0.5
    """
    return _share(text.str.count_matches(r"\p{S}"), _visible(text))


def uppercase_ratio(text: pl.Expr) -> pl.Expr:
    """Share of upper-case letters among all letters, those of scripts without case included; 0 to 1.

    >>> pl.select(uppercase_ratio(pl.lit("NOT now")))[0, 0]
    0.5
    """
    return _share(text.str.count_matches(r"\p{Lu}"), text.str.count_matches(r"\p{L}"))


def han_ratio(text: pl.Expr) -> pl.Expr:
    """Share of Han characters; 0 to 1. ChineseWebText keeps from 0.3.

    >>> pl.select(han_ratio(pl.lit("中文 ab")))[0, 0]
    0.5
    """
    return _share(text.str.count_matches(f"[{HAN}]"), _visible(text))


def _lines(text: pl.Expr) -> pl.Expr:
    stripped = pl.element().str.strip_chars()
    return text.str.split("\n").list.eval(stripped.filter(stripped != ""))


def _visible(text: pl.Expr) -> pl.Expr:
    """Number of characters but white space."""
    return text.str.count_matches(r"\S")


def _share(part: pl.Expr, whole: pl.Expr) -> pl.Expr:
    """Quotient in float64, 0 where the whole is 0."""
    return pl.when(whole > 0).then(part.cast(pl.Float64) / whole).otherwise(0.0)
