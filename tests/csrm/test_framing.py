"""Frames keep or settle labels by construction."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from csrm import Clause, Message
from csrm.framing import Frames
from csrm.labelled import LabelledRow

FRAMES = Frames(refusals=["I will not."], openers=["Sure:"])
ROW = LabelledRow(
    id="a",
    domain="",
    conversation=[Message("user", "bad words")],
    clauses=(Clause(category="Spam", guideline="No spam."), Clause(category="Hate", guideline="No hate.")),
    violated=(True, False),
)


def kind(row):
    if len(row.conversation) == 1:
        return "as it was"
    asked, answered = row.conversation
    assert (asked.role, answered.role) == ("user", "assistant")
    if answered.content == "I will not.":
        assert asked.content == "bad words"
        return "refused"
    if answered.content == "Sure: bad words":
        return "granted"
    assert answered.content == "bad words"
    return "reply"


def test_only_a_refusal_changes_labels():
    rng = np.random.default_rng(0)
    kinds = Counter()
    for _ in range(2000):
        framed = FRAMES.frame(ROW, rng)
        kinds[kind(framed)] += 1
        assert framed.clauses == ROW.clauses
        assert framed.violated == ((False, False) if kind(framed) == "refused" else (True, False))
    assert kinds["reply"] / 2000 == pytest.approx(0.35, abs=0.05)
    assert kinds["refused"] / 2000 == pytest.approx(0.1, abs=0.03)
    assert kinds["granted"] / 2000 == pytest.approx(0.1, abs=0.03)


def test_a_conversation_stays_as_it_is():
    talk = [Message("user", "a"), Message("assistant", "b")]
    row = LabelledRow(id="", domain="", conversation=talk, clauses=ROW.clauses, violated=ROW.violated)
    assert all(FRAMES.frame(row, np.random.default_rng(seed)) is row for seed in range(50))


def test_rules_on_who_says_what_keep_their_seats():
    row = replace(ROW, domain="exchanges")
    rng = np.random.default_rng(0)
    assert all(FRAMES.frame(row, rng) is row for _ in range(100))


def test_shares_add_up_to_at_most_one():
    with pytest.raises(ValueError, match="at most 1"):
        Frames(refusals=["x"], openers=["y"], reply_share=0.9, refused_share=0.2)
