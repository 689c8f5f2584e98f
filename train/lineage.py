"""Which base a folder holds, and whether packs and adapters were made for it: names may lie, content does not."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from corpus.errors import UserError
from corpus.files import write_json
from corpus.params import Base

FILE = "base.json"  # in the folder of a base its name, in that of packs and adapters what they were made for
PARTS = {"tokenizer": ("tokenizer*", "vocab*", "merges*", "*.model"), "weights": ("*.safetensors",)}  # files of each
_ENDS = 1 << 20  # bytes of each end of a file that are read


def name_of(settings: Base) -> dict[str, str | None]:
    """What is said of a base elsewhere: a name and commit of the hub, but no path of this machine.

    >>> name_of(Base(model="owner/name", revision="abc")), name_of(Base())
    ({'model': 'owner/name', 'revision': 'abc'}, {'model': 'tiny', 'revision': None})
    """
    if Path(settings.model).is_dir():
        return {"model": "a folder", "revision": None}
    return {"model": settings.model, "revision": settings.revision if settings.model != "tiny" else None}


def write_name(folder: Path, settings: Base) -> None:
    """Write which base a folder holds."""
    write_json(folder / FILE, name_of(settings))


def refuse_other_name(folder: Path, settings: Base) -> None:
    """Raises UserError where a folder says that it holds another base than the parameters name."""
    held, named = _read(folder), name_of(settings)
    if held and held != named:
        said, wanted = (" of revision ".join(filter(None, one.values())) for one in (held, named))
        raise UserError(f"base.model is {wanted}, but {folder} holds {said}: run `train base`")


def fingerprint(folder: Path, patterns: tuple[str, ...]) -> str:
    """A digest of a model's files by name, size, beginning and end: enough to tell two apart, whatever their size."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted({path for pattern in patterns for path in folder.glob(pattern)}):
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as file:
            digest.update(file.read(_ENDS))
            file.seek(max(0, size - _ENDS))
            digest.update(file.read(_ENDS))
    return digest.hexdigest()


def write_made_for(folder: Path, base: Path, part: str) -> None:
    """Write which base packs (their `tokenizer`) or an adapter (its `weights`) were made for."""
    write_json(folder / FILE, {part: fingerprint(base, PARTS[part])})


def refuse_made_for_another(folder: Path, base: Path, part: str, again: str) -> None:
    """Raises UserError where a folder was made for another base: for another `tokenizer`, or other `weights`.

    `again` is the command that makes it anew. A folder that does not say is taken.
    """
    made_for = _read(folder).get(part)
    if made_for and made_for != fingerprint(base, PARTS[part]):
        raise UserError(f"{folder} was made for another base than {base}, of other {part}: run `{again}` again")


def _read(folder: Path) -> dict[str, str | None]:
    try:
        content = json.loads((folder / FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
