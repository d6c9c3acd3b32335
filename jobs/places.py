"""Paths and URLs on the command line: with `{date}` in them, and with a store of one's own.

`{date}` is the day that `--date` names, `{date-7}` the one a week before.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeVar

import click

__all__ = ["DATE_META", "Place", "date_option", "endpoint_option", "fill", "read_date"]

_TEMPLATE = re.compile(r"\{date(?:-(\d{1,4}))?\}")
_LIKE_ONE = re.compile(r"\{date\W[^}]*\}")
DATE_META = "csrm.date"
_ENDPOINT = "AWS_ENDPOINT_URL_S3"
Command = TypeVar("Command", bound=Callable[..., Any])


def read_date(text: str, today: date) -> date:
    """The day that `today`, `yesterday` or `2026-11-20` names.

    Raises:
        ValueError: It is none of these.
    """
    named = {"today": today, "yesterday": today - timedelta(days=1)}
    if text in named:
        return named[text]
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
        raise ValueError(text)
    return date.fromisoformat(text)


def fill(place: str, day: date | None) -> str:
    """Put days into a path or URL.

    Raises:
        ValueError: It has a template, and no day was given.
    """

    def shown(match: re.Match[str]) -> str:
        if day is None:
            raise ValueError(f"{place}: which date? give --date yesterday, or a day as in --date 2026-11-20")
        return (day - timedelta(days=int(match[1] or 0))).isoformat()

    filled = _TEMPLATE.sub(shown, place)
    if wrong := _LIKE_ONE.search(filled):
        raise ValueError(f"{place}: {wrong[0]} is neither {{date}} nor {{date-7}}, with up to four digits")
    return filled


class Place(click.Path):
    """A path or URL, in which `{date}` is filled in; shells complete it as a file."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """Check and fill."""
        place = super().convert(value, parameter, context)
        try:
            return fill(str(place), context.meta.get(DATE_META) if context else None)
        except (ValueError, OverflowError) as error:
            self.fail(str(error), parameter, context)


def _note(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    try:
        context.meta[DATE_META] = read_date(value, datetime.now(UTC).date())
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither today, yesterday nor a day as 2026-11-20") from None


def date_option(command: Command) -> Command:
    """Give a command `--date`, which is read before all places."""
    return click.option(
        "--date",
        is_eager=True,
        expose_value=False,
        callback=_note,
        metavar="DAY",
        help="What {date} in a path or URL is: today, yesterday (UTC) or 2026-11-20; {date-7} is a week before.",
    )(command)


def endpoint_option(command: Command) -> Command:
    """Give a command `--s3-endpoint`: as long as it runs, this process and its workers use that store."""
    return click.option(
        "--s3-endpoint",
        expose_value=False,
        callback=_use_endpoint,
        metavar="URL",
        help="S3-compatible store of all s3:// places.  [default: AWS's own]",
    )(command)


def _use_endpoint(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if not value:
        return
    before = os.environ.get(_ENDPOINT)
    os.environ[_ENDPOINT] = value
    context.call_on_close(lambda: _put_back(before))


def _put_back(value: str | None) -> None:
    if value is None:
        os.environ.pop(_ENDPOINT, None)
    else:
        os.environ[_ENDPOINT] = value
