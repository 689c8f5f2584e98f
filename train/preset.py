"""Presets: the settings of base, pack and finetune for a model and a machine, one YAML file each in `presets`."""

from __future__ import annotations

import json
from pathlib import Path

from corpus.errors import UserError
from corpus.params import load

FOLDER = Path(__file__).parent / "presets"  # a file's first line, a comment, says what it is for


def apply_preset(name: str | None, params: Path) -> str:
    """Write a preset's keys into params.yaml and return what changed; without a name, a line a preset.

    Comments and all other keys stay. Raises UserError naming the preset, or the file that is no params.yaml; it is then
    as it was.
    """
    files = {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}
    if name is None:
        return "\n".join(f"{key:<18}{path.read_text('utf-8').splitlines()[0][2:]}" for key, path in files.items())
    if name not in files:
        raise UserError(f"preset {name!r} is unknown: there are {', '.join(files)}")
    load(params)  # says what is wrong with the file, if anything
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 10_000
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.add_representer(
        type(None), lambda dump, _: dump.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    try:
        tree = yaml.load(params.read_text("utf-8"))
    except YAMLError as error:  # this one minds a key that is there twice
        raise UserError(f"{params} is not YAML: {' '.join(str(error).split())}") from None
    changes = []
    for section, settings in yaml.load(files[name].read_text("utf-8")).items():
        if tree.get(section) is None:
            tree[section] = {}
        for key, new in settings.items():
            if (old := tree[section].get(key, "default")) != new:
                changes.append(f"{section}.{key}: {_shown(old)} → {_shown(new)}")
                tree[section][key] = new
    target = params.resolve()  # a link stays one
    partial = target.with_name(f".{target.name}.new")
    with partial.open("w", encoding="utf-8") as file:
        yaml.dump(tree, file)
    partial.replace(target)
    return "\n".join(changes) or f"{params} already has the settings of {name}"


def _shown(value: object) -> str:
    return json.dumps(value, ensure_ascii=False).strip('"')
