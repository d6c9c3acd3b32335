"""What a running job tells Prometheus, through Ray's agents: `ray_<name>` at the metrics port of every node.

Counters count work as it is done; a shard that is scored twice because a node died is counted twice. What the matrix
holds is in its manifest.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

__all__ = ["METRICS", "Metric", "count", "observe"]


class Metric(NamedTuple):
    """What one is about."""

    description: str
    tags: tuple[str, ...] = ()
    boundaries: tuple[float, ...] = ()
    """Upper ends of a histogram's buckets; a counter has none."""


_SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)

METRICS = {
    "csrm_records_total": Metric("Records that were read, scored and committed."),
    "csrm_cells_total": Metric("Cells that were scored and committed."),
    "csrm_tokens_total": Metric("Tokens of the records that were committed."),
    "csrm_errors_total": Metric("Rows without scores, by the stage that failed them.", ("stage",)),
    "csrm_violations_total": Metric("Rows below the threshold of a configuration.", ("configuration",)),
    "csrm_batch_seconds": Metric("Time that a scorer takes for a shard.", boundaries=_SECONDS),
    "csrm_queue_wait_seconds": Metric("Time from a shard's being read to its being scored.", boundaries=_SECONDS),
    "csrm_model_load_seconds": Metric("Time that a scorer takes to load its model.", boundaries=_SECONDS),
}


def count(name: str, value: float, **tags: str) -> None:
    """Add to a counter. Outside of Ray nothing happens."""
    if value and (instrument := _instrument(name)):
        instrument.inc(value, tags or None)


def observe(name: str, seconds: float) -> None:
    """Add to a histogram. Outside of Ray nothing happens."""
    if instrument := _instrument(name):
        instrument.observe(max(0.0, seconds))  # clocks of two nodes may differ


def _instrument(name: str) -> Any:
    import ray

    return _made(name) if ray.is_initialized() else None


@cache
def _made(name: str) -> Any:
    from ray.util.metrics import Counter, Histogram

    metric = METRICS[name]
    if metric.boundaries:
        return Histogram(name, metric.description, boundaries=list(metric.boundaries), tag_keys=metric.tags)
    return Counter(name, metric.description, tag_keys=metric.tags)
