"""`corpus init`: a params.yaml and a dvc.yaml for one's own sources, and what the graph needs beside them."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePath, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import yaml
from fsspec.registry import known_implementations

from corpus.errors import UserError
from corpus.params import Params
from corpus.scrape.files import SUFFIXES, is_of_kind
from corpus.scrape.urls import normalise_url

TEMPLATES = Path(__file__).parent  # links to the project's own files, not called dvc.yaml: DVC would read that too
CHECKOUT = TEMPLATES.parent.parent  # where the trusted and pinned texts lie that come with the toolkit
TEXTS = (
    *(f"data/reference/{name}.txt" for name in ("en", "zh")),
    *(f"data/evaluation/{name}.jsonl" for name in ("en", "zh", "general-en", "general-zh")),
    *(f"data/templates/{name}.yaml" for name in ("sentiment.en", "sentiment.zh", "title.en")),
)
NAMED = ".html, .jsonl, .parquet, .csv, .warc or .txt"  # what messages say; SUFFIXES has all
IGNORED = {
    ".gitignore": [
        *(".corpusmill", ".venv/", "/try/", "/dvc_plots/"),  # the first may be a link to another disk
        *("/reports/*.timing.json", "/reports/*.trace.json", "/reports/compare.html"),
        *("/data/.*.lock", "/data/.*.outdated", "/data/.*.partial", "/reports/.*.partial"),  # of killed runs
    ],
    ".dvcignore": [".corpusmill", ".venv", "__pycache__"],
}


def write_project(sources: Sequence[str], folder: Path) -> str:
    """Write params.yaml and dvc.yaml for some sources into a folder; also trusted and pinned texts, if it lacks them.

    A web address becomes a `site`, a folder one source for its pages or for each kind of rows in it, a file or a
    pattern with `*`, here or at an address, a source of its kind; files that are all of their kind in their folder
    become one pattern. Nothing is read from a network. Returns what to print.
    Raises UserError, before anything is written, where a file is there already or a source is not.
    """
    for name in ("params.yaml", "dvc.yaml"):
        if (folder / name).exists():
            raise UserError(f"{folder / name} is there already: name a new folder with --folder, or edit the file")
    entries = [entry for source in gathered(sources, folder) for entry in describe(source, folder)]
    name_once(entries)
    Params.model_validate({"sources": entries})
    template = (TEMPLATES / "params.template.yaml").read_text("utf-8")
    paths = [entry["path"] for entry in entries if "path" in entry]
    inputs = sorted({local_dependency(path) for path in paths if "://" not in path})
    in_checkout = (folder / "corpus" / "init").is_dir()
    folder.mkdir(parents=True, exist_ok=True)
    missing = provide_texts(folder)
    graph = (TEMPLATES / "graph.template.yaml").read_text("utf-8")
    for name, lines in IGNORED.items():
        if not (folder / name).exists():
            written = [*lines, *(f"/{path}" for path in cached_outputs(graph))] if name == ".gitignore" else lines
            (folder / name).write_text("".join(f"{line}\n" for line in written), "utf-8")
    params = without_settings_of_the_sample(with_sources(template, render(entries)))
    (folder / "params.yaml").write_text(params, "utf-8")
    (folder / "dvc.yaml").write_text(with_dependencies(graph, inputs, code=in_checkout), "utf-8")
    return next_steps(folder, entries, missing)


# ---- from what was named to sources ----------------------------------------------------------------------------------


def gathered(sources: Sequence[str], folder: Path) -> list[str]:
    """Join files that a shell made out of a pattern: those that are all of their kind in their folder.

    Not those beside the project's own: DVC would watch that folder for them, in which its outputs lie.
    """
    result: list[str] = []
    for source in sources:
        path = Path(source)
        pattern = str(path.parent / f"*{path.suffix}")
        siblings = {str(other) for other in path.parent.glob(f"*{path.suffix}")} if path.is_file() else set()
        around = path.parent.resolve() in (folder.resolve(), *folder.resolve().parents)
        whole = len(siblings) > 1 and not around and siblings <= {str(Path(other)) for other in sources}
        result.append(pattern if whole else source)
    return list(dict.fromkeys(result))


def describe(source: str, folder: Path) -> list[dict[str, Any]]:
    """The entries of `sources:` for what was named. Paths are as seen from the project's folder."""
    source = source.removeprefix("file://")
    if "://" in source:
        return [describe_address(source)]
    path = Path(source)
    if "*" in source:
        kinds = sorted({kind for found in path.parent.glob(path.name) if (kind := kind_of(found))})
        if len(kinds) != 1 or not kind_of(path):
            raise UserError(f"{source} matches no file of one kind: name for example notes/*.txt")
        if kinds == ["html"]:
            raise UserError(f"{source}: pages come by folder, name {path.parent}")
    elif path.is_dir():
        kinds = sorted({kind for found in path.rglob("*") if found.suffix != ".json" and (kind := kind_of(found))})
        kinds = ["html"] if "html" in kinds else kinds  # text beside pages, as robots.txt, is seldom meant
        if not kinds:
            raise UserError(f"{source} holds no {NAMED} file")
    elif not path.exists():
        raise UserError(f"{source} does not exist: name a web address, a folder, or a {NAMED} file")
    elif kind_of(path) in (None, "html"):
        raise UserError(f"{source} is no source: name a web address, a folder, or a {NAMED} file; pages come by folder")
    else:
        kinds = [str(kind_of(path))]
    seen = Path(os.path.relpath(path, folder)).as_posix()
    stem = path.parent.name if "*" in source else path.name.partition(".")[0]
    return [{"name": stem or "source", "kind": kind, "path": seen} for kind in kinds]


