"""What a target folder holds: commit records, the files they vouch for, and what a kill left behind.

matrix/**/<shard>.parquet       rows, visible to readers
errors/<shard>.parquet          see `jobs.dead_letters`
manifest.json                   written last
_csrm/commits/<shard>.json      a shard counts from the moment this exists
_csrm/commits.jsonl.gz          copies of these records, so that the next run need not open each
_csrm/configurations/           texts of all configurations that there are columns of
_csrm/attempts/                 see `jobs.isolation`
_csrm/lock/                     see `jobs.lock`
_csrm/tmp/                      files being written (local disk only)
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from csrm.errors import InputError
from jobs.inputs import InputFile
from jobs.packed import ALIKE, LEVEL, Packed, light
from jobs.shards import Shard
from jobs.storage import Folder

__all__ = [
    "COMMITS",
    "CONFIGURATIONS",
    "ERRORS",
    "MANIFEST",
    "MATRIX",
    "Copy",
    "by_shard",
    "clear",
    "commit_name",
    "known_cuts",
    "known_plans",
    "matrix_files",
    "read_commits",
    "read_copies",
    "refuse_other_matrix",
    "remove_leftovers",
    "stale_commits",
    "uncommitted",
    "write_index",
]

ATTEMPTS = "_csrm/attempts"
COMMITS = "_csrm/commits"
CONFIGURATIONS = "_csrm/configurations"
INDEX = "_csrm/commits.jsonl.gz"
ERRORS = "errors"
MANIFEST = "manifest.json"
MATRIX = "matrix"
UNFINISHED = "_csrm/tmp"
_OURS = re.compile(r"-\d{10}-[0-9a-f]{16}\.parquet$")

READ_AT_ONCE = 1024
"""Records whose bytes are held together."""

Commit = dict[str, Any]
"""As `jobs.packed.light` leaves it, where it was read from a target."""


def commit_name(shard_id: str) -> str:
    """Return the name of a shard's commit record."""
    return f"{COMMITS}/{shard_id}.json"


def matrix_files(commit: Commit) -> list[str]:
    """Files of a committed shard that hold its rows."""
    return [name for name in commit["files"] if name.startswith(f"{MATRIX}/")]


class Copy(NamedTuple):
    """A commit record that was read, and the mark of its file then."""

    mark: str
    record: Commit


def read_commits(target: Folder) -> dict[str, Commit]:
    """Return every commit record of a target, by shard id.

    Raises:
        InputError: One is no commit record.
    """
    return by_shard(read_copies(target))


def by_shard(copies: Mapping[str, Copy]) -> dict[str, Commit]:
    """The records of copies, by shard id."""
    return {copy.record["shard"]: copy.record for copy in copies.values()}


def read_copies(target: Folder, known: Mapping[str, Copy] | None = None) -> dict[str, Copy]:
    """Return every commit record of a target, by name.

    Args:
        target: whose records they are.
        known: what was read before, of which only what has changed is read again; None takes the target's index.

    Raises:
        InputError: One is no commit record.
    """
    marks = target.marks(COMMITS)
    if known is None:
        known = _read_index(target) if len(marks) > 1 else {}
    copies = {name: copy for name, copy in known.items() if marks.get(name) == copy.mark}
    unread = sorted(marks.keys() - copies.keys())
    for start in range(0, len(unread), READ_AT_ONCE):
        for name, data in target.read(unread[start : start + READ_AT_ONCE]).items():
            copies[name] = Copy(marks[name], _decoded(data, f"{target.url}/{name}"))
    return copies


def _decoded(data: bytes, url: str) -> Commit:
    try:
        record: Commit = json.loads(data)
        return light(record | {"shard": record["shard"]})
    except (ValueError, TypeError, KeyError):
        raise InputError(f"{url}: not a commit record; delete it and run again") from None


