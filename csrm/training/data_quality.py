"""What is wrong with training data, counted and left out rather than learned.

Two rows with one text and one clause but different labels teach nothing, and nobody can tell which of them is right:
all copies go. Rows that share a prompt with evaluation data would turn its figures into memory.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from csrm.configurations import Clause
from csrm.labelled import LabelledRow, PreferenceRow, only, share_prompts
from csrm.messages import Message

__all__ = ["Quality", "clean_preferences", "clean_rows", "survey"]

JUDGEMENT_COLUMNS = frozenset({"id", "source", "split", "domain", "messages", "clauses"})
PREFERENCE_COLUMNS = frozenset({"id", "source", "split", "messages", "prompt", "chosen", "rejected"})
EVALUATION_SPLIT = "eval"


@dataclass(slots=True)
class Quality:
    """How many rows were read, and what was left out and why."""

    num_read: int = 0
    num_kept: int = 0
    unknown_columns: Counter[str] = field(default_factory=Counter)
    """Columns that nothing reads, with the number of rows that have them."""
    null_labels: int = 0
    """Labels that are null; the row keeps its others."""
    without_labels: int = 0
    evaluation_rows: int = 0
    """Rows that say themselves that they are for evaluation."""
    shared_prompts: int = 0
    """Rows that share a prompt with an excluded file."""
    empty_texts: int = 0
    """Rows whose judged message (or a reply of a pair) says nothing."""
    too_long: int = 0
    contradicting_labels: int = 0
    """(row, clause) labels of which another copy says the opposite; a row left without labels goes too."""
    contradicting_rows: int = 0
    """Rows that went because all their labels contradict other copies'."""
    duplicates: int = 0
    """Further copies of a row, labels and all."""
    equal_replies: int = 0
    """Preference pairs whose replies are the same."""

    def lines(self) -> list[str]:
        """One line per finding that there is."""
        found = {
            "labels that are null": self.null_labels,
            "rows without a known label": self.without_labels,
            f"rows whose split is {EVALUATION_SPLIT!r}": self.evaluation_rows,
            "rows that share a prompt with an excluded file": self.shared_prompts,
            "rows with an empty text": self.empty_texts,
            "rows too long": self.too_long,
            "labels that contradict another copy's": self.contradicting_labels,
            "rows left without labels by that": self.contradicting_rows,
            "exact duplicates": self.duplicates,
            "pairs of equal replies": self.equal_replies,
        }
        lines = [f"left out: {count:,} {what}" for what, count in found.items() if count]
        columns = ", ".join(f"{name} ({count:,})" for name, count in sorted(self.unknown_columns.items()))
        return lines + ([f"columns not read: {columns}"] if columns else [])

    def to_json(self) -> dict[str, Any]:
        """Plain counts, those that are 0 left out."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: dict(v) if isinstance(v, Counter) else v for name, v in values.items() if v}


def survey(raw_rows: Iterable[Mapping[str, Any]], columns: frozenset[str], quality: Quality) -> set[str]:
    """Count what only the raw rows show; returns the ids of rows marked for evaluation.

    Args:
        raw_rows: objects of one file, in order.
        columns: what is read of them.
        quality: where to count.
    """
    marked = set()
    for number, raw in enumerate(raw_rows, start=1):
        quality.num_read += 1
        quality.unknown_columns.update(raw.keys() - columns)
        if raw.get("split") == EVALUATION_SPLIT:
            marked.add(str(raw.get("id", number)))
        if "clauses" in columns:
            labels = [clause.get("violated") for clause in raw.get("clauses", ()) if isinstance(clause, Mapping)]
            quality.null_labels += labels.count(None)
            quality.without_labels += labels.count(None) == len(labels)
        else:
            quality.equal_replies += raw.get("chosen") == raw.get("rejected")
    return marked


def clean_rows(
    rows: Sequence[LabelledRow], quality: Quality, *, excluded: Container[str] = (), max_characters: int
) -> list[LabelledRow]:
    """Rows worth learning from.

    Args:
        rows: of all files together, for copies may lie in different ones.
        quality: where to count.
        excluded: normalised prompts; see `csrm.labelled.prompts`.
        max_characters: longer conversations are left out.
    """
    sound = [row for row in rows if _is_sound([row.conversation], quality, excluded, max_characters)]
    kept = _without_duplicates(_without_contradictions(sound, quality), quality)
    quality.num_kept += len(kept)
    return kept


def clean_preferences(
    rows: Iterable[PreferenceRow], quality: Quality, *, excluded: Container[str] = (), max_characters: int
) -> list[PreferenceRow]:
    """Preference pairs worth learning from; those whose split is "eval" never are."""
    kept = []
    for row in rows:
        if row.split == EVALUATION_SPLIT:
            quality.evaluation_rows += 1
        elif _is_sound(row.replies(), quality, excluded, max_characters):
            kept.append(row)
    quality.num_kept += len(kept)
    return kept


def _is_sound(
    conversations: Sequence[Sequence[Message]], quality: Quality, excluded: Container[str], max_characters: int
) -> bool:
    """Count what is wrong with a row, if anything; the conversations are one row's."""
    if any(share_prompts(conversation, excluded) for conversation in conversations):
        quality.shared_prompts += 1
    elif not all(conversation[-1].content.strip() for conversation in conversations):
        quality.empty_texts += 1
    elif any(sum(len(message.content) for message in talk) > max_characters for talk in conversations):
        quality.too_long += 1
    else:
        return True
    return False


def _without_contradictions(rows: Sequence[LabelledRow], quality: Quality) -> list[LabelledRow]:
    said: defaultdict[tuple[tuple[Message, ...], Clause], set[bool]] = defaultdict(set)
    for row in rows:
        for clause, violated in zip(row.clauses, row.violated, strict=True):
            said[tuple(row.conversation), clause].add(violated)
    kept = []
    for row in rows:
        agreed = [len(said[tuple(row.conversation), clause]) == 1 for clause in row.clauses]
        quality.contradicting_labels += agreed.count(False)
        if any(agreed):
            kept.append(only(row, agreed))
        else:
            quality.contradicting_rows += 1
    return kept


def _without_duplicates(rows: Iterable[LabelledRow], quality: Quality) -> list[LabelledRow]:
    first: dict[object, LabelledRow] = {}
    for row in rows:
        labels = frozenset(zip(row.clauses, row.violated, strict=True))
        if first.setdefault((tuple(row.conversation), labels), row) is not row:
            quality.duplicates += 1
    return list(first.values())
