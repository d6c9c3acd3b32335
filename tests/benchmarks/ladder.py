"""How many probe tokens per cell earn their cost? Short trainings from the same seed, judged on held-out rows.

    python tests/benchmarks/ladder.py DATA_FOLDER BACKBONE --steps 120 >> tests/benchmarks/ladder.jsonl

DATA_FOLDER holds the files of csrm-mini/README.md, "How to retrain". A quarter of rbr_train's prompts is kept
out. Prints one JSON line per number of probes.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from csrm import Layout
from csrm.augmentation import Recipe
from csrm.checkpoint import from_backbone
from csrm.evaluation import cells, figures
from csrm.labelled import holdout, read_labelled
from csrm.training.sampler import TrainingData
from csrm.training.trainer import TrainOptions, make_sampler, train

RECIPE = Recipe(num_configurations=4, num_strictness=0)
TRAIN = ("polyguard_train", "polyguard_cyber_train", "diasafety_train")


def main() -> None:
    """Run the ladder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("backbone")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--batch-rows", type=int, default=32)
    parser.add_argument("--probes", type=int, nargs="+", default=[0, 1, 4])
    options = parser.parse_args()

    def read(name: str) -> list:
        return read_labelled(options.data / f"{name}.jsonl.gz")

    kept, rbr_held = holdout(read("rbr_train"), 0.25)
    rows = [row for name in TRAIN for row in read(name)] + kept
    polyguard = cells.sample(read("polyguard_eval"), 1500, np.random.default_rng(0))
    suites = {
        "polyguard_eval": cells.counterfactual_cells(polyguard, np.random.default_rng(0)),
        "diasafety_eval": cells.own_cells(read("diasafety_eval")),
    }
    for num_probes in options.probes:
        model = from_backbone(options.backbone, Layout(num_probes=num_probes))
        started = time.perf_counter()
        settings = TrainOptions(num_steps=options.steps, batch_rows=options.batch_rows, recipe=RECIPE)
        train(model, make_sampler(model, TrainingData(rows=rows), settings), settings)
        seconds = time.perf_counter() - started
        auroc = {name: figures.evaluate_cells(model, own)["auroc"] for name, own in suites.items()}
        auroc["rbr_held_out"] = float(np.mean(list(figures.per_clause(model, rbr_held).values())))
        line = {"num_probes": num_probes, "steps": options.steps, "batch_rows": options.batch_rows, "seed": 0}
        line |= {"train_s": round(seconds, 1)} | {name: round(value, 4) for name, value in auroc.items()}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
