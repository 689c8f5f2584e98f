"""The language of a text: by script, by model, among candidates."""

from __future__ import annotations

import concurrent.futures
import os
import time
from pathlib import Path

import opencc
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.clean.language import Engine, Language, check_candidates, chinese_script, detect_language, nearest_language
from corpus.errors import UserError
from corpus.params import CANDIDATES

DATA = Path(os.environ.get("CORPUSMILL_TEST_DATA", "absent")) / "langid"
SENTENCES = {
    "en": "The client splits each file into blocks and sends only those that differ from the copy.",
    "de": "Der Rechner schickt nur die Teile, die sich seit dem letzten Mal geändert haben.",
    "fr": "Le client découpe chaque fichier et n'envoie que les parties qui ont changé.",
    "es": "El programa divide cada archivo y solo envía las partes que han cambiado.",
    "ru": "Программа делит каждый файл на части и посылает только изменённые.",
    "uk": "Програма ділить кожен файл на частини й надсилає лише змінені.",
    "ar": "يقسم البرنامج كل ملف إلى أجزاء ويرسل ما تغير منها فقط.",
    "hi": "प्रोग्राम हर फ़ाइल को हिस्सों में बाँटता है और केवल बदले हुए हिस्से भेजता है।",
    "th": "โปรแกรมแบ่งแต่ละไฟล์ออกเป็นส่วน ๆ แล้วส่งเฉพาะส่วนที่เปลี่ยนไป",
    "vi": "Chương trình chia mỗi tệp thành nhiều phần và chỉ gửi những phần đã thay đổi.",
    "ja": "まず同期を止めてから、設定でフォルダーの場所を変えてください。",
    "ko": "먼저 동기화를 멈추고 설정에서 폴더를 바꾸세요.",
    "zh-Hans": "请先暂停同步，然后在 settings.json 里修改 sync_folder 的路径。",
    "zh-Hant": "請先暫停同步，再到設定裡修改資料夾的路徑。",
}


@pytest.mark.parametrize("engine", ["py3langid", "langdetect"])
@pytest.mark.parametrize(("language", "text"), SENTENCES.items())
def test_sentences(engine: Engine, language: str, text: str) -> None:
    found = detect_language(text, engine)
    assert found.tag == language
    assert detect_language(text, engine) == found, "the same text has the same language"
    assert 0.3 < found.score <= 1
    assert found.score + found.second_score <= 1.001


@pytest.mark.parametrize(
    "text", ["", "   ", "3.14 + 42 = ?", "https://example.com/the/page", "<EMAIL> <PHONE>", "😀👍🏽", "。，"]
)
@pytest.mark.parametrize("engine", ["py3langid", "langdetect"])
def test_nothing_to_tell_by(engine: Engine, text: str) -> None:
    assert detect_language(text, engine) == ("und", 0.0, None, 0.0)


def test_a_long_text_is_told_by_more_than_its_beginning() -> None:
    output = "Ethernet controller: Intel Corporation Gigabit Network Connection\n" * 40
    assert detect_language(output + (SENTENCES["zh-Hans"] + "\n") * 40).tag == "zh-Hans"
    assert detect_language(SENTENCES["en"] * 20 + SENTENCES["de"] * 200).second == "en"


def test_letters_of_no_candidate_are_of_no_language() -> None:
    greek = "Το πρόγραμμα χωρίζει κάθε αρχείο σε κομμάτια."
    assert detect_language(greek).tag == "und"
    assert detect_language(greek, among=["en", "el"]) == ("el", 1.0, None, 0.0)
    assert detect_language(SENTENCES["ja"], among=["en", "fr"]).tag == "und"


def test_the_runner_up() -> None:
    found = detect_language("programa principal", among=["en", "es", "pt", "ru"])
    assert {found.tag, found.second} == {"es", "pt"}
    assert found.score >= found.second_score > 0
    mixed = detect_language("请先暂停同步，再到設定裡修改")
    assert (mixed.tag, mixed.second) in {("zh-Hans", "zh-Hant"), ("zh-Hant", "zh-Hans")}
    assert mixed.score + mixed.second_score == pytest.approx(1)


