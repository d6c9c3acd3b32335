"""The Ray Data pipeline: shards → read and encode → score → write and commit.

One row is one shard all the way, so nothing that Ray Data does to rows (splitting, merging, retrying) can
take a shard apart. Each stage is a pool of actors: a reader keeps its tokenizer, a scorer its model, and
no process is started twice.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa

from csrm.errors import CSRMError, InputError
from jobs.columns import Work, group_passes
from jobs.job import Job
from jobs.losses import Lost
from jobs.reading import Reader
from jobs.remote import endpoints
from jobs.scaling import bring_up
from jobs.scoring import Scorer
from jobs.shards import FilePlan
from jobs.termination import kept_handler
from jobs.writing import Writer

__all__ = [
    "MAX_BLOCKS",
    "Outcome",
    "Pools",
    "Stage",
    "cluster",
    "configure_ray_data",
    "map_in_tasks",
    "original_errors",
    "score_shards",
    "size_pools",
]

MAX_THREADS = 8
"""Threads of one replica; short passes do not use more."""
CORES_PER_READER = 8
"""Tokenising takes about a hundredth of the time of scoring."""
REPLICA_BYTES = 600 * 2**20
"""Memory of a scorer beside its weights; those count four times (wider as loaded, and what passes through)."""
MAX_BLOCKS = 4096
"""Reading tasks of a job; each is an object that the driver keeps track of."""

# Shares of a core's scheduling slot. Together they are 1, so that even one core runs all three stages at
# once.
SCORE_SHARE, READ_SHARE, WRITE_SHARE = 0.75, 0.2, 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Pools:
    """How many actors each stage has, and what they may use."""

    num_scorers: int
    max_scorers: int
    """With nodes that are added. More than `num_scorers` only where those that are there have no room for another."""
    num_threads: int
    """Threads of one scorer."""
    scorer_cpus: float
    """Scheduling slots of one scorer."""
    scorer_gpus: float
    num_readers: int
    num_writers: int


def size_pools(
    cpus_per_node: Sequence[float],
    num_gpus: int,
    num_shards: int,
    *,
    num_actors: int | None = None,
    max_replicas: int = 2**31,
) -> Pools:
    """Divide a cluster among the stages.

    A scorer gets a GPU where there are any (or shares one, if more are asked for). On CPUs it gets one core:
    threads wait for one another after every operation, replicas never do. Reading takes the cores that GPUs leave
    idle, and on CPUs a small part.

    Args:
        cpus_per_node: cores of each node that has some.
        num_gpus: in the whole cluster.
        num_shards: more scorers than shards would idle.
        num_actors: scorers asked for; None decides here.
        max_replicas: as many as fit in memory; where cores are left, scorers get more of them.
    """
    cores = max(1, int(sum(cpus_per_node)))
    on_gpu = num_gpus > 0
    num_scorers = min(num_actors or num_gpus or min(cores, max_replicas), max(1, num_shards))
    num_threads = max(1, min(cores // num_scorers, int(min(cpus_per_node, default=1)), MAX_THREADS))
    # Cores share what reading and writing need, which the largest node has room for, so that no further scorer fits.
    largest = max(1, int(max(cpus_per_node, default=1)))
    share = SCORE_SHARE if on_gpu else 1 - (READ_SHARE + WRITE_SHARE) / min(largest, CORES_PER_READER)
    scorer_cpus = share * min(1.0 if on_gpu else num_threads, cores / num_scorers)
    is_elastic = num_actors is None and (on_gpu or max_replicas >= cores)
    return Pools(
        num_scorers=num_scorers,
        max_scorers=max(num_scorers, num_shards) if is_elastic else num_scorers,
        num_threads=num_threads,
        scorer_cpus=math.floor(scorer_cpus * 10_000) / 10_000,  # Ray rounds to four places, up perhaps
        scorer_gpus=1 / -(-num_scorers // num_gpus) if on_gpu else 0,
        num_readers=max(1, cores - num_scorers if on_gpu else cores // CORES_PER_READER),
        num_writers=max(1, cores // CORES_PER_READER),
    )


class Outcome(NamedTuple):
    """A shard that has been written, or could not be read."""

    commit: dict[str, Any] | None
    started: float
    """When its scoring started, in seconds since the epoch."""
    warnings: list[str]
    """What the model had to say of the configurations."""
    lost: Lost | None = None

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Outcome:
        """From what the writer returns."""
        commit = row["commit"] and json.loads(row["commit"])
        lost = row["lost"] and Lost(**json.loads(row["lost"]))
        return cls(commit, row["started"], row["warnings"], lost)


class Stage:
    """A worker of one stage, made where its actor starts. Its class gives the actors their name.

    What a user can mend is raised by the first call rather than there: Ray passes on the cause of a failed
    task, but of a failed start only a text with a traceback in it.
    """

    make: Callable[..., Callable[[pa.Table], Any]]

    def __init__(self, *arguments: Any):
        self.failure: CSRMError | None = None
        try:
            self.worker = type(self).make(*arguments)
        except CSRMError as error:
            self.failure = error

    def __call__(self, batch: pa.Table) -> Any:
        """Hand a batch to the worker."""
        if self.failure:
            raise self.failure
        return self.worker(batch)


class Read(Stage):
    """Shards become rows and token ids."""

    make = Reader


class Score(Stage):
    """Token ids become scores."""

    make = Scorer


class Write(Stage):
    """Rows and scores become files and a commit record."""

    make = Writer


@contextlib.contextmanager
def cluster() -> Iterator[None]:
    """Join the cluster at RAY_ADDRESS, or run one on this machine; leave it as it was found."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS")
    if address:
        _check_reachable(address)
    local: dict[str, Any] = {} if address else {"include_dashboard": False}
    if variables := endpoints():
        local["runtime_env"] = {"env_vars": variables}
    try:
        with _quiet_backend(), kept_handler():
            ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **local)
    except ConnectionError as error:
        raise InputError(f"RAY_ADDRESS={address}: no cluster to join ({error}); start it or unset it") from None
    try:
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise where nothing listens at `host:port`: Ray itself would go on trying for a quarter of an hour."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()):
        return
    try:
        socket.create_connection((host.rpartition("/")[2], int(port)), timeout=10).close()
    except OSError as error:
        raise InputError(f"RAY_ADDRESS={address}: no cluster to join ({error}); start it or unset it") from None


