"""A rerun with everything committed costs a listing: no input is opened, and no commit record."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import shards
from jobs.commits import INDEX, read_commits
from jobs.packed import encode
from jobs.storage import Folder


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    lines = [json.dumps({"text": f"hello {n}"}) for n in range(7)]
    (folder / "a.jsonl").write_text("\n".join(lines))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    pq.write_table(pa.table({"text": ["kill", "pin", "bank"]}), folder / "c.parquet")
    return folder


@pytest.fixture
def rerun(score, in_process, corpus, tmp_path):
    """Score the corpus once, then again; returns what the second run opened and read."""
    assert score("in", "--shard-rows", "3").exit_code == 0
    seen = []
    open_file, read = shards.open_file, Folder.read
    in_process.setattr(shards, "open_file", lambda system, path: seen.append(path) or open_file(system, path))
    in_process.setattr(Folder, "read", lambda self, names: seen.extend(names) or read(self, names))

    def again(*arguments):
        seen.clear()
        result = score("in", *arguments or ("--shard-rows", "3"))
        assert result.exit_code == 0, result.output
        few = ("_csrm/lock", "_csrm/configurations")  # one for each policy, whose title or threshold may have changed
        return [name.removeprefix(f"{tmp_path}/") for name in seen if not name.startswith(few)], result.stderr

    return again


def test_nothing_is_opened(rerun):
    seen, told = rerun()
    assert "everything was scored already" in told
    assert set(seen) == {INDEX}


def test_of_a_changed_corpus_only_what_changed_is_opened(rerun, corpus):
    (corpus / "a.jsonl").write_text('{"text": "hello"}\n')
    (corpus / "new.jsonl").write_text('{"text": "hello"}\n')
    seen, _ = rerun()
    assert {name for name in seen if name.startswith("in/")} == {"in/a.jsonl", "in/new.jsonl"}


def test_shards_stay_as_they_were_cut(rerun, tmp_path):
    before = read_commits(Folder.at(str(tmp_path / "out"))).keys()
    seen, told = rerun("--shard-rows", "100")
    assert "everything was scored already" in told
    assert not [name for name in seen if name.startswith("in/")]
    assert read_commits(Folder.at(str(tmp_path / "out"))).keys() == before


def test_a_file_that_is_not_wholly_committed_is_planned_again(rerun, tmp_path):
    [record] = (tmp_path / "out/_csrm/commits").glob("b-0000000003-*.json")
    record.unlink()
    seen, _ = rerun()
    assert "in/b.jsonl.gz" in seen
    assert not {"in/a.jsonl", "in/c.parquet"} & set(seen)


def test_a_record_counts_and_not_its_copy(rerun, tmp_path):
    target = Folder.at(str(tmp_path / "out"))
    [(id, commit)] = [item for item in read_commits(target).items() if item[1]["source"] == "c.parquet"]
    target.publish(f"_csrm/commits/{id}.json", encode(commit | {"num_tokens": 12345}).encode())
    assert read_commits(target)[id]["num_tokens"] == 12345
    target.remove([f"_csrm/commits/{id}.json"])
    assert id not in read_commits(target)


@pytest.mark.parametrize("damage", [b"", b"not gzip", gzip.compress(b'{"name": 1'), gzip.compress(b"[1, 2]\n3")])
def test_a_damaged_index_costs_time_and_nothing_else(rerun, tmp_path, damage):
    before = read_commits(Folder.at(str(tmp_path / "out")))
    (tmp_path / "out" / INDEX).write_bytes(damage)
    assert read_commits(Folder.at(str(tmp_path / "out"))) == before
    _, told = rerun()
    assert "everything was scored already" in told
    seen, _ = rerun()
    assert set(seen) == {INDEX}, "and it is mended"


def test_kept_columns_of_parquet_are_looked_up(score, in_process, corpus, tmp_path):
    """Their types are told by the files."""
    (corpus / "a.jsonl").unlink()
    (corpus / "b.jsonl.gz").unlink()
    pq.write_table(pa.table({"text": ["kill", "pin"], "n": [1, 2]}), corpus / "c.parquet")
    for _ in range(2):
        assert score("in", "--keep-columns", "n").exit_code == 0
    pq.write_table(pa.table({"text": ["kill"], "n": [2]}), corpus / "d.parquet")
    assert score("in", "--keep-columns", "n").exit_code == 0
    kinds = {pq.read_schema(path).field("n").type for path in (corpus.parent / "out/matrix").glob("*.parquet")}
    assert kinds == {pa.int64()}
    before = read_commits(Folder.at(str(tmp_path / "out"))).keys()
    again = score("in", "--keep-columns", "n", "--shard-rows", "1")
    assert "everything was scored already" in again.stderr, "rows are not cut anew for the sake of a schema"
    assert read_commits(Folder.at(str(tmp_path / "out"))).keys() == before


def test_a_known_file_still_says_what_kept_columns_are_made_of(score, in_process, policies, tmp_path):
    """JSON Lines hold text, whatever the Parquet beside them holds."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jsonl").write_text('{"text": "kill", "n": "abc"}\n')
    pq.write_table(pa.table({"text": ["kill"], "n": [1]}), tmp_path / "in/b.parquet")
    assert score("in", "--keep-columns", "n", configurations=policies / "game.yaml").exit_code == 0
    assert score("in", "--keep-columns", "n").exit_code == 0
    kinds = {pq.read_schema(path).field("n").type for path in (tmp_path / "out/matrix").glob("*.parquet")}
    assert kinds == {pa.string()}


def test_a_file_that_was_begun_stays_cut_as_it_was(rerun, corpus, tmp_path):
    """However much else the input holds by now."""
    [record] = (tmp_path / "out/_csrm/commits").glob("b-0000000003-*.json")
    kept = read_commits(Folder.at(str(tmp_path / "out"))).keys() - {record.stem}
    record.unlink()
    rerun("--shard-rows", "100")
    assert kept < read_commits(Folder.at(str(tmp_path / "out"))).keys()
    assert record.exists()


def test_rows_of_a_file_that_is_empty_now_are_gone(rerun, corpus, tmp_path):
    (corpus / "a.jsonl").write_text("")
    rerun()
    assert set(pq.read_table(tmp_path / "out/matrix")["source"].to_pylist()) == {"b.jsonl.gz", "c.parquet"}


def test_rows_of_a_file_that_is_not_in_the_input_stay_and_it_is_said(rerun, corpus, tmp_path):
    (corpus / "a.jsonl").unlink()
    _, told = rerun()
    assert "rows of 1 files that are not in the input stay in the matrix: a.jsonl" in told
    assert len(set(pq.read_table(tmp_path / "out/matrix")["source"].to_pylist())) == 3


def test_kept_columns_of_another_type_are_refused(score, in_process, corpus):
    for path in corpus.iterdir():
        path.unlink()
    pq.write_table(pa.table({"text": ["kill"], "n": [1]}), corpus / "a.parquet")
    assert score("in", "--keep-columns", "n").exit_code == 0
    pq.write_table(pa.table({"text": ["kill"], "n": ["one"]}), corpus / "b.parquet")
    result = score("in", "--keep-columns", "n")
    assert result.exit_code == 2
    assert "holds a matrix of other types of kept columns" in result.output
