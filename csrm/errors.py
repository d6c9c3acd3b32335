"""What can go wrong, as one small tree.

CSRMError                   anything a user can mend
├── ConfigurationError      a safety configuration cannot be read
├── RecordError             a record is not a conversation that can be judged
├── InputError              an input file or folder is missing or unreadable
├── TargetError             an output folder cannot be written to, or somebody else does
├── CheckpointError         a model folder is incomplete or of another kind
├── EndpointError           a chat endpoint is named wrongly or refuses us
└── ClusterError            a cluster cannot be reached, or does not know a job

Every message is one line that names the file (or row) and says what to do.
"""

__all__ = [
    "CSRMError",
    "CheckpointError",
    "ClusterError",
    "ConfigurationError",
    "EndpointError",
    "InputError",
    "RecordError",
    "TargetError",
]


class CSRMError(Exception):
    """Base of every error that a user can mend."""


class ConfigurationError(CSRMError):
    """A safety configuration cannot be read."""


class RecordError(CSRMError):
    """A record is not a conversation that can be judged."""


class InputError(CSRMError):
    """An input file or folder is missing or unreadable."""


class TargetError(CSRMError):
    """An output folder cannot be written to, or somebody else writes there."""


class CheckpointError(CSRMError):
    """A model folder is incomplete, or holds something that is not a CSRM."""


class EndpointError(CSRMError):
    """A chat endpoint is named wrongly, or refuses us for good."""


class ClusterError(CSRMError):
    """A Ray cluster cannot be reached, refuses us, or does not know a job."""
