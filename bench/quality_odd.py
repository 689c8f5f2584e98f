"""Odd documents: what rules about lines, words and marks trip over, by hand and by seeded chance."""

from __future__ import annotations

import random

LINE_ENDS = ("\n", "\r\n", "\r", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029")
SENTENCE = "The quick brown fox jumps over the lazy dog and runs with the others to be of use."
CHINESE = "第一条为了规范管理，保障群众的合法权益，根据有关法律，制定本条例。"
CODE = 'def main(argv):\n\tfor x in argv:\n\t\tprint(f"{x!r}: {len(x)}")\n    return {"a": 1, "b": [2, 3]}\n'
TABLE = "| name | value |\n|------|------:|\n" + "".join(f"| row {row} | {row * row} |\n" for row in range(30))
HARD_LINES = (
    "{ is it.",
    "It holds { a bracket",
    "It holds a { bracket.",
    "Lorem ipsum dolor sit amet.",
    "Lorem ipsum dolor sit amet",
    "lOREM  ipsum dolor { sit.",
    "Turn on JavaScript and lorem ipsum.",
    "Turn on JavaScript { now.",
    "Read our Privacy Policy { now.",
    "We use the Cookie Policy here.",
    "We use the coo\u212aie policy here.",  # the sign of kelvin is a k in lower case
    "One footnote here.[1]",
    "One footnote here. [12]",
    "One footnote here[edit].",
    "One[] footnote here[citation needed]!",
    "One footnote [１２] here.[١]",
    "[1][2] [3].",
    "[1] [2] [3]",
    "Two words.",
    "Now three words.",
    "It goes on and on...",
    "It goes on and on…",
    "It goes on and on....",
    "So it is so ?!",
    'He said "it is so"',
    "She said ‘it is so’",
    "Is it e.g. this, i.e. that? Yes! 3.14 is it. A. B. C.",
    "x" * 1_000 + " is a long word.",
    "x" * 1_001 + " is a longer word.",
    "é" * 1_001 + " is a longer word.",
    "- a point to make.",
    "  • a point to make.",
    "\u00a0– no point to make.",
    "# A heading",
    "### " * 10,
    "Wait ... what … is ...... this",
    "1234567890 12,345.67 89%",
    "NOT ALL CAPITALS ARE bad",
    "＃ 全角 ！",
    CHINESE,
    "真的吗？！是的。“好。”他说……",
    "今天 3月14日 天气很好",
    "कृपया ध्यान दें। यह है।",
    "これは日本語です。カタカナもある。",
    "한국어 문장입니다. 그렇죠?",
    "ไม่มีช่องว่างระหว่างคำ",
    "مرحبا بالعالم؟ نعم.",
    "😀 👩‍👩‍👧‍👦 🇩🇪 👍🏽",
    "e\u0301te\u0301 nai\u0308ve \u0301 alone",
    "zero\u200bwidth \u200b join\u200d er soft\u00adhyphen \ufeff",
    "𝐁𝐨𝐥𝐝 𝒊𝒕𝒂𝒍𝒊𝒄 𠀀𠀁 𐍈",
    "Ⅳ ½ ² ③ ㈠ ٣",
    "don't can't o'clock rock'n'roll 'tis 1990's naïve_name a.b.c 1,2;3",
    "http://example.com/?a=b&c=d#e user@example.org",
    "\x00\x01 \x7f \x9f",
    "� \ue000 \U0010ffff \U000e0001",
    " \t ",
    "",
)
PIECES = (
    "the",
    "be",
    "and",
    "with",
    "The",
    "a",
    "I",
    "word",
    "naïve",
    "12",
    "3.5",
    "x1",
    "·",
    "的",
    "是",
    "和",
    "人",
    "数据",
)
MARKS = (".", ",", "...", "…", "!", "?", "#", "##", "-", "•", "{", "。", "，", "！", "=", "§", "\u0301", "\u200b", "😀")
GAPS = (" ", " ", " ", " ", " ", "", "  ", "\t", "\u00a0", "\u3000")


def odd_documents(count: int) -> list[str]:
    """Documents made by hand, then as many as asked for by chance; always the same ones."""
    return [*_by_hand(), *(_by_chance(random.Random(seed)) for seed in range(count))]


def _by_hand() -> list[str]:
    hand = [
        "",
        " ",
        "\n",
        "\n\n\n",
        " \n\t\n ",
        "word",
        ".",
        "!?…",
        "。。。",
        "#" * 60,
        "…" * 60,
        "." * 100,
        "...",
        "中",
        "\u200b",
    ]
    hand += [SENTENCE * times for times in (1, 2, 3, 10, 100)] + [CHINESE * times for times in (1, 2, 10, 100)]
    hand += [end.join([SENTENCE] * 6) + end for end in LINE_ENDS]
    hand += [end.join([SENTENCE, "", CHINESE, SENTENCE, "", "", "- point"]) for end in LINE_ENDS]
    hand += [CODE * 5, TABLE, SENTENCE + TABLE, " ".join(["😀"] * 80), "x" * 100_000, "word " * 100_001, "字" * 100_001]
    hand += ["\n".join(HARD_LINES), "\n\n".join(HARD_LINES), "\r\n".join(HARD_LINES), *HARD_LINES]
    hand += ["\n".join([line, *[SENTENCE] * 5]) for line in HARD_LINES]
    # Shares that are just at a bound of 0.1, 0.3 or 0.9: a document at it stays.
    hand += ["\n".join(["- point to be"] * bad + ["the point"] * (10 - bad)) for bad in (8, 9, 10)]
    hand += ["\n".join(["to be ..."] * bad + ["of the line"] * (10 - bad)) for bad in (2, 3, 4)]
    hand += ["\n".join(["the same"] * same + [f"line {n}" for n in range(10 - same)]) for same in range(2, 7)]
    hand += ["\n\n".join(["the same"] * same + [f"part {n}" for n in range(10 - same)]) for same in range(2, 7)]
    return hand


def _by_chance(chance: random.Random) -> str:
    """Some lines, most of few words, of which many come again."""
    pieces = chance.sample(PIECES + MARKS, chance.randint(2, len(PIECES + MARKS)))
    if chance.random() < 0.5:  # more like text
        pieces += list(PIECES) * 3 + SENTENCE.split()
    end = chance.choice(["\n", "\n", "\n\n", *LINE_ENDS])
    made: list[str] = []
    for _ in range(chance.randint(1, 40)):
        what = chance.random()
        if made and what < 0.25:
            made.append(chance.choice(made))
        elif what < 0.35:
            made.append(chance.choice(HARD_LINES))
        else:
            words = chance.choices(pieces, k=chance.randint(0, 25))
            made.append("".join(word + chance.choice(GAPS) for word in words))
        made.append(end if chance.random() < 0.9 else chance.choice(LINE_ENDS))
    return "".join(made)
