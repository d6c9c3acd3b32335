import contextlib
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csrm import configurations as module
from csrm.configurations import Clause, Configuration, dump_configuration, load_configurations
from csrm.errors import ConfigurationError

LAWS = settings(max_examples=80, deadline=None)
SAMPLES = Path(module.__file__).parent / "sample" / "configurations"

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
CLAUSES = st.builds(Clause, category=TEXT, guideline=TEXT.filter(str.strip))
CONFIGURATIONS = st.builds(
    Configuration,
    id=st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True),
    title=TEXT,
    clauses=st.lists(CLAUSES, min_size=1, max_size=4).map(tuple),
    threshold=st.floats(0, 1, exclude_min=True, exclude_max=True),
    context=TEXT,
)
GORE = Clause(category="Gore", guideline="No blood.")
GAME = Configuration(id="game", title="Game", clauses=(GORE, Clause(category="", guideline="Be kind.")))


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def load_one(folder: Path, name: str, content: str | bytes) -> Configuration:
    (configuration,) = load_configurations(write(folder, name, content))
    return configuration


def error_of(folder: Path, name: str, content: str | bytes) -> str:
    """The one line that loading the file ends in, without the file's name, which it must begin with."""
    path = write(folder, name, content)
    with pytest.raises(ConfigurationError) as caught:
        load_configurations(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_what_a_model_reads() -> None:
    assert GORE.text == "Gore: No blood."
    assert Clause(category="", guideline="No blood.").text == "No blood."
    assert Clause(category="no blood", guideline="No blood, no wounds.").text == "No blood, no wounds."


def test_texts_are_normalised_on_construction() -> None:
    assert Clause(category="Cafe\u0301", guideline=" No\n\tblood. ") == Clause(
        category="Caf\u00e9", guideline="No blood."
    )
    assert Configuration(id="my_game", clauses=(GORE,)).title == "My game"
    assert Configuration(id="game_", clauses=(GORE,)).title == "Game"


@LAWS
@given(CONFIGURATIONS, st.randoms())
def test_fingerprint_does_not_depend_on_clause_order(configuration: Configuration, random) -> None:
    shuffled = list(configuration.clauses)
    random.shuffle(shuffled)
    assert replace(configuration, clauses=tuple(shuffled)).fingerprint == configuration.fingerprint


def test_fingerprint_follows_what_scores_depend_on() -> None:
    same = [replace(GAME, title="Other"), replace(GAME, threshold=0.9), replace(GAME, source="game.yaml")]
    assert {each.fingerprint for each in same} == {GAME.fingerprint}
    other_clauses = [
        (GORE,),
        (*GAME.clauses, GORE),
        (replace(GORE, category="Blood"), GAME.clauses[1]),
        (replace(GORE, guideline="No blood!"), GAME.clauses[1]),
    ]
    others = [replace(GAME, clauses=clauses) for clauses in other_clauses]
    others += [replace(GAME, id="film"), replace(GAME, context="For adults.")]
    assert len({each.fingerprint for each in [GAME, *others]}) == 7


def test_fingerprint_is_pinned() -> None:
    """A changed canonical form would silently score every column of every matrix anew."""
    assert GAME.fingerprint == "4688e7f2b5fe0cab2bc625a9d07b01568386a73a341860a26ef29184d578c1ee"


def test_source_is_no_part_of_equality() -> None:
    assert replace(GAME, source="a.yaml") == replace(GAME, source="b.yaml")


@LAWS
@given(configuration=CONFIGURATIONS)
def test_dump_and_load_round_trip(tmp_path_factory: pytest.TempPathFactory, configuration: Configuration) -> None:
    folder = tmp_path_factory.mktemp("dump")
    assert load_one(folder, "dumped.yaml", dump_configuration(configuration)) == configuration


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"id": "My-Game"},
            "id 'My-Game' must be letters a-z, digits and underscores, a letter first; rename it",
        ),
        ({"id": ""}, "id '' must be letters a-z, digits and underscores, a letter first; rename it"),
        (
            {"id": "game\n"},
            r"id 'game\n' must be letters a-z, digits and underscores, a letter first; rename it",
        ),
        ({"clauses": ()}, "no clauses; write at least one rule that forbids or allows something"),
        ({"threshold": 0.0}, "threshold 0.0 must lie between 0 and 1, both excluded"),
        ({"threshold": 1.0}, "threshold 1.0 must lie between 0 and 1, both excluded"),
        ({"threshold": float("nan")}, "threshold nan must lie between 0 and 1, both excluded"),
        ({"context": "\ud800"}, r"'\ud800' holds half a character (a lone surrogate); write it anew"),
    ],
)
def test_construction_checks(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        replace(GAME, **changes)
    assert str(caught.value) == message


def test_an_empty_guideline_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="guideline is empty; write what is forbidden or allowed"):
        Clause(category="Gore", guideline=" \n ")


