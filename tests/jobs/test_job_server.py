"""Talking to a job server that is not there, not well or not one; a log that is shown once whatever breaks."""

import asyncio
import contextlib
import http.server
import json
import re
import socket
import subprocess
import sys
import threading
import time
from datetime import date
from types import SimpleNamespace

import aiohttp
import pytest
import ray
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from ray.dashboard.modules.version import CURRENT_VERSION

from csrm.errors import ClusterError
from jobs import job_client, job_log, job_server
from jobs.cli import cli
from jobs.job_client import UnreachableError, find_address
from jobs.job_log import Log, follow
from jobs.job_server import Job, JobServer
from jobs.submission import Submission
from jobs.submit import _closing_line, _start

VERSION = {"version": CURRENT_VERSION, "ray_version": ray.__version__, "ray_commit": "", "session_name": ""}


@contextlib.contextmanager
def serving(status, body):
    """An HTTP server that answers everything alike; yields its address and the paths that were asked for."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def list_jobs(address, **environment):
    started = time.monotonic()
    result = CliRunner().invoke(cli, ["jobs", "list", "--address", address], env=environment)
    assert len(result.output.strip().splitlines()) <= 1, result.output
    assert time.monotonic() - started < 20
    return result


def test_no_cluster_is_one_line():
    result = list_jobs("http://127.0.0.1:1")
    assert result.exit_code == 2
    assert "http://127.0.0.1:1: no cluster answers (connection refused); start it" in result.output


def test_an_answer_that_never_comes_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(job_client, "TIMEOUTS_S", (0.5, 0.5))
    with socket.create_server(("127.0.0.1", 0)) as server:
        result = list_jobs(f"http://127.0.0.1:{server.getsockname()[1]}")
    assert result.exit_code == 2
    assert "no cluster answers (timed out)" in result.output


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (200, "<html>hello</html>", "no Ray cluster's dashboard"),
        (200, "[]", "no Ray cluster's dashboard"),
        (404, "not found", "no Ray cluster's dashboard"),
        (200, json.dumps(VERSION | {"version": "99", "ray_version": "9.1"}), r"speaks version 99 \(Ray 9.1\).*Ray 2"),
        (401, "Unauthorized", "asks for a token; set RAY_AUTH_MODE=token"),
        (503, "busy", "no cluster answers"),
    ],
)  # fmt: skip
def test_what_is_no_job_server_of_ours_is_one_line(status, body, message):
    with serving(status, body) as (address, _):
        result = list_jobs(address)
    assert result.exit_code == 2
    assert re.search(message, result.output), result.output


def test_another_ray_is_only_warned_of():
    said = []
    with serving(200, json.dumps(VERSION | {"ray_version": "2.99.0"})) as (address, _):
        JobServer(address, said.append)
    assert said == [f"warning: the cluster runs Ray 2.99.0, this client {ray.__version__}"]


def test_the_option_wins_over_the_environment(monkeypatch):
    """Ray's own client would ask RAY_ADDRESS."""
    with serving(200, json.dumps(VERSION)) as (one, asked), serving(200, json.dumps(VERSION)) as (other, others):
        monkeypatch.setenv("RAY_ADDRESS", other)
        JobServer(find_address(one))
        assert asked
        assert not others
        JobServer(find_address(None))
        assert others
        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", f"{one}/")
        assert find_address(None) == one


@pytest.mark.parametrize("address", ["10.0.0.1:6379", "auto", "ray://head:10001", "http://", "http://me:secret@head"])
def test_what_is_no_url_of_a_dashboard_is_refused(address, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ClusterError, match="RAY_ADDRESS") as error:
        find_address(None)
    assert "secret" not in str(error.value)


def test_a_client_that_is_not_installed_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray.job_submission", None)
    result = list_jobs("http://127.0.0.1:1")
    assert result.exit_code == 2
    assert "pip install 'csrm[cluster]'" in result.output


@given(text=st.text(max_size=30), cuts=st.lists(st.lists(st.integers(0, 30), max_size=4), max_size=5))
def test_a_log_is_shown_once_however_often_a_connection_begins_anew(text, cuts):
    shown = []
    log = Log(shown.append)
    for connection in [*cuts, [len(text)]]:
        position = 0
        for cut in sorted(connection):
            position = log.add(position, text[position : max(position, cut)])
    log.add(0, text)
    assert "".join(shown) == text
    assert "" not in shown


