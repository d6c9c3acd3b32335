"""What `csrm rules train-adapter` does: read, run on Ray Train, measure recall on what was kept out, write.

Shape letters: P pairs, K rules of the pool, k rules of a pair.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from csrm.checkpoint import resolve_device, resolve_dtype
from csrm.configurations import Configuration
from csrm.errors import InputError
from csrm.labelled import PreferenceRow, hashed_draw
from csrm.model import CSRM
from csrm.model_folder import EMBEDDED_MODEL
from csrm.rule_adapter import RuleSampler, critical
from csrm.rule_selection import choose
from csrm.rules import POOL, as_rules
from csrm.training.options import TrainOptions
from csrm.training.state import load_weights
from jobs.local_copies import load_configurations
from jobs.pipeline import cluster
from jobs.rules.labels import Origin, read_rule_sets
from jobs.rules.worker import ADAPTER
from jobs.summary import say
from jobs.train_data import file_facts
from jobs.train_report import follow, summarise
from jobs.train_run import claim, fit, write_model
from jobs.train_worker import Plan, Start, build_model, named_backbone

__all__ = ["measure_recall", "run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSets:
    """Pairs with the rules that were chosen of each."""

    pairs: list[PreferenceRow]
    chosen_PK: NDArray[np.bool_]

    def take(self, keep_P: NDArray[np.bool_]) -> RuleSets:
        """Some of the pairs."""
        return RuleSets(pairs=[self.pairs[p] for p in np.flatnonzero(keep_P)], chosen_PK=self.chosen_PK[keep_P])


def run(
    *,
    labels: Sequence[str],
    output: Path,
    rules: str | None,
    backbone: str | None,
    name: str,
    holdout: float,
    holdout_rules: int,
    seed: int,
    steps: int,
    resume: bool,
    num_workers: int,
    use_gpu: bool,
    max_failures: int,
    save_every: int,
    strategy: Any,
    max_characters: int,
    **settings: Any,
) -> None:
    """Run the command; see its options for the arguments."""
    console = Console(stderr=True)
    pool = as_rules(load_configurations(rules or str(POOL)))
    sets = _read(labels, pool, max_characters)
    is_held_P = np.array([_draw(pair) < holdout for pair in sets.pairs], bool)
    is_unseen_K = _unseen(len(pool), holdout_rules, seed)
    training = sets.take(~is_held_P)
    if not training.pairs:
        raise InputError("nothing is left to train on; see --holdout and --max-characters")
    say(
        console,
        f"{len(training.pairs):,} pairs and {int((~is_unseen_K).sum())} rules to train on; "
        f"{int(is_held_P.sum()):,} pairs and {int(is_unseen_K.sum())} rules kept out",
    )
    start = Start(backbone=named_backbone(backbone or str(EMBEDDED_MODEL)), name=name, seed=seed)
    options = TrainOptions(num_steps=steps, seed=seed, max_characters=max_characters, **settings)
    files = [file_facts(path) for path in labels]
    own = {"start": asdict(start), "options": asdict(options), "files": files, "holdout": holdout}
    own |= {"rules": [rule.fingerprint for rule in pool], "holdout_rules": holdout_rules}
    folder = claim(output, own, resume=resume)
    log = folder / "train.jsonl"
    sampler = _sampler(training, pool, is_unseen_K, options)
    with cluster():
        plan = Plan(
            start=start,
            options=options,
            source=_shared(sampler, start),
            log=str(log.absolute()),
            save_every=save_every,
            strategy=strategy,
        )
        with follow(log, options.num_steps, console):
            checkpoint = fit(plan, folder, num_workers=num_workers, use_gpu=use_gpu, max_failures=max_failures)
    adapter = _finished(start, checkpoint)
    recalls = measure_recall(adapter, sets.take(is_held_P), pool, is_unseen_K)
    report = summarise(log) | {"recall": recalls}
    adapter.facts = {
        "kind": ADAPTER,
        "data": files,
        "options": own["options"],
        "recall": recalls,
        "unseen_rules": [rule.id for rule, unseen in zip(pool, is_unseen_K, strict=True) if unseen],
    }
    texts = {"train.json": json.dumps(report, indent=2) + "\n", log.name: log.read_text(encoding="utf-8")}
    write_model(adapter.to("cpu"), output, texts)
    shutil.rmtree(folder)
    shown = " · ".join(f"{what} {value:.3f}" for what, value in recalls.items() if value is not None)
    say(console, f"{report['steps']:,} steps · recall on held-out pairs: {shown or 'not measured'}")
    say(console, f"wrote {output}")


def _sampler(
    sets: RuleSets, pool: Sequence[Configuration], is_unseen_K: NDArray[np.bool_], options: TrainOptions
) -> RuleSampler:
    """What draws batches of pairs × the rules that are trained on."""
    seen = np.flatnonzero(~is_unseen_K)
    clauses = [pool[rule].clauses[0] for rule in seen]
    return RuleSampler(sets.pairs, clauses, sets.chosen_PK[:, seen], batch_rows=options.batch_rows, seed=options.seed)


def _shared(sampler: RuleSampler, start: Start) -> Any:
    """What draws and tokenises, in Ray's object store."""
    import ray

    return ray.put((sampler, build_model(start).encoder))


