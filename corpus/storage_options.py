"""How storages are reached: the options of fsspec that params.yaml has for them."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Any, cast

from corpus.errors import UserError

_OF_ALL_STORAGES = ("use_listings_cache", "listings_expiry_time", "max_paths", "skip_instance_cache", "batch_size")
_COLLECTING = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

Options = Mapping[str, Mapping[str, Any]]  # of fsspec, by protocol: {"s3": {"endpoint_url": …}}


def options_for(address: str, storage: Options) -> dict[str, Any]:
    """The options of `storage` in params.yaml that go with an address.

    >>> options_for("s3://bucket/clean", {"s3": {"anon": True}, "gs": {"token": "anon"}})
    {'anon': True}
    """
    return dict(storage.get(address.partition("://")[0], {}))


def refuse_memory(what: str, address: str) -> None:
    """Raises UserError for an address in memory: what a process keeps there is lost with it, and no other has it."""
    if address.startswith("memory://"):
        raise UserError(f"{what}: each process has a memory of its own: name a folder, or a storage such as s3://")


def connect(address: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    """The storage of an address as fsspec has it, and where that is in it.

    Raises UserError for options that nearly are one of its own, and whatever its client raises.
    """
    import fsspec

    protocol = address.partition("://")[0]
    if options and "::" not in address:
        refuse_unknown_options(fsspec.get_filesystem_class(protocol), protocol, options)
    return cast("tuple[Any, str]", fsspec.core.url_to_fs(address, **options))


def refuse_unknown_options(storage: type, protocol: str, options: Mapping[str, Any]) -> None:
    """Raises UserError for an option that a storage does not name, but for one letter or two.

    Others may be for what it is built on, which most hand on whatever they do not know.
    """
    known = set(_OF_ALL_STORAGES)
    for one in storage.__mro__:
        parameters = inspect.signature(one.__init__).parameters.values()  # type: ignore[misc]
        known |= {parameter.name for parameter in parameters if parameter.kind not in _COLLECTING}
    for name in options:
        near = difflib.get_close_matches(name, known - {"self"}, n=1, cutoff=0.8)
        if name not in known and near:
            raise UserError(f"storage: {name} is no option of {protocol}://: did you mean {near[0]}?")
