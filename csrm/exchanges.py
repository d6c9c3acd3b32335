"""Exchanges: conversations written for training, the last message held against every topic and two rules of its own.

`library/exchanges.jsonl`, a line each:

    messages   [[role, text], …]; the last one is judged
    violates   topics of the contrast library whose rules it breaks
    unclear    topics on which people would disagree: never a label
    breaks     a rule written for this exchange, of any kind, that the message breaks
    keeps      one on the same subject that it keeps, however alarming the text may read

The texts, which a language model wrote for this project, include bad ones: they are what a model learns to object to.
Every other topic is kept, close neighbours too. That is what posts with one label each cannot teach: which of two
neighbouring rules is broken, and that harmless text breaks rules as well.
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

LIBRARY = Path(__file__).parent / "library" / "exchanges.jsonl"

DOMAIN = "exchanges"
MAX_KEPT_TOPICS = 4
"""Topics that a row keeps and is told so, drawn anew for each row: enough, and not too many to encode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A conversation, fully labelled."""

    conversation: tuple[Message, ...]
    violates: frozenset[str]
    """Topics."""
    unclear: frozenset[str]
    """Topics that are no label."""
    breaks: Clause
    keeps: Clause


def load_exchanges(path: str | Path | None = None) -> tuple[Exchange, ...]:
    """Read a library of exchanges.

    Args:
        path: JSON Lines; None means the file that comes with the package.

    Raises:
        InputError: The file cannot be read, or a line is of another shape; the message names file and line.
    """
    source = LIBRARY if path is None else path
    exchanges = []
    for number, raw in read_json_lines(source):
        try:
            exchanges.append(_exchange(raw))
        except (AttributeError, KeyError, TypeError, ValueError, CSRMError) as error:
            raise InputError(f"{source}, line {number}: no exchange ({error!r}); see csrm/exchanges.py") from None
    return tuple(exchanges)


def exchange_rows(
    exchanges: Sequence[Exchange], topics: Sequence[Topic], rng: np.random.Generator, number: int
) -> list[LabelledRow]:
    """Labelled rows: an exchange with its own two rules, the topics that it violates and a few that it keeps.

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
        if unknown := (exchange.violates | exchange.unclear) - by_name.keys():
            raise ValueError(f"exchange {place + 1}: no topic is called {', '.join(sorted(unknown))}")
        kept = sorted(by_name.keys() - exchange.violates - exchange.unclear)
        some = rng.choice(kept, size=min(MAX_KEPT_TOPICS, len(kept)), replace=False).tolist()
        named = [by_name[name] for name in (*sorted(exchange.violates), *some)]
        wordings = [one_of(topic.clauses, rng) for topic in named]
        rows.append(
            LabelledRow(
                id=f"exchange-{place + 1}-{turn // len(order) + 1}",
                domain=DOMAIN,
                conversation=list(exchange.conversation),
                clauses=(exchange.breaks, exchange.keeps, *wordings),
                violated=(True, False, *(topic.name in exchange.violates for topic in named)),
            )
        )
    return rows


def _exchange(raw: dict[str, Any]) -> Exchange:
    violates, unclear = frozenset(raw["violates"]), frozenset(raw["unclear"])
    if both := violates & unclear:
        raise ValueError(f"both violated and unclear: {', '.join(sorted(both))}")
    return Exchange(
        conversation=tuple(as_conversation([{"role": role, "content": content} for role, content in raw["messages"]])),
        violates=violates,
        unclear=unclear,
        breaks=Clause(**raw["breaks"]),
        keeps=Clause(**raw["keeps"]),
    )
