import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from corpus.text.buffers import Texts
from corpus.text.exact import exact_key, exact_keys
from corpus.text.tokens import tokenise

SPACES = "".join(chr(point) for point in range(0x3001) if chr(point).isspace())
TEXTS = st.lists(
    st.text(st.one_of(st.sampled_from(SPACES), st.sampled_from("ab，。é“\u0300\u200b中😀\u1681\u2030")), max_size=20)
)


@given(TEXTS)
def test_many_at_once_have_the_keys_of_each(texts: list[str]) -> None:
    tokens = tokenise(Texts.of(pa.array(texts, pa.large_string())))
    assert exact_keys(tokens.texts) == [exact_key(text) for text in texts]


def test_every_white_space_is_one() -> None:
    assert len({exact_key(f"a{space}b") for space in SPACES}) == 1
    assert len(SPACES) == 29
