"""Dialogues that documents hold, and texts that hold none."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.augment.instructions import RULES, instructions


def pairs(text: str, rule: str, title: str | None = None) -> list[tuple[str, ...]]:
    """What is said by turns in each dialogue found."""
    return [tuple(message["content"] for message in one.messages) for one in instructions(text, None, title, [rule])]


ANSWER = "Open the settings and press the red button."


@pytest.mark.parametrize(
    ("text", "title", "found"),
    [
        (f"## How do I reset it all?\n\n{ANSWER}\n\n## Ports\n\nThere are 4.", None, []),
        (f"## How do I open a port?\n\n{ANSWER}\n\n## Ports\n\nThere are 4.", None, [("How do I open a port?", ANSWER)]),
        (f"## 3. How to reset a router\n{ANSWER}", None, [("How to reset a router", ANSWER)]),
        (
            "### **如何重置路由器**\n\n长按红色按钮五秒钟。\n\n```\n# 为什么不行？\n```\n\n# 端口\n",
            None,
            [("如何重置路由器", "长按红色按钮五秒钟。\n\n```\n# 为什么不行？\n```")],
        ),
        (f"How to reset a router\n{ANSWER}", "How to reset a router", [("How to reset a router", ANSWER)]),
        (f"{ANSWER} Then wait.", "How to reset a router", [("How to reset a router", f"{ANSWER} Then wait.")]),
        (
            f"Help\nHow do I reset a router?\n{ANSWER}\nCan I undo a reset?\nNo, all of the settings are lost then.",
            None,
            [("How do I reset a router?", ANSWER), ("Can I undo a reset?", "No, all of the settings are lost then.")],
        ),
        (
            "收不到验证码怎么办？\n请先看看垃圾邮件文件夹。\n还能换号码登录吗？\n可以，请在账号安全里修改。",
            None,
            [("收不到验证码怎么办？", "请先看看垃圾邮件文件夹。"), ("还能换号码登录吗？", "可以，请在账号安全里修改。")],
        ),
        # Rhetoric, questions without an answer or that nobody understands alone, and headings that ask nothing.
        (f"We had a plan that was not the best of all.\nHow do we win?\n{ANSWER}\nIt worked.", None, []),
        (f"## How does it work?\n\n{ANSWER}", None, []),
        (f"## Overview\n\n{ANSWER}\n\n## Why? Because!\n\n{ANSWER}", None, []),
        ("## How do I reset a router?\n\n## How do I sell a router?\n", None, []),
        ("## How do I reset a router?\n\n| a | b |\n|---|---|\n| 1 | 2 |", None, []),
        ("## 如何更新\n\n请点击右上角的更新按钮。", None, []),
        ("```\n## How do I reset a router?\n```\n" + ANSWER, None, []),
    ],
)  # fmt: skip
def test_headings_that_ask(text: str, title: str | None, found: list[tuple[str, ...]]) -> None:
    assert pairs(text, "questions", title) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "FAQ\nQ: Is it free?\nA: Yes, for all private use.\n\nIt stays so.\nQ2. And at work?\nA2. There it costs 3 euros.",
            [("Is it free?", "Yes, for all private use.\n\nIt stays so."), ("And at work?", "There it costs 3 euros.")],
        ),
        ("**Question:** Is it free?\n**Answer:** Yes, for all private use.\n## Next\nText.", [("Is it free?", "Yes, for all private use.")]),
        ("问：这个软件免费吗？\n答：个人使用全部免费。", [("这个软件免费吗？", "个人使用全部免费。")]),
        ("问题1：如何退款？\n（七天内）\n回答：请在订单页提交申请。", [("如何退款？ （七天内）", "请在订单页提交申请。")]),
        ("Q: Is it free?\nQ: Is it good?\nA: It is a very good one indeed.", [("Is it good?", "It is a very good one indeed.")]),
        ("Q: Is it free?\nNobody knows.", []),
        ("A: Alpha is the first of the letters.\nB: Beta is the second.", []),
        ("Quality: high\nAnswering machine: included in the price of it", []),
    ],
)  # fmt: skip
def test_pages_of_questions_and_answers(text: str, found: list[tuple[str, ...]]) -> None:
    assert pairs(text, "answers") == found


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("A shingle is a run of words that slides over a text.", "What is a shingle?"),
        ("Perplexity is defined as the exponential of the mean loss.", "What is Perplexity?"),
        (
            "Named Entity Recognition (NER) refers to the task of finding names.",
            "What is Named Entity Recognition (NER)?",
        ),
        ("困惑度是指模型对文本感到意外的程度。", "什么是困惑度？"),
        ("所谓“碎片”，指的是文本中连续的几个词。", "什么是碎片？"),
        ("Cacti是一款基于网页的监控软件，用来画图。", "什么是Cacti？"),
    ],
)
def test_definitions(text: str, question: str) -> None:
    for around in (f"{text}", f"Title\n\n{text}\n\nMore follows here."):
        assert pairs(around, "definitions") == [(question, text)]


@pytest.mark.parametrize(
    "text",
    [
        "The problem is a lack of time for all of this.",
        "It is a kind of bird that sings.",
        "This is a book for people who read.",
        "Today is a good day for all of us.",
        "One of the reasons is a lack of money.",
        "Using such tests is a method for the hiring of people.",
        "Although this western is a way to spend hours, nobody liked it.",
        "Honesty is a big part of what we do.",
        "path is a string with the name of a file.",
        "A shingle is a run of words that slides over a text and never",
        "- A shingle is a run of words that slides over a text.",
        "这是一种很好的办法，大家都喜欢。",
        "问题是指望不上别人，只能靠自己。",
        "即使是一种普通的方法也能用。",
        "她是一个好人，我们都喜欢她。",
    ],
)
def test_no_definitions(text: str) -> None:
    assert pairs(text, "definitions") == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "用户：打不开文件。\n客服：请先重启。\n再试一次。\n用户：好了，谢谢。\n客服：不客气。",
            [],  # a line without a speaker ends a transcript; what is left has one turn
        ),
        (
            "Support: Hello!\nCustomer: I cannot open a file.\nSupport: Restart it.\nSupport: Then try again.\nCustomer: Thanks.",
            [("I cannot open a file.", "Restart it.\nThen try again.")],
        ),
        (
            "客服：您好。\n用户：打不开文件。\n客服：请先重启。\n用户：还是不行。\n客服：请发日志。",
            [("打不开文件。", "请先重启。", "还是不行。", "请发日志。")],
        ),
        (
            "Anna: Did you see this film?\nBob: I did, last night.\nAnna: **And?**\nBob: It was long.",
            [("Did you see this film?", "I did, last night.", "And?", "It was long.")],
        ),
        ("Anna: Yes.\nBob: No.", []),
        ("Name: Anna\nAge: 30\nName: Bob\nAge: 31", []),
        ("User: root\nPassword: secret", []),
        ("Note: read this.\nhttp://a.example/x\nPrice: 30", []),
        ("A: Yes?\nB: No.\nC: Perhaps.\nA: Well.\nB: So.", []),
    ],
)
def test_transcripts(text: str, found: list[tuple[str, ...]]) -> None:
    assert pairs(text, "dialogues") == found


def test_rules_come_in_their_order_and_no_pair_comes_twice() -> None:
    text = f"Q: Is it free?\nA: {ANSWER}\n\n## How do I reset a router?\n\n{ANSWER}\n\n## How do I reset a router?\n\n{ANSWER}"
    found = instructions(text, "en", None, list(RULES)[::-1])
    assert [one.rule for one in found] == ["questions", "answers"]
    assert instructions(text, "en", None, []) == []


LINES = ["Q: Why?", "A: So it is, and so it was.", "## How to do this", "用户：为什么？", "客服：因为这样比较好。", "A b is a c of d.", "```", "", "- x", "什么是碎片？"]  # fmt: skip


@given(
    st.one_of(st.text(max_size=200), st.lists(st.sampled_from(LINES), max_size=12).map("\n".join)), st.text(max_size=20)
)
def test_whatever_the_text_dialogues_are_whole_and_its_own(text: str, title: str) -> None:
    for one in instructions(text, None, title, list(RULES)):
        roles = [message["role"] for message in one.messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2) and roles
        for message in one.messages:
            assert message["content"] == message["content"].strip() != ""
            if message["role"] == "assistant":
                assert all(line.strip("*_ ") in text for line in message["content"].split("\n"))


@pytest.mark.parametrize(
    "text",
    ["Q:" * 300_000, "\n" * 1_000_000, "is a " * 200_000, "A" + " a" * 400_000 + " is a b.", "a: b\n" * 200_000,
     "# " * 300_000, "## How to x\n" * 100_000, "是一种" * 300_000, "（" * 500_000, "**" * 400_000, "Q: x\n" * 200_000,
     "A b " * 200 + "\n", "Aa\n" * 300_000, "INFO: it began\n" * 80_000, "## How to open a door\n\nPush it.\n" * 50_000],
)  # fmt: skip
def test_hostile_text_takes_little_time(text: str) -> None:
    started = time.monotonic()
    instructions(text, None, text[:1_000], list(RULES))
    assert time.monotonic() - started < 30
