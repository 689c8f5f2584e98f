"""What storages' clients raise, as one sentence each: each of them has exceptions of its own."""

from __future__ import annotations

import contextlib
import errno
import re
import socket
from collections.abc import Iterator

from corpus.errors import StageError, UserError

_ADDRESS = re.compile(
    r"""(?P<scheme>[A-Za-z][\w+.-]*)://(?P<user>[^\s/?#'"]*@)?(?P<path>[^\s?'"]*)(?P<query>\?[^\s'")]*[^\s'"):,;.])?"""
)
_SIGNED = re.compile(r"(?i)[?&;][\w-]*(sig|signature|token|credential|key|secret|password)=")
_CONTAINERS = ("abfs", "abfss", "wasb", "wasbs")  # there `container@account` is a place
_UNREACHABLE = {  # what clients call it, beside Python's own names
    *("EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError", "HTTPClientError"),
    *("ClientConnectionError", "ClientPayloadError", "FSTimeoutError", "ServiceRequestError", "ServiceResponseError"),
    *("RequestException", "TransportError", "MaxRetryError", "LocalEntryNotFoundError"),
}
_NO_ROUTE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTDOWN)


def shown(text: str) -> str:
    """A text with its addresses as they may be seen: without user, password and query, which may be a signature.

    >>> shown("https://me:pw@host/a.jsonl?sig=x1: does not exist"), shown("s3://bucket/a")
    ('https://host/a.jsonl: does not exist', 's3://bucket/a')
    """
    return _ADDRESS.sub(lambda found: f"{found['scheme']}://{_place(found)}", text)


def without_secrets(text: str) -> str:
    """A text whose addresses keep their queries, as pages of the web have them, unless those are signatures.

    >>> without_secrets("http://host/topic?key2=for, https://host/a?X-Amz-Signature=x1")
    'http://host/topic?key2=for, https://host/a'
    """

    def replaced(found: re.Match[str]) -> str:
        query = found["query"] or ""
        return f"{found['scheme']}://{_place(found)}{'' if _SIGNED.search(query) else query}"

    return _ADDRESS.sub(replaced, text)


def _place(found: re.Match[str]) -> str:
    user = found["user"] if found["scheme"] in _CONTAINERS else ""
    return f"{user or ''}{found['path']}"


@contextlib.contextmanager
def storage_errors(address: str) -> Iterator[None]:
    """Turn whatever a storage's client raises into one sentence."""
    try:
        yield
    except (UserError, StageError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise  # this machine's disk
        raise refusal(error, shown(address), address.partition("://")[0]) from None


def refusal(error: Exception, what: str, protocol: str) -> UserError | StageError:
    """The error of a storage's client as the user's mistake, or where nobody answers as nobody's."""
    kind = StageError if is_unreachable(error) else UserError
    return kind(f"{what}: {reason(error, protocol)}")


def reason(error: Exception, protocol: str) -> str:
    """What a storage said, and what would be right."""
    said = shown(" ".join(str(error).split()))[:300] or type(error).__name__
    if isinstance(error, ImportError):
        package = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}.get(protocol)
        return f"{said} (pip install {package})" if package else said
    if "Protocol not known" in said:
        return "no storage goes by that name: write s3://, gs:// or another that fsspec knows"
    if "Credential" in type(error).__name__:
        variables = {"s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", "gs": "GOOGLE_APPLICATION_CREDENTIALS"}
        return (
            f"no credentials ({said}): set {variables.get(protocol, 'them')} in the environment, or for public data "
            f"`storage: {{{protocol}: {{anon: true}}}}` in params.yaml"
        )
    if is_unreachable(error):
        cause = next(one for one in _causes(error) if _is_unreachable(one))
        said = shown(" ".join(str(cause).split()))[:300] or type(cause).__name__
        return f"no answer ({said}): run again when the storage can be reached, or correct its address"
    if isinstance(error, PermissionError):
        return f"denied ({said}): the credentials in the environment need the right to list, read and write there"
    if no_bucket(error):
        return f"no such bucket ({said}): create it, or correct the address"
    if isinstance(error, FileNotFoundError):
        return "does not exist: name a folder or file that is there"
    if isinstance(error, NotImplementedError):
        return "this storage can be read only: name another"
    return f"{said}; `storage` in params.yaml has the storage's options, such as {{s3: {{endpoint_url: …}}}}"


def no_bucket(error: BaseException) -> bool:
    """Whether a storage's client says that not even the bucket exists."""
    return type(error.__cause__).__name__ == "NoSuchBucket" or "bucket does not exist" in str(error)


def is_missing(error: FileNotFoundError) -> bool:
    """Whether a file is not there; clients say so of a bucket, too, and of a server that does not answer."""
    return not no_bucket(error) and not is_unreachable(error)


def is_unreachable(error: BaseException) -> bool:
    """Whether an error, or one that it came of, says that a server cannot be reached, or cannot answer just now.

    >>> is_unreachable(TimeoutError()), is_unreachable(FileNotFoundError())
    (True, False)
    """
    return any(map(_is_unreachable, _causes(error)))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _is_unreachable(error: BaseException) -> bool:
    response = getattr(error, "response", None)
    answer = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
    status = answer.get("HTTPStatusCode") or getattr(error, "status", None) or getattr(error, "code", None)
    if isinstance(status, int):
        return status >= 500 or status == 429
    return (
        isinstance(error, ConnectionError | TimeoutError | socket.gaierror)
        or (isinstance(error, OSError) and error.errno in _NO_ROUTE)
        or not _UNREACHABLE.isdisjoint(one.__name__ for one in type(error).__mro__)
    )
