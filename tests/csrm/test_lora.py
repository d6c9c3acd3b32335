"""Adapters: only they and the heads are trained, and merging them changes nothing but where the weights are."""

import numpy as np
import pytest
import torch
from test_batch import make_batch
from test_training import one_part
from tiny import tiny_model

from csrm import CSRM
from csrm.cells import batch_reward
from csrm.training.lora import add_lora, merge_lora
from csrm.training.state import load_weights, save_state
from csrm.training.trainer import Trainer, TrainOptions

pytest.importorskip("peft")
RANK = 3
HEADS = ("clause_evidence.", "permission_scope.")


@pytest.fixture(params=["qwen3", "llama", "bert"])
def trained(request):
    """A model before training, and a trainer with adapters after two steps."""
    torch.manual_seed(0)
    model = tiny_model(request.param)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    add_lora(model, RANK)
    trainer = Trainer(model, TrainOptions(num_steps=4, backbone_lr=1e-2, dtype="float32"))
    for number in range(2):
        trainer.step(one_part(model, number))
    return before, trainer


def rewards(model):
    with torch.no_grad():
        return batch_reward(model, make_batch(np.random.default_rng(5)))[0]


def test_only_adapters_and_heads_change(trained):
    before, trainer = trained
    after = {name.replace(".base_layer", ""): tensor for name, tensor in trainer.model.state_dict().items()}
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert changed == {name for name in before if name.startswith(HEADS)} - unmoved(before, after)
    assert all(name.startswith(HEADS) for name in changed)
    adapters = [name for name in after if "lora_B" in name]
    assert len(adapters) == sum(tensor.ndim == 2 for name, tensor in before.items() if is_linear(name))
    assert all(after[name].abs().max() > 0 for name in adapters)


def unmoved(before, after):
    """The output's bias moves all clauses alike; everything else of the heads must have changed."""
    return {name for name in before if name == "clause_evidence.output.bias" and torch.equal(before[name], after[name])}


def is_linear(name):
    return name.startswith("backbone.") and name.endswith(".weight") and "embed" not in name.lower()


def test_merging_keeps_the_rewards_and_the_names(trained):
    before, trainer = trained
    expected = rewards(trainer.model)
    merge_lora(trainer.model)
    torch.testing.assert_close(rewards(trainer.model), expected, rtol=1e-4, atol=1e-5)
    assert {name: tensor.shape for name, tensor in trainer.model.state_dict().items()} == {
        name: tensor.shape for name, tensor in before.items()
    }
    assert all(parameter.requires_grad for parameter in trainer.model.parameters())


def test_a_checkpoint_holds_adapters_and_heads_only_and_a_merged_model_loads(trained, tmp_path):
    _, trainer = trained
    save_state(trainer, tmp_path / "state")
    torch.manual_seed(3)
    other = tiny_model(trainer.model.name.removeprefix("tiny-"))
    add_lora(other, RANK)
    load_weights(other, tmp_path / "state")
    torch.testing.assert_close(rewards(other), rewards(trainer.model), rtol=0, atol=0)
    size = (tmp_path / "state" / "weights.safetensors").stat().st_size
    assert size < 0.8 * sum(tensor.numel() * 4 for tensor in trainer.model.state_dict().values())
    merge_lora(other)
    other.save_pretrained(tmp_path / "model")
    again = CSRM.from_pretrained(tmp_path / "model", dtype="float32")
    torch.testing.assert_close(rewards(again), rewards(trainer.model), rtol=1e-4, atol=1e-5)
