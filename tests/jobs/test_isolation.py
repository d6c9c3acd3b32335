"""One record that cannot be scored costs one row, whatever it does to the process that tries."""

import subprocess
import sys
import time

import pytest

from csrm.errors import CheckpointError
from jobs.isolation import HUNG_EXIT, MOST_DEATHS, Notes, Part, Watchdog, isolate, outlived
from jobs.losses import UnreadableError
from jobs.storage import Folder

POISON = 5


@pytest.fixture
def target(tmp_path):
    return Folder.at(str(tmp_path))


def run(target, score, num_records=8, job=1):
    return isolate(score, num_records, Notes(target, "shard", job), Watchdog(None))


def covered(parts, failed):
    return sorted([*(record for part in parts for record in range(part.start, part.end)), *failed])


def fragile(start, end):
    if start <= POISON < end:
        raise RuntimeError("cannot\nand will not")
    return f"{start}-{end}"


def test_what_is_scored_at_once_is_one_part(target):
    assert run(target, lambda start, end: (start, end)) == ([Part(0, 8, (0, 8))], {})
    assert target.sizes("_csrm/attempts") == {}


def test_a_record_that_raises_is_found(target):
    parts, failed = run(target, fragile)
    assert failed == {POISON: "scoring failed: RuntimeError: cannot"}
    assert covered(parts, failed) == list(range(8))
    assert [part.scores for part in parts] == ["0-4", "4-5", "6-8"]


def test_too_much_at_once_is_scored_in_pieces(target):
    def small(start, end):
        if end - start > 2:
            raise MemoryError
        return

    parts, failed = run(target, small)
    assert (covered(parts, failed), failed) == (list(range(8)), {})


def test_what_the_user_can_mend_is_no_records_fault(target):
    def broken(start, end):
        raise CheckpointError("no weights")

    with pytest.raises(CheckpointError):
        run(target, broken)


class Death(BaseException):
    """Stands in for the end of the process: nothing catches it."""


def attempts(target, score, num_records=8, job=1):
    """Run until it ends; returns the outcome and the number of deaths."""
    for deaths in range(100):
        try:
            return *run(target, score, num_records, job), deaths
        except Death:
            continue
    raise AssertionError("no end")


def deadly(start, end):
    if start <= POISON < end:
        raise Death
    return


@pytest.mark.parametrize("num_records", [6, 8, 100, 4096])
def test_a_record_that_kills_its_process_is_found(target, num_records):
    parts, failed, deaths = attempts(target, deadly, num_records)
    assert failed == {POISON: "its process died when it was scored"}
    assert covered(parts, failed) == list(range(num_records))
    assert deaths <= 3 + num_records.bit_length()
    assert target.sizes("_csrm/attempts") == {}


def test_two_such_records_are_both_found(target):
    def twice(start, end):
        if start <= 1 < end or start <= 6 < end:
            raise Death

    parts, failed, _ = attempts(target, twice)
    assert sorted(failed) == [1, 6]
    assert covered(parts, failed) == list(range(8))


def test_a_process_that_dies_for_reasons_of_its_own_costs_nothing(target):
    died = []

    def unlucky(start, end):
        if not died:
            died.append(True)
            raise Death
        return (start, end)

    assert attempts(target, unlucky) == ([Part(0, 8, (0, 8))], {}, 1)


def test_deaths_of_an_earlier_job_are_not_held_against_a_record(target):
    for job in range(20):
        with pytest.raises(Death):
            run(target, deadly, num_records=6, job=job)
    parts, failed, deaths = attempts(target, deadly, num_records=6, job=20)
    assert (covered(parts, failed), sorted(failed)) == (list(range(6)), [POISON])
    assert deaths > 3


def test_without_a_lock_nothing_is_noted(target):
    with pytest.raises(Death):
        run(target, deadly, job=None)
    assert target.sizes("") == {}


HANG = """
import sys, time
from jobs.isolation import Notes, Watchdog, isolate
from jobs.storage import Folder

dog = Watchdog(0.5)

def score(start, end):
    for record in range(start, end):
        while record == 2:
            time.sleep(60)
        time.sleep(0.2)
        dog.alive()

print(isolate(score, 4, Notes(Folder.at(sys.argv[1]), "shard", 1), dog)[1])
"""


def test_a_hang_is_ended_and_its_record_named(tmp_path):
    codes = []
    while not codes or codes[-1]:
        assert len(codes) < 10
        done = subprocess.run([sys.executable, "-c", HANG, str(tmp_path)], capture_output=True, text=True, timeout=60)
        codes.append(done.returncode)
    assert set(codes[:-1]) == {HUNG_EXIT}
    assert done.stdout.strip() == "{2: 'scoring took longer than 0.5 s'}"


def test_signs_of_life_keep_a_process_alive():
    dog = Watchdog(0.3)
    with dog.watching(lambda reason: pytest.fail(reason)):
        for _ in range(10):
            time.sleep(0.1)
            dog.alive()


def test_what_kills_every_reader_is_given_up(target):
    dead = [outlived(target, "shard", 1) for _ in range(MOST_DEATHS)]
    for read in dead:
        read.__enter__()  # and never comes back
    with pytest.raises(UnreadableError, match="5 processes died when they read it"), outlived(target, "shard", 1):
        pytest.fail("once too often")
    with outlived(target, "shard", 2):
        pass
    with outlived(target, "shard", 1):
        """Another job's deaths are no concern, and who came through has forgotten his own."""
    assert target.sizes("_csrm/attempts") == {}
