"""Presets: the settings of base, pack and finetune for a model and a machine, one YAML file each in `presets`."""

from __future__ import annotations

from pathlib import Path

import yaml

from corpus.errors import UserError
from corpus.params import load
from corpus.yaml_files import edit_yaml

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
    changes = edit_yaml(params, yaml.safe_load(files[name].read_text("utf-8")))
    return "\n".join(changes) or f"{params} already has the settings of {name}"
