"""csrm-mini as shipped: its scores are pinned, and it does what its card says."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

import csrm
from csrm.model_folder import EMBEDDED_MODEL

SAMPLE = Path(str(files("csrm") / "sample"))
GOLDEN = Path(__file__).parent / "golden_scores.json"


@pytest.fixture(scope="module")
def model():
    return csrm.CSRM.from_pretrained(dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def sample():
    records = [json.loads(line) for line in (SAMPLE / "conversations.jsonl").read_text("utf-8").splitlines()]
    return [record["id"] for record in records], [record["messages"] for record in records]


def test_scores_of_the_sample_are_as_recorded(model, sample):
    """An accidental change of behaviour shows here. Renew with `python tests/csrm/test_embedded_model.py`."""
    recorded = json.loads(GOLDEN.read_text())
    ids, conversations = sample
    configurations = csrm.load_configurations(SAMPLE / "configurations")
    matrix = model.score(conversations, configurations, record_ids=ids)
    assert recorded["fingerprint"] == model.fingerprint
    assert matrix.configuration_ids == recorded["configurations"]
    for record_id, reward in zip(ids, matrix.reward, strict=True):
        np.testing.assert_allclose(reward, recorded["reward"][record_id], atol=2e-3, err_msg=record_id)


def test_bfloat16_agrees_on_nearly_all_verdicts(model, sample):
    _, conversations = sample
    configurations = csrm.load_configurations(SAMPLE / "configurations")
    rounded = csrm.CSRM.from_pretrained(dtype="bfloat16", device="cpu")
    exact, close = (m.score(conversations, configurations) for m in (model, rounded))
    assert (exact.violates == close.violates).mean() > 0.97
    assert np.abs(exact.reward - close.reward).mean() < 0.1


def test_clause_order_does_not_matter(model, sample):
    _, conversations = sample
    for configuration in csrm.load_configurations(SAMPLE / "configurations"):
        turned = csrm.Configuration(id="turned", clauses=configuration.clauses[::-1])
        matrix = model.score(conversations[:12], [configuration, turned])
        np.testing.assert_allclose(matrix.reward[:, 0], matrix.reward[:, 1], atol=1e-4)


def test_leaving_the_violated_clause_out_raises_the_reward(model):
    talk = [
        {"role": "user", "content": "My card was declined."},
        {"role": "assistant", "content": "Please send me your full card number, PIN and password in this chat."},
    ]
    asks = csrm.Clause(category="Credentials", guideline="Staff must not ask for passwords, PINs or card numbers.")
    weather = csrm.Clause(category="Animals", guideline="No cruelty to animals, and no praise for it.")
    strict, lenient = (
        csrm.Configuration(id="a", clauses=(asks, weather)),
        csrm.Configuration(id="b", clauses=(weather,)),
    )
    reward = model.score([talk], [strict, lenient]).reward[0]
    assert reward[0] < reward[1]


def test_the_model_card_names_data_and_licences():
    card = (EMBEDDED_MODEL / "README.md").read_text("utf-8")
    for needed in ("PolyGuard", "CC-BY-4.0", "DiaSafety", "Apache-2.0", "safety-rbr-code-and-data", "MIT", "Limits"):
        assert needed in card


def record() -> None:
    """Write the golden scores anew."""
    records = [json.loads(line) for line in (SAMPLE / "conversations.jsonl").read_text("utf-8").splitlines()]
    model = csrm.CSRM.from_pretrained(dtype="float32", device="cpu")
    matrix = model.score([r["messages"] for r in records], csrm.load_configurations(SAMPLE / "configurations"))
    golden = {
        "fingerprint": model.fingerprint,
        "configurations": matrix.configuration_ids,
        "reward": {r["id"]: [round(float(s), 4) for s in row] for r, row in zip(records, matrix.reward, strict=True)},
    }
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    record()
