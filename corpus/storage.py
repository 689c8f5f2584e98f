"""Addresses on object storage as inputs: what lies there is mirrored below `.corpusmill/remote/`, file by file.

A folder that a stage published there (corpus/publish.py) is what its `manifest.json` names, with size and digest; other
files in it do not count. Folders and files of others are taken as the storage lists them. A mirror is whole or not
there, and what it has in common with earlier ones is not fetched again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeGuard, TypeVar

from corpus.errors import UserError
from corpus.files import digest_of, file_digest, link, own_partial
from corpus.storage_errors import is_missing, shown, storage_errors, without_secrets
from corpus.storage_options import Options, connect, options_for

HOME = Path(".corpusmill")
MANIFEST = "manifest.json"
DRAFTS = ".publishing/"  # where publications say what they are about to write
FORMAT = 1  # of manifests; raised when older code could not read what newer code writes
TRANSFERS = 8  # files under way at a time

STAMPS = (  # what storages tell of a file's state, the surest first
    *("mtime", "ETag", "etag", "checksum", "md5Hash"),
    *("LastModified", "Last-Modified", "last_modified", "updated", "created"),
)

Item = TypeVar("Item")
Result = TypeVar("Result")


# ---- addresses -------------------------------------------------------------------------------------------------------


def location(text: str) -> Path | str:
    """A path, or the address of something on a storage as it stands: a Path would make one slash of two.

    >>> location("data/clean"), location("file:///data/clean"), location("s3://bucket/clean/")
    (PosixPath('data/clean'), PosixPath('/data/clean'), 's3://bucket/clean')
    """
    here = text.removeprefix("file://")
    return re.sub("(?<![:/])/+$", "", text) if "://" in here else Path(here)


def is_remote(place: Path | str) -> TypeGuard[str]:
    """Whether it is an address and no path.

    >>> is_remote("s3://bucket/clean"), is_remote(Path("data/clean"))
    (True, False)
    """
    return isinstance(place, str)


class Place(NamedTuple):
    """A file or folder of a storage."""

    address: str  # as messages name it
    files: Any  # fsspec.AbstractFileSystem
    root: str  # where it lies there

    def path(self, name: str) -> str:
        return f"{self.root}/{name}"


def open_place(address: str, storage: Options) -> Place:
    """The place that an address names. Nothing is asked of the storage yet, but for what its client wants to know.

    Raises UserError for a storage that is not known or not installed, and for an address that names nothing in it.
    """
    seen = shown(address)
    if "*" in address:
        raise UserError(f"{seen}: name a folder or a file; patterns are for `sources` in params.yaml")
    with storage_errors(address):
        files, root = connect(address, options_for(address, storage))
    if not root.strip("/") or not is_inside(PurePosixPath(seen).name):
        raise UserError(f"{seen} names nothing: write it as s3://bucket/folder")
    return Place(seen, files, root.rstrip("/"))


def with_addresses(text: str, home: Path = HOME) -> str:
    """A message that names addresses where it named their mirrors below `home`, none of them with a secret in it."""
    text = without_secrets(text)
    if "/remote/" not in text:
        return text
    text = text.replace(f"{home.resolve()}/", f"{home}/")

    def address_of(found: re.Match[str]) -> str:
        about = _about(Path(found[0]))
        return about.read_text("utf-8") if about.is_file() else found[0]

    return re.sub(rf"{re.escape(str(home))}/remote/[0-9a-f]{{32}}/", address_of, text)


# ---- what lies there -------------------------------------------------------------------------------------------------


class Stored(NamedTuple):
    """A file of a published folder: the object that holds it, and what is in it."""

    object: str
    size: int
    digest: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """All that a published folder is: the stage that wrote it, and its files by name."""

    stage: str
    publication: str  # differs between any two
    files: dict[str, Stored]

    def encode(self, **more: Any) -> bytes:
        files = {name: stored._asdict() for name, stored in sorted(self.files.items())}
        whole = {"corpusmill": FORMAT, "stage": self.stage, "publication": self.publication, "files": files} | more
        return json.dumps(whole, indent=1, ensure_ascii=False).encode()


_BEGINNING = b'{\n "corpusmill"'  # of what `encode` writes


class Damaged(UserError):
    """A manifest that is ours and cannot be read."""

    def __init__(self, address: str) -> None:
        super().__init__(
            f"{address}/{MANIFEST} is damaged: put a former version of it there, or empty the folder and publish again"
        )


def decode_manifest(data: bytes, address: str) -> Manifest | None:
    """The manifest in a file, or None where the file is somebody else's.

    Raises UserError where it was written by a newer corpusmill, or is damaged (Damaged), or names files outside of its
    folder.
    """
    try:
        tree = json.loads(data)
    except ValueError:
        if not data or not data.startswith(_BEGINNING[: len(data)]):
            return None
        raise Damaged(address) from None
    if not isinstance(tree, dict) or "corpusmill" not in tree:
        return None
    if tree["corpusmill"] != FORMAT:
        raise UserError(f"{address}/{MANIFEST} is of another corpusmill (format {tree['corpusmill']}): update this one")
    try:
        files = {
            str(name): Stored(str(one["object"]), int(one["size"]), str(one["digest"]))
            for name, one in tree["files"].items()
        }
        manifest = Manifest(str(tree["stage"]), str(tree["publication"]), files)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Damaged(address) from None
    for name, stored in files.items():
        if not (is_inside(name) and is_inside(stored.object) and re.fullmatch("[0-9a-f]{32}", stored.digest)):
            raise UserError(f"{address}/{MANIFEST} names {name!r}, which is no file of a folder: do not use it")
    return manifest


def is_inside(name: str) -> bool:
    """Whether a name stays in its folder when it is appended to that: storages take any name.

    >>> is_inside("train/part-0.parquet"), is_inside("../x"), is_inside("/etc/x"), is_inside("a//b")
    (True, False, False, False)
    """
    return "\0" not in name and all(part not in ("", ".", "..") for part in name.split("/"))


def read_manifest(place: Place) -> bytes:
    """The bytes of a folder's manifest; none where there is no such file. Raises UserError for an empty one."""
    try:
        if data := bytes(place.files.cat_file(place.path(MANIFEST))):
            return data
        raise Damaged(place.address)
    except FileNotFoundError as error:
        if not is_missing(error):
            raise
        return b""


