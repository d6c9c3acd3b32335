"""Proposals: p⁺ is violated, p⁻ is not, and labels follow from the set, whatever is drawn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from csrm import Clause, Message
from csrm.clause_library import ClauseLibrary
from csrm.labelled import LabelledRow
from csrm.proposers import LibraryProposer, Proposal, counterfactual

NUM_SUBJECTS, NUM_WORDINGS = 5, 3


def clause(subject, wording):
    return Clause(category=f"Subject {subject} {wording}", guideline=f"No {subject}, said in way {wording}.")


class World:
    """A world whose truth is known: who violates one clause on a subject violates every clause on it.

    Rows are labelled for some clauses only; the proposer sees labels and vectors, the test sees the truth.
    """

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.rows, self.bad_subjects = [], {}
        for number in range(12):
            bad = set(np.flatnonzero(rng.random(NUM_SUBJECTS) < 0.3).tolist())
            pairs = [(int(rng.integers(NUM_SUBJECTS)), int(rng.integers(NUM_WORDINGS))) for _ in range(4)]
            pairs = list(dict.fromkeys(pairs))
            id = f"row {number}"
            self.bad_subjects[id] = bad
            self.rows.append(
                LabelledRow(
                    id=id,
                    domain="hr",
                    conversation=[Message("user", id)],
                    clauses=tuple(clause(*pair) for pair in pairs),
                    violated=tuple(subject in bad for subject, _ in pairs),
                )
            )
        self.library = ClauseLibrary(self.rows)
        subjects = [int(each.category.split()[1]) for each in self.library.clauses]
        vectors = np.eye(NUM_SUBJECTS)[subjects] + rng.normal(scale=0.02, size=(len(subjects), NUM_SUBJECTS))
        self.vectors = vectors.astype(np.float32)
        self.library.relate(self.vectors)
        self.row_vectors = {row.id: rng.normal(size=NUM_SUBJECTS).astype(np.float32) for row in self.rows}

    def proposer(self, **settings):
        return LibraryProposer(self.library, self.vectors, self.row_vectors, **settings)

    def is_violated(self, row, each):
        return int(each.category.split()[1]) in self.bad_subjects[row.id]

    def configuration(self, row, rng):
        """Clauses of the row and presumed kept ones: what may stand around it."""
        others = [self.library.clauses[n] for n in np.flatnonzero(self.library.presumed_kept(row))]
        own = {each for each, bad in zip(row.clauses, row.violated, strict=True) if bad}
        others = [each for each in others if each not in own and not self.is_violated(row, each)]
        choice = [*row.clauses, *others]
        return [choice[n] for n in rng.permutation(len(choice))[: int(rng.integers(0, 4))]]


worlds = st.integers(0, 200).map(World)
seeds = st.integers(0, 2**32 - 1)


@given(worlds, seeds, st.sampled_from([0.0, 0.05, 10.0]))
def test_proposals_are_what_they_claim(world, seed, temperature):
    rng = np.random.default_rng(seed)
    proposer = world.proposer(temperature=temperature)
    for row in world.rows:
        clauses = world.configuration(row, rng)
        proposal = proposer.propose(row, clauses, rng)
        if proposal.violated:
            assert world.is_violated(row, proposal.violated)
            assert proposal.violated not in clauses
        if proposal.kept:
            known = dict(zip(row.clauses, row.violated, strict=True))
            assert not known.get(proposal.kept, False)
            assert proposal.kept not in clauses
        bad = {each for each, violated in zip(row.clauses, row.violated, strict=True) if violated}
        assert bool(proposal.violated) == bool(bad - set(clauses))


@given(worlds, seeds)
def test_no_violated_clause_sneaks_in_as_kept(world, seed):
    """Nor one that only says the same as a violated one, labelled or not, however evenly clauses are drawn."""
    rng = np.random.default_rng(seed)
    proposer = world.proposer(temperature=100.0)
    for row in world.rows:
        bad = {int(c.category.split()[1]) for c, v in zip(row.clauses, row.violated, strict=True) if v}
        for _ in range(10):
            kept = proposer.propose(row, [], rng).kept
            if kept:
                assert int(kept.category.split()[1]) not in bad


@given(worlds, seeds)
def test_the_label_rule_holds_and_leaving_the_violated_clauses_out_flips_it(world, seed):
    rng = np.random.default_rng(seed)
    proposer = world.proposer()
    labels = set()
    for row in world.rows:
        clauses = world.configuration(row, rng)
        members, complies = counterfactual(row, clauses, proposer.propose(row, clauses, rng), rng)
        known = {c for c, v in zip(row.clauses, row.violated, strict=True) if v}
        assert complies == (not known & set(members))
        assert len(set(members)) == len(members)
        rest = [each for each in members if each not in known]
        if not complies and rest:
            _, without = counterfactual(row, rest, Proposal(), rng)
            assert without
        labels.add(complies)
    assert True in labels


def test_both_labels_come_out_and_every_part_is_used():
    bad, good, far = (Clause(category=name, guideline=f"No {name}.") for name in ("bad", "good", "far"))
    row = LabelledRow(id="r", domain="hr", conversation=[Message("user", "x")], clauses=(), violated=())
    seen = {
        (frozenset(c.category for c in members), complies)
        for members, complies in (
            counterfactual(row, [far], Proposal(violated=bad, kept=good), np.random.default_rng(seed))
            for seed in range(200)
        )
    }
    subsets = [{"bad"}, {"good"}, {"far"}, {"bad", "good"}, {"bad", "far"}, {"good", "far"}, {"bad", "good", "far"}]
    assert seen == {(frozenset(names), "bad" not in names) for names in subsets}


@given(worlds, seeds)
def test_proposals_are_a_function_of_the_seed(world, seed):
    configurations = [world.configuration(row, np.random.default_rng(1)) for row in world.rows]
    first, again = (
        world.proposer().propose_all(world.rows, configurations, np.random.default_rng(seed)) for _ in range(2)
    )
    assert first == again


def by_closeness(**settings):
    """Four clauses that the row keeps, at cosines 0.9, 0.6, 0.3 and -1 to it."""
    names = ["a", "b", "c", "d"]
    kept = tuple(Clause(category=name, guideline=f"No {name}.") for name in names)
    row = LabelledRow(id="r", domain="hr", conversation=[Message("user", "x")], clauses=kept, violated=(False,) * 4)
    cosine = np.array([0.9, 0.6, 0.3, -1.0])
    vectors = 3 * np.stack([cosine, np.sqrt(1 - cosine**2)], axis=1).astype(np.float32)
    library = ClauseLibrary([row])
    return row, LibraryProposer(library, vectors, {"r": np.array([7.0, 0.0], np.float32)}, **settings)


def test_the_nearest_clause_comes_first():
    row, proposer = by_closeness(temperature=0.0)
    rng = np.random.default_rng(0)
    assert proposer.propose(row, [], rng).kept == row.clauses[0]
    assert proposer.propose(row, row.clauses[:1], rng).kept == row.clauses[1]
    assert proposer.propose(row, row.clauses, rng) == Proposal()


def test_frequencies_follow_the_temperature():
    """p ∝ exp(cosine / T): with T = 0.3 the first two of cosines .9, .6 stand e : 1."""
    row, proposer = by_closeness(temperature=0.3)
    rng = np.random.default_rng(0)
    drawn = [proposer.propose(row, [], rng).kept.category for _ in range(4000)]
    weights = np.exp(np.array([0.9, 0.6, 0.3, -1.0]) / 0.3)
    expected = weights / weights.sum()
    found = np.array([drawn.count(name) / len(drawn) for name in "abcd"])
    np.testing.assert_allclose(found, expected, atol=0.025)


def test_a_kept_clause_that_nearly_is_a_violated_one_is_passed_over():
    bad = Clause(category="Rude", guideline="Do not insult players.")
    twin = Clause(category="Insults", guideline="do not INSULT players")
    near = Clause(category="Slights", guideline="Do not slight players.")
    row = LabelledRow(
        id="r",
        domain="hr",
        conversation=[Message("user", "x")],
        clauses=(bad, twin, near),
        violated=(True, False, False),
    )
    library = ClauseLibrary([row])
    vectors = np.array([[1, 0], [0, 1], [0.95, 0.05]], np.float32)
    proposer = LibraryProposer(library, vectors, {"r": np.array([0, 1], np.float32)})
    assert proposer.propose(row, [], np.random.default_rng(0)) == Proposal(violated=bad)


def test_a_clause_in_other_words_is_not_proposed_twice():
    row, proposer = by_closeness(temperature=0.0)
    shouted = Clause(category="A!", guideline="NO A")
    assert proposer.propose(row, [shouted], np.random.default_rng(0)).kept == row.clauses[1]


def test_a_row_without_labels_presumes_nothing():
    row, proposer = by_closeness()
    empty = LabelledRow(id="r", domain="hr", conversation=row.conversation, clauses=(), violated=())
    assert proposer.propose(empty, [], np.random.default_rng(0)) == Proposal()


def test_settings_that_do_not_fit_are_refused():
    row, proposer = by_closeness()
    with pytest.raises(ValueError, match="3 vectors for 4 clauses"):
        LibraryProposer(proposer.library, np.zeros((3, 2), np.float32), {})
    with pytest.raises(ValueError, match="temperature"):
        LibraryProposer(proposer.library, np.zeros((4, 2), np.float32), {}, temperature=-1)
    del row
