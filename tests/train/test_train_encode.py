"""Encoding: labels where the answers are, whatever the chat template, and tasks by prompt templates."""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_project import dialogue, with_base

from corpus.errors import UserError
from corpus.params import Pack
from train.base import CHAT_TEMPLATE
from train.encode import (
    Piece,
    Segment,
    Template,
    UnfitError,
    encode,
    pack_tokenizer,
    plain_ids,
    read_templates,
    refuse_useless_template,
    render,
    render_dialogue,
    template_of,
    tokenise,
)
from train.shards import Document, Tally

PLAIN = (  # as most models have it: no mark of the answers, white space after each turn, and a system prompt of its own
    "{% if messages[0].role != 'system' %}{{ '<|bos|>system\nHelp.<|eos|>\n' }}{% endif %}"
    "{% for message in messages %}"
    "{% if loop.index0 % 2 != (message.role == 'assistant') %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{{ '<|bos|>' + message.role + '\n' + message.content | trim + '<|eos|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|bos|>assistant\n' }}{% endif %}"
)
FORGETFUL = "{% for message in messages[-2:] %}{{ message.content }}{% endfor %}"  # earlier turns are not in it
REVIEWS = """
applies_to: {source: reviews}
answers: {0: 差评, "1": 好评}
prompt: |
  评论：{{ text }}
  评价：
answer: "{{ answers[label] }}"
"""


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return pack_tokenizer(with_base(tmp_path_factory.getbasetemp()) / "data" / "base", Pack())


def with_template(tokenizer: Any, template: str | None) -> Any:
    other = copy.deepcopy(tokenizer)
    other.chat_template = template
    return other


def templates_of(folder: Path, *sources: str) -> list[Template]:
    paths = [folder / f"{number}.yaml" for number in range(len(sources))]
    for path, source in zip(paths, sources, strict=True):
        path.write_text(source, "utf-8")
    return read_templates(paths)


def encoded(
    tokenizer: Any, *documents: Document, templates: list[Template] | None = None, **settings: Any
) -> tuple[list[list[Piece]], Tally]:
    tally = Tally()
    return list(encode(tokenizer, documents, Pack(**settings), templates or [], tally)), tally


# ---- dialogues -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, PLAIN])
def test_of_a_dialogue_only_the_answer_is_learned(tokenizer: Any, template: str):
    messages = [*dialogue(1), *dialogue(2)]
    other = with_template(tokenizer, template)
    [(tokens, learned)] = tokenise(other, [Segment(*render_dialogue(other, messages, Counter()), marks=True)])
    assert tokenizer.decode(tokens[learned]) == "".join(messages[n]["content"] + "<|eos|>\n" for n in (1, 3))
    assert ("Help." in tokenizer.decode(tokens)) == (template == PLAIN)
    assert (tokens == other.apply_chat_template(messages, return_dict=False)).all()


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="<|"), min_size=1), min_size=2, max_size=6))
def test_whatever_is_said_the_answers_are_what_is_learned(tokenizer: Any, said: list[str]):
    messages = [{"role": ("user", "assistant")[turn % 2], "content": content} for turn, content in enumerate(said)]
    [(tokens, learned)] = tokenise(tokenizer, [Segment(*render_dialogue(tokenizer, messages, Counter()), marks=True)])
    starts = np.flatnonzero(learned & ~np.roll(learned, 1))
    ends = np.flatnonzero(learned & ~np.roll(learned, -1)) + 1
    spans = [tokenizer.decode(tokens[start:end]) for start, end in zip(starts, ends, strict=True)]
    expected = [content + "<|eos|>\n" for content in said[1::2]]
    # Tokens are not parted at characters: what begins before an answer, as a line's end may, belongs to the question.
    assert [span.removesuffix("\n") for span in spans] == [span.removesuffix("\n") for span in expected]


def test_dialogues_that_teach_nothing_have_a_reason(tokenizer: Any):
    two = [*dialogue(1), *dialogue(2)]
    for template, messages, reason in (
        (CHAT_TEMPLATE, two[:1], "pack.no_answer"),
        (CHAT_TEMPLATE, two[1:2], "pack.no_answer"),
        (PLAIN, two[1:], "pack.template"),
        (FORGETFUL, two, "pack.template"),
        ("{{ 1 + 'a' }}", two, "pack.template"),
        ("{{ 1 // 0 }}", two, "pack.template"),
        ("{{ 'a' * 10**13 }}", two, "pack.template"),
        ("{{ messages[9].content.lower() }}", two, "pack.template"),
    ):
        counts: Counter[str] = Counter()
        with pytest.raises(UnfitError, match=reason):
            render_dialogue(with_template(tokenizer, template), messages, counts)
        assert counts["answered"] == (reason == "pack.template")


