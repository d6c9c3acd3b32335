"""Batches are a function of seed and step, and hold what was asked for."""

import numpy as np
import pytest
from test_training import toy_rows

from csrm import Message
from csrm.augmentation import Recipe
from csrm.clause_library import ClauseLibrary
from csrm.labelled import PreferenceRow
from csrm.training.sampler import Sampler, TrainingData

PREFERENCES = [
    PreferenceRow(id=f"p{n}", conversation=[Message("user", f"w{n}")], chosen=f"w{n + 20}", rejected=f"w{n + 40}")
    for n in range(6)
]


def make_sampler(rows=None, *, seed=0, domain_power=0.5, batch_rows=6, preferences=PREFERENCES):
    rows = rows or toy_rows(40)
    library = ClauseLibrary(rows)
    library.relate(np.eye(len(library.clauses), dtype=np.float32))
    return Sampler(
        TrainingData(rows=rows, preferences=preferences),
        library,
        batch_rows=batch_rows,
        batch_preferences=2,
        domain_power=domain_power,
        recipe=Recipe(num_configurations=4, num_strictness=0),
        seed=seed,
    )


def contents(batch):
    return (
        [(row.id, row.conversation) for row in batch.rows],
        batch.clauses,
        batch.index_RKM.tolist(),
        batch.complies_RK.tolist(),
        batch.preference_P2.tolist(),
    )


def test_a_batch_depends_on_seed_and_step_alone():
    sampler, fresh = make_sampler(), make_sampler()
    expected = [contents(sampler.draw(step)) for step in range(4)]
    assert [contents(fresh.draw(step)) for step in (3, 1, 2, 0)] == [expected[step] for step in (3, 1, 2, 0)]
    assert expected[0] != expected[1]
    assert contents(make_sampler(seed=1).draw(0)) != expected[0]


def test_a_batch_holds_distinct_rows_and_pairs_of_replies_at_its_end():
    batch = make_sampler().draw(0)
    assert len({row.id for row in batch.rows[:6]}) == 6
    chosen, rejected = batch.rows[6::2], batch.rows[7::2]
    assert len(chosen) == len(rejected) == 2
    for one, other in zip(chosen, rejected, strict=True):
        assert one.id == other.id
        assert one.conversation[:-1] == other.conversation[:-1]
        assert one.conversation[-1] != other.conversation[-1]


def test_small_data_gives_small_batches():
    batch = make_sampler(toy_rows(4), preferences=PREFERENCES[:1]).draw(0)
    assert len(batch.rows) == 4 + 2


@pytest.mark.parametrize(("power", "share"), [(1.0, 0.1), (0.0, 0.5)])
def test_domains_are_drawn_as_the_power_says(power, share):
    rows = [row for n, row in enumerate(toy_rows(400)) if n % 2 == 0 or n % 18 == 1]
    sampler = make_sampler(rows, domain_power=power, batch_rows=1)
    drawn = [sampler.draw(step).rows[0].domain for step in range(300)]
    assert drawn.count("domain 1") / 300 == pytest.approx(share, abs=0.08)
