"""Object stores fail now and then: what is worth another try, for how long, and reading on where a connection broke.

s3fs, botocore and aiohttp each try again by themselves, one inside the other, so that a dead endpoint can hold a single
read for half an hour. They are told to hardly try; this module does, once, around all of them.
"""

from __future__ import annotations

import io
import logging
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, ParamSpec, TypeVar
from urllib.parse import urlsplit

from fsspec import AbstractFileSystem
from fsspec.exceptions import FSTimeoutError

from csrm.errors import InputError

__all__ = [
    "S3_SETTINGS",
    "ResumingFile",
    "check_environment",
    "endpoints",
    "error_code",
    "is_denied",
    "is_transient",
    "is_transport",
    "prepare",
    "retried",
]

TRIES = 9
FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 15.0
"""Between two tries: twice as long each time, about 50 s in all."""

S3_SETTINGS: dict[str, Any] = {
    "use_listings_cache": False,
    "config_kwargs": {
        "connect_timeout": 10,
        "read_timeout": 30,
        "retries": {"mode": "standard", "total_max_attempts": 2},
    },
}
"""Of the filesystem: a listing is asked for when it is needed, and a million files are not remembered twice."""

BLOCK_BYTES = 8 * 2**20
"""Read at once, where less is asked for."""

PERMANENT = (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError)
PERMANENT_STATUSES = frozenset({400, 401, 403, 412})
TRANSIENT_CODES = frozenset(
    {"RequestTimeout", "BadDigest", "IncompleteBody", "Throttling", "ThrottlingException", "IDPCommunicationError"}
)
"""Told with status 400 and yet worth another try: the request was damaged on its way, or came too soon."""
DENIED_CODES = frozenset(
    {"400", "401", "ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired"}
    | {"InvalidIdentityToken", "AuthorizationHeaderMalformed"}
)
"""Said of credentials by errors that are no PermissionError; "400" where an answer to HEAD has no room for words."""

ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")

P = ParamSpec("P")
T = TypeVar("T")


def check_environment() -> None:
    """Raise where settings for stores cannot be used, before something less clear is.

    Raises:
        InputError: An endpoint has a password in it, or the token of a web identity is not there.
    """
    endpoints()
    token = os.environ.get("AWS_WEB_IDENTITY_TOKEN_FILE")
    is_used = token and os.environ.get("AWS_ROLE_ARN") and not os.environ.get("AWS_ACCESS_KEY_ID")
    if is_used and not Path(str(token)).is_file():  # or it would look as if the file in the store were missing
        raise InputError(f"AWS_WEB_IDENTITY_TOKEN_FILE: no file {token}; mount it, or unset the variable")


def endpoints() -> dict[str, str]:
    """Where this process finds stores, by the environment's variables; what workers are told of it, and no credential.

    Raises:
        InputError: A URL has a password in it.
    """
    found = {name: os.environ[name] for name in ENDPOINT_VARIABLES if os.environ.get(name)}
    for name, url in found.items():
        # Workers are told through their command lines, and errors name the endpoint that was not reached.
        if "@" in urlsplit(url).netloc:
            raise InputError(f"{name}: holds a user or password, which others would see; give the URL without")
    return found


def prepare(filesystem: AbstractFileSystem) -> None:
    """Have an s3fs filesystem try once by itself, and its client twice."""
    filesystem.retries = 1
    # What fails is raised; botocore's own account of it is several screens long.
    for library in ("botocore", "aiobotocore"):
        logging.getLogger(f"{library}.credentials").setLevel(logging.CRITICAL)


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
    from botocore import exceptions

    return bool(error_code(error)) or isinstance(
        error,
        ClientError
        | FSTimeoutError
        | ConnectionError
        | TimeoutError
        | exceptions.HTTPClientError
        | exceptions.ConnectionError
        | exceptions.IncompleteReadError
        | exceptions.ChecksumError
        | exceptions.FlexibleChecksumError
        | exceptions.MetadataRetrievalError
        | exceptions.CredentialRetrievalError,
    )


def is_denied(error: BaseException) -> bool:
    """Whether credentials are missing or wrong, or settings of the client are: all that it checks by itself."""
    from botocore.exceptions import BotoCoreError

    return (
        isinstance(error, PermissionError)
        or (isinstance(error, BotoCoreError) and not is_transport(error))
        or error_code(error) in DENIED_CODES
    )


def is_transient(error: BaseException) -> bool:
    """Whether another try may end differently."""
    code = error_code(error)
    if isinstance(error, PERMANENT) or (_status(error) in PERMANENT_STATUSES and code not in TRANSIENT_CODES):
        return False
    return is_transport(error)


def error_code(error: BaseException) -> str:
    """What a store calls an error; empty where it said nothing."""
    return str(_response(error).get("Error", {}).get("Code", ""))


def _status(error: BaseException) -> int:
    """Of HTTP; 0 where there was no answer."""
    return int(_response(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _response(error: BaseException) -> dict[str, Any]:
    return getattr(error.__cause__, "response", None) or {}


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
