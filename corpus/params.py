"""params.yaml as typed sections, one a stage. A refusal names the file, the key, the value and what would be right."""

from __future__ import annotations

import datetime
import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, field_validator, model_validator

from corpus.errors import UserError
from corpus.sources import AnySource, Location, Name, Positive, Protocol, Regex, Section, StorageOptions
from corpus.yaml_files import parse_yaml

Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what numpy and torch take
Fraction = Annotated[float, Field(ge=0, le=1)]
Language = Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*$")]  # BCP 47: en, zh-Hans

# The twenty that text on the web is likeliest to be in, and that a model can tell apart.
CANDIDATES = (
    *("ar", "cs", "de", "en", "es", "fr", "hi", "id", "it", "ja"),
    *("ko", "nl", "pl", "pt", "ru", "th", "tr", "uk", "vi", "zh"),
)


def _in_quotes(value: object) -> object:
    if isinstance(value, datetime.date | int | float):
        raise ValueError(f'put it in quotes, "{value}": DVC takes no dates')
    return value


class Forget(Section):
    """Documents that must go, from everything: only the id and the reason stay."""

    ids: list[str] = []
    urls: list[str] = []
    patterns: list[Regex] = []  # searched in the URL


class Scrape(Section):
    part_mb: Annotated[float, Field(gt=0)] = 64  # size of a part; a new document changes one part only
    # By source, the last of the batches whose small parts are laid together; `corpus compact` writes it.
    merge: dict[Name, Annotated[int, Field(ge=0)]] = {}
    as_of: Annotated[str, BeforeValidator(_in_quotes)] = (
        ""  # change it to fetch again: `dvc repro` by itself never does
    )
    timeout_s: Annotated[float, Field(gt=0)] = 30
    tries: Annotated[int, Field(ge=1, le=10)] = 3  # of a request that fails or is told to come back later
    user_agent: str = "corpusmill"


class LanguageOf(Section):
    """How `clean` tells a document's language."""

    engine: Literal["py3langid", "langdetect"] = "py3langid"
    among: list[Language] = list(CANDIDATES)  # what it may be; a short list errs less on short texts


class Clean(Section):
    extractor: Literal["auto", "trafilatura", "resiliparse", "readability", "bs4"] = "auto"
    format: Literal["text", "markdown"] = "text"
    languages: list[Language] = ["en", "zh-Hans", "zh-Hant"]  # kept; documents in others are dropped
    language: LanguageOf = LanguageOf()
    repair: bool = True  # mojibake, by ftfy, where a text shows signs of it
    chinese: Literal["as_is", "simplified", "traditional"] = "as_is"  # converts the script, by opencc
    pii: Literal["off", "mask", "drop"] = "mask"
    flagged_words: dict[Language, Path] = {}  # by language, a file with a word a line
    max_flagged: Annotated[float, Field(ge=0, le=1)] = 1.0  # flagged words a word (a character in Chinese)
    timeout_s: Annotated[float, Field(gt=0)] = 20  # a page
    max_depth: Positive = 500  # nested tags
    max_mb: Annotated[float, Field(gt=0)] = 20  # a page


class Topics(Section):
    count: Annotated[int, Field(ge=0, le=200)] = 10  # a language; 0: no topics
    method: Literal["nmf", "lda"] = "nmf"
    sample: Positive = 5_000  # documents a language that the topics are fitted on
    characters: Positive = 4_000  # of each document; the rest is not read
    chinese: Literal["bigrams", "jieba"] = "bigrams"  # pairs of characters, or words; jieba needs `pip install rjieba`
    signal: bool = False  # columns `topic`, `topic_share` and `topic_consistency` for every document
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


