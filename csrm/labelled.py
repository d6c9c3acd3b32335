"""Labelled rows, read from files: what training learns from and evaluation measures against.

- judgement: `{id, source, messages, clauses: [{category, guideline, violated}]}`, optionally `domain`. `violated` is
  true, false or null; a null label is unknown and its clause is dropped from the row.
- preference: `{id, messages, chosen, rejected}`: two replies to one history, `chosen` judged the less harmful; also
  Parquet, and with `prompt` for the history and replies as messages, as `csrm pairs` and `csrm rules select` write.
- binary: `{id, messages, harmful}`: harmful or not under a general policy.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from csrm.configurations import Clause
from csrm.conversations import Message, Record, RecordColumns, as_conversation, parse_record
from csrm.errors import InputError, RecordError

__all__ = [
    "BinaryRow",
    "LabelledRow",
    "PreferenceRow",
    "as_pair",
    "hashed_draw",
    "holdout",
    "holdout_clauses",
    "labelled_rows",
    "only",
    "preference_rows",
    "prompts",
    "read_binary",
    "read_json_lines",
    "read_labelled",
    "read_preferences",
    "read_rows",
    "share_prompts",
]

_PAIR = ("chosen", "rejected")


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
    unsure: tuple[Clause, ...] = ()
    """Clauses without a label: neither they nor any like them are presumed kept."""
    lifted_by: Clause | None = None
    """A permission of what the last message does, which lifts the first clause."""
    near_miss: Clause | None = None
    """A permission that comes close to it and lifts nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BinaryRow:
    """A conversation whose last message is harmful or not under a general policy."""

    id: str
    conversation: list[Message]
    harmful: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceRow:
    """Two replies to the same conversation, of which people judged one less harmful."""

    id: str
    conversation: list[Message]
    """What came before the replies."""
    chosen: str
    """The less harmful reply."""
    rejected: str
    split: str = ""
    """The file's own division, such as `train` and `eval`."""

    def replies(self) -> tuple[list[Message], list[Message]]:
        """The conversation as it goes on with the chosen and with the rejected reply."""
        chosen, rejected = (Message("assistant", text) for text in (self.chosen, self.rejected))
        return [*self.conversation, chosen], [*self.conversation, rejected]


def read_labelled(path: str | Path) -> list[LabelledRow]:
    """Read judgement rows; rows without a known label are left out.

    Raises:
        InputError: a row lacks a field or holds no conversation; the message names file and line.
    """
    return labelled_rows(path, read_json_lines(path))


def labelled_rows(path: str | Path, raw_rows: Iterable[tuple[int, dict[str, Any]]]) -> list[LabelledRow]:
    """Judgement rows from the numbered lines of a file; see `read_labelled`."""
    return [row for number, raw in raw_rows if (row := _labelled(path, number, raw)).clauses]


def read_binary(path: str | Path) -> list[BinaryRow]:
    """Read binary rows, `{id, messages, harmful}`."""
    rows = []
    for number, raw in read_json_lines(path):
        conversation, harmful = _conversation(path, number, raw), _field(path, number, raw, "harmful")
        rows.append(BinaryRow(id=str(raw.get("id", number)), conversation=conversation, harmful=bool(harmful)))
    return rows


def read_preferences(path: str | Path) -> list[PreferenceRow]:
    """Read preference rows, JSON Lines or Parquet; pairs of equal replies are left out.

    Raises:
        InputError: a row is no pair of replies to one history; the message names file and line.
    """
    return preference_rows(path, read_rows(path))


def preference_rows(path: str | Path, raw_rows: Iterable[tuple[int, dict[str, Any]]]) -> list[PreferenceRow]:
    """Preference rows from the numbered lines of a file; see `read_preferences`."""
    rows = []
    for number, raw in raw_rows:
        history, chosen, rejected = _pair(path, number, raw)
        if chosen != rejected:
            id, split = str(raw.get("id", number)), str(raw.get("split", ""))
            rows.append(PreferenceRow(id=id, conversation=history, chosen=chosen, rejected=rejected, split=split))
    return rows


