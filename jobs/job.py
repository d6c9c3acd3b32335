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
from jobs.local_copies import is_url, read_remote_facts
from jobs.options import ScoreOptions
from jobs.storage import Folder

if TYPE_CHECKING:
    from csrm.configurations import Configuration

__all__ = ["Column", "Job", "ModelFacts", "kept_schema", "read_model_facts"]

FORMAT = 2
"""Of commit records and matrix files."""

Column = dict[str, Any]
"""What a column was scored by; see `Job.columns`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What a model folder says of itself, without its weights."""

    path: str
    """Of its folder: an absolute local path, or a URL."""
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
    others: tuple[str, ...] = ()
    """Configurations that the matrix has columns of and that are not this job's; rows that it adds have no scores
    under them."""
    generation: int | None = None
    """Of the lock that this job holds; None without one."""

    @property
    def identity(self) -> dict[str, Any]:
        """What a shard's rows depend on besides the input file, scores aside: a matrix has rows of one kind."""
        options = self.options
        return {
            "format": FORMAT,
            "input": self.input_root,
            "options": {
                "columns": asdict(options.columns),
                "id_column": options.id_column,
                "keep_columns": list(options.keep_columns),
                "partition_by": list(options.partition_by),
            },
            "types of kept columns": {field.name: str(field.type) for field in self.kept},
        }

    @property
    def columns(self) -> dict[str, Column]:
        """What the scores under each configuration depend on besides the rows: a column of the same is current."""
        return {
            c.id: {
                "configuration": c.fingerprint,
                "model": self.model.fingerprint,
                "calibration": self.model.calibration.of(c.fingerprint).fingerprint,
                "explain": self.options.explain,
            }
            for c in self.configurations
        }


def read_model_facts(folder: str | None) -> ModelFacts:
    """Read `csrm.json` of a model folder (None: the embedded model); a driver needs no more of a model.

    Raises:
        CheckpointError: The folder is missing or not a CSRM.
        InputError: The object store cannot be read.
    """
    if folder is not None and is_url(folder):
        path, facts, num_bytes = read_remote_facts(folder)
    else:
        local, facts = read_facts(folder)
        path, num_bytes = str(local.absolute()), sum(file.stat().st_size for file in local.glob("*.safetensors"))
    return ModelFacts(
        path=path,
        name=facts["name"],
        fingerprint=facts["fingerprint"],
        calibration=facts["calibration"],
        num_bytes=num_bytes,
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
