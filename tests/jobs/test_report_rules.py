"""`csrm report` of labelled pairs: which rules decide, counted against plain Python."""

import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from jobs.cli import cli
from jobs.report.rules import find_rules
from jobs.rules.labels import SCHEMA

TOPICS = ("fraud", "health", None)


def rows(count):
    """Labels of pairs: three rules each of seven, in which the last one sides against the label."""
    say = [{"role": "assistant", "content": "hello"}]
    return [
        {
            "pair_id": f"p{n}",
            "prompt": [],
            "chosen": say,
            "rejected": say,
            "margin": 0.25 * (n % 4 + 1),
            "is_first_chosen": n % 3 == 0,
            "rules": [
                {"rule": f"rule_{(n * n + step) % 7}", "relevance": 1.0, "chosen": chosen, "rejected": 0.0}
                for step, chosen in enumerate((0.5, 0.5, -0.5))
            ],
            "topic": TOPICS[n % 3],
        }
        for n in range(count)
    ]  # fmt: skip


@pytest.fixture
def labelled(tmp_path):
    pq.write_table(
        pa.Table.from_pylist(rows(20_000), schema=SCHEMA.append(pa.field("topic", pa.string()))), tmp_path / "l.parquet"
    )
    return str(tmp_path / "l.parquet")


def report(*arguments):
    return CliRunner().invoke(cli, ["report", *arguments])


def test_counts_are_those_of_plain_python(labelled):
    findings, pairs = find_rules(labelled, ("topic",)), rows(20_000)
    uses = [(pair, rule) for pair in pairs for rule in pair["rules"]]
    expected = Counter(rule["rule"] for _, rule in uses)
    assert {name: rule.num_pairs for name, rule in findings.rules.items()} == expected
    agreeing = Counter(rule["rule"] for _, rule in uses if rule["chosen"] > rule["rejected"])
    assert Counter({name: rule.num_with_label for name, rule in findings.rules.items()}) == agreeing
    assert findings.rules["rule_1"].difference == pytest.approx(0.5 * expected["rule_1"])
    assert findings.num_pairs == 20_000
    assert findings.num_first_chosen == sum(pair["is_first_chosen"] for pair in pairs)
    assert findings.margin == pytest.approx(sum(pair["margin"] for pair in pairs))
    for topic in TOPICS:
        group = findings.groups["topic"][topic or ""]
        assert group.num_pairs == sum(pair["topic"] == topic for pair in pairs)
        assert group.rules == Counter(rule["rule"] for pair, rule in uses if pair["topic"] == topic)


def test_the_terminal_shows_rules_and_the_rules_of_each_group(labelled):
    shown = report(labelled, "--by", "topic").output
    assert "20,000 pairs · mean margin 0.625 · 33.3% chosen as the input has them" in shown
    most, count = Counter(rule["rule"] for pair in rows(20_000) for rule in pair["rules"]).most_common(1)[0]
    assert f"{most}" in shown.splitlines()[1]
    assert f"{count:,}" in shown.splitlines()[1]
    assert "(none)" in shown
    assert "fraud" in shown


def test_json_has_all_of_it(labelled):
    found = json.loads(report(labelled, "--by", "topic", "--json").output)
    assert found["pairs"] == 20_000
    assert len(found["rules"]) == 7
    assert sum(group["pairs"] for group in found["groups"]["topic"].values()) == 20_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--by", "topik"), "no column 'topik'; did you mean 'topic'?"),
        (("--by", "margin"), "no column 'margin'"),
        (("--output", "page.html"), "labelled pairs have no page"),
        (("--max-error-rate", "0.1"), "labelled pairs have no page, baseline or limits"),
    ],
)
def test_what_is_of_matrices_is_refused_in_one_line(labelled, arguments, message):
    result = report(labelled, *arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_another_parquet_file_is_told_apart(tmp_path):
    pq.write_table(pa.table({"a": [1]}), tmp_path / "x.parquet")
    result = report(str(tmp_path / "x.parquet"))
    assert result.exit_code == 2
    assert "no labels; give a file of csrm rules select" in result.output
