"""One rule in many wordings, so that a model learns what a clause says and not how it is put.

`restyle` re-words a prohibition or an obligation without changing what it forbids or demands; `mixed` joins a
prohibition with a permission of something else, as written policies do; `mixed_permission` joins them the other
way round. A rule that cannot be taken apart safely (`csrm.phrasing.grammar`) keeps its own sentence and changes only
its heading and what surrounds it.
"""

from __future__ import annotations

import re

import numpy as np

from csrm.configurations import Clause
from csrm.dice import one_of
from csrm.phrasing.grammar import (
    Rule,
    decapitalised,
    is_about_content,
    is_people,
    is_plural,
    parse,
    sentence,
)
from csrm.phrasing.headings import names_harm, restyle_heading, topic
from csrm.phrasing.inflection import gerund, third_person
from csrm.phrasing.permissions import allowances, permission
from csrm.phrasing.remarks import remarked

__all__ = ["mixed", "mixed_permission", "prohibitions", "restyle"]

_TERSE = 0.1
_MAX_WORDS_BEFORE_VERB = 22
"""The longest subject of "… is prohibited" that a reader still follows."""
_FORBIDDEN = ("prohibited", "forbidden", "not allowed", "not permitted", "against our rules")
_DISCUSSION = (
    "general discussion of {topic} is fine",
    "neutral discussion of {topic} is allowed",
    "talking about {topic} in general terms is permitted",
    "news and education about {topic} are welcome",
)


def restyle(clause: Clause, rng: np.random.Generator, *, terse: bool = True) -> Clause:
    """The clause in other words, with its heading in another style.

    Args:
        clause: a prohibition or an obligation.
        rng: source of randomness; the text is a function of the clause and its state.
        terse: whether "No {category}." may stand for the whole guideline, where the category names the harm. It
            is wider than the guideline, so leave it out where a label depends on the guideline's details.
    """
    forms = prohibitions(clause)
    guideline = one_of(forms, rng)
    is_terse = rng.random() < _TERSE
    if terse and is_terse and names_harm(clause.category) and parse(clause.guideline).kind in {"act", "thing"}:
        guideline = f"No {topic(clause.category, 'or')}."
    return restyle_heading(remarked(Clause(category=clause.category, guideline=guideline), rng), rng)


def mixed(clause: Clause, other: Clause, rng: np.random.Generator) -> Clause:
    """A clause that forbids what `clause` forbids and allows what `other` is about: its label is that of `clause`.

    `other` must be about something else, or the result contradicts itself.
    """
    forms = prohibitions(clause)
    forbidding = one_of(forms, rng)
    return restyle_heading(_joined(clause, forbidding, _allowing(other, rng), rng), rng)


def mixed_permission(clause: Clause, other: Clause, rng: np.random.Generator) -> Clause:
    """A clause that allows what `clause` forbids and forbids what `other` does: its label is that of `other`.

    `other` must be about something else, or the result contradicts itself.
    """
    turned = allowances(clause)
    allowing = one_of(turned, rng) if turned else permission(clause, rng).guideline
    forms = prohibitions(other)
    return restyle_heading(_joined(clause, one_of(forms, rng), allowing, rng), rng)


def prohibitions(clause: Clause) -> list[str]:
    """Wordings of the guideline, its own first, each a sentence or more."""
    rule = parse(clause.guideline)
    if rule.kind == "duty":
        forms = _duty_of(rule) if rule.subject else _duty(rule)
    elif rule.kind == "thing":
        forms = _thing(rule)
    elif rule.kind == "act":
        forms = _act_of(rule) if rule.subject else _act(rule)
    else:
        return [clause.guideline, f"Rule: {clause.guideline}", f"Our policy: {clause.guideline}"]
    tail = f" {sentence(rule.tail)}" if rule.tail else ""
    return [clause.guideline, *(sentence(form) + tail for form in forms)]


def _allowing(other: Clause, rng: np.random.Generator) -> str:
    about = topic(other.category) or "other subjects"
    forms = [form.format(topic=about) for form in _DISCUSSION]
    turned = allowances(other)
    if turned and rng.random() < 1 / 2:
        forms = turned
    return one_of(forms, rng)


