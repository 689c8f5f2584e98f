"""Neighbouring sentences change places, where nothing suggests that their order matters."""

from __future__ import annotations

import re

from corpus.documents import document_id
from corpus.text.sentences import WRAPPED, ends_complete, split_sentences

METHOD = "sentence-swap"

# A sentence that begins so leans on the one before it.
_LEANING = re.compile(
    r"""(?: however | therefore | thus | hence | this | that | these | those | it | its | he | she | they | their | his
          | her | such | then | also | but | and | or | so | otherwise | instead | similarly | likewise | furthermore
          | moreover | meanwhile | finally | first | second | third | next | for\ example | for\ instance | in\ this
          | in\ that | in\ addition | both | here | note | again | still | yet | nevertheless | consequently )\b
      | [但这那它他她其此该并而也又还再则故即這該則還並]
      | 然[而后後] | 因[此而] | 所以 | [于於]是 | 同时 | 同時 | 另外 | 例如 | 比如 | 否[则則] | 接着 | 接著
      | 随后 | 隨後 | 最[后後] | 首先 | 其次 | 不过 | 不過 | 可是 | 由此 | 总之 | 總之""",
    re.VERBOSE | re.IGNORECASE,
)
_BRACKETS = ("()", "[]", "{}", "“”", "（）", "「」", "『』", "《》", "【】")


def swap_sentences(text: str, share: float, key: str) -> str:
    """Let about `share` (0 to 1) of a text's sentences, at least one pair, change places with their neighbour.

    Only whole sentences side by side in one paragraph do, and none that leans on what precedes it ("However, ...",
    "这..."). `key` decides which: the same key, the same text. A text without such a pair comes back as it is.

    >>> swap_sentences("Cats sleep a lot. Dogs bark at night.", 0.1, "any")
    'Dogs bark at night. Cats sleep a lot.'
    >>> swap_sentences("Cats sleep a lot. However, dogs bark.", 0.1, "any")
    'Cats sleep a lot. However, dogs bark.'
    """
    pieces = split_sentences(text)
    pairs = [position for position in range(len(pieces) - 1) if _may_swap(pieces, position)]
    wanted = max(1, round(len(pieces) * share / 2)) if share > 0 else 0
    taken: set[int] = set()
    for position in sorted(pairs, key=lambda pair: document_id(f"{key}\0{pair}")):
        if len(taken) == wanted:
            break
        if not taken & {position - 1, position + 1}:
            taken.add(position)
    for position in taken:
        (left, left_gap), (right, right_gap) = (_body_and_gap(piece) for piece in pieces[position : position + 2])
        pieces[position : position + 2] = [right + left_gap, left + right_gap]
    return "".join(pieces)


def _may_swap(pieces: list[str], position: int) -> bool:
    """Whether the sentence at this position and the next one can change places without harm."""
    left, right = pieces[position : position + 2]
    if "\n" in _body_and_gap(left)[1] or not (_stands_alone(left) and _stands_alone(right)):
        return False
    if position and not _closes(pieces[position - 1]):
        return False  # `left` is the rest of a sentence
    after = pieces[position + 2] if position + 2 < len(pieces) and "\n" not in _body_and_gap(right)[1] else ""
    return not _LEANING.match(after)


def _stands_alone(piece: str) -> bool:
    """Whether a piece is a whole sentence that begins as one, closes its brackets, and looks like prose."""
    body, _ = _body_and_gap(piece)
    return (
        len(body) >= 4
        and ends_complete(body)
        and not body.endswith(("?", "？"))  # an answer may follow
        and (body[0].isalpha() or body[0] in "\"'“‘「『《")
        and not _LEANING.match(body)
        and all(body.count(pair[0]) == body.count(pair[1]) for pair in _BRACKETS)
        and body.count('"') % 2 == 0
        and body.count("`") % 2 == 0
        and "  " not in body.replace("\n", "")
    )


def _closes(piece: str) -> bool:
    """Whether a sentence can begin after this piece: it is complete, or a paragraph or a short line ends with it."""
    body, gap = _body_and_gap(piece)
    return ends_complete(body) or gap.count("\n") > 1 or ("\n" in gap and len(body.rsplit("\n", 1)[-1]) < WRAPPED)


def _body_and_gap(piece: str) -> tuple[str, str]:
    body = piece.rstrip()
    return body, piece[len(body) :]
