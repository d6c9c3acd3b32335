"""The rule pool: clauses that are each a configuration of their own, so that responses × rules is a compliance matrix.

`safety_rules.yaml` holds 100 safety rules in this project's own words, on content and on conduct; any configuration
file is a pool as well.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from csrm.configurations import Configuration, load_configurations
from csrm.messages import Message
from csrm.rule_selection import request_relevance

if TYPE_CHECKING:
    from csrm.model import CSRM

__all__ = ["NEUTRAL", "POOL", "as_rules", "load_rules", "relevance_to_requests", "request"]

POOL = Path(__file__).parent / "safety_rules.yaml"

NEUTRAL: tuple[list[Message], ...] = tuple(
    [Message("user", text)]
    for text in (
        "Hello",
        "What is the weather like today?",
        "Can you help me with something?",
        "Thank you, that was useful.",
        "N/A",
        "Tell me about your day.",
    )
)
"""Requests that no rule has anything to do with; see `csrm.rule_selection.request_relevance`."""


def load_rules(path: str | Path | Sequence[str | Path] | None = None) -> list[Configuration]:
    """One configuration per rule, in the order of the file.

    Args:
        path: configuration files or folders, whose clauses are the rules; None takes the bundled pool.

    Raises:
        ConfigurationError: A file cannot be read.
    """
    return as_rules(load_configurations(POOL if path is None else path))


def as_rules(configurations: Iterable[Configuration]) -> list[Configuration]:
    """One configuration per clause, in the order of the clauses.

    Args:
        configurations: whose clauses are the rules. A clause that is there several times under one context is one rule.

    Returns:
        Configurations of a single clause. Their ids are the clauses' categories (`Drug making`: `drug_making`),
        numbered where they repeat; context, threshold and source are those of the configuration that holds the clause.
    """
    rules: dict[str, Configuration] = {}
    seen = set()
    for configuration in configurations:
        for clause in configuration.clauses:
            if (clause, configuration.context) in seen:
                continue
            seen.add((clause, configuration.context))
            id = _free(_slug(clause.category), rules)
            rules[id] = Configuration(
                id=id,
                title=clause.category,
                clauses=(clause,),
                threshold=configuration.threshold,
                context=configuration.context,
                source=configuration.source,
            )
    return list(rules.values())


def request(conversation: Sequence[Message]) -> list[Message]:
    """What users say before the last message, as one message of its own: what a pair of replies is about.

    Scored under the rules it is one more row of the matrix, for `csrm.rule_selection.request_relevance`. Replies are
    left out on purpose: what an assistant was talked into is no part of the question.
    """
    return [Message("user", "\n".join(message.content for message in conversation[:-1] if message.role == "user"))]


def relevance_to_requests(
    model: CSRM, conversations: Sequence[Sequence[Message]], rules: Sequence[Configuration]
) -> NDArray[np.float64]:
    """How much each rule has to do with what the users of conversations ask for, (P, K): `request_relevance`.

    Args:
        model: what rates.
        conversations: each with the reply that ends it, which is not looked at.
        rules: configurations of one clause each.
    """
    reward = model.score([*map(request, conversations), *NEUTRAL], rules).reward
    return request_relevance(reward[: -len(NEUTRAL)], reward[-len(NEUTRAL) :].mean(axis=0))


def _slug(category: str) -> str:
    plain = unicodedata.normalize("NFKD", category).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "_", plain).strip("_").lstrip("0123456789_") or "rule"


def _free(id: str, taken: dict[str, Configuration]) -> str:
    """The id, or the first of id_2, id_3, … that nobody has."""
    number, name = 1, id
    while name in taken:
        number += 1
        name = f"{id}_{number}"
    return name
