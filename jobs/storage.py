"""Files by URL, on local disk and on object stores.

Filesystems are made where they are used, from the URL and the process's own environment: credentials never
travel inside a task.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import platform
import re
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, cast

import fsspec
import pyarrow as pa
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from csrm.errors import InputError, TargetError
from jobs.listing import walk
from jobs.losses import UnreadableError
from jobs.remote import (
    S3_SETTINGS,
    ResumingFile,
    check_environment,
    error_code,
    is_denied,
    is_transport,
    prepare,
    retried,
)

__all__ = [
    "BROKEN",
    "Folder",
    "absolute",
    "first_line",
    "mark_of",
    "open_file",
    "open_location",
    "publish_file",
    "readable",
    "refuse_secrets",
    "size_of",
]


def open_location(location: str) -> tuple[AbstractFileSystem, str]:
    """Return the filesystem of a path or URL, and the path within it."""
    refuse_secrets(location)
    settings = S3_SETTINGS if location.startswith(("s3://", "s3a://")) else {}
    if settings:
        check_environment()
    try:
        filesystem, path = fsspec.core.url_to_fs(location, **settings)
    except (ValueError, ImportError) as error:
        raise InputError(f"{location}: {error}; give a local path or an s3:// URL") from None
    if settings:
        prepare(filesystem)
    return filesystem, str(path)


def refuse_secrets(location: str) -> None:
    """Raise where a URL holds a key or a signature: the manifest, logs and error messages all name URLs.

    Raises:
        InputError: It does.
    """
    for scheme, rest in pairwise(location.split("://")):
        place = rest.partition("/")[0]
        # A bucket's name has no colon, unless it is an access point's; a secret key may have slashes in it.
        is_keyed = scheme.endswith(("s3", "s3a")) and ":" in place and not place.startswith("arn:")
        if "@" in place or is_keyed or _SIGNED.search(rest):
            raise InputError(
                f"{location.partition('://')[0]}://***: a URL with keys or a signature in it is not taken, for it "
                "would be written down; give credentials by the environment, a profile or a role"
            )


_SIGNED = re.compile(r"[?&](X-Amz-|Signature=|sig=)", re.IGNORECASE)


def open_file(filesystem: AbstractFileSystem, path: str) -> BinaryIO:
    """Open a file to be read, wherever it is."""
    if isinstance(filesystem, LocalFileSystem):
        return cast(BinaryIO, filesystem.open(path, "rb"))
    return cast(BinaryIO, io.BufferedReader(ResumingFile(filesystem, path), _BUFFER_BYTES))


def absolute(filesystem: AbstractFileSystem, path: str) -> str:
    """Return the name under which every machine of a job finds `path`: an absolute path or a URL."""
    return path if isinstance(filesystem, LocalFileSystem) else str(filesystem.unstrip_protocol(path))


def mark_of(info: dict) -> str:
    """Return what changes when a file does: its size, with its etag or else its modification time."""
    changed = info.get("ETag") or info.get("LastModified") or info.get("mtime") or info.get("created") or ""
    if isinstance(changed, datetime):  # some filesystems tell a time as a number in a listing and so here
        changed = changed.timestamp()
    return f"{info['size']}-{changed}".replace('"', "")


def size_of(mark: str) -> int:
    """Bytes of the file that has a mark."""
    return int(mark.partition("-")[0])


_BUFFER_BYTES = 2**20


def _why_unreached(error: BaseException) -> str:
    """What kept us from a place, and what to do; empty where it is something about what is there."""
    if is_denied(error):
        return f"access denied ({first_line(error)}); check permissions and credentials"
    if is_transport(error):
        return f"cannot be reached ({first_line(error)}); run again"
    return ""


@contextlib.contextmanager
def readable(location: str) -> Iterator[None]:
    """Turn what a filesystem raises into one line that names the location."""
    try:
        yield
    except FileNotFoundError:
        raise UnreadableError(f"{location}: no such file, folder or bucket") from None
    except Exception as error:
        if why := _why_unreached(error):
            raise InputError(f"{location}: {why}") from None
        if not isinstance(error, BROKEN):
            raise
        raise UnreadableError(f"{location}: cannot be read ({first_line(error)}); mend or remove it") from None


@contextlib.contextmanager
def _reached(url: str) -> Iterator[None]:
    """Turn what keeps a job from its target into one line that names it; what is there or not is left to the caller."""
    try:
        yield
    except Exception as error:
        if why := _why_unreached(error):
            raise TargetError(f"{url}: {why}") from None
        raise


@contextlib.contextmanager
def _writable(url: str) -> Iterator[None]:
    """The same, and what keeps data from being taken."""
    with _reached(url):
        try:
            yield
        except FileNotFoundError:
            raise TargetError(f"{url}: no such bucket; make it, or choose another --output") from None
        except OSError as error:
            if _why_unreached(error):
                raise
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise TargetError(f"{url}: no space left; make some and run again, what is committed stays") from None
            raise TargetError(f"{url}: cannot be written ({first_line(error)}); mend it and run again") from None


BROKEN = (OSError, EOFError, pa.ArrowException)
"""What reading a damaged file raises."""


def first_line(error: BaseException) -> str:
    """What an error says, as far as it fits on a line, without the passwords of URLs."""
    return _PASSWORD.sub("://***@", next(iter(str(error).splitlines()), type(error).__name__))


_PASSWORD = re.compile(r"://[^/\s@]*@")
"""Of proxies, and of endpoints that a profile names."""


def _write_aside(root: str, name: str, data: bytes) -> Path:
    """Write and sync a local file where no reader looks; the folder of its final place exists then."""
    aside = Path(root, "_csrm", "tmp", f"{platform.node()}-{os.getpid()}-{threading.get_ident()}-{Path(name).name}")
    aside.parent.mkdir(parents=True, exist_ok=True)
    Path(root, name).parent.mkdir(parents=True, exist_ok=True)
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        aside.unlink(missing_ok=True)  # on a full disk even half a file is in the way
        raise
    return aside


def _link_aside(root: str, name: str, data: bytes) -> None:
    """Write a local file that appears whole; FileExistsError where there is one."""
    aside = _write_aside(root, name, data)
    try:
        Path(root, name).hardlink_to(aside)
    finally:
        aside.unlink()


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that a job writes: names are relative to it and use "/"."""

    url: str
    """Absolute local path, or a URL."""

    @classmethod
    def at(cls, location: str) -> Folder:
        """Return the folder at a path or URL; it need not exist."""
        filesystem, path = open_location(location)
        return cls(absolute(filesystem, path.rstrip("/")))

    @property
    def is_remote(self) -> bool:
        """Whether it lies in an object store."""
        return not isinstance(open_location(self.url)[0], LocalFileSystem)

    def publish(self, name: str, data: bytes) -> None:
        """Write a file that becomes visible whole or not at all.

        One PUT does that on an object store. Local files are written aside, synced and renamed.
        """
        filesystem, root = open_location(self.url)
        with _writable(self.url):
            if isinstance(filesystem, LocalFileSystem):
                _write_aside(root, name, data).replace(Path(root, name))
            else:
                retried(filesystem.pipe_file, f"{root}/{name}", data)

    def create(self, name: str, data: bytes) -> bool:
        """Write a file, whole or not at all, unless there is one; return whether it was written.

        Of any number that try at once, each with data of its own, one succeeds locally and on stores that decide
        between writers (`If-None-Match`). Others let several succeed, or do not know conditions: see `jobs.lock`.
        """
        filesystem, root = open_location(self.url)
        with _writable(self.url):
            try:
                if isinstance(filesystem, LocalFileSystem):
                    _link_aside(root, name, data)
                else:
                    retried(filesystem.pipe_file, f"{root}/{name}", data, mode="create")
            except Exception as error:
                # A failed condition has no errno of its own, and servers word it differently; they agree on the code.
                if not isinstance(error, FileExistsError) and error_code(error) != "PreconditionFailed":
                    raise
                # Where the answer to a first try was lost, what is there is what that try wrote.
                return not isinstance(filesystem, LocalFileSystem) and self.read([name])[name] == data
        return True

    def marks(self, prefix: str) -> dict[str, str]:
        """Return what tells a changed file from the old one (`mark_of`), of every file below `prefix`, by name.

        Nothing where there is no such folder.
        """
        filesystem, root = open_location(self.url)
        filesystem.invalidate_cache()
        with readable(self.url), contextlib.suppress(FileNotFoundError):
            found = walk(filesystem, f"{root}/{prefix}".rstrip("/"))
            return {info["name"].removeprefix(f"{root}/"): mark_of(info) for info in found}
        return {}

    def sizes(self, prefix: str) -> dict[str, int]:
        """Return the size of every file below `prefix`, by name."""
        return {name: size_of(mark) for name, mark in self.marks(prefix).items()}

    def read(self, names: list[str]) -> dict[str, bytes]:
        """Return the contents of files, by name, many at once."""
        filesystem, root = open_location(self.url)
        with _reached(self.url), ThreadPoolExecutor(max_workers=16) as pool:
            contents = pool.map(lambda name: retried(filesystem.cat_file, f"{root}/{name}"), names)
            return dict(zip(names, contents, strict=True))

    def remove(self, names: list[str]) -> None:
        """Delete files, many at once; one that is already gone is no error."""
        filesystem, root = open_location(self.url)

        def remove_one(name: str) -> None:
            with contextlib.suppress(FileNotFoundError):
                retried(filesystem.rm_file, f"{root}/{name}")

        with _reached(self.url), ThreadPoolExecutor(max_workers=16) as pool:
            for _ in pool.map(remove_one, names):
                pass


def publish_file(content: bytes | Path, location: str) -> None:
    """Put a file at a path or URL, in place of what is there; it becomes visible whole or not at all.

    Args:
        content: what is in it, or a local file that is too large to be held in memory.
        location: where to.

    Raises:
        TargetError: The place cannot be written to.
    """
    filesystem, path = open_location(location)
    with _writable(location):
        if isinstance(filesystem, LocalFileSystem):
            _replace_file(content, Path(path))
        elif isinstance(content, bytes):
            retried(filesystem.pipe_file, path, content)
        else:
            retried(filesystem.put_file, str(content), path)  # an upload in parts counts once it is completed


def _replace_file(content: bytes | Path, path: Path) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    aside.parent.mkdir(parents=True, exist_ok=True)
    try:
        if isinstance(content, bytes):
            aside.write_bytes(content)
        else:
            shutil.copyfile(content, aside)
        with aside.open("rb+") as copy:
            os.fsync(copy.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
