"""Configurations around labelled clauses: the label rule holds, whatever is drawn."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from csrm import Clause, Message
from csrm.augmentation import Recipe, sample_batch
from csrm.clause_library import ClauseLibrary
from csrm.labelled import LabelledRow, PreferenceRow
from csrm.strictness import Ladder, StrictnessPair

PLAIN = Recipe(restyled_share=0.0, mixed_share=0.0, num_strictness=0, overridden_share=0.0)
LADDER = Ladder(category="Social", subcategories=("one", "two", "three"), aliases=("social1", "social3"))
PAIRS = [StrictnessPair(LADDER, 3, 1), StrictnessPair(LADDER, 2, 0)]
PREFERENCES = [
    PreferenceRow(id=f"p{n}", conversation=[Message("user", f"q{n}")], chosen=f"good {n}", rejected=f"bad {n}")
    for n in range(3)
]


def clause(name):
    return Clause(category=name, guideline=f"Rule about {name}.")


def row(domain, name, violated, number=0):
    return LabelledRow(
        id=f"{domain}-{name}-{number}",
        domain=domain,
        conversation=[Message("user", f"{name} {number}")],
        clauses=(clause(name),),
        violated=(violated,),
    )


ROWS = [
    *(row("hr", f"hr{n}", bool(n % 2)) for n in range(6)),
    *(row("social", f"social{n}", bool(n % 2)) for n in range(6)),
    *(row("diasafety", f"talk{n}", bool(n % 2)) for n in range(3)),
    LabelledRow(
        id="rbr",
        domain="rbr",
        conversation=[Message("user", "q"), Message("assistant", "a")],
        clauses=tuple(clause(f"conduct{n}") for n in range(5)),
        violated=(True, False, True, False, False),
    ),
]


@pytest.fixture(scope="module")
def library():
    library = ClauseLibrary(ROWS)
    library.relate(np.eye(len(library.clauses), dtype=np.float32))
    return library


@given(st.integers(0, 2**32 - 1))
def test_a_cell_complies_iff_no_violated_clause_is_in_it(library, seed):
    batch = sample_batch(ROWS, library, np.random.default_rng(seed), PLAIN)
    for r, own in enumerate(batch.rows):
        bad = {c for c, violated in zip(own.clauses, own.violated, strict=True) if violated}
        for k in range(batch.index_RKM.shape[1]):
            members = [batch.clauses[c] for c in batch.index_RKM[r, k] if c < len(batch.clauses)]
            assert members
            assert len(set(members)) == len(members)
            assert batch.complies_RK[r, k] == (not bad & set(members))


@given(st.integers(0, 2**32 - 1))
def test_nothing_unknown_stands_beside_a_violated_clause(library, seed):
    """Beside its own clauses a row meets only clauses of domains that its text is not about."""
    batch = sample_batch(ROWS, library, np.random.default_rng(seed), PLAIN)
    domain_of = dict(zip(library.clauses, library.domains, strict=True))
    for r, own in enumerate(batch.rows):
        for c in batch.index_RKM[r].ravel():
            if c < len(batch.clauses) and (other := batch.clauses[c]) not in own.clauses and other in domain_of:
                assert domain_of[other] != "rbr", "a rule about form may be violated by any text"
                assert {own.domain, domain_of[other]} != {"social", "diasafety"}


@given(st.integers(0, 2**32 - 1))
def test_a_violating_row_meets_its_clause_in_half_of_its_configurations(library, seed):
    batch = sample_batch(ROWS, library, np.random.default_rng(seed), PLAIN)
    for r, own in enumerate(batch.rows):
        if any(own.violated):
            assert (~batch.complies_RK[r]).sum() == 4


def allowed_topic(permission):
    """The name of the clause that a permission was made from: they all speak of their own name alone."""
    text = f"{permission.category} {permission.guideline}".lower()
    return set(re.findall(r"[a-z]+[0-9]+", text))


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.5, 1.0]))
def test_a_permission_overrides_what_it_allows_and_nothing_else(library, seed, share):
    batch = sample_batch(ROWS, library, np.random.default_rng(seed), replace(PLAIN, overridden_share=share))
    permits = {c: allowed_topic(clause) for c, clause in enumerate(batch.clauses) if clause not in library.index}
    assert len(permits) > 3
    for r, own in enumerate(batch.rows):
        bad = {c.category for c, violated in zip(own.clauses, own.violated, strict=True) if violated}
        for k, members in enumerate(batch.index_RKM[r].tolist()):
            held = {batch.clauses[c].category for c in members if c < len(batch.clauses) and c not in permits}
            allowed = set().union(*(permits[c] for c in members if c in permits))
            assert batch.complies_RK[r, k] == (not (bad & held) - allowed)
            if share == 0:
                assert not bad & held & allowed


def test_a_specific_rule_is_kept_by_text_about_something_else():
    """Rules of exchanges are presumed kept where their texts are far apart, by texts of any domain; rbr's never are."""
    rows = [row("exchanges", "here1", True), row("exchanges", "far1", True), row("social", "post1", True), ROWS[-1]]
    library = ClauseLibrary(rows)
    similarity = np.full((len(library.clauses),) * 2, 0.3, np.float32)
    here, far, post = (library.index[clause(name)] for name in ("here1", "far1", "post1"))
    similarity[[here, far, post, far], [far, here, far, post]] = 0.1
    library.relate_similar(similarity)
    assert np.flatnonzero(library.presumed_kept(rows[0])).tolist() == [far]
    assert np.flatnonzero(library.presumed_kept(rows[2])).tolist() == [far]


