"""Reliability diagrams as PNG: how often a message complied, by how sure the model was, before and after."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["draw"]

INK, GRID, BEFORE, AFTER = "#22272e", "#d8dee4", "#b4530a", "#0b5cad"
NUM_BANDS = 200
"""Resamples behind the shaded band."""


def draw(path: Path, complies: NDArray[np.bool_], p_safe: Mapping[str, NDArray[np.float32]]) -> None:
    """Draw a panel for each set of probabilities.

    The line is the Nadaraya–Watson regression whose distance from the diagonal smECE averages, its shade the central
    95 % of resampled cells, its width the share of the cells that lie there; below it stands their density (its root,
    so that rare probabilities show), those that complied above the axis and those that violated below.

    Args:
        path: PNG to write.
        complies: (num_cells,) labels.
        p_safe: (num_cells,) probabilities by the panel's title.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(p_safe) + 0.4, 6.3), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(p_safe), sharex=True, squeeze=False, height_ratios=(4, 1))
    for column, (title, probability) in enumerate(p_safe.items()):
        colour = (BEFORE, AFTER)[column % 2]
        _curve(panels[0, column], probability, complies, title, colour)
        _densities(panels[1, column], probability, complies, colour)
    panels[0, 0].set_ylabel("share that complied", color=INK)
    panels[1, 0].set_ylabel("√ density", color=INK)
    tallest = max(abs(limit) for axes in panels[1] for limit in axes.get_ylim())
    for axes in panels.ravel():
        _plain(axes)
    for axes in panels[1]:
        axes.set(ylim=(-1.15 * tallest, 1.15 * tallest), yticks=[])
        axes.set_xlabel("p_safe", color=INK)
        axes.set_box_aspect(0.26)
    figure.savefig(path)


def _curve(axes: Any, probability: NDArray[np.float32], complies: NDArray[np.bool_], title: str, colour: str) -> None:
    from matplotlib.collections import LineCollection

    from csrm.evaluation.bootstrap import resamples
    from csrm.evaluation.metrics import brier
    from csrm.evaluation.smooth_ece import reliability_curve, smooth_ece

    curve = reliability_curve(probability, complies)
    weights = np.concatenate(list(resamples(np.arange(len(complies)), NUM_BANDS, seed=0)))
    drawn = reliability_curve(probability, complies, weights, bandwidth=curve.bandwidth)
    seen = curve.density > 0.02 * curve.density.max()
    low, high = np.full((2, len(seen)), np.nan)
    low[seen], high[seen] = np.nanquantile(drawn.frequency[:, seen], [0.025, 0.975], axis=0)
    x, y = curve.probability, np.where(seen, curve.frequency, np.nan)
    axes.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.fill_between(x, low, high, where=seen, color=colour, alpha=0.18, linewidth=0, zorder=2)
    points = np.stack([x, y], axis=1)
    width = 1.0 + 5.0 * np.sqrt(curve.density / curve.density.max())
    segments = np.stack([points[:-1], points[1:]], axis=1)
    lines = LineCollection(segments, linewidths=width[:-1], colors=colour, capstyle="round", zorder=3)
    axes.add_collection(lines)
    error, score = float(smooth_ece(probability, complies)), float(brier(probability, complies))
    axes.set_title(title, loc="left", color=INK, fontsize=12, fontweight="bold")
    axes.set_title(f"smECE {error:.3f}   Brier {score:.3f}", loc="right", color=colour, fontsize=10)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.set_box_aspect(1)


def _densities(axes: Any, probability: NDArray[np.float32], complies: NDArray[np.bool_], colour: str) -> None:
    from csrm.evaluation.smooth_ece import reliability_curve

    for mask, sign, name, shade in ((complies, 1, "complied", 0.55), (~complies, -1, "violated", 0.3)):
        if not mask.any():
            continue
        curve = reliability_curve(probability[mask], complies[mask], bandwidth=0.02)
        density = sign * np.sqrt(np.maximum(curve.density, 0) * mask.mean())
        axes.fill_between(curve.probability, 0, density, color=colour, alpha=shade, linewidth=0)
        axes.annotate(
            f"{name} ({int(mask.sum()):,})",
            (0.02, 0.95 if sign > 0 else 0.05),
            xycoords="axes fraction",
            ha="left",
            va="top" if sign > 0 else "bottom",
            fontsize=8,
            color=INK,
        )
    axes.axhline(0, color=INK, linewidth=0.6)


def _plain(axes: Any) -> None:
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=9, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
