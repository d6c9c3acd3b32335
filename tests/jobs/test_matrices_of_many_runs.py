"""Matrices that several runs have left, or whose files lie in unlike folders: what report, filter and pairs say."""

import json

import pytest
from click.testing import CliRunner
from filter_in_process import filter_in_process

from jobs.cli import cli
from jobs.inputs import would_read
from jobs.matrix import Matrix

POLICY = "id: {id}\nthreshold: {threshold}\nclauses:\n- {{category: c, guideline: {text}}}\n"


@pytest.fixture(autouse=True)
def filters(in_process):
    from jobs.filter import pipeline

    in_process.setattr(pipeline, "filter_shards", filter_in_process)


@pytest.fixture
def chats(tmp_path):
    def write(name, num_rows=6, **more):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        texts = ["hello bank", "kill the user", "weather"]
        lines = [{"text": f"{texts[row % 3]} {row}", **more} for row in range(num_rows)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    return write


@pytest.fixture
def run(score, tmp_path):
    """Score under policies given as {id: (threshold, text)}."""

    def scored(policies, *options, source="in"):
        folder = tmp_path / "policies"
        folder.mkdir(exist_ok=True)
        for file in folder.iterdir():
            file.unlink()
        for id, (threshold, text) in policies.items():
            (folder / f"{id}.yaml").write_text(POLICY.format(id=id, threshold=threshold, text=text))
        result = score(source, *options, configurations=folder)
        assert result.exit_code == 0, result.output
        return result

    return scored


def report(tmp_path, *options):
    result = CliRunner().invoke(cli, ["report", str(tmp_path / "out"), "--json", *options])
    assert result.exit_code in (0, 3), result.output
    found = json.loads(result.stdout)
    return {column["id"]: column for column in found["columns"]} | {"": found, "exit": result.exit_code}


def assert_report_agrees_with_the_commits(tmp_path):
    """A law: whatever runs there were, counts are those of the commit records."""
    matrix, columns = Matrix.open(str(tmp_path / "out")), report(tmp_path)
    for one in matrix.configurations:
        parts = [shard["summary"][one.id] for shard in matrix.shards if one.id in shard["summary"]]
        assert columns[one.id]["rate"]["total"] == sum(part["num_scored"] for part in parts)
        assert columns[one.id]["rate"]["count"] == sum(part["num_violations"] for part in parts)


def test_a_threshold_that_changed_stays_changed(chats, run, tmp_path):
    """Another configuration is scored alone afterwards; its column is then known from the archive."""
    chats("a.jsonl")
    run({"alpha": (0.01, "kill")})
    run({"alpha": (0.99, "kill")})
    assert report(tmp_path)["alpha"]["rate"]["count"] == 6
    run({"beta": (0.5, "weather")})
    assert report(tmp_path)["alpha"]["rate"]["count"] == 6
    assert Matrix.open(str(tmp_path / "out")).configuration("alpha").threshold == 0.99
    assert_report_agrees_with_the_commits(tmp_path)


def test_a_configuration_is_there_once_whatever_texts_it_had(chats, run, tmp_path):
    chats("a.jsonl", 6)
    chats("b.jsonl", 3)
    run({"alpha": (0.5, "kill"), "beta": (0.5, "weather")})
    run({"beta": (0.5, "weather of today")}, source="in/b.jsonl")
    run({"alpha": (0.5, "kill")})
    matrix = Matrix.open(str(tmp_path / "out"))
    assert [one.id for one in matrix.configurations] == ["alpha", "beta"]
    assert matrix.configuration("beta").clauses[0].guideline == "weather"
    columns = report(tmp_path, "--baseline", str(tmp_path / "out"))
    assert [column["id"] for column in columns[""]["columns"]] == ["alpha", "beta"]
    assert (columns["alpha"]["num_versions"], columns["beta"]["num_versions"]) == (1, 2)
    assert columns["beta"]["change"]["notes"] == []
    shown = CliRunner().invoke(cli, ["report", str(tmp_path / "out")]).stdout
    assert "beta: scored under 2 texts or models" in shown
    assert_report_agrees_with_the_commits(tmp_path)


def test_rows_that_were_never_scored_close_the_gate(chats, run, tmp_path):
    chats("a.jsonl", 6)
    run({"alpha": (0.5, "kill"), "beta": (0.5, "weather")})
    chats("b.jsonl", 3)
    run({"alpha": (0.5, "kill")})
    assert report(tmp_path)["beta"]["num_unscored"] == 3
    assert report(tmp_path, "--max-violation-rate", "alpha=1")["exit"] == 0
    result = CliRunner().invoke(cli, ["report", str(tmp_path / "out"), "--max-violation-rate", "beta=1"])
    assert result.exit_code == 3
    assert "the limit is 1; 3 rows were never scored under it" in result.stderr
    assert "beta: 3 rows were never scored under it" in result.stdout
    assert_report_agrees_with_the_commits(tmp_path)


def test_changes_are_by_the_thresholds_of_today(chats, run, score, tmp_path):
    """The baseline has another threshold, and a further configuration before it."""
    chats("a.jsonl")
    run({"aaa": (0.5, "weather"), "game": (0.01, "kill")})
    (tmp_path / "out").rename(tmp_path / "before")
    run({"game": (0.99, "kill")})
    change = report(tmp_path, "--baseline", str(tmp_path / "before"))["game"]["change"]
    assert (change["rate"]["count"], change["rate"]["total"]) == (6, 6)
    assert change["drift"] == 0.0


@pytest.mark.parametrize("names", [("date=2026-11-19/a.jsonl", "z.jsonl"), ("a.jsonl", "date=2026-11-19/z.jsonl")])
def test_files_may_lie_in_folders_or_not(chats, run, tmp_path, names):
    for name in names:
        chats(name, 4)
    run({"alpha": (0.5, "kill")})
    matrix = Matrix.open(str(tmp_path / "out"))
    assert matrix.folder_keys == ("date",)
    assert matrix.schema.names[-1] == "date"
    for options in ((), ("--by", "date")):
        values = {one["value"]: one["num_rows"] for one in report(tmp_path, *options)[""]["partitions"]["date"]}
        assert values == {"": 4, "2026-11-19": 4}
    kept = CliRunner().invoke(cli, ["filter", str(tmp_path / "out"), "-w", "date is null", "--sample", "9", "--json"])
    assert json.loads(kept.stdout)["kept"] == 4


def test_a_missing_value_of_a_partition_is_null_everywhere(chats, run, tmp_path):
    chats("a.jsonl", 3, lang="de")
    chats("b.jsonl", 2, lang=None)
    run({"alpha": (0.5, "kill")}, "--partition-by", "lang")
    values = {one["value"]: one["num_rows"] for one in report(tmp_path)[""]["partitions"]["lang"]}
    assert values == {"": 2, "de": 3}
    for condition, number in (("lang is null", 2), ("lang = 'de'", 3), ("lang != 'en'", 3)):
        found = CliRunner().invoke(cli, ["filter", str(tmp_path / "out"), "-w", condition, "--sample", "9", "--json"])
        assert json.loads(found.stdout)["kept"] == number, condition


def test_names_of_folders_are_not_obeyed(chats, run, tmp_path):
    chats("k%1b[31m=a/a.jsonl", 3)
    chats("k%1b[31m=b/a.jsonl", 3)
    run({"alpha": (0.99, "kill")})
    result = CliRunner().invoke(cli, ["report", str(tmp_path / "out")])
    assert "[31m=a" in result.stdout
    assert "\x1b" not in result.stdout


def test_an_output_never_replaces_or_joins_the_input(chats, run, tmp_path):
    chats("a.jsonl")
    before = (tmp_path / "in" / "a.jsonl").read_bytes()
    run({"alpha": (0.5, "kill")})
    matrix = str(tmp_path / "out")
    pairs = ["pairs", matrix, "--group-by", "record_id", "-c", "alpha", "-o"]
    for command in (
        [*pairs, str(tmp_path / "in" / "a.jsonl")],
        [*pairs, str(tmp_path / "in" / "pairs.jsonl")],
        ["report", matrix, "-o", str(tmp_path / "in" / "a.jsonl")],
        ["filter", matrix, "-w", "true", "-o", str(tmp_path / "in" / "clean")],
        ["filter", matrix, "-w", "true", "-o", str(tmp_path / "clean"), "--rejected", str(tmp_path / "in" / "x")],
    ):
        result = CliRunner().invoke(cli, command)
        assert result.exit_code == 2, command
        assert "lies in the input, and the next run would read it" in result.stderr
    assert (tmp_path / "in" / "a.jsonl").read_bytes() == before
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["a.jsonl"]


@pytest.mark.parametrize(
    ("place", "location", "root", "expected"),
    [
        ("/d/chats/out", "chats", "/d/chats", True),
        ("/d/chats", "chats/", "/d/chats", True),
        ("/d/chats/_out", "chats", "/d/chats", False),
        ("/d/chatsx/out", "chats", "/d/chats", False),
        ("/d/in.parquet/clean", "in.parquet", "/d/in.parquet", True),
        ("s3://b/in/out", "s3://b/in", "s3://b/in", True),
        ("/d/out", "a.jsonl", "/d", False),
        ("/d/a.jsonl", "x/a.jsonl", "/d", True),
        ("/d/out", "*.jsonl", "/d", False),
        ("/d/pairs.jsonl", "*.jsonl", "/d", True),
        ("/d/out", "**/*.jsonl", "/d", True),
        ("/d/out", "*", "/d", True),
        ("/d/out/x", "*/x", "/d", True),
        ("/e/out", "**/*.jsonl", "/d", False),
    ],
)
def test_what_a_run_would_read(place, location, root, expected):
    assert would_read(place, location, root, {"a.jsonl"}) is expected
