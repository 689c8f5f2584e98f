"""Looks for bytes that break a promise, guided by the code they reach: `python tests/fuzz/run.py TARGET --seconds 60`.

Needs atheris (`pip install 'corpusmill[fuzz]'`). What it finds lies as a file in the folder it was started in and is
said with the error; put it among the seeds, or into a test of what it broke.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
CORPUS = HERE.parent.parent / "corpus"
LIMITS = ["-timeout=20", "-rss_limit_mb=3000", "-max_len=4000", "-verbosity=0"]  # seconds and MB of an input, bytes


def main() -> None:
    targets, seeds = instrumented()
    known = {target.__name__: target for target in [*targets.KERNELS, *targets.READERS]}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", nargs="*", default=list(known), help=f"default: all of {', '.join(known)}")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    options = parser.parse_args()
    for name in options.target:
        if name not in known:
            parser.error(f"{name!r} is no target: there are {', '.join(known)}")
        process = os.fork()  # libFuzzer ends the process
        if process == 0:
            look(known[name], seeds, options.seconds)
        _, status = os.waitpid(process, 0)
        if status:
            sys.exit(f"{name}: broken by what the lines above name")
        print(f"{name}: held for {options.seconds} s", flush=True)


def instrumented():
    """The targets and their seeds, with all modules instrumented but those of kernels, which numba could not compile.

    Kernels are compiled with their bounds checked instead, into a folder of their own.
    """
    try:
        import atheris
    except ImportError:
        sys.exit("atheris is not installed: pip install 'corpusmill[fuzz]'")
    kernels = Path(tempfile.gettempdir()) / "corpusmill-fuzz-kernels"
    os.environ |= {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(kernels)}
    sys.path.insert(0, str(HERE))
    of_kernels = [
        ".".join(path.relative_to(CORPUS.parent).with_suffix("").parts)
        for path in CORPUS.rglob("*.py")
        if "@njit" in path.read_text("utf-8")
    ]
    with atheris.instrument_imports(include=["corpus"], exclude=of_kernels):
        import targets
    import seeds

    return targets, seeds.SEEDS


def look(target, seeds, seconds: int) -> None:
    import atheris

    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(seeds):
            (Path(folder) / f"seed-{number}").write_bytes(seed)
        atheris.Setup([sys.argv[0], *LIMITS, f"-max_total_time={seconds}", folder], target)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
