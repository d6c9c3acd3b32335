"""What a filter's folders hold, and which of it counts.

OUTPUT/**/<shard>.<suffix>          kept records, in the folders that the input has
OUTPUT/.csrm/_csrm/commits/         a shard counts from the moment its record exists (`jobs.commits`)
OUTPUT/.csrm/_csrm/lock/            see `jobs.lock`
OUTPUT/.csrm/filter.json            what was asked and what came of it, written last
REJECTED/**/<shard>.<suffix>        the others, with the reason
REJECTED/.csrm/filter.json          whose they are

State lies in a folder with a dot: libraries that load a folder take every file that is not hidden for data, and for
some of them an underscore hides nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from csrm.errors import InputError
from jobs.commits import COMMITS, INDEX, UNFINISHED, Commit, commit_name, read_commits
from jobs.storage import Folder

__all__ = ["MANIFEST", "claim", "clear", "open_commits", "refuse_strangers", "remove_leftovers", "standing", "state_of"]

HIDDEN = ".csrm"
MANIFEST = "filter.json"
_OURS = re.compile(r"-\d{10}-[0-9a-f]{16}\.(parquet|jsonl(\.gz|\.zst)?)$")
_CHOICE = "choose another --output, or replace what is there with --overwrite"
_OTHERS = {
    "version": "another version of csrm",
    "where": "another --where",
    "format": "another --format",
    "rejected": "another --rejected",
    "matrix": "another matrix",
    "scores": "other scores",
}


def state_of(output: Folder) -> Folder:
    """The folder of a filter's records, within its output."""
    return Folder(f"{output.url}/{HIDDEN}")


def refuse_strangers(folder: Folder, option: str) -> None:
    """Raise where a folder holds files that are no filter's: they would be mixed up with what is kept.

    Raises:
        InputError: It does.
    """
    names = [name for name in folder.sizes("") if not name.startswith(f"{UNFINISHED}/")]
    is_filters = any(name.startswith(f"{HIDDEN}/") for name in names)
    for name in names:
        if not name.startswith(f"{HIDDEN}/") and not (is_filters and _OURS.search(name)):
            raise InputError(f"{folder.url}/{name}: not written by csrm filter; choose another {option}")


def claim(rejected: Folder, output: Folder) -> None:
    """Note whose rejected records a folder holds.

    Raises:
        InputError: Another filter's.
    """
    state, text = state_of(rejected), json.dumps({"output": output.url}, ensure_ascii=False).encode()
    if not state.create(MANIFEST, text) and state.read([MANIFEST])[MANIFEST] != text:
        raise InputError(f"{rejected.url}: holds records of another filter; choose another --rejected")


def open_commits(output: Folder, identity: Mapping[str, Any]) -> dict[str, Commit]:
    """Commit records of a filter's output.

    Raises:
        InputError: It holds other records than this filter would write.
    """
    commits = read_commits(state_of(output))
    for commit in commits.values():
        before = commit.get("filter", {})
        if different := [_OTHERS[key] for key, value in identity.items() if before.get(key) != value]:
            raise InputError(f"{output.url}: holds records of {' and '.join(different)}; {_CHOICE}")
    return commits


def standing(commits: Mapping[str, Commit], output: Folder, rejected: Folder | None) -> dict[str, Commit]:
    """The records whose files are there as they say."""
    kept, others = output.sizes(""), rejected.sizes("") if rejected is not None else {}

    def stands(commit: Commit) -> bool:
        pairs = [(kept, commit["files"]), (others, commit["rejected_files"])]
        return all(there.get(name) == facts["num_bytes"] for there, files in pairs for name, facts in files.items())

    return {id: commit for id, commit in commits.items() if stands(commit)}


def remove_leftovers(commits: Iterable[Commit], output: Folder, rejected: Folder | None) -> None:
    """Delete what a kill left behind: files of ours that no record vouches for."""
    commits = list(commits)
    for folder, key in ((output, "files"), (rejected, "rejected_files")):
        if folder is not None:
            vouched = {name for commit in commits for name in commit[key]}
            names = [name for name in folder.sizes("") if not name.startswith(f"{HIDDEN}/")]
            folder.remove([name for name in names if name not in vouched])


def clear(output: Folder, rejected: Folder | None) -> None:
    """Delete everything that a filter wrote to its folders; records first."""
    state = state_of(output)
    state.remove([MANIFEST, INDEX, *(name for name in state.sizes(COMMITS))])
    remove_leftovers([], output, rejected)


def withdraw(commits: Iterable[str], output: Folder) -> None:
    """Take back records whose files are not there."""
    state_of(output).remove([commit_name(id) for id in commits])
