import pytest

from corpus.augment import gates
from corpus.augment.gates import Variant, failed_gates
from corpus.params import Gates
from corpus.reasons import REASONS

PARENT = (
    "On 2024-05-01 we paid 3.50 euros to Anna in Rome, see https://example.org/a?b=1 or ask <EMAIL>. "
    "Thanks to everybody here."
)
WIDE = Gates(chrf=(0, 100), copied=1.0)


@pytest.mark.parametrize(
    ("generated", "reasons"),
    [
        (PARENT.replace("Thanks", "Many thanks"), []),
        (PARENT.upper().replace("  ", " "), ["augment.unchanged"]),
        (PARENT.replace("3.50", "3.60"), ["augment.numbers"]),
        (PARENT.replace("a?b=1", "a"), ["augment.numbers"]),
        (PARENT.replace("<EMAIL>", "him"), ["augment.numbers"]),
        (PARENT.replace("Anna", "him"), ["augment.entities"]),
        (PARENT + " Also 7.", ["augment.numbers"]),
        (PARENT + " Many words more are here." * 5, ["augment.length", "augment.repetition"]),
        (PARENT.replace("everybody", "all here" + " and here" * 5), ["augment.repetition"]),
        (
            "2024-05-01 我们在 Rome 付给 Anna 共 3.50 欧元，见 https://example.org/a?b=1 ，或者去问 <EMAIL> 。"
            "谢谢今天来到这里的各位朋友们。",
            ["augment.language"],
        ),
        ("谢谢", ["augment.numbers", "augment.entities", "augment.length", "augment.language"]),
    ],
)  # fmt: skip
def test_each_gate_has_its_reason(generated: str, reasons: list[str]) -> None:
    assert failed_gates(Variant(PARENT, generated, "any"), WIDE) == reasons
    assert set(reasons) <= set(REASONS)


def test_a_copy_and_a_text_of_other_words_are_outside_the_band() -> None:
    near = Variant("The teacher bought two cars. It is late.", "The teacher bought two cars. It was late.", "any")
    assert failed_gates(near, Gates(chrf=(30, 80), copied=0.4)) == ["augment.copied", "augment.near"]
    far = Variant(
        "The teacher bought two cars yesterday evening.", "Our physics lecturer got vehicles at night.", "any"
    )
    assert failed_gates(far, Gates(chrf=(30, 95))) == ["augment.far"]
    assert failed_gates(near._replace(rewords=False), Gates(chrf=(30, 80), copied=0.4)) == []


def test_what_all_sentences_copy_is_the_share_of_prose() -> None:
    code = "\n```\nx = 1\n```\n"
    assert gates.copied(f"One is here.{code}", f"Number one is here.{code}") == 0
    assert gates.copied("", "") == 0


def test_names_are_found_in_english_and_in_chinese() -> None:
    assert gates.names("Yesterday I met Dr Smith-Jones at NASA with an iPhone and GPT4.") == {
        "dr",
        "smith-jones",
        "nasa",
        "iphone",
        "gpt4",
    }
    assert gates.names("他在《增量备份》里用 OpenSSL 和 AES256。") == {"《增量备份》", "openssl", "aes256"}


def test_repetition_is_that_beyond_the_parents() -> None:
    verse = "row row row your boat gently down the stream row row row your boat"
    assert gates.repetition(verse) > 0.1
    assert "augment.repetition" not in failed_gates(Variant(verse, verse + " again", "any"), WIDE)
