"""Rules in other words: still English, still the same rule. Polarity is checked by a reader of its own."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from csrm import Clause
from csrm.phrasing.grammar import parse
from csrm.phrasing.headings import names_harm, restyle_heading, topic
from csrm.phrasing.inflection import gerund, third_person
from csrm.phrasing.permissions import permission
from csrm.phrasing.wording import mixed, mixed_permission, prohibitions, restyle

# Written for this test in the ways that policies are written; none of them forbids and allows at once.
PROHIBITIONS = [
    ("Doxxing", "Do not post or share home addresses of other players."),
    ("Hate Speech", "Never praise, justify, or celebrate attacks on a minority."),
    ("Malware", "Don't upload files that steal passwords or mine coins."),
    ("Harassment & Bullying", "Content must not mock or demean survivors of abuse."),
    ("Fraud (scams)", "Messages must not contain links that hide where they lead."),
    ("Insider Trading", "Employees must not tip others while they hold non-public figures."),
    ("Weapons", "Selling, renting, or lending firearms on the premises is prohibited."),
    ("Noise", "Loud music after ten is strictly forbidden."),
    ("Drones", "Drones over the stadium are not allowed."),
    ("Plagiarism", "No copying from classmates, even with their consent."),
    ("Data Protection", "Avoid storing customer data on private devices."),
    ("Gifts", "Refrain from accepting gifts worth more than 50 euros."),
    ("Nudity", "We do not allow nude images of any kind."),
    ("Spam", "Do not post the same advert twice; the second one will be removed."),
    ("Medical Advice", "The response must not name a dose. It applies to pets as well."),
    ("Child Safety", "Do not ask children for photographs unless a parent has agreed."),
    ("Threats", "Do not threaten, or encourage others to threaten, anyone."),
    ("", "Users may not open a second account to get round a ban."),
    ("Records", "Reports must not be altered after they were signed."),
]
DUTIES = [
    ("Identity", "Users must verify their age before they enter the casino section."),
    ("Honesty", "Students must cite every source, including software."),
    ("Labels", "Each advert must carry the word “advert”."),
    ("Safety Training", "Complete the fire drill once a year."),
    ("Reporting", "Promptly report lost badges to the front desk."),
    ("Consent", "Obtain written consent before filming in the office."),
    ("Manners", "Follow the house rules and the law."),
]
OTHERS = [
    ("Enforcement", "Severe abuse can lead to a ban."),
    ("Two things", "Players must greet the referee and must not shout at him."),
    ("Context", "If a slur is quoted, you must mark it as a quotation."),
    ("Both", "We allow fights and blood, never severed limbs."),
    ("Exclusion", "Prohibit bots from replacing human moderators."),
]


def clauses(pairs):
    return [Clause(category=category, guideline=guideline) for category, guideline in pairs]


def says(clause):
    """Which of forbids, demands and allows a guideline says, read off by key words alone.

    Words that allow count only where nothing negates them; what is negated forbids.
    """
    text = re.sub(r"“[^”]*”|\([^()]*\)", "", clause.guideline.lower())
    said = set()
    nobody = r"(?:no one|nobody|no \w+) (?:may|is allowed to|can)\b"
    not_duty = r"(?:need not|not necessary|no need|no duty|do not require|nobody has to|do not ask anyone)"
    no_rule = r"(?:does|do) not apply"
    denied = r"(?:do(?:es)? not|must not|may not|must never|shall not|cannot|are not|is not|not) (?:be )?"
    lifted = r"(?:breaking (?:it|the)|has been lifted|do not restrict|no restriction)"
    for kind, pattern in [
        ("allows", not_duty),
        ("allows", lifted),
        ("allows", no_rule),
        ("forbids", nobody),
        ("forbids", denied + r"(?:allow|permit|accept|tolerat)\w*"),
        ("forbids", r"\b(?:do not|don't|don’t|never|must not|may not|must never|no(?= \w+)|avoid|refrain)\b"),
        ("forbids", r"\b(?:prohibit|forbid|forbidden|prohibited|against our rules|breaks our rules)\w*"),
        ("allows", r"\b(?:may|can|allowed|allow|permitted|permit|permits|fine|acceptable|free to|welcome)\b"),
        ("demands", r"\b(?:must|shall|mandatory|required|require|make sure)\b"),
    ]:
        text, found = re.subn(pattern, " ", text)
        if found:
            said.add(kind)
    return said


def draws(make, number=60):
    rng = np.random.default_rng(0)
    return [make(rng) for _ in range(number)]


@pytest.mark.parametrize("clause", clauses(PROHIBITIONS), ids=lambda clause: clause.category)
def test_a_prohibition_in_other_words_forbids_and_allows_nothing(clause):
    texts = draws(lambda rng: restyle(clause, rng))
    assert {frozenset(says(text)) for text in texts} == {frozenset({"forbids"})}
    assert len({text.guideline for text in texts}) >= 10


@pytest.mark.parametrize("clause", clauses(DUTIES), ids=lambda clause: clause.category)
def test_an_obligation_in_other_words_demands_and_forbids_nothing(clause):
    texts = draws(lambda rng: restyle(clause, rng))
    assert all(says(text) <= {"demands"} for text in texts)
    assert any(says(text) for text in texts)
    assert len({text.guideline for text in texts}) >= 10


@pytest.mark.parametrize("clause", clauses(PROHIBITIONS + DUTIES), ids=lambda clause: clause.category)
def test_a_permission_allows_and_forbids_nothing(clause):
    for text in draws(lambda rng: permission(clause, rng)):
        guideline = text.guideline.replace(clause.guideline.rstrip("."), "")  # "This rule does not apply here: …"
        assert says(Clause(category="", guideline=guideline)) == {"allows"}, text


@pytest.mark.parametrize("clause", clauses(OTHERS), ids=lambda clause: clause.category)
def test_what_is_not_understood_keeps_its_own_sentence(clause):
    assert parse(clause.guideline).kind == "other"
    assert all(clause.guideline.rstrip(".") in text.guideline for text in draws(lambda rng: restyle(clause, rng)))


def test_mixed_clauses_forbid_one_thing_and_allow_the_other():
    clause, other = clauses(PROHIBITIONS)[:2]
    for text in draws(lambda rng: mixed(clause, other, rng)):
        assert says(text) == {"forbids", "allows"}
        assert "home addresses" in text.guideline
        assert re.search("hate speech|a minority", text.guideline)
        assert _side("home addresses", text) == {"forbids"}


def _side(words, clause):
    """What the half of a mixed clause says that holds these words."""
    halves = [half for half in re.split(r"[.;] ", clause.guideline) if words in half]
    return set().union(*(says(Clause(category="", guideline=half)) for half in halves))


def test_mixed_permissions_allow_the_clause_and_forbid_the_other():
    clause, other = clauses(PROHIBITIONS)[:2]
    for text in draws(lambda rng: mixed_permission(clause, other, rng)):
        assert _side("home addresses", text) == {"allows"}
        assert _side("a minority", text) == {"forbids"}


@given(
    st.sampled_from(clauses(PROHIBITIONS + DUTIES + OTHERS)),
    st.sampled_from(clauses(PROHIBITIONS)),
    st.integers(0, 2**32 - 1),
)
def test_the_same_seed_writes_the_same_text(clause, other, seed):
    for write in (restyle, permission):
        first, again = (write(clause, np.random.default_rng(seed)) for _ in range(2))
        assert first == again
    for join in (mixed, mixed_permission):
        first, again = (join(clause, other, np.random.default_rng(seed)) for _ in range(2))
        assert first == again


_WORDS = st.sampled_from(
    [
        "post",
        "share",
        "sell",
        "knives",
        "children",
        "or",
        "and",
        ",",
        "to",
        "without",
        "consent",
        "the",
        "a",
        "not",
        ":",
        ";",
        ".",
        "(",
        "”",
        "ß",
        "日本",
        "AI",
    ]
)


@given(
    st.sampled_from(["Do not ", "Content must not ", "No ", "Users must ", "Avoid ", "", "Never "]),
    st.lists(_WORDS, min_size=1, max_size=12).map(" ".join),
    st.text(max_size=20),
    st.integers(0, 999),
)
def test_any_text_can_be_restyled(head, body, category, seed):
    """Whatever people write comes out as a clause, single-spaced, with the words of the rule in it."""
    clause = Clause(category=category, guideline=head + body)
    rng = np.random.default_rng(seed)
    for text in (restyle(clause, rng, terse=False), permission(clause, rng), mixed(clause, clause, rng)):
        assert text.guideline == " ".join(text.guideline.split())
        assert not {"None", "{", "}"} & set(text.guideline.split())


def test_terse_wordings_can_be_left_out():
    clause = Clause(category="Hate Speech & Slurs", guideline="Do not use slurs in titles.")
    assert any("No hate speech or slurs" in text.guideline for text in draws(lambda rng: restyle(clause, rng)))
    texts = draws(lambda rng: restyle(clause, rng, terse=False), 300)
    assert all("titles" in text.guideline for text in texts)


@pytest.mark.parametrize("category", ["Academic Integrity", "Child Safety", "Data Privacy", "Anti-Bribery", ""])
def test_a_category_that_names_what_is_guarded_is_never_forbidden(category):
    assert not names_harm(category)
    clause = Clause(category=category, guideline="Do not copy homework.")
    assert all("homework" in text.guideline for text in draws(lambda rng: restyle(clause, rng), 300))


def test_headings_come_in_every_style():
    clause = Clause(category="Hate Speech & Slurs", guideline="No slurs.")
    found = {restyle_heading(clause, rng).category for rng in map(np.random.default_rng, range(300))}
    found = {re.sub(r"^\d+", "N", heading) for heading in found}
    assert found == {
        *("Hate Speech & Slurs", "HATE SPEECH & SLURS", "hate_speech_slurs", "Hate speech and slurs"),
        *("hate speech & slurs", "Hate Speech & Slurs:", "N. Hate Speech & Slurs", ""),
    }


@pytest.mark.parametrize(
    ("category", "expected"),
    [
        ("Drugs & Weapons (illegal)", "drugs and weapons"),
        ("Suicide, Self-Injury & AI Abuse", "suicide, self-injury and AI abuse"),
        ("3. hate_speech:", "hate speech"),
        ("", ""),
    ],
)
def test_topics_stand_within_sentences(category, expected):
    assert topic(category) == expected


@pytest.mark.parametrize(
    ("phrase", "doing", "does"),
    [
        ("share pictures", "sharing pictures", "shares pictures"),
        ("post, share or sell drugs", "posting, sharing or selling drugs", "posts, shares or sells drugs"),
        ("falsely deny or lie about it", "falsely denying or lying about it", "falsely denies or lies about it"),
        ("engage in, or submit to, it", None, None),
        ("submit forged papers", "submitting forged papers", "submits forged papers"),
        ("target minors", "targeting minors", "targets minors"),
        ("disclose passwords or embed them", None, None),
        ("post links or share files", None, None),
        ("smoke or frobnicate indoors", None, None),
        ("frobnicate", None, None),
        ("be included in mail", None, None),
    ],
)
def test_lists_of_verbs_change_as_one_or_not_at_all(phrase, doing, does):
    assert gerund(phrase) == doing
    assert third_person(phrase) == does


@pytest.mark.parametrize(
    ("guideline", "kind", "subject", "body", "tail"),
    [
        ("Do not post links.", "act", "", "post links", ""),
        ("Don’t post links", "act", "", "post links", ""),
        ("Content must not praise it.", "act", "Content", "praise it", ""),
        ("Files (e.g., apps. or zips) must not be sent.", "act", "Files (e.g., apps. or zips)", "be sent", ""),
        ("Do not spam; it gets you banned.", "act", "", "spam", "it gets you banned."),
        ("Selling AI art is prohibited.", "thing", "", "selling AI art", ""),
        ("AI art is prohibited.", "thing", "", "AI art", ""),
        ("No pets.", "thing", "", "pets", ""),
        ("Cite your sources.", "duty", "", "cite your sources", ""),
        ("Guests must be accompanied.", "duty", "Guests", "be accompanied", ""),
        ("No cruelty to animals, and no praise for it.", "other", "", None, ""),
        ("Do not post links and never sell them.", "other", "", None, ""),
        ("Pets are allowed.", "other", "", None, ""),
        ("Do not allow bots to post.", "other", "", None, ""),
        ("No one may post links.", "other", "", None, ""),
        ("We do not allow users to post links.", "other", "", None, ""),
        ("Prohibit bots from posting links.", "other", "", None, ""),
        ("We do not allow links to shops.", "thing", "", "links to shops", ""),
    ],
)
def test_rules_are_taken_apart(guideline, kind, subject, body, tail):
    rule = parse(guideline)
    assert (rule.kind, rule.subject, rule.tail) == (kind, subject, tail)
    assert body is None or rule.body == body


def test_wordings_begin_with_the_rules_own():
    for clause in clauses(PROHIBITIONS + DUTIES + OTHERS):
        assert prohibitions(clause)[0] == clause.guideline
