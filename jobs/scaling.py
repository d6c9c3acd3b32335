"""GPUs that a cluster brings up when they are asked for."""

from __future__ import annotations

import time
from collections.abc import Callable

from csrm.errors import InputError

__all__ = ["bring_up"]

GRACE_S = 900.0
"""Seconds after which a job goes on with fewer GPUs than it asked for: a spot market may have no more."""
LIMIT_S = 3600.0
"""Seconds after which a cluster without any has none to give."""
POLL_S = 1.0


def bring_up(num_gpus: int, *, clock: Callable[[], float] = time.monotonic) -> int:
    """Make the cluster's autoscaler bring GPUs up; return how many are there.

    A placement group for each is the demand that it answers. Unlike a request to the autoscaler itself, they end with
    this process, however it ends: nobody pays for GPUs that no job uses.

    Raises:
        InputError: none came.
    """
    from ray.util import placement_group, remove_placement_group

    started = clock()
    groups = [placement_group([{"GPU": 1}]) for _ in range(num_gpus - _present())]
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


def _present() -> int:
    import ray

    return int(ray.cluster_resources().get("GPU", 0))
