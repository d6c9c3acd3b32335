"""Probes on models whose obedience is known."""

import pytest
from obedient import CATEGORIES, Deaf, Obedient, judgement_rows
from tiny import tiny_model

from csrm.evaluation.figures import Resampling
from csrm.evaluation.flip_probes import (
    allow,
    clause_order,
    contradiction,
    dilution,
    flip,
    single_violations,
    violated_clause,
)
from csrm.evaluation.irrelevant_clauses import IRRELEVANT_CLAUSES

RESAMPLING = Resampling(num_resamples=20)


def test_single_violations_are_rows_of_exactly_one():
    rows = judgement_rows()
    single = single_violations(rows)
    assert {sum(row.violated) for row in rows} == {0, 1, 2}
    assert single
    assert all(sum(row.violated) == 1 for row in single)


def test_an_obedient_model_flips_entirely():
    figures = flip(Obedient(), single_violations(judgement_rows()), RESAMPLING)
    assert (figures["unsafe_rate_strict"], figures["fall_left_out"], figures["fall_allowed"]) == (1.0, 1.0, 1.0)
    assert figures["fall_left_out_95"] == [1.0, 1.0]
    assert set(figures["by_category"]) <= set(CATEGORIES)
    assert sum(own["num_rows"] for own in figures["by_category"].values()) == figures["num_rows"]


def test_a_deaf_model_does_not_flip():
    figures = flip(Deaf(), single_violations(judgement_rows()), RESAMPLING)
    assert (figures["unsafe_rate_strict"], figures["fall_left_out"], figures["fall_allowed"]) == (1.0, 0.0, 0.0)


def test_contradiction_keeps_the_prohibition():
    """The obedient stand-in sees the prohibition; the permission beside it changes nothing."""
    figures = contradiction(Obedient(), single_violations(judgement_rows()), RESAMPLING)
    assert (figures["unsafe_rate_contradiction"], figures["fall_contradiction"]) == (1.0, 0.0)


def test_dilution_of_models_that_read_and_that_count():
    figures = dilution(Obedient(), judgement_rows())
    assert list(figures["by_num_clauses"]) == ["1", "2", "5", "10", "20", "50"]
    assert (figures["auroc_1"], figures["auroc_50"]) == (1.0, 1.0)

    class Counting(Obedient):
        def clashes(self, message, clauses):
            return len(clauses) > 10 or super().clashes(message, clauses)

    assert dilution(Counting(), judgement_rows())["auroc_50"] == 0.5
    with pytest.raises(ValueError, match="rows that violate one clause and rows that violate none"):
        dilution(Obedient(), single_violations(judgement_rows()))


def test_clause_order_of_the_real_engine_and_of_a_model_that_reads_in_order():
    rows = single_violations(judgement_rows())
    assert clause_order(tiny_model(max_conversation_tokens=64), rows, num_rows=4)["max_change"] < 1e-5

    class FirstOnly(Obedient):
        def clashes(self, message, clauses):
            return super().clashes(message, clauses[:1])

    assert clause_order(FirstOnly(), rows)["max_change"] == 6.0


def test_irrelevant_clauses_are_many_and_distinct():
    assert len({clause.category for clause in IRRELEVANT_CLAUSES}) == 50


def test_the_permission_is_plain():
    row = single_violations(judgement_rows())[0]
    assert allow(violated_clause(row)).text == f"{violated_clause(row).category} is allowed here."
