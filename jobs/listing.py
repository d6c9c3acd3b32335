"""Listing what lies below a folder: subfolders side by side, because an object store answers one page at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

from fsspec import AbstractFileSystem

from jobs.remote import retried

__all__ = ["walk"]

LISTERS = 16


def walk(
    filesystem: AbstractFileSystem, root: str, skip: Callable[[str], bool] = lambda path: False
) -> Iterator[dict[str, Any]]:
    """Yield what a filesystem says of every file below a folder, in any order.

    Args:
        filesystem: where.
        root: the folder.
        skip: says of a subfolder whether to leave it out; it is not listed then.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    pool = ThreadPoolExecutor(LISTERS)
    done: SimpleQueue[Future[list[dict[str, Any]]]] = SimpleQueue()
    try:
        pool.submit(_list, filesystem, root).add_done_callback(done.put)
        num_waiting = 1
        while num_waiting:
            listed = done.get()
            num_waiting -= 1
            for info in listed.result():
                if info["type"] != "directory":
                    yield info
                elif not skip(info["name"]):
                    pool.submit(_list_below, filesystem, info["name"]).add_done_callback(done.put)
                    num_waiting += 1
    finally:
        pool.shutdown(cancel_futures=True)


def _list(filesystem: AbstractFileSystem, folder: str) -> list[dict[str, Any]]:
    """What lies right in a folder; some object stores name the folder itself too."""
    found = retried(filesystem.ls, folder, detail=True)
    name = folder.rstrip("/")
    if any(info["type"] == "directory" and info["name"].rstrip("/") == name for info in found):
        # A key with an empty folder name in it ("a//b"), which s3fs cannot go into: it can name all that lies below.
        found = retried(filesystem.find, folder, detail=True).values()
    return [info for info in found if info["name"].rstrip("/") != name]


def _list_below(filesystem: AbstractFileSystem, folder: str) -> list[dict[str, Any]]:
    """The same of a folder that was seen a moment ago; nothing where it is gone."""
    try:
        return _list(filesystem, folder)
    except FileNotFoundError:
        return []
