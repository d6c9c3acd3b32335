"""What `csrm submit` sends: a command that means the same on the cluster, under an id that says which one it is.

No Ray here, and no network. A command line is parsed by the command itself, so that what it would refuse is refused
before anything is sent, and written out again in one order: the same command, policies and day have the same id,
however the options were typed.

    csrm score s3://lake/{date}/ -c policies/ -o s3://matrix/{date} --date yesterday
    csrm score s3://lake/2026-11-20/ --configurations policies-5f2c91d07be4 --output s3://matrix/2026-11-20
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click

from csrm.configurations import load_configurations
from csrm.errors import InputError
from jobs.nearest import nearest
from jobs.places import DATE_META, Place, fill
from jobs.staging import stage
from jobs.storage import refuse_secrets

__all__ = ["COMMANDS", "Submission", "attempts_of", "next_id", "read_variables", "write_arguments"]

COMMANDS = ("score", "report", "filter", "pairs", "train", "calibrate", "evaluate", "strictness")
"""What can be submitted: what reads and writes places that a cluster reaches, and asks nobody anything."""
UPLOADED = frozenset({"configurations", "configuration", "ladders"})
"""Options whose local files travel with the job; they are small, and people keep them at hand."""
MAYBE_PLACES = frozenset({"data", "backbone"})
"""Options of plain text that may name a local file; a hub's model, for one, is none."""
ALWAYS = {"COLUMNS": "120", "RAY_JOB_STOP_WAIT_TIME_S": "60", "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1"}
"""Of every job: tables are as wide; what is stopped has time to let go of its lock (Ray's own patience is 3 s); and a
driver may tell its workers about endpoints that the job was told about."""
SHARED = "--paths-on-cluster and an absolute path that all of its nodes share"

T = TypeVar("T")
_SECRET = re.compile(r"KEY|SECRET|TOKEN|PASSW|CREDENTIAL|AUTH", re.IGNORECASE)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A command as the cluster runs it."""

    command: tuple[str, ...]
    """Its name and arguments, after `csrm`."""
    day: date
    """The one that `--date` names, or else today's (UTC)."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """What the command names of this machine, by path in the job's working directory."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables that the user gave; anyone who sees the cluster's dashboard reads them."""

    @classmethod
    def of(
        cls, root: click.Context, arguments: Sequence[str], variables: Mapping[str, str], *, paths_on_cluster: bool
    ) -> Submission:
        """Read what follows `csrm submit --`.

        Args:
            root: of the `csrm` group, which knows the commands.
            arguments: a command's name, and its arguments.
            variables: see the class.
            paths_on_cluster: whether absolute paths are meant as the cluster's.

        Raises:
            click.UsageError: The command would not take these arguments.
            CSRMError: It is not for clusters, or they name what the cluster cannot see, or hold a secret.
        """
        name, *rest = arguments
        group = root.command
        assert isinstance(group, click.Group)
        command = group.get_command(root, name) if name in COMMANDS else None
        if command is None:
            known = [one for one in COMMANDS if one in group.commands]
            raise InputError(f"{name!r} is no command for a cluster; {nearest(name, known)}")
        with command.make_context(name, list(rest), parent=root) as context:
            given, _, _ = command.make_parser(context).parse_args(list(rest))
            day = context.meta.get(DATE_META)
        files: dict[str, bytes] = {}
        written = write_arguments(command, given, lambda one, text: _moved(one, text, day, files, paths_on_cluster))
        today = datetime.now(UTC).date()
        return cls(command=(name, *written), day=day or today, files=files, variables=dict(variables))

    @property
    def id(self) -> str:
        """`csrm-score-2026-11-20-5f2c91d07b`."""
        canonical = json.dumps([self.command, sorted(self.variables.items())])
        return f"csrm-{self.command[0]}-{self.day}-{hashlib.sha256(canonical.encode()).hexdigest()[:10]}"

    @property
    def entrypoint(self) -> str:
        """For a shell."""
        return shlex.join(["csrm", *self.command])

    @property
    def environment(self) -> dict[str, str]:
        """All variables of the job."""
        return {**ALWAYS, **self.variables}


