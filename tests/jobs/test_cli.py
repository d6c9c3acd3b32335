"""Every command is documented; every mistake ends in one line and exit code 2."""

import json

import click
import pytest
from click.testing import CliRunner
from in_process import write_in_process

from csrm.errors import InputError
from jobs import pipeline
from jobs.cli import cli
from jobs.commits import read_commits
from jobs.storage import Folder


def commands(group, path=()):
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


@pytest.mark.parametrize(
    ("path", "command"),
    [*commands(cli)],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_every_command_and_option_is_documented(path, command):
    result = CliRunner().invoke(cli, [*path, "-h"])
    assert result.exit_code == 0
    assert "Example" in result.output
    for option in command.params:
        assert isinstance(option, click.Argument) or option.help, f"{option.opts} has no help"


def test_version():
    import csrm

    assert CliRunner().invoke(cli, ["--version"]).output.strip().endswith(csrm.__version__)


def one_line(result):
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    [line] = result.stderr.strip().splitlines()
    assert line.startswith("Error: ")
    return line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--limit", "0"], "--limit"),
        (["--limit", "many"], "--limit"),
        (["--max-error-rate", "2"], "--max-error-rate"),
        (["--nonsense"], "--nonsense"),
        (["--keep-columns", "a,,b"], "empty name"),
        (["--keep-columns", "p_safe"], "'p_safe' has the name of one of the matrix's own"),
        (["--keep-columns", "a", "--partition-by", "a"], "'a' is named twice"),
        (["--text-column", "a", "--messages-column", "b"], "not several"),
        (["--id-column", "name"], "good.jsonl: no column 'name' in the input; columns found: text"),
        (["--partition-by", "lang"], "no column 'lang'"),
        (["--text-column", "body"], "no column 'body'"),
    ],
)
def test_bad_options(score, arguments, message):
    assert message in one_line(score("-", *arguments))


def test_bad_places(score, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "empty.yaml").write_text("id: x\nclauses: []\n")
    assert "missing.jsonl: no such file" in one_line(score("missing.jsonl"))
    assert "empty: no conversation files here" in one_line(score("empty"))
    assert "empty.jsonl: no records" in one_line(score("empty.jsonl"))
    assert "nowhere" in one_line(score("-", configurations=tmp_path / "nowhere"))
    assert "empty.yaml" in one_line(score("-", configurations=tmp_path / "empty.yaml"))
    assert "csrm.json" in one_line(score("-", model=tmp_path / "nowhere"))


