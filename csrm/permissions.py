"""Permissions: the clause that allows what another forbids.

Labelled data holds prohibitions only, and a model trained on those takes a clause for violated as soon as it is
about the message. Each prohibition therefore gets a twin of nearly the same words that allows the same thing; a
permission cannot be violated.
"""

from __future__ import annotations

import re

import numpy as np

from csrm.configurations import Clause

__all__ = ["permission"]

_NEGATED_MODAL = re.compile(r"\b(?:(?:must|may|should|shall|can|will)(?: not|n['’]t)|can['’]t|cannot)\b", re.I)
_NEGATED_IMPERATIVE = re.compile(r"^(?:do not|don['’]t|never|avoid|refrain from) ", re.I)
_NO = re.compile(r"^no (?P<what>[^,;.]+)", re.I)
_OBLIGATION = re.compile(r"\b(?:must|shall|should)\b(?! be able)", re.I)

_TOPIC_FORMS = (
    "{topic} is allowed here.",
    "We allow {topic}.",
    "{topic}: permitted on this platform.",
    "There is no restriction on {topic}; it is acceptable.",
    "Our policy permits content that concerns {topic}.",
)
_RULE_FORMS = (
    "This rule does not apply here: {rule}",
    "We do not ask anyone to follow this rule, breaking it is fine: {rule}",
)


def permission(clause: Clause, rng: np.random.Generator) -> Clause:
    """A clause that allows what `clause` forbids, in one of several wordings."""
    forms = [form.format(topic=(clause.category or "this").lower()) for form in _TOPIC_FORMS]
    forms += [form.format(rule=clause.guideline) for form in _RULE_FORMS]
    if turned := _turned_round(clause.guideline):
        # The nearest wording is the hardest to tell from the prohibition, so it is drawn half of the time.
        forms += [turned] * len(forms)
    return Clause(category=clause.category, guideline=forms[int(rng.integers(len(forms)))])


def _turned_round(guideline: str) -> str | None:
    """The guideline with its prohibition or duty turned into a permission; None where there is none to turn."""
    if match := _NO.match(guideline):
        return f"{match['what'].strip().capitalize()}: allowed."
    if _NEGATED_IMPERATIVE.match(guideline):
        return _NEGATED_IMPERATIVE.sub("It is allowed to ", guideline)
    if _NEGATED_MODAL.search(guideline):
        return _NEGATED_MODAL.sub("may", guideline)
    if _OBLIGATION.search(guideline):
        return _OBLIGATION.sub("need not", guideline)
    return None
