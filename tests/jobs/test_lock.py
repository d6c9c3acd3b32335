"""One writer to a target, whatever dies."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from csrm.errors import TargetError
from jobs import lock as lock_module
from jobs.lock import Holder, Lock, check_generation
from jobs.storage import Folder

BEAT_S, LEASE_S = 0.1, 1.0


@pytest.fixture(params=["local", "memory"])
def target(request, tmp_path):
    return Folder.at(str(tmp_path) if request.param == "local" else f"memory://{tmp_path.name}")


def lock(target, **settings):
    return Lock(target, beat_s=BEAT_S, lease_s=LEASE_S, **settings)


def leave(target, **changes):
    """A lock as another process left it; of another machine unless `changes` say otherwise."""
    holder = replace(Holder.this_process(), who="somebody", place="elsewhere", **changes)
    target.publish("_csrm/lock/0000000003.json", holder.encode())


def test_a_second_writer_is_refused_while_the_first_lives(target):
    with lock(target), pytest.raises(TargetError, match=r"process \d+ has been writing here since 20"), lock(target):
        pass
    with lock(target) as again:
        assert again.generation == 2


def test_who_never_gave_a_sign_of_life_is_followed(target):
    leave(target)
    said = []
    started = time.monotonic()
    with lock(target, say=said.append) as ours:
        assert ours.generation == 4
        assert set(target.sizes("_csrm/lock")) == {"_csrm/lock/0000000004.json"}
    assert time.monotonic() - started > LEASE_S
    assert said == [said[0]]
    assert "somebody has been writing here" in said[0]


def checked(wait):
    """Fail where a wait takes time."""

    def run(*arguments):
        started = time.monotonic()
        wait(*arguments)
        assert time.monotonic() - started < LEASE_S / 2

    return run


def test_nobody_waits_for_who_released_the_lock(target, monkeypatch):
    monkeypatch.setattr(lock_module, "SETTLE_S", 0)
    monkeypatch.setattr(Lock, "_wait_until_dead", checked(Lock._wait_until_dead))
    leave(target, released=True)
    with lock(target) as ours:
        assert ours.generation == 4


def test_of_many_at_once_one_writes(tmp_path):
    """All see the same abandoned lock; the next generation is one's."""
    target = Folder.at(str(tmp_path))
    leave(target)
    inside, most = [], []

    def enter(_):
        try:
            with lock(target) as ours:
                inside.append(ours)
                most.append(len(inside))
                time.sleep(3 * LEASE_S)
                inside.remove(ours)
                return ours.generation
        except TargetError:
            return None

    with ThreadPoolExecutor(8) as pool:
        generations = list(pool.map(enter, range(8)))
    assert max(most) == 1
    assert [g for g in generations if g] == [4]


def test_a_holder_that_was_only_slow_learns_that_it_is_not_one_any_more(target):
    slow = lock(target)
    slow._beat = lambda: None
    slow._beats = lock_module.threading.Thread(target=slow._beat)
    with slow:
        check_generation(target, slow.generation)
        with lock(target) as ours:
            assert slow.is_lost
            with pytest.raises(TargetError, match="another job took over"):
                check_generation(target, slow.generation)
            check_generation(target, ours.generation)
        held = json.loads(next(iter(target.read(list(target.sizes("_csrm/lock"))).values())))
        assert held["released"], "a slow holder's end does not touch the lock of its successor"


def test_a_killed_process_of_this_machine_is_followed_at_once(tmp_path):
    code = f"""
import sys, time
from jobs.lock import Lock
from jobs.storage import Folder
with Lock(Folder.at({str(tmp_path)!r})):
    print("held", flush=True)
    time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(TargetError, match=f"process {process.pid} has been writing"):
            Lock(Folder.at(str(tmp_path)), beat_s=10 * lock_module.BEAT_S / 5).__enter__()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        started = time.monotonic()
        with Lock(Folder.at(str(tmp_path))) as ours:
            assert ours.generation == 2
        assert time.monotonic() - started < lock_module.BEAT_S
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_store_without_conditional_writes_is_refused(target, monkeypatch):
    def overwrite(self, name, data):
        self.publish(name, data)
        return True

    monkeypatch.setattr(Folder, "create", overwrite)
    with pytest.raises(TargetError, match="ignores conditional writes"):
        lock(target).__enter__()
    assert target.sizes("_csrm/lock") == {}


def create_one(arguments):
    folder, name = arguments
    return Folder(folder).create("x/claim.json", name.encode())


def test_one_of_many_processes_creates_a_file(tmp_path):
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        for n in range(5):
            folder = str(tmp_path / str(n))
            assert sum(pool.map(create_one, [(folder, str(k)) for k in range(8)], chunksize=1)) == 1
            assert Folder(folder).sizes("_csrm/tmp") == {}
