"""Encodings and languages told by `clean`, and by other libraries on the same texts in the same run.

    python bench/clean_steps.py encodings --data ENCODINGS/pages.parquet
    python bench/clean_steps.py language --data LANGID [--documents 2000]
    python bench/clean_steps.py steps --data DOCUMENTS.parquet

`encodings`: pages with the encoding that they are in (`bytes`, `encoding`, `python_decodes`), read as they are and with
all declarations blotted out. `language`: texts of known language (`lang`, `kind`, `text`), ours among the default
candidates. `steps`: megabytes a second of normalising, masking and telling the language of documents (`text`), on one
core. Times are processor time.
"""

from __future__ import annotations

import argparse
import logging
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import charset_normalizer
import langdetect
import opencc
import polars as pl
from bs4 import UnicodeDammit
from py3langid.langid import MODEL_FILE, LanguageIdentifier
from resiliparse.parse.encoding import bytes_to_str, detect_encoding

from corpus.clean.decode import decode
from corpus.clean.language import detect_language, load_model
from corpus.clean.normalise import convert_chinese, normalise
from corpus.clean.personal import mask_personal_data
from corpus.params import CANDIDATES

Reader = Callable[[bytes], str | None]
_DECLARATION = re.compile(rb"(charset|encoding)(\s*=)", re.I)
_AS_BROWSERS_DO = {"GB2312": "gb18030", "TIS-620": "cp874", "SHIFT_JIS": "cp932"}


