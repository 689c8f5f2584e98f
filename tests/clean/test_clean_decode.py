"""Bytes to text: marks, declarations, guesses, and bytes that are no text."""

from __future__ import annotations

import gzip
import io
import os
import random
import time
import zipfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.clean.decode import Decoded, codec_of, decode, looks_like_text, scrub_surrogates

DATA = Path(os.environ.get("CORPUSMILL_TEST_DATA", "absent")) / "adversarial" / "encodings" / "pages.parquet"

SENTENCES = {
    "zh": "这是一个用来测试编码的网页，里面有常见的汉字，也有标点。我们在说明里写了怎么备份文件，你可以看看。",
    "zh-Hant": "這是一個用來測試編碼的網頁，裡面有常見的漢字，也有標點。我們在說明裡寫了怎麼備份檔案，你可以看看。",
    "ja": "これは文字コードを確かめるためのページです。ひらがなとカタカナ、それから漢字がまざっています。",
    "ko": "이것은 인코딩을 시험하기 위한 문서입니다. 우리는 파일을 백업하는 방법을 설명하고 있습니다.",
    "ru": "Это страница, на которой проверяется кодировка. Здесь написано, как сделать резервную копию файлов.",
    "el": "Αυτή είναι μια σελίδα για τη δοκιμή της κωδικοποίησης. Εδώ γράφει πώς γίνεται το αντίγραφο των αρχείων.",
    "fr": "Voilà une page écrite pour vérifier le codage : des élèves y ont gardé leurs fichiers, à côté du théâtre.",
    "pl": "Na tej stronie sprawdzamy kodowanie: zażółć gęślą jaźń, a potem zrób kopię plików, żeby ich nie stracić.",
    "tr": "Bu sayfa kodlamayı sınamak için yazıldı; dosyaların yedeğini almayı unutmayın, çünkü şimdi gereği var.",
}
GUESSED = [
    *(
        ("zh", "gb18030"),
        ("zh-Hant", "big5"),
        ("ja", "shift_jis"),
        ("ja", "euc_jp"),
        ("ko", "euc_kr"),
        ("fr", "cp1252"),
    ),
    *(("ru", "cp1251"), ("ru", "koi8_r"), ("ru", "cp866"), ("ru", "iso8859_5"), ("el", "cp1253"), ("tr", "cp1254")),
    *(("pl", "cp1250"), ("pl", "iso8859_2"), ("zh", "utf-16-le"), ("ja", "iso2022_jp"), ("ko", "iso2022_kr")),
]


def read(body: bytes, content_type: str | None = None) -> Decoded:
    found = decode(body, content_type)
    assert found is not None
    return found


def page(text: str, head: str = "") -> str:
    return f"<html><head>{head}<title>{text[:9]}</title></head><body>\n<p>{text}</p>\n</body></html>"


@pytest.mark.parametrize(("language", "encoding"), GUESSED)
def test_an_undeclared_encoding_is_guessed(language: str, encoding: str) -> None:
    html = page(SENTENCES[language])
    assert read(html.encode(encoding)).text == html
    assert read(html.encode(encoding)).how == "guessed"


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_overrules_what_is_declared(mark: str) -> None:
    html = page(SENTENCES["zh"], "<meta charset=big5>")
    found = read(html.encode(mark), "text/html; charset=koi8-r")
    assert (found.text, found.how) == (html, "bom")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_wide_encodings_without_a_mark(encoding: str) -> None:
    found = read(page(SENTENCES["ru"]).encode(encoding))
    assert (found.text, found.encoding) == (page(SENTENCES["ru"]), encoding)


