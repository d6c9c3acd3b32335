"""GPU-hours and money from a benchmark's lines, by hand; and what a dry run says of them."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csrm.errors import InputError
from jobs.costs import WHOLE_JOB, Measured, price, read_bench


def bench_line(device, speeds, model="tiny"):
    rows = [
        {"num_configurations": number, "plain_tokens_per_s": 2 * speed, "engine_plain_passes": 2.0}
        for number, speed in speeds.items()
    ]
    facts = {"benchmark": "matrix", "device": "cuda:0", "device_name": device, "model": model, "dtype": "bfloat16"}
    return json.dumps({**facts, "conversation_tokens": 256, "rows": rows})


@pytest.fixture
def bench(tmp_path):
    lines = [bench_line("NVIDIA L4", {1: 1e5}), bench_line("NVIDIA H200", {1: 1e6, 64: 8e5}), '{"benchmark": "other"}']
    (tmp_path / "bench.jsonl").write_text("\n".join(lines) + "\n")
    return str(tmp_path / "bench.jsonl")


def measured(speeds):
    return Measured(device="d", model="tiny", dtype="bfloat16", conversation_tokens=256, speeds=speeds)


def test_a_price_by_hand(bench):
    """At 0.84 × 800,000 tokens a second, 2.4192e9 tokens are an hour."""
    cost = price(0.84 * 8e5 * 3600, 64, read_bench(bench, "h200"), "tiny", 3.5)
    assert WHOLE_JOB == 0.84
    assert cost.device_hours == pytest.approx(1.0)
    assert cost.money == pytest.approx(3.5)
    assert not any("is of tiny" in one or "lie outside" in one for one in cost.assumptions)
    assert price(1e9, 64, read_bench(bench, "h200"), "tiny").money is None


def test_time_per_token_grows_by_a_line_between_what_was_measured():
    found = measured({1: 100.0, 3: 50.0, 11: 25.0})
    assert [found.tokens_per_s(number) for number in (1, 3, 11)] == pytest.approx([100, 50, 25])
    assert found.tokens_per_s(2) == pytest.approx(1 / 0.015)
    assert found.tokens_per_s(7) == pytest.approx(1 / 0.03)
    assert found.tokens_per_s(19) == pytest.approx(1 / 0.06)
    assert measured({4: 10.0}).tokens_per_s(100) == 10.0


@given(st.dictionaries(st.integers(1, 256), st.floats(1, 1e6), min_size=1), st.integers(1, 1024))
def test_no_speed_is_better_than_the_best_that_was_measured(speeds, number):
    assert 0 < measured(speeds).tokens_per_s(number) <= max(speeds.values()) * (1 + 1e-9)


def test_the_last_line_of_a_device_counts(tmp_path):
    path = tmp_path / "bench.jsonl"
    path.write_text(bench_line("NVIDIA H200", {1: 1.0}) + "\n" + bench_line("NVIDIA H200", {1: 2.0}))
    assert read_bench(str(path), "H200").speeds == {1: 2.0}
    assert read_bench(str(path)).device == "NVIDIA H200"


def test_what_a_figure_rests_on_is_said(bench):
    said = price(1e9, 500, read_bench(bench, "h200"), "another").assumptions
    assert "the measurement is of tiny, not of another" in said[0]
    assert any("500 configurations lie outside of those measured (1 to 64)" in one for one in said)
    assert any("84%" in one for one in said)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file; write it with csrm bench >"),
        ("", "holds no measurement"),
        ("{", "not what csrm bench prints"),
        ("[]", "not what csrm bench prints"),
        ('{"benchmark": "matrix"}', "not what csrm bench prints"),
        (bench_line("NVIDIA L4", {}), "not what csrm bench prints"),
        (bench_line("NVIDIA L4", {1: 1.0}), "no measurement of 'h200'; there are NVIDIA L4"),
    ],
)
def test_other_files_are_refused(tmp_path, text, message):
    path = tmp_path / "bench.jsonl"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message.replace(">", ">.*")):
        read_bench(str(path), "h200")


def test_a_dry_run_says_what_it_would_cost(score, bench, tmp_path):
    words = random.Random(0).choices(["hello", "bank", "weather"], k=20)
    (tmp_path / "chats.jsonl").write_text((json.dumps({"text": " ".join(words)}) + "\n") * 50)
    result = score("chats.jsonl", "--dry-run", "--bench", bench, "--gpu", "h200", "--price", "3.5")
    assert result.exit_code == 0, result.output
    assert "device-hours" in result.stdout
    assert "at the price given" in result.stdout
    assert "assumed: NVIDIA H200 runs tiny (bfloat16) on conversations of 256 tokens" in " ".join(result.stdout.split())
    assert result.stdout.splitlines()[-1] == "dry run: nothing was written"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dry-run", "--price", "3"], "--gpu and --price need --bench"),
        (["--bench", "x.jsonl"], "--bench says what a run would take; add --dry-run"),
    ],
)
def test_options_that_need_others(score, options, message):
    result = score("-", *options)
    assert result.exit_code == 2
    assert message in result.stderr
