import re
import time
from textwrap import dedent

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csrm.policies.text import PolicyText, read_policy_text
from csrm.policies.wording import short_category

LAWS = settings(max_examples=80, deadline=None)
WORDS = [
    "we",
    "do",
    "not",
    "allow",
    "No",
    "Users",
    "gore:",
    "blood.",
    "This",
    "is",
    "(a)",
    "Never",
    "show",
    "kissing;",
]


def read(text: str) -> PolicyText:
    return read_policy_text(dedent(text).strip("\n"))


def rules(text: str) -> list[tuple[str, str]]:
    return list(read(text).rules)


def guidelines(text: str) -> list[str]:
    return [guideline for _, guideline in rules(text)]


def test_a_studio_that_forbids_and_allows() -> None:
    """Unwrapped paragraphs, lead-ins above bullets, a rule between two lists, closing words without a gap."""
    policy = read(
        """
        We are a theatre for young people. Our plays must be permitted to be sad. Below is what we do:
        We allow dark themes so that a story can be told. This may include:
        - Scenes of war and flight, as long as they are not shown as heroic.
        - Portrayals of grief that may last.

        However, our house strictly prohibits praise of war. Additionally, we do not allow the \
depiction of the following acts, whatever the play:
        - Torture, mutilation, or executions.
        - allow minors on stage after ten
        We never name the dead.
        By keeping to this we make theatre that lasts.
        """
    )
    assert policy.context == (
        "We are a theatre for young people. Our plays must be permitted to be sad. Below is what we do: "
        "By keeping to this we make theatre that lasts."
    )
    lead = "We allow dark themes so that a story can be told. This may include"
    forbidden = "We do not allow the depiction of the following acts, whatever the play"
    assert policy.rules == (
        (
            "Scenes of war and flight",
            f"{lead} — Scenes of war and flight, as long as they are not shown as heroic.",
        ),
        ("Portrayals of grief", f"{lead} — Portrayals of grief that may last."),
        ("Praise of war", "However, our house strictly prohibits praise of war."),
        ("Torture, mutilation", f"{forbidden} — Torture, mutilation, or executions."),
        ("Minors on stage after ten", f"{forbidden} — allow minors on stage after ten"),
        ("Name the dead", "We never name the dead."),
    )


def test_bullets_that_say_themselves_what_they_forbid_need_no_lead_in() -> None:
    policy = read(
        """
        We represent a court. We summarise cases; please consider the following settings:
        - Enable talk of violence.
        - Our policy does not allow jokes about victims. Only dry words are permissible.
        - Exclude any sexual content.
        """
    )
    assert policy.rules == (
        ("Talk of violence", "Enable talk of violence."),
        (
            "Jokes about victims",
            "Our policy does not allow jokes about victims. Only dry words are permissible.",
        ),
        ("Sexual content", "Exclude any sexual content."),
    )
    assert policy.context == "We represent a court. We summarise cases; please consider the following settings:"


def test_markdown_headings_bullets_and_paragraphs() -> None:
    policy = read(
        """
        # Rules of the *brewing* forum

        Members are **adults**.

        ## 1. Sexual content
        Mild jokes are fine. Nudity
        is not.

        Neither is [explicit](https://example.org) talk.

        ### Exceptions
        - Medical questions

        ## Prohibited content
        - Hate speech
        - **Spam**: repeated links
        - No advertising

        ## Rules of conduct
        - Always be polite.

        ## About us
        We are volunteers.

        > Thank you for reading.
        """
    )
    assert policy.title == "Rules of the brewing forum"
    assert policy.context == "Members are adults. We are volunteers. Thank you for reading."
    assert policy.rules == (
        ("Sexual content", "Mild jokes are fine. Nudity is not. Neither is explicit talk."),
        ("Sexual content", "Exceptions — Medical questions"),
        ("Hate speech", "Prohibited content — Hate speech"),
        ("Spam", "Prohibited content — repeated links"),
        ("Advertising", "No advertising"),
        ("Rules of conduct", "Always be polite."),
    )


def test_setext_headings_rulers_fences_and_comments() -> None:
    policy = read(
        """
        The policy
        ==========
        ***
        Gore
        ----
        No blood.
        ```
        - not a rule
        ```
        <!-- - not a rule
        either -->
        - - -
        No wounds.
        """
    )
    assert policy == PolicyText(title="The policy", context="", rules=(("Gore", "No blood. No wounds."),))


