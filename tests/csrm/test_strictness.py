"""Strictness: the filter keeps what is surely stricter, and the judge is one matrix."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_model

from csrm import Calibration, Clause, Configuration, Message, strictness
from csrm.clopper_pearson import lower_bound
from csrm.dominance import order_shares
from csrm.errors import InputError
from csrm.matrix import ComplianceMatrix, Scores
from csrm.strictness import (
    Ladder,
    StrictnessPair,
    every_pair,
    extend,
    guideline,
    judge,
    load_pairs,
    report,
    save_pairs,
    select_pairs,
    uncovered,
)

LADDER = Ladder("w7", ("w1", "w2 w3", "w4"), ("w8",), ("w9",))
CONVERSATIONS = [[Message("user", f"w{n} w{2 * n} w{n + 5}")] for n in range(1, 7)]


@given(st.data())
def test_lower_bound_is_the_beta_quantile(data):
    beta = pytest.importorskip("scipy.stats").beta
    n = data.draw(st.integers(1, 600))
    k = data.draw(st.integers(1, n))
    alpha = data.draw(st.floats(1e-4, 0.5))
    assert lower_bound(k, n, alpha) == pytest.approx(beta.ppf(alpha, k, n - k + 1), rel=1e-9)


def test_lower_bound_by_hand():
    """All of n: the bound is the n-th root of alpha. None of n, or no trial: nothing is known."""
    assert lower_bound(59, 59) == pytest.approx(0.05 ** (1 / 59), rel=1e-14)
    assert lower_bound(1, 2, 0.19) == pytest.approx(0.1)  # 1 - 0.9² = 0.19
    assert lower_bound(0, 10) == lower_bound(0, 0) == 0.0
    for wrong in [(2, 1), (-1, 1), (1, 1, 0.0), (1, 1, 1.0)]:
        with pytest.raises(ValueError):
            lower_bound(*wrong)


@pytest.mark.parametrize(
    ("n", "k", "kept"), [(58, 58, False), (59, 59, True), (59, 58, False), (92, 91, False), (93, 92, True)]
)
def test_a_pair_needs_59_conversations_without_disagreement(n, k, kept):
    ladder = Ladder("a", ("b",))
    verdicts = np.array([[True, number < k] for number in range(n)] + [[False, True]] * 7)
    [found] = select_pairs(ladder, verdicts)
    assert (found.n, found.k, found.moved, found.kept) == (n, k, 7, kept)
    assert found.enough == (n >= 59)
    assert found.pair == StrictnessPair(ladder, strict=1, lenient=0)
    assert found.probability == k / n


def test_without_conversations_nothing_is_known_and_nothing_is_kept():
    for verdicts in (np.zeros((0, 4), bool), np.zeros((200, 4), bool)):
        for found in select_pairs(LADDER, verdicts):
            assert (found.n, found.k, found.lower_bound, found.kept, found.enough) == (0, 0, 0.0, False, False)
            assert math.isnan(found.probability)


@given(st.integers(0, 2**32 - 1))
def test_all_pairs_are_counted_as_by_hand(seed):
    verdicts = np.random.default_rng(seed).random((30, 4)) < 0.7
    found = select_pairs(LADDER, verdicts, alpha=0.5, bound=0.6)
    assert [(each.pair.lenient, each.pair.strict) for each in found] == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    for each in found:
        lenient, strict = verdicts[:, each.pair.lenient], verdicts[:, each.pair.strict]
        assert each.n == sum(lenient)
        assert each.k == sum(a and b for a, b in zip(lenient, strict, strict=True))
        assert each.moved == sum(b and not a for a, b in zip(lenient, strict, strict=True))
        assert each.kept == (lower_bound(each.k, each.n, 0.5) > 0.6)


def test_a_judge_that_condemns_everything_passes_every_pair_but_moves_nothing():
    found = select_pairs(LADDER, np.ones((60, 4), bool))
    assert all(each.kept and each.moved == 0 for each in found)


def test_a_verdict_per_guideline_is_asked_for():
    with pytest.raises(ValueError, match="4 guidelines"):
        select_pairs(LADDER, np.ones((60, 3), bool))
    for strict, lenient in [(1, 1), (1, 2), (4, 0), (1, -1)]:
        with pytest.raises(ValueError, match="not stricter"):
            StrictnessPair(LADDER, strict, lenient)
    assert len(every_pair([LADDER, LADDER])) == 12


def test_order_shares_by_hand():
    adjacent, monotone = order_shares(np.array([[3.0, 2.0, 2.0], [1.0, 2.0, 0.0]]))
    assert adjacent == 3 / 4
    assert monotone == 1 / 2
    assert all(map(math.isnan, order_shares(np.zeros((0, 3)))))


def test_judge_is_the_sign_of_mean_calibrated_rewards_over_wordings():
    model = tiny_model(max_clause_tokens=120)
    rewards = []
    for seed in np.random.default_rng(5).integers(2**32, size=3):
        clauses = [guideline(LADDER, k, np.random.default_rng(seed)) for k in range(4)]
        configurations = [Configuration(id=f"d{k}", clauses=(clause,)) for k, clause in enumerate(clauses)]
        rewards.append(model.score(CONVERSATIONS, configurations).reward)
    mean = np.mean(rewards, axis=0)
    middle = (np.sort(mean.ravel())[11] + np.sort(mean.ravel())[12]) / 2
    model.calibration = Calibration(scale=2.0, bias=float(-2 * middle))
    verdicts = judge(model, CONVERSATIONS, LADDER, np.random.default_rng(5), num_wordings=3)
    np.testing.assert_array_equal(verdicts, mean < middle)
    assert verdicts.mean() == 0.5


def test_judge_of_no_conversations():
    assert judge(tiny_model(), [], LADDER, np.random.default_rng(0)).shape == (0, 4)


class Reader:
    """A judge that understands: a conversation says the number of its severity, clauses what they forbid."""

    name, fingerprint = "reader", "f" * 64

    class calibration:  # noqa: N801
        p_safe = staticmethod(lambda rewards: 1 / (1 + np.exp(-rewards)))

    def score(self, conversations, configurations):
        forbidden = [set(configuration.clauses[0].guideline.split()) for configuration in configurations]
        reward = np.array([[-1.0 if text[0].content in own else 1.0 for own in forbidden] for text in conversations])
        return ComplianceMatrix(
            record_ids=[],
            configuration_ids=[],
            thresholds=np.full(len(configurations), 0.5, np.float32),
            scores=Scores(reward=reward, p_safe=reward),
            categories=[],
        )


@pytest.fixture
def reader(monkeypatch):
    """Guidelines that list what they forbid and nothing else, and a judge that reads them."""

    def listed(ladder, k, rng):
        return Clause(category="", guideline=" ".join(["forbidden", *ladder.subcategories[:k]]))

    monkeypatch.setattr(strictness, "guideline", listed)
    monkeypatch.setattr(strictness, "prohibition", lambda ladder, name, rng: Clause(category="", guideline=name))
    return Reader()


def says(word, times):
    return [[Message("user", word)]] * times


def test_report_of_a_judge_that_understands(reader):
    ladder = Ladder("a", ("b", "c"))
    conversations = says("b", 60) + says("c", 30) + says("z", 10)
    found = report(reader, conversations, ladder, np.random.default_rng(0))
    assert found.num_conversations == 100
    assert found.adjacent_share == found.monotone_share == 1.0
    assert found.uncovered_share == 0.1
    assert found.moved_share == 0.9
    assert [(each.n, each.k, each.moved) for each in found.statistics] == [(0, 0, 60), (0, 0, 90), (60, 60, 30)]
    assert found.kept == (StrictnessPair(ladder, 2, 1),)
    assert (found.num_tested, found.num_enough) == (1, 1)


def test_extend_adds_what_covers_more(reader):
    conversations = [*says("b", 2), *says("y", 2), *says("z", 1), *says("q", 1)]
    asked = []

    def propose(ladder, left):
        asked.append([text[0].content for text in left])
        return [[("y", 1), ("nothing", 0), ("z", 2)], [("nobody", 0)], [("q", 0)]][len(asked) - 1]

    longer = extend(Ladder("a", ("b", "c")), reader, conversations, propose, np.random.default_rng(0))
    assert longer.subcategories == ("b", "y", "c", "z")
    assert asked == [["y", "y", "z", "q"], ["q"]], "proposals that cover nothing more are not added, and end it"
    assert uncovered(reader, conversations, longer, np.random.default_rng(0)).tolist() == [False] * 5 + [True]


def test_extend_asks_nobody_where_everything_is_covered(reader):
    ladder = Ladder("a", ("b",))
    assert extend(ladder, reader, says("b", 2), pytest.fail, np.random.default_rng(0)) == ladder
    assert extend(ladder, reader, says("z", 2), lambda *_: [], np.random.default_rng(0)) == ladder


@pytest.fixture
def saved(reader, tmp_path):
    ladder = Ladder("a", ("b", "c"), ("d",), ("e",))
    rng = np.random.default_rng(0)
    reports = [report(reader, says("b", 60), ladder, rng), report(reader, [], Ladder("f", ("g",)), rng)]
    path = tmp_path / "new folder/pairs.json"
    save_pairs(path, reports, reader, alpha=0.05, bound=0.95)
    return path, ladder


def test_pairs_that_passed_come_back_with_their_judge(saved):
    path, ladder = saved
    loaded = load_pairs(path)
    assert loaded.pairs == (StrictnessPair(ladder, 2, 1),)
    assert (loaded.judge, loaded.fingerprint) == ("reader", "f" * 64)
    assert loaded.filtered
    document = json.loads(path.read_text())
    assert [len(entry["pairs"]) for entry in document["ladders"]] == [3, 1], "those that did not pass are kept on file"
    assert document["ladders"][1]["uncovered_share"] is None


def test_unfiltered_pairs_are_all_kept_and_say_so(reader, tmp_path):
    ladder = Ladder("a", ("b", "c"))
    every = report(reader, [], ladder, np.random.default_rng(0)).unfiltered()
    save_pairs(tmp_path / "all.json", [every], reader, alpha=0.05, bound=0.95, filtered=False)
    loaded = load_pairs(tmp_path / "all.json")
    assert loaded.pairs == every_pair([ladder])
    assert not loaded.filtered


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:40], "not a file of strictness pairs"),
        (lambda text: "[]", "not a file of strictness pairs"),
        (lambda text: text.replace("pairs, 1", "pairs, 9"), "its format is not"),
        (lambda text: text.replace('"judge"', '"jury"'), "no 'judge'"),
        (lambda text: text.replace('"strict": 2', '"strict": 7'), "not stricter"),
        (lambda text: text.replace('"b"', '"b, c"'), "without punctuation"),
    ],
)
def test_a_damaged_file_is_one_line(saved, damage, message):
    path, _ = saved
    path.write_text(damage(path.read_text()))
    with pytest.raises(InputError, match=message) as caught:
        load_pairs(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"none\.json"):
        load_pairs(tmp_path / "none.json")
