"""Configurations around labelled clauses: the label rule holds, whatever is drawn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from csrm import Clause, Message
from csrm.augmentation import ClauseLibrary, sample_batch
from csrm.labelled import LabelledRow


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
    batch = sample_batch(ROWS, library, np.random.default_rng(seed))
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
    batch = sample_batch(ROWS, library, np.random.default_rng(seed))
    domain_of = dict(zip(library.clauses, library.domains, strict=True))
    for r, own in enumerate(batch.rows):
        for c in batch.index_RKM[r].ravel():
            if c < len(batch.clauses) and (other := batch.clauses[c]) not in own.clauses and other in domain_of:
                assert domain_of[other] != "rbr", "a rule about form may be violated by any text"
                assert {own.domain, domain_of[other]} != {"social", "diasafety"}


@given(st.integers(0, 2**32 - 1))
def test_a_violating_row_meets_its_clause_in_half_of_its_configurations(library, seed):
    batch = sample_batch(ROWS, library, np.random.default_rng(seed), num_configurations=8)
    for r, own in enumerate(batch.rows):
        if any(own.violated):
            assert (~batch.complies_RK[r]).sum() == 4


@given(st.integers(0, 2**32 - 1))
def test_a_permission_stands_in_place_of_the_clause_it_allows(library, seed):
    batch = sample_batch(ROWS, library, np.random.default_rng(seed))
    permissions = {c for c, clause in enumerate(batch.clauses) if clause not in library.index}
    assert len(permissions) == 16
    for r, own in enumerate(batch.rows):
        bad = {c for c, violated in zip(own.clauses, own.violated, strict=True) if violated}
        for members in batch.index_RKM[r]:
            held = {batch.clauses[c] for c in members if c < len(batch.clauses)}
            if permissions & set(members.tolist()):
                assert not bad & held


def test_a_batch_is_a_function_of_its_seed(library):
    first, again = (sample_batch(ROWS, library, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first.index_RKM, again.index_RKM)
    assert first.clauses == again.clauses


def test_similar_clauses_are_not_presumed_kept():
    library = ClauseLibrary(ROWS)
    similar = np.full((len(library.clauses),) * 2, 0.9, np.float32)
    library.relate(similar)
    assert not library.is_unrelated.any()
