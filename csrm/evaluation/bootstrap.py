"""Intervals by the bootstrap: whole clusters of rows are drawn with replacement, all resamples of a block at once.

Shape letters: B resamples, R rows, C clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Measure", "cluster_numbers", "estimate", "resamples"]

Floats = NDArray[np.floating]
Measure: TypeAlias = Callable[[Floats | None], Floats]
"""From weights of the rows, (R,) or (B, R), None for all ones, to a figure or B of them."""

NUM_RESAMPLES = 1_000
BIASED = frozenset({"smece", "ece"})
"""Figures that resampling alone drives up (noise never cancels in them): their resamples are moved to the figure."""
MAX_WEIGHTS = 2**20
"""Weights held at once, so that memory does not grow with the number of resamples."""


def estimate(
    measures: Mapping[str, Measure],
    clusters: NDArray[np.int64],
    *,
    num_resamples: int = NUM_RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, float | list[float]]:
    """Each figure under its name, and under `<name>_95` the ends of its percentile interval (Efron 1979).

    Resamples of the `BIASED` figures are first moved so that their median is the figure itself, and cut off at 0.

    Args:
        measures: by name; all see the same resamples.
        clusters: (R,) number of the cluster that each row belongs to; rows of a prompt stand or fall together.
        num_resamples: 0 leaves intervals out.
        level: share of the resamples inside the interval.
        seed: of the resamples.

    Returns:
        Figures and intervals; NaN where a figure does not exist. Resamples without a figure are left out of it.
    """
    figures: dict[str, float | list[float]] = {name: float(measure(None)) for name, measure in measures.items()}
    if not num_resamples:
        return figures
    drawn: dict[str, list[Floats]] = {name: [] for name in measures}
    for weight_BR in resamples(clusters, num_resamples, seed):
        for name, measure in measures.items():
            drawn[name].append(measure(weight_BR))
    tail = (1 - level) / 2
    for name, parts in drawn.items():
        values = np.concatenate(parts)
        values = values[~np.isnan(values)]
        if name in BIASED and len(values):
            values = np.maximum(values - np.median(values) + figures[name], 0.0)
        ends = np.quantile(values, [tail, 1 - tail]) if len(values) else np.full(2, np.nan)
        figures[f"{name}_{round(100 * level)}"] = [float(end) for end in ends]
    return figures


def resamples(clusters: NDArray[np.int64], num_resamples: int, seed: int) -> Iterator[Floats]:
    """Blocks of weights (B, R): how often each row's cluster was drawn, `num_resamples` rows of them in all."""
    rng = np.random.default_rng(seed)
    num_clusters = int(clusters.max()) + 1
    block = max(1, MAX_WEIGHTS // max(num_clusters, len(clusters)))
    for start in range(0, num_resamples, block):
        size = min(block, num_resamples - start)
        drawn_BC = rng.integers(num_clusters, size=(size, num_clusters)) + num_clusters * np.arange(size)[:, None]
        counts_BC = np.bincount(drawn_BC.ravel(), minlength=size * num_clusters).reshape(size, num_clusters)
        yield counts_BC[:, clusters].astype(float)


def cluster_numbers(keys: Sequence[Hashable]) -> NDArray[np.int64]:
    """Number equal keys alike, from 0 in order of first appearance."""
    number: dict[Hashable, int] = {}
    return np.array([number.setdefault(key, len(number)) for key in keys], np.int64)
