"""S3 servers on loopback, as processes of their own: moto, which forgives much, and OpenStack Swift, a real store.

Both start empty. Moto checks no credentials. Swift does, keeps objects as files in the folder it is given, and is
installed on first use: by pip into the folder `CSRM_SWIFT_VENV` (`.swift` in the repository by default), as pinned in
swift_requirements.txt, with memcached from the system's packages.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from botocore.config import Config
from botocore.session import get_session

HOST = "127.0.0.1"
REQUIREMENTS = Path(__file__).with_name("swift_requirements.txt")
START_S = 120.0  # a busy machine needs half a minute for Swift
STOP_S = 10.0
HELLO = b"GET / HTTP/1.0\r\n\r\n"
STORES = ("account", "container", "object")

SWIFT_CONF = """\
[swift-hash]
swift_hash_path_prefix = prefix
swift_hash_path_suffix = suffix

[storage-policy:0]
name = only
default = yes
"""

COMMON_CONF = """\
[DEFAULT]
bind_ip = {host}
bind_port = {port}
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
fallocate_reserve = 0
workers = 0
user = {user}
"""

STORE_CONF = """
[pipeline:main]
pipeline = {store}-server

[app:{store}-server]
use = egg:swift#{store}
"""

PROXY_CONF = """
[pipeline:main]
pipeline = catch_errors cache bulk s3api tempauth slo dlo proxy-server

[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true

[filter:catch_errors]
use = egg:swift#catch_errors

[filter:cache]
use = egg:swift#memcache
memcache_servers = {host}:{memcached_port}

[filter:bulk]
use = egg:swift#bulk

[filter:s3api]
use = egg:swift#s3api

[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin

[filter:slo]
use = egg:swift#slo
minimum_segment_size = 1

[filter:dlo]
use = egg:swift#dlo
"""

# One process for three rings: `swift-ring-builder` would be started nine times. Arguments: folder, ports.
MAKE_RINGS = """
import sys
from swift.common.ring import RingBuilder

folder, *ports = sys.argv[1:]
for store, port in zip(("account", "container", "object"), ports):
    builder = RingBuilder(6, 1, 1)
    builder.add_dev({"region": 1, "zone": 1, "ip": "127.0.0.1", "port": int(port), "device": "d1", "weight": 1})
    builder.rebalance()
    builder.get_ring().save(f"{folder}/{store}.ring.gz")
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Server:
    """A server that runs, and who may use it."""

    endpoint: str
    key: str
    secret: str
    region: str = "us-east-1"

    @property
    def port(self) -> int:
        return int(self.endpoint.rpartition(":")[2])

    def environment(self, endpoint: str | None = None) -> dict[str, str]:
        """Return the variables by which a process finds the server, or a proxy before it, and may use it."""
        return {
            "AWS_ENDPOINT_URL_S3": endpoint or self.endpoint,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def make_bucket(self, name: str) -> None:
        client = get_session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            region_name=self.region,
            config=Config(s3={"addressing_style": "path"}),
        )
        with contextlib.closing(client):
            client.create_bucket(Bucket=name)


@contextlib.contextmanager
def moto_server(log: Path) -> Iterator[S3Server]:
    """Run moto, whose objects live in its memory; what it says goes to the file `log`."""
    [port] = free_ports(1)
    with running([sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)], log) as process:
        wait_for(process, port, log)
        yield S3Server(endpoint=f"http://{HOST}:{port}", key="test:tester", secret="testing")


@contextlib.contextmanager
def swift_server(folder: Path) -> Iterator[S3Server]:
    """Run Swift in an empty folder, which must be on a filesystem with extended attributes."""
    binaries, memcached = install_swift() / "bin", install_memcached()
    names = (*STORES, "memcached", "proxy")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    user = pwd.getpwuid(os.getuid()).pw_name
    configure_swift(folder.absolute(), ports, user)
    store_ports = [str(ports[store]) for store in STORES]
    finish([binaries / "python", "-c", MAKE_RINGS, folder, *store_ports], folder / "rings.log")

    commands = {name: [binaries / f"swift-{name}-server", folder / f"{name}.conf", "-v"] for name in names}
    commands["memcached"] = [memcached, "-u", user, "-l", HOST, "-p", str(ports["memcached"]), "-U", "0"]
    logs = {name: folder / f"{name}.log" for name in names}
    with contextlib.ExitStack() as stack:
        processes = {name: stack.enter_context(running(commands[name], logs[name])) for name in names}
        for name, process in processes.items():  # all start at once: each takes seconds to import Swift
            wait_for(process, ports[name], logs[name], b"version\r\n" if name == "memcached" else HELLO)
        yield S3Server(endpoint=f"http://{HOST}:{ports['proxy']}", key="test:tester", secret="testing")


def configure_swift(folder: Path, ports: dict[str, int], user: str) -> None:
    """Make the folder for objects and write a file for each server."""
    (folder / "devices" / "d1").mkdir(parents=True)
    (folder / "swift.conf").write_text(SWIFT_CONF)
    for name in (*STORES, "proxy"):
        text = COMMON_CONF + (PROXY_CONF if name == "proxy" else STORE_CONF)
        facts = {"host": HOST, "folder": folder, "user": user, "store": name, "memcached_port": ports["memcached"]}
        (folder / f"{name}.conf").write_text(text.format(port=ports[name], **facts))


def install_swift() -> Path:
    """Return a virtual environment that has Swift; it is made where there is none."""
    default = Path(__file__).parents[2] / ".swift"
    folder = Path(os.environ.get("CSRM_SWIFT_VENV", default)).absolute()
    complete = folder / "complete"  # the last thing made: an install that was killed is done again
    wanted = REQUIREMENTS.read_text()
    if not complete.exists() or complete.read_text() != wanted:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".gitignore").write_text("*\n")
        finish([sys.executable, "-m", "venv", folder], folder / "venv.log")
        pip = [folder / "bin" / "pip", "install", "--disable-pip-version-check"]
        finish([*pip, "--requirement", REQUIREMENTS], folder / "pip.log")
        complete.write_text(wanted)
    return folder