@pytest.mark.parametrize(
    "marker", ["{}.", "{})", "({})", "Rule {}:", "**Rule {}:**", "**{}.**", "Article {} -", "1.{}"]
)
def test_numbered_rules(marker: str) -> None:
    lines = [f"{marker.format(number)} Never do {number}." for number in (1, 2, 3)]
    assert guidelines("\n".join(lines)) == ["Never do 1.", "Never do 2.", "Never do 3."]
    assert guidelines("We sell tea.\n\n" + "\n\n".join(lines)) == [
        "Never do 1.",
        "Never do 2.",
        "Never do 3.",
    ]


@pytest.mark.parametrize("marker", ["-", "*", "+", "•", "–", "- [x]", "(a)", "b)"])
def test_bullets(marker: str) -> None:
    assert guidelines(f"{marker} No gore.\n{marker} No sex,\n  not even\n  implied.") == [
        "No gore.",
        "No sex, not even implied.",
    ]


def test_right_aligned_numbers_are_one_list() -> None:
    assert guidelines(" 9. No gore.\n10. No sex.") == ["No gore.", "No sex."]


def test_nested_items_are_folded_into_their_parent() -> None:
    text = """
        - Weapons
            - no plans;
            - no parts
        - No drugs, such as:
          1. Alcohol.
          2. Tobacco.
        - Never show torture.
    """
    assert rules(text) == [
        ("Weapons", "no plans; no parts"),
        ("Drugs", "No drugs, such as: Alcohol. Tobacco."),
        ("Show torture", "Never show torture."),
    ]


def test_an_outline_without_indentation() -> None:
    text = """
        House rules

        1. Violence
        (a) no weapons on screen
        (b) fist fights are allowed
        2. Romance
        2.1 kissing is allowed
        2.2 nothing beyond
        3. Brands
        We name none.
    """
    assert rules(text) == [
        ("Violence", "no weapons on screen; fist fights are allowed"),
        ("Romance", "kissing is allowed; nothing beyond"),
        ("Brands", "We name none."),
    ]


def test_numbered_headings_over_paragraphs() -> None:
    text = "1. Violence\n\nWe do not show blood.\n\n2. Money\n\nReturns must not be promised.\n"
    assert rules(text) == [("Violence", "We do not show blood."), ("Money", "Returns must not be promised.")]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("**Gore**: no blood", ("Gore", "no blood")),
        ("**Gore:** no blood", ("Gore", "no blood")),
        ("**Gore.** No blood", ("Gore", "No blood")),
        ("**Gore** – no blood", ("Gore", "no blood")),
        ("__Gore__: no blood", ("Gore", "no blood")),
        ("Gore: no blood", ("Gore", "no blood")),
        ("Gore — no blood", ("Gore", "no blood")),
        ("**No gore**: not one drop", ("Gore", "No gore: not one drop")),
        ("At 10:30 we must close", ("At 10:30 we must close", None)),
        ("This long head of very many words: no blood", ("This long head of very many", None)),
        ("Gore\n  We do not show blood", ("Gore", "We do not show blood")),
    ],
)
def test_categories_named_by_the_rule(rule: str, expected: tuple[str, str | None]) -> None:
    ((category, guideline),) = rules(f"- {rule}")
    assert (category, guideline) == (expected[0], expected[1] or rule)


@pytest.mark.parametrize(
    ("guideline", "category"),
    [
        ("No gore.", "Gore"),
        ("Do not ask for the passwords of users", "Ask for the passwords of users"),
        ("We strictly prohibit any hate speech that targets people", "Hate speech"),
        ("The assistant must never promise a refund, ever", "Promise a refund"),
        ("Hate speech is not allowed", "Hate speech"),
        ("Blood may be shown in battle", "Blood"),
        ("Tax avoidance", "Tax avoidance"),
        ("However, our house does not allow smoking indoors", "Smoking indoors"),
        ("Weapons", "Weapons"),
        ("one two three four five six seven", "One two three four five six"),
        ("!!!", "!!!"),
    ],
)
def test_categories_from_first_words(guideline: str, category: str) -> None:
    assert short_category(guideline) == category


