from hypothesis import given
from hypothesis import strategies as st

from corpus.text.sentences import ends_complete, split_sentences

prose = st.text(alphabet='aB.?! \n\t。！？…”)"e1中文·,', max_size=80)


@given(st.one_of(st.text(max_size=60), prose))
def test_nothing_is_lost_and_no_piece_is_empty(text: str) -> None:
    pieces = split_sentences(text)
    assert "".join(pieces) == text
    assert all(pieces)


def test_abbreviations_initials_decimals_and_item_numbers_end_no_sentence() -> None:
    text = "Mr. J. Smith of the U.S. Army paid 3.50 (cf. Fig. 2). He left.\n1. Begin here\n2. End there"
    assert split_sentences(text) == [
        "Mr. J. Smith of the U.S. Army paid 3.50 (cf. Fig. 2). ",
        "He left.\n",
        "1. Begin here\n",
        "2. End there",
    ]


def test_chinese_needs_no_space_and_keeps_closing_quotes() -> None:
    assert split_sentences("他说：“走吧。”大家都走了！真的吗？？是……好") == [
        "他说：“走吧。”",
        "大家都走了！",
        "真的吗？？",
        "是……",
        "好",
    ]


def test_a_wrapped_sentence_is_one_piece_and_a_heading_another() -> None:
    wrapped = "This sentence is wrapped at some column of a terminal and\ngoes on in the next line. End."
    assert split_sentences(f"Heading\n{wrapped}") == ["Heading\n", wrapped[:-4], "End."]
    assert not ends_complete("Heading\n")
