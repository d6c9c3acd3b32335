"""The compliance matrix: what scoring returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["ComplianceMatrix", "Scores", "scores_to_arrow"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Raw scores, records × configurations. A record that could not be read is NaN throughout."""

    reward: NDArray[np.float32]
    """(num_records, num_configurations) log-odds of compliance."""
    p_safe: NDArray[np.float32]
    """Calibrated probability of compliance, same shape."""
    worst_clause: NDArray[np.int32] | None = None
    """Index within its configuration of the clause that speaks loudest against compliance; −1 where no score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComplianceMatrix:
    """Scores with the names of their rows and columns."""

    record_ids: list[str]
    configuration_ids: list[str]
    thresholds: NDArray[np.float32]
    """(num_configurations,) below which p_safe a record violates."""
    scores: Scores
    categories: list[list[str]]
    """Clause categories of each configuration, to name the worst clause."""

    @property
    def reward(self) -> NDArray[np.float32]:
        """Log-odds of compliance, float32 (num_records, num_configurations)."""
        return self.scores.reward

    @property
    def p_safe(self) -> NDArray[np.float32]:
        """Calibrated probability of compliance, same shape."""
        return self.scores.p_safe

    @property
    def violates(self) -> NDArray[np.bool_]:
        """Verdicts, same shape: p_safe below the configuration's threshold."""
        return self.p_safe < self.thresholds

    def to_arrow(self) -> pa.Table:
        """`record_id`, and structs `reward`, `p_safe` (and `worst_clause`) with a field per configuration."""
        columns = scores_to_arrow(self.scores, self.configuration_ids, self.categories)
        return pa.table({"record_id": pa.array(self.record_ids, pa.string()), **columns})


def scores_to_arrow(
    scores: Scores, configuration_ids: Sequence[str], categories: Sequence[Sequence[str]]
) -> dict[str, pa.StructArray]:
    """Scores as struct columns with a field per configuration; NaN (no score) becomes null."""
    columns = {
        "reward": _floats(scores.reward, configuration_ids),
        "p_safe": _floats(scores.p_safe, configuration_ids),
    }
    if scores.worst_clause is not None:
        columns["worst_clause"] = _names(scores.worst_clause, configuration_ids, categories)
    return columns


def _floats(values_RN: NDArray[np.float32], names: Sequence[str]) -> pa.StructArray:
    fields = [pa.array(np.ascontiguousarray(column), pa.float32(), from_pandas=True) for column in values_RN.T]
    return pa.StructArray.from_arrays(fields, names=list(names))


def _names(index_RN: NDArray[np.int32], names: Sequence[str], categories: Sequence[Sequence[str]]) -> pa.StructArray:
    fields = [
        pa.array(list(own), pa.string()).take(pa.array(index, mask=index < 0))
        for index, own in zip(index_RN.T, categories, strict=True)
    ]
    return pa.StructArray.from_arrays(fields, names=list(names))
