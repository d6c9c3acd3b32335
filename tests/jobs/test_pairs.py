"""From several scored responses per prompt to alignment data."""

import gzip
import json
import shlex

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from jobs.cli import cli
from jobs.matrix import Matrix

WORDS = ("hello", "kill", "bank", "weather", "pin", "the user", "a 1 2", "kill kill pin")
NUM_PROMPTS = 4


def records():
    """Six responses to each of four prompts, prompt by prompt, with helpfulness."""
    return [
        {
            "prompt": f"hello {prompt}",
            "response": f"{WORDS[(prompt + number) % len(WORDS)]} {number}",
            "prompt_id": f"p{prompt}",
            "helpfulness": round((number * 5 + prompt) % 11 / 10, 1),
        }
        for prompt in range(NUM_PROMPTS)
        for number in range(6)
    ]


def write_lines(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


@pytest.fixture
def scored(score, in_process, tmp_path):
    """Score records, spread over two files and several shards; keeps the columns named."""

    def run(lines=None, keep="prompt_id,helpfulness", **options):
        lines = records() if lines is None else lines
        write_lines(tmp_path / "in/a.jsonl", lines[::2])
        write_lines(tmp_path / "in/b.jsonl", lines[1::2])
        arguments = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
        arguments += ["--keep-columns", keep] if keep else []
        result = score("in", "--shard-rows", "5", "--max-error-rate", "1", *arguments)
        assert result.exit_code == 0, result.output
        return tmp_path / "out"

    return run


@pytest.fixture
def pairs(tmp_path):
    """Run `csrm pairs` on the matrix in `tmp_path / "out"`."""

    def run(*arguments, output="pairs.jsonl", configuration="bank", matrix=tmp_path / "out", group_by="prompt_id"):
        location = output if "://" in output else str(tmp_path / output)
        required = ["--group-by", group_by, "-c", configuration, "-o", location]
        return CliRunner().invoke(cli, ["pairs", str(matrix), *required, *arguments])

    return run


def done(result):
    assert result.exit_code == 0, result.output
    return result


def one_line(result):
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    [line] = result.stderr.strip().splitlines()
    return line


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def scores_of(matrix, configuration="bank"):
    """p_safe by record id."""
    opened = Matrix.open(str(matrix))
    tables = [opened.read(shard) for shard in opened.shards]
    rows = [row for table in tables for row in table.to_pylist()]
    return {row["record_id"]: row["p_safe"][configuration] for row in rows}


def by_record_id(lines):
    """Records under the ids that the matrix gives them."""
    return {
        f"{name}:{row}": line
        for name, part in (("a.jsonl", 0), ("b.jsonl", 1))
        for row, line in enumerate(lines[part::2])
    }


def expected_pairs(matrix, lines, threshold=0.5, rated=True):
    """The slow, obvious way: best complying response against the worst."""
    p_safe, found = scores_of(matrix), []
    own = by_record_id(lines)
    for prompt_id in sorted({line["prompt_id"] for line in lines}):
        ids = sorted(
            (id for id, line in own.items() if line["prompt_id"] == prompt_id),
            key=lambda id: (-p_safe[id] * (own[id]["helpfulness"] if rated else 1), id),
        )
        chosen = [id for id in ids if p_safe[id] >= threshold]
        if chosen and chosen[0] != ids[-1]:
            found.append((prompt_id, own[chosen[0]]["response"], own[ids[-1]]["response"]))
    return found


def told(rows):
    return [(row["prompt_id"], row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows]


def test_best_complying_response_against_the_worst_of_each_prompt(scored, pairs, tmp_path):
    matrix = scored()
    done(pairs("--helpfulness", "helpfulness"))
    rows = lines_of(tmp_path / "pairs.jsonl")
    assert told(rows) == expected_pairs(matrix, records())
    assert len(rows) >= 3
    own, p_safe = by_record_id(records()), scores_of(matrix)
    for row in rows:
        chosen, rejected = row["chosen_id"], row["rejected_id"]
        assert row["prompt"] == [{"role": "user", "content": own[chosen]["prompt"]}]
        assert row["chosen"] == [{"role": "assistant", "content": own[chosen]["response"]}]
        assert row["chosen_p_safe"] == p_safe[chosen] >= 0.5
        assert row["chosen_score"] == p_safe[chosen] * own[chosen]["helpfulness"]
        assert row["rejected_helpfulness"] == own[rejected]["helpfulness"]
        assert row["margin"] == row["chosen_score"] - row["rejected_score"] > 0
        assert row["num_responses"] == 6


def test_without_helpfulness_p_safe_alone_ranks(scored, pairs, tmp_path):
    matrix = scored()
    result = done(pairs("--json"))
    rows = lines_of(tmp_path / "pairs.jsonl")
    assert told(rows) == expected_pairs(matrix, records(), rated=False)
    assert "chosen_helpfulness" not in rows[0]
    assert json.loads(result.stdout)["quality"]["all"]["cosa_score"] is None


def test_columns_that_were_not_kept_are_found_in_the_input(scored, pairs, tmp_path):
    scored(keep="")
    done(pairs("--helpfulness", "helpfulness"))
    from_input = (tmp_path / "pairs.jsonl").read_bytes()
    scored(keep="prompt_id,helpfulness", output=str(tmp_path / "kept"))
    done(pairs("--helpfulness", "helpfulness", matrix=tmp_path / "kept", output="kept.jsonl"))
    assert (tmp_path / "kept.jsonl").read_bytes() == from_input
    by_prompt = {"matrix": tmp_path / "kept", "group_by": "prompt", "output": "prompt.jsonl"}
    done(pairs("--helpfulness", "helpfulness", **by_prompt))
    assert told(lines_of(tmp_path / "prompt.jsonl")) == [
        (f"hello {prompt_id[1:]}", *texts) for prompt_id, *texts in told(lines_of(tmp_path / "kept.jsonl"))
    ]


@pytest.mark.parametrize("suffix", ["jsonl.gz", "parquet"])
def test_every_format_of_the_input_gives_the_same(score, in_process, pairs, tmp_path, suffix):
    lines = records()
    plain, other = tmp_path / "plain/a.jsonl", tmp_path / f"other/a.{suffix}"
    write_lines(plain, lines)
    other.parent.mkdir()
    if suffix == "parquet":
        import pyarrow as pa

        pq.write_table(pa.Table.from_pylist(lines), other, row_group_size=7)
    else:
        other.write_bytes(gzip.compress(plain.read_bytes()))
    found = []
    for folder in ("plain", "other"):
        done(score(folder, "--shard-rows", "5", output=tmp_path / f"{folder}-out"))
        done(pairs("--helpfulness", "helpfulness", "--top-k", "2", matrix=tmp_path / f"{folder}-out"))
        found.append((tmp_path / "pairs.jsonl").read_text().replace(other.name, plain.name))
    assert found[0] == found[1]
    assert len(found[0].splitlines()) > 4


def test_a_compressed_file_is_read_once_for_all_texts(score, in_process, pairs, tmp_path, monkeypatch):
    from jobs.pairs import responses

    (tmp_path / "in").mkdir()
    with gzip.open(tmp_path / "in/a.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(line) + "\n" for line in records())
    done(score("in", "--shard-rows", "5", "--keep-columns", "prompt_id"))
    passes = []
    real = responses.read_pass
    monkeypatch.setattr(responses, "read_pass", lambda shards, job: passes.append(len(shards)) or real(shards, job))
    done(pairs())
    assert len(passes) == 1
    assert passes[0] > 1


def test_top_k_pairs_and_the_margin(scored, pairs, tmp_path):
    scored()
    done(pairs("--helpfulness", "helpfulness", "--top-k", "3", "--allow-violations"))
    rows = lines_of(tmp_path / "pairs.jsonl")
    assert len(rows) == 3 * NUM_PROMPTS
    for prompt in range(NUM_PROMPTS):
        own = [row for row in rows if row["prompt_id"] == f"p{prompt}"]
        assert len({row[side] for row in own for side in ("chosen_id", "rejected_id")}) == 6
        margins = [row["margin"] for row in own]
        assert margins == sorted(margins, reverse=True)
    least = sorted(row["margin"] for row in rows)[4]
    options = ("--helpfulness", "helpfulness", "--top-k", "3", "--allow-violations", "--json")
    counts = json.loads(done(pairs("--min-margin", repr(least), *options)).stdout)["counts"]
    assert lines_of(tmp_path / "pairs.jsonl") == [row for row in rows if row["margin"] >= least]
    assert counts["near_ties"] == 4
    assert counts["written"] == len(rows) - 4


def test_best_of_n(scored, pairs, tmp_path):
    matrix = scored()
    done(pairs("--as", "best-of-n", "--helpfulness", "helpfulness", "--allow-violations"))
    rows = lines_of(tmp_path / "pairs.jsonl")
    p_safe, own = scores_of(matrix), by_record_id(records())
    for row, prompt in zip(rows, range(NUM_PROMPTS), strict=True):
        scores = [p_safe[id] * line["helpfulness"] for id, line in own.items() if line["prompt_id"] == f"p{prompt}"]
        assert row["score"] == max(scores)
        assert row["prompt"] == [{"role": "user", "content": f"hello {prompt}"}]
        assert row["completion"] == [{"role": "assistant", "content": own[row["record_id"]]["response"]}]
        assert "margin" not in row
    assert "--min-margin is of pairs" in one_line(pairs("--as", "best-of-n", "--min-margin", "0.1"))


def test_cosa_score_of_all_and_of_what_is_written(scored, pairs, tmp_path):
    matrix = scored()
    found = json.loads(done(pairs("--helpfulness", "helpfulness", "--json")).stdout)
    p_safe, own = scores_of(matrix), by_record_id(records())

    def cosa(ids):
        return sum(own[id]["helpfulness"] * (1 if p_safe[id] >= 0.5 else -1) for id in ids) / len(ids)

    rows = lines_of(tmp_path / "pairs.jsonl")
    assert found["quality"]["all"]["num_responses"] == 24
    assert found["quality"]["all"]["cosa_score"] == pytest.approx(cosa([*own]), abs=1e-6)
    for side in ("chosen", "rejected"):
        ids = [row[f"{side}_id"] for row in rows]
        assert found["quality"][side]["cosa_score"] == pytest.approx(cosa(ids), abs=1e-6)
    assert found["quality"]["chosen"]["compliance_rate"] == 1
    shown = done(pairs("--helpfulness", "helpfulness")).stdout.splitlines()
    assert shown[0].split() == ["responses", "number", "comply", "mean", "p_safe", "helpfulness", "CoSA-Score"]
    assert shown[1].split()[-1] == f"{cosa([*own]):.3f}"


def test_the_threshold_is_the_configurations(score, in_process, pairs, policies, tmp_path):
    for name in ("game", "bank"):
        text = (policies / f"{name}.yaml").read_text()
        (tmp_path / "strict").mkdir(exist_ok=True)
        (tmp_path / f"strict/{name}.yaml").write_text(f"threshold: 0.9999\n{text}")
    write_lines(tmp_path / "in/a.jsonl", records())
    done(score("in", "--keep-columns", "prompt_id", configurations=tmp_path / "strict"))
    assert "4 without a complying response above another" in one_line(pairs())
    assert not (tmp_path / "pairs.jsonl").exists()
    done(pairs("--allow-violations"))


def test_what_cannot_be_ranked_is_counted(scored, pairs, tmp_path):
    lines = [
        *records(),
        {"prompt": "hello 0", "response": 7, "prompt_id": "p0", "helpfulness": 1},
        {"prompt": "hello 0", "response": "hello", "helpfulness": 1},
        {"prompt": "hello 0", "response": "hello", "prompt_id": "p0", "helpfulness": None},
        {"prompt": "hello 9", "response": "hello", "prompt_id": "p9", "helpfulness": 1},
    ]
    scored(lines)
    result = done(pairs("--helpfulness", "helpfulness", "--json"))
    counts = json.loads(result.stdout)["counts"]
    assert counts["responses"] == 28
    assert (counts["without_score"], counts["without_prompt"], counts["without_helpfulness"]) == (1, 1, 1)
    assert (counts["prompts"], counts["single_response"]) == (5, 1)
    assert told(lines_of(tmp_path / "pairs.jsonl")) == expected_pairs(tmp_path / "out", records())
    shown = done(pairs("--helpfulness", "helpfulness")).stdout
    assert "28 responses to 5 prompts · 1 responses without score · 1 without a value to group by" in shown


def test_texts_that_make_no_pair_are_dropped(scored, pairs, tmp_path):
    def group(name, *responses):
        return [{"prompt_id": name, "helpfulness": 1 - 0.5 * n, **fields} for n, fields in enumerate(responses)]

    lines = [
        *group("same", {"prompt": "a", "response": "hello"}, {"prompt": "a", "response": "hello"}),
        *group("other", {"prompt": "a", "response": "hello 1"}, {"prompt": "the", "response": "hello 2"}),
        *group("alone", {"text": "hello 1"}, {"text": "hello 2"}),
        *group("first", *({"messages": [{"role": "assistant", "content": f"hello {n}"}]} for n in range(2))),
        *group("good", {"prompt": "a", "response": "hello 1"}, {"prompt": "a", "response": "hello 2"}),
    ]
    scored(lines)
    options = ("--helpfulness", "helpfulness", "--allow-violations", "--json")
    found = json.loads(done(pairs(*options)).stdout)
    assert [row["prompt_id"] for row in lines_of(tmp_path / "pairs.jsonl")] == ["good"]
    reasons = ("same_text", "other_prompt", "no_reply", "near_ties", "written")
    assert [found["counts"][reason] for reason in reasons] == [1, 1, 2, 0, 1]
    assert found["quality"]["chosen"]["num_responses"] == 1
    done(pairs(*options, "--as", "best-of-n"))
    assert [row["prompt_id"] for row in lines_of(tmp_path / "pairs.jsonl")] == ["good", "other", "same"]


def test_ties_make_no_pair_and_go_by_record_id(scored, pairs, tmp_path):
    lines = [{"prompt": "a", "response": "hello", "prompt_id": "p", "id": name} for name in ("z", "b", "m")]
    scored(lines, keep="prompt_id", id_column="id")
    assert "1 pairs below the margin" in one_line(pairs("--allow-violations"))
    done(pairs("--allow-violations", "--as", "best-of-n"))
    [row] = lines_of(tmp_path / "pairs.jsonl")
    assert row["record_id"] == "b"


def test_both_rows_of_a_preference_pair_are_responses(scored, pairs, tmp_path):
    talk = [{"role": "user", "content": "hello"}]
    lines = [
        {"prompt": talk, "chosen": "weather 1", "rejected": "kill kill pin", "prompt_id": "p"},
        {"prompt": talk, "chosen": "bank", "rejected": "kill", "prompt_id": "p"},
    ]
    matrix = scored(lines, keep="prompt_id")
    done(pairs("--allow-violations", "--top-k", "2"))
    rows = lines_of(tmp_path / "pairs.jsonl")
    p_safe = scores_of(matrix)
    ranked = sorted(p_safe, key=p_safe.get, reverse=True)
    assert [(row["chosen_id"], row["rejected_id"]) for row in rows] == [(ranked[0], ranked[3]), (ranked[1], ranked[2])]
    texts = {"a.jsonl:0": lines[0], "b.jsonl:0": lines[1]}
    for row in rows:
        for side in ("chosen", "rejected"):
            record, _, part = row[f"{side}_id"].rpartition("/")
            assert row[side][0]["content"] == texts[record][part]


def test_a_column_with_the_name_of_the_matrixs_own_is_refused(scored, pairs):
    scored([{**record, "source": "web"} for record in records()])
    assert "no column 'source', nor in its input" in one_line(pairs(group_by="source"))


def test_a_folder_of_the_matrix_may_name_the_prompt(score, in_process, pairs, tmp_path):
    write_lines(tmp_path / "in/a.jsonl", [*records(), {"prompt": "a", "response": "hello"}])
    done(score("in", "--partition-by", "prompt_id", "--keep-columns", "helpfulness"))
    found = json.loads(done(pairs("--helpfulness", "helpfulness", "--json")).stdout)
    assert found["counts"]["prompts"] == NUM_PROMPTS
    assert found["counts"]["without_prompt"] == 1
    rows = lines_of(tmp_path / "pairs.jsonl")
    assert {row["prompt_id"][0] for row in rows} == {"p"}
    assert all(row["prompt"][0]["content"] == f"hello {row['prompt_id'][1:]}" for row in rows)


@pytest.mark.parametrize(
    ("settings", "arguments", "message"),
    [
        ({"group_by": "promt_id"}, [], "no column 'promt_id', nor in its input; did you mean 'prompt_id'"),
        ({"group_by": "reward"}, [], "no column 'reward', nor in its input"),
        ({"group_by": "worst_clause"}, [], "no column 'worst_clause'"),
        ({}, ["--helpfulness", "usefulness"], "no column 'usefulness', nor in its input; did you mean 'helpfulness'?"),
        ({}, ["--helpfulness", ""], "no column ''"),
        ({}, ["--helpfulness", "prompt_id"], "prompt_id is 'p0', not a number between 0 and 1"),
        ({"configuration": "gaem"}, [], "no configuration 'gaem'; did you mean 'game'?"),
        ({"configuration": "x"}, [], "no configuration 'x'; there are bank, game"),
        ({"output": "pairs.csv"}, [], "pairs.csv: name it .jsonl or .parquet"),
        ({"output": "s3://key:secret@bucket/pairs.jsonl"}, [], "s3://***: a URL with keys"),
        ({}, ["--top-k", "0"], "--top-k"),
        ({}, ["--min-margin", "2"], "--min-margin"),
        ({"matrix": "nowhere"}, [], "nowhere: no finished matrix here"),
    ],
)
def test_mistakes_end_in_one_line(scored, pairs, tmp_path, settings, arguments, message):
    scored()
    assert message in one_line(pairs(*arguments, **settings))
    assert not (tmp_path / "pairs.jsonl").exists()


@pytest.mark.parametrize(
    ("value", "message"), [(1.5, "is 1.5; it must lie"), (-0.1, "is -0.1; it must"), ("inf", "inf")]
)
def test_helpfulness_outside_its_range_is_refused(scored, pairs, value, message):
    lines = records()
    lines[7]["helpfulness"] = value
    scored(lines)
    assert message in (line := one_line(pairs("--helpfulness", "helpfulness")))
    assert "b.jsonl:3: helpfulness" in line


def test_an_input_that_is_not_what_was_scored_is_refused(scored, pairs, tmp_path):
    scored()
    path = tmp_path / "in/a.jsonl"
    path.write_text(path.read_text() + "\n")
    assert "a.jsonl: changed since it was listed or scored; run csrm score again" in one_line(pairs())
    path.unlink()
    assert "a.jsonl: no such file" in one_line(pairs())
    assert [entry.name for entry in tmp_path.iterdir() if "pairs" in entry.name] == []


def test_a_file_that_cannot_be_finished_leaves_the_old_one(scored, pairs, tmp_path, monkeypatch):
    scored()
    output = tmp_path / "pairs.jsonl"
    output.write_text("old")
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda file: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        assert "pairs.jsonl: no space left" in one_line(pairs())
    assert output.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir() if "pairs" in entry.name] == ["pairs.jsonl"]
    done(pairs())
    assert lines_of(output)


def test_parquet_holds_the_same_rows(scored, pairs, tmp_path):
    scored()
    for form in ("pairs", "best-of-n"):
        for output in ("pairs.jsonl", "pairs.parquet"):
            done(pairs("--helpfulness", "helpfulness", "--as", form, output=output))
        assert pq.read_table(tmp_path / "pairs.parquet").to_pylist() == lines_of(tmp_path / "pairs.jsonl")


def test_s3(score, in_process, pairs, server, connect, tmp_path):
    import s3fs

    filesystem = s3fs.S3FileSystem()
    name = f"pairs-{server.__class__.__name__}"
    filesystem.pipe_file(f"bucket/{name}/in/a.jsonl", "".join(json.dumps(r) + "\n" for r in records()).encode())
    done(score(f"s3://bucket/{name}/in", "--shard-rows", "7", output=f"s3://bucket/{name}/out"))
    done(pairs("--top-k", "2", matrix=f"s3://bucket/{name}/out", output=f"s3://bucket/{name}/pairs.jsonl"))
    write_lines(tmp_path / "in/a.jsonl", records())
    done(score("in"))
    done(pairs("--top-k", "2"))
    assert filesystem.cat_file(f"bucket/{name}/pairs.jsonl") == (tmp_path / "pairs.jsonl").read_bytes()
    message = one_line(pairs(matrix=f"s3://bucket/{name}/out", output="s3://nobucket/pairs.jsonl"))
    assert "no such bucket" in message


def test_the_examples_of_the_help_run(scored, tmp_path, monkeypatch, policies):
    scored()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/samples").symlink_to(tmp_path / "out")
    shown = CliRunner().invoke(cli, ["pairs", "-h"]).stdout
    examples = [line.strip() for line in shown.splitlines() if line.strip().startswith("csrm pairs runs/")]
    assert len(examples) == 3
    for example in examples:
        done(CliRunner().invoke(cli, shlex.split(example.replace("game_studio", "bank"))[1:]))
    assert {path.name for path in tmp_path.glob("*.*")} >= {"pairs.jsonl", "pairs.parquet", "best.jsonl"}
