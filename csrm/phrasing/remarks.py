"""Sentences that may follow any rule and change nothing: what makes a short rule a long one."""

from __future__ import annotations

import numpy as np

from csrm.configurations import Clause
from csrm.dice import one_of
from csrm.phrasing.grammar import sentence
from csrm.phrasing.headings import topic

__all__ = ["remarked"]

# Neither forbidding nor allowing: they follow prohibitions and permissions alike.
_REMARKS = (
    "This rule is part of our guidelines.",
    "We review our guidelines once a year.",
    "It applies to everything that is written here.",
    "It applies in every language and format.",
    "Please read it together with our other rules.",
    "If anything is unclear, ask a moderator.",
    "The same goes for images, links and attachments.",
    "We explain our reasons in the help centre.",
    "This holds at all times.",
)
_TOPIC_REMARKS = (
    "This is part of our rules on {topic}.",
    "See also our other guidelines on {topic}.",
    "It belongs to the section on {topic}.",
)
_LONG, _BARE = 0.25, 0.1


def remarked(clause: Clause, rng: np.random.Generator) -> Clause:
    """The clause with a neutral remark after it (a quarter of the time), or without its final stop (a tenth)."""
    draw = rng.random()
    about = topic(clause.category)
    remarks = [*_REMARKS, *(remark.format(topic=about) for remark in _TOPIC_REMARKS if about)]
    remark = one_of(remarks, rng)
    guideline = clause.guideline
    if draw < _LONG:
        guideline = f"{sentence(guideline)} {remark}"
    elif draw < _LONG + _BARE:
        guideline = guideline.rstrip(".") or guideline
    return Clause(category=clause.category, guideline=guideline)