def read_rows(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, object) of each row of a .parquet, .jsonl or .jsonl.gz file, the first being 1."""
    if "://" in str(path):
        raise InputError(f"{path}: only local files are read here; copy it first")
    if not str(path).lower().endswith(".parquet"):
        yield from read_json_lines(path)
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            yield from enumerate((row for batch in file.iter_batches(batch_size=1024) for row in batch.to_pylist()), 1)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: not readable as Parquet ({error})") from None


def as_pair(record: Record, columns: RecordColumns | None = None) -> tuple[list[Message], str, str]:
    """History, chosen and rejected reply of a record, in any shape that `csrm.conversations` knows of pairs.

    Raises:
        RecordError: It holds no two replies to one history.
    """
    found = dict(parse_record(record, columns))
    if tuple(found) != _PAIR:
        raise RecordError("no chosen and rejected reply")
    chosen, rejected = found.values()
    if chosen[:-1] != rejected[:-1] or {chosen[-1].role, rejected[-1].role} != {"assistant"}:
        raise RecordError("chosen and rejected are no two replies to one history")
    return chosen[:-1], chosen[-1].content, rejected[-1].content


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
        (held if hashed_draw(*prompt) < share else kept).append(row)
    return kept, held


def holdout_clauses(rows: Iterable[LabelledRow], share: float) -> tuple[list[LabelledRow], list[LabelledRow]]:
    """Split off the rows of a share of the *clauses*, so that no rule is on both sides.

    A model is used on rules it was not trained on, so this is what its calibration must hold for. A row whose
    clauses fall on both sides stays in training without those held out, unless nothing remains.

    Returns:
        (kept, held out).
    """
    kept: list[LabelledRow] = []
    held: list[LabelledRow] = []
    for row in rows:
        is_held = [hashed_draw(clause.category, clause.guideline) < share for clause in row.clauses]
        (held if all(is_held) else kept).append(row if all(is_held) else only(row, [not out for out in is_held]))
    return kept, held


def prompts(conversation: Sequence[Message]) -> set[str]:
    """What the users of a conversation said, in a form that survives changes of case, spacing and punctuation."""
    return {re.sub(r"\W+", " ", message.content.lower()).strip() for message in conversation if message.role == "user"}


def share_prompts(conversation: Sequence[Message], excluded: Container[str]) -> bool:
    """Whether a user of the conversation says one of the excluded prompts."""
    return any(prompt in excluded for prompt in prompts(conversation))


def only(row: LabelledRow, keep: Sequence[bool]) -> LabelledRow:
    """The row with those of its clauses that are to be kept."""
    clauses = tuple(clause for clause, kept in zip(row.clauses, keep, strict=True) if kept)
    violated = tuple(label for label, kept in zip(row.violated, keep, strict=True) if kept)
    return replace(row, clauses=clauses, violated=violated)


def hashed_draw(*texts: str) -> float:
    """A number in [0, 1) that is a function of the texts alone."""
    digest = hashlib.sha256("\x00".join(texts).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


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


def _pair(path: str | Path, number: int, raw: dict[str, Any]) -> tuple[list[Message], str, str]:
    """History, chosen and rejected reply of a row."""
    for name in _PAIR:
        _field(path, number, raw, name)
    if raw.get("messages") is not None and isinstance(raw["chosen"], str) and isinstance(raw["rejected"], str):
        return _conversation(path, number, raw), raw["chosen"], raw["rejected"]  # whatever the replies look like
    try:
        return as_pair(raw)
    except RecordError as error:
        raise InputError(f"{path}, line {number}: {error}") from None


def _field(path: str | Path, number: int, raw: dict[str, Any], name: str) -> Any:
    if name not in raw:
        raise InputError(f"{path}, line {number}: no field {name!r}; this file is of another shape")
    return raw[name]
