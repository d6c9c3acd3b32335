"""Proposers behind `csrm train` and `csrm strictness`: asked once, remembered, and never a key on disk."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from click.testing import CliRunner
from labelled_files import judgement, single, write_lines
from stub_server import serving, status

import csrm
from csrm import Message, clause_library
from csrm.chat import Endpoint
from csrm.endpoint import EndpointProposer
from csrm.ladders import Ladder
from csrm.strictness import load_pairs
from jobs import train_command
from jobs.cli import cli
from jobs.train_run import training_folder

KEY = "sk-secret-0123456789"
LADDERS = """
category: violence
subcategories: [bank, weather]
always_forbidden: [kill]
"""


class Stop(csrm.CSRMError):
    """Training would begin now."""


@dataclass
class Runs:
    """`csrm train` up to the point where Ray takes over, and the rows that it would train on."""

    arguments: list[str]
    output: object
    rows: list = field(default_factory=list)

    def __call__(self, *more):
        return CliRunner().invoke(cli, [*self.arguments, "--output", str(self.output), *more])

    def take(self, start, material, options):
        self.rows.append(material.training.rows)
        raise Stop("no Ray here")

    def state(self):
        return sorted(path.name for path in training_folder(self.output).iterdir())


@pytest.fixture
def train(model_folder, tmp_path, monkeypatch):
    @contextmanager
    def no_cluster():
        yield

    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    data = write_lines(tmp_path / "rows.jsonl", [row | {"split": "train"} for row in single()])
    arguments = ["train", "--data", str(data), "--backbone", str(model_folder), "--no-contrasts", "--holdout", "0"]
    runs = Runs([*arguments, "--steps", "2"], tmp_path / "model")
    monkeypatch.setattr(train_command, "cluster", no_cluster)
    monkeypatch.setattr(train_command, "_source", runs.take)
    return runs


def num_clauses(rows):
    return sum(len(row.clauses) for row in rows)


def test_an_endpoint_is_asked_once_and_a_resumed_run_learns_from_the_same(train, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving() as stub:
        endpoint = ["--num-proposed", "20", "--proposer-url", stub.url, "--proposer-model", "stub"]
        first = train(*endpoint)
        assert len(stub.requests) == 20, first.stderr
        again = train(*endpoint, "--resume")
        assert len(stub.requests) == 20
        assert {headers["Authorization"] for headers in stub.headers} == {f"Bearer {KEY}"}
        other = train(*endpoint[2:], "--num-proposed", "21", "--resume")
    line = "proposals: 20 rows asked about, 20 clauses added that they violate, 20 that they keep"
    assert line in first.stderr.splitlines()
    assert line in again.stderr.splitlines()
    assert f"asking stub at {stub.url} about 20 rows" in first.stderr
    assert "asking" not in again.stderr
    assert train.rows[0] == train.rows[1]
    assert sum(len(row.clauses) == 3 for row in train.rows[0]) == 20
    assert train.state() == ["proposals.jsonl", "settings.json"]
    settings = json.loads((training_folder(train.output) / "settings.json").read_text())
    assert settings["proposing"] == {"num_proposed": 20, "proposer_url": stub.url, "proposer_model": "stub"}
    assert "other settings (proposing)" in other.stderr
    written = "".join(path.read_text() for path in training_folder(train.output).iterdir())
    assert KEY not in written + first.output + again.output + other.output


def test_without_an_endpoint_the_data_proposes(train, monkeypatch):
    for name in ("UNRELATED_ACROSS_DOMAINS", "UNRELATED_WITHIN_DOMAIN"):
        monkeypatch.setattr(clause_library, name, 2.0)  # a random model finds all clauses alike
    first = train("--num-proposed", "200")
    num_rows, num_added = len(train.rows[0]), num_clauses(train.rows[0]) - len(train.rows[0])
    assert num_added > 0
    line = f"{num_rows} rows asked about, 0 clauses added that they violate, {num_added} that they keep"
    assert f"proposals: {line}" in first.stderr
    assert all(not any(row.violated[1:]) for row in train.rows[0])
    again = train("--num-proposed", "200", "--resume")
    assert train.rows[0] == train.rows[1]
    assert first.stderr.splitlines()[:-1] == again.stderr.splitlines()[:-1]


def test_by_default_nothing_is_proposed_and_nothing_changes(train):
    """An older version's run goes on with this one: its settings name no proposals."""
    result = train()
    assert "no Ray here" in result.stderr
    assert "proposals" not in result.stderr
    assert num_clauses(train.rows[0]) == len(train.rows[0])
    assert train.state() == ["settings.json"]
    assert "proposing" not in json.loads((training_folder(train.output) / "settings.json").read_text())


