"""`csrm train` on Ray Train: two workers or one, killed or not, the steps are those of one plain loop."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from tiny import tiny_model

import csrm
from csrm.training.sampler import TrainingData
from csrm.training.trainer import Trainer, TrainOptions, draw_parts, make_sampler
from jobs.cli import cli
from jobs.train_data import Sources, read_material
from jobs.train_log import StepLog, latest_step, read_steps
from jobs.train_run import claim, fit, training_folder
from jobs.train_worker import Plan, Start, build_model, train_loop

# Ray Data warns of its own old settings whenever a dataset is made.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")

# A key bias has no gradient but rounding, which AdamW scales up to a step like any other.
WEIGHT_NOISE = 1e-5
NUM_STEPS = 6
OPTIONS = TrainOptions(
    num_steps=NUM_STEPS, batch_rows=8, batch_preferences=2, max_tokens=300, backbone_lr=1e-3, gamma=0.5, dtype="float32"
)
FLAGS = "--steps 6 --batch-rows 8 --batch-preferences 2 --max-tokens 300 --backbone-lr 1e-3 --gamma 0.5 --dtype float32"
TERMS = ("loss", "classification", "preference", "accuracy", "grad_norm", "preference_margin", "learning_rate")


@pytest.fixture(scope="module", autouse=True)
def _loops_travel():
    """Workers cannot import this file: its functions go to them by value."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Four domains of one rule, which a row violates iff it says the rule's word; pairs of replies; a model."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    with (folder / "rows.jsonl").open("w") as lines:
        for n in range(160):
            name, violated = f"w{1 + n % 4}", bool((n // 4) % 2)
            text = " ".join([f"w{m}" for m in rng.integers(50, 60, 4)] + ([name] if violated else []))
            clause = {"category": f"w{100 + n % 4}", "guideline": name, "violated": violated}
            row = {"id": n, "source": f"s{n % 2}", "org": "o", "messages": [{"role": "user", "content": text}]}
            lines.write(json.dumps(row | {"clauses": [clause]}) + "\n")
        copy = row | {"id": "copy", "clauses": [clause | {"violated": not clause["violated"]}]}
        lines.write(json.dumps(copy) + "\n")
    with (folder / "pairs.jsonl").open("w") as lines:
        for n in range(20):
            pair = {"id": n, "split": ("train", "eval")[n % 2], "messages": [{"role": "user", "content": f"w{n}"}]}
            lines.write(json.dumps(pair | {"chosen": "w61", "rejected": f"w1 w{n}"}) + "\n")
    with (folder / "excluded.jsonl").open("w") as lines:
        lines.write(json.dumps({"prompt": "W4!", "response": "w5"}) + "\n")
    tiny_model(max_conversation_tokens=120, max_clause_tokens=120).save_pretrained(folder / "start")
    return folder


@pytest.fixture(scope="module")
def material(files):
    sources = Sources(
        data=[str(files / "rows.jsonl")],
        preferences=[str(files / "pairs.jsonl")],
        exclude_prompts=[str(files / "excluded.jsonl")],
        contrasts=False,
        holdout=0.3,
    )
    return read_material(sources, max_characters=6_000, seed=0)


@pytest.fixture(scope="module")
def start(files):
    return Start(backbone=str(files / "start"), name="csrm")


@pytest.fixture(scope="module")
def undisturbed(start, material):
    """Steps and weights of a loop in this process."""
    model = build_model(start)
    trainer, sampler = Trainer(model, OPTIONS), make_sampler(model, material.training, OPTIONS)
    steps = [trainer.step(draw_parts(sampler, model.encoder, n, OPTIONS)[0]) for n in range(NUM_STEPS)]
    return [{name: getattr(step, name) for name in TERMS} for step in steps], model


@pytest.fixture
def plan(start, material, running_cluster, tmp_path):
    import ray

    model = build_model(start)
    source = ray.put((make_sampler(model, material.training, OPTIONS), model.encoder))
    log = tmp_path / "train.jsonl"
    return Plan(start=start, options=OPTIONS, source=source, log=str(log), save_every=2)


def found(log):
    steps = read_steps(log)
    assert [step["step"] for step in steps] == [*range(1, NUM_STEPS + 1)]
    return [{name: step[name] for name in TERMS} for step in steps]


def assert_same(steps, expected, tolerance):
    for step, wanted in zip(steps, expected, strict=True):
        assert step == pytest.approx(wanted, rel=tolerance, abs=tolerance)


def assert_same_weights(checkpoint, expected, tolerance):
    from safetensors.torch import load_file

    weights = load_file(checkpoint / "weights.safetensors")
    for name, parameter in expected.named_parameters():
        np.testing.assert_allclose(weights[name].numpy(), parameter.detach().numpy(), rtol=0, atol=tolerance)


def killed_once(config):
    """The worker dies for good after its third step, one step after its last checkpoint; the next one does not."""
    marker, step = Path(config["plan"].log).with_name("killed"), Trainer.step

    def step_or_die(self, parts):
        if self.num_done == 3 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, parts)

    Trainer.step = step_or_die
    train_loop(config)


def fails_late(config):
    """The run stops after its fifth step."""
    step = Trainer.step

    def step_or_raise(self, parts):
        if self.num_done == 5:
            raise RuntimeError("the disk is full")
        return step(self, parts)

    Trainer.step = step_or_raise
    train_loop(config)


def test_a_killed_worker_is_replaced_and_the_run_ends_as_if_nothing_had_been(plan, undisturbed, tmp_path):
    expected, model = undisturbed
    checkpoint = fit(plan, tmp_path / "run", max_failures=1, loop=killed_once)
    assert (tmp_path / "killed").exists()
    assert_same(found(plan.log), expected, 1e-6)
    assert_same_weights(checkpoint, model, WEIGHT_NOISE)


@pytest.mark.parametrize("strategy", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_two_workers_take_the_steps_of_one(strategy, plan, undisturbed, tmp_path):
    import dataclasses

    expected, model = undisturbed
    plan = dataclasses.replace(plan, strategy=strategy, save_every=NUM_STEPS)
    checkpoint = fit(plan, tmp_path / "run", num_workers=2, max_failures=0)
    assert_same(found(plan.log), expected, 1e-4)
    assert_same_weights(checkpoint, model, 1e-4)


@pytest.fixture(scope="module")
def command(files):
    def run(output, *more):
        arguments = ["train", "--data", str(files / "rows.jsonl"), "--preferences", str(files / "pairs.jsonl")]
        arguments += ["--exclude-prompts", str(files / "excluded.jsonl"), "--backbone", str(files / "start")]
        arguments += ["--output", str(output), "--no-contrasts", "--holdout", "0.3", "--save-every", "2"]
        return CliRunner().invoke(cli, [*arguments, *FLAGS.split(), *more])

    return run


@pytest.fixture(scope="module")
def trained(command, running_cluster, tmp_path_factory):
    """A run that stops after five steps, and is then resumed."""
    from jobs import train_run

    output = tmp_path_factory.mktemp("trained") / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_run, "train_loop", fails_late)
        stopped = command(output, "--max-failures", "0")
    state = sorted(path.name for path in training_folder(output).iterdir())
    exists = output.exists()
    again = command(output)
    resumed = command(output, "--resume")
    assert resumed.exit_code == 0, resumed.output + str(resumed.exception)
    return {"stopped": stopped, "state": state, "exists": exists, "again": again, "resumed": resumed}, output


def test_a_stopped_run_says_why_and_how_to_go_on(trained):
    runs, _ = trained
    assert runs["stopped"].exit_code == 2
    assert "the disk is full" in runs["stopped"].stderr.splitlines()[-1]
    assert "--resume" in runs["stopped"].stderr.splitlines()[-1]
    assert not runs["exists"]
    assert runs["state"] == ["ray", "settings.json", "train.jsonl"]
    assert runs["again"].exit_code == 2
    assert "go on with --resume" in runs["again"].stderr


def test_a_resumed_run_ends_like_one_that_never_stopped(trained, undisturbed):
    _, output = trained
    expected, _ = undisturbed
    assert_same(found(output / "train.jsonl"), expected, 1e-6)


def test_the_model_folder_is_whole_calibrated_and_in_bfloat16(trained, undisturbed, material):
    import torch
    from safetensors.torch import load_file

    _, output = trained
    model = csrm.CSRM.from_pretrained(output, dtype="float32")
    for name, parameter in undisturbed[1].named_parameters():
        difference = (model.get_parameter(name) - parameter).abs().max().item()
        assert difference <= 0.005 * parameter.abs().max().item() + WEIGHT_NOISE, name
    assert {tensor.dtype for tensor in load_file(output / "model.safetensors").values()} == {torch.bfloat16}
    assert model.calibration.scale != 1.0
    assert model.facts["data"][0]["file"] == "rows.jsonl"
    assert model.facts["options"]["gamma"] == 0.5
    assert not training_folder(output).exists()
    assert [path for path in output.parent.iterdir() if path.name.startswith(".")] == []
    report = json.loads((output / "train.json").read_text())
    assert report["steps"] == NUM_STEPS
    assert report["calibration"]["cells"] == 8 * len(material.held)


def test_what_was_left_out_is_said(trained):
    runs, output = trained
    said = runs["resumed"].stderr
    assert "rows: left out: 2 labels that contradict another copy's" in said
    assert "rows: columns not read: org (161)" in said
    assert "preferences: left out: 10 rows whose split is 'eval'" in said
    assert "preferences: left out: 1 rows that share a prompt with an excluded file" in said
    assert json.loads((output / "train.json").read_text())["rows"]["contradicting_labels"] == 2
    assert "step 6/6 · loss " in said
    assert "calibrated on" in said


def test_adapters_and_strictness_pairs_go_through_the_command(files, running_cluster, tmp_path):
    ladder = {"category": "w100", "subcategories": ["w1", "w2", "w3"], "aliases": [], "always_forbidden": []}
    pairs = [{"strict": 3, "lenient": 1, "kept": True}, {"strict": 2, "lenient": 0, "kept": False}]
    document = {"format": "csrm strictness pairs, 1", "filtered": True, "judge": {"name": "j", "fingerprint": "f"}}
    (tmp_path / "pairs.json").write_text(json.dumps(document | {"ladders": [ladder | {"pairs": pairs}]}))
    arguments = [
        "--data",
        str(files / "rows.jsonl"),
        "--backbone",
        str(files / "start"),
        "--output",
        str(tmp_path / "m"),
    ]
    arguments += ["--no-contrasts", "--holdout", "0", "--lora", "2", "--strictness-pairs", str(tmp_path / "pairs.json")]
    result = CliRunner().invoke(cli, ["train", *arguments, "--steps", "2", "--batch-rows", "32", "--dtype", "float32"])
    assert result.exit_code == 0, result.output + str(result.exception)
    assert "1 strictness pairs" in result.stderr
    for step in read_steps(tmp_path / "m" / "train.jsonl"):
        assert step["strictness"] > 0
        assert step["preference_margin"] is None
        assert step["strictness_margin"] is not None
    model = csrm.CSRM.from_pretrained(tmp_path / "m", dtype="float32")
    before = csrm.CSRM.from_pretrained(files / "start", dtype="float32")
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in before.named_parameters()]
    assert "pairs.json" in {file["file"] for file in model.facts["data"]}


