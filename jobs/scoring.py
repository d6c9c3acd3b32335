"""Scoring actors: one model replica each, with every configuration's clauses encoded once."""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING

import pyarrow as pa

from csrm.errors import CheckpointError
from csrm.matrix import scores_to_arrow
from jobs.job import Job
from jobs.tables import from_bytes, to_bytes

if TYPE_CHECKING:
    from csrm.encoding import EncodedConversations

__all__ = ["Scorer"]


class Scorer:
    """Scores encoded shards."""

    def __init__(self, job: Job, num_threads: int):
        import torch

        from csrm import CSRM

        torch.set_num_threads(num_threads)
        self.job = job
        self.model = CSRM.from_pretrained(job.model.path)
        if (self.model.fingerprint, self.model.calibration) != (job.model.fingerprint, job.model.calibration):
            raise CheckpointError(f"{job.model.path}: changed while the job started; run it again")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            self.columns = self.model.prepare(job.configurations)
        self.warnings = [str(warning.message) for warning in caught]

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Replace a shard's token ids by its scores. The batch is one row, which is one shard."""
        from csrm.encoding import EncodedConversations

        started = time.time()
        encoded = EncodedConversations.from_arrow(from_bytes(batch.column("encoded")[0].as_buffer()))
        scores = to_bytes(pa.table(self.score(encoded)))
        return (
            batch.select(["shard", "rows"])
            .append_column("scores", pa.array([scores], pa.large_binary()))
            .append_column("started", pa.array([started]))
            .append_column("warnings", pa.array([self.warnings], pa.list_(pa.string())))
        )

    def score(self, encoded: EncodedConversations) -> dict[str, pa.StructArray]:
        """Return the score columns of the matrix: a struct with one field per configuration in each."""
        options, configurations = self.job.options, self.job.configurations
        scores = self.model.score_encoded(
            encoded, self.columns, batch_tokens=options.batch_tokens, explain=options.explain
        )
        categories = [[clause.category for clause in configuration.clauses] for configuration in configurations]
        return scores_to_arrow(scores, [configuration.id for configuration in configurations], categories)