@pytest.mark.parametrize(
    ("label", "encoding", "read_as"),
    [
        ("gb2312", "gbk", "gb18030"),
        ("GBK", "gb18030", "gb18030"),
        ("x-gbk", "gbk", "gb18030"),
        ("Big5", "big5hkscs", "big5hkscs"),
        ("ks_c_5601-1987", "cp949", "cp949"),
        ("windows-949", "cp949", "cp949"),
        ("x-sjis", "shift_jis", "shift_jis"),
        ("windows-31j", "cp932", "shift_jis"),
        ("x-euc-jp", "euc_jp", "euc_jp"),
        ("windows-874", "cp874", "cp874"),
        ("TIS-620", "tis-620", "cp874"),
        ("iso-8859-9", "cp1254", "cp1254"),
        ("iso-8859-8-i", "iso8859-8", "iso8859-8"),
        ("latin1", "cp1252", "cp1252"),
        ("us-ascii", "cp1252", "cp1252"),
        ("koi8", "koi8-r", "koi8-r"),
        ("x-mac-cyrillic", "mac-cyrillic", "mac-cyrillic"),
        ("hz-gb-2312", "hz", "hz"),
        ("csISO2022KR", "iso2022_kr", "iso2022_kr"),
    ],
)
def test_labels_mean_what_browsers_read(label: str, encoding: str, read_as: str) -> None:
    assert codec_of(label) == read_as
    of = {"gb": "朱镕基", "bi": "裏面", "ks": "똠방", "wi": "", "x-": "", "TI": "ไทย", "hz": "你好", "la": "déjà “vu”"}
    text = of.get(label[:2], "") + "plain"
    if encoding in ("cp949", "cp874", "euc_jp", "shift_jis", "cp932", "iso2022_kr"):
        text += {"cp949": "한국", "iso2022_kr": "한국", "cp874": "ภาษา"}.get(encoding, "日本語")
    for declared in (
        f"<meta charset={label}>",
        f'<meta http-equiv="Content-Type" content="text/html; charset={label}">',
    ):
        found = read((declared + text).encode(encoding))
        assert found.text == declared + text
        assert found.encoding in (read_as, "utf-8"), "what is all ASCII is UTF-8"
    xml = f'<?xml version="1.0" encoding="{label}"?><p>{text}</p>'
    assert read(xml.encode(encoding)).text == xml
    assert read(text.encode(encoding), f"text/html; charset={label}").text == text


@pytest.mark.parametrize("label", ["x-user-defined", "none", "rot13", "zlib", "unicode_escape", "punycode", "", "idna"])
def test_what_names_no_encoding_is_ignored(label: str) -> None:
    html = page(SENTENCES["zh"], f"<meta charset='{label}'>")
    assert codec_of(label) is None
    assert read(html.encode("gbk"), f"text/html; charset={label}").text == html


@pytest.mark.parametrize(
    ("declared", "actual"),
    [("utf-8", "gbk"), ("iso-8859-1", "gbk"), ("iso-8859-1", "utf-8"), ("windows-1252", "koi8-r"), ("gb2312", "utf-8")],
)
def test_a_wrong_declaration_does_no_harm(declared: str, actual: str) -> None:
    text = SENTENCES["ru" if actual == "koi8-r" else "zh"] * 3
    html = page(text, f"<meta charset={declared}>")
    assert read(html.encode(actual)).text == html
    assert read(text.encode(actual), f"text/html; charset={declared}").text == text


def test_the_declaration_says_how() -> None:
    html = page(SENTENCES["zh"], "<meta charset=gbk>")
    assert read(html.encode("gbk"))[1:] == ("gb18030", "declared")
    assert read(html.encode("utf-8"))[1:] == ("utf-8", "utf-8")


@pytest.mark.parametrize("encoding", ["gbk", "utf-8", "euc_kr", "big5"])
def test_a_few_broken_bytes_cost_themselves_only(encoding: str) -> None:
    text = {"euc_kr": SENTENCES["ko"].rstrip("."), "big5": SENTENCES["zh-Hant"]}.get(encoding, SENTENCES["zh"])
    body = (page(text, f"<meta charset={encoding}>") * 20).encode(encoding)
    cut = read(body[: body.rindex(b"</p>") - 1])
    assert cut.text.endswith("\ufffd")
    assert cut.text.count("\ufffd") == 1
    broken = read(body.replace(b"<body>", b"<body>\xff", 1))
    assert broken.text.replace("\ufffd", "", 1) == page(text, f"<meta charset={encoding}>") * 20


