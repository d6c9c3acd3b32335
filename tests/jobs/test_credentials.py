"""Credentials: found where a process may find them, and left there; a URL that holds some is refused."""

import contextlib
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
import s3fs
from fault_proxy import FaultProxy

from csrm.errors import InputError
from jobs.inputs import list_inputs
from jobs.remote import endpoints
from jobs.storage import Folder, first_line, open_location

ROOT = Path(__file__).parents[2]
SECRETS = {
    "AWS_ACCESS_KEY_ID": "PLANTEDKEY5e2f",
    "AWS_SECRET_ACCESS_KEY": "plantedsecret81c0",
    "AWS_SESSION_TOKEN": "plantedtoken9d47",
}
PROFILE_SECRETS = {
    "AWS_ACCESS_KEY_ID": "PLANTEDPROFILEKEY77aa",
    "AWS_SECRET_ACCESS_KEY": "plantedprofilesecret1f3b",
    "AWS_SESSION_TOKEN": "plantedprofiletoken60de",
}
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")

only_moto = pytest.mark.parametrize("server", ["moto"], indirect=True)


def write_profile(path, **settings):
    path.write_text("[planted]\n" + "".join(f"{name.lower()} = {value}\n" for name, value in settings.items()))
    return {"AWS_PROFILE": "planted", "AWS_SHARED_CREDENTIALS_FILE": str(path)}


def found_in(secrets, data):
    return [secret for secret in secrets if secret.encode() in data]


def command_lines():
    """Of every process of this machine."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield path.read_bytes()


def watched(command, environment):
    """Run a command; return what it said and every command line that was seen meanwhile."""
    seen, done = set(), threading.Event()

    def watch():
        while not done.wait(0.05):
            seen.update(command_lines())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        result = subprocess.run(command, env=environment, capture_output=True, timeout=600)
    finally:
        done.set()
        watcher.join()
    return result, seen


@pytest.fixture
def ray_folder(monkeypatch):
    """Where Ray's logs go; its sockets lie there too, and allow no long path."""
    folder = tempfile.mkdtemp(prefix="ray-")
    monkeypatch.setenv("RAY_TMPDIR", folder)
    yield Path(folder)
    shutil.rmtree(folder)


@only_moto
def test_a_run_leaves_its_credentials_nowhere(server, connect, ray_folder, policies, model_folder, tmp_path):
    """Everything lies in the store, so every process of the run uses them."""
    place = Folder.at("s3://bucket/nowhere")
    place.publish("in/a.jsonl", b'{"text": "hello"}\n' * 20)
    for folder, name in ((policies, "policies"), (model_folder, "model")):
        for file in folder.iterdir():
            place.publish(f"{name}/{file.name}", file.read_bytes())

    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    environment |= SECRETS | write_profile(tmp_path / "profile", **PROFILE_SECRETS)
    options = ["-c", f"{place.url}/policies", "-m", f"{place.url}/model", "-o", f"{place.url}/out"]
    command = [sys.executable, str(ROOT / "tests/jobs/pickle_spy.py"), str(tmp_path / "pickles")]
    result, seen = watched([*command, "score", f"{place.url}/in", *options, "--shard-rows", "8"], environment)
    assert result.returncode == 0, result.stderr.decode()

    pickles = (tmp_path / "pickles").read_bytes()
    out = Folder.at(f"{place.url}/out")
    written = out.read(list(out.sizes("")))
    logs = {path: path.read_bytes() for path in ray_folder.rglob("*") if path.is_file()}
    cached = [path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    # All of it was looked at:
    assert f"{place.url}/out".encode() in pickles
    assert any("commits" in name for name in written)
    assert "manifest.json" in written
    assert any(path.name.startswith("worker") for path in logs)
    assert any(b"raylet" in line for line in seen)
    assert cached
    for data in (pickles, result.stdout, result.stderr, *written.values(), *logs.values(), *cached, *seen):
        assert not found_in([*SECRETS.values(), *PROFILE_SECRETS.values()], data)


URLS = [
    "s3://PLANTEDKEY5e2f:plantedsecret81c0@bucket/x",
    "s3://PLANTEDKEY5e2f:planted/secret81c0@bucket/x",
    "s3a://PLANTEDKEY5e2f@bucket/x",
    "https://user:plantedsecret81c0@127.0.0.1:1/x.jsonl",
    "simplecache::s3://PLANTEDKEY5e2f:plantedsecret81c0@bucket/x",
    "https://127.0.0.1:1/bucket/x.jsonl?X-Amz-Credential=PLANTEDKEY5e2f&X-Amz-Signature=plantedsecret81c0",
    "https://127.0.0.1:1/bucket/x.jsonl?AWSAccessKeyId=PLANTEDKEY5e2f&Signature=plantedsecret81c0",
]


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("place", ["input", "configurations", "model", "output"])
def test_a_url_with_keys_in_it_is_refused(in_process, score, tmp_path, url, place):
    settings = {place: url}
    result = score(settings.pop("input", "-"), **settings)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "://***: a URL with keys or a signature in it is not taken" in result.stderr
    assert "lanted" not in result.stderr
    assert "PLANTED" not in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/user@example.org/a:b",
        "s3://arn:aws:s3:us-west-2:123456789012:accesspoint/name/x",
        "/data/user@example.org/x",
        "data?X-Amz-Date=2026",
    ],
)
def test_other_places_are_not_refused(url, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    assert open_location(url)[1]


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "--s3-endpoint"])
def test_an_endpoint_with_a_password_in_it_is_refused(score, monkeypatch, name):
    """Also where nothing lies in the store: workers are told of it all the same."""
    url = "http://user:plantedsecret81c0@127.0.0.1:1"
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")  # the option sets it for the process
    if name.startswith("AWS"):
        monkeypatch.setenv(name, url)
    settings = [name, url] if name.startswith("--") else []
    for result in (score("-", *settings), score("s3://bucket/x", *settings)):
        assert result.exit_code == 2
        assert "holds a user or password" in result.stderr
        assert "planted" not in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_workers_are_told_where_the_store_is_and_nothing_else(monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "")
    assert endpoints() == {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}