def write_arguments(command: click.Command, given: Mapping[str, Any], moved: Any) -> list[str]:
    """Write out what a command's parser found, in the order of its parameters.

    Args:
        command: whose arguments they are.
        given: values as they were typed, by name of the parameter.
        moved: maps a parameter and one of its texts to the text on the cluster.
    """
    options, positional = [], []
    for one in command.params:
        values = given.get(one.name or "")
        if isinstance(values, bool) and isinstance(one, click.Option):
            options.append(_long(one.opts if values or not one.secondary_opts else one.secondary_opts))
        for text in [values] if isinstance(values, str) else values if isinstance(values, list | tuple) else ():
            if one.name == "date":
                continue  # filled in
            if isinstance(one, click.Option):
                options += [_long(one.opts), moved(one, text)]
            else:
                positional.append(moved(one, text))
    if any(text.startswith("-") for text in positional):
        return [*options, "--", *positional]
    return [*positional, *options]


def attempts_of(id: str, jobs: Mapping[str, T]) -> list[T]:
    """Of jobs by id, those that were submitted under one: `id`, `id-2`, `id-3`, …, in that order."""
    numbers = {int(name.removeprefix(f"{id}-")): job for name, job in jobs.items() if re.fullmatch(rf"{id}-\d+", name)}
    first = {1: jobs[id]} if id in jobs else {}
    return [job for _, job in sorted((first | numbers).items())]


def next_id(id: str, latest: str | None) -> str:
    """The id of the attempt that follows the latest one."""
    if latest is None:
        return id
    return f"{id}-{int(latest.removeprefix(id).lstrip('-') or 1) + 1}"


def read_variables(texts: Sequence[str]) -> dict[str, str]:
    """Environment variables from `NAME=VALUE`.

    Raises:
        InputError: One looks like a secret, or like nothing.
    """
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise InputError(f"--env {name}: write NAME=VALUE")
        if _SECRET.search(name) or "@" in urlsplit(value).netloc:
            raise InputError(
                f"--env {name}: the cluster's dashboard would show it; give credentials to its service account"
            )
        found[name] = value
    return found


def _moved(
    parameter: click.Parameter, text: str, day: date | None, files: dict[str, bytes], paths_on_cluster: bool
) -> str:
    """A text of the command line as it must read on the cluster."""
    if isinstance(parameter.type, Place):
        text = fill(text, day)
    if _URL.match(text):
        refuse_secrets(text)  # whoever sees the dashboard sees the command
        if isinstance(parameter.type, click.Path) and not isinstance(parameter.type, Place):
            raise InputError(f"{_named(parameter)} {text}: read and written on a filesystem alone; give {SHARED}")
        if not text.startswith(("file:", "local:")):
            return text
    elif not _is_place(parameter, text):
        return text
    elif parameter.name in UPLOADED and Path(text).exists():
        if parameter.name != "ladders":
            load_configurations(text)  # what cannot be read is told before anything is sent
        place, found = stage(Path(text))
        files.update(found)
        return place
    elif paths_on_cluster and text.startswith("/"):
        return text
    url = "an s3:// URL, or " if isinstance(parameter.type, Place) else ""
    raise InputError(
        f"{_named(parameter)} {text}: a path of this machine, and the job runs on the cluster; give {url}{SHARED}"
    )


def _named(parameter: click.Parameter) -> str:
    return _long(parameter.opts) if isinstance(parameter, click.Option) else parameter.human_readable_name


def _is_place(parameter: click.Parameter, text: str) -> bool:
    if isinstance(parameter.type, click.Path):
        return True
    return parameter.name in MAYBE_PLACES and (text.startswith(("/", ".", "~")) or Path(text).exists())


def _long(names: Sequence[str]) -> str:
    return max(names, key=len)
