"""CSRM: score every conversation against every safety policy.

>>> import csrm
>>> model = csrm.CSRM.from_pretrained()
>>> configurations = csrm.load_configurations("policies/")
>>> matrix = model.score([[{"role": "user", "content": "Hello"}]], configurations)
>>> matrix.p_safe
"""

from csrm.calibration import Calibration
from csrm.configurations import Clause, Configuration, dump_configuration, load_configurations
from csrm.encoding import Encoder
from csrm.errors import CheckpointError, ConfigurationError, CSRMError, InputError, RecordError
from csrm.matrix import ComplianceMatrix
from csrm.messages import Message
from csrm.model import CSRM, Layout

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
]

__version__ = "0.1.0"
