"""What is submitted means on the cluster what it means here, has one name, and holds nothing of this machine's."""

import json
import os
import re
import shlex
from datetime import UTC, datetime

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from csrm import load_configurations
from csrm.errors import CSRMError
from jobs import staging
from jobs.cli import cli
from jobs.submission import ALWAYS, COMMANDS, Submission, attempts_of, next_id, read_variables, write_arguments

S3 = ("s3://lake/chats/", "-c", "s3://policies/", "-o", "s3://lake/matrix")


def root():
    return click.Context(cli, info_name="csrm", **cli.context_settings)


def submission_of(*arguments, variables=(), paths_on_cluster=False):
    return Submission.of(root(), arguments, dict(variables), paths_on_cluster=paths_on_cluster)


def parsed(name, arguments):
    """Values of a command's parameters."""
    command = cli.commands[name]
    return command.make_context(name, list(arguments), parent=root()).params


text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
word = text.filter(lambda value: value.strip()) | st.sampled_from(["-x", "--json", "-"])


@given(
    matrix=word,
    group=text,
    configuration=text,
    helpfulness=st.none() | text,
    form=st.none() | st.sampled_from(["pairs", "best-of-n"]),
    margin=st.none() | st.floats(0, 1).map(str),
    is_allowed=st.booleans(),
)
def test_a_command_survives_the_shell(matrix, group, configuration, helpfulness, form, margin, is_allowed):
    """Quotes, spaces, dashes, newlines: what the cluster parses is what was parsed here."""
    typed = [f"--group-by={group}", "--configuration", configuration, "-oout.jsonl"]
    typed += [f"--helpfulness={helpfulness}"] if helpfulness is not None else []
    typed += ["--as", form] if form else []
    typed += ["--min-margin", margin] if margin else []
    typed += ["--allow-violations"] if is_allowed else []
    typed += ["--", matrix.replace("{date", "")] if "{date" in matrix else ["--", matrix]
    command = cli.commands["pairs"]
    given, _, _ = command.make_parser(click.Context(command, parent=root())).parse_args(list(typed))
    line = shlex.join(write_arguments(command, given, lambda parameter, value: value))
    assert parsed("pairs", shlex.split(line)) == parsed("pairs", typed)


@given(condition=word)
def test_the_shell_of_the_cluster_gives_the_command_what_was_typed(condition):
    found = submission_of("filter", "s3://m", f"--where={condition}", "-o", "s3://kept")
    name, *words = shlex.split(found.entrypoint)[1:]
    assert (name, parsed(name, words)["where"]) == ("filter", condition)


def test_flags_switches_and_repeated_options_are_written_out():
    command = cli.commands["train"]
    typed = "--no-contrasts --data s3://a --output /x --data=s3://b@0.1 --backbone org/model --use-gpu --steps 3"
    given, _, _ = command.make_parser(click.Context(command, parent=root())).parse_args(typed.split())
    written = write_arguments(command, given, lambda parameter, value: value)
    assert parsed("train", written) == parsed("train", typed.split())


@pytest.mark.parametrize("name", [name for name in COMMANDS if name in cli.commands])
def test_every_parameter_of_a_command_that_can_be_submitted_can_be_written_out(name):
    for parameter in cli.commands[name].params:
        assert parameter.nargs == 1
        assert not getattr(parameter, "count", False)
        assert isinstance(parameter, click.Argument) or any(text.startswith("--") for text in parameter.opts)


def test_the_id_is_of_what_is_run_not_of_how_it_was_typed():
    one = submission_of("score", *S3, "--explain")
    other = submission_of("score", "--explain", "-os3://lake/matrix", "--configurations=s3://policies/", S3[0])
    assert one.id == other.id
    assert re.fullmatch(rf"csrm-score-{datetime.now(UTC).date()}-[0-9a-f]{{10}}", one.id)
    assert submission_of("score", *S3).id != one.id
    assert submission_of("score", *S3, "--explain", variables={"A": "b"}).id != one.id


def test_a_day_is_filled_in_here():
    nightly = ("score", "s3://lake/{date}/", "-c", "s3://p/", "-o", "s3://m/{date-1}", "--date")
    found = submission_of(*nightly, "2026-11-20")
    assert found.command == ("score", "s3://lake/2026-11-20/", "--configurations", "s3://p/", "--output",
                             "s3://m/2026-11-19")  # fmt: skip
    assert found.id.startswith("csrm-score-2026-11-20-")
    assert submission_of(*nightly, "2026-11-21").id != found.id


