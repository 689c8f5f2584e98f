"""A version of a corpus: working tree, folder, git revision or experiment, and its files."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from corpus.errors import UserError
from corpus.report.metrics import parse_metrics
from corpus.yaml_files import parse_yaml

WORKSPACE = "workspace"


@dataclasses.dataclass(frozen=True)
class Version:
    """Where a version's files are; nothing is read yet."""

    name: str  # as it was asked for
    files: Any  # a file system of fsspec
    root: str  # data/, reports/ and params.yaml lie in it; "" is the top of the file system
    commit: str | None  # None: a folder

    def path(self, *parts: str) -> str:
        """The path of a file within the file system."""
        return "/".join(part for part in (self.root, *parts) if part)


# ---- what a name stands for ------------------------------------------------------------------------------------------


def open_version(name: str, root: Path = Path()) -> Version:
    """What a name stands for: `workspace`, which is `root`, a folder with data/ in it, or a revision or experiment.

    A folder that exists wins over a revision. Nothing is checked out: a revision's data come from DVC's cache, else
    from its remote. Raises UserError for an unknown name, with near ones, and for a folder without data/.
    """
    folder = root if name == WORKSPACE else root / name
    if folder.is_dir():
        if not (folder / "data").is_dir():
            hint = "`dvc repro` builds it" if name == WORKSPACE else f"name another; a branch so called is heads/{name}"
            raise UserError(f"{name} is a folder without data/: {hint}")
        return Version(name, fsspec.filesystem("file"), folder.resolve().as_posix(), None)
    commit = _commit(name, root)
    from configobj import ConfigObjError
    from dvc.api import DVCFileSystem  # slow to import
    from dvc.exceptions import DvcException

    top = (_git(root, "rev-parse", "--show-toplevel") or "").removesuffix("\n")
    below = (_git(root, "rev-parse", "--show-prefix") or "").removesuffix("\n").rstrip("/")
    # Remotes and cache as they are now: a revision may be older than they.
    try:
        config = DVCFileSystem(top).repo.config
        known = {section: config[section] for section in ("core", "remote", "cache") if section in config}
        # In a revision DVC finds a project below the top of its repository only from there.
        return Version(name, DVCFileSystem(top, rev=commit, subrepos=bool(below), config=known), below, commit)
    except (DvcException, ConfigObjError) as error:
        said = " ".join(str(error).split())
        raise UserError(f"{name}: DVC cannot open this project ({said}): mend it until `dvc status` runs") from None


def _commit(name: str, root: Path) -> str:
    """The hash of the commit that a revision or experiment is."""
    if not (_git(root, "rev-parse", "--git-dir") or "").strip():
        raise UserError(f"{name}: there is no such folder, and this is no git repository that could have a revision")
    found = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    if found:
        return found.strip()
    experiments = _experiments(root)
    own = {commit for experiment, commit in experiments if experiment == name}
    if len(own) == 1:
        return own.pop()
    if own:
        raise UserError(f"{name}: experiments of that name are {', '.join(sorted(own))}: name one of these commits")
    refs = (
        _git(root, "for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/tags", "refs/remotes") or ""
    ).split()
    known = [WORKSPACE, "HEAD", *refs, *(experiment for experiment, _ in experiments)]
    near = difflib.get_close_matches(name, known, n=3) or sorted(set(known))[:10]
    raise UserError(f"{name} is no folder, revision or experiment: near ones are {', '.join(dict.fromkeys(near))}")


def _experiments(root: Path) -> list[tuple[str, str]]:
    """Names and commits of DVC's experiments: refs/exps/SH/A-OF-THEIR-BASE/NAME."""
    listed = _git(root, "for-each-ref", "--format=%(refname) %(objectname)", "refs/exps") or ""
    rows = [line.split(" ") for line in listed.splitlines()]
    return [(ref.split("/", 4)[4], commit) for ref, commit in rows if ref.count("/") >= 4]


def _git(root: Path, *words: str) -> str | None:
    """What git prints, None where it fails or is not there."""
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, errors="replace")
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None


# ---- files -----------------------------------------------------------------------------------------------------------


