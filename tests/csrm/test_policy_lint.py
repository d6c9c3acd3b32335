"""What a policy's author will hardly have meant is found; what he meant is left alone."""

import numpy as np
import pytest

import csrm
from csrm import Clause, Configuration
from csrm.phrasing.permissions import permission
from csrm.policies.lint import is_permission, lint, read_files
from jobs.demo import SAMPLE_CONFIGURATIONS

RULE = Clause(category="insults", guideline="Do not insult the customer.")
PERMISSION = Clause(category="slang", guideline="Slang is allowed.")


RULES = [
    ("insults", "Do not insult the customer."),
    ("weapons", "Content must not promote the sale of weapons."),
    ("privacy", "Users must never share another person's address."),
    ("gifts", "Employees must report every gift to their manager."),
    ("medical advice", "Avoid giving a diagnosis."),
]


def words(text):
    return len(text.split())


def messages(*clauses, vectors=None, max_tokens=50):
    configuration = Configuration(id="x", clauses=clauses)
    return [(finding.level, finding.message) for finding in lint([configuration], max_tokens, words, vectors)]


def test_a_good_policy_has_no_findings():
    assert messages(RULE, PERMISSION) == []


def test_a_policy_that_forbids_nothing():
    [(level, message)] = messages(PERMISSION)
    assert level == "warning"
    assert message.startswith("forbids nothing")


def test_a_clause_that_is_too_long_is_told_with_what_becomes_of_it():
    long = Clause(category="x", guideline="Never do this thing here. " * 20)
    [(_, message)] = messages(long)
    assert "clause 1 (x) has 101 tokens, the model reads 50 at once" in message
    assert "as 3 clauses" in message


def test_a_clause_twice():
    [(_, message)] = messages(RULE, Clause(category="other", guideline="DO NOT insult the customer."))
    assert message.startswith("clause 2 repeats")


@pytest.mark.parametrize(("cosine", "found"), [(0.99, 1), (0.9, 0)])
def test_a_clause_in_other_words(cosine, found):
    other = Clause(category="abuse", guideline="Never abuse a customer.")
    vectors = np.array([[1, 0], [cosine, np.sqrt(1 - cosine**2)]], np.float32)
    assert len(messages(RULE, other, vectors=lambda clauses: vectors)) == found


def test_what_allows_and_what_forbids_the_same_are_not_one_clause():
    other = Clause(category="insults", guideline="Insults are allowed.")
    assert messages(RULE, other, vectors=lambda clauses: np.ones((2, 1), np.float32)) == []


@pytest.mark.parametrize(
    ("guideline", "allows"),
    [
        ("You may post pictures of weapons.", True),
        ("Users may not post pictures of weapons.", False),
        ("Workers may bring pets only after asking.", False),
        ("Posts about wine are welcome", True),
        ("Never say that insults are allowed.", False),
        ("This rule does not apply here: never insult anyone.", True),
        ("Do not promote gambling.", False),
    ],
)
def test_permissions_are_known_by_their_words(guideline, allows):
    assert is_permission(Clause(category="", guideline=guideline)) == allows


def test_permissions_of_the_augmentation_are_known_and_rules_are_not_taken_for_them():
    """Measured on 831 rules of organisations: 99 % of their permissions, .4 % of the rules."""
    rng = np.random.default_rng(0)
    rules = [Clause(category=category, guideline=guideline) for category, guideline in RULES]
    assert np.mean([is_permission(permission(rule, rng)) for rule in rules for _ in range(5)]) > 0.95
    assert not any(is_permission(rule) for rule in rules)


def test_bundled_policies_are_clean():
    loaded, findings = read_files(sorted(SAMPLE_CONFIGURATIONS.iterdir()))
    assert not findings
    encoder = csrm.Encoder.from_pretrained()
    assert lint(loaded, encoder.limits.max_clause_tokens, encoder.count_clause_tokens) == []


def test_a_file_that_cannot_be_read_hides_no_other(tmp_path):
    (tmp_path / "a.yaml").write_text("clauses: 3")
    (tmp_path / "b.yaml").write_text("id: bank\nclauses: [never insult]")
    (tmp_path / "c.yaml").write_text("id: bank\nclauses: [never steal]")
    (tmp_path / "d.yaml").write_text("id: bank\nclauses: [never insult]")
    loaded, findings = read_files(sorted(tmp_path.iterdir()))
    assert len(loaded) == 3
    assert [finding.level for finding in findings] == ["error"] * 3
    assert "must be a list" in findings[0].message
    assert "which has other rules" in findings[1].message
    assert "which has the same rules" in findings[2].message
