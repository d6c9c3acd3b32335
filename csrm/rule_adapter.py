"""The rule adapter: which rules decide between two replies, told from their text without rating them on every rule.

A matrix model like any other. A row is a pair: a conversation whose last message is both replies. A column is a rule.
Where a CSRM's cell says how surely a rule is violated, an adapter's says how surely it is among those that
`csrm.rule_selection` would choose for the pair. So a pair is read once whatever the number of rules, rules that no
training has seen can be asked about (the published adapter, arXiv 2501.15453, is a classifier of 100 fixed rules), and
training is `csrm.training.trainer` as it is, with binary cross-entropy on the chosen sets.

Shape letters: P pairs, R conversations, K rules of the pool, k rules chosen of a pair.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from csrm.batch import Batch
from csrm.cells import batch_reward
from csrm.configurations import Clause, Configuration
from csrm.labelled import LabelledRow, PreferenceRow
from csrm.messages import Message
from csrm.model import CSRM

__all__ = ["RuleSampler", "critical", "pair_conversation", "rate_chosen"]

BATCH_RECORDS = 64
"""Conversations rated at once."""


def pair_conversation(pair: PreferenceRow) -> list[Message]:
    """A pair as an adapter reads it: its history, then both replies as one message.

    Replies are put in the order of their texts. So which of them stands first in the pair is not to be seen, and a
    swapped pair has the same rules, exactly.
    """
    first, second = sorted((pair.chosen, pair.rejected))
    return [*pair.conversation, Message("assistant", f"Reply A: {first}\n\nReply B: {second}")]


class RuleSampler:
    """Draws batches of pairs × rules; like `csrm.training.sampler.Sampler`, a function of (seed, step)."""

    def __init__(
        self,
        pairs: Sequence[PreferenceRow],
        rules: Sequence[Clause],
        critical_PK: NDArray[np.bool_],
        *,
        batch_rows: int,
        seed: int,
    ):
        """Prepare to draw.

        Args:
            pairs: what to draw from.
            rules: the columns of every batch.
            critical_PK: which of them were chosen of which pair.
            batch_rows: pairs per batch, at most all.
            seed: with the step, the only source of randomness.
        """
        self.rows = [
            LabelledRow(id=pair.id, domain="", conversation=pair_conversation(pair), clauses=(), violated=())
            for pair in pairs
        ]
        self.rules, self.critical_PK = list(rules), critical_PK
        self.batch_rows, self.seed = min(batch_rows, len(self.rows)), seed

    def draw(self, step: int) -> Batch:
        """The batch of a step."""
        rng = np.random.default_rng([self.seed, step])
        chosen = rng.choice(len(self.rows), size=self.batch_rows, replace=False)
        index_RKM = np.broadcast_to(np.arange(len(self.rules))[None, :, None], (len(chosen), len(self.rules), 1))
        return Batch(
            rows=[self.rows[r] for r in chosen],
            clauses=self.rules,
            index_RKM=index_RKM.copy(),
            complies_RK=~self.critical_PK[chosen],
        )


def critical(
    adapter: CSRM, pairs: Sequence[PreferenceRow], rules: Sequence[Configuration], *, batch_tokens: int | None = None
) -> NDArray[np.float32]:
    """How surely each rule is among those that decide each pair, in [0, 1], (P, K).

    Args:
        adapter: a model trained on `RuleSampler`'s batches.
        pairs: in either order.
        rules: configurations of one clause each.
        batch_tokens: tokens per pass, which bounds memory; default by device.
    """
    encoded = adapter.encoder.encode([pair_conversation(pair) for pair in pairs])
    scores = adapter.score_encoded(encoded, adapter.prepare(rules), batch_tokens=batch_tokens)
    return 1 - scores.p_safe


@torch.inference_mode()
def rate_chosen(
    model: CSRM, conversations: Sequence[list[Message]], rules: Sequence[Configuration], chosen_Rk: NDArray[np.int64]
) -> NDArray[np.float32]:
    """p_safe of conversations under some rules each, and no others, (R, k).

    Args:
        model: what rates.
        conversations: the last message is rated.
        rules: the pool, configurations of one clause each.
        chosen_Rk: rules of each conversation.
    """
    if model.layout.num_probes and any(rule.context for rule in rules):  # which probes read, and batches do not hold
        return np.take_along_axis(model.score(conversations, rules).p_safe, chosen_Rk, axis=1)
    rated = np.empty(chosen_Rk.shape, np.float32)
    order = sorted(range(len(conversations)), key=lambda r: sum(len(m.content) for m in conversations[r]))
    fingerprints = np.array([rule.fingerprint for rule in rules])
    for start in range(0, len(order), BATCH_RECORDS):
        records = order[start : start + BATCH_RECORDS]
        used, index_Rk = np.unique(chosen_Rk[records], return_inverse=True)
        batch = Batch(
            rows=[
                LabelledRow(id=str(r), domain="", conversation=conversations[r], clauses=(), violated=())
                for r in records
            ],
            clauses=[rules[rule].clauses[0] for rule in used],
            index_RKM=index_Rk.reshape(*chosen_Rk[records].shape, 1),
            complies_RK=np.zeros(chosen_Rk[records].shape, bool),
        )
        reward_Rk = batch_reward(model, batch)[0].float().cpu().numpy()
        cells = fingerprints[chosen_Rk[records]].ravel().tolist()
        rated[records] = model.calibration.p_safe(reward_Rk.ravel(), cells).reshape(reward_Rk.shape)
    return rated
