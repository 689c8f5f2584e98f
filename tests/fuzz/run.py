"""Looks for bytes that break a promise, guided by the code they reach: `python tests/fuzz/run.py TARGET --seconds 60`.

Needs atheris (`pip install 'corpusmill[fuzz]'`). What it finds lies as a file beside it in the folder it was started in,
and is said with the error; put it among the seeds, or into a test of what it broke.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

try:
    import atheris
except ImportError:
    sys.exit("atheris is not installed: pip install 'corpusmill[fuzz]'")

sys.path.insert(0, str(Path(__file__).parent))
# Kernels with their bounds checked; compiled once, and not in place of the usual ones.
os.environ |= {
    "NUMBA_BOUNDSCHECK": "1",
    "NUMBA_CACHE_DIR": str(Path(tempfile.gettempdir()) / "corpusmill-fuzz-kernels"),
}
with atheris.instrument_imports(include=["corpus"]):
    import targets
from seeds import SEEDS


def main() -> None:
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
            look(known[name], options.seconds)
        _, status = os.waitpid(process, 0)
        if status:
            sys.exit(f"{name}: broken by what the lines above name")
        print(f"{name}: held for {options.seconds} s", flush=True)


def look(target: object, seconds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(SEEDS):
            (Path(folder) / f"seed-{number}").write_bytes(seed)
        limits = [f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=3000", "-max_len=4000", "-verbosity=0"]
        atheris.Setup([sys.argv[0], *limits, folder], target)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