def test_a_finished_model_is_not_overwritten(trained, command):
    _, output = trained
    result = command(output)
    assert result.exit_code == 2
    assert "already there" in result.stderr


def test_material_is_divided_by_clauses(material):
    trained = {clause for row in material.training.rows for clause in row.clauses}
    held = {clause for row in material.held for clause in row.clauses}
    assert trained
    assert held
    assert not trained & held
    assert isinstance(material.training, TrainingData)
    assert {pair.split for pair in material.training.preferences} == {"train"}


def test_contrasts_add_rows_and_frames_and_give_way_to_excluded_prompts(files, tmp_path):
    def read(**more):
        sources = Sources(data=[str(files / "rows.jsonl")], holdout=0, num_contrasts=300, num_exchanges=50, **more)
        return read_material(sources, max_characters=6_000, seed=0)

    def contrasts(material):
        return [row for row in material.training.rows if row.domain == "requests"]

    material = read()
    assert len(contrasts(material)) == 300
    assert sum(row.domain == "exchanges" for row in material.training.rows) == 50
    assert material.training.frames is not None
    assert material.held == []
    asked = contrasts(material)[0].conversation[0].content
    (tmp_path / "excluded.jsonl").write_text(json.dumps({"text": asked.upper()}) + "\n")
    left = contrasts(read(exclude_prompts=[str(tmp_path / "excluded.jsonl")]))
    assert 0 < len(left) < 300
    assert asked not in {message.content for row in left for message in row.conversation}


