"""`csrm demo`: `csrm score` on the sample that comes with the package."""

from __future__ import annotations

import click

from jobs.score import execute

__all__ = ["demo"]


@click.command()
@click.option("-o", "--output", default="runs/demo", show_default=True, metavar="DIR", help="Folder for the matrix.")
@click.option("--overwrite", is_flag=True, help="Replace what an earlier run wrote to the output folder.")
def demo(output: str, overwrite: bool) -> None:
    """Score the bundled sample conversations under the bundled safety configurations.

    \b
    Example:
      csrm demo --output runs/demo
    """
    from importlib.resources import files

    sample = files("csrm") / "sample"
    settings = {
        "input": str(sample / "conversations.jsonl"),
        "configurations": str(sample / "configurations"),
        "output": output,
        "id_column": "id",
        "explain": True,
        "overwrite": overwrite,
    }
    execute(settings)
