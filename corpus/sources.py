"""Where documents come from: the kinds of source that params.yaml can name, as typed sections."""

from __future__ import annotations

import re
from typing import Annotated, Literal

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


Regex = Annotated[str, AfterValidator(_is_regex)]
Selector = Annotated[str, AfterValidator(_is_selector)]
Tag = Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}([-_][A-Za-z0-9]{1,8})*$")]  # BCP 47: en, zh-Hans, pt-BR
# A path here or on object storage (`s3://bucket/folder`, as fsspec has it), or a pattern with *. A string: a Path would
# make one slash of two.
Location = Annotated[str, Field(min_length=1)]


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
    storage: dict[str, str | int | bool] = {}  # options of fsspec, such as {anon: true}; keys belong in the environment


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
