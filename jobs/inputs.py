"""Input files: which there are, what format each has, and when one has changed."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal, NamedTuple

from fsspec import AbstractFileSystem
from fsspec.utils import glob_translate

from csrm.errors import InputError
from jobs.listing import walk
from jobs.options import OUTPUT_COLUMNS
from jobs.remote import retried
from jobs.storage import absolute, mark_of, open_location, readable, refuse_secrets

__all__ = [
    "FileFormat",
    "InputFile",
    "Inputs",
    "file_format",
    "list_inputs",
    "partitions",
    "refuse_as_output",
    "would_read",
]

_RECORDS = {".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_SUPPORTED = ".parquet, .jsonl, .ndjson and .json (the last three also with .gz or .zst)"
_GLOB = re.compile(r"[*?\[]")
_UNNAMABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]|::")
"""Control characters, bytes that are not UTF-8, and what fsspec takes to join two locations: it would open another."""


class FileFormat(NamedTuple):
    """How a file's bytes hold records."""

    records: Literal["parquet", "jsonl"]
    compression: Literal["gzip", "zstd"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFile:
    """One file of conversations."""

    url: str
    """Where every machine of a job finds it."""
    source: str
    """Its path below the input's root, as users know it."""
    mark: str
    """Size and etag or modification time: another mark is another file."""
    size: int
    """Bytes."""


class Inputs(NamedTuple):
    """Files in order of `source`, and the folder that sources are relative to."""

    root: str
    files: tuple[InputFile, ...]


def file_format(name: str) -> FileFormat | None:
    """Return the format that a file's name tells, None where it is none of ours."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes]
    compression = _COMPRESSIONS.get(suffixes[-1]) if suffixes else None
    if compression:
        suffixes.pop()
    records = _RECORDS.get(suffixes[-1]) if suffixes else None
    if records is None or (records == "parquet" and compression):
        return None
    return FileFormat(records, compression)  # type: ignore[arg-type]


def partitions(source: str) -> dict[str, str]:
    """Return the hive partition values in a path, as they are spelled there.

    Example:
        >>> partitions("date=2026-11-20/lang=en/part-0.parquet")
        {'date': '2026-11-20', 'lang': 'en'}
    """
    folders = PurePosixPath(source).parent.parts
    return dict(folder.split("=", 1) for folder in folders if "=" in folder.strip("="))


def list_inputs(location: str) -> Inputs:
    """List the conversation files of a file, folder or glob.

    Below a folder, files whose own name or folder starts with "." or "_" are skipped, and so are files of
    other formats; a file that is named outright is taken, whatever it is called.

    Raises:
        InputError: There is nothing there, nothing in a known format, or a name that no column or terminal takes.
    """
    refuse_secrets(location)
    if _UNNAMABLE.search(location):
        raise InputError(f"{location!a}: a name with control characters, with :: or not in UTF-8; rename it")
    filesystem, path = open_location(location)
    with readable(location):
        root, found = _find(filesystem, path, location)
        described = {info["name"]: _describe(filesystem, info["name"], root, info) for info in found}
    files = sorted(described.values(), key=lambda file: file.source)
    if not files:
        raise InputError(f"{location}: no conversation files here; {_SUPPORTED} are read")
    for file in files:
        if clash := partitions(file.source).keys() & set(OUTPUT_COLUMNS):
            raise InputError(f"{file.url}: partition folder {clash.pop()!r} has the name of a matrix column")
    return Inputs(absolute(filesystem, root), tuple(files))


def would_read(place: str, location: str, root: str, sources: Collection[str]) -> bool:
    """Whether a run over an input reads a file that is put at a place, or files in a folder there.

    Args:
        place: absolute path or URL.
        location: the input, as it was given.
        root: what its files are relative to.
        sources: these files.
    """
    root, name = root.rstrip("/"), location.rstrip("/").rpartition("/")[2]
    below = f"{place.rstrip('/')}/".removeprefix(f"{root}/").rstrip("/")
    if glob := _GLOB.search(location):
        tail = location[location.rfind("/", 0, glob.start()) + 1 :]
        matches = re.compile(glob_translate(tail)).match
        above = [below, *map(str, PurePosixPath(below).parents)]
        in_it = (f"{below}/{part}x{suffix}" for suffix in _RECORDS for part in ("", "x/"))
        return f"{root}/{below}" == place.rstrip("/") and any(map(matches, (*above, *in_it)))
    if name in sources:
        return place == f"{root}/{name}"
    is_below = place.rstrip("/") == root or f"{root}/{below}" == place.rstrip("/")
    return is_below and not any(part.startswith((".", "_")) for part in PurePosixPath(below).parts)


def refuse_as_output(
    place: str, shown: str, location: str, root: str, sources: Collection[str], option: str = "--output"
) -> None:
    """Raise where a run over an input would read what is written to a place, or has; see `would_read`.

    Raises:
        InputError: It would; the message names the place as it is `shown`.
    """
    is_source = place.removeprefix(f"{root.rstrip('/')}/") in sources
    if is_source or would_read(place, location, root, sources):
        raise InputError(f"{shown}: lies in the input, and the next run would read it; choose another {option}")


def _find(filesystem: AbstractFileSystem, path: str, location: str) -> tuple[str, Iterable[dict[str, Any]]]:
    """Return the root and what the filesystem says of each file, one after the other: there may be a million."""
    there = _info(filesystem, path)
    if there["type"] == "file":
        if file_format(path) is None:
            raise InputError(f"{location}: not a format that is read; {_SUPPORTED} are")
        return _parent(path), [there]
    if there["type"] == "directory":
        return path, _visible(path, walk(filesystem, path, lambda folder: _is_hidden(path, folder)))
    if not _GLOB.search(path):
        raise FileNotFoundError(path)
    root = _parent(path[: _GLOB.search(path).start()] + "x")  # type: ignore[union-attr]
    return root, _visible(root, _matches(filesystem, path))


def _matches(filesystem: AbstractFileSystem, pattern: str) -> Iterator[dict[str, Any]]:
    for match, info in retried(filesystem.glob, pattern, detail=True).items():
        if info["type"] == "directory":
            yield from walk(filesystem, match)
        else:
            yield info


def _info(filesystem: AbstractFileSystem, path: str) -> dict[str, Any]:
    """Return what is said of a path, type "nothing" where nothing is; `isfile` hides why a store gave no answer."""
    try:
        info: dict[str, Any] = retried(filesystem.info, path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {"type": "nothing"}
    return info


def _visible(root: str, found: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return (info for info in found if file_format(info["name"]) and not _is_hidden(root, info["name"]))


def _is_hidden(root: str, path: str) -> bool:
    return any(part.startswith((".", "_")) for part in PurePosixPath(_below(root, path)).parts)


def _describe(filesystem: AbstractFileSystem, path: str, root: str, info: Mapping[str, Any]) -> InputFile:
    if _UNNAMABLE.search(path):
        raise InputError(f"{path!a}: a name with control characters, with :: or not in UTF-8; rename the file")
    if info.get("islink"):  # a listing tells when the link was made; who reads it later asks when the file was
        info = {**info, **_info(filesystem, path)}
    return InputFile(url=absolute(filesystem, path), source=_below(root, path), mark=mark_of(info), size=info["size"])


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _below(root: str, path: str) -> str:
    return path.removeprefix(root).lstrip("/")
