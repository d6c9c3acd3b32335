r"""Conversations: found in a record's columns, whichever of the usual shapes it has.

Shapes in order of precedence, where a null column counts as absent:

1. `chosen` + `rejected`                          two rows; history in `prompt`, else in a column of 2
2. `messages`, `conversations`, `conversation`    with a reply of 3, unless an assistant spoke last
3. `prompt` + `response` or `completion`          the response is judged
4. `text`                                         one user message

A list of messages may be a JSON string, or a transcript as in hh-rlhf ("\n\nHuman: ...\n\nAssistant: ...").
A string in `response`, `completion` or `text` is taken literally: what is judged must not choose how it is
read.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from reprlib import repr as shortened
from typing import Any, TypeAlias

from csrm.errors import RecordError
from csrm.messages import Message, Role, as_conversation, first_value, plain_value

__all__ = ["Message", "RecordColumns", "Role", "as_conversation", "parse_record"]

_PAIR = ("chosen", "rejected")
_HISTORIES = ("messages", "conversations", "conversation")
_RESPONSES = ("response", "completion")

_TRANSCRIPT = re.compile(r"\n\n(?:Human|Assistant):|Human:.*\n\nAssistant:", re.DOTALL)
_TURN = re.compile(r"\n\n(Human|Assistant): ?")

Record: TypeAlias = Mapping[str, Any]
Rows: TypeAlias = list[tuple[str, list[Message]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordColumns:
    """Columns of one shape, named by hand: they are read and no others, whatever else a record holds.

    Raises:
        ValueError: Columns of several shapes are named.
    """

    messages: str | None = None
    """Whole conversations; no reply is added from elsewhere."""

    prompt: str | None = None
    """Histories; named alone, the reply is in `response` or `completion`."""

    response: str | None = None
    """Replies to judge; named alone, the history is in `prompt`."""

    text: str | None = None
    """Texts to judge, each as one user message."""

    def __post_init__(self) -> None:
        if sum(map(bool, (self.messages, self.prompt or self.response, self.text))) > 1:
            raise ValueError("name a column of messages, or of text, or of prompt and response, not several")


def parse_record(record: Record, columns: RecordColumns | None = None) -> Rows:
    """Find a record's conversations, by the shapes and the precedence at the top of this file.

    Args:
        record: One row by column name, with values from JSON, pyarrow or numpy.
        columns: Columns named by hand, to be read in place of the shapes.

    Returns:
        Pairs of a suffix and a conversation: one with the suffix "", or two, "chosen" and "rejected".

    Raises:
        RecordError: No shape fits (the message lists the columns and the options that name them), or the
            shape that fits holds no readable conversation (the message names the column).
    """
    if not isinstance(record, Mapping):
        raise RecordError(f"a record is an object with named columns, not {type(record).__name__}")
    for read in _readers(columns or RecordColumns()):
        if rows := read(record):
            return rows
    has = ", ".join(_described(record, name) for name in [*record][:20]) or "no columns"
    raise RecordError(
        f"no conversation in this record, which has {has}; name its columns with --messages-column, "
        "--text-column, or --prompt-column and --response-column"
    )


def _readers(columns: RecordColumns) -> Iterable[Callable[[Record], Rows]]:
    """Return what to try in turn. A reader returns no rows where the record has another shape."""
    if columns.messages:
        return [partial(_read_messages, histories=(columns.messages,), responses=())]
    if columns.text:
        return [partial(_read_text, column=columns.text)]
    if columns.prompt or columns.response:
        responses = (columns.response,) if columns.response else _RESPONSES
        return [partial(_read_response, prompt=columns.prompt or "prompt", responses=responses)]
    return [_read_pair, _read_messages, _read_response, _read_text]


def _read_pair(record: Record) -> Rows:
    replies = {name: record[name] for name in _PAIR if name in record}
    # Half a pair is an error below: its history alone must not be judged in its place.
    if len(replies) < 2 or first_value(replies, _PAIR) is None:
        return []
    column = _present(record, ("prompt", *_HISTORIES))
    speaker: Role | None = "user" if column == "prompt" else None
    history = _turns(record, column, speaker) if column and plain_value(record[column]) != [] else []
    return [(name, _joined(history, _turns(record, name, "assistant"))) for name in _PAIR]


def _read_messages(
    record: Record, histories: Iterable[str] = _HISTORIES, responses: Iterable[str] = _RESPONSES
) -> Rows:
    column, response = _present(record, histories), _present(record, responses)
    if not column:
        return []
    conversation = _turns(record, column, None)
    if response and conversation[-1].role != "assistant":
        conversation = _joined(conversation, _turns(record, response, "assistant", literal=True))
    return [("", conversation)]


def _read_response(record: Record, prompt: str = "prompt", responses: Iterable[str] = _RESPONSES) -> Rows:
    response = _present(record, responses)
    if not response or not _present(record, (prompt,)):
        return []
    history = _turns(record, prompt, "user")
    return [("", _joined(history, _turns(record, response, "assistant", literal=True)))]


def _read_text(record: Record, column: str = "text") -> Rows:
    return [("", _turns(record, column, "user", literal=True))] if _present(record, (column,)) else []


def _present(record: Record, names: Iterable[str]) -> str | None:
    """Return the first of the named columns that is not null."""
    return next((name for name in names if plain_value(record.get(name)) is not None), None)


def _turns(record: Record, column: str, speaker: Role | None, *, literal: bool = False) -> list[Message]:
    """Read one column: a list of messages in any spelling, or a text that `speaker` says."""
    value = plain_value(record[column])
    if isinstance(value, str) and not literal:
        value = _spelled_out(value) or value
    if isinstance(value, str) and speaker:
        value = [Message(speaker, value)]
    try:
        return as_conversation([value] if isinstance(value, Mapping) else value)
    except RecordError as error:
        raise RecordError(f"column {shortened(column)}: {error}") from None


def _spelled_out(text: str) -> list[Any] | None:
    """Return the messages that a text spells out as a transcript or as JSON, None where it does neither."""
    if _TRANSCRIPT.match(text):
        _, *parts = _TURN.split("\n\n" + text)
        return [{"role": role, "content": content} for role, content in zip(parts[::2], parts[1::2], strict=True)]
    try:
        messages = json.loads(text) if text.lstrip().startswith("[") else None
    except (ValueError, RecursionError):
        return None
    is_messages = messages and all(isinstance(m, dict) and m.keys() & {"role", "from"} for m in messages)
    return messages if is_messages else None


def _joined(history: list[Message], reply: list[Message]) -> list[Message]:
    """Put a reply after its history, unless it is a whole conversation, which repeats it."""
    if reply[0].role in ("user", "system") or reply[: len(history)] == history != reply:
        return reply
    awaited = history[-1:] == [Message("assistant", "")]  # a transcript that ends with "\n\nAssistant:"
    return (history[:-1] if awaited else history) + reply


def _described(record: Record, name: str) -> str:
    return shortened(name) + (" (null)" if plain_value(record[name]) is None else "")
