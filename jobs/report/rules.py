"""Which rules decide, in a file of labelled pairs: what `csrm report` shows of what `csrm rules select` wrote."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from rich.text import Text

from csrm.errors import InputError
from jobs.nearest import nearest
from jobs.reading import as_text
from jobs.rules.labels import OWN_COLUMNS
from jobs.storage import open_file, open_location, readable
from jobs.summary import printable, say

__all__ = ["Group", "RuleFindings", "find_rules", "show_rules"]

SHOWN_RULES = 15
SHOWN_GROUPS = 20
RULES_OF_GROUP = 3
NONE = "(none)"
_READ = ("is_first_chosen", "margin", "rules")


@dataclass(slots=True)
class Rule:
    """What a rule did in pairs that it was chosen for."""

    num_pairs: int = 0
    num_with_label: int = 0
    """In which the chosen reply keeps it better."""
    difference: float = 0.0
    """Sum of |rating of the chosen reply − rating of the rejected one|."""


@dataclass(slots=True)
class Group:
    """Pairs with one value of a column."""

    num_pairs: int = 0
    rules: Counter[str] = field(default_factory=Counter)
    """In how many of them each rule was chosen."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, the rules that decide most first."""
        return {"pairs": self.num_pairs, "rules": dict(self.rules.most_common())}


@dataclass(slots=True)
class RuleFindings:
    """Labelled pairs in numbers."""

    num_pairs: int = 0
    num_first_chosen: int = 0
    """Pairs whose label agrees with the order in which the input had the replies."""
    margin: float = 0.0
    """Sum of margins."""
    rules: dict[str, Rule] = field(default_factory=lambda: defaultdict(Rule))
    groups: dict[str, dict[str, Group]] = field(default_factory=dict)
    """By column and value."""

    def ranked(self) -> list[tuple[str, Rule]]:
        """Rules, those that were chosen most often first."""
        return sorted(self.rules.items(), key=lambda one: (-one[1].num_pairs, one[0]))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "pairs": self.num_pairs,
            "first_chosen": self.num_first_chosen,
            "margin": self.margin,
            "rules": {name: asdict(rule) for name, rule in self.ranked()},
            "groups": {
                column: {value: group.to_json() for value, group in own.items()} for column, own in self.groups.items()
            },
        }


def find_rules(location: str, by: Sequence[str]) -> RuleFindings:
    """Count a file of labels, some thousand pairs at a time.

    Args:
        location: the file, local or `s3://`.
        by: columns to group by.

    Raises:
        InputError: It is no such file, or has no such column.
    """
    findings = RuleFindings(groups={column: defaultdict(Group) for column in by})
    filesystem, path = open_location(location)
    with readable(location), open_file(filesystem, path) as raw, pq.ParquetFile(raw) as file:
        names = file.schema_arrow.names
        if not set(_READ) <= set(names):
            raise InputError(f"{location}: no labels; give a file of csrm rules select, or the folder of a matrix")
        for column in by:
            if column not in names or column in OWN_COLUMNS:
                raise InputError(f"{location}: no column {column!r}; {nearest(column, set(names) - OWN_COLUMNS)}")
        for batch in file.iter_batches(8192, columns=[*_READ, *by]):
            _count(findings, batch)
    return findings


def _count(findings: RuleFindings, batch: pa.RecordBatch) -> None:
    findings.num_pairs += batch.num_rows
    findings.num_first_chosen += pc.sum(batch["is_first_chosen"]).as_py() or 0
    findings.margin += pc.sum(batch["margin"]).as_py() or 0.0
    chosen, parents = pc.list_flatten(batch["rules"]), pc.list_parent_indices(batch["rules"]).to_numpy()
    names, numbers = np.unique(np.array(chosen.field("rule").to_pylist(), object), return_inverse=True)
    difference = chosen.field("chosen").to_numpy() - chosen.field("rejected").to_numpy()
    num_pairs, agreeing, sums = (
        np.bincount(numbers, weights, len(names)) for weights in (None, difference > 0, np.abs(difference))
    )
    for place, name in enumerate(names):
        rule = findings.rules[name]
        rule.num_pairs += int(num_pairs[place])
        rule.num_with_label += int(agreeing[place])
        rule.difference += float(sums[place])
    for column, groups in findings.groups.items():
        values = [as_text(value) or "" for value in batch[column].to_pylist()]
        for value in values:
            groups[value].num_pairs += 1
        for (value, name), count in Counter(
            (values[parent], names[number]) for parent, number in zip(parents, numbers, strict=True)
        ).items():
            groups[value].rules[name] += count


def show_rules(findings: RuleFindings, out: Console) -> None:
    """Print a line per rule, and the rules that decide most in each group."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("rule", no_wrap=True)
    for name in ("pairs", "share", "sides with the label", "mean |difference|"):
        table.add_column(name, justify="right")
    ranked = findings.ranked()
    for name, rule in ranked[:SHOWN_RULES]:
        table.add_row(
            Text(printable(name, 60)),
            f"{rule.num_pairs:,}",
            f"{rule.num_pairs / findings.num_pairs:.1%}",
            f"{rule.num_with_label / rule.num_pairs:.1%}",
            f"{rule.difference / rule.num_pairs:.3f}",
        )
    out.print(table)
    if len(ranked) > SHOWN_RULES:
        say(out, f"{len(ranked) - SHOWN_RULES:,} more rules; --json has all")
    for column, groups in findings.groups.items():
        out.print()
        out.print(_groups(column, groups))
    say(
        out,
        f"{findings.num_pairs:,} pairs · mean margin {findings.margin / max(1, findings.num_pairs):.3f} · "
        f"{findings.num_first_chosen / max(1, findings.num_pairs):.1%} chosen as the input has them",
    )


def _groups(column: str, groups: dict[str, Group]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(Text(printable(column, 40)), overflow="fold")
    table.add_column("pairs", justify="right")
    table.add_column("rules that decide most", overflow="fold")
    largest = sorted(groups.items(), key=lambda one: (-one[1].num_pairs, one[0]))
    for value, group in largest[:SHOWN_GROUPS]:
        most = [f"{name} ({count / group.num_pairs:.0%})" for name, count in group.rules.most_common(RULES_OF_GROUP)]
        table.add_row(Text(printable(value or NONE, 40)), f"{group.num_pairs:,}", Text(", ".join(most)))
    if len(largest) > SHOWN_GROUPS:
        table.add_row(f"… {len(largest) - SHOWN_GROUPS:,} more", "", "")
    return table
