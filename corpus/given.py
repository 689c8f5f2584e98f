"""Documents of one's own in place of those that `clean` makes, for `corpus run --input`. A stage like any other."""

from __future__ import annotations

from corpus.documents import open_part, part_writer, to_arrow
from corpus.files import link
from corpus.scrape.files import refuse_beside_parquet
from corpus.stage import Metrics, Run, batches, count_rows, refuse_repeated_ids, side_by_side
from corpus.storage import with_addresses

READS: tuple[str, ...] = ()


def run(run: Run) -> Metrics:
    """Link the files of documents into the output as they are; of the last one within a limit write its first rows.

    Raises UserError where two documents share an id, or files lie beside them that would not be read.
    """
    refuse_beside_parquet(run.inputs)
    parts = side_by_side(run)
    refuse_repeated_ids([part.files[0] for part in parts])
    for part in parts:
        if part.rows == open_part(part.files[0]).metadata.num_rows:
            link(part.files[0].resolve(), run.output / part.name)
            continue
        tables = [to_arrow(batch) for batch in batches(part)]
        with part_writer(tables[0].schema, run.output / part.name) as writer:
            for table in tables:
                writer.write_table(table)
    rows = count_rows(rows_in=sum(part.rows for part in parts), dropped={})
    return rows | {"notes": [f"the documents of {with_addresses(str(run.inputs[0]))} as they are"]}
