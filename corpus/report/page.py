"""The page: a Jinja template that escapes everything it is given, and the ways it writes figures."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

LANGUAGES = {"en": "English", "zh-Hans": "简体中文", "zh-Hant": "繁體中文"}


def render(context: Mapping[str, Any]) -> str:
    """The page as HTML. Text of documents goes through the template's escaping alone; nothing is marked as safe."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": count,
        "figure": figure,
        "percent": percent,
        "anchor": anchor,
        "language": language,
        "printable": printable,
    }
    return environment.get_template("report.html").render(context)


def count(value: float | None) -> str:
    """A whole number with thousands apart.

    >>> count(12345), count(None)
    ('12,345', '–')
    """
    return "–" if value is None else f"{value:,.0f}"


def figure(value: float | None) -> str:
    """A number with three significant digits, never with an exponent where people would not write one.

    >>> figure(0.12345), figure(1234.5), figure(2e6), figure(7.0), figure(None)
    ('0.123', '1,234', '2,000,000', '7', '–')
    """
    if value is None:
        return "–"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def percent(part: float, whole: float) -> str:
    """A share in percent.

    >>> percent(1, 3), percent(0, 0), percent(1, 2000)
    ('33.3 %', '–', '0.05 %')
    """
    if not whole:
        return "–"
    share = 100 * part / whole
    return f"{share:.2g} %" if 0 < share < 1 else f"{share:.1f} %"


def anchor(name: str) -> str:
    """A name as part of an address within the page; a hash keeps names apart that differ in other signs only.

    >>> anchor("filter.mattr.min")
    'filter-mattr-min'
    """
    plain = re.sub(r"[^a-z0-9_]+", "-", name.lower())
    return (
        plain
        if plain.replace("-", ".") == name
        else f"{plain}-{hashlib.blake2b(name.encode(), digest_size=3).hexdigest()}"
    )


def language(tag: str | None) -> str:
    """A language by the name its readers use.

    >>> language("zh-Hans"), language("fr"), language(None)
    ('简体中文', 'fr', 'unknown')
    """
    return LANGUAGES.get(tag, tag) if tag else "unknown"


def printable(text: str | None) -> str:
    """Text with the signs made visible that no HTML page may hold, or that would turn the writing around.

    >>> printable("a\\x00b\\u202ec")
    'a\\ufffdb\\ufffdc'
    """
    return re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe\uffff]", "\ufffd", text or "")
