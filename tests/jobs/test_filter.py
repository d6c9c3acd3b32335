"""What is kept is what it was, and everything is accounted for."""

import contextlib
import gzip
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from filter_in_process import filter_in_process
from in_process import write_in_process

from csrm.errors import InputError
from jobs import pipeline
from jobs.cli import cli
from jobs.matrix import Matrix

WORDS = ["hello", "kill", "bank", "weather", "pin", "the", "a", "user", *"0123"]


@pytest.fixture(autouse=True)
def _in_process(in_process):
    from jobs.filter import pipeline as filter_pipeline

    in_process.setattr(filter_pipeline, "filter_shards", filter_in_process)


@pytest.fixture
def keep(tmp_path):
    """Run `csrm filter` on the matrix in `tmp_path / "out"`."""

    def run(where, *options, output="kept", matrix=tmp_path / "out", code=0):
        to = ["--output", str(tmp_path / output)] if output else []
        result = CliRunner().invoke(cli, ["filter", str(matrix), "--where", where, *to, *map(str, options)])
        assert result.exit_code == code, result.output
        assert not code or result.output.count("\n") <= 2, result.output
        return result

    return run


def texts(draw, number):
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, 9))) for _ in range(number)]


def scores(folder):
    """Every row of a matrix, by source and number of the record: what the reference judges."""
    matrix = Matrix.open(str(folder))
    found = {}
    for shard in matrix.shards:
        for row in matrix.read(shard).to_pylist():
            found.setdefault((row["source"], row["row"]), []).append(row)
    return found


