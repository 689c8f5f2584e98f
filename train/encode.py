"""From documents to tokens, and which of them are learned: texts, dialogues by a chat template, tasks by templates."""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from jinja2 import StrictUndefined, TemplateSyntaxError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from corpus.errors import UserError
from corpus.params import Pack
from corpus.yaml_files import parse_yaml
from train.models import first_line, load_tokenizer
from train.shards import Document, Dropped, Messages, Tally, hashed

TOKENIZER_BATCH = 256  # documents; of no more the text is held
COLUMNS = ("id", "text", "lang", "label", "source", "title")  # what templates may ask for, where it is not null
JINJA = ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)

Ranges = list[tuple[int, int]]  # of characters in a string: the first, and the one after the last
EVERYTHING: Ranges = [(0, sys.maxsize)]


class Segment(NamedTuple):
    """A string to tokenise alone."""

    text: str
    learned: Ranges
    marks: bool = False  # whether special tokens' strings in it become these: what a document says never does


class UnfitError(Exception):
    """A document of which nothing can be learned: the reason, and what led to it."""


class Piece(NamedTuple):
    """A document's tokens, or as many of them as go into one row."""

    document: str
    lang: str
    tokens: np.ndarray  # int32
    learned: np.ndarray  # bool; never the first, since the token before it in the row is another document's


# ---- templates -------------------------------------------------------------------------------------------------------


_compiled = functools.cache(JINJA.from_string)


def _checked(source: str) -> str:
    try:
        unknown = meta.find_undeclared_variables(JINJA.parse(source)) - {*COLUMNS, "answers"}
    except TemplateSyntaxError as error:
        raise ValueError(f"no Jinja, line {error.lineno}: {error.message}") from None
    if unknown:
        raise ValueError(f"unknown {', '.join(sorted(unknown))}: there are {', '.join(COLUMNS)} and answers")
    return source


Jinja = Annotated[str, Field(min_length=1), AfterValidator(_checked)]  # of COLUMNS and `answers`


class Template(BaseModel):
    """How documents of one task are asked about and answered, as a YAML file says it."""

    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)

    applies_to: dict[Literal["id", "lang", "label", "source", "title"], str] = {}  # columns that must be equal
    answers: dict[str, str] = {}  # by label: what the model is to say
    prompt: Jinja
    answer: Jinja
    _name: str = ""  # its file, as params name it


def read_templates(paths: Iterable[Path]) -> list[Template]:
    """The templates in YAML files, in their order. Raises UserError naming the file and the key."""
    templates = []
    for path in paths:
        try:
            template = Template.model_validate(parse_yaml(path.read_text("utf-8")))
        except ValidationError as error:
            key = ".".join(str(part) for part in error.errors()[0]["loc"] if part != "[key]") or "the file"
            raise UserError(f"pack.templates: {path}: {key}: {error.errors()[0]['msg']}") from None
        except (OSError, ValueError, RecursionError, MemoryError) as error:
            raise UserError(f"pack.templates: {path} cannot be read as YAML ({first_line(error)})") from None
        template._name = str(path)
        templates.append(template)
    return templates


def template_of(templates: Sequence[Template], document: Document, seed: int) -> Template | None:
    """The template that a document takes: of several that apply, one drawn by seed and id from those that can ask it.

    Of those that cannot, where no other is left. Dialogues take none.
    """
    if document.messages:
        return None
    applying = [
        one for one in templates if all(getattr(document, key) == one.applies_to[key] for key in one.applies_to)
    ]
    able = []
    for template in applying:
        with contextlib.suppress(UnfitError):
            render(template, document)
            able.append(template)
    drawn = able or applying
    return drawn[int(hashed(seed, "template", document.id) * len(drawn))] if drawn else None


