"""What all tests share: no network, no deadlines on a shared machine."""

from __future__ import annotations

import os

from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

settings.register_profile("shared-machine", deadline=None, max_examples=50)
settings.load_profile("shared-machine")


def pytest_addoption(parser):
    """Random faults are drawn anew in each round."""
    parser.addoption("--fault-rounds", type=int, default=1, metavar="N", help="rounds of every random fault")