def visible(folder):
    """Files that someone who loads a folder gets."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in paths if ".csrm" not in path.parts)


def kept_lines(folder):
    """Lines by folder and file of the input, in order."""
    found = {}
    for path in visible(folder):
        source = str(path.relative_to(folder).parent / path.name.rsplit("-", 2)[0])
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        if path.suffix == ".zst":
            data = pa.input_stream(str(path)).read()
        found.setdefault(source, b"")
        found[source] += data
    return found


def counts(result):
    return {key: json.loads(result.stdout)[key] for key in ("records", "kept", "rejected", "errors")}


def write_corpus(tmp_path):
    """Forty lines in three files, with all that a line may have in it."""
    draw = random.Random(1)
    folder = tmp_path / "chats" / "date=2026-11-20"
    folder.mkdir(parents=True)
    lines = [
        json.dumps({"text": text, "n": number, "lang": draw.choice(["en", "de"])})
        for number, text in enumerate(texts(draw, 40))
    ]
    lines[3] = '  {"text":"hello\\u00e9 ☃", "n" : 3.0, "lang":"it\'s"}  \r'
    lines[5] = '{"text": "bank", "lang": null, "n": 5, "more": {"deep": [1, {"x": null}]}}'
    lines[8] = "not JSON"
    lines[9] = '{"chosen": "hello", "rejected": "kill kill", "lang": "en", "n": 9}'
    lines[12] = '{"text": 1, "lang": "en", "n": 12}'
    data = [line.encode() for line in lines]
    (folder / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\n".join([*data[:10], b"", *data[10:15]]))  # no line end
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(b"\n".join(data[15:30]) + b"\n"))
    (tmp_path / "chats" / "c.jsonl.zst").write_bytes(
        pa.compress(b"\n".join(data[30:]) + b"\n", codec="zstd", asbytes=True)
    )
    return {
        ("date=2026-11-20/a.jsonl"): [b"\xef\xbb\xbf" + data[0] + b"\n", *(d + b"\n" for d in data[1:14]), data[14]],
        ("date=2026-11-20/b.jsonl.gz"): [d + b"\n" for d in data[15:30]],
        ("c.jsonl.zst"): [d + b"\n" for d in data[30:]],
    }


def scored(tmp_path, policies, model_folder):
    """A corpus, scored in shards of seven; the lines that it has, by source."""
    lines = write_corpus(tmp_path)
    options = ["-c", str(policies), "-m", str(model_folder), "--shard-rows", "7", "--max-error-rate", "1"]
    result = CliRunner().invoke(cli, ["score", str(tmp_path / "chats"), "-o", str(tmp_path / "out"), *options])
    assert result.exit_code == 0, result.output
    return lines


@pytest.fixture(scope="module")
def shared(tmp_path_factory, policies, model_folder):
    """A scored corpus that no test changes."""
    folder = tmp_path_factory.mktemp("corpus")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "cluster", contextlib.nullcontext)
        patch.setattr(pipeline, "score_shards", write_in_process)
        return folder, scored(folder, policies, model_folder)


@pytest.fixture
def corpus(shared, tmp_path):
    """The same, within reach of a test: lines by source."""
    for name in ("chats", "out"):
        (tmp_path / name).symlink_to(shared[0] / name)
    return shared[1]


@pytest.fixture
def own_corpus(tmp_path, policies, model_folder):
    """One to be changed."""
    return scored(tmp_path, policies, model_folder)


def test_lines_are_kept_byte_for_byte_in_their_order_and_folders(corpus, keep, tmp_path):
    rows = scores(tmp_path / "out")
    bound = sorted(row["p_safe"]["game"] for own in rows.values() for row in own if not row["error"])[15]
    result = keep(f"p_safe.game >= {bound!r}", "--json", "--rejected", tmp_path / "others")
    expected, num_errors = {}, 0
    for source, lines in corpus.items():
        for number, line in enumerate(lines):
            own = rows[source, number]
            num_errors += any(row["error"] for row in own)
            if not any(row["error"] for row in own) and all(row["p_safe"]["game"] >= bound for row in own):
                expected.setdefault(source.split(".")[0], []).append(line)
    assert kept_lines(tmp_path / "kept") == {source: b"".join(lines) for source, lines in expected.items()}
    num_kept = sum(map(len, expected.values()))
    assert 0 < num_kept < 38
    assert num_errors == 2
    assert counts(result) == {"records": 40, "kept": num_kept, "rejected": 40 - num_kept - 2, "errors": 2}
    assert {path.name.partition(".")[2] for path in visible(tmp_path / "kept")} == {"jsonl", "jsonl.gz", "jsonl.zst"}


def test_rejected_records_come_with_the_conditions_that_they_fail(corpus, keep, tmp_path):
    where = "p_safe.game >= 0.12 and p_safe.bank >= 0.5 and lang = 'en'"
    told = json.loads(keep(where, "--json", "--rejected", tmp_path / "others").stdout)
    rows = scores(tmp_path / "out")
    data = b"".join(kept_lines(tmp_path / "others").values())
    found = [json.loads(line) for line in data.splitlines()]
    assert len(found) == told["rejected"] + told["errors"]
    failed, alone = [0, 0, 0], [0, 0, 0]
    judged = [one for one in found if one["error"] is None]
    for one in judged:
        [own] = [
            rows[s, r] for s, lines in corpus.items() for r, line in enumerate(lines) if _same(line, one["record"])
        ][:1]
        is_failed = [
            any(row["p_safe"]["game"] < 0.12 for row in own),
            any(row["p_safe"]["bank"] < 0.5 for row in own),
            one["record"]["lang"] != "en",
        ]
        assert one["reason"] == [text for text, failed in zip(where.split(" and "), is_failed, strict=True) if failed]
        failed = [total + one for total, one in zip(failed, is_failed, strict=True)]
        alone = [total + (one and sum(is_failed) == 1) for total, one in zip(alone, is_failed, strict=True)]
    assert [one["failed"] for one in told["conditions"]] == failed
    assert [one["failed_alone"] for one in told["conditions"]] == alone
    others = [(one["error"], one["reason"], one["record"]) for one in found if one["error"] is not None]
    assert len(others) == 2
    assert [record for _, _, record in others] == [None, {"text": 1, "lang": "en", "n": 12}]
    assert [reason for _, reason, _ in others] == [[], []]
    assert "malformed JSON" in others[0][0]


def _same(line, record):
    try:
        return json.loads(line.decode("utf-8-sig")) == record
    except ValueError:
        return False


def test_a_pair_is_kept_if_both_replies_are(tmp_path, score, keep):
    pairs = [("hello", "kill"), ("kill", "hello"), ("hello", "hello"), ("kill", "kill")]
    lines = [json.dumps({"chosen": chosen, "rejected": rejected}) for chosen, rejected in pairs]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    assert score("pairs.jsonl").exit_code == 0
    rows = scores(tmp_path / "out")
    hello, kill = (rows["pairs.jsonl", row][0]["p_safe"]["game"] for row in (2, 3))
    sign = ">" if hello > kill else "<"
    keep(f"p_safe.game {sign} {(hello + kill) / 2}")
    assert kept_lines(tmp_path / "kept") == {"pairs": lines[2].encode() + b"\n"}
    keep("record_id like '%/chosen'", output="none")
    assert visible(tmp_path / "none") == []


@pytest.mark.parametrize("seed", range(10))
def test_records_add_up_against_an_obvious_reference(seed, tmp_path, score, keep):
    draw = random.Random(seed)
    number = draw.randint(1, 12)
    folder = tmp_path / "chats"
    folder.mkdir()
    records, lines = {}, {}
    for name in draw.sample(["x=1/a.jsonl", "x=1/b.jsonl.gz", "x=2/c.parquet", "d.jsonl"], draw.randint(1, 4)):
        own = [
            {
                "text": draw.choice([text, None]) if draw.random() < 0.2 else text,
                "n": draw.choice([None, 1, 2, 3]),
                "tag": draw.choice("abé"),
            }
            for text in texts(draw, number)
        ]
        data = "".join(json.dumps(one) + "\n" for one in own).encode()
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        if name.endswith("parquet"):
            pq.write_table(pa.Table.from_pylist(own), path, row_group_size=5)
        else:
            path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
        records[name], lines[name] = own, data.splitlines(keepends=True)
    assert score("chats", "--shard-rows", "4", "--max-error-rate", "1").exit_code in (0, 2)
    if not (tmp_path / "out" / "manifest.json").exists():
        return
    tests = {
        "p_safe.game >= 0.12": lambda cell, record: cell["p_safe"]["game"] >= 0.12,
        "reward.bank < 2.5": lambda cell, record: cell["reward"]["bank"] < 2.5,
        "n > 1": lambda cell, record: record["n"] is not None and record["n"] > 1,
        "record.tag in ('a', 'é')": lambda cell, record: record["tag"] in ("a", "é"),
        "row % 2 = 0": lambda cell, record: cell["row"] % 2 == 0,
        "source like 'x=%'": lambda cell, record: cell["source"].startswith("x="),
        "num_tokens > 5": lambda cell, record: cell["num_tokens"] > 5,
    }
    chosen = draw.sample(sorted(tests), draw.randint(1, 3))
    result = keep(" and ".join(chosen), "--json", "--rejected", tmp_path / "others")
    rows = scores(tmp_path / "out")
    expected = {"kept": 0, "rejected": 0, "errors": 0}
    kept = {}
    for name, own in records.items():
        for number, record in enumerate(own):
            [cell] = rows[name, number]
            fate = "errors" if cell["error"] else "kept" if all(tests[t](cell, record) for t in chosen) else "rejected"
            expected[fate] += 1
            if fate == "kept":
                kept.setdefault(name, []).append(number)
    assert counts(result) == {"records": sum(map(len, records.values())), **expected}
    found = {path for path in visible(tmp_path / "kept") if path.suffix != ".parquet"}
    by_source = {source: data for source, data in kept_lines(tmp_path / "kept").items() if not source.endswith("c")}
    assert by_source == {
        n.split(".")[0]: b"".join(lines[n][i] for i in own) for n, own in kept.items() if "parquet" not in n
    }
    rows_kept = [
        row
        for p in visible(tmp_path / "kept")
        if p not in found
        for row in pq.read_table(p, partitioning=None).to_pylist()
    ]
    assert rows_kept == [records["x=2/c.parquet"][i] for i in kept.get("x=2/c.parquet", [])]


def test_a_cell_that_was_never_scored_is_an_error(tmp_path, score, keep, policies):
    (tmp_path / "chats").mkdir()
    lines = [json.dumps({"text": text}) + "\n" for text in ("hello", "kill", "bank")]
    (tmp_path / "chats" / "a.jsonl").write_text("".join(lines))
    assert score("chats").exit_code == 0
    (tmp_path / "chats" / "b.jsonl").write_text("".join(lines[:2]))
    assert score("chats", "--explain", configurations=policies / "bank.yaml").exit_code == 0
    result = keep("p_safe.game >= 0.0", "--json", "--rejected", tmp_path / "others")
    assert counts(result) == {"records": 5, "kept": 3, "rejected": 0, "errors": 2}
    [others] = kept_lines(tmp_path / "others").values()
    assert [json.loads(line)["error"] for line in others.splitlines()] == ["not scored under game"] * 2
    for where, num_errors in (
        ("reward.game < 99", 2),
        ("p_safe.bank >= 0.0 and worst_clause.bank = 'weather'", 0),
        ("p_safe is not null", 2),
        ("num_tokens > 0", 0),
    ):
        told = counts(keep(where, "--sample", 1, "--json", output=None))
        assert told == {"records": 5, "kept": 5 - num_errors, "rejected": 0, "errors": num_errors}, where


def test_a_cell_without_its_worst_clause_is_an_error(tmp_path, score, keep, policies):
    (tmp_path / "chats").mkdir()
    for name in "ab":
        (tmp_path / "chats" / f"{name}.jsonl").write_text('{"text": "hello"}\n')
    assert score("chats").exit_code == 0
    assert score("chats/a.jsonl", "--explain", configurations=policies / "bank.yaml").exit_code == 0
    result = keep("worst_clause.bank = 'weather'", "--json", "--rejected", tmp_path / "others")
    assert counts(result) == {"records": 2, "kept": 1, "rejected": 0, "errors": 1}
    [other] = kept_lines(tmp_path / "others").values()
    assert json.loads(other)["error"] == "no worst clause under bank; score it with --explain"


def test_counts_are_shown_and_written_down(corpus, keep, tmp_path):
    output = keep("p_safe.game >= 0.12 and n < 30").stdout
    assert output.splitlines()[0].split() == ["condition", "removed", "it", "alone"]
    assert output.splitlines()[1].startswith("p_safe.game >= 0.12")
    manifest = json.loads((tmp_path / "kept" / ".csrm" / "filter.json").read_text())
    told = manifest["counts"]
    assert f"40 records = {told['kept']} kept + {told['rejected']} rejected + 2 errors" in output
    assert manifest["where"] == "p_safe.game >= 0.12 and n < 30"


def test_a_sample_shows_what_would_be_kept_and_writes_nothing(corpus, keep, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    told = json.loads(keep("p_safe.game >= 0.12", "--sample", 3, "--json", output=None).stdout)
    assert len(told["kept_examples"]) == len(told["rejected_examples"]) == 3
    assert told["kept"] + told["rejected"] + told["errors"] == told["records"] == 40
    assert told["shards"] == told["of_shards"] == 8
    again = keep("p_safe.game >= 0.12", "--sample", 3, "--json", output=None).stdout
    assert json.loads(again) == told
    shown = keep("p_safe.game >= 0.12", "--sample", 3, output=None).stdout
    assert shown.count("\nrejected ") == 3
    assert "fails p_safe.game >= 0.12" in shown
    assert "nothing is written" in shown
    assert sorted(tmp_path.rglob("*")) == before


def test_a_terminal_obeys_no_record(tmp_path, score, keep):
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"text": "hello \x1b]0;pwned\x07"}, ensure_ascii=False)
        .replace("\x1b", "\\u001b")
        .replace("\x07", "\\u0007")
        + "\n"
    )
    pq.write_table(pa.table({"text": ["hello \x1b[31m"]}), tmp_path / "b.parquet")
    for name in ("a.jsonl", "b.parquet"):
        assert score(name, output=tmp_path / f"{name}-out").exit_code == 0
        assert "\x1b" not in keep("true", "--sample", 1, output=None, matrix=tmp_path / f"{name}-out").stdout


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("p_safe.gam >= 0.5", "no configuration 'gam'; did you mean 'game'"),
        ("p_safe['gam'] >= 0.5", "no configuration 'gam'; did you mean 'game'"),
        ("struct_extract(p_safe, 'gam') >= 0.5", "no configuration 'gam'; did you mean 'game'"),
        ("p_safe['game'] >= 0.5 and record['n'] > 1", None),
        ("game >= 0.5", "names game, which is no column; did you mean 'p_safe.game'"),
        ("p_saf.game >= 0.5", "names p_saf, which is no column; did you mean 'p_safe'"),
        ("lng = 'en'", "names lng, which is no column; did you mean 'lang'"),
        ("record.lng = 'en'", "names record.lng, which the records have not; did you mean 'lang'"),
        ("record is null", "names record alone"),
        ("N > 1 and n < 3 and Row > 1", None),
        ("p_safe.game", "p_safe.game is a FLOAT, not a condition"),
        ("lower(p_safe) = 'x'", "--where fails"),
        ("(SELECT count(*) FROM '/etc/passwd') > 0", "has a query inside"),
        ("p_safe.game >", "cannot be read"),
        ("rowid = 1", "names rowid, which is no column"),
        ("csrm_rows.row = 1", "names csrm_rows, which is no column"),
        ("current_user = 'x'", "names current_user, which is no column"),
    ],
)
def test_a_wrong_condition_is_told_before_anything_runs(where, message, corpus, keep, tmp_path):
    result = keep(where, code=2 if message else 0)
    assert message is None or message in result.output
    assert message is None or not (tmp_path / "kept").exists()


def test_a_value_that_cannot_be_compared_ends_the_run_in_one_line(corpus, keep):
    assert "--where fails: Could not convert string 'en'" in keep("lang::int > 3", code=2).output


def test_a_value_of_another_kind_is_an_error_of_its_record(tmp_path, score, keep):
    values = [*range(1200), 1.5, "n/a", [1], True, None, 2**70]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": "hello", "n": value}) + "\n" for value in values))
    assert score("a.jsonl").exit_code == 0
    result = keep("n >= 1000", "--json", "--rejected", tmp_path / "others")
    assert counts(result) == {"records": 1206, "kept": 200, "rejected": 1002, "errors": 4}
    errors = [json.loads(line)["error"] for line in kept_lines(tmp_path / "others")["a"].splitlines()]
    assert "'n' is str, where other records have double" in errors


CHAT = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "bank"}]
PARTS = [{"role": "user", "content": [{"type": "text", "text": "hello"}]}, CHAT[1]]


def write_lines(path, records):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.mark.parametrize("is_apart", [False, True])
def test_nested_values_that_are_not_alike_are_no_column(is_apart, tmp_path, score, keep):
    alike = [{"messages": CHAT, "tags": ["a"], "n": 1, "more": {"a": 1}} for _ in range(5)]
    other = {"messages": PARTS, "tags": "a", "n": "1", "more": None}
    write_lines(tmp_path / "chats" / "a.jsonl", alike if is_apart else [*alike, other])
    if is_apart:
        write_lines(tmp_path / "chats" / "b.jsonl", [other])
    assert score("chats").exit_code == 0
    for where in ("len(messages) = 2", "len(record.messages) = 2", "n = 1 and len(tags) = 1", "TAGS is null"):
        told = keep(where, code=2).output
        name = "tags" if "tags" in where.lower() else "messages"
        assert f"names {name}, which is nested and not of one type in all records; " in told
        assert f"--keep-columns {name}" in told
    assert "column messages is nested and not of one type in all of them; use --format same" in (
        keep("p_safe.game >= 0.0", "--format", "parquet", code=2).output
    )
    assert counts(keep("n = '1' and (more.a = 1 or more is null)", "--json"))["kept"] == 6


def test_what_the_message_says_of_nested_values_is_so(tmp_path, score, keep):
    write_lines(tmp_path / "a.jsonl", [{"messages": CHAT}, {"messages": PARTS}])
    assert score("a.jsonl", "--keep-columns", "messages").exit_code == 0
    keep("json_extract_string(messages, '$[0].content') = 'hello'")
    [kept] = kept_lines(tmp_path / "kept").values()
    assert [json.loads(line)["messages"] for line in kept.splitlines()] == [CHAT]


def test_nested_values_among_others_past_the_first_are_errors(tmp_path, score, keep, monkeypatch):
    from jobs.filter import columns

    monkeypatch.setattr(columns, "_SAMPLED_ROWS", 2)
    records = [{"text": "hello", "tags": ["a"], "n": "a"}] * 2
    records += [{"text": "hello", "tags": "a", "n": ["a"]}]
    write_lines(tmp_path / "a.jsonl", records)
    assert score("a.jsonl").exit_code == 0
    for where, error in (
        ("len(tags) = 1", "'tags' is str, where other records have list<item: string>"),
        ("len(n) = 1", "'n' is list, where other records have string"),
    ):
        options = ["--json", "--overwrite", "--rejected", tmp_path / "others"]
        assert counts(keep(where, *options)) == {"records": 3, "kept": 2, "rejected": 0, "errors": 1}
        [others] = kept_lines(tmp_path / "others").values()
        assert json.loads(others)["error"] == error


def test_half_a_character_makes_no_text_of_a_list(tmp_path, score, keep):
    records = [{"messages": CHAT, "lang": "en"} for _ in range(3)]
    records += [{"messages": [CHAT[0] | {"content": "hello \ud800", "\udc00": 1}, CHAT[1]], "lang": "e\ud800"}]
    write_lines(tmp_path / "a.jsonl", records)
    assert score("a.jsonl").exit_code == 0
    assert counts(keep("len(messages) = 2 and lang like 'e_'", "--json"))["kept"] == 4
    told = counts(keep("messages[1].content = 'hello ?'", "--json", output="one"))
    assert told == {"records": 4, "kept": 1, "rejected": 3, "errors": 0}


def test_rows_of_other_types_are_compared_alike(tmp_path, score, keep):
    (tmp_path / "chats").mkdir()
    texts = ["2", "9", "10", "100"]
    for name, values in (("a", list(map(int, texts))), ("b", texts)):
        more = {"m": pa.array(values, pa.int64() if name == "a" else pa.string()), "f": [1, 2, 3, 4]}
        if name == "b":
            more["f"] = pa.array([1.5, 2.0, 3.0, 4.0])
        choice = pa.dictionary(pa.int8(), pa.string()) if name == "a" else pa.large_string()
        more |= {"lang": pa.array(texts, choice), "tags": pa.array([["a"]] * 4, pa.list_(choice))}
        pq.write_table(pa.table({"text": ["hello"] * 4, "n": values} | more), tmp_path / "chats" / f"{name}.parquet")
    assert score("chats").exit_code == 0
    for number, (where, num_kept) in enumerate(
        [
            ("n >= '10'", 8),
            ("n < '2'", 4),
            ("length(n) = 2", 2),
            ("record.n like '1%'", 4),
            ("m::int >= 10", 4),
            ("f = 2.0 and typeof(f) = 'DOUBLE'", 2),
            ("lang = '10' and len(tags) = 1", 2),
        ]
    ):
        told = counts(keep(where, "--json", output=f"kept{number}"))
        assert told == {"records": 8, "kept": num_kept, "rejected": 8 - num_kept, "errors": 0}, where


def test_rows_of_a_type_that_no_sample_has_are_cast_or_errors(tmp_path, score, keep, monkeypatch):
    from jobs.filter import columns

    monkeypatch.setattr(columns, "_SAMPLED_FILES", 1)
    (tmp_path / "chats").mkdir()
    first = {"n": pa.array([7], pa.int64()), "tags": [["a"]], "big": pa.array([1], pa.int8()), "lang": ["en"]}
    others = {
        "b": {
            "n": pa.array([7, 300], pa.int16()),
            "tags": pa.array([["a"], None]),
            "big": [1, 300],
            "lang": ["en", "de"],
        },
        "c": {"n": ["7", None], "tags": ["a", None], "big": [1.5, 1.0], "lang": pa.array([["en"], None])},
    }
    for name, table in {"a": first, **others}.items():
        number = len(table["n"])
        pq.write_table(pa.table({"text": ["hello"] * number} | table), tmp_path / "chats" / f"{name}.parquet")
    assert score("chats").exit_code == 0
    for where, kept, rejected, errors in (
        ("n = 7", 2, 2, ["'n' is str, where other records have int64"]),
        ("len(tags) = 1", 2, 2, ["'tags' is str, where other records have list<item: string>"]),
        (
            "big = 1",
            3,
            0,
            ["'big' is int, where other records have int8", "'big' is float, where other records have int8"],
        ),
        ("length(lang) = 2", 3, 1, ["'lang' is list, where other records have string"]),
    ):
        rejecting = ["--overwrite", "--rejected", tmp_path / "others"]
        told = counts(keep(where, "--json", *rejecting))
        assert told == {"records": 5, "kept": kept, "rejected": rejected, "errors": len(errors)}, where
        paths = visible(tmp_path / "others")
        rows = [row for path in paths for row in pq.read_table(path, partitioning=None).to_pylist()]
        assert [row["error"] for row in rows if row["error"]] == errors


def test_columns_of_the_records_are_reached_past_those_of_the_matrix(tmp_path, score, keep):
    lines = [json.dumps({"text": "hello", "row": 7 - n, "reward": n / 10, "record": {"x": n}}) + "\n" for n in range(8)]
    (tmp_path / "a.jsonl").write_text("".join(lines))
    assert score("a.jsonl").exit_code == 0
    keep("record.row > row and record.reward >= 0.2 and record.record.x < 9 and reward.game < 99")
    assert kept_lines(tmp_path / "kept")["a"] == "".join(lines[2:4]).encode()


def test_partition_folders_and_kept_columns_can_be_named(tmp_path, score, keep):
    for lang in ("en", "de"):
        (tmp_path / "chats" / f"lang={lang}").mkdir(parents=True)
        lines = "".join(json.dumps({"text": "hello", "user": user}) + "\n" for user in "abc")
        (tmp_path / "chats" / f"lang={lang}" / "a.jsonl").write_text(lines)
    assert score("chats", "--keep-columns", "user").exit_code == 0
    keep("lang = 'de' and user <> 'b'")
    assert kept_lines(tmp_path / "kept") == {
        "lang=de/a": b'{"text": "hello", "user": "a"}\n{"text": "hello", "user": "c"}\n'
    }


def test_the_same_command_again_does_nothing(own_corpus, keep, tmp_path):
    first = keep("n < 20 and p_safe.game > 0", "--json", "--rejected", tmp_path / "others")
    times = {path: path.stat().st_mtime_ns for folder in ("kept", "others") for path in visible(tmp_path / folder)}
    for path in (tmp_path / "chats").rglob("*.jsonl*"):
        path.unlink()  # nothing is read again
    again = keep("n < 20 and p_safe.game > 0", "--json", "--rejected", tmp_path / "others")
    assert json.loads(again.stdout) == json.loads(first.stdout)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert "everything was filtered already" in again.stderr


def test_what_is_missing_is_filtered_again_and_what_is_left_over_goes(corpus, keep, tmp_path):
    keep("n < 20", "--rejected", tmp_path / "others")
    before = {path: path.read_bytes() for folder in ("kept", "others") for path in visible(tmp_path / folder)}
    gone = visible(tmp_path / "kept")[0]
    gone.unlink()
    visible(tmp_path / "others")[-1].write_bytes(b"half")
    commits = sorted((tmp_path / "kept" / ".csrm" / "_csrm" / "commits").iterdir())
    commits[3].unlink()
    left = gone.with_name("a-0000000099-0123456789abcdef.jsonl")
    left.write_text("left by a kill\n")
    keep("n < 20", "--rejected", tmp_path / "others")
    assert {path: path.read_bytes() for folder in ("kept", "others") for path in visible(tmp_path / folder)} == before


def test_another_filter_is_refused_unless_it_replaces(corpus, keep, tmp_path):
    keep("n < 20")
    assert "holds records of another --where; choose another --output" in keep("n < 21", code=2).output
    assert "holds records of another --format" in keep("n < 20", "--format", "parquet", code=2).output
    keep("n < 3", "--overwrite")
    assert sum(data.count(b"\n") for data in kept_lines(tmp_path / "kept").values()) == 3
    others = tmp_path / "others"
    keep("n < 3", "--rejected", others, output="second")
    assert (
        "holds records of another filter; choose another --rejected"
        in keep("n < 3", "--rejected", others, output="third", code=2).output
    )


def test_scores_that_have_changed_are_another_filter(own_corpus, keep, score, tmp_path, policies):
    keep("p_safe.bank > 0.5")
    (tmp_path / "more").mkdir()
    for path in policies.iterdir():
        (tmp_path / "more" / path.name).write_text(path.read_text())
    (tmp_path / "more" / "new.yaml").write_text("id: new\nclauses:\n- {category: c, guideline: no hello}\n")
    assert score("chats", "--shard-rows", "7", "--max-error-rate", "1", configurations=tmp_path / "more").exit_code == 0
    keep("p_safe.bank > 0.5")  # a further configuration changes nothing that it looks at
    (tmp_path / "more" / "bank.yaml").write_text("id: bank\nclauses:\n- {category: c, guideline: no bank}\n")
    assert score("chats", "--shard-rows", "7", "--max-error-rate", "1", configurations=tmp_path / "more").exit_code == 0
    assert "holds records of other scores; choose" in keep("p_safe.bank > 0.5", code=2).output


def test_no_verdict_on_scores_that_change_meanwhile(own_corpus, keep, score, tmp_path, monkeypatch):
    from jobs.filter import pipeline as filter_pipeline

    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "bank.yaml").write_text("id: bank\nclauses:\n- {category: c, guideline: no hello}\n")

    def rescore():
        options = ["--shard-rows", "7", "--max-error-rate", "1"]
        assert score("chats", *options, configurations=tmp_path / "more").exit_code == 0

    def racing(tasks, job):
        outcomes = filter_in_process(tasks, job)
        yield next(outcomes)
        rescore()
        yield from outcomes

    monkeypatch.setattr(filter_pipeline, "filter_shards", racing)
    command = ["filter", str(tmp_path / "out"), "-w", "p_safe.bank >= 0.12", "-o", str(tmp_path / "kept")]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 1, result.output
    assert "was scored anew meanwhile; run again" in result.stderr
    assert "7 shards are missing" in result.stderr
    assert len(list((tmp_path / "kept" / ".csrm" / "_csrm" / "commits").iterdir())) == 1
    monkeypatch.setattr(filter_pipeline, "filter_shards", filter_in_process)
    assert "holds records of other scores" in keep("p_safe.bank >= 0.12", code=2).output
    keep("p_safe.bank >= 0.12", "--overwrite")
    keep("p_safe.bank >= 0.12", output="fresh")
    assert kept_lines(tmp_path / "kept") == kept_lines(tmp_path / "fresh")
    keep("p_safe.game >= 0.12", output="game")


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_shard_that_is_replaced_while_it_is_read_is_lost(is_gone, own_corpus, keep, tmp_path, monkeypatch):
    """Its record changes before its files do, and again after."""
    read = Matrix.read

    def racing(matrix, shard, columns=None):
        found = read(matrix, shard, columns)
        record = tmp_path / "out" / "_csrm" / "commits" / f"{shard['shard']}.json"
        told = json.loads(record.read_text())
        record.write_text(json.dumps(told | {"columns": told["columns"] | {"bank": None}, "next": {}}))
        if is_gone:
            record.unlink()
            raise InputError("a file is gone")
        return found

    monkeypatch.setattr(Matrix, "read", racing)
    assert "was scored anew meanwhile" in keep("p_safe.bank > 0.5", "--sample", 1, output=None, code=2).output
    if not is_gone:
        assert "is being scored; run csrm filter when that has ended" in keep("p_safe.bank > 0.5", code=2).output


def test_scores_that_no_condition_looks_at_may_change_meanwhile(own_corpus, keep, score, tmp_path, monkeypatch):
    from jobs.filter import run as filter_run

    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "bank.yaml").write_text("id: bank\nclauses:\n- {category: c, guideline: no hello}\n")
    standing = filter_run._standing

    def rescored(*arguments):
        options = ["--shard-rows", "7", "--max-error-rate", "1"]
        assert score("chats", *options, configurations=tmp_path / "more").exit_code == 0
        return standing(*arguments)

    monkeypatch.setattr(filter_run, "_standing", rescored)
    keep("p_safe.game >= 0.12")


def test_a_source_that_changed_is_refused(own_corpus, keep, tmp_path):
    path = tmp_path / "chats" / "date=2026-11-20" / "a.jsonl"
    path.write_bytes(path.read_bytes() + b"\n")
    assert f"{path} has changed or gone since it was scored; run csrm score again" in keep("n < 9", code=2).output
    path.unlink()
    assert "a.jsonl has changed or gone" in keep("n < 9", code=2).output
    assert not (tmp_path / "kept").exists()


def test_a_source_that_breaks_in_the_run_is_told_and_the_rest_is_kept(own_corpus, keep, tmp_path, monkeypatch):
    from jobs.filter import pipeline as filter_pipeline

    path = tmp_path / "chats" / "c.jsonl.zst"
    data, mark = path.read_bytes(), path.stat()

    def breaking(tasks, job):
        path.write_bytes(data[:-20])
        yield from filter_in_process(tasks, job)

    monkeypatch.setattr(filter_pipeline, "filter_shards", breaking)
    result = CliRunner().invoke(cli, ["filter", str(tmp_path / "out"), "-w", "n >= 0", "-o", str(tmp_path / "kept")])
    assert result.exit_code == 1
    assert "lost: rows 0 to 6 of c.jsonl.zst" in result.stderr
    assert "2 shards are missing, run again: c.jsonl.zst from row 0" in result.stderr
    assert not (tmp_path / "kept" / ".csrm" / "filter.json").exists()
    path.write_bytes(data)
    import os

    os.utime(path, ns=(mark.st_atime_ns, mark.st_mtime_ns))
    monkeypatch.setattr(filter_pipeline, "filter_shards", filter_in_process)
    keep("n >= 0")


@pytest.mark.parametrize("place", ["out/kept", "chats/kept", "out", "chats", "."])
def test_no_output_within_input_or_matrix(place, own_corpus, keep, tmp_path):
    assert "choose another --output" in keep("n < 9", output=place, code=2).output
    assert (
        "choose another --rejected" in keep("n < 9", "--rejected", tmp_path / place, output="new/kept", code=2).output
    )


def test_folders_of_others_are_left_alone(corpus, keep, tmp_path):
    (tmp_path / "kept").mkdir()
    mine = tmp_path / "kept" / "a-0000000000-0123456789abcdef.jsonl"
    mine.write_text("mine\n")
    assert "not written by csrm filter; choose another --output" in keep("n < 9", code=2).output
    assert "not written by csrm filter; choose another --output" in keep("n < 9", "--overwrite", code=2).output
    assert mine.read_text() == "mine\n"


def test_a_second_filter_is_refused(corpus, keep, tmp_path, monkeypatch):
    from jobs import lock
    from jobs.lock import Lock
    from jobs.storage import Folder

    monkeypatch.setattr(lock, "_place", lambda: "")
    with Lock(Folder(str(tmp_path / "kept" / ".csrm")), beat_s=0.1):
        assert "has been writing here since" in keep("n < 9", code=2).output
    keep("n < 9")


def test_nothing_visible_but_records_is_left(corpus, keep, tmp_path):
    """What a loader of training data takes from a folder: all that has no dot before it."""
    keep("n < 20", "--rejected", tmp_path / "others")
    for folder in (tmp_path / "kept", tmp_path / "others"):
        assert {path.name.partition(".")[2] for path in visible(folder)} <= {"jsonl", "jsonl.gz", "jsonl.zst"}


def test_what_is_kept_can_be_scored_again(corpus, keep, score, tmp_path):
    keep("n < 20")
    result = score("kept", output=tmp_path / "again")
    assert result.exit_code == 0, result.output


def test_no_output_is_a_mistake(corpus, keep):
    assert "give --output, or --sample N" in keep("n < 9", output=None, code=2).output


def test_the_example_of_the_help_runs(tmp_path, score, monkeypatch):
    (tmp_path / "policies").mkdir()
    for name in ("children_app", "legal"):
        (tmp_path / "policies" / f"{name}.yaml").write_text(
            f"id: {name}\nclauses:\n- {{category: c, guideline: no pin}}\n"
        )
    assert score("-", configurations=tmp_path / "policies", output=tmp_path / "runs" / "chats").exit_code == 0
    monkeypatch.chdir(tmp_path)
    import shlex

    shown = CliRunner().invoke(cli, ["filter", "-h"], terminal_width=200).output.split("Examples:")[1]
    examples = [line.strip() for line in shown.splitlines() if line.strip().startswith("csrm filter ")]
    assert len(examples) == 2
    for example in examples:
        result = CliRunner().invoke(cli, shlex.split(example)[1:])
        assert result.exit_code == 0, result.output
    assert Path("clean").is_dir()


def test_lines_become_parquet_of_one_schema(tmp_path, score, keep):
    """Also where a whole shard has nothing but nulls in a column."""
    folder = tmp_path / "chats" / "x=1"
    folder.mkdir(parents=True)
    records = [{"text": "hello", "n": number, "more": {"tags": ["é"]} if number > 8 else None} for number in range(12)]
    (folder / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    pq.write_table(pa.table({"text": ["hello"], "n": pa.array([3], pa.int8())}), folder / "b.parquet")
    assert score("chats", "--shard-rows", "4").exit_code == 0
    result = keep("n > 2", "--format", "parquet", "--json", "--rejected", tmp_path / "others")
    assert counts(result) == {"records": 13, "kept": 10, "rejected": 3, "errors": 0}
    *paths, last = visible(tmp_path / "kept")
    assert {path.suffix for path in paths} == {".parquet"}
    assert len({pq.read_schema(path) for path in paths}) == 1
    assert [row for path in paths for row in pq.read_table(path, partitioning=None).to_pylist()] == records[3:]
    assert pq.read_schema(last).field("n").type == pa.int8()
    [path] = visible(tmp_path / "others")
    assert pq.read_table(path, partitioning=None).to_pylist() == [
        {"reason": ["n > 2"], "error": None, "record": record} for record in records[:3]
    ]
