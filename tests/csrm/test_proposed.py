"""Rows with proposals: labels never contradict, nothing stands twice, and what was asked once is not asked again."""

import contextlib
import json
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stub_server import GOOD, serving, status
from tiny import tiny_model

from csrm import Clause, InputError, Message
from csrm.chat import Endpoint
from csrm.clause_library import ClauseLibrary
from csrm.endpoint import EndpointProposer
from csrm.errors import EndpointError
from csrm.labelled import LabelledRow
from csrm.proposers import Proposal, says_the_same
from csrm.training.proposed import ProposalCounts, SavedProposals, add_proposals, library_proposer

NAMES = ("a", "b", "c", "d", "e")
EXCLUDED = Clause(category="Held", guideline="no A")
POOL = [*(Clause(category=name, guideline=f"No {name}.") for name in NAMES), Clause(category="A!", guideline="NO A")]


def row(id, text="x", domain="hr", **labels):
    clauses = tuple(Clause(category=name, guideline=f"No {name}.") for name in labels)
    return LabelledRow(
        id=str(id),
        domain=domain,
        conversation=[Message("user", text)],
        clauses=clauses,
        violated=tuple(labels.values()),
    )


class Whim:
    """Proposes what it likes, labels or no labels."""

    def __init__(self):
        self.asked = []

    def propose(self, row, clauses, rng):
        violated, kept = (POOL[n] if n < len(POOL) else None for n in rng.integers(len(POOL) + 2, size=2))
        return Proposal(violated=violated, kept=kept)

    def propose_all(self, rows, configurations, rng):
        self.asked.append([row.id for row in rows])
        assert [tuple(clauses) for clauses in configurations] == [row.clauses for row in rows]
        return [self.propose(row, clauses, rng) for row, clauses in zip(rows, configurations, strict=True)]


class Always(Whim):
    def __init__(self, proposal):
        super().__init__()
        self.proposal = proposal

    def propose(self, row, clauses, rng):
        return self.proposal


def some_rows(seed):
    """Copies of five conversations that agree with each other, in two domains, with labels for some clauses."""
    rng = np.random.default_rng(seed)
    truth = rng.random((5, len(NAMES))) < 0.4
    rows = []
    for number in range(12):
        text = int(rng.integers(5))
        known = rng.permutation(len(NAMES))[: int(rng.integers(1, 4))].tolist()
        labels = {NAMES[n]: bool(truth[text, n]) for n in known}
        rows.append(row(number, f"text {text}", ("hr", "social")[int(rng.integers(2))], **labels))
    return rows


worlds = st.integers(0, 300).map(some_rows)
seeds = st.integers(0, 2**32 - 1)


@given(worlds, seeds, st.integers(0, 15))
def test_rows_stay_what_they_are_and_get_what_is_counted(rows, seed, number):
    before, proposer = list(rows), Whim()
    found, counts = add_proposals(rows, proposer, np.random.default_rng(seed), number)
    assert rows == before
    [asked] = proposer.asked
    assert counts.num_asked == len(set(asked)) == min(number, len(rows))
    added = Counter()
    for old, new in zip(rows, found, strict=True):
        assert (new.id, new.domain, new.conversation) == (old.id, old.domain, old.conversation)
        assert new.clauses[: len(old.clauses)] == old.clauses
        assert new.violated[: len(old.violated)] == old.violated
        more = new.violated[len(old.violated) :]
        assert more in {(), (True,), (False,), (True, False)}
        assert not more or new.id in asked
        assert (new is old) == (not more)
        added.update(more)
    assert (counts.num_violated, counts.num_kept) == (added[True], added[False])


@given(worlds, seeds)
def test_nothing_stands_twice_and_no_labels_contradict(rows, seed):
    found, _ = add_proposals(rows, Whim(), np.random.default_rng(seed), len(rows), excluded=[EXCLUDED])
    said = defaultdict(list)
    for old, new in zip(rows, found, strict=True):
        for place, clause in enumerate(new.clauses):
            assert not any(says_the_same(clause, other) for other in new.clauses[:place])
        assert not any(says_the_same(clause, EXCLUDED) for clause in new.clauses[len(old.clauses) :])
        said[new.conversation[0]] += zip(new.clauses, new.violated, strict=True)
    for labels in said.values():
        for clause, violated in labels:
            assert all(label == violated for other, label in labels if says_the_same(clause, other))


