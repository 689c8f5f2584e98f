"""Token hashes against a reader that goes character by character with Unicode's own data, and hashes in Python."""

from __future__ import annotations

import ast
import random
import re
import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from conftest import PROJECT
from fuzz.oracles import slow_hash, slow_tokens
from hypothesis import example, given
from hypothesis import strategies as st

from corpus.text.buffers import Texts
from corpus.text.exact import exact_keys
from corpus.text.scripts import HANGUL, UNSPACED
from corpus.text.segment import words
from corpus.text.tokens import tokenise

LETTERS = "abzÉßñşЖяΩςİǰﬁꙀᾳמאŉ한글中文𠮷𝐀𞤀ひカกขั0٣９½_'’.,;:!?，。 　\n\t-–“”…€😀"
LETTERS += "\u0301\u0345\u0323\u093f\ufe0f\u00ad\u200d\ue000"


def hashes(*texts: str | None) -> list[list[int]]:
    tokens = tokenise(Texts.of(pa.array(texts, pa.large_string())))
    return [part.tolist() for part in np.split(tokens.hashes, tokens.offsets[1:-1])]


@given(st.lists(st.text(st.sampled_from(LETTERS)), min_size=1, max_size=4))
@example(["中Word 2中", "", "Straße STRASSE"])
@example(["a", "’", "e\u0301é", "ǰ\u0323"])
def test_tokens_are_those_of_the_slow_reader(texts: list[str]) -> None:
    assert hashes(*texts) == [[slow_hash(token) for token in slow_tokens(text)] for text in texts]


@given(st.text())
def test_any_text_gives_the_tokens_of_its_parts(text: str) -> None:
    (own,) = hashes(text)
    assert hashes(text + " Ende", "中" + text)[0] == [*own, slow_hash("ende")]


def test_every_letter_is_in_a_token() -> None:
    """All characters of the first planes, one text each: letters and digits give a token, others none."""
    points = [
        point for point in range(0x40000) if not 0xD800 <= point < 0xE000 and unicodedata.category(chr(point)) != "Cn"
    ]
    found = hashes(*map(chr, points))
    for point, own in zip(points, found, strict=True):
        folded = unicodedata.normalize("NFC", chr(point)).casefold()
        letter = unicodedata.category(folded[0])[0] in "LN"
        vowel_sign = bool(re.match(f"[{UNSPACED + HANGUL}]", folded))  # a token in these scripts
        assert bool(own) == (letter or vowel_sign), hex(point)
        if letter and not vowel_sign:
            assert own == [slow_hash(folded)], hex(point)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rock’n’roll isn't 'quoted'", ["rocknroll", "isnt", "quoted"]),
        ("I ❤️ it", ["i", "it"]),
        ("2023年5月", ["2023", "年", "5", "月"]),
        ("他说：“好。”", ["他", "说", "好"]),
        ("สวัสดี", list("สวัสดี")),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("파일 이름", ["파", "일", "이", "름"]),
        ("co\u00adoperate snake_case", ["cooperate", "snake", "case"]),
        ("", []),
        (None, []),
    ],
)
def test_tokens(text: str | None, expected: list[str]) -> None:
    assert hashes(text) == [[slow_hash(token) for token in expected]]


@given(st.lists(st.binary(max_size=12), min_size=1, max_size=5))
@example([b"\xe4\xb8", b"\xad\xe6\x96\x87"])
@example([b"caf\xe9 au lait", "e\u0301".encode()])
def test_broken_bytes_harm_nobody_else(parts: list[bytes]) -> None:
    """A text that is no UTF-8 is read to its own end, whatever lies behind it, and has its own exact key."""
    alone = [tokenise(buffers([part])) for part in parts]
    together = tokenise(buffers(parts))
    hashes_together = np.split(together.hashes, together.offsets[1:-1])
    assert [part.tolist() for part in hashes_together] == [one.hashes.tolist() for one in alone]
    assert exact_keys(together.texts) == [key for one in alone for key in exact_keys(one.texts)]


def buffers(parts: list[bytes]) -> Texts:
    return Texts(np.frombuffer(b"".join(parts), np.uint8), np.cumsum([0, *map(len, parts)]))


def test_slices_and_chunks_of_a_column() -> None:
    column = pa.array(["one two", None, "drei", "四"], pa.string())
    expected = hashes("one two", None, "drei", "四")
    for array, wanted in (
        (column.slice(1, 2), expected[1:3]),
        (pa.chunked_array([column, column]), expected * 2),
        (pa.chunked_array([], pa.string()), []),
        (column.cast(pa.string_view()), expected),
    ):
        tokens = tokenise(Texts.of(array))
        assert tokens.offsets.tolist() == np.cumsum([0, *map(len, wanted)]).tolist()
        assert tokens.hashes.tolist() == [value for part in wanted for value in part]


@given(st.lists(st.text(max_size=9), max_size=20), st.integers(1, 5), st.integers(1, 20))
def test_slices_are_the_texts_in_order(strings: list[str], texts: int, most_bytes: int) -> None:
    column = Texts.of(pa.array(strings, pa.large_string()))
    slices = list(column.slices(texts, most_bytes))
    assert [one.text(number) for one in slices for number in range(len(one))] == strings
    assert all(0 < len(one) <= texts and (one.size <= most_bytes or len(one) == 1) for one in slices)


def test_hashes_of_many_words_differ() -> None:
    generator = random.Random(1)
    texts = ["".join(generator.choices("abcdefghij", k=generator.randrange(1, 12))) for _ in range(200_000)]
    tokens = tokenise(Texts.of(pa.array(texts)))
    assert len(set(tokens.hashes.tolist())) == len(set(texts))
    assert len({value >> 32 for value in tokens.hashes.tolist()}) > 0.9999 * len(set(texts))


def test_words_and_tokens_part_the_same_text_alike() -> None:
    text = "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. 用Python写的3个脚本。"
    assert hashes(text) == [[slow_hash(word.casefold()) for word in words(text) if word[0].isalnum()]]


def test_a_kernel_uses_nothing_of_another_module() -> None:
    """Compiled code is kept by the file that a kernel stands in, and would not notice a change elsewhere."""
    kernels = 0
    for path in (PROJECT / "corpus").rglob("*.py"):
        module = ast.parse(path.read_text("utf-8"))
        foreign = {
            alias.asname or alias.name
            for node in module.body
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("corpus")
            for alias in node.names
        }
        for node in module.body:
            if isinstance(node, ast.FunctionDef) and any("njit" in ast.unparse(one) for one in node.decorator_list):
                kernels += 1
                assert not foreign & {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}, node.name
    assert kernels > 10
