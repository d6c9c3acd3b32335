"""The `csrm` command."""

from __future__ import annotations

from typing import Any

import click

import csrm
from csrm.errors import CSRMError
from jobs.bench import bench
from jobs.calibrate import calibrate
from jobs.completion import completion
from jobs.configurations import configurations
from jobs.demo import demo
from jobs.evaluate import evaluate
from jobs.filter.command import filter_records
from jobs.jobs_command import jobs_group
from jobs.pairs.command import pairs
from jobs.report.command import report
from jobs.rules.command import rules
from jobs.score import score
from jobs.strictness import strictness
from jobs.submit import submit
from jobs.train import train

__all__ = ["cli", "main"]

MAX_MESSAGE = 4000
"""Characters of an error that are shown."""


class OneLineError(click.ClickException):
    """A user's mistake: one line that says what to mend, exit code 2, no traceback."""

    exit_code = 2


class Commands(click.Group):
    """A group whose commands end in one line where the user can mend what went wrong."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except CSRMError as error:
            raise _one_line(str(error)) from None
        except click.UsageError as error:
            raise _one_line(f"{error.format_message()} ({error.ctx and error.ctx.command_path} -h)") from None


def _one_line(message: str) -> OneLineError:
    from jobs.summary import printable

    return OneLineError(printable(message, MAX_MESSAGE))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(csrm.__version__)
def cli() -> None:
    """Score every conversation against every safety policy."""


# Commands import what they need when they run, so that help is quick.
cli.add_command(score)
cli.add_command(demo)
cli.add_command(strictness)
cli.add_command(train)
cli.add_command(calibrate)
cli.add_command(evaluate)
cli.add_command(bench)
cli.add_command(configurations)
cli.add_command(filter_records)
cli.add_command(report)
cli.add_command(pairs)
cli.add_command(rules)
cli.add_command(submit)
cli.add_command(jobs_group)
cli.add_command(completion)


def main() -> None:
    """Run the command line."""
    cli(prog_name="csrm")
