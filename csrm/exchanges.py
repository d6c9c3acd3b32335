"""Exchanges: conversations held against every topic, each by its last message.

The package brings two files of one shape: `library/exchanges.jsonl`, conversations written for this project, and
`library/red_team.jsonl.gz`, messages of the training half of hh-rlhf (harmless-base) and further replies to them.
`library/README.md` says where they come from. A line each:

    messages   [[role, text], …]; the last one is judged
    violates   topics of the contrast library whose rules it breaks
    unclear    topics on which people would disagree: never a label
    near       topics that other messages of the same conversation break: what this one keeps is worth saying
    breaks     a rule written for this exchange, of any kind, that the message breaks
    keeps      one on the same subject that it keeps, however alarming the text may read
    allows     a permission of what the message does, which lifts `breaks`
    else       a permission that comes close and does not

The last five may be missing. Both text and labels of the first file, labels and further replies of the second are a
language model's. They include bad texts: they are what a model learns to object to. Every topic that is not named is
kept, close neighbours too. That is what posts with one label each cannot teach: which of two neighbouring rules is
broken, and that harmless text breaks rules as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from csrm.configurations import Clause
from csrm.contrast import Topic
from csrm.dice import one_of
from csrm.errors import CSRMError, InputError
from csrm.labelled import LabelledRow, read_json_lines
from csrm.messages import Message, as_conversation

__all__ = ["Exchange", "exchange_rows", "load_exchanges"]

FOLDER = Path(__file__).parent / "library"
LIBRARY = (FOLDER / "exchanges.jsonl", FOLDER / "red_team.jsonl.gz")

DOMAIN = "exchanges"
MAX_KEPT_TOPICS = 4
"""Topics that a row keeps and is told so: near ones first, then any, drawn anew for each row. Enough to learn from, and
not too many to encode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A conversation, fully labelled."""

    conversation: tuple[Message, ...]
    violates: frozenset[str]
    """Topics."""
    unclear: frozenset[str]
    """Topics that are no label."""
    near: frozenset[str] = frozenset()
    """Topics that come close, broken or not."""
    breaks: Clause | None = None
    keeps: Clause | None = None
    allows: Clause | None = None
    allows_else: Clause | None = None


def load_exchanges(*paths: str | Path) -> tuple[Exchange, ...]:
    """Read libraries of exchanges.

    Args:
        paths: JSON Lines, `.gz` too; none means the files that come with the package.

    Raises:
        InputError: A file cannot be read, or a line is of another shape; the message names file and line.
    """
    exchanges = []
    for path in paths or LIBRARY:
        for number, raw in read_json_lines(path):
            try:
                exchanges.append(_exchange(raw))
            except (AttributeError, KeyError, TypeError, ValueError, CSRMError) as error:
                raise InputError(f"{path}, line {number}: no exchange ({error!r}); see csrm/exchanges.py") from None
    return tuple(exchanges)


def exchange_rows(
    exchanges: Sequence[Exchange], topics: Sequence[Topic], rng: np.random.Generator, number: int
) -> list[LabelledRow]:
    """Labelled rows: an exchange with its own rules, the topics that it violates and a few that it keeps.

    Args:
        exchanges: what to label.
        topics: rules to hold them against, in any of their wordings.
        rng: draws exchanges, wordings and topics.
        number: how many rows; no exchange comes back before all have had their turn, with other topics and wordings.

    Raises:
        ValueError: an exchange speaks of a topic that is not there.
    """
    by_name = {topic.name: topic for topic in topics}
    order = rng.permutation(len(exchanges)).tolist()
    rows = []
    for turn in range(number if order else 0):
        place = order[turn % len(order)]
        exchange = exchanges[place]
        if unknown := (exchange.violates | exchange.unclear | exchange.near) - by_name.keys():
            raise ValueError(f"exchange {place + 1}: no topic is called {', '.join(sorted(unknown))}")
        kept = _some_kept(exchange, sorted(by_name), rng)
        labels = {exchange.breaks: True, exchange.keeps: False}
        labels |= {one_of(by_name[name].clauses, rng): True for name in sorted(exchange.violates)}
        labels |= {one_of(by_name[name].clauses, rng): False for name in kept}
        labels.pop(None, None)
        rows.append(
            LabelledRow(
                id=f"exchange-{place + 1}-{turn // len(order) + 1}",
                domain=DOMAIN,
                conversation=list(exchange.conversation),
                clauses=tuple(labels),
                violated=tuple(labels.values()),
                lifted_by=exchange.allows,
                near_miss=exchange.allows_else,
                unsure=tuple(clause for name in sorted(exchange.unclear) for clause in by_name[name].clauses),
            )
        )
    return rows


def _some_kept(exchange: Exchange, names: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Topics that an exchange keeps, near ones first."""
    shuffled = [names[n] for n in rng.permutation(len(names))]
    kept = [name for name in shuffled if name not in exchange.violates | exchange.unclear]
    return sorted(kept, key=lambda name: name not in exchange.near)[:MAX_KEPT_TOPICS]


def _exchange(raw: dict[str, Any]) -> Exchange:
    if {"allows", "else"} & raw.keys() and "breaks" not in raw:
        raise ValueError("a permission without a rule that it could lift")
    violates, unclear = frozenset(raw["violates"]), frozenset(raw["unclear"])
    if both := violates & unclear:
        raise ValueError(f"both violated and unclear: {', '.join(sorted(both))}")
    return Exchange(
        conversation=tuple(as_conversation([{"role": role, "content": content} for role, content in raw["messages"]])),
        violates=violates,
        unclear=unclear,
        near=frozenset(raw.get("near", ())),
        breaks=_clause(raw, "breaks"),
        keeps=_clause(raw, "keeps"),
        allows=_clause(raw, "allows"),
        allows_else=_clause(raw, "else"),
    )


def _clause(raw: dict[str, Any], key: str) -> Clause | None:
    return Clause(**raw[key]) if key in raw else None
