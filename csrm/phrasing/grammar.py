"""What a written rule says, taken apart so that it can be said in other words.

English rules are written in few ways: "Do not post …", "Content must not promote …", "Posting … is prohibited",
"Students must cite …". `parse` finds which, and yields the act or the thing that the rule is about; a rule that is
built in any other way is kept whole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from csrm.phrasing.inflection import GERUNDS, VERBS

__all__ = [
    "Rule",
    "decapitalised",
    "is_about_content",
    "is_people",
    "is_plural",
    "parse",
    "sentence",
]

_DUTY_VERBS = VERBS | {"adhere", "pilot-test", "remediate", "respect", "secure", "treat"}
_NOT = r"(?:\s+not|n['’]t)"
_NEGATED_MODAL = rf"(?:(?:must|may|should|shall|can|will){_NOT}|cannot|can['’]t|must never|should never|may never)"
_FORBIDDEN = (
    r"(?:(?:strictly|expressly|absolutely) )?(?:prohibited|forbidden|banned|disallowed|unacceptable|off[- ]limits"
    r"|not (?:allowed|permitted|acceptable|tolerated|ok|okay|accepted))"
)
_SUBJECT = r"(?P<subject>(?:(?!\b(?:must|may|should|shall|cannot|can|will)\b)[^;:]){1,120}?)"
_IMPERATIVE_NOT = re.compile(r"(?:(?:please )?do not|(?:please )?don['’]t|never)\s+(?P<body>.+)", re.I)
_MODAL_NOT = re.compile(rf"{_SUBJECT}\s+{_NEGATED_MODAL}\s+(?P<body>.+)", re.I)
_IS_FORBIDDEN = re.compile(rf"(?P<body>[^;]+?),?\s+(?P<be>is|are)\s+{_FORBIDDEN}(?P<more>\s[^;]+)?", re.I)
_FORBID_THING = re.compile(
    r"(?P<by>no|prohibit|forbid|ban|avoid|refrain from|we (?:do not|don['’]t) (?:allow|permit|accept|tolerate)"
    r"|we (?:prohibit|forbid|ban))\s+(?P<body>.+)",
    re.I,
)
_MODAL = re.compile(rf"{_SUBJECT}\s+(?:must|shall|should)\s+(?P<body>.+)", re.I)
_GROUPS = (
    r"(?:users|employees|workers|students|senders|developers|managers|members|teachers|staff|people|creators"
    r"|moderators|customers|agents|sellers|contractors|supervisors|educators|parents|players|guests|personnel)"
)
_PEOPLE = re.compile(rf"\b{_GROUPS}$", re.I)
# "No one may …", "We do not allow users to …", "Prohibit bots from …": what follows is not the thing itself.
_SOMEBODY_DOES = re.compile(
    r"\bfrom \w+ing\b|^(?:(?!that|which)[\w-]+ ){1,3}(?:may|must|can|should|shall|will)\b"
    rf"|^(?:you|anyone|anybody|(?:[\w-]+ )?{_GROUPS}) to \w+",
    re.I,
)
_CONTENT_DOES = re.compile(
    r"(?:promote|encourage|glorify|glamori[sz]e|depict|show|incite|praise|dehumani[sz]e|mock|insult|sexuali[sz]e"
    r"|facilitate|celebrate|advocate|justify|disparage|demean|advertise|endorse|normali[sz]e|misrepresent|portray"
    r"|describe|display|explain|contain|include|target|ridicule|degrade)\b"
)
_ACTS_ITSELF = re.compile(r"\byou|\b(?:intent|others? to|while|without|when|unless)\b")
_SUBORDINATE = re.compile(
    r"(?:if|when|while|where|although|unless|during|before|after|in|on|under|it|no one|nobody|no|this|there|for)\b",
    re.I,
)
# A second direction inside the rule: rewriting the first alone would break the sentence, or its sense.
_SECOND = re.compile(
    rf"\b(?:do not|don['’]t|does not have to|never|{_NEGATED_MODAL}|must|need not|is (?:allowed|permitted|prohibited)"
    rf"|are (?:allowed|permitted|prohibited)|^(?:allow|permit)|(?<=and )no|(?<=or )no|(?<=but )no)\b(?! be able)",
    re.I,
)
_QUOTED = re.compile(r"'[^']{1,60}'|\"[^\"]{1,60}\"|“[^”]{1,60}”|\([^()]*\)")
_TAIL = re.compile(r";\s+|(?<=[a-z)][.!?])\s+(?=[A-Z])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule taken apart. Texts bear no final stop."""

    kind: Literal["act", "thing", "duty", "other"]
    """Forbids doing `body`; forbids the thing `body`; demands doing `body`; anything else (body is all of it)."""
    subject: str
    """Who must (not), as written; empty for imperatives."""
    body: str
    """Verb phrase in base form (act, duty), or noun phrase (thing), in lower case where it is a sentence's first."""
    copula: Literal["is", "are", ""] = ""
    """What agrees with a thing, where that is known."""
    tail: str = ""
    """What stands after a semicolon or a full stop, as written."""

    @property
    def agent(self) -> str:
        """The subject as it stands within a sentence."""
        return decapitalised(self.subject)