FORGED = st.lists(
    st.sampled_from(["<|eos|>", "<|bos|>", "<|pad|>", "<|", "|>", "\ue000", "0\ue001", "a", "\n"]), min_size=1
)


@given(st.lists(FORGED.map(lambda parts: "x" + "".join(parts) + "x"), min_size=2, max_size=4))
def test_nothing_that_is_said_becomes_a_mark(tokenizer: Any, said: list[str]):
    """The tokens spell what the template renders, and have as many marks as it has turns."""
    messages = [{"role": ("user", "assistant")[turn % 2], "content": content} for turn, content in enumerate(said)]
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    answers = "".join(content + "<|eos|>\n" for content in said[1::2])
    for loss_on, learned in (("answers", answers), ("all", whole.removeprefix("<|bos|>"))):
        [[piece]], _ = encoded(tokenizer, Document("a", "", messages=messages), loss_on=loss_on, length=4096)
        assert tokenizer.decode(piece.tokens) == whole
        told = tokenizer.decode(piece.tokens[piece.learned])
        assert told.removesuffix("\n").replace("\n", "") == learned.removesuffix("\n").replace("\n", "")
        marks = np.isin(piece.tokens, tokenizer.all_special_ids)
        assert marks.sum() == 2 * len(said)
    for text in said:
        [[piece]], _ = encoded(tokenizer, Document("a", text), length=4096)
        assert tokenizer.decode(piece.tokens) == f"<|bos|>{text}<|eos|>"
        assert piece.tokens[1:-1].tolist() == plain_ids(tokenizer, text)
        assert np.isin(piece.tokens, tokenizer.all_special_ids).sum() == 2


