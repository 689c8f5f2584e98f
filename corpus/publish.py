"""Outputs on object storage: a folder that a stage wrote here goes there so that readers see it whole or not at all.

Objects never change. A publication puts new files beside the former ones, under names of its own, such as
`part-0.1a2b3c4d.parquet`, and then replaces `manifest.json`, which says what the folder is. Only then does what the
manifest no longer names go. What a publication is about to write stands in `.publishing/` first, so that the remains of
a killed one are known for ours: the next one takes over what it can use and removes the rest.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from corpus.errors import UserError
from corpus.files import digest_of, file_digest
from corpus.storage import (
    DRAFTS,
    HOME,
    MANIFEST,
    Damaged,
    Manifest,
    Place,
    Stored,
    decode_manifest,
    in_threads,
    keep,
    list_objects,
    nearest_manifest,
    open_place,
    read_manifest,
    write_address,
)
from corpus.storage_errors import is_missing, reason, storage_errors
from corpus.storage_options import Options


class Target(NamedTuple):
    """Where a folder will be published, and the manifest that was there when its run began."""

    place: Place
    stage: str
    base: bytes  # empty: none
    named: bool  # whether objects get names of their own; in a new folder they can be called like the files


class _Draft(NamedTuple):
    """What a publication is about to write: it may be under way, killed, or done but for what it replaced."""

    name: str
    base: str  # digest of the manifest that it means to replace
    files: dict[str, Stored]
    former: list[str]  # objects of that manifest


def output_folder(address: str, stage: str, home: Path = HOME) -> Path:
    """The folder here that a stage writes before it is published; the same each time."""
    folder = home / "remote" / digest_of(json.dumps(["output", address, stage]))
    folder.mkdir(parents=True, exist_ok=True)
    write_address(folder, address)
    return folder / PurePosixPath(address).name


def open_target(address: str, stage: str, storage: Options, new: bool = False) -> Target:
    """The place of an output, tried before any work is done for it.

    Raises UserError where it cannot be written, holds what another stage or nobody of ours published, or, if it has to
    be `new`, anything that was published.
    """
    place = open_place(address, storage)
    if address.partition("://")[0] in ("http", "https"):
        raise UserError(f"{place.address}: a web server can be read only: write to s3://, gs:// or a folder here")
    with storage_errors(place.address):
        published, base = nearest_manifest(place)
        if published != place:
            raise UserError(f"{place.address} lies in {published.address}, which a stage published: name another")
        manifest = decode_manifest(base, place.address) if base else None
        listed = list_objects(place)
        drafts = _drafts(place, listed)
        refuse_foreign(place, manifest, listed, drafts)
        if manifest and (new or manifest.stage != stage):
            raise UserError(f"{place.address} holds what {manifest.stage} wrote: name a new or empty folder")
        probe = f"{DRAFTS}probe-{secrets.token_hex(4)}"
        place.files.pipe_file(place.path(probe), b"")
        _remove(place, probe)
    return Target(place, stage, base, not new)


def refuse_foreign(place: Place, manifest: Manifest | None, listed: Mapping[str, Any], drafts: list[_Draft]) -> None:
    """Raises UserError for files that no publication wrote: nobody else's file is replaced, or mixed with ours."""
    ours = {stored.object for stored in manifest.files.values()} | {MANIFEST} if manifest else set()
    ours |= {name for draft in drafts for name in _objects(draft)}
    others = sorted(name for name in listed if name not in ours and not name.startswith(DRAFTS))
    if others:
        raise UserError(
            f"{place.address} holds files that no stage published, such as {others[0]}: name a new or empty folder"
        )


