"""A CSRM as a reward function: what it returns, and that TRL's own GRPO trainer trains on it."""

import numpy as np
import pytest
from tiny import tiny_model

import csrm
from csrm import Calibration, Clause, Configuration, ConfigurationError, trl_reward

GAME = Configuration(id="game", clauses=(Clause(category="w1", guideline="never w2 w3"),))
BANK = Configuration(id="bank", clauses=(Clause(category="w4", guideline="no w5"), Clause(category="", guideline="w6")))
PROMPTS = ["w1 w2", "w3", "w7 w8 w9"]
COMPLETIONS = ["w2 w3 w4", "w10", "w5 w5 w6 w7"]


def talks(prompts=PROMPTS, completions=COMPLETIONS):
    return [
        [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
        for prompt, completion in zip(prompts, completions, strict=True)
    ]


def messages(role, texts):
    return [[{"role": role, "content": text}] for text in texts]


@pytest.fixture(scope="module")
def model():
    model = tiny_model()
    model.calibration = Calibration(
        scale=0.7, bias=-0.4, configurations={BANK.fingerprint: Calibration(scale=1.3, bias=0.2)}
    )
    return model


def log_odds(p):
    return np.log(p / (1 - p))


@pytest.mark.parametrize("configuration", [GAME, BANK])
def test_rewards_are_calibrated_log_odds_of_the_completion(model, configuration):
    matrix = model.score(talks(), [configuration])
    found = trl_reward(model, configuration)(prompts=PROMPTS, completions=COMPLETIONS, completion_ids=None, other=[1])
    assert found == pytest.approx(log_odds(matrix.p_safe[:, 0].astype(np.float64)), rel=1e-4)
    assert all(type(value) is float for value in found)
    assert trl_reward(model, configuration, kind="p_safe")(PROMPTS, COMPLETIONS) == [*map(float, matrix.p_safe[:, 0])]


def test_log_odds_do_not_saturate():
    model = tiny_model()
    model.calibration = Calibration(scale=1e3, bias=1e4)
    found = trl_reward(model, GAME)(PROMPTS, COMPLETIONS)
    assert min(found) > 40
    assert len(set(found)) == 3
    assert np.isfinite(found).all()


def test_text_and_messages_are_the_same(model):
    reward = trl_reward(model, GAME)
    as_messages = reward(prompts=messages("user", PROMPTS), completions=messages("assistant", COMPLETIONS))
    assert as_messages == reward(PROMPTS, COMPLETIONS)
    history = [{"role": "system", "content": "w11"}, {"role": "user", "content": "w1"}]
    turns = [{"role": "tool", "content": "w12"}, {"role": "assistant", "content": "w13"}]
    [longer] = reward([history], [turns])
    assert longer == pytest.approx(0.7 * float(model.score([history + turns], [GAME]).reward[0, 0]) - 0.4, rel=1e-5)


def test_what_was_not_completed_has_no_reward(model):
    reward = trl_reward(model, GAME)
    first, nothing, third = reward(messages("user", PROMPTS), [COMPLETIONS_M[0], [], COMPLETIONS_M[2]])
    assert nothing is None
    assert [first, third] == reward(PROMPTS, COMPLETIONS)[::2]
    assert reward(messages("user", ["w1"]), [[]]) == [None]
    assert reward(["w1"], [""]) != [None]


COMPLETIONS_M = messages("assistant", COMPLETIONS)


def test_clauses_are_encoded_once_and_completions_in_one_pass(model, monkeypatch):
    calls = []
    for name in ("encode_clauses", "encode_windows"):
        real = getattr(csrm.CSRM, name)
        monkeypatch.setattr(
            csrm.CSRM, name, lambda *a, _name=name, _real=real, **k: calls.append(_name) or _real(*a, **k)
        )
    reward = trl_reward(model, [GAME, BANK])
    reward(PROMPTS, COMPLETIONS, configuration=["game", "bank", "game"])
    reward(PROMPTS, COMPLETIONS, configuration=["bank", "bank", "game"])
    assert calls == ["encode_clauses", "encode_windows", "encode_windows"]


def test_a_column_chooses_among_several_configurations(model):
    reward = trl_reward(model, [GAME, BANK])
    found = reward(PROMPTS, COMPLETIONS, configuration=["bank", None, "game"])
    single = {one.id: trl_reward(model, one)(PROMPTS, COMPLETIONS) for one in (GAME, BANK)}
    assert found == [pytest.approx(single["bank"][0]), None, pytest.approx(single["game"][2])]
    with pytest.raises(ConfigurationError, match="column `configuration` says 'gmae'; there are game, bank"):
        reward(PROMPTS, COMPLETIONS, configuration=["gmae", "bank", "game"])
    with pytest.raises(ConfigurationError, match=r"several configurations \(game, bank\): give the dataset a column"):
        reward(PROMPTS, COMPLETIONS)


def test_model_and_configuration_may_be_paths(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "game.yaml").write_text(csrm.dump_configuration(GAME))
    expected = trl_reward(csrm.CSRM.from_pretrained(tmp_path / "model"), GAME)(PROMPTS, COMPLETIONS)
    for place in (tmp_path / "game.yaml", str(tmp_path / "game.yaml")):
        reward = trl_reward(str(tmp_path / "model"), place)
        assert reward(PROMPTS, COMPLETIONS) == expected
    assert reward.__name__ == "csrm_game"
    assert trl_reward(model, [GAME, BANK]).__name__ == "csrm"


def test_mistakes(model, tmp_path):
    with pytest.raises(ConfigurationError, match="no such file"):
        trl_reward(model, tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigurationError, match="no configurations given"):
        trl_reward(model, [])
    with pytest.raises(ValueError, match="kind must be"):
        trl_reward(model, GAME, kind="logits")
    with pytest.raises(csrm.CheckpointError):
        trl_reward(tmp_path, GAME)


def test_a_message_without_text_has_no_reward(model):
    """As a turn that ends in the call of a tool."""
    reward = trl_reward(model, GAME)
    calls = [[{"role": "assistant", "content": None}], [{"role": "assistant", "content": "", "tool_calls": []}], []]
    found = reward(prompts=["hello"] * 4, completions=[*calls, [{"role": "assistant", "content": "hello"}]])
    assert found[:3] == [None, None, None]
    assert isinstance(found[3], float)
