"""`csrm report`: what a matrix says, and whether it keeps the limits of a nightly job."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from jobs.places import Place, date_option, endpoint_option
from jobs.score import split_names

if TYPE_CHECKING:
    from jobs.matrix import Matrix
    from jobs.report.findings import Findings
    from jobs.report.gates import Gate, Limits

__all__ = ["report"]

GATE_EXIT = 3


@click.command()
@click.argument("location", type=Place(), metavar="MATRIX")
@click.option("-b", "--baseline", type=Place(), metavar="MATRIX", help="Another matrix to compare with: yesterday's.")
@click.option("-o", "--output", type=Place(), metavar="FILE", help="Write an HTML page, local or s3://.")
@click.option("--by", callback=split_names, metavar="A,B", help="Columns to group by, beside partition folders.")
@click.option(
    "--worst",
    type=click.IntRange(0, 1000),
    default=10,
    show_default=True,
    metavar="N",
    help="Records of each configuration whose texts the page shows; 0 keeps texts out of it.",
)
@click.option(
    "--max-violation-rate",
    "rates",
    multiple=True,
    metavar="[ID=]RATE",
    help="Exit with 3 where more rows violate the configuration (or any). Repeatable.",
)
@click.option("--max-drift", type=click.FloatRange(0), metavar="PSI", help="Exit with 3 where p_safe has moved more.")
@click.option(
    "--max-error-rate", type=click.FloatRange(0, 1), metavar="R", help="Exit with 3 where more have no scores."
)
@date_option
@endpoint_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def report(
    location: str,
    baseline: str | None,
    output: str | None,
    by: tuple[str, ...],
    worst: int,
    rates: tuple[str, ...],
    max_drift: float | None,
    max_error_rate: float | None,
    as_json: bool,
) -> None:
    """Sum up what `csrm score` wrote to MATRIX, in the terminal and, with --output, as one HTML file.

    Per configuration: rate of violations with its 95 % interval, mean p_safe, the partitions where it is worst, and
    against a baseline the change of the rate and the drift of p_safe (population stability index). The page has
    histograms, what is violated together, the clauses violated most, and the worst records.

    Limits make it a gate: the exit code is 3, with a line for each limit that is not kept.

    Of a file that csrm rules select wrote, it shows which rules decide most, with --by per value of a column.

    \b
    Examples:
      csrm report runs/chats
      csrm report runs/chats --output report.html --by lang
      csrm report runs/tonight --baseline runs/last-night --max-violation-rate children_app=0.02 --max-drift 0.2
      csrm report 'runs/{date}' --baseline 'runs/{date-7}' --date yesterday
      csrm report labels.parquet --by category
    """
    from jobs.report.gates import Limits, read_rates

    try:
        limits = Limits(violation_rates=read_rates(rates), drift=max_drift, error_rate=max_error_rate)
    except ValueError as error:
        raise click.UsageError(f"--max-violation-rate {error}") from None
    if location.lower().endswith(".parquet"):
        if baseline or output or rates or max_drift is not None or max_error_rate is not None:
            raise click.UsageError("labelled pairs have no page, baseline or limits; these are of matrices")
        _report_rules(location, by, as_json)
        return
    if max_drift is not None and baseline is None:
        raise click.UsageError("--max-drift compares with a --baseline; give one")
    gates = _report(location, baseline, output, by, worst, limits, as_json)
    failed = [gate for gate in gates if not gate.is_passed]
    for gate in failed:
        click.echo(gate.text, err=True)
    if failed:
        raise click.exceptions.Exit(GATE_EXIT)


def _report_rules(location: str, by: tuple[str, ...], as_json: bool) -> None:
    from rich.console import Console

    from jobs.report.rules import find_rules, show_rules

    findings = find_rules(location, by)
    if as_json:
        click.echo(json.dumps({"labels": location, **findings.to_json()}, ensure_ascii=False))
    else:
        show_rules(findings, Console())


def _report(
    location: str,
    baseline: str | None,
    output: str | None,
    by: tuple[str, ...],
    worst: int,
    limits: Limits,
    as_json: bool,
) -> list[Gate]:
    """Count, print and write; return the gates."""
    from rich.console import Console

    from jobs.matrix import Matrix
    from jobs.report.counting import columns_to_group_by, count_matrix
    from jobs.report.findings import find
    from jobs.report.gates import check_names, judge
    from jobs.report.page import render
    from jobs.report.records import worst_records
    from jobs.report.terminal import show
    from jobs.storage import publish_file

    matrix, before = Matrix.open(location), Matrix.open(baseline) if baseline else None
    configurations = matrix.configurations
    check_names(limits, [one.id for one in configurations], [one.id for one in before.configurations] if before else ())
    if output:
        matrix.refuse_as_output(output)
    columns = columns_to_group_by(matrix, by)
    with Console(stderr=True).status(f"reading {len(matrix.shards):,} shards"):
        counts = count_matrix(matrix, configurations, columns, worst if output else 0)
        old = count_matrix(before, configurations) if before else None
        findings = find(matrix, counts, before, old)
    gates = judge(findings, limits)
    if output:
        texts = worst_records(matrix, [one.id for one in configurations], counts.worst)
        publish_file(render(matrix, before, findings, gates, texts, datetime.now(UTC)), output)
    if as_json:
        click.echo(json.dumps(_as_json(matrix, before, findings, gates), ensure_ascii=False))
    else:
        show(findings, Console())
        if output:
            click.echo(f"page: {output}", err=True)
    return gates


def _as_json(matrix: Matrix, baseline: Matrix | None, findings: Findings, gates: list[Gate]) -> dict[str, Any]:
    from jobs.report.findings import plain

    return {
        "matrix": matrix.folder.url,
        "baseline": baseline and baseline.folder.url,
        **plain(findings),
        "gates": [plain(gate) | {"passed": gate.is_passed} for gate in gates],
    }
