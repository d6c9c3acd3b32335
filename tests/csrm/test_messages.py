"""Messages: roles, contents, Unicode, and values that come from pyarrow and numpy."""

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csrm.errors import RecordError
from csrm.messages import Message, as_conversation

any_text = st.text(st.characters(exclude_categories=()))
"""Lone surrogates and null bytes included, as in JSON that others wrote."""

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=8,
)
roles = st.sampled_from(["user", "Human", "GPT", " assistant", "system", "tool", "nobody", ""]) | json_values
parts = st.fixed_dictionaries({}, optional={"type": json_values, "text": json_values}) | json_values
contents = any_text | st.lists(parts, max_size=3) | json_values
json_messages = st.fixed_dictionaries(
    {},
    optional={
        "role": roles,
        "from": roles,
        "content": contents,
        "value": contents,
        "tool_calls": json_values,
    },
)
json_conversations = st.lists(json_messages | json_values, max_size=4)


def contents_of(*messages: Any) -> list[str]:
    return [message.content for message in as_conversation(messages)]


def complaint(messages: Any) -> str:
    with pytest.raises(RecordError) as caught:
        as_conversation(messages)
    return str(caught.value)


@pytest.mark.parametrize(
    ("role", "spellings"),
    [
        ("user", "user human customer prompter User HUMAN"),
        ("assistant", "assistant gpt bot agent ai model chatgpt bard bing Assistant AI ChatGPT"),
        ("system", "system developer instruction System"),
        ("tool", "tool function observation tool_result Tool_Result"),
    ],
)
def test_roles_are_normalised(role: str, spellings: str) -> None:
    for spelling in [*spellings.split(), f" {role}\n"]:
        assert as_conversation([{"role": spelling, "content": "x"}]) == [(role, "x")]


def test_from_and_value_spell_a_message_too() -> None:
    assert as_conversation([{"from": "human", "value": "Hi"}, {"role": "gpt", "from": None, "content": "Yo"}]) == [
        Message("user", "Hi"),
        Message("assistant", "Yo"),
    ]


def test_an_empty_last_message_stays() -> None:
    assert contents_of({"role": "user", "content": "Hi"}, {"role": "assistant", "content": ""}) == ["Hi", ""]


def test_a_missing_content_is_empty_beside_tool_calls_and_the_refusal_beside_a_refusal() -> None:
    assert contents_of(
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "assistant", "function_call": {"name": "look_up"}},
        {"role": "assistant", "content": None, "refusal": "I cannot do that."},
        {"role": "assistant", "content": "Yes.", "refusal": None, "tool_calls": None},
    ) == ["", "", "I cannot do that.", "Yes."]


def test_content_parts_are_joined_and_the_rest_is_noted() -> None:
    parts = [
        {"type": "text", "text": "Look:"},
        {"type": "image_url", "text": None, "image_url": {"url": "https://example.org/x.png"}},
        {"type": "input_audio", "input_audio": {}},
        {"type": "file"},
        {"type": "refusal", "refusal": "No."},
        {"text": "untyped"},
        "plain",
    ]
    assert contents_of({"role": "user", "content": parts}) == ["Look:\n[image]\n[audio]\n[file]\nNo.\nuntyped\nplain"]
    assert contents_of({"role": "user", "content": []}) == [""]


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "a conversation needs at least one message"),
        ("Hi", "a conversation is a list of messages with role and content, not str"),
        (None, "a conversation is a list of messages with role and content, not NoneType"),
        (Message("user", "Hi"), "a conversation is a list of messages with role and content, not Message"),
        (["Hi"], "message 1 is str, not an object with role and content"),
        (
            [{"content": "Hi"}],
            "message 1 has no role; known roles: user (human, customer, prompter), assistant (",
        ),
        ([{"role": 1, "content": "Hi"}], "message 1 has a role that is int, not text"),
        ([{"role": "user"}], 'message 1 has no content; an empty text is written ""'),
        ([{"role": "assistant", "content": None, "tool_calls": []}], "message 1 has no content"),
        ([{"role": "user", "content": 7}], "message 1 has content that is int, not text"),
        ([{"role": "user", "content": b"Hi"}], "message 1 has content that is bytes, not text"),
        (
            [{"role": "user", "content": [7]}],
            "message 1 has a content part that is int, not text or an object",
        ),
        (
            [{"role": "user", "content": [{}]}],
            "message 1 has a content part's type that is NoneType, not text",
        ),
        (
            [{"role": "user", "content": [{"text": ["a"]}]}],
            "message 1 has a content part's text that is list, not text",
        ),
    ],
)
def test_complaints(messages: Any, message: str) -> None:
    assert complaint(messages).startswith(message)


