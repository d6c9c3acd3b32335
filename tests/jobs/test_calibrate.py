"""`csrm calibrate` as a user runs it: better figures on cells kept out, weights untouched, scores that follow."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from labelled_files import binary, judgement, preferences, write_lines

import csrm
from csrm.calibration_data import LabelledCells, cross_fitted, label_under
from csrm.labelled import read_labelled
from jobs.cli import cli


def calibrate(*arguments):
    return CliRunner().invoke(cli, ["calibrate", *map(str, arguments)])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    return {
        "judgement": write_lines(folder / "judgement.jsonl", judgement(80)),
        "binary": write_lines(folder / "binary.jsonl", binary(80)),
        "preferences": write_lines(folder / "preferences.jsonl", preferences()),
    }


@pytest.fixture(scope="module")
def calibrated(files, model_folder, policies, tmp_path_factory):
    output = tmp_path_factory.mktemp("calibrated") / "model"
    data = ("--data", files["judgement"], "--data", files["binary"])
    result = calibrate("--model", model_folder, *data, "-c", policies, "--output", output, "--dtype", "float32")
    assert result.exit_code == 0, result.output
    return output, result


def test_it_calibrates_and_says_so(calibrated):
    _, result = calibrated
    record = json.loads(result.stdout)
    assert record["after_is"] == "5-fold cross-fitted by prompt"
    # Own clauses (3 a row) and all of them, `game` (both clauses known) and `bank`; binary rows under both.
    assert record["num_cells"] == 80 * 4 + 80 * 2 + 80 * 2
    for name in ("smece", "ece", "brier"):
        assert record["after"][name] < record["before"][name]
        assert name[:2].lower() in result.stderr.lower()


def test_the_folder_is_the_model_with_another_calibration(calibrated, model_folder):
    output, _ = calibrated
    before, after = csrm.CSRM.from_pretrained(model_folder), csrm.CSRM.from_pretrained(output)
    assert (output / "model.safetensors").read_bytes() == (model_folder / "model.safetensors").read_bytes()
    assert after.fingerprint == before.fingerprint
    assert after.calibration != before.calibration


def test_configurations_with_labels_get_a_line_of_their_own(calibrated, policies):
    output, _ = calibrated
    model, configurations = csrm.CSRM.from_pretrained(output), csrm.load_configurations(policies)
    assert set(model.calibration.configurations) == {c.fingerprint for c in configurations}
    matrix = model.score([[{"role": "user", "content": "kill"}]], configurations)
    for column, configuration in enumerate(configurations):
        line = model.calibration.of(configuration.fingerprint)
        np.testing.assert_array_equal(matrix.p_safe[:, column], line.p_safe(matrix.reward[:, column]))


def test_the_diagram_is_a_picture(calibrated):
    from PIL import Image

    with Image.open(calibrated[0] / "reliability.png") as picture:
        assert min(picture.size) > 800
        assert len(set(picture.convert("RGB").resize((60, 40)).get_flattened_data())) > 20


def test_a_label_under_a_configuration_needs_all_it_says(policies, files):
    game = next(c for c in csrm.load_configurations(policies) if c.id == "game")
    rows = read_labelled(files["judgement"])
    for row in rows:
        assert label_under(row, game) == any(row.violated[:2])
    partly = type(rows[1])(
        **{name: getattr(rows[1], name) for name in ("id", "domain", "conversation")},
        clauses=rows[1].clauses[:1],
        violated=(False,),
    )
    assert label_under(partly, game) is None


def test_cross_fitting_never_sees_the_prompt_it_judges():
    """Labels that are pure noise by prompt: fitted to themselves they would look calibrated beyond chance."""
    rng = np.random.default_rng(0)
    reward = np.repeat(rng.normal(0, 1, 60), 5).astype(np.float32)
    complies = np.repeat(rng.random(60) < 0.5, 5)
    prompts = [str(n // 5) for n in range(300)]
    fingerprints = [f"c{n // 30}" for n in range(300)]
    cells = LabelledCells(reward=reward, complies=complies, fingerprints=fingerprints, prompts=prompts)
    p_safe = cross_fitted(cells, min_labels=5)
    for prompt in range(60):
        own = slice(5 * prompt, 5 * prompt + 5)
        turned = complies.copy()
        turned[own] = ~turned[own]
        other = LabelledCells(reward=reward, complies=turned, fingerprints=fingerprints, prompts=prompts)
        if prompt % 20 == 0:
            np.testing.assert_array_equal(cross_fitted(other, min_labels=5)[own], p_safe[own])


def test_a_columns_calibration_is_its_own(make_job, model_folder):
    """A line for `game` makes the column `game` stale, and no other."""
    from dataclasses import replace

    job = make_job()
    game = next(c for c in job.configurations if c.id == "game")
    own = csrm.Calibration(scale=9.0)
    calibration = replace(job.model.calibration, configurations={game.fingerprint: own})
    other = replace(job, model=replace(job.model, calibration=calibration))
    stale = {name for name, column in other.columns.items() if column != job.columns[name]}
    assert stale == {"game"}
    assert job.model.calibration.fingerprint != calibration.fingerprint
    elsewhere = replace(job.model.calibration, configurations={"not of this job": own})
    assert replace(job, model=replace(job.model, calibration=elsewhere)).columns == job.columns


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "{binary}"], "name what they label: --configurations"),
        (["--data", "{preferences}"], "neither `clauses` nor `harmful`"),
        (["--data", "none.jsonl"], "none.jsonl: not readable"),
        (["--data", "{judgement}", "--limit", "1", "--cells", "any"], "needs both complying and violating cells"),
        (["--data", "{judgement}", "--cells", "counterfactual"], "no clause of another category in another domain"),
        (["--data", "{judgement}", "--output", "{embedded}"], "holds another model; choose a new folder"),
    ],
)
def test_mistakes_end_in_one_line(files, model_folder, tmp_path, arguments, message):
    from csrm.model_folder import EMBEDDED_MODEL

    arguments = [argument.format(**files, embedded=EMBEDDED_MODEL) for argument in arguments]
    output = [] if "--output" in arguments else ["--output", tmp_path / "out"]
    result = calibrate("--model", model_folder, *output, *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
