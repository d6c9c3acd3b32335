"""An adapter names rules by the text of a pair, and what it named is rated as the engine would rate it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import FAMILIES, tiny_model

from csrm.configurations import Clause, Configuration
from csrm.labelled import PreferenceRow
from csrm.messages import Message
from csrm.rule_adapter import RuleSampler, critical, pair_conversation, rate_chosen
from csrm.rule_selection import choose
from csrm.training.options import TrainOptions
from csrm.training.trainer import train

TOPICS = 8
RULES = [
    Configuration(id=f"rule_{n}", clauses=(Clause(category="", guideline=f"w{n} w{n} w{n + 50}"),))
    for n in range(TOPICS)
]


def pair(id, first, second, prompt="w100"):
    return PreferenceRow(id=str(id), conversation=[Message("user", prompt)], chosen=first, rejected=second)


def about(topics):
    """Pairs of which one reply speaks of a topic, with that topic's rule as the critical one."""
    rng = np.random.default_rng(0)
    pairs = []
    for number, topic in enumerate(topics):
        spoken, other = f"w{topic} w{topic} w{rng.integers(150, 200)}", f"w{rng.integers(150, 200)}"
        pairs.append(pair(number, *((spoken, other) if rng.random() < 0.5 else (other, spoken))))
    return pairs, np.eye(TOPICS, dtype=bool)[topics]


def recall(truth_P, model, pairs):
    """Share of pairs of which the model names the one critical rule."""
    return (choose(critical(model, pairs, RULES), 1)[:, 0] == truth_P).mean()


def test_a_pair_is_read_with_both_replies_after_its_history():
    *history, last = pair_conversation(pair("a", "w1", "w0"))
    assert history == [Message("user", "w100")]
    assert last == Message("assistant", "Reply A: w0\n\nReply B: w1")


@given(st.text(), st.text())
def test_a_swapped_pair_reads_the_same(first, second):
    assert pair_conversation(pair("a", first, second)) == pair_conversation(pair("a", second, first))


def test_batches_are_functions_of_seed_and_step_over_all_rules():
    pairs, critical_PK = about([0, 1, 2, 3])
    rules = [rule.clauses[0] for rule in RULES]
    sampler = RuleSampler(pairs, rules, critical_PK, batch_rows=3, seed=1)
    batch, again = sampler.draw(5), RuleSampler(pairs, rules, critical_PK, batch_rows=3, seed=1).draw(5)
    assert [row.id for row in batch.rows] == [row.id for row in again.rows] != [row.id for row in sampler.draw(6).rows]
    assert batch.index_RKM.shape == (3, TOPICS, 1)
    for r, row in enumerate(batch.rows):
        assert (~batch.complies_RK[r]).tolist() == critical_PK[int(row.id)].tolist()


def test_an_adapter_learns_which_rules_are_critical_by_binary_cross_entropy():
    rng = np.random.default_rng(1)
    training, critical_PK = about(rng.integers(0, TOPICS, 64))
    held, held_PK = about(rng.integers(0, TOPICS, 16))
    model = tiny_model()
    before = recall(held_PK.argmax(1), model, held)
    probability_PK = critical(model, training, RULES)
    by_hand = -np.where(critical_PK, np.log(probability_PK), np.log1p(-probability_PK)).mean()
    sampler = RuleSampler(training, [rule.clauses[0] for rule in RULES], critical_PK, batch_rows=64, seed=0)
    losses = []
    options = TrainOptions(num_steps=60, backbone_lr=2e-3, head_lr=5e-3, dtype="float32")
    train(model, sampler, options, on_step=lambda step: losses.append(step.loss))
    assert losses[0] == pytest.approx(by_hand, rel=1e-4)
    assert losses[-1] < losses[0] / 3
    after = recall(held_PK.argmax(1), model, held)
    assert before < 0.5 < 0.8 < after, "pairs that were not trained on"


def test_critical_is_what_the_engine_calls_violation():
    pairs, _ = about([0, 3, 3])
    model = tiny_model()
    expected = 1 - model.score([pair_conversation(one) for one in pairs], RULES).p_safe
    np.testing.assert_allclose(critical(model, pairs, RULES), expected, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_probes", [0, 2])
def test_ratings_on_chosen_rules_are_those_of_the_whole_matrix(family, num_probes):
    rng = np.random.default_rng(2)
    model = tiny_model(family, num_probes)
    conversations = [
        [Message("user", " ".join(f"w{n}" for n in rng.integers(0, 200, rng.integers(1, 60))))] for _ in range(70)
    ]
    chosen_Rk = choose(rng.random((70, TOPICS)), 3)
    whole_RK = model.score(conversations, RULES).p_safe
    rated_Rk = rate_chosen(model, conversations, RULES, chosen_Rk)
    np.testing.assert_allclose(rated_Rk, np.take_along_axis(whole_RK, chosen_Rk, axis=1), atol=1e-5)
    assert not torch.is_inference(torch.empty(1)), "the mode ends with the call"


@pytest.mark.parametrize("num_probes", [0, 2])
def test_contexts_of_rules_count_where_probes_read_them(num_probes):
    rules = [replace(rule, context="w7 w8 w9") for rule in RULES]
    model, conversations = tiny_model("bert", num_probes), [[Message("user", "w1 w2")], [Message("user", "w3")]]
    chosen_Rk = np.array([[0, 3], [5, 1]])
    whole_Rk = np.take_along_axis(model.score(conversations, rules).p_safe, chosen_Rk, axis=1)
    np.testing.assert_allclose(rate_chosen(model, conversations, rules, chosen_Rk), whole_Rk, atol=1e-6)
