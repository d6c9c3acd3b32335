"""What strangers' bytes are fed to: each target takes any bytes and lets nothing out but what the code documents.

Plain functions: `fuzz.py` drives them by coverage, `test_fuzz.py` by Hypothesis.
"""

import atexit
import json
import os
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa

from csrm import load_configurations
from csrm.configurations import dump_configuration
from csrm.conversations import RecordColumns, as_conversation, parse_record
from csrm.errors import ConfigurationError, InputError, RecordError
from jobs.columns import Work, group_passes
from jobs.inputs import list_inputs
from jobs.job import kept_schema
from jobs.jsonl import decode_line
from jobs.limits import RAW_BYTES
from jobs.losses import UnreadableError
from jobs.options import ScoreOptions
from jobs.reading import Records, _kept, _row_schema, _rows, read_pass
from jobs.shards import plan_file

# Thousands of small files: in memory where there is such a place.
SHARED_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
FOLDER = Path(os.environ.get("CSRM_FUZZ_FOLDER") or tempfile.mkdtemp(prefix="csrm-fuzz-", dir=SHARED_MEMORY))
if "CSRM_FUZZ_FOLDER" not in os.environ:
    atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
NAMED = [
    *(None, RecordColumns(messages="messages"), RecordColumns(text="text")),
    *(RecordColumns(prompt="prompt"), RecordColumns(response="response")),
]
SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
OPTIONS = ScoreOptions(
    input="i", configurations="c", output="o", id_column="id", keep_columns=("k",), partition_by=("p",)
)


def check_message(error):
    """It is one line of bounded length."""
    text = str(error)
    assert text, repr(error)
    assert "\n" not in text, text
    assert len(text) < 2000, text[:300]


def configuration(suffix, data):
    """Load a policy file. What loads is sound, and is the same after a trip through YAML."""
    file = FOLDER / f"policy{suffix}"
    file.write_bytes(data)
    try:
        found = load_configurations(file)
    except ConfigurationError as error:
        check_message(error)
        return
    for one in found:
        assert one.clauses
        assert len(one.fingerprint) == 64
        again = FOLDER / "again.yaml"
        again.write_text(dump_configuration(one), encoding="utf-8")
        assert load_configurations(again) == [one]


def configuration_yaml(data):
    configuration(".yaml", data)


def configuration_markdown(data):
    configuration(".md", data)


def configuration_text(data):
    configuration(".txt", data)


def record(data):
    """Read one line as a record in every way, and make rows of it as a shard's reader does."""
    try:
        value = decode_line(data)
    except RecordError as error:
        check_message(error)
        value = error
    for columns in NAMED if isinstance(value, dict) else ():
        try:
            for suffix, talk in parse_record(value, columns):
                assert suffix in ("", "chosen", "rejected")
                assert as_conversation(talk) == talk
                assert "".join(message.content for message in talk).encode() is not None
        except RecordError as error:
            check_message(error)
    job = SimpleNamespace(options=OPTIONS, kept=kept_schema([None], OPTIONS.keep_columns))
    records = Records([value], None, [data])
    rows = [row | {"raw": records.raw(0)} for row, _ in _rows(value, 0, "a.jsonl", job)]
    table = pa.Table.from_pylist(rows, schema=_row_schema(job))
    assert 1 <= table.num_rows <= 2
    assert len(_kept(records, job.kept.field("k"), pa.array([0] * table.num_rows))) == table.num_rows
    assert all(len(row["raw"]) <= RAW_BYTES for row in rows)


def planner(data):
    """Plan a file of any bytes and read it as planned. The first byte chooses its format, the second the shards."""
    suffix = SUFFIXES[data[0] % len(SUFFIXES)] if data else ".jsonl"
    shard_rows = 1 + (data[1] % 8 if len(data) > 1 else 0)
    plan_and_read(suffix, data[2:], 4096 * shard_rows if suffix == ".parquet" else shard_rows)


def plan_and_read(suffix, data, shard_rows):
    file = FOLDER / f"input{suffix}"
    file.write_bytes(data)
    [described] = list_inputs(str(file)).files
    plan = plan_file(described, shard_rows)
    for lost in plan.lost:
        check_message(lost.reason)
    assert all(0 < shard.num_rows <= shard_rows for shard in plan.shards)
    ends = [0, *(shard.row_start + shard.num_rows for shard in plan.shards)]
    assert [shard.row_start for shard in plan.shards] == ends[:-1]
    for together in group_passes(Work(shard, ()) for shard in plan.shards[:1000]):
        broken = None
        try:
            for records in read_pass([work.shard for work in together], OPTIONS):
                json.dumps([records.raw(n) is None for n in range(len(records.values))])
        except UnreadableError as error:
            broken = error
            check_message(error)
        # What can be counted can be read, save Parquet, of which only the footer is read to be counted.
        assert not broken or suffix == ".parquet" or plan.lost, broken


def listing(name):
    """List a folder with one file of any name; return the file's source, or None where there is no such file."""
    folder = Path(tempfile.mkdtemp(dir=FOLDER))
    try:
        assert Path(os.path.normpath(folder / name)).is_relative_to(folder)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}\n")
    except (AssertionError, OSError, ValueError):  # no file below the folder can be called that
        return None
    try:
        [file] = list_inputs(str(folder)).files
    except InputError as error:
        check_message(error)
        return None
    [shard] = plan_file(file, 1).shards
    assert Path(shard.url).samefile(folder / name)
    assert not set("/\\\0%: ") & set(shard.id)
    return file.source


TARGETS = {
    target.__name__: target
    for target in (configuration_yaml, configuration_markdown, configuration_text, record, planner)
}