def stamp_of(info: Mapping[str, Any]) -> str:
    """What a storage tells of a file's state; empty where that is nothing. Some give a time in two ways."""
    value = next((info[key] for key in STAMPS if info.get(key) is not None), "")
    return str(value.timestamp() if isinstance(value, datetime.datetime) else value)


def list_objects(place: Place) -> dict[str, Mapping[str, Any]]:
    """What a storage says of each file in a folder, by name; empty where there is no such folder."""
    return {name: info for name, info in _list_all(place).items() if info["type"] == "file"}


def _list_all(place: Place) -> dict[str, Mapping[str, Any]]:
    """The same of links and the like, which some storages have beside files."""
    place.files.invalidate_cache()
    found = place.files.find(place.root, detail=True)
    below = {path[len(place.root) :].lstrip("/"): info for path, info in found.items()}
    # Consoles make empty objects for folders.
    return {name: info for name, info in below.items() if name and not name.endswith("/")}


# ---- fetching --------------------------------------------------------------------------------------------------------


class _Wanted(NamedTuple):
    """A file to fetch."""

    name: str  # in the mirror
    path: str  # on the storage
    size: int | None  # None: the storage does not say
    digest: str | None  # None: the file is no stage's
    stamp: str = ""  # of such a file; empty: the storage does not say

    def key(self, place: Place) -> str | None:
        """What its content is kept by; None: that is known only when it has been fetched."""
        if self.digest:
            return self.digest
        if not self.stamp:
            return None
        return digest_of(f"{place.address}\0{place.files.to_json()}\0{self.path}\0{self.size}\0{self.stamp}")


class Missing(UserError):
    """Nothing is at an address."""


class _Gone(Exception):
    """An object that was named or listed is not there."""


def fetch(address: str, storage: Options, home: Path = HOME) -> Path:
    """Mirror what lies at an address, a folder or a file, and return where the mirror is.

    Of a published folder, or of a folder or file in one, one state: if another run publishes meanwhile, the new one.
    Raises UserError where there is nothing (Missing), the storage refuses, or a file has not the size and content that
    the manifest says.
    """
    place = open_place(address, storage)
    with storage_errors(place.address):
        published, data = nearest_manifest(place)
        while True:
            manifest = decode_manifest(data, published.address)
            wanted = _published(place, published, manifest) if manifest else _listed(place)
            try:
                return _mirror(place, wanted, home)
            except _Gone as gone:
                former, data = data, read_manifest(published)
                if data == former:
                    why = f"though {MANIFEST} names it: publish the folder again" if manifest else "though it just was"
                    raise UserError(f"{place.address}: {gone} is not there, {why}") from None


