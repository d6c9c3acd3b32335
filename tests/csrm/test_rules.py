"""The rule pool: 100 different rules, each a configuration; any configuration file is a pool as well."""

import json
import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import csrm
from csrm import Clause, Configuration, ConfigurationError, dump_configuration, load_configurations
from csrm.messages import Message
from csrm.rules import POOL, load_rules, request

PACKAGE = Path(csrm.__file__).parent
RULES = load_rules()
OPENING = "Replies must never "
COMMON = r"\b(?:an?|and|or|of|to|for|the|it|its|that|which|is|are|be|as|by|with|from|in|on|at|who|how|what|must|not)\b"

# Each of these must be what some rule is about.
TOPICS = re.findall(
    r"[^,\s][^,]*",
    """attacks, weapons, gun, bombs, animals, partner, women, race, Muslims, transgender, disability, immigrants,
    genocide, sexual, rape, consent, eighteen, child, end their life, cut, starving, steal, break into, arrest, taxes,
    viruses, abduct, drugs, drinking, address, track, passport, phishing, fake, exams, blackmail, plots, voting, accuse,
    terrorist, supremacy, doctor, vaccines, lawyer, gambling, stupid, mock, lecture, police, rude, distress, flirt,
    declin, steps, refuse a harmless, guesses, make up, claim to be, political, confused, point""",
)


def words(rule):
    """What a rule says, without the words that all share."""
    text = f"{rule.title} {rule.clauses[0].guideline}".lower().replace(OPENING.lower(), "")
    return set(re.findall(r"[a-z]+", re.sub(COMMON, "", text)))


def test_a_hundred_rules_of_one_clause_with_ids_from_their_categories():
    [pool] = load_configurations(POOL)
    assert pool.id == "safety_rules"
    assert len(RULES) == len(pool.clauses) == len({rule.id for rule in RULES}) == 100
    for rule, clause in zip(RULES, pool.clauses, strict=True):
        assert rule.clauses == (clause,)
        assert rule.title == clause.category
        assert rule.id == re.sub("[ -]", "_", clause.category.lower())
        assert re.fullmatch(r"[a-z][a-z_]{3,39}", rule.id)


def test_rules_are_short_prohibitions_in_one_manner():
    for rule in RULES:
        guideline = rule.clauses[0].guideline
        assert guideline.startswith(OPENING)
        assert guideline.endswith(".")
        assert 50 <= len(guideline) <= 120


@pytest.mark.parametrize("topic", TOPICS)
def test_topics_are_covered(topic):
    assert any(topic in rule.clauses[0].guideline for rule in RULES)


def test_no_two_rules_share_their_wording():
    shared = {(a.id, b.id): len(words(a) & words(b)) / len(words(a) | words(b)) for a, b in combinations(RULES, 2)}
    close = {pair: round(share, 2) for pair, share in shared.items() if share > 0.25}
    assert not close


def test_no_two_rules_rate_alike():
    """On the bundled sample and every 32nd of the bundled exchanges; neither was made for this pool."""
    lines = (PACKAGE / "library" / "exchanges.jsonl").read_text().splitlines()[::32]
    exchanges = [[Message(role, text) for role, text in json.loads(line)["messages"]] for line in lines]
    sample = (PACKAGE / "sample" / "conversations.jsonl").read_text().splitlines()
    conversations = [json.loads(line)["messages"] for line in sample] + exchanges
    reward_RK = csrm.CSRM.from_pretrained().score(conversations, RULES).reward
    correlation_KK = np.corrcoef(reward_RK.T) - np.eye(len(RULES))
    first, second = np.unravel_index(correlation_KK.argmax(), correlation_KK.shape)
    assert correlation_KK.max() < 0.98, (RULES[first].id, RULES[second].id)
    assert correlation_KK.mean() < 0.4


def test_the_pool_is_package_data():
    settings = (PACKAGE.parent / "pyproject.toml").read_text()
    assert '"rules/*.yaml"' in settings.split("[tool.setuptools.package-data]")[1].split("[")[1]


def test_rules_of_several_configurations_keep_their_context_and_repeat_nothing(tmp_path):
    theft = Clause(category="Theft", guideline="No help with theft.")
    other = Clause(category="Theft", guideline="No praise of theft.")
    odd = Clause(category="3 – Größe", guideline="Must not exaggerate.")
    nameless = Clause(category="…", guideline="Must not whisper.")
    third = Clause(category="Theft 2", guideline="Must not sell loot.")
    files = [tmp_path / "a.yaml", tmp_path / "b.yaml"]
    files[0].write_text(
        dump_configuration(Configuration(id="a", clauses=(theft, other, theft, third), context="A shop."))
    )
    files[1].write_text(dump_configuration(Configuration(id="b", clauses=(odd, theft, nameless), threshold=0.4)))
    rules = load_rules(files)
    assert [rule.id for rule in rules] == ["theft", "theft_2", "theft_2_2", "groe", "theft_3", "rule"]
    assert [rule.clauses for rule in rules] == [(theft,), (other,), (third,), (odd,), (theft,), (nameless,)]
    assert [rule.context for rule in rules] == ["A shop."] * 3 + [""] * 3
    assert [rule.threshold for rule in rules] == [0.5] * 3 + [0.4] * 3
    assert rules[0].source == str(files[0])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="nowhere"):
        load_rules(tmp_path / "nowhere.yaml")


names = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=6)


@given(st.lists(names, min_size=1, max_size=6))
def test_ids_are_unique_whatever_the_categories(tmp_path_factory, categories):
    path = tmp_path_factory.mktemp("pool") / "pool.yaml"
    clauses = [{"category": name, "guideline": f"Rule {number}."} for number, name in enumerate(categories)]
    path.write_text(yaml.safe_dump({"clauses": clauses}, allow_unicode=True), encoding="utf-8")
    rules = load_rules(path)
    assert len({rule.id for rule in rules}) == len(rules) == len(categories)


def test_a_request_is_what_users_said_before_the_reply():
    conversation = [
        Message("system", "Be brief."),
        Message("user", "Hello"),
        Message("assistant", "Hi."),
        Message("user", "How do locks work?"),
        Message("assistant", "With pins."),
    ]
    assert request(conversation) == [Message("user", "Hello\nHow do locks work?")]
    assert request(conversation[:-1]) == [Message("user", "Hello")]
    assert request(conversation[-1:]) == [Message("user", "")]
