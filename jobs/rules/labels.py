"""Pairs of replies with the rules that decided them: what `csrm rules select` writes, and others read.

A row is a preference pair in TRL's conversational format (`prompt`, `chosen`, `rejected`, and the `margin` of its
reward trainer), so that `csrm train --preferences` and TRL's trainers take the file as it is, with what it came from
beside it. The file's metadata says which rules there were, and whether an adapter named those of each pair.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from csrm.errors import InputError
from csrm.labelled import PreferenceRow
from csrm.messages import Message
from csrm.rule_selection import RuleLabels

__all__ = ["OWN_COLUMNS", "Counts", "Origin", "RatedPairs", "read_rule_sets", "to_table"]

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_RULES = pa.list_(
    pa.struct(
        [("rule", pa.string()), ("relevance", pa.float32()), ("chosen", pa.float32()), ("rejected", pa.float32())]
    )
)
SCHEMA = pa.schema(
    [
        ("pair_id", pa.string()),
        ("prompt", _MESSAGES),
        ("chosen", _MESSAGES),
        ("rejected", _MESSAGES),
        ("margin", pa.float64()),
        ("is_first_chosen", pa.bool_()),
        ("rules", _RULES),
    ]
)
OWN_COLUMNS = frozenset(SCHEMA.names)
_ORIGIN = "csrm.labels"
_READ = ("pair_id", "prompt", "chosen", "rejected", "rules")


@dataclass(frozen=True, slots=True, kw_only=True)
class RatedPairs:
    """Some pairs with their rules. Shape letters: P pairs, k rules of a pair."""

    pairs: Sequence[PreferenceRow]
    """Those whose `chosen` is the first reply, `rejected` the second, as the input has them."""
    rules: Sequence[str]
    """Ids of the pool."""
    labels: RuleLabels
    """What the rules of each pair say of it."""
    relevance_Pk: NDArray[np.floating]
    first_Pk: NDArray[np.floating]
    """Ratings of the first replies on these rules."""
    second_Pk: NDArray[np.floating]
    kept: pa.Table | None = None
    """Further columns of the pairs."""


@dataclass(slots=True)
class Counts:
    """What became of the input."""

    pairs: int = 0
    """Written."""
    undecided: int = 0
    """Pairs whose rules do not tell, or not by enough."""
    without_scores: int = 0
    """Pairs with a reply that has no ratings."""
    no_pair: int = 0
    """Records that hold no pair of replies to one history."""
    first_chosen: int = 0
    """Of those written, whose first reply is chosen: agreement, where people put the better reply first."""
    per_rule: dict[str, int] = field(default_factory=dict)
    """Of those written, how many each rule had a part in."""

    def merge(self, other: Counts) -> None:
        """Add what was counted elsewhere."""
        for name in ("pairs", "undecided", "without_scores", "no_pair", "first_chosen"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for rule, count in other.per_rule.items():
            self.per_rule[rule] = self.per_rule.get(rule, 0) + count

    def add(self, rated: RatedPairs) -> None:
        """Count pairs that were labelled."""
        is_decided = rated.labels.label_P != 0
        self.pairs += int(is_decided.sum())
        self.undecided += int((~is_decided).sum())
        self.first_chosen += int((rated.labels.label_P > 0).sum())
        numbers, counts = np.unique(rated.labels.chosen_Pk[is_decided], return_counts=True)
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            self.per_rule[rated.rules[number]] = self.per_rule.get(rated.rules[number], 0) + count


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What labels were made by, as the metadata of their file holds it."""

    rules: dict[str, str]
    """Fingerprints of the pool's rules, by id."""
    adapter: str | None
    """What named the rules of each pair; None: all were rated."""

    def to_metadata(self) -> dict[str, str]:
        """For a Parquet schema."""
        return {_ORIGIN: json.dumps({"rules": self.rules, "adapter": self.adapter})}

    @classmethod
    def of(cls, path: str | Path) -> Origin | None:
        """Of a file; None where another program wrote it anew without.

        Raises:
            InputError: It is no Parquet file.
        """
        try:
            metadata = pq.read_schema(path).metadata or {}
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{path}: not readable as Parquet ({error})") from None
        text = metadata.get(_ORIGIN.encode())
        return None if text is None else cls(**json.loads(text))


def to_table(rated: RatedPairs) -> pa.Table:
    """The decided pairs as rows of `SCHEMA`, with the columns that are kept."""
    decided = np.flatnonzero(rated.labels.label_P)
    table = pa.Table.from_pylist([_row(rated, pair) for pair in decided.tolist()], schema=SCHEMA)
    if rated.kept is not None:
        kept = rated.kept.take(pa.array(decided))
        for name in kept.column_names:
            table = table.append_column(name, kept[name])
    return table


def _row(rated: RatedPairs, number: int) -> dict[str, Any]:
    pair, is_first = rated.pairs[number], bool(rated.labels.label_P[number] > 0)
    replies = (pair.chosen, pair.rejected)
    ratings = (rated.first_Pk[number], rated.second_Pk[number])
    chosen, rejected = (0, 1) if is_first else (1, 0)
    return {
        "pair_id": pair.id,
        "prompt": [{"role": message.role, "content": message.content} for message in pair.conversation],
        "chosen": [{"role": "assistant", "content": replies[chosen]}],
        "rejected": [{"role": "assistant", "content": replies[rejected]}],
        "margin": abs(float(rated.labels.margin_P[number])),
        "is_first_chosen": is_first,
        "rules": [
            {"rule": rated.rules[rule], "relevance": float(relevance), "chosen": float(own), "rejected": float(other)}
            for rule, relevance, own, other in zip(
                rated.labels.chosen_Pk[number],
                rated.relevance_Pk[number],
                ratings[chosen],
                ratings[rejected],
                strict=True,
            )
        ],
    }


def read_rule_sets(path: str | Path) -> Iterator[tuple[PreferenceRow, list[str]]]:
    """Pairs of a file that `csrm rules select` wrote, each with the ids of its rules.

    Raises:
        InputError: It is no such file.
    """
    if "://" in str(path):
        raise InputError(f"{path}: only local files are read here; copy it first")
    try:
        with pq.ParquetFile(path) as file:
            if missing := sorted(set(_READ) - set(file.schema_arrow.names)):
                raise InputError(f"{path}: no column {missing[0]!r}; give a file that csrm rules select wrote")
            for batch in file.iter_batches(1024, columns=list(_READ)):
                for row in batch.to_pylist():
                    history = [Message(one["role"], one["content"]) for one in row["prompt"]]
                    chosen, rejected = (row[name][-1]["content"] for name in ("chosen", "rejected"))
                    pair = PreferenceRow(id=row["pair_id"], conversation=history, chosen=chosen, rejected=rejected)
                    yield pair, [one["rule"] for one in row["rules"]]
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: not readable as Parquet ({error})") from None
