"""What is wrong with training data is counted and left out."""

import json

from csrm import Clause, Message
from csrm.labelled import LabelledRow, PreferenceRow
from csrm.training.data_quality import (
    JUDGEMENT_COLUMNS,
    PREFERENCE_COLUMNS,
    Quality,
    clean_preferences,
    clean_rows,
    survey,
)


def row(text, *labels, id="0"):
    clauses = tuple(Clause(category=name, guideline="g") for name, _ in labels)
    return LabelledRow(
        id=id,
        domain="",
        conversation=[Message("user", text)],
        clauses=clauses,
        violated=tuple(violated for _, violated in labels),
    )


def clean(rows, **options):
    quality = Quality()
    return clean_rows(rows, quality, max_characters=20, **options), quality


def test_all_copies_of_a_contradiction_go_and_other_labels_stay():
    sound = row("b", ("x", True))
    kept, quality = clean([row("a", ("x", True), ("y", False)), row("a", ("x", False)), sound])
    assert kept == [row("a", ("y", False)), sound]
    assert (quality.contradicting_labels, quality.contradicting_rows, quality.num_kept) == (2, 1, 2)


def test_copies_with_the_same_labels_count_once():
    kept, quality = clean([row("a", ("x", True), id=str(n)) for n in range(3)] + [row("a", ("y", True))])
    assert [r.id for r in kept] == ["0", "0"]
    assert (quality.duplicates, quality.contradicting_labels) == (2, 0)


def test_empty_long_and_excluded_rows_go():
    rows = [
        row("  ", ("x", True)),
        row("a" * 21, ("x", True)),
        row("Known, prompt!", ("x", True)),
        row("b", ("x", True)),
    ]
    kept, quality = clean(rows, excluded={"known prompt"})
    assert kept == rows[3:]
    assert (quality.empty_texts, quality.too_long, quality.shared_prompts) == (1, 1, 1)


def pair(split, prompt="hi", chosen="no"):
    return PreferenceRow(id="0", conversation=[Message("user", prompt)], chosen=chosen, rejected="yes", split=split)


def test_preferences_for_evaluation_are_never_learned():
    quality = Quality()
    rows = [pair("train"), pair("eval"), pair("", prompt="Known"), pair("", chosen="")]
    assert clean_preferences(rows, quality, excluded={"known"}, max_characters=20) == rows[:1]
    assert (quality.evaluation_rows, quality.shared_prompts, quality.empty_texts, quality.num_kept) == (1, 1, 1, 1)


def test_raw_rows_show_unknown_columns_null_labels_and_rows_for_evaluation():
    quality = Quality()
    raws = [
        {"id": "a", "messages": [], "clauses": [{"violated": None}, {"violated": True}], "org": "o", "form": "f"},
        {"id": "b", "messages": [], "clauses": [{"violated": None}], "org": "o", "split": "eval"},
    ]
    assert survey(raws, JUDGEMENT_COLUMNS, quality) == {"b"}
    assert dict(quality.unknown_columns) == {"org": 2, "form": 1}
    assert (quality.null_labels, quality.without_labels, quality.num_read) == (2, 1, 2)
    survey([{"id": "c", "chosen": "x", "rejected": "x", "messages": []}], PREFERENCE_COLUMNS, quality)
    assert quality.equal_replies == 1
    assert json.loads(json.dumps(quality.to_json()))["unknown_columns"] == {"org": 2, "form": 1}
    assert "columns not read: form (1), org (2)" in quality.lines()
    assert "left out: 2 labels that are null" in quality.lines()
