"""Object stores fail now and then: what is worth another try, for how long, and reading on where a connection broke.

s3fs, botocore and aiohttp each try again by themselves, one inside the other, so that a dead endpoint can hold a single
read for half an hour. They are told to hardly try; this module does, once, around all of them.
"""

from __future__ import annotations

import io
import random
import time
from collections.abc import Callable
from typing import Any, BinaryIO, ParamSpec, TypeVar

from fsspec import AbstractFileSystem
from fsspec.exceptions import FSTimeoutError

__all__ = ["S3_SETTINGS", "ResumingFile", "error_code", "is_transient", "is_transport", "prepare", "retried"]

TRIES = 9
FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 15.0
"""Between two tries: twice as long each time, about 50 s in all."""

S3_SETTINGS: dict[str, Any] = {
    "config_kwargs": {
        "connect_timeout": 10,
        "read_timeout": 30,
        "retries": {"mode": "standard", "total_max_attempts": 2},
    }
}
"""Of the client."""

BLOCK_BYTES = 8 * 2**20
"""Read at once, where less is asked for."""

PERMANENT = (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError)
PERMANENT_CODES = frozenset(
    {"PreconditionFailed", "ExpiredToken", "InvalidToken", "NoSuchBucket", "AccessDenied", "400"}
)

P = ParamSpec("P")
T = TypeVar("T")


def prepare(filesystem: AbstractFileSystem) -> None:
    """Have an s3fs filesystem try once by itself, and its client twice."""
    filesystem.retries = 1


def retried(function: Callable[P, T], *arguments: P.args, **settings: P.kwargs) -> T:
    """Call a function until it succeeds, or fails in a way that another try will not change, or for too long."""
    wait = FIRST_WAIT_S
    for _ in range(TRIES - 1):
        try:
            return function(*arguments, **settings)
        except Exception as error:
            if not is_transient(error):
                raise
        # Many workers meet one outage: jitter keeps them from coming back all at once.
        time.sleep(wait * random.uniform(0.5, 1.5))
        wait = min(2 * wait, LONGEST_WAIT_S)
    return function(*arguments, **settings)


def is_transport(error: BaseException) -> bool:
    """Whether the way to a store, or the store, failed; not what it holds."""
    from aiohttp import ClientError
    from botocore.exceptions import BotoCoreError

    return isinstance(error, ClientError | BotoCoreError | FSTimeoutError | ConnectionError | TimeoutError) or bool(
        error_code(error)
    )


def is_transient(error: BaseException) -> bool:
    """Whether another try may end differently."""
    from botocore.exceptions import NoCredentialsError

    if isinstance(error, (*PERMANENT, NoCredentialsError)) or error_code(error) in PERMANENT_CODES:
        return False
    return is_transport(error)


def error_code(error: BaseException) -> str:
    """What a store calls an error; empty where it said nothing."""
    response = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


class ResumingFile(io.RawIOBase):
    """A remote file that is opened again, at the same place, where reading it broke off."""

    def __init__(self, filesystem: AbstractFileSystem, path: str):
        self._open: Callable[[], BinaryIO] = lambda: filesystem.open(path, "rb", block_size=BLOCK_BYTES)
        self._file = retried(self._open)
        self._position = 0
        self._size = int(self._file.size)  # type: ignore[attr-defined]

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, or as much of it as there is."""
        data = retried(self._read, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; nothing is fetched."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        """Where the next byte is."""
        return self._position

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def close(self) -> None:
        """Let go of what was fetched."""
        self._file.close()
        super().close()

    def _read(self, number: int) -> bytes:
        try:
            self._file.seek(self._position)
            return self._file.read(number)
        except Exception as error:
            if is_transient(error):
                self._file = self._open()
            raise
