"""`csrm rules`: from pairs of replies to a matrix of ratings, labels by the rules that matter, and an adapter."""

import contextlib
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from labelled_files import single, write_lines

import csrm
from csrm.labelled import read_preferences
from csrm.rule_adapter import critical
from csrm.rule_selection import label_pairs, ratings, request_relevance
from csrm.rules import NEUTRAL, load_rules, request
from jobs.cli import cli
from jobs.matrix import Matrix
from jobs.rules.labels import Origin

POOL = """
id: pool
clauses:
- {category: Violence, guideline: do not kill}
- {category: Secrets, guideline: never ask for a pin}
- {category: Weather, guideline: do not talk of the weather}
- {category: Weather, guideline: the bank}
"""
# Ray Data warns of its own old settings whenever a dataset is made.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")

REPLIES = ("hello", "kill", "the weather 1", "a pin", "the bank 2", "kill the user", "weather weather", "0 1 2 3")


def records():
    """Pairs of replies, in several shapes, and records that hold none."""
    pairs = [
        {
            "id": f"p{n}",
            "topic": ("bank", "weather")[n % 2],
            "messages": [{"role": "user", "content": f"hello {('bank', 'weather')[n % 2]} {n % 7}"}],
            "chosen": REPLIES[n % 8],
            "rejected": REPLIES[(n * 3 + 1) % 8],
        }
        for n in range(40)
    ]
    say = {role: lambda text, role=role: {"role": role, "content": text} for role in ("user", "assistant")}
    odd = [
        {"id": "trl", "prompt": [say["user"]("a pin")], "chosen": [say["assistant"]("hello")], "rejected": "kill"},
        {"id": "equal", "prompt": "hello", "chosen": "kill", "rejected": "kill"},
        {"id": "single", "text": "hello"},
        {"id": "broken", "chosen": 3, "rejected": "kill"},
        {"id": "apart", "chosen": [say["user"]("1"), say["assistant"]("2")], "rejected": "Human: 2\n\nAssistant: 2"},
    ]
    return [*pairs, *odd]


@pytest.fixture
def rules(tmp_path, model_folder, monkeypatch):
    """Run `csrm rules` in a folder with pairs and a pool, without Ray; `*` stands for the model."""
    from in_process import write_in_process

    monkeypatch.chdir(tmp_path)
    write_lines(tmp_path / "pairs.jsonl", records())
    (tmp_path / "pool.yaml").write_text(POOL)

    def run(line, *, is_local=True, group=("rules",)):
        from jobs import pipeline
        from jobs.rules import pipeline as rules_pipeline

        with monkeypatch.context() as patched:
            if is_local:
                patched.setattr(pipeline, "cluster", contextlib.nullcontext)
                patched.setattr(pipeline, "score_shards", write_in_process)
                patched.setattr(rules_pipeline, "label_shards", label_in_process)
            arguments = [str(model_folder) if part == "*" else part for part in shlex.split(line)]
            return CliRunner().invoke(cli, [*group, *arguments])

    return run


def label_in_process(tasks, job):
    """Stands in for the pipeline: the same worker, here."""
    from jobs.rules.pipeline import from_row, passes
    from jobs.rules.worker import Labeller

    for labelled in Labeller(job)(pa.table({"tasks": passes(tasks)})):
        [row] = labelled.to_pylist()
        yield from_row(row)


RATE = "rate pairs.jsonl --rules pool.yaml -o rated -m * --id-column id --keep-columns topic --max-error-rate 1"


@pytest.fixture
def rated(rules):
    """The pairs, rated on the pool in several shards."""
    result = rules(f"{RATE} --shard-rows 7")
    assert result.exit_code == 0, result.output
    return Matrix.open("rated")


def labels(result, name="labels.parquet"):
    assert result.exit_code == 0, result.output
    return pq.read_table(name).to_pylist()


def test_rating_is_scoring_with_a_column_for_each_rule(rated, rules, model_folder):
    assert [one.id for one in rated.configurations] == ["violence", "secrets", "weather", "weather_2"]
    line = RATE.replace("rate pairs", "score --by-clause pairs").replace("--rules", "-c").replace("rated", "scored")
    scored = rules(f"{line} --shard-rows 7", group=())
    assert scored.exit_code == 0, scored.output
    for shard, other in zip(rated.shards, Matrix.open("scored").shards, strict=True):
        assert rated.read(shard).equals(Matrix.open("scored").read(other))
    table = pa.concat_tables(rated.read(shard) for shard in rated.shards)
    of_p0 = table.filter(pa.compute.equal(table["record_id"], "p0/chosen")).to_pylist()[0]["p_safe"]
    alone = csrm.CSRM.from_pretrained(model_folder).score(
        [[*records()[0]["messages"], {"role": "assistant", "content": "hello"}]], load_rules("pool.yaml")
    )
    assert of_p0 == pytest.approx(dict(zip(alone.configuration_ids, alone.p_safe[0].tolist(), strict=True)), abs=1e-6)