def render(template: Template, document: Document) -> tuple[str, str]:
    """The prompt about a document, and its answer.

    Raises UnfitError where either is empty or needs what the document has not, such as a label or an answer to it.

    >>> reviews = Template(prompt="Review: {{ text }}", answer="{{ answers[label] }}", answers={"1": "good"})
    >>> render(reviews, Document("a", "Bravo!", label="1"))
    ('Review: Bravo!', 'good')
    """
    columns = {name: value for name in COLUMNS if (value := getattr(document, name)) is not None}
    sources = (template.prompt, template.answer)
    try:
        prompt, answer = (_compiled(source).render(columns, answers=template.answers) for source in sources)
    except Exception as error:  # a template is foreign code: whatever it raises costs the document alone
        raise UnfitError("pack.template", f"{template._name}: {first_line(error)}") from None
    if not prompt.strip() or not answer.strip():
        raise UnfitError("pack.template", f"{template._name}: the prompt or the answer is empty")
    return prompt, answer


# ---- dialogues -------------------------------------------------------------------------------------------------------


def pack_tokenizer(base: Path, settings: Pack, trust_remote_code: bool = False) -> Any:
    """The tokenizer of the base, with pack.chat_template in place of its own. Raises UserError naming the key."""
    tokenizer = load_tokenizer(base, "base.model", trust_remote_code=trust_remote_code)
    if settings.chat_template is not None:
        try:
            tokenizer.chat_template = settings.chat_template.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"pack.chat_template: {settings.chat_template} cannot be read ({error})") from None
    return tokenizer


def render_dialogue(tokenizer: Any, messages: Messages, counts: Counter[str]) -> tuple[str, Ranges]:
    """A dialogue as the chat template has it, and the ranges of it that the assistant answers.

    An answer is what the dialogue up to it has more than the dialogue before it with the prompt to answer: so any chat
    template will do that renders turn by turn. What the assistant says first of all answers nobody. Raises UnfitError
    where there is no answer, or it cannot be found; counts the dialogues that have one as `answered`.
    """
    answers = [turn for turn, message in enumerate(messages) if turn and message["role"] == "assistant"]
    if not answers:
        raise UnfitError("pack.no_answer", "no assistant answers anybody")
    counts["answered"] += 1
    whole, ranges = _apply(tokenizer, messages), []
    for turn in answers:
        asked = _apply(tokenizer, messages[:turn], add_generation_prompt=True)
        answered = _apply(tokenizer, messages[: turn + 1])
        if not (answered.startswith(asked) and whole.startswith(answered)):
            raise UnfitError("pack.template", f"message {turn + 1} changes what is rendered before it")
        ranges.append((len(asked), len(answered)))
    return whole, ranges


def _apply(tokenizer: Any, messages: Messages, add_generation_prompt: bool = False) -> str:
    try:
        text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt)
    except TemplateSyntaxError as error:
        known = "the chat template (pack.chat_template, else the model's own)"
        raise UserError(f"{known} is no Jinja: line {error.lineno}: {error.message}") from None
    except Exception as error:  # it refuses the roles, adds up what is not text, …: foreign code may raise anything
        raise UnfitError("pack.template", first_line(error)) from None
    return text


@functools.lru_cache(maxsize=1)
def _special_tokens(tokenizer: Any) -> dict[str, int]:
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return {name: tokenizer.convert_tokens_to_ids(name) for name in sorted({*tokenizer.all_special_tokens, *added})}


def _within_marks(tokenizer: Any, text: str) -> re.Pattern[str]:
    """Where to cut a text so that it spells no special token: after the first sign of each that it says."""
    names = [name for name in _special_tokens(tokenizer) if len(name) > 1 and name in text]
    return re.compile("|".join(f"(?<={re.escape(name[0])})(?={re.escape(name[1:])})" for name in names) or "(?!)")