@given(worlds, seeds)
def test_every_known_clause_stays_in_its_domain(rows, seed):
    found, _ = add_proposals(rows, Whim(), np.random.default_rng(seed), len(rows))
    before, after = ClauseLibrary(rows), ClauseLibrary(found)
    for clause, domain in zip(before.clauses, before.domains, strict=True):
        assert after.domains[after.index[clause]] == domain


@given(worlds, seeds)
def test_the_seed_settles_everything(rows, seed):
    first, again = (add_proposals(rows, Whim(), np.random.default_rng(seed), 6) for _ in range(2))
    assert first == again


def test_rows_are_drawn():
    rows = [row(number, f"text {number}", a=True) for number in range(40)]
    chosen = []
    for seed in range(2):
        proposer = Whim()
        add_proposals(rows, proposer, np.random.default_rng(seed), 10)
        chosen += proposer.asked
    assert chosen[0] != chosen[1]


def added(rows, **proposal):
    found, counts = add_proposals(rows, Always(Proposal(**proposal)), np.random.default_rng(0), len(rows))
    more = [
        dict(zip([c.category for c in new.clauses[len(old.clauses) :]], new.violated[len(old.clauses) :], strict=True))
        for old, new in zip(rows, found, strict=True)
    ]
    return more, counts


A, B = POOL[:2]
SHOUTED = POOL[5]


@pytest.mark.parametrize(
    ("rows", "proposal", "expected"),
    [
        ([row(1, c=True)], {"violated": A, "kept": B}, [{"a": True, "b": False}]),
        ([row(1, c=True)], {}, [{}]),
        ([row(1, a=True)], {"violated": SHOUTED}, [{}]),
        ([row(1, a=True)], {"kept": SHOUTED}, [{}]),
        ([row(1, c=True)], {"violated": A, "kept": SHOUTED}, [{"a": True}]),
        ([row(1, a=True), row(2, b=True)], {"kept": SHOUTED}, [{}, {}]),
        ([row(1, a=True), row(2, b=True)], {"violated": SHOUTED}, [{}, {"A!": True}]),
        ([row(1, "x", a=True), row(2, "y", b=True)], {"kept": SHOUTED}, [{}, {"A!": False}]),
        ([row(1, "x", "social", b=True), row(2, "y", a=True)], {"kept": A}, [{}, {}]),
        ([row(1, "x", "social", a=True), row(2, "y", b=True)], {"kept": A}, [{}, {"a": False}]),
    ],
    ids=[
        "both",
        "empty",
        "had as violated",
        "had as violated, proposed as kept",
        "p- like p+",
        "a copy says otherwise",
        "a copy agrees",
        "another conversation",
        "before its home",
        "after its home",
    ],
)
def test_single_cases(rows, proposal, expected):
    more, counts = added(rows, **proposal)
    assert more == expected
    labels = [label for own in expected for label in own.values()]
    assert counts == ProposalCounts(num_asked=len(rows), num_violated=labels.count(True), num_kept=labels.count(False))


def test_an_endpoint_is_asked_once_about_each_row():
    rows = [row(number, f"text {number}", a=True) for number in range(6)]
    with serving() as stub:
        asked = EndpointProposer(Endpoint(url=stub.url, model="stub"))
        found, counts = add_proposals(rows, asked, np.random.default_rng(0), 4)
    assert counts == ProposalCounts(num_asked=4, num_violated=4, num_kept=4)
    shown = [json.loads(request["messages"][1]["content"]) for request in stub.requests]
    texts = {material["conversation"][0]["content"] for material in shown}
    assert texts == {new.conversation[0].content for new in found if len(new.clauses) == 3}
    new = next(new for new in found if len(new.clauses) == 3)
    assert new.clauses[1:] == (Clause(**GOOD["violated"]), Clause(**GOOD["kept"]))
    assert new.violated == (True, True, False)


def test_an_endpoint_that_answers_nothing_is_an_error():
    rows = [row(number, f"text {number}", a=True) for number in range(3)]
    with serving([status(503)] * 3) as stub:
        asked = EndpointProposer(Endpoint(url=stub.url, model="stub", max_retries=0))
        with pytest.raises(EndpointError, match=r"none of 3 questions was answered \(status 503\)") as caught:
            add_proposals(rows, asked, np.random.default_rng(0), 3)
    assert stub.url in str(caught.value)


