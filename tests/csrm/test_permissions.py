"""Permissions: prohibitions turned round."""

import numpy as np
import pytest

from csrm import Clause
from csrm.phrasing.permissions import allowances, permission


@pytest.mark.parametrize(
    ("rule", "turned"),
    [
        ("Emails must not imitate brands.", "Emails may imitate brands"),
        ("You can't share passwords.", "You may share passwords"),
        ("Never share passwords.", "It is allowed to share passwords"),
        ("Do not share photos unless both agree.", "You may share photos"),
        ("Do not share photos; they are deleted.", "We allow sharing photos"),
        ("Selling tickets is prohibited.", "selling tickets is permitted"),
        ("No cruelty to animals.", "We allow cruelty to animals"),
        ("Students must cite sources.", "Students need not cite sources"),
        ("Cite sources.", "There is no duty to cite sources"),
        ("Content must not praise war.", "We allow content that praises war"),
    ],
)
def test_a_prohibition_turns_into_a_permission(rule, turned):
    assert turned in allowances(Clause(category="", guideline=rule))


@pytest.mark.parametrize(
    "rule", ["No cruelty to animals, and no praise for it.", "Colleagues come first.", "Severe abuse ends in a ban."]
)
def test_what_cannot_be_turned_round_safely_is_lifted_as_a_whole(rule):
    clause = Clause(category="", guideline=rule)
    assert not allowances(clause)
    rng = np.random.default_rng(0)
    for text in (permission(clause, rng).guideline for _ in range(50)):
        assert rule.rstrip(".") in text
        assert text.startswith(
            ("This rule does not", "We do not ask", "Breaking the following", "The following rule has")
        )


def test_every_wording_allows_and_the_nearest_are_among_them():
    rng = np.random.default_rng(0)
    clause = Clause(category="Bullying", guideline="Employees must not bully others.")
    texts = {permission(clause, rng).guideline for _ in range(400)}
    assert len(texts) > 30
    assert {"Employees may bully others.", "Bullying is allowed here.", "Employees can bully others."} <= texts
    assert clause.guideline not in texts


def test_a_category_that_names_what_is_guarded_is_not_allowed_but_lifted():
    """ "Academic integrity is allowed here" would be nonsense."""
    rng = np.random.default_rng(0)
    clause = Clause(category="Academic Integrity", guideline="Severe cases are reported to the dean.")
    texts = {permission(clause, rng).guideline for _ in range(200)}
    assert "The usual rules on academic integrity do not apply here." in texts
    assert not any(text.startswith(("Academic integrity", "We allow academic")) for text in texts)