def test_policies_travel_under_a_name_that_their_contents_give(tmp_path, policies):
    def of(folder):
        return submission_of("score", "s3://lake/", "-c", str(folder), "-o", "s3://m")

    copy = tmp_path / "elsewhere" / "policies"
    copy.mkdir(parents=True)
    for file in policies.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / ".hidden.yaml").write_text("no policy")
    (copy / "README.md").write_text("no policy")
    (copy / "large.bin").write_bytes(b"0" * 2**20)
    one, other = of(policies), of(copy)
    assert (one.id, one.entrypoint, one.files) == (other.id, other.entrypoint, other.files)
    staging.write_files(one.files, tmp_path / "there")
    assert load_configurations(tmp_path / "there" / one.command[3]) == load_configurations(policies)
    (copy / "game.yaml").write_text("id: game\nclauses: [do not kill anybody]\n")
    assert of(copy).id != one.id
    assert of(copy).command[3] != one.command[3]
    single = of(policies / "game.yaml")
    assert single.command[3].endswith("/game.yaml")
    assert list(single.files) == [single.command[3]]


def test_what_is_too_large_is_refused_with_the_largest_files(tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "MAX_BYTES", 100)
    (tmp_path / "small.txt").write_text("- do not lie\n")
    (tmp_path / "large.txt").write_text("- do not lie\n" * 20)
    with pytest.raises(CSRMError, match=r"more than the .* \S+large.txt .*, \S+small.txt"):
        submission_of("score", "s3://lake/", "-c", str(tmp_path), "-o", "s3://m")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("score", "chats.jsonl", *S3[1:]), "INPUT chats.jsonl: a path of this machine"),
        (("score", "/lake/chats.jsonl", *S3[1:]), "INPUT /lake/chats.jsonl: a path of this machine"),
        (("score", "file:///lake/chats.jsonl", *S3[1:]), "a path of this machine"),
        (("score", *S3[:4], "runs/out"), "--output runs/out: a path"),
        (("score", *S3, "--model", "models/mine"), "--model models/mine: a path"),
        (("score", *S3[:2], "nowhere/", *S3[3:]), "--configurations nowhere/: a path"),
        (("report", "s3://m", "--output", "page.html"), "--output page.html: a path"),
        (("train", "--data", "rows.jsonl", "--backbone", "b", "--output", "/x"), "--data rows.jsonl: a path"),
        (("train", "--data", "s3://r", "--backbone", "b", "--output", "/x"), "--data s3://r: .* on a filesystem alone"),
        (("train", "--data", "/r", "--output", "s3://b/m", "--backbone", "b"), "--data /r: .* and an absolute path"),
        (("evaluate", "--model", "./b", "--own", "/r"), "--(own|model) [./]+[br]: a path"),
        (("strictness", "--data", "rows.jsonl", "--output", "/x"), "--(data|output)"),
        (("score", "s3://key:secret@lake/", *S3[1:]), "URL with keys"),
        (("score", *S3, "--s3-endpoint", "http://me:secret@minio"), "URL with keys"),
        (("score", *S3, "--explian"), "--explian"),
        (("score", *S3[:2], "s3://p"), "Missing option"),
        (("score", "s3://lake/{date}", *S3[1:]), "which date"),
        (("scroe", *S3), "'scroe' is no command for a cluster; did you mean 'score'"),
        (("demo", "--output", "/x"), "'demo' is no command for a cluster"),
    ],
)
def test_what_cannot_run_there_is_refused_here_in_one_line(arguments, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").touch()
    result = CliRunner().invoke(cli, ["submit", "--dry-run", "--", *arguments])
    assert result.exit_code == 2, result.output
    assert re.search(message, result.output)
    assert "secret" not in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_policies_that_cannot_be_read_are_told_before_anything_is_sent(tmp_path):
    (tmp_path / "bad.yaml").write_text("clauses: 3\n")
    result = CliRunner().invoke(cli, ["submit", "--", "score", "s3://lake/", "-c", str(tmp_path), "-o", "s3://m"])
    assert result.exit_code == 2
    assert "bad.yaml: clauses must be a list" in result.output


def test_absolute_paths_are_taken_as_the_clusters_if_asked_to(policies):
    local = ("score", "/lake/chats.jsonl", "-c", str(policies), "-o", "/lake/out", "-m", "/lake/model")
    found = submission_of(*local, paths_on_cluster=True)
    assert found.command[3].startswith("policies-")
    assert {"/lake/chats.jsonl", "/lake/out", "/lake/model"} < set(found.command)
    with pytest.raises(CSRMError, match="a path of this machine"):
        submission_of("score", "chats.jsonl", *local[2:], paths_on_cluster=True)


@pytest.mark.parametrize(
    "variable",
    ["AWS_SECRET_ACCESS_KEY=x", "AWS_SESSION_TOKEN=x", "OPENAI_API_KEY=x", "PGPASSWORD=x", "U=http://a:b@c", "A", "=b"],
)
def test_no_secret_is_forwarded(variable):
    with pytest.raises(CSRMError, match="--env") as error:
        read_variables([variable])
    assert "a:b" not in str(error.value)


def test_nothing_of_this_environment_is_forwarded_but_what_is_named(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://minio:9000")
    found = submission_of("score", *S3, variables=read_variables(["AWS_ENDPOINT_URL_S3=http://minio:9000/a=b"]))
    assert found.environment == {**ALWAYS, "AWS_ENDPOINT_URL_S3": "http://minio:9000/a=b"}
    assert "secret" not in json.dumps([found.environment, found.entrypoint])


def test_reading_a_command_leaves_this_process_as_it_was(monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    assert "--s3-endpoint" in submission_of("score", *S3, "--s3-endpoint", "http://minio:9000").command
    assert "AWS_ENDPOINT_URL_S3" not in os.environ
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://mine")
    submission_of("score", *S3, "--s3-endpoint", "http://minio:9000")
    assert os.environ["AWS_ENDPOINT_URL_S3"] == "http://mine"


@pytest.mark.parametrize(("name", "ending"), [("score", "--num-gpus 4"), ("train", "--num-workers 4 --use-gpu")])
def test_gpus_are_the_commands_own_option(name, ending):
    arguments = {"score": S3, "train": ("--data", "/r", "--backbone", "org/model", "--output", "/x")}[name]
    flags = ["--dry-run", "--paths-on-cluster", "--num-gpus", "4"]
    result = CliRunner().invoke(cli, ["submit", *flags, "--", name, *arguments])
    assert result.exit_code == 0, result.output
    assert ending in result.output
    dashed = ["submit", "--dry-run", "--num-gpus", "4", "--", "score", *S3[1:], "--", S3[0]]
    assert CliRunner().invoke(cli, dashed).exit_code == 0, "the command's own -- ends its options"
    refused = CliRunner().invoke(cli, ["submit", "--dry-run", "--num-gpus", "4", "--", "report", "s3://m"])
    assert "--num-gpus is of score and train" in refused.output


def test_attempts_are_counted_by_number_and_not_mistaken_for_others():
    jobs = {name: name for name in ("j", "j-10", "j-2", "j-2-3", "jj", "j-x", "k-j-3", "j-9")}
    assert attempts_of("j", jobs) == ["j", "j-2", "j-9", "j-10"]
    assert attempts_of("none", jobs) == []


@pytest.mark.parametrize(
    ("latest", "following"), [(None, "j-9"), ("j-9", "j-9-2"), ("j-9-2", "j-9-3"), ("j-9-9", "j-9-10")]
)
def test_an_attempt_follows_the_latest_even_where_older_ones_were_deleted(latest, following):
    assert next_id("j-9", latest) == following


@pytest.mark.parametrize("number", [0, 1, 2])
def test_examples_of_the_help_mean_something(number, policies, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies").symlink_to(policies)
    help_text = CliRunner().invoke(cli, ["submit", "-h"]).output
    example = re.findall(r"^ +csrm (submit .*)$", help_text.split("Examples:")[1], re.M)[number]
    result = CliRunner().invoke(cli, ["submit", "--dry-run", *shlex.split(example)[1:]])
    assert result.exit_code == 0, result.output
    assert "id:       csrm-score-" in result.output
