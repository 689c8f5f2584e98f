"""Which blocks of a page are its main text: a small network over what the markup and the text of a block show.

A block is described by its text, its tag, the words in the classes around it, how much text and how many links its
containers hold, and its place (`block_features`). Four convolutions over the blocks in their order, of 3, 5, 9 and 17
blocks, then let each see its neighbours. What stands outside the element that holds nearly all of what was found
(comments, a second article) loses some of its odds. `bench/train_main_text.py` trains the network; `main_text.json`
holds the weights.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from corpus.clean.blocks import Blocks, nearest
from corpus.clean.markup import TAGS, Markup, attribute_spans

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Network = dict[str, Any]  # matrices by name

WITHIN_MAIN = 0.8  # of the words found: the smallest element with so many is the main one
OUTSIDE_MAIN = 2.0  # what the log odds of a block outside it lose
MOST_WORDS_OF_CELL = 10  # on the average; a table with longer ones serves the layout

WEIGHTS = Path(__file__).with_name("main_text.json")

# What a class, an id, a role or an itemprop says of the text in it; `_` stands for a border of a word.
KEYWORDS = {
    "comment": "comment komment disqus discuss _reply forum_ respond replies guestbook reactie pinglun liuyan",
    "menu": "_nav menu navigation breadcrumb pagination pager _tabs _tab_ toolbar dropdown _toc_ skiplink sitemap "
    "topbar navi_ navbar daohang",
    "footer": "footer foot_ _foot copyright imprint impressum legal colophon bottom _dibu",
    "header": "header _head_ masthead topbar logo banner branding",
    "side": "sidebar _side aside widget _rail rail_ marginal secondary _right right_ rightcol",
    "share": "share sharing social facebook twitter whatsapp follow _like bookmark print_ _tools addthis",
    "related": "related recommend teaser more_ _more readmore similar popular trending most_ latest recent_ suggest "
    "promo outbrain taboola newslist linklist hot_ _hot xiangguan tuijian weiter mehr recirc upnext also",
    "author": "author byline vcard _bio_ avatar profile autor contributor",
    "meta": "meta_ _meta date_ _date time_ _time published timestamp categor _tag_ tags taxonomy postinfo keyword "
    "source_ info_ _info",
    "ad": "_ad_ _ads_ advert sponsor anzeige werbung affiliate _adv _gg_ guanggao ads_ commercial shop product price",
    "sign": "newsletter subscri cookie consent gdpr privacy paywall login signup register modal popup overlay donat "
    "signin",
    "caption": "caption credit photo image_ img_ gallery slide figure thumb picture media video player",
    "title": "title headline heading _h1_ subtitle kicker",
    "lead": "lead_ intro summary standfirst excerpt abstract _dek_ subhead vorspann",
    "text": "articlebody article-body article_body story-body body-text bodytext articletext post-content "
    "post_content postcontent entry-content entry_content entrycontent article-content article_content "
    "articlecontent story-content maintext post-body postbody story_body rich-text richtext zhengwen neirong "
    "js_content art_body articlecon",
    "body": "_body content article _post_ entry story _main_ _text text_ page hentry blog single detail",
    "hidden": "hidden _hide_ invisible screen-reader sr-only visually-hidden noprint no-print collapsed",
    "list": "_list list_ _item item_ _card card_ grid _row results archive index_ listing",
}
TAG_GROUPS = (
    *("p", "h1", "h2", "h3", "h4 h5 h6", "li", "td th", "div", "blockquote", "pre", "figcaption caption figure"),
    *("dt dd", "article section main", "html body", "header footer nav aside"),
)
AROUND = (
    *("article", "main", "nav", "header", "footer", "aside", "form", "li", "table", "figure", "blockquote", "a"),
    *("pre", "p"),
)
WORDS, LETTERS, DIGITS, CAPITALS, COMMAS, STOPS, MARKS, ENDING, SMALL, HAN = range(10)  # columns of `_count_text`


class Judged(NamedTuple):
    """What the network says of a page."""

    probability: Floats  # of each block, that it is main text
    words: Floats  # of each block; a Chinese character is 0.6 of one
    han: float  # share of Chinese and Japanese characters among the letters; Korean ones count as well


def judge(markup: Markup, blocks: Blocks, networks: Sequence[Network] | None = None) -> Judged:
    """The probability of each block to be main text, by our networks or by others."""
    features, counts = block_features(markup, blocks)
    odds = np.mean([logits(network, features) for network in networks or our_networks()], axis=0)
    odds = np.where(_in_main(markup, blocks, odds, counts[:, WORDS]), odds, odds - OUTSIDE_MAIN)
    probability = _of_whole_tables(markup, blocks, 1 / (1 + np.exp(-odds)), counts[:, WORDS])
    letters, han = counts[:, LETTERS].sum(), counts[:, HAN].sum()
    return Judged(probability, counts[:, WORDS], float(2 * han / max(letters, 1)))


def _in_main(markup: Markup, blocks: Blocks, odds: Floats, words: Floats) -> Flags:
    """Which blocks stand in the smallest element that holds nearly all words of blocks that were found."""
    found = np.where(odds > 0, words / (1 + np.exp(-odds)), 0.0)
    before = np.concatenate([[0.0], np.bincount(blocks.element, found, len(markup.tag)).cumsum()])
    held = before[markup.subtree_end] - before[:-1]
    main = np.flatnonzero(held >= WITHIN_MAIN * held[0])[-1]
    return np.asarray((blocks.element >= main) & (blocks.element < markup.subtree_end[main]))


def _of_whole_tables(markup: Markup, blocks: Blocks, probability: Floats, words: Floats) -> Floats:
    """The probabilities with one value, their mean by words, for all cells of a table of data: it stays whole."""
    tables = nearest(markup, frozenset({"table"}))[blocks.element]
    sizes = np.bincount(tables + 1, minlength=len(markup.tag) + 1)
    held = np.bincount(tables + 1, words + 0.1, len(sizes))
    means = np.bincount(tables + 1, probability * (words + 0.1), len(sizes)) / np.maximum(held, 0.1)
    of_data = (sizes >= 4) & (held <= MOST_WORDS_OF_CELL * sizes)
    of_data[0] = False  # no table
    return np.where(of_data[tables + 1], means[tables + 1], probability)


def certainty(judged: Judged, keep: Flags) -> float:
    """The F1 that one may expect of the kept blocks, if the probabilities are right; 0 to 1, by words.

    >>> certainty(Judged(np.array([1.0, 0.5]), np.array([10.0, 10.0]), 0.0), np.array([True, False]))
    0.8
    """
    expected = judged.probability * judged.words
    return float(2 * expected[keep].sum() / max(judged.words[keep].sum() + expected.sum(), 1e-9))


# ---- the network -----------------------------------------------------------------------------------------------------


@functools.cache
def our_networks() -> list[Network]:
    """The networks' matrices by name, as `bench/train_main_text.py` writes them."""
    stored = json.loads(WEIGHTS.read_text())
    return [ready(network) for network in stored["networks"]]


