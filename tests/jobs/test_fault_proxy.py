"""The proxy is invisible until it spoils a request, and then it does what the fault's name says."""

import http.client
import os
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from fault_proxy import BUFFER_BYTES, FAULTS, FaultProxy

BODY = bytes(range(250)) * 4
TIMEOUT_S = 60


class Store(BaseHTTPRequestHandler):
    """Keeps what is PUT, and a list of the requests."""

    protocol_version = "HTTP/1.1"

    def do_PUT(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append(("PUT", self.path))
        exists = self.path in self.server.objects
        if exists and self.headers["If-None-Match"] == "*":
            return self.answer(412)
        self.server.objects[self.path] = data
        return self.answer(200)

    def do_GET(self):
        self.server.requests.append((self.command, self.path))
        self.answer(200, self.server.objects.get(self.path, BODY))

    do_HEAD = do_GET

    def answer(self, status, body=b""):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def store():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Store)
    server.daemon_threads = False  # so that `server_close` waits for them
    server.requests, server.objects = [], {}
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def connect(proxy, timeout_s=TIMEOUT_S):
    return closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=timeout_s))


def ask(connection, method="GET", path="/some/key", body=None, headers=()):
    """Return status and body."""
    connection.request(method, path, body, dict(headers))
    response = connection.getresponse()
    return response.status, response.read()


def read_all(connection):
    return b"".join(iter(lambda: connection.recv(1 << 20), b""))


def send(proxy, request, hang_up=True):
    """Send bytes, and no more if `hang_up`; return all that comes back until the proxy hangs up."""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=TIMEOUT_S) as connection:
        connection.sendall(request)
        if hang_up:
            connection.shutdown(socket.SHUT_WR)
        return read_all(connection)


def exchange(request, answer, hang_up=True):
    """Send bytes to a server that answers with bytes; return what it got and what came back, to the end."""

    def serve(listener, arrived):
        connection, _ = listener.accept()
        with connection:
            while sum(map(len, arrived)) < len(request):
                arrived.append(connection.recv(1 << 20))
            connection.sendall(answer)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1)  # the proxy hangs up

    arrived = []
    with socket.create_server(("127.0.0.1", 0)) as listener, FaultProxy(listener.getsockname()[1]) as proxy:
        thread = threading.Thread(target=serve, args=(listener, arrived))
        thread.start()
        received = send(proxy, request, hang_up)
        thread.join()
        assert proxy.num_requests == 1
    return b"".join(arrived), received


LARGE = b"%d\r\n\r\n%s" % (3 * BUFFER_BYTES, os.urandom(3 * BUFFER_BYTES))
CHUNKS = b"4;name=value\r\nwi\r\n\r\nA\r\n0123456789\r\n0\r\nx-sum: 1\r\n\r\n"
PUT = b"PUT /a%20b?x=/&y HTTP/1.1\r\nhOST: elsewhere:80\r\nX-Twice: 1\r\nX-Twice:2\r\n"
OK = b"HTTP/1.1 200 Fine\r\nsERVER:x\r\n"


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (PUT + b"Content-Length: 3\r\n\r\nabc", OK + b"Content-Length: 4\r\n\r\nwxyz"),
        (PUT + b"\r\n", OK + b"Content-Length: 0\r\n\r\n"),
        (PUT + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS, OK + b"transfer-encoding: Chunked\r\n\r\n" + CHUNKS),
        (PUT + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (PUT + b"Content-Length: " + LARGE, OK + b"Content-Length: " + LARGE),
        (b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", OK + b"Content-Length: 4\r\n\r\n"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n"),
        (b"DELETE / HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", OK + b"\r\nuntil the end of file"),
        (b"GET / HTTP/1.0\r\n\r\n", b"HTTP/1.0 404 Nothing\r\nContent-Length: 1\r\n\r\n-"),
    ],
    ids=["length", "no-body", "chunked", "empty-chunked", "large", "head", "304", "204", "until-end", "http-1.0"],
)
def test_messages_pass_byte_for_byte(request_, answer):
    arrived, received = exchange(request_, answer)
    assert arrived == request_
    assert received == answer


def test_a_client_that_waits_to_send_its_body_is_told_once_to_go_on():
    go_on = b"HTTP/1.1 100 Continue\r\n\r\n"
    request = PUT + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc"
    answer = OK + b"Content-Length: 0\r\n\r\n"
    assert exchange(request, go_on + answer) == (request, go_on + answer)


