"""Listing what lies below a folder: subfolders side by side, because an object store answers one page at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
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
    with ThreadPoolExecutor(LISTERS) as pool:
        waiting = {pool.submit(_list, filesystem, root)}
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for info in (info for listed in done for info in listed.result()):
                if info["type"] != "directory":
                    yield info
                elif not skip(info["name"]):
                    waiting.add(pool.submit(_list, filesystem, info["name"]))


def _list(filesystem: AbstractFileSystem, folder: str) -> list[dict[str, Any]]:
    """What lies right in a folder; some object stores name the folder itself too."""
    found = retried(filesystem.ls, folder, detail=True)
    return [info for info in found if info["name"].rstrip("/") != folder.rstrip("/")]
