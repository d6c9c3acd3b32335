"""The filter's pipeline without Ray: the same worker, in this process."""

import pyarrow as pa


def filter_in_process(tasks, job):
    """Stands in for `filter_shards`."""
    from jobs.filter.pipeline import Outcome, passes
    from jobs.filter.worker import Filterer

    for outcome in Filterer(job)(pa.table({"tasks": passes(tasks)})):
        [row] = outcome.to_pylist()
        yield Outcome.from_row(row)