@pytest.fixture
def saved(tmp_path):
    rows = some_rows(1)
    proposals = SavedProposals(tmp_path / "proposals.jsonl", lambda asked: Whim())
    return rows, tmp_path / "proposals.jsonl", add_proposals(rows, proposals, np.random.default_rng(3), 8)


def again(rows, path, seed=3):
    return add_proposals(rows, SavedProposals(path, pytest.fail), np.random.default_rng(seed), 8)


def test_saved_proposals_are_asked_for_once(saved):
    rows, path, first = saved
    assert first == add_proposals(rows, Whim(), np.random.default_rng(3), 8)
    assert again(rows, path) == first
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_the_proposer_is_made_for_the_rows_that_were_drawn(tmp_path):
    rows, made = some_rows(1), []

    def make(asked):
        made.extend(row.id for row in asked)
        return whim

    whim = Whim()
    add_proposals(rows, SavedProposals(tmp_path / "p.jsonl", make), np.random.default_rng(0), 5)
    assert [made] == whim.asked


def test_a_proposer_that_fails_leaves_no_file(tmp_path):
    def fail(asked):
        raise EndpointError("gone")

    with pytest.raises(EndpointError):
        add_proposals(some_rows(1), SavedProposals(tmp_path / "p.jsonl", fail), np.random.default_rng(0), 5)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:-20], "not readable"),
        (lambda text: text.split("\n", 1)[1], "about other rows"),
        (lambda text: text.replace('"kept"', '"lost"'), "not a file of proposals"),
        (lambda text: text.replace('"guideline"', '"line"'), "not a file of proposals"),
        (lambda text: "[]\n" * 8, "not a file of proposals"),
    ],
)
def test_a_damaged_file_is_one_line(saved, damage, message):
    rows, path, _ = saved
    path.write_text(damage(path.read_text()))
    with pytest.raises(InputError, match=message) as caught:
        again(rows, path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_proposals_of_other_rows_are_refused(saved):
    rows, path, _ = saved
    with pytest.raises(InputError, match="about other rows"):
        again(rows, path, seed=4)


def test_library_vectors_are_the_pooled_ones_of_clause_and_judged_message(monkeypatch):
    """Whatever the order and the batches: as each block alone, to rounding; longer clauses by their beginning."""
    import torch

    # Where bfloat16 is fast, vectors are made in it: compared in full precision, the bound means something.
    monkeypatch.setattr("csrm.training.trainer.mixed_precision", lambda device: contextlib.nullcontext())
    model = tiny_model()
    long = " ".join(f"w{n}. a" for n in range(40))
    rows = [row(n, " ".join(f"w{n + m}" for m in range(1 + 4 * n)), **{f"w{n}": n % 2 == 0}) for n in range(6)]
    rows.append(
        LabelledRow(
            id="long",
            domain="hr",
            conversation=[Message("user", f"w{m}") for m in range(60)],
            clauses=(Clause(category="w9", guideline=long),),
            violated=(True,),
        )
    )
    proposer = library_proposer(model, rows, rows[3:])
    assert sorted(proposer.row_vectors) == sorted(row.id for row in rows[3:])
    with torch.inference_mode():
        for number, clause in enumerate(proposer.library.clauses[:-1]):
            [block] = model.encoder.encode_clauses([clause.text])
            expected = torch.nn.functional.normalize(model.encode_clauses([block]).pooled_BE[0], dim=-1).numpy()
            np.testing.assert_allclose(proposer.vectors_CD[number], expected, atol=1e-5)
        for each in rows[3:]:
            encoded = model.encoder.encode([each.conversation])
            pooled = model.encode_windows([encoded.windows()[-1]], [int(encoded.judged_starts[-1])]).pooled_BE[0]
            np.testing.assert_allclose(proposer.row_vectors[each.id], pooled.numpy(), atol=1e-5)
    found, counts = add_proposals(rows, library_proposer(model, rows, rows), np.random.default_rng(0), len(rows))
    assert counts.num_asked == len(rows)
    assert counts.num_violated == 0, "the rows hold all that they are known to violate"
    assert len(found) == len(rows)
