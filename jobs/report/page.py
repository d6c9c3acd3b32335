"""A report as one HTML file that needs nothing else and obeys nothing in it.

The page allows one script and one style sheet, by their hashes (Content-Security-Policy): whatever a conversation
smuggles past the escaping of the template is still not run, and nothing is fetched from anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.resources import files
from typing import Any

from jobs.matrix import Matrix
from jobs.report.findings import Findings, Partition
from jobs.report.gates import Gate
from jobs.report.records import MAX_CHARACTERS, Record
from jobs.report.terminal import change_in_points, share

__all__ = ["render"]

SHOWN_PARTITIONS = 200
HEAT_STEPS = 10


def render(
    matrix: Matrix,
    baseline: Matrix | None,
    findings: Findings,
    gates: Sequence[Gate],
    records: Sequence[Record],
    created: datetime,
) -> bytes:
    """Return the page in UTF-8.

    Args:
        matrix: what it is about.
        baseline: what that is compared with.
        findings: of the matrix.
        gates: limits that were set.
        records: to show, with their texts.
        created: time to put on it.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("jobs.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"share": share, "count": "{:,}".format, "cut": _cut, "points": change_in_points}
    style, script = (files("jobs.report").joinpath("templates", name).read_text() for name in ("page.css", "page.js"))
    text = environment.get_template("page.html").render(
        matrix=matrix,
        baseline=baseline,
        findings=findings,
        gates=gates,
        records={column.id: [one for one in records if one.configuration == column.id] for column in findings.columns},
        tables={name: _largest(values) for name, values in findings.partitions.items() if len(values) > 1},
        facts=_facts(matrix.manifest),
        created=created.strftime("%Y-%m-%d %H:%M UTC"),
        style=style,
        script=script,
        hashes={"style": _hash(style), "script": _hash(script)},
        heat=_heat,
        bars=_bars,
        ratio=lambda count, total: count / total if total else None,
    )
    return text.encode("utf-8", "replace")  # half a character, as JSON may spell it, is none


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _heat(value: float | None) -> int:
    """A share as one of the style sheet's steps; anything above nothing is seen."""
    return 0 if not value else 1 + min(HEAT_STEPS - 1, int(value * HEAT_STEPS))


def _bars(counts: Sequence[int], height: float) -> list[float]:
    """Heights of bars, by the square root: few rows are seen beside many."""
    most = max(counts, default=0)
    return [round(height * (count / most) ** 0.5, 2) if count else 0.0 for count in counts]


def _largest(values: Sequence[Partition]) -> list[Partition]:
    """As many partitions as are shown, the largest, in order."""
    kept = sorted(values, key=lambda one: -one.num_rows)[:SHOWN_PARTITIONS]
    return sorted(kept, key=lambda one: one.value)


def _cut(text: str) -> str:
    more = len(text) - MAX_CHARACTERS
    return text if more <= 0 else f"{text[:MAX_CHARACTERS]} … ({more:,} more characters)"


def _facts(manifest: Mapping[str, Any]) -> dict[str, str]:
    """What a run was, for people."""
    model, calibration, counts = manifest["model"], manifest["calibration"], manifest["counts"]
    return {
        "input": manifest["input"],
        "model": f"{model['name']} · {model['path']} · {model['fingerprint'][:16]}",
        "calibration": f"scale {calibration['scale']:.4g}, bias {calibration['bias']:.4g}",
        "counts": ", ".join(f"{name} {value:,}" for name, value in counts.items()),
        "options": ", ".join(f"{name} {_told(value)}" for name, value in manifest["options"].items() if _is_set(value)),
        "versions": ", ".join(f"{name} {value}" for name, value in manifest["versions"].items()),
    }


def _is_set(value: Any) -> bool:
    return any(map(_is_set, value.values())) if isinstance(value, Mapping) else value not in (None, False, [], "")


def _told(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