def test_rating_again_adds_the_columns_of_further_rules_alone(rated, rules):
    Path("pool.yaml").write_text(re.sub("(?m)^- .*bank.*$", "- {category: Numbers, guideline: 0 1 2}", POOL))
    result = rules(RATE)
    assert result.exit_code == 0, result.output
    assert "weather_2" in result.output, "columns of other rules stay"
    ids = {one.id for one in Matrix.open("rated").configurations}
    assert ids == {"violence", "secrets", "weather", "weather_2", "numbers"}


def test_labels_are_those_of_the_library(rated, rules, model_folder):
    found = labels(rules("select rated -o labels.parquet --top-k 2"))
    model, pool = csrm.CSRM.from_pretrained(model_folder), load_rules("pool.yaml")
    pairs = whole_pairs()
    replies = [reply for pair in pairs for reply in pair.replies()]
    rated_RK = ratings(model.score(replies, pool).p_safe)
    related_PK = request_relevance(
        model.score([request(pair.replies()[0]) for pair in pairs], pool).reward,
        model.score(NEUTRAL, pool).reward.mean(axis=0),
    )
    expected = label_pairs(rated_RK[::2], rated_RK[1::2], related_PK, num_rules=2)
    assert len(found) == (expected.label_P != 0).sum() > 20
    numbers = [pair.id for pair in pairs]
    for row in found:
        place = numbers.index(row["pair_id"])
        assert row["is_first_chosen"] == (expected.label_P[place] > 0)
        texts = [row["chosen"][0]["content"], row["rejected"][0]["content"]]
        assert texts[:: 1 if row["is_first_chosen"] else -1] == [pairs[place].chosen, pairs[place].rejected]
        assert [one["content"] for one in row["prompt"]] == [one.content for one in pairs[place].conversation]
        assert row["margin"] == pytest.approx(abs(expected.margin_P[place]), abs=1e-5)
        assert [one["rule"] for one in row["rules"]] == [pool[rule].id for rule in expected.chosen_Pk[place]]
        sums = [sum(one[side] for one in row["rules"]) for side in ("chosen", "rejected")]
        assert sums[0] - sums[1] == pytest.approx(row["margin"], abs=1e-5)
        assert row["topic"] == (None if place == 40 else records()[place]["topic"])


def whole_pairs():
    """Pairs of the records that hold two different replies to one history, and one of equal ones."""
    from csrm.labelled import PreferenceRow, as_pair

    found = []
    for record in records()[:42]:
        history, first, second = as_pair(record)
        found.append(PreferenceRow(id=record["id"], conversation=history, chosen=first, rejected=second))
    return found


def test_rules_that_left_the_pool_have_no_vote_and_no_text_has_two(rated, rules):
    one_less = POOL.replace("- {category: Weather, guideline: do not talk of the weather}\n", "")
    Path("pool.yaml").write_text(one_less)
    assert rules(RATE).exit_code == 0  # the last rule is `weather` now, and there is `weather_2` of the same text
    assert {one.id for one in Matrix.open("rated").configurations} == {"violence", "secrets", "weather", "weather_2"}
    found = labels(rules("select rated -o labels.parquet --top-k 3"))
    assert {rule["rule"] for row in found for rule in row["rules"]} == {"violence", "secrets", "weather"}
    Path("two.yaml").write_text(one_less.replace("- {category: Weather, guideline: the bank}\n", ""))
    found = labels(rules("select rated -o labels.parquet --top-k 2 --rules two.yaml"))
    assert {rule["rule"] for row in found for rule in row["rules"]} == {"violence", "secrets"}


def test_files_may_lie_in_partition_folders_or_not(rules):
    for name, part in (("b.jsonl", slice(0, 20)), ("lang=en/a.jsonl", slice(20, 40))):
        Path("in", name).parent.mkdir(parents=True, exist_ok=True)
        write_lines(Path("in", name), records()[part])
    assert rules(RATE.replace("pairs.jsonl", "in")).exit_code == 0
    found = labels(rules("select rated -o labels.parquet --top-k 2"))
    without = {f"p{n}" for n in range(20)}
    assert {(row["pair_id"] in without, row["lang"]) for row in found} == {(True, None), (False, "en")}


