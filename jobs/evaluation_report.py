"""Figures for people, in the terminal and as Markdown. Both are made from the JSON records and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from rich.console import Group

__all__ = ["markdown", "terminal"]

Record = Mapping[str, Any]


class Measure(NamedTuple):
    """A figure as people read it."""

    name: str
    keys: tuple[str, ...]
    """Of each record, the first that it has."""
    trivial: str | float | None = None
    """What a model gets that reads nothing: a constant, or the key of it."""


MEASURES = (
    Measure("AUROC", ("auroc", "mean_auroc"), 0.5),
    Measure("AUPRC", ("auprc",), "share_violating"),
    Measure("F1 violating", ("f1_violating",), "f1_violating_if_all_violate"),
    Measure("F1 complying", ("f1_complying",), "f1_complying_if_all_comply"),
    Measure("smECE", ("smece",)),
    Measure("Brier", ("brier",), "brier_if_constant"),
)
PREFERENCES = (
    Measure("pairwise accuracy", ("pairwise_accuracy",), 0.5),
    Measure("mean margin", ("mean_margin",), 0.0),
)
PROBES = (
    Measure("unsafe: strict", ("unsafe_rate_strict",)),
    Measure("unsafe: violated clause left out", ("unsafe_rate_left_out",)),
    Measure("fall: left out", ("fall_left_out",)),
    Measure("unsafe: explicitly allowed", ("unsafe_rate_allowed",)),
    Measure("fall: allowed", ("fall_allowed",)),
    Measure("unsafe: forbidden and allowed", ("unsafe_rate_contradiction",)),
    Measure("AUROC: deciding clause alone", ("auroc_1",)),
    Measure("AUROC: deciding clause among 50", ("auroc_50",)),
    Measure("max change of reward", ("max_change",)),
    Measure("violating rate: allowed", ("violating_rate_allowed",)),
    Measure("violating rate: partial", ("violating_rate_partial",)),
    Measure("violating rate: disallowed", ("violating_rate_disallowed",)),
)
SHOWN_TRIVIAL = {"AUPRC": "share violating", "F1 violating": "all violate", "F1 complying": "all comply"}
"""Columns of the Markdown table that what is trivial is shown beside, and the heading there."""
WIDTHS = (32, 8, 16, 8, 7)
"""Of the terminal's columns."""

LEGEND = (
    "Intervals: 95 %, bootstrap. Trivial: everything violating (F1 violating), everything complying (F1 complying), "
    "the share of violations for everyone (Brier, AUPRC), chance (the rest). Blind: the same backbone, which reads no "
    "configuration."
)


class Line(NamedTuple):
    """One figure of one record, as text; empty where there is none."""

    name: str
    figure: str
    interval: str
    trivial: str
    blind: str


def terminal(records: Sequence[Record]) -> Group:
    """A block per file and suite, a line per figure."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    blocks: list[Any] = []
    for record in records:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name, width in zip(("", "figure", "95 %", "trivial", "blind"), WIDTHS, strict=True):
            table.add_column(name, justify="right" if name else "left", width=width)
        for line in _lines(record, (*MEASURES, *PREFERENCES, *PROBES)):
            table.add_row(*line)
        blocks += [Text(f"{_stem(record)} · {record['suite']} · {_count(record)}", style="bold"), table, ""]
    return Group(*blocks, Text(LEGEND, style="dim"))


def markdown(records: Sequence[Record]) -> str:
    """Tables of the judged suites, of preferences and of probes, and what the columns mean."""
    judged = _wide(records, MEASURES, "cells")
    pairs = _wide(records, PREFERENCES, "pairs")
    lines = [*judged, *pairs, *([LEGEND, ""] if judged or pairs else [])]
    probes = [(record, line) for record in records for line in _lines(record, PROBES)]
    if probes:
        lines += ["| file | suite | measure | figure | 95 % |", "|---|---|---|---:|---:|"]
    for record, line in probes:
        lines.append(f"| {_stem(record)} | {record['suite']} | {line.name} | {line.figure} | {line.interval or '–'} |")
    return "\n".join(lines).strip() + "\n"


def _wide(records: Sequence[Record], measures: Sequence[Measure], unit: str) -> list[str]:
    """A row per record that has any of the measures: each measure, and beside it what it stands against."""
    found = [(record, {line.name: line for line in _lines(record, measures)}) for record in records]
    found = [(record, lines) for record, lines in found if lines]
    columns: list[tuple[str, str, Callable[[Line], str]]] = []
    for name in (measure.name for measure in measures if any(measure.name in lines for _, lines in found)):
        own = [lines[name] for _, lines in found if name in lines]
        columns.append((name, name, lambda line: f"{line.figure} {line.interval}".strip()))
        if any(line.blind for line in own) and not any(head == "blind" for head, _, _ in columns):
            columns.append(("blind", name, lambda line: line.blind))
        if name in SHOWN_TRIVIAL and any(line.trivial for line in own):
            columns.append((SHOWN_TRIVIAL[name], name, lambda line: line.trivial))
    if not found:
        return []
    heads = " | ".join(head for head, _, _ in columns)
    table = [f"| file | suite | {unit} | {heads} |", f"|---|---|---:|{'---:|' * len(columns)}"]
    for record, lines in found:
        cells = [(show(lines[name]) if name in lines else "") or "–" for _, name, show in columns]
        table.append(f"| {_stem(record)} | {record['suite']} | {_count(record).split()[0]} | {' | '.join(cells)} |")
    return [*table, ""]


def _lines(record: Record, measures: Sequence[Measure]) -> Iterator[Line]:
    """The figures that a record has, in the order of `measures`."""
    for measure in measures:
        if key := _key(record, measure):
            trivial = record.get(measure.trivial) if isinstance(measure.trivial, str) else measure.trivial
            yield Line(
                measure.name,
                _plain(record[key]),
                _interval(record.get(f"{key}_95")),
                "" if trivial is None else _plain(trivial),
                "" if record.get(f"{key}_blind") is None else _plain(record[f"{key}_blind"]),
            )


def _key(record: Record, measure: Measure) -> str | None:
    return next((key for key in measure.keys if record.get(key) is not None), None)


def _interval(ends: Sequence[float | None] | None) -> str:
    return f"[{_plain(ends[0])}, {_plain(ends[1])}]" if ends and ends[0] is not None and ends[1] is not None else ""


def _plain(value: float) -> str:
    """Three decimals, the zero before the point left out; very small values by their exponent."""
    if value and abs(value) < 5e-4:
        return f"{value:.0e}"
    text = f"{value:.3f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def _count(record: Record) -> str:
    return f"{record['num_cells']:,} cells" if "num_cells" in record else f"{record.get('num_rows', 0):,} rows"


def _stem(record: Record) -> str:
    return str(record["file"]).split(".")[0]
