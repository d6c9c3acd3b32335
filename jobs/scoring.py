"""Scoring actors: one model replica each, with every configuration's clauses encoded once."""

from __future__ import annotations

import json
import os
import time
import warnings
from typing import TYPE_CHECKING

import pyarrow as pa

from csrm.errors import CheckpointError
from csrm.matrix import scores_to_arrow
from jobs.columns import Work, join_scores
from jobs.isolation import Notes, Part, Watchdog, isolate
from jobs.job import Job
from jobs.local_copies import local_model
from jobs.metrics import observe
from jobs.tables import from_bytes, to_bytes

if TYPE_CHECKING:
    from csrm.configurations import Configuration
    from csrm.encoding import EncodedConversations
    from csrm.engine import Columns

__all__ = ["Scorer"]


class Scorer:
    """Scores encoded shards."""

    def __init__(self, job: Job, num_threads: int):
        # oneDNN keeps what it compiled for every shape of batch, and a corpus has thousands of them: memory would
        # creep up. The shapes of one batch are a handful.
        for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
            os.environ.setdefault(name, "64")
        import torch

        from csrm import CSRM

        torch.set_num_threads(num_threads)
        self.job = job
        started = time.monotonic()
        with local_model(job.model.path) as folder:
            self.model = CSRM.from_pretrained(folder)
        observe("csrm_model_load_seconds", time.monotonic() - started)
        if (self.model.fingerprint, self.model.calibration) != (job.model.fingerprint, job.model.calibration):
            raise CheckpointError(f"{job.model.path}: changed while the job started; run it again")
        self.watchdog = Watchdog(job.options.batch_timeout_s)
        self.warnings: list[str] = []
        self.prepared: dict[tuple[str, ...] | None, Columns] = {}

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Replace a shard's token ids by its scores. The batch is one row, which is one shard."""
        from csrm.encoding import EncodedConversations

        started = time.time()
        if batch.column("lost")[0].is_valid:
            return self._passed_on(batch, started, None, {})
        observe("csrm_queue_wait_seconds", started - batch.column("read_at")[0].as_py())
        encoded = EncodedConversations.from_arrow(from_bytes(batch.column("encoded")[0].as_buffer()))
        work = Work.from_row(json.loads(batch.column("work")[0].as_py()))
        scores, failed = self.score_apart(encoded, work)
        observe("csrm_batch_seconds", time.time() - started)
        return self._passed_on(batch, started, scores, failed)

    def _passed_on(self, batch: pa.Table, started: float, scores: pa.Table | None, failed: dict[int, str]) -> pa.Table:
        return (
            batch.select(["work", "rows", "lost"])
            .append_column("scores", pa.array([scores if scores is None else to_bytes(scores)], pa.large_binary()))
            .append_column("failed", pa.array([json.dumps(failed)]))
            .append_column("started", pa.array([started]))
            .append_column("warnings", pa.array([self.warnings], pa.list_(pa.string())))
        )

    def score_apart(self, encoded: EncodedConversations, work: Work) -> tuple[pa.Table, dict[int, str]]:
        """Scores of a shard's records, null for those that cannot be scored; and why these cannot."""
        from csrm.encoding import EncodedConversations

        table = encoded.to_arrow()
        self._columns(work.score)

        def score(start: int, end: int) -> pa.Table:
            return pa.table(self.score(EncodedConversations.from_arrow(table.slice(start, end - start)), work.score))

        notes = Notes(self.job.target, work.shard.id, self.job.generation)
        parts, failed = isolate(score, len(table), notes, self.watchdog)
        names, explain = list(work.score), self.job.options.explain
        blank = [Part(record, record + 1, join_scores(1, names, explain=explain)) for record in failed]
        ordered = sorted(parts + blank, key=lambda part: part.start)
        return pa.concat_tables(
            join_scores(len(part.scores), names, part.scores, explain=explain) for part in ordered
        ), failed

    def score(self, encoded: EncodedConversations, names: tuple[str, ...] | None = None) -> dict[str, pa.StructArray]:
        """Return score columns of the matrix: in each a struct with a field per configuration.

        Args:
            encoded: conversations.
            names: ids of the configurations to score under; None is all of the job's.
        """
        options = self.job.options
        configurations = self._configurations(names)
        scores = self.model.score_encoded(
            encoded,
            self._columns(names),
            batch_tokens=options.batch_tokens,
            explain=options.explain,
            on_batch=self.watchdog.alive,
        )
        categories = [[clause.category for clause in configuration.clauses] for configuration in configurations]
        return scores_to_arrow(scores, [configuration.id for configuration in configurations], categories)

    def _configurations(self, names: tuple[str, ...] | None) -> list[Configuration]:
        return [c for c in self.job.configurations if names is None or c.id in names]

    def _columns(self, names: tuple[str, ...] | None) -> Columns:
        """Clauses of some configurations, encoded once; shards mostly ask for the same ones."""
        if names not in self.prepared:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", UserWarning)
                self.prepared[names] = self.model.prepare(self._configurations(names))
            self.warnings += [str(warning.message) for warning in caught]
        return self.prepared[names]
