"""`csrm strictness`: pairs of a strict and a lenient guideline that a judge agrees on, for `csrm train`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import numpy as np

    from csrm.labelled import LabelledRow
    from csrm.messages import Message
    from csrm.strictness import Ladder, LadderReport

__all__ = ["strictness"]


@click.command(
    epilog="\b\nExample:\n  csrm strictness --data rules.jsonl.gz --output pairs.json",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--data", multiple=True, required=True, help="Labelled rows, JSON Lines; PATH@SHARE leaves that share out."
)
@click.option("--model", type=click.Path(), default=None, help="Judge: model folder (default: the embedded csrm-mini).")
@click.option("--output", required=True, type=click.Path(dir_okay=False), help="JSON file of pairs to write.")
@click.option("--ladders", type=click.Path(), default=None, help="YAML file of ladders (default: the bundled library).")
@click.option(
    "--max-conversations", default=300, show_default=True, type=click.IntRange(1), help="Conversations per ladder."
)
@click.option(
    "--wordings", default=16, show_default=True, type=click.IntRange(1), help="Wordings of each guideline to average."
)
@click.option(
    "--alpha",
    default=0.05,
    show_default=True,
    type=click.FloatRange(0, 1, True, True),
    help="One minus the confidence.",
)
@click.option(
    "--bound", default=0.95, show_default=True, type=click.FloatRange(0, 1), help="What dominance must exceed."
)
@click.option("--unfiltered", is_flag=True, help="Keep every pair; for a first model, without a judge.")
@click.option("--dtype", default="auto", show_default=True, help="auto, float32 or bfloat16.")
@click.option("--seed", default=0, show_default=True, help="Seeds the conversations and wordings drawn.")
def strictness(
    data: tuple[str, ...],
    model: str | None,
    output: str,
    ladders: str | None,
    max_conversations: int,
    wordings: int,
    alpha: float,
    bound: float,
    unfiltered: bool,
    dtype: str,
    seed: int,
) -> None:
    """Find pairs of guidelines of which one is surely stricter.

    Each category's sub-categories, in order of severity, give guidelines that forbid the k worst and allow the rest.
    The judge reads conversations that violate the category under all of them. A pair is kept if what is unsafe under
    its lenient guideline is unsafe under its strict one too, with confidence: at least 59 conversations.
    """
    import numpy as np

    import csrm
    from csrm.strictness import load_ladders, report, save_pairs

    known, rng = load_ladders(ladders), np.random.default_rng(seed)
    rows = [row for entry in data for row in read_rows(entry)]
    judge = csrm.CSRM.from_pretrained(model, dtype=dtype)
    reports = []
    for ladder in known:
        conversations = draw(violating(rows, ladder), max_conversations, rng)
        click.echo(f"{ladder.category}: {len(conversations)} conversations", err=True)
        found = report(judge, conversations, ladder, rng, alpha=alpha, bound=bound, num_wordings=wordings)
        reports.append(found.unfiltered() if unfiltered else found)
    save_pairs(output, reports, judge, alpha=alpha, bound=bound, filtered=not unfiltered)
    show(reports)
    click.echo(f"{sum(len(each.kept) for each in reports)} pairs kept · judge {judge.name} · {output}")


def read_rows(entry: str) -> list[LabelledRow]:
    """Rows of PATH, or of PATH@SHARE without the share that `csrm train` keeps out."""
    from csrm.labelled import holdout, read_labelled
    from jobs.train_data import split_share

    path, share = split_share(entry)
    return holdout(read_labelled(path), share or 0.0)[0]


def violating(rows: Sequence[LabelledRow], ladder: Ladder) -> list[list[Message]]:
    """Distinct conversations that violate a clause of the ladder's category."""
    matched = {category: ladder.matches(category) for category in {c.category for row in rows for c in row.clauses}}
    found = [
        row.conversation
        for row in rows
        if any(bad and matched[clause.category] for clause, bad in zip(row.clauses, row.violated, strict=True))
    ]
    return list({tuple(conversation): conversation for conversation in found}.values())


def draw(conversations: list[list[Message]], number: int, rng: np.random.Generator) -> list[list[Message]]:
    """At most `number` of the conversations, drawn without replacement."""
    chosen = rng.permutation(len(conversations))[:number]
    return [conversations[i] for i in sorted(chosen.tolist())]


_COLUMNS = (
    "texts",
    "pairs\ntested",
    "enough\ntexts",
    "kept",
    "steps\nin order",
    "texts\nin order",
    "moved",
    "un-\ncovered",
)
"""Conversations; pairs with n > 0, with n that could pass, and kept; then the shares of `LadderReport`."""


def show(reports: Sequence[LadderReport]) -> None:
    """Print one line per ladder."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("category", min_width=12, overflow="fold")
    for name in _COLUMNS:
        table.add_column(name, justify="right")
    for each in reports:
        counts = (each.num_conversations, each.num_tested, each.num_enough, len(each.kept))
        shares = (each.adjacent_share, each.monotone_share, each.moved_share, each.uncovered_share)
        table.add_row(Text(each.ladder.category), *map(str, counts), *map(_percent, shares))
    Console().print(table)


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{share:.1%}"
