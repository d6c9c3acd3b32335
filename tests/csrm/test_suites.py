"""Suites and their figures, on models whose answers are known."""

import numpy as np
import pytest
from obedient import CATEGORIES, Deaf, Obedient, judgement_rows
from tiny import tiny_model

from csrm import Calibration, Clause, Configuration
from csrm.evaluation import suites
from csrm.evaluation.blind_baseline import BlindBaseline
from csrm.evaluation.cells import row_of
from csrm.evaluation.figures import Resampling, judgement_figures, per_clause, per_clause_figures
from csrm.evaluation.rows import PolicyRow, ScenarioRow
from csrm.labelled import BinaryRow, PreferenceRow
from csrm.messages import Message

RESAMPLING = Resampling(num_resamples=50)
ARSON = Configuration(id="arson", clauses=(Clause(category="arson", guideline="no arson"),))


def talk(*texts):
    return [Message(("user", "assistant")[n % 2], text) for n, text in enumerate(texts)]


def test_judgement_suites_of_an_obedient_and_of_a_deaf_model():
    rows = judgement_rows()
    good = suites.any_clause(Obedient(), rows, None, RESAMPLING)
    assert (good["auroc"], good["f1_violating"], good["f1_complying"]) == (1.0, 1.0, 1.0)
    assert good["num_cells"] == good["num_rows"] == len(rows)
    assert good["f1_violating_if_all_violate"] == pytest.approx(2 * 16 / (24 + 16))
    own = suites.own_clauses(Deaf(), rows, None, RESAMPLING)
    assert own["num_cells"] == 4 * len(rows)
    assert 0.5 < own["auroc"] < 0.9
    assert own["auroc_95"][0] < own["auroc"] < own["auroc_95"][1]


def test_figures_by_hand():
    reward = np.array([2.0, 1.0, -1.0, -2.0], np.float32)
    p_safe = Calibration().p_safe(reward)
    violates = np.array([False, True, False, True])
    rows = [row_of(str(n), talk(f"q{n}", "a")) for n in range(4)]
    figures = judgement_figures(reward, p_safe, violates, rows, blind=np.array([0.0, 1.0, 0.0, 1.0]))
    assert figures["auroc"] == 0.75
    assert figures["auprc"] == pytest.approx((1 + 2 / 3) / 2)
    assert figures["f1_violating"] == figures["f1_complying"] == 0.5
    assert figures["brier"] == pytest.approx(np.mean((p_safe - ~violates) ** 2))
    assert (figures["auroc_blind"], figures["share_violating"], figures["brier_if_constant"]) == (1.0, 0.5, 0.25)
    strict = judgement_figures(reward, p_safe, violates, rows, threshold=0.8)
    assert strict["f1_violating"] == pytest.approx(2 * 2 / (3 + 2))


def test_resampling_by_prompt_keeps_replies_to_one_prompt_together():
    """Forty copies of four prompts: by row they look like a hundred and sixty observations."""
    rng = np.random.default_rng(0)
    reward = np.repeat(rng.normal(0, 1, 4), 40).astype(np.float32)
    violates = np.repeat([True, False, True, False], 40)
    rows = [row_of(str(n), talk(f"q{n // 40}", f"a{n}")) for n in range(160)]
    width = {}
    for by in ("row", "prompt"):
        figures = judgement_figures(
            reward, Calibration().p_safe(reward), violates, rows, resampling=Resampling(num_resamples=200, by=by)
        )
        width[by] = np.ptp(figures["brier_95"])
    assert width["prompt"] > 2 * width["row"]


def test_per_clause_and_its_mean():
    rows = judgement_rows()
    assert per_clause(Obedient(), rows) == dict.fromkeys(sorted(CATEGORIES), 1.0)
    figures = per_clause_figures(Obedient(), rows, resampling=RESAMPLING)
    assert (figures["mean_auroc"], figures["mean_auroc_95"]) == (1.0, [1.0, 1.0])
    assert figures["by_clause"] == per_clause(Obedient(), rows)


