"""A filter as a process: what it has committed so far."""

import time

LIMIT_S = 120.0


def committed(output):
    """Commit records and the times at which they were written."""
    return {path: path.stat().st_mtime_ns for path in (output / ".csrm" / "_csrm" / "commits").glob("*.json")}


def wait_until(condition, process):
    """Return whether a condition came true while a process ran."""
    deadline = time.monotonic() + LIMIT_S
    while process.poll() is None and time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return False