def test_pairs_without_a_prompt_are_labelled_and_trained_on(rules):
    pairs = [{"id": f"n{n}", "chosen": text, "rejected": f"{text} 1"} for n, text in enumerate(REPLIES)]
    write_lines(Path("pairs.jsonl"), pairs)
    assert rules(RATE.replace(" --keep-columns topic", "")).exit_code == 0
    found = labels(rules("select rated -o labels.parquet --top-k 2"))
    assert {len(row["prompt"]) for row in found} == {0}
    assert [row.chosen for row in read_preferences("labels.parquet")] == [row["chosen"][0]["content"] for row in found]


def test_swapped_replies_get_the_same_reply_chosen_by_the_same_rules(rated, rules):
    swapped = [
        record | {"chosen": record["rejected"], "rejected": record["chosen"]} if "rejected" in record else record
        for record in records()
    ]
    before = labels(rules("select rated -o labels.parquet --top-k 3"))
    write_lines(Path("swapped.jsonl"), swapped)
    assert rules(RATE.replace("pairs.jsonl", "swapped.jsonl").replace("rated", "again")).exit_code == 0
    after = labels(rules("select again -o again.parquet --top-k 3"), "again.parquet")
    assert [row["pair_id"] for row in before] == [row["pair_id"] for row in after]
    for one, other in zip(before, after, strict=True):
        assert (one["chosen"], one["rejected"]) == (other["chosen"], other["rejected"])
        assert one["is_first_chosen"] != other["is_first_chosen"]
        assert [rule["rule"] for rule in one["rules"]] == [rule["rule"] for rule in other["rules"]]


