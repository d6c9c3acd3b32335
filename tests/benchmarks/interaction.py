"""What does the matrix layout give up, and what does it buy? Six ways of reading, same data, seed and steps.

    python tests/benchmarks/interaction.py DATA_FOLDER BACKBONE --steps 150 >> tests/benchmarks/interaction.jsonl
    python tests/benchmarks/interaction.py --plot

From the most interaction between text and rules to the least: a pairwise cross-encoder (one pass per cell), one
sequence that holds the text and all clauses (as GLiGuard does, arXiv 2605.07982), probe tokens alone, pooled pairs with
probes, pooled pairs alone. DATA_FOLDER holds the files of csrm-mini/README.md, "How to retrain". Prints one JSON
line per contestant: AUROC on held-out rows, and the backbone tokens that a cell costs where every record of 256 tokens
meets 64 configurations of four clauses of 40 tokens.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from csrm import Layout
from csrm.augmentation import Recipe, sample_batch
from csrm.batch import Batch
from csrm.cells import batch_reward
from csrm.checkpoint import from_backbone
from csrm.clause_library import ClauseLibrary
from csrm.evaluation.cells import Cells, counterfactual_cells, own_cells, sample
from csrm.evaluation.metrics import auroc
from csrm.labelled import holdout, read_labelled
from csrm.training.objective import classification_loss
from csrm.training.trainer import make_library, mixed_precision

HERE = Path(__file__).parent
TRAIN = ("polyguard_train", "polyguard_cyber_train", "diasafety_train")
WINDOW = 512
RECORDS, CONVERSATION, CONFIGURATIONS, CLAUSES, CLAUSE = 1000, 256, 64, 4, 40
"""The matrix whose tokens per cell are counted."""


class Matrix(nn.Module):
    """The matrix layout, with or without its pooled pairs."""

    def __init__(self, backbone: str, num_probes: int, *, pairs: bool = True):
        super().__init__()
        self.model = from_backbone(backbone, Layout(num_probes=num_probes))
        if not pairs:
            # Pairs that always say the same leave the probes alone to tell cells apart.
            nn.init.zeros_(self.model.clause_evidence.output.weight)
            self.model.clause_evidence.requires_grad_(False)
        if num_probes:
            nn.init.normal_(self.model.probe_evidence.output.weight, std=0.02)
        self.tokens_per_cell = (
            CONVERSATION / CONFIGURATIONS + CLAUSES * CLAUSE / RECORDS + num_probes  # clauses: once for all records
        )

    def reward(self, batch: Batch) -> Tensor:
        """(R, K) log-odds of compliance."""
        return batch_reward(self.model, batch)[0]


class Stock(nn.Module):
    """A stock encoder over padded sequences, with its own full attention."""

    def __init__(self, backbone: str):
        super().__init__()
        source = from_backbone(backbone, Layout())
        self.encoder, self.backbone = source.encoder, source.backbone
        self.backbone.set_attn_implementation("sdpa")
        self.output = nn.Linear(self.backbone.config.hidden_size, 1)

    def hidden(self, sequences: Sequence[list[int]]) -> Tensor:
        """Last hidden states of padded sequences, (B, T, E)."""
        longest = max(map(len, sequences))
        ids = torch.zeros(len(sequences), longest, dtype=torch.long)
        for b, sequence in enumerate(sequences):
            ids[b, : len(sequence)] = torch.tensor(sequence)
        mask = torch.arange(longest) < torch.tensor([len(sequence) for sequence in sequences])[:, None]
        hidden: Tensor = self.backbone(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return hidden

    def read(self, batch: Batch) -> tuple[list[list[int]], list[list[int]]]:
        """Token ids of each conversation's last window and of each clause."""
        encoded = self.encoder.encode([row.conversation for row in batch.rows])
        last = np.cumsum(encoded.windows_per_record) - 1
        windows = encoded.windows()
        return [windows[w].tolist() for w in last], self.encoder.encode_clauses([c.text for c in batch.clauses])


