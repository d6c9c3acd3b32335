"""`csrm report` from the command line: what it prints, writes and refuses."""

import json
import shutil

import pytest
from click.testing import CliRunner

from jobs.cli import cli

pytestmark = pytest.mark.usefixtures("in_process")

TEXTS = ["hello bank", "kill kill the user", "the weather", "a pin", "hello 1 2 3", "user assistant bank weather"]


def write_night(folder, num_texts, num_rows=60):
    """Two locales; one record in each is none."""
    for number, locale in enumerate(("de", "fr")):
        place = folder / f"locale={locale}"
        place.mkdir(parents=True)
        lines = [
            {"text": TEXTS[row % (num_texts - number)], "model": f"m{row % 2}", "id": f"{locale}{row}"}
            for row in range(num_rows)
        ]
        (place / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"text": 5}]))
    return folder


@pytest.fixture(scope="module")
def matrices(tmp_path_factory, model_folder, policies):
    """Two nights, scored; the second has other texts."""
    from in_process import write_in_process

    from jobs import pipeline

    root = tmp_path_factory.mktemp("nights")
    with pytest.MonkeyPatch.context() as patch:
        import contextlib

        patch.setattr(pipeline, "cluster", contextlib.nullcontext)
        patch.setattr(pipeline, "score_shards", write_in_process)
        for name, num_texts in (("first", 6), ("second", 3)):
            write_night(root / name, num_texts)
            options = ["-c", str(policies), "-m", str(model_folder), "-o", str(root / f"{name}-matrix")]
            more = [
                "--explain",
                "--shard-rows",
                "7",
                "--keep-columns",
                "model",
                "--id-column",
                "id",
                "--max-error-rate",
                "1",
            ]
            result = CliRunner().invoke(cli, ["score", str(root / name), *options, *more])
            assert result.exit_code == 0, result.output
    return root


@pytest.fixture
def report(matrices):
    def run(*arguments, matrix="first-matrix"):
        return CliRunner().invoke(cli, ["report", str(matrices / matrix), *map(str, arguments)], env={"COLUMNS": "100"})

    return run


def read_rows(matrices, name="first-matrix"):
    import pyarrow.dataset as ds

    return ds.dataset(matrices / name / "matrix", partitioning="hive").to_table().to_pylist()


def test_json_agrees_with_the_rows(report, matrices):
    result = report("--json", "--by", "model")
    assert result.exit_code == 0, result.output
    found, rows = json.loads(result.stdout), read_rows(matrices)
    assert (found["num_rows"], found["num_errors"]) == (122, 2)
    violating = 0
    for column in found["columns"]:
        scores = [row["p_safe"][column["id"]] for row in rows if row["error"] is None]
        assert column["rate"]["total"] == len(scores)
        assert column["rate"]["count"] == sum(score < column["threshold"] for score in scores)
        assert column["mean_p_safe"] == pytest.approx(sum(scores) / len(scores))
        violating += column["rate"]["count"]
        clauses = [row["worst_clause"][column["id"]] for row in rows if (row["p_safe"][column["id"]] or 1) < 0.5]
        assert dict(column["clauses"]) == {clause: clauses.count(clause) for clause in set(clauses)}
    assert violating, "nothing to count"
    assert set(found["partitions"]) == {"locale", "model"}
    for part in found["partitions"]["model"]:
        own = [row for row in rows if (row["model"] or "") == part["value"]]
        assert (part["num_rows"], part["num_errors"]) == (len(own), sum(row["error"] is not None for row in own))


def test_summary_of_the_run_and_the_report_agree(report, matrices):
    from jobs.commits import read_commits
    from jobs.storage import Folder
    from jobs.summary import sum_commits

    totals = sum_commits(read_commits(Folder.at(str(matrices / "first-matrix"))).values())
    for column in json.loads(report("--json").stdout)["columns"]:
        expected = totals.configurations[column["id"]]
        assert (column["rate"]["count"], column["rate"]["total"]) == (expected.num_violations, expected.num_scored)
        assert column["mean_p_safe"] == pytest.approx(expected.mean_p_safe)


def test_the_terminal_shows_rates_partitions_and_errors(report):
    result = report()
    assert result.exit_code == 0, result.output
    head = result.stdout.splitlines()[0].split()
    assert head[:4] == ["configuration", "records", "violations", "95"]
    assert "locale=" in result.stdout
    assert "rows violate both" in result.stdout
    assert "2 rows without scores: column 'text'" in result.stdout
    assert "122 rows · 240 cells" in result.stdout
    assert "change" not in result.stdout


