"""A model of the same backbone that never reads the configuration: what conditioning has to beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from csrm.labelled import LabelledRow
from csrm.model import CSRM

__all__ = ["BlindBaseline"]

BATCH_ROWS = 64


class BlindBaseline:
    """Logistic regression on a text's pooled vector: how far one gets without ever reading the configuration."""

    def __init__(self, model: CSRM, rows: Sequence[LabelledRow], *, l2: float = 1e-3, num_steps: int = 50):
        """Fit on rows labelled by whether they violate any of their own clauses, by L-BFGS."""
        features = self._features(model, rows)
        violates = torch.tensor([any(row.violated) for row in rows], dtype=torch.float32)
        self.linear = torch.nn.Linear(features.shape[1], 1)
        torch.nn.init.zeros_(self.linear.weight)  # a convex problem: the same answer from everywhere
        torch.nn.init.zeros_(self.linear.bias)
        optimiser = torch.optim.LBFGS(self.linear.parameters(), max_iter=num_steps, line_search_fn="strong_wolfe")

        def closure() -> torch.Tensor:
            optimiser.zero_grad()
            logits = self.linear(features).squeeze(1)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, violates)
            loss = loss + l2 * self.linear.weight.square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimiser.step(closure)  # type: ignore[no-untyped-call]

    def score(self, model: CSRM, rows: Sequence[LabelledRow]) -> NDArray[np.float32]:
        """Log-odds of violation, (num_rows,); a row that is there several times is read once."""
        number = {key: n for n, key in enumerate(dict.fromkeys(map(id, rows)))}
        distinct = list({id(row): row for row in rows}.values())
        with torch.no_grad():
            logits = self.linear(self._features(model, distinct)).squeeze(1).numpy()
        return np.asarray(logits[[number[id(row)] for row in rows]], np.float32)

    def _features(self, model: CSRM, rows: Sequence[LabelledRow]) -> torch.Tensor:
        """Unit pooled vectors of the rows' last windows, float32 (num_rows, hidden_size), ten times as long."""
        encoded = model.encoder.encode([row.conversation for row in rows])
        windows, firsts = encoded.windows(), np.cumsum(encoded.windows_per_record) - 1
        features = torch.empty(len(rows), model.backbone.config.hidden_size)
        order = sorted(range(len(rows)), key=lambda r: len(windows[firsts[r]]))
        for start in range(0, len(order), BATCH_ROWS):
            chosen = order[start : start + BATCH_ROWS]
            with torch.inference_mode():
                pooled = model.encode_windows(
                    [windows[firsts[r]] for r in chosen],
                    [int(encoded.judged_starts[firsts[r]]) for r in chosen],
                ).pooled_BE
            features[chosen] = torch.nn.functional.normalize(pooled, dim=-1).cpu() * 10
        return features
