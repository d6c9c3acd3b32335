"""The targets under Hypothesis, which knows what inputs look like, and under atheris, which follows the code."""

import gzip
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from fuzz_targets import SUFFIXES, TARGETS, listing, plan_and_read, record
from hypothesis import given, settings
from hypothesis import strategies as st
from seeds import DICTIONARY, SEEDS

KEYS = st.sampled_from(["id", "title", "threshold", "context", "clauses", "category", "guideline", "a"])
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.just("2026-11-20"))
DOCUMENTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)
WORDS = st.sampled_from([*DICTIONARY["configuration_markdown"], *DICTIONARY["configuration_text"], "\n", " ", "kill"])
POLICIES = st.lists(WORDS | st.text(max_size=8), max_size=30).map(lambda words: "".join(words).replace("\\x0a", "\n"))

COLUMNS = st.sampled_from(
    ["messages", "conversations", "prompt", "response", "completion", "text", "chosen", "rejected", "id", "k", "p"]
)
MESSAGES = st.dictionaries(
    st.sampled_from(["role", "from", "content", "value", "refusal", "tool_calls", "text", "type"]),
    st.sampled_from(["user", "assistant", "gpt", "text"]) | SCALARS | st.lists(SCALARS, max_size=2),
    max_size=4,
)
VALUES = SCALARS | MESSAGES | st.lists(MESSAGES, max_size=3) | st.lists(MESSAGES, max_size=2).map(json.dumps)
RECORDS = st.dictionaries(COLUMNS, VALUES, max_size=4).map(lambda value: json.dumps(value).encode())
LINES = st.lists(RECORDS | st.binary(max_size=20), max_size=6).map(b"\n".join)
PACKED = {"jsonl": bytes, "gz": gzip.compress, "zst": lambda data: pa.compress(data, codec="zstd", asbytes=True)}


@settings(max_examples=150)
@given(st.sampled_from([".yaml", ".yml"]), DOCUMENTS | POLICIES | st.lists(DOCUMENTS, max_size=3))
def test_any_yaml_is_loaded_or_refused(suffix, document):
    text = document if isinstance(document, str) else json.dumps(document)
    TARGETS["configuration_yaml"](text.encode("utf-8", "surrogatepass"))


@settings(max_examples=150)
@given(st.sampled_from(["configuration_markdown", "configuration_text"]), POLICIES)
def test_any_policy_text_is_loaded_or_refused(target, text):
    TARGETS[target](text.encode("utf-8", "surrogatepass"))


@settings(max_examples=150)
@given(st.sampled_from([name for name in TARGETS if name.startswith("configuration")]), st.binary(max_size=200))
def test_any_bytes_are_a_configuration_or_refused(target, data):
    TARGETS[target](data)


@settings(max_examples=300)
@given(RECORDS | st.binary(max_size=100))
def test_any_line_becomes_rows(line):
    record(line)


@settings(max_examples=150)
@given(st.sampled_from(SUFFIXES), LINES, st.integers(1, 5), st.data())
def test_any_file_is_planned_and_read_as_planned(suffix, lines, shard_rows, data):
    packed = PACKED.get(suffix.rpartition(".")[2], lambda _: SEEDS["planner"][-1][2:])(lines)
    if data.draw(st.booleans(), "damaged"):
        start = data.draw(st.integers(0, len(packed)), "from")
        packed = (
            packed[:start] + data.draw(st.binary(max_size=8), "with") + packed[start + data.draw(st.integers(0, 8)) :]
        )
    plan_and_read(suffix, packed, shard_rows)


PIECES = st.sampled_from([*"a.=/:%~\\[]*?{}# \n\x1b\0", "é", "\u202e", "..", "::", "%2f", "lang=", "file://"])


@settings(max_examples=150)
@given(st.lists(PIECES, min_size=1, max_size=8).map("".join))
def test_any_file_name_is_read_as_itself_or_refused(name):
    source = listing(f"{name}.jsonl")
    assert source is None or Path(source) == Path(os.path.normpath(f"{name}.jsonl"))


@pytest.mark.skipif(not importlib.util.find_spec("atheris"), reason="atheris has no wheel for this Python or platform")
@pytest.mark.parametrize("target", TARGETS)
def test_coverage_finds_no_input_that_breaks_a_target(target, tmp_path):
    fuzz = Path(__file__).with_name("fuzz.py")
    command = [sys.executable, str(fuzz), target, "-runs=1000", "-seed=1", "-max_len=512", "-max_total_time=10"]
    ended = subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "Done " in ended.stderr
