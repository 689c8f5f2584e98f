"""A small corpus that every stage has really built: Chinese pages with menus, dialogues, a copy, and hostile text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import yaml
from conftest import PROJECT, command

HOSTILE = "<script>document.title = 'taken'; alert('text')</script><img src=x onerror=alert(1)> \x1b[31m [red]red[/red]"
PROSE = (
    "The lighthouse keeper wrote down the weather every morning, and he kept the books in a cupboard by the door. "
    "When the ships came back in autumn, the captains used to ask him for the winds of the year before, and he would "
    "read to them from the books until it was dark. Nobody paid him for it, but they brought him tea and oranges."
)


def build(folder: Path) -> Path:
    """Build it in a folder by `corpus run`, which leaves data/ and reports/ there; returns the folder."""
    source = folder / "source"
    shutil.copytree(PROJECT / "data" / "sample" / "site", source / "site")
    page = (
        "<html><head><title>{0}</title></head><body><nav><a href='/'>Menu of the site</a></nav><main><p>{1}</p></main>"
    )
    (source / "site" / "keeper.html").write_text(page.format("The keeper", PROSE), "utf-8")
    rows = [
        {"id": "keeper-again", "text": PROSE + " He liked the tea best.", "url": "http://rows.example/again"},
        {"id": "hostile", "text": f"{PROSE[:150]} {HOSTILE} {PROSE[-120:]}", "url": "http://rows.example/hostile"},
        {"id": "short", "text": "Too short. Write to keeper@example.com.", "url": "http://rows.example/short"},
        {"id": "none", "text": 5, "url": "http://rows.example/none"},
    ]
    (source / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    dialogues = (PROJECT / "data" / "sample" / "dialogues.jsonl").read_text("utf-8").splitlines()[:20]
    (source / "dialogues.jsonl").write_text("\n".join(dialogues) + "\n", "utf-8")
    sources = [
        {"name": "site", "kind": "html", "path": str(source / "site"), "as": "http://site.example/"},
        {"name": "rows", "kind": "jsonl", "path": str(source / "rows.jsonl"), "id_field": "id"},
        {"name": "dialogues", "kind": "jsonl", "path": str(source / "dialogues.jsonl")},
    ]
    params = yaml.safe_load((PROJECT / "params.yaml").read_text("utf-8")) | {"sources": sources}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, allow_unicode=True), "utf-8")
    for name in ("reference", "evaluation"):
        shutil.copytree(PROJECT / "data" / name, folder / "data" / name, ignore=shutil.ignore_patterns("model"))
    command(folder, "corpus", "run", "--output", ".", "--workers", "2")
    return folder
