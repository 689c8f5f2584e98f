"""datatrove's extractor of main text, as its pipelines call it: each page in a process of its own that has 1 second.

    python clean_datatrove.py PAGES.parquet FOUND.json

Its time is that of this process and of its children, which do the work.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

import pyarrow.parquet as pq
from datatrove.data import Document
from datatrove.pipeline.extractors import Trafilatura
from measurement import cpu_seconds


def main(pages: Path, result: Path) -> None:
    rows = pq.read_table(pages).to_pylist()
    texts, seconds = [], defaultdict(float)
    for collection in dict.fromkeys(row["collection"] for row in rows):
        own = [Document(text=row["html"], id=row["key"]) for row in rows if row["collection"] == collection]
        extractor = Trafilatura(timeout=20)
        list(extractor.run([Document(text=rows[0]["html"], id="first")]))  # imports
        start = cpu_seconds()
        found = {document.id: document.text for document in extractor.run(own)}
        seconds[collection] = cpu_seconds() - start
        texts += [found.get(row["key"], "") for row in rows if row["collection"] == collection]
    result.write_text(json.dumps({"texts": texts, "seconds": seconds}))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
