"""Cells: scored together as they would be one by one, every conversation read once, labels as the rule says."""

import numpy as np
import pytest
from tiny import tiny_model

from csrm import Clause, Configuration
from csrm.evaluation import cells as module
from csrm.evaluation.cells import Cells, any_clause_cells, counterfactual_cells, own_cells
from csrm.labelled import LabelledRow
from csrm.messages import Message


def text(rng, number):
    return " ".join(f"w{n}" for n in rng.integers(0, 200, number))


def make_row(rng, n, num_clauses=3, domain="d", words=8):
    clauses = tuple(Clause(category=f"w{n + k}", guideline=text(rng, 5)) for k in range(num_clauses))
    talk = [Message("user", text(rng, 4)), Message("assistant", text(rng, words))]
    violated = tuple(bool(v) for v in rng.integers(0, 2, num_clauses))
    return LabelledRow(id=str(n), domain=domain, conversation=talk, clauses=clauses, violated=violated)


def one_by_one(model, cells):
    return [
        model.score([row.conversation], [Configuration(id="a", clauses=clauses)]).reward[0, 0]
        for row, clauses in zip(cells.rows, cells.clauses, strict=True)
    ]


def mixed_cells(rng):
    """Rows of different lengths with one to four cells, one of them over a clause that must be split."""
    rows = [make_row(rng, n, num_clauses=1 + n % 3, words=4 + 12 * (n % 4)) for n in range(7)]
    long = Clause(category="w1", guideline=". ".join(text(rng, 12).capitalize() for _ in range(3)))
    cells = own_cells(rows)
    for row in rows[:3]:
        cells.add(row, [*row.clauses, long], complies=True)
    return cells


@pytest.mark.parametrize("num_probes", [0, 2])
@pytest.mark.parametrize("waste", [0, 1000], ids=["rows bring their own", "engine"])
def test_cells_score_as_one_by_one(num_probes, waste, monkeypatch):
    monkeypatch.setattr(module, "MAX_WASTE", {True: waste, False: waste})
    model, cells = tiny_model(num_probes=num_probes), mixed_cells(np.random.default_rng(0))
    with pytest.warns(UserWarning, match="it was split"):
        expected = one_by_one(model, cells)
    if waste:
        with pytest.warns(UserWarning, match="it was split"):
            rewards = cells.rewards(model)
    else:
        rewards = cells.rewards(model)
    np.testing.assert_allclose(rewards, expected, atol=1e-5)


@pytest.mark.parametrize("budget", [{}, {"MAX_CHARACTERS": 200}, {"MAX_PAIRS": 10}])
def test_batches_change_nothing(budget, monkeypatch):
    monkeypatch.setattr(module, "MAX_WASTE", {True: 0, False: 0})
    model, cells = tiny_model(), own_cells([make_row(np.random.default_rng(n), n) for n in range(9)])
    expected = cells.rewards(model)
    for name, value in budget.items():
        monkeypatch.setattr(module, name, value)
    np.testing.assert_allclose(cells.rewards(model), expected, atol=1e-5)


@pytest.mark.parametrize("waste", [0, 1000])
def test_a_conversation_is_read_once_however_many_cells_it_has(waste, monkeypatch):
    monkeypatch.setattr(module, "MAX_WASTE", {True: waste, False: waste})
    model, read = tiny_model(), []
    encode = model.encode_windows
    monkeypatch.setattr(model, "encode_windows", lambda blocks, *a, **k: read.extend(blocks) or encode(blocks, *a, **k))
    own_cells([make_row(np.random.default_rng(n), n, num_clauses=5) for n in range(6)]).rewards(model)
    assert len(read) == 6


def test_labels_of_own_and_any_clause():
    row = make_row(np.random.default_rng(0), 0)
    row = LabelledRow(
        id="0", domain="", conversation=row.conversation, clauses=row.clauses, violated=(False, True, False)
    )
    own, whole = own_cells([row]), any_clause_cells([row])
    assert own.violates.tolist() == [False, True, False]
    assert (whole.clauses, whole.violates.tolist()) == ([row.clauses], [True])


@pytest.mark.parametrize("same_domain", [False, True])
def test_counterfactual_labels_follow_the_clause(same_domain):
    rng = np.random.default_rng(0)
    rows = [make_row(rng, 10 * n, num_clauses=1, domain=f"d{n % 3}") for n in range(60)]
    cells = counterfactual_cells(rows, rng, same_domain=same_domain)
    for row, clauses, violates in zip(cells.rows, cells.clauses, cells.violates, strict=True):
        holds_violated = row.violated[0] and row.clauses[0] in clauses
        assert violates == holds_violated
        others = [clause for clause in clauses if clause != row.clauses[0]]
        domains = {other.domain for other in rows if other.clauses[0] in others}
        assert domains == {row.domain} if same_domain else row.domain not in domains
    assert cells.violates.mean() == 0.5


def test_counterfactual_needs_both_kinds_of_rows():
    row = make_row(np.random.default_rng(0), 0, num_clauses=1)
    kept = LabelledRow(id="1", domain="d", conversation=row.conversation, clauses=row.clauses, violated=(False,))
    broken = LabelledRow(id="2", domain="d", conversation=row.conversation, clauses=row.clauses, violated=(True,))
    with pytest.raises(ValueError, match="rows that violate their clause and rows that keep it"):
        counterfactual_cells([kept, kept], np.random.default_rng(0))
    with pytest.raises(ValueError, match="no clause of another category in another domain"):
        counterfactual_cells([kept, broken], np.random.default_rng(0))


def test_no_cells_no_rewards():
    assert Cells().violates.shape == (0,)