def test_a_connection_carries_many_requests_and_all_are_counted(store):
    with FaultProxy(store.server_port) as proxy, connect(proxy) as connection:
        assert ask(connection, "PUT", body=b"data") == (200, b"")
        first = connection.sock
        assert ask(connection) == (200, b"data")
        assert ask(connection, "HEAD") == (200, b"")
        assert ask(connection, "PUT", body=b"", headers={"If-None-Match": "*"}) == (412, b"")
        assert ask(connection) == (200, b"data")
        assert connection.sock is first
        assert (proxy.num_requests, proxy.injected) == (5, [])
        assert proxy.url == f"http://127.0.0.1:{proxy.port}"


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"\r\nuntil the end of file",
        OK + b"Connection: close\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 204 No Content\r\n\r\n",
    ],
)
def test_a_connection_ends_where_the_server_wants_it_to(answer):
    assert exchange(PUT + b"\r\n", answer, hang_up=False)[1] == answer


@pytest.mark.parametrize("request_", [b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n"])
def test_a_connection_ends_where_the_client_wants_it_to(store, request_):
    with FaultProxy(store.server_port) as proxy:
        assert send(proxy, request_, hang_up=False).endswith(BODY)


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("error_500", 500, b"InternalError"),
        ("slow_down", 503, b"SlowDown"),
        ("access_denied", 403, b"AccessDenied"),
        ("expired_token", 400, b"ExpiredToken"),
    ],
)
def test_an_error_is_told_as_s3_words_it_and_the_server_knows_nothing(store, fault, status, code):
    with FaultProxy(store.server_port, faults=[fault], numbers={1, 2, 3}) as proxy, connect(proxy) as connection:
        told, body = ask(connection, "PUT", body=b"data")
        assert told == status
        assert re.search(rb"<Error><Code>(\w+)</Code><Message>[^<]+</Message></Error>$", body)[1] == code
        assert ask(connection, "HEAD") == (status, b"")
        assert send(proxy, b"HEAD / HTTP/1.1\r\n\r\n").endswith(b"\r\n\r\n")
        assert store.requests == []
        assert ask(connection) == (200, BODY)
        suffered = enumerate([("PUT", "/some/key"), ("HEAD", "/some/key"), ("HEAD", "/")], start=1)
        assert proxy.injected == [(number, *request, fault) for number, request in suffered]


@pytest.mark.parametrize(
    ("fault", "error"), [("reset", ConnectionResetError), ("truncate", http.client.IncompleteRead)]
)
def test_half_of_a_body_arrives(store, fault, error):
    with FaultProxy(store.server_port, faults=[fault], numbers={1}) as proxy, connect(proxy) as connection:
        connection.request("GET", "/")
        response = connection.getresponse()
        assert (response.status, response.getheader("Content-Length")) == (200, str(len(BODY)))
        assert response.read(len(BODY) // 2) == BODY[: len(BODY) // 2]
        with pytest.raises(error):
            response.read()
        connection.close()
        assert ask(connection) == (200, BODY)
        assert proxy.injected == [(1, "GET", "/", fault)]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("reset", ConnectionResetError),
        ("lost_answer", ConnectionResetError),
        ("truncate", http.client.RemoteDisconnected),
        ("stall", http.client.RemoteDisconnected),
    ],
)
def test_the_server_obeys_and_the_client_cannot_know(store, fault, error):
    once = {"method": "PUT", "body": b"data", "headers": {"If-None-Match": "*"}}
    with (
        FaultProxy(store.server_port, faults=[fault], numbers={1}, stall_s=0.01) as proxy,
        connect(proxy) as connection,
    ):
        with pytest.raises(error) as caught:
            ask(connection, **once)
        assert caught.type is error  # RemoteDisconnected is a ConnectionResetError to Python
        assert store.objects == {"/some/key": b"data"}
        connection.close()
        assert ask(connection, **once)[0] == 412


def test_a_lost_answer_is_lost_whole(store):
    with FaultProxy(store.server_port, faults=["lost_answer"]) as proxy, connect(proxy) as connection:
        connection.request("GET", "/")
        with pytest.raises(ConnectionResetError) as caught:
            connection.getresponse()
        assert caught.type is ConnectionResetError
        assert store.requests == [("GET", "/")]