def test_a_stopped_run_is_only_resumed_with_its_own_settings(tmp_path):
    output = tmp_path / "model"
    claim(output, {"a": 1, "b": [1]}, resume=False)
    assert claim(output, {"a": 1, "b": (1,)}, resume=True) == training_folder(output)
    with pytest.raises(csrm.InputError, match=r"other settings \(b\)"):
        claim(output, {"a": 1, "b": [2]}, resume=True)


def test_the_log_forgets_steps_that_are_done_again(tmp_path):
    log = StepLog(tmp_path / "log")
    assert latest_step(log.path) is None
    log.path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    assert latest_step(log.path) == {"step": 3}
    log.rewind(2)
    assert read_steps(log.path) == [{"step": 1}, {"step": 2}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "no.jsonl"], "no.jsonl: not readable"),
        (["--data", "no.jsonl@2"], "at least 0 and below 1"),
        (["--data", "no.jsonl@x"], "after @ comes a share"),
        (["--data", "ROWS", "--steps", "2", "--epochs", "1"], "not both"),
        (["--data", "ROWS", "--num-configurations", "2"], "do not go together: strictness pairs take two"),
        (["--data", "ROWS", "--exclude-prompts", "ROWS"], "nothing is left to train on"),
        (["--data", "ROWS", "--preferences", "ROWS"], "rows.jsonl, line 1: no field 'chosen'"),
    ],
)
def test_mistakes_end_in_one_line(arguments, message, files, tmp_path):
    arguments = [str(files / "rows.jsonl") if argument == "ROWS" else argument for argument in arguments]
    more = ["--backbone", "x", "--output", str(tmp_path / "y"), "--no-contrasts"]
    result = CliRunner().invoke(cli, ["train", *arguments, *more])
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output
    assert len(result.stderr.strip().splitlines()) == 1