def kind_of(path: PurePath) -> str | None:
    """The kind of source that a file is of, compressed or not; None if of none.

    >>> kind_of(Path("a/tickets.jsonl.zst")), kind_of(Path("crawl.warc.gz")), kind_of(Path("photo.png"))
    ('jsonl', 'warc', None)
    """
    return next((kind for kind in SUFFIXES if is_of_kind(path.name, kind)), None)


def describe_address(address: str) -> dict[str, Any]:
    """What lies at an address, as far as it says so itself: a web site, or files of a kind.

    >>> describe_address("s3://bucket/crawl/*.warc.gz")
    {'name': 'crawl', 'kind': 'warc', 'path': 's3://bucket/crawl/*.warc.gz'}
    >>> describe_address("https://example.org/rows.parquet")["kind"], describe_address("https://a.org/b.html")["kind"]
    ('parquet', 'site')
    """
    scheme, _, rest = address.partition("://")
    path = PurePosixPath(rest.partition("?")[0] if scheme.startswith("http") else rest)
    kind = kind_of(path)
    if scheme.lower() in ("http", "https") and kind in (None, "html", "text"):  # of text there are pages that show it
        return describe_site(address)
    if scheme not in known_implementations:
        raise UserError(f"{address}: {scheme}:// is no address that can be read: docs/storage.md says which")
    if kind is None or "/" not in rest:
        stem = re.sub(r"[^A-Za-z0-9]+", "_", path.name).strip("_") or "files"
        raise UserError(
            f"{address} does not say what lies there: name files, such as {address.rstrip('/')}/*.jsonl, or write into"
            f" params.yaml, under sources, - {{name: {stem}, kind: jsonl, path: {address!r}}}"
        )
    return {
        "name": path.parent.name if "*" in path.name else path.name.partition(".")[0],
        "kind": kind,
        "path": address,
    }


def describe_site(address: str) -> dict[str, Any]:
    """A polite crawl of a site, or of the folder of it that the address names.

    >>> describe_site("https://docs.example.org/guide/index.html")["allow"]
    ['^/guide/']
    >>> describe_site("https://example.org/指南/x.html")["allow"]
    ['^/%E6%8C%87%E5%8D%97/']
    """
    start = normalise_url(address)  # `allow` is compared with this spelling
    if start is None:
        raise UserError(f"{address} is no web address: write it as https://example.org/folder/")
    parts = urlsplit(start)
    below = parts.path.rsplit("/", 1)[0] + "/"
    site = {"name": str(parts.hostname).removeprefix("www."), "kind": "site", "start": [start]}
    return site | {"allow": [f"^{re.escape(below)}"], "delay_s": 1.0, "max_pages": 10_000}


def name_once(entries: list[dict[str, Any]]) -> None:
    """Make the names fit file names and differ, in place.

    >>> entries = [{"name": "docs.example.org"}, {"name": "笔记"}, {"name": "docs example org"}]
    >>> name_once(entries); [entry["name"] for entry in entries]
    ['docs_example_org', 'source', 'docs_example_org_2']
    """
    taken: set[str] = set()
    for entry in entries:
        stem = re.sub(r"[^A-Za-z0-9]+", "_", entry["name"]).strip("_") or "source"
        number = 1
        while (name := stem if number == 1 else f"{stem}_{number}") in taken:
            number += 1
        taken.add(name)
        entry["name"] = name


# ---- the files -------------------------------------------------------------------------------------------------------


