"""`csrm demo`: `csrm score` on the sample that comes with the package."""

from __future__ import annotations

from pathlib import Path

import click

import csrm
from jobs.score import execute

__all__ = ["SAMPLE_CONFIGURATIONS", "SAMPLE_CONVERSATIONS", "demo"]

SAMPLE_CONVERSATIONS = Path(csrm.__file__).parent / "sample" / "conversations.jsonl"
SAMPLE_CONFIGURATIONS = Path(csrm.__file__).parent / "sample" / "configurations"


@click.command()
@click.option(
    "-o",
    "--output",
    default="runs/demo",
    show_default=True,
    type=click.Path(),
    metavar="DIR",
    help="Folder for the matrix.",
)
@click.option("--overwrite", is_flag=True, help="Replace what an earlier run wrote to the output folder.")
def demo(output: str, overwrite: bool) -> None:
    """Score the bundled sample conversations under the bundled safety configurations.

    \b
    Example:
      csrm demo --output runs/demo
    """
    settings = {
        "input": str(SAMPLE_CONVERSATIONS),
        "configurations": str(SAMPLE_CONFIGURATIONS),
        "output": output,
        "id_column": "id",
        "explain": True,
        "overwrite": overwrite,
    }
    execute(settings)
