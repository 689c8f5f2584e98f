"""The pure steps of clean: decoding, normalising, language, personal data, extraction."""

from __future__ import annotations

import time
import unicodedata

import pytest
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st

from corpus.clean.decode import decode, hostile, scrub_surrogates
from corpus.clean.extract import block_text, extract
from corpus.clean.language import detect_language, nearest_language
from corpus.clean.normalise import normalise
from corpus.clean.personal import is_chinese_id, mask_personal_data, passes_luhn

CHINESE = "<p>这是一个用来测试编码的网页，里面有常见的汉字，也有标点。</p>"


@pytest.mark.parametrize(
    ("declared", "actual"),
    [
        ("utf-8", "utf-8"),
        ("gb2312", "gbk"),
        ("utf-8", "gbk"),
        (None, "gb18030"),
        ("iso-8859-1", "utf-8"),
        ("x-no", "gbk"),
    ],
)
def test_decodes_whatever_is_declared(declared: str | None, actual: str) -> None:
    page = (f"<meta charset={declared}>" if declared else "") + CHINESE
    assert decode(page.encode(actual)) == page
    assert decode(page.encode(actual), f"text/html; charset={declared}") == page


def test_decodes_byte_order_marks_and_western_pages() -> None:
    assert decode(b"\xff\xfe" + CHINESE.encode("utf-16-le")) == CHINESE
    western = "<meta charset=iso-8859-1>" + "Ça déjà vu, “naïveté” élève. " * 3
    assert decode(western.encode("cp1252")) == western


@given(st.binary(max_size=300))
def test_any_bytes_decode_to_text_or_none(body: bytes) -> None:
    text = decode(body)
    assert text is None or isinstance(scrub_surrogates(text).encode(), bytes)


@given(st.text(max_size=200))
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    once = normalise(scrub_surrogates(text))
    assert normalise(once) == once
    assert unicodedata.is_normalized("NFC", once)


def test_chinese_punctuation_stays() -> None:
    assert normalise("你好，世界！（ＡＢＣ１）“引”——《书》…") == "你好，世界！（ABC1）“引”——《书》…"


def test_guards() -> None:
    assert hostile("<div>" * 501, 500) == "too_deep"
    assert hostile("<a " + "x='1' " * 20_000 + ">", 500) == "long_tag"
    assert hostile("<ul><li><b>x</b></ul>" * 5_000, 500) is None
    assert hostile("<b></i>" * 600, 500) == "too_deep", "a stray end tag closes nothing"
    assert hostile("<b><div></b>" * 600, 500) == "too_deep"
    assert hostile("<div><font>x</div></i>" * 5_000, 500) is None


@pytest.mark.parametrize("repeated", [" ", "\u3000 ", "a", "a@", "a.", "1", "1 ", "1-", "\u200c", "+1 ", "<A", "\xa0"])
def test_no_text_takes_long(repeated: str) -> None:
    text = f"x{repeated * (60_000 // len(repeated))}y"
    started = time.process_time()
    detect_language(text)
    mask_personal_data(normalise(text))
    block_text(BeautifulSoup(f"<pre>{text}</pre>", "lxml"))
    decode(b"\xff", f"charset={text[1:-1]}é")
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The client splits each file into blocks and sends only those that differ from the copy.", "en"),
        ("Der Rechner schickt nur die Teile, die sich seit dem letzten Mal geändert haben.", "de"),
        ("请先暂停同步，然后在 settings.json 里修改 sync_folder 的路径。", "zh-Hans"),
        ("請先暫停同步，再到設定裡修改資料夾的路徑。", "zh-Hant"),
        ("まず同期を止めてから、設定でフォルダーの場所を変えてください。", "ja"),
        ("먼저 동기화를 멈추고 설정에서 폴더를 바꾸세요.", "ko"),
        ("3.14 + 42 = ?", "und"),
    ],
)
def test_languages(text: str, language: str) -> None:
    assert {detect_language(text) for _ in range(3)} == {(language, detect_language(text)[1])}


