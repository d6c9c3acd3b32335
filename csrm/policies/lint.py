"""What is worth mending in safety configurations before anything is scored under them.

An error keeps `csrm score` from starting; a warning is something that a policy's author will hardly have meant.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from csrm.errors import ConfigurationError
from csrm.policies.splitting import split_guideline

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from csrm.configurations import Clause, Configuration

__all__ = ["Finding", "Vectors", "is_permission", "lint", "read_files"]

ALIKE = 0.97
"""Cosine of two clauses' vectors from which they say the same thing.

Of 600 rules of organisations in other words 83 % reach it (csrm-mini), and one in 9,000 pairs of different rules, the
closest of which do say the same.
"""

Vectors = Callable[[Sequence["Clause"]], "NDArray[np.float32]"]
"""Vectors of clauses, of length 1."""

_PERMITS = re.compile(
    r"\b(?:is|are) (?:\w+ )?(?:allowed|permitted|acceptable|welcome|fine|ok|okay|free to)\b"
    r"|\bwe (?:allow|permit)\b|\bpolicy permits\b|^(?:allowed|permitted)\b|: (?:allowed|permitted)\b"
    r"|^(?:[\w’']+ ){1,3}(?:may|can|need not)\b(?! not\b)(?!.*\bonly\b)"
    r"|\bno restrictions?\b|\bdo(?:es)? not (?:apply|restrict)\b|\bhas been lifted\b|\bnobody has to\b"
    r"|\bbreaking it is fine\b|\bwe do not (?:ask|require)\b|\bno need\b|\bnot necessary\b|\bno duty\b",
    re.IGNORECASE,
)
_FORBIDS = re.compile(
    r"\b(?:never|no longer|must not|may not|shall not|cannot|don't|avoid|refuse|prohibit\w*|forbid\w*|disallow\w*"
    r"|(?:is|are) not)\b",
    re.IGNORECASE,
)


class Finding(NamedTuple):
    """Something worth mending."""

    level: Literal["error", "warning"]
    place: str
    """File, and id where one was read."""
    message: str


def read_files(files: Iterable[Path]) -> tuple[list[Configuration], list[Finding]]:
    """Load files one by one, so that one that cannot be read does not hide the others. Ids given twice are errors."""
    from csrm.configurations import load_configurations

    loaded: list[Configuration] = []
    findings: list[Finding] = []
    for file in files:
        try:
            found = load_configurations(file)
        except ConfigurationError as error:
            message = str(error).removeprefix(f"{file}: ")
            findings.append(Finding("error", str(file), message))
            continue
        for one in found:
            taken = next((other for other in loaded if other.id == one.id), None)
            if taken is not None:
                what = "the same rules" if taken.fingerprint == one.fingerprint else "other rules"
                message = f"id is taken by {taken.source}, which has {what}; give each its own id"
                findings.append(Finding("error", _place(one), message))
            loaded.append(one)
    return loaded, findings


def lint(
    configurations: Iterable[Configuration],
    max_tokens: int,
    count_tokens: Callable[[str], int],
    vectors: Vectors | None = None,
) -> list[Finding]:
    """Look at configurations that can be read.

    Args:
        configurations: in any number.
        max_tokens: what the model reads of a clause at once.
        count_tokens: tokens of a clause's text.
        vectors: of clauses; None does not look for one clause under two wordings.
    """
    findings = []
    for configuration in configurations:
        findings += _repeated(configuration)
        findings += _long(configuration, max_tokens, count_tokens)
        findings += _nothing_forbidden(configuration)
        findings += _alike(configuration, vectors) if vectors else []
    return findings


def is_permission(clause: Clause) -> bool:
    """Whether a clause allows something and, as far as its words tell, forbids nothing."""
    match = _PERMITS.search(clause.guideline)
    if match is None:
        return False
    # What follows may be the rule that is lifted; what stands before says who is speaking.
    return not _FORBIDS.search(clause.guideline[: match.start()]) and not _FORBIDS.search(match[0])


def _place(configuration: Configuration) -> str:
    return f"{configuration.source}: {configuration.id}" if configuration.source else configuration.id


def _repeated(configuration: Configuration) -> list[Finding]:
    seen: set[str] = set()
    findings = []
    for number, clause in enumerate(configuration.clauses, start=1):
        text = clause.guideline.casefold()
        if text in seen:
            findings.append(
                Finding("warning", _place(configuration), f"clause {number} repeats an earlier one; drop it")
            )
        seen.add(text)
    return findings


def _long(configuration: Configuration, max_tokens: int, count_tokens: Callable[[str], int]) -> list[Finding]:
    findings = []
    for number, clause in enumerate(configuration.clauses, start=1):
        parts = split_guideline(clause, max_tokens, count_tokens)
        if len(parts) > 1:
            message = (
                f"clause {number} ({clause.category}) has {count_tokens(clause.text)} tokens, the model reads "
                f"{max_tokens} at once: it will be read as {len(parts)} clauses; split it where it makes sense"
            )
            findings.append(Finding("warning", _place(configuration), message))
    return findings


def _nothing_forbidden(configuration: Configuration) -> list[Finding]:
    if not all(map(is_permission, configuration.clauses)):
        return []
    return [Finding("warning", _place(configuration), "forbids nothing: every clause allows something; add a rule")]


def _alike(configuration: Configuration, vectors: Vectors) -> list[Finding]:
    """Clauses that say the same thing; a permission and its prohibition are alike and mean the opposite."""
    clauses = configuration.clauses
    if len(clauses) < 2:
        return []
    vectors_CE = vectors(clauses)
    cosine_CC = vectors_CE @ vectors_CE.T
    findings = []
    for one, other in combinations(range(len(clauses)), 2):
        is_same_kind = is_permission(clauses[one]) == is_permission(clauses[other])
        is_repeated = clauses[one].guideline.casefold() == clauses[other].guideline.casefold()
        if cosine_CC[one, other] >= ALIKE and is_same_kind and not is_repeated:
            message = (
                f"clauses {one + 1} and {other + 1} may say the same thing (cosine {cosine_CC[one, other]:.2f}): "
                f"{clauses[one].category!r}, {clauses[other].category!r}; keep one"
            )
            findings.append(Finding("warning", _place(configuration), message))
    return findings
