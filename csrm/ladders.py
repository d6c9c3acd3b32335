"""Ladders of strictness: what a category is made of, most severe first, and the guidelines that follow from it.

The guideline d_k of a ladder forbids its k most severe sub-categories and allows the rest (arXiv 2605.30487,
Algorithm 1, steps 1 to 3): d_0 allows all, d_K forbids all. It is written in many ways, so that a model cannot tell
strict from lenient by anything but what is forbidden. A library of ladders comes with the package.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from csrm.configurations import Clause
from csrm.dice import one_of
from csrm.errors import ConfigurationError
from csrm.safe_yaml import load_documents

__all__ = ["Ladder", "guideline", "insert", "load_ladders", "prohibition"]

LIBRARY = Path(__file__).parent / "library" / "ladders.yaml"
_REQUIRED = ("category", "subcategories")
_OPTIONAL = ("aliases", "always_forbidden")


@dataclass(frozen=True, slots=True)
class Ladder:
    """One category and its K sub-categories in order of severity."""

    category: str
    subcategories: tuple[str, ...]
    """Noun phrases, most severe first."""
    aliases: tuple[str, ...] = ()
    """Lower-case words by which category names of other sources are known to mean this one."""
    always_forbidden: tuple[str, ...] = ()
    """What every guideline forbids, d_0 included: nobody may write a policy that allows it."""

    def __post_init__(self) -> None:
        phrases = (*self.always_forbidden, *self.subcategories)
        if not self.category.strip() or not self.subcategories:
            raise ConfigurationError("a ladder needs a category and at least one sub-category")
        if len(set(phrases)) < len(phrases):
            raise ConfigurationError(f"{self.category}: a sub-category appears twice; leave one out")
        for phrase in phrases:
            if not phrase.strip() or re.search(r"[,;:.\n]", phrase):
                raise ConfigurationError(
                    f"{self.category}: sub-category {phrase[:60]!r} must be a noun phrase without punctuation, "
                    "for it stands in lists"
                )
        if any(not _words(alias).strip() for alias in self.aliases):
            raise ConfigurationError(f"{self.category}: an alias is empty; leave it out")

    def matches(self, category: str) -> bool:
        """Whether a category of another source means this one, by its own name or an alias; whole words count."""
        words = _words(category)
        return any(_words(name) in words for name in (self.category, *self.aliases))


def load_ladders(path: str | Path | None = None) -> tuple[Ladder, ...]:
    """Read ladders: a YAML file with one document per category; None reads the library that comes with the package.

    Raises:
        ConfigurationError: one line that names the file and what to mend.
    """
    path = LIBRARY if path is None else Path(path)
    try:
        ladders = tuple(_ladder(document) for document in load_documents(path.read_text(encoding="utf-8")))
        if not ladders:
            raise ConfigurationError("no ladders; write category and subcategories")
        names = [ladder.category for ladder in ladders]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ConfigurationError(f"category {twice[0]!r} has two ladders; join them")
    except (OSError, UnicodeDecodeError, ConfigurationError) as error:
        raise ConfigurationError(f"{path}: {error}") from None
    return ladders


def insert(ladder: Ladder, subcategory: str, rank: int) -> Ladder:
    """The ladder with one more sub-category; `rank` of the present ones are more severe."""
    present = ladder.subcategories
    return replace(ladder, subcategories=(*present[:rank], subcategory, *present[rank:]))


def guideline(ladder: Ladder, num_forbidden: int, rng: np.random.Generator) -> Clause:
    """d_k: a clause that forbids the k most severe sub-categories and allows the rest.

    Wording and the order within the two lists are drawn, alike for every k: generators in the same state write
    d_i and d_j in the same style, so that only what is forbidden differs.

    Args:
        ladder: K sub-categories.
        num_forbidden: k, from 0 to K.
        rng: two draws are taken from it.
    """
    num_subcategories = len(ladder.subcategories)
    if not 0 <= num_forbidden <= num_subcategories:
        raise ValueError(f"{ladder.category} has guidelines d_0 to d_{num_subcategories}, not d_{num_forbidden}")
    wording = one_of(_WORDINGS, rng)
    order = rng.permutation(num_subcategories).tolist()
    forbidden = [*ladder.always_forbidden, *(ladder.subcategories[i] for i in order if i < num_forbidden)]
    allowed = [ladder.subcategories[i] for i in order if i >= num_forbidden]
    form = wording.both if forbidden and allowed else wording.forbid_all if forbidden else wording.allow_all
    return Clause(category=ladder.category, guideline=_fill(form, forbidden, allowed))


def prohibition(ladder: Ladder, subcategory: str, rng: np.random.Generator) -> Clause:
    """A clause that forbids one sub-category and says nothing of the others."""
    form = one_of(_NAMING_FORMS, rng)
    return Clause(category=ladder.category, guideline=_fill(form, [subcategory], []))


class _Wording(NamedTuple):
    """One way to write all guidelines of a ladder. Verbs stand where they agree with one noun as with many."""

    both: str
    allow_all: str
    forbid_all: str


_WORDINGS = (
    _Wording(
        "We do not allow {bad_or}. We allow {good_and}.",
        "We allow {good_and}.",
        "We do not allow {bad_or}.",
    ),
    _Wording(
        "Do not post {bad_or}. You may post {good_and}.",
        "You may post {good_and}.",
        "Do not post {bad_or}.",
    ),
    _Wording(
        "Forbidden: {bad_list}. Allowed: {good_list}.",
        "Forbidden: nothing. Allowed: {good_list}.",
        "Forbidden: {bad_list}. Allowed: nothing.",
    ),
    _Wording(
        "Acceptable: {good_list}. Not acceptable: {bad_list}.",
        "Acceptable: {good_list}. Not acceptable: nothing of this kind.",
        "Acceptable: nothing of this kind. Not acceptable: {bad_list}.",
    ),
    _Wording(
        "Messages may contain {good_and}, but they must never contain {bad_or}.",
        "Messages may contain {good_and}.",
        "Messages must never contain {bad_or}.",
    ),
    _Wording(
        "This policy prohibits {bad_and}. It leaves people free to share {good_and}.",
        "This policy prohibits nothing under this heading. It leaves people free to share {good_and}.",
        "This policy prohibits {bad_and}. It makes no exceptions.",
    ),
    _Wording(
        "Remove {bad_or}. Leave up everything else under this heading, such as {good_or}.",
        "Leave up everything under this heading, such as {good_or}.",
        "Remove everything under this heading, such as {bad_or}.",
    ),
    _Wording(
        "People here do not want to see {bad_or}. They are fine with {good_and}.",
        "People here are fine with {good_and}.",
        "People here do not want to see {bad_or}.",
    ),
    _Wording(
        "It is against the rules to share {bad_or}; it is within the rules to share {good_or}.",
        "It is within the rules to share {good_or}.",
        "It is against the rules to share {bad_or}.",
    ),
    _Wording(
        "With the exception of {good_and}, nothing under this heading is permitted.",
        "Everything under this heading is permitted, including {good_and}.",
        "Nothing under this heading is permitted, with no exceptions.",
    ),
    _Wording(
        "With the exception of {bad_and}, everything under this heading is permitted.",
        "Everything under this heading is permitted, with no exceptions.",
        "Nothing under this heading is permitted, including {bad_and}.",
    ),
)

_NAMING_FORMS = (
    "We do not allow {bad_or}.",
    "Do not post {bad_or}.",
    "Messages must never contain {bad_or}.",
    "People here do not want to see {bad_or}.",
    "It is against the rules to share {bad_or}.",
)
"""Ways to forbid what is named and say nothing of the rest."""


def _fill(form: str, forbidden: Sequence[str], allowed: Sequence[str]) -> str:
    lists = {"bad": forbidden, "good": allowed}
    joined = {f"{name}_{word}": _join(phrases, word) for name, phrases in lists.items() for word in ("and", "or")}
    return form.format(**joined, **{f"{name}_list": "; ".join(phrases) for name, phrases in lists.items()})


def _join(phrases: Sequence[str], word: str) -> str:
    """List phrases as prose does, with a comma before the last wherever a phrase holds an "or" or "and" itself."""
    if len(phrases) < 2:
        return "".join(phrases)
    comma = "," if len(phrases) > 2 or re.search(r" (?:and|or) ", " ".join(phrases)) else ""
    return f"{', '.join(phrases[:-1])}{comma} {word} {phrases[-1]}"


def _words(text: str) -> str:
    """Lower-case words between single spaces, one at either end, so that whole words can be looked for."""
    return f" {re.sub(r'[^a-z0-9]+', ' ', text.lower()).strip()} "


def _ladder(document: Any) -> Ladder:
    if not isinstance(document, dict):
        raise ConfigurationError("each document must have category and subcategories")
    for key in document:
        if key not in (*_REQUIRED, *_OPTIONAL):
            raise ConfigurationError(
                f"unknown key {str(key)[:60]!r}; known keys are {', '.join(_REQUIRED + _OPTIONAL)}"
            )
    category = document.get("category")
    if not isinstance(category, str):
        raise ConfigurationError("a ladder lacks its category; write category: and its name")
    return Ladder(category, *(_phrases(document, key, category) for key in ("subcategories", *_OPTIONAL)))


def _phrases(document: dict[Any, Any], key: str, category: str) -> tuple[str, ...]:
    phrases = document.get(key) or []
    if not isinstance(phrases, list) or not all(isinstance(phrase, str) for phrase in phrases):
        raise ConfigurationError(f"{category}: {key} must be a list of texts; put other values in quotes")
    return tuple(" ".join(phrase.split()) for phrase in phrases)
