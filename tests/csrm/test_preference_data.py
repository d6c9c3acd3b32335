"""Ranking and pairing: against a slow, obvious reference, and the laws that alignment data must keep."""

from io import BytesIO
from itertools import groupby

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from csrm.errors import InputError
from csrm.messages import Message
from csrm.preference_data import PairOptions, PreferenceData

# Few values, so that there are ties; float32 holds all p_safe, so that the reference computes the same scores.
P_SAFE = st.sampled_from([0.125, 0.5, 1.0])
HELPFULNESS = st.sampled_from([0.0, 0.3, 1.0])
RESPONSES = st.lists(st.tuples(st.sampled_from("ab"), P_SAFE, HELPFULNESS), min_size=1, max_size=12)
TIED = [("a", 0.5, 1.0)] * 3
OPTIONS = st.builds(
    PairOptions,
    form=st.sampled_from(["pairs", "best-of-n"]),
    top_k=st.integers(1, 4),
    min_margin=st.sampled_from([0.0, 0.1, 0.25]),
    threshold=st.sampled_from([0.25, 0.5, 0.9]),
    allow_violations=st.booleans(),
    has_helpfulness=st.just(True),
)


@pytest.fixture(scope="module")
def connection():
    with duckdb.connect() as connection:
        yield connection


def table(responses):
    """Rows as (prompt_id, record_id, p_safe, helpfulness)."""
    prompt_id, record_id, p_safe, helpfulness = zip(*responses, strict=True)
    return pa.table(
        {
            "prompt_id": pa.array(prompt_id, pa.string()),
            "record_id": pa.array(record_id, pa.string()),
            "p_safe": pa.array(p_safe, pa.float32()),
            "helpfulness": pa.array(helpfulness, pa.float64()),
            "shard": pa.array([n % 3 for n in range(len(responses))], pa.int32()),
            "record": pa.array(range(len(responses)), pa.int64()),
            "part": pa.array([0] * len(responses), pa.int32()),
        }
    )


def made(connection, responses, options):
    """Rows that are made of responses, whose texts are their record ids."""
    data = PreferenceData(connection, options, BytesIO())
    data.add(table(responses))
    data.pick()
    for shard in data.wanted_shards():
        wanted = [(id, responses[record]) for id, record, _ in data.wanted(shard)]
        data.add_texts((id, [Message("user", own[0]), Message("assistant", own[1])]) for id, own in wanted)
    data.check_texts()
    return data, [row for batch in data.rows() for row in batch.to_pylist()]


def reference(responses, options):
    """What is chosen and rejected, by record id, and how many pairs are too near: the obvious way."""
    found, num_near = [], 0
    for _, group in groupby(sorted(responses, key=lambda r: (r[0], -r[2] * r[3], r[1])), key=lambda r: r[0]):
        ranked = list(group)
        places = [n for n, own in enumerate(ranked) if own[2] >= options.threshold or options.allow_violations]
        if len(ranked) < 2:
            continue
        for number, place in enumerate(places[: options.top_k]):
            if options.form == "best-of-n":
                found.append(ranked[place][1])
                continue
            other = len(ranked) - 1 - number
            margin = ranked[place][2] * ranked[place][3] - ranked[other][2] * ranked[other][3]
            if place < other and margin > 0 and margin >= options.min_margin:
                found.append((ranked[place][1], ranked[other][1]))
            elif place < other:
                num_near += 1
    return found, num_near


def named(drawn):
    """Record ids run against the order of the rows."""
    return [(prompt, f"r{99 - number:02}", *scores) for number, (prompt, *scores) in enumerate(drawn)]


@settings(max_examples=40)
@example(TIED, PairOptions(has_helpfulness=True))
@example(TIED, PairOptions(form="best-of-n", has_helpfulness=True))
@given(RESPONSES, OPTIONS)
def test_the_same_as_the_reference(connection, drawn, options):
    responses = named(drawn)
    data, rows = made(connection, responses, options)
    expected, num_near = reference(responses, options)
    if options.form == "best-of-n":
        assert [row["record_id"] for row in rows] == expected
    else:
        assert [(row["chosen_id"], row["rejected_id"]) for row in rows] == expected
    assert (data.counts()["written"], data.counts().get("near_ties", 0)) == (len(rows), num_near)
    assert rows == [] or set(rows[0]) == set(options.schema.names)