def dialogue_segments(
    tokenizer: Any, messages: Messages, rendered: Callable[[Messages], tuple[str, Ranges]]
) -> list[Segment]:
    """What `rendered` makes of messages, in segments such that no special token comes from what the messages say.

    It is one segment unless they say the string of a special token: then each such string is cut in two. `rendered`
    sees a sign there that stands nowhere else in them.
    """
    said, cut = "\0".join(message["content"] for message in messages), "\ue000"
    while cut in said:
        cut += "\ue000"
    within = _within_marks(tokenizer, said)
    text, ranges = rendered([{**message, "content": within.sub(cut, message["content"])} for message in messages])
    segments, start = [], 0
    for part in text.split(cut):
        segments.append(Segment(part, [(first - start, last - start) for first, last in ranges], marks=True))
        start += len(part) + len(cut)
    return segments


def refuse_useless_template(counts: Mapping[str, int], settings: Pack, model: str) -> None:
    """Raises UserError naming the chat template where it leaves all dialogues without labels, or with nothing else."""
    labels, tokens = counts["dialogue_labels"], counts["dialogue_tokens"]
    if settings.loss_on == "answers" and counts["answered"] and labels in (0, tokens):
        name = f"pack.chat_template {settings.chat_template}" if settings.chat_template else f"the template of {model}"
        nothing = "shows no answer in any of them: nothing would be learned"
        everything = "shows nothing but answers in them: all would be learned, as if pack.loss_on were all"
        shown = everything if labels else nothing
        raise UserError(f"{name}, of {counts['answered']} dialogues, {shown}; name another as pack.chat_template")


# ---- tokens ----------------------------------------------------------------------------------------------------------


def encode(
    tokenizer: Any, documents: Iterable[Document], settings: Pack, templates: Sequence[Template], tally: Tally
) -> Iterator[list[Piece]]:
    """Each document as pieces of at most pack.length tokens, in their order, if only those that have a label.

    Texts stand between the tokenizer's beginning and end marks, as do prompt and answer of a template; where there is a
    chat template, these become a dialogue. Without it dialogues are their text. Texts are cut from their start on, all
    with a prompt from their end: an answer keeps as much of the prompt's end before it as fits into the row.
    """
    first, last = ([mark] * (mark is not None) for mark in (tokenizer.bos_token_id, tokenizer.eos_token_id))
    remaining = iter(documents)
    while batch := list(itertools.islice(remaining, TOKENIZER_BATCH)):
        taken: list[tuple[Document, list[Segment], bool]] = []
        for document in batch:
            try:
                taken.append((document, *_segments(tokenizer, document, settings, templates, tally)))
            except UnfitError as error:
                tally.dropped.append(Dropped(document.id, *error.args))
        encoded = iter(tokenise(tokenizer, [segment for _, segments, _ in taken for segment in segments]))
        for document, segments, marked in taken:
            tokens, learned = map(np.concatenate, zip(*itertools.islice(encoded, len(segments)), strict=True))
            if marked:
                tokens = np.concatenate([first, tokens, last]).astype(np.int32)
                learned = np.pad(learned, (len(first), len(last)), constant_values=True)  # _cut forgets the first
            else:
                # The first is never learned, so that a beginning mark does not make all the rest look chosen.
                tally.counts.update(dialogue_tokens=len(tokens[1:]), dialogue_labels=int(learned[1:].sum()))
            pieces = _cut(document, tokens, learned, settings.length, from_end=len(segments) > 1 or not marked)
            if pieces:
                yield pieces
            else:
                tally.dropped.append(Dropped(document.id, "pack.no_answer", "no row of it has a label"))


def _segments(
    tokenizer: Any, document: Document, settings: Pack, templates: Sequence[Template], tally: Tally
) -> tuple[list[Segment], bool]:
    """What the tokenizer takes of a document, and whether its beginning and end marks go around that.

    Raises UnfitError where nothing of the document can be learned.
    """
    template, messages = template_of(templates, document, settings.seed), document.messages
    everything = settings.loss_on == "all"
    tally.counts["dialogues"] += bool(messages)
    if template is not None:
        prompt, answer = render(template, document)
        tally.templates[template._name] += 1
        if not tokenizer.chat_template:
            return [Segment(prompt, EVERYTHING if everything else []), Segment(answer, EVERYTHING)], True
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    if messages and tokenizer.chat_template and everything:
        return dialogue_segments(tokenizer, messages, lambda shown: (_apply(tokenizer, shown), EVERYTHING)), False
    if messages and tokenizer.chat_template:
        rendered = functools.partial(render_dialogue, tokenizer, counts=tally.counts)
        return dialogue_segments(tokenizer, messages, rendered), False
    tally.counts["dialogues_as_text"] += bool(messages)
    if not document.text.strip():
        raise UnfitError("pack.no_answer", "it has no text")
    return [Segment(document.text, EVERYTHING)], True


