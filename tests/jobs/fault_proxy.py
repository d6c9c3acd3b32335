"""An HTTP proxy on loopback that counts requests and spoils some of them, in ways an object store does.

Requests go to the server byte for byte, the Host header too, for an S3 signature covers it. Answers are read whole
before the client sees any of them, so that a fault can cut them where it likes.

The faults:
    error_500, slow_down: the server never sees the request; the client is told 500 InternalError or 503 SlowDown.
    lost_answer: the server obeys; the client's connection is reset in place of the answer.
    reset, truncate: the server obeys; the client gets half of the answer's body, nothing at all where the answer has
        none, then a reset, or an end of file like any other.
    stall: the server obeys; the client hears nothing for `stall_s` seconds, then an end of file.

Two more are no accidents, and no retry mends them:
    access_denied, expired_token: the server never sees the request; the client is told 403 AccessDenied or 400
        ExpiredToken.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

HOST = "127.0.0.1"
ERRORS = {
    "error_500": ("500 Internal Server Error", "InternalError", "We encountered an internal error. Please try again."),
    "slow_down": ("503 Slow Down", "SlowDown", "Please reduce your request rate."),
    "access_denied": ("403 Forbidden", "AccessDenied", "Access Denied"),
    "expired_token": ("400 Bad Request", "ExpiredToken", "The provided token has expired."),
}
FAULTS = ("error_500", "slow_down", "reset", "truncate", "stall", "lost_answer")
REFUSALS = ("access_denied", "expired_token")
BUFFER_BYTES = 1 << 20


class Answer(NamedTuple):
    """What the server said; `more` where another request may follow on the same connection."""

    head: bytes
    body: bytes
    more: bool


def parse_headers(head: bytes) -> dict[str, str]:
    """Return the headers of a request or an answer, names in lower case."""
    lines = head.decode("latin-1").split("\r\n")[1:]
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}


def keeps_alive(head: bytes) -> bool:
    """Return whether who sent this request or answer wants to keep the connection."""
    wish = parse_headers(head).get("connection", "").lower()
    return wish != "close" and (b"HTTP/1.1" in head.split(b"\r\n", 1)[0] or wish == "keep-alive")


def is_chunked(headers: dict[str, str]) -> bool:
    """Return whether a body comes in chunks."""
    return "chunked" in headers.get("transfer-encoding", "").lower()


async def read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    """Return a body as it was sent: a chunked one with the lines between its chunks."""
    if not is_chunked(headers):
        return await reader.readexactly(int(headers.get("content-length", 0)))
    parts, size = [], None
    while size != 0:
        parts.append(await reader.readuntil(b"\r\n"))
        size = int(parts[-1].split(b";")[0], 16)
        parts.append(await reader.readexactly(size + 2) if size else b"")
    while parts[-1] != b"\r\n":  # trailers, and the empty line that ends them
        parts.append(await reader.readuntil(b"\r\n"))
    return b"".join(parts)


async def ask(port: int, method: str, request: bytes) -> Answer:
    """Return a server's answer.

    Every request has a connection of its own: one that the server closed for being idle would look like a fault.
    """
    reader, writer = await asyncio.open_connection(HOST, port, limit=BUFFER_BYTES)
    try:
        writer.write(request)
        status = 100
        while status < 200:  # the proxy itself says "100 Continue"
            head = await reader.readuntil(b"\r\n\r\n")
            status = int(head.split(None, 2)[1])
        headers, more = parse_headers(head), keeps_alive(head)
        if method == "HEAD" or status in (204, 304):
            return Answer(head, b"", more)
        if is_chunked(headers) or "content-length" in headers:
            return Answer(head, await read_body(reader, headers), more)
        return Answer(head, await reader.read(), more=False)
    finally:
        writer.transport.abort()


def error_answer(fault: str, method: str) -> bytes:
    """Return an error as S3 words it."""
    status, code, message = ERRORS[fault]
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
    return (head if method == "HEAD" else head + body).encode()


class FaultProxy:
    """Stands before the server on a loopback port while the `with` block runs.

    Spoiled are, at `rate`, the requests that have one of the `numbers` (from 1, in order of arrival), if any are
    given, and for which `when(number, method, path)` holds, if it is given. Which of the `faults` a request suffers
    depends on its number and the seed alone. With no faults the proxy just counts.
    """

    def __init__(
        self,
        upstream_port: int,
        *,
        faults: Sequence[str] = (),
        rate: float = 1.0,
        seed: int = 0,
        numbers: Collection[int] | None = None,
        when: Callable[[int, str, str], bool] | None = None,
        stall_s: float = 5.0,
    ):
        unknown = set(faults) - {*FAULTS, *REFUSALS}
        if unknown:
            raise ValueError(f"no such fault: {sorted(unknown)}; there are {FAULTS + REFUSALS}")
        self.upstream_port = upstream_port
        self.faults, self.rate, self.seed = tuple(faults), rate, seed
        self.numbers, self.when, self.stall_s = numbers, when, stall_s
        self.num_requests = 0
        self.injected: list[tuple[int, str, str, str]] = []
        self._tasks: list[asyncio.Task] = []

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def fault_of(self, number: int, method: str, path: str) -> str | None:
        """Return what this request suffers, if anything."""
        chance = random.Random(f"{self.seed}/{number}")
        if not self.faults or chance.random() >= self.rate:
            return None
        if self.numbers is not None and number not in self.numbers:
            return None
        if self.when is not None and not self.when(number, method, path):
            return None
        return chance.choice(self.faults)

    def __enter__(self) -> FaultProxy:
        self._loop = asyncio.new_event_loop()
        listening = asyncio.start_server(self._accept, HOST, 0, limit=BUFFER_BYTES)
        self._server = self._loop.run_until_complete(listening)
        self.port = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy")
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        for task in self._tasks:
            if not task.cancelled():
                task.result()  # raises what went wrong in the proxy

    async def _stop(self) -> None:
        """Hang up on everybody, also on who is only just connecting."""
        self._server.close()
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in others:
                task.cancel()
            await asyncio.wait(others)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Not a coroutine: asyncio would make a task of that, and complain when it is cancelled.
        self._tasks.append(self._loop.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection until a side hangs up."""
        try:
            with contextlib.suppress(OSError, EOFError):
                while await self._serve_request(reader, writer):
                    pass
                writer.close()
                await writer.wait_closed()
        finally:
            writer.transport.abort()  # of no effect where all has been sent and closed

    async def _serve_request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request, or spoil it; return whether another may follow."""
        head = await reader.readuntil(b"\r\n\r\n")
        method, path, _ = head.decode("latin-1").split(" ", 2)
        headers = parse_headers(head)
        if headers.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request = head + await read_body(reader, headers)
        self.num_requests += 1
        fault = self.fault_of(self.num_requests, method, path)
        if fault is not None:
            self.injected.append((self.num_requests, method, path, fault))
        if fault in ERRORS:
            writer.write(error_answer(fault, method))
            return keeps_alive(head)
        answer = await ask(self.upstream_port, method, request)
        if fault is not None:
            await self._spoil(fault, answer, reader, writer)
            return False
        writer.write(answer.head + answer.body)
        await writer.drain()
        return answer.more and keeps_alive(head)

    async def _spoil(
        self, fault: str, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Do to a client what the fault is, all but closing the connection in good order."""
        if fault == "stall":
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader.read(1), self.stall_s)  # returns when the client gives up
        if fault in ("reset", "truncate"):
            writer.transport.set_write_buffer_limits(0)  # so that `drain` waits for the last byte
            writer.write(answer.head + answer.body[: len(answer.body) // 2] if answer.body else b"")
            await writer.drain()
        if fault in ("reset", "lost_answer"):
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
