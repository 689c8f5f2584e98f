from hypothesis import given
from hypothesis import strategies as st

from corpus.augment.structure import pieces

LINES = st.lists(
    st.sampled_from(
        ["A sentence. Another one!", "- an item", "```", "    code()", "| a | b |", "", "# 标题", "今天很好。明天呢？"]
    ),
    max_size=12,
)


@given(st.one_of(st.text(), LINES.map("\n".join)))
def test_the_pieces_are_the_text(text: str) -> None:
    cut = list(pieces(text))
    assert "".join(piece.text for piece in cut) == text
    assert all(piece.text == piece.text.strip() and any(map(str.isalpha, piece.text)) for piece in cut if piece.prose)


def prose(text: str) -> list[str]:
    return [piece.text for piece in pieces(text) if piece.prose]


def test_code_tables_and_markers_pass_through() -> None:
    text = """# How to back up

1. Open the menu. Choose it.
   > A quoted line.
* 保存文件。

```sh
cp a b  # a comment.
~~~
still code.
```
Some text before code:

    indented = True
    more

| column | other |
|---|---|
12 : 34
"""
    assert prose(text) == [
        *("How to back up", "Open the menu.", "Choose it.", "A quoted line.", "保存文件。", "Some text before code:"),
    ]


def test_a_sentence_with_something_protected_passes_through() -> None:
    protected = (
        "See https://a.b/c now. Mail x@y.org today. Use `ls` here. Ask <EMAIL> first. Hello {name} there. "
        "Type %s twice. Set $HOME once. Call run() again. Give it --force too. Look into /etc/hosts/a please. "
        "Solve $x^2$ yourself. "
    )
    assert prose(protected + "This one stays.") == ["This one stays."]


def test_a_wrapped_sentence_is_one_piece() -> None:
    wrapped = "This sentence is long enough to be wrapped by an editor\nand goes on here. It ends."
    assert prose(wrapped) == [wrapped.partition(" It ends")[0], "It ends."]
