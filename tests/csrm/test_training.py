"""The training loop learns, repeats itself exactly, and goes on from where it was stopped."""

import dataclasses

import numpy as np
import pytest
import torch
from test_batch import make_batch
from tiny import tiny_model

from csrm import CheckpointError, Clause, Message
from csrm.augmentation import Recipe
from csrm.batch import Batch, Tokens, cut
from csrm.cells import batch_reward
from csrm.labelled import LabelledRow
from csrm.training.held_out import fit_held_out
from csrm.training.sampler import TrainingData
from csrm.training.state import load_state, load_weights, save_state
from csrm.training.trainer import Trainer, TrainOptions, learning_rate, make_sampler, train

RECIPE = Recipe(num_configurations=4, num_strictness=0)


def toy_rows(number=120, first=1):
    """A row violates rule "w1" iff it says w1; the same for w2: learnable only by reading both sides."""
    rng = np.random.default_rng(0)
    rows = []
    for n in range(number):
        name, violated = f"w{first + n % 2}", bool((n // 2) % 2)
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


def toy_sampler(model, options):
    return make_sampler(model, TrainingData(rows=toy_rows()), options)


def roomy_model(family="bert", num_probes=0, seed=1):
    """Reads clauses in other words, which may be long."""
    return tiny_model(family, num_probes, seed=seed, max_clause_tokens=60)


def one_part(model, number):
    batch = make_batch(np.random.default_rng(number))
    [parts] = cut(batch, Tokens.of(batch, model.encoder), max_tokens=10**6)
    return parts


@pytest.mark.parametrize(("family", "num_probes"), [("bert", 0), ("bert", 2), ("qwen3", 1)])
def test_training_lowers_the_loss(family, num_probes):
    model = roomy_model(family, num_probes)
    losses = []
    options = TrainOptions(num_steps=60, batch_rows=16, backbone_lr=2e-3, head_lr=5e-3, recipe=RECIPE)
    train(model, toy_sampler(model, options), options, on_step=lambda step: losses.append(step.loss))
    assert len(losses) == 60
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])


def test_the_same_seed_trains_the_same_model():
    weights = []
    for _ in range(2):
        model = roomy_model()
        options = TrainOptions(num_steps=3, batch_rows=8, recipe=RECIPE)
        train(model, toy_sampler(model, options), options)
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
        reward, num_tokens = batch_reward(model, Batch(rows, clauses, index, np.ones((4, 3), bool)))
    expected = model.score(conversations, configurations).reward
    np.testing.assert_allclose(reward.numpy(), expected, atol=1e-5, rtol=1e-5)
    assert num_tokens > 4 * 3