def main() -> None:
    """Print the tables asked for."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("part", choices=["encodings", "language", "steps"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--documents", type=int, default=2_000, help="a kind of text, and of the slow library a quarter"
    )
    arguments = parser.parse_args()
    {"encodings": encodings, "language": language, "steps": steps}[arguments.part](arguments.data, arguments.documents)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table in Markdown."""
    for row in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(row)} |")


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What a function returns, and the seconds of processor time that it took."""
    started = time.process_time()
    return work(), time.process_time() - started


# ---- encodings -------------------------------------------------------------------------------------------------------


def encodings(path: Path, documents: int) -> None:
    """The share of pages whose text is the one that their label gives."""
    logging.getLogger("bs4.dammit").setLevel(logging.ERROR)  # what it could not decode is in the figures
    pages = pl.read_parquet(path).filter(pl.col("python_decodes")).select("encoding", "bytes").rows()
    blotted = [(encoding, _DECLARATION.sub(rb"xxxxxxxx\2", body)) for encoding, body in pages]
    ascii_only = [row for row in blotted if not row[0].upper().startswith("UTF")]
    megabytes = sum(len(body) for _, body in pages) / 1e6
    rows = []
    for name, reader in READERS.items():
        texts, seconds = timed(lambda reader=reader: [reader(body) for _, body in pages])
        unlabelled = [reader(body) for _, body in ascii_only]
        rows.append(
            [
                name,
                share(texts, [body.decode(encoding) for encoding, body in pages]),
                share(texts, [body.decode(_AS_BROWSERS_DO.get(encoding, encoding)) for encoding, body in pages]),
                share([text and " ".join(text.split()) for text in texts], [truth(*row) for row in pages]),
                share(unlabelled, [body.decode(encoding) for encoding, body in ascii_only]),
                f"{megabytes / seconds:.0f}",
            ]
        )
    print(f"{len(pages)} pages in {len({encoding for encoding, _ in pages})} encodings; share read right\n")
    head = ("", "as Python reads the label", "as browsers do", "but for white space", "undeclared (no UTF)", "MB/s")
    table(head, rows)


def truth(encoding: str, body: bytes) -> str:
    """The text as Python reads the label, white space aside."""
    return " ".join(body.decode(encoding).split())


def share(texts: Sequence[str | None], truths: Sequence[str]) -> str:
    """How many are equal, byte order marks aside."""
    equal = sum(
        text is not None and text.lstrip("\ufeff") == right.lstrip("\ufeff")
        for text, right in zip(texts, truths, strict=True)
    )
    return f"{equal / len(truths):.3f}"


def read_ours(body: bytes) -> str | None:
    """By the whole cascade, without an HTTP header."""
    found = decode(body)
    return found.text if found else None


def read_by_charset_normalizer(body: bytes) -> str | None:
    """By its best guess alone."""
    best = charset_normalizer.from_bytes(body).best()
    return str(best) if best else None


READERS: dict[str, Reader] = {
    "corpusmill": read_ours,
    "charset_normalizer": read_by_charset_normalizer,
    "bs4.UnicodeDammit": lambda body: UnicodeDammit(body, is_html=True).unicode_markup,
    "resiliparse": lambda body: bytes_to_str(body, detect_encoding(body, from_html_meta=True)),
}


# ---- language --------------------------------------------------------------------------------------------------------


def language(folder: Path, documents: int) -> None:
    """Accuracy by kind of text, and texts a second."""
    rows = pl.read_parquet(folder / "lingua_testdata.parquet").filter(pl.col("lang").is_in(CANDIDATES))
    tasks = {kind: sample(rows.filter(pl.col("kind") == kind), documents) for kind in ("sentences", "word-pairs")}
    to_traditional = opencc.OpenCC("s2t").convert
    chinese = rows.filter((pl.col("kind") == "sentences") & (pl.col("lang") == "zh"))["text"].to_list()
    converted = [(text, to_traditional(text)) for text in chinese]
    tasks["Traditional (opencc)"] = [("zh-Hant", after) for before, after in converted if before != after]
    manuals = pl.read_parquet(folder / "tldr_descriptions.parquet").filter(pl.col("lang") == "zh_TW")
    tasks["Traditional (tldr)"] = [("zh-Hant", text) for text in manuals["text"].unique(maintain_order=True)]
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    load_model("py3langid", CANDIDATES)
    load_model("langdetect", CANDIDATES)
    langdetect.DetectorFactory.seed = 0
    tellers: dict[str, tuple[Callable[[str], str], int]] = {
        "corpusmill, py3langid": (lambda text: detect_language(text).tag, 1),
        "corpusmill, langdetect": (lambda text: detect_language(text, "langdetect").tag, 4),
        "py3langid, all languages": (lambda text: str(identifier.classify(text)[0]), 1),
        "langdetect, all languages": (tell_by_langdetect, 4),
    }
    lines = []
    for name, (tell, part) in tellers.items():
        line, speed = [name], ""
        for texts in tasks.values():
            some = texts[::part]
            told, seconds = timed(lambda some=some, tell=tell: [tell(text) for _, text in some])
            right = sum(is_right(lang, tag) for (lang, _), tag in zip(some, told, strict=True))
            line.append(f"{right / len(some):.3f}")
            speed = speed or f"{len(some) / seconds:.0f}"
        lines.append([*line, speed])
    print(", ".join(f"{kind}: {len(texts)} texts" for kind, texts in tasks.items()), "\n")
    table(("", *tasks, "sentences/s"), lines)


def sample(rows: pl.DataFrame, documents: int) -> list[tuple[str, str]]:
    """Texts with their languages, in an order that mixes these; always the same ones."""
    return rows.sample(min(documents, rows.height), shuffle=True, seed=0).select("lang", "text").rows()


def is_right(lang: str, tag: str) -> bool:
    """Whether a tag says the language; Traditional Chinese must be told from Simplified by who can."""
    tag = {"zh-cn": "zh-Hans", "zh-tw": "zh-Hant"}.get(tag, tag)
    return tag == lang or tag.partition("-")[0] == lang or (tag == "zh" and lang.startswith("zh"))


def tell_by_langdetect(text: str) -> str:
    """As its users call it."""
    try:
        return str(langdetect.detect(text))
    except langdetect.LangDetectException:
        return "und"


# ---- steps -----------------------------------------------------------------------------------------------------------


def steps(path: Path, documents: int) -> None:
    """Megabytes of UTF-8 a second of each step on a text, the best of three runs."""
    texts = pl.read_parquet(path)["text"].head(documents).to_list()
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    plain = ["A line of plain ASCII text, as most pages have it in English.\n" * 2_000] * 100
    load_model("py3langid", CANDIDATES)
    work: dict[str, Callable[[str], Any]] = {
        "normalise": normalise,
        "normalise without repair": lambda text: normalise(text, repair=False),
        "convert to Traditional": lambda text: convert_chinese(text, "traditional"),
        "mask personal data": mask_personal_data,
        "tell the language": detect_language,
    }
    rows = []
    for name, step in work.items():
        seconds = min(timed(lambda step=step: [step(text) for text in texts])[1] for _ in range(3))
        rows.append([name, f"{megabytes / seconds:.0f}"])
    seconds = min(timed(lambda: [normalise(text) for text in plain])[1] for _ in range(3))
    rows.append(["normalise plain ASCII", f"{sum(map(len, plain)) / 1e6 / seconds:.0f}"])
    table((f"{len(texts)} documents of {path.name}", "MB/s"), rows)


if __name__ == "__main__":
    main()
