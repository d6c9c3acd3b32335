"""The manifest: all that is needed to know what a matrix is and how it came to be. Written last, by
success."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import csrm
from jobs.commits import MANIFEST, Commit
from jobs.job import Job
from jobs.summary import sum_commits

__all__ = ["build_manifest", "write_manifest"]

FORMAT = 1
_PACKAGES = ("ray", "torch", "transformers", "pyarrow")


def build_manifest(job: Job, commits: Mapping[str, Commit], seconds: float) -> dict[str, Any]:
    """Return the manifest of a target.

    Args:
        job: the run that completed it.
        commits: every commit record of the target.
        seconds: wall-clock time of that run.
    """
    totals = sum_commits(commits.values())
    return {
        "format": FORMAT,
        "configurations": [_configuration(configuration) for configuration in job.configurations],
        "model": {"name": job.model.name, "path": job.model.path, "fingerprint": job.model.fingerprint},
        "calibration": {**job.model.calibration.to_json(), "fingerprint": job.model.calibration.fingerprint},
        "input": job.input_root,
        "options": asdict(job.options),
        "versions": {
            "csrm": csrm.__version__,
            **{name: version(name) for name in _PACKAGES},
            "python": platform.python_version(),
        },
        "counts": {
            "records": totals.num_records,
            "rows": totals.num_rows,
            "cells": totals.num_cells,
            "errors": totals.num_errors,
            "tokens": totals.num_tokens,
            "seconds": round(seconds, 3),
        },
        "shards": sorted(commits),
    }


def write_manifest(job: Job, commits: Mapping[str, Commit], seconds: float) -> None:
    """Build the manifest and publish it in the target."""
    manifest = build_manifest(job, commits, seconds)
    text = json.dumps(manifest, indent=2, ensure_ascii=False, default=str)
    job.target.publish(MANIFEST, f"{text}\n".encode())


def _configuration(configuration: Any) -> dict[str, Any]:
    return {**asdict(configuration), "fingerprint": configuration.fingerprint}
