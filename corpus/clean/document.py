"""One row: a page, or a text that already is one, to a document, or the reason why not."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from corpus.clean.decode import decode, looks_like_text, scrub_surrogates
from corpus.clean.extract import extract, unfit
from corpus.clean.flagged import count_flagged, flagged_share, load_flagged
from corpus.clean.language import check_candidates, detect_language, is_language_tag, nearest_language
from corpus.clean.markup import parse
from corpus.clean.normalise import convert_chinese, normalise
from corpus.clean.personal import mask_personal_data
from corpus.documents import render_messages
from corpus.errors import UserError
from corpus.params import Clean, LanguageOf
from corpus.sources import Rules

Counts = dict[str, int]
_SCRIPTS = {"simplified": "zh-Hans", "traditional": "zh-Hant"}


class Refused(Exception):
    """A document is dropped: reason, detail, and what text there was."""

    def __init__(self, reason: str, detail: str | None = None, text: str | None = None) -> None:
        super().__init__(reason)
        self.reason, self.detail, self.text = reason, detail, text


@dataclasses.dataclass(frozen=True)
class Settings:
    """What cleaning is told: the parameters, and what the row's source says of its rows."""

    clean: Clean
    rules: Rules | None = None
    licence: str | None = None
    lang: str | None = None

    def to_json(self) -> str:
        rules = self.rules.model_dump() if self.rules else None
        own = {"rules": rules, "licence": self.licence, "lang": self.lang}
        return json.dumps(own | {"clean": self.clean.model_dump(mode="json")})

    @staticmethod
    def from_json(text: str) -> Settings:
        given = json.loads(text)
        rules = Rules.model_validate(given["rules"]) if given["rules"] else None
        return Settings(Clean.model_validate(given["clean"]), rules, given["licence"], given["lang"])


def check(params: Clean) -> None:
    """Raise UserError for what is wrong with the parameters, whether or not a document would meet it."""
    if params.language != LanguageOf():
        check_candidates(params.language.engine, params.language.among)
    if "zh" in params.languages:
        raise UserError("clean.languages: zh is told apart into zh-Hans and zh-Hant: name one of them, or both")
    wanted = _SCRIPTS.get(params.chinese)
    if wanted and wanted not in params.languages and any(tag.startswith("zh") for tag in params.languages):
        raise UserError(f"clean.chinese: {params.chinese} makes {wanted} of all Chinese: add it to clean.languages")
    load_flagged(params.flagged_words)


def warm_up() -> None:
    """Import, compile and load all that the first page would otherwise pay for with its own time."""
    page = "<title>A page</title><p>A sentence that is in plain English, and a second one of it.</p>" * 20
    for extractor in ("auto", "trafilatura", "resiliparse", "readability", "bs4"):
        settings = Settings(Clean.model_validate({"extractor": extractor, "languages": ["en"]}))
        clean_row({"body": page.encode(), "content_type": "text/html"}, settings)


