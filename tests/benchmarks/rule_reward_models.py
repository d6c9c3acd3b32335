"""Reward models trained on labels by rules against one trained on people's labels: same pairs, steps and seed.

    python tests/benchmarks/rule_reward_models.py --pairs hh_harmless_preferences.jsonl.gz \
        --backbone all-MiniLM-L6-v2/ --rater first-edition/ > tests/benchmarks/rule_reward_models.jsonl

Pairs whose split is "train" are labelled by a rater's ratings on the bundled pool; a new CSRM on the backbone learns
from each set of labels by the preference loss alone, under the general policy; it is judged by how often the reply
that people preferred gets the larger reward, on pairs whose split is "eval", with a 95 % interval over prompts.

csrm-mini has learned the train half's own preferences and would label it from memory, so the rater is csrm-mini's first
edition (at 52ecbdf), which has seen no preference. A tie counts as the other order.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import csrm
from csrm.batch import Batch
from csrm.checkpoint import from_backbone
from csrm.configurations import Configuration
from csrm.evaluation.bootstrap import cluster_numbers, resamples
from csrm.labelled import LabelledRow, PreferenceRow, read_preferences
from csrm.model import Layout
from csrm.rule_selection import NUM_RULES, label, label_pairs, ratings
from csrm.rules import load_rules, relevance_to_requests
from csrm.training.options import TrainOptions
from csrm.training.trainer import train

GENERAL = Path(csrm.__file__).parent / "sample" / "configurations" / "general_safety.yaml"
NUM_RESAMPLES = 1_000


class PairSampler:
    """Draws batches of pairs under one configuration, epoch after epoch."""

    def __init__(self, pairs: Sequence[PreferenceRow], configuration: Configuration, *, batch_pairs: int, seed: int):
        self.pairs, self.clauses = pairs, list(configuration.clauses)
        self.batch_pairs, self.seed = batch_pairs, seed

    def draw(self, step: int) -> Batch:
        """The batch of a step: cell 2 p is the chosen reply of pair p, cell 2 p + 1 the rejected one."""
        per_epoch = len(self.pairs) // self.batch_pairs
        order = np.random.default_rng([self.seed, step // per_epoch]).permutation(len(self.pairs))
        start = step % per_epoch * self.batch_pairs
        replies = [reply for p in order[start : start + self.batch_pairs] for reply in self.pairs[p].replies()]
        index_RKM = np.broadcast_to(np.arange(len(self.clauses)), (len(replies), 1, len(self.clauses)))
        return Batch(
            rows=[LabelledRow(id="", domain="", conversation=own, clauses=(), violated=()) for own in replies],
            clauses=self.clauses,
            index_RKM=index_RKM.copy(),
            complies_RK=np.zeros((len(replies), 1), bool),
            unknown_RK=np.ones((len(replies), 1), bool),
            preference_P2=np.arange(len(replies)).reshape(-1, 2),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--rater", help="a model folder; default: the embedded csrm-mini")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-pairs", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    pairs = read_preferences(options.pairs)
    training, held = ([pair for pair in pairs if pair.split == split] for split in ("train", "eval"))
    [configuration] = csrm.load_configurations(GENERAL)
    num_steps = options.epochs * (len(training) // options.batch_pairs)
    for name, label_P in labels(csrm.CSRM.from_pretrained(options.rater), training, options.seed):
        model = from_backbone(options.backbone, Layout())
        started = time.perf_counter()
        sampler = PairSampler(
            turned(training, label_P), configuration, batch_pairs=options.batch_pairs, seed=options.seed
        )
        train(model, sampler, TrainOptions(num_steps=num_steps, gamma=1.0, seed=options.seed))
        seconds = time.perf_counter() - started
        shared = {
            "labels": name,
            "label_accuracy": round(float((label_P > 0).mean()), 4),
            "pairs": len(training),
            "steps": num_steps,
            "batch_pairs": options.batch_pairs,
            "seed": options.seed,
            "train_s": round(seconds, 1),
            "versions": {one: version(one) for one in ("csrm", "torch", "transformers")},
        }
        print(json.dumps(shared | accuracy(model, held, configuration)), flush=True)


def labels(rater: csrm.CSRM, pairs: Sequence[PreferenceRow], seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """Labels (P,) by name, +1 where they agree with people."""
    rules = load_rules()
    replies = [reply for pair in pairs for reply in pair.replies()]
    rated_RK = ratings(rater.score(replies, rules).p_safe)
    related_PK = relevance_to_requests(rater, replies[::2], rules)
    first_PK, second_PK = rated_RK[::2], rated_RK[1::2]

    def by(chosen: np.ndarray) -> np.ndarray:
        return label(first_PK, second_PK, np.broadcast_to(chosen, (len(pairs), len(chosen))))[0]

    yield "human", np.ones(len(pairs), int)
    yield "adaptive 5", label_pairs(first_PK, second_PK, related_PK).label_P
    yield "all 100", by(np.arange(len(rules)))
    yield "random 5", by(np.random.default_rng(seed).choice(len(rules), NUM_RULES, replace=False))


def turned(pairs: Sequence[PreferenceRow], label_P: np.ndarray) -> list[PreferenceRow]:
    """Pairs as labels have them."""
    return [
        pair
        if own > 0
        else PreferenceRow(
            id=pair.id, conversation=pair.conversation, chosen=pair.rejected, rejected=pair.chosen, split=pair.split
        )
        for pair, own in zip(pairs, label_P, strict=True)
    ]


def accuracy(model: csrm.CSRM, pairs: Sequence[PreferenceRow], configuration: Configuration) -> dict[str, Any]:
    reward = model.score([reply for pair in pairs for reply in pair.replies()], [configuration]).reward[:, 0]
    is_right = (reward[::2] > reward[1::2]).astype(float)
    clusters = cluster_numbers([tuple(pair.conversation) for pair in pairs])
    weight_BP = np.concatenate(list(resamples(clusters, NUM_RESAMPLES, 0)))
    ends = np.quantile(weight_BP @ is_right / weight_BP.sum(axis=1), [0.025, 0.975])
    return {
        "accuracy": round(float(is_right.mean()), 4),
        "accuracy_95": [round(float(end), 4) for end in ends],
        "eval_pairs": len(pairs),
    }


if __name__ == "__main__":
    main()