class Client:
    """Ray's client of one job, with a log of 30 lines; each connection breaks after ten more of them."""

    def __init__(self, breaks=(), statuses=("RUNNING",) * 3 + ("SUCCEEDED",)):
        self.breaks, self.statuses = list(breaks), list(statuses)
        self.lines = [f"line {n}\n" for n in range(30)]
        self.num_connections = 0

    async def tail_job_logs(self, id):
        self.num_connections += 1
        for line in self.lines[: 10 * self.num_connections]:
            yield line
        if self.breaks:
            raise self.breaks.pop(0)

    def get_job_info(self, id):
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if isinstance(status, Exception):
            raise status
        return details(id, status)

    def get_job_logs(self, id):
        return "".join(self.lines)


def details(id, status, code=None, started=0):
    return SimpleNamespace(
        submission_id=id, job_id=None, status=SimpleNamespace(value=status), entrypoint="csrm", driver_exit_code=code,
        message="", start_time=started, end_time=None,
    )  # fmt: skip


@pytest.fixture
def server_of(monkeypatch):
    monkeypatch.setattr(job_log, "POLL_S", 0.01)
    monkeypatch.setattr(job_server, "POLL_S", 0.01)

    def make(client):
        monkeypatch.setattr(job_server, "connect", lambda address, say: client)
        return JobServer("http://head:8265")

    return make


BROKEN = [aiohttp.ClientError("gone"), RuntimeError("WebSocket connection closed unexpectedly"), OSError("reset")]


def test_a_job_is_followed_across_connections_that_break(server_of):
    away = [ConnectionError("refused"), RuntimeError("Request failed with status code 500: away.")]
    client = Client(BROKEN, ["RUNNING", *away, "RUNNING", "SUCCEEDED"])
    shown = []
    job = follow(server_of(client), "j", shown.append)
    assert job.status == "SUCCEEDED"
    assert "".join(shown) == "".join(client.lines)
    assert client.num_connections == 5


def test_what_the_last_connection_cut_off_is_shown(server_of):
    client = Client([BROKEN[0]], ["SUCCEEDED"])
    shown = []
    follow(server_of(client), "j", shown.append)
    assert "".join(shown) == "".join(client.lines)


def test_a_silent_connection_does_not_hide_that_the_job_is_over(server_of, monkeypatch):
    """A head that is gone closes nothing."""
    monkeypatch.setattr(job_log, "SILENCE_S", 0.05)
    client = Client(statuses=["RUNNING", "SUCCEEDED"])

    async def silent(id):
        yield "line 0\n"
        await asyncio.sleep(60)

    client.tail_job_logs = silent
    shown = []
    started = time.monotonic()
    assert follow(server_of(client), "j", shown.append).status == "SUCCEEDED"
    assert time.monotonic() - started < 10
    assert "".join(shown) == "".join(client.lines)


def test_a_cluster_that_stays_away_is_given_up(server_of, monkeypatch):
    monkeypatch.setattr(job_log, "LOST_S", 0.1)
    client = Client(statuses=[ConnectionError("refused")])
    with pytest.raises(ClusterError, match=r"connection refused.*may go on: csrm jobs logs j --follow"):
        follow(server_of(client), "j", lambda text: None)


def test_a_job_that_the_head_has_forgotten_ends_the_wait_at_once(server_of):
    client = Client(statuses=["RUNNING", RuntimeError("Request failed with status code 404: Job j does not exist.")])
    with pytest.raises(ClusterError, match="j: no such job at http://head:8265"):
        follow(server_of(client), "j", lambda text: None)


def test_a_reader_who_goes_away_ends_it(server_of):
    """`csrm jobs logs … | head`: what cannot be shown is no connection to try again."""

    def show(text):
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        follow(server_of(Client()), "j", show)


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [
        ("SUCCEEDED", 0, 0),
        ("SUCCEEDED", None, 0),
        ("FAILED", 3, 3),
        ("FAILED", 127, 127),
        ("FAILED", -9, 137),
        ("FAILED", None, 1),
        ("STOPPED", None, 143),
    ],
)
def test_exit_codes(status, code, exit_code):
    assert Job(id="j", status=status, driver_exit_code=code).exit_code == exit_code


