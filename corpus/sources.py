"""Where documents come from: the kinds of source that params.yaml can name, as typed sections."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(gt=0, lt=2**63)]
Seconds = Annotated[float, Field(ge=0, le=86_400)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")]  # becomes part of file names


def _is_regex(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return pattern


def _is_selector(selector: str) -> str:
    import soupsieve  # with its parsers 9 MB, and most runs have no selector

    try:
        soupsieve.compile(selector)
    except soupsieve.SelectorSyntaxError as error:
        raise ValueError(f"not a CSS selector: {str(error).splitlines()[0]}") from None
    return selector


_SECRET = {
    *("key", "secret", "password", "account_key", "sas_token", "connection_string", "username", "secret_key"),
    *("passphrase", "access_key", "aws_access_key_id", "aws_secret_access_key", "aws_session_token", "token"),
    *("access_token", "session_token", "api_key", "passwd", "credential", "credentials", "client_secret"),
    *("authorization", "private_key", "pat"),
}
# Ways of gcsfs to find a token, which are none; and a file that holds one.
_NO_TOKEN = re.compile(r"anon|browser|cache|cloud|google_default|.*\.json")
_WITH_PASSWORD = re.compile("://[^/?#@]*:[^/?#@]*@")


def without_secrets(options: dict[str, Any]) -> dict[str, Any]:
    """Options of a storage as they are. Raises ValueError for a secret among them, at whatever depth."""
    for name in sorted(_secrets_in(options)):
        raise ValueError(f"`{name}` is a secret, and this file is shared: put it in the environment")
    return options


def _secrets_in(options: Mapping[str, Any]) -> Iterator[str]:
    """The keys of nested dictionaries that hold secrets."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _secrets_in(value)
        said = value if isinstance(value, str) else ""
        is_token = str(name).lower() in _SECRET and not (name == "token" and _NO_TOKEN.fullmatch(said))
        if is_token or _WITH_PASSWORD.search(said):
            yield str(name)


def _is_protocol(name: str) -> str:
    """A name that fsspec knows. To import it takes a moment, and most files name no storage."""
    import fsspec

    known = fsspec.available_protocols()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else "write s3, gs or another that fsspec knows"
        raise ValueError(f"{name} is no storage: {hint}")
    return name


Regex = Annotated[str, AfterValidator(_is_regex)]
Selector = Annotated[str, AfterValidator(_is_selector)]
Tag = Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}([-_][A-Za-z0-9]{1,8})*$")]  # BCP 47: en, zh-Hans, pt-BR
# A path here or on object storage (`s3://bucket/folder`, as fsspec has it), or a pattern with *. A string: a Path would
# make one slash of two.
Location = Annotated[str, Field(min_length=1)]
Protocol = Annotated[str, Field(pattern=r"^[a-z][a-z0-9+.-]*$"), AfterValidator(_is_protocol)]  # s3, gs
StorageOptions = Annotated[dict[str, Any], AfterValidator(without_secrets)]  # fsspec's


class Section(BaseModel):
    """A section of params.yaml: unknown keys are refused, values are fixed once read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Rules(Section):
    """CSS rules for one site's layout, used by `clean` instead of an extractor."""

    keep: list[Selector] = []  # of the elements that hold the text
    drop: list[Selector] = []  # of what to leave out of them
    title: Selector | None = None
    drop_text: list[Regex] = []  # matching lines are left out


class Source(Section):
    """Where documents come from; `kind` says what else there is to say."""

    name: Name
    batch: Annotated[int, Field(ge=0)] = 0  # the import it came with; earlier batches win ties between duplicates
    licence: str | None = None
    lang: Tag | None = None  # set where the language is known; otherwise it is detected
    rules: Rules | None = None


class WebSource(Source):
    """Pages fetched from the web, one host at a time in its own rhythm."""

    delay_s: Seconds = 1.0  # between two requests to one host; robots.txt may ask for more
    connections: Annotated[int, Field(gt=0, le=64)] = 1  # requests under way at once to one host
    max_bytes: Positive = 2_000_000
    private_addresses: bool = False  # loopback and private networks; implied for what `serve` serves
    scrub: list[Regex] = []  # matches are cut out of each page: what differs between fetches or machines
    soft_error: Regex | None = None  # a page that matches is an error, though the server answers 200


class SiteSource(WebSource):
    """A web site, crawled politely from its start pages and sitemaps."""

    kind: Literal["site"]
    start: list[str] = []
    sitemaps: list[str] = []  # addresses of sitemaps or of their indexes; `robots`: those that robots.txt names
    serve: list[str] | None = None  # command that serves the site here while it is crawled; {port} is a free port
    public_base: str | None = Field(None, alias="as")  # base of the documents' URLs instead of the one crawled
    allow: list[Regex] = []  # on the path and query; empty: everything
    deny: list[Regex] = []
    max_pages: Positive = 10_000
    max_depth: Annotated[int, Field(ge=0)] = 10  # links from a start page
    max_variants: Positive = 1_000  # addresses of one path that differ in their query, or in a date at its end

    @model_validator(mode="after")
    def _starts_somewhere(self) -> SiteSource:
        if not self.start and not self.sitemaps:
            raise ValueError("name start or sitemaps: the crawl has to begin somewhere")
        if self.public_base and not self.serve:
            raise ValueError("`as` goes with `serve`: what is crawled at its own address keeps that")
        return self


class UrlsSource(WebSource):
    """Pages by their addresses, and nothing that they link to."""

    kind: Literal["urls"]
    urls: list[str] = []
    path: Location | None = None  # a file with an address a line

    @model_validator(mode="after")
    def _one_of_two(self) -> UrlsSource:
        if bool(self.urls) == bool(self.path):
            raise ValueError("name urls or path, one of the two")
        return self


class FileSource(Source):
    """Files: one, a folder of them, or a pattern with *; here or on object storage."""

    path: Location
    storage: StorageOptions = {}  # such as {anon: true}; keys belong in the environment


class HtmlSource(FileSource):
    """A folder of saved HTML pages."""

    kind: Literal["html"]
    public_base: str | None = Field(None, alias="as")
    max_bytes: Positive = 2_000_000


class WarcSource(FileSource):
    """Web archives: WARC, ARC or WET, plain, .gz or .lz4."""

    kind: Literal["warc"]
    paths: bool = False  # `path` is a list of archives, a line each (.gz or not), as Common Crawl publishes them
    base: str = ""  # goes before each line of such a list
    max_bytes: Positive = 2_000_000


class RowSource(FileSource):
    """Text that already is text, or dialogues: JSONL, Parquet, CSV, plain text, or what Label Studio exports."""

    kind: Literal["jsonl", "parquet", "csv", "text", "label_studio"]
    text_field: str = "text"
    id_field: str | None = None  # a field that names each row for good; otherwise its bytes do


class HfSource(Source):
    """A dataset on the hub or in a folder, read as a stream."""

    kind: Literal["hf"]
    dataset: str  # a name on the hub, or a folder
    config: str | None = None
    split: str = "train"
    revision: str | None = None  # of the hub's dataset; name one for builds that can be repeated
    text_field: str = "text"
    id_field: str | None = None


AnySource = Annotated[
    SiteSource | UrlsSource | HtmlSource | WarcSource | RowSource | HfSource, Field(discriminator="kind")
]
