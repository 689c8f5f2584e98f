"""The language of a text: its script first, then a model for the candidates that are written in it."""

from __future__ import annotations

import copy
import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from langdetect import DetectorFactory, LangDetectException
from langdetect.detector_factory import PROFILES_DIRECTORY

from corpus.errors import UserError
from corpus.params import CANDIDATES
from corpus.text.scripts import chinese_forms

Engine = Literal["py3langid", "langdetect"]
Ranking = list[tuple[str, float]]  # codes of an engine and their probabilities, the likeliest first

SCRIPT_CHARS = 16_000  # of a text, whose scripts are counted
EXCERPT = 1_000  # characters for the model, from the beginning of a text and from its middle: more only take time
HAN_SHARE = 0.15  # of letters; a word is five Latin letters but two characters, and manuals quote much English

_NO_PROSE = {  # by what there must be for it to be searched for
    "://": re.compile(r"https?://[!-~]+"),
    "@": re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,255}"),
    ">": re.compile(r"<[A-Z]{1,9}>"),
}
_ASCII_LETTER = re.compile(r"[A-Za-z]")
# Who writes in which script, of the languages that the engines know. Those in no row write in Latin letters.
_WRITTEN_IN = {
    "ARABIC": "ar ary arz fa ku ps sd sdh ug ur",
    "ARMENIAN": "hy",
    "BENGALI": "as bn",
    "CJK": "zh",
    "CYRILLIC": "ba be bg kk ky mk mn ru sr tg tk tt uk uz",
    "DEVANAGARI": "gom hi mr ne sa",
    "ETHIOPIC": "am",
    "GEORGIAN": "ka",
    "GREEK": "el grc",
    "GUJARATI": "gu",
    "GURMUKHI": "pa",
    "HANGUL": "ko",
    "HEBREW": "hbo he",
    "HIRAGANA": "ja",
    "KANNADA": "kn",
    "KHMER": "km",
    "LAO": "lo",
    "MALAYALAM": "ml",
    "MYANMAR": "my",
    "ORIYA": "or",
    "SINHALA": "si",
    "TAMIL": "ta",
    "TELUGU": "te",
    "THAI": "th",
    "TIBETAN": "dz",
}
_NOT_LATIN = set(" ".join(_WRITTEN_IN.values()).split()) - {"kk", "ku", "sr", "tk", "tt", "uz"}
_NO_CANDIDATES = {"wuu", "yue", "zxx"}  # forms of Chinese, which its script decides, and what is no language
_CODE_OF = {"nb": "no", "fil": "tl", "zh-cn": "zh", "zh-tw": "zh"}
_TAG = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{1,8})*")
_THREE_LETTERS = dict(  # ISO 639-2 and 639-3, as datasets name languages
    re.findall(
        r"(\w+)=(\w+)",
        "ara=ar ces=cs cze=cs deu=de ger=de eng=en spa=es fra=fr fre=fr hin=hi ind=id ita=it jpn=ja kor=ko nld=nl "
        "dut=nl pol=pl por=pt rus=ru tha=th tur=tr ukr=uk vie=vi zho=zh chi=zh cmn=zh",
    )
)
_SCRIPT_OF_REGION = {"cn": "zh-hans", "sg": "zh-hans", "tw": "zh-hant", "hk": "zh-hant", "mo": "zh-hant"}


class Language(NamedTuple):
    """A BCP 47 tag and its probability (0 to 1) among the candidates; the runner-up and its own, if there is one."""

    tag: str
    score: float
    second: str | None = None
    second_score: float = 0.0


UNKNOWN = Language("und", 0.0)