def fetch_folders(address: str, names: Iterable[str], storage: Options, home: Path = HOME) -> Path:
    """Mirror those folders of a folder that are there, each as it was published, side by side.

    Raises UserError as `fetch` does, and where there is none of them.
    """
    found: dict[str, Path] = {}
    for name in names:
        with contextlib.suppress(Missing):
            found[name] = fetch(f"{address}/{name}", storage, home)
    if not found:
        seen = shown(address)
        raise Missing(f"{seen} holds no stage's folder: name the folder that {seen}/clean would be in")
    said = {name: str(path) for name, path in found.items()}
    with _folder_once(home, digest_of(json.dumps(["folders", address, said])), address) as (folder, building):
        for name, path in found.items():
            link = building / name
            if link.resolve() != path.resolve():
                link.parent.mkdir(parents=True, exist_ok=True)
                fresh = own_partial(link)
                # From where it will lie, and not absolute: so that they can all be moved together.
                fresh.symlink_to(os.path.relpath(path.resolve(), (folder / name).parent.resolve()))
                fresh.replace(link)
    return folder


def nearest_manifest(place: Place) -> tuple[Place, bytes]:
    """The folder, this or one that it is in, that has a stage's manifest, and the manifest; else this, without one."""
    if "?" in place.root:
        return place, b""
    if decode_manifest(data := read_manifest(place), place.address):
        return place, data
    above = place
    while place.address.partition("://")[0] not in ("http", "https") and "/" in above.root.strip("/"):
        above = Place(above.address.rpartition("/")[0], place.files, above.root.rpartition("/")[0])
        with contextlib.suppress(PermissionError):  # one may read here and not there
            if decode_manifest(data := read_manifest(above), above.address):
                return above, data
    return place, b""


def _published(place: Place, published: Place, manifest: Manifest) -> list[_Wanted]:
    """Of a published folder, the files in a place that is the folder itself or something in it."""
    below = place.root[len(published.root) :].lstrip("/")
    found = [
        _Wanted(name.removeprefix(below).lstrip("/"), published.path(stored.object), stored.size, stored.digest)
        for name, stored in manifest.files.items()
        if not below or name == below or name.startswith(f"{below}/")
    ]
    if not found and below:
        raise Missing(f"{place.address} does not exist: {published.address}/{MANIFEST} names no such file or folder")
    return found


def _listed(place: Place) -> list[_Wanted]:
    """A file, or the files in a folder that no stage published."""
    try:
        found = {"": place.files.info(place.root)}
        if found[""]["type"] == "directory":
            found = dict(_list_all(place))
    except FileNotFoundError as error:
        if not is_missing(error):
            raise
        found = {}
    if not found:
        raise Missing(f"{place.address} does not exist: name a folder or file that is there, or publish it first")
    for name in found:
        if name.startswith(DRAFTS):
            raise UserError(f"{place.address} is not published yet: wait for the run that does, or run it again")
        if name and not is_inside(name):
            raise UserError(f"{place.address} holds {name!r}, which can be no file here: rename it")
        if name and (found[name]["type"] != "file" or found[name].get("islink")):
            raise UserError(f"{place.address} holds {name}, a link or no file at all: put the file itself there")
        for above in map(str, PurePosixPath(name).parents):
            if above in found:
                raise UserError(f"{place.address} holds {above} and {name}: here one is a folder, rename the other")
    return [
        _Wanted(name, place.path(name) if name else place.root, info.get("size"), None, stamp_of(info))
        for name, info in sorted(found.items())
    ]


def _mirror(place: Place, wanted: list[_Wanted], home: Path) -> Path:
    """A folder of links to the contents of files, which are kept once each in `home`/remote/objects."""
    objects = home / "remote" / "objects"
    objects.mkdir(parents=True, exist_ok=True)
    keys = in_threads(lambda one: _content(place, one, objects), wanted, f"fetch {place.address}")
    names = [(one.name, key) for one, key in zip(wanted, keys, strict=True)]
    view = digest_of(json.dumps(["mirror", place.address, names]))
    with _folder_once(home, view, place.address) as (folder, building):
        for name, key in names:
            target = building / name if name else building
            if not _is_same(target, objects / key):
                target.parent.mkdir(parents=True, exist_ok=True)
                _put(objects / key, target)
    return folder


