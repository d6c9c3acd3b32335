"""A walk finds what a plain listing finds, goes into several folders at once, and into no hidden one."""

import threading

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from jobs.listing import LISTERS, walk

TREE = [
    "a.jsonl",
    "b/c.jsonl",
    "b/d/e.jsonl",
    "_x/f.jsonl",
    *(f"date={n}/{m}.jsonl" for n in range(20) for m in range(3)),
]


@pytest.fixture
def tree(tmp_path):
    for name in TREE:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return str(tmp_path)


def test_it_finds_every_file_and_what_is_said_of_it(tree):
    filesystem = LocalFileSystem()
    assert {info["name"]: info for info in walk(filesystem, tree)} == filesystem.find(tree, detail=True)


def test_so_it_does_in_memory():
    filesystem = MemoryFileSystem()
    for name in TREE:
        filesystem.pipe_file(f"/walked/{name}", b"x")
    assert sorted(info["name"] for info in walk(filesystem, "/walked")) == sorted(filesystem.find("/walked"))


def test_a_hidden_folder_is_not_even_listed(tree):
    class Watched(LocalFileSystem):
        def ls(self, path, **settings):
            listed.append(path)
            return super().ls(path, **settings)

    listed = []
    names = [info["name"] for info in walk(Watched(), tree, lambda path: path.endswith("_x"))]
    assert len(names) == len(TREE) - 1
    assert len(listed) == 23
    assert not [path for path in listed if "_x" in path]


def test_folders_are_listed_side_by_side(tree):
    """Each listing waits for as many as may run at once: alone, the first would wait in vain."""

    class Slow(LocalFileSystem):
        def ls(self, path, **settings):
            if "date=" in path:
                together.wait(timeout=30)
            return super().ls(path, **settings)

    together = threading.Barrier(10)
    assert LISTERS >= 10
    assert len(list(walk(Slow(), tree))) == len(TREE)


def test_a_folder_that_goes_meanwhile_takes_nothing_with_it(tree):
    class Hasty(LocalFileSystem):
        def ls(self, path, **settings):
            if path.endswith("date=3"):
                raise FileNotFoundError(path)
            return super().ls(path, **settings)

    assert len(list(walk(Hasty(), tree))) == len(TREE) - 3


def test_what_is_not_there_is_said(tree):
    with pytest.raises(FileNotFoundError):
        list(walk(LocalFileSystem(), f"{tree}/nowhere"))


def test_a_folder_of_many_files_takes_no_longer_for_each():
    """What is said of a file is compared with nothing that is said of another."""

    class Info(dict):
        def __eq__(self, other):
            compared.append(other)
            return super().__eq__(other)

    class Flat(MemoryFileSystem):
        def ls(self, path, **settings):
            return [Info(name=f"/flat/{number}", type="file", size=1) for number in range(100)]

    compared = []
    assert len(list(walk(Flat(), "/flat"))) == 100
    assert not compared
