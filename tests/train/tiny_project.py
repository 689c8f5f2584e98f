"""A project of a few documents with a base of one layer, built once for all tests of the trainer."""

from __future__ import annotations

import dataclasses
import functools
import json
import random
from pathlib import Path

import polars as pl

import train.base
import train.finetune
import train.pack
from corpus.documents import to_arrow, write_table
from corpus.params import Params, load
from corpus.stage import Run, execute

SETTINGS = [
    "base.vocabulary=400",
    "base.layers=1",
    "base.hidden=32",
    "base.context=64",
    "base.steps=20",
    "base.batch_tokens=256",
    "pack.length=64",
    "finetune.tokens=2560",
    "finetune.rows_per_step=2",
    "finetune.rank=4",
    "finetune.evaluations=4",
    "evaluate.samples=2",
    "evaluate.new_tokens=6",
]
WORDS = {
    "en": ["a", "file", "is", "opened", "read", "and", "closed", "by", "the", "name", "of", "its", "folder"],
    "zh-Hans": ["文件", "打开", "之后", "可以", "读取", "并且", "关闭", "它的", "名字", "指向", "磁盘", "上的", "目录"],
}
MESSAGE = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))


def params(*overrides: str) -> Params:
    return load(None, [*SETTINGS, *overrides])


def make_run(stage: str, project: Path, output: Path | None = None, *overrides: str, workers: int = 1) -> Run:
    """A run in a project; what it writes stays in there."""
    data = project / "data"
    reads = (data / "clean", data / "split") if stage == "pack" else ()
    output = output or data / stage
    return Run(stage, params(*overrides), reads, output, data, project / "reports", project / "home", workers)


def text(lang: str, words: int, seed: int) -> str:
    drawn = random.Random(f"{lang}{seed}").choices(WORDS[lang], k=words)
    return (" " if lang == "en" else "").join(drawn) + "."


def dialogue(number: int) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": f"怎样打开文件{number}？"},
        {"role": "assistant", "content": f"Open file {number} by its name，然后读取。"},
    ]


def write_sources(project: Path) -> None:
    """Reference texts, pinned sets, clean documents with their split, and the shards of those that were kept."""
    data = project / "data"
    for name, lang in (("en", "en"), ("zh", "zh-Hans")):
        (data / "reference").mkdir(parents=True, exist_ok=True)
        (data / "evaluation").mkdir(exist_ok=True)
        documents = [text(lang, 60, 100 + number) for number in range(10)]
        (data / "reference" / f"{name}.txt").write_text("\n---\n".join(documents), "utf-8")
        lines = [{"id": f"{name}-{n}", "text": text(lang, 80, 200 + n)} for n in range(3)]
        pinned = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (data / "evaluation" / f"{name}.jsonl").write_text(pinned, "utf-8")
    rows = [
        {
            "id": f"{lang}-{number:02d}",
            "text": text(lang, 15 + 9 * number, number),
            "lang": lang,
            "messages": None,
            "split": ("train", "train", "train", "validation", "test", None)[number % 6],
        }
        for lang in WORDS
        for number in range(18)
    ]
    for number, split in enumerate(("train", "train", "validation", "test")):
        messages = dialogue(number)
        rendering = "\n".join(message["content"] for message in messages)
        row = {"id": f"dialogue-{number}", "text": rendering, "lang": "zh-Hans", "messages": messages, "split": split}
        rows.append(row)
    frame = pl.DataFrame(rows, schema_overrides={"messages": MESSAGE})
    for folder in ("clean", "split", "shard/train", "shard/validation", "shard/test"):
        (data / folder).mkdir(parents=True, exist_ok=True)
    write_table(to_arrow(frame.drop("split")), data / "clean" / "part-tiny-0-00000.parquet")
    kept = pl.when(pl.col("split").is_not_null()).then(True).alias("kept")
    write_table(to_arrow(frame.select("id", kept, "split")), data / "split" / "part-tiny-0-00000.parquet")
    for split in ("train", "validation", "test"):
        kept = frame.filter(pl.col("split") == split).drop("split").with_columns(chunk=pl.lit(None, pl.Int32))
        write_table(to_arrow(kept), data / "shard" / split / "part-00000.parquet")


@functools.cache
def with_base(temporary: Path) -> Path:
    """The project after base. Read it, and write elsewhere."""
    project = temporary / "tiny"
    write_sources(project)
    execute(train.base, make_run("base", project))
    return project


@functools.cache
def built(temporary: Path) -> Path:
    """The same project after pack and finetune as well. Read it, and write elsewhere."""
    project = with_base(temporary)
    execute(train.pack, make_run("pack", project))
    execute(train.finetune, make_run("finetune", project))
    return project


def again(run: Run, output: Path) -> Run:
    """The same run with another output and nothing to take up."""
    return dataclasses.replace(run, output=output, home=output.parent / "home", reports=None)
