"""Print the tables of README.md and of this folder's README.md from recorded runs.

csrm bench > tests/benchmarks/bench.json
csrm evaluate … > tests/benchmarks/evaluation.jsonl
python tests/benchmarks/ablation.py … > tests/benchmarks/ablation.jsonl
python tests/benchmarks/interaction.py … > tests/benchmarks/interaction.jsonl
python tests/benchmarks/tables.py
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def bench_table() -> str:
    """Cost of a matrix by number of configurations."""
    report = json.loads((HERE / "bench.json").read_text())
    lines = [
        "| configurations | cost in plain passes | cells/s | vs pairwise | vs one sequence |",
        "|---:|---:|---:|---:|---:|",
    ]
    for row in report["rows"]:
        engine = row["engine_cells_per_s"]
        lines.append(
            f"| {row['num_configurations']} | {row['engine_plain_passes']:.2f} | {engine:,.0f} "
            f"| {engine / row['pairwise_cells_per_s']:,.0f} × | {engine / row['single_sequence_cells_per_s']:,.0f} × |"
        )
    return "\n".join(lines)


COLUMNS = {
    "AUROC": ("auroc", "mean_auroc"),
    "blind AUROC": ("auroc_blind", "mean_auroc_blind"),
    "smECE": ("smece",),
    "F1 violating": ("f1_violating",),
    "everything violating": ("f1_violating_if_all_violate",),
}


def records(name: str) -> list[dict[str, Any]]:
    """Lines of a recorded run."""
    return [json.loads(line) for line in (HERE / f"{name}.jsonl").read_text().splitlines()]


def plain(value: float | None) -> str:
    """Three decimals without the zero before the point."""
    return "–" if value is None else f"{value:.3f}".replace("0.", ".", 1)


def evaluation_table() -> str:
    """Held-out quality: the suites that judge cells."""
    lines = [f"| file | suite | {' | '.join(COLUMNS)} |", "|---|---|" + "---:|" * len(COLUMNS)]
    for record in records("evaluation"):
        figures = [next((record[key] for key in keys if key in record), None) for keys in COLUMNS.values()]
        if figures[0] is not None:
            cells = " | ".join(map(plain, figures))
            lines.append(f"| {record['file'].split('.')[0]} | {record['suite']} | {cells} |")
    return "\n".join(lines)


def ablation_table() -> str:
    """The recipe with one part taken out."""
    settings = ("variant", "steps", "batch_rows", "seed", "train_s")
    rows = records("ablation")
    names = [key for key in rows[0] if key not in settings]
    return comparison("| |", "|---|", [(f"| {row['variant']} |", row) for row in rows], names)


def interaction_table() -> str:
    """Ways of reading, the cheapest cell first."""
    rows = sorted(records("interaction"), key=lambda row: row["tokens_per_cell"])
    titles = [(f"| {row['contestant']} | {row['tokens_per_cell']:,.0f} |", row) for row in rows]
    return comparison("| reading | tokens per cell |", "|---|---:|", titles, HELD_OUT)


def ladder_table() -> str:
    """Probes per cell."""
    titles = [(f"| {row['num_probes']} |", row) for row in records("ladder")]
    return comparison("| probes |", "|---:|", titles, HELD_OUT)


HELD_OUT = ("polyguard_eval", "diasafety_eval", "rbr_held_out")


def comparison(header: str, rule: str, titled: Sequence[tuple[str, dict[str, Any]]], names: Sequence[str]) -> str:
    """A table of one line per run: its title cells, then its figures of the given names."""
    lines = [f"{header} {' | '.join(names)} |", rule + "---:|" * len(names)]
    lines += [f"{title} {' | '.join(plain(row[name]) for name in names)} |" for title, row in titled]
    return "\n".join(lines)


def night_table() -> str:
    """What a night costs its driver, beside the scoring."""
    lines = [
        "| files | rows each | shards | committed before | seconds | peak MB | index MB | requests of the driver |",
        "|---:|---:|---:|---|---:|---:|---:|---:|",
    ]
    for row in records("night_scale"):
        counts = f"{row['num_files']:,} | {row['rows_per_file']:,} | {row['shards']:,}"
        index = f"{row['index_mb']:.0f}" if "index_mb" in row else "–"
        state = "(listed and counted)" if row["state"] == "listed" else row["state"]
        asked = sum(row["requests"].values())
        lines.append(f"| {counts} | {state} | {row['seconds']:.0f} | {row['peak_mb']:,} | {index} | {asked:,} |")
    return "\n".join(lines)


PAIRS = {"hh eval": "hh_harmless, eval half", "saferlhf_eval": "saferlhf_eval", "rbr": "rbr_train"}
LABELLERS = {
    "adaptive 5": "adaptive 5",
    "random 5": "random 5",
    "all 100": "all",
    "fixed 5 (train)": "fixed 5 (train)",
    "relevance alone": "relevance alone",
    "direct reward": "direct reward",
}


def rules_table() -> str:
    """Share of pairs that rules label as people did."""
    found = {(row["data"], row["labeller"]): row for row in records("rule_labels")}
    titled = [
        (
            f"| {title} ({found[data, 'all']['pairs']:,}) |",
            {name: found[data, labeller]["accuracy"] for name, labeller in LABELLERS.items()},
        )
        for data, title in PAIRS.items()
    ]
    return comparison("| pairs |", "|---|", titled, tuple(LABELLERS))


if __name__ == "__main__":
    tables = (bench_table, evaluation_table, rules_table, ablation_table, interaction_table, ladder_table, night_table)
    print(*(table() for table in tables), sep="\n\n")