def list_stage(version: Version, stage: str) -> list[str]:
    """Names of what a stage left in its folder, sorted; none where it was not built.

    Raises UserError where DVC knows the folder and neither cache nor remote has it.
    """
    folder = version.path("data", stage)
    try:
        names = [path.rstrip("/").rpartition("/")[2] for path in version.files.ls(folder, detail=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except Exception as error:  # each kind of remote has its own
        raise _not_here(version, folder, error) from None
    # An output that was never built is listed as a file of its own name.
    return sorted(name for name in names if name != stage and not name.startswith("."))


def parquet_files(version: Version, stage: str, dropped: bool = False) -> list[str]:
    """Paths of a stage's parts, or of its files of dropped rows, by name."""
    names = [name for name in list_stage(version, stage) if name.endswith(".parquet")]
    return [version.path("data", stage, name) for name in names if name.startswith("dropped-") == dropped]


@contextlib.contextmanager
def open_parquet(version: Version, path: str) -> Iterator[pq.ParquetFile]:
    """A Parquet file, of which only the columns are read that are asked for. Raises UserError where it is not whole."""
    try:
        opened = version.files.open(path, "rb")
    except Exception as error:
        raise _not_here(version, path, error) from None
    with opened:
        try:
            with pq.ParquetFile(opened) as file:
                yield file
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f"{path} of {version.name} is not a whole Parquet file ({error}): build it again") from None


def _not_here(version: Version, path: str, error: Exception) -> UserError:
    if version.commit is None:
        return UserError(f"{path} cannot be read ({error}): build it again, or `dvc pull` it")
    return UserError(
        f"{path} of {version.name} is in neither cache nor remote ({error}): get it with `dvc fetch --all-commits`, an "
        f"experiment's with `dvc exp pull`, or `git checkout {version.name}` and say `dvc pull` or `dvc repro` there"
    )


def read_report(version: Version, stage: str) -> dict[str, Any] | None:
    """reports/STAGE.json, None where there is none. Raises UserError where it is not what a stage reports."""
    path = version.path("reports", f"{stage}.json")
    text = _read_text(version, path)
    try:
        return None if text is None else parse_metrics(text)
    except ValueError as error:
        raise UserError(f"{path} of {version.name} is not JSON of a stage ({error}): build it again") from None


def counts_of(version: Version, stage: str) -> dict[str, int] | None:
    """`rows` of a stage's report: documents `in`, `generated`, `kept` and `dropped`; None where there is no report."""
    report = read_report(version, stage)
    return None if report is None else dict(report["rows"])


def read_parameters(version: Version) -> dict[str, Any] | None:
    """params.yaml with dotted keys, None where the version has none: `corpus run` writes none into its folder.

    Raises UserError where it is no YAML.
    """
    path = version.path("params.yaml")
    text = _read_text(version, path)
    try:
        return None if text is None else flatten(parse_yaml(text) or {})
    except ValueError as error:
        raise UserError(f"{path} of {version.name} is not YAML: {error}") from None


def _read_text(version: Version, path: str) -> str | None:
    try:
        with version.files.open(path, "rb") as file:
            return str(file.read().decode("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError:
        raise UserError(f"{path} of {version.name} is not UTF-8") from None


def flatten(tree: Any, key: str = "") -> dict[str, Any]:
    """Values by dotted key. Sources stand under their names, so that a new one does not move the others.

    >>> flatten({"dedup": {"threshold": 0.6}, "sources": [{"name": "faq", "kind": "html"}], "forget": {"ids": []}})
    {'dedup.threshold': 0.6, 'sources.faq.name': 'faq', 'sources.faq.kind': 'html', 'forget.ids': []}
    """
    if isinstance(tree, list) and tree and all(isinstance(one, dict) and "name" in one for one in tree):
        named = {f"{one['name']}-{one['batch']}" if one.get("batch") else str(one["name"]): one for one in tree}
        tree = named if len(named) == len(tree) else tree
    if not isinstance(tree, dict) or not tree:
        return {key: tree} if key else {}
    values: dict[str, Any] = {}
    for name, value in tree.items():
        values |= flatten(value, f"{key}.{name}" if key else str(name))
    return values
