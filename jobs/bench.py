"""`csrm bench`: what a cell costs, against the two ways people score configurations today."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import click
import numpy as np

__all__ = ["bench"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """Settings of a benchmark run."""

    num_records: int
    """Conversations, all of `conversation_tokens` tokens."""
    conversation_tokens: int
    """Tokens of each conversation, special tokens included."""
    clause_tokens: int
    """Tokens of each clause, special tokens included."""
    clauses: int
    """Clauses per configuration."""
    configurations: tuple[int, ...]
    """Numbers of configurations to measure."""
    repeats: int
    """Timed runs of each measurement, after one that is not timed."""
    dtype: str
    """"auto", "float32" or "bfloat16"; the same for every contestant."""
    seed: int
    """Seeds the random token ids."""


@click.command(
    epilog="\b\nExample:\n  csrm bench --configurations 1,64 --repeats 5 > bench.jsonl",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("--model", type=click.Path(), default=None, help="Model folder (default: the embedded csrm-mini).")
@click.option("--num-records", default=32, show_default=True, type=click.IntRange(1), help="Conversations.")
@click.option("--conversation-tokens", default=256, show_default=True, type=click.IntRange(8), help="Tokens each.")
@click.option("--clause-tokens", default=40, show_default=True, type=click.IntRange(4), help="Tokens per clause.")
@click.option("--clauses", default=4, show_default=True, type=click.IntRange(1), help="Clauses per configuration.")
@click.option("--configurations", default="1,4,16,64,256", show_default=True, help="Numbers of configurations.")
@click.option("--repeats", default=5, show_default=True, type=click.IntRange(1), help="Timed runs of each.")
@click.option("--dtype", default="auto", show_default=True, help="auto, float32 or bfloat16.")
@click.option("--seed", default=0, show_default=True, help="Seeds the random tokens.")
def bench(model: str | None, configurations: str, **options: Any) -> None:
    """Measure cells per second of the engine against pairwise and single-sequence scoring.

    All contestants run the same backbone with the same type and threads on the same random tokens; the engine's
    scores are checked against the reference in the same run. Prints a table on standard error and one JSON line
    on standard output.
    """
    try:
        numbers = tuple(int(number) for number in configurations.split(","))
    except ValueError:
        raise click.BadParameter("write numbers with commas, such as 1,4,16", param_hint="--configurations") from None
    settings = BenchOptions(configurations=numbers, **options)
    report = measure(model, settings)
    _print_table(report)
    click.echo(json.dumps(report))


def measure(folder: str | None, options: BenchOptions) -> dict[str, Any]:
    """Run all contestants; returns the report that is printed as JSON."""
    import torch
    import transformers

    import csrm
    from jobs.contestants import Engine, Pairwise, Plain, SingleSequence, check_engine

    model = csrm.CSRM.from_pretrained(folder, dtype=options.dtype)
    difference = check_engine(csrm.CSRM.from_pretrained(folder, dtype="float32"), options)
    rng = np.random.default_rng(options.seed)
    plain = Plain(model, options, rng)
    rows = []
    for number in options.configurations:
        engine = Engine(model, options, rng, number)
        floor, seconds = _timed([plain.run, engine.run], options.repeats)
        row = {
            "num_configurations": number,
            "engine_cells_per_s": options.num_records * number / seconds["median"],
            "engine_plain_passes": seconds["median"] / floor["median"],
            "engine_spread": seconds["spread"],
            "plain_tokens_per_s": options.num_records * options.conversation_tokens / floor["median"],
            "prepare_s": engine.prepare_s,
        }
        for name, contestant in (("pairwise", Pairwise), ("single_sequence", SingleSequence)):
            rival = contestant(model, options, rng, number)
            (cost,) = _timed([rival.run], min(2, options.repeats))
            row[f"{name}_cells_per_s"] = rival.num_cells / cost["median"]
        rows.append(row)
    return {
        "benchmark": "matrix",
        **asdict(options),
        "model": model.name,
        "num_probes": model.layout.num_probes,
        "device": str(model.device),
        "device_name": _device_name(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "versions": {
            "csrm": csrm.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        },
        "max_difference_to_reference": difference,
        "rows": rows,
    }


def _device_name(device: Any) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or str(device)


def _timed(runs: Sequence[Callable[[], None]], repeats: int) -> list[dict[str, float]]:
    """Median seconds and relative spread (max − min over median) of each run, after one warm-up.

    Runs take turns, so that a machine that slows down slows all of them and their ratios stand.
    """
    seconds: list[list[float]] = [[] for _ in runs]
    for turn in range(repeats + 1):
        for run, own in zip(runs, seconds, strict=True):
            started = time.perf_counter()
            run()
            if turn:
                own.append(time.perf_counter() - started)
    medians = [float(np.median(own)) for own in seconds]
    return [{"median": m, "spread": (max(own) - min(own)) / m} for m, own in zip(medians, seconds, strict=True)]


def _print_table(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"{report['model']}, {report['dtype']}, {report['threads']} threads: "
        f"{report['conversation_tokens']}-token conversations, {report['clauses']} clauses of "
        f"{report['clause_tokens']} tokens in each of N configurations"
    )
    for heading in (
        "N",
        "cost in plain passes",
        "cells/s",
        "pairwise cells/s",
        "×",
        "one sequence cells/s",
        "×",
    ):
        table.add_column(heading, justify="right", overflow="fold")
    for row in report["rows"]:
        engine, pairwise = row["engine_cells_per_s"], row["pairwise_cells_per_s"]
        sequence = row["single_sequence_cells_per_s"]
        table.add_row(
            str(row["num_configurations"]),
            f"{row['engine_plain_passes']:.2f}",
            f"{engine:,.0f}",
            f"{pairwise:,.1f}",
            f"{engine / pairwise:,.0f}",
            f"{sequence:,.1f}",
            f"{engine / sequence:,.0f}",
        )
    console = Console(file=sys.stderr)
    console.print(table)
    console.print(
        f"largest difference to the reference (float32, same run): {report['max_difference_to_reference']:.1e}"
    )
