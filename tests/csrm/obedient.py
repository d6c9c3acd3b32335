"""Stand-ins for models whose behaviour is known: one obeys its configuration to the letter, one never reads it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from csrm import Calibration, Clause
from csrm.labelled import LabelledRow
from csrm.matrix import ComplianceMatrix, Scores
from csrm.messages import Message


class Obedient:
    """Reward −3 where a clause's category is named in the last message and the clause does not allow it, else 3."""

    layout = SimpleNamespace(num_probes=0)
    dtype = "exact"

    def __init__(self, calibration: Calibration = Calibration()):  # noqa: B008
        self.calibration = calibration

    def clashes(self, message: str, clauses) -> bool:
        words = message.split()
        return any(clause.category in words and "allowed" not in clause.guideline for clause in clauses)

    def score(self, conversations, configurations):
        clash = [[self.clashes(talk[-1].content, c.clauses) for c in configurations] for talk in conversations]
        reward = np.where(np.array(clash, dtype=bool), -3.0, 3.0).astype(np.float32)
        fingerprints = [configuration.fingerprint for configuration in configurations]
        return ComplianceMatrix(
            record_ids=[str(n) for n in range(len(conversations))],
            configuration_ids=[configuration.id for configuration in configurations],
            thresholds=np.array([configuration.threshold for configuration in configurations], np.float32),
            scores=Scores(reward=reward, p_safe=self.calibration.p_safe(reward, fingerprints)),
            categories=[[clause.category for clause in c.clauses] for c in configurations],
        )


class Deaf(Obedient):
    """Reads no configuration: whatever names one of the forbidden words is unsafe."""

    def clashes(self, message: str, clauses) -> bool:
        return any(word in message.split() for word in CATEGORIES)


CATEGORIES = ("arson", "theft", "fraud", "libel")


def judgement_rows(num_rows: int = 24) -> list[LabelledRow]:
    """Four clauses each; every third row violates none, every seventh two, the rest one."""
    clauses = tuple(Clause(category=name, guideline=f"no {name} here") for name in CATEGORIES)
    rows = []
    for n in range(num_rows):
        named = [] if n % 3 == 0 else [CATEGORIES[n % 4]] + ([CATEGORIES[(n + 1) % 4]] if n % 7 == 0 else [])
        talk = [Message("user", f"question {n // 2}"), Message("assistant", " ".join(["tell", "of", *named]))]
        violated = tuple(name in named for name in CATEGORIES)
        rows.append(LabelledRow(id=str(n), domain="d", conversation=talk, clauses=clauses, violated=violated))
    return rows
