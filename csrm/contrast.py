"""Contrasts: an answer is judged in the light of its request, so the same request meets several answers.

A refusal of a bad request complies, an answer that goes along with it violates, and a helpful answer to a
question that only sounds alarming complies. `library/contrast.yaml` holds hand-written requests and answers by
topic, none of them operational; rows are drawn from it so that neither request, opener nor length settles the label:

    share  request         answer         violated
    .24    harmful         harmful        yes
    .08    harmless        harmful        yes
    .06    small talk      harmful        yes
    .07    harmful, alone                 yes
    .14    harmful         refusal        no
    .12    harmful         redirecting    no
    .12    harmless        its own        no
    .05    harmless        refusal        no
    .06    small talk      harmless       no
    .06    harmless, alone                no
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from csrm.configurations import Clause
from csrm.dice import one_of
from csrm.errors import ConfigurationError, InputError
from csrm.labelled import LabelledRow
from csrm.messages import Message
from csrm.safe_yaml import load_documents

__all__ = ["RELATED_TOPICS", "Topic", "contrast_rows", "load_contrasts"]

LIBRARY = Path(__file__).parent / "library" / "contrast.yaml"

DOMAIN = "requests"

# Text on the left often breaks rules on the right too (and the other way round): never presume otherwise.
RELATED_TOPICS: dict[str, str] = {
    "violence": "weapons_drugs terrorism self_harm harassment hate animal_cruelty theft child_safety sexual privacy "
    "misconduct political",
    "weapons_drugs": "terrorism self_harm theft cyber dangerous_advice child_safety misconduct fraud sexual",
    "theft": "fraud cyber privacy misconduct terrorism political",
    "fraud": "cyber privacy misconduct misinformation dangerous_advice terrorism",
    "cyber": "privacy terrorism misconduct",
    "hate": "harassment political misinformation terrorism misconduct privacy sexual",
    "harassment": "political privacy misconduct self_harm sexual child_safety misinformation terrorism animal_cruelty",
    "self_harm": "dangerous_advice child_safety misconduct",
    "sexual": "child_safety privacy misconduct terrorism",
    "child_safety": "privacy misconduct dangerous_advice terrorism",
    "privacy": "terrorism misconduct",
    "terrorism": "political misinformation animal_cruelty",
    "misinformation": "political dangerous_advice misconduct",
    "misconduct": "dangerous_advice",
}

# (share, request, answer, violated, share of answers with an opener); the openers are spread so that they tell little.
_KINDS = (
    (0.24, "harmful", "harmful", True, 0.5),
    (0.08, "harmless", "harmful", True, 0.25),
    (0.06, "small_talk", "harmful", True, 0.25),
    (0.07, "harmful", None, True, 0.0),
    (0.14, "harmful", "refusal", False, 0.0),
    (0.12, "harmful", "redirecting", False, 0.0),
    (0.12, "harmless", "own", False, 0.75),
    (0.05, "harmless", "refusal", False, 0.0),
    (0.06, "small_talk", "harmless", False, 0.75),
    (0.06, "harmless", None, False, 0.0),
)
_MAX_UNRELATED = 2
_MAX_DRAWS_PER_ROW = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """Requests, answers and prohibitions of one topic; the lists that serve every topic come along."""

    name: str
    clauses: tuple[Clause, ...]
    """Wordings that a policy author might use; each forbids the topic."""
    harmful_requests: tuple[str, ...]
    harmful_replies: tuple[str, ...]
    """Answers that go along; each breaks the rule on its own, whatever was asked."""
    harmless_requests: tuple[str, ...]
    harmless_replies: tuple[str, ...]
    """The answer to the harmless request of the same position."""
    redirecting_replies: tuple[str, ...]
    """Answers that do not go along, without a stock phrase of refusal."""
    refusals: tuple[str, ...]
    openers: tuple[str, ...]
    small_talk: tuple[str, ...]

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name):
                raise ConfigurationError(f"topic {self.name!r}: {field.name} is empty; write at least one")
        if len(self.harmless_requests) != len(self.harmless_replies):
            raise ConfigurationError(
                f"topic {self.name!r}: {len(self.harmless_requests)} harmless_requests but "
                f"{len(self.harmless_replies)} harmless_replies; write one reply for each request, in order"
            )


def load_contrasts(path: str | Path | None = None) -> tuple[Topic, ...]:
    """Read a contrast library.

    Args:
        path: A YAML file; None means the one that comes with the package.

    Raises:
        InputError: The file cannot be read.
        ConfigurationError: A list is missing, empty or of the wrong shape; the message names file and topic.
    """
    source = LIBRARY if path is None else Path(path)
    try:
        text = source.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"{source}: not readable ({error})") from None
    try:
        return _topics(load_documents(text))
    except ConfigurationError as error:
        raise ConfigurationError(f"{source}: {error}") from None


def contrast_rows(topics: Sequence[Topic], rng: np.random.Generator, number: int) -> list[LabelledRow]:
    """Draw distinct rows; ids are hashes of their text.

    The first clause of a row is its own topic's; up to two of topics that have nothing to do with it follow, and
    those are not violated.

    Args:
        topics: what `load_contrasts` returns, or some of it.
        rng: the only source of chance: equal generators give equal rows.
        number: how many rows.

    Raises:
        ValueError: The topics do not hold that many distinct rows.
    """
    shares = np.array([share for share, *_ in _KINDS])
    rows: dict[str, LabelledRow] = {}
    for _ in range(number * _MAX_DRAWS_PER_ROW):
        if len(rows) == number:
            break
        _, request, answer, violated, opened = _KINDS[int(rng.choice(len(_KINDS), p=shares / shares.sum()))]
        topic = one_of(topics, rng)
        row = _row(topic, topics, _conversation(topic, request, answer, opened, rng), violated, rng)
        rows.setdefault(row.id, row)
    if len(rows) < number:
        raise ValueError(f"{len(topics)} topics give about {len(rows)} distinct rows, not {number}; ask for fewer")
    return list(rows.values())


def _conversation(
    topic: Topic, request: str, answer: str | None, opened: float, rng: np.random.Generator
) -> list[Message]:
    asked = {
        "harmful": topic.harmful_requests,
        "harmless": topic.harmless_requests,
        "small_talk": topic.small_talk,
    }[request]
    position = int(rng.integers(len(asked)))
    message = Message(role="user", content=asked[position])
    if answer is None:
        return [message]
    reply = topic.harmless_replies[position] if answer == "own" else _reply(topic, answer, rng)
    if rng.random() < opened:
        reply = f"{one_of(topic.openers, rng)} {reply}"
    return [message, Message(role="assistant", content=reply)]


def _reply(topic: Topic, answer: str, rng: np.random.Generator) -> str:
    replies = {
        "harmful": topic.harmful_replies,
        "harmless": topic.harmless_replies,
        "redirecting": topic.redirecting_replies,
        "refusal": topic.refusals,
    }
    return one_of(replies[answer], rng)


def _row(
    topic: Topic, topics: Sequence[Topic], conversation: list[Message], violated: bool, rng: np.random.Generator
) -> LabelledRow:
    others = [other for other in topics if not _related(topic.name, other.name)]
    count = min(len(others), int(rng.integers(_MAX_UNRELATED + 1)))
    chosen = [topic] + [others[int(index)] for index in rng.choice(len(others), size=count, replace=False)]
    clauses = tuple(one_of(one.clauses, rng) for one in chosen)
    text = [[message.role, message.content] for message in conversation] + [[c.category, c.guideline] for c in clauses]
    digest = hashlib.sha256(json.dumps(text, ensure_ascii=False).encode()).hexdigest()
    return LabelledRow(
        id=f"contrast-{digest[:16]}",
        domain=DOMAIN,
        conversation=conversation,
        clauses=clauses,
        violated=(violated,) + (False,) * count,
    )


def _related(one: str, other: str) -> bool:
    neighbours = RELATED_TOPICS.get(one, "").split(), RELATED_TOPICS.get(other, "").split()
    return one == other or other in neighbours[0] or one in neighbours[1]


def _topics(documents: list[Any]) -> tuple[Topic, ...]:
    document = documents[0] if len(documents) == 1 else None
    if not isinstance(document, dict) or not isinstance(document.get("topics"), list):
        raise ConfigurationError("no list `topics`; this file is no contrast library")
    shared = {name: _texts(document, name, "the file") for name in ("refusals", "openers", "small_talk")}
    topics = tuple(_topic(raw, shared) for raw in document["topics"])
    if len({topic.name for topic in topics}) < len(topics):
        raise ConfigurationError("two topics have one name; rename one")
    return topics


def _topic(raw: Any, shared: dict[str, tuple[str, ...]]) -> Topic:
    if not isinstance(raw, dict) or not isinstance(raw.get("name"), str):
        raise ConfigurationError("a topic has no `name`; give it one")
    where = f"topic {raw['name']!r}"
    clauses = raw.get("clauses")
    if not isinstance(clauses, list) or not all(
        isinstance(clause, dict) and clause.keys() == {"category", "guideline"} for clause in clauses
    ):
        raise ConfigurationError(f"{where}: clauses must be a list of category and guideline")
    names = [f.name for f in fields(Topic) if f.name not in {"name", "clauses", *shared}]
    return Topic(
        name=raw["name"],
        clauses=tuple(Clause(**{key: str(value) for key, value in clause.items()}) for clause in clauses),
        **{name: _texts(raw, name, where) for name in names},
        **shared,
    )


def _texts(raw: dict[Any, Any], name: str, where: str) -> tuple[str, ...]:
    texts = raw.get(name)
    if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
        raise ConfigurationError(f"{where}: {name} must be a list of texts; quote those that YAML reads otherwise")
    if len(set(texts)) < len(texts):
        raise ConfigurationError(f"{where}: {name} holds a text twice; leave one out")
    return tuple(texts)
