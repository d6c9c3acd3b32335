"""Cut a long conversation into windows that a backbone can read; drop nothing.

Every window ends with the judged message (or a piece of it), so every window can be judged on its own and
the record's reward is the minimum over its windows. Cuts fall on message boundaries where messages fit.
"""

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Window", "cut_windows"]

# A judged message may fill this share of a window before it is cut itself; the rest is left to its context.
JUDGED_SHARE = 0.75


class Window(NamedTuple):
    """Token ids of one window, and where the judged message starts in it."""

    input_ids: list[int]
    judged_start: int


def cut_windows(messages: Sequence[list[int]], prefix: list[int], max_tokens: int) -> list[Window]:
    """Lay messages out as one window if they fit, else as several.

    Args:
        messages: token ids of each message, the judged one last.
        prefix: ids that open every window (a `[CLS]` or beginning-of-text token).
        max_tokens: the most tokens a window may hold, prefix included.

    Returns:
        Windows of at most `max_tokens` ids. Each token of each message is in at least one of them. A judged
        message that fits is whole in each; one that does not is cut into pieces, and each piece sees the most
        recent context, while older context is read beside the first piece.
    """
    *context, judged = messages
    room = max_tokens - len(prefix)
    pieces = _pieces(judged, room if not context else max(1, int(room * JUDGED_SHARE)))
    if len(pieces) > 1 or sum(map(len, messages)) > room:
        chunks = _pack(context, room - max(map(len, pieces))) or [[]]
    else:
        chunks = [[token for message in context for token in message]]
    recent, older = chunks[-1], chunks[:-1]
    pairs = [(chunk, pieces[0]) for chunk in older] + [(recent, piece) for piece in pieces]
    return [Window(prefix + chunk + piece, len(prefix) + len(chunk)) for chunk, piece in pairs]


def _pieces(tokens: list[int], size: int) -> list[list[int]]:
    """Cut tokens into the fewest pieces of nearly equal length, none longer than `size`."""
    count = max(1, -(-len(tokens) // size))
    length = max(1, -(-len(tokens) // count))
    return [tokens[start : start + length] for start in range(0, max(1, len(tokens)), length)]


def _pack(messages: Sequence[list[int]], room: int) -> list[list[int]]:
    """Pack whole messages into chunks of at most `room` tokens, newest chunk fullest; cut only what must be."""
    chunks: list[list[int]] = []
    for message in reversed(messages):
        for piece in reversed(_pieces(message, room)):
            if chunks and len(chunks[-1]) + len(piece) <= room:
                chunks[-1] = piece + chunks[-1]
            else:
                chunks.append(piece)
    return chunks[::-1]
