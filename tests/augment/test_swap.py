from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from corpus.augment.swap import swap_sentences
from corpus.text.sentences import split_sentences

EN = "Cats sleep for most of the day. Dogs bark when strangers come. Birds sing in the morning. Fish swim in ponds."
ZH = "猫白天大多在睡觉。狗见到生人会叫。鸟在清晨唱歌。鱼在池塘里游。"


@given(st.text(alphabet='aB.? \n。！中文(）"', max_size=80), st.floats(0, 1), st.text(max_size=3))
def test_only_the_order_of_sentences_changes(text: str, share: float, key: str) -> None:
    swapped = swap_sentences(text, share, key)
    assert Counter(swapped) == Counter(text)
    assert swap_sentences(text, share, key) == swapped


def test_neighbours_change_places_in_both_languages() -> None:
    for text in (EN, ZH):
        swapped = swap_sentences(text, 0.05, "key")
        before, after = ([piece.strip() for piece in split_sentences(whole)] for whole in (text, swapped))
        moved = [place for place, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
        assert len(moved) == 2 and moved[1] == moved[0] + 1
        assert sorted(before) == sorted(after)


def test_the_share_decides_how_many_and_the_key_which() -> None:
    text = " ".join(f"Sentence {'abcdefghijklmnopqrstuvwxyz'[number]} is here." for number in range(20))
    old = text.split(". ")
    moved = {share: sum(a != b for a, b in zip(old, swap_sentences(text, share, "k").split(". "), strict=True))
             for share in (0.0, 0.1, 0.4)}  # fmt: skip
    assert moved[0.0] == 0
    assert moved[0.1] == 2
    assert 6 <= moved[0.4] <= 9  # the last sentence has no space after its full stop
    assert len({swap_sentences(text, 0.1, str(key)) for key in range(10)}) > 3


def test_what_leans_on_its_neighbour_stays() -> None:
    for text in (
        "Cats sleep. However, dogs bark.",
        "猫在睡觉。但是狗在叫。",
        "猫在睡觉。它很累。",
        "Cats sleep. Dogs bark. They are loud.",  # `They` means the dogs
        "Do cats sleep? Dogs do.",
        "Heading\nCats sleep a lot.",
        "Cats sleep a lot.\nDogs bark at night.",  # two paragraphs
        "Cats (they sleep. Dogs bark) rest.",
        "1. Cats sleep. 2. Dogs bark.",
        "Only one sentence.",
        "",
    ):
        assert swap_sentences(text, 0.5, "key") == text