def test_a_missing_csrm_on_the_cluster_is_named():
    assert "no csrm on its PATH" in _closing_line(Job(id="j", status="FAILED", driver_exit_code=127))


class Jobs:
    """Ray's client of many jobs; `race` is a job that somebody else submits a moment before we do."""

    def __init__(self, statuses, race=None, troubles=()):
        self.statuses, self.race, self.troubles = dict(statuses), race, list(troubles)
        self.submitted = []

    def list_jobs(self):
        return [details(id, status) for id, status in self.statuses.items()]

    def get_job_info(self, id):
        return details(id, self.statuses[id])

    def submit_job(self, *, entrypoint, submission_id, runtime_env):
        if self.troubles:
            raise self.troubles.pop(0)
        if submission_id == self.race:
            self.statuses[submission_id] = "PENDING"
        if submission_id in self.statuses:
            raise RuntimeError(f"Request failed with status code 400: Job {submission_id} already exists.")
        self.submitted.append(submission_id)
        self.statuses[submission_id] = "PENDING"


SUBMISSION = Submission(command=("score",), day=date(2026, 11, 20))
ID = SUBMISSION.id


@pytest.mark.parametrize(
    ("statuses", "again", "submitted", "answer"),
    [
        ({}, False, [ID], ID),
        ({ID: "RUNNING"}, False, [], ID),
        ({ID: "PENDING"}, True, [], ID),
        ({ID: "SUCCEEDED"}, False, [], ID),
        ({ID: "SUCCEEDED"}, True, [f"{ID}-2"], f"{ID}-2"),
        ({ID: "FAILED"}, False, [f"{ID}-2"], f"{ID}-2"),
        ({ID: "STOPPED", f"{ID}-2": "FAILED"}, False, [f"{ID}-3"], f"{ID}-3"),
        ({ID: "FAILED", f"{ID}-2": "SUCCEEDED"}, False, [], f"{ID}-2"),
        ({ID: "FAILED", f"{ID}-2": "RUNNING"}, False, [], f"{ID}-2"),
    ],
)
def test_the_same_submission_runs_once_unless_it_failed(server_of, statuses, again, submitted, answer):
    from rich.console import Console

    client = Jobs(statuses)
    assert _start(server_of(client), SUBMISSION, again, Console(stderr=True)).id == answer
    assert client.submitted == submitted


def test_of_two_at_the_same_moment_one_runs_and_both_follow_it(server_of, capsys):
    from rich.console import Console

    client = Jobs({ID: "FAILED"}, race=f"{ID}-2")
    assert _start(server_of(client), SUBMISSION, False, Console(stderr=True)).id == f"{ID}-2"
    assert not client.submitted
    assert "somebody else" in capsys.readouterr().err


def test_a_cluster_that_is_just_starting_is_waited_for(server_of):
    client = Jobs({}, troubles=[RuntimeError("Request failed with status code 500: No available agent.")])
    assert server_of(client).submit(SUBMISSION, ID)
    assert client.submitted == [ID]


def test_a_cluster_that_does_not_take_it_is_given_up(server_of, monkeypatch):
    monkeypatch.setattr(job_server, "SUBMIT_S", 0)
    client = Jobs({}, troubles=[RuntimeError("Request failed with status code 500: Traceback\n\nBad: no space.")] * 9)
    with pytest.raises(UnreachableError, match=r"http://head:8265: Bad: no space\.$"):
        server_of(client).submit(SUBMISSION, ID)


def test_a_job_that_does_not_stop_is_told(server_of, monkeypatch):
    monkeypatch.setattr(job_server, "STOP_S", 0.05)
    client = Jobs({ID: "PENDING"})
    client.stop_job = lambda id: True
    with pytest.raises(ClusterError, match="still pending after 0 s"):
        server_of(client).stop(ID)


def test_ctrl_c_does_not_wait_for_a_connection_that_will_not_close(tmp_path):
    program = """
import asyncio, os, signal, threading
from types import SimpleNamespace
from jobs.job_log import follow

async def tail_job_logs(id):
    yield "hello\\n"
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    follow(SimpleNamespace(client=SimpleNamespace(tail_job_logs=tail_job_logs)), "id", print)
except KeyboardInterrupt:
    print("detached")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["hello", "detached"], done.stderr
    assert done.returncode == 0