def test_yaml_in_full(tmp_path: Path) -> None:
    configuration = load_one(
        tmp_path,
        "x.yaml",
        "id: game\ntitle: The game\nthreshold: 0.3\ncontext: For adults.\n"
        "clauses:\n- category: Gore\n  guideline: |\n    No blood.\n    No wounds.\n"
        "- guideline: Never show a severed limb.\n- Fights between robots are allowed.\n"
        "- 'Drugs: none at all'\n",
    )
    assert configuration == Configuration(
        id="game",
        title="The game",
        threshold=0.3,
        context="For adults.",
        clauses=(
            Clause(category="Gore", guideline="No blood. No wounds."),
            Clause(category="Show a severed limb", guideline="Never show a severed limb."),
            Clause(category="Fights between robots", guideline="Fights between robots are allowed."),
            Clause(category="Drugs", guideline="none at all"),
        ),
    )
    assert configuration.source == str(tmp_path / "x.yaml")


def test_id_and_title_default_to_the_file_name(tmp_path: Path) -> None:
    configuration = load_one(tmp_path, "01 Café – Children's App.yml", "clauses: [No gore.]")
    assert (configuration.id, configuration.title) == ("cafe_children_s_app", "Cafe children s app")


@pytest.mark.parametrize(
    "content",
    [
        "id: one\nclauses: [No gore.]\n---\nid: two\nclauses: [No sex.]\n---\n",
        "- id: one\n  clauses: [No gore.]\n- {id: two, clauses: [No sex.]}\n",
    ],
)
def test_several_configurations_in_one_file(tmp_path: Path, content: str) -> None:
    loaded = load_configurations(write(tmp_path, "both.yaml", content))
    assert [(each.id, each.clauses[0].guideline) for each in loaded] == [
        ("one", "No gore."),
        ("two", "No sex."),
    ]


@pytest.mark.parametrize("content", ["- No gore.\n- No sex.\n", "- guideline: No gore.\n- No sex.\n"])
def test_a_bare_list_is_the_clauses_of_one_configuration(tmp_path: Path, content: str) -> None:
    configuration = load_one(tmp_path, "short.yaml", content)
    assert [clause.guideline for clause in configuration.clauses] == ["No gore.", "No sex."]


@pytest.mark.parametrize("name", ["game.yaml", "game.md", "game.txt", "GAME.MARKDOWN"])
def test_byte_order_mark_and_windows_lines(tmp_path: Path, name: str) -> None:
    content = b"\xef\xbb\xbf- No gore.\r\n- No caf\xc3\xa9s.\r\n"
    configuration = load_one(tmp_path, name, content)
    assert configuration.id == "game"
    assert [clause.guideline for clause in configuration.clauses] == ["No gore.", "No cafés."]


def test_a_configuration_of_91_clauses(tmp_path: Path) -> None:
    rules = [f"{number}. Never do the thing of number {number}." for number in range(1, 92)]
    configuration = load_one(tmp_path, "long.md", "# Long policy\n\n" + "\n".join(rules))
    guidelines = [clause.guideline for clause in configuration.clauses]
    assert guidelines == [rule.split(". ", 1)[1] for rule in rules]
    assert load_one(tmp_path, "long.yaml", dump_configuration(configuration)) == configuration


