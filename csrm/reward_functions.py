"""Rewards for reinforcement learning: a CSRM as a reward function that TRL's trainers call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from csrm.configurations import Configuration, load_configurations
from csrm.errors import ConfigurationError
from csrm.messages import Message, as_conversation

if TYPE_CHECKING:
    from csrm.engine import Columns
    from csrm.model import CSRM

__all__ = ["trl_reward"]

RewardFunction = Callable[..., list[float | None]]


def trl_reward(
    model: CSRM | str | Path | None,
    configuration: Configuration | Sequence[Configuration] | str | Path,
    *,
    kind: Literal["reward", "p_safe"] = "reward",
) -> RewardFunction:
    """Make a reward function for `trl.GRPOTrainer(reward_funcs=...)` and others that call it in the same way.

    Clauses are encoded here, once; each call reads its completions once. With several configurations the dataset's
    column `configuration` says by id which one a row is rewarded under; rows where it is null get None, which TRL
    leaves out.

    Args:
        model: a CSRM, a model folder, or None for the embedded csrm-mini. It is not trained along.
        configuration: one or several, or the file or folder that they are in.
        kind: "reward" is the calibrated log-odds of compliance, log(p_safe / (1 − p_safe)), unbounded and never
            saturated; "p_safe" lies between 0 and 1, to be multiplied with other rewards.

    Raises:
        ConfigurationError: There is none, or it cannot be read.

    Example:
        >>> trainer = GRPOTrainer(policy, reward_funcs=csrm.trl_reward(None, "game_studio.yaml"), train_dataset=prompts)
    """
    if kind not in ("reward", "p_safe"):
        raise ValueError(f'kind must be "reward" or "p_safe", got {kind!r}')
    configurations = _configurations(configuration)
    judge = _model(model)
    columns = judge.prepare(configurations)
    ids = [one.id for one in configurations]

    def reward(prompts: Sequence[Any], completions: Sequence[Any], **others: Any) -> list[float | None]:
        wanted = _wanted(ids, others.get("configuration"), len(completions))
        talks = [_conversation(*pair) if own else [] for own, *pair in zip(wanted, prompts, completions, strict=True)]
        scores_RN = _scores(judge, talks, columns, configurations, kind)
        found = [row[ids.index(own)] if own else np.nan for own, row in zip(wanted, scores_RN, strict=True)]
        return [None if np.isnan(value) else float(value) for value in found]

    reward.__name__ = f"csrm_{ids[0]}" if len(ids) == 1 else "csrm"  # TRL logs under it
    return reward


def _model(model: CSRM | str | Path | None) -> CSRM:
    from csrm.model import CSRM

    return model if isinstance(model, CSRM) else CSRM.from_pretrained(model)


def _configurations(given: Configuration | Sequence[Configuration] | str | Path) -> list[Configuration]:
    if isinstance(given, str | Path):
        return load_configurations(given)
    found = [given] if isinstance(given, Configuration) else list(given)
    if not found:
        raise ConfigurationError("no configurations given; a reward needs at least one")
    return found


def _wanted(ids: Sequence[str], column: Sequence[str | None] | None, number: int) -> list[str | None]:
    """The configuration of each row; None where it has no reward."""
    if len(ids) == 1:
        return [ids[0]] * number
    if column is None:
        raise ConfigurationError(
            f"several configurations ({', '.join(ids)}): give the dataset a column `configuration` with their ids"
        )
    for own in column:
        if own is not None and own not in ids:
            raise ConfigurationError(f"column `configuration` says {own!r}; there are {', '.join(ids)}")
    return list(column)


def _conversation(prompt: Any, completion: Any) -> list[Message]:
    """A prompt with its completion, as text or as messages; nothing, hence no reward, where no text was completed."""
    if not isinstance(completion, str) and not (len(completion) and completion[-1].get("content")):
        return []
    history = [Message("user", prompt)] if isinstance(prompt, str) else prompt
    reply = [Message("assistant", completion)] if isinstance(completion, str) else completion
    return as_conversation([*history, *reply])


def _scores(
    model: CSRM,
    conversations: Sequence[list[Message]],
    columns: Columns,
    configurations: Sequence[Configuration],
    kind: str,
) -> NDArray[np.floating]:
    """(num_records, num_configurations); NaN where there is no conversation."""
    scores = model.score_encoded(model.encoder.encode(conversations), columns)
    if kind == "p_safe":
        return scores.p_safe
    lines = [model.calibration.of(one.fingerprint) for one in configurations]
    scale_N, bias_N = np.array([(line.scale, line.bias) for line in lines]).T
    return np.asarray(scale_N * scores.reward + bias_N)
