"""TRL's own GRPO trainer trains on a CSRM's rewards; `tests/jobs/test_pairs_trl.py` has its offline trainers."""

import numpy as np
import pytest
from test_reward_functions import BANK, GAME
from tiny import tiny_model
from tiny_policy import tiny_policy

from csrm import Calibration, trl_reward

# transformers reads a name of its own that it has deprecated.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is:FutureWarning")]


@pytest.mark.parametrize("form", ["messages", "text"])
def test_grpo_trains_on_the_rewards_that_the_model_gives(tmp_path, form):
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    judge = tiny_model()
    judge.calibration = Calibration(scale=0.7, bias=-0.4)
    texts = ["w1 w2 w3", "w4 w5", "w6", "w7 w1"]
    rows = [{"prompt": text, "configuration": ("game", "bank")[n % 2]} for n, text in enumerate(texts)]
    if form == "messages":
        rows = [row | {"prompt": [{"role": "user", "content": row["prompt"]}]} for row in rows]
    reward, calls = trl_reward(judge, [GAME, BANK]), []

    def recorded(prompts, completions, **others):
        found = reward(prompts, completions, **others)
        calls.append((prompts, completions, others["configuration"], found))
        return found

    recorded.__name__ = reward.__name__
    policy, tokenizer = tiny_policy()
    before = [parameter.detach().clone() for parameter in policy.parameters()]
    options = GRPOConfig(
        output_dir=str(tmp_path),
        use_cpu=True,
        bf16=False,
        report_to=[],
        max_steps=2,
        per_device_train_batch_size=4,
        num_generations=2,
        max_completion_length=6,
        learning_rate=0.1,
        logging_steps=1,
        save_strategy="no",
        disable_tqdm=True,
        activation_checkpointing=False,
    )
    trainer = GRPOTrainer(
        model=policy,
        reward_funcs=recorded,
        args=options,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    trainer.train()
    logged = [entry["rewards/csrm/mean"] for entry in trainer.state.log_history if "rewards/csrm/mean" in entry]
    assert logged == pytest.approx([np.mean(found) for *_, found in calls], rel=1e-4)
    assert len(logged) == 2
    for prompts, completions, wanted, found in calls:
        assert len(found) == 4
        talks = [
            as_messages("user", prompt) + as_messages("assistant", completion)
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        rewards = 0.7 * judge.score(talks, [GAME, BANK]).reward - 0.4
        columns = [int(own == "bank") for own in wanted]
        assert found == pytest.approx(rewards[range(4), columns], rel=1e-4)
    assert any(not (old == new).all() for old, new in zip(before, policy.parameters(), strict=True))


def as_messages(role, said):
    return [{"role": role, "content": said}] if isinstance(said, str) else said
