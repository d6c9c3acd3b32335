"""Questions to an OpenAI-compatible chat endpoint, any vLLM server for instance, answered in JSON.

It knows sockets, retries and counts, and nothing of what is asked: a question brings its JSON schema and the function
that reads the answer. Standard library only. The key is read from an environment variable; no message holds it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any, Generic, TypeVar
from urllib.parse import SplitResult, urlsplit

from csrm.errors import EndpointError

__all__ = ["ChatClient", "Counts", "Endpoint", "MalformedAnswer", "Question"]

Answer = TypeVar("Answer")

_MAX_ANSWER_BYTES = 2**22
_MAX_CONTENT_CHARS = 2**16
_MAX_OBJECTS = 200
_REFUSED = {401: "check the API key", 403: "check the API key", 404: "check the URL and the model's name"}


class MalformedAnswer(ValueError):  # noqa: N818  (it is an answer, not a failure of ours)
    """The endpoint answered, but not what was asked for."""


class _NoAnswer(Exception):  # noqa: N818
    """No answer this time; `retry_after_s` is None where asking again is no use."""

    def __init__(self, reason: str, retry_after_s: float | None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where to ask, and how patiently."""

    url: str
    """Base address, such as http://localhost:8000/v1."""
    model: str
    """The model's name on that server."""
    api_key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; unset or empty sends none."""
    timeout_s: float = 60.0
    """The longest that one request may take, from connecting to the last byte."""
    max_retries: int = 5
    """How often a question is asked again after 429, 5xx, a broken connection or a timeout."""
    backoff_s: float = 0.5
    """Wait before the first retry; doubles with each, with jitter."""
    max_wait_s: float = 60.0
    """The longest wait before a retry; a server that asks for more is given up."""
    num_workers: int = 8
    """Requests in flight at once."""
    temperature: float = 1.0
    max_tokens: int = 512
    """The longest answer."""

    def __post_init__(self) -> None:
        self.parts()
        if not self.model:
            raise EndpointError("no model named; give the name under which the server knows it")
        if not (self.timeout_s > 0 and self.backoff_s >= 0 and self.max_wait_s >= 0 and self.temperature >= 0):
            raise ValueError("timeout_s must be positive; backoff_s, max_wait_s and temperature 0 or more")
        if self.max_retries < 0 or min(self.num_workers, self.max_tokens) < 1:
            raise ValueError("max_retries must be 0 or more; num_workers and max_tokens at least 1")

    def parts(self) -> SplitResult:
        """The address, taken apart and checked."""
        try:
            parts = urlsplit(self.url)
            is_usable = parts.scheme in {"http", "https"} and parts.hostname and (parts.port is None or parts.port > 0)
        except ValueError:
            is_usable = False
        if not is_usable:
            raise EndpointError(f"{self.url[:200]!r} is no address; write one like http://localhost:8000/v1")
        if parts.username is not None or parts.query or parts.fragment:
            raise EndpointError("the endpoint's address must hold no password, query or fragment; leave them out")
        return parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What became of the questions: asked = answered + malformed + failed."""

    num_asked: int = 0
    num_answered: int = 0
    num_malformed: int = 0
    """Dropped because two answers in a row could not be read."""
    num_failed: int = 0
    """Dropped because no answer came."""
    num_malformed_answers: int = 0
    """Unreadable answers, those mended by asking again among them."""
    num_retries: int = 0
    """Requests repeated after an error of the server or the network."""
    last_failure: str = ""
    """Why the last question that failed did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question(Generic[Answer]):
    """One question and how to read what comes back."""

    messages: Sequence[Mapping[str, str]]
    name: str
    """Name of the schema, for the server's log."""
    schema: Mapping[str, Any]
    """JSON schema of the answer."""
    read: Callable[[dict[str, Any]], Answer]
    """Makes the answer of the JSON object; raises MalformedAnswer where it is not what was asked for."""
    seed: int = 0


