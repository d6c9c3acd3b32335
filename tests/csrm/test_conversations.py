"""Records: every shape, their precedence, columns named by hand, and the sample that ships."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import csrm.messages
from csrm.conversations import Message, RecordColumns, as_conversation, parse_record
from csrm.errors import RecordError

HI, YO, NO = Message("user", "Hi"), Message("assistant", "Yo"), Message("assistant", "No")
OPENAI = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]
SHAREGPT = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]
HH = "\n\nHuman: Hi\n\nAssistant: Yo"

SHAPES: dict[str, dict[str, Any]] = {
    "openai": {"messages": OPENAI},
    "openai as json": {"messages": json.dumps(OPENAI)},
    "sharegpt": {"conversations": SHAREGPT},
    "sharegpt, singular": {"conversation": SHAREGPT},
    "sharegpt with roles": {"conversations": OPENAI},
    "sharegpt as json": {"conversations": " " + json.dumps(SHAREGPT)},
    "transcript": {"conversation": HH},
    "transcript, stripped": {"messages": HH.strip()},
    "open messages + response": {"messages": OPENAI[:1], "response": "Yo"},
    "open messages + completion": {"messages": OPENAI[:1], "completion": "Yo"},
    "prompt + response": {"prompt": "Hi", "response": "Yo"},
    "prompt + completion": {"prompt": "Hi", "completion": "Yo"},
    "prompt list + response": {"prompt": OPENAI[:1], "response": "Yo"},
    "prompt json + response": {"prompt": json.dumps(OPENAI[:1]), "response": "Yo"},
    "prompt transcript + response": {"prompt": "\n\nHuman: Hi\n\nAssistant:", "response": "Yo"},
    "prompt list + completion list": {"prompt": OPENAI[:1], "completion": OPENAI[1:]},
    "prompt + one message": {"prompt": OPENAI[0], "response": OPENAI[1]},
    "prompt + whole conversation": {"prompt": "Hi", "response": OPENAI},
}

PAIRS: dict[str, dict[str, Any]] = {
    "prompt": {"prompt": "Hi", "chosen": "Yo", "rejected": "No"},
    "prompt list": {
        "prompt": OPENAI[:1],
        "chosen": OPENAI[1:],
        "rejected": [{"role": "bot", "content": "No"}],
    },
    "messages as history": {"messages": OPENAI[:1], "chosen": "Yo", "rejected": "No"},
    "whole lists": {"chosen": OPENAI, "rejected": [OPENAI[0], {"role": "assistant", "content": "No"}]},
    "whole json": {"chosen": json.dumps(OPENAI), "rejected": json.dumps([HI._asdict(), NO._asdict()])},
    "whole transcripts": {"chosen": HH, "rejected": "\n\nHuman: Hi\n\nAssistant: No"},
    "whole lists beside a prompt": {"prompt": "Hi", "chosen": [HI, YO], "rejected": [HI, NO]},
    "prompt before messages": {"messages": OPENAI, "prompt": "Hi", "chosen": [HI, YO], "rejected": "No"},
    "open transcript": {"prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": "Yo", "rejected": "No"},
}


def complaint(record: Any, **columns: str) -> str:
    with pytest.raises(RecordError) as caught:
        parse_record(record, RecordColumns(**columns))
    return str(caught.value)


@pytest.mark.parametrize("record", SHAPES.values(), ids=SHAPES)
def test_every_shape_of_one_conversation(record: dict[str, Any]) -> None:
    assert parse_record(record) == [("", [HI, YO])]
    assert parse_record({**record, "chosen": None, "rejected": None, "text": None, "id": 1}) == [("", [HI, YO])]


@pytest.mark.parametrize("record", PAIRS.values(), ids=PAIRS)
def test_every_shape_of_a_pair(record: dict[str, Any]) -> None:
    assert parse_record(record) == [("chosen", [HI, YO]), ("rejected", [HI, NO])]


def test_a_pair_without_a_history_is_two_replies() -> None:
    assert parse_record({"chosen": "Yo", "rejected": "No"}) == [("chosen", [YO]), ("rejected", [NO])]


def test_a_whole_conversation_with_a_system_message_is_not_put_after_the_prompt() -> None:
    system = Message("system", "Be kind.")
    record = {"prompt": "Hi", "chosen": [system, HI, YO], "rejected": [system, HI, NO]}
    assert parse_record(record) == [("chosen", [system, HI, YO]), ("rejected", [system, HI, NO])]


def test_a_greeting_is_not_repeated() -> None:
    greeted = [Message("assistant", "Welcome"), HI]
    record = {"messages": greeted, "chosen": [*greeted, YO], "rejected": [NO]}
    assert parse_record(record) == [("chosen", [*greeted, YO]), ("rejected", [*greeted, NO])]


def test_a_transcript_keeps_its_white_space() -> None:
    text = "\n\nHuman:  Hi \nthere\n\nAssistant: \n\nHuman: ok\n\nAssistant: Human: quoted\n"
    assert parse_record({"conversation": text}) == [
        ("", [("user", " Hi \nthere"), ("assistant", ""), ("user", "ok"), ("assistant", "Human: quoted\n")])
    ]


def test_text_is_one_user_message() -> None:
    assert parse_record({"text": "Hi"}) == [("", [HI])]


@pytest.mark.parametrize("text", [HH, json.dumps(OPENAI), "", "[", "[1, 2]", "Human: "])
def test_what_is_judged_is_taken_literally(text: str) -> None:
    assert parse_record({"text": text}) == [("", [("user", text)])]
    assert parse_record({"prompt": "Hi", "response": text}) == [("", [HI, ("assistant", text)])]
    assert parse_record({"messages": [HI], "completion": text}) == [("", [HI, ("assistant", text)])]


@pytest.mark.parametrize("text", ["[1, 2]", '[{"name": "x"}]', "[]", "[", "[" * 100_000, "Human: who?", "[draft]"])
def test_a_prompt_that_only_looks_like_messages_is_text(text: str) -> None:
    assert parse_record({"prompt": text, "response": "Yo"}) == [("", [("user", text), YO])]


def test_precedence() -> None:
    """Shapes are taken away one by one; the next one in order shows."""
    record: dict[str, Any] = {
        "chosen": "chosen",
        "rejected": "rejected",
        "messages": [HI, Message("assistant", "messages")],
        "conversations": [HI, Message("assistant", "conversations")],
        "conversation": [HI, Message("assistant", "conversation")],
        "prompt": "Hi",
        "response": "response",
        "completion": "completion",
        "text": "text",
    }
    found = [parse_record(record)[0][1][-1].content]
    for column in [name for name in record if name not in ("rejected", "prompt", "text")]:
        record[column] = None
        if column == "chosen":
            record["rejected"] = None
        found.append(parse_record(record)[0][1][-1].content)
    assert found == ["chosen", "messages", "conversations", "conversation", "response", "completion", "text"]


def test_messages_that_an_assistant_ended_take_no_response() -> None:
    assert parse_record({"messages": OPENAI, "response": "No"}) == [("", [HI, YO])]


def test_columns_named_by_hand() -> None:
    record = {"messages": [NO], "q": "Hi", "a": "Yo", "dialog": SHAREGPT, "post": "Hi", "response": "No"}
    read = {
        "messages": parse_record(record, RecordColumns(messages="dialog")),
        "prompt and response": parse_record(record, RecordColumns(prompt="q", response="a")),
        "prompt": parse_record(record, RecordColumns(prompt="q")),
        "response": parse_record({**record, "prompt": "Hi"}, RecordColumns(response="a")),
        "text": parse_record(record, RecordColumns(text="post")),
        "messages without a reply": parse_record({"m": [HI], "response": "No"}, RecordColumns(messages="m")),
        "none": parse_record(record, RecordColumns()),
    }
    assert {name: rows[0][1] for name, rows in read.items()} == {
        "messages": [HI, YO],
        "prompt and response": [HI, YO],
        "prompt": [HI, NO],
        "response": [HI, YO],
        "text": [HI],
        "messages without a reply": [HI],
        "none": [NO],
    }


@pytest.mark.parametrize("columns", [{"messages": "m", "text": "t"}, {"text": "t", "prompt": "p"}])
def test_columns_of_two_shapes_are_refused(columns: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="name a column of messages, or of text, or of prompt and response"):
        RecordColumns(**columns)


def test_complaint_of_no_shape_names_the_columns_and_the_options() -> None:
    told = "; name its columns with --messages-column, --text-column, or --prompt-column and --response-column"
    start = "no conversation in this record, which has "
    assert complaint({}) == f"{start}no columns{told}"
    assert complaint({"id": 1, "prompt": "Hi", "response": None}) == f"{start}'id', 'prompt', 'response' (null){told}"
    assert complaint({"text": np.float64("nan")}) == f"{start}'text' (null){told}"
    assert complaint({"messages": OPENAI}, messages="dialog") == f"{start}'messages'{told}"
    assert complaint({"text": "Hi"}, response="answer") == f"{start}'text'{told}"
    assert len(complaint({f"column {number}": 0 for number in range(10_000)})) < 600


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([], "a record is an object with named columns, not list"),
        ({"messages": []}, "column 'messages': a conversation needs at least one message"),
        (
            {"messages": "Hi"},
            "column 'messages': a conversation is a list of messages with role and content, not str",
        ),
        (
            {"messages": [{"role": "x", "content": ""}]},
            "column 'messages': message 1 has the unknown role 'x'; known",
        ),
        (
            {"conversations": [[]]},
            "column 'conversations': message 1 is list, not an object with role and content",
        ),
        ({"prompt": "Hi", "response": 3}, "column 'response': a conversation is a list of messages"),
        ({"prompt": 3, "response": "Yo"}, "column 'prompt': a conversation is a list of messages"),
        ({"text": {"role": "user"}}, "column 'text': message 1 has no content"),
        (
            {"prompt": "Hi", "chosen": "Yo", "rejected": None},
            "column 'rejected': a conversation is a list of messages",
        ),
        (
            {"messages": OPENAI, "chosen": None, "rejected": "No"},
            "column 'chosen': a conversation is a list of",
        ),
    ],
)
def test_complaints_name_the_column(record: Any, message: str) -> None:
    assert complaint(record).startswith(message)


def test_a_complaint_names_the_column_that_was_named_by_hand() -> None:
    assert complaint({"dialog": []}, messages="dialog").startswith("column 'dialog': ")


def test_rows_of_a_parquet_like_table() -> None:
    """Arrow gives every row every column and every message every field, with nulls."""
    rows: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": "Hi"}, {"from": "gpt", "value": "Yo"}]},
        {"prompt": "Hi", "response": "Yo"},
        {"text": "Hi"},
        {"prompt": "Hi", "chosen": "Yo", "rejected": "No"},
    ]
    names = ["messages", "prompt", "response", "text", "chosen", "rejected"]
    table = pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows])
    expected = [
        [("", [HI, YO])],
        [("", [HI, YO])],
        [("", [HI])],
        [("chosen", [HI, YO]), ("rejected", [HI, NO])],
    ]
    assert [parse_record(row) for row in table.to_pylist()] == expected
    assert [parse_record({name: table[name][row] for name in names}) for row in range(4)] == expected


def test_numpy_values() -> None:
    assert parse_record({"messages": np.array(OPENAI, dtype=object)}) == [("", [HI, YO])]
    assert parse_record({"prompt": np.str_("Hi"), "response": np.array("Yo")}) == [("", [HI, YO])]
    assert parse_record({"messages": np.float64("nan"), "text": "Hi"}) == [("", [HI])]


any_text = st.text(st.characters(exclude_categories=()))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text | st.just(HH),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=6,
)
messages = st.lists(
    st.sampled_from([*OPENAI, *SHAREGPT, {"role": "x", "content": "y"}, {"role": "user", "content": None}]),
    max_size=3,
)
columns = st.sampled_from(["id", "messages", "conversation", "prompt", "response", "chosen", "rejected", "text"])
values = messages | messages.map(json.dumps) | json_values | json_values.map(json.dumps)


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(columns | any_text, values, max_size=6) | values, st.none() | columns, st.none() | columns)
def test_anything_is_rows_or_a_record_error(record: Any, prompt: str | None, response: str | None) -> None:
    try:
        rows = parse_record(record, RecordColumns(prompt=prompt, response=response))
    except RecordError:
        return
    assert [suffix for suffix, _ in rows] in ([""], ["chosen", "rejected"])
    for _, conversation in rows:
        assert conversation
        assert as_conversation(conversation) == conversation


plain_text = st.text().map(lambda text: text.replace("\0", ""))


@settings(deadline=None, max_examples=60)
@given(st.lists(plain_text, min_size=1, max_size=4), plain_text)
def test_the_judged_text_is_preserved_in_every_shape(turns: list[str], judged: str) -> None:
    history = [Message("user" if number % 2 == 0 else "assistant", text) for number, text in enumerate(turns)]
    whole = [message._asdict() for message in [*history, Message("assistant", judged)]]
    records: list[dict[str, Any]] = [
        {"messages": whole},
        {"conversations": json.dumps([{"from": turn["role"], "value": turn["content"]} for turn in whole])},
        {"prompt": whole[:-1], "response": judged},
        {"prompt": json.dumps(whole[:-1]), "completion": whole[-1:]},
        {"chosen": whole, "rejected": whole},
    ]
    if history[-1] == ("assistant", ""):  # an open turn is filled, not followed
        records = [records[0], records[1], records[4]]
    for record in records:
        assert [list(conversation) for _, conversation in parse_record(record)][-1] == [
            *history,
            ("assistant", judged),
        ]
    assert parse_record({"text": judged}) == [("", [("user", judged)])]


@pytest.fixture(scope="module")
def sample() -> list[dict[str, Any]]:
    lines = (Path(csrm.messages.__file__).parent / "sample" / "conversations.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_the_sample_is_48_messages_records_on_three_days(sample: list[dict[str, Any]]) -> None:
    assert [record["id"] for record in sample] == [f"sample-{number:03}" for number in range(1, 49)]
    assert {tuple(record) for record in sample} == {("id", "date", "channel", "messages")}
    assert Counter(record["date"] for record in sample) == dict.fromkeys(["2026-11-18", "2026-11-19", "2026-11-20"], 16)
    assert Counter(record["channel"] for record in sample).keys() == {"app", "web", "phone"}


def test_the_sample_is_normal_already_and_varied(sample: list[dict[str, Any]]) -> None:
    conversations = [parse_record(record)[0][1] for record in sample]
    assert [[m._asdict() for m in talk] for talk in conversations] == [record["messages"] for record in sample]
    assert all(message.content for talk in conversations for message in talk)
    assert max(map(len, conversations)) >= 12
    assert {"user", "assistant"} == {talk[-1].role for talk in conversations}
    texts = "".join(message.content for talk in conversations for message in talk)
    assert any("\u0590" <= letter <= "\u06ff" for letter in texts)
    assert any(letter >= "\U0001f300" for letter in texts)
