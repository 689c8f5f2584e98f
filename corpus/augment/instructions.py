"""Dialogues that documents hold already: headings that ask, pages of questions and answers, definitions, transcripts.

All rules read a document line by line, or a paragraph's first sentence: their time grows with the text and no faster.
They would rather miss a dialogue than make one up: the words are the document's, but for the frame "What is …?".
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from corpus.text.sentences import WRAPPED, ends_complete, split_sentences

Messages = list[dict[str, str]]

MOST = 1_000  # dialogues of a document
QUESTION_CHARS = (3, 300)
ANSWER_CHARS = (20, 20_000)
CHINESE_ANSWER_CHARS = (8, 20_000)
HEADING_CHARS = 120
LONE_QUESTIONS = 2  # lines that ask, from which a text without marked headings is a page of questions
MAX_LINE = 2_000  # characters of a line in which a mark, a question or a speaker is looked for

_HAN = re.compile(r"[\u3400-\u9fff]")
_MARKDOWN_HEADING = re.compile(r"#{1,6}\s+(?P<title>\S.*)")
_NUMBERING = re.compile(r"(?:\(?\d{1,3}(?:\.\d{1,3}){0,3}[.):、．）]|[一二三四五六七八九十]{1,3}[、．.]|[-*•·])\s*")
_ASKS = re.compile(
    r"(?:how (?:to|do|does|can|should|is|are|much|many|long|often)|what(?:'s| is| are| does| do| can| if| happens)|why"
    r"|when (?:do|does|should|is|are|can|will)|where (?:do|does|can|is|are)|which|who (?:is|are|can|should)"
    r"|can (?:i|we|you)|do (?:i|we|you)|does|is (?:it|there)|are there|should (?:i|we)|may i)(?=\s)",
    re.IGNORECASE,
)
_ASKS_CHINESE = re.compile(r"(?:如何|怎么|怎样|怎麼|怎樣|为什么|為什麼|什么是|什麼是|何谓|何謂|哪里|哪些|能否|是否)")
# What a reader of the heading alone would not understand.
_POINTS = re.compile(r"\b(?:it|this|these|those|they|them|its)\b|[这這它该該此]|那[个個些]", re.IGNORECASE)
MIN_CHINESE_HEADING = 6  # characters; 如何更新 says nothing of what
_FENCE = re.compile(r"\s{0,3}(?:```|~~~)")


class Dialogue(NamedTuple):
    """A dialogue found in a document: from a user's question to an assistant's answer, in turns."""

    rule: str
    messages: Messages


def instructions(text: str, lang: str | None, title: str | None, rules: Sequence[str]) -> list[Dialogue]:
    """The first MOST dialogues that some of the RULES find in a document, rule by rule in its order, each once.

    >>> found = instructions("# How do I open a file?\\n\\nCall open with its name.\\n", "en", None, ["questions"])
    >>> [(message["role"], message["content"]) for message in found[0].messages]
    [('user', 'How do I open a file?'), ('assistant', 'Call open with its name.')]
    """
    found: dict[str, Dialogue] = {}
    for rule, find in RULES.items():
        if rule in rules:
            for messages in find(text, title or ""):
                messages = [{**message, "content": message["content"].strip()} for message in messages]
                if len(found) >= MOST:
                    return list(found.values())
                if _is_usable(messages):
                    found.setdefault(repr(messages), Dialogue(rule, messages))
    return list(found.values())


def _is_usable(messages: Messages) -> bool:
    """Whether each turn says something, and none is endless."""
    for message in messages:
        size, asked = len(message["content"]), message["role"] == "user"
        chinese = _HAN.search(message["content"][:200]) is not None
        least, most = QUESTION_CHARS if asked else CHINESE_ANSWER_CHARS if chinese else ANSWER_CHARS
        if len(messages) > 2:  # in a conversation an answer may be short
            least = 1
        if not least <= size <= (ANSWER_CHARS[1] if len(messages) > 2 else most):
            return False
    return bool(messages)


def _pair(question: str, answer: str) -> Messages:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _lines(text: str) -> Iterator[tuple[str, bool]]:
    """The lines of a text, and whether each is code within a fence."""
    fenced = False
    for line in text.split("\n"):
        mark = _FENCE.match(line) is not None
        yield line, fenced or mark
        fenced ^= mark


# ---- headings that ask -----------------------------------------------------------------------------------------------


def questions(text: str, title: str) -> Iterator[Messages]:
    """A heading that asks something, answered by what follows up to the next heading; likewise the document's title.

    Where headings are not marked, a line that asks is one only if there is another: a page of questions, no rhetoric.
    """
    lines = list(_lines(text))
    markdown = any(_MARKDOWN_HEADING.match(line) for line, code in lines if not code)
    headings = {number: heading for number in range(len(lines)) if (heading := _heading(lines, number, markdown))}
    if not markdown and len(headings) < LONE_QUESTIONS:
        headings = {}
    asked, same = as_question(title), normalised(title)
    answer: list[str] = []
    begun = False  # whether anything but blank lines and the title once more was there
    for number, (line, _) in enumerate(lines):
        if not begun and (not line.strip() or normalised(headings.get(number, line)) == same):
            continue
        begun = True
        if number not in headings:
            answer.append(line)
            continue
        if asked and _is_prose(answer):
            yield _pair(asked, "\n".join(answer))
        asked, answer = as_question(headings[number]), []
    if asked and _is_prose(answer):
        yield _pair(asked, "\n".join(answer))


def _heading(lines: Sequence[tuple[str, bool]], number: int, markdown: bool) -> str | None:
    """The heading that a line is: one of Markdown's, or where there are none a short line alone that asks."""
    line = lines[number][0].strip()
    if not 0 < len(line) <= HEADING_CHARS or lines[number][1]:
        return None
    if found := _MARKDOWN_HEADING.fullmatch(line):
        return found["title"].rstrip("# ")
    if (
        markdown
        or not as_question(line)
        or not (_HAN.search(line) or _ASKS.match(as_question(line)))
        or line.startswith(("-", "*", "•", ">", "|"))
    ):
        return None
    before = lines[number - 1][0].strip() if number else ""
    after = next((other.strip() for other, _ in lines[number + 1 : number + 3] if other.strip()), "")
    # A question within running text stands in a line like the others around it.
    alone = len(before) < WRAPPED or ends_complete(before)
    return line if alone and len(after) > len(line) // 2 and not as_question(after) else None


