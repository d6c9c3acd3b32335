"""A Markdown or plain-text policy, as people write them, turned into title, context and rules.

The model reads each rule alone, so what a heading or a lead-in line forbids or allows is carried into
every rule under it. What is no rule (who we are, who the audience is, closing words) becomes context.
"""

import re
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import NamedTuple

from csrm.policies.blocks import Block
from csrm.policies.sections import Section, read_sections
from csrm.policies.splitting import split_sentences
from csrm.policies.wording import (
    LEAD_JOINT,
    MAX_CATEGORY_WORDS,
    as_lead,
    carry,
    gives_direction,
    introduces,
    is_about_the_policy,
    opens_with_direction,
    plain,
    polarity,
    refers_back,
    rule_parts,
    short_category,
)

__all__ = ["PolicyText", "read_policy_text"]

_CLOSING_WORDS = re.compile(r"(?:thanks?|by (?:adhering|following|keeping|using)|questions|last updated)\b", re.I)
_EXAMPLE_COLUMN = re.compile(r"\b(?:examples?|samples?|prompts?|verdict|message|response)\b", re.I)
_CATEGORY_COLUMN = re.compile(r"\b(?:categor(?:y|ies)|topic|area|name|type|theme)\b", re.I)
_GUIDELINE_COLUMN = re.compile(r"\b(?:guidelines?|descriptions?|definitions?|details?|rules?|requirements?)\b", re.I)
_MAX_EXAMPLE_WORDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyText:
    """What a policy text says."""

    title: str
    """The document's heading; empty if it has none."""
    context: str
    """The preamble and whatever else is no rule."""
    rules: tuple[tuple[str, str], ...]
    """Category and guideline of each rule, in the order of the text."""


def read_policy_text(text: str) -> PolicyText:
    """Find title, context and rules of a policy. A text without rules gives none; the caller complains."""
    sections = read_sections(text)
    reader = _Reader()
    if len(sections) == 1 and not sections[0].has_structure:
        reader.read_prose(sections[0])
    else:
        for section in sections:
            reader.read_section(section)
    return PolicyText(
        title=sections[0].headings[0],
        context=plain(" ".join([*reader.context, *reader.leads_no_rule_carries()])),
        rules=tuple(reader.rules),
    )


@dataclass(slots=True)
class _Reader:
    """Collects rules and context, section by section."""

    rules: list[tuple[str, str]] = field(default_factory=list)
    context: list[str] = field(default_factory=list)
    _leads: list[str] = field(default_factory=list)
    _paragraphs_at: int | None = None
    """Place of the rule that the paragraphs of the section at hand make together."""

    def read_prose(self, section: Section) -> None:
        """A text of paragraphs alone: each that gives direction is a rule, or each sentence that does."""
        units = [block.text for block in section.blocks]
        if sum(map(_is_rule, units)) < 2:
            units = _sentences_with_sequels(units)
        are_all_rules = not any(map(_is_rule, units))
        for unit in units:
            if are_all_rules or _is_rule(unit):
                self._add(unit, section, section.lead)
            else:
                self.context.append(unit)

    def read_section(self, section: Section) -> None:
        """Every item and table row is a rule; paragraphs under a heading are one rule together."""
        if section.is_background:
            self.context += [block.text for block in section.blocks]
        elif section.blocks:
            self._read_blocks(section)
        elif section.heading and not section.has_children:
            above = replace(section, headings=section.headings[:-1])
            self._add(section.heading, above, above.lead)

    def leads_no_rule_carries(self) -> list[str]:
        """Lead-ins whose every item says itself what it forbids or allows."""
        carried = {guideline.partition(LEAD_JOINT)[0] for _, guideline in self.rules}
        return [lead for lead in self._leads if as_lead(lead) not in carried]

    def _read_blocks(self, section: Section) -> None:
        lead, stem = section.lead, ""
        self._paragraphs_at = None
        for block, following in zip_longest(section.blocks, section.blocks[1:]):
            if block.kind == "item":
                goes_on = stem and block.text[:1].islower()
                self._add(f"{stem} {block.text}" if goes_on else block.text, section, lead)
            elif block.kind == "table":
                self._add_table(block.lines, section, lead)
            else:
                lead_in = _lead_in(block.text, following)
                lead, stem = lead_in.lead or section.lead, lead_in.stem
                self._leads += filter(None, [lead_in.lead])
                if lead_in.rest:
                    self._add_paragraph(lead_in.rest, section)

    def _add_paragraph(self, text: str, section: Section) -> None:
        """Add a paragraph to the rule of its section, or as a rule of its own, or to the context."""
        if not self._paragraph_is_rule(text, section):
            self.context.append(text)
        elif not section.topic:
            self._add(text, section, section.lead)
        elif self._paragraphs_at is None:
            self._paragraphs_at = len(self.rules)
            self.rules.append((_name(section.topic), carry(section.lead, plain(text))))
        else:
            category, guideline = self.rules[self._paragraphs_at]
            self.rules[self._paragraphs_at] = category, f"{guideline} {plain(text)}"

    def _paragraph_is_rule(self, text: str, section: Section) -> bool:
        if _CLOSING_WORDS.match(text):
            return False
        if not section.heading:
            return opens_with_direction(text)
        return not section.has_structure or gives_direction(text) or self._paragraphs_at is not None

    def _add(self, text: str, section: Section, lead: str) -> None:
        """Add one rule, named by its own head, else by the section's topic, else by its first words."""
        category, guideline = rule_parts(text)
        both = f"{section.topic} / {category}"
        if category and section.topic and len(both.split()) <= MAX_CATEGORY_WORDS + 1:
            category = both
        if guideline:
            category = category or _name(section.topic) or short_category(guideline)
            self.rules.append((category, carry(lead, guideline)))

    def _add_table(self, lines: list[str], section: Section, lead: str) -> None:
        """Add each row as a rule; a short table of examples joins the rule above, a long one is left out."""
        header, rows = _table(lines)
        if any(map(_EXAMPLE_COLUMN.search, header)):
            examples = "Examples: " + "; ".join(", ".join(filter(None, row)) for row in rows) + "."
            if self.rules and len(examples.split()) <= _MAX_EXAMPLE_WORDS:
                category, guideline = self.rules[-1]
                self.rules[-1] = category, f"{guideline} {examples}"
            return
        for row in rows:
            if text := _row_text(header, row):
                self._add(text, section, lead)


