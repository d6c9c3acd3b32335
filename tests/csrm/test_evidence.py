"""Evidence: hand-computed soft-OR, the split first layer, laws of combination."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from csrm.evidence import MAX_PAIRS, ClauseEvidence, ProbeEvidence, clause_index, soft_or, unit

logits = st.lists(st.floats(-20, 20), min_size=1, max_size=6)


def test_soft_or_by_hand():
    """Odds add up: e^0 + e^0 = 2, and the second configuration holds one clause of odds e^1."""
    value, worst = soft_or(torch.tensor([[0.0, 0.0, 1.0]]), clause_index([[0, 1], [2]], 3))
    torch.testing.assert_close(value, torch.tensor([[math.log(2), 1.0]]))
    assert worst.tolist() == [[0, 0]]


@given(logits, st.floats(-20, 20))
def test_another_clause_never_makes_a_configuration_safer(own, other):
    z = torch.tensor([[*own, other]], dtype=torch.float64)
    without, _ = soft_or(z, clause_index([range(len(own))], len(own) + 1))
    with_it, _ = soft_or(z, clause_index([range(len(own) + 1)], len(own) + 1))
    assert with_it >= without
    assert with_it >= other


@given(logits)
def test_the_largest_clause_is_named(own):
    _, worst = soft_or(torch.tensor([own]), clause_index([range(len(own))], len(own)))
    assert own[int(worst)] == max(torch.tensor(own).tolist(), default=0) or math.isclose(
        own[int(worst)], max(own), rel_tol=1e-6, abs_tol=1e-6
    )


def test_the_split_first_layer_equals_the_plain_formula():
    torch.manual_seed(0)
    net = ClauseEvidence(8, 5)
    u, v = torch.randn(3, 8), torch.randn(4, 8)
    expected = torch.empty(3, 4)
    for i, a in enumerate(unit(u)):
        for j, b in enumerate(unit(v)):
            hidden = net.row(a) + net.column(b) + net.pair(torch.cat([a * b, (a - b).abs()]))
            expected[i, j] = net.output(torch.nn.functional.gelu(hidden))
    torch.testing.assert_close(net(u, v), expected)


def test_many_pairs_are_worked_off_in_steps(monkeypatch):
    torch.manual_seed(0)
    net = ClauseEvidence(8, 5)
    u, v = torch.randn(7, 8), torch.randn(11, 8)
    at_once = net(u, v)
    assert MAX_PAIRS > 7 * 11
    monkeypatch.setattr("csrm.evidence.MAX_PAIRS", 20)
    torch.testing.assert_close(net(u, v), at_once)


def test_probe_evidence_starts_at_nothing():
    logits = torch.randn(2, 3)
    torch.testing.assert_close(ProbeEvidence(4)(logits, torch.randn(2, 3, 5, 4)), logits)


def test_unit_vectors_have_entries_of_order_one():
    torch.testing.assert_close(unit(torch.tensor([[3.0, 4.0, 0.0, 0.0]])).norm(dim=-1), torch.tensor([2.0]))