def render(entries: list[dict[str, Any]]) -> str:
    """The sources section as YAML."""
    return yaml.safe_dump({"sources": entries}, sort_keys=False, allow_unicode=True, width=110)


def with_sources(params: str, section: str) -> str:
    """Replace the section `sources:` of a params.yaml; comments above it stay.

    >>> with_sources("# Where from\\nsources: []\\n\\nworkers: 0\\n", "sources:\\n- name: a\\n")
    '# Where from\\nsources:\\n- name: a\\n\\nworkers: 0\\n'
    """
    return re.sub(r"^sources:.*\n(?:(?:[ \t-].*)?\n)*?(?=\n*^[^ \t\n-])", lambda _: section, params, flags=re.MULTILINE)


def without_settings_of_the_sample(params: str) -> str:
    """Defaults in the place of what suits the sample alone: small parts to share, and Chinese repeated in training."""
    params = re.sub(r"^  part_mb: .*$", "  part_mb: 64  # megabytes a part", params, flags=re.MULTILINE)
    mixture = "  mixture: {}  # by language how often its documents are taken, such as {zh-Hans: 3}; 1 by default"
    return re.sub(r"^  mixture: .*$", mixture, params, flags=re.MULTILINE)


def with_dependencies(graph: str, inputs: Sequence[str], code: bool) -> str:
    """Give the stage scrape of a dvc.yaml its inputs; leave out code that is installed and not in this folder.

    >>> with_dependencies("    deps: [corpus/scrape, data/sample]", ["notes", "rows.jsonl"], False)
    '    deps: [notes, rows.jsonl]'
    """

    def rewritten(found: re.Match[str]) -> str:
        names = found[2].split(", ")
        if "data/sample" in names:
            names = [*(name for name in names if name != "data/sample"), *map(yaml_word, inputs)]
        if not code:
            names = [name for name in names if not name.startswith(("corpus/", "train/"))]
        return f"{found[1]}[{', '.join(names)}]"

    if not code:
        graph = re.sub(r"^ +- (?:corpus|train)/\S+\n", "", graph, flags=re.MULTILINE)
    return re.sub(r"^( +deps: )\[(.*)\]$", rewritten, graph, flags=re.MULTILINE)


def yaml_word(text: str) -> str:
    """A string as YAML writes it within a list on one line."""
    return yaml.safe_dump([text], default_flow_style=True, allow_unicode=True, width=10_000).strip()[1:-1]


def cached_outputs(graph: str) -> list[str]:
    """What the stages of a dvc.yaml write for DVC and not for git. DVC has git ignore it from the first `dvc repro` on,
    but a stage may be run by hand before.

    >>> cached_outputs("stages: {a: {outs: [data/a, {reports/a.json: {cache: false}}]}}")
    ['data/a']
    """
    stages = yaml.safe_load(graph)["stages"].values()
    return [output for stage in stages for output in stage["outs"] if isinstance(output, str)]


def local_dependency(path: str) -> str:
    """What DVC watches of a source: the file or folder, and of a pattern its folder."""
    return str(Path(path).parent) if "*" in path else path


def provide_texts(folder: Path) -> list[str]:
    """Copy the trusted and the pinned texts that the folder lacks. Returns those that are not to be had here."""
    missing = []
    for name in TEXTS:
        if (folder / name).exists():
            continue
        if (CHECKOUT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(CHECKOUT / name, folder / name)
        else:
            missing.append(name)
    return missing


def next_steps(folder: Path, entries: list[dict[str, Any]], missing: list[str]) -> str:
    """What was written and what to do now."""
    go = "" if folder.resolve() == Path.cwd() else f"cd {folder} && "
    lines = [
        f"Wrote params.yaml and dvc.yaml in {folder.resolve().name} for "
        + ", ".join(f"{entry['name']} ({entry['kind']})" for entry in entries)
        + ".",
        f"  {go}corpus run --limit 1000     a dry pass over the first 1,000 documents of each source, into try/",
        f"  {go}git init && dvc init && git add --all && git commit -m sources && dvc repro",
        "                                   the whole graph, up to the fine-tuned model and reports/",
        "  python -m corpus.report.plots_template .dvc/plots.html && dvc config plots.html_template plots.html",
        "                                   once, so that `dvc plots show` works without a network",
        "The language models in data/reference/ and the evaluation sets in data/evaluation/ are general samples:",
        "put trusted text and questions of your own domain there.",
    ]
    if missing:
        lines.insert(1, f"Still to be written by you: {', '.join(missing)}.")
    if any(entry["kind"] == "site" for entry in entries):
        lines.append("Sites are crawled one page a second, within the folder you named; widen `allow` for more.")
    return "\n".join(lines)
