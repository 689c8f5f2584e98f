"""Run the command that serves a site while it is crawled."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import IO

import httpx

from corpus.errors import UserError
from corpus.executor import die_with_parent

START_SECONDS = 30.0
STOP_SECONDS = 1.0
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT")


@contextlib.contextmanager
def served(command: Sequence[str]) -> Iterator[str]:
    """Start a server and give the base of its URLs; stop it afterwards, whatever happened.

    `{port}` in the command is a free port; `python` as its first word is this Python. It runs in an empty folder, since
    some servers list the folder they are started in. Raises UserError if it does not answer.
    """
    port = _free_port()
    words = [word.replace("{port}", str(port)) for word in command]
    words[:1] = [sys.executable] if words[0] == "python" else words[:1]
    base = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as empty, tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                words,
                cwd=empty,
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                preexec_fn=die_with_parent,  # two system calls, which wait for no other thread
            )
        except OSError as error:
            raise UserError(f"sources: serve: {shlex.join(command)} cannot be started: {error}") from None
        try:
            _wait_until_it_answers(process, base, command, errors)
            yield base
        finally:
            _stop(process)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_it_answers(
    process: subprocess.Popen[bytes], base: str, command: Sequence[str], errors: IO[bytes]
) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            httpx.get(base, timeout=5, trust_env=False)
            return
        time.sleep(0.05)
    errors.seek(0)
    said = errors.read()[-300:].decode("utf-8", "replace").split("\n")
    last = next((line for line in reversed(said) if line.strip()), "it said nothing")
    raise UserError(f"sources: serve: {shlex.join(command)} does not answer on its {{port}}: {last.strip()}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Close its standard input, which ends servers like pydoc's; end it if it goes on."""
    if process.stdin:
        with contextlib.suppress(OSError):
            process.stdin.close()
    for end in (process.terminate, process.kill):
        try:
            process.wait(STOP_SECONDS)
            return
        except subprocess.TimeoutExpired:
            end()
    process.wait()