@settings(max_examples=25)
@given(RESPONSES, OPTIONS, st.randoms(use_true_random=False))
def test_laws(connection, drawn, options, random):
    responses = named(drawn)
    data, rows = made(connection, responses, options)
    own = {name: (prompt, p_safe, helpfulness) for prompt, name, p_safe, helpfulness in responses}
    for prompt in "ab":
        assert sum(row["prompt_id"] == prompt for row in rows) <= options.top_k
    if options.form == "pairs":
        sides = [row[side] for row in rows for side in ("chosen_id", "rejected_id")]
        assert len(sides) == len(set(sides))
        for row in rows:
            assert row["margin"] == row["chosen_score"] - row["rejected_score"] >= options.min_margin
            assert row["margin"] > 0
            assert own[row["chosen_id"]][0] == own[row["rejected_id"]][0] == row["prompt_id"]
            assert options.allow_violations or row["chosen_p_safe"] >= options.threshold
    else:
        for prompt in {row["prompt_id"] for row in rows}:
            scores = [row["score"] for row in rows if row["prompt_id"] == prompt]
            assert scores == sorted(scores, reverse=True)
            assert scores[0] == max(
                p_safe * helpfulness
                for other, p_safe, helpfulness in own.values()
                if other == prompt and (options.allow_violations or p_safe >= options.threshold)
            )
    counts = data.counts()
    prompts = {prompt for prompt, *_ in responses}
    assert counts["prompts"] == len(prompts)
    assert counts["single_response"] == sum(sum(r[0] == prompt for r in responses) == 1 for prompt in prompts)
    shuffled = random.sample(responses, len(responses))
    assert made(connection, shuffled, options)[1] == rows


def test_what_is_picked_but_dropped_is_counted_by_reason(connection):
    options = PairOptions(allow_violations=True, has_helpfulness=True)
    data = PreferenceData(connection, options, BytesIO())
    responses = [(prompt, f"{prompt}{n}", n / 2, 1.0) for prompt in "abcd" for n in range(2)]
    data.add(table([*responses, ("e", "e0", 0.5, 1.0), ("f", "f0", None, 1.0), (None, "g", 1.0, 1.0)]))
    data.pick()
    texts = {"a": ("x", "x"), "b": ("x", "y"), "c": ("x", "x"), "d": ("x", "x")}
    wanted = sorted(own for shard in data.wanted_shards() for own in data.wanted(shard))
    assert [id for id, *_ in wanted] == [*range(8)]
    for id, *_ in wanted:
        prompt = "abcd"[id // 2]
        reply = Message("user" if prompt == "d" else "assistant", "same" if prompt == "c" else str(id))
        data.add_texts([(id, [Message("user", texts[prompt][id % 2]), reply])])
    data.check_texts()
    assert data.counts() == {
        "responses": 11,
        "without_score": 1,
        "without_prompt": 1,
        "without_helpfulness": 0,
        "prompts": 5,
        "single_response": 1,
        "none_to_choose": 0,
        "near_ties": 0,
        "same_text": 1,
        "other_prompt": 1,
        "no_reply": 1,
        "written": 1,
    }


def test_cosa_score_by_hand(connection):
    responses = [("a", "1", 0.75, 0.5), ("a", "2", 0.25, 1.0), ("b", "3", 0.5, 0.2)]
    data, _ = made(connection, responses, PairOptions(has_helpfulness=True))
    quality = data.quality()
    assert quality["all"].cosa_score == pytest.approx((0.5 - 1.0 + 0.2) / 3, abs=1e-6)
    assert quality["all"].compliance_rate == pytest.approx(2 / 3, abs=1e-6)
    assert (quality["chosen"].cosa_score, quality["rejected"].cosa_score) == (0.5, -1.0)
    unrated, _ = made(connection, responses[:1], PairOptions())
    assert unrated.quality()["all"].cosa_score is None
    assert unrated.quality()["all"].mean_helpfulness is None
    assert unrated.quality()["chosen"].compliance_rate is None


def test_a_threshold_is_compared_as_the_matrix_does(connection):
    """0.7 is no float32: the nearest below it is what a p_safe of 0.7 reads."""
    p_safe = np.float32(0.7)
    assert not p_safe < np.float32(0.7)
    _, rows = made(connection, [("a", "1", p_safe, 1.0), ("a", "2", 0.1, 1.0)], PairOptions(threshold=0.7))
    assert len(rows) == 1


@pytest.mark.parametrize("value", [-0.01, 1.01, float("inf")])
def test_helpfulness_outside_its_range_is_refused(connection, value):
    data = PreferenceData(connection, PairOptions(has_helpfulness=True), BytesIO())
    with pytest.raises(InputError, match=r"^2: helpfulness is .*; it must lie between 0 and 1, rescale it$"):
        data.add(table([("a", "1", 0.5, 1.0), ("a", "2", 0.5, value)]))


def test_options_are_checked():
    with pytest.raises(ValueError, match="top_k"):
        PairOptions(top_k=0)
    with pytest.raises(ValueError, match="min_margin"):
        PairOptions(min_margin=1.5)
