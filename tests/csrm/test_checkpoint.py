"""Model folders: what is saved is what is loaded; what is broken is named."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_engine import make_configurations, make_conversations
from tiny import FAMILIES, tiny_model

from csrm import CSRM, Calibration, CheckpointError, Encoder
from csrm.checkpoint import from_backbone, save
from csrm.model import Layout


def sample(seed=0):
    rng = np.random.default_rng(seed)
    return make_conversations(rng, 4), make_configurations(rng, (2, 1))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_probes", [0, 2])
def test_a_saved_model_scores_as_before(tmp_path, family, num_probes):
    model = tiny_model(family, num_probes)
    model.calibration = Calibration(scale=0.5, bias=0.25)
    model.facts = {"data": "none"}
    model.save_pretrained(tmp_path)
    again = CSRM.from_pretrained(tmp_path, dtype="float32", device="cpu")
    before, after = (m.score(*sample()) for m in (model, again))
    np.testing.assert_array_equal(before.reward, after.reward)
    np.testing.assert_array_equal(before.p_safe, after.p_safe)
    assert (again.name, again.facts, again.fingerprint) == (model.name, model.facts, model.fingerprint)


def test_no_pickle_is_written(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_sharded_weights_load(tmp_path):
    model = tiny_model()
    save(model, tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    again = CSRM.from_pretrained(tmp_path, dtype="float32", device="cpu")
    np.testing.assert_array_equal(model.score(*sample()).reward, again.score(*sample()).reward)


def test_the_fingerprint_follows_the_weights(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    first = model.fingerprint
    with torch.no_grad():
        model.clause_evidence.output.bias.add_(1e-3)
    model.save_pretrained(tmp_path)
    assert model.fingerprint != first


def test_dtypes(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    assert CSRM.from_pretrained(tmp_path, dtype="bfloat16", device="cpu").dtype == torch.bfloat16
    with pytest.raises(CheckpointError, match="'float8' is not one of auto, float32, bfloat16"):
        CSRM.from_pretrained(tmp_path, dtype="float8")


def test_an_encoder_needs_no_weights(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert Encoder.from_pretrained(tmp_path).count_clause_tokens("w1") == 3


def test_from_backbone_starts_on_the_pretrained_weights(tmp_path):
    source = tiny_model()
    source.backbone.save_pretrained(tmp_path)
    source.encoder.tokenizer.save_pretrained(tmp_path)
    layout = Layout(width=16, max_conversation_tokens=48, max_clause_tokens=24)
    model = from_backbone(tmp_path, layout, device="cpu")
    torch.testing.assert_close(
        model.backbone.encoder.layer[0].output.dense.weight,
        source.backbone.encoder.layer[0].output.dense.weight,
    )
    segments = model.backbone.embeddings.token_type_embeddings.weight
    torch.testing.assert_close(segments[0], segments[1])


def test_format_1_knew_no_permissions(tmp_path):
    """Its clauses could only object: they score as ours do whose permissions are silent."""
    model = tiny_model()
    with torch.no_grad():
        model.clause_evidence.output.weight[1] = 0
        model.clause_evidence.output.bias[1] = -100
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    for name in ("clause_evidence.output.weight", "clause_evidence.output.bias"):
        weights[name] = weights[name][:1].contiguous()
    save_file(weights, tmp_path / "model.safetensors")
    edit(tmp_path, format=1)
    old = CSRM.from_pretrained(tmp_path, dtype="float32", device="cpu")
    np.testing.assert_allclose(old.score(*sample()).reward, model.score(*sample()).reward, atol=1e-6)


def edit(folder, **changes):
    facts = json.loads((folder / "csrm.json").read_text())
    (folder / "csrm.json").write_text(json.dumps(facts | changes))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "csrm.json").unlink(), "no csrm.json here"),
        (lambda f: (f / "csrm.json").write_text("{"), "unreadable .*copy the model folder again"),
        (lambda f: edit(f, format=99), "format 99 is not 2; update csrm"),
        (lambda f: (f / "model.safetensors").unlink(), "no .safetensors file"),
        (lambda f: (f / "model.safetensors").write_bytes(b"cut short"), "unreadable weights"),
        (lambda f: edit(f, layout={"num_probes": 3, "width": 16}), "weights do not fit csrm.json"),
    ],
)
def test_broken_folders_are_named(tmp_path, spoil, message):
    tiny_model().save_pretrained(tmp_path)
    spoil(tmp_path)
    with pytest.raises(CheckpointError, match=message) as error:
        CSRM.from_pretrained(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)
