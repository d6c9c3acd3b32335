"""Lines of a Markdown or plain-text policy, gathered into headings, items, paragraphs and tables.

Knows how policies are laid out and nothing of what they say. Every step is linear in the text: a policy
may come from a stranger.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

__all__ = ["Block", "read_blocks"]

_MARKER = re.compile(
    r"(?P<bullet>[-*+•‣◦▪·–—]\s+(?:\[[ x]\]\s+)?)"
    r"|(?P<number>\(?\d{1,3}(?:\.\d{1,3})*[.)]\s*(?=\D)|\d{1,3}(?:\.\d{1,3})+\s+)"
    r"|(?P<word>(?:rule|article|section|policy|guideline|clause)\s+\d+\w?\s*[:.)–—-]\s+)"
    r"|(?P<letter>\(?(?:[a-z]|[ivx]{1,5})\)\s+|[a-z]\.\s+)",
    re.I,
)
_FIRST = frozenset({"1", "1.1", "a", "i"})
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.S)
_QUOTE = re.compile(r"\s*(?:>\s?)+")
_WRAP_MIN, _WRAP_MAX = 60, 120


@dataclass(slots=True)
class Block:
    """Consecutive lines of one kind."""

    kind: Literal["heading", "item", "paragraph", "table"]
    lines: list[str]
    """Without markers and indentation; of a table, its rows."""
    level: int = 0
    """Depth of a heading."""
    indent: int = 0
    """Columns before an item's marker."""
    style: str = ""
    """Kind of an item's marker; items of one list share it."""

    @property
    def text(self) -> str:
        """All lines as one."""
        return " ".join(self.lines)

    def pieces(self) -> list[str]:
        """The lines as the writer meant them: wrapped lines joined, other breaks kept."""
        width = max(map(len, self.lines), default=0)
        pieces: list[list[str]] = []
        for index, line in enumerate(self.lines):
            if index and not _break_is_meant(self.lines[index - 1], line, width):
                pieces[-1].append(line)
            else:
                pieces.append([line])
        return [" ".join(piece) for piece in pieces]


def read_blocks(text: str) -> list[Block]:
    """Gather the lines of a policy into blocks; code fences, comments and rulers are left out."""
    blocks: list[Block] = []
    after_gap = True
    for line in _visible_lines(text):
        stripped = line.strip()
        last = blocks[-1] if blocks and not after_gap else None
        if stripped and not (last and _turns(last, stripped)) and not _is_ruler(stripped):
            if new := _marked_block(line, last):
                blocks.append(new)
            elif blocks and _continues(blocks[-1], line, after_gap):
                blocks[-1].lines.append(stripped)
            else:
                blocks.append(Block("paragraph", [stripped]))
        after_gap = not stripped or _is_ruler(stripped)
    return blocks


def _visible_lines(text: str) -> Iterator[str]:
    """Lines outside code fences and comments, without quotation marks, tabs as spaces."""
    fenced = False
    for line in _COMMENT.sub("", text).splitlines():
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        elif not fenced:
            yield (_QUOTE.sub("", line) if line.lstrip().startswith(">") else line).expandtabs(4)


def _turns(last: Block, stripped: str) -> bool:
    """Turn a one-line paragraph into what the line under it says it is; say whether it did."""
    if last.kind != "paragraph" or len(last.lines) != 1 or len(last.lines[0]) > _WRAP_MAX:
        return False
    marks = set(stripped)
    if len(stripped) > 1 and marks in ({"="}, {"-"}, {"~"}):
        last.kind, last.level = "heading", 1 if "=" in marks else 2
        return True
    if "|" in last.lines[0] and marks <= set("|:- ") and {"|", "-"} <= marks:
        last.kind = "table"
        last.lines.append(stripped)
        return True
    return False


def _is_ruler(stripped: str) -> bool:
    marks = set(stripped) - {" "}
    return len(marks) == 1 and marks <= set("-*_=~") and stripped.count(marks.pop()) > 2


def _marked_block(line: str, last: Block | None) -> Block | None:
    """The block that the line begins by its own mark, if it has one."""
    stripped = line.strip()
    depth = len(stripped) - len(stripped.lstrip("#"))
    if 0 < depth <= 6 and stripped[depth : depth + 1] == " ":
        return Block("heading", [stripped.strip("# ")], level=depth)
    if stripped[0] == "|" and (last is None or last.kind != "table"):
        return Block("table", [stripped])
    bold = stripped.startswith("**")
    marker = _MARKER.match(stripped[2:] if bold else stripped)
    if marker is None or _is_wrapped_text(marker, last):
        return None
    text = stripped[marker.end() + 2 * bold :]
    if bold:
        text = text[2:].lstrip() if text.startswith("**") else f"**{text}"
    style = f"{marker.lastgroup} {marker[0].strip(' .)').count('.')}"
    return Block("item", [text] if text else [], indent=_indent(line), style=style)


def _is_wrapped_text(marker: re.Match[str], last: Block | None) -> bool:
    """Whether a number or letter only happens to begin a line of a paragraph ("aged below / 13. They")."""
    inside = last is not None and last.kind == "paragraph" and marker.lastgroup in ("number", "letter")
    return inside and marker[0].strip(" ().").lower() not in _FIRST


def _continues(last: Block, line: str, after_gap: bool) -> bool:
    """Whether an unmarked line belongs to the block above it."""
    stripped = line.strip()
    if last.kind == "heading":
        return False
    if last.kind == "table":
        return not after_gap and "|" in stripped
    if last.kind == "paragraph":
        return not after_gap
    if _indent(line) > last.indent or not last.lines:
        return True
    above = last.lines[-1]
    is_bullet = last.style.startswith("bullet")  # A number's short first line is rather its heading.
    ends = above[-1] in ".!?:" or (is_bullet and _break_is_meant(above, stripped, len(above)))
    return not after_gap and (stripped[0].islower() or not ends)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _break_is_meant(above: str, line: str, width: int) -> bool:
    """Whether a line break is the writer's and not an editor's that wraps lines at some width.

    An editor breaks only where the next word would not fit; a writer begins the line as one begins
    a sentence.
    """
    would_fit = len(above) + 1 + len(line.split(maxsplit=1)[0]) <= max(width, _WRAP_MIN)
    return (would_fit or width > _WRAP_MAX or above[-1] == ":") and not line[0].islower()