def install_memcached() -> str:
    """Return the path of memcached, from the system's packages if it has to be."""
    if shutil.which("memcached") is None:
        if os.geteuid() or shutil.which("apt-get") is None:
            raise RuntimeError("Swift needs memcached, and only root on Debian gets it by itself; install memcached")
        install = ["apt-get", "install", "-y", "--no-install-recommends", "memcached"]
        with tempfile.NamedTemporaryFile(suffix=".log") as log:
            try:
                finish(install, Path(log.name))
            except RuntimeError:  # a fresh container has no list of packages
                finish(["apt-get", "update"], Path(log.name))
                finish(install, Path(log.name))
    return shutil.which("memcached")


def free_ports(num_ports: int) -> list[int]:
    """Return ports on which nobody listens, each another."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server((HOST, 0))) for _ in range(num_ports)]
        return [server.getsockname()[1] for server in servers]


def finish(command: Sequence[str | Path], log: Path) -> None:
    """Run a command to its end; an error holds the end of what it said."""
    with log.open("wb") as file:
        code = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT).returncode
    if code:
        raise RuntimeError(f"{command[0]} ended with code {code}; {tail(log)}")


@contextlib.contextmanager
def running(command: Sequence[str | Path], log: Path) -> Iterator[subprocess.Popen]:
    """Run a process for as long as the `with` block; it need not answer yet."""
    with (
        log.open("wb") as file,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
            process.kill()  # of no effect on one that has ended


def wait_for(process: subprocess.Popen, port: int, log: Path, question: bytes = HELLO) -> None:
    """Return once a process says anything to a question on its port."""
    deadline = time.monotonic() + START_S
    while not answers(port, question):
        if process.poll() is not None:
            raise RuntimeError(f"{process.args[0]} ended with code {process.returncode}; {tail(log)}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"{process.args[0]} does not answer after {START_S:.0f} s; {tail(log)}")
        time.sleep(0.1)


def answers(port: int, question: bytes) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=1) as connection:
            connection.sendall(question)
            return bool(connection.recv(1))
    except OSError:
        return False


def tail(log: Path) -> str:
    """Return the end of a log, in words for an error."""
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join([f"the last lines of {log}:", *lines[-30:]])