def test_quotations_do_not_change_the_language() -> None:
    manual = "先在 Settings 里点 Preferences，再选 Advanced Options 那一页，勾上 Synchronization 就可以了。"
    assert detect_language(manual).tag == "zh-Hans"
    assert (
        detect_language(
            "这个词在日语里写作「さくら」，读音很美，在中文的书里和电影里也常常见到，翻译的时候都作樱花，从来没有别的译法。"
        ).tag
        == "zh-Hans"
    )
    assert detect_language("Запустите pip install --upgrade corpusmill в окне терминала и подождите.").tag == "ru"
    assert detect_language("The word for cherry is さくら in Japanese, as every visitor learns in spring.").tag == "en"
    assert (
        detect_language("联系 zhang@example.com 或 https://example.com/very/long/path/of/english/words").tag
        == "zh-Hans"
    )


@pytest.mark.parametrize(
    ("among", "text", "tag"),
    [
        (["zh", "en"], "學習", "zh-Hant"),
        (["zh-Hans", "en"], "学习", "zh-Hans"),
        (["zh-Hant"], "學習", "zh-Hant"),
        (["en", "pt-BR"], "Esta frase está escrita em português.", "pt-BR"),
        (["nb", "de"], "Dette er en setning på norsk, og den er ikke lang.", "nb"),
        (["ja", "en"], "東京都", "ja"),
        (["en"], "Das ist ein deutscher Satz.", "en"),
    ],
)
@pytest.mark.parametrize("engine", ["py3langid", "langdetect"])
def test_candidates_by_any_name(engine: Engine, among: list[str], text: str, tag: str) -> None:
    check_candidates(engine, among)
    assert detect_language(text, engine, among).tag == tag


def test_unknown_candidates_are_named() -> None:
    with pytest.raises(
        UserError, match=r"clean\.language\.among: py3langid does not know 'tlh': .*choose from ace, af, am"
    ):
        check_candidates("py3langid", ["en", "tlh"])
    with pytest.raises(UserError, match="langdetect does not know 'eu': take it out, or try py3langid"):
        detect_language("Kaixo", "langdetect", ["en", "eu"])
    with pytest.raises(UserError, match="among is empty"):
        check_candidates("py3langid", [])
    for engine in ("py3langid", "langdetect"):
        check_candidates(engine, CANDIDATES)  # type: ignore[arg-type]


def test_threads_agree() -> None:
    texts = [*SENTENCES.values()] * 20
    expected = [detect_language(text) for text in texts]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(detect_language, texts)) == expected


@given(st.text(max_size=200))
def test_any_text_has_a_tag_and_a_score(text: str) -> None:
    found = detect_language(text)
    assert isinstance(found, Language)
    assert found.tag in {*CANDIDATES, "und", "zh-Hans", "zh-Hant"}
    assert 0 <= found.second_score <= found.score <= 1


@pytest.mark.parametrize("repeated", ["a", " ", "a@", "1", "<A", "好", "https://", "\u200b", "é"])
def test_long_texts_take_no_time(repeated: str) -> None:
    started = time.process_time()
    detect_language(repeated * 1_000_000)
    assert time.process_time() - started < 1


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
        ("pt-BR", "x", ["pt", "en"], "pt"),
    ],
)
def test_a_stated_language_is_one_of_ours(stated: str, text: str, languages: list[str], language: str) -> None:
    assert nearest_language(stated, text, languages) == language


def test_the_forms_of_chinese() -> None:
    assert chinese_script("山水") == ("zh-Hans", 1.0), "what both use"
    assert chinese_script("开門") == ("zh-Hans", 0.5)
    assert chinese_script("開門，关") == ("zh-Hant", 0.6667)


needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="CORPUSMILL_TEST_DATA names no folder with langid/")


def rows_of(kind: str) -> pl.DataFrame:
    rows = pl.read_parquet(DATA / "lingua_testdata.parquet")
    return rows.filter(pl.col("lang").is_in(CANDIDATES) & (pl.col("kind") == kind))


@needs_data
@pytest.mark.parametrize(("kind", "least"), [("sentences", 0.99), ("word-pairs", 0.93)])
def test_real_texts(kind: str, least: float) -> None:
    rows = rows_of(kind).sample(2_000, seed=0)
    right = sum(
        detect_language(text).tag.partition("-")[0] == lang for lang, text in rows.select("lang", "text").rows()
    )
    assert right >= least * rows.height


@needs_data
def test_real_traditional_chinese() -> None:
    to_traditional = opencc.OpenCC("s2t")
    texts = rows_of("sentences").filter(pl.col("lang") == "zh")["text"].to_list()
    converted = [to_traditional.convert(text) for text in texts]
    told = [
        detect_language(after).tag == "zh-Hant"
        for before, after in zip(texts, converted, strict=True)
        if before != after
    ]
    assert sum(told) >= 0.98 * len(told) > 100