class Pairwise(Stock):
    """One pass per cell over "configuration [SEP] conversation"; the first token's state is read."""

    tokens_per_cell = float(CONVERSATION + CLAUSES * CLAUSE)

    def reward(self, batch: Batch) -> Tensor:
        """(R, K) log-odds of compliance."""
        conversations, clauses = self.read(batch)
        sequences = []
        for r, k in np.ndindex(*batch.index_RKM.shape[:2]):
            members = [clauses[c][1:] for c in batch.index_RKM[r, k] if c < len(clauses)]
            rules = [token for member in members for token in member][: WINDOW // 2]
            sequences.append([conversations[r][0], *rules, *conversations[r][1:][-(WINDOW - 1 - len(rules)) :]])
        order = sorted(range(len(sequences)), key=lambda s: len(sequences[s]))
        states = [self.hidden([sequences[s] for s in order[b : b + 16]])[:, 0] for b in range(0, len(order), 16)]
        logits = self.output(torch.cat(states).float()).squeeze(-1)
        return -logits[torch.from_numpy(np.argsort(order))].view(batch.complies_RK.shape)


class OneSequence(Stock):
    """A conversation followed by all the clauses that its cells ask for; each clause's mean state gives its logit."""

    tokens_per_cell = -(-CONFIGURATIONS * CLAUSES * CLAUSE // (WINDOW - CONVERSATION)) * WINDOW / CONFIGURATIONS

    def reward(self, batch: Batch) -> Tensor:
        """(R, K) log-odds of compliance."""
        conversations, clauses = self.read(batch)
        never = len(clauses)
        logits_RC = torch.full((len(batch.rows), never + 1), -torch.inf)
        for r, conversation in enumerate(conversations):
            wanted = [c for c in np.unique(batch.index_RKM[r]).tolist() if c < never]
            logits_RC = logits_RC.index_put(
                (torch.tensor([r]), torch.tensor(wanted)),
                self.clause_logits(conversation, [clauses[c] for c in wanted]),
            )
        index = torch.from_numpy(batch.index_RKM)
        rows = torch.arange(len(index))[:, None, None]
        return -logits_RC[rows, index].logsumexp(-1)

    def clause_logits(self, conversation: list[int], clauses: Sequence[list[int]]) -> Tensor:
        """Log-odds of violation of each clause, in as many sequences as the window asks for."""
        text = [conversation[0], *conversation[1:][-(WINDOW // 2 - 1) :]]
        sequences: list[list[int]] = []
        spans: list[tuple[int, int, int]] = []
        for clause in clauses:
            if not sequences or len(sequences[-1]) + len(clause) - 1 > WINDOW:
                sequences.append(list(text))
            start = len(sequences[-1])
            sequences[-1] += clause[1:]
            spans.append((len(sequences) - 1, start, len(sequences[-1])))
        hidden = self.hidden(sequences).float()
        pooled = torch.stack([hidden[s, start:end].mean(0) for s, start, end in spans])
        return self.output(pooled).squeeze(-1).float()


CONTESTANTS: dict[str, Callable[[str], Any]] = {
    "pooled pairs": lambda backbone: Matrix(backbone, 0),
    "pooled pairs + 1 probe": lambda backbone: Matrix(backbone, 1),
    "pooled pairs + 4 probes": lambda backbone: Matrix(backbone, 4),
    "1 probe alone": lambda backbone: Matrix(backbone, 1, pairs=False),
    "one sequence": OneSequence,
    "pairwise cross-encoder": Pairwise,
}


def train(contestant: Any, rows: Sequence[Any], library: ClauseLibrary, steps: int, batch_rows: int) -> None:
    """Classification on the same batches for everyone; two learning rates, warm-up and cosine."""
    groups: dict[bool, list[Tensor]] = {True: [], False: []}
    for name, parameter in contestant.named_parameters():
        groups["backbone." in name].append(parameter)
    optimiser = torch.optim.AdamW(
        [{"params": groups[True], "lr": 1e-4}, {"params": groups[False], "lr": 1e-3}], weight_decay=0.01
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, [1e-4, 1e-3], total_steps=steps, pct_start=0.05)
    recipe = Recipe(num_configurations=4, max_clauses=6, restyled_share=0, mixed_share=0, num_strictness=0)
    sizes = dict(zip(*np.unique([row.domain for row in rows], return_counts=True), strict=True))
    weights = np.array([sizes[row.domain] ** -0.5 for row in rows])
    for step in range(steps):
        rng = np.random.default_rng([0, step])
        chosen = rng.choice(len(rows), size=batch_rows, replace=False, p=weights / weights.sum())
        batch = sample_batch([rows[r] for r in chosen], library, rng, recipe)
        with mixed_precision(torch.device("cpu")):
            reward = contestant.reward(batch)
        classification_loss(reward.float(), torch.from_numpy(batch.complies_RK)).backward()
        torch.nn.utils.clip_grad_norm_(contestant.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad(set_to_none=True)


@torch.inference_mode()
def rewards(contestant: Any, cells: Cells) -> np.ndarray:
    """Rewards of cells, one configuration per row."""
    values = []
    for start in range(0, len(cells.rows), 32):
        own = cells.clauses[start : start + 32]
        clauses = list(dict.fromkeys(clause for members in own for clause in members))
        index = np.full((len(own), 1, max(map(len, own))), len(clauses))
        for r, members in enumerate(own):
            index[r, 0, : len(members)] = [clauses.index(clause) for clause in members]
        batch = Batch(cells.rows[start : start + 32], clauses, index, np.ones((len(own), 1), bool))
        with mixed_precision(torch.device("cpu")):
            values.append(contestant.reward(batch)[:, 0].float().numpy())
    return np.concatenate(values)


def suites(read: Callable[[str], list], rbr_held: list) -> dict[str, Cells]:
    """Held-out cells, samples where a file is long: a cross-encoder reads each cell for itself."""
    rng = np.random.default_rng(0)
    return {
        "polyguard_eval": counterfactual_cells(sample(read("polyguard_eval"), 800, rng), np.random.default_rng(0)),
        "diasafety_eval": own_cells(read("diasafety_eval")),
        "rbr_held_out": own_cells(sample(rbr_held, 60, rng)),
    }


def judge(contestant: Any, name: str, cells: Cells) -> float:
    """AUROC; on rbr, whose clauses differ in how often they are violated, the mean over clauses."""
    reward, violates = rewards(contestant, cells), ~np.array(cells.complies)
    if name != "rbr_held_out":
        return auroc(-reward, violates)
    categories = np.array([clauses[0].category for clauses in cells.clauses])
    values = [auroc(-reward[categories == c], violates[categories == c]) for c in np.unique(categories)]
    return float(np.nanmean(values))


def plot(source: Path, target: Path) -> None:
    """Cost against AUROC, a panel per suite."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = [json.loads(line) for line in source.read_text().splitlines()]
    lines.sort(key=lambda line: line["tokens_per_cell"])
    names = ["polyguard_eval", "diasafety_eval", "rbr_held_out"]
    figure, axes = pyplot.subplots(1, 3, figsize=(11, 4), layout="constrained")
    for axis, suite in zip(axes, names, strict=True):
        for line, marker in zip(lines, "osD^vP", strict=False):
            color = "tab:blue" if "pooled" in line["contestant"] else "tab:gray"
            axis.scatter(
                line["tokens_per_cell"], line[suite], s=70, marker=marker, color=color, label=line["contestant"]
            )
        axis.set(title=suite, xscale="log", xlabel="backbone tokens per cell", xlim=(2, 1000))
        axis.margins(y=0.1)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("AUROC")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(target, dpi=110)


def main() -> None:
    """Train and judge the contestants, or plot what was recorded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("backbone", nargs="?")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch-rows", type=int, default=32)
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--plot", action="store_true")
    options = parser.parse_args()
    if options.plot:
        plot(HERE / "interaction.jsonl", HERE / "interaction.png")
        return

    def read(name: str) -> list:
        return read_labelled(options.data / f"{name}.jsonl.gz")

    kept, rbr_held = holdout(read("rbr_train"), 0.25)
    rows = [row for name in TRAIN for row in read(name)] + kept
    rows = [row for row in rows if sum(len(message.content) for message in row.conversation) <= 4000]
    library = make_library(from_backbone(options.backbone, Layout()), rows)
    held_out = suites(read, rbr_held)
    for name in options.only:
        torch.manual_seed(0)
        contestant = CONTESTANTS[name](options.backbone).eval()
        started = time.perf_counter()
        train(contestant, rows, library, options.steps, options.batch_rows)
        line = {"contestant": name, "steps": options.steps, "batch_rows": options.batch_rows, "seed": 0}
        line |= {"train_s": round(time.perf_counter() - started, 1), "tokens_per_cell": contestant.tokens_per_cell}
        line |= {suite: round(judge(contestant, suite, cells), 4) for suite, cells in held_out.items()}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