def _joined(clause: Clause, forbidding: str, allowing: str, rng: np.random.Generator) -> Clause:
    """Both sentences in one guideline, in either order."""
    first, second = (forbidding, allowing) if rng.random() < 1 / 2 else (allowing, forbidding)
    if rng.random() < 1 / 2:
        guideline = f"{sentence(first)} {sentence(second)}"
    else:
        guideline = f"{sentence(first)[:-1]}; {sentence(decapitalised(second), capital=False)}"
    return Clause(category=clause.category, guideline=guideline)


def _act(rule: Rule) -> list[str]:
    body = rule.body
    forms = [
        *(f"Do not {body}", f"Please do not {body}", f"You must not {body}", f"You may not {body}"),
        *(f"It is forbidden to {body}", f"It is not permitted to {body}", f"It is against our rules to {body}"),
        *(f"You are not allowed to {body}", f"Rule: do not {body}"),
    ]
    if not re.match(r"\w+ly\b", body):
        forms.append(f"Never {body}")
    if not re.search(r"\byou", body):
        forms += [f"Nobody may {body}", f"No one is allowed to {body}", f"We do not allow anyone to {body}"]
        if is_about_content(body):
            forms += _content(body)
    if done := gerund(body):
        forms += _thing(Rule(kind="thing", subject="", body=done, copula="is"))
    return forms


def _content(body: str) -> list[str]:
    forms = [f"Content must not {body}", f"Content may not {body}", f"Posts must never {body}"]
    if does := third_person(body):
        forms += [f"We do not allow content that {does}", f"No content that {does}", f"Forbidden: content that {does}"]
        if len(body.split()) <= _MAX_WORDS_BEFORE_VERB:
            forms += [f"Content that {does} is prohibited", f"Content that {does} is not accepted here"]
    return forms


def _act_of(rule: Rule) -> list[str]:
    subject, some, body = rule.subject, rule.agent, rule.body
    forms = [
        *(f"{subject} must not {body}", f"{subject} may not {body}", f"{subject} must never {body}"),
        *(f"It is forbidden for {some} to {body}", f"We do not allow {some} to {body}"),
        *(f"It is not acceptable for {some} to {body}", f"Rule: {some} must not {body}"),
    ]
    if subject.lower() == "content":
        forms += _content(body)
    elif is_people(subject):
        forms.append(f"{subject} are not allowed to {body}")
        if done := gerund(body):
            forms.append(f"{subject} are prohibited from {done}")
    elif is_plural(subject) and len(subject.split()) == 1 and not re.match(r"(?:be|have)\b", body):
        forms += [f"We do not allow {some} that {body}", f"No {some} that {body}", f"Forbidden: {some} that {body}"]
    elif (one := re.fullmatch(r"the (response|reply|answer|message)", some)) and (does := third_person(body)):
        forms += [f"We do not accept a {one[1]} that {does}", f"A {one[1]} that {does} breaks our rules"]
    return forms


def _thing(rule: Rule) -> list[str]:
    body = rule.body
    forms = [
        *(f"We do not allow {body}", f"We prohibit {body}", f"We do not tolerate {body}"),
        *(f"Prohibited: {body}", f"Not allowed: {body}"),
    ]
    if not re.match(r"(?:the|an?|all|every|each|\w+ly)\b", body) and not re.search(r"\byou", body):
        forms.append(f"No {body.removeprefix('any ')}")
    if len(body.split()) <= _MAX_WORDS_BEFORE_VERB and rule.copula:
        forms += [f"{body} {rule.copula} {word}" for word in _FORBIDDEN]
    return forms


def _duty(rule: Rule) -> list[str]:
    body = rule.body
    forms = [body, f"You must {body}", f"It is mandatory to {body}", f"Rule: {body}", f"You are required to {body}"]
    if not re.match(r"(?:ensure|make sure|require)\b", body):
        forms.append(f"Make sure to {body}")
    if not re.search(r"\byou", body):
        forms += [f"We require everyone to {body}", f"Everyone must {body}"]
    return forms


def _duty_of(rule: Rule) -> list[str]:
    subject, some, body = rule.subject, rule.agent, rule.body
    forms = [
        *(f"{subject} must {body}", f"{subject} shall {body}", f"It is mandatory for {some} to {body}"),
        *(f"We require {some} to {body}", f"Rule: {some} must {body}"),
    ]
    if is_plural(subject):
        forms.append(f"{subject} are required to {body}")
    return forms