def test_a_step_in_parts_is_the_step_in_one_piece():
    options = TrainOptions(num_steps=4, backbone_lr=1e-3, gamma=0.5, dtype="float32")
    whole, cut_up = (Trainer(tiny_model(max_conversation_tokens=24), options) for _ in range(2))
    for number in range(4):
        batch = make_batch(np.random.default_rng(number))
        tokens = Tokens.of(batch, whole.model.encoder)
        [one], [several] = (cut(batch, tokens, max_tokens=size) for size in (10**6, 80))
        assert len(one) == 1 < len(several)
        expected, found = dataclasses.asdict(whole.step(one)), dataclasses.asdict(cut_up.step(several))
        assert found.pop("num_tokens") >= expected.pop("num_tokens")
        del found["seconds"], expected["seconds"]
        assert found == pytest.approx(expected, rel=1e-4)
    for one, other in zip(whole.model.parameters(), cut_up.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_a_step_reports_what_happened():
    model = tiny_model(max_conversation_tokens=24)
    batch = make_batch(np.random.default_rng(0))
    with torch.no_grad():
        reward = batch_reward(model, batch)[0].double()
    known = torch.from_numpy(batch.known_RK)
    right = ((reward > 0) == torch.from_numpy(batch.complies_RK))[known].double().mean()
    strict, preferred = (
        (reward.flatten()[pairs[:, 0]] - reward.flatten()[pairs[:, 1]]).mean().item()
        for pairs in (batch.strictness_P2, batch.preference_P2)
    )
    step = Trainer(model, TrainOptions(num_steps=9, gamma=0.5, dtype="float32")).step(one_part(model, 0))
    assert (step.number, step.learning_rate) == (1, learning_rate(0, TrainOptions(num_steps=9)))
    assert step.accuracy == pytest.approx(right.item())
    assert step.strictness_margin == pytest.approx(strict, rel=1e-4)
    assert step.preference_margin == pytest.approx(preferred, rel=1e-4)
    ranking = step.strictness + step.preference
    assert step.loss == pytest.approx(step.classification + step.evidence + 0.5 * ranking)
    assert step.num_tokens == Tokens.of(batch, model.encoder).num_tokens
    assert step.grad_norm > 0


def test_margins_are_absent_without_pairs():
    model = tiny_model()
    batch = dataclasses.replace(make_batch(np.random.default_rng(0), num_preferences=0))
    batch.strictness_P2 = np.empty((0, 2), np.int64)
    [parts] = cut(batch, Tokens.of(batch, model.encoder), max_tokens=10**6)
    step = Trainer(model, TrainOptions(num_steps=1)).step(parts)
    assert (step.strictness_margin, step.preference_margin) == (None, None)


@pytest.mark.parametrize(("family", "num_probes"), [("bert", 1), ("llama", 0)])
def test_a_saved_run_goes_on_to_the_same_weights(family, num_probes, tmp_path):
    options = TrainOptions(num_steps=5, backbone_lr=1e-3)
    undisturbed = Trainer(tiny_model(family, num_probes), options)
    for number in range(5):
        last = undisturbed.step(one_part(undisturbed.model, number))
        if number == 2:
            save_state(undisturbed, tmp_path)
    resumed = Trainer(tiny_model(family, num_probes, seed=7), options)
    load_state(resumed, tmp_path)
    assert resumed.num_done == 3
    for number in (3, 4):
        again = resumed.step(one_part(resumed.model, number))
    assert (again.loss, again.grad_norm, again.number) == (last.loss, last.grad_norm, 5)
    for one, other in zip(undisturbed.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".json"}


def test_states_of_other_models_and_broken_ones_are_refused(tmp_path):
    trainer = Trainer(tiny_model(), TrainOptions(num_steps=1))
    save_state(trainer, tmp_path)
    with pytest.raises(CheckpointError, match="another model"):
        load_weights(tiny_model(num_probes=1), tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(b"half")
    with pytest.raises(CheckpointError, match="unreadable"):
        load_weights(tiny_model(), tmp_path)


def test_gradients_are_clipped_on_their_common_norm():
    model = tiny_model()
    options = TrainOptions(num_steps=1, max_grad_norm=1e-3)
    trainer = Trainer(model, options)
    seen = []
    trainer.optimiser.step = lambda: seen.append(torch.cat([p.grad.flatten() for p in model.parameters()]).norm())
    norm = trainer.step(one_part(model, 0)).grad_norm
    assert norm > 1e-2
    assert seen[0].item() == pytest.approx(1e-3, rel=1e-2)


def test_calibration_on_clauses_kept_out():
    model = roomy_model()
    options = TrainOptions(num_steps=1, recipe=RECIPE)
    data, held = TrainingData(rows=toy_rows()), toy_rows(40, first=5)
    calibration, num_cells = fit_held_out(model, data, held, options)
    assert num_cells == 40 * RECIPE.num_configurations
    assert calibration.scale != 1.0
    assert (calibration, num_cells) == fit_held_out(model, data, held, options)


def test_learning_rate_rises_and_falls():
    options = TrainOptions(num_steps=100, warmup_share=0.1)
    rates = [learning_rate(step, options) for step in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert max(rates) <= 1.0
    assert rates[-1] < 0.01


@pytest.mark.parametrize(
    "bad",
    [
        {"num_steps": 0},
        {"num_steps": 5, "warmup_share": 1.0},
        {"num_steps": 5, "gamma": -1},
        {"num_steps": 5, "dtype": "int8"},
        {"num_steps": 5, "max_tokens": 0},
    ],
)
def test_options_are_checked(bad):
    with pytest.raises(ValueError):
        TrainOptions(**bad)