def test_binary_rows_go_by_the_configurations_threshold_and_calibration():
    rows = [
        BinaryRow(id=str(n), conversation=talk("q", ("arson", "fine")[n % 2]), harmful=n % 2 == 0) for n in range(8)
    ]
    assert suites.binary(Obedient(), rows, ARSON)["f1_violating"] == 1.0
    lenient = Configuration(id="arson", clauses=ARSON.clauses, threshold=0.01)
    assert suites.binary(Obedient(), rows, lenient)["f1_violating"] == 0.0
    own = Calibration(configurations={ARSON.fingerprint: Calibration(bias=9.0)})
    assert suites.binary(Obedient(own), rows, ARSON)["f1_violating"] == 0.0


def test_preferences():
    pairs = [("fine", "arson"), ("fine", "arson"), ("arson", "fine"), ("fine", "good")]
    rows = [PreferenceRow(id=str(n), conversation=talk("q"), chosen=c, rejected=r) for n, (c, r) in enumerate(pairs)]
    figures = suites.preferences(Obedient(), rows, ARSON, None, RESAMPLING)
    assert figures["pairwise_accuracy"] == pytest.approx(2.5 / 4)
    assert figures["mean_margin"] == pytest.approx((6 + 6 - 6 + 0) / 4)


def test_a_dialogue_violates_if_any_agent_turn_does():
    def row(id, *replies, violates):
        turns = [talk(*[text for reply in replies[: n + 1] for text in ("q", reply)]) for n in range(len(replies))]
        return PolicyRow(id=id, turns=turns, configuration=ARSON, violates=violates)

    rows = [
        row("early", "arson", "fine", "fine", violates=True),
        row("late", "fine", "arson", violates=True),
        row("never", "fine", "theft", violates=False),
    ]
    figures = suites.dynabench(Obedient(), rows, None, RESAMPLING)
    assert (figures["f1_violating"], figures["f1_complying"]) == (1.0, 1.0)
    assert (figures["num_rows"], figures["num_turns"], figures["most_rules"]) == (3, 7, 1)


def test_scenarios_pick_their_configuration():
    lenient = Configuration(id="lenient", clauses=(Clause(category="arson", guideline="arson is allowed"),))

    def row(scenario, reply, type, violates):
        return ScenarioRow(id="", conversation=talk("q", reply), scenario=scenario, type=type, violates=violates)

    rows = [row("arson", "arson", "disallowed", True), row("lenient", "arson", "allowed", False)]
    rows += [row("arson", "fine", "partial", None)]
    figures = suites.scenarios(Obedient(), rows, [ARSON, lenient], None, RESAMPLING)
    assert (figures["violating_rate_disallowed"], figures["violating_rate_allowed"]) == (1.0, 0.0)
    assert (figures["f1_violating"], figures["num_cells"]) == (1.0, 2)
    unlabelled = suites.scenarios(Obedient(), rows[2:], [ARSON, lenient], None, RESAMPLING)
    assert "f1_violating" not in unlabelled
    assert unlabelled["violating_rate_partial"] == 0.0


def test_the_blind_baseline_learns_words_and_ignores_configurations():
    model = tiny_model(max_conversation_tokens=64)
    rows = [row_of(str(n), talk(f"w{n % 7}", "w9 w9" if n % 2 else "w50 w51")) for n in range(40)]
    clause = ARSON.clauses
    labelled = [type(row)(**{f: getattr(row, f) for f in ("id", "domain", "conversation")}, clauses=clause,
                          violated=(bool(n % 2),)) for n, row in enumerate(rows)]  # fmt: skip
    blind = BlindBaseline(model, labelled)
    score = blind.score(model, [*rows, rows[1]])
    assert ((score[:40] > 0) == np.arange(40) % 2).all()
    assert score[40] == score[1]
