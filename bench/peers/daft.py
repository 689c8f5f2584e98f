"""Daft: its `minhash` function, whose words end at spaces; bands and connected components in Polars.

Variants: the text as it is; normalised first by Daft, as its docs recommend (within the clock); or with spaces between
Han characters (made before the clock starts, for Daft has no function for it).
"""

import daft
import polars as pl
import pyarrow as pa
from daft.functions import minhash, normalize
from measurement import (
    BANDS,
    NGRAM,
    PERMUTATIONS,
    ROWS_PER_BAND,
    SEED,
    Task,
    read_column,
    read_task,
    spaced,
    timed,
    write_result,
)


def sign(documents: daft.DataFrame, normalised: bool) -> pa.Table:
    text = daft.col("text")
    if normalised:
        text = normalize(text, remove_punct=True, lowercase=True, white_space=True)
    signature = minhash(text, num_hashes=PERMUTATIONS, ngram_size=NGRAM, seed=SEED, hash_function="xxhash3_64")
    return documents.select(signature.alias("signature")).to_arrow()


def group(signatures: pa.Table) -> list[int]:
    """Connected components of documents that share a band; the first of each stays."""
    column = pl.DataFrame(signatures)["signature"]
    columns = column.arr.to_struct(fields=[f"hash_{place}" for place in range(PERMUTATIONS)]).struct.unnest()
    bands = [
        columns.select(
            row=pl.int_range(pl.len()),
            bucket=pl.struct(columns.columns[band * ROWS_PER_BAND : (band + 1) * ROWS_PER_BAND]).hash(band),
        )
        for band in range(BANDS)
    ]
    members = pl.concat(bands).filter(pl.len().over("bucket") > 1).with_columns(first=pl.col("row"))
    while True:
        spread = members.with_columns(first=pl.col("first").min().over("bucket"))
        spread = spread.with_columns(first=pl.col("first").min().over("row"))
        if spread["first"].equals(members["first"]):
            return members.filter(pl.col("row") != pl.col("first"))["row"].unique().to_list()
        members = spread


def main(task: Task) -> None:
    texts = read_column(task)
    if task.variant == "spaced":
        texts = pa.array(map(spaced, texts.to_pylist()), pa.large_string())
    documents = daft.from_arrow(pa.table({"text": texts})).collect()
    sign(documents.limit(10), task.variant == "normalised")  # the engine starts with its first query
    signatures, signing = timed(lambda: sign(documents, task.variant == "normalised"))
    removed, grouping = timed(lambda: group(signatures))
    write_result(task, "daft", signature_seconds=signing, seconds=signing + grouping, removed=removed)


if __name__ == "__main__":
    main(read_task())
