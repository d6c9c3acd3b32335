"""The manifest: all that is needed to know what a matrix is and how it came to be. Written last, by
success."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import csrm
from jobs.columns import all_columns
from jobs.commits import CONFIGURATIONS, MANIFEST, Commit
from jobs.job import Column, Job
from jobs.losses import Lost
from jobs.summary import sum_commits

__all__ = ["archive", "build_manifest", "write_manifest"]

FORMAT = 2
_PACKAGES = ("ray", "torch", "transformers", "pyarrow")


def build_manifest(
    job: Job,
    commits: Mapping[str, Commit],
    seconds: float,
    others: Sequence[Mapping[str, Any]] = (),
    lost: Sequence[Lost] = (),
) -> dict[str, Any]:
    """Return the manifest of a target.

    Args:
        job: the run that completed it.
        commits: every commit record of the target.
        seconds: wall-clock time of that run.
        others: configurations of columns that are not the job's, as `archive` keeps them.
        lost: what of the input that run could not read.
    """
    totals = sum_commits(commits.values())
    return {
        "format": FORMAT,
        "configurations": [*map(_configuration, job.configurations), *others],
        "columns": _columns(commits.values(), job),
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
        "lost": [asdict(one) for one in lost],
        "shards": sorted(commits),
    }


def write_manifest(job: Job, commits: Mapping[str, Commit], seconds: float, lost: Sequence[Lost] = ()) -> None:
    """Build the manifest and publish it in the target."""
    manifest = build_manifest(job, commits, seconds, _archived(job, commits.values()), lost)
    text = json.dumps(manifest, indent=2, ensure_ascii=False, default=str)
    job.target.publish(MANIFEST, f"{text}\n".encode())


def archive(job: Job) -> None:
    """Keep the texts of the job's configurations in the target, by fingerprint: later jobs may not be given them.

    Title and threshold are no part of a fingerprint: what is kept follows them.
    """
    texts = {
        f"{CONFIGURATIONS}/{one.fingerprint}.json": json.dumps(_configuration(one), ensure_ascii=False).encode()
        for one in job.configurations
    }
    known = job.target.sizes(CONFIGURATIONS)
    kept = job.target.read([name for name in texts if name in known])
    for name, text in texts.items():
        if kept.get(name) != text:
            job.target.publish(name, text)


def _archived(job: Job, commits: Iterable[Commit]) -> list[dict[str, Any]]:
    """Configurations of columns that are not the job's; of several texts under one id, the one of most rows."""
    num_rows: dict[str, Counter[str]] = {name: Counter() for name in job.others}
    for commit in commits:
        for name in job.others:
            if column := commit["columns"].get(name):
                num_rows[name][column["configuration"]] += commit["num_rows"]
    chosen = [max(sorted(counts), key=counts.__getitem__) for counts in num_rows.values() if counts]
    texts = job.target.read([f"{CONFIGURATIONS}/{fingerprint}.json" for fingerprint in chosen])
    return [json.loads(text) for text in texts.values()]


def _columns(commits: Iterable[Commit], job: Job) -> dict[str, list[Column]]:
    """What each column of the matrix was scored by: one thing, or several where only some shards were scored anew."""
    found: dict[str, list[Column]] = {name: [] for name in all_columns(job)}
    for commit in commits:
        for name, column in commit["columns"].items():
            if column is not None and column not in found[name]:
                found[name].append(column)
    return found


def _configuration(configuration: Any) -> dict[str, Any]:
    return {**asdict(configuration), "fingerprint": configuration.fingerprint}
