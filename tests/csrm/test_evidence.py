"""Evidence: hand-computed odds, the split first layer, laws of combination."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from csrm.evidence import (
    MAX_PAIRS,
    SILENCE,
    ClauseEvidence,
    PermissionScope,
    ProbeEvidence,
    clause_index,
    combine,
    unit,
)

logits = st.lists(st.floats(-20, 20), min_size=1, max_size=6)


def clauses(objects, permits=None):
    """(1, C, 2) logits of one record; without `permits` nothing is permitted."""
    permits = [-torch.inf] * len(objects) if permits is None else permits
    return torch.tensor([objects, permits], dtype=torch.float64).T[None]


def test_objections_add_up_by_hand():
    """Odds add up: e^0 + e^0 = 2, and the second configuration holds one clause of odds e^1."""
    value, loudest = combine(clauses([0.0, 0.0, 1.0]), clause_index([[0, 1], [2]], 3))
    torch.testing.assert_close(value, torch.tensor([[math.log(2), 1.0]], dtype=torch.float64))
    assert loudest.tolist() == [[0, 0]]


def test_permissions_discount_by_hand():
    """Objections of odds 2 and 6, permissions of odds 1 and 2: (2 + 6) / (1 + 1 + 2) = 2."""
    value, loudest = combine(
        clauses([math.log(2), math.log(6)], [0.0, math.log(2)]), clause_index([[0, 1], [0], [1]], 2)
    )
    torch.testing.assert_close(value, torch.tensor([[2.0, 1.0, 2.0]], dtype=torch.float64).log())
    assert loudest.tolist() == [[1, 0, 0]]


def test_a_permission_discounts_what_it_is_meant_for_by_hand():
    """Objections of odds 6 and 4; a third clause permits with odds 2, the first surely, the second by half."""
    z = clauses([math.log(6), math.log(4), -torch.inf], [-torch.inf, -torch.inf, math.log(2)])
    scope = torch.full((1, 3, 3), -torch.inf, dtype=torch.float64)
    scope[0, 2] = torch.tensor([0.0, math.log(0.5), 0.0])
    value, _ = combine(z, clause_index([[0, 1, 2]], 3), scope)
    torch.testing.assert_close(value.exp().item(), 6 / (1 + 2) + 4 / (1 + 1))


def test_scope_is_the_likeness_of_subjects_and_a_clause_speaks_to_itself():
    net = PermissionScope(4)
    vectors = torch.tensor([[1.0, 0, 0, 0], [2.0, 0, 0, 0], [0, 3.0, 0, 0]])
    scope = net(vectors, clause_index([[0, 1], [2, 0], [1]], 3))
    same, apart = (1 / (1 + math.exp(-10 * (cosine - 0.3))) for cosine in (1, 0))
    expected = torch.tensor([[[1, same], [same, 1]], [[1, apart], [apart, 1]]])
    torch.testing.assert_close(scope[:2].exp(), expected)
    assert scope[2, 0, 0] == 0


def test_each_record_may_have_configurations_of_its_own():
    torch.manual_seed(0)
    logits, index = torch.randn(2, 3, 2), torch.tensor([[[0, 3], [1, 2]], [[2, 0], [1, 3]]])
    scope = PermissionScope(5)(torch.randn(3, 5), index)
    value, loudest = combine(logits, index, scope)
    for r in range(2):
        alone, loudest_alone = combine(logits[r : r + 1], index[r], scope[r])
        torch.testing.assert_close(value[r : r + 1], alone)
        assert loudest[r].tolist() == loudest_alone[0].tolist()


@given(logits, logits, st.floats(-20, 20))
def test_another_objection_never_makes_a_configuration_safer(own, permits, other):
    permits = (permits * len(own))[: len(own)]
    z = clauses([*own, other], [*permits, -torch.inf])
    without, _ = combine(z, clause_index([range(len(own))], len(own) + 1))
    with_it, _ = combine(z, clause_index([range(len(own) + 1)], len(own) + 1))
    assert with_it >= without


@given(logits, st.floats(-20, 20))
def test_a_permission_never_makes_a_configuration_less_safe(own, permit):
    z = clauses([*own, -torch.inf], [*[-torch.inf] * len(own), permit])
    without, _ = combine(z, clause_index([range(len(own))], len(own) + 1))
    with_it, _ = combine(z, clause_index([range(len(own) + 1)], len(own) + 1))
    assert with_it <= without


@given(logits)
def test_the_loudest_objection_is_named(own):
    _, loudest = combine(clauses(own), clause_index([range(len(own))], len(own)))
    assert own[int(loudest)] == max(own)


def test_a_clause_that_permits_is_not_named():
    """Objections of odds 6 and 2, of which the first permits with odds 5: alone they come to 1 and 2."""
    _, worst = combine(clauses([math.log(6), math.log(2)], [math.log(5), -torch.inf]), clause_index([[0, 1]], 2))
    assert worst.tolist() == [[1]]


def test_an_untrained_clause_permits_little():
    torch.manual_seed(0)
    net = ClauseEvidence(8, 5)
    torch.nn.init.zeros_(net.output.weight)
    permits = net(torch.randn(1, 8), torch.randn(1, 8))[..., 1]
    assert 0 < permits.sigmoid().item() < 0.1


def test_silent_permissions_can_be_learned_and_others_stay():
    torch.manual_seed(0)
    net, u, v = ClauseEvidence(8, 5), torch.randn(1, 8), torch.randn(1, 8)
    before = net(u, v)
    net.learn_permissions()
    torch.testing.assert_close(net(u, v), before)
    torch.nn.init.zeros_(net.output.weight)
    torch.nn.init.constant_(net.output.bias, SILENCE)
    net.learn_permissions()
    after = net(u, v)
    assert after[..., 0].item() == SILENCE, "objections stay"
    assert 0 < after[..., 1].sigmoid().item() < 0.2
    assert net.output.weight[1].abs().min() > 0, "or nothing would be learned of the text"


def test_the_split_first_layer_equals_the_plain_formula():
    torch.manual_seed(0)
    net = ClauseEvidence(8, 5)
    u, v = torch.randn(3, 8), torch.randn(4, 8)
    expected = torch.empty(3, 4, 2)
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
