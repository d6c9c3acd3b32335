"""Where the fuzzer starts: small inputs of every kind that the targets read."""

import gzip
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["DICTIONARY", "SEEDS"]

YAML = """\
id: game
title: A game
threshold: 0.4
context: Players are adults.
clauses:
- {category: violence, guideline: do not kill}
- "Secrets: never ask for a pin"
"""
MARKDOWN = """\
---
id: bank
threshold: 0.6
---
# Rules of the bank

We serve customers.

## Prohibited

- **Weather**: do not talk of the weather
    - not even of rain
1. No advice on shares. However, funds are allowed.

| Category | Rule |
| --- | --- |
| Pins | Never ask for a pin |
"""
RECORDS = [
    {"id": 1, "text": "hello", "k": [1, {"a": None}], "p": "x/y"},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}, {"from": "gpt", "value": ""}]},
    {"prompt": "\n\nHuman: a\n\nAssistant: b", "chosen": "c", "rejected": "d"},
    {"prompt": '[{"role": "user", "content": "x"}]', "response": "y", "id": "\ud800", "p": True, "k": 1e400},
]


def parquet():
    sink = io.BytesIO()
    messages = [[{"role": "user", "content": "a"}], None, []]
    table = pa.table({"text": ["a", None, "b"], "messages": messages, "id": [1, 2, 3]})
    pq.write_table(table, sink, row_group_size=2, store_schema=False)
    return sink.getvalue()


LINES = b"\n".join(json.dumps(one).encode() for one in RECORDS)
SEEDS = {
    "configuration_yaml": [YAML.encode(), b"- do not lie\n- {guideline: b}\n", f"{YAML}---\nclauses: [a]\n".encode()],
    "configuration_markdown": [MARKDOWN.encode(), b"Violence\n\nDo not kill.\n\n**Pins.** Never ask.\n"],
    "configuration_text": [b"1. Do not kill.\n2) Never ask for pins:\n  a) not of cards\n", b"Be kind; do not lie.\n"],
    "record": LINES.splitlines(),
    "planner": [
        *(b"\x00\x01" + LINES, b"\x01\x02" + gzip.compress(LINES, mtime=0)),
        *(b"\x02\x02" + pa.compress(LINES, codec="zstd", asbytes=True), b"\x03\x01" + parquet()),
    ],
}
DICTIONARY = {
    "configuration_yaml": [
        "clauses",
        "guideline",
        "category",
        "threshold",
        "!!python/object",
        "&a",
        "*a",
        "<<",
        "? ",
        "---",
    ],
    "configuration_markdown": ["---\\x0a", "# ", "- ", "1. ", "| --- |", "**", "```", "<!--", "No ", "Allowed", "> "],
    "configuration_text": ["1. ", "a) ", "Rule 1: ", "must not", "allowed", ":", "\\x0a\\x0a", "However, "],
    "record": ['"messages"', '"role"', '"content"', '"chosen"', '"rejected"', "\\\\ud800", "NaN", "1e999", "[[[["],
    "planner": ["\\x0a", "PAR1", "\\x1f\\x8b\\x08", "\\x28\\xb5\\x2f\\xfd", "{}"],
}
"""Words that the fuzzer may put in, in libFuzzer's notation."""
