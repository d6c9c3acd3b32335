"""A Ray cluster as an operator starts it: `ray start`, one head and nodes that come later, a dashboard, a token.

`ray stop` would end every cluster of this machine; these processes are told from others by a mark, and killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from pathlib import Path

import psutil

MARK = "CSRM_SUBMIT_TEST"
TOKEN = "0123456789abcdef" * 4
LIMIT_S = 180.0
ADDRESSES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")


class RayCluster:
    """One head without cores, and what is added."""

    def __init__(self):
        self.mark = uuid.uuid4().hex
        # Paths of sockets must be short. Nodes of one machine would delete each other's working directories in one.
        self.folder = Path(tempfile.mkdtemp(prefix="csrm-", dir="/tmp"))
        self.port, dashboard, agent = free_ports(3)
        self.address = f"http://127.0.0.1:{dashboard}"
        self.environment = {
            **{name: value for name, value in os.environ.items() if name not in ADDRESSES},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": TOKEN,
            "RAY_USAGE_STATS_ENABLED": "0",
            MARK: self.mark,
        }
        self._start("--head", f"--port={self.port}", "--include-dashboard=true", f"--dashboard-port={dashboard}",
                    f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={free_ports(1)[0]}",
                    "--num-cpus=0")  # fmt: skip
        self.num_nodes = 0

    def add_node(self, **resources):
        """Start a raylet of its own."""
        self.num_nodes += 1
        counts = [f"--num-{name}={count}" for name, count in resources.items()]
        self._start(f"--address=127.0.0.1:{self.port}", "--dashboard-agent-listen-port=0", *counts)

    def get(self, path):
        """What the dashboard's API says."""
        request = urllib.request.Request(self.address + path, headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def actors(self, stage):
        """Actors of a stage that have been started, dead or alive, as pairs of node and process."""
        found = self.get("/api/v0/actors?detail=1&limit=1000")["data"]["result"]["result"]
        return {
            (actor["node_id"], actor["pid"])
            for actor in found
            if f"MapBatches({stage})" in actor["class_name"]
            and actor["state"] in ("ALIVE", "DEAD")
            and actor["node_id"]
        }

    def wanted(self):
        """Placement groups that there is no place for yet: what an autoscaler answers."""
        found = self.get("/api/v0/placement_groups?limit=1000")["data"]["result"]["result"]
        return [group for group in found if group["state"] == "PENDING"]

    def close(self):
        """Kill all of it."""
        while processes := self._processes():
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(processes, timeout=10)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, *arguments):
        folder = self.folder / f"n{getattr(self, 'num_nodes', 0)}"
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *arguments, f"--temp-dir={folder}"]
        done = subprocess.run(
            [*command, "--disable-usage-stats", "--object-store-memory=200000000"],
            env=self.environment, cwd="/", capture_output=True, text=True, timeout=LIMIT_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    def _processes(self):
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found


class Client:
    """`csrm` in a process of its own, as on a laptop that has the token and no Ray of its own."""

    def __init__(self, cluster, log, *arguments):
        self.log = log
        environment = cluster.environment | {"RAY_API_SERVER_ADDRESS": cluster.address}
        del environment[MARK]
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                ["csrm", *map(str, arguments)],
                stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env=environment, cwd=log.parent,
            )  # fmt: skip

    @property
    def output(self):
        return self.log.read_text(errors="replace")

    def wait(self):
        """Return the exit code."""
        try:
            return self.process.wait(LIMIT_S)
        finally:
            self.process.kill()
            self.process.wait()


def wait_until(condition, why=lambda: ""):
    """Wait until a condition holds; fail with `why` if it does not."""
    deadline = time.monotonic() + LIMIT_S
    while not (found := condition()):
        assert time.monotonic() < deadline, why()
        time.sleep(0.2)
    return found


def free_ports(count):
    """Ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]
