"""Verbs of rules in other forms: "post, share or sell" as "posting, sharing or selling".

Done only where every verb of a list is a known one, and nothing later in the phrase may be a verb too; None otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

__all__ = ["GERUNDS", "VERBS", "gerund", "third_person"]

_LINES = (Path(__file__).parents[1] / "library" / "verbs.txt").read_text(encoding="utf-8").splitlines()
VERBS = frozenset(line.split()[0] for line in _LINES)
"""Verbs in which rules are written, in base form."""
_IRREGULAR = dict(line.split() for line in _LINES if " " in line)
_PARTICLE = r"(?: (?:in|on|to|for|with|by|from|about|against|out|up|off|into|over|at|of))?"
_DETERMINER = (
    r"(?:the|an?|any|all|its?|their|them|his|her|him|your|you|our|this|that|these|those|others?|someone"
    r"|anyone|people|such|oneself|themselves)"
)
_LIST_MARK = r"(?:,(?: (?:or|and))?|(?:,? (?:or|and)))"
_ADVERB = r"(?:(?:not|otherwise|[a-z]+ly) )?"
_HEAD_MORE = re.compile(rf"(?P<mark>{_PARTICLE}{_LIST_MARK} {_ADVERB})(?P<verb>[a-z][a-z-]*)\b")
_LATER = re.compile(
    rf"(?:,? (?:or|and|but|nor|then)|,)(?: not| to| otherwise)? {_ADVERB}(?P<word>[a-z][a-z-]*)(?P<next> [a-z]+)?"
)


@lru_cache(maxsize=16384)
def gerund(phrase: str) -> str | None:
    """ "post, share or sell drugs" as "posting, sharing or selling drugs"; None where that is not safe."""
    return _inflected(phrase, _gerund_of)


@lru_cache(maxsize=16384)
def third_person(phrase: str) -> str | None:
    """ "promote or praise violence" as "promotes or praises violence"; None where that is not safe."""
    return _inflected(phrase, _third_person_of)


def _inflected(phrase: str, inflect: Callable[[str], str]) -> str | None:
    first = re.match(rf"{_ADVERB}(?P<verb>[a-z][a-z-]*)\b", phrase)
    if first is None or first["verb"] not in VERBS:
        return None
    parts = [phrase[: first.start("verb")], inflect(first["verb"])]
    end = first.end()
    while more := _HEAD_MORE.match(phrase, end):
        if more["verb"] not in VERBS:
            return None
        parts += [more["mark"], inflect(more["verb"])]
        end = more.end()
    rest = phrase[end:]
    return None if _holds_a_verb(rest) else "".join(parts) + rest


def _holds_a_verb(rest: str) -> bool:
    """Whether a list later in the phrase may go on with a verb, which would need inflection too."""
    for match in _LATER.finditer(rest):
        followed = re.fullmatch(_DETERMINER, (match["next"] or "").strip())
        if match["word"] in VERBS or (followed and not re.fullmatch(_DETERMINER, match["word"])):
            return True
    return False


def _gerund_of(verb: str) -> str:
    if verb in _IRREGULAR:
        return _IRREGULAR[verb]
    if verb.endswith("e") and not verb.endswith(("ee", "oe", "ye")):
        return verb[:-1] + "ing"
    return verb + "ing"


def _third_person_of(verb: str) -> str:
    if verb.endswith(("s", "x", "z", "ch", "sh", "o")):
        return verb + "es"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ies"
    return verb + "s"


GERUNDS = frozenset(_gerund_of(verb) for verb in VERBS)