def as_question(heading: str) -> str:
    """A heading without its numbering if it asks something in one sentence that can be understood alone, else nothing.

    >>> as_question("3.1. How do I reset a password?"), as_question("如何重置密码")
    ('How do I reset a password?', '如何重置密码')
    >>> as_question("Why? Because!"), as_question("How does it work?")
    ('', '')
    """
    line = heading.strip().strip("*_").strip()
    if not 0 < len(line) <= HEADING_CHARS:
        return ""
    if number := _NUMBERING.match(line):
        line = line[number.end() :].strip("*_ ")
    body = line.rstrip("?？ ")
    if (
        not body
        or any(mark in body for mark in "?？!！。;；:：")
        or ". " in body
        or body.endswith((".", ":", ",", "，"))
    ):
        return ""
    if _POINTS.search(body) or (_HAN.search(body) and len(body) < MIN_CHINESE_HEADING):
        return ""
    if len(body) < len(line.rstrip()):
        return line
    return line if (_ASKS.match(line) and " " in line) or _ASKS_CHINESE.match(line) else ""


def _is_prose(lines: Sequence[str]) -> bool:
    """Whether what follows a question answers it: it begins with something that is said, and is no further question."""
    first = next((line.strip() for line in lines if line.strip()), "")
    return bool(first) and not as_question(first) and not first.startswith(("|", "<", "[", "!["))


def normalised(text: str) -> str:
    """Case folded, each run of white space one space."""
    return " ".join(text.casefold().split())


# ---- pages of questions and answers ----------------------------------------------------------------------------------

_MARK = r"(?:\*\*|__)?"  # of bold type
_AFTER = rf"{_MARK}\s?[:：.．、]{_MARK}\s*(?P<said>.*)"
_ASKED = re.compile(rf"{_MARK}(?:Q(?:uestion)?|问题?|問題?)\s?\d{{0,3}}{_AFTER}", re.IGNORECASE)
_ANSWERED = re.compile(rf"{_MARK}(?:A(?:nswer)?|回?答案?)\s?\d{{0,3}}{_AFTER}", re.IGNORECASE)


