"""What `csrm pairs` writes is what TRL's offline trainers read, without a column renamed."""

import json

import pytest
from click.testing import CliRunner
from tiny_policy import tiny_policy

from jobs.cli import cli

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("in_process"),
    # transformers reads a name of its own that it has deprecated.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is:FutureWarning"),
]


@pytest.fixture
def load(score, tmp_path):
    """Score four responses to each of two prompts, and load what `csrm pairs` makes of them."""
    from datasets import load_dataset

    words = ("w1", "w2 hello", "w3 kill", "w4 bank pin")
    records = [
        {"prompt": f"w{prompt}", "response": f"{text} {prompt}", "prompt_id": prompt}
        for prompt in (1, 2)
        for text in words
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    result = score("a.jsonl", "--keep-columns", "prompt_id")
    assert result.exit_code == 0, result.output

    def run(suffix, *arguments):
        output = tmp_path / f"made.{suffix}"
        required = ["--group-by", "prompt_id", "-c", "bank", "-o", str(output), "--allow-violations"]
        result = CliRunner().invoke(cli, ["pairs", str(tmp_path / "out"), *required, *arguments])
        assert result.exit_code == 0, result.output
        kind = {"jsonl": "json"}.get(suffix, suffix)
        return load_dataset(kind, data_files=str(output), split="train", cache_dir=str(tmp_path / "cache"))

    return run


def settings(tmp_path):
    return {
        "output_dir": str(tmp_path / "trained"),
        "use_cpu": True,
        "bf16": False,
        "report_to": [],
        "max_steps": 1,
        "per_device_train_batch_size": 2,
        "learning_rate": 0.1,
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
        "activation_checkpointing": False,
    }


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_dpo_trains_on_pairs(load, tmp_path, suffix):
    from trl import DPOConfig, DPOTrainer
    from trl.data_utils import apply_chat_template, is_conversational

    pairs = load(suffix, "--top-k", "2")
    assert len(pairs) == 4
    assert is_conversational(pairs[0])
    policy, tokenizer = tiny_policy()
    policy.save_pretrained(tmp_path / "policy")  # where DPO reads its reference from
    policy = type(policy).from_pretrained(tmp_path / "policy")
    texts = apply_chat_template({name: pairs[0][name] for name in ("prompt", "chosen", "rejected")}, tokenizer)
    assert texts["prompt"] == "user : w1 [SEP] assistant : "
    assert texts["chosen"] == f"{pairs[0]['chosen'][0]['content']} [SEP] "
    trainer = DPOTrainer(
        model=policy, args=DPOConfig(**settings(tmp_path)), train_dataset=pairs, processing_class=tokenizer
    )
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(0.6931, abs=1e-3)  # ln 2: the policy is its reference


def test_fine_tuning_trains_on_the_best_of_n(load, tmp_path):
    from trl import SFTConfig, SFTTrainer
    from trl.data_utils import is_conversational

    best = load("jsonl", "--as", "best-of-n")
    assert len(best) == 2
    assert is_conversational(best[0])
    policy, tokenizer = tiny_policy()
    trainer = SFTTrainer(
        model=policy, args=SFTConfig(**settings(tmp_path)), train_dataset=best, processing_class=tokenizer
    )
    trainer.train()
    assert 3 < trainer.state.log_history[0]["loss"] < 8