def publish(folder: Path, target: Target, home: Path = HOME) -> None:
    """Put a folder's files in the place of what was published there; readers see the former files or all of these.

    Files that did not change stay where they are, and those that a killed publication has brought there count. Raises
    UserError where another run published since `open_target`, where the storage refuses, and where files went missing.
    """
    place = target.place
    with storage_errors(place.address):
        refuse_changed(target, read_manifest(place))
        former = decode_manifest(target.base, place.address) if target.base else None
        listed = list_objects(place)
        drafts = _drafts(place, listed)
        refuse_foreign(place, former, listed, drafts)
        there = _usable(former, drafts, digest_of_manifest(target.base), listed)
        publication = secrets.token_hex(4)
        files: dict[str, Stored] = {}
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            name, size, digest = path.relative_to(folder).as_posix(), path.stat().st_size, file_digest(path)
            object = own_name(name, publication) if target.named else name
            files[name] = there.get((name, size, digest)) or Stored(object, size, digest)
        manifest = Manifest(target.stage, publication, files)
        if not former or former.files != files:
            try:
                _put_files(place, folder, manifest, former, digest_of_manifest(target.base), set(there.values()))
                put_manifest(target, manifest.encode())
            except Exception as error:
                # Another run's tidying takes objects of this one: what is missing then says the same.
                if not isinstance(error, Overtaken) and read_manifest(place) == target.base:
                    raise
                _clean_up(place, files)
                raise UserError(_overtaken(place)) from None
        _keep_contents(folder, files, home)
        _check_whole(place, files)
    try:
        _clean_up(place, {})
    except Exception as error:
        said = reason(error, place.address.partition("://")[0])
        raise UserError(f"{place.address} is published, but not all former files could be removed: {said}") from None


def own_name(name: str, publication: str) -> str:
    """The name of the object that holds a file.

    >>> own_name("train/part-0.parquet", "1a2b3c4d"), own_name(".stage", "1a2b3c4d")
    ('train/part-0.1a2b3c4d.parquet', '.stage.1a2b3c4d')
    """
    path = PurePosixPath(name)
    return path.with_name(f"{path.stem}.{publication}{path.suffix}").as_posix()


def digest_of_manifest(data: bytes) -> str:
    return digest_of(data.decode("utf-8", "replace"))


def refuse_changed(target: Target, found: bytes) -> None:
    """Raises UserError where the manifest is no longer the one that was there when the run began."""
    if found != target.base:
        raise UserError(_overtaken(target.place))


def _overtaken(place: Place) -> str:
    return f"{place.address} was published by another run meanwhile, which stays: run this again to replace it"


# ---- drafts ----------------------------------------------------------------------------------------------------------


def _drafts(place: Place, listed: Mapping[str, Any]) -> list[_Draft]:
    """What publications are about to write, or were when they were killed."""
    return [draft for name in listed if name.startswith(DRAFTS) and (draft := _read_draft(place, name))]


def _read_draft(place: Place, name: str) -> _Draft | None:
    try:
        data = bytes(place.files.cat_file(place.path(name)))
    except FileNotFoundError:  # done meanwhile
        return None
    try:
        manifest = decode_manifest(data, f"{place.address}/{name}")
    except Damaged:  # its writer was killed before it had written anything else
        manifest = None
    if manifest is None:
        return _Draft(name, "", {}, [])
    tree = json.loads(data)
    return _Draft(name, str(tree.get("base")), manifest.files, [str(one) for one in tree.get("former", [])])


def _objects(draft: _Draft) -> set[str]:
    return {stored.object for stored in draft.files.values()} | set(draft.former)


def _usable(
    former: Manifest | None, drafts: list[_Draft], base: str, listed: Mapping[str, Any]
) -> dict[tuple[str, int, str], Stored]:
    """Objects that are there already, by the name, size and digest of the file they hold.

    Of drafts only those that mean to replace the manifest as it is: all others' objects are removed by somebody.
    """
    known = [draft.files for draft in drafts if draft.base == base] + ([former.files] if former else [])
    return {
        (name, stored.size, stored.digest): stored
        for files in known
        for name, stored in files.items()
        if stored.object in listed and listed[stored.object].get("size") == stored.size
    }


# ---- what is written -------------------------------------------------------------------------------------------------


