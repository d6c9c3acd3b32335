"""Listing finds what users mean, and names it the same way every time."""

import os

import pytest

from csrm.errors import InputError
from jobs.inputs import FileFormat, file_format, list_inputs, partitions
from jobs.storage import mark_of, open_location


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}\n")


def sources(inputs):
    return [file.source for file in inputs.files]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.parquet", FileFormat("parquet")),
        ("a.jsonl", FileFormat("jsonl")),
        ("a.b.NDJSON", FileFormat("jsonl")),
        ("a.json.gz", FileFormat("jsonl", "gzip")),
        ("date=1/a.jsonl.zst", FileFormat("jsonl", "zstd")),
        ("a.parquet.gz", None),
        ("a.txt", None),
        ("a.gz", None),
        ("jsonl", None),
        ("", None),
    ],
)
def test_format_is_told_by_the_name(name, expected):
    assert file_format(name) == expected


def test_folder_is_listed_in_order_without_hidden_files_and_other_formats(tmp_path):
    touch(tmp_path, "b.jsonl", "a/2.parquet", "a/10.jsonl.gz", "notes.txt")
    touch(tmp_path, ".hidden.jsonl", "_SUCCESS.json", "_delta_log/0.json", "a/.cache/x.jsonl")
    inputs = list_inputs(str(tmp_path))
    assert sources(inputs) == ["a/10.jsonl.gz", "a/2.parquet", "b.jsonl"]
    assert inputs.root == str(tmp_path)
    assert [file.url for file in inputs.files] == [str(tmp_path / source) for source in sources(inputs)]


def test_hidden_parents_of_the_folder_do_not_hide_it(tmp_path):
    touch(tmp_path, ".data/_in/a.jsonl")
    assert sources(list_inputs(str(tmp_path / ".data/_in"))) == ["a.jsonl"]


def test_single_file_is_named_by_itself(tmp_path):
    touch(tmp_path, "_odd.jsonl")
    assert sources(list_inputs(str(tmp_path / "_odd.jsonl"))) == ["_odd.jsonl"]


def test_glob_is_relative_to_its_fixed_part_and_takes_folders_whole(tmp_path):
    touch(tmp_path, "in/date=1/a.jsonl", "in/date=2/b.jsonl", "in/other/c.jsonl", "in/date=1/_d.jsonl")
    assert sources(list_inputs(f"{tmp_path}/in/*/a.jsonl")) == ["date=1/a.jsonl"]
    assert sources(list_inputs(f"{tmp_path}/in/date=*")) == ["date=1/a.jsonl", "date=2/b.jsonl"]
    assert sources(list_inputs(f"{tmp_path}/in/dat*/*.jsonl")) == ["date=1/a.jsonl", "date=2/b.jsonl"]
    assert list_inputs(f"{tmp_path}/in/dat*/*.jsonl").root == f"{tmp_path}/in"


def test_name_with_brackets_is_not_a_glob_where_it_exists(tmp_path):
    touch(tmp_path, "a[1].jsonl", "in [x]/b.jsonl")
    assert sources(list_inputs(str(tmp_path / "a[1].jsonl"))) == ["a[1].jsonl"]
    assert sources(list_inputs(str(tmp_path / "in [x]"))) == ["b.jsonl"]


def test_relative_paths_become_absolute(tmp_path, monkeypatch):
    touch(tmp_path, "in/a.jsonl")
    monkeypatch.chdir(tmp_path)
    assert list_inputs("in").files[0].url == str(tmp_path / "in/a.jsonl")


def test_mark_changes_with_the_file(tmp_path):
    touch(tmp_path, "a.jsonl")
    before = list_inputs(str(tmp_path)).files[0].mark
    assert before == list_inputs(str(tmp_path)).files[0].mark
    (tmp_path / "a.jsonl").write_text("{}\n{}\n")
    assert before != list_inputs(str(tmp_path)).files[0].mark


def test_mark_of_a_link_is_that_of_its_file(tmp_path):
    """Readers ask again, by the file's name alone; a broken link is empty."""
    (tmp_path / "blob").write_text("{}\n")
    os.utime(tmp_path / "blob", (1e9, 1e9))
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jsonl").symlink_to(tmp_path / "blob")
    (tmp_path / "in/b.jsonl").symlink_to(tmp_path / "nothing")
    [file, broken] = list_inputs(str(tmp_path / "in")).files
    filesystem, path = open_location(file.url)
    assert file.mark == mark_of(filesystem.info(path))
    assert broken.size == 0


def test_partition_values_are_kept_as_spelled():
    assert partitions("a/date=2026-11-20/lang=a%2Fb/=x/y/f.jsonl") == {"date": "2026-11-20", "lang": "a%2Fb"}
    assert partitions("key=value.jsonl") == {}


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("missing", "no such file, folder or bucket"),
        ("missing/*.jsonl", "no conversation files here"),
        ("empty", "no conversation files here"),
        ("notes.txt", "not a format that is read"),
    ],
)
def test_nothing_to_read_is_an_error_that_names_the_place(tmp_path, location, message):
    touch(tmp_path, "notes.txt", "empty/notes.txt")
    with pytest.raises(InputError, match=message) as error:
        list_inputs(f"{tmp_path}/{location}")
    assert location in str(error.value)


def test_unknown_protocol_is_an_error():
    with pytest.raises(InputError, match="give a local path or an s3:// URL"):
        list_inputs("nonsense://bucket/a.jsonl")


def test_partition_folder_may_not_take_a_matrix_column(tmp_path):
    touch(tmp_path, "source=web/a.jsonl")
    with pytest.raises(InputError, match="'source' has the name of a matrix column"):
        list_inputs(str(tmp_path))


@pytest.mark.parametrize("name", [b"\xff.jsonl", b"a\nb.jsonl", b"a\x1b[31m.jsonl"])
def test_names_that_no_column_or_terminal_takes_are_refused(tmp_path, name):
    import os

    (tmp_path / os.fsdecode(name)).write_text("{}\n")
    with pytest.raises(InputError, match="rename the file") as error:
        list_inputs(str(tmp_path))
    assert str(error.value).isprintable()
