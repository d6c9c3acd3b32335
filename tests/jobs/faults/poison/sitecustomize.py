"""Makes a model fall over certain tokens. Python runs this file when it starts, if its folder is in PYTHONPATH.

CSRM_POISON is a JSON object: what happens ("kill", "hang", "raise") → the token that does it.
"""

import importlib.machinery
import json
import os
import signal
import sys
import time

POISON = json.loads(os.environ.get("CSRM_POISON", "{}"))


def suffer(ids):
    if POISON["kill"] in ids:
        os.kill(os.getpid(), signal.SIGKILL)
    if POISON["hang"] in ids:
        time.sleep(10_000)
    if POISON["raise"] in ids:
        raise RuntimeError("out of memory, or so")


class Poisoner:
    """Finds `csrm.model` as Python does, and wraps its scoring once it is loaded."""

    @staticmethod
    def find_spec(name, path, target=None):
        if name != "csrm.model":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        load = spec.loader.exec_module

        def load_and_poison(module):
            load(module)
            score = module.CSRM.score_encoded

            def fragile(self, encoded, *arguments, **settings):
                suffer(encoded.input_ids)
                return score(self, encoded, *arguments, **settings)

            module.CSRM.score_encoded = fragile

        spec.loader.exec_module = load_and_poison
        return spec


if POISON:
    sys.meta_path.insert(0, Poisoner)