def test_front_matter(tmp_path: Path) -> None:
    content = "---\nid: film\nthreshold: 0.2\ncontext: Rated 16.\n---\n# Films\nWe make films.\n- No gore.\n"
    assert load_one(tmp_path, "x.md", content) == Configuration(
        id="film",
        title="Films",
        threshold=0.2,
        context="Rated 16. We make films.",
        clauses=(Clause(category="Gore", guideline="No gore."),),
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; write at least one rule into it"),
        (b"\xef\xbb\xbf \n", "is empty; write at least one rule into it"),
        (b"# only a comment\n---\n", "is empty; write at least one rule into it"),
        (b"clauses: [caf\xe9]", "not UTF-8 text (at byte 13); save it as UTF-8"),
        ("clauses: [No gore.]".encode("utf-16-le"), "holds null bytes; save it as UTF-8 text"),
        (
            "just words",
            "holds a text where a mapping belongs; write `clauses:` with one rule per dash",
        ),
        ("[]", "no clauses; write at least one rule that forbids or allows something"),
        ("id: game", "no clauses; write at least one rule that forbids or allows something"),
        ("clauses: No gore.", "clauses must be a list, not a text; begin each with a dash"),
        ("treshold: 0.5\nclauses: [x]", "unknown key 'treshold'; did you mean 'threshold'?"),
        ("1: 2\nclauses: [x]", "unknown key '1'; known keys are id, title, threshold, context, clauses"),
        (
            "clauses: [{name: a, guideline: b}]",
            "clause 1: unknown key 'name'; known keys are category, guideline",
        ),
        ("clauses: [x, {guidelines: b}]", "clause 2: unknown key 'guidelines'; did you mean 'guideline'?"),
        ("clauses: [x, {category: b}]", "clause 2: guideline is empty; write what is forbidden or allowed"),
        ("clauses: [x, '']", "clause 2: guideline is empty; write what is forbidden or allowed"),
        ("clauses: [x, null]", "clause 2: is nothing; write a text in quotes, or category and guideline"),
        ("clauses: [5]", "clause 1: is the number 5; write a text in quotes, or category and guideline"),
        ("clauses: [[x]]", "clause 1: is a list; write a text in quotes, or category and guideline"),
        ("clauses: [{guideline: 5}]", "clause 1: guideline is the number 5, not a text; put it in quotes"),
        (
            "clauses: [{guideline: no}]",
            "clause 1: guideline is the YAML word no, not a text; put it in quotes",
        ),
        (
            "clauses: [{guideline: x, category: {a: b}}]",
            "clause 1: category is a mapping, not a text; put it in quotes",
        ),
        ("title: 2024-01-01\nclauses: [x]", "title is a date, not a text; put it in quotes"),
        ("id: 5\nclauses: [x]", "id is the number 5, not a text; put it in quotes"),
        ("threshold: high\nclauses: [x]", "threshold is a text; write a number between 0 and 1, such as 0.5"),
        (
            "threshold: yes\nclauses: [x]",
            "threshold is the YAML word yes; write a number between 0 and 1, such as 0.5",
        ),
        ("threshold: 2\nclauses: [x]", "threshold 2.0 must lie between 0 and 1, both excluded"),
        (
            "id: Game\nclauses: [x]",
            "id 'Game' must be letters a-z, digits and underscores, a letter first; rename it",
        ),
        (
            "id: a\nid: b\nclauses: [x]",
            "line 2: not valid YAML: key 'id' appears twice; mend it or quote the text",
        ),
        (
            "id: a\nclauses:\n - x: y: z\n",
            "line 3: not valid YAML: mapping values are not allowed in this context; mend it or quote the text",
        ),
        (
            "title: 2024-99-99\nclauses: [x]",
            "not valid YAML: month must be in 1..12; mend it or quote the text",
        ),
        (
            "id: a\nclauses: [&x gore, *x]",
            "line 2: YAML anchors (&) and aliases (*) are refused; write the text out, "
            "or quote text that begins with & or *",
        ),
        (
            "id: a\nclauses:\n- *never show gore",
            "line 3: YAML anchors (&) and aliases (*) are refused; write the text out, "
            "or quote text that begins with & or *",
        ),
        ("id: !!python/name:os.system a", "line 1: YAML tags (!) are refused; quote text that begins with !"),
    ],
)
def test_errors_of_yaml_files(tmp_path: Path, content: str | bytes, message: str) -> None:
    assert error_of(tmp_path, "policy.yaml", content) == message


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.md",
            "---\n- x\n---\n- No gore.",
            "front matter must be `key: value` lines; mend it or remove the leading ---",
        ),
        ("a.md", "---\nidd: x\n---\n- No gore.", "front matter: unknown key 'idd'; did you mean 'id'?"),
        ("a.md", "---\ncontext: 5\n---\n- No gore.", "context is the number 5, not a text; put it in quotes"),
        (
            "a.md",
            "```\nNo gore.\n```",
            "no rules found; write each as a bullet, a numbered line or under a heading",
        ),
        ("a.txt", "\x00", "holds null bytes; save it as UTF-8 text"),
        ("2024.md", "- No gore.", "no id can be made from this file's name; add `id:`, or rename the file"),
        (
            "политика.md",
            "- No gore.",
            "no id can be made from this file's name; add `id:`, or rename the file",
        ),
        ("a.json", "[]", "not a policy file; name it .markdown, .md, .txt, .yaml, .yml"),
        ("a.txt", "No gore. " * 120_000, "larger than 1 MiB; split it into several files"),
    ],
)
def test_errors_of_other_files(tmp_path: Path, name: str, content: str, message: str) -> None:
    assert error_of(tmp_path, name, content) == message


