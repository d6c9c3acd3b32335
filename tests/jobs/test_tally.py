"""Counts of a report against plain loops over rows, however the rows are cut."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.report import tally as tallies
from jobs.report.tally import NUM_BINS, OTHERS, Tally, tally

NAMES, THRESHOLDS = ["game", "bank", "gone"], [0.5, 0.6, 0.5]
SCORES = st.none() | st.floats(0, 1, width=32) | st.sampled_from([0.5, float(np.float32(0.6))])
ROWS = st.fixed_dictionaries(
    {
        "p_safe": st.fixed_dictionaries({"game": SCORES, "bank": SCORES}),
        "worst_clause": st.fixed_dictionaries({"game": st.sampled_from(["a", "b"]), "bank": st.just("c")}),
        "error": st.none() | st.sampled_from(["too long", "no text"]),
        "lang": st.none() | st.sampled_from(["en", "de"]),
    }
)
SCHEMA = pa.schema(
    {
        "p_safe": pa.struct({"game": pa.float32(), "bank": pa.float32()}),
        "worst_clause": pa.struct({"game": pa.string(), "bank": pa.string()}),
        "error": pa.string(),
        "lang": pa.string(),
        "row": pa.int64(),
        "record_id": pa.string(),
    }
)


def table_of(rows):
    named = [row | {"row": number, "record_id": f"r{number}"} for number, row in enumerate(rows)]
    return pa.Table.from_pylist(named, SCHEMA)


def count(table, num_worst=3) -> Tally:
    return tally(table, NAMES, THRESHOLDS, by=["lang"], num_worst=num_worst)


def violated(row):
    found = []
    for name, threshold in zip(NAMES, THRESHOLDS, strict=True):
        score = row["p_safe"].get(name)
        found.append(score is not None and np.float32(score) < np.float32(threshold))
    return found


@given(st.lists(ROWS, min_size=1, max_size=30))
def test_counts_are_those_of_plain_loops(rows):
    found = count(table_of(rows))
    verdicts = [violated(row) for row in rows]
    assert found.whole.num_rows == len(rows)
    assert found.whole.num_errors == sum(row["error"] is not None for row in rows)
    assert found.num_violating == sum(map(any, verdicts))
    for i, name in enumerate(NAMES):
        scores = [row["p_safe"].get(name) for row in rows]
        scored = [score for score in scores if score is not None]
        assert found.whole.num_scored[i] == len(scored)
        assert found.whole.num_violations[i] == sum(verdict[i] for verdict in verdicts)
        assert found.sum_p_safe[i] == pytest.approx(sum(scored))
        bins = Counter(min(int(np.float32(score) * np.float32(NUM_BINS)), NUM_BINS - 1) for score in scored)
        assert {index: number for index, number in enumerate(found.histogram[i]) if number} == bins
        for j in range(3):
            assert found.co_violations[i, j] == sum(verdict[i] and verdict[j] for verdict in verdicts)
        clauses = [row["worst_clause"][name] for row, verdict in zip(rows, verdicts, strict=True) if verdict[i]]
        assert found.clauses[i] == Counter(clauses)
        worst = sorted((score, number) for number, score in enumerate(scores) if score is not None)[:3]
        assert [(one.p_safe, one.row, one.record_id) for one in found.worst[i]] == [
            (score, number, f"r{number}") for score, number in worst
        ]
    assert found.reasons == Counter(row["error"] for row in rows if row["error"])
    groups = {value: [r for r in rows if (r["lang"] or "") == value] for value in {r["lang"] or "" for r in rows}}
    assert found.groups["lang"].keys() == groups.keys()
    for value, own in groups.items():
        group = found.groups["lang"][value]
        assert (group.num_rows, group.num_errors) == (len(own), sum(row["error"] is not None for row in own))
        assert group.num_violations.tolist() == np.sum([violated(row) for row in own], 0).tolist()
        assert group.num_scored[0] == sum(row["p_safe"]["game"] is not None for row in own)


@given(st.lists(ROWS, min_size=2, max_size=30), st.data())
def test_counts_add_up_wherever_rows_are_cut(rows, data):
    table = table_of(rows)
    cut = data.draw(st.integers(1, len(rows) - 1))
    whole, first, second = (count(part) for part in (table, table[:cut], table[cut:]))
    first.add(second, 3)
    for name in Tally.__slots__:
        if name not in ("whole", "groups", "sum_p_safe"):
            assert np.all(np.asarray(getattr(first, name) == getattr(whole, name))), name
    np.testing.assert_allclose(first.sum_p_safe, whole.sum_p_safe)
    for own, other in (
        (first.whole, whole.whole),
        *((first.groups["lang"][v], g) for v, g in whole.groups["lang"].items()),
    ):
        assert (own.num_rows, own.num_errors) == (other.num_rows, other.num_errors)
        assert (own.num_scored == other.num_scored).all()
        assert (own.num_violations == other.num_violations).all()


def test_no_more_values_are_told_apart_than_fit(monkeypatch):
    monkeypatch.setattr(tallies, "MAX_GROUPS", 2)
    row = {"p_safe": {"game": 0.1, "bank": 0.9}, "worst_clause": {"game": "a", "bank": "c"}}
    first, *rest = [count(table_of([row | {"error": f"e{n}", "lang": f"l{n}"}] * (n + 1))) for n in range(4)]
    for part in rest:
        first.add(part, 3)
    assert {value: group.num_rows for value, group in first.groups["lang"].items()} == {"l0": 1, "l1": 2, OTHERS: 7}
    assert first.reasons == {"e0": 1, "e1": 2, OTHERS: 7}
    assert first.whole.num_rows == 10