def num_open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def wait_until(holds):
    deadline = time.monotonic() + TIMEOUT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_stall_lasts_its_time(store):
    with FaultProxy(store.server_port, faults=["stall"], stall_s=1.0) as proxy, connect(proxy) as connection:
        started = time.monotonic()
        with pytest.raises(http.client.RemoteDisconnected):
            ask(connection)
        assert time.monotonic() - started >= 1.0


def test_a_stall_ends_when_the_client_gives_up(store):
    with FaultProxy(store.server_port, faults=["stall"], stall_s=1000.0) as proxy:
        before = num_open_files()
        with connect(proxy, timeout_s=0.2) as connection, pytest.raises(TimeoutError):
            ask(connection)
        wait_until(lambda: proxy.injected and num_open_files() == before)


def chosen(num_requests=2000, **settings):
    proxy = FaultProxy(0, **settings)
    return [proxy.fault_of(number, "GET", "/") for number in range(1, num_requests + 1)]


def test_the_seed_decides_who_suffers_what():
    faults = chosen(faults=FAULTS, rate=0.05, seed=1)
    assert faults == chosen(faults=FAULTS, rate=0.05, seed=1)
    assert faults != chosen(faults=FAULTS, rate=0.05, seed=2)
    assert 60 <= sum(fault is not None for fault in faults) <= 140
    assert {fault for fault in faults if fault} == set(FAULTS)
    assert chosen(faults=FAULTS, rate=0.0) == chosen(rate=1.0) == [None] * 2000
    assert None not in chosen(faults=FAULTS)


def test_numbers_and_a_condition_say_who_may_suffer(store):
    settings = {"faults": ["slow_down"], "numbers": {2, 3}, "when": lambda number, method, path: method == "PUT"}
    with FaultProxy(store.server_port, **settings) as proxy, connect(proxy) as connection:
        methods = ["PUT", "GET", "PUT", "PUT"]
        statuses = [ask(connection, method, f"/{n}", b"")[0] for n, method in enumerate(methods)]
        assert statuses == [200, 200, 503, 200]
        assert proxy.injected == [(3, "PUT", "/2", "slow_down")]


def test_no_fault_has_another_name():
    with pytest.raises(ValueError, match="no such fault: \\['fire'\\]"):
        FaultProxy(0, faults=["fire", "reset"])


def test_many_clients_at_once_are_told_apart(store):
    settings = {"faults": FAULTS, "rate": 0.3, "seed": 5, "stall_s": 0.01}

    def ask_for(number):
        try:
            with connect(proxy) as connection:
                return ask(connection, "PUT", f"/{number}", str(number).encode())[0]
        except OSError:
            return None

    with FaultProxy(store.server_port, **settings) as proxy, ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(ask_for, range(80)))
        expected = {number: fault for number, fault in enumerate(chosen(80, **settings), 1) if fault}
        assert {number: fault for number, _, _, fault in proxy.injected} == expected
        assert proxy.num_requests == 80
        assert statuses.count(200) == 80 - len(expected)
        assert store.objects == {path: path[1:].encode() for _, path in store.requests}


def test_a_server_that_is_gone_is_gone_for_clients_too():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with FaultProxy(port) as proxy, connect(proxy) as connection:
        with pytest.raises(http.client.RemoteDisconnected):
            ask(connection)
        assert proxy.injected == []


def test_what_the_proxy_cannot_read_fails_the_test_that_uses_it():
    def send_nonsense():
        with (
            FaultProxy(0) as proxy,
            socket.create_connection(("127.0.0.1", proxy.port), timeout=TIMEOUT_S) as connection,
        ):
            connection.sendall(b"nonsense\r\n\r\n")
            assert connection.recv(1) == b""

    with pytest.raises(ValueError, match="unpack"):
        send_nonsense()


def test_nothing_stays_open(store):
    before = num_open_files(), threading.active_count()
    with ExitStack() as clients:
        with FaultProxy(store.server_port, faults=["stall"], numbers={2}, stall_s=1000.0) as proxy:
            address = "127.0.0.1", proxy.port
            idle, stalled = (clients.enter_context(socket.create_connection(address, TIMEOUT_S)) for _ in range(2))
            idle.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert idle.recv(1) == b"H"
            stalled.sendall(b"GET / HTTP/1.1\r\n\r\n")
            wait_until(lambda: proxy.injected)
        assert read_all(idle).endswith(BODY)
        assert read_all(stalled) == b""
    wait_until(lambda: (num_open_files(), threading.active_count()) == before)  # the server's threads end, too
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, TIMEOUT_S)
