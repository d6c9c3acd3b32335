"""What an adapter recalls of the rules that were chosen, what its labels are worth, and what passes over rules cost.

    csrm rules rate hh_harmless_preferences.jsonl.gz -o rated --id-column id --keep-columns split
    csrm rules select rated -o labels.parquet          # then cut by `split` into labels_train and labels_eval
    csrm rules train-adapter labels_train.parquet --holdout-rules 20 --output adapter
    python tests/benchmarks/rule_adapter.py --adapter adapter --pairs hh_harmless_preferences.jsonl.gz

Pairs are those whose split is "eval"; the better reply is the first. Of each pair the criterion's five rules are
found from ratings on the whole pool. *Recall* is the share of them among the five that the adapter names: of all
rules, of those that it was trained on, of those that it was not (each looked for among the whole pool), and, within
the rules that it was not trained on, of the criterion's five among these. *Tokens* are those read per pair.

The last line is the cost of rating on a pool in one pass against a pass for each rule, on a sample, in turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import csrm
from csrm.evaluation.bootstrap import cluster_numbers, resamples
from csrm.labelled import PreferenceRow, read_preferences
from csrm.rule_adapter import critical, pair_conversation, rate_chosen
from csrm.rule_selection import NUM_RULES, choose, criterion, label, ratings
from csrm.rules import load_rules, relevance_to_requests, request

NUM_RESAMPLES, SEED, REPEATS = 1_000, 0, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--sample", type=int, default=32, help="pairs on which passes are timed")
    options = parser.parse_args()
    pairs = [pair for pair in read_preferences(options.pairs) if pair.split == "eval"]
    model, adapter = csrm.CSRM.from_pretrained(), csrm.CSRM.from_pretrained(options.adapter)
    shared = {
        "seed": SEED,
        "model": model.fingerprint[:12],
        "adapter": adapter.fingerprint[:12],
        "versions": {name: version(name) for name in ("csrm", "torch", "transformers", "numpy")},
    }
    print(json.dumps(measure_adapter(adapter, model, pairs) | shared), flush=True)
    print(json.dumps(measure_passes(model, pairs[: options.sample]) | shared), flush=True)


def measure_adapter(adapter: csrm.CSRM, model: csrm.CSRM, pairs: list[PreferenceRow]) -> dict[str, Any]:
    rules = load_rules()
    replies = [reply for pair in pairs for reply in pair.replies()]
    rated_RK = ratings(model.score(replies, rules).p_safe)
    requests = [request(pair.replies()[0]) for pair in pairs]
    related_PK = relevance_to_requests(model, replies[::2], rules)
    first_PK, second_PK = rated_RK[::2], rated_RK[1::2]
    criterion_PK, named_PK = criterion(related_PK, first_PK, second_PK), critical(adapter, pairs, rules)
    is_unseen_K = np.isin([rule.id for rule in rules], adapter.facts["unseen_rules"])
    chosen, named = best(criterion_PK), best(named_PK)
    within = best(criterion_PK[:, is_unseen_K]), best(named_PK[:, is_unseen_K])
    named_Pk = choose(named_PK)
    rated = [ratings(rate_chosen(model, replies[side::2], rules, named_Pk)) for side in (0, 1)]
    by_adapter = label(*rated, np.broadcast_to(np.arange(NUM_RULES), named_Pk.shape))[0]
    by_criterion = label(first_PK, second_PK, choose(criterion_PK))[0]
    by_all = label(first_PK, second_PK, np.broadcast_to(np.arange(len(rules)), first_PK.shape))[0]
    weight_BP = np.concatenate(
        list(resamples(cluster_numbers([tuple(pair.conversation) for pair in pairs]), NUM_RESAMPLES, SEED))
    )

    def share(columns_K: np.ndarray) -> float:
        return round(float((chosen & named)[:, columns_K].sum() / chosen[:, columns_K].sum()), 4)

    def accuracy(labels: np.ndarray) -> dict[str, Any]:
        right = labels == 1
        ends = np.quantile(weight_BP @ right / weight_BP.sum(axis=1), [0.025, 0.975])
        return {"accuracy": round(float(right.mean()), 4), "accuracy_95": [round(float(end), 4) for end in ends]}

    difference = (weight_BP @ ((by_adapter == 1).astype(float) - (by_all == 1))) / weight_BP.sum(axis=1)
    return {
        "what": "adapter",
        "pairs": len(pairs),
        "rules": len(rules),
        "unseen_rules": int(is_unseen_K.sum()),
        "recall": share(np.ones(len(rules), bool)),
        "recall_seen": share(~is_unseen_K),
        "recall_unseen": share(is_unseen_K),
        "recall_within_unseen": round(float((within[0] & within[1]).sum() / within[0].sum()), 4),
        "chance": NUM_RULES / len(rules),
        "chance_within_unseen": NUM_RULES / int(is_unseen_K.sum()),
        "by_adapter": accuracy(by_adapter),
        "by_criterion": accuracy(by_criterion),
        "by_all": accuracy(by_all),
        "adapter_ahead_of_all": round(float((by_adapter == 1).mean() - (by_all == 1).mean()), 4),
        "adapter_ahead_of_all_95": [round(float(end), 4) for end in np.quantile(difference, [0.025, 0.975])],
        "tokens_of_replies": tokens(model, replies, len(pairs)),
        "tokens_of_requests": tokens(model, requests, len(pairs)),
        "tokens_of_adapter": tokens(adapter, [pair_conversation(pair) for pair in pairs], len(pairs)),
        "tokens_of_pool": int(
            sum(len(ids) for ids in model.encoder.encode_clauses([r.clauses[0].text for r in rules]))
        ),
    }


def best(values_PK: np.ndarray) -> np.ndarray:
    """Where the largest values of each pair stand, (P, K)."""
    found = np.zeros(values_PK.shape, bool)
    np.put_along_axis(found, choose(values_PK), True, axis=1)
    return found


def tokens(model: csrm.CSRM, conversations: list[Any], num_pairs: int) -> float:
    return round(len(model.encoder.encode(conversations).input_ids) / num_pairs, 1)


def measure_passes(model: csrm.CSRM, pairs: list[PreferenceRow]) -> dict[str, Any]:
    """One pass over all rules against one pass per rule, over the same replies, in turns."""
    rules = load_rules()
    replies = [reply for pair in pairs for reply in pair.replies()]
    together, apart, difference = [], [], 0.0
    for turn in range(REPEATS + 1):
        whole, seconds = timed(lambda: model.score(replies, rules).reward)
        single, each = timed(lambda: np.concatenate([model.score(replies, [rule]).reward for rule in rules], axis=1))
        difference = max(difference, float(np.abs(whole - single).max()))
        if turn:  # the first warms up
            together.append(seconds)
            apart.append(each)
    ratios = [one / other for one, other in zip(apart, together, strict=True)]
    pairs_per_s = len(pairs) / statistics.median(together)
    return {
        "what": "passes",
        "pairs": len(pairs),
        "rules": len(rules),
        "ratio": round(statistics.median(ratios), 1),
        "ratios": [round(ratio, 1) for ratio in ratios],
        "largest_difference": difference,
        "pairs_per_s": round(pairs_per_s, 2),
        "minutes_for_10000_pairs": round(10_000 / pairs_per_s / 60, 1),
    }


def timed(work: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    started = time.perf_counter()
    return work(), time.perf_counter() - started


if __name__ == "__main__":
    main()