def tokenise(tokenizer: Any, segments: Sequence[Segment]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Tokens (int32) of each segment and which of them are learned (bool): those that begin in a learned range.

    Raises UserError where that takes a tokenizer that knows where its tokens stand, and this one does not.
    """
    special = {*_special_tokens(tokenizer).values()}
    found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for marks in {segment.marks for segment in segments}:
        numbers = [number for number, segment in enumerate(segments) if segment.marks == marks]
        wholes = [_is_whole(segments[number]) for number in numbers]
        texts = [segments[number].text for number in numbers]
        read, encodings = _read(tokenizer, texts, marks, places=None in wholes)
        for place, (number, ids, whole) in enumerate(zip(numbers, read, wholes, strict=True)):
            text, ranges, _ = segments[number]
            if not marks and not special.isdisjoint(ids):  # Unigram models find them as if they were words
                parts = _within_marks(tokenizer, text).split(text)
                ids = [*itertools.chain(*_read(tokenizer, parts, marks=False)[0])]
            tokens = np.array(ids, np.int32)
            if whole is not None:
                learned = np.full(len(tokens), whole)
            elif encodings is None:
                raise UserError("base.model: its tokenizer does not say where its tokens stand: add a tokenizer.json")
            else:
                starts = np.array([start for start, _ in encodings[place].offsets])
                learned = np.any([(first <= starts) & (starts < last) for first, last in ranges], axis=0)
            found[number] = tokens, learned
    return [found[number] for number in range(len(segments))]


def _is_whole(segment: Segment) -> bool | None:
    """Whether all of a segment is learned, or nothing; None for a part."""
    if not segment.learned:
        return False
    return True if any(first <= 0 and len(segment.text) <= last for first, last in segment.learned) else None


def _read(
    tokenizer: Any, texts: list[str], marks: bool, places: bool = False
) -> tuple[Sequence[Sequence[int]], Sequence[Any] | None]:
    """The tokens of texts, and where asked and known their encodings, which have the tokens' places.

    Of a fast tokenizer the library beneath is asked: wrapping its answers takes a third of the time.
    """
    if not tokenizer.is_fast:
        encoded = tokenizer(texts, add_special_tokens=False, verbose=False, split_special_tokens=not marks)
        return encoded["input_ids"], None
    beneath = tokenizer.backend_tokenizer
    beneath.no_truncation()
    beneath.no_padding()
    beneath.encode_special_tokens = not marks
    encodings = (beneath.encode_batch if places else beneath.encode_batch_fast)(texts, add_special_tokens=False)
    return [encoding.ids for encoding in encodings], encodings


def plain_ids(tokenizer: Any, text: str) -> list[int]:
    """The tokens of a text that is a document's: special tokens' strings in it are text like any other."""
    [(tokens, _)] = tokenise(tokenizer, [Segment(text, [])])
    return [*map(int, tokens)]


def _cut(document: Document, tokens: np.ndarray, learned: np.ndarray, length: int, from_end: bool) -> list[Piece]:
    """The pieces of at most `length` tokens that have a label, full but for the last one, or from the end the first."""
    first = len(tokens) % length if from_end else 0
    bounds = sorted({0, *range(first, len(tokens), length), len(tokens)})
    learned[bounds[:-1]] = False
    cut = [(tokens[start:end], learned[start:end]) for start, end in itertools.pairwise(bounds)]
    return [Piece(document.id, document.lang, *piece) for piece in cut if piece[1].any()]
