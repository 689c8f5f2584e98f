"""What changes params.yaml changes its values, and nothing of how people have laid it out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from corpus.compact import compact
from corpus.yaml_files import edit_yaml

WRITTEN = """\
# mine
sources:
- name: news
  kind: jsonl
  path:   a.jsonl   # the first
- {name: news, kind: jsonl, path: b.jsonl, batch: 1}


scrape:
    part_mb:  4
    merge: {}  # none yet
filter:
    profile: { en: gopher }
    own:
    - a
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "params.yaml").write_text(WRITTEN)
    return tmp_path / "params.yaml"


def test_compact_changes_one_value(path: Path, tmp_path: Path) -> None:
    written = WRITTEN[: WRITTEN.index("filter:")]
    path.write_text(written)
    compact(path, tmp_path / "data")
    assert path.read_text() == written.replace("merge: {}", "merge: {news: 1}")


@pytest.mark.parametrize(
    ("section", "key", "value", "before", "after"),
    [
        ("scrape", "part_mb", 64, "part_mb:  4", "part_mb:  64"),
        ("scrape", "as_of", "2026-12-01", "none yet\n", "none yet\n    as_of: '2026-12-01'\n"),
        ("filter", "profile", {"en": None}, "{ en: gopher }", "{en: null}"),
        ("pack", "length", 512, "    - a\n", "    - a\npack:\n  length: 512\n"),
    ],
)
def test_a_value_is_a_matter_of_one_line(
    path: Path, section: str, key: str, value: Any, before: str, after: str
) -> None:
    assert len(edit_yaml(path, {section: {key: value}})) == 1
    assert path.read_text() == WRITTEN.replace(before, after)
    assert edit_yaml(path, {section: {key: value}}) == []


@pytest.mark.parametrize(("section", "key"), [("filter", "own"), ("filter", "more")])
def test_where_a_block_of_lines_changes_lists_stay_where_they_are(path: Path, section: str, key: str) -> None:
    edit_yaml(path, {section: {key: ["b", "c"]}})
    text = path.read_text()
    assert text.startswith(WRITTEN[: WRITTEN.index("  path:")]) and "# none yet" in text
    assert yaml.safe_load(text)[section][key] == ["b", "c"]


def test_ends_of_lines_are_kept(path: Path) -> None:
    path.write_bytes(b"a:\r\n  b: 1\r\n  c: 2 # two\r\n")
    edit_yaml(path, {"a": {"b": [1], "d": True}})
    assert path.read_bytes() == b"a:\r\n  b: [1]\r\n  c: 2 # two\r\n  d: true\r\n"


@pytest.mark.parametrize("key", ["b", "c", "d"])
def test_an_anchor_or_alias_takes_nothing_else_along(path: Path, key: str) -> None:
    path.write_text("a:\n  b: &x 1\n  c: *x\n")
    edit_yaml(path, {"a": {key: 2}})
    assert yaml.safe_load(path.read_text()) == {"a": {"b": 1, "c": 1} | {key: 2}}
