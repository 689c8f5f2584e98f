"""YAML that people write: read with a reason where it cannot be, and changed so that comments and order stay."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from corpus.errors import UserError

_MOST_REPEATED = 100_000  # values that aliases may repeat


def parse_yaml(text: str) -> Any:
    """The value of a YAML text. Raises ValueError saying in a line what is wrong.

    Aliases may repeat some values but not multiply them, nor hold themselves: a few lines would fill the memory.

    >>> parse_yaml("a: &a [1, 2]\\nb: *a")
    {'a': [1, 2], 'b': [1, 2]}
    >>> parse_yaml("as_of: 2024-02-30")
    Traceback (most recent call last):
        ...
    ValueError: line 1, column 8: 2024-02-30 is no timestamp: put quotes around text
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        sizes: dict[int, int] = {}
        if _size(node, sizes) > len(sizes) + _MOST_REPEATED:
            raise ValueError(f"its aliases (*) repeat more than {_MOST_REPEATED:,} values: write them out")
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


class _Loader(yaml.SafeLoader):
    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """A value. What PyYAML raises for one that its type cannot have (a month 13) is anything."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, TypeError, OverflowError):
            place, kind = node.start_mark, node.tag.rpartition(":")[2]
            value = str(node.value)[:40] if isinstance(node, yaml.ScalarNode) else "this"
            raise ValueError(
                f"line {place.line + 1}, column {place.column + 1}: {value} is no {kind}: put quotes around text"
            ) from None


def _size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """How many values a node holds, those that aliases repeat each time; notes the sizes of all nodes by identity."""
    if id(node) in sizes:
        if sizes[id(node)] == 0:
            raise ValueError(f"line {node.start_mark.line + 1}: an alias (*) stands within what it repeats")
        return sizes[id(node)]
    sizes[id(node)] = 0  # under way
    inside: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        inside = [one for pair in node.value for one in pair]
    elif isinstance(node, yaml.SequenceNode):
        inside = node.value
    sizes[id(node)] = 1 + sum(_size(one, sizes) for one in inside)
    return sizes[id(node)]


def edit_yaml(path: Path, sections: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Set keys of sections, `{"pack": {"length": 512}}`; a line for each that changed.

    The file is replaced whole. Raises UserError where it is not YAML; it is then as it was.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    editor = YAML()
    editor.preserve_quotes, editor.width = True, 10_000
    editor.indent(mapping=2, sequence=4, offset=2)
    editor.representer.add_representer(
        type(None), lambda dump, _: dump.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    try:
        tree = editor.load(path.read_text("utf-8")) or {}
    except YAMLError as error:  # this one minds a key that is there twice
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    changes = []
    for section, settings in sections.items():
        if tree.get(section) is None:
            tree[section] = {}
        for key, new in settings.items():
            if (old := tree[section].get(key, "default")) != new:
                changes.append(f"{section}.{key}: {_shown(old)} → {_shown(new)}")
                tree[section][key] = new
    target = path.resolve()  # a link stays one
    partial = target.with_name(f".{target.name}.new")
    with partial.open("w", encoding="utf-8") as file:
        editor.dump(tree, file)
    shutil.copymode(target, partial)
    partial.replace(target)
    return changes


def _shown(value: object) -> str:
    return json.dumps(value, ensure_ascii=False).strip('"')
