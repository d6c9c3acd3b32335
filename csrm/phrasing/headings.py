"""The names of categories: how people write them as headings, and what they can stand for in a sentence."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from csrm.configurations import Clause
from csrm.phrasing.grammar import sentence

__all__ = ["names_harm", "restyle_heading", "topic"]

_PARENTHESIS = re.compile(r"\s*\([^()]*\)")
_AMPERSAND = re.compile(r"\s*&\s*")
_CAPITALISED = re.compile(r"\W*[A-Z][a-z'’]*(?:[-/][A-Za-z][a-z]*)*\W*")
_NUMBER = re.compile(r"^\d+[.)]\s+")

# "No spam." says what a rule on spam says; "No academic integrity." does not say what one on integrity does.
_HARM = re.compile(
    r"hate|harass|bully|violen|gore|threat|incite|extremis|terroris|exploit|abus|sexual|nud(?:e|ity)|porn|prostitut"
    r"|traffick|drug|weapon|firearm|illegal|illicit|crim(?:e|inal)|fraud|scam|spam|phish|malware|malicious|hack"
    r"|impersonat|decept|deceit|misinfo|misrepresent|disinfo|manipulated|suicid|self-(?:harm|injury)|gambl|insult"
    r"|brib|corrupt|discriminat|doxx|non-consensual|unauthori[sz]ed|prejudice|slur|profan|racis|sexis|cruelty"
    r"|cheating|plagiari|dangerous|theft|piracy|stereotyp|conspirac|torture|biased|blackmail|extortion|stalking",
    re.I,
)
_NO_HARM = re.compile(
    r"integrity|safety|privacy|complian|protect|(?<!in)security|transparen|fair|oversight|equit|equal|anti-|anti\b"
    r"|non-(?!consensual)|ethic|(?<!in)authentic|accountab|conduct|propert|respect|rights|health(?! misinfo)|civic"
    r"|election|policy|policies|enforcement|mitigation|prevention|preventing|fitness|responsib|support|account"
    r"|agreement|allow|prohibit|forbid|permit|banned|\bno\b|not\b|categories|compensation|dealings|education|control"
    r"|reporting|awareness|detection|record",
    re.I,
)


def names_harm(category: str) -> bool:
    """Whether a category names what its rules forbid ("Hate Speech") and not what they guard ("Child Safety")."""
    return bool(_HARM.search(category)) and not _NO_HARM.search(category)


def topic(category: str, joint: str = "and") -> str:
    """A category as it stands within a sentence: "Drugs & Weapons (illegal)" as "drugs and weapons"."""
    text = _NUMBER.sub("", _PARENTHESIS.sub("", category)).replace("_", " ").strip(" :#.–—-")
    if joint != "and":
        text = re.sub(r"\s+and\s+", f" {joint} ", text)
    text = _AMPERSAND.sub(f" {joint} ", text)
    return " ".join(word.lower() if _CAPITALISED.fullmatch(word) else word for word in text.split())


def _snake(category: str) -> str:
    return re.sub(r"\W+", "_", category.lower()).strip("_")


def _title(category: str) -> str:
    return " ".join(word[:1].upper() + word[1:] for word in category.split())


def _sentence_case(category: str) -> str:
    words = topic(category)
    return words[:1].upper() + words[1:]


_AS_WRITTEN = 4
"""How many chances of its own a heading has to stay as it is; every other style has one."""
_STYLES: tuple[Callable[[str, int], str], ...] = (
    lambda category, number: category.upper(),
    lambda category, number: " ".join(word[:1].upper() + word[1:] for word in category.split()),
    lambda category, number: re.sub(r"\W+", "_", category.lower()).strip("_"),
    lambda category, number: sentence(topic(category)).rstrip("."),
    lambda category, number: category.lower(),
    lambda category, number: f"{category}:",
    lambda category, number: f"{number}. {category}",
    lambda category, number: "",
)


def restyle_heading(clause: Clause, rng: np.random.Generator) -> Clause:
    """The clause with its category written in another style, or left out; the guideline stays.

    Styles: as written, capitals, title, snake case, sentence case, small letters, a colon after it, "3. " before
    it, none at all.
    """
    choice = int(rng.integers(_AS_WRITTEN + len(_STYLES)))
    number = int(rng.integers(1, 25))
    if not clause.category or choice < _AS_WRITTEN:
        return clause
    return Clause(category=_STYLES[choice - _AS_WRITTEN](clause.category, number), guideline=clause.guideline)
