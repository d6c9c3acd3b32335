"""Print the README's tables from recorded runs.

csrm bench > tests/benchmarks/bench.json
csrm evaluate … > tests/benchmarks/evaluation.jsonl
python tests/benchmarks/tables.py
"""

from __future__ import annotations

import json
from pathlib import Path

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


def evaluation_table() -> str:
    """Held-out quality."""
    lines = ["| file | suite | AUROC | blind AUROC | F1 violating | F1 complying |", "|---|---|---:|---:|---:|---:|"]
    for line in (HERE / "evaluation.jsonl").read_text().splitlines():
        row = json.loads(line)
        figures = [row.get("auroc", row.get("mean_auroc")), row.get("auroc_blind")]
        figures += [row.get("f1_violating"), row.get("f1_complying")]
        cells = ["–" if value is None else f"{value:.3f}".removeprefix("0") for value in figures]
        lines.append(f"| {row['file'].split('.')[0]} | {row['suite']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(bench_table(), evaluation_table(), sep="\n\n")
