"""Messages: who speaks and what is said, whatever tool wrote them down.

A conversation is a list of messages; the last one is judged, the rest is context. Knows nothing of records
and their columns (`conversations.py` does), of tokens, or of safety configurations.
"""

from collections.abc import Iterable, Mapping, Sequence
from reprlib import repr as shortened
from typing import Any, Literal, NamedTuple, TypeAlias

from csrm.errors import RecordError

__all__ = ["Message", "Role", "as_conversation", "first_value", "plain_value"]

Role: TypeAlias = Literal["user", "assistant", "system", "tool"]

_ALIASES: Mapping[Role, tuple[str, ...]] = {
    "user": ("human", "customer", "prompter"),
    "assistant": ("gpt", "bot", "agent", "ai", "model", "chatgpt", "bard", "bing"),
    "system": ("developer", "instruction"),
    "tool": ("function", "observation", "tool_result"),
}
_ROLES = {name: role for role, aliases in _ALIASES.items() for name in (role, *aliases)}
_KNOWN_ROLES = "known roles: " + ", ".join(f"{role} ({', '.join(names)})" for role, names in _ALIASES.items())


class Message(NamedTuple):
    """One message of a conversation: who speaks, and the text."""

    role: Role
    content: str


def as_conversation(messages: Sequence[Mapping[str, Any] | Message]) -> list[Message]:
    """Validate and normalise a list of messages. Normalising twice changes nothing.

    Roles become user, assistant, system or tool. Content is kept to the letter (white space and Unicode form
    too), save that null bytes are removed and lone surrogates become U+FFFD, for no tokenizer takes them.
    Content parts are joined by line breaks, and parts that are no text noted as "[image]", "[file]", ...
    A missing content is an error, save beside a `refusal`, which is then the content, and beside tool calls,
    where it is empty. An empty text is legal everywhere; as the last message it is judged as it stands.

    Args:
        messages: Mappings with "role" and "content" (or "from" and "value"), or `Message`s.

    Raises:
        RecordError: No list, no messages, or a message (named by its number, from 1) that cannot be read.
    """
    messages = plain_value(messages)
    if not isinstance(messages, list | tuple) or isinstance(messages, Message):
        raise RecordError(f"a conversation is a list of messages with role and content, not {type(messages).__name__}")
    if not messages:
        raise RecordError("a conversation needs at least one message")
    conversation = []
    for number, message in enumerate(messages, start=1):
        try:
            conversation.append(_message(message))
        except RecordError as error:
            raise RecordError(f"message {number} {error}") from None
    return conversation


def plain_value(value: Any) -> Any:
    """Return Python's own value for one of pyarrow's or numpy's (one level deep), with NaN as None."""
    if value is None or type(value) in (str, list, dict):
        return value
    convert = getattr(value, "as_py", None) or getattr(value, "tolist", None)
    value = convert() if convert else value
    return None if isinstance(value, float) and value != value else value


def first_value(fields: Mapping[str, Any], names: Iterable[str]) -> Any:
    """Return the first value that is not null among the named ones, else None."""
    return next((value for name in names if (value := plain_value(fields.get(name))) is not None), None)


def _message(message: Any) -> Message:
    fields = message._asdict() if isinstance(message, Message) else plain_value(message)
    if not isinstance(fields, Mapping):
        raise RecordError(f"is {type(fields).__name__}, not an object with role and content")
    return Message(_role(first_value(fields, ("role", "from"))), _content(fields))


def _role(name: Any) -> Role:
    if name is None:
        raise RecordError(f"has no role; {_KNOWN_ROLES}")
    role = _ROLES.get(_text(name, "a role").strip().lower())
    if role is None:
        raise RecordError(f"has the unknown role {shortened(name)}; {_KNOWN_ROLES}")
    return role


def _content(fields: Mapping[str, Any]) -> str:
    content = first_value(fields, ("content", "value", "refusal"))
    if isinstance(content, list | tuple):
        return "\n".join(map(_part, content))
    if content is not None:
        return _text(content, "content")
    if any(plain_value(fields.get(name)) for name in ("tool_calls", "function_call")):
        return ""
    raise RecordError('has no content; an empty text is written ""')


def _part(part: Any) -> str:
    """Return the text of one content part, or a note such as "[image]" in its place."""
    part = plain_value(part)
    if isinstance(part, str):
        return _text(part, "a content part")
    if not isinstance(part, Mapping):
        raise RecordError(f"has a content part that is {type(part).__name__}, not text or an object")
    text = first_value(part, ("text", "refusal"))
    if text is not None:
        return _text(text, "a content part's text")
    kind = _text(first_value(part, ("type",)), "a content part's type")
    return f"[{kind.removeprefix('input_').removesuffix('_url')}]"


def _text(value: Any, what: str) -> str:
    """Return the text without what no tokenizer takes, or complain of what is no text."""
    if not isinstance(value, str):
        raise RecordError(f"has {what} that is {type(value).__name__}, not text")
    text = value if value.isascii() else value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.replace("\0", "")
