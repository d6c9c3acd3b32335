"""Two versions of policies: what changed, and whether scores depend on it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csrm import Clause, Configuration
from csrm.policies.differences import differences

INSULTS = Clause(category="insults", guideline="Do not insult the customer.")
PINS = Clause(category="secrets", guideline="Never ask for a PIN or a password.")
ADVICE = Clause(category="advice", guideline="Give no advice on stocks.")
CODES = Clause(category="Secrets", guideline="Codes stay private.")
NEW = Clause(category="", guideline="Never ask for a PIN, a password or a code.")
BANK = Configuration(id="bank", clauses=(INSULTS, PINS))

CLAUSES = st.lists(
    st.builds(
        Clause, category=st.sampled_from(["", "a", "b"]), guideline=st.sampled_from(["one", "two", "three", "six"])
    ),
    min_size=1,
    max_size=4,
    unique=True,
)


def only(old, new):
    [found] = differences(old, new)
    return found


def test_order_of_clauses_changes_nothing():
    found = only([BANK], [replace(BANK, clauses=(PINS, INSULTS))])
    assert (found.status, found.is_scored_anew) == ("same", False)


@pytest.mark.parametrize(("name", "value"), [("threshold", 0.7), ("title", "Our bank")])
def test_what_no_score_depends_on_changes_no_column(name, value):
    found = only([BANK], [replace(BANK, **{name: value})])
    assert (found.status, found.is_scored_anew) == ("changed", False)
    assert getattr(found, name) == (getattr(BANK, name), value)


def test_a_clause_in_new_words_is_told_from_one_that_is_new():
    found = only([BANK], [replace(BANK, clauses=(NEW, ADVICE))])
    assert found.is_scored_anew
    assert [(pair.before, pair.after) for pair in found.reworded] == [(PINS, NEW)]
    assert [clause.category for clause in found.added] == ["advice"]
    assert found.removed == (INSULTS,)


def test_one_category_is_one_clause_whatever_its_words():
    found = only([BANK], [replace(BANK, clauses=(INSULTS, CODES))])
    assert [pair.before for pair in found.reworded] == [PINS]
    assert not found.added
    assert not found.removed


def test_what_comes_and_goes():
    found = differences([BANK], [replace(BANK, id="game")])
    assert [(one.id, one.status, one.is_scored_anew) for one in found] == [
        ("bank", "removed", False),
        ("game", "added", True),
    ]
    assert found[0].removed == found[1].added == BANK.clauses


@given(CLAUSES, CLAUSES)
def test_old_clauses_less_what_went_plus_what_came_are_the_new_ones(old, new):
    before, after = (Configuration(id="x", clauses=tuple(clauses)) for clauses in (old, new))
    found = only([before], [after])
    gone = [*found.removed, *(pair.before for pair in found.reworded)]
    came = [*found.added, *(pair.after for pair in found.reworded)]
    assert sorted([clause for clause in old if clause not in gone] + came, key=repr) == sorted(new, key=repr)
    assert found.is_scored_anew == (set(old) != set(new)) == (before.fingerprint != after.fingerprint)