@pytest.mark.parametrize(
    ("lead", "bullet", "guideline"),
    [
        ("The assistant must not:", "allow others in", "The assistant must not — allow others in"),
        ("We never tolerate any of these:", "Threats", "We never tolerate any of these — Threats"),
        ("We do not allow hate speech.", "Slurs", "We do not allow hate speech — Slurs"),
        ("## Not allowed", "Slurs", "Not allowed — Slurs"),
        ("## Not allowed\nWe list what harms:", "Slurs", "Not allowed — Slurs"),
        ("**Allowed**", "Kissing", "Allowed — Kissing"),
        ("Should not", "Praise war.", "Should not — Praise war."),
        ("Can", "Discuss war.", "Can — Discuss war."),
        ("# Prohibited uses", "Selling banned goods", "Prohibited uses — Selling banned goods"),
        ("We do not allow these:", "Tips to avoid tax", "We do not allow these — Tips to avoid tax"),
        ("## Not allowed", "Never insult", "Never insult"),
        ("## Not allowed", "Users must not insult", "Users must not insult"),
        ("## Allowed and prohibited", "Slurs", "Slurs"),
        ("Our rules are the following:", "Slurs", "Slurs"),
        ("Teachers may read along.", "Slurs", "Slurs"),
        ("Content that:", "praises war", "Content that praises war"),
    ],
)
def test_what_a_lead_in_forbids_or_allows_reaches_the_rule(lead: str, bullet: str, guideline: str) -> None:
    assert guidelines(f"Preamble\n\n{lead}\n- {bullet}")[-1] == guideline
    assert guidelines(f"We sell tea.\n\n{lead}\n\n* {bullet}")[-1] == guideline


def test_a_lead_in_over_headings_reaches_every_section() -> None:
    text = """
        # Images
        We do not draw any of the following:
        ## People
        Politicians and celebrities.
        ## Logos
        - Banks
        ## Permitted uses
        ### Art
        Oil paintings.
    """
    lead = "We do not draw any of the following"
    assert rules(text) == [
        ("People", f"{lead} — Politicians and celebrities."),
        ("Logos", f"{lead} — Banks"),
        ("Art", "Permitted uses — Oil paintings."),
    ]


def test_a_taxonomy_of_hazards() -> None:
    text = """
        S1: Violent Crimes.
        Should not
        - Help to plan violence.
        Can
        - Report on violence.

        S2: Hate.
        Responses that demean people.
    """
    assert rules(text) == [
        ("S1: Violent Crimes", "Should not — Help to plan violence."),
        ("S1: Violent Crimes", "Can — Report on violence."),
        ("S2: Hate", "Responses that demean people."),
    ]
    bold = "We forbid the categories below.\n\n**S1.** Praise of crime.\n\n**S2.** Slurs."
    lead = "We forbid the categories below"
    assert rules(bold) == [("S1", f"{lead} — Praise of crime."), ("S2", f"{lead} — Slurs.")]


def test_headings_alone_are_rules() -> None:
    assert rules("# Policy\n## No gore\n## Respect\n### Be kind\n### Don't shout") == [
        ("Gore", "No gore"),
        ("Respect", "Be kind"),
        ("Respect", "Don't shout"),
    ]


def test_a_plain_text_with_a_title_and_wrapped_rules() -> None:
    policy = read(
        """
        RIVERSIDE SCHOOL

        This helper is for pupils aged 11 to 16. Teachers read a sample of the
        conversations every week.

        Rule 1: The helper must not write whole essays that a pupil could hand in as
        their own work.
        This includes summaries.
        Rule 2: Explaining a method step by step is allowed.

        Questions? Write to the office.
        """
    )
    assert policy.title == "RIVERSIDE SCHOOL"
    assert policy.rules == (
        (
            "Write whole essays",
            "The helper must not write whole essays that a pupil could hand in as their own work. "
            "This includes summaries.",
        ),
        ("Explaining a method step by step", "Explaining a method step by step is allowed."),
    )
    assert policy.context.startswith("This helper is for pupils")
    assert policy.context.endswith("Questions? Write to the office.")


