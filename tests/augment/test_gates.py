import numpy as np
import pytest

from corpus.augment import gates
from corpus.reasons import REASONS

PARENT = "On 2024-05-01 we paid 3.50 euros, see https://example.org/a?b=1 or ask <EMAIL>. Thanks to everybody here."
NOTHING = np.array([], np.uint64)


@pytest.mark.parametrize(
    ("generated", "reasons"),
    [
        (PARENT.replace("Thanks", "Many thanks"), []),
        (PARENT.upper().replace("  ", " "), ["augment.unchanged"]),
        (PARENT.replace("3.50", "3.60"), ["augment.numbers"]),
        (PARENT.replace("a?b=1", "a"), ["augment.numbers"]),
        (PARENT.replace("<EMAIL>", "him"), ["augment.numbers"]),
        (PARENT + " Also 7.", ["augment.numbers"]),
        (PARENT + " Many words more." * 5, ["augment.length"]),
        ("2024-05-01 3.50 https://example.org/a?b=1 <EMAIL> " + "我们大家都在这里付过钱了" * 5, ["augment.language"]),
        ("谢谢", ["augment.numbers", "augment.length", "augment.language"]),
    ],
)  # fmt: skip
def test_each_gate_has_its_reason(generated: str, reasons: list[str]) -> None:
    assert gates.failed_gates(PARENT, generated, NOTHING) == reasons
    assert set(reasons) <= set(REASONS)


def test_a_text_of_the_corpus_is_known_whatever_its_case_and_spaces() -> None:
    corpus = np.unique(np.array([gates.text_hash(text) for text in ("One  two", "三四", "five")], np.uint64))
    assert gates.is_known("one two\n", corpus)
    assert not gates.is_known("one three", corpus)
    assert not gates.is_known("one two", NOTHING)
    assert gates.failed_gates("Two one", "One two", corpus) == ["augment.duplicate"]


def test_the_script_of_most_letters_counts() -> None:
    assert gates.keeps_script("使用 Python 编写的一个小程序，处理文件", "用 Python 写成的小程序用来处理文件")
    assert not gates.keeps_script("使用 Python 编写的一个小程序，处理文件", "A small Python program 处理文件")
    assert gates.keeps_script("123", "456")