def question_pages(text: str, title: str) -> Iterator[Messages]:
    """Lines that begin with Q: and A: (or Question, 问, 答, numbered or bold), each answer up to the next question."""
    question: list[str] = []
    answer: list[str] | None = None
    for line, code in _lines(text):
        start = line.strip() if len(line) <= MAX_LINE and not code else ""
        if asked := _ASKED.fullmatch(start):
            if question and answer:
                yield _pair(" ".join(question), "\n".join(answer))
            question, answer = [asked["said"].strip("*_ ")], None
        elif question and answer is None and (answered := _ANSWERED.fullmatch(start)):
            answer = [answered["said"].strip("*_ ")]
        elif answer is not None:
            if _MARKDOWN_HEADING.match(start):  # the next section
                yield _pair(" ".join(question), "\n".join(answer))
                question, answer = [], None
            else:
                answer.append(line)
        elif question and start and len(question) < 10:
            question.append(start)
        elif question and start:
            question = []  # nobody asks that long
    if question and answer:
        yield _pair(" ".join(question), "\n".join(answer))


# ---- definitions -----------------------------------------------------------------------------------------------------

_SUBJECT = r"(?P<subject>[A-Z][\w'’-]*(?:\s[\w'’-]+){0,4}(?:\s\([\w\s-]{2,30}\))?)"
_GENUS = (
    r"(?:[\w'’-]+,?\s){1,6}?(?:that|which|who|whose|where|of|for|to|used|in|with|from|by|between|designed|made|on)\s"
)
_IS_DEFINED = re.compile(
    rf"{_SUBJECT}\s(?:is\san?\s{_GENUS}|is\sthe\s(?:process|practice|art|study|act|name|ratio|number|amount|degree)\s"
    r"|(?:is|are)\sdefined\sas\s|refers\sto\s|denotes\s)(?P<what>\S.{10,})",
    re.DOTALL,
)
_IS_DEFINED_CHINESE = re.compile(
    r"(?:所谓|所謂)?[“《「]?(?P<subject>[\u3400-\u9fffA-Za-z0-9·+#-]{2,16})[”》」]?"
    r"(?:（[^（）]{1,60}）|\([^()]{1,60}\))?[，,]?"
    r"(?:是指|指的是|就是指|是一[种種类類项項门門款套]|定义为|定義為)(?P<what>\S.{5,})",
    re.DOTALL,
)
_NO_SUBJECT = re.compile(
    r"""it|this|that|these|those|there|here|he|she|they|we|i|you|one|which|what|who|another|each|either|neither|all|some
      |most|such|everything|something|nothing|today|now|idea|problem|point|reason|question|answer|result|thing|way|goal
      |aim|purpose|difference|example|case|rest|same|following|first|second|third|last|next|other|author|book|chapter
      |section|article|page|name|solution|advantage|trick|key|secret|below|above|argument|option|value|part|type|number
      |my|our|your|his|her|their|its|no|any|every""",
    re.VERBOSE,
)
_NO_SUBJECT_WITHIN = re.compile(
    r"is|are|was|were|but|and|or|because|if|when|while|so|then|that|which|who|not|whether|where|how|why|the|an?|although|though|despite|unlike|like|never|always"
)
_NO_CHINESE_SUBJECT = re.compile(
    r"[这那它他她我你您其此该某每另本但而也都还就又或和与及的了在有会要能对从以为不即前所]|如果|因为|所以|可能|应该|今天|现在|目前|"
    r"首先|其次|最后|主要|一般|通常|例如|比如|包括|问题|原因|目的|结果|方法|区别|意思|关键|重点|第一|第二|之一"
)
_SAYS_LITTLE = re.compile(
    r"(?:very|really|quite|top|hero|native|fan|curious|lot|bit|few|little|good|great|bad|big|must|shame|pity|mistake"
    r"|matter|fact|sign|result|way|landmark)\b"
)


def definitions(text: str, title: str) -> Iterator[Messages]:
    """A paragraph that begins by saying what its subject is, asked for by "What is …?" or 什么是…？"""
    for paragraph in _paragraphs(text):
        first = split_sentences(paragraph[:MAX_LINE])[0]
        if not ends_complete(first) or not ends_complete(paragraph):
            continue
        if subject := _defined(first):
            yield _pair(f"What is {subject}?", paragraph)
        elif subject := _defined_in_chinese(first):
            yield _pair(f"什么是{subject}？", paragraph)


def _paragraphs(text: str) -> Iterator[str]:
    """Paragraphs of prose: lines, and those together of which each but the last breaks within a sentence."""
    together: list[str] = []
    for line, code in _lines(text):
        line = line.strip()
        if code or not line or line.startswith(("#", "|", "-", "*", ">", "`")):
            together = []
            continue
        together.append(line)
        if ends_complete(line) or len(line) < WRAPPED:
            if len("".join(together)) <= ANSWER_CHARS[1]:
                yield "\n".join(together)
            together = []