def test_a_complaint_names_the_message_and_stays_one_short_line() -> None:
    told = complaint([{"role": "user", "content": "Hi"}, {"role": "narrator\n" * 10_000, "content": "x"}])
    assert told.startswith("message 2 has the unknown role 'narrator\\nna...r\\nnarrator\\n'; known roles: user (")
    assert "\n" not in told
    assert len(told) < 300


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  two  spaces \n\n",
        "👩‍👩‍👧 🇺🇳",
        "שלום עולם",
        "\u202eevil\u202c",
        "e\u0301 \u00e9",
        "\ufeffBOM",
        "x" * 200_000,
    ],
)
def test_content_is_kept_to_the_letter(text: str) -> None:
    assert contents_of({"role": "user", "content": text}) == [text]


def test_null_bytes_go_and_lone_surrogates_are_replaced() -> None:
    texts = ["a\0b", "high \ud83d!", "low \ude00", "pair \ud83d\ude00", "split \ud83d\0\ude00"]
    assert contents_of(*({"role": "user", "content": text} for text in texts)) == [
        "ab",
        "high \ufffd!",
        "low \ufffd",
        "pair 😀",
        "split \ufffd\ufffd",
    ]


def test_a_very_long_message_is_cleaned_whole() -> None:
    (content,) = contents_of({"role": "user", "content": "\0é\ud800" * 200_000})
    assert content == "é\ufffd" * 200_000


def test_values_from_numpy_and_pyarrow_are_read_as_plain_ones() -> None:
    plain = [
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        {"role": "gpt", "content": [{"type": "text", "text": "Yo"}]},
    ]
    expected = [Message("user", "Hi"), Message("assistant", "Yo")]
    array = pa.array(plain)
    nested = [{**message, "content": np.array(message["content"], dtype=object)} for message in plain]
    for messages in (
        array,
        list(array),
        pa.array([plain])[0],
        np.array(plain),
        np.array(nested),
        tuple(plain),
    ):
        assert as_conversation(messages) == expected
    assert as_conversation([{"role": np.str_("user"), "content": pa.scalar("Hi")}]) == [("user", "Hi")]
    assert "has no content" in complaint([{"role": "user", "content": np.float64("nan")}])
    assert "has no content" in complaint([{"role": "user", "content": pa.scalar(None)}])


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["user", "assistant", "system", "tool"]), any_text), min_size=1))
def test_content_is_preserved_but_for_what_no_tokenizer_takes(messages: list[tuple[str, str]]) -> None:
    def slow(text: str) -> str:
        paired = re.sub(
            "[\ud800-\udbff][\udc00-\udfff]",
            lambda pair: chr(0x10000 + (ord(pair[0][0]) - 0xD800) * 0x400 + ord(pair[0][1]) - 0xDC00),
            text,
        )
        return re.sub("[\ud800-\udfff]", "\ufffd", paired).replace("\0", "")

    read = as_conversation([{"role": role, "content": text} for role, text in messages])
    assert read == [(role, slow(text)) for role, text in messages]
    "".join(message.content for message in read).encode()


@settings(deadline=None)
@given(json_conversations | json_values)
def test_anything_is_a_conversation_or_a_record_error(messages: Any) -> None:
    try:
        conversation = as_conversation(messages)
    except RecordError:
        return
    assert as_conversation(conversation) == conversation
    assert as_conversation([message._asdict() for message in conversation]) == conversation
    assert {message.role for message in conversation} <= {"user", "assistant", "system", "tool"}
    "".join(message.content for message in conversation).encode()
