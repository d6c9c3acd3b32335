"""Rows with clauses that a proposer named for them: p⁺ as violated, p⁻ as kept (arXiv 2605.30487).

The counterfactual configurations around a row are then drawn from these clauses too. Labels come first: a proposal
that any copy of the conversation contradicts is left out.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from csrm.clause_library import ClauseLibrary
from csrm.configurations import Clause
from csrm.conversations import Message
from csrm.errors import ConfigurationError, InputError
from csrm.labelled import LabelledRow, read_json_lines
from csrm.model import CSRM
from csrm.proposers import LibraryProposer, Proposal, Proposer, says_the_same
from csrm.training.trainer import clause_vectors, pooled_vectors

__all__ = ["ProposalCounts", "SavedProposals", "add_proposals", "library_proposer"]

Label: TypeAlias = tuple[Clause, bool]
"""A clause and whether it is violated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalCounts:
    """What became of the rows that were asked about."""

    num_asked: int
    num_violated: int
    """p⁺ that were added."""
    num_kept: int
    """p⁻ that were added."""


def add_proposals(
    rows: Sequence[LabelledRow],
    proposer: Proposer,
    rng: np.random.Generator,
    number: int,
    *,
    excluded: Collection[Clause] = (),
) -> tuple[list[LabelledRow], ProposalCounts]:
    """Ask for p⁺ and p⁻ of some rows, each under the configuration of its own clauses, and label the rows with them.

    A proposal is left out where the row has it, where a copy of the conversation is labelled otherwise (p⁺ goes before
    p⁻), and where it would move a clause to another domain: a library files a clause under that of its first row.

    Args:
        rows: to learn from.
        proposer: who is asked, once, for all of them.
        rng: draws the rows, then whatever the proposer draws.
        number: how many rows to ask about, at most all.
        excluded: clauses that must not be learned, in whatever case and spacing.

    Returns:
        The rows in their order, and what was added. A row that got nothing is the same object as before.
    """
    chosen = np.sort(rng.choice(len(rows), size=min(number, len(rows)), replace=False)).tolist()
    asked = [rows[place] for place in chosen]
    proposals = proposer.propose_all(asked, [row.clauses for row in asked], rng)
    labels = _Labels(rows, excluded)
    found, added = list(rows), []
    for place, proposal in zip(chosen, proposals, strict=True):
        for clause, violated in _labels(proposal):
            if labels.admit(place, found[place], clause, violated):
                row = found[place]
                found[place] = replace(row, clauses=(*row.clauses, clause), violated=(*row.violated, violated))
                added.append(violated)
    return found, ProposalCounts(num_asked=len(asked), num_violated=added.count(True), num_kept=added.count(False))


def _labels(proposal: Proposal) -> Iterator[Label]:
    if proposal.violated:
        yield proposal.violated, True
    if proposal.kept:
        yield proposal.kept, False


class _Labels:
    """What all rows say, by conversation, and where each clause is at home; grows with what is admitted."""

    def __init__(self, rows: Sequence[LabelledRow], excluded: Collection[Clause]) -> None:
        self.excluded = excluded
        self.said: defaultdict[tuple[Message, ...], list[Label]] = defaultdict(list)
        self.homes: dict[Clause, tuple[int, str]] = {}
        for place, row in enumerate(rows):
            self.said[tuple(row.conversation)] += zip(row.clauses, row.violated, strict=True)
            for clause in row.clauses:
                self.homes.setdefault(clause, (place, row.domain))

    def admit(self, place: int, row: LabelledRow, clause: Clause, violated: bool) -> bool:
        """Whether the row may have the label; if so, it counts from now on. Places are asked about in order."""
        said = self.said[tuple(row.conversation)]
        first, home = self.homes.get(clause, (place, row.domain))
        if (
            (place < first and row.domain != home)
            or any(says_the_same(clause, own) for own in (*row.clauses, *self.excluded))
            or any(label != violated and says_the_same(clause, other) for other, label in said)
        ):
            return False
        said.append((clause, violated))
        self.homes.setdefault(clause, (place, row.domain))
        return True


class SavedProposals:
    """Proposals that are asked for once and read back from a file ever after: a resumed run learns from the same."""

    def __init__(self, path: Path, make: Callable[[Sequence[LabelledRow]], Proposer]) -> None:
        """Take the file and what makes the proposer, from the rows that it will be asked about."""
        self.path, self.make = path, make

    def propose(self, row: LabelledRow, clauses: Sequence[Clause], rng: np.random.Generator) -> Proposal:
        """Name p⁺ and p⁻ for one row; the file then holds this row alone."""
        return self.propose_all([row], [clauses], rng)[0]

    def propose_all(
        self, rows: Sequence[LabelledRow], configurations: Sequence[Sequence[Clause]], rng: np.random.Generator
    ) -> list[Proposal]:
        """Name p⁺ and p⁻ for every row; nobody is asked where the file is there.

        Raises:
            InputError: the file cannot be read, or is about other rows.
        """
        if not self.path.exists():
            proposals = self.make(rows).propose_all(rows, configurations, rng)
            lines = [
                json.dumps({"id": row.id, **asdict(each)}) + "\n" for row, each in zip(rows, proposals, strict=True)
            ]
            partial = self.path.with_name(f".{self.path.name}")
            partial.write_text("".join(lines), encoding="utf-8")
            partial.replace(self.path)  # a run that is killed while it asks leaves no half of a file
        return self._read([row.id for row in rows])

    def _read(self, ids: Sequence[str]) -> list[Proposal]:
        lines = [line for _, line in read_json_lines(self.path)]
        try:
            if [line["id"] for line in lines] != list(ids):
                raise InputError(f"{self.path}: is about other rows; remove the folder and start again")
            return [Proposal(violated=_clause(line["violated"]), kept=_clause(line["kept"])) for line in lines]
        except (LookupError, TypeError, ConfigurationError) as error:
            raise InputError(
                f"{self.path}: not a file of proposals ({error!r}); remove the folder and start again"
            ) from None


def _clause(saved: dict[str, str] | None) -> Clause | None:
    return None if saved is None else Clause(**saved)


def library_proposer(model: CSRM, rows: Sequence[LabelledRow], asked: Sequence[LabelledRow]) -> LibraryProposer:
    """A proposer that draws from the clauses of `rows`, those nearest to a row's judged message by pooled vectors.

    Args:
        model: pools clauses and messages; its backbone alone is used.
        rows: whose clauses make the library.
        asked: the rows that it will be asked about; where two share an id, the last one's message speaks for both.
    """
    library = ClauseLibrary(rows)
    clauses_CE = clause_vectors(model, library.clauses)
    library.relate(clauses_CE)
    encoded = model.encoder.encode([row.conversation for row in asked])
    # The last window sees the judged message, or its end, after the newest context.
    last = np.cumsum(encoded.windows_per_record) - 1
    windows, starts = encoded.windows(), encoded.judged_starts[last].tolist()
    rows_RE = pooled_vectors(model, model.encode_windows, [windows[place] for place in last], starts)
    return LibraryProposer(library, clauses_CE, {row.id: vector for row, vector in zip(asked, rows_RE, strict=True)})
