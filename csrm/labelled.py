"""Labelled rows: conversations with human or written labels for some clauses, read from JSON Lines.

Shape of a row: `{id, source, messages, clauses: [{category, guideline, violated}]}`, optionally `domain`.
`violated` is true, false or null; a null label is unknown and its clause is dropped from the row.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csrm.configurations import Clause
from csrm.conversations import Message, as_conversation
from csrm.errors import InputError, RecordError

__all__ = ["BinaryRow", "LabelledRow", "holdout", "read_binary", "read_json_lines", "read_labelled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledRow:
    """A conversation and the clauses whose violation by its last message is known."""

    id: str
    domain: str
    """What the text is about (`social`, `hr`, …); clauses of other domains are presumed not violated."""
    conversation: list[Message]
    clauses: tuple[Clause, ...]
    violated: tuple[bool, ...]
    """One label per clause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BinaryRow:
    """A conversation whose last message is harmful or not under a general policy."""

    id: str
    conversation: list[Message]
    harmful: bool


def read_labelled(path: str | Path) -> list[LabelledRow]:
    """Read judgement rows; rows without a known label are left out.

    Raises:
        InputError: a row lacks a field or holds no conversation; the message names file and line.
    """
    return [row for number, raw in read_json_lines(path) if (row := _labelled(path, number, raw)).clauses]


def read_binary(path: str | Path) -> list[BinaryRow]:
    """Read binary rows, `{id, messages, harmful}`."""
    rows = []
    for number, raw in read_json_lines(path):
        conversation, harmful = _conversation(path, number, raw), _field(path, number, raw, "harmful")
        rows.append(BinaryRow(id=str(raw.get("id", number)), conversation=conversation, harmful=bool(harmful)))
    return rows


def read_json_lines(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of each line of a .jsonl or .jsonl.gz file."""
    opener = gzip.open if str(path).endswith(".gz") else open
    try:
        with opener(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                yield number, json.loads(line)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON Lines ({error})") from None


def holdout(rows: Iterable[LabelledRow], share: float) -> tuple[list[LabelledRow], list[LabelledRow]]:
    """Split off a share of the rows, so that no prompt (all but the last message) is on both sides.

    Single messages count as their own prompt. The split is a function of the text alone: stable across runs.

    Returns:
        (kept, held out).
    """
    kept: list[LabelledRow] = []
    held: list[LabelledRow] = []
    for row in rows:
        prompt = [message.content for message in row.conversation[:-1]] or [row.conversation[-1].content]
        digest = hashlib.sha256("\x00".join(prompt).encode()).digest()
        (held if int.from_bytes(digest[:8], "big") < share * 2**64 else kept).append(row)
    return kept, held


def _labelled(path: str | Path, number: int, raw: dict[str, Any]) -> LabelledRow:
    known = [clause for clause in _field(path, number, raw, "clauses") if clause["violated"] is not None]
    return LabelledRow(
        id=str(raw.get("id", number)),
        domain=str(raw.get("domain") or raw.get("source") or ""),
        conversation=_conversation(path, number, raw),
        clauses=tuple(Clause(category=clause["category"], guideline=clause["guideline"]) for clause in known),
        violated=tuple(bool(clause["violated"]) for clause in known),
    )


def _conversation(path: str | Path, number: int, raw: dict[str, Any]) -> list[Message]:
    try:
        return as_conversation(_field(path, number, raw, "messages"))
    except RecordError as error:
        raise InputError(f"{path}, line {number}: {error}") from None


def _field(path: str | Path, number: int, raw: dict[str, Any], name: str) -> Any:
    if name not in raw:
        raise InputError(f"{path}, line {number}: no field {name!r}; this file is of another shape")
    return raw[name]
