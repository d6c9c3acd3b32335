"""A scoring job: what its workers need to know, and what makes two jobs the same.

Everything here is plain data and travels to every worker; nothing holds a filesystem, a credential or a
tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from csrm.calibration import Calibration
from csrm.model_folder import read_facts
from jobs.options import ScoreOptions
from jobs.storage import Folder

if TYPE_CHECKING:
    from csrm.configurations import Configuration

__all__ = ["Job", "ModelFacts", "kept_schema", "read_model_facts"]

FORMAT = 1
"""Of commit records and matrix files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What a model folder says of itself, without its weights."""

    path: str
    name: str
    fingerprint: str
    calibration: Calibration
    num_bytes: int
    """Size of the weight files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run of `csrm score`, resolved."""

    options: ScoreOptions
    configurations: tuple[Configuration, ...]
    model: ModelFacts
    input_root: str
    """Folder that sources are relative to."""
    target: Folder
    """Folder that the matrix is written to."""
    kept: pa.Schema
    """Kept columns with the types that all input files agree on."""

    @property
    def identity(self) -> dict[str, Any]:
        """What a shard's scores depend on besides its rows: scored by the same, it is not scored again."""
        options = self.options
        return {
            "format": FORMAT,
            "input": self.input_root,
            "model": self.model.fingerprint,
            "calibration": self._calibration_fingerprints(),
            "configurations": {c.id: c.fingerprint for c in self.configurations},
            "options": {
                "columns": asdict(options.columns),
                "id_column": options.id_column,
                "keep_columns": list(options.keep_columns),
                "partition_by": list(options.partition_by),
                "explain": options.explain,
            },
        }

    def _calibration_fingerprints(self) -> dict[str, str]:
        """Of the common line, and of those lines of single configurations that a column goes through."""
        calibration = self.model.calibration
        own = {c.id: calibration.of(c.fingerprint) for c in self.configurations}
        common = Calibration(scale=calibration.scale, bias=calibration.bias)
        used = {name: line.fingerprint for name, line in own.items() if line != common}
        return used if len(used) == len(own) else {"": common.fingerprint} | used


def read_model_facts(folder: str | None) -> ModelFacts:
    """Read `csrm.json` of a model folder (None: the embedded model); a driver needs no more of a model.

    Raises:
        CheckpointError: The folder is missing or not a CSRM.
    """
    path, facts = read_facts(folder)
    return ModelFacts(
        path=str(path.absolute()),
        name=facts["name"],
        fingerprint=facts["fingerprint"],
        calibration=facts["calibration"],
        num_bytes=sum(file.stat().st_size for file in path.glob("*.safetensors")),
    )


def kept_schema(schemas: Sequence[pa.Schema | None], names: Sequence[str]) -> pa.Schema:
    """Return the types of kept columns: Parquet's own where all files have a common one, else text.

    Args:
        schemas: of each file; None for JSON Lines, whose values are always kept as text.
        names: columns to keep.
    """
    return pa.schema([(name, _common_type(schemas, name)) for name in names])


def _common_type(schemas: Sequence[pa.Schema | None], name: str) -> pa.DataType:
    parts = [pa.schema([schema.field(name)]) for schema in schemas if schema and name in schema.names]
    if None in schemas or not parts:
        return pa.string()
    try:
        kind = pa.unify_schemas(parts, promote_options="permissive").field(name).type
    except pa.ArrowException:
        return pa.string()
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.string() if pa.types.is_null(kind) else kind