def test_a_baseline_shows_what_changed(report, matrices):
    found = json.loads(report("--baseline", matrices / "first-matrix", "--json", matrix="second-matrix").stdout)
    before = {one["id"]: one for one in json.loads(report("--json").stdout)["columns"]}
    for column in found["columns"]:
        assert column["change"]["rate"] == before[column["id"]]["rate"]
        assert column["change"]["mean_p_safe"] == before[column["id"]]["mean_p_safe"]
        assert column["change"]["notes"] == []
    same = json.loads(report("--baseline", matrices / "first-matrix", "--json").stdout)
    assert [one["change"]["drift"] for one in same["columns"]] == [0.0, 0.0]
    assert [one["change"]["p_value"] for one in same["columns"]] == [1.0, 1.0]
    shown = report("--baseline", matrices / "first-matrix", matrix="second-matrix").stdout
    assert {"change", "drift"} <= set(shown.splitlines()[0].split())


def test_what_else_changed_is_said(report, matrices, tmp_path):
    """A text of the baseline's, and its model, are another's."""
    other = tmp_path / "other"
    shutil.copytree(matrices / "first-matrix", other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["columns"]["game"][0]["configuration"] = "0" * 64
    manifest["columns"]["bank"][0]["model"] = "0" * 64
    (other / "manifest.json").write_text(json.dumps(manifest))
    result = report("--baseline", other)
    assert "game: its text changed since the baseline" in result.stdout
    assert "bank: another model since the baseline" in result.stdout


@pytest.mark.parametrize(
    ("options", "exit_code", "lines"),
    [
        (["--max-violation-rate", "game=1", "--max-error-rate", "0.5"], 0, []),
        (["--max-violation-rate", "game=0.0001"], 3, ["gate violation rate of game: "]),
        (["--max-violation-rate", "0.0001", "--max-violation-rate", "bank=1"], 3, ["gate violation rate of game: "]),
        (["--max-error-rate", "0.01"], 3, ["gate error rate: 0.0163934 (2 of 122), the limit is 0.01"]),
        (["--max-error-rate", "0", "--max-violation-rate", "game=0"], 3, ["gate violation rate of game", "gate error"]),
    ],
)
def test_limits_decide_the_exit_code(report, options, exit_code, lines):
    result = report(*options)
    assert result.exit_code == exit_code, result.output
    gates = [line for line in result.stderr.splitlines() if line.startswith("gate ")]
    assert len(gates) == len(lines)
    assert all(gate.startswith(line) for gate, line in zip(gates, lines, strict=True))


def test_drift_has_a_limit(report, matrices):
    assert report("--baseline", matrices / "first-matrix", "--max-drift", "0").exit_code == 0
    moved = report("--baseline", matrices / "first-matrix", "--max-drift", "0", matrix="second-matrix")
    assert moved.exit_code == 3
    assert "gate drift of bank: " in moved.stderr
    assert "by chance" in moved.stderr


def test_a_gate_fails_where_nothing_was_scored(report, matrices, score, tmp_path):
    (tmp_path / "broken.jsonl").write_text('{"text": 5}\n')
    assert score("broken.jsonl", "--max-error-rate", "1").exit_code == 0
    result = report("--max-violation-rate", "1", matrix=tmp_path / "out")
    assert result.exit_code == 3
    assert result.stderr.count("nothing was scored, the limit is 1") == 2
    assert report("--max-error-rate", "0.9", matrix=tmp_path / "out").exit_code == 3


def test_lost_rows_count_as_errors(report, matrices, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(matrices / "first-matrix", other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["lost"] = [{"source": "x", "row_start": 0, "num_rows": 120, "reason": "gone", "num_bytes": 0}]
    (other / "manifest.json").write_text(json.dumps(manifest))
    result = report("--max-error-rate", "0.4", matrix=other)
    assert result.exit_code == 3
    assert "gate error rate: 0.504132 (122 of 242)" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-violation-rate", "gam=0.1"], "--max-violation-rate gam: no such configuration; did you mean 'game'?"),
        (["--max-violation-rate", "game=x"], "'game=x' is not ID=RATE, as in children=0.02"),
        (["--max-violation-rate", "game=2"], "'game=2': a rate lies between 0 and 1"),
        (["--max-violation-rate", "game=nan"], "'game=nan': a rate lies between 0 and 1"),
        (["--by", "modle"], "--by modle: no such column in the matrix; did you mean 'model'"),
        (["--by", "reward"], "--by reward: rows cannot be grouped by struct<"),
        (["--max-drift", "0.2"], "--max-drift compares with a --baseline; give one"),
        (["--baseline", "nowhere"], "nowhere: no finished matrix here; run csrm score to its end"),
        (["--output", "/dev/null/page.html"], "/dev/null/page.html: cannot be written"),
    ],
)
def test_mistakes_end_in_one_line(report, options, message):
    result = report(*options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not result.stdout


def test_drift_without_a_common_configuration_is_refused(report, matrices, score, tmp_path):
    (tmp_path / "one.yaml").write_text("id: other\nclauses:\n- {category: a, guideline: do not kill}\n")
    assert score("-", configurations=tmp_path / "one.yaml").exit_code == 0
    result = report("--baseline", tmp_path / "out", "--max-drift", "1")
    assert result.exit_code == 2
    assert "the baseline has none of the configurations" in result.stderr
    assert report("--baseline", tmp_path / "out").exit_code == 0


def test_the_page_is_written_whole_and_keeps_texts_out_when_told(report, tmp_path):
    page = tmp_path / "deep" / "page.html"
    result = report("--output", page)
    assert result.exit_code == 0, result.output
    assert any(text in page.read_text() for text in ("hello bank", "kill kill the user"))
    assert [file.name for file in page.parent.iterdir()] == ["page.html"]
    assert report("--output", page, "--worst", "0").exit_code == 0
    assert not any(text in page.read_text() for text in ("hello bank", "kill kill the user"))
    assert "Worst records" not in page.read_text()


def test_texts_that_are_gone_are_said_to_be(report, matrices, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(matrices / "first-matrix", other)
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps(manifest | {"input": "/nowhere"}))
    page = tmp_path / "page.html"
    assert report("--output", page, matrix=other).exit_code == 0
    assert "/nowhere/locale=de/a.jsonl: no such file" in page.read_text()


def test_the_help_has_an_example_that_runs(report, matrices, tmp_path, monkeypatch):
    """Each example of `csrm report -h`, over the matrices here."""
    import shlex

    monkeypatch.chdir(tmp_path)
    for name, place in (("chats", "first"), ("tonight", "second"), ("last-night", "first")):
        shutil.copytree(matrices / f"{place}-matrix", tmp_path / "runs" / name)
    text = CliRunner().invoke(cli, ["report", "-h"], terminal_width=200).output
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith("csrm report runs")]
    assert len(lines) == 3
    for line in lines:
        words = shlex.split(line.replace("children_app", "game").replace("lang", "model"))
        result = CliRunner().invoke(cli, words[1:])
        assert result.exit_code in (0, 3), result.output
    assert (tmp_path / "report.html").exists()


def test_matrix_baseline_and_page_may_lie_in_an_object_store(score, connect, request, tmp_path, matrices):
    """The page says what the page of the same matrix on disk says; a store that refuses us is told in one line."""
    from jobs.storage import Folder, open_location

    place = f"s3://bucket/{request.node.name.replace('[', '-').rstrip(']')}"
    for file in sorted((matrices / "first").rglob("*.jsonl")):
        Folder.at(place).publish(f"in/{file.relative_to(matrices / 'first')}", file.read_bytes())
    result = score(f"{place}/in", "--keep-columns", "model", "--max-error-rate", "1", output=f"{place}/out")
    assert result.exit_code == 0, result.output
    given = [f"{place}/out", "--baseline", f"{place}/out", "--output", f"{place}/pages/page.html", "--by", "model"]
    result = CliRunner().invoke(cli, ["report", *given, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    local = json.loads(CliRunner().invoke(cli, ["report", str(matrices / "first-matrix"), "--json"]).stdout)
    assert [one["rate"] for one in found["columns"]] == [one["rate"] for one in local["columns"]]
    filesystem, path = open_location(f"{place}/pages/page.html")
    page = filesystem.cat_file(path).decode()
    assert any(text in page for text in ("hello bank", "kill kill the user"))
    connect(secret="wrong")
    refused = CliRunner().invoke(cli, ["report", f"{place}/out"])
    if refused.exit_code:  # moto checks no credentials
        assert refused.exit_code == 2
        assert "access denied" in refused.stderr
        assert refused.stderr.count("\n") == 1
