"""Permissions: prohibitions turned round."""

import numpy as np
import pytest

from csrm import Clause
from csrm.permissions import _turned_round, permission


@pytest.mark.parametrize(
    ("rule", "turned"),
    [
        ("Emails must not imitate brands.", "Emails may imitate brands."),
        ("You can't share passwords.", "You may share passwords."),
        ("Never share passwords.", "It is allowed to share passwords."),
        ("No cruelty to animals, and no praise for it.", "Cruelty to animals: allowed."),
        ("Students must cite sources.", "Students need not cite sources."),
        ("Respect colleagues.", None),
    ],
)
def test_a_prohibition_turns_into_a_permission(rule, turned):
    assert _turned_round(rule) == turned


def test_every_wording_keeps_the_category_and_allows():
    rng = np.random.default_rng(0)
    clause = Clause(category="Bullying", guideline="Employees must not bully others.")
    texts = {permission(clause, rng).guideline for _ in range(200)}
    assert len(texts) > 5
    assert "Employees may bully others." in texts
    assert clause.guideline not in texts
