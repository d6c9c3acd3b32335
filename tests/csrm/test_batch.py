"""However a batch is cut into parts, their losses and gradients are those of the whole batch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_model

from csrm import Clause, Message
from csrm.batch import Batch, Tokens, cut, split_long_clauses
from csrm.cells import batch_reward, read_tokens
from csrm.labelled import LabelledRow
from csrm.training.objective import batch_losses

GAMMA, DELTA = 0.7, 0.7
NUM_CONFIGURATIONS = 3


def words(rng, number):
    return " ".join(f"w{word}" for word in rng.integers(0, 99, number))


def make_batch(rng, num_rows=9, num_preferences=2, longest=30):
    """Random cells over random rows; the last rows are pairs of replies."""
    clauses = [Clause(category=f"w{c}", guideline=words(rng, 4)) for c in range(7)]
    total = num_rows + 2 * num_preferences
    index = np.full((total, NUM_CONFIGURATIONS, 3), len(clauses))
    for cell in index.reshape(-1, 3):
        size = rng.integers(1, 4)
        cell[:size] = rng.choice(len(clauses), size=size, replace=False)
    unknown = np.zeros((total, NUM_CONFIGURATIONS), bool)
    strict = rng.choice(num_rows, size=3, replace=False)[:, None] * NUM_CONFIGURATIONS + np.array([1, 2])
    unknown.reshape(-1)[strict] = True
    unknown[num_rows:] = True
    first = np.arange(num_rows, total, 2)[:, None] * NUM_CONFIGURATIONS
    chosen = (first + np.arange(NUM_CONFIGURATIONS)).ravel()
    return Batch(
        rows=[
            LabelledRow(
                id=str(r),
                domain="",
                conversation=[
                    Message("user", " ".join(f"w{w}" for w in rng.integers(0, 99, rng.integers(1, longest))))
                ],
                clauses=(),
                violated=(),
            )
            for r in range(total)
        ],
        clauses=clauses,
        index_RKM=index,
        complies_RK=rng.random((total, NUM_CONFIGURATIONS)) < 0.5,
        unknown_RK=unknown,
        strictness_P2=strict,
        preference_P2=np.stack([chosen, chosen + NUM_CONFIGURATIONS], axis=1),
        says_RC2=rng.integers(-1, 2, size=(total, len(clauses), 2)).astype(np.int8),
        meant_CC=rng.integers(-1, 2, size=(len(clauses), len(clauses))).astype(np.int8),
    )


def gradients(model, parts):
    """Loss and gradients, added up over parts."""
    model.zero_grad()
    total = 0.0
    for part in parts:
        losses = batch_losses(read_tokens(model, part.tokens, part.batch.index_RKM), part.batch)
        shares = part.shares
        loss = losses.classification * shares.classification + DELTA * losses.evidence * shares.evidence
        loss = loss + GAMMA * (losses.strictness * shares.strictness + losses.preference * shares.preference)
        loss.backward()
        total += loss.item()
    return total, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("num_probes", [0, 1])
@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**16),
    max_tokens=st.integers(1, 400),
    num_workers=st.integers(1, 14),
    even=st.booleans(),
)
def test_parts_add_up_to_the_batch(num_probes, seed, max_tokens, num_workers, even):
    model = tiny_model("bert", num_probes, max_conversation_tokens=24)
    batch = make_batch(np.random.default_rng(seed))
    model.zero_grad()
    tokens = Tokens.of(batch, model.encoder)
    loss = batch_losses(read_tokens(model, tokens, batch.index_RKM), batch).total(GAMMA, DELTA)
    loss.backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    parts = cut(batch, tokens, max_tokens=max_tokens, num_workers=num_workers, even=even)
    total, found = gradients(model, [part for own in parts for part in own])
    assert total == pytest.approx(loss.item(), rel=1e-5)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@given(seed=st.integers(0, 2**16), max_tokens=st.integers(1, 400), num_workers=st.integers(1, 14))
def test_parts_hold_every_row_once_and_pairs_together(seed, max_tokens, num_workers):
    batch = make_batch(np.random.default_rng(seed))
    encoder = tiny_model().encoder
    tokens = Tokens.of(batch, encoder)
    workers = cut(batch, tokens, max_tokens=max_tokens, num_workers=num_workers)
    parts = [part for own in workers for part in own]
    assert sorted(row.id for part in parts for row in part.batch.rows) == sorted(row.id for row in batch.rows)
    assert sum(len(part.batch.preference_P2) for part in parts) == len(batch.preference_P2)
    assert sum(len(part.batch.strictness_P2) for part in parts) == len(batch.strictness_P2)
    for part in parts:
        again = Tokens.of(part.batch, encoder)
        assert len(part.batch.linked_rows()) == 1 or again.num_tokens <= max_tokens
        assert again.num_tokens == part.tokens.num_tokens
        np.testing.assert_array_equal(again.conversations.input_ids, part.tokens.conversations.input_ids)
        assert set(np.unique(part.batch.index_RKM)) <= {*range(len(part.batch.clauses) + 1)}
        assert {*range(len(part.batch.clauses))} <= set(np.unique(part.batch.index_RKM))


def test_cells_keep_their_clauses_and_labels():
    batch = make_batch(np.random.default_rng(0))
    part = batch.take([4, 1])
    for new, old in enumerate((4, 1)):
        for k in range(NUM_CONFIGURATIONS):
            found = [part.clauses[c] for c in part.index_RKM[new, k] if c < len(part.clauses)]
            assert found == [batch.clauses[c] for c in batch.index_RKM[old, k] if c < len(batch.clauses)]
        assert part.complies_RK[new].tolist() == batch.complies_RK[old].tolist()


def test_workers_share_the_tokens():
    batch = make_batch(np.random.default_rng(0), num_rows=60, longest=40)
    workers = cut(batch, Tokens.of(batch, tiny_model().encoder), max_tokens=10**6, num_workers=3)
    loads = [sum(part.tokens.conversations.input_ids.size for part in own) for own in workers]
    assert max(loads) - min(loads) <= 42


def test_even_parts_are_as_many_for_everyone_and_the_added_ones_weigh_nothing():
    batch = make_batch(np.random.default_rng(1), num_rows=3, num_preferences=0)
    workers = cut(batch, Tokens.of(batch, tiny_model().encoder), max_tokens=1, num_workers=2, even=True)
    assert [len(own) for own in workers] == [2, 2]
    assert [part.has_weight for own in workers for part in own].count(False) == 1


def test_long_clauses_are_split_and_all_their_parts_count():
    model = tiny_model(max_clause_tokens=12)
    long = Clause(category="w1", guideline="w2 w3 w4 w5 w6. W7 w8 w9 w10 w11 w12. W13 w14 w15")
    short = Clause(category="w20", guideline="w21")
    batch = make_batch(np.random.default_rng(0), num_rows=3, num_preferences=0)
    index = np.array([[[0, 2], [1, 2], [0, 1]]] * 3)
    batch = Batch(batch.rows, [long, short], index, batch.complies_RK)
    split = split_long_clauses(batch, model.encoder)
    pieces = [c for c in split.clauses if c.category == "w1"]
    assert len(pieces) > 1
    assert " ".join(piece.guideline for piece in pieces) == long.guideline
    held = [[split.clauses[c] for c in cell if c < len(split.clauses)] for cell in split.index_RKM[0]]
    assert held == [pieces, [short], [*pieces, short]]
    assert batch_reward(model, batch)[0].shape == (3, 3)
