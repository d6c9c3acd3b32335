"""`{date}` in paths: filled in, and refused where nobody says which."""

from datetime import date, timedelta

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from jobs.places import Place, date_option, fill, read_date

DAY = date(2026, 3, 1)


def test_days_have_names():
    assert read_date("today", DAY) == DAY
    assert read_date("yesterday", DAY) == date(2026, 2, 28)
    assert read_date("2024-02-29", DAY) == date(2024, 2, 29)


@pytest.mark.parametrize(
    "text", ["", "tomorrow", "2026-13-01", "2026-02-30", "20260301", "2026-W01-1", "2026-03-01T00:00"]
)
def test_what_is_no_day_is_refused(text):
    with pytest.raises(ValueError):
        read_date(text, DAY)


@given(st.dates(date(2000, 1, 1)), st.integers(0, 9999))
def test_days_before_are_counted(day, number):
    assert fill(f"s3://logs/date={{date-{number}}}/x", day) == f"s3://logs/date={day - timedelta(days=number)}/x"


def test_other_braces_are_left_alone():
    assert fill("a/{date}/{lang}/{{x}}/{dates}", DAY) == "a/2026-03-01/{lang}/{{x}}/{dates}"
    assert fill("a/{lang}", None) == "a/{lang}"


@click.command()
@click.argument("place", type=Place())
@date_option
def shows(place):
    click.echo(place)


def test_a_command_reads_the_day_before_its_places():
    assert CliRunner().invoke(shows, ["in/{date}", "--date", "2026-03-01"]).output == "in/2026-03-01\n"
    missing = CliRunner().invoke(shows, ["in/{date}"])
    assert missing.exit_code == 2
    assert "in/{date}: which date? give --date yesterday" in missing.output
    wrong = CliRunner().invoke(shows, ["in", "--date", "tomorrow"])
    assert wrong.exit_code == 2
    assert "'tomorrow' is neither today, yesterday nor a day" in wrong.output


def test_a_nightly_run_is_idempotent(score, in_process, tmp_path):
    """The same command on the same day finds everything scored; the next day is another matrix."""
    for day in ("2026-02-28", "2026-03-01"):
        (tmp_path / f"date={day}").mkdir()
        (tmp_path / f"date={day}" / "a.jsonl").write_text('{"text": "hello bank"}\n')
    nightly = {"output": tmp_path / "out" / "{date}"}
    assert score("date={date}", "--date", "2026-03-01", **nightly).exit_code == 0
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*.parquet")}
    again = score("date={date}", "--date", "2026-03-01", **nightly)
    assert again.exit_code == 0
    assert "everything was scored already" in again.stderr
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*.parquet")} == before
    assert score("date={date-1}", "--date", "2026-03-01", output=tmp_path / "out" / "{date-1}").exit_code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["2026-02-28", "2026-03-01"]
    missing = score("date={date}", **nightly)
    assert missing.exit_code == 2
    assert "give --date yesterday" in missing.stderr


@pytest.mark.parametrize("place", ["a/{date-99999}", "a/{date+1}", "a/{date:%Y}"])
def test_what_only_looks_like_a_date_is_refused(place):
    with pytest.raises(ValueError, match="is neither"):
        fill(place, DAY)
