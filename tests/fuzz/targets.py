"""All that is fuzzed, by name: plain functions that take bytes and hold a property, and inputs to begin with.

Hypothesis and atheris share them: `test_fuzz.py`, `python -m tests.fuzz`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from . import kernel_targets as kernels
from . import reader_targets as readers
from . import seeds

Function = Callable[[bytes], None]


class Target(NamedTuple):
    """A property of any bytes, and inputs that are near to where it may break."""

    check: Function
    seeds: Sequence[bytes]


KERNELS = {
    "spans": Target(kernels.spans, seeds.TEXTS),
    "shingles": Target(kernels.shingles, seeds.TEXTS),
    "measures": Target(kernels.measures, seeds.TEXTS),
    "signals": Target(kernels.signals, seeds.TEXTS),
    "language_model": Target(kernels.language_model, seeds.TEXTS),
    "similar_sets": Target(kernels.similar_sets, seeds.TEXTS),
    "markup": Target(kernels.markup, seeds.HTML),
}
READERS = {
    "bytes_of_page": Target(readers.bytes_of_page, seeds.HTML + seeds.TEXTS),
    "page": Target(readers.page, seeds.HTML),
    "text_row": Target(readers.text_row, seeds.TEXTS),
    "compressed": Target(readers.compressed, seeds.BODIES),
    "http_answer": Target(readers.http_answer, seeds.BODIES),
    "archive": Target(readers.archive, seeds.ARCHIVES),
    "rows": Target(readers.rows, seeds.FILES),
    "scraped": Target(readers.scraped, seeds.FILES),
    "sitemap": Target(readers.sitemap, seeds.SITEMAPS),
    "url": Target(readers.url, seeds.URLS),
    "params": Target(readers.params, seeds.PARAMS),
    "override": Target(readers.override, seeds.OVERRIDES),
}
TARGETS = KERNELS | READERS