def test_short_chinese_is_taken_for_chinese() -> None:
    for title in ("青禾", "通知公告", "首页", "联系方式", "网络安全法", "备份软件"):
        assert read(f"<title>{title}</title>".encode("gbk")).text == f"<title>{title}</title>"


def test_the_wave_dash_is_the_same_in_all_encodings_of_japanese() -> None:
    text = SENTENCES["ja"] + "９時〜５時"
    assert {read(text.encode(encoding)).text for encoding in ("shift_jis", "euc_jp", "iso2022_jp")} == {text}
    windows = read((SENTENCES["ja"] + "①②").encode("cp932"), "text/html; charset=shift_jis")
    assert windows == (SENTENCES["ja"] + "①②", "cp932", "declared")


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("a.txt"), "text")  # of no date, so that a test has one name
    return buffer.getvalue()


@pytest.mark.parametrize(
    "body",
    [
        b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj",
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
        b"GIF89a\x01\x00\x01\x00",
        b"\xff\xd8\xff\xe0\x00\x10JFIF",
        zipped(),
        gzip.compress(b"text", mtime=0),
        b"\x00\x00\x00 ftypisom\x00\x00\x02\x00",
        b"\x7fELF\x02\x01\x01" + bytes(9),
        bytes(1_000),
        random.Random(0).randbytes(4_096),
    ],
)
def test_what_is_no_text_is_told(body: bytes) -> None:
    assert not looks_like_text(body)


@pytest.mark.parametrize(
    ("language", "encoding"), [*GUESSED, ("fr", "utf-16"), ("zh", "utf-8-sig"), ("el", "utf-32-be")]
)
def test_text_is_told_in_every_encoding(language: str, encoding: str) -> None:
    assert looks_like_text(page(SENTENCES[language]).encode(encoding))
    assert looks_like_text(f"<html><p>{SENTENCES[language][:8]}".encode(encoding, "ignore"))
    assert looks_like_text(b"")


@given(
    st.binary(max_size=300),
    st.sampled_from([None, "text/html; charset=utf-7", "charset=hz", "charset=utf-16", "charset=johab"]),
)
def test_any_bytes_become_text_or_none(body: bytes, content_type: str | None) -> None:
    found = decode(body, content_type)
    assert found is None or isinstance(scrub_surrogates(found.text).encode(), bytes)
    looks_like_text(body)


@given(st.text(max_size=200))
def test_utf_8_survives(text: str) -> None:
    found = read(text.encode("utf-8"))
    assert found.text == text or text.startswith("\ufeff") or "\x1b" in text or "\0" in text


@pytest.mark.parametrize(
    "body",
    [
        os.urandom(20_000_000),
        b"\xff" * 20_000_000,
        b"<meta " * 3_000_000 + b"\xff",
        b"x" * 20_000_000 + b"\xe9",
        bytes(range(128, 256)) * 150_000,
        b"\x1b$B" * 6_000_000,
    ],
    ids=["random", "one byte", "tags", "one at the end", "all", "escapes"],
)
def test_twenty_megabytes_take_no_time(body: bytes) -> None:
    started = time.process_time()
    decode(body, "text/html; charset=" + "a" * 100_000)
    looks_like_text(body)
    assert time.process_time() - started < 4  # a fraction of a second; other tests run beside


@pytest.mark.skipif(
    not DATA.is_file(), reason="CORPUSMILL_TEST_DATA names no folder with adversarial/encodings/pages.parquet"
)
def test_real_pages_are_read_as_they_are_labelled() -> None:
    pages = pl.read_parquet(DATA).filter(pl.col("python_decodes"))
    right = 0
    for encoding, body in pages.select("encoding", "bytes").iter_rows():
        found = decode(body)
        right += found is not None and found.text.lstrip("\ufeff") == body.decode(encoding).lstrip("\ufeff")
    assert right >= 0.97 * pages.height
