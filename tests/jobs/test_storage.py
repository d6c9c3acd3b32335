"""Files appear whole or not at all; what is absent is no error where absence is natural."""

import os

import pytest

from csrm.errors import InputError, TargetError
from jobs.storage import Folder, open_location, readable


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path):
    return Folder.at(str(tmp_path) if request.param == "local" else f"memory://{tmp_path.name}")


def test_round_trip(folder):
    folder.publish("a/b.json", b"one")
    folder.publish("a/c.json", b"three")
    folder.publish("a/b.json", b"two!")
    assert folder.sizes("a") == {"a/b.json": 4, "a/c.json": 5}
    assert folder.read(["a/c.json", "a/b.json"]) == {"a/c.json": b"three", "a/b.json": b"two!"}
    folder.remove(["a/b.json", "a/gone.json"])
    assert folder.sizes("a") == {"a/c.json": 5}


def test_what_is_not_there_is_empty(folder):
    assert folder.sizes("nowhere") == {}
    assert folder.read([]) == {}


def test_a_write_that_fails_leaves_the_old_file_and_nothing_visible(tmp_path, monkeypatch):
    folder = Folder.at(str(tmp_path))
    folder.publish("matrix/a.parquet", b"old")

    def fail(_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(TargetError, match=r"cannot be written \(disk full\); mend it and run again"):
        folder.publish("matrix/a.parquet", b"new")
    assert folder.sizes("matrix") == {"matrix/a.parquet": 3}
    assert (tmp_path / "matrix/a.parquet").read_bytes() == b"old"
    assert not folder.sizes("_csrm/tmp"), "on a full disk even half a file is in the way"


def test_who_reads_a_file_while_it_is_replaced_reads_the_old_one(tmp_path):
    folder = Folder.at(str(tmp_path))
    folder.publish("a", b"old")
    with (tmp_path / "a").open("rb") as reader:
        folder.publish("a", b"new")
        assert reader.read() == b"old"


def test_errors_name_the_place_on_one_line():
    for raised, message in (
        (FileNotFoundError("x"), "no such file, folder or bucket"),
        (PermissionError("x"), "access denied"),
        (OSError("first\nsecond"), r"cannot be read \(first\)"),
    ):
        with pytest.raises(InputError, match=message), readable("s3://bucket/key"):
            raise raised


def test_a_folder_holds_no_filesystem():
    assert Folder.at("s3://bucket/out/") == Folder("s3://bucket/out")
    assert open_location("s3://bucket/out")[1] == "bucket/out"
