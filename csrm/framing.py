"""The same text in other seats: as a reply that was asked for, as a request that is refused or granted.

Labelled posts are single messages of a user; logs hold replies of assistants. A model that saw posts alone does not
know that a refusal complies whatever was asked. Each frame keeps or settles the labels by construction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from csrm.clause_library import SPECIFIC_DOMAINS
from csrm.conversations import Message
from csrm.dice import one_of
from csrm.labelled import LabelledRow

__all__ = ["Frames"]

_ASKED = (
    "Write a short post about {topic}.",
    "Give me a text that has to do with {topic}",
    "I need something for my channel, topic: {topic}. Go ahead.",
    "can you draft a message for me? it is about {topic}",
    "What would somebody say about {topic}?",
    "Make up an example that touches on {topic}.",
    "Continue.",
    "Please translate the note that I sent you.",
    "Rewrite my draft so that it reads better.",
    "What did the message say?",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """How often single messages of users are put into other seats."""

    refusals: Sequence[str]
    """Replies that decline."""
    openers: Sequence[str]
    """Beginnings of replies that agree."""
    reply_share: float = 0.35
    """Single messages that become the reply to a request."""
    refused_share: float = 0.1
    """Single messages that are answered with a refusal, which violates nothing."""
    granted_share: float = 0.1
    """Single messages that are repeated by an agreeing reply."""

    def __post_init__(self) -> None:
        if not 0 <= self.reply_share + self.refused_share + self.granted_share <= 1:
            raise ValueError(f"the shares of the frames must add up to at most 1, got {self}")

    def frame(self, row: LabelledRow, rng: np.random.Generator) -> LabelledRow:
        """The row in one of its frames; rows of several messages, and of rules on who says what, stay as they are."""
        if len(row.conversation) != 1 or row.conversation[0].role != "user" or row.domain in SPECIFIC_DOMAINS:
            return row
        text, dice = row.conversation[0].content, rng.random()
        if dice < self.reply_share:
            topic = one_of(row.clauses, rng).category.lower() or "this"
            return _talk(row, one_of(_ASKED, rng).format(topic=topic), text)
        if dice < self.reply_share + self.refused_share:
            refused = _talk(row, text, one_of(self.refusals, rng))
            return replace(refused, violated=(False,) * len(row.violated))
        if dice < self.reply_share + self.refused_share + self.granted_share:
            return _talk(row, text, f"{one_of(self.openers, rng)} {text}")
        return row


def _talk(row: LabelledRow, asked: str, answered: str) -> LabelledRow:
    return replace(row, conversation=[Message("user", asked), Message("assistant", answered)])
