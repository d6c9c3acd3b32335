"""`csrm configurations`: what is wrong with policies, how they are read, and what changed between two versions."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from csrm.configurations import Clause
    from csrm.policies.differences import Difference

__all__ = ["configurations"]

MODEL = click.option(
    "-m", "--model", type=click.Path(), metavar="DIR", help="Model folder.  [default: the embedded csrm-mini]"
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
SHOWN_CHARACTERS = 200


@click.group()
def configurations() -> None:
    """Check, show and compare safety configurations.

    \b
    Examples:
      csrm configurations lint policies/
      csrm configurations show policies/children_app.md
      csrm configurations diff policies-2025/ policies/
    """


@configurations.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(), metavar="PATH...")
@MODEL
@click.option("--strict", is_flag=True, help="Exit with 1 for warnings too.")
@JSON
def lint(paths: tuple[str, ...], model: str | None, strict: bool, as_json: bool) -> None:
    """Check policies before anything is scored under them.

    Errors are what `csrm score` refuses. Warnings are clauses that are too long, repeated or said twice in other words,
    and policies that forbid nothing. The exit code is 1 where there are errors.

    \b
    Example:
      csrm configurations lint policies/
    """
    from rich.console import Console

    from csrm import CSRM
    from csrm.configurations import policy_files
    from csrm.policies import lint as checks
    from csrm.training.trainer import clause_vectors
    from jobs.summary import say

    loaded, findings = checks.read_files([file for path in paths for file in policy_files(Path(path))])
    judge = CSRM.from_pretrained(model)
    limit, count = judge.encoder.limits.max_clause_tokens, judge.encoder.count_clause_tokens
    findings += checks.lint(loaded, limit, count, lambda clauses: clause_vectors(judge, clauses))
    num_errors = sum(finding.level == "error" for finding in findings)
    out = Console(soft_wrap=True)
    if as_json:
        click.echo(json.dumps([finding._asdict() for finding in findings], ensure_ascii=False))
    else:
        for level, place, message in findings:
            say(out, f"{level}: {place}: {message}")
        say(out, f"{len(loaded)} configurations · {num_errors} errors · {len(findings) - num_errors} warnings")
    if num_errors or (strict and findings):
        raise click.exceptions.Exit(1)


@configurations.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(), metavar="PATH...")
@MODEL
@JSON
def show(paths: tuple[str, ...], model: str | None, as_json: bool) -> None:
    """Show how policies are read: which clauses a text became, with the tokens of each.

    \b
    Example:
      csrm configurations show policies/children_app.md
    """
    from rich.console import Console

    import csrm
    from jobs.summary import say

    count = csrm.Encoder.from_pretrained(model).count_clause_tokens
    loaded = csrm.load_configurations(paths)
    if as_json:
        click.echo(json.dumps([_described(one, count) for one in loaded], ensure_ascii=False))
        return
    out = Console()
    for one in loaded:
        described = _described(one, count)
        say(
            out,
            f"{one.id}: {one.title} · threshold {one.threshold:g} · {described['num_tokens']:,} tokens · {one.source}",
        )
        if one.context:
            say(out, f"  context: {one.context}")
        out.print(_clause_table(described["clauses"]))


def _described(configuration: Any, count: Any) -> dict[str, Any]:
    clauses = [{**asdict(clause), "num_tokens": count(clause.text)} for clause in configuration.clauses]
    return {
        **asdict(configuration),
        "fingerprint": configuration.fingerprint,
        "num_tokens": sum(clause["num_tokens"] for clause in clauses),
        "clauses": clauses,
    }


def _clause_table(clauses: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    from jobs.summary import printable

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name, settings in (
        ("", {"justify": "right"}),
        ("category", {}),
        ("guideline", {}),
        ("tokens", {"justify": "right"}),
    ):
        table.add_column(name, **settings)
    for number, clause in enumerate(clauses, start=1):
        category, guideline = (printable(clause[key], SHOWN_CHARACTERS) for key in ("category", "guideline"))
        table.add_row(str(number), category, guideline, str(clause["num_tokens"]))
    return table


@configurations.command()
@click.argument("old", type=click.Path())
@click.argument("new", type=click.Path())
@JSON
def diff(old: str, new: str, as_json: bool) -> None:
    """Compare two versions of policies: which clauses changed, and which columns `csrm score` would redo.

    \b
    Example:
      csrm configurations diff policies-2025/ policies/
    """
    from rich.console import Console

    import csrm
    from csrm.policies.differences import differences
    from jobs.summary import say

    found = differences(csrm.load_configurations(old), csrm.load_configurations(new))
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found], ensure_ascii=False))
        return
    out = Console(soft_wrap=True)
    for line in (line for one in found for line in _told(one)):
        say(out, line)
    anew = [one.id for one in found if one.is_scored_anew]
    say(out, f"columns that csrm score would score anew: {', '.join(anew) or 'none'}")


def _told(difference: Difference) -> list[str]:
    """A difference in lines as `diff` writes them."""
    if difference.status == "same":
        return []
    lines = [f"{difference.id}: {difference.status}"]
    for name in ("title", "threshold", "context"):
        if pair := getattr(difference, name):
            lines.append(f"  {name}: {pair[0] or 'none'} → {pair[1] or 'none'}")
    lines += [f"  - {_text(clause)}" for clause in difference.removed]
    lines += [f"  + {_text(clause)}" for clause in difference.added]
    for before, after in difference.reworded:
        lines += [f"  ~ {_text(before)}", f"    {_text(after)}"]
    return lines


def _text(clause: Clause) -> str:
    return clause.text if len(clause.text) <= SHOWN_CHARACTERS else f"{clause.text[:SHOWN_CHARACTERS]}…"
