"""Ray's client of a job server, made fit for a command line: every request ends in time, every error in one line.

By itself it tries as long as it takes, answers with pages of text, and prefers RAY_ADDRESS to the address it is told.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

from csrm.errors import ClusterError
from jobs.storage import first_line

__all__ = ["DEFAULT_ADDRESS", "UnreachableError", "connect", "find_address", "told", "transport_errors"]

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
TIMEOUTS_S = (10, 60)
"""To connect, and for an answer."""


class UnreachableError(ClusterError):
    """No answer, or none that can be used; perhaps later."""


def find_address(address: str | None) -> str:
    """The URL of the job server that an option means, or else the environment.

    Raises:
        ClusterError: It is no URL, or a secret is in it.
    """
    name, found = "--address", address
    for variable in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        if not found:
            name, found = variable, os.environ.get(variable)
    found = found or DEFAULT_ADDRESS
    scheme, _, place = found.partition("://")
    if "@" in place:
        raise ClusterError(f"{name}: holds a user or password, which others would see; give the URL without")
    if scheme not in ("http", "https") or not place.strip("/"):
        raise ClusterError(
            f"{name} {found}: jobs are submitted to the cluster's dashboard; give --address http://HOST:8265"
        )
    return found.rstrip("/")


def connect(address: str, say: Callable[[str], None]) -> Any:
    """Return a `JobSubmissionClient` of the server at an address.

    Args:
        address: as `find_address` returns it.
        say: told what does not stop us.

    Raises:
        ClusterError: There is none, or it speaks another language.
    """
    with told(address), _only(address):
        try:
            client = _client_class()(address)
            facts = client._do_request("GET", "/api/version").json()
            versions = facts["version"], facts["ray_version"]
        except (KeyError, ValueError, TypeError):
            raise ClusterError(_stranger(address)) from None
    _check_versions(address, *versions, say)
    return client


@contextlib.contextmanager
def told(address: str, id: str = "") -> Iterator[None]:
    """Turn what Ray's client raises into one line.

    Args:
        address: of the server.
        id: the job that it was asked about.
    """
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError:
        raise ClusterError(
            f"{address}: asks for a token; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to a file with the "
            "cluster's (`ray get-auth-token` prints it there)"
        ) from None
    except RuntimeError as error:
        if re.search("(status code|returned) 404", str(error)):
            missing = f"{id}: no such job at {address}; `csrm jobs list` shows all"
            raise ClusterError(missing if id else _stranger(address)) from None
        raise UnreachableError(f"{address}: {_last_line(error)}") from None
    except transport_errors() as error:
        raise UnreachableError(
            f"{address}: no cluster answers ({_reason(error)}); start it, or give another --address"
        ) from None


def transport_errors() -> tuple[type[Exception], ...]:
    """What is raised where a connection fails."""
    import aiohttp
    import requests

    return (requests.RequestException, aiohttp.ClientError, OSError)


def _client_class() -> type[Any]:
    try:
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise ClusterError(f"{first_line(error)}; install what submitting needs: pip install 'csrm[cluster]'") from None
    for name in ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env.packaging"):
        logging.getLogger(f"ray.{name}").setLevel(logging.WARNING)

    class Client(JobSubmissionClient):  # type: ignore[misc]
        def _do_request(self, method: str, endpoint: str, **settings: Any) -> Any:
            return super()._do_request(method, endpoint, **{"timeout": TIMEOUTS_S} | settings)

    return Client


@contextlib.contextmanager
def _only(address: str) -> Iterator[None]:
    """Have Ray's client take the address that it is given: the environment's would overrule it."""
    name = "RAY_API_SERVER_ADDRESS"
    before = os.environ.get(name)
    os.environ[name] = address
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def _stranger(address: str) -> str:
    return f"{address}: something answers that is no Ray cluster's dashboard; give its URL with --address"


def _check_versions(address: str, version: str, ray_version: str, say: Callable[[str], None]) -> None:
    """Refuse another version of the protocol; another Ray is the cluster's own affair, for the driver runs there."""
    import ray
    from ray.dashboard.modules.version import CURRENT_VERSION

    if version != CURRENT_VERSION:
        raise ClusterError(
            f"{address}: its job server speaks version {version} (Ray {ray_version}), this client {CURRENT_VERSION} "
            f"(Ray {ray.__version__}); install the cluster's Ray here"
        )
    if ray_version != ray.__version__:
        say(f"warning: the cluster runs Ray {ray_version}, this client {ray.__version__}")


def _reason(error: Exception) -> str:
    """Why a connection failed, without the library's account of it."""
    text = f"{error} {error.__context__}".lower()
    for words, reason in (("refused", "connection refused"), ("resol", "no such host"), ("timed out", "timed out")):
        if words in text:
            return reason
    return first_line(error)


def _last_line(error: Exception) -> str:
    """Of a traceback, what it is about."""
    lines = [line for line in str(error).strip().splitlines() if line.strip(" .")]
    return lines[-1].strip() if lines else type(error).__name__