def test_what_all_vectors_share_does_not_relate_clauses():
    """Vectors of a trained model lean one way; the same clauses are unrelated as before."""
    vectors = np.random.default_rng(0).normal(size=(len(ClauseLibrary(ROWS).clauses), 16)).astype(np.float32)
    tables = []
    for common in (0, 5):
        library = ClauseLibrary(ROWS)
        library.relate(vectors + common)
        tables.append(library.is_unrelated)
    assert tables[0].any()
    assert not tables[0].all()
    assert np.array_equal(*tables)


def test_what_a_row_keeps_of_other_domains_and_what_is_unsure_settle_what_may_be_presumed():
    """A kept topic says nothing of what the text is about; a topic that nobody is sure of does."""
    own, topic, far = row("exchanges", "own1", True), row("requests", "topic1", True), row("hr", "far1", True)
    both = replace(own, clauses=(clause("own1"), clause("topic1")), violated=(True, False))
    library = ClauseLibrary([own, topic, far])
    similarity = np.full((3, 3), 0.1, np.float32)
    numbers = {name: library.index[clause(name)] for name in ("own1", "topic1", "far1")}
    similarity[[numbers["topic1"], numbers["far1"]], [numbers["far1"], numbers["topic1"]]] = 0.9
    library.relate_similar(similarity)
    assert library.presumed_kept(own)[numbers["far1"]]
    assert library.presumed_kept(both)[numbers["far1"]], "topic1, which is like far1, is kept"
    assert not library.presumed_kept(replace(both, violated=(True, True)))[numbers["far1"]]
    assert not library.presumed_kept(replace(own, unsure=(clause("topic1"),)))[numbers["far1"]]


@given(st.integers(0, 2**32 - 1))
def test_cells_follow_from_what_their_clauses_say(library, seed):
    recipe = replace(PLAIN, overridden_share=0.5)
    batch = sample_batch(ROWS, library, np.random.default_rng(seed), recipe, preferences=PREFERENCES)
    permits = {c: allowed_topic(clause) for c, clause in enumerate(batch.clauses) if clause not in library.index}
    for r in range(len(ROWS)):
        for k, members in enumerate(batch.index_RKM[r].tolist()):
            says = {c: tuple(batch.says_RC2[r, c].tolist()) for c in members if c < len(batch.clauses)}
            assert set(says.values()) <= {(0, 0), (1, 0), (0, 1)}
            allowed = set().union(*(permits[c] for c in says if says[c] == (0, 1)))
            objecting = {batch.clauses[c].category for c in says if says[c] == (1, 0)}
            assert batch.complies_RK[r, k] == (not objecting - allowed)
    assert (batch.says_RC2[len(ROWS) :] == -1).all(), "nothing is known of replies that were only compared"


def test_a_written_permission_lifts_its_rule_and_a_near_miss_does_not():
    lifted, missed = clause("lifted"), clause("missed")
    rows = [replace(row("exchanges", "own", True), lifted_by=lifted, near_miss=missed), *ROWS]
    library = ClauseLibrary(rows)
    library.relate(np.eye(len(library.clauses), dtype=np.float32))
    outcomes = set()
    for seed in range(40):
        batch = sample_batch(rows, library, np.random.default_rng(seed), replace(PLAIN, overridden_share=0.5))
        says = dict(zip(batch.clauses, batch.says_RC2[0].tolist(), strict=True))
        meant = dict(zip(batch.clauses, batch.meant_CC[batch.clauses.index(missed)].tolist(), strict=True))
        assert meant[clause("own")] == meant[clause("hr1")] == 0, "neither for its rule nor for an unrelated one"
        if lifted in batch.clauses:
            meant = dict(zip(batch.clauses, batch.meant_CC[batch.clauses.index(lifted)].tolist(), strict=True))
            assert {c.category for c in meant if meant[c] == 1} == {"own"}
            assert meant[clause("hr1")] == 0
            assert meant[missed] == -1
        assert says[missed] == [0, 0]
        assert says.get(lifted, [0, 1]) == [0, 1]
        others_R2 = batch.says_RC2[1:, batch.clauses.index(missed)]
        assert set(map(tuple, others_R2.tolist())) <= {(0, 0), (-1, -1)}
        assert (others_R2 == 0).any()
        for k, members in enumerate(batch.index_RKM[0].tolist()):
            held = {batch.clauses[c] for c in members if c < len(batch.clauses)}
            generated = any("own" in c.guideline for c in held if c not in library.index)
            if clause("own") in held and held & {lifted, missed} and not generated:
                assert batch.complies_RK[0, k] == (lifted in held)
                outcomes.add(bool(batch.complies_RK[0, k]))
    assert outcomes == {True, False}


