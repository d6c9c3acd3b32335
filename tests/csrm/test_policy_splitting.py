import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csrm.configurations import Clause
from csrm.errors import ConfigurationError
from csrm.policies.splitting import split_guideline, split_sentences

LAWS = settings(max_examples=60, deadline=None)
WORDS = st.lists(
    st.sampled_from(["no", "Blood", "e.g.", "gore.", "Is", "it?", "3", "中文。是", "«x»", "!"]), min_size=1
)


def count_words(text: str) -> int:
    return len(text.split())


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("No gore. No blood! Why? Because.", ["No gore.", "No blood!", "Why?", "Because."]),
        ("Avoid drugs, e.g. Ketamine, i.e. No pills.", ["Avoid drugs, e.g. Ketamine, i.e. No pills."]),
        ("Ask Dr. Brown vs. Mr. Grey. Then stop.", ["Ask Dr. Brown vs. Mr. Grey.", "Then stop."]),
        ("1. No weapons. 2 guns are 2 too many.", ["1. No weapons.", "2 guns are 2 too many."]),
        ("Rates of 3.5 percent. at most", ["Rates of 3.5 percent. at most"]),
        ('He said "stop." Then he left.', ['He said "stop."', "Then he left."]),
        ("禁止暴力。允许新闻！好的", ["禁止暴力。", "允许新闻！", "好的"]),
        ("  spaces \n\n and\tlines ", ["spaces and lines"]),
        ("", []),
    ],
)
def test_sentences(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences


@LAWS
@given(st.text())
def test_sentences_are_the_text_again(text: str) -> None:
    sentences = split_sentences(text)
    assert "".join("".join(sentences).split()) == "".join(text.split())
    assert all(sentence and sentence == sentence.strip() for sentence in sentences)


def test_a_clause_that_fits_is_left_alone() -> None:
    clause = Clause(category="Gore", guideline="No blood. No wounds.")
    assert split_guideline(clause, max_tokens=5, count_tokens=count_words) == [clause]


def test_cuts_fall_between_sentences_then_words_then_letters() -> None:
    clause = Clause(category="Gore", guideline="No blood. No wounds or cuts or scars. Ok.")
    by_sentence = split_guideline(clause, max_tokens=7, count_tokens=count_words)
    assert [part.guideline for part in by_sentence] == ["No blood.", "No wounds or cuts or scars.", "Ok."]
    by_word = split_guideline(clause, max_tokens=4, count_tokens=count_words)
    assert [part.guideline for part in by_word] == ["No blood.", "No wounds or", "cuts or scars.", "Ok."]
    unspaced = Clause(category="血", guideline="不许" * 50)
    by_letter = split_guideline(unspaced, max_tokens=20, count_tokens=len)
    assert len(by_letter) >= 6
    assert "".join(part.guideline for part in by_letter) == "不许" * 50


@LAWS
@given(words=WORDS, max_tokens=st.integers(4, 12))
def test_splitting_loses_nothing_and_every_part_fits(words: list[str], max_tokens: int) -> None:
    clause = Clause(category="Two words", guideline=" ".join(words))
    parts = split_guideline(clause, max_tokens=max_tokens, count_tokens=count_words)
    told = "".join("".join(part.guideline for part in parts).split())
    assert told == "".join(clause.guideline.split())
    assert {part.category for part in parts} == {"Two words"}
    assert max(count_words(part.text) for part in parts) <= max_tokens


def test_a_category_that_leaves_no_room_is_an_error() -> None:
    clause = Clause(category="A very long category", guideline="No blood.")
    with pytest.raises(ConfigurationError, match=r"'A very long category' has 4 tokens .* may have 4; shorten"):
        split_guideline(clause, max_tokens=4, count_tokens=count_words)