def test_an_endpoint_that_is_not_there_is_one_line_and_may_be_mended(train):
    with serving([status(400)] * 4) as stub:
        endpoint = ["--num-proposed", "4", "--proposer-url", stub.url, "--proposer-model", "stub"]
        failed = train(*endpoint)
        assert failed.exit_code == 2
        assert "none of 4 questions was answered (status 400)" in failed.stderr.splitlines()[-1]
        assert train.state() == ["settings.json"]
        assert "proposals: 4 rows asked about" in train(*endpoint, "--resume").stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num-proposed", "5", "--proposer-url", "http://x/v1"], "--proposer-url needs --proposer-model"),
        (["--num-proposed", "5", "--proposer-model", "m"], "--proposer-model needs --proposer-url"),
        (["--proposer-url", "http://x/v1", "--proposer-model", "m"], "with --num-proposed"),
        (["--num-proposed", "5", "--proposer-url", "x", "--proposer-model", "m"], "is no address"),
        (["--num-proposed", "-1"], "--num-proposed"),
    ],
)
def test_mistakes_of_training_end_in_one_line(arguments, message, train):
    result = train(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not training_folder(train.output).exists()


@pytest.fixture
def strictness(model_folder, tmp_path):
    (tmp_path / "ladders.yaml").write_text(LADDERS)
    data = write_lines(tmp_path / "rows.jsonl", judgement())
    options = ["--data", str(data), "--ladders", str(tmp_path / "ladders.yaml"), "--model", str(model_folder)]
    options += ["--output", str(tmp_path / "pairs.json"), "--wordings", "2", "--unfiltered"]
    return lambda *more: CliRunner().invoke(cli, ["strictness", *options, *more])


def subcategories(*pairs):
    return {"subcategories": [{"subcategory": phrase, "num_more_severe": rank} for phrase, rank in pairs]}


def test_ladders_are_extended_where_the_endpoint_places_what_is_new(strictness, tmp_path, monkeypatch):
    from csrm import strictness as library

    # A judge to whom the ladder covers nothing, and a proposal everything.
    monkeypatch.setattr(library, "_covered", covers_what_is_new)
    with serving(answer=subcategories(("hello", 2), ("Kill", 0), ("pin", 1))) as stub:
        result = strictness("--extend-url", stub.url, "--extend-model", "stub")
    assert result.exit_code == 0, result.output
    assert "violence: sub-categories added: pin, hello" in result.stderr
    [request] = stub.requests
    shown = json.loads(request["messages"][1]["content"])
    assert shown["known"] == ["kill", "bank", "weather"]
    assert len(shown["conversations"]) > 0
    [ladder] = {pair.ladder for pair in load_pairs(tmp_path / "pairs.json").pairs}
    assert ladder.subcategories == ("pin", "bank", "hello", "weather")
    assert ladder.always_forbidden == ("kill",)


def test_a_question_adds_eight_sub_categories_at_most():
    with serving(answer=subcategories(*((f"kind {n}", 1 + n % 2) for n in range(20)))) as stub:
        asked = EndpointProposer(Endpoint(url=stub.url, model="stub"))
        ladder = Ladder("violence", ("bank",), always_forbidden=("kill",))
        found = asked.propose_for_ladder(ladder, [[Message("user", "hello")]])
    assert [each.rank for each in found] == [1] * 4 + [0] * 4
    assert {each.phrase for each in found} == {f"kind {n}" for n in range(8)}


def covers_what_is_new(model, conversations, ladder, phrases, rng, num_wordings):
    import numpy as np

    is_new = [phrase not in {*ladder.subcategories, *ladder.always_forbidden} for phrase in phrases]
    return np.tile(np.array(is_new), (len(conversations), 1))


def test_mistakes_of_strictness_end_in_one_line(strictness, tmp_path, monkeypatch):
    from csrm import strictness as library

    monkeypatch.setattr(library, "_covered", covers_what_is_new)
    with serving([status(400)]) as stub:
        unanswered = strictness("--extend-url", stub.url, "--extend-model", "stub")
    for result, message in [
        (unanswered, "none of 1 questions was answered (status 400)"),
        (strictness("--extend-url", "http://x/v1"), "--extend-url needs --extend-model"),
        (strictness("--extend-model", "m"), "--extend-model needs --extend-url"),
    ]:
        assert result.exit_code == 2
        assert message in result.stderr.splitlines()[-1]
        assert "Traceback" not in result.output
    assert not (tmp_path / "pairs.json").exists()