def clean_row(row: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """The columns that cleaning sets for a page (`body`) or a text.

    Those of a document: text, title, date, licence, lang, lang_score, messages, preference. And of cleaning itself:
    `encoding` and `decoded` (bom, utf-8, declared, guessed), `extractor`, `second_lang` and `second_score`, `changes`
    and `masked` (counts by kind), `flagged` (words).

    Raises Refused with a reason where the row is dropped. A language that the row or its source states is not guessed.
    """
    params = settings.clean
    columns: dict[str, Any] = {name: row.get(name) for name in ("title", "date", "licence", "messages", "preference")}
    columns["licence"] = columns["licence"] or settings.licence
    columns |= dict.fromkeys(("encoding", "decoded", "extractor"))
    if row.get("body") is not None:
        columns |= _read_page(row, settings)
        raw = columns["text"]
    else:
        raw = row.get("text")
        if not isinstance(raw, str):
            raise Refused("clean.empty", "text is null")
    text, changes = normalise(scrub_surrogates(raw), repair=params.repair)
    if not text.strip():
        if columns["extractor"] in (None, "plain"):
            raise Refused("clean.empty")
        why = "rules.keep selects no text" if columns["extractor"] == "rules" else None
        raise Refused("clean.empty.extractor", why)
    columns |= _language(text, row.get("lang") or settings.lang, params)
    text, changes["converted"] = _in_wanted_script(text, columns["lang"], params)
    columns |= _flagged(text, columns["lang"], params)
    text, found = _masked(text, params)
    masked = Counter(found)
    clean = functools.partial(_cleaned, lang=columns["lang"], params=params, masked=masked)
    if columns["title"]:
        columns["title"] = clean(columns["title"])
    if columns["preference"]:
        sides = {side: columns["preference"][side] or () for side in ("chosen", "rejected")}
        columns["preference"] = {side: _cleaned_messages(messages, clean) for side, messages in sides.items()}
    if columns["messages"]:
        rendered = raw == render_messages(columns["messages"])
        before = Counter() if rendered else masked  # what is masked in both is one match
        columns["messages"] = _cleaned_messages(columns["messages"], functools.partial(clean, masked=before))
        text = render_messages(columns["messages"]) if rendered else text
    return columns | {"text": text, "changes": changes, "masked": dict(masked)}


def _read_page(row: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """Text, title and date of a page, and how they were had. Raises Refused for what no parser should see."""
    body, content_type = row["body"], row.get("content_type") or ""
    if len(body) > settings.clean.max_mb * 1e6:
        raise Refused("clean.too_large", f"{len(body)} bytes")
    if not looks_like_text(body):
        raise Refused("clean.not_html", content_type or None)
    decoded = decode(body, content_type)
    if decoded is None:
        raise Refused("clean.error.decode", content_type or None)
    how = {"encoding": decoded.encoding, "decoded": decoded.how}
    html = scrub_surrogates(decoded.text).replace("\x00", "")
    if not html.strip():
        raise Refused("clean.empty")
    if content_type.split(";")[0].strip().lower() == "text/plain":
        return how | {"text": html, "title": None, "date": None, "extractor": "plain"}
    markup = parse(html)
    danger = unfit(markup, settings.clean.max_depth)
    if danger:
        raise Refused(f"clean.{danger}", None, html)
    page = extract(html, settings.rules, settings.clean.extractor, settings.clean.format, markup)
    return how | {"text": page.text, "title": page.title, "date": page.date, "extractor": page.method}


def _language(text: str, stated: str | None, params: Clean) -> dict[str, Any]:
    """The language of a text and the runner-up. Raises Refused where it is not one of those wanted."""
    if stated and is_language_tag(stated):
        tag, score, second, second_score = nearest_language(stated, text, params.languages), 1.0, None, None
    else:
        tag, score, second, second_score = detect_language(text, params.language.engine, tuple(params.language.among))
    if tag.startswith("zh") and params.chinese != "as_is":
        tag = _SCRIPTS[params.chinese]
    if tag not in params.languages:
        raise Refused("clean.language", f"{tag} {score:.2f}", text)
    return {"lang": tag, "lang_score": score, "second_lang": second, "second_score": second_score}


def _in_wanted_script(text: str, lang: str, params: Clean) -> tuple[str, int]:
    """A Chinese text in the script that the corpus wants, and the number of characters that changed."""
    if params.chinese == "as_is" or not lang.startswith("zh"):
        return text, 0
    converted = convert_chinese(text, params.chinese)
    return converted, sum(before != after for before, after in zip(text, converted, strict=False))


def _flagged(text: str, lang: str, params: Clean) -> dict[str, Any]:
    """How many flagged words a text has. Raises Refused where it is too many."""
    if not params.flagged_words:
        return {"flagged": None}
    words = load_flagged(params.flagged_words).get(lang)
    if words is None:
        return {"flagged": None}
    count = count_flagged(text, words)
    share = flagged_share(count, text, lang)
    if share > params.max_flagged:
        raise Refused("clean.flagged", f"{share:.4f}", text)
    return {"flagged": count}


def _masked(text: str, params: Clean) -> tuple[str, Counts]:
    """The text with personal data masked, and the matches by type. Raises Refused where they cost the document."""
    if params.pii == "off":
        return text, {}
    masked, found = mask_personal_data(text)
    if found and params.pii == "drop":
        raise Refused("clean.pii", ", ".join(sorted(found)))
    return masked, found


def _cleaned(text: str, lang: str, params: Clean, masked: Counter[str]) -> str:
    """A title, or a message's content, as the text of the document is cleaned; adds to the matches that are masked."""
    text = normalise(scrub_surrogates(text), repair=params.repair).text
    text, found = _masked(_in_wanted_script(text, lang, params)[0], params)
    masked.update(found)
    return text


def _cleaned_messages(messages: Sequence[Mapping[str, Any]], clean: Callable[[str], str]) -> list[dict[str, Any]]:
    """Messages with their contents cleaned; a message may have none, such as a call of a tool."""
    return [
        {"role": one["role"], "content": one["content"] and clean(one["content"])}  # null stays null
        for one in messages
    ]
