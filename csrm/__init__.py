"""CSRM: score every conversation against every safety policy.

>>> import csrm
>>> model = csrm.CSRM.from_pretrained()
>>> configurations = csrm.load_configurations("policies/")
>>> matrix = model.score([[{"role": "user", "content": "Hello"}]], configurations)
>>> matrix.p_safe
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from csrm.calibration import Calibration
    from csrm.configurations import Clause, Configuration, dump_configuration, load_configurations
    from csrm.encoding import Encoder
    from csrm.errors import CheckpointError, ConfigurationError, CSRMError, InputError, RecordError
    from csrm.matrix import ComplianceMatrix
    from csrm.messages import Message
    from csrm.model import CSRM, Layout
    from csrm.reward_functions import trl_reward

__version__ = "0.1.0"

__all__ = [
    "CSRM",
    "CSRMError",
    "Calibration",
    "CheckpointError",
    "Clause",
    "ComplianceMatrix",
    "Configuration",
    "ConfigurationError",
    "Encoder",
    "InputError",
    "Layout",
    "Message",
    "RecordError",
    "dump_configuration",
    "load_configurations",
    "trl_reward",
]

_HOMES = {
    "calibration": ("Calibration",),
    "configurations": ("Clause", "Configuration", "dump_configuration", "load_configurations"),
    "encoding": ("Encoder",),
    "errors": ("CSRMError", "CheckpointError", "ConfigurationError", "InputError", "RecordError"),
    "matrix": ("ComplianceMatrix",),
    "messages": ("Message",),
    "model": ("CSRM", "Layout"),
    "reward_functions": ("trl_reward",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: torch and transformers take seconds, and help needs neither."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'csrm' has no attribute {name!r}")
    value = getattr(import_module(f"csrm.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