LAUGHS = "".join(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 20))


@pytest.mark.parametrize(
    ("bomb", "message"),
    [
        ("a0: &a0 [lol]\n" + LAUGHS, "line 1: YAML anchors"),
        ("&a [" * 250_000, "line 1: YAML anchors"),
        ("[" * 1_000_000, "line 1: nested more than 16 levels deep; flatten it"),
        ("{a: " * 250_000, "line 1: nested more than 16 levels deep; flatten it"),
        ("- " * 500_000 + "x", "line 1: nested more than 16 levels deep; flatten it"),
        ("? " * 500_000 + "x", "line 1: nested more than 16 levels deep; flatten it"),
        ("id: " + "9" * 5000, "line 1: not valid YAML: a number of 5000 digits"),
    ],
)
@pytest.mark.parametrize("form", ["{}", "---\n{}\n---\n- No gore.\n"])
def test_bombs_are_refused_at_once(tmp_path: Path, bomb: str, message: str, form: str) -> None:
    name = "bomb.yaml"
    if form != "{}":
        name, message = "bomb.md", message.replace("line 1", "line 2")
    started = time.process_time()
    assert error_of(tmp_path, name, form.format(bomb)).startswith(message)
    assert time.process_time() - started < 1


def test_folders_are_read_in_sorted_order(tmp_path: Path) -> None:
    write(tmp_path, "b.yaml", "clauses: [No b.]")
    write(tmp_path, "deep/er/a.md", "- No a.")
    write(tmp_path, "c.txt", "No c at all.")
    for ignored in ("README.md", "notes.json", ".hidden.yaml", "..data/b.yaml"):
        write(tmp_path, ignored, "clauses: [No copy.]")
    assert [each.id for each in load_configurations(str(tmp_path))] == ["b", "c", "a"]
    files = [tmp_path / "c.txt", str(tmp_path / "b.yaml")]
    assert [each.id for each in load_configurations(files)] == ["c", "b"]


def test_two_configurations_with_the_same_id_name_both_files(tmp_path: Path) -> None:
    first, second = (
        write(tmp_path, "a.yaml", "id: game\nclauses: [x]"),
        write(tmp_path, "game.md", "- No gore."),
    )
    with pytest.raises(ConfigurationError) as caught:
        load_configurations(tmp_path)
    assert str(caught.value) == f"{second}: id 'game' is taken by {first}; give each its own id"
    twice = "clauses: [x]\n---\nclauses: [y]\n"
    assert error_of(tmp_path, "twice.yaml", twice).startswith("id 'twice' is taken by ")


def test_missing_and_empty_places(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere: no such file or folder; check the path$"):
        load_configurations(tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match=r"no policies in this folder; put .* files into it$"):
        load_configurations(tmp_path)
    with pytest.raises(ConfigurationError, match=r"^no files given; name at least one file or folder$"):
        load_configurations([])


def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    message = error_of(tmp_path, "locked.yaml", "clauses: [x]")
    assert message == "cannot be read (Permission denied); check the file"


@LAWS
@given(content=st.text("ab:-[]{}&*!|>#'\"?,%@ \n0.\t", max_size=40))
def test_whatever_a_file_holds_ends_in_configurations_or_our_own_error(
    tmp_path_factory: pytest.TempPathFactory, content: str
) -> None:
    folder = tmp_path_factory.mktemp("any")
    for name in ("any.yaml", "any.md"):
        with contextlib.suppress(ConfigurationError):
            assert load_configurations(write(folder, name, content))


def test_sample_configurations() -> None:
    samples = {each.id: each for each in load_configurations(SAMPLES)}
    assert sorted(samples) == ["bank_support", "children_app", "game_studio", "general_safety", "health_line"]
    for configuration in samples.values():
        assert configuration.context
        assert 9 < len(configuration.clauses) < 15
        for clause in configuration.clauses:
            assert len(clause.guideline.split()) <= 60
            assert 1 <= len(clause.category.split()) <= 6
    game = {clause.category: clause.guideline for clause in samples["game_studio"].clauses}
    assert game["Crimes"].startswith("In our games we allow the following, because the stories need them — Crimes such")
    assert game["Explicit sex"].startswith("We do not allow the following, whatever the genre — Explicit sex")
    children = {clause.category: clause.guideline for clause in samples["children_app"].clauses}
    assert children["Gambling"] == "Never in a story — bets for money, loot boxes, odds"
