"""The Ray Data pipeline of a filter: shards → read beside their scores, judge, write and commit, in one stage."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from jobs import shards
from jobs.commits import Commit
from jobs.filter.worker import Filterer, FilterJob, Task
from jobs.losses import Lost
from jobs.pipeline import MAX_BLOCKS, Stage, configure_ray_data, original_errors

__all__ = ["Outcome", "filter_shards", "passes"]


class Outcome(NamedTuple):
    """A shard that has been filtered, or could not be read."""

    commit: Commit | None
    lost: Lost | None

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Outcome:
        """From what the worker returns."""
        return cls(row["commit"] and json.loads(row["commit"]), row["lost"] and Lost(**json.loads(row["lost"])))


class Filter(Stage):
    """Shards become files of kept and of rejected records."""

    make = Filterer


def filter_shards(tasks: Sequence[Task], job: FilterJob) -> Iterator[Outcome]:
    """Filter shards on the cluster; yield each when it is done with, in any order.

    Raises:
        CSRMError: What a worker raised that a user can mend.
    """
    import ray
    from ray.data import ActorPoolStrategy

    configure_ray_data()
    together = passes(tasks)
    size = -(-len(together) // MAX_BLOCKS)
    blocks = [pa.table({"tasks": together[start : start + size]}) for start in range(0, len(together), size)]
    num_actors = max(1, min(int(ray.cluster_resources().get("CPU", 1)), len(blocks)))
    results = ray.data.from_arrow(blocks).map_batches(
        Filter,
        fn_constructor_args=(job,),
        batch_size=None,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(min_size=1, max_size=num_actors),
        num_cpus=1,
    )
    with original_errors():
        for row in results.iter_rows():
            yield Outcome.from_row(row)


def passes(tasks: Sequence[Task]) -> list[str]:
    """Tasks that are read in one pass over a file, together, as text."""
    return [json.dumps([task.to_json() for task in together]) for together in shards.passes(tasks, lambda t: t.shard)]
