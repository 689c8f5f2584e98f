"""Questions and answers that a model behind an endpoint writes about documents, within a budget."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import polars as pl
from jinja2 import StrictUndefined, TemplateSyntaxError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from corpus.answers import Answers, key_of
from corpus.augment.endpoint import Answer, Question, ask_all
from corpus.documents import document_id
from corpus.errors import UserError
from corpus.params import Language, Synthesis
from corpus.text.sentences import split_sentences
from corpus.yaml_files import parse_yaml

METHOD = "synthesis"
OURS = Path(__file__).parent / "templates"
KNOWN = {"text", "title", "pairs"}  # what a prompt may speak of
MOST_PAIRS = 50  # of an answer
WINDOW = 256  # requests that are looked up at once
_JINJA = ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


class Template(BaseModel):
    """What a model is asked about a document, as a YAML file says it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lang: Language | None = None  # of the documents: `zh` is zh-Hans and zh-Hant; null: all
    pairs: Annotated[int, Field(ge=1, le=MOST_PAIRS)] = 3
    system: str = "You answer with JSON alone."
    prompt: str  # Jinja, of KNOWN


class Pair(BaseModel):
    """One of what an answer lists."""

    model_config = ConfigDict(extra="ignore", strict=True)

    question: str
    answer: str

    def messages(self) -> list[dict[str, str]]:
        """The pair as a dialogue."""
        return [
            {"role": "user", "content": self.question.strip()},
            {"role": "assistant", "content": self.answer.strip()},
        ]


class Asked(NamedTuple):
    """What came of one request about a document; of prose no pairs."""

    parent: dict[str, Any]
    number: int  # of its first pair among all that are asked for about the document
    answer: Answer
    pairs: list[Pair]


def read_templates(paths: Sequence[Path]) -> list[Template]:
    """The templates in some files, ours where none are named. Raises UserError naming the file and what is wrong."""
    return [_read(path) for path in paths or sorted(OURS.glob("*.yaml"))]


def _read(path: Path) -> Template:
    where = f"augment.synthesise.templates: {path}"
    try:
        template = Template.model_validate(parse_yaml(path.read_text("utf-8")))
        asked = meta.find_undeclared_variables(_JINJA.parse(template.prompt))
    except ValidationError as error:
        first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")  # a misspelling explains the rest
        raise UserError(f"{where}: {'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}") from None
    except TemplateSyntaxError as error:
        raise UserError(f"{where}: prompt: no Jinja, line {error.lineno}: {error.message}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{where} cannot be read as YAML: {str(error).splitlines()[0]}") from None
    unknown = asked - KNOWN
    if unknown or "text" not in asked:
        raise UserError(
            f"{where}: prompt: {'unknown ' + ', '.join(sorted(unknown)) if unknown else 'it shows no {{ text }}'}; "
            f"there are {', '.join(sorted(KNOWN))}"
        )
    return template


def question_about(document: dict[str, Any], template: Template, settings: Synthesis) -> Question:
    """What the model is asked about a document, of which as many sentences are shown as fit."""
    columns = {"text": beginning(document["text"], settings.characters), "title": document["title"] or ""}
    try:
        prompt = _JINJA.from_string(template.prompt).render(columns, pairs=template.pairs)
    except Exception as error:  # a template is foreign code: it may raise anything
        raise UserError(f"augment.synthesise.templates: document {document['id']}: {error}") from None
    return Question(settings.model, template.system, prompt, settings.max_tokens, document["id"])


def beginning(text: str, characters: int) -> str:
    """The first sentences of a text that have no more characters; of a longer first sentence its beginning.

    >>> beginning("One. Two three. Four.", 17)
    'One. Two three.'
    """
    if len(text) <= characters:
        return text
    shown = 0
    for sentence in split_sentences(text[: characters + 1])[:-1]:
        shown += len(sentence)
    return text[: shown or characters].rstrip()


def fits(template: Template, lang: str | None) -> bool:
    """Whether a template is for documents of a language.

    >>> zh = Template(lang="zh", prompt="{{ text }}")
    >>> fits(zh, "zh-Hant"), fits(zh, "en"), fits(Template(prompt="{{ text }}"), None)
    (True, False, True)
    """
    return template.lang is None or (lang is not None and f"{lang}-".startswith(f"{template.lang}-"))


def drawn(documents: pl.DataFrame, templates: Sequence[Template], most: int, seed: int) -> tuple[set[str], int]:
    """The ids of the documents that are asked about, and their requests: the first `most` by a hash of seed and id."""
    requests = [sum(fits(template, lang) for template in templates) for lang in documents["lang"]]
    ranks = [document_id(f"{seed}\0{METHOD}\0{id}") for id in documents["id"]]
    ordered = documents.select(
        "id", requests=pl.Series(requests, dtype=pl.Int64), rank=pl.Series(ranks, dtype=pl.String)
    ).sort("rank")
    within = ordered.filter(pl.col("requests") > 0, pl.col("requests").cum_sum() <= most)
    return set(within["id"]), int(within["requests"].sum())


def synthesise(
    documents: Iterable[dict[str, Any]], templates: Sequence[Template], settings: Synthesis, cache: Answers, log: Path
) -> Iterator[Asked]:
    """Ask about documents with each template of their language, in order, until max_total_tokens are spent.

    What was answered before is not asked again, but counts as if it were: a run ends where the one before did. No more
    than endpoint.concurrency requests go beyond the budget, and their answers are not used. Raises what ask_all raises.
    """
    wanted = (
        (document, number, question_about(document, template, settings))
        for document in documents
        for number, template in enumerate(templates)
        if fits(template, document["lang"])
    )
    spent = 0
    while some := list(itertools.islice(wanted, WINDOW)):
        keys = [key_of(METHOD, settings.endpoint.url, *map(str, question)) for *_, question in some]
        known = [cache.get(key) for key in keys]
        unknown = [question for (*_, question), answer in zip(some, known, strict=True) if answer is None]
        with contextlib.closing(ask_all(settings.endpoint, unknown, log)) as asked:
            for (document, number, _), key, held in zip(some, keys, known, strict=True):
                if settings.max_total_tokens is not None and spent >= settings.max_total_tokens:
                    return
                answer = Answer(*json.loads(held)) if held is not None else next(asked)
                if held is None and not answer.refused:  # the reason may pass
                    cache.put(key, document["id"], json.dumps(answer))
                spent += answer.prompt_tokens + answer.completion_tokens
                pairs = [] if answer.refused else pairs_of(answer.text)[:MOST_PAIRS]
                yield Asked(document, number * MOST_PAIRS, answer, pairs)


def pairs_of(answer: str) -> list[Pair]:
    """The questions and answers in what a model said, also within a Markdown fence; none where it is something else.

    >>> pairs_of('Sure! ```json\\n[{"question": "Why?", "answer": "So."}]\\n```')
    [Pair(question='Why?', answer='So.')]
    >>> pairs_of("I cannot do that.")
    []
    """
    start, end = answer.find("["), answer.rfind("]")
    try:
        return TypeAdapter(list[Pair]).validate_json(answer[start : end + 1]) if 0 <= start < end else []
    except ValidationError:
        return []
