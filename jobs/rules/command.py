"""`csrm rules`: the group, and `csrm rules rate`, which is `csrm score` with a column for each rule."""

from __future__ import annotations

from typing import Any

import click

from jobs.places import Place
from jobs.rules.select import select
from jobs.rules.train_adapter import train_adapter
from jobs.score import score

__all__ = ["rate", "rules"]

OWN = frozenset({"configurations", "by_clause", "explain"})
"""Options of `csrm score` that rating settles by itself."""


@click.group(name="rules")
def rules() -> None:
    """Rate on safety rules, choose the few that matter for a pair of replies, and label pairs with them.

    After RuleAdapter (arXiv 2501.15453): rate every reply on a pool of rules, which is one pass here; let the rules
    with the largest relevance and discrepancy decide which reply of a pair is safer; train on these labels.

    \b
    Example:
      csrm rules rate pairs.jsonl --output runs/rated
      csrm rules select runs/rated --output labels.parquet
      csrm train --data rules.jsonl.gz --preferences labels.parquet --backbone all-MiniLM-L6-v2/ --output my-model
    """


def rate_all(rules: str | None, **settings: Any) -> None:
    """Rate INPUT on every rule of a pool: csrm score with a column for each rule.

    The bundled pool has 100 rules on content and conduct; --rules takes any safety configurations, whose clauses are
    then the rules. All that is said of csrm score holds here: a rerun resumes, further rules add columns.

    \b
    Examples:
      csrm rules rate pairs.jsonl --output runs/rated
      csrm rules rate s3://lake/pairs/ --rules policies/ --output s3://lake/rated --keep-columns category --num-gpus 4
    """
    from csrm.rules import POOL

    assert score.callback is not None
    score.callback(configurations=rules or str(POOL), by_clause=True, explain=False, **settings)


pool_option = click.Option(
    ["--rules"], type=Place(), metavar="PATH", help="Configurations whose clauses are rules.  [default: 100 of our own]"
)
rate = click.Command(
    "rate",
    callback=rate_all,
    help=rate_all.__doc__,
    params=[score.params[0], pool_option, *(one for one in score.params[1:] if one.name not in OWN)],
)
rules.add_command(rate)
rules.add_command(select)
rules.add_command(train_adapter)
