"""Ladders: guidelines forbid the most severe sub-categories and allow the rest, in any wording."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from csrm.errors import ConfigurationError
from csrm.ladders import Ladder, guideline, insert, load_ladders, prohibition

LIBRARY = load_ladders()
TWO = Ladder("Pets", ("tigers", "cats"))
ONE = Ladder("Pets", ("tigers",))
SEEDS = range(400)


def guidelines(ladder, num_forbidden):
    return {guideline(ladder, num_forbidden, np.random.default_rng(seed)).guideline for seed in SEEDS}


def test_every_wording_forbids_the_most_severe_and_allows_the_rest():
    assert guidelines(TWO, 1) == {
        "We do not allow tigers. We allow cats.",
        "Do not post tigers. You may post cats.",
        "Forbidden: tigers. Allowed: cats.",
        "Acceptable: cats. Not acceptable: tigers.",
        "Messages may contain cats, but they must never contain tigers.",
        "This policy prohibits tigers. It leaves people free to share cats.",
        "Remove tigers. Leave up everything else under this heading, such as cats.",
        "People here do not want to see tigers. They are fine with cats.",
        "It is against the rules to share tigers; it is within the rules to share cats.",
        "With the exception of cats, nothing under this heading is permitted.",
        "With the exception of tigers, everything under this heading is permitted.",
    }


def test_d_0_allows_all():
    assert guidelines(ONE, 0) == {
        "We allow tigers.",
        "You may post tigers.",
        "Forbidden: nothing. Allowed: tigers.",
        "Acceptable: tigers. Not acceptable: nothing of this kind.",
        "Messages may contain tigers.",
        "This policy prohibits nothing under this heading. It leaves people free to share tigers.",
        "Leave up everything under this heading, such as tigers.",
        "People here are fine with tigers.",
        "It is within the rules to share tigers.",
        "Everything under this heading is permitted, including tigers.",
        "Everything under this heading is permitted, with no exceptions.",
    }


def test_d_k_forbids_all():
    assert guidelines(ONE, 1) == {
        "We do not allow tigers.",
        "Do not post tigers.",
        "Forbidden: tigers. Allowed: nothing.",
        "Acceptable: nothing of this kind. Not acceptable: tigers.",
        "Messages must never contain tigers.",
        "This policy prohibits tigers. It makes no exceptions.",
        "Remove everything under this heading, such as tigers.",
        "People here do not want to see tigers.",
        "It is against the rules to share tigers.",
        "Nothing under this heading is permitted, with no exceptions.",
        "Nothing under this heading is permitted, including tigers.",
    }


def test_what_is_always_forbidden_is_allowed_by_no_guideline():
    ladder = Ladder("Pets", ("tigers", "cats"), always_forbidden=("sharks",))
    assert "We do not allow sharks. We allow tigers and cats." in guidelines(ladder, 0)
    assert "We do not allow sharks, tigers, or cats." in guidelines(ladder, 2)
    for k in range(3):
        assert not any("allow tigers, cats, and sharks" in text for text in guidelines(ladder, k))
        assert not any("with no exceptions" in text and "Everything" in text for text in guidelines(ladder, k))


@given(st.integers(0, 2**32 - 1), st.sampled_from(LIBRARY), st.data())
def test_generators_in_the_same_state_write_in_the_same_style(seed, ladder, data):
    """Mixed guidelines of one seed differ in which phrases stand where, in nothing else."""
    inner = st.integers(1, len(ladder.subcategories) - 1)
    texts = [guideline(ladder, data.draw(inner), np.random.default_rng(seed)).guideline for _ in range(2)]
    frames = []
    for text in texts:
        for phrase in sorted((*ladder.subcategories, *ladder.always_forbidden), key=len, reverse=True):
            text = text.replace(phrase, "")
        frames.append([word for word in text.replace(",", " ").replace(";", " ").split() if word not in ("and", "or")])
    assert frames[0] == frames[1]


def test_joined_phrases_stay_apart():
    ladder = Ladder("Pets", ("big or wild cats", "dogs", "fish", "birds"))
    texts = guidelines(ladder, 2)
    assert {"We do not allow big or wild cats, or dogs. We allow fish and birds."} & texts
    assert {"We do not allow dogs, or big or wild cats. We allow birds and fish."} & texts


def test_a_prohibition_names_one_subcategory():
    texts = {prohibition(TWO, "cats", np.random.default_rng(seed)).guideline for seed in SEEDS}
    assert len(texts) == 5
    assert all(text.endswith("cats.") and "tigers" not in text for text in texts)


def test_guidelines_end_at_both_ends():
    for k in (-1, 3):
        with pytest.raises(ValueError, match="d_0 to d_2"):
            guideline(TWO, k, np.random.default_rng(0))


def test_the_library_has_twelve_ladders_of_five_to_eight_phrases():
    assert len(LIBRARY) == 12
    for ladder in LIBRARY:
        assert 5 <= len(ladder.subcategories) <= 8
        assert ladder.aliases
        assert all(phrase == phrase.strip() and len(phrase.split()) <= 12 for phrase in ladder.subcategories)


@pytest.mark.parametrize(
    ("category", "ladders"),
    [
        ("Violent Threats & Graphic Violence", {"Violence"}),
        ("Suicide, Self-Injury & Eating Disorders", {"Self-harm"}),
        ("hate_speech,offensive_language", {"Hate", "Harassment"}),
        ("Hate Speech & Protected-Class Harassment", {"Hate", "Harassment"}),
        ("Harassment & Cyber-bullying", {"Harassment"}),
        ("Drugs, Weapons & Other Regulated Goods", {"Drugs and weapons"}),
        ("Fraud, Phishing & Malware", {"Crime and fraud"}),
        ("Privacy & Personal Data", {"Privacy"}),
        ("Unauthorized Expertise", {"Medical, legal and financial advice"}),
        ("Health Misinformation", {"Misinformation"}),
        ("Child Sexual Exploitation (CSE)", {"Child safety"}),
        ("Violent Extremism & Terrorism", {"Extremism"}),
        ("Adult Sexual Content & Nudity", {"Sexual content"}),
        ("Medical, legal and financial advice", {"Medical, legal and financial advice"}),
        ("Academic Integrity", set()),
        ("Whatever; chateaux", set()),
        ("", set()),
    ],
)
def test_matching_by_whole_words(category, ladders):
    assert {ladder.category for ladder in LIBRARY if ladder.matches(category)} == ladders


def test_insert_keeps_the_order():
    assert insert(TWO, "dogs", 1).subcategories == ("tigers", "dogs", "cats")
    assert insert(TWO, "dogs", 2).subcategories == ("tigers", "cats", "dogs")
    with pytest.raises(ConfigurationError, match="appears twice"):
        insert(TWO, "cats", 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no ladders"),
        ("- a", "each document must have category"),
        ("subcategories: [a]", "lacks its category"),
        ("category: A", "at least one sub-category"),
        ("category: A\nsubcategories: [a, a]", "appears twice"),
        ("category: A\nsubcategories: ['a, b']", "without punctuation"),
        ("category: A\nsubcategories: [1]", "list of texts"),
        ("category: A\nsubcategories: a", "list of texts"),
        ("category: A\nsubcategories: [a]\naliases: ['-']", "alias is empty"),
        ("category: A\nrungs: [a]", "unknown key 'rungs'"),
        ("category: A\nsubcategories: [a]\n---\ncategory: A\nsubcategories: [b]", "two ladders"),
        ("category: [", "not valid YAML"),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path, text, message):
    path = tmp_path / "my.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=message) as caught:
        load_ladders(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"none\.yaml"):
        load_ladders(tmp_path / "none.yaml")