class OwnSignal(Section):
    """A signal of the user's: one of the two."""

    sql: str | None = None  # over the columns text, lang and the measured signals, as Polars' SQL has it
    python: Annotated[str, Field(pattern=r"^\w+(\.\w+)*:\w+$")] | None = (
        None  # module:function, from a frame to a series
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> OwnSignal:
        if (self.sql is None) == (self.python is None):
            raise ValueError("name sql or python, one of the two")
        return self


class Measure(Section):
    mattr_window: Positive = 50
    noise_pattern: Regex | None = None  # what else counts as noise
    segmenter: Literal["characters", "jieba"] = "characters"  # of Chinese; jieba needs `pip install rjieba`
    signals: dict[Name, OwnSignal] = {}  # further columns
    topics: Topics = Topics()


class Reference(Section):
    texts: dict[Language, list[Path]] = {}  # per language, trusted text: documents between lines of `---`
    order: dict[Language, Annotated[int, Field(ge=2, le=6)]] = {"en": 3, "zh-Hans": 4, "zh-Hant": 4}  # others: 3
    heldout: Annotated[float, Field(gt=0, le=0.5)] = 0.1  # of the documents, not trained on: they give the quantiles
    prune: dict[Language, list[Annotated[int, Field(ge=0)]]] = {}  # by length, those seen so often or less go
    arpa: bool = False  # also write LANGUAGE.arpa, for KenLM and others

    @field_validator("prune")
    @classmethod
    def _never_falls(cls, prune: dict[str, list[int]]) -> dict[str, list[int]]:
        for language, counts in prune.items():
            if counts != sorted(counts):
                raise ValueError(f"the counts of {language} fall: they may only rise with the length, as in [0, 0, 1]")
        return prune


class OtherModel(Section):
    """What scores a language instead of the model of `reference`: a model of KenLM's, or one of transformers'."""

    kenlm: Path | None = None  # .arpa or a binary file; needs `pip install kenlm`
    tokens: Literal["ours", "spaces"] = "ours"  # what KenLM is given: our tokens, or the lines as they are
    causal: str | None = None  # a causal language model: a folder, or a name on the hub
    revision: str | None = None  # of the hub's model
    window: Annotated[int, Field(ge=2)] = 1_024  # tokens that the causal model reads at once, if it can read so many

    @model_validator(mode="after")
    def _one_of_two(self) -> OtherModel:
        if (self.kenlm is None) == (self.causal is None):
            raise ValueError("name kenlm or causal, one of the two")
        return self


class Perplexity(Section):
    max_tokens: Positive = 100_000  # of each document; the rest is not scored
    model: dict[Language, OtherModel] = {}  # by language, what to use instead of the model of `reference`


class Dedup(Section):
    ngram: Annotated[int, Field(ge=1, le=64)] = 3
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.6
    edge_threshold: Annotated[float, Field(gt=0, le=1)] = 0.4
    num_perm: Positive = 128
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
    min_shingles: Annotated[int, Field(ge=1, le=100)] = 5
    memory_mb: Positive = 2_000
    prefer: list[str] = ["batch", "-n_chars", "id"]

    @model_validator(mode="after")
    def _edges_below_threshold(self) -> Dedup:
        if self.edge_threshold > self.threshold:
            raise ValueError(f"edge_threshold {self.edge_threshold} is above threshold {self.threshold}")
        return self


class Bound(Section):
    """Bounds of one signal: absolute, a percentile (0 to 100) of the corpus or the reference, or an outlier score.

    A score counts robust spreads of log1p(value) from the median of the language, a z standard deviations from the
    mean; upper bounds are positive, lower ones negative.
    """

    min: Annotated[float, Field(allow_inf_nan=False)] | None = None
    max: Annotated[float, Field(allow_inf_nan=False)] | None = None
    min_percentile: Annotated[float, Field(ge=0, le=100)] | None = None
    max_percentile: Annotated[float, Field(ge=0, le=100)] | None = None
    of: Literal["corpus", "reference"] = "corpus"
    min_score: Annotated[float, Field(allow_inf_nan=False)] | None = None
    max_score: Annotated[float, Field(allow_inf_nan=False)] | None = None
    min_z: Annotated[float, Field(allow_inf_nan=False)] | None = None
    max_z: Annotated[float, Field(allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _one_bound_a_side(self) -> Bound:
        for side in ("min", "max"):
            named = [f"{side}{kind}" for kind in ("", "_percentile", "_score", "_z")]
            given = [key for key in named if getattr(self, key) is not None]
            if len(given) > 1:
                raise ValueError(f"name {' or '.join(given)}, not both")
        for kind in ("", "_percentile", "_score", "_z"):
            low, high = getattr(self, f"min{kind}"), getattr(self, f"max{kind}")
            if low is not None and high is not None and low > high:
                raise ValueError(f"min{kind} {low:g} is above max{kind} {high:g}: no document could pass")
        return self


class Filter(Section):
    profile: dict[str, str] = {"en": "en", "zh-Hans": "zh-Hans", "zh-Hant": "zh-Hant"}  # by language of the documents
    bounds: dict[str, dict[str, Bound | None]] = {}  # language, signal: replaces that side of the profile's; null: off


SetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]  # becomes part of folder names


class TestSet(Section):
    """Rows that are tested on somewhere, and must therefore not be learned."""

    __test__: ClassVar[bool] = False  # for pytest

    path: Location  # a file, a folder, or a pattern with *
    kind: Literal["jsonl", "parquet", "csv", "text"] = "jsonl"
    fields: list[str] = []  # that hold its text; empty: `text`, or a dialogue


class Split(Section):
    train: Fraction = 0.7
    validation: Fraction = 0.1
    test: Fraction = 0.2
    group_by: list[str] = []  # what else keeps documents together: host, a column, or a key of meta
    test_sets: dict[SetName, TestSet] = {}  # by name; the pinned sets in data/evaluation are guarded in any case
    seed: Seed = 0

    @model_validator(mode="after")
    def _sums_to_one(self) -> Split:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train, validation and test sum to {total:g} instead of 1")
        return self


class Endpoint(Section):
    """A server that speaks OpenAI's chat completions."""

    # No user and password: what is written here may be published.
    url: Annotated[
        str, Field(pattern=r"^https?://[^/@?#\s]+(/[^?#\s]*)?$")
    ]  # with the path up to /chat/completions: http://127.0.0.1:8000/v1
    key: str | None = None  # the environment variable that holds the key
    timeout_s: Annotated[float, Field(gt=0)] = 120  # for an answer
    tries: Annotated[int, Field(ge=1, le=10)] = 3
    concurrency: Annotated[int, Field(ge=1, le=256)] = 4  # requests at a time, of each worker


class BackTranslation(Section):
    """Two translation models, there and back."""

    forward: str  # a folder, or a name on the hub with its revision: owner/name@revision; of an endpoint its model
    backward: str
    # The document's language and the other one, as models of many languages call them: [eng_Latn, zho_Hans] for NLLB,
    # [en, zh] for M2M100; for an endpoint [English, Chinese].
    languages: tuple[str, str] | None = None
    engine: Literal["ctranslate2", "transformers"] = "ctranslate2"
    beams: Positive = 4
    endpoint: Endpoint | None = None  # asked in place of models here
    max_tokens: Positive = 512  # of an endpoint's answer, which is one sentence

    @model_validator(mode="after")
    def _endpoint_knows_its_languages(self) -> BackTranslation:
        if self.endpoint and not self.languages:
            raise ValueError("an endpoint is told what to translate: add languages, such as [English, Chinese]")
        return self


class Synonyms(Section):
    """Words that are replaced by others of the same meaning; a language without list and model is left alone."""

    words: dict[Language, Path] = {}  # lists by language, with a line such as `big: large, huge`
    models: dict[Language, str] = {}  # masked language models by language: a folder, or owner/name@revision
    rate: Fraction = 0.1  # of the words that may be replaced


class Synthesis(Section):
    """Questions and answers about documents, by a model behind an endpoint."""

    endpoint: Endpoint
    model: str  # as the endpoint calls it
    templates: list[Path] = []  # YAML files: what is asked about a document; empty: ours, in corpus/augment/templates
    max_requests: Positive = 1_000  # of the documents that `fraction` draws the first so many, by hash
    max_total_tokens: Positive | None = None  # of all prompts and answers, as the endpoint counts them
    max_tokens: Positive = 1_024  # of an answer
    characters: Positive = 6_000  # of a document that are shown: its first sentences


Band = Annotated[tuple[float, float], Field(description="least and most")]


class Gates(Section):
    """What a generated text must keep of its parent to stay."""

    length: Band = (0.67, 1.5)  # its characters for each of the parent's
    chrf: Band = (30, 95)  # to the parent, 0 to 100: above is no variation, below the meaning is lost; not for swaps
    copied: Fraction = 0.5  # of its sentences that may be the parent's; not for swaps
    entities: Fraction = 1.0  # of the parent's names that must be there
    repetition: Fraction = 0.1  # of its words that may repeat what stands before them, beyond the parent's
    perplexity: Annotated[float, Field(gt=0)] = 3.0  # at most so many times the parent's, where there is a model


class Augment(Section):
    fraction: Fraction = 0.2  # of the kept train documents
    swaps: Fraction = 0.05  # of the sentences that change places with their neighbour
    backtranslate: dict[Language, BackTranslation] = {}  # by language
    synonyms: Synonyms = Synonyms()
    instructions: list[Literal["questions", "answers", "definitions", "dialogues"]] = []  # rules that find dialogues
    synthesise: Synthesis | None = None
    gates: Gates = Gates()
    seed: Seed = 0


Weight = Annotated[float, Field(ge=0, le=100)]  # how often a document is taken


class Balance(Section):
    """Groups of train documents that shall count the same."""

    by: Literal["label", "source", "lang"]
    to: Literal["most", "mean", "fewest"] | Positive = "mean"  # of the groups' documents, or a number of them
    max_copies: Positive = 10  # of a document; a group of few then stays below the others


class Shard(Section):
    chunk_tokens: Positive | None = None  # cuts documents at ends of paragraphs and sentences; null: none
    overlap_tokens: Annotated[int, Field(ge=0)] = 0  # whole sentences that a chunk repeats of the one before
    tokenizer: str | None = None  # a tokenizer.json, its folder, owner/name@revision; null: words and Han characters
    # How often train documents are taken: by value of a column; by place among the values of a signal, lowest first,
    # in buckets of equally many documents of each language.
    weights: dict[Literal["label", "source", "lang"], dict[str, Weight]] = {}
    buckets: dict[Name, Annotated[list[Weight], Field(min_length=2, max_length=100)]] = {}
    balance: Balance | None = None
    copy_to: Location | None = None  # a folder, here or on object storage, that gets the same files
    storage: StorageOptions = {}  # of copy_to, beside the `storage` of all addresses
    seed: Seed = 0

    @field_validator("buckets")
    @classmethod
    def _buckets_name_signals(cls, buckets: dict[str, list[float]]) -> dict[str, list[float]]:
        for name in {"id", "text", "kept", "split", "rank", "bytes", "place", "copies", "weight"} & buckets.keys():
            raise ValueError(f"{name} is no signal: name a column of measure or perplexity")
        return buckets

    @model_validator(mode="after")
    def _overlap_leaves_room(self) -> Shard:
        if self.overlap_tokens and not self.chunk_tokens:
            raise ValueError("overlap_tokens is for chunks: name chunk_tokens as well")
        if self.chunk_tokens and self.overlap_tokens > self.chunk_tokens / 2:
            raise ValueError(
                f"overlap_tokens {self.overlap_tokens} is more than half of chunk_tokens {self.chunk_tokens}"
            )
        return self


class Base(Section):
    model: str = "tiny"  # a folder, a name on the hub, or `tiny`: a small Llama trained here
    revision: str | None = None  # commit of the hub's model
    trust_remote_code: bool = False  # run Python that comes with the model; needs `revision`, so that it is known code
    texts: list[Path] = []  # for the tiny one: documents between lines of `---`; empty: those of data/reference
    vocabulary: Annotated[int, Field(ge=300)] = 2_048  # 256 bytes, three markers, and merges
    layers: Positive = 1
    hidden: Positive = 128
    heads: Positive = 2
    context: Annotated[int, Field(ge=8)] = 256
    steps: Positive = 40
    batch_tokens: Positive = 1_024  # a step
    learning_rate: Annotated[float, Field(gt=0)] = 5e-3
    seed: Seed = 0

    @model_validator(mode="after")
    def _heads_divide_hidden(self) -> Base:
        if self.hidden % (2 * self.heads):
            raise ValueError(f"hidden {self.hidden} is not a multiple of 2 x heads {self.heads}")
        return self

    @model_validator(mode="after")
    def _trusted_code_is_pinned(self) -> Base:
        if self.trust_remote_code and self.revision is None and not Path(self.model).is_dir():
            raise ValueError("trust_remote_code runs code of the model: name the commit that was read as `revision`")
        return self


class Pack(Section):
    length: Annotated[int, Field(ge=8)] = 256  # tokens a row
    mixture: dict[str, Annotated[float, Field(ge=0)]] = {}  # how often a language's documents are taken; 1 by default
    templates: list[Path] = []  # YAML files: how documents without dialogue are asked and answered, by task
    chat_template: Path | None = None  # a Jinja file in place of the model's own
    loss_on: Literal["answers", "all"] = "answers"  # of dialogues and templates; of plain text all is learned
    seed: Seed = 0


class Mix(Section):
    path: Path  # a folder or file of documents, as `--input` takes them: Parquet or JSONL with text or dialogues
    weight: Annotated[float, Field(gt=0, lt=1)]  # its part of the rows that are trained on


class Finetune(Section):
    method: Literal["lora", "qlora", "int8", "full"] = "lora"  # qlora: the base in nf4 with double quantisation
    tokens: Positive = 300_000  # seen in training, so that more data is not more compute
    time_budget: Annotated[float, Field(gt=0)] | None = None  # minutes an adapter; then the machine decides the result
    rows_per_step: Positive = 2  # over all devices
    batch: Positive | Literal["auto"] = "auto"  # rows at once on a device; auto: as many as memory holds
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    warmup: Fraction = 0.05  # of the steps
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip: Annotated[float, Field(gt=0)] = 1.0
    rank: Positive = 16
    alpha: Positive = 32
    dropout: Fraction = 0.0
    target_modules: Literal["all-linear"] | list[str] = "all-linear"
    train_embeddings: bool = True
    gradient_checkpointing: bool = False
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"  # auto: bf16 or fp16 on a GPU, fp32 on a CPU
    evaluations: Positive = 8  # on the validation rows, and checkpoints
    patience: Positive = 3  # evaluations without a better loss before it stops
    mix: dict[SetName, Mix] = {}  # general data by name, against forgetting; packed by pack
    peft: dict[str, Any] = {}  # any other setting of peft's configuration, such as use_dora or peft_type
    trainer: dict[str, Any] = {}  # any other of transformers' TrainingArguments, such as neftune_noise_alpha or fsdp
    report_to: list[Literal["dvclive", "tensorboard", "mlflow", "wandb"]] = ["dvclive"]
    profile: bool = False  # a trace of a few steps into reports/finetune.trace.json
    seed: Seed = 0

    @model_validator(mode="after")
    def _mix_leaves_room(self) -> Finetune:
        total = sum(mix.weight for mix in self.mix.values())
        if total >= 1:
            raise ValueError(f"mix: the weights sum to {total:g}, which leaves nothing of the corpus: stay below 1")
        return self


class Evaluate(Section):
    samples: Positive = 8  # documents a set to generate for
    new_tokens: Positive = 48  # generated for each
    test_documents: Positive = 24  # a language, of the test shard; the pinned sets always count whole
    seed: Seed = 0


StageName = Literal[
    "scrape", "clean", "measure", "perplexity", "dedup", "split", "augment", "shard", "finetune", "evaluate"
]


class Execution(Section):
    """Who works on a stage's tasks. No result depends on it."""

    engine: Literal["processes", "inline", "ray"] = "processes"
    address: str | None = None  # of a Ray cluster; null: that of RAY_ADDRESS, or else a private one on this machine
    # What a task of a stage takes of the cluster.
    cpus: dict[StageName, Annotated[float, Field(gt=0)]] = {}  # 1 by default
    gpus: dict[StageName, Annotated[float, Field(ge=0)]] = {}  # none by default
    memory_mb: dict[StageName, Positive] = {}  # free on a node before a task starts there

    @model_validator(mode="after")
    def _only_a_cluster_is_asked_for_resources(self) -> Execution:
        for key in ("address", "cpus", "gpus", "memory_mb"):
            if getattr(self, key) and self.engine != "ray":
                raise ValueError(f"{key} is heeded by Ray alone: set engine: ray, or leave it out")
        return self


class Report(Section):
    samples_per_reason: Positive = 5
    seed: Seed = 0


class Params(Section):
    """All of params.yaml."""

    sources: list[AnySource] = []
    forget: Forget = Forget()
    workers: Annotated[int, Field(ge=0)] = 0
    execution: Execution = Execution()
    storage: dict[Protocol, StorageOptions] = {}  # fsspec's options, by what addresses begin with
    scrape: Scrape = Scrape()
    clean: Clean = Clean()
    measure: Measure = Measure()
    reference: Reference = Reference()
    perplexity: Perplexity = Perplexity()
    dedup: Dedup = Dedup()
    filter: Filter = Filter()
    split: Split = Split()
    augment: Augment = Augment()
    shard: Shard = Shard()
    base: Base = Base()
    pack: Pack = Pack()
    finetune: Finetune = Finetune()
    evaluate: Evaluate = Evaluate()
    report: Report = Report()

    @model_validator(mode="after")
    def _names_once(self) -> Params:
        names = [(source.name, source.batch) for source in self.sources]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(
                    f"two sources are called {name[0]} with batch {name[1]}: give one another name or batch"
                )
        return self


def load(path: Path | None, overrides: Sequence[str] = ()) -> Params:
    """Read params.yaml (None: all defaults) and apply `section.key=value` overrides.

    Raises UserError naming the file, the key, the value and what would be right.
    """
    tree = {} if path is None else _read_yaml(path)
    for override in overrides:
        _apply(tree, override)
    where = "--set" if path is None else str(path)
    try:
        return Params.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"{where}: " + "; ".join(_describe(e) for e in error.errors()[:3])) from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = parse_yaml(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: `corpus init` writes one, --params names another") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path} is not YAML: {error}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path} holds no sections: it should have `sources:`, `clean:` and so on at the left margin")
    return tree


def _apply(tree: dict[str, Any], override: str) -> None:
    """Set one value in the tree, in place.

    >>> tree = {"dedup": {"threshold": 0.6}}
    >>> _apply(tree, "dedup.threshold=0.8")
    >>> tree
    {'dedup': {'threshold': 0.8}}
    """
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise UserError(f"--set {override}: write it as section.key=value, for example dedup.threshold=0.8")
    *parents, last = key.split(".")
    node: Any = tree
    try:
        parsed = parse_yaml(value)
    except ValueError:
        raise UserError(f"--set {override}: {value!r} is not a YAML value; put quotes around text") from None
    try:
        for parent in parents:
            node = node[int(parent)] if isinstance(node, list) else node.setdefault(parent, {})
        node[int(last) if isinstance(node, list) else last] = parsed
    except (ValueError, IndexError, TypeError, AttributeError):
        raise UserError(f"--set {override}: there is no such key") from None


def _describe(error: Any) -> str:
    """One validation error of pydantic as a sentence."""
    # The location of a source holds its kind as well, which is no key of the file.
    location = [part for place, part in enumerate(error["loc"]) if not (place == 2 and error["loc"][0] == "sources")]
    key = ".".join(map(str, location))
    if error["type"] == "extra_forbidden":
        known = _known_names(Params, error["loc"][:-1])
        near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
        hint = (
            f"did you mean {'.'.join([*map(str, location[:-1]), near[0]])}?" if near else f"known: {', '.join(known)}"
        )
        return f"{key} is unknown: {hint}"
    message = error["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if error["type"] == "missing":
        return f"{key} is missing"
    value = repr(error["input"])
    if "storage" in location or "'storage'" in value:  # it may hold a secret
        return f"{key}: {message}"
    return f"{key or 'params'}: {message}" + (f", not {value}" if len(value) < 80 else "")


def _known_names(annotation: Any, location: Iterable[str | int]) -> list[str]:
    """The keys allowed at a place in params: follows the models' annotations down the location."""
    for key in location:
        models = _models_in(annotation)
        named = [model for model in models if key in model.model_fields]
        if named:
            annotation = named[0].model_fields[str(key)].annotation
        elif isinstance(key, str):  # the kind of a source, or the free key of a dict
            tagged = [
                m for m in models if "kind" in m.model_fields and key in get_args(m.model_fields["kind"].annotation)
            ]
            annotation = tagged[0] if tagged else annotation
    return [field.alias or name for model in _models_in(annotation)[:1] for name, field in model.model_fields.items()]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """All section models named anywhere in a type annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]
