"""Feeds a target with inputs that reach new code, by atheris: `python -m tests.fuzz TARGET --seconds N`.

Kernels are compiled with checks of every index, into a cache of their own. Inputs that reached new code stay in
.corpusmill/fuzz/TARGET/inputs, for the next time; what breaks a target is a file beside them, and `python -m tests.fuzz
TARGET --input FILE` runs it once more. Exit code 1 where an input breaks a target, takes too long or too much memory.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import io
import os
import random
import re
import subprocess
import sys
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOME = ROOT / ".corpusmill" / "fuzz"
MAX_BYTES = 4_096  # of an input
MAX_SECONDS = 20  # that one may take: a page may take as long
MAX_MEGABYTES = 4_096
ROUND = 120  # seconds of a process


def main(words: list[str]) -> int:
    """Run one target, or all one after the other."""
    os.environ.setdefault("NUMBA_BOUNDSCHECK", "1")
    os.environ.setdefault("NUMBA_CACHE_DIR", str(HOME / "numba"))
    parser = argparse.ArgumentParser("python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("target", help="a target's name, or `all`; `list` says their names")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (60)")
    parser.add_argument("--input", type=Path, help="run this file alone")
    parser.add_argument("--round", action="store_true", help=argparse.SUPPRESS)  # in a process of its own
    given = parser.parse_args(words)
    if given.round:
        return _by_coverage(given.target, given.seconds)
    from .targets import TARGETS

    if given.target == "list":
        print(*TARGETS, sep="\n")
        return 0
    if given.target not in (*TARGETS, "all"):
        parser.error(f"{given.target!r} is no target: there are {', '.join(TARGETS)}")
    if given.input:
        TARGETS[given.target].check(given.input.read_bytes())
        return 0
    names = list(TARGETS) if given.target == "all" else [given.target]
    guided = importlib.util.find_spec("atheris") is not None
    if not guided:
        print("atheris is not installed (pip install 'corpusmill[fuzz]'): inputs are made of the seeds by chance")
    broken = [name for name in names if not (_in_rounds if guided else _by_chance)(name, given.seconds)]
    print(*(f"{name} is broken" for name in broken), f"{len(names) - len(broken)} of {len(names)} hold", sep="\n")
    return bool(broken)


def _in_rounds(name: str, seconds: int) -> bool:
    """Whether a target holds. What atheris and libFuzzer note grows without end: so a new process now and then."""
    command = [sys.executable, "-m", "tests.fuzz", name, "--round", "--seconds"]
    for start in range(0, seconds, ROUND):
        if subprocess.run([*command, str(min(ROUND, seconds - start))], cwd=ROOT).returncode:
            return False
    print(f"{name} holds", flush=True)
    return True


def _by_chance(name: str, seconds: int) -> bool:
    from .seeds import mutated
    from .targets import TARGETS

    target, generator, count = TARGETS[name], random.Random(time.time_ns()), 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        data = mutated(generator, target.seeds)[:MAX_BYTES]
        try:
            target.check(data)
        except Exception:
            traceback.print_exc()
            path = _folder(name) / f"broken-{hashlib.sha1(data).hexdigest()}"
            path.write_bytes(data)
            print(f"{name}: {path} breaks it")
            return False
        count += 1
    print(f"{name} holds, in {count} inputs", flush=True)
    return True


def _folder(name: str) -> Path:
    folder = HOME / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _by_coverage(name: str, seconds: int) -> int:
    """libFuzzer ends the process itself: with 0 after its time, with another code at the first input that breaks."""
    import atheris

    # numba cannot compile functions that report where they are.
    with (
        contextlib.redirect_stderr(io.StringIO()),  # a line a module
        atheris.instrument_imports(include=["corpus", "tests.fuzz", "idna"], exclude=_compiled()),
    ):
        from .targets import TARGETS
    folder = _folder(name)
    found = folder / "inputs"
    found.mkdir(exist_ok=True)
    for number, seed in enumerate(TARGETS[name].seeds):
        (found / f"seed-{number:03d}").write_bytes(seed)
        TARGETS[name].check(seed)  # compiles the kernels before the clock of inputs runs
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={MAX_BYTES}",
        f"-timeout={MAX_SECONDS}",
        f"-rss_limit_mb={MAX_MEGABYTES}",
        f"-artifact_prefix={folder}/broken-",
        *("-verbosity=0", str(found)),
    ]
    atheris.Setup([name, *options], TARGETS[name].check)
    atheris.Fuzz()
    return 0


def _compiled() -> list[str]:
    """The modules that hold kernels."""
    kernel = re.compile("^@njit", re.MULTILINE)
    return [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sorted((ROOT / "corpus").rglob("*.py"))
        if kernel.search(path.read_text("utf-8"))
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
