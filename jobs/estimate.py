"""What a run would cost, from a plan and a short measurement in this process."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from csrm.encoding import EncodedConversations, Encoder
from jobs.columns import Work
from jobs.job import Job
from jobs.local_copies import local_model
from jobs.progress import clock_time
from jobs.reading import encode_records, read_pass
from jobs.scoring import Scorer
from jobs.shards import Plan, Shard
from jobs.summary import printable, say

__all__ = ["Estimate", "estimate", "sample_shards", "show_estimate"]

SAMPLE_SHARDS = 4
SAMPLE_ROWS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a sample says of the whole."""

    tokens_per_record: float
    tokens_per_s: float
    """Of one replica in this process, under all configurations."""
    warnings: list[str]
    """What the model had to say of the configurations."""


def sample_shards(shards: Sequence[Shard]) -> list[Shard]:
    """Return the first rows of a few shards, spread over the input."""
    step = max(1, len(shards) // SAMPLE_SHARDS)
    return [replace(shard, num_rows=min(shard.num_rows, SAMPLE_ROWS)) for shard in shards[::step][:SAMPLE_SHARDS]]


def estimate(shards: Sequence[Shard], job: Job) -> Estimate:
    """Read, encode and score a sample of the records."""
    import torch

    with local_model(job.model.path) as folder:
        encoder = Encoder.from_pretrained(folder)
    num_records, parts = 0, []
    for shard in sample_shards(shards):
        [records] = read_pass([shard], job.options)
        _, encoded = encode_records(shard, records, job, encoder)
        parts.append(encoded.to_arrow())
        num_records += shard.num_rows
    sample = EncodedConversations.from_arrow(pa.concat_tables(parts))
    scorer = Scorer(job, torch.get_num_threads())
    scorer.score(EncodedConversations.from_arrow(parts[0]))  # warms up
    started = time.perf_counter()
    scorer.score(sample)
    seconds = time.perf_counter() - started
    num_tokens = int(sample.num_tokens_per_record.sum())
    return Estimate(
        tokens_per_record=num_tokens / num_records,
        tokens_per_s=num_tokens / seconds,
        warnings=scorer.warnings,
    )


def show_estimate(
    found: Estimate | None,
    plan: Plan,
    pending: Sequence[Work],
    reasons: Mapping[str, Mapping[str, int]],
    job: Job,
    console: Console,
) -> None:
    """Print what a run would read and do, and why.

    Args:
        found: of the sample; None with nothing to score.
        plan: the input.
        pending: what is to be done.
        reasons: of `jobs.columns.reasons`.
        job: the run.
        console: where to.
    """
    num_records = sum(work.shard.num_rows for work in pending)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column()
    table.add_row("files", f"{len({shard.source for shard in plan.shards}):,}")
    table.add_row("shards", f"{len(plan.shards):,}")
    table.add_row("  already scored", f"{len(plan.shards) - len(pending):,}")
    table.add_row("records to score", f"{num_records:,}")
    table.add_row("configurations", f"{len(job.configurations):,}")
    table.add_row("cells to score", f"{sum(work.shard.num_rows * len(work.score) for work in pending):,}")
    for name, why in reasons.items():
        for reason, number in why.items():
            table.add_row(f"  {name}", f"{number:,}", reason)
    if found:
        tokens = num_records * found.tokens_per_record
        table.add_row("tokens (estimate)", f"{tokens:,.0f}")
        table.add_row("tokens/s (measured)", f"{found.tokens_per_s:,.0f}")
        table.add_row("time on this machine (estimate)", clock_time(tokens / max(found.tokens_per_s, 1e-9)))
    console.print(table)
    for warning in found.warnings if found else []:
        say(console, f"warning: {printable(warning, 500)}")
