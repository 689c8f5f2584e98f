"""corpusmill: its kernels on texts in memory, as far as the libraries go; or its whole command, Parquet to Parquet.

Both warm up on a few documents first: the kernels are compiled once on a machine and loaded from a cache after that.
"""

import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from measurement import NGRAM, PERMUTATIONS, SEED, THRESHOLD, Task, read_column, read_task, timed, write_result

from corpus.dedup import stage
from corpus.dedup.bands import choose_bands
from corpus.dedup.memory import Budget
from corpus.dedup.shingles import Signatures, count_distinct, shingle_sets, signatures
from corpus.dedup.star import Indices, ShingleSets, greedy_star
from corpus.params import Dedup, Params
from corpus.stage import Run, execute
from corpus.text.buffers import Texts
from corpus.text.exact import exact_keys
from corpus.text.tokens import tokenise

DEDUP = Dedup(ngram=NGRAM, threshold=THRESHOLD, num_perm=PERMUTATIONS, seed=SEED)
SLICE = 64  # texts at a time, as in the stage: their tokens stay in the processor's cache


def slices(texts: Texts) -> list[Texts]:
    return [texts[start : start + SLICE] for start in range(0, len(texts), SLICE)]


def sign(texts: Texts) -> Signatures:
    """The signatures alone."""
    return np.concatenate([signatures(tokenise(some), NGRAM, PERMUTATIONS, SEED) for some in slices(texts)])


def dedup(column: pa.Array) -> list[int]:
    """The rows to remove: what the stage does, with the texts at hand and the longest of a group preferred."""
    texts = Texts.of(column)
    exact: list[bytes | None] = []
    comparable, matrices = [], []
    for some in slices(texts):
        tokens = tokenise(some)
        exact += exact_keys(tokens.texts)
        comparable.append(count_distinct(tokens, NGRAM, DEDUP.min_shingles) == DEDUP.min_shingles)
        matrices.append(signatures(tokens, NGRAM, PERMUTATIONS, SEED))

    documents = pl.DataFrame(
        {"exact": exact, "length": pl.Series(pc.utf8_length(column)), "comparable": np.concatenate(comparable)},
        schema_overrides={"exact": pl.Binary},
    )
    preferred = documents.with_row_index("row").sort("length", "row", descending=[True, False])
    first = preferred.filter(pl.col("exact").is_first_distinct() | pl.col("exact").is_null())
    rows = first.filter("comparable")["row"].to_numpy()

    def fetch(numbers: Indices) -> ShingleSets:
        wanted = rows[numbers]
        # In slices as well: each keeps its tokens in the cache.
        parts = [wanted[start : start + SLICE] for start in range(0, len(wanted), SLICE)]
        sets = [shingle_sets(tokenise(Texts.of(column.take(pa.array(part)))), NGRAM) for part in parts]
        sizes = np.concatenate([np.diff(part.offsets) for part in sets])
        return ShingleSets([part.hashes for part in sets], np.cumsum(sizes) - sizes, sizes)

    matrix = np.concatenate(matrices)[rows]
    bands, band_rows = choose_bands(THRESHOLD, DEDUP.edge_threshold, PERMUTATIONS)
    with tempfile.TemporaryDirectory() as folder:
        budget = Budget(DEDUP.memory_mb, Path(folder))
        star = greedy_star(matrix, bands, band_rows, THRESHOLD, DEDUP.edge_threshold, fetch, budget)
    copies = set(range(len(column))) - set(first["row"].to_list())
    return [*copies, *rows[star.kept_of >= 0].tolist()]


def run_command(documents: Path, folder: Path) -> Path:
    """The stage `dedup` on a file, with a store of its own; the folder of its output."""
    run = Run("dedup", Params(dedup=DEDUP), (documents,), folder / "output", reports=None, home=folder / "home")
    execute(stage, run)
    return run.output


def main(task: Task) -> None:
    warm_up = pl.read_parquet(task.input, n_rows=100)
    warm_up.write_parquet(task.scratch / "few.parquet")
    if task.variant == "command":
        run_command(task.scratch / "few.parquet", task.scratch / "few")
        output, seconds = timed(lambda: run_command(task.input, task.scratch / "all"))
        kept = pl.read_parquet(output / "*.parquet")["kept"]
        removed, signing = kept.not_().arg_true().to_list(), None
    else:
        column = read_column(task)
        dedup(column.slice(0, 100))
        _, signing = timed(lambda: sign(Texts.of(column)))
        removed, seconds = timed(lambda: dedup(column))
    write_result(task, "corpusmill", signature_seconds=signing, seconds=seconds, removed=removed)


if __name__ == "__main__":
    main(read_task())
