import polars as pl
import pytest

from corpus.shard import rows
from corpus.shard.rows import SHARD, chunk_rows, instruction

USER, BOT = {"role": "user", "content": "退款怎么办？"}, {"role": "assistant", "content": "请提交申请。"}


def documents(*texts: str, messages: object = None) -> pl.DataFrame:
    empty = pl.DataFrame(SHARD.empty_table()).drop("chunk")
    rows = [{"id": str(number), "text": text, "messages": messages} for number, text in enumerate(texts)]
    return pl.DataFrame([dict.fromkeys(empty.columns) | row for row in rows], schema=empty.schema)


def test_the_last_answer_is_the_output_and_all_before_it_the_input() -> None:
    assert instruction([USER, BOT]) == {"input": "退款怎么办？", "output": "请提交申请。"}
    thanks = {"role": "user", "content": "谢谢"}
    assert instruction([USER, BOT, thanks]) == {"input": "退款怎么办？", "output": "请提交申请。"}
    longer = instruction([{"role": "system", "content": "Be kind."}, USER, BOT, thanks, {**BOT, "content": "不客气"}])
    assert longer == {
        "input": "system: Be kind.\nuser: 退款怎么办？\nassistant: 请提交申请。\nuser: 谢谢",
        "output": "不客气",
    }


def test_no_pair_without_question_or_answer() -> None:
    assert instruction([]) is None
    assert instruction([USER]) is None
    assert instruction([BOT, USER]) is None


def test_documents_are_whole_unless_chunks_are_asked_for() -> None:
    whole = chunk_rows(documents("one two three", "four"), None)
    assert whole.columns == [*SHARD.names, "tokens"]
    assert whole["chunk"].to_list() == [0, 0]
    cut = chunk_rows(documents("one two three", "four"), 2)
    assert cut.select("id", "chunk", "text").rows() == [("0", 0, "one two "), ("0", 1, "three"), ("1", 0, "four")]


def test_dialogues_are_never_cut() -> None:
    assert chunk_rows(documents("one two three", messages=[USER, BOT]), 2)["text"].to_list() == ["one two three"]


def test_rows_are_of_one_piece_for_pieces_show_in_files(monkeypatch: pytest.MonkeyPatch) -> None:
    several = documents("one two three", "four", "five")
    at_once = chunk_rows(several, 2)
    monkeypatch.setattr(rows, "CUT_AT_ONCE", 2)
    assert chunk_rows(several, 2).equals(at_once)
    assert chunk_rows(several, 2).n_chunks("all") == [1] * at_once.width
