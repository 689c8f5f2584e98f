"""Changes keys of a YAML file that a person wrote: comments, order and all other keys stay."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from corpus.errors import UserError


def edit_yaml(path: Path, sections: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Set keys of sections, `{"pack": {"length": 512}}`; a line for each that changed.

    The file is replaced whole. Raises UserError where it is not YAML; it is then as it was.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 10_000
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.add_representer(
        type(None), lambda dump, _: dump.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    try:
        tree = yaml.load(path.read_text("utf-8"))
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
        yaml.dump(tree, file)
    partial.replace(target)
    return changes


def _shown(value: object) -> str:
    return json.dumps(value, ensure_ascii=False).strip('"')
