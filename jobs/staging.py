"""Local policies on their way to a cluster: a folder named after what is in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from csrm.configurations import policy_files
from csrm.errors import InputError

__all__ = ["MAX_BYTES", "stage", "write_files"]

MAX_BYTES = 10 * 2**20
"""What may travel with a job: texts. Ray keeps it in the head's memory."""


def stage(path: Path) -> tuple[str, dict[str, bytes]]:
    """Read the policies of a file or folder.

    Returns:
        The path that stands for it in the job's working directory, the same wherever and whenever the same policies
        are read, and the files by their paths there.

    Raises:
        CSRMError: There is no policy, or too much of them.
    """
    found = policy_files(path)
    _refuse_large(found)
    root = path.parent if path.is_file() else path
    texts = {file.relative_to(root).as_posix(): file.read_bytes() for file in found}
    folder = f"policies-{_digest(texts)[:12]}"
    return (f"{folder}/{path.name}" if path.is_file() else folder), {
        f"{folder}/{name}": text for name, text in texts.items()
    }


def write_files(files: Mapping[str, bytes], folder: Path) -> None:
    """Put files below a folder."""
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text)


def _refuse_large(files: list[Path]) -> None:
    sizes = sorted(((file.stat().st_size, str(file)) for file in files), reverse=True)
    total = sum(size for size, _ in sizes)
    if total > MAX_BYTES:
        largest = ", ".join(f"{name} ({size / 2**20:.1f} MiB)" for size, name in sizes[:3])
        raise InputError(
            f"{total / 2**20:.1f} MiB of policies, more than the {MAX_BYTES // 2**20} MiB that travel with a job; put "
            f"them on s3://, or leave out what is none: {largest}"
        )


def _digest(texts: Mapping[str, bytes]) -> str:
    marks = {name: hashlib.sha256(text).hexdigest() for name, text in texts.items()}
    return hashlib.sha256(json.dumps(marks, sort_keys=True).encode()).hexdigest()
