"""Blocks of a policy under their headings, headings that nobody marked as such included."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import zip_longest

from csrm.policies.blocks import Block, read_blocks
from csrm.policies.splitting import split_sentences
from csrm.policies.wording import (
    MAX_CATEGORY_WORDS,
    gives_direction,
    has_bold_head,
    introduces,
    is_about_the_policy,
    opens_with_direction,
    plain,
    polarity,
    refers_back,
    rule_parts,
)

__all__ = ["Section", "read_sections"]

_IMPLIED_LEVEL = 7
_MAX_TITLE_WORDS = 12
_MAX_COLON_WORDS = 4
_NUMBERING = re.compile(
    r"^(?:(?:rule|article|section|part|chapter)\s+\d{1,3}\s*[:.)–—-]?|\(?\d{1,3}(?:\.\d{1,3})*[.):]?)\s+(?=\D)",
    re.I,
)
# "**Violence**" on its own line; "S1: Violent Crimes.", as taxonomies of hazards have it.
_MARKED_LINE = re.compile(r"\*\*[^*]{1,80}\*\*:?|[A-Z]{1,3}\d{1,2}[:.)] [^.!?;:]{1,60}\.?")
_MID_SENTENCE = re.compile(r"\b(?:that|which|who|to|not|by|includ(?:es?|ing)|are|is|as|for|of|and|or):$", re.I)
_BACKGROUND = re.compile(
    r"about|introduction|intro|overview|background|context|scope|purpose|(?:our )?audience|who we are"
    r"|preamble|definitions|glossary|contact|references|change ?log|version history|enforcement|appeals"
    r"|about (?:us|the|this|our)\b.*",
    re.I,
)
_GENERIC = re.compile(
    r"(?:[\w-]+ ){0,2}(?:rules|guidelines|polic(?:y|ies)|standards|principles|requirements|criteria|clauses)",
    re.I,
)


@dataclass(slots=True)
class Section:
    """The blocks under one heading."""

    headings: tuple[str, ...]
    """The document's title (or "") and the headings above, the section's own last."""
    blocks: list[Block] = field(default_factory=list)
    has_children: bool = False
    """Whether deeper headings follow."""

    @property
    def has_structure(self) -> bool:
        """Whether more than paragraphs stands here."""
        return self.has_children or any(block.kind != "paragraph" for block in self.blocks)

    @property
    def is_background(self) -> bool:
        """Whether a heading says that no rules stand here."""
        return any(_BACKGROUND.fullmatch(heading) for heading in self.headings[1:])

    @property
    def heading(self) -> str:
        """The section's own heading; empty before the first."""
        return self.headings[-1] if len(self.headings) > 1 else ""

    @property
    def topic(self) -> str:
        """The nearest heading that says what the rules are about: neither "Rules" nor "Prohibited"."""
        names = (h for h in self.headings[:0:-1] if not polarity(h) and not _GENERIC.fullmatch(h))
        return next(names, "")

    @property
    def lead(self) -> str:
        """The nearest heading that forbids or allows what stands under it, or is too long for a category."""
        if len(self.heading.split()) > MAX_CATEGORY_WORDS:
            return self.heading
        return next(filter(polarity, reversed(self.headings)), "")


def read_sections(text: str) -> list[Section]:
    """The sections of a policy text; the first, often empty, is what stands before the first heading."""
    blocks = list(_with_implied_headings(list(_in_pieces(read_blocks(text)))))
    title = _take_title(blocks)
    sections = [Section((title,))]
    path: list[tuple[float, str]] = [(0, title)]
    for block in _folded(blocks):
        if block.kind != "heading":
            sections[-1].blocks.append(block)
            continue
        sections[-1].has_children = block.level > path[-1][0]
        if sections[-1].has_children and (lead := _take_lead(sections[-1].blocks)):
            path.append((path[-1][0] + 0.5, lead))
        while path[-1][0] >= block.level:
            path.pop()
        path.append((block.level, _heading_text(block)))
        sections.append(Section(tuple(heading for _, heading in path)))
    return sections


def _take_lead(blocks: list[Block]) -> str:
    """Take off the paragraph that forbids or allows what the deeper headings name, if it stands last."""
    if not blocks or blocks[-1].kind != "paragraph":
        return ""
    text = plain(blocks[-1].text)
    if not introduces(split_sentences(text)[-1]) or not polarity(text) or is_about_the_policy(text):
        return ""
    del blocks[-1]
    return text


def _in_pieces(blocks: list[Block]) -> Iterator[Block]:
    """Blocks with one paragraph per piece of text; pieces that are rules of their own become items."""
    for block, following in zip_longest(blocks, blocks[1:]):
        if block.kind != "paragraph":
            yield block
            continue
        pieces = block.pieces()
        first = int(_looks_like_heading(pieces[0]))
        last = len(pieces) - (following is not None and following.kind in ("item", "table"))
        are_rules = last - first > 1 and all(map(_is_rule, pieces[first:last]))
        for index, piece in enumerate(pieces):
            is_item = has_bold_head(piece) or (are_rules and first <= index < last)
            yield Block("item", [piece], indent=-1, style="line") if is_item else Block("paragraph", [piece])