def detect_language(text: str, engine: Engine = "py3langid", among: Sequence[str] = CANDIDATES) -> Language:
    """The likeliest of some languages; `und` where there are no letters to tell by, or none that a candidate uses.

    Chinese is zh-Hans or zh-Hant by its characters, whatever the candidates call it. Of a long text a part is read.
    Raises UserError as `check_candidates` does.

    >>> detect_language("这个软件可以设定备份的时间，使用 Python 也行。")
    Language(tag='zh-Hans', score=1.0, second=None, second_score=0.0)
    >>> [detect_language(text).tag for text in ("這個軟體可以設定備份的時間。", "これは日本語の文です。", "12345 + 67")]
    ['zh-Hant', 'ja', 'und']
    >>> detect_language("Esta frase está em português.", among=["en", "es", "pt-BR"]).tag
    'pt-BR'
    """
    tag_of = _codes(tuple(among))
    prose = text[:SCRIPT_CHARS]
    for sign, pattern in _NO_PROSE.items():
        prose = pattern.sub(" ", prose) if sign in prose else prose
    possible = _by_script(prose, tuple(tag_of))
    if not possible:
        return UNKNOWN
    if possible == ("zh",):
        tag, score = chinese_script(prose)
        other = "zh-Hans" if tag == "zh-Hant" else "zh-Hant"
        return Language(tag, score, other, round(1 - score, 4)) if score < 1 else Language(tag, score)
    if len(possible) == 1:
        return Language(tag_of[possible[0]], 1.0)
    if len(prose) > 2 * EXCERPT:
        prose = f"{prose[:EXCERPT]} {prose[len(prose) // 2 :][:EXCERPT]}"
    rank = load_model(engine, tuple(among))
    ranking = [(tag_of[code], score) for code, score in rank(prose) if code in possible]
    total = sum(score for _, score in ranking)
    if not total:
        return UNKNOWN
    (first, score), (second, second_score) = [*ranking, (None, 0.0)][:2]
    return Language(str(first), round(score / total, 4), second, round(second_score / total, 4))


@functools.lru_cache(maxsize=4)
def load_model(engine: Engine, among: tuple[str, ...]) -> Callable[[str], Ranking]:
    """What ranks the candidates for a text. It takes a second once a process, and threads may share it.

    Call it before the time limit of a page runs. Raises UserError as `check_candidates` does.
    """
    check_candidates(engine, among)
    codes = tuple(_codes(among))
    return _load_py3langid(codes) if engine == "py3langid" else _load_langdetect(codes)


def check_candidates(engine: Engine, among: Sequence[str]) -> None:
    """Raise UserError for a language that an engine does not know, naming it, and where there is none to choose from.

    >>> check_candidates("langdetect", ["en", "tlh"])
    Traceback (most recent call last):
    corpus.errors.UserError: clean.language.among: langdetect does not know 'tlh': take it out, or try py3langid
    """
    if not among:
        raise UserError("clean.language.among is empty: name the languages that the texts may be in")
    known = _known_languages(engine)
    for tag in among:
        if _code(tag) not in known:
            other = "try py3langid" if engine == "langdetect" else f"choose from {', '.join(sorted(known))}"
            raise UserError(f"clean.language.among: {engine} does not know {tag!r}: take it out, or {other}")


def nearest_language(stated: str, text: str, languages: Sequence[str]) -> str:
    """The one of some languages that a tag means; the tag itself if none is.

    Chinese without its script gets that of its region, or else the one its text is in.

    >>> [nearest_language(tag, "学习", ["en", "zh-Hans", "zh-Hant"]) for tag in ("en_US", "zh", "zh-TW", "de-AT")]
    ['en', 'zh-Hans', 'zh-Hant', 'de-AT']
    """
    known = {language.lower(): language for language in languages}
    first, *more = stated.strip().lower().replace("_", "-").split("-")
    first = _THREE_LETTERS.get(first, first)
    tags = ["-".join([first, *more[:count]]) for count in range(len(more), -1, -1)]
    if first == "zh" and not {"hans", "hant"} & set(more):
        region = next((script for place, script in _SCRIPT_OF_REGION.items() if place in more), None)
        tags.insert(1, region or chinese_script(text)[0].lower())
    return next((known[tag] for tag in tags if tag in known), stated)


def is_language_tag(stated: str) -> bool:
    """Whether a word can be a language's tag, and not a name, or a way to say that nobody knows.

    >>> [is_language_tag(word) for word in ("en", "eng", "zh_TW", "und", "unknown", "English")]
    [True, True, True, False, False, False]
    """
    return bool(_TAG.fullmatch(stated.strip())) and stated.strip().lower() not in ("und", "mul", "zxx", "mis")


