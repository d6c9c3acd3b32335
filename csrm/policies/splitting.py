"""Cut long text where it hurts least: into sentences, then words, then halves of a word.

Knows nothing of tokenizers: the caller says how many tokens a text has.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from csrm.errors import ConfigurationError

if TYPE_CHECKING:
    from csrm.configurations import Clause

__all__ = ["split_guideline", "split_sentences"]

# A run of end marks with its closing quotes, before what can begin a sentence. Possessive, so that a
# megabyte of dots costs a megabyte's time. Chinese and Japanese end marks need no space after them.
_SENTENCE_END = re.compile(
    r"""(?<![.!?…])[.!?…]++["'”’)\]]*+\s++(?=["'“‘(\[]*[^\W_a-z])|(?<![。！？])[。！？]++[」』”’]*+\s*+"""
)
# What a full stop ends without ending the sentence: abbreviations, initials, the number of a rule.
_NO_END = re.compile(
    r"(?:\b(?:e\.g|i\.e|cf|vs|approx|incl|Mr|Mrs|Ms|Dr|Prof|St|Art|Sec|Fig|Nos?|[A-Z])|^\(?\d{1,3})\.$"
)
_LOOK_BACK = 12


def split_sentences(text: str) -> list[str]:
    """Split text into sentences; joined by spaces they are the text again, whitespace aside."""
    text = " ".join(text.split())
    sentences, start = [], 0
    for end in _SENTENCE_END.finditer(text):
        if _NO_END.search(text[max(start, end.start() - _LOOK_BACK) : end.start() + 1]):
            continue
        sentences.append(text[start : end.end()].rstrip())
        start = end.end()
    return [*sentences, text[start:]] if text[start:] else sentences


def split_guideline(clause: Clause, max_tokens: int, count_tokens: Callable[[str], int]) -> list[Clause]:
    """Split a clause longer than the backbone can read into clauses of the same category.

    Cuts fall between sentences; inside a sentence, between words; inside a word, in the middle. Nothing
    is lost, but a later part no longer says what an earlier part said: the caller warns.

    Args:
        clause: The clause to split; returned alone where it fits.
        max_tokens: The most tokens that the text of one clause may have.
        count_tokens: Number of tokens of a text, special tokens included if the backbone adds them.

    Raises:
        ConfigurationError: The category alone leaves no room for a guideline.
    """

    def fits(guideline: str) -> bool:
        return count_tokens(replace(clause, guideline=guideline).text) <= max_tokens

    if fits(clause.guideline):
        return [clause]
    num_tokens = count_tokens(f"{clause.category}: ")
    if num_tokens >= max_tokens:
        raise ConfigurationError(
            f"category {clause.category[:60]!r} has {num_tokens} tokens and a clause may have {max_tokens}; "
            "shorten the category"
        )
    return [replace(clause, guideline=part) for part in _fit(clause.guideline, fits)]


def _fit(text: str, fits: Callable[[str], bool]) -> list[str]:
    """The fewest consecutive parts of text that each fit, as found greedily."""
    if len(text) == 1 or fits(text):
        return [text]
    pieces, joint = _pieces(text)
    parts: list[str] = []
    for piece in pieces:
        if parts and fits(longer := parts[-1] + joint + piece):
            parts[-1] = longer
        else:
            parts += _fit(piece, fits)
    return parts


def _pieces(text: str) -> tuple[list[str], str]:
    """The next finer pieces of text, and what joins them."""
    if len(sentences := split_sentences(text)) > 1:
        return sentences, " "
    if len(words := text.split()) > 1:
        return words, " "
    return [text[: len(text) // 2], text[len(text) // 2 :]], ""