def ready(network: Network) -> Network:
    """A network's matrices as arrays."""
    return {name: np.array(values, np.float32) for name, values in network.items()}


def logits(network: Network, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Log odds of each block."""
    values = np.minimum(np.maximum((features - network["mean"]) / network["deviation"], -5), 5)
    hidden = np.maximum(_seen_by(values, network["input"], network["input_bias"], 0), 0)
    for layer, (matrix, bias) in enumerate(zip(network["convolutions"], network["biases"], strict=True)):
        hidden = hidden + np.maximum(_seen_by(hidden, matrix, bias, 2**layer), 0)
        if layer == 1:  # what the page as a whole is like
            hidden = hidden + hidden.mean(axis=0) @ network["page"]
    odds: npt.NDArray[np.float32] = hidden @ network["output"] + network["output_bias"]
    return odds


@njit(nogil=True, cache=True)
def _seen_by(rows, matrix, bias, step):
    """Products of a matrix with each row, or with the row `step` before, the row and the one `step` after in one.

    Rows beyond the ends are zero. Not by BLAS, which starts threads for so little and adds up in its own order.
    """
    n_rows, width = rows.shape
    result = np.zeros((n_rows, len(bias)), np.float32)
    for row in range(n_rows):
        result[row] = bias
        for part in range(len(matrix) // width):
            other = row + (part - 1) * step
            if other < 0 or other >= n_rows:
                continue
            for at in range(0, width - 3, 4):
                a, b, c, d = rows[other, at], rows[other, at + 1], rows[other, at + 2], rows[other, at + 3]
                first = part * width + at
                for column in range(len(bias)):
                    result[row, column] += (a * matrix[first, column] + b * matrix[first + 1, column]) + (
                        c * matrix[first + 2, column] + d * matrix[first + 3, column]
                    )
            for at in range(width - width % 4, width):
                for column in range(len(bias)):
                    result[row, column] += rows[other, at] * matrix[part * width + at, column]
    return result


# ---- features --------------------------------------------------------------------------------------------------------


def block_features(markup: Markup, blocks: Blocks) -> tuple[npt.NDArray[np.float32], Floats]:
    """What is known of each block, an array of (blocks, features), and the counts of `_count_text`."""
    texts = [text.replace("\x00", "") for text in blocks.text]
    counts = _count_text(np.frombuffer("".join(f"{text}\x00" for text in texts).encode(), np.uint8), len(texts))
    words, letters = counts[:, WORDS], np.maximum(counts[:, LETTERS], 1)
    linked = blocks.link_chars / np.maximum(blocks.chars, 1)
    kinds = _tag_groups()[markup.tag]
    kind = kinds[blocks.element]
    spans = attribute_spans(markup, ("class", "id", "role", "itemprop"))
    named = _find_keywords(markup.source, spans, *_patterns())
    first: dict[str, int] = {}
    repeated = np.array([first.setdefault(text, number) != number for number, text in enumerate(texts)], np.float64)
    text = [
        *(np.log1p(words) / 3, np.minimum(words, 60) / 60, linked),
        *(counts[:, DIGITS] / letters, counts[:, CAPITALS] / letters),
        *(np.minimum(counts[:, sign] / (words + 1), 0.3) * 3 for sign in (COMMAS, STOPS)),
        *(counts[:, ENDING], counts[:, SMALL], np.minimum(counts[:, MARKS], 2), counts[:, HAN] > 0),
        *(np.minimum(letters / (words + 1e-9), 12) / 6, repeated, words <= 0.5),
    ]
    place = _place(
        *(markup.parent, markup.depth, kinds, _around()[markup.tag], named),
        *(blocks.element, words, linked, counts[:, COMMAS], len(KEYWORDS), len(AROUND)),
    )
    beside = np.column_stack(
        [text[0], linked, counts[:, ENDING], kind == 0, (kind >= 1) & (kind <= 4), words * (1 - linked) > 30]
    ).astype(np.float32)
    tags = np.eye(len(TAG_GROUPS) + 1, dtype=np.float32)[kind]
    return np.hstack([np.column_stack(text).astype(np.float32), tags, place, _neighbours(beside)]), counts


@functools.cache
def _tag_groups() -> npt.NDArray[np.int64]:
    """For each tag the group that it is in, or their number."""
    groups = [name.split() for name in TAG_GROUPS]
    return np.array([next((n for n, names in enumerate(groups) if tag in names), len(groups)) for tag in TAGS])


@functools.cache
def _around() -> npt.NDArray[np.int64]:
    """For each tag its place in AROUND, or -1."""
    return np.array([AROUND.index(tag) if tag in AROUND else -1 for tag in TAGS])


@functools.cache
def _patterns() -> tuple[npt.NDArray[Any], ...]:
    """All keywords one after the other, where each starts, its group, and where those of two first bytes begin."""
    words = [(word.encode(), group) for group, line in enumerate(KEYWORDS.values()) for word in line.split()]
    words.sort(key=lambda entry: entry[0].lstrip(b"_")[:2])
    pairs = np.array([int.from_bytes(word.lstrip(b"_")[:2], "big") for word, _ in words])
    starts = np.cumsum([0, *(len(word) for word, _ in words)])
    joined = np.frombuffer(b"".join(word for word, _ in words), np.uint8)
    return joined, starts, np.array([group for _, group in words]), np.searchsorted(pairs, np.arange((1 << 16) + 1))


@njit(nogil=True, cache=True)
def _is_letter(byte):
    return 97 <= byte | 32 <= 122


@njit(nogil=True, cache=True)
def _stands_at(source, start, at, end, joined, first, last):
    """Whether the keyword from first to before last stands at a place of an attribute's value, whatever its case.

    `_` at either end of it stands for a border.
    """
    opens = joined[first] == 95
    first += opens
    closes = joined[last - 1] == 95
    last -= closes
    after = at + last - first
    if after > end:
        return False
    for i in range(first + 2, last):  # the first two bytes are known to fit
        byte = source[at + i - first]
        if 65 <= byte <= 90:
            byte |= 32
        if byte != joined[i]:
            return False
    if opens and at > start and _is_letter(source[at - 1]) and not (source[at - 1] >= 97 and source[at] < 97):
        return False  # nor is it a hump, as in articleBody
    return not (closes and after < end and 97 <= source[after] <= 122)


@njit(nogil=True, cache=True)
def _find_keywords(source, spans, joined, starts, groups, by_pair):
    """For each element the groups of keywords that its attributes name, a bit each."""
    found = np.zeros(len(spans), np.int64)
    for element in range(len(spans)):
        bits = np.int64(0)
        for column in range(spans.shape[1]):
            start, end = spans[element, column, 0], spans[element, column, 1]
            after = np.int64(0)
            for at in range(end - 1, start - 1, -1):
                byte = np.int64(source[at])
                if 65 <= byte <= 90:
                    byte |= 32
                pair, after = byte << 8 | after, byte
                for word in range(by_pair[pair], by_pair[pair + 1]):
                    bit = np.int64(1) << groups[word]
                    if not bits & bit and _stands_at(source, start, at, end, joined, starts[word], starts[word + 1]):
                        bits |= bit
        found[element] = bits
    return found


@njit(nogil=True, cache=True)
def _count_text(joined, n_blocks):
    """What each text, closed by a zero byte, is made of: an array of (texts, 10), see the names of its columns."""
    counts = np.zeros((n_blocks, 10))
    i = 0
    for block in range(n_blocks):
        words, letters, han = 0, 0, 0
        first, last = np.int64(0), np.int64(0)
        in_word = False
        while joined[i] != 0:
            byte = np.int64(joined[i])
            if byte < 0x80:
                character = np.int64(byte)
                i += 1
            elif byte < 0xE0:
                character = (byte & 31) << 6 | np.int64(joined[i + 1]) & 63
                i += 2
            elif byte < 0xF0:
                character = (byte & 15) << 12 | (np.int64(joined[i + 1]) & 63) << 6 | np.int64(joined[i + 2]) & 63
                i += 3
            else:
                character = np.int64(0x1F600)  # any beyond the basic plane
                i += 4
            is_letter = False
            if character < 0x80:
                if 97 <= character <= 122:
                    is_letter = True
                elif 65 <= character <= 90:
                    is_letter = True
                    counts[block, 3] += 1
                elif 48 <= character <= 57:
                    is_letter = True
                    counts[block, 2] += 1
                elif character == 44 or character == 59:
                    counts[block, 4] += 1
                elif character == 46 or character == 33 or character == 63:
                    counts[block, 5] += 1
                elif character == 124 or character == 42:
                    counts[block, 6] += 1
            elif 0xC0 <= character < 0x2000:
                is_letter = character != 0xD7 and character != 0xF7
            elif 0x3040 <= character <= 0x9FFF or 0xAC00 <= character <= 0xD7A3 or 0xF900 <= character <= 0xFAFF:
                han += 1
            elif character in (0xFF0C, 0x3001, 0xFF1B):
                counts[block, 4] += 1
            elif character in (0x3002, 0xFF01, 0xFF1F, 0x2026):
                counts[block, 5] += 1
            elif character in (0xA9, 0xBB, 0x203A, 0x2022, 0xB7, 0x2192, 0xFF5C):
                counts[block, 6] += 1
            if is_letter:
                letters += 1
                words += not in_word
            in_word = is_letter
            if character > 32:
                last = character
                if first == 0:
                    first = character
        i += 1
        counts[block, 0] = words + 0.6 * han
        counts[block, 1] = letters + 2 * han
        counts[block, 9] = han
        if last in (46, 33, 63, 34, 0xBB, 0x3002, 0xFF01, 0xFF1F, 0x201C, 0x201D, 0x2026):
            counts[block, 7] = 1
        elif last == 58 or last == 0xFF1A:
            counts[block, 7] = 0.5
        counts[block, 8] = 97 <= first <= 122
    return counts


@njit(nogil=True, cache=True)
def _place(parent, depth, kinds, around, named, holders, words, linked, commas, n_keywords, n_around):
    """Where each block stands: keywords and tags around it, what its containers hold, how far it is from the densest.

    An array of (blocks, 2 keywords + tags around + 24).
    """
    n_elements, n_blocks = len(parent), len(holders)
    # Sums over subtrees: of words, words in links, words of paragraphs, blocks, paragraphs; and a score of the text
    # right in an element, as readability has it.
    sums, score = np.zeros((n_elements, 5)), np.zeros(n_elements)
    is_paragraph = np.zeros(n_blocks)
    for block in range(n_blocks):
        holder = holders[block]
        free = words[block] * (1 - linked[block])
        sums[holder, 0] += words[block]
        sums[holder, 1] += words[block] - free
        sums[holder, 3] += 1
        if words[block] >= 10 and linked[block] < 0.5:
            is_paragraph[block] = 1
            sums[holder, 2] += free
            sums[holder, 4] += 1
            value = (1 + commas[block] + min(words[block] / 20, 3.0)) * (1 - linked[block])
            around_it = holder
            if (kinds[holder] <= 5 or 8 <= kinds[holder] <= 9 or kinds[holder] == 11) and parent[holder] >= 0:
                around_it = parent[holder]
            for share in (1.0, 0.5, 0.2):
                if around_it < 0:
                    break
                score[around_it] += share * value
                around_it = parent[around_it]
    for element in range(n_elements - 1, 0, -1):
        sums[parent[element]] += sums[element]
    densest, most = 0, -1.0
    for element in range(n_elements):
        value = score[element] * (1 - sums[element, 1] / (sums[element, 0] + 1e-9))
        if value > most:
            densest, most = element, value
    most = max(most, 1e-9)
    on_path = np.zeros(n_elements, np.bool_)
    element = densest
    while element >= 0:
        on_path[element] = True
        element = parent[element]
    # What passes from an element to those within it.
    total, paragraphs = max(sums[0, 0], 1e-9), max(sums[0, 2], 1e-9)
    common_depth, best_score = np.zeros(n_elements), np.zeros(n_elements)
    inherited = np.zeros((n_elements, n_keywords), np.float32)
    within = np.zeros((n_elements, n_around), np.float32)
    for element in range(n_elements):
        holder = parent[element]
        if holder >= 0:
            common_depth[element] = depth[element] if on_path[element] else common_depth[holder]
            best_score[element] = max(score[element], best_score[holder])
            inherited[element] = inherited[holder]
            within[element] = within[holder]
        # A name counts the less, the more of the page it stands for.
        weight = max(1 - sums[element, 2] / paragraphs, 0.05) if depth[element] > 2 else 0.0
        if named[element]:
            for group in range(n_keywords):
                if named[element] >> group & 1:
                    inherited[element, group] = max(inherited[element, group], weight)
        if around[element] >= 0:
            within[element, around[element]] = 1
    place = np.zeros((n_blocks, 2 * n_keywords + n_around + 24), np.float32)
    heading, last_heading = -1, -1
    for block in range(n_blocks - 1, -1, -1):
        if kinds[holders[block]] == 1:
            heading = block
    seen, seen_paragraphs, level = 0.0, 0.0, 0
    for block in range(n_blocks):
        own = np.int64(holders[block])
        first = max(parent[own], 0)
        second = max(parent[first], 0)
        third = max(parent[second], 0)
        place[block, :n_keywords] = inherited[own]
        near = named[own] | (named[first] if depth[first] > 2 else 0)
        for group in range(n_keywords):
            place[block, n_keywords + group] = near >> group & 1
        place[block, 2 * n_keywords : 2 * n_keywords + n_around] = within[own]
        column = 2 * n_keywords + n_around
        for container in (own, first, second, third):
            place[block, column] = sums[container, 1] / (sums[container, 0] + 1e-9)
            place[block, column + 1] = sums[container, 2] / paragraphs
            column += 2
        for container in (first, second):
            place[block, column] = np.log1p(sums[container, 0] / max(sums[container, 3], 1.0))
            place[block, column + 1] = sums[container, 4] / max(sums[container, 3], 1.0)
            column += 2
        place[block, column] = common_depth[own] == depth[densest]
        place[block, column + 1] = min(depth[densest] - common_depth[own], 8.0) / 4
        place[block, column + 2] = min(depth[own] - common_depth[own], 8.0) / 4
        place[block, column + 3] = best_score[own] / most
        place[block, column + 4] = score[first] / most
        place[block, column + 5] = seen / total
        place[block, column + 6] = seen_paragraphs / paragraphs
        place[block, column + 7] = block / n_blocks
        place[block, column + 8] = 0.0 if heading < 0 else 1.0 if block > heading else -1.0
        place[block, column + 9] = np.log1p(block - last_heading) if last_heading >= 0 else 5.0
        place[block, column + 10] = level / 4
        place[block, column + 11] = np.log1p(total) / 5
        seen += words[block]
        seen_paragraphs += is_paragraph[block] * words[block] * (1 - linked[block])
        if 1 <= kinds[own] <= 4:
            last_heading, level = block, kinds[own]
    return place


@njit(nogil=True, cache=True)
def _neighbours(values):
    """Of each row the two before, the two after, and the means of six before and of six after: (rows, 6 columns)."""
    n_rows, n_columns = values.shape
    seen = np.zeros((n_rows, 6 * n_columns), np.float32)
    for row in range(n_rows):
        for offset in range(-6, 7):
            other = row + offset
            if offset == 0 or other < 0 or other >= n_rows:
                continue
            mean_of = min(row, 6) if offset < 0 else min(n_rows - 1 - row, 6)
            mean_at = (4 if offset < 0 else 5) * n_columns
            place = (offset + 2 if offset < 0 else offset + 1) * n_columns
            for column in range(n_columns):
                seen[row, mean_at + column] += values[other, column] / mean_of
                if -2 <= offset <= 2:
                    seen[row, place + column] = values[other, column]
    return seen