def _name(heading: str) -> str:
    return heading if len(heading.split()) <= MAX_CATEGORY_WORDS else short_category(heading)


def _is_rule(text: str) -> bool:
    return gives_direction(text) or bool(rule_parts(text)[0])


def _sentences_with_sequels(paragraphs: list[str]) -> list[str]:
    """The sentences of each paragraph; one that gives no direction stays with the rule before it."""
    units: list[str] = []
    for paragraph in paragraphs:
        inside_rule = False
        for sentence in split_sentences(paragraph):
            if inside_rule and not _is_rule(sentence) and not _CLOSING_WORDS.match(sentence):
                units[-1] += f" {sentence}"
            else:
                units.append(sentence)
            inside_rule = inside_rule or _is_rule(sentence)
    return units


class _LeadIn(NamedTuple):
    """A paragraph above a list, taken apart."""

    lead: str
    """What forbids or allows, for every item."""
    stem: str
    """The sentence that items in lower case go on with: "Responses that"."""
    rest: str
    """What stands for itself."""


def _lead_in(text: str, following: Block | None) -> _LeadIn:
    """What a paragraph says about the list that follows it; without a list, it stands for itself."""
    last = (sentences := split_sentences(text))[-1]
    if following is None or following.kind == "paragraph" or is_about_the_policy(last):
        return _LeadIn("", "", text)
    start = len(sentences) - 1
    while start and refers_back(sentences[start]) and not gives_direction(" ".join(sentences[start:])):
        start -= 1
    tail, rest = plain(" ".join(sentences[start:])), " ".join(sentences[:start])
    if gives_direction(tail) and introduces(last):
        return _LeadIn(tail, "", rest)
    if opens_with_direction(tail) and polarity(tail) == "forbids":
        return _LeadIn(tail, "", text)
    if introduces(last) and following.kind == "item" and following.text[:1].islower():
        return _LeadIn("", tail.rstrip(": "), rest)
    return _LeadIn("", "", text)


def _table(lines: list[str]) -> tuple[list[str], list[list[str]]]:
    """Header (empty if there is none) and rows of a table, without the ruler between them."""
    rows = [[plain(cell) for cell in re.split(r"(?<!\\)\|", line.strip("| "))] for line in lines]
    is_ruler = [not any(cell.strip(":- ") for cell in row) for row in rows]
    has_header = len(rows) > 1 and is_ruler[1]
    body = [row for row, ruler in zip(rows, is_ruler, strict=True) if not ruler]
    return (body[0], body[1:]) if has_header else ([], body)


def _row_text(header: list[str], row: list[str]) -> str:
    """One row as the text of a rule: "category: guideline. Other column: its cell"."""
    labels = header + [""] * (len(row) - len(header))
    cells = [
        (label, cell) for label, cell in zip(labels, row, strict=False) if cell and not cell.strip("#. ").isdigit()
    ]
    cells.sort(key=lambda pair: not _CATEGORY_COLUMN.search(pair[0]))
    if not cells:
        return ""
    (_, head), *others = cells
    told = [cell if not label or _GUIDELINE_COLUMN.search(label) else f"{label}: {cell}" for label, cell in others]
    return f"{head}: {'. '.join(cell.rstrip('.') for cell in told)}." if told else head
