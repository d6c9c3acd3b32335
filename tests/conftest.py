"""What all tests share: no network, no deadlines on a shared machine."""

from __future__ import annotations

import os

from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

settings.register_profile("shared-machine", deadline=None, max_examples=50)
settings.load_profile("shared-machine")
