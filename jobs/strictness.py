"""`csrm strictness`: pairs of a strict and a lenient guideline that a judge agrees on, for `csrm train`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import numpy as np

    from csrm.endpoint import EndpointProposer, Subcategory
    from csrm.labelled import LabelledRow
    from csrm.messages import Message
    from csrm.model import CSRM
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
@click.option(
    "--extend-url",
    metavar="URL",
    help="OpenAI-compatible server that names the sub-categories that ladders lack and is sent the conversations that "
    "no sub-category covers; its key is read from OPENAI_API_KEY.",
)
@click.option("--extend-model", metavar="NAME", help="The model's name on that server.")
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
    extend_url: str | None,
    extend_model: str | None,
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
    from csrm.endpoint import EndpointProposer
    from csrm.strictness import load_ladders, report, save_pairs
    from jobs.train_data import named_endpoint

    endpoint = named_endpoint(extend_url, extend_model, "--extend")
    asked = EndpointProposer(endpoint) if endpoint else None
    known, rng = load_ladders(ladders), np.random.default_rng(seed)
    rows = [row for entry in data for row in read_rows(entry)]
    judge = csrm.CSRM.from_pretrained(model, dtype=dtype)
    reports = []
    for ladder in known:
        conversations = draw(violating(rows, ladder), max_conversations, rng)
        click.echo(f"{ladder.category}: {len(conversations)} conversations", err=True)
        if asked:
            ladder = longer(ladder, asked, judge, conversations, rng, wordings)
        found = report(judge, conversations, ladder, rng, alpha=alpha, bound=bound, num_wordings=wordings)
        reports.append(found.unfiltered() if unfiltered else found)
    if asked and asked.num_unanswered:
        click.echo(f"{asked.num_unanswered} of {asked.counts.num_asked} questions without answer", err=True)
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


def longer(
    ladder: Ladder,
    asked: EndpointProposer,
    judge: CSRM,
    conversations: Sequence[list[Message]],
    rng: np.random.Generator,
    num_wordings: int,
) -> Ladder:
    """The ladder with what an endpoint names for the conversations that it does not cover; says what that is.

    Raises:
        EndpointError: the endpoint refuses us for good, or has answered nothing.
    """
    from csrm.strictness import extend

    def propose(ladder: Ladder, left: Sequence[list[Message]]) -> list[Subcategory]:
        return asked.propose_for_ladder(ladder, left, seed=int(rng.integers(2**31)))

    extended = extend(ladder, judge, conversations, propose, rng, num_wordings=num_wordings)
    asked.require_answers()
    new = [phrase for phrase in extended.subcategories if phrase not in ladder.subcategories]
    click.echo(f"{ladder.category}: sub-categories added: {', '.join(new) or 'none'}", err=True)
    return extended


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
