"""Asks an OpenAI-compatible endpoint: a local server (`train serve`, vLLM, llama.cpp, Ollama) or a service."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from corpus.errors import StageError, UserError
from corpus.params import Endpoint

MAX_ANSWER_BYTES = 4_000_000
PAUSE_SECONDS = 1.0  # before the second try; each further one waits twice as long
MAX_PAUSE_SECONDS = 30.0


class Question(NamedTuple):
    """What is asked: a model, what it is to do, and on what."""

    model: str
    system: str
    user: str
    max_tokens: int


class Answer(NamedTuple):
    """What came back, and what it cost."""

    text: str
    prompt_tokens: int
    completion_tokens: int


def ask_all(endpoint: Endpoint, questions: Sequence[Question]) -> Iterator[Answer]:
    """Ask all questions, `endpoint.concurrency` at a time, and give the answers in their order.

    Raises UserError where the endpoint cannot be reached or refuses, StageError where it fails or is too slow
    `endpoint.tries` times, or answers what is no chat completion.
    """
    import httpx

    headers = {"Authorization": f"Bearer {_key(endpoint)}"} if endpoint.key else {}
    with (
        httpx.Client(timeout=endpoint.timeout_s, headers=headers, follow_redirects=False) as client,
        ThreadPoolExecutor(endpoint.concurrency) as pool,
    ):
        yield from pool.map(lambda question: _ask(client, endpoint, question), questions)


def _ask(client: object, endpoint: Endpoint, question: Question) -> Answer:
    import httpx

    assert isinstance(client, httpx.Client)
    url = f"{endpoint.url.rstrip('/')}/chat/completions"
    body = {
        "model": question.model,
        "messages": [{"role": "system", "content": question.system}, {"role": "user", "content": question.user}],
        "temperature": 0,
        "seed": 0,
        "max_tokens": question.max_tokens,
    }
    trouble = ""
    for attempt in range(endpoint.tries):
        if attempt:
            time.sleep(min(MAX_PAUSE_SECONDS, PAUSE_SECONDS * 2 ** (attempt - 1)))
        try:
            with client.stream("POST", url, json=body) as response:
                content = _read(response.iter_bytes(), url)
        except httpx.ConnectError as error:
            raise UserError(f"{url} cannot be reached ({error}): start the server, or mend the address") from None
        except httpx.TimeoutException:
            trouble = f"it took more than {endpoint.timeout_s:g} s"
            continue
        except httpx.HTTPError as error:
            trouble = str(error) or type(error).__name__
            continue
        said = content[:200].decode("utf-8", "replace")
        if response.status_code == 200:
            return _answer(content, url)
        if response.status_code != 429 and response.status_code < 500:
            raise UserError(f"{url} refuses the request with status {response.status_code}: {said}")
        trouble = f"it answered with status {response.status_code}: {said}"
    raise StageError(
        f"{url} failed {endpoint.tries} times ({trouble}): what it answered before is kept, run the stage again"
    )


def _read(chunks: Iterable[bytes], url: str) -> bytes:
    content = b""
    for chunk in chunks:
        content += chunk
        if len(content) > MAX_ANSWER_BYTES:
            raise StageError(f"{url} answered with more than {MAX_ANSWER_BYTES:,} bytes, which no chat completion has")
    return content


def _answer(content: bytes, url: str) -> Answer:
    import json

    try:
        answer = json.loads(content)
        text = answer["choices"][0]["message"]["content"]
        usage = answer.get("usage") or {}
        if not isinstance(text, str):
            raise TypeError
        return Answer(text, int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        said = content[:120].decode("utf-8", "replace")
        raise StageError(f"{url} answered with what is no chat completion: {said!r}") from None


def _key(endpoint: Endpoint) -> str:
    key = os.environ.get(endpoint.key or "")
    if not key:
        raise UserError(f"{endpoint.url} needs a key: set the environment variable {endpoint.key}")
    return key