def measure_recall(
    adapter: CSRM, sets: RuleSets, pool: Sequence[Configuration], is_unseen_K: NDArray[np.bool_]
) -> dict[str, float | None]:
    """Share of the chosen rules that are among as many with the largest criticality.

    Returns:
        Of all rules, of those trained on and of the others, each looked for among the whole pool, and by chance; None
        where there is nothing to look for.
    """
    if not sets.pairs:
        return {"all": None, "seen": None, "unseen": None, "chance": None}
    num_rules = int(sets.chosen_PK[0].sum())
    named_PK = np.zeros_like(sets.chosen_PK)
    np.put_along_axis(named_PK, choose(critical(adapter, sets.pairs, pool), num_rules), True, axis=1)
    found_PK = named_PK & sets.chosen_PK

    def share(columns_K: NDArray[np.bool_]) -> float | None:
        num_chosen = int(sets.chosen_PK[:, columns_K].sum())
        return int(found_PK[:, columns_K].sum()) / num_chosen if num_chosen else None

    everything = np.ones_like(is_unseen_K)
    shares = {"all": share(everything), "seen": share(~is_unseen_K), "unseen": share(is_unseen_K)}
    return shares | {"chance": num_rules / len(pool)}


def _read(labels: Sequence[str], pool: Sequence[Configuration], max_characters: int) -> RuleSets:
    """Pairs of files of labels, as rules of the pool.

    Raises:
        InputError: A file cannot be read, names a rule that is not in the pool, or has other numbers of rules.
    """
    place = {rule.id: number for number, rule in enumerate(pool)}
    pairs, chosen = [], []
    for path in labels:
        _check_origin(path, pool)
        for pair, rules in read_rule_sets(path):
            if unknown := [rule for rule in rules if rule not in place]:
                raise InputError(f"{path}: rule {unknown[0]!r} is not in the pool; give --rules as they were rated on")
            if sum(map(len, (pair.chosen, pair.rejected, *(m.content for m in pair.conversation)))) <= max_characters:
                pairs.append(pair)
                chosen.append([place[rule] for rule in rules])
    if len({len(own) for own in chosen}) > 1:
        raise InputError(f"{', '.join(map(str, labels))}: pairs with different numbers of rules; train on one --top-k")
    chosen_PK = np.zeros((len(pairs), len(pool)), bool)
    if pairs:
        np.put_along_axis(chosen_PK, np.array(chosen), True, axis=1)
    return RuleSets(pairs=pairs, chosen_PK=chosen_PK)


def _check_origin(path: str, pool: Sequence[Configuration]) -> None:
    """Raise where an adapter made labels, which would learn from itself, or a rule was rated under another text."""
    origin = None if "://" in path else Origin.of(path)
    if origin is None:
        return
    if origin.adapter is not None:
        raise InputError(f"{path}: an adapter named these rules; learn from labels that rate all, of csrm rules select")
    for rule in pool:
        if origin.rules.get(rule.id, rule.fingerprint) != rule.fingerprint:
            raise InputError(f"{path}: rule {rule.id!r} had another text; give --rules as they were rated on")


def _draw(pair: PreferenceRow) -> float:
    """A number in [0, 1) that is a function of a pair's prompt, or of its replies where it has none."""
    return hashed_draw(*([m.content for m in pair.conversation] or sorted((pair.chosen, pair.rejected))))


def _unseen(num_rules: int, num_unseen: int, seed: int) -> NDArray[np.bool_]:
    """Which rules are not trained on."""
    if num_unseen >= num_rules:
        raise InputError(f"--holdout-rules {num_unseen}: the pool has {num_rules}; leave some to train on")
    is_unseen_K = np.zeros(num_rules, bool)
    is_unseen_K[np.random.default_rng(seed).choice(num_rules, num_unseen, replace=False)] = True
    return is_unseen_K


def _finished(start: Start, checkpoint: Path) -> CSRM:
    """The trained adapter, rounded as it will be written."""
    import torch

    adapter = build_model(start)
    load_weights(adapter, checkpoint)
    device = resolve_device("auto")
    return adapter.to(torch.bfloat16).to(device, resolve_dtype("auto", device))
