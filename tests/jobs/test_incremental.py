"""A matrix grows by columns: what is current stays, what is not is scored, and one table is left behind."""

import json
import shutil
from collections import Counter

import duckdb
import pyarrow.parquet as pq
import pytest
from in_process import write_in_process

from jobs import pipeline
from jobs.commits import read_commits
from jobs.scoring import Scorer
from jobs.storage import Folder
from jobs.writing import Writer

NEW = "id: {id}\nclauses: [{{category: pins, guideline: {guideline}}}]\n"


@pytest.fixture
def scored_cells(in_process):
    """Cells that runs score from here on, by configuration."""
    cells = Counter()
    score = Scorer.score

    def count(self, encoded, names=None):
        scores = score(self, encoded, names)
        cells.update(dict.fromkeys(names or (), encoded.num_records))  # an estimate names none
        return scores

    in_process.setattr(Scorer, "score", count)
    return cells


@pytest.fixture
def own_policies(policies, tmp_path):
    """The two policies, free to change."""
    return shutil.copytree(policies, tmp_path / "policies")


@pytest.fixture
def run(score, own_policies, tmp_path):
    """Score a file of five records in shards of two."""
    lines = ["hello bank", "kill", "the weather", "pin", "a user"]
    (tmp_path / "five.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in lines))

    def score_five(*arguments, **places):
        result = score("five.jsonl", "--shard-rows", "2", *arguments, **{"configurations": own_policies} | places)
        assert result.exit_code == 0, result.output
        return result

    return score_five


def table(folder, columns="*"):
    return duckdb.sql(f"SELECT {columns} FROM '{folder}/matrix/**/*.parquet' ORDER BY source, row").to_arrow_table()


def same_scores(folder, other, name):
    fields = f"reward.{name}, p_safe.{name}"
    return table(folder, fields) == table(other, fields)


def test_a_new_configuration_is_scored_alone(run, own_policies, scored_cells, tmp_path):
    run()
    before = table(tmp_path / "out")
    assert scored_cells == {"bank": 5, "game": 5}
    (own_policies / "pins.yaml").write_text(NEW.format(id="pins", guideline="ask for no pin"))
    scored_cells.clear()
    result = run()
    assert scored_cells == {"pins": 5}
    assert "5 records · 15 cells" in result.stdout
    after = table(tmp_path / "out")
    assert after.column_names == before.column_names
    assert [field.name for field in after.schema.field("reward").type] == ["bank", "game", "pins"]
    for name in ("bank", "game"):
        assert after["reward"].combine_chunks().field(name) == before["reward"].combine_chunks().field(name)
    run(output=tmp_path / "at once")
    assert all(same_scores(tmp_path / "out", tmp_path / "at once", name) for name in ("bank", "game", "pins"))
    assert "everything was scored already" in run().stderr


def test_grown_files_are_those_of_one_run(run, own_policies, in_process, tmp_path):
    """Byte for byte, manifest aside: how a matrix came to be cannot be seen in it."""
    pins = own_policies / "a_pins.yaml"
    pins.write_text(NEW.format(id="pins", guideline="ask for no pin"))
    run("--explain", output=tmp_path / "at once")
    pins.unlink()
    run("--explain")
    pins.write_text(NEW.format(id="pins", guideline="ask for no pin"))
    run()
    for folder in ("matrix", "_csrm/commits"):
        files = [{p.name: p.read_bytes() for p in (tmp_path / out / folder).iterdir()} for out in ("out", "at once")]
        assert files[0] == files[1]


def test_changed_clauses_are_scored_anew_and_no_others(run, own_policies, scored_cells, tmp_path):
    run()
    before = table(tmp_path / "out")
    (own_policies / "bank.yaml").write_text(NEW.format(id="bank", guideline="hello user"))
    scored_cells.clear()
    dry = run("--dry-run").stdout
    assert [line.split() for line in dry.splitlines() if "clauses changed" in line] == [
        ["bank", "5", "clauses", "changed"]
    ]
    run()
    assert scored_cells == {"bank": 5}
    after = table(tmp_path / "out")
    assert after["reward"].combine_chunks().field("bank") != before["reward"].combine_chunks().field("bank")
    assert after["reward"].combine_chunks().field("game") == before["reward"].combine_chunks().field("game")


def test_a_removed_configuration_stays_until_it_is_pruned(run, own_policies, scored_cells, tmp_path):
    run("--explain")
    (own_policies / "game.yaml").unlink()
    scored_cells.clear()
    result = run()
    assert "columns of other configurations stay as they are: game; --prune drops them" in result.stderr
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert [c["id"] for c in manifest["configurations"]] == ["bank", "game"]
    assert set(manifest["columns"]) == {"bank", "game"}
    assert "game" not in run("--prune").stderr
    assert scored_cells == {}
    for struct in ("reward", "p_safe", "worst_clause"):
        assert [field.name for field in table(tmp_path / "out").schema.field(struct).type] == ["bank"]
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert [c["id"] for c in manifest["configurations"]] == ["bank"]
    run("--explain", output=tmp_path / "at once")
    assert table(tmp_path / "out") == table(tmp_path / "at once")


def test_a_new_policy_given_alone_adds_its_column(run, own_policies, scored_cells, tmp_path):
    run()
    alone = tmp_path / "pins.yaml"
    alone.write_text(NEW.format(id="pins", guideline="ask for no pin"))
    scored_cells.clear()
    run(configurations=alone)
    assert scored_cells == {"pins": 5}
    assert [field.name for field in table(tmp_path / "out").schema.field("reward").type] == ["bank", "game", "pins"]
    assert table(tmp_path / "out", "reward.game")["game"].null_count == 0


def test_further_records_have_no_scores_under_configurations_not_given(run, own_policies, score, in_process, tmp_path):
    (tmp_path / "in").mkdir()
    shutil.copy(tmp_path / "five.jsonl", tmp_path / "in/a.jsonl")
    assert score("in", configurations=own_policies).exit_code == 0
    (own_policies / "game.yaml").unlink()
    shutil.copy(tmp_path / "five.jsonl", tmp_path / "in/b.jsonl")
    result = score("in", configurations=own_policies)
    assert result.exit_code == 0, result.output
    rows = table(tmp_path / "out", "source, error, reward.bank, reward.game").to_pylist()
    assert [row["game"] is None for row in rows] == [False] * 5 + [True] * 5
    assert all(row["bank"] is not None and row["error"] is None for row in rows)


def test_files_that_are_no_longer_in_the_input_get_empty_columns(run, own_policies, score, in_process, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        shutil.copy(tmp_path / "five.jsonl", tmp_path / f"in/{name}.jsonl")
    assert score("in", configurations=own_policies).exit_code == 0
    (tmp_path / "in/a.jsonl").unlink()
    (own_policies / "pins.yaml").write_text(NEW.format(id="pins", guideline="ask for no pin"))
    assert score("in", "--explain", configurations=own_policies).exit_code == 0
    rows = table(tmp_path / "out", "source, reward.bank, reward.pins, worst_clause.bank AS worst").to_pylist()
    assert [row["pins"] is None for row in rows] == [True] * 5 + [False] * 5
    assert [row["worst"] is None for row in rows] == [True] * 5 + [False] * 5
    assert all(row["bank"] is not None for row in rows)
    schemas = {str(pq.read_schema(path)) for path in (tmp_path / "out/matrix").rglob("*.parquet")}
    assert len(schemas) == 1


def test_another_model_and_another_calibration_redo_what_they_change(run, model_folder, scored_cells, tmp_path):
    run()
    other = shutil.copytree(model_folder, tmp_path / "other")
    facts = json.loads((other / "csrm.json").read_text())
    (other / "csrm.json").write_text(json.dumps(facts | {"calibration": {"scale": 2.0, "bias": 0.0}}))
    scored_cells.clear()
    assert "calibration changed" in run("--dry-run", model=other).stdout
    run(model=other)
    assert scored_cells == {"bank": 5, "game": 5}
    run(model=other, output=tmp_path / "at once")
    assert table(tmp_path / "out") == table(tmp_path / "at once")


def test_a_changed_file_is_scored_anew_and_others_are_not(own_policies, score, scored_cells, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        (tmp_path / f"in/{name}.jsonl").write_text('{"text": "hello"}\n' * 3)
    assert score("in", configurations=own_policies).exit_code == 0
    (tmp_path / "in/b.jsonl").write_text('{"text": "kill"}\n' * 4)
    scored_cells.clear()
    dry = score("in", "--dry-run", configurations=own_policies).stdout
    assert [line.split() for line in dry.splitlines() if "input changed" in line] == [
        [name, "4", "input", "changed"] for name in ("bank", "game")
    ]
    assert score("in", configurations=own_policies).exit_code == 0
    assert scored_cells == {"bank": 4, "game": 4}
    assert table(tmp_path / "out", "source")["source"].to_pylist() == ["a.jsonl"] * 3 + ["b.jsonl"] * 4


def test_a_kill_between_files_and_record_leaves_the_same_matrix(run, own_policies, in_process, tmp_path):
    """The files have the new columns, the records do not say so yet."""
    run()
    records = {path: path.read_bytes() for path in (tmp_path / "out/_csrm/commits").iterdir()}
    (own_policies / "pins.yaml").write_text(NEW.format(id="pins", guideline="ask for no pin"))
    run()
    whole = table(tmp_path / "out")
    for path, record in list(records.items())[:2]:
        path.write_bytes(record)
    run()
    assert table(tmp_path / "out") == whole
    assert all(len(c["columns"]) == 3 for c in read_commits(Folder.at(str(tmp_path / "out"))).values())


def test_columns_grow_within_partition_folders(score, own_policies, in_process, tmp_path):
    """Rows of a shard lie in several files; kept scores find their rows again."""
    records = [{"text": t, "lang": lang} for t, lang in zip(["kill", "pin", "bank", "the", "a"], "abaab", strict=True)]
    (tmp_path / "five.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    arguments = ["five.jsonl", "--partition-by", "lang"]
    assert score(*arguments, configurations=own_policies).exit_code == 0
    (own_policies / "pins.yaml").write_text(NEW.format(id="pins", guideline="ask for no pin"))
    assert score(*arguments, configurations=own_policies).exit_code == 0
    assert score(*arguments, configurations=own_policies, output=tmp_path / "at once").exit_code == 0
    assert table(tmp_path / "out") == table(tmp_path / "at once")


def test_a_run_that_stops_half_way_goes_on_with_what_is_left(run, own_policies, scored_cells, in_process):
    run()
    (own_policies / "pins.yaml").write_text(NEW.format(id="pins", guideline="ask for no pin"))
    scored_cells.clear()
    in_process.setattr(pipeline, "score_shards", lambda pending, job: write_in_process(pending[:1], job))
    with pytest.raises(AssertionError, match="2 shards are missing"):
        run()
    in_process.setattr(pipeline, "score_shards", write_in_process)
    assert scored_cells == {"pins": 2}
    run()
    assert scored_cells == {"pins": 5}


def test_a_writer_that_dies_between_the_files_of_a_shard_is_tried_again(run, own_policies, in_process, tmp_path):
    """Then some of its files have further columns and some do not."""
    run("--partition-by", "text")
    (own_policies / "pins.yaml").write_text(NEW.format(id="pins", guideline="ask for no pin"))
    run("--partition-by", "text", output=tmp_path / "at once")
    publish, write, published = Folder.publish, Writer.__call__, []

    def die_once(self, name, data):
        published.append(name)
        if name.startswith("matrix/") and len([name for name in published if name.startswith("matrix/")]) == 2:
            raise ProcessLookupError
        publish(self, name, data)

    def again(self, batch):
        try:
            return write(self, batch)
        except ProcessLookupError:
            return write(self, batch)

    in_process.setattr(Folder, "publish", die_once)
    in_process.setattr(Writer, "__call__", again)
    run("--partition-by", "text")
    assert table(tmp_path / "out") == table(tmp_path / "at once")


@pytest.fixture
def pins_alone(tmp_path):
    path = tmp_path / "pins.yaml"
    path.write_text(NEW.format(id="pins", guideline="ask for no pin"))
    return path


@pytest.fixture
def killed(in_process):
    """Run something that ends when it is about to publish a certain file for the second time."""

    def run_until(run, is_it):
        publish, seen = Folder.publish, []

        def publish_or_die(self, name, data):
            seen.extend([name] if is_it(name) else [])
            if is_it(name) and len(seen) == 2:
                raise KeyboardInterrupt
            publish(self, name, data)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Folder, "publish", publish_or_die)
            with pytest.raises(AssertionError):
                run()

    return run_until


KILL = 11
"""Token of the word."""


def is_record(name):
    return name.startswith("_csrm/commits/")


def is_part(name):
    return name.startswith("matrix/")


@pytest.mark.parametrize("moment", [is_record, is_part])
@pytest.mark.parametrize("after", ["the same again", "the first ones again"])
def test_who_adds_a_column_and_is_killed_loses_no_other(run, pins_alone, killed, tmp_path, moment, after):
    run()
    before = table(tmp_path / "out", "record_id, reward.bank, reward.game, p_safe.bank, p_safe.game")
    killed(lambda: run(configurations=pins_alone), moment)
    run(**({"configurations": pins_alone} if after == "the same again" else {}))
    for record in read_commits(Folder.at(str(tmp_path / "out"))).values():
        assert set(record["summary"]) == {name for name, column in record["columns"].items() if column}
    assert table(tmp_path / "out", "record_id, reward.bank, reward.game, p_safe.bank, p_safe.game") == before
    run(configurations=pins_alone)
    run(configurations=pins_alone, output=tmp_path / "pins")
    same_scores(tmp_path / "out", tmp_path / "pins", "pins")


def test_who_changes_a_policy_is_killed_and_changes_it_back_has_the_old_scores(
    run, own_policies, policies, killed, tmp_path, scored_cells
):
    run()
    before = table(tmp_path / "out")
    (own_policies / "bank.yaml").write_text(NEW.format(id="bank", guideline="kill"))
    killed(run, is_record)
    shutil.copy(policies / "bank.yaml", own_policies / "bank.yaml")
    scored_cells.clear()
    run()
    assert table(tmp_path / "out") == before
    assert scored_cells["bank"] == 2, "of one shard nobody could tell"


def test_why_a_record_has_no_scores_is_told_as_long_as_it_has_none(run, own_policies, pins_alone, in_process, tmp_path):
    score = Scorer.score

    def fail(self, encoded, names=None):
        if "bank" in (names or ()) and KILL in encoded.input_ids:
            raise RuntimeError("no memory")
        return score(self, encoded, names)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scorer, "score", fail)
        run("--max-error-rate", "1")
    told = table(tmp_path / "out", "row, error")
    assert told["error"].null_count < 5, "the test fails nothing"
    run("--max-error-rate", "1", configurations=pins_alone)
    assert table(tmp_path / "out", "row, error") == told
    scored = table(tmp_path / "out", "reward.pins, reward.bank")
    assert scored["pins"].null_count == 0
    assert scored["bank"].null_count == 5 - told["error"].null_count
