"""The scoring pipeline without Ray: the same stages, in this process."""

from jobs.pipeline import Outcome


def write_in_process(pending, job):
    """Stands in for the pipeline: the same stages, here."""
    import pyarrow as pa

    from jobs.reading import Reader
    from jobs.scoring import Scorer
    from jobs.writing import Writer

    scorer, writer = Scorer(job, 1), Writer(job)
    for batch in Reader(job)(pa.Table.from_pylist([work.to_row() for work in pending])):
        [row] = writer(scorer(batch)).to_pylist()
        yield Outcome.from_row(row)