def write_index(target: Folder, commits: Mapping[str, Commit]) -> None:
    """Copy all commit records into one file. The records stay what counts: a copy of one that has changed is not read.

    Args:
        target: whose records they are.
        commits: as they were written, all of them.
    """
    marks, sink = target.marks(COMMITS), io.BytesIO()
    with gzip.GzipFile(fileobj=sink, mode="wb", compresslevel=LEVEL, mtime=0) as file:
        for line in _index_lines(commits, marks):
            file.write(f"{json.dumps(line)}\n".encode())
    target.publish(INDEX, sink.getvalue())


def _index_lines(commits: Mapping[str, Commit], marks: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """A line for each record, and one before for what it and those that follow have in common."""
    latest = None
    for id, commit in sorted(commits.items()):
        commit = light(commit)
        alike = {key: commit[key] for key in ALIKE if key in commit}
        if alike != latest:
            yield {"alike": alike}
            latest = alike
        own = {key: value for key, value in commit.items() if key not in ALIKE}
        if "summary" in own:
            own["summary"] = own["summary"].to_text()
        yield {"name": commit_name(id), "mark": marks[commit_name(id)], "record": own}


def _read_index(target: Folder) -> dict[str, Copy]:
    """Copies of commit records; none where there is no index, or no whole one: it only saves time."""
    copies: dict[str, Copy] = {}
    alike: dict[str, Any] = {}
    try:
        for line in map(json.loads, gzip.GzipFile(fileobj=io.BytesIO(target.read([INDEX])[INDEX]))):
            if "alike" in line:
                alike = light(line["alike"])
            else:
                copies[line["name"]] = Copy(line["mark"], _whole(line["record"], alike))
        return copies
    except (FileNotFoundError, EOFError, zlib.error, ValueError, TypeError, KeyError, AttributeError, OSError):
        return {}


def _whole(own: dict[str, Any], alike: dict[str, Any]) -> Commit:
    if isinstance(own.get("summary"), str):  # earlier versions wrote records as they are
        own["summary"] = Packed.from_text(own["summary"])
    return light(own | alike)


def known_plans(commits: Iterable[Commit], files: Iterable[InputFile]) -> dict[str, list[Shard]]:
    """Shards of the files whose every row is committed, by source: to plan these, nothing need be opened."""
    own: dict[tuple[str, str], list[Commit]] = defaultdict(list)
    for commit in commits:
        own[commit["source"], commit["mark"]].append(commit)
    plans = {file.source: _planned(file, own[file.source, file.mark]) for file in files}
    return {source: shards for source, shards in plans.items() if shards}


def known_cuts(commits: Iterable[Commit], files: Iterable[InputFile]) -> dict[str, int]:
    """Most rows of a shard in files that are committed in part, by source: they stay cut as they were."""
    cuts = {(commit["source"], commit["mark"]): commit["place"]["cut"] for commit in commits if "place" in commit}
    return {file.source: cuts[file.source, file.mark] for file in files if (file.source, file.mark) in cuts}


def _planned(file: InputFile, commits: list[Commit]) -> list[Shard]:
    """The shards that were committed of a file, if they are all of it."""
    shards: list[Shard] = []
    num_rows = 0
    for commit in sorted(commits, key=lambda commit: commit["row_start"]):
        if commit["row_start"] != num_rows:
            return []
        num_rows += commit["num_records"]
        shards.append(Shard.of(file, num_rows=commit["num_records"], **commit["place"]))
    return shards if shards and shards[0].file_rows == num_rows else []


def refuse_other_matrix(target: Folder, commits: Mapping[str, Commit], identity: Mapping[str, Any]) -> None:
    """Raise where a target holds other rows than this job would write.

    Raises:
        InputError: Its matrix has another input or other options, or files of others.
    """
    choice = "choose another --output, or replace it with --overwrite"
    for commit in commits.values():
        different = [key for key, value in identity.items() if commit.get("rows_of", {}).get(key) != value]
        if different:
            raise InputError(f"{target.url}: holds a matrix of other {' and '.join(different)}; {choice}")
    strangers = [name for name in target.sizes(MATRIX) if not _OURS.search(name)]
    if strangers:
        raise InputError(f"{target.url}/{strangers[0]}: not written by csrm score; choose another --output")


def stale_commits(
    target: Folder, commits: Mapping[str, Commit], shards: Iterable[Shard], marks: Mapping[str, str]
) -> list[str]:
    """Return committed shards of files that have changed, or are cut otherwise.

    Commits of files that are not in the input stay as they are.

    Args:
        target: for messages.
        commits: by shard id.
        shards: planned.
        marks: of all files of the input, by source.

    Raises:
        InputError: Rows of an unchanged file would be dropped, because fewer are planned than are there.
    """
    ends: dict[str, int] = defaultdict(int)
    current = set()
    for shard in shards:
        current.add(shard.id)
        ends[shard.source] = max(ends[shard.source], shard.row_start + shard.num_rows)
    changed = [id for id, commit in commits.items() if marks.get(commit["source"], commit["mark"]) != commit["mark"]]
    planned = [id for id, commit in commits.items() if commit["source"] in ends and id not in current]
    for id in set(planned).difference(changed):
        commit, end = commits[id], ends[commits[id]["source"]]
        if commit["row_start"] + commit["num_records"] > end:
            raise InputError(
                f"{target.url}: holds more rows of {commit['source']} than the {end} asked for; "
                "choose another --output, raise --limit, or replace the matrix with --overwrite"
            )
    return [*dict.fromkeys([*changed, *planned])]


def remove_leftovers(target: Folder, commits: dict[str, Commit], stale: Iterable[str]) -> None:
    """Withdraw stale shards, then delete every file of ours that no commit record vouches for.

    Records go first: were the job killed in between, the files would be leftovers for the next one.
    """
    stale = list(stale)
    target.remove([MANIFEST] * bool(stale) + [commit_name(id) for id in stale])
    for id in stale:
        del commits[id]
    vouched = {name for commit in commits.values() for name in (*commit["files"], *commit.get("next", ()))}
    there = [*target.sizes(MATRIX), *target.sizes(ERRORS)]
    leftovers = [name for name in there if name not in vouched and _OURS.search(name)]
    target.remove([*leftovers, *target.sizes(UNFINISHED), *target.sizes(ATTEMPTS)])


def clear(target: Folder) -> None:
    """Delete everything that `csrm score` wrote to a target, and nothing else."""
    ours = [name for name in [*target.sizes(MATRIX), *target.sizes(ERRORS)] if _OURS.search(name)]
    target.remove(
        [MANIFEST, INDEX, *target.sizes(COMMITS), *target.sizes(CONFIGURATIONS), *ours, *target.sizes(UNFINISHED)]
    )


def uncommitted(target: Folder, shards: Iterable[Shard], commits: Mapping[str, Commit]) -> list[Shard]:
    """Return planned shards that are not in the target as their commit records say, looked up afresh."""
    records, files = target.sizes(COMMITS), target.sizes(MATRIX) | target.sizes(ERRORS)

    def stands(shard: Shard) -> bool:
        commit = commits.get(shard.id)
        return (
            commit is not None
            and commit_name(shard.id) in records
            and commit["num_records"] == shard.num_rows
            and sum(commit["files"][name]["num_rows"] for name in matrix_files(commit)) >= shard.num_rows
            and all(files.get(name) in sizes for name, sizes in _sizes(commit).items())
        )

    return [shard for shard in shards if not stands(shard)]


def _sizes(commit: Commit) -> dict[str, set[int]]:
    """Bytes that the files of a committed shard may have: two numbers while they are replaced."""
    later = commit.get("next", {})
    return {name: {facts["num_bytes"], later.get(name, facts)["num_bytes"]} for name, facts in commit["files"].items()}