def test_what_else_a_clause_may_allow_is_not_known(library):
    """Half of these clauses also allow something unrelated; what the other half permits is known to be nothing."""
    batch = sample_batch(ROWS, library, np.random.default_rng(0), replace(PLAIN, mixed_share=0.5, num_permissions=0))
    known = (batch.says_RC2[..., 1] >= 0).any(axis=0)
    reworded = np.array([clause not in library.index for clause in batch.clauses])
    assert 0 < reworded.sum() < len(reworded)
    assert not known[reworded].any()
    assert known[~reworded].all()


def test_overriding_permissions_are_drawn(library):
    """With every twin at hand appended, some violated clauses stand beside theirs; with none, none do."""

    def overridden(share):
        found = 0
        for seed in range(10):
            batch = sample_batch(ROWS, library, np.random.default_rng(seed), replace(PLAIN, overridden_share=share))
            for r, own in enumerate(batch.rows):
                bad = {c for c, violated in zip(own.clauses, own.violated, strict=True) if violated}
                for k in range(0, batch.index_RKM.shape[1], 2):
                    found += bool(batch.complies_RK[r, k] and bad & {batch.clauses[c] for c in members(batch, r, k)})
        return found

    assert overridden(0.0) == 0
    assert 0 < overridden(0.5) < overridden(1.0)


def test_a_batch_is_a_function_of_its_seed(library):
    first, again = (sample_batch(ROWS, library, np.random.default_rng(3), strictness=PAIRS) for _ in range(2))
    np.testing.assert_array_equal(first.index_RKM, again.index_RKM)
    assert first.clauses == again.clauses


def members(batch, r, k):
    return {int(c) for c in batch.index_RKM[r, k] if c < len(batch.clauses)}


@given(st.integers(0, 2**32 - 1))
def test_a_restyled_batch_has_the_same_cells_in_other_words(library, seed):
    """Words are drawn, labels are not: every cell still complies iff none of its clauses is violated."""
    recipe = Recipe(restyled_share=0.6, mixed_share=0.4, num_strictness=0, num_permissions=0)
    batch = sample_batch(ROWS, library, np.random.default_rng(seed), recipe)
    changed = sum(clause not in library.index for clause in batch.clauses)
    assert changed > len(batch.clauses) / 2
    assert batch.known_RK.all()
    for r, own in enumerate(batch.rows):
        if any(own.violated):
            assert (~batch.complies_RK[r]).sum() == recipe.num_configurations // 2


@given(st.integers(0, 2**32 - 1))
def test_strictness_pairs_differ_in_one_clause_alone(library, seed):
    batch = sample_batch(ROWS, library, np.random.default_rng(seed), strictness=PAIRS)
    assert len(batch.strictness_P2) == 2, "two rows violate a clause that the ladder matches"
    for lenient, strict in batch.strictness_P2:
        (r, k), (also_r, other) = divmod(lenient, 8), divmod(strict, 8)
        assert r == also_r
        assert not batch.known_RK[r, k]
        assert not batch.known_RK[r, other]
        assert batch.rows[r].clauses[0].category in {"social1", "social3"}
        only_lenient, only_strict = (
            members(batch, r, k) - members(batch, r, other),
            members(batch, r, other) - members(batch, r, k),
        )
        assert len(only_lenient) == len(only_strict) == 1
        assert batch.clauses[only_lenient.pop()].category == batch.clauses[only_strict.pop()].category


def test_strictness_pairs_are_bounded(library):
    recipe = Recipe(num_strictness=2)
    assert len(sample_batch(ROWS, library, np.random.default_rng(0), recipe, strictness=PAIRS).strictness_P2) == 2


@given(st.integers(0, 2**32 - 1))
def test_both_replies_of_a_preference_stand_under_the_same_configurations(library, seed):
    batch = sample_batch(ROWS, library, np.random.default_rng(seed), PLAIN, preferences=PREFERENCES)
    assert len(batch.rows) == len(ROWS) + 6
    assert len(batch.preference_P2) == 3 * 8
    for chosen, rejected in batch.preference_P2:
        (r, k), (q, other) = divmod(chosen, 8), divmod(rejected, 8)
        assert (q, other) == (r + 1, k)
        assert members(batch, r, k) == members(batch, q, other)
        assert not batch.known_RK[[r, q]].any()
        assert batch.rows[r].conversation[-1].content.startswith("good")
        assert batch.rows[q].conversation == [*batch.rows[r].conversation[:-1], batch.rows[q].conversation[-1]]
        assert batch.rows[q].conversation[-1].content.startswith("bad")


@pytest.mark.parametrize(
    "bad", [{"num_configurations": 0}, {"num_configurations": 2}, {"restyled_share": 0.8, "mixed_share": 0.3}]
)
def test_recipes_are_checked(bad):
    with pytest.raises(ValueError, match="got Recipe"):
        Recipe(**bad)


def test_similar_clauses_are_not_presumed_kept():
    library = ClauseLibrary(ROWS)
    similar = np.full((len(library.clauses),) * 2, 0.9, np.float32)
    library.relate_similar(similar)
    assert not library.is_unrelated.any()
