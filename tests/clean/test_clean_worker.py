"""Pages that hang, crash or fill a parser cost their own row, and no other."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import pyarrow as pa

from corpus.clean import worker
from corpus.clean.document import Settings
from corpus.clean.worker import clean_rows
from corpus.params import Clean

WORDS = "This is a sentence in plain English, which the extractor should find on its page. "
GOOD = f"<html><title>Good</title><article>{f'<p>{WORDS * 3}</p>' * 5}</article>".encode()
# Fit to be parsed only for who allows any depth; then this extractor needs minutes for it.
HANGS = b"<html><body>" + b"<div>" * 60_000 + WORDS.encode()


def outcomes(bodies: list[bytes], timeout_s: float = 20, **params: Any) -> list[dict[str, Any]]:
    table = pa.table({"id": [str(n) for n in range(len(bodies))], "body": pa.array(bodies, pa.large_binary())})
    settings = Settings(Clean.model_validate(params))
    return list(clean_rows(table, settings, timeout_s))


def test_a_page_that_hangs_in_c_is_killed_and_the_others_are_read() -> None:
    started = time.monotonic()
    found = outcomes([GOOD, HANGS, GOOD], 1.0, extractor="resiliparse", max_depth=10**9)
    assert [one.get("reason") for one in found] == [None, "clean.error.timeout", None]
    assert found[0]["text"] == found[2]["text"] and WORDS.strip() in found[0]["text"]
    assert time.monotonic() - started < 60


def test_a_killed_process_costs_no_page() -> None:
    outcomes([GOOD])
    process = worker._workers[0].process
    killer = threading.Timer(0.3, os.kill, (process.pid, signal.SIGKILL))
    killer.start()
    found = outcomes([GOOD] * 300)
    killer.join()
    assert len(found) == 300 and all("text" in one for one in found)


def test_a_page_over_which_two_processes_die_is_dropped_with_how() -> None:
    """Something kills whichever process works on the second page, which takes long enough to be caught at it."""
    outcomes([GOOD])
    killed: list[int] = []

    def kill_twice() -> None:
        while len(killed) < 2:
            current = worker._workers[0]
            if current.alive and current.unread == 2 and current.process.pid not in killed:
                killed.append(current.process.pid or 0)
                os.kill(killed[-1], signal.SIGKILL)
            time.sleep(0.05)

    killer = threading.Thread(target=kill_twice)
    killer.start()
    found = outcomes([GOOD, HANGS, GOOD], 60, extractor="resiliparse", max_depth=10**9)
    killer.join()
    assert [one.get("reason") for one in found] == [None, "clean.error.crash", None]
    assert found[1]["detail"] == "signal 9"


def test_answers_left_unread_are_not_taken_for_those_of_the_next_question() -> None:
    table = pa.table({"id": ["a", "b"], "body": pa.array([GOOD, GOOD], pa.large_binary())})
    left = clean_rows(table, Settings(Clean()), 20)
    assert next(left)["title"] == "Good"
    left.close()
    assert outcomes([b"<title>Other</title>" + GOOD])[0]["title"] == "Other"


def test_text_on_its_way_keeps_every_character() -> None:
    odd = "A sentence in plain English with \u2028 odd \ud800 \x00 “characters” 😀, and one that is none: \ufffe."
    page = GOOD.decode().replace("</article>", f"<p>{odd}</p></article>")
    assert "“characters” 😀" in outcomes([page.encode("utf-8", "surrogatepass")])[0]["text"]
