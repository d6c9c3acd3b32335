"""Permissions: the clause that allows what another forbids.

Labelled data holds prohibitions only, and a model trained on those takes a clause for violated as soon as it is
about the message. Each prohibition therefore gets a twin of nearly the same words that allows the same thing; a
permission cannot be violated. Its wordings and headings are as many as those of prohibitions, and the same
remarks may follow it, so that nothing but its sense tells it from one.
"""

from __future__ import annotations

import re

import numpy as np

from csrm.configurations import Clause
from csrm.dice import one_of
from csrm.phrasing.grammar import Rule, is_about_content, is_plural, parse, sentence
from csrm.phrasing.headings import names_harm, restyle_heading, topic
from csrm.phrasing.inflection import gerund, third_person
from csrm.phrasing.remarks import remarked

__all__ = ["allowances", "permission"]

# A permission without the exceptions of its prohibition is a permission still, and reads as English.
_EXCEPTION = re.compile(r",?\s+\(?(?:unless|except|other than|save for)\b.*", re.I | re.S)

_MAX_WORDS_BEFORE_COLON = 10

_HARM_FORMS = (
    "{topic} {be} allowed here",
    "We allow {topic}",
    "{topic}: permitted on this platform",
    "There is no restriction on {topic}; it is acceptable",
    "Our policy permits content that concerns {topic}",
    "Allowed: {topic}",
    "Posts about {topic} are welcome",
)
_TOPIC_FORMS = (
    "The usual rules on {topic} do not apply here",
    "Nobody has to keep to the usual rules on {topic} here",
    "Breaking the usual rules on {topic} is allowed here",
    "We do not restrict anything in the area of {topic}",
)
_RULE_FORMS = (
    "This rule does not apply here: {rule}",
    "We do not ask anyone to follow this rule, breaking it is fine: {rule}",
    "Breaking the following rule is allowed here: {rule}",
    "The following rule has been lifted: {rule}",
)


def permission(clause: Clause, rng: np.random.Generator) -> Clause:
    """A clause that allows what `clause` forbids (or demands), in one of many wordings and heading styles.

    Args:
        clause: a prohibition or an obligation.
        rng: source of randomness; the text is a function of the clause and its state.
    """
    turned = allowances(clause)
    # The nearest wordings are the hardest to tell from the prohibition, so they are drawn two times in three.
    forms = turned if turned and rng.random() < 2 / 3 else _loose(clause)
    guideline = sentence(one_of(forms, rng))
    return restyle_heading(remarked(Clause(category=clause.category, guideline=guideline), rng), rng)


def allowances(clause: Clause) -> list[str]:
    """Sentences, without their stop, that allow in its own words what the guideline forbids or demands.

    Empty where the guideline is not understood well enough to be turned round.
    """
    rule = parse(clause.guideline)
    body = _EXCEPTION.sub("", rule.body)
    if rule.kind == "duty":
        return _waivers(rule.subject, body)
    if rule.kind == "thing":
        return _thing(rule, body)
    if rule.kind == "act":
        return _act_of(rule.subject, body) if rule.subject else _act(body)
    return []


def _loose(clause: Clause) -> list[str]:
    forms = [form.format(rule=clause.guideline) for form in _RULE_FORMS]
    if about := topic(clause.category):
        forms += [form.format(topic=about) for form in _TOPIC_FORMS]
        if names_harm(clause.category):
            be = "are" if " and " in about or about.endswith("s") else "is"
            forms += [form.format(topic=about, be=be) for form in _HARM_FORMS] * 2
    return forms


def _act(body: str) -> list[str]:
    forms = [
        *(f"It is allowed to {body}", f"It is fine to {body}", f"You may {body}", f"You are allowed to {body}"),
        *(f"It is acceptable to {body}", f"You are free to {body}", f"You can {body}"),
    ]
    if not re.search(r"\byou", body):
        forms += [f"Everyone may {body}", f"Anyone is free to {body}", f"Users may {body}"]
    if done := gerund(body):
        forms += [f"{done} is allowed", f"{done} is permitted here", f"We allow {done}", f"Allowed: {done}"]
    if is_about_content(body):
        forms += [f"Content may {body}"]
        if does := third_person(body):
            forms += [f"We allow content that {does}", f"Content that {does} is allowed"]
    return forms


def _act_of(subject: str, body: str) -> list[str]:
    some = Rule(kind="act", subject=subject, body=body).agent
    forms = [
        *(f"{subject} may {body}", f"{subject} can {body}", f"We allow {some} to {body}"),
        *(f"It is acceptable for {some} to {body}", f"It is fine for {some} to {body}"),
    ]
    if is_plural(subject):
        forms += [f"{subject} are allowed to {body}", f"{subject} are free to {body}"]
    if subject.lower() == "content" and (does := third_person(body)):
        forms += [f"We allow content that {does}", f"Content that {does} is allowed"]
    return forms


def _thing(rule: Rule, body: str) -> list[str]:
    forms = [f"We allow {body}", f"We permit {body}", f"Allowed: {body}"]
    if len(body.split()) <= _MAX_WORDS_BEFORE_COLON:
        forms.append(f"{body}: allowed")
    if rule.copula:
        forms += [f"{body} {rule.copula} {word}" for word in ("allowed", "permitted", "acceptable here")]
    return forms


def _waivers(subject: str, body: str) -> list[str]:
    if not subject:
        return [
            *(f"You need not {body}", f"It is not necessary to {body}", f"There is no duty to {body}"),
            *(f"We do not require anyone to {body}", f"Nobody has to {body}"),
        ]
    some = Rule(kind="duty", subject=subject, body=body).agent
    return [
        *(f"{subject} need not {body}", f"It is not necessary for {some} to {body}"),
        *(f"We do not require {some} to {body}", f"There is no need for {some} to {body}"),
    ]
