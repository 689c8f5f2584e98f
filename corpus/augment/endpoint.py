"""Asks an OpenAI-compatible endpoint: a local server (`train serve`, vLLM, llama.cpp, Ollama) or a service."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from corpus.errors import StageError, UserError
from corpus.params import Endpoint

if TYPE_CHECKING:
    import httpx

MAX_ANSWER_BYTES = 4_000_000
PAUSE_SECONDS = 1.0  # before the second try; each further one waits twice as long
MAX_PAUSE_SECONDS = 30.0
LOG = "requests.jsonl"  # in .corpusmill: a line for each request, also for those that fail
REFUSED = (400, 413, 422)  # this request is at fault and no other: too long, or against the service's rules


class Question(NamedTuple):
    """What is asked: a model, what it is to do, and on what; `document` is for the log alone."""

    model: str
    system: str
    user: str
    max_tokens: int
    document: str = ""


class Answer(NamedTuple):
    """What came back, and what it cost. Where the endpoint refused, `text` is what it said."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    refused: bool = False


def ask_all(endpoint: Endpoint, questions: Iterable[Question], log: Path) -> Generator[Answer]:
    """Ask questions, `endpoint.concurrency` at a time, and give the answers in their order.

    Of the questions no more are read than are under way. Each request is a line in the file `log`: when, who was asked,
    about which document, what came of it, seconds and tokens; no text and no key. Raises UserError where the endpoint
    cannot be reached or turns us away, StageError where it fails or is too slow `endpoint.tries` times, or answers what
    is no chat completion.
    """
    import httpx

    headers = {"Authorization": f"Bearer {_key(endpoint)}"} if endpoint.key else {}
    waiting: deque[Future[Answer]] = deque()
    pool = ThreadPoolExecutor(endpoint.concurrency)
    log.parent.mkdir(parents=True, exist_ok=True)
    with httpx.Client(timeout=endpoint.timeout_s, headers=headers, follow_redirects=False) as client:
        try:
            for question in questions:
                waiting.append(pool.submit(_ask, client, endpoint, question, log))
                if len(waiting) >= endpoint.concurrency:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _ask(client: httpx.Client, endpoint: Endpoint, question: Question, log: Path) -> Answer:
    url = f"{endpoint.url.rstrip('/')}/chat/completions"
    trouble = ""
    for attempt in range(endpoint.tries):
        if attempt:
            time.sleep(min(MAX_PAUSE_SECONDS, PAUSE_SECONDS * 2 ** (attempt - 1)))
        started, answer, outcome = time.monotonic(), None, ""
        try:
            answer, outcome, said = _once(client, url, question, endpoint.timeout_s)
            trouble = f"{outcome}: {said}" if said else outcome
        except UserError:
            outcome = "turned away, or not reached"
            raise
        except StageError:
            outcome = "no chat completion"
            raise
        finally:
            _write_line(log, url, question, attempt + 1, time.monotonic() - started, answer, outcome)
        if answer:
            return answer
    raise StageError(
        f"{url} failed {endpoint.tries} times ({trouble}): what it answered before is kept, run the stage again"
    )


def _once(client: httpx.Client, url: str, question: Question, timeout_s: float) -> tuple[Answer | None, str, str]:
    """The answer to one request, or None and why another try may help; what the server said of that stays unlogged."""
    import httpx

    body = {
        "model": question.model,
        "messages": [{"role": "system", "content": question.system}, {"role": "user", "content": question.user}],
        "temperature": 0,
        "seed": 0,
        "max_tokens": question.max_tokens,
    }
    try:
        with client.stream("POST", url, json=body) as response:
            content = _read(response.iter_bytes(), url, time.monotonic() + timeout_s)
    except httpx.ConnectError as error:
        raise UserError(f"{url} cannot be reached ({error}): start the server, or mend the address") from None
    except (httpx.TimeoutException, TimeoutError):
        return None, f"it took more than {timeout_s:g} s", ""
    except httpx.HTTPError as error:
        return None, type(error).__name__, str(error)
    said = content[:200].decode("utf-8", "replace")
    status = f"status {response.status_code}"
    if response.status_code == 200:
        return _answer(content, url, question), status, ""
    if response.status_code in REFUSED:
        return Answer(said, 0, 0, refused=True), status, ""
    if response.status_code != 429 and response.status_code < 500:
        raise UserError(f"{url} turns us away with {status}: {said}")
    return None, f"it answered with {status}", said


def _write_line(
    log: Path, url: str, question: Question, attempt: int, seconds: float, answer: Answer | None, outcome: str
) -> None:
    line = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "url": url,
        "model": question.model,
        "document": question.document,
        "attempt": attempt,
        "outcome": outcome,
        "seconds": round(seconds, 3),
        "prompt_tokens": answer.prompt_tokens if answer else 0,
        "completion_tokens": answer.completion_tokens if answer else 0,
    }
    with log.open("a", encoding="utf-8") as file:  # one write of a line: threads and workers share the file
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _read(chunks: Iterable[bytes], url: str, deadline: float) -> bytes:
    content = b""
    for chunk in chunks:
        content += chunk
        if time.monotonic() > deadline:  # one that comes in drops
            raise TimeoutError
        if len(content) > MAX_ANSWER_BYTES:
            raise StageError(f"{url} answered with more than {MAX_ANSWER_BYTES:,} bytes, which no chat completion has")
    return content


def _answer(content: bytes, url: str, question: Question) -> Answer:
    """What a chat completion says. Tokens that the server does not count are estimated, at three characters each."""
    try:
        answer = json.loads(content)
        text = answer["choices"][0]["message"]["content"]
        usage = answer.get("usage") or {}
        if not isinstance(text, str):
            raise TypeError
        shown = len(question.system) + len(question.user)
        asked, said = (
            max(0, int(usage.get(name, size / 3) or 0))
            for name, size in (("prompt_tokens", shown), ("completion_tokens", len(text)))
        )
        # A limit of tokens may cut a character in two, of which JSON then holds one half.
        return Answer(text.encode("utf-8", "replace").decode(), asked, said)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError):
        beginning = content[:120].decode("utf-8", "replace")
        raise StageError(f"{url} answered with what is no chat completion: {beginning!r}") from None


def _key(endpoint: Endpoint) -> str:
    key = os.environ.get(endpoint.key or "")
    if not key:
        raise UserError(f"{endpoint.url} needs a key: set the environment variable {endpoint.key}")
    return key