@lru_cache(maxsize=16384)
def parse(guideline: str) -> Rule:
    """Take a guideline apart; what is not understood comes back whole, as kind "other"."""
    core, tail = _split(guideline)
    rule = _prohibition(core) or _duty(core)
    if rule is None or _SECOND.search(_QUOTED.sub("", rule.body)):
        return Rule(kind="other", subject="", body=guideline.rstrip(" ."))
    return replace(rule, tail=tail)


def _prohibition(core: str) -> Rule | None:
    if match := _IMPERATIVE_NOT.fullmatch(core):
        return Rule(kind="act", subject="", body=match["body"])
    if match := _FORBID_THING.fullmatch(core):
        if _SOMEBODY_DOES.search(match["body"]):
            return None
        body = decapitalised(match["body"])
        return Rule(kind="thing", subject="", body=body, copula="is" if body.split()[0] in GERUNDS else "")
    if _SUBORDINATE.match(core):
        return None
    if match := _MODAL_NOT.fullmatch(core):
        return Rule(kind="act", subject=match["subject"], body=match["body"])
    if (match := _IS_FORBIDDEN.fullmatch(core)) and not match["more"]:
        copula: Literal["is", "are"] = "are" if match["be"].lower() == "are" else "is"
        return Rule(kind="thing", subject="", body=decapitalised(match["body"]), copula=copula)
    return None


def _duty(core: str) -> Rule | None:
    if match := _MODAL.fullmatch(core):
        return None if _SUBORDINATE.match(core) else Rule(kind="duty", subject=match["subject"], body=match["body"])
    words = [word.lower().strip(",") for word in core.split(maxsplit=2)[:2]] or [""]
    verb = words[-1] if len(words) == 2 and words[0].endswith("ly") and words[0] not in _DUTY_VERBS else words[0]
    return Rule(kind="duty", subject="", body=decapitalised(core)) if verb in _DUTY_VERBS else None


def _split(guideline: str) -> tuple[str, str]:
    """The first sentence without its stop, and what follows it."""
    match = _TAIL.search(guideline)
    core, tail = (guideline[: match.start()], guideline[match.end() :]) if match else (guideline, "")
    return core.rstrip(" .;!"), tail


def is_people(subject: str) -> bool:
    """Whether a rule's subject is plural and a group of people: "Users", "Supervisors and managers"."""
    return bool(_PEOPLE.search(subject))


def is_plural(subject: str) -> bool:
    """Whether a rule's subject is surely plural."""
    is_each = re.match(r"(?:each|every|an?|one|this|the (?:response|reply))\b", subject, re.I)
    return not is_each and (is_people(subject) or bool(re.fullmatch(r"(?:[\w-]+ ){0,2}\w+[^sui]s", subject)))


def is_about_content(body: str) -> bool:
    """Whether content may be said to do this, as it may promote or depict, but not buy or threaten to hit."""
    return bool(_CONTENT_DOES.match(body)) and not _ACTS_ITSELF.search(body)


def decapitalised(text: str) -> str:
    """Text as it stands within a sentence: names in capitals (AI, FERPA) and mixed case (iPhone) keep theirs."""
    word = re.match(r"[\w'’]+", text)
    if word is None or (len(word[0]) > 1 and word[0][1:] != word[0][1:].lower()) or word[0] == "I":
        return text
    return text[0].lower() + text[1:]


def sentence(text: str, *, capital: bool = True) -> str:
    """Text with a capital and a final stop."""
    text = text.strip()
    first = text[:1].upper() if capital else text[:1]
    return first + text[1:] + ("" if text.endswith((".", "!", "?", ".”", '."')) else ".")
