"""Local copies of models and configurations that lie in an object store: csrm reads local files alone.

Configurations are small, and the driver reads them once. A model is read by many processes on many machines; the first
process of a machine that needs it copies it for all:

<cache>/<digest>/       a whole model folder; its name is made of its URL and of what changes when its files do
<cache>/<digest>.part/  one that is being copied, or was when its process died
<cache>/<digest>.lock   held by who copies

<cache> is csrm/models in $XDG_CACHE_HOME, or else in ~/.cache. While no job runs, it may be deleted.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from fsspec import AbstractFileSystem

import csrm
from csrm.configurations import MAX_FILE_BYTES, Configuration, is_policy_name
from csrm.errors import CheckpointError, CSRMError, InputError
from csrm.model_folder import read_facts
from jobs.remote import retried
from jobs.storage import absolute, mark_of, open_file, open_location, readable

__all__ = ["is_url", "load_configurations", "local_model", "read_remote_facts"]

FACTS = "csrm.json"
_BLOCK_BYTES = 8 * 2**20


def is_url(location: str) -> bool:
    """Whether a place is told by a URL rather than by a local path."""
    return "://" in location


def load_configurations(location: str) -> tuple[Configuration, ...]:
    """Load the safety configurations of a file or folder, local or in an object store.

    Raises:
        CSRMError: One line that names the file, as the user knows it.
    """
    if not is_url(location):
        return tuple(csrm.load_configurations(location))
    found = _Listing.of(location, deep=True)
    wanted = (
        found.files
        if found.is_file
        else {name: info for name, info in found.files.items() if is_policy_name(PurePosixPath(name))}
    )
    with tempfile.TemporaryDirectory(prefix="csrm-") as temporary, _told_as(found.url, Path(temporary)):
        folder = Path(temporary)
        for large in [name for name, info in wanted.items() if info["size"] > MAX_FILE_BYTES]:
            # Not worth fetching: the loader looks at the size first.
            _make_empty(folder / large, wanted.pop(large)["size"])
        found.copy(wanted, folder)
        loaded = csrm.load_configurations(folder / next(iter(found.files)) if found.is_file else folder)
    return tuple(replace(one, source=one.source and one.source.replace(temporary, found.url)) for one in loaded)


def read_remote_facts(url: str) -> tuple[str, dict[str, Any], int]:
    """What `csrm.json` of a model in an object store says, after the model's URL and before the size of its weights.

    Raises:
        CSRMError: There is nothing there, or no CSRM.
    """
    found = _Listing.of_model(url)
    with tempfile.TemporaryDirectory(prefix="csrm-") as temporary, _told_as(found.url, Path(temporary)):
        found.copy([FACTS], Path(temporary))
        _, facts = read_facts(temporary)
    sizes = [info["size"] for name, info in found.files.items() if name.endswith(".safetensors")]
    return found.url, facts, sum(sizes)


@contextlib.contextmanager
def local_model(location: str | None) -> Iterator[str | None]:
    """Yield the local folder of a model; errors within the block name the place that the user knows.

    Args:
        location: a local folder, which is taken as it is (as is None, the embedded model), or a URL. What is there is
            copied to this machine unless it was before.

    Raises:
        CSRMError: It cannot be read, or the copy not be written.
    """
    if location is None or not is_url(location):
        yield location
        return
    found = _Listing.of_model(location)
    folder = _cached(found)
    with _told_as(found.url, folder):
        yield str(folder)


def _cached(found: _Listing) -> Path:
    """A local copy of a model folder; it is made by the first process that comes, and others wait for it."""
    with _writable(_cache()):
        _cache().mkdir(parents=True, exist_ok=True)
    folder = _cache() / found.digest
    if found.is_whole_in(folder):
        return folder
    # The kernel takes the lock from a process that dies.
    with _writable(folder), folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not found.is_whole_in(folder):
            _copy_whole(found, folder)
    return folder


def _copy_whole(found: _Listing, folder: Path) -> None:
    """Copy aside, then rename: under its own name a folder is whole, unless somebody deletes files in it."""
    aside = folder.with_suffix(".part")
    for rest in (aside, folder):
        shutil.rmtree(rest, ignore_errors=True)
    try:
        found.copy(found.files, aside)
        is_whole = found.is_whole_in(aside)
    except CSRMError:  # of a file that is another one by now, too; stores word that in several ways
        if found.is_current:
            raise
        is_whole = False
    if not is_whole or not found.is_current:
        raise InputError(f"{found.url}: changed while it was copied; run again")
    aside.rename(folder)


@dataclass(frozen=True, slots=True)
class _Listing:
    """Files of one place in an object store."""

    url: str
    """The folder that names are relative to."""
    files: dict[str, dict[str, Any]]
    """What the store says of each file, by name."""
    is_file: bool
    """Whether the place is a single file."""

    @classmethod
    def of(cls, location: str, *, deep: bool) -> _Listing:
        """List a file, or a folder with the folders in it (`deep`) or without.

        Raises:
            InputError: There is nothing, or a file whose name would lead out of the folder.
        """
        filesystem, path = open_location(location)
        path = path.rstrip("/")
        filesystem.invalidate_cache()
        with readable(location):
            found = _files(filesystem, path, deep=deep)
            if not found:
                raise FileNotFoundError(path)
        root = path.rpartition("/")[0] if path in found else path
        # A name that ends in "/" stands for a folder, where somebody made an empty one.
        files = {name.removeprefix(f"{root}/"): info for name, info in sorted(found.items()) if name[-1] != "/"}
        for name in files:
            if name.startswith("/") or not {"..", "."}.isdisjoint(name.split("/")):
                raise InputError(f"{absolute(filesystem, root)}: a file is called {name!a}; rename it")
        return cls(absolute(filesystem, root), files, is_file=path in found)

    @classmethod
    def of_model(cls, location: str) -> _Listing:
        """List a model folder; what it has of folders, checkpoints perhaps, is no part of the model.

        Raises:
            CSRMError: There is nothing, or no model.
        """
        found = cls.of(location, deep=False)
        if found.is_file or FACTS not in found.files:
            raise CheckpointError(f"{location}: no {FACTS} here; give a folder that `csrm train` wrote")
        return found

    @property
    def digest(self) -> str:
        """Another one when a file changes."""
        marks = {name: mark_of(info) for name, info in self.files.items()}
        return hashlib.sha256(json.dumps([self.url, marks], sort_keys=True).encode()).hexdigest()[:32]

    @property
    def is_current(self) -> bool:
        """Whether a model folder is still as it was listed."""
        return self.of_model(self.url).digest == self.digest

    def is_whole_in(self, folder: Path) -> bool:
        """Whether a folder has every file, as long as it should be."""
        try:
            return all((folder / name).stat().st_size == info["size"] for name, info in self.files.items())
        except FileNotFoundError:
            return False

    def copy(self, names: Iterable[str], folder: Path) -> None:
        """Copy files, many at once."""
        with _writable(folder):
            folder.mkdir(exist_ok=True)
        with ThreadPoolExecutor(max_workers=8) as pool:
            for _ in pool.map(lambda name: _copy_file(f"{self.url}/{name}", folder / name), names):
                pass


def _files(filesystem: AbstractFileSystem, path: str, *, deep: bool) -> Mapping[str, dict[str, Any]]:
    if deep:
        found: dict[str, dict[str, Any]] = retried(filesystem.find, path, detail=True)
        return found
    listed = retried(filesystem.ls, path, detail=True)
    return {info["name"]: info for info in listed if info["type"] == "file"}


def _copy_file(url: str, local: Path) -> None:
    filesystem, path = open_location(url)
    with readable(url), open_file(filesystem, path) as source:
        with _writable(local):
            local.parent.mkdir(parents=True, exist_ok=True)
            target = local.open("wb")
        with target:
            while block := source.read(_BLOCK_BYTES):
                with _writable(local):
                    target.write(block)
                    target.flush()


def _make_empty(local: Path, size: int) -> None:
    """Make a file that has a size and, on most filesystems, takes no space."""
    local.parent.mkdir(parents=True, exist_ok=True)
    with local.open("wb") as file:
        file.truncate(size)


def _cache() -> Path:
    """Where this user's models are kept."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "csrm", "models")
    except RuntimeError:
        raise InputError("no home folder to copy a model to; set XDG_CACHE_HOME to a folder") from None


@contextlib.contextmanager
def _writable(local: Path) -> Iterator[None]:
    """Turn what a full disk or a folder of somebody else's raises into one line."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{local}: cannot be written ({error.strerror}); free space, or set XDG_CACHE_HOME to another folder"
        ) from None


@contextlib.contextmanager
def _told_as(url: str, local: Path) -> Iterator[None]:
    """Have errors of ours name a URL where they would name its copy."""
    try:
        yield
    except CSRMError as error:
        raise type(error)(str(error).replace(str(local), url)) from None
