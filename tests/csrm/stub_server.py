"""A chat endpoint on loopback that speaks the real protocol, and misbehaves when told to.

Each request takes the next act of the script; when the script is over, every request is answered well.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GOOD = {
    "violated": {"category": "Gambling", "guideline": "Do not advertise betting sites."},
    "kept": {"category": "Sports results", "guideline": "Do not invent match results."},
}


class Stub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, script: Iterable[Callable] = (), answer=GOOD):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = list(script)
        self.answer = answer if callable(answer) else lambda request: answer
        self.requests: list[dict] = []
        self.headers: list[dict] = []
        self.times: list[float] = []
        self.paths: list[str] = []
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.in_flight = self.most_in_flight = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request, client_address):
        """Clients hang up; that is what is tested."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        stub = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with stub.lock:
            stub.requests.append(body)
            stub.headers.append(dict(self.headers))
            stub.times.append(time.monotonic())
            stub.paths.append(self.path)
            act = stub.script.pop(0) if stub.script else well
        act(self, stub, body)

    def reply(self, status: int, body: bytes, headers: dict | None = None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def complete(self, content: str | None, finish_reason: str = "stop"):
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": content},
            "finish_reason": finish_reason,
        }
        completion = {"id": "x", "object": "chat.completion", "created": 0, "model": "stub", "choices": [choice]}
        self.reply(200, json.dumps(completion).encode(), {"Content-Type": "application/json"})

    def log_message(self, *_):
        pass


def well(handler, stub, body):
    handler.complete(json.dumps(stub.answer(body)))


def status(code: int, **headers):
    """Answer with a status; retry_after="1" becomes Retry-After: 1. The body quotes the key, as some servers do."""
    named = {name.replace("_", "-").title(): value for name, value in headers.items()}

    def act(handler, stub, body):
        handler.reply(code, f"refused: {handler.headers.get('Authorization')}".encode(), named)

    return act


def says(content: str | None):
    return lambda handler, stub, body: handler.complete(content)


def slow(seconds: float):
    """Answer well after a while; counted as in flight until the answer begins."""

    def act(handler, stub, body):
        with stub.lock:
            stub.in_flight += 1
            stub.most_in_flight = max(stub.in_flight, stub.most_in_flight)
        stub.closing.wait(seconds)
        with stub.lock:
            stub.in_flight -= 1
        well(handler, stub, body)

    return act


def hang(handler, stub, body):
    """Take the request and never answer."""
    stub.closing.wait(30)


def trickle(handler, stub, body):
    """Send one byte at a time for half a minute, each well within any socket timeout."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    end = time.monotonic() + 30
    while time.monotonic() < end and not stub.closing.wait(0.02):
        handler.wfile.write(b" ")
        handler.wfile.flush()


def cut(handler, stub, body):
    """Promise more than is sent, then hang up."""
    handler.send_response(200)
    handler.send_header("Content-Length", "5000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.wfile.flush()
    handler.close_connection = True


def hang_up(handler, stub, body):
    """Close the connection without a word."""
    handler.close_connection = True


def no_completion(handler, stub, body):
    handler.reply(200, b"<html>proxy error</html>")


@contextmanager
def serving(script: Iterable[Callable] = (), answer=GOOD):
    stub = Stub(script, answer)
    thread = threading.Thread(target=stub.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        stub.closing.set()
        stub.shutdown()
        stub.server_close()
        thread.join()
