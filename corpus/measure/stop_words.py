"""Function words: what running text of a language is held together by."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from corpus.measure.lexical import StopWords, hash_tables
from corpus.text.buffers import Texts
from corpus.text.segment import segment, words_view

_ENGLISH = """
    a about after again all also although always am an and another any are as at be because been before being between
    both but by can cannot could did do does doing done down during each either else even every few for from get had
    has have having he her here hers him his how however i if in into is it its itself just less many may me might
    more most much must my neither never no nor not now of off often on once one only or other our out over own rather
    same shall she should since so some such than that the their them then there therefore these they this those
    though through to too two under until up upon us very was we were what when where whether which while who whom
    whose why will with within without would yet you your don't doesn't didn't isn't aren't wasn't can't won't it's
    i'm i've you're we're they're that's there's
"""
# One character each, as the segmentation has it; simplified and traditional.
_CHINESE = (
    "的地得了着著过過是在有和与與或及而且但又也都就才还還再已曾将將把被给給让讓使对對从從向到于於以为為由自因所其之"
    "这這那哪此每各某谁誰什么麼何怎样樣我你您他她它们們个個一不没沒无無非很更最太可能会會要应應该該须須得来來去上下中里裡"
    "前后後内內外时時候当當如若则則虽雖然只仅僅并並等吗嗎呢吧啊呀"
)
STOP_WORDS = {"en": frozenset(_ENGLISH.split()), "zh": frozenset(_CHINESE)}

# Short lists of which running text holds two different words at least: Gopher's (Rae et al. 2021, appendix A1) and the
# one that FineWeb2 (Penedo et al. 2025) found for Chinese.
SHORT_LISTS = {
    "en": frozenset(["the", "be", "to", "of", "and", "that", "have", "with"]),
    "zh": frozenset("的年在月是和日了於·為有被人中为他與後也而由"),
}
LANGUAGES = tuple(STOP_WORDS)  # a text's list has the place of its language here, the last one is of all


def stop_words(language: str | None) -> frozenset[str] | None:
    """The list of a language by the first subtag of its BCP 47 tag; None where there is none, all lists for None.

    >>> "的" in stop_words("zh-Hant"), stop_words("fr"), "the" in stop_words(None)
    (True, None, True)
    """
    if language is None:
        return frozenset().union(*STOP_WORDS.values())
    return STOP_WORDS.get(language.split("-")[0])


def list_number(language: str | None) -> int:
    """Which list of `hashed_stop_words` is a language's own: -1 where there is none.

    >>> list_number("zh-Hant"), list_number("fr"), list_number(None)
    (1, -1, 2)
    """
    if language is None:
        return len(LANGUAGES)
    first = language.split("-")[0]
    return LANGUAGES.index(first) if first in LANGUAGES else -1


@functools.cache
def hashed_stop_words() -> StopWords:
    """All lists as the kernel reads them."""
    long = [STOP_WORDS[language] for language in LANGUAGES]
    short = [SHORT_LISTS[language] for language in LANGUAGES]
    spans = [segment(Texts.of_strings(sorted(words)), words_view()) for words in (*_and_all(long), *_and_all(short))]
    count = len(spans) // 2
    return StopWords(
        hash_tables([own.folded for own in spans[:count]]), hash_tables([own.hashes for own in spans[count:]])
    )


def _and_all(lists: Sequence[frozenset[str]]) -> list[frozenset[str]]:
    return [*lists, frozenset().union(*lists)]
