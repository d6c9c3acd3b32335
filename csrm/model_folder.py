"""`csrm.json`: what a model folder says of itself. Needs no weights and imports no torch, for drivers read it too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from csrm.calibration import Calibration
from csrm.errors import CheckpointError

__all__ = [
    "EMBEDDED_MODEL",
    "FORMAT",
    "model_folder",
    "read_calibration",
    "read_facts",
    "read_json",
    "refusing_code",
    "write_json",
]

EMBEDDED_MODEL = Path(__file__).parent / "models" / "csrm-mini"
"""The model that ships inside the package."""

FORMAT = 2
READABLE = (1, FORMAT)


def model_folder(folder: str | Path | None) -> Path:
    """The folder, if it holds a CSRM; None is the embedded model.

    Raises:
        CheckpointError: it holds none.
    """
    path = EMBEDDED_MODEL if folder is None else Path(folder)
    if not (path / "csrm.json").is_file():
        raise CheckpointError(f"{path}: no csrm.json here; give a folder that `save_pretrained` or `csrm train` wrote")
    return path


@contextmanager
def refusing_code(folder: str | Path) -> Iterator[None]:
    """Say in one line why transformers does not read a folder; whatever it offers, a folder's code is never run.

    Raises:
        CheckpointError: it raised something.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        if "trust_remote_code" in str(error):
            raise CheckpointError(f"{folder}: brings code of its own, which is never run; use another model") from None
        reason = next(iter(str(error).splitlines()), repr(error))
        raise CheckpointError(f"{folder}: cannot be read ({reason}); copy the model folder again") from None


def read_facts(folder: str | Path | None) -> tuple[Path, dict[str, Any]]:
    """A model folder (None: the embedded model) and what its `csrm.json` says, with the calibration read.

    Raises:
        CheckpointError: the folder is missing, incomplete, or not a CSRM.
    """
    path = model_folder(folder)
    facts = read_json(path)
    return path, facts | {"calibration": read_calibration(facts, path)}


def read_json(path: Path) -> dict[str, Any]:
    """`csrm.json` as it stands.

    Raises:
        CheckpointError: it is unreadable, or newer than this.
    """
    try:
        facts: dict[str, Any] = json.loads((path / "csrm.json").read_text(encoding="utf-8"))
        if facts["format"] not in READABLE:
            raise CheckpointError(f"{path / 'csrm.json'}: format {facts['format']!r} is not {FORMAT}; update csrm")
        if missing := {"name", "layout", "fingerprint", "facts"} - facts.keys():
            raise KeyError(*sorted(missing))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path / 'csrm.json'}: unreadable ({error!r}); copy the model folder again") from None
    return facts


def write_json(path: Path, facts: dict[str, Any]) -> None:
    """Replace `csrm.json` as a whole: a reader finds the old one or the new one."""
    text = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
    (path / "csrm.json.tmp").write_text(text, encoding="utf-8")
    (path / "csrm.json.tmp").replace(path / "csrm.json")


def read_calibration(facts: dict[str, Any], path: Path) -> Calibration:
    """The calibration in the facts of `csrm.json`.

    Raises:
        CheckpointError: it is none.
    """
    try:
        return Calibration.from_json(facts["calibration"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path / 'csrm.json'}: unreadable calibration ({error!r}); copy the model folder again"
        ) from None
