"""Calibration in model folders: stored, loaded, replaced without touching anything else, used by scoring."""

import json

import numpy as np
import pytest
from test_engine import make_configurations, make_conversations
from tiny import tiny_model

from csrm import CSRM, Calibration, CheckpointError
from csrm.checkpoint import recalibrate


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    tiny_model().save_pretrained(path)
    return path


def test_scores_go_through_the_line_of_their_configuration(folder, tmp_path):
    rng = np.random.default_rng(0)
    conversations, configurations = make_conversations(rng, 4), make_configurations(rng, (2, 1, 3))
    own = Calibration(scale=0.25, bias=-1.0)
    calibration = Calibration(scale=2.0, bias=0.5, configurations={configurations[1].fingerprint: own})
    recalibrate(folder, tmp_path, calibration)
    model = CSRM.from_pretrained(tmp_path, dtype="float32", device="cpu")
    assert model.calibration == calibration
    matrix = model.score(conversations, configurations)
    common = Calibration(scale=2.0, bias=0.5)
    for column, line in enumerate((common, own, common)):
        np.testing.assert_array_equal(matrix.p_safe[:, column], line.p_safe(matrix.reward[:, column]))
    model.save_pretrained(tmp_path / "again")
    assert CSRM.from_pretrained(tmp_path / "again").calibration == calibration


def test_nothing_but_the_calibration_changes(folder, tmp_path):
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    recalibrate(folder, tmp_path, Calibration(scale=3.0))
    after = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    facts = json.loads(before.pop("csrm.json")) | {"calibration": {"scale": 3.0, "bias": 0.0}}
    assert json.loads(after.pop("csrm.json")) == facts
    assert after == before


def test_a_folder_can_be_recalibrated_in_place(folder, tmp_path):
    recalibrate(folder, tmp_path, Calibration())
    recalibrate(tmp_path, tmp_path, Calibration(scale=3.0))
    assert CSRM.from_pretrained(tmp_path).calibration == Calibration(scale=3.0)


def test_another_model_is_not_overwritten(folder, tmp_path):
    tiny_model(seed=1).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="holds another model; choose a new folder"):
        recalibrate(folder, tmp_path, Calibration())


@pytest.mark.parametrize("calibration", [{"scale": 0.0, "bias": 0.0}, {"scale": 1.0}, [], {"scale": "a", "bias": 0}])
def test_a_broken_calibration_is_named(folder, tmp_path, calibration):
    recalibrate(folder, tmp_path, Calibration())
    facts = json.loads((tmp_path / "csrm.json").read_text())
    (tmp_path / "csrm.json").write_text(json.dumps(facts | {"calibration": calibration}))
    with pytest.raises(CheckpointError, match=r"unreadable calibration .*copy the model folder again"):
        CSRM.from_pretrained(tmp_path)
