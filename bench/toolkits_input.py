"""What the toolkits get to work on: other people's files cut into parts, or texts that every Python brings with it."""

from __future__ import annotations

import ast
import hashlib
import html
import json
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import polars as pl
import pyarrow.parquet as pq

PARTS = 8  # files: the tools share work between their processes by files
COPY_OF = 10  # every so manieth made document is a near copy of the one before
FAR_COPY = 0.03  # of its words are other ones


def made_documents(megabytes: float) -> pl.DataFrame:
    """Documents made of the docstrings of the installed packages, one a source file, and near copies of some."""
    rows: list[dict[str, str]] = []
    size = 0
    for name, text in _docstrings():
        random = Random(name)
        texts = [text, _altered(text, random)] if len(rows) % COPY_OF == 0 else [text]
        rows += [{"id": f"{name}#{number}", "text": one, "lang": "en"} for number, one in enumerate(texts)]
        size += sum(len(one.encode()) for one in texts)
        if size > megabytes * 1e6:
            break
    return pl.DataFrame(rows)


def made_pages(count: int) -> list[dict[str, str]]:
    """Web pages of such documents: with a head, a menu, side boxes, a footer, as news sites have them."""
    pages = []
    documents = made_documents(count * 0.01).head(count)
    for number, (name, text) in enumerate(documents.select("id", "text").iter_rows()):
        links = "".join(f"<li><a href='/{other}'>Section {other} of the site</a></li>" for other in range(20))
        prose = "".join(f"<p>{html.escape(part)}</p>" for part in text.split("\n\n"))
        page = (
            f"<html><head><title>{html.escape(name)}</title><script>track({number})</script></head><body><nav><ul>"
            f"{links}</ul></nav><main><h1>{html.escape(name)}</h1>{prose}</main><aside>Read more: <ul>{links}</ul>"
            f"</aside><footer>Imprint, privacy, contact. All rights reserved.</footer></body></html>"
        )
        pages.append({"id": name, "url": f"http://made.example/{number}", "html": page})
    return pages


def real_pages(folder: Path, times: int) -> list[dict[str, str]]:
    """The pages of `clean.py`'s collections, each so many times under other addresses."""
    from clean import load_pages

    pages = load_pages(folder)
    return [
        {"id": f"{page.key}#{time}", "url": f"http://pages.example/{time}/{number}", "html": page.html}
        for time in range(times)
        for number, page in enumerate(pages)
    ]


def read_documents(path: Path, count: int | None) -> pl.DataFrame:
    """id, text and lang of a Parquet file."""
    documents = pl.read_parquet(path, columns=[*({"id", "text", "lang"} & set(pq.read_schema(path).names))])
    documents = documents if "lang" in documents.columns else documents.with_columns(lang=pl.lit("en"))
    return documents.select("id", "text", "lang").head(count or documents.height)


def write_documents(documents: pl.DataFrame, folder: Path) -> int:
    """Write documents as Parquet parts; their bytes of text."""
    folder.mkdir(parents=True)
    rows = -(-documents.height // PARTS)
    for number, part in enumerate(documents.iter_slices(rows)):
        part.write_parquet(folder / f"part-{number}.parquet", row_group_size=1_000)
    return int(documents["text"].str.len_bytes().sum())


def write_pages(pages: Sequence[dict[str, str]], folder: Path) -> int:
    """Write pages as JSONL parts; their bytes of HTML."""
    folder.mkdir(parents=True)
    for number in range(PARTS):
        lines = [json.dumps(page, ensure_ascii=False) + "\n" for page in pages[number::PARTS]]
        (folder / f"part-{number}.jsonl").write_text("".join(lines), "utf-8")
    return sum(len(page["html"].encode()) for page in pages)


def _docstrings() -> Iterator[tuple[str, str]]:
    """Of each source file of this Python and its packages, in an order by chance: its name and its docstrings."""
    roots = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib")]
    files = {str(path.relative_to(root)): path for root in roots for path in root.rglob("*.py") if path.is_file()}
    files = {name: path for name, path in files.items() if not name.startswith("site-packages/")}  # of another Python
    for name in sorted(files, key=lambda name: hashlib.blake2b(name.encode()).digest()):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the packages' escapes
                tree = ast.parse(files[name].read_bytes())
        except (SyntaxError, ValueError, OSError):
            continue
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        found = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, documented)]
        text = "\n\n".join(one for one in found if one)
        if len(text) > 400 and "\0" not in text and _is_utf8(text):
            yield name, text


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _altered(text: str, random: Random) -> str:
    return " ".join(word[::-1] if random.random() < FAR_COPY else word for word in text.split(" "))
