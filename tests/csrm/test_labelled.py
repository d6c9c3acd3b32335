"""Labelled rows: what is read, what is kept apart, and how prompts are recognised again."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from csrm import Clause, InputError, Message
from csrm.labelled import (
    LabelledRow,
    holdout,
    holdout_clauses,
    prompts,
    read_labelled,
    read_preferences,
    share_prompts,
)


def row(number, names, labels=None, prompt="p"):
    return LabelledRow(
        id=str(number),
        domain="",
        conversation=[Message("user", prompt), Message("assistant", f"a{number}")],
        clauses=tuple(Clause(category=name, guideline=name) for name in names),
        violated=tuple(labels or [False] * len(names)),
    )


def write(path, *rows):
    path.write_text("".join(json.dumps(line) + "\n" for line in rows))
    return path


def test_holdout_is_disjoint_in_prompts_and_stable():
    rows = [row(10 * p + n, ["c"], prompt=f"p{p}") for p in range(200) for n in range(3)]
    kept, held = holdout(rows, 0.25)
    assert not {r.conversation[0] for r in kept} & {r.conversation[0] for r in held}
    assert len(kept) + len(held) == len(rows)
    assert 0.15 < len(held) / len(rows) < 0.35
    assert holdout(rows, 0.25) == (kept, held)


def test_no_clause_is_on_both_sides_of_a_holdout_of_clauses():
    rows = [row(n, [f"c{n % 90}", f"c{n % 70}"][: 1 + n % 2]) for n in range(600)]
    kept, held = holdout_clauses(rows, 0.25)
    assert not {c for r in kept for c in r.clauses} & {c for r in held for c in r.clauses}
    assert {r.id for r in kept} | {r.id for r in held} == {r.id for r in rows}
    assert 0.1 < len(held) / len(rows) < 0.4
    assert all(len(r.clauses) == len(r.violated) for r in kept)


def test_rows_without_known_labels_are_left_out(tmp_path):
    clause = {"category": "c", "guideline": "g"}
    path = write(
        tmp_path / "rows.jsonl",
        {"id": "a", "messages": [{"role": "user", "content": "x"}], "clauses": [{**clause, "violated": None}]},
        {
            "id": "b",
            "messages": [{"role": "user", "content": "x"}],
            "clauses": [{**clause, "violated": True}, {"category": "d", "guideline": "h", "violated": None}],
        },
    )
    (read,) = read_labelled(path)
    assert (read.id, read.violated) == ("b", (True,))


def test_preferences_are_read_and_equal_replies_left_out(tmp_path):
    history = [{"role": "user", "content": "How?"}]
    path = write(
        tmp_path / "pairs.jsonl",
        {"id": "a", "messages": history, "chosen": "No.", "rejected": "Thus.", "split": "train"},
        {"id": "b", "messages": history, "chosen": "Same.", "rejected": "Same."},
    )
    (pair,) = read_preferences(path)
    chosen, rejected = pair.replies()
    assert (pair.id, pair.split) == ("a", "train")
    assert chosen == [Message("user", "How?"), Message("assistant", "No.")]
    assert rejected[-1] == Message("assistant", "Thus.")


def test_pairs_may_be_parquet_and_written_as_messages(tmp_path):
    history = [{"role": "user", "content": "How?"}]
    rows = [
        {"prompt": history, "chosen": [reply("No.")], "rejected": [reply("Thus.")], "margin": 1.5},
        *[{"prompt": history, "chosen": [reply(f"{n}")], "rejected": [reply("x")], "margin": 0.1} for n in range(2000)],
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pairs.parquet")
    read = read_preferences(tmp_path / "pairs.parquet")
    assert [row.id for row in read] == [str(number) for number in range(1, 2002)]
    assert read[0].replies()[0] == [Message("user", "How?"), Message("assistant", "No.")]
    assert read == read_preferences(write(tmp_path / "pairs.jsonl", *rows))


def reply(text):
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": [{"role": "user", "content": "a"}, reply("b")], "rejected": [reply("c")]},
        {"prompt": "a", "chosen": [{"role": "user", "content": "b"}], "rejected": [{"role": "user", "content": "c"}]},
    ],
)
def test_what_is_no_pair_of_replies_to_one_history_is_told(tmp_path, row):
    path = write(tmp_path / "pairs.jsonl", row)
    with pytest.raises(InputError, match=r"pairs\.jsonl, line 1: .* no two replies to one history"):
        read_preferences(path)


def test_a_missing_reply_names_file_and_line(tmp_path):
    path = write(tmp_path / "pairs.jsonl", {"messages": [{"role": "user", "content": "x"}], "chosen": "a"})
    with pytest.raises(InputError, match=r"pairs\.jsonl, line 1: no field 'rejected'"):
        read_preferences(path)


def test_prompts_are_recognised_in_other_case_and_punctuation():
    conversation = [Message("user", " How do I…  pick a LOCK?! "), Message("assistant", "No.")]
    assert prompts(conversation) == {"how do i pick a lock"}
    assert share_prompts(conversation, {"how do i pick a lock"})
    assert not share_prompts(conversation, {"no"}), "only what users say is a prompt"