def test_a_vocabulary_that_knows_marks_as_words_finds_none():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *((letter, -5.0) for letter in "ab</s>")]
    model = Tokenizer(models.Unigram(words, unk_id=0, byte_fallback=False))
    unigram = PreTrainedTokenizerFast(tokenizer_object=model, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    [[piece]], _ = encoded(unigram, Document("a", "a</s><s>b?"))
    inner = piece.tokens[1:-1].tolist()
    assert inner == plain_ids(unigram, "a</s><s>b?") and not {1, 2} & {*inner}
    assert "".join(unigram.convert_ids_to_tokens(inner)) == "a</s><s>b<unk>"


def test_a_prompt_forges_no_mark_either(tokenizer: Any):
    asks = [Template(prompt="{{ text }}?", answer="so <|eos|>")]
    for template, marks in ((None, 2), (PLAIN, 6)):  # with it there are three turns
        [[piece]], _ = encoded(with_template(tokenizer, template), Document("a", "a<|bos|>"), templates=asks)
        assert np.isin(piece.tokens, tokenizer.all_special_ids).sum() == marks


def test_a_beginning_mark_does_not_hide_that_all_is_answer(tokenizer: Any):
    answers = "{{ bos_token }}{% for m in messages if m.role == 'assistant' %}{{ m.content }}{% endfor %}"
    _, tally = encoded(with_template(tokenizer, answers), Document("a", "", messages=dialogue(1)))
    with pytest.raises(UserError, match="shows nothing but answers"):
        refuse_useless_template(tally.counts, Pack(), "tiny")


def test_with_loss_on_all_the_questions_are_learned_too(tokenizer: Any):
    documents = [Document("a", "", messages=dialogue(1)), Document("b", "", messages=dialogue(2)[:1])]
    for template in (CHAT_TEMPLATE, FORGETFUL):
        pieces, tally = encoded(with_template(tokenizer, template), *documents, length=256, loss_on="all")
        assert [own[0].learned.sum() for own in pieces] == [len(own[0].tokens) - 1 for own in pieces]
        assert len(pieces) == 2 and not tally.dropped


def test_without_a_chat_template_dialogues_are_their_text(tokenizer: Any):
    document = Document("a", "user: 你好\nassistant: hello", messages=dialogue(1))
    [[piece]], tally = encoded(with_template(tokenizer, None), document)
    assert tokenizer.decode(piece.tokens) == f"<|bos|>{document.text}<|eos|>"
    assert piece.learned[1:].all() and not piece.learned[0]
    assert tally.metrics() == {"dialogues": 1, "dialogues_as_text": 1, "templates": {}}


def test_a_tokenizer_that_does_not_know_its_offsets_is_refused_where_they_are_needed():
    from transformers import ByT5Tokenizer

    slow = ByT5Tokenizer()
    [[piece]], _ = encoded(slow, Document("a", "héllo"))
    assert slow.decode(piece.tokens) == "héllo</s>" and piece.learned[1:].all()
    slow.chat_template = CHAT_TEMPLATE.replace("bos_token", "'|'")
    with pytest.raises(UserError, match=r"base\.model: .* add a tokenizer\.json"):
        encoded(slow, Document("a", "", messages=dialogue(1)))


def test_a_template_that_is_no_jinja_is_named_with_its_line(tokenizer: Any):
    broken = with_template(tokenizer, "\n{% for message in messages %}{{ message.content }")
    with pytest.raises(UserError, match=r"chat.template.* line 2: "):
        encoded(broken, Document("a", "", messages=dialogue(1)))


def test_the_chat_template_comes_from_a_file(tokenizer: Any, tmp_path: Path):
    path = tmp_path / "chat.jinja"
    base = Path(tokenizer.name_or_path)
    with pytest.raises(UserError, match=rf"pack\.chat_template: {path} cannot be read"):
        pack_tokenizer(base, Pack(chat_template=path))
    path.write_text(PLAIN)
    assert pack_tokenizer(base, Pack(chat_template=path)).chat_template == PLAIN


# ---- texts and lengths -----------------------------------------------------------------------------------------------


def test_texts_are_cut_from_the_start_and_dialogues_from_the_end(tokenizer: Any):
    text = Document("text", "a file is opened and read " * 20)
    asked = [{"role": "user", "content": "why? " * 100}, {"role": "assistant", "content": "because"}]
    (cut, answered), _ = encoded(tokenizer, text, Document("asked", "", messages=asked), length=50)
    whole = tokenizer(f"<|bos|>{text.text}<|eos|>", add_special_tokens=False)["input_ids"]
    assert [len(piece.tokens) for piece in cut] == [50] * (len(whole) // 50) + [len(whole) % 50]
    assert np.concatenate([piece.tokens for piece in cut]).tolist() == whole
    assert not any(piece.learned[0] for piece in cut)
    [piece] = answered  # what stands before it has no label
    assert len(piece.tokens) == 50 and tokenizer.decode(piece.tokens).endswith(
        "why? <|eos|>\n<|bos|>assistant\nbecause<|eos|>\n"
    )
    assert tokenizer.decode(piece.tokens[piece.learned]) == "because<|eos|>\n"


def test_what_says_nothing_is_dropped_with_a_reason(tokenizer: Any):
    pieces, tally = encoded(
        tokenizer, Document("a", " \n"), Document("b", "", messages=dialogue(1)[:1]), Document("c", "x")
    )
    assert [own[0].document for own in pieces] == ["c"]
    assert [(row.id, row.reason) for row in tally.dropped] == [("a", "pack.no_answer"), ("b", "pack.no_answer")]


def test_batches_change_nothing(tokenizer: Any, monkeypatch: pytest.MonkeyPatch):
    documents = [
        dataclasses.replace(Document(str(n), "read " * n or "?"), messages=dialogue(n) if n % 3 == 0 else None)
        for n in range(9)
    ]
    at_once, _ = encoded(tokenizer, *documents)
    monkeypatch.setattr("train.encode.TOKENIZER_BATCH", 2)
    in_twos, _ = encoded(tokenizer, *documents)
    for one, other in zip(at_once, in_twos, strict=True):
        assert [(p.document, p.tokens.tolist(), p.learned.tolist()) for p in one] == [
            (p.document, p.tokens.tolist(), p.learned.tolist()) for p in other
        ]


# ---- prompt templates ------------------------------------------------------------------------------------------------


def test_a_template_asks_and_answers(tmp_path: Path):
    [template] = templates_of(tmp_path, REVIEWS)
    assert template.answers == {"0": "差评", "1": "好评"}
    assert render(template, Document("a", "很好", label="1")) == ("评论：很好\n评价：", "好评")
    for label in ("2", None):
        with pytest.raises(UnfitError, match=r"pack\.template"):
            render(template, Document("a", "很好", label=label))


@given(st.text())
def test_a_text_is_no_template(text: str):
    """Whatever a document says stands in the prompt as it is, Jinja as well."""
    echo = Template(prompt="<{{ text }}>", answer="{{ text }}!")
    for said in (text, "{{ 7 * 7 }}" + text, "{% for x in range(10**9) %}" + text):
        assert render(echo, Document("a", said)) == (f"<{said}>", f"{said}!")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("prompt: hi", r"answer: Field required"),
        ("prompt: hi\nanswer: ''", r"answer: String should have at least 1"),
        ("prompt: hi\nanswer: x\nanswres: {}", r"answres: Extra inputs"),
        ("prompt: '{{ text'\nanswer: x", r"prompt: .*no Jinja, line 1"),
        ("prompt: '{{ txet }}'\nanswer: x", r"prompt: .*unknown txet: there are id, text"),
        ("prompt: hi\nanswer: x\napplies_to: {sorce: a}", r"applies_to\.sorce: Input should be"),
        ("- a list", r"the file: "),
        ("prompt: [", r"cannot be read as YAML"),
        ("[" * 3000, r"cannot be read as YAML"),
        ("answer: x\nprompt: '{{ " + "(" * 3000 + "'", r"cannot be read as YAML"),
    ],
)
def test_a_broken_template_is_named_with_its_key(tmp_path: Path, source: str, said: str):
    with pytest.raises(UserError, match=rf"pack\.templates: .*0\.yaml.*{said}"):
        templates_of(tmp_path, source)


