"""Settings of a scoring run, checked when they are made and written to the run's manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from csrm.conversations import RecordColumns

__all__ = ["OUTPUT_COLUMNS", "RECORD_COLUMNS", "ScoreOptions"]

OUTPUT_COLUMNS = (
    "record_id",
    "source",
    "row",
    "num_tokens",
    "num_windows",
    "error",
    "reward",
    "p_safe",
    "worst_clause",
)
"""Columns that every matrix has of itself (`worst_clause` with `explain`)."""

RECORD_COLUMNS = (
    *("chosen", "rejected", "prompt", "response", "completion", "text"),
    *("messages", "conversations", "conversation"),
)
"""Columns in which a conversation may be recognised; of Parquet, only these and named ones are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreOptions:
    """What to score, under what, to where."""

    input: str
    """File, folder or glob of conversations, local or `s3://`."""
    configurations: str
    """File or folder of safety configurations."""
    output: str
    """Folder that the matrix is written to, local or `s3://`."""
    by_clause: bool = False
    """Whether each of their clauses has a column of its own, in place of each configuration."""
    model: str | None = None
    """Model folder; None is the embedded model."""
    columns: RecordColumns = field(default_factory=RecordColumns)
    """Where a record keeps its conversation; by default recognised by the columns' names."""
    id_column: str | None = None
    """Column that names a record; by default file and row number do."""
    keep_columns: tuple[str, ...] = ()
    """Input columns that the matrix carries along."""
    partition_by: tuple[str, ...] = ()
    """Input columns whose values become hive-style folders, outermost first."""
    explain: bool = False
    """Whether to name each cell's most violated clause."""
    limit: int | None = None
    """Score this many records from the start of the input; None is all."""
    num_actors: int | None = None
    """Model replicas; None takes one per GPU, else as many as the cores feed."""
    num_gpus: int | None = None
    """GPUs to bring up first, on a cluster that has them come and go; None uses those that are up."""
    batch_tokens: int | None = None
    """Tokens in one forward pass; None leaves it to the engine."""
    shard_rows: int | None = None
    """Most records in a shard, the unit of work, of commit and of resume; None lets the input's size decide."""
    max_error_rate: float = 0.01
    """Share of records without scores above which the run counts as failed."""
    batch_timeout_s: float | None = None
    """Longest time of one forward pass, in seconds; a record that takes longer alone gets no scores. None: any."""
    overwrite: bool = False
    """Whether to replace a matrix of another input or with other options."""
    prune: bool = False
    """Whether to drop columns of configurations that are not given."""

    def __post_init__(self) -> None:
        for name in ("input", "configurations", "output"):
            if not getattr(self, name):
                raise ValueError(f"{name} must not be empty")
        for name in ("limit", "num_actors", "num_gpus", "batch_tokens", "shard_rows"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.batch_timeout_s is not None and self.batch_timeout_s <= 0:
            raise ValueError(f"batch_timeout_s must be above 0, got {self.batch_timeout_s}")
        if not 0 <= self.max_error_rate <= 1:
            raise ValueError(f"max_error_rate must be between 0 and 1, got {self.max_error_rate}")
        self._check_names([*self.keep_columns, *self.partition_by])

    @property
    def conversation_columns(self) -> tuple[str, ...]:
        """Input columns named as holding the conversation."""
        columns = self.columns
        return tuple(n for n in (columns.messages, columns.prompt, columns.response, columns.text) if n)

    @property
    def named_columns(self) -> tuple[str, ...]:
        """Every input column that an option names, each once."""
        names = (*self.conversation_columns, self.id_column, *self.keep_columns, *self.partition_by)
        return tuple(dict.fromkeys(name for name in names if name))

    @staticmethod
    def _check_names(names: Sequence[str]) -> None:
        for name in names:
            if not name:
                raise ValueError("keep_columns and partition_by must not hold an empty name")
            if name in OUTPUT_COLUMNS:
                raise ValueError(f"column {name!r} has the name of one of the matrix's own; rename it in the input")
            if names.count(name) > 1:
                raise ValueError(f"column {name!r} is named twice in keep_columns and partition_by")
