"""GPUs that a cluster brings up when they are asked for."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console

from csrm.errors import InputError
from jobs.summary import say

__all__ = ["bring_up"]

GRACE_S = 900.0
"""Seconds after which a job goes on with fewer GPUs than it asked for: a spot market may have no more."""
LIMIT_S = 3600.0
"""Seconds after which a cluster without any has none to give."""
POLL_S = 1.0


def bring_up(num_gpus: int, *, clock: Callable[[], float] = time.monotonic) -> int:
    """Make the cluster's autoscaler bring GPUs up, and say so where that takes time; return how many are there.

    A placement group for each is the demand that it answers. Unlike a request to the autoscaler itself, they end with
    this process, however it ends: nobody pays for GPUs that no job uses.

    Raises:
        InputError: none came.
    """
    from ray.util import placement_group, remove_placement_group

    started = clock()
    missing = num_gpus - _present()
    if missing > 0:
        _say_wait(num_gpus, num_gpus - missing)
    groups = [placement_group([{"GPU": 1}]) for _ in range(missing)]
    try:
        while (present := _present()) < num_gpus:
            waited = clock() - started
            if present and waited > GRACE_S:
                break
            if waited > LIMIT_S:
                raise InputError(f"--num-gpus {num_gpus}: the cluster brought up none in {waited / 60:.0f} minutes")
            time.sleep(POLL_S)
    finally:
        for group in groups:
            remove_placement_group(group)
    return present


def _say_wait(num_gpus: int, present: int) -> None:
    """Say what is waited for, and how long at most."""
    all_min, first_min = GRACE_S / 60, LIMIT_S / 60
    limit = f"{all_min:.0f} minutes" if present else f"{all_min:.0f} minutes, {first_min:.0f} for the first"
    say(Console(stderr=True), f"waiting for {num_gpus} GPUs, {present} are up: at most {limit}")


def _present() -> int:
    import ray

    return int(ray.cluster_resources().get("GPU", 0))