def _put_files(
    place: Place, folder: Path, manifest: Manifest, former: Manifest | None, base: str, there: set[Stored]
) -> None:
    """Put what is not there already, and say before what it will be."""
    replaced = sorted(stored.object for stored in former.files.values()) if former else []
    draft = manifest.encode(base=base, former=replaced)
    place.files.pipe_file(place.path(f"{DRAFTS}{manifest.publication}.json"), draft)
    todo = [(name, stored) for name, stored in manifest.files.items() if stored not in there]

    def put(item: tuple[str, Stored]) -> None:
        name, stored = item
        place.files.put_file(str(folder / name), place.path(stored.object))

    in_threads(put, todo, f"publish {place.address}")
    _check_whole(place, manifest.files)


def _check_whole(place: Place, files: Mapping[str, Stored]) -> None:
    """Raises UserError unless the storage has all objects, of the right size."""
    listed = list_objects(place)
    for stored in files.values():
        size = listed[stored.object].get("size") if stored.object in listed else None
        if size != stored.size:
            said = "is not there" if size is None else f"has {size:,} bytes, not {stored.size:,}"
            raise UserError(f"{place.address}/{stored.object} {said}, though it was just written: run this again")


class Overtaken(Exception):
    """Another run's manifest is there."""


def put_manifest(target: Target, data: bytes) -> None:
    """Replace the manifest, if it still is the one that was there when the run began. Raises Overtaken.

    S3 decides that itself (If-Match, If-None-Match). Other storages are asked just before, and whether a first manifest
    can be created decides some of them.
    """
    place = target.place
    path = place.path(MANIFEST)
    place.files.invalidate_cache()
    try:  # the tag first: if it is of a later manifest, that is seen when this one is read
        tag = place.files.info(path).get("ETag") if target.base else None
    except FileNotFoundError:
        raise Overtaken from None
    if read_manifest(place) != target.base:
        raise Overtaken
    try:
        if hasattr(place.files, "call_s3"):
            bucket, key, _ = place.files.split_path(path)
            condition = {"IfMatch": tag} if tag else {"IfNoneMatch": "*"}
            place.files.call_s3("put_object", Bucket=bucket, Key=key, Body=data, **condition)
        else:
            place.files.pipe_file(path, data, **({} if target.base else {"mode": "create"}))
    except Exception as error:
        # A request whose answer was lost is repeated, and then refused because of itself.
        if read_manifest(place) == data:
            return
        if isinstance(error, FileExistsError) or _code(error) in ("PreconditionFailed", "ConditionalRequestConflict"):
            raise Overtaken from None
        if _code(error) != "NotImplemented":
            raise
        place.files.pipe_file(path, data)  # an S3 of somebody else's, without conditions: it was asked just before


def _code(error: BaseException) -> str:
    """What S3 calls an error."""
    response = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def _clean_up(place: Place, own: Mapping[str, Stored]) -> None:
    """Remove what the manifest does not name, of publications that can no longer succeed: they meant to replace another
    than the one that is there. `own` are the objects of a publication that failed, whose draft may be gone."""
    current = read_manifest(place)
    manifest = decode_manifest(current, place.address) if current else None
    named = {stored.object for stored in manifest.files.values()} if manifest else set()
    listed = list_objects(place)
    dead = [draft for draft in _drafts(place, listed) if draft.base != digest_of_manifest(current)]
    objects = {name for draft in dead for name in _objects(draft)} | {stored.object for stored in own.values()}
    in_threads(lambda name: _remove(place, name), sorted((objects & set(listed)) - named), "tidy up")
    for draft in dead:  # last: as long as it is there, what is left is known
        _remove(place, draft.name)


def _remove(place: Place, name: str) -> None:
    try:
        place.files.rm_file(place.path(name))
    except FileNotFoundError as error:  # another run was faster
        if not is_missing(error):
            raise


def _keep_contents(folder: Path, files: Mapping[str, Stored], home: Path) -> None:
    """Keep what was published as if it had been fetched: the next stage reads it from here."""
    objects = home / "remote" / "objects"
    objects.mkdir(parents=True, exist_ok=True)
    for name, stored in files.items():
        keep(folder / name, objects / stored.digest)
