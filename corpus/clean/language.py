"""The language of a text: its script first, then a model for alphabets."""

from __future__ import annotations

import re
from collections.abc import Sequence

from langdetect import DetectorFactory, LangDetectException, detect_langs
from langdetect.detector_factory import init_factory

from corpus.text.scripts import chinese_forms

DetectorFactory.seed = 0  # otherwise it samples, and the same text may get another language in another run

MODEL_CHARS = 4_000  # of a text; more changes nothing but the time
HAN_SHARE = 0.15  # of letters; a word is five Latin letters but two characters, and manuals quote much English

_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f]")
_KANA = re.compile(r"[\u3041-\u3096\u30a1-\u30fa]")
_HANGUL = re.compile(r"[\uac00-\ud7af\u1100-\u11ff]")
_THAI = re.compile(r"[\u0e01-\u0e5b]")
_LETTER = re.compile(r"[^\W\d_]")
_NO_PROSE = re.compile(r"https?://\S+|\S{1,64}@\S{1,255}|<[A-Z]+>|\d+")

_SCRIPT_OF_REGION = {"cn": "zh-hans", "sg": "zh-hans", "tw": "zh-hant", "hk": "zh-hant", "mo": "zh-hant"}


def load_profiles() -> None:
    """Load langdetect's profiles, which takes a second and must not be interrupted by the time limit of a page."""
    init_factory()


def detect_language(text: str) -> tuple[str, float]:
    """BCP 47 tag and confidence (0 to 1) of a text; ("und", 0.0) where it has no letters to tell by.

    >>> detect_language("这个软件可以设定备份的时间，使用 Python 也行。")
    ('zh-Hans', 1.0)
    >>> detect_language("這個軟體可以設定備份的時間。")[0], detect_language("これは日本語の文です。")[0]
    ('zh-Hant', 'ja')
    >>> detect_language("12345 + 67")
    ('und', 0.0)
    """
    letters = len(_LETTER.findall(text))
    if not letters:
        return "und", 0.0
    han, kana, hangul = (len(script.findall(text)) for script in (_HAN, _KANA, _HANGUL))
    eastern = han + kana + hangul
    if eastern >= HAN_SHARE * letters:
        # Names and quotations bring a few kana or hangul into Chinese; Japanese prose has a third and more.
        if kana > 0.1 * eastern:
            return "ja", 1.0
        if hangul > 0.3 * eastern:
            return "ko", 1.0
        return chinese_script(text)
    if len(_THAI.findall(text)) > letters / 2:
        return "th", 1.0
    prose = _NO_PROSE.sub(" ", text[: 4 * MODEL_CHARS])[:MODEL_CHARS]
    try:
        best = detect_langs(prose)[0]
    except LangDetectException:
        return "und", 0.0
    return {"zh-cn": "zh-Hans", "zh-tw": "zh-Hant"}.get(best.lang, best.lang), round(float(best.prob), 4)


def nearest_language(stated: str, text: str, languages: Sequence[str]) -> str:
    """The one of some languages that a tag means; the tag itself if none is.

    Chinese without its script gets that of its region, or else the one its text is in.

    >>> [nearest_language(tag, "学习", ["en", "zh-Hans", "zh-Hant"]) for tag in ("en_US", "zh", "zh-TW", "de-AT")]
    ['en', 'zh-Hans', 'zh-Hant', 'de-AT']
    """
    known = {language.lower(): language for language in languages}
    tag = stated.strip().lower().replace("_", "-")
    first, *more = tag.split("-")
    tags = ["-".join([first, *more[:count]]) for count in range(len(more), -1, -1)]
    if first == "zh" and not {"hans", "hant"} & set(more):
        region = next((script for place, script in _SCRIPT_OF_REGION.items() if place in more), None)
        tags.insert(1, region or chinese_script(text)[0].lower())
    return next((known[tag] for tag in tags if tag in known), stated)


def chinese_script(text: str) -> tuple[str, float]:
    """Simplified or Traditional, by the characters that only one of them uses; Simplified where none occurs.

    >>> chinese_script("学習學校")
    ('zh-Hant', 0.6667)
    """
    only_simplified, only_traditional = chinese_forms()
    simplified = sum(character in only_simplified for character in text)
    traditional = sum(character in only_traditional for character in text)
    if traditional > simplified:
        return "zh-Hant", round(traditional / (simplified + traditional), 4)
    return "zh-Hans", round(simplified / (simplified + traditional), 4) if simplified else 1.0
