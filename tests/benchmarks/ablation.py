"""What does each part of the recipe buy? The same rows, seed and steps, with one part taken out.

    csrm strictness --data … --unfiltered --output pairs.json
    python tests/benchmarks/ablation.py DATA_FOLDER BACKBONE pairs.json --steps 100 >> tests/benchmarks/ablation.jsonl

DATA_FOLDER holds the files of csrm-mini/README.md, "How to retrain". Without category augmentation a row meets its
own labelled clauses only: none is presumed kept, none is turned into a permission. Prints a JSON line per variant:
AUROC on held-out rows, pairwise accuracy on held-out pairs of replies, the share of (text, pair of guidelines) whose
reward is higher under the lenient one, and how far leaving out or allowing the violated clause lowers the unsafe rate.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import csrm
from csrm.augmentation import Recipe
from csrm.checkpoint import from_backbone
from csrm.clause_library import ClauseLibrary
from csrm.configurations import Configuration
from csrm.dice import one_of
from csrm.evaluation.cells import sample
from csrm.evaluation.figures import NO_INTERVALS, per_clause
from csrm.evaluation.flip_probes import flip, single_violations
from csrm.evaluation.suites import counterfactual, own_clauses, preferences
from csrm.labelled import holdout, read_labelled, read_preferences
from csrm.strictness import StrictnessPair, guideline
from csrm.training.sampler import Sampler, TrainingData
from csrm.training.trainer import TrainOptions, make_sampler, train
from jobs.demo import SAMPLE_CONFIGURATIONS
from jobs.train_data import Sources, read_material

VARIANTS = (
    "everything",
    "without category augmentation",
    "without strictness",
    "without preference loss",
    "without evidence loss",
)


def without(variant: str, data: TrainingData, options: TrainOptions) -> tuple[TrainingData, TrainOptions]:
    """Data and settings of a variant, other than the clauses that rows meet."""
    match variant:
        case "without category augmentation":
            return data, replace(options, recipe=replace(options.recipe, num_permissions=0, num_extra_clauses=0))
        case "without strictness":
            return replace(data, strictness=()), options
        case "without preference loss":
            return replace(data, preferences=()), options
        case "without evidence loss":
            return data, replace(options, delta=0)
        case _:
            return data, options


def labels_alone(sampler: Sampler) -> None:
    """Let rows meet their own clauses only, with their own labels."""
    domains = frozenset(row.domain for row in sampler.data.rows)
    sampler.library = ClauseLibrary(sampler.data.rows, conduct_domains=domains)


def train_variant(model: csrm.CSRM, variant: str, data: TrainingData, options: TrainOptions) -> None:
    """Train in place."""
    data, options = without(variant, data, options)
    sampler = make_sampler(model, data, options)
    if variant == "without category augmentation":
        labels_alone(sampler)
    train(model, sampler, options)


def order_holds(model: csrm.CSRM, rows: list[Any], pairs: tuple[StrictnessPair, ...]) -> float:
    """Share of (text, pair) whose reward is higher under the lenient guideline than under the strict one."""
    rng = np.random.default_rng(0)
    some = [one_of(pairs, rng) for _ in range(100)]
    sides = [
        Configuration(id=f"{side}_{n}", clauses=[guideline(pair.ladder, getattr(pair, side), np.random.default_rng(n))])
        for side in ("lenient", "strict")
        for n, pair in enumerate(some)
    ]
    lenient, strict = np.split(model.score([row.conversation for row in rows], sides).reward, 2, axis=1)
    return float((lenient > strict).mean())


def judge(model: csrm.CSRM, files: Path, rbr_held: list[Any], pairs: tuple[StrictnessPair, ...]) -> dict[str, float]:
    """All figures of a variant."""
    rng = np.random.default_rng(0)
    polyguard = sample(read_labelled(files / "polyguard_eval.jsonl.gz"), 800, rng)
    moderation = sample(read_labelled(files / "openai_moderation_eval.jsonl.gz"), 500, rng)
    replies = [row for row in read_preferences(files / "hh_harmless_preferences.jsonl.gz") if row.split == "eval"]
    general = next(c for c in csrm.load_configurations(SAMPLE_CONFIGURATIONS) if c.id == "general_safety")
    diasafety = read_labelled(files / "diasafety_eval.jsonl.gz")
    obedience = flip(model, single_violations(moderation), NO_INTERVALS)
    return {
        "polyguard_eval": counterfactual(model, polyguard, None, NO_INTERVALS, same_domain=False)["auroc"],
        "diasafety_eval": own_clauses(model, diasafety, None, NO_INTERVALS)["auroc"],
        "rbr_held_out": float(np.nanmean(list(per_clause(model, rbr_held).values()))),
        "openai_moderation_eval": float(np.nanmean(list(per_clause(model, moderation).values()))),
        "hh_pairwise_accuracy": preferences(model, replies, general)["pairwise_accuracy"],
        "strictness_order": order_holds(model, sample(diasafety, 300, rng), pairs),
        "fall_left_out": obedience["fall_left_out"],
        "fall_allowed": obedience["fall_allowed"],
    }


def main() -> None:
    """Train and judge the variants."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("backbone")
    parser.add_argument("pairs", help="what `csrm strictness` wrote")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch-rows", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    given = parser.parse_args()

    def file(name: str) -> str:
        return str(given.data / f"{name}.jsonl.gz")

    sources = Sources(
        data=[*map(file, ("polyguard_train", "polyguard_cyber_train", "diasafety_train")), file("rbr_train") + "@0.25"],
        preferences=[file("hh_harmless_preferences")],
        strictness_pairs=given.pairs,
        num_exchanges=30_000,
    )
    material = read_material(sources, max_characters=4_000, seed=given.seed)
    _, rbr_held = holdout(read_labelled(file("rbr_train")), 0.25)
    options = TrainOptions(
        num_steps=given.steps,
        batch_rows=given.batch_rows,
        batch_preferences=4,
        gamma=0.3,
        seed=given.seed,
        recipe=Recipe(num_extra_clauses=12, num_permissions=12),
    )
    for variant in given.only:
        torch.manual_seed(given.seed)  # every variant's head starts with the same weights
        model = from_backbone(given.backbone, csrm.Layout())
        started = time.perf_counter()
        train_variant(model, variant, material.training, options)
        seconds = round(time.perf_counter() - started, 1)
        line: dict[str, Any] = {"variant": variant, "steps": given.steps, "batch_rows": given.batch_rows}
        line |= {"seed": given.seed, "train_s": seconds}
        line |= {k: round(v, 4) for k, v in judge(model, given.data, rbr_held, material.training.strictness).items()}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
