"""Models and configurations in an object store: read as local ones are, fetched once, and named by their URLs."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pytest
from fault_proxy import FaultProxy

import csrm
from csrm.errors import CheckpointError, ConfigurationError, InputError
from jobs.job import read_model_facts
from jobs.local_copies import load_configurations, local_model
from jobs.storage import Folder

FETCH = "import sys; from jobs.local_copies import local_model; local_model(sys.argv[1]).__enter__()"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "csrm" / "models"


@pytest.fixture
def place(connect, request):
    """A folder of the store that no other test has."""
    return Folder.at(f"s3://bucket/{request.node.name.replace('[', '-').rstrip(']')}")


def upload(local, place, name):
    for file in Path(local).iterdir():
        place.publish(f"{name}/{file.name}", file.read_bytes())
    return f"{place.url}/{name}"


@pytest.fixture
def model(model_folder, place):
    return upload(model_folder, place, "model")


class Requests(FaultProxy):
    """Lets everything pass, and notes what was asked for."""

    def __init__(self, port):
        self.seen = []
        super().__init__(port, faults=("error_500",), when=lambda number, *request: self.seen.append(request))

    @property
    def fetched(self):
        return sorted(path.rpartition("/")[2] for method, path in self.seen if method == "GET" and "?" not in path)


def read_matrix(place, tmp_path):
    for name, data in place.read(list(place.sizes("matrix"))).items():
        (tmp_path / "fetched" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fetched" / name).write_bytes(data)
    return duckdb.sql(f"SELECT * FROM '{tmp_path}/fetched/matrix/**/*.parquet' ORDER BY row").fetchall()


def test_a_run_with_everything_in_the_store_is_as_a_local_one(
    in_process, score, place, model, policies, model_folder, tmp_path, cache
):
    place.publish("in/a.jsonl", b'{"text": "hello bank"}\n{"text": "kill"}\n')
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jsonl").write_bytes(b'{"text": "hello bank"}\n{"text": "kill"}\n')
    places = {"configurations": f"{upload(policies, place, 'policies')}/", "model": f"{model}/"}
    local = score("in")
    result = score(f"{place.url}/in", "--explain", output=f"{place.url}/out", **places)
    assert (local.exit_code, result.exit_code) == (0, 0), result.output
    again = score(f"{place.url}/in", output=f"{place.url}/out", **places)
    assert "everything was scored already" in again.stderr
    assert score(f"{place.url}/in", "--dry-run", output=f"{place.url}/other", **places).exit_code == 0

    target = Folder.at(f"{place.url}/out")
    expected = duckdb.sql(f"SELECT * FROM '{tmp_path}/out/matrix/**/*.parquet' ORDER BY row").fetchall()
    assert [row[: len(expected[0])] for row in read_matrix(target, tmp_path)] == expected
    written = target.read(list(target.sizes("")))
    assert not [name for name, data in written.items() if str(tmp_path).encode() in data or b"/csrm-" in data]
    manifest = json.loads(written["manifest.json"])
    assert manifest["model"]["path"] == model
    assert manifest["model"] | {"path": ""} == json.loads((tmp_path / "out/manifest.json").read_text())["model"] | {
        "path": ""
    }
    assert {one["source"] for one in manifest["configurations"]} == {
        f"{place.url}/policies/game.yaml",
        f"{place.url}/policies/bank.yaml",
    }


def test_configurations_are_those_of_the_files(place, policies):
    url = upload(policies, place, "policies")
    place.publish("policies/.hidden/game.yaml", b"- no")
    place.publish("policies/data.parquet", b"x" * 100)
    place.publish("policies/below/shop.md", b"# Shop\n- Do not sell the bank\n")
    found = load_configurations(url)
    assert {one.id for one in found} == {"game", "bank", "shop"}
    assert {one for one in found if one.id != "shop"} == set(csrm.load_configurations(policies))
    assert [one.source for one in found if one.id == "shop"] == [f"{url}/below/shop.md"]
    [alone] = load_configurations(f"{url}/below/shop.md")
    assert alone.source == f"{url}/below/shop.md"


def test_only_policies_are_fetched(place, policies, server, connect):
    url = upload(policies, place, "policies")
    place.publish("policies/data.parquet", b"x")
    place.publish("policies/large.yaml", b"#" * (2**20 + 1))
    with Requests(server.port) as proxy:
        connect(proxy.port)
        with pytest.raises(ConfigurationError, match=f"^{url}/large.yaml: larger than 1 MiB"):
            load_configurations(url)
        assert proxy.fetched == ["bank.yaml", "game.yaml"]


@pytest.mark.parametrize(
    ("name", "data", "complaint"),
    [
        ("a.yaml", b"id: A\nclauses: [do not kill]", "/a.yaml: id 'A' must be"),
        ("b.yaml", b"\xff", "/b.yaml: not UTF-8"),
        ("c.csv", b"x", ": no policies in this folder"),
    ],
    ids=["id", "encoding", "format"],
)
def test_a_bad_configuration_is_named_by_its_url(place, name, data, complaint):
    place.publish(f"bad/{name}", data)
    with pytest.raises(ConfigurationError) as raised:
        load_configurations(f"{place.url}/bad")
    assert str(raised.value).startswith(f"{place.url}/bad{complaint}")


def test_what_is_not_there_is_one_line(place, model):
    for missing in (f"{place.url}/nothing", "s3://no-such-bucket/x"):
        for read in (load_configurations, read_model_facts):
            with pytest.raises(InputError, match=f"^{missing}: no such file, folder or bucket$"):
                read(missing)
    place.publish("data/a.jsonl", b"{}")
    for other in ("data", "data/a.jsonl"):
        with pytest.raises(CheckpointError, match=f"^{place.url}/{other}: no csrm.json here"):
            read_model_facts(f"{place.url}/{other}")
    place.publish("model/csrm.json", b"{")
    with pytest.raises(CheckpointError, match=f"^{model}/csrm.json: unreadable"):
        read_model_facts(model)
    with pytest.raises(CheckpointError, match=f"^{model}/csrm.json: unreadable"), local_model(model) as folder:
        csrm.CSRM.from_pretrained(folder)


def test_a_model_is_copied_once_to_a_machine(place, model, model_folder, server, connect, cache):
    place.publish("model/checkpoints/state.pt", b"no part of the model")
    connect_to = f"{model}/"
    with Requests(server.port) as proxy:
        connect(proxy.port)

        def use(_):
            with local_model(connect_to) as folder:
                return {file.name: file.read_bytes() for file in Path(folder).iterdir()}

        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(use, range(4)))
        files = {file.name: file.read_bytes() for file in model_folder.iterdir()}
        assert found == [files] * 4
        assert proxy.fetched == sorted(files)
    assert len([entry for entry in cache.iterdir() if entry.is_dir()]) == 1


def test_the_driver_fetches_no_weights(model, model_folder, server, connect, cache):
    with Requests(server.port) as proxy:
        connect(proxy.port)
        facts = read_model_facts(model)
        assert proxy.fetched == ["csrm.json"]
    local = read_model_facts(str(model_folder))
    assert facts.path == model
    assert (facts.name, facts.fingerprint, facts.calibration, facts.num_bytes) == (
        local.name,
        local.fingerprint,
        local.calibration,
        local.num_bytes,
    )
    assert not cache.exists()


def test_another_model_at_the_same_url_is_another_copy(model, place, model_folder):
    with local_model(model) as first:
        pass
    facts = json.loads((model_folder / "csrm.json").read_text()) | {"name": "other"}
    place.publish("model/csrm.json", json.dumps(facts).encode())
    with local_model(model) as second:
        assert second != first
        assert csrm.CSRM.from_pretrained(second).name == "other"
    assert csrm.CSRM.from_pretrained(first).name == "tiny"


def test_a_copy_that_was_cut_short_or_damaged_is_made_again(model, model_folder, server, connect, cache):
    """A process is killed while it waits for the weights; later a file of the whole copy is deleted."""
    with FaultProxy(
        server.port, faults=("stall",), when=lambda n, method, path: "safetensors" in path, stall_s=60
    ) as proxy:
        environment = {**os.environ, **server.environment(proxy.url)}
        with subprocess.Popen([sys.executable, "-c", FETCH, model], env=environment) as process:
            deadline = time.monotonic() + 60
            while not proxy.injected and time.monotonic() < deadline:
                time.sleep(0.05)
            assert process.poll() is None
            process.send_signal(signal.SIGKILL)
    assert [entry.suffix for entry in cache.iterdir() if entry.is_dir()] == [".part"]
    files = {file.name: file.read_bytes() for file in model_folder.iterdir()}
    for _ in range(2):
        with local_model(model) as folder:
            assert {file.name: file.read_bytes() for file in Path(folder).iterdir()} == files
        Path(folder, "model.safetensors").unlink()


def test_a_model_that_changes_while_it_is_copied_is_not_used(model, place, server, connect, cache):
    def change(number, method, path):
        if "safetensors" in path and method == "GET":
            connect()
            place.publish("model/config.json", b"{}")
        return False

    with FaultProxy(server.port, faults=("error_500",), when=change) as proxy:
        connect(proxy.port)
        with pytest.raises(InputError, match=f"^{model}: changed while it was copied"):
            local_model(model).__enter__()
    assert [entry.suffix for entry in cache.iterdir() if entry.is_dir()] == [".part"]


def test_a_copy_survives_faults(model, model_folder, server, connect):
    faults = ("error_500", "slow_down", "reset", "truncate")
    with FaultProxy(server.port, faults=faults, rate=0.3, seed=4) as proxy:
        connect(proxy.port)
        with local_model(model) as folder:
            for file in model_folder.iterdir():
                assert Path(folder, file.name).read_bytes() == file.read_bytes()
        assert proxy.injected


def test_a_cache_that_cannot_be_written_is_one_line(model, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"file/csrm/models: cannot be written \(Not a directory\); .*XDG_CACHE_HOME"):
        local_model(model).__enter__()


@pytest.mark.parametrize("name", ["../up.yaml", "a/../../up.yaml", "/rooted.yaml"])
def test_names_do_not_lead_out_of_the_folder(name, monkeypatch, tmp_path):
    """Stores allow them; whether clients do is another question, so the listing is made up."""
    from fsspec.implementations.memory import MemoryFileSystem

    listed = {f"/bucket/policies/{name}": {"size": 1, "type": "file"}}
    monkeypatch.setattr(MemoryFileSystem, "find", lambda *_, **__: listed)
    with pytest.raises(InputError, match=r"a file is called .*; rename it"):
        load_configurations("memory://bucket/policies")