def test_errors_tell_no_passwords_of_urls():
    error = OSError('Could not connect to the endpoint URL: "http://user:planted@host:80/a@b"\nmore')
    assert first_line(error) == 'Could not connect to the endpoint URL: "http://***@host:80/a@b"'


def test_a_profile_is_enough(server, connect, tmp_path, monkeypatch):
    folder = Folder.at("s3://bucket/profile")
    folder.publish("a.jsonl", b"{}\n")
    for name in KEYS:
        monkeypatch.delenv(name)
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(InputError, match="Unable to locate credentials"):
        list_inputs(folder.url)
    keys = {"AWS_ACCESS_KEY_ID": server.key, "AWS_SECRET_ACCESS_KEY": server.secret}
    for name, value in write_profile(tmp_path / "profile", **keys).items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    assert len(list_inputs(folder.url).files) == 1


@only_moto
def test_a_web_identity_is_enough(server, connect, tmp_path, monkeypatch):
    """As Kubernetes gives one to a service account: a token in a file becomes keys that last for an hour."""
    folder = Folder.at("s3://bucket/web-identity")
    folder.publish("a.jsonl", b"{}\n")
    for name in KEYS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/reader")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    with FaultProxy(server.port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", proxy.url)
        with pytest.raises(InputError, match=f"^AWS_WEB_IDENTITY_TOKEN_FILE: no file {tmp_path}/token; "):
            list_inputs(folder.url)
        (tmp_path / "token").write_text("planted")
        s3fs.S3FileSystem.clear_instance_cache()
        assert len(list_inputs(folder.url).files) == 1
        folder.publish("b.jsonl", b"{}\n")
        assert proxy.num_requests == 1


@only_moto
@pytest.mark.parametrize(
    ("status", "code"), [(403, "AccessDenied"), (400, "ExpiredTokenException"), (400, "InvalidIdentityToken")]
)
def test_a_web_identity_that_is_not_believed_is_one_line(server, connect, tmp_path, monkeypatch, caplog, status, code):
    body = f"<ErrorResponse><Error><Code>{code}</Code><Message>not you</Message></Error></ErrorResponse>"
    answer = f"HTTP/1.1 {status} No\r\nContent-Type: text/xml\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    monkeypatch.setattr("fault_proxy.error_answer", lambda fault, method: answer.encode())
    for name in KEYS:
        monkeypatch.delenv(name)
    (tmp_path / "token").write_text("planted")
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/reader")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    with FaultProxy(server.port, faults=("access_denied",)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", proxy.url)
        s3fs.S3FileSystem.clear_instance_cache()
        with pytest.raises(InputError, match=r"^s3://bucket/x: access denied \(.*not you\); ") as raised:
            list_inputs("s3://bucket/x")
        assert proxy.num_requests <= 2
    assert "planted" not in str(raised.value)
    assert not caplog.records, "botocore tells it at length"


def names_in(folder):
    return os.getpid(), sorted(folder.sizes(""))


@only_moto
def test_what_travels_holds_no_filesystem(connect, make_job, monkeypatch):
    """Not even after one was used: s3fs, its threads and its connections stay with the process that made them.

    Nothing of ours forks: a forked process would have the locks of threads that it has not. Ray starts its workers
    afresh, and so does `spawn`.
    """
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    job = make_job(input="s3://bucket/in", output="s3://bucket/travels")
    job.target.publish("a", b"1")
    data = pickle.dumps(job)
    assert not found_in(SECRETS.values(), data)
    assert b"s3fs" not in data
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        for target in (job.target, pickle.loads(data).target):
            pid, names = pool.submit(names_in, target).result()
            assert pid != os.getpid()
            assert names == ["a"]
    text = "".join(path.read_text() for path in (ROOT / "jobs").glob("*.py"))
    assert "multiprocessing" not in text
    assert "fork(" not in text