def map_in_tasks(function: Callable[[Any], FilePlan], files: Sequence[Any]) -> Iterator[FilePlan]:
    """Run a function over files in Ray tasks; results come in order, like `map`'s."""
    import ray

    task = ray.remote(num_cpus=1)(lambda part: [function(file) for file in part])
    size = max(1, len(files) // 256)
    parts = [files[start : start + size] for start in range(0, len(files), size)]
    with original_errors():
        for reference in [task.remote(part) for part in parts]:
            yield from ray.get(reference)


def score_shards(work: Sequence[Work], job: Job) -> Iterator[Outcome]:
    """Score shards on the cluster; yield each when it is done with, in any order.

    Raises:
        CSRMError: What a worker raised that a user can mend.
    """
    import ray
    from ray.data import ActorPoolStrategy

    configure_ray_data()
    if job.options.num_gpus:
        bring_up(job.options.num_gpus)
    resources = ray.cluster_resources()
    cpus = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    replica_bytes = REPLICA_BYTES + 4 * job.model.num_bytes
    pools = size_pools(
        [count for count in cpus if count],
        int(resources.get("GPU", 0)),
        len(work),
        num_actors=job.options.num_actors,
        max_replicas=max(1, int(resources.get("memory", 0) // replica_bytes)),
    )
    blocks = _blocks(work)
    results = (
        ray.data.from_arrow(blocks)
        .map_batches(
            Read,
            fn_constructor_args=(job,),
            batch_size=None,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(min_size=1, max_size=min(pools.num_readers, len(blocks))),
            num_cpus=READ_SHARE,
        )
        .map_batches(
            Score,
            fn_constructor_args=(job, pools.num_threads),
            batch_size=1,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(min_size=pools.num_scorers, max_size=pools.max_scorers),
            num_cpus=pools.scorer_cpus,
            num_gpus=pools.scorer_gpus,
        )
        .map_batches(
            Write,
            fn_constructor_args=(job,),
            batch_size=1,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(min_size=1, max_size=pools.num_writers),
            num_cpus=WRITE_SHARE,
        )
    )
    with original_errors():
        for row in results.iter_rows():
            yield Outcome.from_row(row)


def _blocks(work: Sequence[Work]) -> list[pa.Table]:
    """Return tables that describe shards, one to a reading task: a pass over a file, or several of them."""
    passes = group_passes(work)
    size = -(-len(passes) // MAX_BLOCKS)
    parts = [passes[start : start + size] for start in range(0, len(passes), size)]
    return [pa.Table.from_pylist([one.to_row() for together in part for one in together]) for part in parts]


def configure_ray_data() -> None:
    """Have Ray Data hand on rows one by one, keep quiet, and raise what a worker raised."""
    from ray.data import DataContext

    context = DataContext.get_current()
    # Every row becomes a block of its own: a shard goes on as soon as it is read, and is one task of each
    # stage.
    context.target_max_block_size = 1
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # Waiting for GPUs to come up is no reason to give up; a job that hangs is its scheduler's to end.
    context.execution_no_progress_timeout_s = -1
    context.raise_original_map_exception = True
    # What fails is raised to us whole; Ray Data's own log of it is several screens long.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)


@contextlib.contextmanager
def original_errors() -> Iterator[None]:
    """Raise a worker's CSRMError as it was, without Ray's traceback around it."""
    from ray.exceptions import RayTaskError

    try:
        yield
    except RayTaskError as error:
        if isinstance(error.cause, CSRMError):
            # Ours are one line; what follows it is Ray Data's advice on retries.
            raise type(error.cause)(str(error.cause).partition("\n")[0]) from None
        raise


@contextlib.contextmanager
def _quiet_backend() -> Iterator[None]:
    """Silence Ray's C++ layer on the driver's terminal, unless its level is set.

    For every actor pool of Ray Data it prints an error of no consequence (ray-project/ray#57733), and
    when told to be quiet it says that it was told, once, while it starts.
    """
    if "RAY_BACKEND_LOG_LEVEL" in os.environ:
        yield
        return
    os.environ["RAY_BACKEND_LOG_LEVEL"] = "fatal"
    sys.stderr.flush()
    terminal = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(nowhere)
        os.close(terminal)
        del os.environ["RAY_BACKEND_LOG_LEVEL"]