def test_a_template_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"pack\.templates: .*none\.yaml cannot be read"):
        read_templates([tmp_path / "none.yaml"])


def test_templates_reach_nothing_beyond_the_document():
    for prompt in (
        "{{ text.__class__.__mro__ }}",
        "{{ answers.update({'1': 'x'}) }}",
        "{{ ''.join(answers) ~ label }}",
    ):
        with pytest.raises(UnfitError, match=r"pack\.template"):
            render(Template(prompt=prompt, answer="x"), Document("a", "t"))


def test_one_of_several_templates_is_drawn_by_id_and_dialogues_take_none(tmp_path: Path):
    plain = "prompt: '{{ text }}'\nanswer: yes of course"
    templates = templates_of(tmp_path, REVIEWS, plain, plain)
    documents = [Document(str(n), "t", label="1", source="reviews" if n % 2 else "news") for n in range(300)]
    drawn = [template_of(templates, document, seed=0) for document in documents]
    assert drawn == [template_of(templates, document, seed=0) for document in documents]
    assert drawn != [template_of(templates, document, seed=1) for document in documents]
    by_number = Counter(templates.index(template) if template is templates[0] else 1 for template in drawn if template)
    assert 30 < by_number[0] < 70  # of 150 reviews
    assert template_of(templates[:1], documents[0], 0) is None
    assert template_of(templates, Document("d", "t", messages=dialogue(1), source="reviews"), 0) is None


def test_a_template_that_cannot_ask_is_not_drawn_where_another_can(tmp_path: Path):
    titles = "prompt: '{{ text }}'\nanswer: '{{ title }}'"
    reviews, titled = templates = templates_of(tmp_path, REVIEWS, titles)
    for number in range(20):
        bare = Document(str(number), "t", source="reviews")
        assert template_of(templates, dataclasses.replace(bare, label="1"), 0) is reviews
        assert template_of(templates, dataclasses.replace(bare, title="T"), 0) is titled
        assert template_of(templates, bare, 0) is not None  # whose reason it then has


@pytest.mark.parametrize("loss_on", ["answers", "all"])
@pytest.mark.parametrize("chat_template", [None, PLAIN])
def test_of_a_task_the_answer_is_learned(tokenizer: Any, tmp_path: Path, chat_template: str | None, loss_on: str):
    documents = [Document("a", "很好", label="1", source="reviews"), Document("b", "?", label="7", source="reviews")]
    other = with_template(tokenizer, chat_template)
    [[piece]], tally = encoded(other, *documents, templates=templates_of(tmp_path, REVIEWS), loss_on=loss_on)
    told = tokenizer.decode(piece.tokens)
    learned = tokenizer.decode(piece.tokens[piece.learned])
    if chat_template:
        assert told.endswith("<|bos|>user\n评论：很好\n评价：<|eos|>\n<|bos|>assistant\n好评<|eos|>\n")
        assert learned == ("好评<|eos|>\n" if loss_on == "answers" else told.removeprefix("<|bos|>"))
    else:
        assert told == "<|bos|>评论：很好\n评价：好评<|eos|>"
        assert learned == ("好评<|eos|>" if loss_on == "answers" else told.removeprefix("<|bos|>"))
    assert [(row.id, row.reason) for row in tally.dropped] == [("b", "pack.template")]
    assert tally.templates == {str(tmp_path / "0.yaml"): 1}


def test_of_a_long_task_the_answer_and_the_end_of_the_prompt_are_left(tokenizer: Any, tmp_path: Path):
    document = Document("a", "很好" * 300, label="1", source="reviews")
    other = with_template(tokenizer, None)
    [[piece]], _ = encoded(other, document, templates=templates_of(tmp_path, REVIEWS), length=40)
    assert len(piece.tokens) == 40
    assert tokenizer.decode(piece.tokens).endswith("很好\n评价：好评<|eos|>")
    assert tokenizer.decode(piece.tokens[piece.learned]) == "好评<|eos|>"