def _is_rule(piece: str) -> bool:
    return opens_with_direction(piece) or bool(rule_parts(piece)[0])


def _with_implied_headings(blocks: list[Block]) -> Iterator[Block]:
    """Blocks with those lines as headings that can be nothing else."""
    previous: Block | None = None
    for block, following in zip_longest(blocks, blocks[1:]):
        if following and _is_implied_heading(block, previous, following):
            is_of_this_list = bool(polarity(block.text)) and following.kind == "item"
            yield Block("heading", block.lines, level=_IMPLIED_LEVEL + is_of_this_list)
        else:
            yield block
        previous = block


def _is_implied_heading(block: Block, previous: Block | None, following: Block) -> bool:
    """Whether a line stands above what follows: "Violence" above a text, but not in a list of names."""
    if block.kind == "item":
        is_numbered = not block.style.startswith(("bullet", "line"))
        is_in_list = previous is not None and previous.kind == "item"
        return is_numbered and not is_in_list and following.kind == "paragraph" and _looks_like_heading(block.text)
    if block.kind != "paragraph":
        return False
    if previous is None:
        return _looks_like_heading(block.text, max_words=_MAX_TITLE_WORDS)
    is_in_names = following.kind == "paragraph" and _looks_like_heading(following.text)
    return _looks_like_heading(block.text) and not is_in_names


def _looks_like_heading(text: str, max_words: int = MAX_CATEGORY_WORDS) -> bool:
    """Whether a line could be a heading: marked as one, or short, no sentence and no rule."""
    if _MARKED_LINE.fullmatch(text):
        return True
    num_words = len(text.split(maxsplit=max_words + 1))
    if num_words > max_words or text[0].islower() or opens_with_direction(text):
        return False
    if text[-1] == ":":
        is_lead_in = gives_direction(text) or is_about_the_policy(text) or refers_back(text)
        return num_words <= _MAX_COLON_WORDS and not is_lead_in and not _MID_SENTENCE.search(text)
    return text[-1].isalnum() or text[-1] in ")’'"


def _take_title(blocks: list[Block]) -> str:
    """Take the heading of the whole document off the blocks, if there is one."""
    if not blocks or blocks[0].kind != "heading":
        return ""
    title = _heading_text(blocks[0])
    is_alone = sum(block.kind == "heading" and block.level <= blocks[0].level for block in blocks) == 1
    has_no_body = len(blocks) > 1 and blocks[1].kind == "heading"
    if not (is_alone or has_no_body or _GENERIC.search(title)):
        return ""
    del blocks[0]
    return title


def _heading_text(block: Block) -> str:
    return _NUMBERING.sub("", plain(block.text), count=1).rstrip(":. ")


def _folded(blocks: Iterable[Block]) -> Iterator[Block]:
    """Blocks with every nested item folded into the item it stands under."""
    parent: Block | None = None
    children: list[str] = []
    for block in blocks:
        if parent and block.kind == "item" and _is_child(block, parent):
            children.append(_item_text(block))
            continue
        if parent and block.kind == "paragraph" and _is_sequel(block.text):
            (children or parent.lines).append(block.text)
            continue
        if parent:
            yield replace(parent, lines=[_with_children(_item_text(parent), children)])
        parent, children = (block, []) if block.kind == "item" else (None, [])
        if parent is None:
            yield block
    if parent:
        yield replace(parent, lines=[_with_children(_item_text(parent), children)])


def _is_child(item: Block, parent: Block) -> bool:
    """Deeper by more than numbers are aligned by, or marked otherwise at the same depth."""
    return item.indent > parent.indent + 1 or (item.style != parent.style and item.indent >= parent.indent)


def _is_sequel(text: str) -> bool:
    """Whether a paragraph goes on with the item above it: "This includes ..."."""
    return refers_back(text) and text.endswith(".") and not is_about_the_policy(text)


def _item_text(item: Block) -> str:
    """The item's text; a first line that is its heading ends in a colon."""
    pieces = item.pieces()
    if len(pieces) > 1 and _looks_like_heading(pieces[0]):
        pieces[0] = f"{pieces[0].rstrip(':')}:"
    return " ".join(pieces)


def _with_children(text: str, children: list[str]) -> str:
    if not children:
        return text
    joint = " " if any(child.endswith(".") for child in children) else "; "
    folded = joint.join(child.rstrip(";, ") for child in children)
    return f"{text}{'' if text.endswith(tuple('.:!?')) else ':'} {folded}"
