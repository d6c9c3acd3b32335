"""A target holds what its commit records vouch for, and nothing else of ours."""

import json
from dataclasses import replace

import pytest

from csrm.errors import InputError
from jobs.commits import (
    clear,
    commit_name,
    read_commits,
    refuse_other_matrix,
    remove_leftovers,
    stale_commits,
    uncommitted,
)
from jobs.shards import Shard
from jobs.storage import Folder

IDENTITY = {"format": 2, "input": "/in", "options": {"explain": True}}


def shard(row_start=0, num_rows=10, source="a.jsonl", mark="1"):
    return Shard(url=f"/in/{source}", source=source, mark=mark, row_start=row_start, num_rows=num_rows, group=0)


@pytest.fixture
def target(tmp_path):
    return Folder.at(str(tmp_path / "out"))


def commit(target, *shards, identity=IDENTITY):
    for one in shards:
        name = f"matrix/{one.id}.parquet"
        target.publish(name, b"rows")
        record = {
            "shard": one.id,
            "source": one.source,
            "mark": one.mark,
            "row_start": one.row_start,
            "num_records": one.num_rows,
            "files": {name: {"num_rows": one.num_rows, "num_bytes": 4}},
            "rows_of": identity,
        }
        target.publish(commit_name(one.id), json.dumps(record).encode())
    return read_commits(target)


def files(target):
    return {name.removeprefix("matrix/").removesuffix(".parquet") for name in target.sizes("matrix")}


def test_a_shard_counts_only_with_its_record_and_its_files(target):
    first, second, third, fourth = (shard(start) for start in (0, 10, 20, 30))
    commits = commit(target, first, second, third)
    assert uncommitted(target, [first, second, third, fourth], commits) == [fourth]
    target.remove([f"matrix/{first.id}.parquet"])
    target.publish(f"matrix/{second.id}.parquet", b"cut")
    target.remove([commit_name(third.id)])
    assert uncommitted(target, [first, second, third], commits) == [first, second, third]


def test_what_a_kill_left_behind_is_removed_and_what_others_wrote_is_not(target):
    first, second = shard(0), shard(10)
    commits = commit(target, first)
    for name in (
        f"matrix/{second.id}.parquet",
        f"_csrm/tmp/1-{second.id}.parquet",
        "notes.txt",
        "matrix/x.txt",
    ):
        target.publish(name, b"")
    remove_leftovers(target, commits, [])
    assert files(target) == {first.id, "x.txt"}
    assert target.sizes("_csrm/tmp") == {}
    assert "notes.txt" in target.sizes("")


def test_a_changed_file_is_replaced_whole_and_others_stay(target):
    old, kept, gone = shard(0), shard(0, source="b.jsonl"), shard(0, source="no-longer-there.jsonl")
    commits = commit(target, old, kept, gone)
    new = [shard(0, 4, mark="2"), kept]
    stale = stale_commits(target, commits, new, {"a.jsonl": "2", "b.jsonl": "1"})
    assert stale == [old.id]
    remove_leftovers(target, commits, stale)
    assert set(commits) == set(read_commits(target)) == files(target) == {kept.id, gone.id}
    assert uncommitted(target, new, commits) == new[:1]


def test_other_cuts_replace_only_what_they_cover(target):
    commits, marks = commit(target, shard(0, 10), shard(10, 10)), {"a.jsonl": "1"}
    assert len(stale_commits(target, commits, [shard(0, 20)], marks)) == 2
    with pytest.raises(InputError, match=r"holds more rows of a.jsonl than the 15 asked for"):
        stale_commits(target, commits, [shard(0, 10), shard(10, 5)], marks)
    assert stale_commits(target, commits, [shard(0, 5, mark="2")], {"a.jsonl": "2"}), "of a changed file"
    assert len(stale_commits(target, commits, [], {"a.jsonl": "2"})) == 2, "of one that is empty now, or damaged"
    assert stale_commits(target, commits, [], {"b.jsonl": "1"}) == []


@pytest.mark.parametrize("key", list(IDENTITY))
def test_a_matrix_of_something_else_is_refused(target, key):
    commits = commit(target, shard())
    refuse_other_matrix(target, commits, IDENTITY)
    with pytest.raises(InputError, match=rf"holds a matrix of other {key}; choose another --output"):
        refuse_other_matrix(target, commits, IDENTITY | {key: "another"})


def test_files_of_others_among_the_rows_are_refused(target):
    target.publish("matrix/part-0.parquet", b"")
    with pytest.raises(InputError, match=r"part-0.parquet: not written by csrm score"):
        refuse_other_matrix(target, {}, IDENTITY)


def test_clearing_removes_ours_alone(target):
    commit(target, shard())
    target.publish("manifest.json", b"{}")
    target.publish("matrix/other.parquet", b"")
    clear(target)
    assert set(target.sizes("")) == {"matrix/other.parquet"}


def test_an_unreadable_commit_record_is_an_error_that_names_it(target):
    commits = commit(target, shard())
    assert commits
    one = replace(shard(), mark="9")
    target.publish(commit_name(one.id), b'{"shard": "cut')
    with pytest.raises(InputError, match=rf"{one.id}.json: not a commit record"):
        read_commits(target)
