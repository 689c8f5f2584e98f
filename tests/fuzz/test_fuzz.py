"""All targets on the seeds and on bytes that hypothesis draws; kernels also with their bounds checked."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from seeds import SEEDS, TEXTS
from targets import KERNELS, READERS

Target = Callable[[bytes], None]
PIECES = st.sampled_from([*SEEDS, *(text.encode()[:20] for text in TEXTS)])
BYTES = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(st.one_of(PIECES, st.binary(max_size=8)), max_size=5).map(b"".join),
    # A seed with a byte changed, or cut.
    st.tuples(PIECES, st.integers(0, 4_000), st.binary(max_size=3)).map(
        lambda t: t[0][: t[1]] + t[2] + t[0][t[1] + 1 :]
    ),
    st.tuples(PIECES, st.integers(0, 4_000)).map(lambda t: t[0][: t[1]]),
)


@pytest.mark.parametrize("target", [*KERNELS, *READERS])
def test_on_seeds(target: Target) -> None:
    for seed in SEEDS:
        target(seed)


@pytest.mark.parametrize("target", [*KERNELS, *READERS])
@given(data=BYTES)
@settings(max_examples=40)
def test_on_any_bytes(target: Target, data: bytes) -> None:
    target(data)


def test_kernels_stay_within_their_arrays(tmp_path: Path) -> None:
    """Compiled with bounds checks, which the usual ones do without, and therefore kept in a folder of their own."""
    environment = os.environ | {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    words = ["-q", "-p", "no:cacheprovider", __file__, "-k", " or ".join(f"[{one.__name__}]" for one in KERNELS)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words], capture_output=True, text=True, env=environment, timeout=900
    )
    assert done.returncode == 0, done.stdout[-4000:]
