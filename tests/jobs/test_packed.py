"""Commit records as a driver holds them."""

import gzip
import json
import pickle
import tracemalloc

import pytest

from jobs.commits import INDEX, commit_name, read_commits, read_copies, write_index
from jobs.packed import Packed, encode, light
from jobs.storage import Folder

NAMES = [f"policy_{number}" for number in range(50)]


def record(number, model="m"):
    return {
        "shard": f"chats-{number:010d}-0123456789abcdef",
        "source": "chats.jsonl",
        "num_records": 10,
        "summary": {
            name: {"threshold": 0.5, "num_scored": 10, "sum_p_safe": number / 7, "worst": [["ä:1", 0.1], ["b:2", 0.2]]}
            for name in NAMES
        },
        "columns": {name: {"configuration": name * 8, "model": model * 64, "explain": False} for name in NAMES},
        "rows_of": {"input": "/in"},
    }


@pytest.fixture
def target(tmp_path):
    target = Folder.at(str(tmp_path))
    for number in range(4):
        one = record(number, model="mn"[number // 2])
        target.publish(commit_name(one["shard"]), encode(one).encode())
    return target


@pytest.fixture
def read(monkeypatch):
    """Names that are read."""
    seen, real = [], Folder.read
    monkeypatch.setattr(Folder, "read", lambda self, names: seen.extend(names) or real(self, names))
    return seen


def test_a_light_record_says_the_same():
    plain, packed = record(1), light(record(1))
    assert packed == plain
    assert json.loads(encode(packed)) == plain
    assert encode(packed) == json.dumps(plain, ensure_ascii=False)
    assert pickle.loads(pickle.dumps(packed)) == plain
    assert light(packed) is packed
    assert packed["summary"] != Packed.of({})


def test_only_what_is_known_to_be_packed_is_written():
    with pytest.raises(TypeError):
        json.dumps(light(record(1)))


def test_hundreds_of_thousands_fit():
    texts = [json.dumps(record(number)) for number in range(200)]
    light(json.loads(texts[0]))

    def bytes_of(make):
        tracemalloc.start()
        held = [make(text) for text in texts]
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return used / len(held)

    assert bytes_of(json.loads) > 40_000
    assert bytes_of(lambda text: light(json.loads(text))) < 4_000


def test_an_index_gives_back_the_records_and_saves_reading_them(target, read):
    before = read_commits(target)
    assert before == {one["shard"]: one for one in (record(n, model="mn"[n // 2]) for n in range(4))}
    write_index(target, before)
    read.clear()
    assert read_commits(target) == before
    assert read == [INDEX]
    lines = gzip.decompress((target.read([INDEX]))[INDEX]).splitlines()
    assert len(lines) == 4 + 2, "what two models' records have in common is there once each"


def test_an_index_of_whole_records_is_read(target, read):
    """As earlier versions wrote it."""
    before, marks = read_commits(target), target.marks("_csrm/commits")
    lines = [{"name": commit_name(id), "mark": marks[commit_name(id)], "record": one} for id, one in before.items()]
    target.publish(INDEX, gzip.compress("\n".join(map(encode, lines)).encode()))
    read.clear()
    assert read_commits(target) == before
    assert read == [INDEX]


def test_a_record_is_read_once(target, read):
    copies = read_copies(target)
    changed, gone, new = record(1) | {"num_records": 11}, record(2), record(9)
    target.publish(commit_name(changed["shard"]), encode(changed).encode())
    target.remove([commit_name(gone["shard"])])
    target.publish(commit_name(new["shard"]), encode(new).encode())
    read.clear()
    again = read_copies(target, copies)
    assert sorted(read) == sorted([commit_name(changed["shard"]), commit_name(new["shard"])])
    assert {name: copy.record for name, copy in again.items()} == {
        commit_name(id): one for id, one in read_commits(target).items()
    }
