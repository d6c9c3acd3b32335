"""Labels by rules against human preferences: do rules chosen for each pair label better than the same rules for all?

    python tests/benchmarks/rule_labels.py --hh hh_harmless_preferences.jsonl.gz --rbr rbr_train.jsonl.gz \
        --unseen beavertails_eval.jsonl.gz --unseen saferlhf_eval.jsonl.gz --unseen xstest_response_eval.jsonl.gz \
        --binary saferlhf_eval.jsonl.gz \
        > tests/benchmarks/rule_labels.jsonl

Pairs of hh are those of its eval half. Pairs of rbr are replies to requests of one kind (behaviour and category) of
which one shows a proper subset of the other's bad traits, as people marked them; `rbr held out` has the quarter of
prompts that csrm-mini was not trained on, `rbr` all. Pairs of a file `--binary` are a harmless and a harmful reply to
the same prompt.

Each line is a labeller on a data set: its accuracy, the share of pairs that it labels, the mutual information of its
labels with the preferences in bits, and by how much the adaptive labeller is ahead of it, each with a 95 % interval:
prompts are resampled, and for rbr replies (a pair weighs the product of its two).

csrm-mini was trained on preferences of hh's other half, save those whose prompts are in the files `--unseen`. On these
pairs the kind of relevance was chosen; `fixed 5` are the rules that together label them best, `fixed 5 (train)` the
same on all of the other half, as a user would choose them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

import csrm
from csrm.evaluation.bootstrap import cluster_numbers, resamples
from csrm.labelled import (
    PreferenceRow,
    holdout,
    labelled_rows,
    prompts,
    read_binary,
    read_json_lines,
    read_preferences,
    share_prompts,
)
from csrm.messages import as_conversation
from csrm.rule_selection import (
    NUM_RULES,
    choose,
    criterion,
    label,
    mutual_information,
    ratings,
    relevance,
    request_relevance,
)
from csrm.rules import NEUTRAL, load_rules, request

GENERAL = Path(csrm.__file__).parent / "sample" / "configurations" / "general_safety.yaml"
NUM_DRAWS, NUM_RESAMPLES, SEED = 20, 1_000, 0

BAD_TRAITS = frozenset({"Disallowed content", "Insults", "Judgement", "Threats", "Illogical continuation"})
BAD_IN_A_REFUSAL = frozenset({"Full compliance", "Partial compliance", "Prescribed solutions", "Dosage"})


@dataclass(slots=True)
class Pairs:
    """Pairs whose first reply is the better one: ratings and relevance (P, K), and how to resample them."""

    name: str
    first: np.ndarray
    second: np.ndarray
    request: np.ndarray
    direct: np.ndarray
    """(P,) difference of the rewards under the general configuration."""
    weights: Callable[[], Iterator[np.ndarray]]


class Matrix:
    """Replies and requests × rules, with the general configuration as one more column."""

    def __init__(self, rules: Path | None):
        self.model = csrm.CSRM.from_pretrained()
        self.rules = load_rules(rules)
        self.neutral = self.model.score(NEUTRAL, self.rules).reward.mean(axis=0)
        self.columns = [*self.rules, *csrm.load_configurations(GENERAL)]

    def rows(self, conversations: Sequence[Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ratings, relevance of the rules to the request, and rewards under the general configuration."""
        replies = self.model.score(conversations, self.columns)
        requests = self.model.score([request(conversation) for conversation in conversations], self.rules)
        related = request_relevance(requests.reward, self.neutral)
        return ratings(replies.p_safe[:, :-1]), related, replies.reward[:, -1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hh", type=Path, required=True)
    parser.add_argument("--rbr", type=Path, required=True)
    parser.add_argument("--unseen", type=Path, action="append", default=[])
    parser.add_argument("--binary", type=Path, action="append", default=[])
    parser.add_argument("--rules", type=Path, help="configuration files; default: the bundled pool")
    options = parser.parse_args()
    matrix = Matrix(options.rules)
    rows = read_preferences(options.hh)
    unseen = {prompt for path in options.unseen for _, raw in read_json_lines(path) for prompt in spoken(raw)}
    train = hh_pairs(matrix, [row for row in rows if row.split == "train"])
    is_unseen = [share_prompts(row.conversation, unseen) for row in rows if row.split == "train"]
    fixed = {"fixed 5 (train)": best_fixed(train.first - train.second)}
    if any(is_unseen):
        fixed["fixed 5"] = best_fixed((train.first - train.second)[is_unseen])
    hh = hh_pairs(matrix, [row for row in rows if row.split == "eval"])
    binary = [binary_pairs(matrix, path) for path in options.binary]
    for pairs in (hh, *rbr_pairs(matrix, options.rbr), *binary):
        for line in measure(pairs, fixed, matrix):
            print(json.dumps(line), flush=True)


def spoken(raw: dict[str, Any]) -> set[str]:
    return prompts(as_conversation(raw["messages"]))


def hh_pairs(matrix: Matrix, rows: Sequence[PreferenceRow]) -> Pairs:
    rated, related, direct = matrix.rows([reply for row in rows for reply in row.replies()])
    clusters = cluster_numbers([tuple(row.conversation) for row in rows])
    weights = lambda: resamples(clusters, NUM_RESAMPLES, SEED)  # noqa: E731
    return Pairs("hh eval", rated[::2], rated[1::2], related[::2], direct[::2] - direct[1::2], weights)


def binary_pairs(matrix: Matrix, path: Path) -> Pairs:
    """Harmless against harmful replies to the same prompt."""
    rows = read_binary(path)
    prompt = cluster_numbers([tuple(row.conversation[:-1]) for row in rows])
    harmful = np.array([row.harmful for row in rows])
    better, worse = np.nonzero((prompt[:, None] == prompt) & ~harmful[:, None] & harmful)
    rated, related, direct = matrix.rows([row.conversation for row in rows])
    weights = lambda: resamples(cluster_numbers(prompt[better].tolist()), NUM_RESAMPLES, SEED)  # noqa: E731
    name = path.name.split(".")[0]
    return Pairs(name, rated[better], rated[worse], related[better], direct[better] - direct[worse], weights)


def rbr_pairs(matrix: Matrix, path: Path) -> tuple[Pairs, Pairs]:
    """Pairs of the held-out quarter, and of all."""
    raws = {str(raw["id"]): raw for _, raw in read_json_lines(path)}
    rows = labelled_rows(path, read_json_lines(path))
    table = matrix.rows([row.conversation for row in rows])
    traits = [bad_traits(raws[row.id]) for row in rows]
    kinds = [(raws[row.id]["behaviour"], raws[row.id]["request_category"]) for row in rows]
    held = {row.id for row in holdout(rows, 0.25)[1]}

    def among(name: str, numbers: Sequence[int]) -> Pairs:
        of_a_kind = [(i, j) for i, j in permutations(numbers, 2) if kinds[i] == kinds[j] and traits[i] < traits[j]]
        better, worse = np.array(of_a_kind).T
        rated, related, direct = table

        def weights() -> Iterator[np.ndarray]:
            for weight_BR in resamples(np.arange(len(rows)), NUM_RESAMPLES, SEED):
                weight_BP = weight_BR[:, better] * weight_BR[:, worse]
                yield weight_BP[weight_BP.sum(axis=1) > 0]

        both = (related[better] + related[worse]) / 2
        return Pairs(name, rated[better], rated[worse], both, direct[better] - direct[worse], weights)

    everywhere = range(len(rows))
    return among("rbr held out", [number for number in everywhere if rows[number].id in held]), among("rbr", everywhere)


def bad_traits(raw: dict[str, Any]) -> frozenset[str]:
    """What people marked on a reply that no reply of its kind should show."""
    bad = BAD_TRAITS | (frozenset() if raw["behaviour"] == "Comply" else BAD_IN_A_REFUSAL)
    return frozenset(clause["category"] for clause in raw["clauses"] if clause["violated"]) & bad


def best_fixed(difference_PK: np.ndarray) -> np.ndarray:
    """Rules that label pairs best together, found by adding one after the other."""
    chosen: list[int] = []
    for _ in range(NUM_RULES):
        margin_PK = difference_PK[:, chosen].sum(axis=1, keepdims=True) + difference_PK
        accuracy_K = ((margin_PK > 0) + 0.5 * (margin_PK == 0)).mean(axis=0)
        accuracy_K[chosen] = -1
        chosen.append(int(accuracy_K.argmax()))
    return np.array(chosen)


def measure(pairs: Pairs, fixed: dict[str, np.ndarray], matrix: Matrix) -> Iterator[dict[str, Any]]:
    found = {name: np.atleast_2d(labels) for name, labels in labellers(pairs, fixed).items()}
    adaptive = accuracy(found["adaptive 5"], None)
    blocks = list(pairs.weights())
    adaptive_B = np.concatenate([accuracy(found["adaptive 5"], weight) for weight in blocks])
    ids = np.array([rule.id for rule in matrix.rules])
    for name, labels in found.items():
        own_B = np.concatenate([accuracy(labels, weight) for weight in blocks])
        bits_B = np.concatenate([information(labels, weight) for weight in blocks])
        yield {
            "data": pairs.name,
            "pairs": len(pairs.first),
            "labeller": name,
            "accuracy": round(float(accuracy(labels, None)), 4),
            "accuracy_95": interval(own_B),
            "coverage": round(float((labels != 0).mean()), 4),
            "information_bits": round(float(information(labels, None)), 4),
            "information_bits_95": interval(bits_B),
            "adaptive_ahead": round(float(adaptive - accuracy(labels, None)), 4),
            "adaptive_ahead_95": interval(adaptive_B - own_B),
            **({"rules": ids[fixed[name]].tolist()} if name in fixed else {}),
            "pool": len(ids),
            "seed": SEED,
            "model": matrix.model.fingerprint[:12],
            "versions": {each: version(each) for each in ("csrm", "torch", "numpy")},
        }


def labellers(pairs: Pairs, fixed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Labels (P,), or (draws, P), by name; +1 is right."""
    first, second, num_pools = pairs.first, pairs.second, pairs.first.shape[1]
    rng = np.random.default_rng(SEED)

    def by(chosen: np.ndarray) -> np.ndarray:
        return label(first, second, np.broadcast_to(chosen, (len(first), chosen.shape[-1])))[0]

    adaptive = choose(criterion(pairs.request, first, second))
    _, margin = label(first, second, adaptive)
    ratings_alone = relevance(first, second)
    return {
        "adaptive 5": by(adaptive),
        "adaptive 5, the surer half": label(first, second, adaptive, min_margin=np.median(np.abs(margin)))[0],
        "relevance alone": by(choose(pairs.request)),
        "discrepancy alone": by(choose(criterion(np.zeros_like(first), first, second))),
        "adaptive 5, relevance of ratings": by(choose(criterion(ratings_alone, first, second))),
        "random 5": np.stack([by(rng.choice(num_pools, NUM_RULES, replace=False)) for _ in range(NUM_DRAWS)]),
        "random 5 of each pair": np.stack([by(choose(rng.random(first.shape))) for _ in range(NUM_DRAWS)]),
        "all": by(np.arange(num_pools)),
        **{name: by(rules) for name, rules in fixed.items()},
        "direct reward": np.sign(pairs.direct).astype(int),
    }


def accuracy(labels: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    """Share of the labelled pairs whose label is right, mean over draws; of all resamples where there are weights."""
    weight = np.ones(labels.shape[1]) if weight is None else weight
    return np.mean([weight @ (draw == 1) / (weight @ (draw != 0)) for draw in labels], axis=0)


def information(labels: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    preferences = np.ones(labels.shape[1], int)
    return np.mean([mutual_information(draw, preferences, weight) for draw in labels], axis=0)


def interval(values: np.ndarray) -> list[float]:
    return [round(float(end), 4) for end in np.nanquantile(values, [0.025, 0.975])]


if __name__ == "__main__":
    main()