def _defined(sentence: str) -> str:
    """What an English sentence defines, as one asks for it; nothing where it defines nothing.

    >>> _defined("A shingle is a run of words that slides over a text.")
    'a shingle'
    >>> _defined("The problem is a lack of time."), _defined("Whether it is a question of taste is unknown.")
    ('', '')
    """
    found = _IS_DEFINED.match(sentence)
    if not found or _SAYS_LITTLE.match(sentence, found.end("subject") + len(" is a ")):
        return ""
    article, _, rest = found["subject"].partition(" ")
    indefinite = article in ("A", "An") and bool(rest)
    words = (rest if indefinite else found["subject"]).lower().split()
    if words[0].endswith("ing") and len(words) > 2:  # "Using such tests is a method": a statement about doing so
        return ""
    if any(map(_NO_SUBJECT.fullmatch, (words[0], words[-1]))) or any(map(_NO_SUBJECT_WITHIN.fullmatch, words)):
        return ""
    if len("".join(words)) < 3:  # a variable
        return ""
    return f"{article.lower()} {rest}" if indefinite else found["subject"]


def _defined_in_chinese(sentence: str) -> str:
    found = _IS_DEFINED_CHINESE.match(sentence)
    if not found or _NO_CHINESE_SUBJECT.search(found["subject"]) or not _HAN.search(found["what"]):
        return ""
    return found["subject"]


# ---- transcripts -----------------------------------------------------------------------------------------------------

_SPEAKER = re.compile(
    r"(?:\*\*|__)?(?P<name>[A-Za-z][\w.'’-]*(?:\s[\w.'’-]+){0,2}|[\u3400-\u9fff·]{1,8})(?:\*\*|__)?\s?[:：](?:\*\*|__)?"
    r"(?!//)\s*(?P<said>\S.*)"
)
_USERS = re.compile(
    r"user|customer|client|caller|visitor|guest|student|patient|interviewer"
    r"|用户|顾客|客户|用戶|顧客|客戶|访客|学生|患者|病人|记者"
)
_ASSISTANTS = re.compile(
    r"assistant|agent|support|bot|operator|advisor|teacher|doctor|助手|客服|机器人|助理|老师|医生|專員|专员|店员"
)
_MIN_TURNS = 4  # of a transcript between names that are no roles; fewer lines may be anything


def transcripts(text: str, title: str) -> Iterator[Messages]:
    """Runs of lines `name: what is said` of two speakers by turns. Who is no known role asks if he speaks first."""
    turns: list[tuple[str, str]] = []
    for line, code in _lines(text):
        said = _SPEAKER.fullmatch(line.strip()) if len(line) <= MAX_LINE and not code else None
        if said and not _ASKED.fullmatch(line.strip()) and not _ANSWERED.fullmatch(line.strip()):
            turns.append((said["name"].casefold(), said["said"].strip("*_ ")))
        elif line.strip():
            yield from _conversation(turns)
            turns = []
    yield from _conversation(turns)


def _conversation(turns: Sequence[tuple[str, str]]) -> Iterator[Messages]:
    """The turns of two speakers as messages: from the first of the user to the last of the assistant."""
    names = list(dict.fromkeys(name for name, _ in turns))
    if len(names) != 2:
        return
    by_turn = itertools.groupby(turns, key=lambda turn: turn[0])
    joined = [(name, "\n".join(said for _, said in own)) for name, own in by_turn]
    users, assistants = ([name for name in names if role.fullmatch(name)] for role in (_USERS, _ASSISTANTS))
    known = bool(users and assistants)
    if not known and (len(joined) < _MIN_TURNS or not any(mark in said for _, said in joined for mark in "?？")):
        return
    user = next(iter(users or [name for name in names if name not in assistants] or names))
    messages = [{"role": "user" if name == user else "assistant", "content": said} for name, said in joined]
    if messages[0]["role"] == "assistant":
        messages = messages[1:]
    if messages and messages[-1]["role"] == "user":
        messages = messages[:-1]
    if messages:
        yield messages


RULES: dict[str, Callable[[str, str], Iterator[Messages]]] = {
    "questions": questions,
    "answers": question_pages,
    "definitions": definitions,
    "dialogues": transcripts,
}
