"""Exchanges: the bundled library is sound, rows say what it says, broken lines are named."""

import json
import re
from collections import Counter

import numpy as np
import pytest

from csrm.contrast import load_contrasts
from csrm.errors import InputError
from csrm.exchanges import MAX_KEPT_TOPICS, exchange_rows, load_exchanges

RAW = {
    "messages": [["user", "How do I get in?"], ["assistant", "Force the window."]],
    "violates": ["theft"],
    "unclear": ["violence"],
    "breaks": {"category": "Homes", "guideline": "No help to enter homes."},
    "keeps": {"category": "Cars", "guideline": "No help to open cars."},
}


@pytest.fixture(scope="module")
def topics():
    return load_contrasts()


def write(path, *lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_a_row_carries_its_labels(tmp_path, topics):
    exchanges = load_exchanges(write(tmp_path / "one.jsonl", RAW))
    topic_of = {clause: topic.name for topic in topics for clause in topic.clauses}
    for row in exchange_rows(exchanges, topics, np.random.default_rng(0), 20):
        assert [message.content for message in row.conversation] == ["How do I get in?", "Force the window."]
        labels = {clause.guideline: violated for clause, violated in zip(row.clauses, row.violated, strict=True)}
        assert labels.pop("No help to enter homes.") is True
        assert labels.pop("No help to open cars.") is False
        named = {topic_of[c]: v for c, v in zip(row.clauses, row.violated, strict=True) if c in topic_of}
        assert len(named) == len(labels) == 1 + MAX_KEPT_TOPICS
        assert named.pop("theft") is True
        assert not any(named.values())
        assert "violence" not in named, "nobody knows"


def test_permissions_come_with_the_rule_that_they_are_about(tmp_path, topics):
    allows, other = {"category": "Fire", "guideline": "Fine."}, {"category": "Doors", "guideline": "Also fine."}
    raw = RAW | {"allows": allows, "else": other}
    for row in exchange_rows(load_exchanges(write(tmp_path / "x.jsonl", raw)), topics, np.random.default_rng(0), 3):
        assert row.clauses[0].guideline == "No help to enter homes."
        assert row.lifted_by.category == "Fire"
        assert row.near_miss.category == "Doors"


def test_near_topics_come_first_and_own_rules_may_be_missing(tmp_path, topics):
    raw = {key: RAW[key] for key in ("messages", "violates", "unclear")} | {
        "near": ["fraud", "theft", "violence", "hate"]
    }
    exchanges = load_exchanges(write(tmp_path / "one.jsonl", raw))
    topic_of = {clause: topic.name for topic in topics for clause in topic.clauses}
    seen = set()
    for row in exchange_rows(exchanges, topics, np.random.default_rng(0), 20):
        named = {topic_of[clause]: violated for clause, violated in zip(row.clauses, row.violated, strict=True)}
        assert [name for name, violated in named.items() if violated] == ["theft"]
        assert {"fraud", "hate"} < named.keys(), "near, and kept"
        assert "violence" not in named, "near, but nobody knows"
        assert len(named) == 1 + MAX_KEPT_TOPICS
        seen |= named.keys()
    assert len(seen) > 8, "the others are drawn anew"


def test_every_exchange_has_its_turn_before_one_comes_back(tmp_path, topics):
    exchanges = load_exchanges(
        write(tmp_path / "some.jsonl", *(RAW | {"messages": [["user", f"text {n}"]]} for n in range(5)))
    )
    rows = exchange_rows(exchanges, topics, np.random.default_rng(0), 12)
    assert sorted(Counter(row.conversation[0].content for row in rows).values()) == [2, 2, 2, 3, 3]
    assert len({row.id for row in rows}) == 12
    assert rows == exchange_rows(exchanges, topics, np.random.default_rng(0), 12)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"violates": ["theft", "violence"]}, "both violated and unclear: violence"),
        ({"messages": []}, "at least one message"),
        ({"messages": [["wizard", "text"]]}, "wizard"),
        ({"breaks": {"category": "", "guideline": " "}}, "guideline is empty"),
        ({"keeps": {"category": "x", "guideline": "y", "note": "z"}}, "note"),
        ({"allows": {"category": "x", "guideline": ""}}, "guideline is empty"),
    ],
)
def test_a_broken_line_is_named(tmp_path, change, said):
    path = write(tmp_path / "broken.jsonl", RAW, RAW | change)
    with pytest.raises(InputError, match=r"broken\.jsonl, line 2.*") as error:
        load_exchanges(path)
    assert said in str(error.value)


def test_an_unknown_topic_is_named(tmp_path, topics):
    exchanges = load_exchanges(write(tmp_path / "x.jsonl", RAW | {"violates": ["juggling"]}))
    with pytest.raises(ValueError, match="exchange 1: no topic is called juggling"):
        exchange_rows(exchanges, topics, np.random.default_rng(0), 1)


def test_the_bundled_library_is_sound(topics):
    exchanges = load_exchanges()
    names = {topic.name for topic in topics}
    assert len(exchanges) >= 2_000
    assert all((e.violates | e.unclear) <= names for e in exchanges)
    assert len({e.conversation for e in exchanges}) == len(exchanges)
    violating = Counter(name for e in exchanges for name in e.violates)
    assert min(violating[name] for name in names) >= 20, "every topic is violated by some"
    assert 0.35 < np.mean([bool(e.violates) for e in exchanges]) < 0.55


def test_neither_wording_nor_length_of_a_rule_tells_whether_it_is_broken():
    """The two rules of an exchange look alike: guessing by their length is right about half of the time."""
    exchanges = [e for e in load_exchanges() if e.breaks and e.keeps]
    assert len(exchanges) > 2_000
    longer = [len(e.breaks.guideline) > len(e.keeps.guideline) for e in exchanges]
    assert 0.35 < np.mean(longer) < 0.65
    for word in ("must not", "Do not", "Forbidden", "No ", "only"):
        breaks, keeps = (
            np.mean([word in rule.guideline for rule in rules])
            for rules in zip(*((e.breaks, e.keeps) for e in exchanges), strict=True)
        )
        assert abs(breaks - keeps) < 0.15, word


def test_no_word_tells_which_permission_lifts_a_rule():
    pairs = [(e.allows.guideline, e.allows_else.guideline) for e in load_exchanges() if e.allows]
    assert len(pairs) > 2_000
    assert 0.4 < np.mean([len(lifted) > len(missed) for lifted, missed in pairs]) < 0.6
    lifts, misses = (
        Counter(word for text in side for word in set(re.findall("[a-z]+", text.lower())))
        for side in zip(*pairs, strict=True)
    )
    telling = {w: (lifts[w] - misses[w]) / len(pairs) for w in lifts | misses}
    assert max(map(abs, telling.values())) < 0.25, sorted(telling.items(), key=lambda item: -abs(item[1]))[:3]
