"""Public shapes of test rows: read as documented; mistakes are named by file and line."""

import json

import pytest

from csrm import Clause, Configuration, InputError
from csrm.evaluation.rows import agent_turns, in_split, parse_policy, read_dynabench, read_over_refusal, read_scenarios
from csrm.labelled import read_binary
from csrm.messages import Message

GAME = Configuration(id="game_development", clauses=(Clause(category="c", guideline="g"),))


def write(tmp_path, *rows):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_agent_turns_are_judged_in_their_context():
    turns = agent_turns("User: hi\nthere\nAgent: hello\nUser: note: User and Agent: no turns\nAGENT : bye")
    talk = [
        Message("user", "hi\nthere"),
        Message("assistant", "hello"),
        Message("user", "note: User and Agent: no turns"),
        Message("assistant", "bye"),
    ]
    assert turns == [talk[:2], talk]
    assert agent_turns("Context.\nAgent: a")[0][0] == Message("system", "Context.")
    assert agent_turns("nobody speaks") == []


def test_policies_of_numbered_rules_and_of_prose():
    rules = [f"{n}. Do not mention topic {n}." for n in range(1, 92)]
    assert len(parse_policy("\n".join(rules)).clauses) == 91
    assert len(parse_policy("Be kind.").clauses) == 1


def test_dynabench(tmp_path):
    policy = "1. Never give refunds.\n2. Always say hello."
    rows = [{"policy": policy, "transcript": "User: a\nAgent: b", "label": label} for label in ("PASS", "FAIL")]
    read = read_dynabench(write(tmp_path, *rows))
    assert [row.violates for row in read] == [False, True]
    assert [clause.guideline for clause in read[0].configuration.clauses] == [
        "Never give refunds.",
        "Always say hello.",
    ]


def test_scenarios(tmp_path):
    rows = [
        {"prompt": "p", "scenario": "Game Development", "type": "Partial", "response": "r", "label": "unsafe"},
        {"prompt": "p", "scenario": "game_development", "response": "r"},
    ]
    labelled, plain = read_scenarios(write(tmp_path, *rows), [GAME])
    assert (labelled.scenario, labelled.type, labelled.violates) == ("game_development", "partial", True)
    assert (plain.type, plain.violates) == ("", None)
    assert plain.conversation == [Message("user", "p"), Message("assistant", "r")]


def test_over_refusal(tmp_path):
    rows = [
        {"prompt": "kill a process", "type": "homonyms"},
        {"prompt": "kill", "type": "contrast_homonyms"},
        {"prompt": "x", "label": "unsafe"},
        {"messages": [{"role": "user", "content": "y"}], "harmful": False},
    ]
    read = read_over_refusal(write(tmp_path, *rows))
    assert [row.harmful for row in read] == [False, True, True, False]
    assert read[0].conversation[-1] == Message("assistant", "Sure. kill a process")
    assert read[3].conversation[0] == Message("user", "y")


def test_splits(tmp_path):
    talk = [{"role": "user", "content": "a"}]
    rows = [{"id": n, "messages": talk, "harmful": True, "split": ("train", "eval")[n % 2]} for n in range(4)]
    path = write(tmp_path, *rows)
    assert [row.id for row in in_split(path, "eval", read_binary(path))] == ["1", "3"]
    assert len(in_split(path, None, read_binary(path))) == 4
    with pytest.raises(InputError, match="no row has split 'test'"):
        in_split(path, "test", read_binary(path))


@pytest.mark.parametrize(
    ("read", "row", "message"),
    [
        (read_dynabench, {"policy": "p", "transcript": "User: a", "label": "PASS"}, "line 1: no line .*'Agent:'"),
        (
            read_dynabench,
            {"policy": "p", "transcript": "Agent: a", "label": "MAYBE"},
            "line 1: label 'MAYBE' is neither",
        ),
        (read_dynabench, {"policy": "p", "transcript": "Agent: a"}, "line 1: no text under 'label'"),
        (read_dynabench, {"policy": " ", "transcript": "Agent: a", "label": "PASS"}, "line 1: guideline is empty"),
        (read_over_refusal, {"text": "p"}, "line 1: no text under 'prompt'"),
        (lambda path: read_scenarios(path, [GAME]), {"scenario": "moon"}, "no configuration 'moon' .*only game_dev"),
        (
            lambda path: read_scenarios(path, [GAME]),
            {"scenario": "game development", "prompt": "p", "response": "r", "label": True},
            "label 'True' is neither",
        ),
    ],
)
def test_mistakes_name_file_and_line(tmp_path, read, row, message):
    path = write(tmp_path, row)
    with pytest.raises(InputError, match=message) as error:
        read(path)
    assert str(error.value).startswith(str(path))
