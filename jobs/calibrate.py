"""`csrm calibrate`: make p_safe mean what it says, on labelled cells that the model was not trained on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from csrm.calibration_data import LabelledCells

__all__ = ["calibrate"]


@click.command(
    epilog="\b\nExamples:\n"
    "  csrm calibrate --data held_out.jsonl.gz --output calibrated-model\n"
    "  csrm calibrate --model my-model --data reviewed.jsonl --configurations policies/ --output my-model",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "-m", "--model", type=click.Path(), metavar="DIR", help="Model folder.  [default: the embedded csrm-mini]"
)
@click.option(
    "--data",
    multiple=True,
    required=True,
    type=click.Path(),
    metavar="PATH",
    help="Labelled rows; PATH@SHARE as in evaluate.",
)
@click.option("-o", "--output", required=True, type=click.Path(file_okay=False, path_type=Path), help="Model folder.")
@click.option(
    "-c",
    "--configurations",
    type=click.Path(),
    metavar="PATH",
    help="Configurations that the rows also label; see above.",
)
@click.option(
    "--cells",
    type=click.Choice(["own", "any", "counterfactual"]),
    multiple=True,
    default=["own", "any"],
    show_default=True,
    help="How judgement rows become cells: each clause alone, all as one set, drawn sets with and without it.",
)
@click.option("--split", metavar="NAME", help="Only rows whose `split` field is this.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most N rows of each file.")
@click.option("--min-labels", default=30, show_default=True, type=click.IntRange(2), help="For a line of its own.")
@click.option("--dtype", default="auto", show_default=True, help="auto, float32 or bfloat16.")
@click.option("--seed", default=0, show_default=True, help="Seeds folds, samples and configurations drawn.")
def calibrate(data: tuple[str, ...], output: Path, min_labels: int, seed: int, **options: Any) -> None:
    """Fit temperature and bias to labelled cells, and write the model folder with them.

    One line in log-odds is fitted to all cells. A configuration of --configurations with enough labels gets a line of
    its own, drawn towards the common one the more, the fewer labels it has. Binary rows (`harmful`) label every
    configuration given; judgement rows (`clauses`) label those whose clauses they have labels for.

    Before and after are shown side by side; after is 5-fold cross-fitted by prompt: no cell is judged by a line that
    its own prompt helped to fit. OUTPUT gets the weights unchanged, the new csrm.json, and reliability.png.
    """
    import json

    from rich.console import Console

    import csrm
    from csrm.calibration import fit_configurations
    from csrm.calibration_data import cross_fitted
    from csrm.checkpoint import recalibrate
    from csrm.errors import InputError
    from jobs.reliability_diagram import draw
    from jobs.summary import say

    err = Console(stderr=True)
    with err.status("scoring labelled cells"):
        model = csrm.CSRM.from_pretrained(options["model"], dtype=options["dtype"])
        cells = collect(model, data, options | {"seed": seed})
    before = model.calibration
    try:
        after = fit_configurations(cells.reward, cells.complies, cells.fingerprints, min_labels=min_labels)
        p_after = cross_fitted(cells, seed=seed, min_labels=min_labels)
    except ValueError as error:
        raise InputError(f"{', '.join(data)}: {error}") from None
    p_before = before.p_safe(cells.reward, [key or "" for key in cells.fingerprints])
    recalibrate(options["model"], output, after)
    draw(output / "reliability.png", cells.complies, {"before": p_before, "after (cross-fitted)": p_after})
    record = _record(model.name, cells, after, p_before, p_after)
    err.print(_table(record))
    say(
        err,
        f"wrote {output}: csrm.json with {len(after.configurations)} lines of single configurations, reliability.png",
    )
    click.echo(json.dumps(record))


def collect(model: Any, data: tuple[str, ...], options: dict[str, Any]) -> LabelledCells:
    """Score every file's labelled cells.

    Raises:
        InputError: a file holds neither judgement nor binary rows, or binary rows come without configurations.
    """
    import csrm
    from csrm.calibration_data import LabelledCells, binary_cells, judgement_cells
    from csrm.errors import InputError
    from csrm.labelled import holdout, read_binary, read_json_lines, read_labelled
    from jobs.evaluation_run import choose
    from jobs.train_data import split_share

    configurations = csrm.load_configurations(options["configurations"]) if options["configurations"] else []
    parts = []
    for entry in data:
        path, share = split_share(entry)
        first = next((raw for _, raw in read_json_lines(path)), {})
        settings = {name: options[name] for name in ("split", "limit", "seed")}
        if "clauses" in first:
            rows = read_labelled(path) if share is None else holdout(read_labelled(path), share)[1]
            rows = choose(path, rows, **settings)
            try:
                parts.append(judgement_cells(model, rows, configurations, options["cells"], seed=options["seed"]))
            except ValueError as error:
                raise InputError(f"{path}: {error}") from None
        elif "harmful" in first:
            if not configurations:
                raise InputError(f"{path}: binary rows say nothing of clauses; name what they label: --configurations")
            parts.append(binary_cells(model, choose(path, read_binary(path), **settings), configurations))
        else:
            raise InputError(f"{path}: rows have neither `clauses` nor `harmful`; calibration needs labels")
    return LabelledCells.join(parts)


def _record(name: str, cells: LabelledCells, after: Any, p_before: Any, p_after: Any) -> dict[str, Any]:
    from csrm.calibration_data import calibration_figures

    return {
        "model": name,
        "num_cells": len(cells.reward),
        "share_violating": round(float(1 - cells.complies.mean()), 6),
        "scale": round(after.scale, 6),
        "bias": round(after.bias, 6),
        "num_configurations": len(after.configurations),
        "after_is": "5-fold cross-fitted by prompt",
        "before": calibration_figures(p_before, cells),
        "after": calibration_figures(p_after, cells),
    }


def _table(record: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(f"{record['num_cells']:,} cells")
    for name in ("before", "95 %", "after, cross-fitted", "95 %"):
        table.add_column(name, justify="right")
    for key, name in (("smece", "smECE"), ("ece", "ECE, equal mass"), ("brier", "Brier")):
        row = []
        for side in ("before", "after"):
            low, high = record[side][f"{key}_95"]
            row += [f"{record[side][key]:.4f}", f"{low:.3f}–{high:.3f}"]
        table.add_row(name, *row)
    return table