def test_output_inside_the_input_folder_is_refused(score, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jsonl").write_text('{"text": "hello"}\n')
    assert "lies inside the input folder" in one_line(score("in", output=tmp_path / "in/out"))


def test_partition_folder_of_the_input_is_not_kept_twice(score, tmp_path):
    (tmp_path / "in/lang=en").mkdir(parents=True)
    (tmp_path / "in/lang=en/a.jsonl").write_text('{"text": "hello", "lang": "en"}\n')
    assert "'lang' is a partition folder" in one_line(score("in", "--keep-columns", "lang"))


def test_dry_run_writes_nothing(score, tmp_path):
    result = score("-", "--dry-run", "--shard-rows", "1")
    assert result.exit_code == 0, result.output
    shown = dict(line.rsplit(maxsplit=1) for line in result.stdout.splitlines() if "dry run" not in line)
    assert shown["shards"] == "2"
    assert shown["records to score"] == "2"
    assert shown["cells to score"] == "4"
    assert shown["tokens (estimate)"] == "11"  # [CLS] user : hello bank [SEP], and without hello
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("in_process")
def test_input_and_output_may_be_on_another_filesystem(policies, model_folder, tmp_path):
    import fsspec

    root = f"memory://{tmp_path.name}"
    for name in ("lang=en/a.jsonl", "lang=en/_b.jsonl", "lang=he/c.jsonl"):
        fsspec.filesystem("memory").pipe(f"{root}/in/{name}", b'{"text": "hello"}\n{"text": "kill"}\n')
    for location in ("in", "in/*/*.jsonl"):
        arguments = [f"{root}/{location}", "-c", str(policies), "-o", f"{root}/out", "-m", str(model_folder)]
        result = CliRunner().invoke(cli, ["score", *arguments])
        assert result.exit_code == 0, result.output
        assert "4 records · 8 cells · 0 errors" in result.stdout
    assert "everything was scored already" in result.stderr
    folder = Folder.at(f"{root}/out")
    assert [name.rpartition("/")[0] for name in folder.sizes("matrix")] == [
        "matrix/lang=en",
        "matrix/lang=he",
    ]
    assert len(read_commits(folder)) == 2
    assert "manifest.json" in folder.sizes("")


@pytest.mark.usefixtures("in_process")
def test_a_clause_that_was_split_is_reported_once(score, tmp_path):
    long = tmp_path / "long.yaml"
    long.write_text("id: long\nclauses: [{category: a, guideline: '" + "do not kill. " * 30 + "'}]\n")
    result = score("-", "--shard-rows", "1", configurations=long)
    assert result.exit_code == 0, result.output
    warnings = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1
    assert "it was split into" in warnings[0]
    assert "it was split into" in score("-", "--dry-run", "--overwrite", configurations=long).stdout


@pytest.mark.usefixtures("in_process")
def test_too_many_errors_are_an_exit_code(score, tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"text": "hello"}\n{"text": "cut in ha\n')
    result = score("bad.jsonl")
    assert result.exit_code == 3
    assert "1 of 2 rows have no scores, more than --max-error-rate 0.01 allows" in result.stderr
    assert "2 records · 2 cells · 1 errors" in result.stdout
    assert (tmp_path / "out/manifest.json").exists(), "the matrix is complete, it only has too many errors"
    assert score("bad.jsonl", "--max-error-rate", "0.5").exit_code == 0


def test_interrupted_run_keeps_what_is_committed_and_resumes(score, tmp_path, in_process):
    def interrupted(pending, job):
        yield next(write_in_process(pending[:1], job))
        raise KeyboardInterrupt

    in_process.setattr(pipeline, "score_shards", interrupted)
    result = score("-", "--shard-rows", "1")
    assert result.exit_code == 130
    assert "the same command resumes" in result.stderr
    assert len(read_commits(Folder.at(str(tmp_path / "out")))) == 1
    assert not (tmp_path / "out/manifest.json").exists()

    resumed = []

    def watched(pending, job):
        resumed.extend(pending)
        yield from write_in_process(pending, job)

    in_process.setattr(pipeline, "score_shards", watched)
    assert score("-", "--shard-rows", "1").exit_code == 0
    assert [work.shard.row_start for work in resumed] == [1]
    assert "everything was scored already" in score("-", "--shard-rows", "1").stderr
    assert len(resumed) == 1


def test_shards_that_did_not_arrive_are_named(score, tmp_path, in_process):
    in_process.setattr(pipeline, "score_shards", lambda pending, job: write_in_process(pending[1:], job))
    result = score("-", "--shard-rows", "1")
    assert result.exit_code == 1
    assert "1 shards are missing, run again: good-0000000000-" in result.stderr
    assert "good.jsonl, rows from 0" in result.stderr
    assert not (tmp_path / "out/manifest.json").exists()


def test_trial_then_whole_then_refused_trial(score, tmp_path, in_process):
    assert score("-", "--limit", "1").exit_code == 0
    assert score("-").exit_code == 0
    assert len(list((tmp_path / "out/matrix").iterdir())) == 1
    assert "holds more rows of good.jsonl than the 1 asked for" in one_line(score("-", "--limit", "1"))


def test_rows_of_another_kind_are_refused_and_replaced_when_told(score, tmp_path, in_process, policies):
    assert score("-").exit_code == 0
    assert "other options" in one_line(score("-", "--id-column", "text"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other/good.jsonl").write_text('{"text": "hello"}\n')
    assert "other input" in one_line(score("other"))
    assert score("other", "--overwrite", configurations=policies / "game.yaml").exit_code == 0
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert [configuration["id"] for configuration in manifest["configurations"]] == ["game"]


def test_files_of_others_stop_an_overwrite_before_anything_is_gone(score, tmp_path, in_process):
    assert score("-").exit_code == 0
    (tmp_path / "out/matrix/part-0.parquet").touch()
    before = sorted(tmp_path.rglob("*.parquet"))
    assert "part-0.parquet: not written by csrm score" in one_line(score("-", "--overwrite"))
    assert before == sorted(tmp_path.rglob("*.parquet"))


@pytest.mark.usefixtures("in_process")
def test_paths_are_shown_as_they_are(score, tmp_path):
    result = score("-", output=tmp_path / "[red] out")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1].endswith(f"{tmp_path}/[red] out")


def test_errors_of_ours_are_not_hidden(score, in_process):
    def broken(pending, job):
        raise ZeroDivisionError("a bug")

    in_process.setattr(pipeline, "score_shards", broken)
    assert isinstance(score("-").exception, ZeroDivisionError)


def test_errors_of_workers_are_one_line(score, in_process):
    def broken(pending, job):
        raise InputError("good.jsonl: changed while the job ran; run it again")

    in_process.setattr(pipeline, "score_shards", broken)
    assert "changed while the job ran" in score("-").stderr.splitlines()[-1]
