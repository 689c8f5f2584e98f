"""YAML that people write: read with a reason where it cannot be, and changed so that comments and order stay."""

from __future__ import annotations

import io
import json
import math
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

    Nothing else of the text changes, where a value or a new key is a matter of one line. The file is replaced whole.
    Raises UserError where it is not YAML; it is then as it was.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    with path.open(encoding="utf-8", newline="") as file:
        text = file.read()
    try:
        tree = YAML().load(text) or {}
    except YAMLError as error:  # this one minds a key that is there twice
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    changes = []
    for section, settings in sections.items():
        for key, new in settings.items():
            if (old := (tree.get(section) or {}).get(key, "default")) != new:
                changes.append(f"{section}.{key}: {_shown(old)} → {_shown(new)}")
                text = _with_value(text, section, key, new)
    if changes:
        target = path.resolve()  # a link stays one
        partial = target.with_name(f".{target.name}.new")
        with partial.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
        shutil.copymode(target, partial)
        partial.replace(target)
    return changes


def _with_value(text: str, section: str, key: str, value: Any) -> str:
    """A YAML text in which a section's key has a value; what follows from it is checked by reading it."""
    wanted = yaml.safe_load(text) or {}
    wanted[section] = (wanted.get(section) or {}) | {key: value}
    spliced = _spliced(text, section, key, value)
    try:
        if spliced is not None and yaml.safe_load(spliced) == wanted:
            return spliced
    except yaml.YAMLError:  # an anchor was in the value, say
        pass
    return _dumped_anew(text, section, key, value)


def _spliced(text: str, section: str, key: str, value: Any) -> str | None:
    """The text with one value replaced, or one line more; None where it takes more than that.

    >>> _spliced("pack: # rows\\n    length:   512 # tokens\\n", "pack", "length", 1024)
    'pack: # rows\\n    length:   1024 # tokens\\n'
    >>> _spliced("pack:\\n    length: 512 # tokens\\n", "pack", "seed", {"a": [1]})
    'pack:\\n    length: 512 # tokens\\n    seed: {a: [1]}\\n'
    """
    written = yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, width=math.inf).strip()[1:-1]
    newline = "\r\n" if "\r\n" in text else "\n"
    root = yaml.compose(text, yaml.SafeLoader)
    known = {name.value: node for name, node in root.value} if isinstance(root, yaml.MappingNode) else {}
    if section not in known:
        between = "" if not text or text.endswith("\n") else newline
        return f"{text}{between}{section}:{newline}  {key}: {written}{newline}"
    settings = known[section]
    if not isinstance(settings, yaml.MappingNode) or not settings.value:
        return None
    for name, node in settings.value:
        if name.value == key:
            start, end = node.start_mark.index, node.end_mark.index
            return text[:start] + written + text[end:] if _is_within_a_line(node) and end > start else None
    name, last = settings.value[-1]
    if settings.flow_style or not _is_within_a_line(last) or last.end_mark.index < name.end_mark.index:  # an alias
        return None
    line = text.find("\n", last.end_mark.index) + 1 or len(text)
    between = "" if text[:line].endswith("\n") else newline
    return f"{text[:line]}{between}{' ' * settings.value[0][0].start_mark.column}{key}: {written}{newline}{text[line:]}"


def _is_within_a_line(node: yaml.Node) -> bool:
    """Whether a value ends where it seems to: no block of lines, with comments perhaps."""
    if isinstance(node, yaml.ScalarNode):
        return node.style not in ("|", ">")
    return isinstance(node, yaml.CollectionNode) and bool(node.flow_style)


def _dumped_anew(text: str, section: str, key: str, value: Any) -> str:
    """The same by a program that keeps comments, order and quotes, and how far the first list is indented, but writes
    all lines anew."""
    from ruamel.yaml import YAML

    editor = YAML()
    editor.preserve_quotes, editor.width = True, 10_000
    offset = _list_offset(yaml.compose(text, yaml.SafeLoader))
    offset = 2 if offset is None else offset
    editor.indent(mapping=2, sequence=2 + offset, offset=offset)
    editor.representer.add_representer(
        type(None), lambda dump, _: dump.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    tree = editor.load(text) or {}
    if tree.get(section) is None:
        tree[section] = {}
    tree[section][key] = value
    result = io.StringIO()
    editor.dump(tree, result)
    return result.getvalue()


def _list_offset(node: yaml.Node | None) -> int | None:
    """How far the dashes of the first list stand to the right of its key; None where there is no list of lines.

    >>> [_list_offset(yaml.compose(text)) for text in ("a:\\n- b: 1\\n", "a: [1]\\nb:\\n  c: # d\\n    - e\\n", "a: 1")]
    [0, 2, None]
    """
    if isinstance(node, yaml.SequenceNode):
        return next((found for one in node.value if (found := _list_offset(one)) is not None), None)
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if isinstance(value, yaml.SequenceNode) and value.value and not value.flow_style:
            return int(value.start_mark.column - key.start_mark.column)
        if (found := _list_offset(value)) is not None:
            return found
    return None


def _shown(value: object) -> str:
    return json.dumps(value, ensure_ascii=False).strip('"')