@contextlib.contextmanager
def _folder_once(home: Path, view: str, address: str) -> Iterator[tuple[Path, Path]]:
    """Where the mirror of an address lies, and where to build it: it comes there when whole. One that is there is only
    to be mended."""
    last = PurePosixPath(address).name
    folder = home / "remote" / view
    if folder.exists():
        if not _about(folder).exists():
            write_address(folder, address)
        yield folder / last, folder / last
        return
    with tempfile.TemporaryDirectory(prefix=".", suffix=".partial", dir=folder.parent) as work:
        partial = Path(work) / view
        partial.mkdir()
        write_address(partial, address)
        yield folder / last, partial / last
        with contextlib.suppress(OSError):  # another run was faster: its mirror is the same
            partial.rename(folder)


def _content(place: Place, wanted: _Wanted, objects: Path) -> str:
    """Fetch a file, unless its content is here, and return the content's key. Raises _Gone, and UserError if it differs
    from what was announced."""
    key = wanted.key(place)
    if key and _is_whole(objects / key, wanted):
        return key
    with tempfile.NamedTemporaryFile(dir=objects, prefix=".", suffix=".partial") as file:
        partial = Path(file.name)
        try:
            place.files.get_file(wanted.path, str(partial))
        except FileNotFoundError as error:
            if not is_missing(error):
                raise
            raise _Gone(PurePosixPath(wanted.path).name) from None
        size, digest = partial.stat().st_size, file_digest(partial)
        seen = f"{place.address}/{wanted.name}".rstrip("/")
        if wanted.size is not None and size != wanted.size:
            raise UserError(f"{seen} came with {size:,} bytes, not {wanted.size:,}: it was cut or replaced there")
        if wanted.digest and digest != wanted.digest:
            raise UserError(f"{seen} is not what was published, though as long: remove it and run its stage again")
        if wanted.stamp and stamp_of(place.files.info(wanted.path)) != wanted.stamp:
            raise UserError(f"{seen} changed while it was fetched: run this again when nobody writes there")
        key = key or digest
        _put(partial, objects / key)
    return key


def _is_whole(kept: Path, wanted: _Wanted) -> bool:
    """Whether a content that was fetched before is here, as long as it was, and with the digest that is known of it."""
    if not kept.is_file() or kept.stat().st_size != (kept.stat().st_size if wanted.size is None else wanted.size):
        return False
    return not wanted.digest or file_digest(kept) == wanted.digest


def _is_same(one: Path, other: Path) -> bool:
    """Whether two places hold one file, or files with the same content."""
    if not one.is_file():
        return False
    same_size = one.stat().st_size == other.stat().st_size
    return one.samefile(other) or (same_size and file_digest(one) == file_digest(other))


def keep(source: Path, target: Path) -> None:
    """Link a file to where contents are kept; what is there already, as long as it, is the same."""
    if not target.exists() or target.stat().st_size != source.stat().st_size:
        _put(source, target)


def _put(source: Path, target: Path) -> None:
    """Link a file to a place, whole or not at all."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".", suffix=".partial") as folder:
        link(source, Path(folder) / "file")
        (Path(folder) / "file").replace(target)


def write_address(folder: Path, address: str) -> None:
    """Note in the folder of a mirror what the beginning of its path stands for in messages."""
    seen = shown(address)
    _about(folder).write_text(seen[: -len(PurePosixPath(seen).name)], "utf-8")


def _about(folder: Path) -> Path:
    """Where that is noted: under the folder's own name, a digest of what lies there, which that cannot have."""
    return folder / folder.name


def in_threads(function: Callable[[Item], Result], items: Iterable[Item], shown: str) -> list[Result]:
    """The results for all items, some TRANSFERS at a time; after the first failure nothing new is begun."""
    from corpus.progress import progress

    items = list(items)
    with ThreadPoolExecutor(TRANSFERS) as pool:
        running = [pool.submit(function, item) for item in items]
        try:
            return [one.result() for one in progress(running, desc=shown, unit="file")]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