class ChatClient:
    """Asks many questions at once. Safe to share between threads."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._key = _api_key(endpoint.api_key_variable)
        self._counts = Counts()
        self._lock = threading.Lock()
        self._jitter = random.Random()

    @property
    def counts(self) -> Counts:
        """What became of the questions so far."""
        with self._lock:
            return self._counts

    def ask_all(self, questions: Sequence[Question[Answer]]) -> list[Answer | None]:
        """Ask every question; None where no usable answer came. `counts` tells why.

        Raises:
            EndpointError: the server refuses us for good (wrong key, address or model).
        """
        stop = threading.Event()
        with ThreadPoolExecutor(self.endpoint.num_workers, thread_name_prefix="chat") as pool:
            futures = [pool.submit(self._ask, question, stop) for question in questions]
            try:
                return [future.result() for future in futures]
            except BaseException:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _ask(self, question: Question[Answer], stop: threading.Event) -> Answer | None:
        if stop.is_set():
            return None
        self._count(num_asked=1)
        body = json.dumps(_payload(self.endpoint, question)).encode()
        try:
            for _ in range(2):
                try:
                    answer = _read(self._patiently(body, stop), question)
                except MalformedAnswer:
                    self._count(num_malformed_answers=1)
                else:
                    self._count(num_answered=1)
                    return answer
        except EndpointError:
            stop.set()
            raise
        except _NoAnswer as failure:
            self._count(num_failed=1, last_failure=str(failure))
            return None
        self._count(num_malformed=1)
        return None

    def _patiently(self, body: bytes, stop: threading.Event) -> bytes:
        """The body of a 200 answer, after as many retries as it takes."""
        for attempt in range(self.endpoint.max_retries + 1):
            try:
                return self._once(body)
            except _NoAnswer as failure:
                wait_s = self._wait_s(attempt, failure.retry_after_s)
                if attempt == self.endpoint.max_retries or wait_s is None or stop.wait(wait_s):
                    raise
            self._count(num_retries=1)
        raise AssertionError("the last attempt returns or raises")

    def _wait_s(self, attempt: int, retry_after_s: float | None) -> float | None:
        """How long to wait before asking again; None to give up."""
        if retry_after_s is None or retry_after_s > self.endpoint.max_wait_s:
            return None
        backoff_s: float = min(self.endpoint.backoff_s * 2.0**attempt, self.endpoint.max_wait_s)
        return max(retry_after_s, backoff_s * self._jitter.uniform(0.5, 1.0))

    def _once(self, body: bytes) -> bytes:
        try:
            status, headers, answer = self._exchange(body)
        except ssl.SSLCertVerificationError as error:
            raise EndpointError(f"{self.endpoint.url}: {error.verify_message}; mend its certificate") from None
        except (OSError, http.client.HTTPException) as error:
            raise _NoAnswer(f"no answer ({type(error).__name__})", 0.0) from None
        if status == 200:
            return answer
        if remedy := _REFUSED.get(status):
            raise EndpointError(f"{self.endpoint.url}: refused with status {status}; {remedy}")
        is_passing = status in {408, 429} or status >= 500
        raise _NoAnswer(f"status {status}", _retry_after_s(headers) if is_passing else None)

    def _exchange(self, body: bytes) -> tuple[int, http.client.HTTPMessage, bytes]:
        """One request on a connection of its own, within `timeout_s` whatever the server does."""
        parts = self.endpoint.parts()
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=self.endpoint.timeout_s)
        try:
            deadline = time.monotonic() + self.endpoint.timeout_s
            connection.connect()
            # A socket's own timeout starts anew with every byte: a trickle would outlast it.
            watchdog = threading.Timer(max(deadline - time.monotonic(), 0.0), _shut, [connection.sock])
            watchdog.daemon = True
            watchdog.start()
            try:
                return self._conversation(connection, f"{parts.path.rstrip('/') or '/v1'}/chat/completions", body)
            finally:
                watchdog.cancel()
        finally:
            connection.close()

    def _conversation(
        self, connection: http.client.HTTPConnection, path: str, body: bytes
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Connection": "close"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        connection.request("POST", path, body, headers)
        with connection.getresponse() as response:
            answer = response.read(_MAX_ANSWER_BYTES)
            if response.length:
                raise http.client.IncompleteRead(answer)
            return response.status, response.headers, answer

    def _count(self, *, last_failure: str = "", **more: int) -> None:
        with self._lock:
            counts = {name: getattr(self._counts, name) + number for name, number in more.items()}
            self._counts = replace(self._counts, last_failure=last_failure or self._counts.last_failure, **counts)


def _api_key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise EndpointError(f"{variable} holds signs that no API key has; set it anew")
    return key


def _payload(endpoint: Endpoint, question: Question[Any]) -> dict[str, Any]:
    schema = {"name": question.name, "strict": True, "schema": question.schema}
    return {
        "model": endpoint.model,
        "messages": list(question.messages),
        "temperature": endpoint.temperature,
        "max_tokens": endpoint.max_tokens,
        "seed": question.seed,
        "response_format": {"type": "json_schema", "json_schema": schema},
    }


def _read(answer: bytes, question: Question[Answer]) -> Answer:
    """The last JSON object of the answer that reads as what was asked for.

    The last: models that think aloud, or quote the question, come to their answer at the end.
    """
    for found in _objects(_content(answer)):
        with contextlib.suppress(MalformedAnswer):
            return question.read(found)
    raise MalformedAnswer("no JSON object of the kind that was asked for")


def _content(answer: bytes) -> str:
    try:
        content = json.loads(answer)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise MalformedAnswer("not a chat completion") from None
    if not isinstance(content, str):
        raise MalformedAnswer("a chat completion without text")
    return content[-_MAX_CONTENT_CHARS:]


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in a text, the one that begins last first, whatever stands around them."""
    decoder = json.JSONDecoder()
    start = len(text)
    for _ in range(_MAX_OBJECTS):
        start = text.rfind("{", 0, start)
        if start < 0:
            return
        with contextlib.suppress(ValueError, RecursionError):
            yield decoder.raw_decode(text, start)[0]


def _retry_after_s(headers: http.client.HTTPMessage) -> float:
    """Seconds that a server asks to wait: a number, or a date (RFC 9110, section 10.2.3); 0 where it does not say."""
    value = headers.get("Retry-After", "").strip()
    with contextlib.suppress(ValueError, OverflowError):
        if value.isdecimal():
            return float(value)
        return max(parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    return 0.0


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
