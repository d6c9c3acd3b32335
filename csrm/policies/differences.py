"""What changed between two versions of safety configurations, and which columns of a matrix that makes stale."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import product
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from csrm.configurations import Clause, Configuration

__all__ = ["Difference", "Reworded", "differences"]

ALIKE = 0.6
"""Share of two texts that agrees from which one counts as the other in new words (`difflib`'s ratio)."""


class Reworded(NamedTuple):
    """A clause in its old and its new words."""

    before: Clause
    after: Clause


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One configuration in two versions."""

    id: str
    status: Literal["added", "removed", "changed", "same"]
    is_scored_anew: bool = False
    """Whether `csrm score` redoes its column: its scores depend on its id, context and clauses alone."""
    added: tuple[Clause, ...] = ()
    removed: tuple[Clause, ...] = ()
    reworded: tuple[Reworded, ...] = ()
    context: tuple[str, str] | None = None
    """Old and new, where they differ; so the next two."""
    threshold: tuple[float, float] | None = None
    title: tuple[str, str] | None = None


def differences(old: Iterable[Configuration], new: Iterable[Configuration]) -> list[Difference]:
    """Compare two sets of configurations by id; in order of ids."""
    before, after = {c.id: c for c in old}, {c.id: c for c in new}
    return [_difference(id, before.get(id), after.get(id)) for id in sorted(before | after)]


def _difference(id: str, before: Configuration | None, after: Configuration | None) -> Difference:
    if before is None and after is not None:
        return Difference(id=id, status="added", is_scored_anew=True, added=after.clauses)
    if before is not None and after is None:
        return Difference(id=id, status="removed", removed=before.clauses)
    assert before is not None
    assert after is not None
    removed = [clause for clause in before.clauses if clause not in after.clauses]
    added = [clause for clause in after.clauses if clause not in before.clauses]
    reworded = _pairs(removed, added)
    is_scored_anew = before.fingerprint != after.fingerprint
    context, threshold, title = (
        (getattr(before, name), getattr(after, name)) if getattr(before, name) != getattr(after, name) else None
        for name in ("context", "threshold", "title")
    )
    return Difference(
        id=id,
        status="changed" if is_scored_anew or threshold or title else "same",
        is_scored_anew=is_scored_anew,
        added=tuple(clause for clause in added if clause not in [pair.after for pair in reworded]),
        removed=tuple(clause for clause in removed if clause not in [pair.before for pair in reworded]),
        reworded=reworded,
        context=context,
        threshold=threshold,
        title=title,
    )


def _pairs(removed: Sequence[Clause], added: Sequence[Clause]) -> tuple[Reworded, ...]:
    """Clauses that went, each with the one that came in its place: the most alike first, each used once."""
    scored = sorted(((_likeness(old, new), o, n) for (o, old), (n, new) in product(*map(enumerate, (removed, added)))))
    pairs: dict[int, int] = {}
    for likeness, o, n in reversed(scored):
        if likeness >= ALIKE and o not in pairs and n not in pairs.values():
            pairs[o] = n
    return tuple(Reworded(removed[o], added[n]) for o, n in sorted(pairs.items()))


def _likeness(old: Clause, new: Clause) -> float:
    """A clause of the same category is the same clause in other words, whatever these are."""
    if old.category and old.category.casefold() == new.category.casefold():
        return 1.0 + SequenceMatcher(None, old.guideline, new.guideline).ratio()
    return SequenceMatcher(None, old.guideline.casefold(), new.guideline.casefold()).ratio()
