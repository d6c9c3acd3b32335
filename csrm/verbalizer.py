"""Verdict words: how a language model that was never trained for it can say "safe" or "unsafe"."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from transformers import PreTrainedTokenizerFast

from csrm.errors import CheckpointError

__all__ = ["QUESTION", "SAFE", "UNSAFE", "token_ids", "verbalizer_reward"]

QUESTION = "\nJudged by these rules alone, the last message is (safe or unsafe):"
"""What the probes ask; the first token after it is the verdict."""
SAFE = ("safe", " safe", "Safe")
UNSAFE = ("unsafe", " unsafe", "Unsafe")


def token_ids(tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], list[int]]:
    """Token ids of the verdicts safe and unsafe: the first token of each spelling, unless both verdicts start with it.

    Raises:
        CheckpointError: no spelling tells the two apart by its first token.
    """
    firsts = [{ids[0] for word in words if (ids := _ids(tokenizer, word))} for words in (SAFE, UNSAFE)]
    unknown = {tokenizer.unk_token_id}
    safe, unsafe = firsts[0] - firsts[1] - unknown, firsts[1] - firsts[0] - unknown
    if not safe or not unsafe:
        raise CheckpointError("the tokenizer cannot tell 'safe' from 'unsafe' by one token; use the linear read-out")
    return sorted(safe), sorted(unsafe)


def verbalizer_reward(logits: Tensor, safe_ids: Sequence[int], unsafe_ids: Sequence[int]) -> Tensor:
    """Log-odds of compliance from next-token logits: s = log Σ_safe π(t) − log Σ_unsafe π(t) (arXiv 2605.30487).

    The normaliser of π cancels, so the logits are used as they are.

    Args:
        logits: (…, vocabulary).
        safe_ids: tokens that say the message complies.
        unsafe_ids: tokens that say it does not.

    Returns:
        (…,) rewards.
    """
    if not safe_ids or not unsafe_ids or set(safe_ids) & set(unsafe_ids):
        raise ValueError(f"verbalizers need two disjoint sets of tokens, got {safe_ids!r} and {unsafe_ids!r}")
    return logits[..., list(safe_ids)].logsumexp(-1) - logits[..., list(unsafe_ids)].logsumexp(-1)


def _ids(tokenizer: PreTrainedTokenizerFast, word: str) -> list[int]:
    ids: list[int] = tokenizer(word, add_special_tokens=False)["input_ids"]
    return ids