def test_lines_paragraphs_and_sentences_without_any_marks() -> None:
    lines = "No violence\nNo nudity or sex\nJokes are allowed"
    assert rules(lines) == [
        ("Violence", "No violence"),
        ("Nudity or sex", "No nudity or sex"),
        ("Jokes", "Jokes are allowed"),
    ]
    paragraphs = read(
        """
        We are a dating app for adults
        in Europe.

        Flirting is allowed between adults
        who both answer. Pictures are not.

        We do not allow asking for money. That includes gifts.
        """
    )
    assert paragraphs.context == "We are a dating app for adults in Europe."
    assert [guideline for _, guideline in paragraphs.rules] == [
        "Flirting is allowed between adults who both answer. Pictures are not.",
        "We do not allow asking for money. That includes gifts.",
    ]
    sentences = read("We cook. It must never praise raw meat. This includes fish. Wine is allowed. Thanks for reading.")
    assert sentences.context == "We cook. Thanks for reading."
    assert [guideline for _, guideline in sentences.rules] == [
        "It must never praise raw meat. This includes fish.",
        "Wine is allowed.",
    ]
    names = read("Prohibited content\n\nGore\n\nDrugs\n\nWeapons")
    assert names.rules == (
        ("Gore", "Prohibited content — Gore"),
        ("Drugs", "Prohibited content — Drugs"),
        ("Weapons", "Prohibited content — Weapons"),
    )


def test_another_language() -> None:
    policy = read(
        """
        # Richtlinie
        Wir sind ein Verlag.
        ## Gewalt
        Keine Folter.
        ## Politik
        - Keine Wahlwerbung
        - Keine Satire
        """
    )
    assert policy.context == "Wir sind ein Verlag."
    assert policy.rules == (
        ("Gewalt", "Keine Folter."),
        ("Politik", "Keine Wahlwerbung"),
        ("Politik", "Keine Satire"),
    )


def test_tables() -> None:
    text = """
        ## Not allowed
        | # | Category | Description | Severity |
        |---|:--------:|-------------|---------:|
        | 1 | **Gore** | Blood in detail. | high |
        | 2 | Slurs    | Words that demean | |

        ## Spam
        No repeated links.

        | Example | Verdict |
        |---------|---------|
        | buy now! | forbidden |

        ## Names

        Topic | Rule
        --- | ---
        Brands | Never name competitors
    """
    assert rules(text) == [
        ("Gore", "Not allowed — Blood in detail. Severity: high."),
        ("Slurs", "Not allowed — Words that demean."),
        ("Spam", "No repeated links. Examples: buy now!, forbidden."),
        ("Names / Brands", "Never name competitors."),
    ]
    long = "- No spam.\n\n| Example | Verdict |\n|---|---|\n" + "| one two three | no |\n" * 20
    assert guidelines(long) == ["No spam."]


def test_texts_without_rules() -> None:
    for text in ("", "\n\n", "***", "```\nNo gore\n```", "# Policy", "`"):
        assert read(text).rules == ()


BLOCKS = st.tuples(
    st.sampled_from(["- ", "  - ", "1. ", "2) ", "", "", "Rule 3: ", "**", "> "]),
    st.lists(st.sampled_from(WORDS), min_size=7, max_size=14),
    st.sampled_from(["\n", "\n\n"]),
)


@LAWS
@given(st.lists(BLOCKS, min_size=1, max_size=8))
def test_no_word_is_lost(blocks: list[tuple[str, list[str], str]]) -> None:
    """Seven words and more are no heading; headings may go where every rule says itself what they say."""
    text = "".join(f"{marker}{' '.join(words)}{end}" for marker, words, end in blocks)
    policy = read_policy_text(text)
    told = " ".join([policy.title, policy.context, *(word for rule in policy.rules for word in rule)])
    written = {word for _, words, _ in blocks for word in words if len(word) > 3}
    lost = {re.sub(r"\W", "", word).lower() for word in written} - set(re.findall(r"\w+", told.lower()))
    assert not lost


@LAWS
@given(st.text("aA.:-*_#|>`~=<!()[]1 \n\t—"))
def test_any_text_is_read(text: str) -> None:
    assert all(guideline for _, guideline in read_policy_text(text).rules)


@pytest.mark.parametrize(
    "unit",
    [
        "*",
        "**a ",
        "_a ",
        "[a](",
        "<!--",
        "<b ",
        "# ",
        "- ",
        "|",
        "|a|\n",
        "> ",
        "1.",
        ". ",
        "a: ",
        "must ",
        "a\n",
    ],
)
def test_time_is_linear_in_the_text(unit: str) -> None:
    started = time.process_time()
    read_policy_text(unit * (60_000 // len(unit)) + "x")
    assert time.process_time() - started < 2