@pytest.mark.parametrize(
    ("stated", "text", "languages", "language"),
    [
        ("zh", "學校", ["zh-Hans", "zh-Hant"], "zh-Hant"),
        ("zh", "学校", ["zh"], "zh"),
        ("zh-CN", "學校", ["zh-Hans", "zh-Hant"], "zh-Hans"),
        ("zh_TW", "x", ["zh-Hans", "zh-Hant"], "zh-Hant"),
        ("zh-Hant-HK", "学校", ["zh-Hans", "zh-Hant"], "zh-Hant"),
        ("zh-TW", "x", ["zh-Hans"], "zh-TW"),
        ("EN", "x", ["en"], "en"),
    ],
)
def test_a_stated_language_is_one_of_ours(stated: str, text: str, languages: list[str], language: str) -> None:
    assert nearest_language(stated, text, languages) == language


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("电话13912345678。", "电话<PHONE>。"),
        ("拨+86 177 1234 5678或0571-88886666，", "拨<PHONE>或<PHONE>，"),
        ("邮箱zhang.san@example.com请查收", "邮箱<EMAIL>请查收"),
        ("证件号11010519491231002X已核", "证件号<ID>已核"),
        ("卡号6222 0212 3456 7895 尾号", None),
        ("Visa 4111-1111-1111-1111 expired", "Visa <CARD> expired"),
        ("from 93.184.216.34 to 10.0.0.1", "from <IP> to 10.0.0.1"),
        ("call (555) 123-4567 or +44 20 7946 0958", "call <PHONE> or <PHONE>"),
    ],
)
def test_personal_data_is_masked(text: str, masked: str | None) -> None:
    assert mask_personal_data(text)[0] == (masked or text)


@pytest.mark.parametrize(
    "text",
    [
        "Changed in version 3.11.7.2; see PEP 3156 and RFC 2822.",
        "sys.maxsize == 9223372036854775807, 2**64 == 18446744073709551616",
        "0x13912345678 and 0.13912345678 and 1.3912345678e+10, id_13912345678",
        "2024-06-01 21:14:07.512, 1e-16, 3.141592653589793",
        "@functools.wraps and a @ b.c; x[13912345678.5]",
        "hash 13912345678abc, 1391234567812 ms, 0555-1234",
        "127.0.0.1, 192.168.1.100, 255.255.255.255",
    ],
)
def test_numbers_of_code_and_manuals_stay(text: str) -> None:
    assert mask_personal_data(text) == (text, {})


@given(st.from_regex(r"[1-9]\d{5}(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|1\d|2[0-8])\d{3}", fullmatch=True))
def test_one_check_digit_in_eleven_fits(first: str) -> None:
    assume_ascii = "".join(str(int(digit)) for digit in first)  # \d also matches other scripts' digits
    assert sum(is_chinese_id(assume_ascii + check) for check in "0123456789X") == 1


@given(st.text("0123456789", min_size=15, max_size=15))
def test_luhn_finds_each_wrong_digit(first: str) -> None:
    fitting = [first + check for check in "0123456789" if passes_luhn(first + check)]
    assert len(fitting) <= 1
    for number in fitting:
        changed = str((int(number[4]) + 1) % 10)
        assert not passes_luhn(number[:4] + changed + number[5:])


def test_densest_block_stands_in_where_the_layout_is_a_table() -> None:
    body = "".join(f"<p>第{n}段，这里写的是正文的内容，讲的是备份的道理和办法。</p>" for n in range(12))
    navigation = "".join(f"<a href='/{n}'>栏目{n}</a> | " for n in range(20))
    page = f"<table><tr><td>{navigation}</td></tr><tr><td>最新</td><td><h1>题</h1>{body}</td></tr></table>"
    for extractor in ("auto", "bs4"):
        text = extract(f"<html><body>{page}</body></html>", None, extractor).text  # type: ignore[arg-type]
        assert "第11段" in text
        assert "栏目" not in text
