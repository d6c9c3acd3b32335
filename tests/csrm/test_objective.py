"""Each term of the objective by hand, its gradient signs, and the whole on a batch."""

import math

import numpy as np
import pytest
import torch

from csrm import Clause
from csrm.batch import Batch
from csrm.cells import Reading
from csrm.training.objective import (
    SPEAKING_WEIGHT,
    batch_losses,
    classification_loss,
    evidence_loss,
    preference_loss,
    strictness_loss,
)

LOG = math.log


def softplus(x):
    return LOG(1 + math.exp(x))


def test_classification_loss_by_hand_and_its_gradient_signs():
    reward = torch.tensor([0.0, 2.0], requires_grad=True)
    loss = classification_loss(reward, torch.tensor([True, False]))
    assert loss.item() == pytest.approx((LOG(2) + softplus(2)) / 2)
    loss.backward()
    assert reward.grad[0] < 0 < reward.grad[1]


def test_evidence_loss_by_hand_and_its_gradient_signs():
    logits = torch.tensor([0.0, 2.0], requires_grad=True)
    loss = evidence_loss(logits, torch.tensor([True, False]))
    assert loss.item() == pytest.approx((SPEAKING_WEIGHT * LOG(2) + softplus(2)) / 2)
    loss.backward()
    assert logits.grad[0] < 0 < logits.grad[1]


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_strictness_loss_by_hand_and_its_gradient_signs(margin):
    lenient = torch.tensor([1.0, 0.0], requires_grad=True)
    strict = torch.tensor([0.0, 3.0], requires_grad=True)
    loss = strictness_loss(lenient, strict, margin=margin)
    assert loss.item() == pytest.approx((softplus(-1 + margin) + softplus(3 + margin)) / 2)
    loss.backward()
    assert (lenient.grad < 0).all()
    assert (strict.grad > 0).all()
    assert lenient.grad[1] < lenient.grad[0], "the pair in the wrong order pulls harder"


def test_preference_loss_by_hand_and_its_gradient_signs():
    chosen = torch.tensor([2.0], requires_grad=True)
    rejected = torch.tensor([-1.0], requires_grad=True)
    loss = preference_loss(chosen, rejected)
    assert loss.item() == pytest.approx(softplus(-3))
    loss.backward()
    assert chosen.grad < 0 < rejected.grad


@pytest.mark.parametrize("loss", [classification_loss, evidence_loss, strictness_loss, preference_loss])
def test_a_term_without_cells_is_zero_and_can_be_differentiated(loss):
    nothing = torch.zeros(0, requires_grad=True)
    is_labelled = loss in (classification_loss, evidence_loss)
    value = loss(nothing, torch.zeros(0, dtype=torch.bool if is_labelled else torch.float32))
    value.backward()
    assert value.item() == 0


def two_rows():
    """Cells 0 … 3: two labelled, then a strictness pair on the first row's cells, a preference pair across rows."""
    return Batch(
        rows=[None, None],
        clauses=[Clause(category="c", guideline="g")],
        index_RKM=np.zeros((2, 3, 1), np.int64),
        complies_RK=np.array([[True, False, False], [False, False, False]]),
        unknown_RK=np.array([[False, True, True], [False, True, True]]),
        strictness_P2=np.array([[1, 2]]),
        preference_P2=np.array([[2, 5]]),
        says_RC2=np.array([[[1, -1]], [[0, 0]]], np.int8),
        meant_CC=np.array([[1]], np.int8),
    )


def read(reward_RK):
    """What clauses say, and are meant for (log-odds −0.5 in all six cells), beside rewards."""
    evidence_RC2 = torch.tensor([[[0.5, 9.0]], [[-1.0, 2.0]]])
    return Reading(reward_RK, evidence_RC2, torch.full((2, 3, 1, 1), -0.5))


def test_the_terms_of_a_batch_by_hand():
    reward = torch.tensor([[1.0, 2.0, 0.5], [-3.0, 7.0, 4.0]])
    losses = batch_losses(read(reward), two_rows())
    assert losses.classification.item() == pytest.approx((softplus(-1) + softplus(-3)) / 2)
    assert losses.strictness.item() == pytest.approx(softplus(-1.5))
    assert losses.preference.item() == pytest.approx(softplus(3.5))
    said = SPEAKING_WEIGHT * softplus(-0.5) + softplus(-1) + softplus(2)
    meant = 6 * SPEAKING_WEIGHT * softplus(0.5)
    assert losses.evidence.item() == pytest.approx((said + meant) / (3 + 6))
    total = losses.classification + 0.5 * losses.evidence + 0.1 * (losses.strictness + losses.preference)
    assert losses.total(0.1, 0.5).item() == pytest.approx(total.item())


def test_cells_without_a_label_do_not_move_the_classification():
    reward = torch.tensor([[1.0, 2.0, 0.5], [-3.0, 7.0, 4.0]], requires_grad=True)
    batch_losses(read(reward), two_rows()).classification.backward()
    assert (reward.grad != 0).tolist() == [[True, False, False], [True, False, False]]
