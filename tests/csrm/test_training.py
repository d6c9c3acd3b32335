"""The training loop learns, repeats itself exactly, and has the gradients of its formula."""

import math

import numpy as np
import pytest
import torch
from tiny import tiny_model

from csrm import Clause, Message
from csrm.augmentation import Batch
from csrm.cells import batch_reward
from csrm.labelled import LabelledRow, holdout, read_labelled
from csrm.objective import classification_loss
from csrm.training import TrainOptions, learning_rate, train


def toy_rows(number=120):
    """A row violates rule "w1" iff it says w1; the same for w2: learnable only by reading both sides."""
    rng = np.random.default_rng(0)
    rows = []
    for n in range(number):
        name, violated = f"w{1 + n % 2}", bool((n // 2) % 2)
        said = [f"w{m}" for m in rng.integers(50, 60, 3)] + ([name] if violated else ["w40"])
        rows.append(
            LabelledRow(
                id=str(n),
                domain=f"domain {n % 2}",
                conversation=[Message("user", " ".join(rng.permutation(said)))],
                clauses=(Clause(category="", guideline=name),),
                violated=(violated,),
            )
        )
    return rows


@pytest.mark.parametrize(("family", "num_probes"), [("bert", 0), ("bert", 2), ("qwen3", 1)])
def test_training_lowers_the_loss(family, num_probes):
    model = tiny_model(family, num_probes, seed=1)
    losses = []
    options = TrainOptions(num_steps=60, batch_rows=16, backbone_lr=2e-3, head_lr=5e-3)
    train(model, toy_rows(), options, on_step=lambda step: losses.append(step.loss))
    assert len(losses) == 60
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])


def test_the_same_seed_trains_the_same_model():
    weights = []
    for _ in range(2):
        model = tiny_model(seed=1)
        train(model, toy_rows(), TrainOptions(num_steps=3, batch_rows=8))
        weights.append(model.clause_evidence.output.weight.detach().clone())
    assert torch.equal(*weights)


@pytest.mark.parametrize("num_probes", [0, 2])
def test_batch_rewards_equal_the_engine(num_probes):
    """Cells with configurations of their own score what the engine gives them."""
    from test_engine import make_configurations, make_conversations

    rng = np.random.default_rng(1)
    model = tiny_model("bert", num_probes, max_conversation_tokens=20)
    configurations = make_configurations(rng, (2, 1, 3))
    conversations = make_conversations(rng, 4, longest=40)
    clauses = list(dict.fromkeys(c for configuration in configurations for c in configuration.clauses))
    index = np.full((4, 3, 3), len(clauses))
    for n, configuration in enumerate(configurations):
        index[:, n, : len(configuration.clauses)] = [clauses.index(c) for c in configuration.clauses]
    rows = [
        LabelledRow(id="", domain="", conversation=[Message(**m) for m in talk], clauses=(), violated=())
        for talk in conversations
    ]
    with torch.no_grad():
        reward, _ = batch_reward(model, Batch(rows, clauses, index, np.ones((4, 3), bool)))
    expected = model.score(conversations, configurations).reward
    np.testing.assert_allclose(reward.numpy(), expected, atol=1e-5, rtol=1e-5)


def test_classification_loss_by_hand_and_its_gradient_signs():
    reward = torch.tensor([0.0, 2.0], requires_grad=True)
    loss = classification_loss(reward, torch.tensor([True, False]))
    assert loss.item() == pytest.approx((math.log(2) + math.log(1 + math.exp(2))) / 2)
    loss.backward()
    assert reward.grad[0] < 0 < reward.grad[1]


def test_learning_rate_rises_and_falls():
    options = TrainOptions(num_steps=100, warmup_share=0.1)
    rates = [learning_rate(step, options) for step in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[10] == pytest.approx(1.0)
    assert rates[99] < 0.01


def test_holdout_is_disjoint_in_prompts_and_stable():
    rows = [
        LabelledRow(
            id=f"{p}-{n}",
            domain="",
            conversation=[Message("user", f"p{p}"), Message("assistant", f"a{n}")],
            clauses=(),
            violated=(),
        )
        for p in range(200)
        for n in range(3)
    ]
    kept, held = holdout(rows, 0.25)
    assert not {r.conversation[0] for r in kept} & {r.conversation[0] for r in held}
    assert len(kept) + len(held) == len(rows)
    assert 0.15 < len(held) / len(rows) < 0.35
    assert holdout(rows, 0.25) == (kept, held)


def test_rows_without_known_labels_are_left_out(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"id": "a", "messages": [{"role": "user", "content": "x"}], "clauses": '
        '[{"category": "c", "guideline": "g", "violated": null}]}\n'
        '{"id": "b", "messages": [{"role": "user", "content": "x"}], "clauses": '
        '[{"category": "c", "guideline": "g", "violated": true},'
        ' {"category": "d", "guideline": "h", "violated": null}]}\n'
    )
    (row,) = read_labelled(path)
    assert (row.id, row.violated) == ("b", (True,))


@pytest.mark.parametrize("bad", [{"num_steps": 0}, {"num_steps": 5, "warmup_share": 1.0}])
def test_options_are_checked(bad):
    with pytest.raises(ValueError):
        TrainOptions(**bad)