def chinese_script(text: str) -> tuple[str, float]:
    """Simplified or Traditional, by the characters that only one of them uses; Simplified where none occurs.

    >>> chinese_script("学習學校")
    ('zh-Hant', 0.6667)
    """
    only_simplified, only_traditional = chinese_forms()
    counts = _count_characters(text)
    simplified = sum(count for character, count in counts.items() if character in only_simplified)
    traditional = sum(count for character, count in counts.items() if character in only_traditional)
    if traditional > simplified:
        return "zh-Hant", round(traditional / (simplified + traditional), 4)
    return "zh-Hans", round(simplified / (simplified + traditional), 4) if simplified else 1.0


def _count_characters(text: str) -> dict[str, int]:
    """How often each character occurs: what a Counter counts, in less than half of its time."""
    codes, counts = np.unique(np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32), return_counts=True)
    return dict(zip(map(chr, codes.tolist()), counts.tolist(), strict=True))


def _code(tag: str) -> str:
    """What the engines call a language: `pt` for pt-BR, `zh` for zh-Hans."""
    first = tag.lower().partition("-")[0]
    return _CODE_OF.get(first, first)


@functools.lru_cache(maxsize=4)
def _codes(among: tuple[str, ...]) -> dict[str, str]:
    """The candidates by their codes; of two with the same code the first."""
    return {_code(tag): tag for tag in reversed(among)}


def _by_script(text: str, codes: tuple[str, ...]) -> tuple[str, ...]:
    """The candidates that are written as most of a text is."""
    latin = tuple(code for code in codes if code not in _NOT_LATIN)
    if text.isascii():
        return latin if _ASCII_LETTER.search(text) else ()
    scripts: Counter[str] = Counter()
    for character, count in _count_characters(text).items():
        scripts[_script(character)] += count
    del scripts[""]
    letters, han, kana, hangul = scripts.total(), scripts["CJK"], scripts["HIRAGANA"], scripts["HANGUL"]
    eastern = han + kana + hangul
    if eastern and eastern >= HAN_SHARE * letters:
        # Names and quotations bring a few kana or hangul into Chinese; Japanese prose has a third and more.
        written = "ja" if kana > 0.1 * eastern else "ko" if hangul > 0.3 * eastern else "zh"
        if written == "zh" and "zh" not in codes:
            written = "ja"
        return (written,) if written in codes else ()
    if not letters:
        return ()
    scripts["LATIN"] //= 3  # everybody quotes English, few quote anything else
    script = max(sorted(scripts), key=scripts.__getitem__)
    if script == "LATIN":
        return latin
    return tuple(code for code in codes if code in _WRITTEN_IN[script].split())


@functools.cache
def _script(character: str) -> str:
    """The script of a letter, by its name in Unicode; "" for all else and for scripts of no language that we know."""
    script = unicodedata.name(character, "").partition(" ")[0] if character.isalpha() else ""
    script = {"KATAKANA": "HIRAGANA"}.get(script, script)
    return script if script == "LATIN" or script in _WRITTEN_IN else ""


@functools.cache
def _known_languages(engine: Engine) -> frozenset[str]:
    if engine == "py3langid":
        return frozenset(_py3langid().labels) - _NO_CANDIDATES
    return frozenset(_CODE_OF.get(name, name) for name in _langdetect().langlist)


def _load_py3langid(codes: tuple[str, ...]) -> Callable[[str], Ranking]:
    identifier = copy.copy(_py3langid())  # the arrays are shared
    identifier.set_languages(codes)
    # Some of what it knows words by is the blank before and after them.
    return lambda text: identifier.rank(f" {text} ")


@functools.cache
def _py3langid() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)  # arrays in the package, no pickle


def _load_langdetect(codes: tuple[str, ...]) -> Callable[[str], Ranking]:
    factory = _langdetect()
    prior = {name: 1.0 for name in factory.langlist if _CODE_OF.get(name, name) in codes}

    def rank(text: str) -> Ranking:
        detector = factory.create()
        detector.set_prior_map(prior)
        detector.append(text)
        try:
            return [(_CODE_OF.get(found.lang, found.lang), found.prob) for found in detector.get_probabilities()]
        except LangDetectException:  # it found nothing to go by
            return []

    return rank


@functools.cache
def _langdetect() -> DetectorFactory:
    factory = DetectorFactory()
    factory.seed = 0  # otherwise it samples, and the same text may get another language in another run
    factory.load_profile(PROFILES_DIRECTORY)
    return factory
