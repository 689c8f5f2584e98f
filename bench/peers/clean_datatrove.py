"""datatrove's extractor of main text, as its pipelines call it. Its environment needs lxml_html_clean as well.

    python clean_datatrove.py PAGES.parquet FOUND.json

Its time is that of this process and of its child, which does the work.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import trafilatura  # noqa: F401  where it cannot be imported, datatrove says that each page took too long
from datatrove.data import Document
from datatrove.pipeline.extractors import Trafilatura
from measurement import cpu_seconds


def main(pages: Path, result: Path) -> None:
    rows = pq.read_table(pages).to_pylist()
    texts, seconds = [], defaultdict(float)
    for collection in dict.fromkeys(row["collection"] for row in rows):
        own = [Document(text=row["html"], id=row["key"]) for row in rows if row["collection"] == collection]
        start = cpu_seconds()
        found = {document.id: document.text for document in Trafilatura(timeout=20).run(own)}
        seconds[collection] = cpu_seconds() - start
        texts += [found.get(row["key"], "") for row in rows if row["collection"] == collection]
    result.write_text(json.dumps({"texts": texts, "seconds": seconds}))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