def test_all_records_are_accounted_for(rated, rules):
    total = len(whole_pairs())
    counts = json.loads(rules("select rated -o labels.parquet --json --top-k 3").output)
    assert counts["pairs"] + counts["undecided"] == total
    assert counts["no_pair"] == 3, "single, broken and apart"
    assert counts["undecided"] == sum(pair.chosen == pair.rejected for pair in whole_pairs())
    margin = sorted(row["margin"] for row in pq.read_table("labels.parquet").to_pylist())[total // 2]
    fewer = json.loads(rules(f"select rated -o sure.parquet --json --top-k 3 --min-margin {margin}").output)
    sure = pq.read_table("sure.parquet").to_pylist()
    assert fewer["pairs"] == len(sure) < counts["pairs"]
    assert fewer["pairs"] + fewer["undecided"] == total
    assert min(row["margin"] for row in sure) >= margin


def test_labels_train_a_model_as_they_are(rated, rules, tmp_path, running_cluster):
    found = labels(rules("select rated -o labels.parquet --top-k 3"))
    read = read_preferences("labels.parquet")
    assert [row.chosen for row in read] == [row["chosen"][0]["content"] for row in found]
    write_lines(tmp_path / "rows.jsonl", single())
    result = rules(
        "train --data rows.jsonl --preferences labels.parquet --backbone * --output trained --steps 2 --batch-rows 4 "
        "--batch-preferences 4 --no-contrasts --max-tokens 300 --dtype float32 --num-extra-clauses 0",
        is_local=False,
        group=(),
    )
    assert result.exit_code == 0, result.output
    assert f"{len(found):,} preference pairs" in result.output
    assert json.loads((tmp_path / "trained/train.json").read_text())["last"]["preference"] > 0


@pytest.fixture(scope="module")
def adapter(tmp_path_factory, model_folder, running_cluster):
    """An adapter after a few steps on Ray Train, and the labels that it learned from."""
    folder = tmp_path_factory.mktemp("adapter")
    write_lines(folder / "pairs.jsonl", records())
    (folder / "pool.yaml").write_text(POOL)
    for line in (
        f"rate {folder}/pairs.jsonl --rules {folder}/pool.yaml -o {folder}/rated -m {model_folder} --max-error-rate 1",
        f"select {folder}/rated -o {folder}/labels.parquet --top-k 2",
        f"train-adapter {folder}/labels.parquet --rules {folder}/pool.yaml --backbone {model_folder} --steps 3 "
        f"--holdout 0.3 --holdout-rules 1 --output {folder}/adapter --dtype float32",
    ):
        result = CliRunner().invoke(cli, ["rules", *line.split()])
        assert result.exit_code == 0, result.output
    assert re.search(r"3 steps · recall on held-out pairs: all \d\.\d{3} · .*chance 0\.500", result.output)
    return folder


def test_the_adapter_says_what_it_is_and_what_it_recalls(adapter):
    model = csrm.CSRM.from_pretrained(adapter / "adapter")
    assert model.facts["kind"] == "rule-adapter"
    assert len(model.facts["unseen_rules"]) == 1
    recalls = json.loads((adapter / "adapter/train.json").read_text())["recall"]
    assert recalls == model.facts["recall"]
    assert recalls["chance"] == 0.5
    steps = [json.loads(line) for line in (adapter / "adapter/train.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps] == [1, 2, 3]
    assert not (adapter / "adapter.training").exists()


def test_with_an_adapter_replies_are_rated_on_the_rules_it_names_alone(adapter, rules, model_folder, monkeypatch):
    from csrm import rule_adapter

    cells = []
    original = rule_adapter.rate_chosen
    monkeypatch.setattr(rule_adapter, "rate_chosen", lambda *given: cells.append(given[3].size) or original(*given))
    line = f"select pairs.jsonl --adapter {adapter}/adapter --rules pool.yaml -m * --id-column id --top-k 2"
    found = labels(rules(f"{line} -o labels.parquet"))
    assert sum(cells) == 2 * 2 * 42, "two rules of both replies of each pair"
    pairs, pool = {pair.id: pair for pair in whole_pairs()}, load_rules("pool.yaml")
    named_PK = critical(csrm.CSRM.from_pretrained(adapter / "adapter"), list(pairs.values()), pool)
    model = csrm.CSRM.from_pretrained(model_folder)
    for row in found:
        place = list(pairs).index(row["pair_id"])
        best = np.argsort(-named_PK[place], kind="stable")[:2]
        assert [one["rule"] for one in row["rules"]] == [pool[rule].id for rule in best]
        rated_RK = ratings(model.score(pairs[row["pair_id"]].replies(), pool).p_safe)
        difference = (rated_RK[0] - rated_RK[1])[best].sum()
        assert row["is_first_chosen"] == (difference > 0)
        assert row["margin"] == pytest.approx(abs(difference), abs=1e-5)


def test_on_ray_labels_are_the_same_and_in_order(rated, rules, running_cluster):
    here = labels(rules("select rated -o here.parquet --top-k 2"), "here.parquet")
    there = labels(rules("select rated -o there.parquet --top-k 2", is_local=False), "there.parquet")
    assert here == there
    assert [row["pair_id"] for row in here[:2]] == ["p0", "p1"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("select nowhere -o labels.parquet", "nowhere: no finished matrix here"),
        ("select rated -o labels.jsonl", "name it .parquet"),
        ("select rated -o labels.parquet --top-k 9", "4 rules, fewer than the 9 of a pair"),
        ("select rated -o labels.parquet --id-column id", "give it to csrm rules rate"),
        (
            "select rated -o labels.parquet --rules more.yaml",
            "rule 'Numbers' is not rated there; csrm",
        ),
        ("select . -o inside.parquet --adapter *", "lies in the input, and the next run would read it"),
        ("train-adapter named.parquet --output out", "an adapter named these rules"),
        ("train-adapter labels.parquet --rules other.yaml --output out", "rule 'violence' had another text"),
        (
            "train-adapter labels.parquet --rules pool.yaml --max-characters 1 --output out",
            "nothing is left to train",
        ),
        ("train-adapter s3://bucket/labels.parquet --output out", "only local files are read here"),
        (
            "select rated -o labels.parquet --top-k 4 --min-margin 99",
            "nothing to write: 42 pairs that their rules",
        ),
        (
            "select pairs.jsonl -o labels.parquet --adapter *",
            "no rule adapter; train one with csrm rules train",
        ),
        ("select rated -o labels.parquet --top-k 4 -m other", "the matrix was rated by another model"),
        ("train-adapter pairs.jsonl --output out", "pairs.jsonl: not readable as Parquet"),
        ("train-adapter pairs.parquet --output out", "no column 'chosen'; give a file that csrm rules select wrote"),
        ("train-adapter labels.parquet --output out", "is not in the pool; give --rules as they were rated on"),
        ("train-adapter labels.parquet --rules pool.yaml --holdout-rules 4 --output out", "the pool has 4; leave some"),
    ],
)
def test_mistakes_are_one_line(line, message, rated, rules, model_folder, tmp_path):
    pq.write_table(pa.table({"prompt": ["a"]}), tmp_path / "pairs.parquet")
    labels(rules("select rated -o labels.parquet --top-k 4"))
    named = Origin(rules={}, adapter="a").to_metadata()
    pq.write_table(pq.read_table("labels.parquet").replace_schema_metadata(named), "named.parquet")
    Path("more.yaml").write_text(POOL + "- {category: Numbers, guideline: 0 1 2}\n")
    Path("other.yaml").write_text(POOL.replace("do not kill", "never kill"))
    csrm.CSRM.from_pretrained().save_pretrained(tmp_path / "other") if "other" in line else None
    result = rules(line)
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()
