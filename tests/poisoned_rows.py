"""A thousand rows of JSONL: good ones, and among them one of each kind of bad row that real dumps have."""

from __future__ import annotations

import json
from collections.abc import Collection
from random import Random

ROWS = 1_000
HUGE = 70_000_000  # bytes of a line; what came off the end of a pipe, or a binary file among the text
_ALL_WORDS = (
    "the the the of of and and to to in a a that have with be was for on as by at from they we his her not but which "
    "river harbour captain letter window market garden winter summer bridge engine kitchen village teacher doctor "
    "painter soldier farmer horse paper table lamp mountain island forest valley station ticket music story question "
    "answer morning evening history science number colour weather machine library theatre museum castle church tower "
    "street corner house door floor ceiling mirror picture book pencil basket bottle bread butter cheese coffee orange "
    "apple cherry silver copper iron stone glass wool cotton leather ship boat train wagon wheel road path field "
    "opened closed carried followed remembered forgot painted repaired counted answered promised borrowed returned "
    "walked travelled waited listened watched learned measured gathered crossed climbed slept smiled wondered began "
    "quiet narrow broad ancient modern bright heavy gentle distant familiar careful sudden honest empty crowded warm"
)
_WORDS = _ALL_WORDS.split()


def prose(name: str) -> str:
    """Some 120 words, other ones for each name: nobody's quality rule minds, and no two of them are alike."""
    random = Random(name)
    sentences = [[" ".join(random.choices(_WORDS, k=random.randint(3, 8))) for _ in range(2)] for _ in range(10)]
    return " ".join(f"{first.capitalize()} and the {second}." for first, second in sentences)


def good_row(number: int) -> dict[str, object]:
    """A row with nothing wrong, named `good-NUMBER`."""
    return {
        "id": f"good-{number}",
        "text": prose(str(number)),
        "url": f"http://rows.example/{number}",
        "date": "2024-05-01",
    }


def bad_rows() -> dict[str, tuple[bytes, str]]:
    """By kind a line without its end, and why it is dropped: its reason, or nothing where the text is whole, and so
    the row is kept with what is odd in `meta`. The last one belongs at the end of the file, the doubled id is good-0's.
    """
    text = prose("bad")

    def row(kind: str, **fields: object) -> bytes:
        return json.dumps({"id": f"odd-{kind}", "text": f"{kind}: {prose(kind)}", **fields}).encode()

    return {
        "text is an integer": (row("integer", text=5), "scrape.error.text"),
        "text is null": (row("null", text=None), "scrape.error.text"),
        "text is a list": (row("list", text=[text]), "scrape.error.text"),
        "text is an object": (row("object", text={"body": text}), "scrape.error.text"),
        "text is empty": (row("empty", text=""), "clean.empty"),
        "a byte that is not UTF-8": (row("byte").replace(b"byte:", b"caf\xe9:"), "scrape.error.encoding"),
        "half of a character": (row("half").replace(b"half:", b"\\ud83d:"), "scrape.error.encoding"),
        "NUL bytes": (row("nul").replace(b"nul:", b"\x00\x00"), "scrape.error.json"),
        "a byte order mark": (b"\xef\xbb\xbf" + row("mark"), "scrape.error.json"),
        "JSON without a quote": (row("quote").replace(b'"text"', b'"text'), "scrape.error.json"),
        "two objects in a line": (row("first") + row("second"), "scrape.error.json"),
        "an array": (json.dumps(["array", text]).encode(), "scrape.error.json"),
        "100,000 brackets deep": (b'{"text": ' + b"[" * 100_000, "scrape.error.json"),
        "a line of 70 MB": (b'{"text": "' + b"\x20A" * (HUGE // 2), "scrape.too_large"),
        "an id for the second time": (row("twice", id="good-0"), "scrape.duplicate_id"),
        "no id": (json.dumps({"text": f"anonymous: {text}"}).encode(), "scrape.error.text"),
        "url is a number": (row("url", url=404), ""),
        "date is an object": (row("date", date={"year": 2024}), ""),
        "label is a list": (row("label", label=["a", "b"]), ""),
        "clipped at the end of the file": (row("clipped")[:-20], "scrape.error.json"),
    }


def poisoned(kinds: Collection[str] | None = None, rows: int = ROWS) -> bytes:
    """The file: good rows, with the bad ones of some kinds (default: all) spread among them, the clipped one last."""
    bad = [line for kind, (line, _) in bad_rows().items() if kinds is None or kind in kinds]
    lines = [json.dumps(good_row(number)).encode() for number in range(rows - len(bad))]
    step = len(lines) // (len(bad) + 1)
    for number, line in enumerate(bad, 1):
        lines.insert(number * step + number - 1, line)
    clipped = bad_rows()["clipped at the end of the file"][0]
    if clipped in lines:
        lines.remove(clipped)
        lines.append(clipped)
        return b"\n".join(lines)
    return b"\n".join(lines) + b"\n"
