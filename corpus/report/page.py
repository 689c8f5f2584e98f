"""The page: Jinja templates that escape everything they are given, and the ways they write figures."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from corpus.report.chinese import explain_in_chinese
from corpus.report.compare import Figure, Score

TEMPLATES = Path(__file__).parent / "template"
LANGUAGES = {"en": "English", "zh-Hans": "简体中文", "zh-Hant": "繁體中文"}


def render(context: Mapping[str, Any]) -> str:
    """The page as HTML: one file, whose own script is the only one that may run (a hash in its security policy).

    Text of documents goes through the templates' escaping, or as `documents` through `embedded`. Nothing else is marked
    as safe but our own style and script.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
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
        "in_chinese": explain_in_chinese,
        "change": change,
        "score": score,
        "by_set": by_set,
    }
    style, script = ((TEMPLATES / name).read_text("utf-8") for name in ("style.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    own = {"style": Markup(style), "script": Markup(script), "script_hash": f"sha256-{digest}"}
    documents_json = Markup(embedded(context["documents"]))
    return environment.get_template("page.html").render({**context, **own, "documents_json": documents_json})


def embedded(value: Any) -> str:
    """JSON that cannot leave the script element it stands in, with unprintable signs made visible and null for what is
    no finite number.

    >>> embedded({"text": "</script>"}) == '{"text":"' + chr(92) + 'u003c/script' + chr(92) + 'u003e"}'
    True
    """
    written = json.dumps(_printable_within(value), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return re.sub("[<>&\u2028\u2029]", lambda sign: f"\\u{ord(sign[0]):04x}", written)


def _printable_within(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _printable_within(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_printable_within(item) for item in value]
    return value


def change(figure: Figure) -> str:
    """What a figure gained or lost.

    >>> change(Figure("", 3, 5)), change(Figure("", 3, 3)), change(Figure("", None, 3))
    ('+2', '0', '–')
    """
    if figure.before is None or figure.now is None:
        return "–"
    return f"{figure.now - figure.before:+,.0f}".replace("-", "−") if figure.now != figure.before else "0"


def by_set(scores: Sequence[Score]) -> list[tuple[tuple[str, str], dict[str, Score]]]:
    """Scores by set and metric, and within these by model."""
    found: dict[tuple[str, str], dict[str, Score]] = {}
    for score in scores:
        found.setdefault((score.set, score.metric), {})[score.model] = score
    return list(found.items())


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


def score(value: float | None, metric: str) -> str:
    """A score with as many digits as its differences need: bits per byte with three after the point.

    >>> score(2.95, "bits_per_byte"), score(290.123, "perplexity")
    ('2.950', '290')
    """
    return f"{value:.3f}" if metric == "bits_per_byte" and value is not None else figure(value)


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
